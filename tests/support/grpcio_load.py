"""Channels of grpcio under mixed load, without a retry policy: ``python -m tests.support.grpcio_load ADDRESS CHANNELS``.

Says "running" when every channel has had its first answer; goes on until a line comes in; then prints one JSON object: calls that were good, and
the failures. A program of its own, because grpcio does not bear being forked.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import grpc

from tests.support.grpc_echo import NAME, Reply, Request

PAUSE = 0.02


class Load:
    def __init__(self, address: str) -> None:
        self.address = address
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.done = {"unary": 0, "stream": 0}
        self.failed: dict[str, list[str]] = {"unary": [], "stream": []}

    def note(self, kind: str, why: str = "") -> None:
        with self.lock:
            if why:
                self.failed[kind].append(why)
            else:
                self.done[kind] += 1

    def run(self, number: int, ready: threading.Barrier) -> None:
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            codecs = {"request_serializer": Request.SerializeToString, "response_deserializer": Reply.FromString}
            say = channel.unary_unary(f"/{NAME}/Say", **codecs)
            chat = channel.stream_stream(f"/{NAME}/Chat", **codecs)
            say(Request(), wait_for_ready=True, timeout=60)
            ready.wait()
            turn = number
            while not self.stop.is_set():
                turn += 1
                kind = "stream" if turn % 4 == 0 else "unary"
                try:
                    if kind == "stream":
                        found = [each.count for each in chat(slowly(10), timeout=60)]
                        self.note(kind, "" if found == list(range(10)) else f"answers {found}")
                    else:
                        text = f"{number} {turn}"
                        reply = say(Request(message=text), timeout=60)
                        self.note(kind, "" if reply.message == text else f"{reply.message!r} for {text!r}")
                except grpc.RpcError as error:
                    self.note(kind, f"{error.code().name}: {error.details()}")
                time.sleep(PAUSE)


def slowly(count: int):  # type: ignore[no-untyped-def]
    for number in range(count):
        yield Request(count=number)
        time.sleep(PAUSE)


def main(address: str, channels: int) -> None:
    load = Load(address)
    ready = threading.Barrier(channels + 1)
    threads = [threading.Thread(target=load.run, args=(number, ready), daemon=True) for number in range(channels)]
    for thread in threads:
        thread.start()
    ready.wait(120)
    print("running", flush=True)
    sys.stdin.readline()
    load.stop.set()
    for thread in threads:
        thread.join(120)
    print(json.dumps({"done": load.done, "failed": {kind: [len(why), *why[:5]] for kind, why in load.failed.items()}}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
