"""Streams of a Thrift service, all three kinds, server and client in one program.

    weego gen examples/talk/talk.thrift -o examples/talk/gen
    python examples/talk/run.py
"""

from __future__ import annotations

from collections.abc import Iterator

from gen.talk import Reply, Request, Talk, TalkClient

from weego import Server


class TalkService(Talk):
    """Counts, adds up and answers."""

    def watch(self, req: Request) -> Iterator[Reply]:
        for number in range(req.count):
            yield Reply(message=req.message, count=number)

    def collect(self, req: Iterator[Request]) -> Reply:
        return Reply(count=sum(each.count for each in req))

    def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
        for each in req:
            yield Reply(message=each.message.upper())


def main() -> None:
    """Serve, and talk to it."""
    with Server([TalkService()], listen="tcp://127.0.0.1:0") as server, TalkClient(server.addresses[0], timeout=5) as talk:
        print("watch:", [reply.count for reply in talk.watch(Request(count=5))])
        with talk.collect() as sending:
            for number in range(10):
                sending.send(Request(count=number))
            print("collect:", sending.result().count)
        with talk.chat() as stream:
            for word in ("hello", "world"):
                stream.send(Request(message=word))
                print("chat:", next(stream).message)


if __name__ == "__main__":
    main()
