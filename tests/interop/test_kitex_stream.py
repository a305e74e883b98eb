"""TTHeaderStreaming between weego and Kitex, built from its own sources, in both directions, and the bytes that Kitex writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import kitex_stream
from tests.support.service import App, Server

# The first test waits for the build; what may hang has its own bound.
pytestmark = pytest.mark.timeout(600)

# The service that kitex_stream/main.go has, too.
SERVICE_CODE = """\
import weego
from gen.talk import Refused, Reply, Request, Talk, TalkClient


class Service(Talk):
    def __init__(self) -> None:
        self.ends = []

    def say(self, req):
        if req.action == "ends":
            return Reply(message="\\n".join(self.ends), count=len(self.ends))
        return Reply(message=req.message, body=req.body)

    def act(self, req):
        call = weego.current()
        if req.action == "fail":
            raise RuntimeError(req.message)
        if req.action == "refuse":
            raise weego.BusinessError(4711, req.message, {"shelf": "7"})
        if req.action == "declared":
            raise Refused(why=req.message, code=7)
        if req.action == "metadata":
            call.send_metadata["head"] = "ключ"
            call.trailers["tail"] = "t"

    def note(self, error):
        self.ends.append(f"{type(error).__name__} {error.reason} {' -> '.join(error.path)}")

    def facts(self):
        facts = {"caller": weego.current().caller}
        facts |= {"transient " + name: value for name, value in weego.metainfo.get_all().items()}
        return facts | {"persistent " + name: value for name, value in weego.metainfo.get_all_persistent().items()}

    def watch(self, req):
        try:
            for number in range(req.count):
                yield Reply(message=req.message, body=req.body, count=number)
            if req.action == "linger":
                import time

                time.sleep(60)
            self.act(req)
        except weego.Cancelled as error:
            self.note(error)
            raise

    def collect(self, requests):
        count, size, last = 0, 0, ""
        for req in requests:
            self.act(req)
            count += 1
            size += len(req.body)
            last = req.message
        return Reply(message=f"{size} {last}", count=count)

    def chat(self, requests):
        try:
            for req in requests:
                self.act(req)
                if req.action == "relay":
                    with TalkClient(req.message) as behind, behind.chat() as stream:
                        stream.send(Request(message="on"))
                        yield Reply(message=next(stream).message)
                        for each in stream:
                            yield each
                yield Reply(message=req.message, body=req.body, count=req.count, facts=self.facts() if req.action == "facts" else {})
        except weego.Cancelled as error:
            self.note(error)
            raise
"""

# Run by tests of their own.
OTHER_CHECKS = ["cascade", "abandoned", "steady"]
CHECKS = [
    "say",
    "watch",
    "collect",
    "chat",
    "empty",
    "large",
    "many",
    "crossing",
    "metadata",
    "metainfo",
    "failure",
    "business",
    "declared",
    "unknown-method",
    "unreadable",
    "cancel",
    "timeout",
]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Before anything else is started, or a skip with the reason."""
    kitex_stream.talk()


@pytest.fixture(scope="module")
def kitex_server() -> Iterator[str]:
    with kitex_stream.server() as address:
        yield address


@pytest.fixture(scope="module")
def weego_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    app = App(tmp_path_factory.mktemp("kitex") / "app", idl=kitex_stream.IDL.read_text(), idl_name="talk.thrift", code=SERVICE_CODE)
    with app.serve(allow=[": the handler failed"]) as server:
        yield server


# ---- Kitex calls weego -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_kitex_calls_weego(weego_server: Server, check: str) -> None:
    kitex_stream.call(weego_server.address, check)


def test_all_checks_of_the_kitex_client_are_run() -> None:
    assert sorted(kitex_stream.checks()) == sorted(CHECKS + OTHER_CHECKS)
