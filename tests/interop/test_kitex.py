"""weego and Kitex, built from its own sources, call each other: buffered, framed, TTHeader, and TTHeader around a frame."""

from __future__ import annotations

import importlib
import math
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from codec import ttheader
from codec.buffer import WriteBuffer
from codec.errors import ApplicationError, BusinessError, DeadlineExceeded, UnknownMethod, UnknownService
from codec.thrift import HEARTBEAT_CALL, ThriftClientProtocol, ThriftServerProtocol
from codec.ttheader import IntKey
from tests.support import kitex
from tests.support.net import Peer
from tests.support.processes import Process
from tests.support.service import App, Server, generate, until

# The first test waits for the build; what may hang has its own bound.
pytestmark = pytest.mark.timeout(600)

FRAMINGS = ["buffered", "framed", "ttheader", "ttheader-framed"]
HEADED = ["ttheader", "ttheader-framed"]
# TTHeader with many calls at a time on each connection.
SHARED = "ttheader-shared"
CALLS = 10_000
IN_FLIGHT = 64
MEGABYTE = 1 << 20

# The service that kitex/server.go has, too.
SERVICE_CODE = """\
import time

import weego
from gen.conversation import Conversation, Denied, Every, NotFound, Point, Request, Response


class Service(Conversation):
    def __init__(self) -> None:
        self.count = self.expired = 0

    def echo(self, req: Request) -> Response:
        return Response(message=req.message)

    def every(self, every: Every) -> Every:
        return every

    def blob(self, data: bytes) -> bytes:
        return data

    def add(self, a: int, b: int) -> int:
        return a + b

    def nothing(self) -> None:
        pass

    def find(self, what: str) -> Point:
        if what == "nothing":
            raise NotFound(what=what, code=404)
        if what == "secret":
            raise Denied(why="it is a secret: ключ")
        return Point(x=1.0, y=-2.5, name=what)

    def check(self, what: str) -> None:
        if what == "nothing":
            raise NotFound(what=what, code=-1)

    def fail(self, text: str) -> str:
        raise RuntimeError(text)

    def refuse(self, status: int, message: str, extra: dict[str, str]) -> str:
        raise weego.BusinessError(status, message, extra)

    def note(self, text: str) -> None:
        self.count += 1

    def noted(self) -> int:
        return self.count

    def facts(self) -> dict[str, str]:
        call = weego.current()
        facts = {"caller": call.caller}
        for prefix, kind in (("RPC_TRANSIT_", "transient "), ("RPC_PERSIST_", "persistent ")):
            facts |= {kind + name.removeprefix(prefix): value for name, value in call.metadata.items() if name.startswith(prefix)}
        if call.remaining is not None:
            facts["remaining"] = str(int(call.remaining * 1000))
        return facts

    def linger(self, milliseconds: int) -> str:
        try:
            time.sleep(milliseconds / 1000)
        except weego.DeadlineExceeded:
            self.expired += 1
            raise
        return "done"

    def interrupted(self) -> int:
        return self.expired

    def tell(self, pairs: dict[str, str]) -> None:
        weego.current().send_metadata.update(pairs)
"""


# ---------------------------------------------------------------- Kitex calls weego

CHECKS = [
    "echo",
    "every",
    "empty",
    "large",
    "void",
    "declared",
    "unknown-method",
    "unknown-service",
    "handler-error",
    "oneway",
    "business",
    "metainfo",
    "backward",
    "deadline",
    "timeout",
    "many",
    "crossing",
]
# Run by tests of their own.
OTHER_CHECKS = ["hi", "steady"]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Before anything else is started, or a skip with the reason."""
    kitex.conversation()


@pytest.fixture(scope="module")
def weego_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    app = App(
        tmp_path_factory.mktemp("kitex") / "app", idl=kitex.IDL.read_text(), idl_name=kitex.IDL.name, code=SERVICE_CODE
    )
    with app.serve(allow=["Conversation.fail: the handler failed"]) as server:
        yield server


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("framing", [*FRAMINGS, SHARED])
def test_kitex_calls_weego(weego_server: Server, framing: str, check: str) -> None:
    kitex.call(weego_server.address, framing, check)


@pytest.mark.parametrize("framing", HEADED)
@pytest.mark.parametrize("check", ["echo", "every", "large", "handler-error", "business"])
def test_kitex_calls_weego_with_checksums(weego_server: Server, framing: str, check: str) -> None:
    kitex.call(weego_server.address, framing, check, checksum="true")


@pytest.mark.parametrize("check", ["echo", "unknown-method", "handler-error", "oneway"])
def test_kitex_without_its_header_handler_calls_weego(weego_server: Server, check: str) -> None:
    """As it comes: the TTHeader then names no service, and Kitex's client looks at nothing in the answer's."""
    kitex.call(weego_server.address, "ttheader", check, bare="true")


def test_all_checks_of_the_kitex_client_are_run() -> None:
    assert kitex.checks() == CHECKS + OTHER_CHECKS


@pytest.mark.parametrize("framing", ["framed", "ttheader", SHARED])
def test_kitex_keeps_calling_while_weego_reloads(weego_server: Server, framing: str) -> None:
    """Kitex's long connections go to the new workers with no call lost."""
    with kitex.calling(weego_server.address, framing, "steady") as client:
        client.wait_for("^calling$")
        for _ in range(2):
            weego_server.reload_ok()
        client.signal(signal.SIGTERM)
        assert client.wait() == 0, client.output
        assert int(client.wait_for(r"^calls (\d+)$")[1]) > 0


# ---------------------------------------------------------------- weego calls Kitex


@dataclass
class Beside:
    """What travels beside the calls of a client: `send` with each, `received` with the last answer."""

    send: dict[str, str] = field(default_factory=dict)
    received: dict[str, str] = field(default_factory=dict)

    def middleware(self, next_: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handler(call: Any, args: Any) -> Any:
            call.send_metadata.update(self.send)
            result = next_(call, args)
            self.received = dict(call.metadata)
            return result

        return handler


class Plain:
    """Runs what it is given in threads that have no hub."""

    def run(self, what: Callable[[], Any]) -> Any:
        return what()

    def all(self, calls: list[Callable[[], Any]]) -> list[Any]:
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            return [each.result() for each in [threads.submit(call) for call in calls]]

    def close(self) -> None:
        pass


class Gevent:
    """Runs what it is given in a thread that has gevent's hub."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.run(lambda: importlib.import_module("gevent").get_hub())

    def run(self, what: Callable[[], Any]) -> Any:
        return self._thread.submit(what).result()

    def all(self, calls: list[Callable[[], Any]]) -> list[Any]:
        return list(
            self.run(lambda: importlib.import_module("gevent.pool").Pool(IN_FLIGHT).map(lambda call: call(), calls))
        )

    def close(self) -> None:
        self.run(self._end)
        self._thread.shutdown()

    def _end(self) -> None:
        hub = importlib.import_module("gevent").get_hub()
        importlib.import_module("poller.loop").loop_of(hub).close()
        hub.destroy(destroy_loop=True)


@dataclass(frozen=True)
class Talk:
    """A weego client of a Kitex server, and where its calls run."""

    client: Any
    framing: str
    where: Plain | Gevent
    beside: Beside
    types: ModuleType

    @property
    def has_header(self) -> bool:
        return self.framing in (*HEADED, SHARED)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self.client, method)
        return lambda *args, **options: self.where.run(lambda: call(*args, **options))


@pytest.fixture(scope="session")
def weego_stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, ModuleType]]:
    """What `weego gen` makes of newer.thrift, and of conversation.thrift, which it includes."""
    folder = tmp_path_factory.mktemp("weego")
    generate(kitex.NEWER_IDL, folder / "weego_kitex_gen")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("weego_kitex_gen.newer"), importlib.import_module("weego_kitex_gen.conversation")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def kitex_server() -> Iterator[str]:
    with kitex.server() as address:
        yield address


@pytest.fixture(scope="module")
def sharing_kitex_server() -> Iterator[str]:
    with kitex.server("-shared") as address:
        yield address


@pytest.fixture(scope="module", params=[*FRAMINGS, SHARED])
def framing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["blocking", "gevent"])
def talk(
    request: pytest.FixtureRequest, framing: str, weego_stubs: tuple[ModuleType, ModuleType]
) -> Iterator[Talk]:
    newer, types = weego_stubs
    beside = Beside()
    where = Plain() if request.param == "blocking" else Gevent()

    address = request.getfixturevalue("sharing_kitex_server" if framing == SHARED else "kitex_server")
    options = {"framing": "ttheader", "pool": "shared"} if framing == SHARED else {"framing": framing}

    def make() -> Any:
        return newer.ConversationClient(
            address, timeout=30.0, caller="weego-client", middleware=[beside.middleware], **options
        )

    client = where.run(make)
    yield Talk(client, framing, where, beside, types)
    where.run(client.close)
    where.close()


def full(types: ModuleType) -> Any:
    """A struct with something in every field but `absent`."""
    point = types.Point
    return types.Every(
        needed=1,
        flag=True,
        small=-128,
        medium=-32768,
        normal=2**31 - 1,
        large=-(2**63),
        real=-1.5e300,
        text="ключ 🜁 \0 end",
        raw=bytes(range(256)),
        colour=types.Colour.BLUE,
        numbers=[0, -1, 2**31 - 1, -(2**31)],
        words={"", "a", "b"},
        counts={"one": 1, "": -(2**63), "много": 2**63 - 1},
        point=point(x=1.0, y=math.inf, name="named"),
        choice=types.Choice(text="chosen"),
        points=[point(x=float(number)) for number in range(3)],
        groups={"empty": [], "two": [point(x=1.0), point(name="")]},
        nested={1: {"pi": math.pi}, -1: {}},
        flags=[[True, False], [], [False]],
        identities={1, 2, 3},
        maybe="",
        preset="set",
        colours=[types.Colour.RED, types.Colour(77), types.Colour.GREEN],
        raws=[b"", b"\xff\0"],
        names={types.Colour.RED: "red", types.Colour(77): "unknown"},
        deep=[{1: frozenset({1, 2}), -2: frozenset()}, {}],
        inner=types.Every(needed=-7, point=point(), choice=types.Choice(number=0)),
        far=-1,
    )


def echo(talk: Talk, text: str = "hi") -> None:
    assert talk.echo(talk.types.Request(message=text)) == talk.types.Response(message=text)


def test_echo(talk: Talk) -> None:
    for text in ("", "hi", "日本語 🜁 \U0010ffff \0 end", "ü" * 40_000):
        echo(talk, text)


def test_every_type(talk: Talk) -> None:
    sent = full(talk.types)
    assert talk.every(sent) == sent
    for choice in (talk.types.Choice(number=0), talk.types.Choice(point=talk.types.Point(x=3.0))):
        assert talk.every(talk.types.Every(needed=1, choice=choice)).choice == choice


def test_empty_values(talk: Talk) -> None:
    got = talk.every(talk.types.Every(needed=0))
    assert (got.numbers, got.words, got.counts, got.raw, got.preset) == ([], set(), {}, b"", "preset")
    assert (got.maybe, got.absent, got.inner) == (None, None, None)
    # Kitex writes a struct or union that is not there as one with nothing in it, unless the IDL calls the field optional.
    assert got.point == talk.types.Point()
    assert got.choice is None
    assert talk.every(got) == got


def test_large_payloads(talk: Talk) -> None:
    blob = b"\x80\x01\x00\x01\x10\x00\x00\x00" * (MEGABYTE // 8)
    for _ in range(5):
        assert talk.blob(blob) == blob
    echo(talk, "weego ü " * (MEGABYTE // 9))


def test_void(talk: Talk) -> None:
    assert talk.nothing() is None
    assert talk.check("thing") is None
    assert talk.add(2, -(2**63)) == 2 - 2**63


def test_declared_exceptions(talk: Talk) -> None:
    for _ in range(3):
        with pytest.raises(talk.types.NotFound) as missing:
            talk.find("nothing")
        assert (missing.value.what, missing.value.code) == ("nothing", 404)
        with pytest.raises(talk.types.Denied) as denied:
            talk.find("secret")
        assert denied.value.why == "it is a secret: ключ"
        with pytest.raises(talk.types.NotFound):
            talk.check("nothing")
        assert talk.find("thing") == talk.types.Point(x=1.0, y=-2.5, name="thing")


def test_an_unknown_method(talk: Talk) -> None:
    """Kitex knows the service only by the TTHeader; without one it says 20, where weego would say 1."""
    for _ in range(3):
        with pytest.raises(UnknownMethod if talk.has_header else UnknownService) as refusal:
            talk.missing("x")
        assert refusal.value.message == (
            "unknown method missing (service Conversation)" if talk.has_header else "unknown service , method missing"
        )
        echo(talk)  # on a fresh connection: Kitex closes after a refusal, and only a TTHeader can tell ("crrst")


def test_a_handler_that_fails(talk: Talk) -> None:
    for _ in range(3):
        with pytest.raises(ApplicationError) as refusal:
            talk.fail("on purpose: ключ")
        assert (refusal.value.type, refusal.value.message) == (6, "biz error: on purpose: ключ")
        echo(talk)


def test_oneway(talk: Talk) -> None:
    before = talk.noted()
    for number in range(20):
        assert talk.note(str(number)) is None
    until(lambda: talk.noted() == before + 20, "the notes to arrive")


def test_business_status(talk: Talk) -> None:
    extra = {"reason": 'embargo "quoted"', "ключ": "значение"}
    for given in (extra, {}):
        if talk.has_header:
            with pytest.raises(BusinessError) as business:
                talk.refuse(-404, "not found: ключ", given)
            assert (business.value.status, business.value.message, business.value.extra) == (
                -404,
                "not found: ключ",
                given,
            )
        else:
            # Kitex loses it without a TTHeader, and sends an answer that has no result.
            with pytest.raises(ApplicationError) as lost:
                talk.refuse(-404, "not found: ключ", given)
            assert lost.value.type == 5
    echo(talk)


def test_metainfo(talk: Talk) -> None:
    talk.beside.send = {"RPC_TRANSIT_once": "transient ü", "RPC_PERSIST_user": "persistent ключ"}
    try:
        facts = talk.facts()
    finally:
        talk.beside.send = {}
    wanted = {"transient once": "transient ü", "persistent user": "persistent ключ", "caller": "weego-client"}
    assert {name: facts.get(name, "") for name in wanted} == (wanted if talk.has_header else dict.fromkeys(wanted, ""))


def test_backward_metainfo(talk: Talk) -> None:
    pairs = {"shard": "7", "ключ": "значение"}
    talk.tell(pairs)
    assert {name: talk.beside.received.get(name) for name in pairs} == (
        pairs if talk.has_header else dict.fromkeys(pairs)
    )


def test_the_deadline_travels(talk: Talk) -> None:
    facts = talk.facts(timeout=15.0)
    if talk.has_header:
        assert 0 < int(facts["remaining"]) <= 15_000
    else:
        assert "remaining" not in facts


def test_a_timeout(talk: Talk) -> None:
    before = talk.interrupted()
    # Where both sides know the deadline, it is a matter of luck which of them says so first.
    try:
        answer = talk.linger(2000, timeout=0.1)
    except DeadlineExceeded:
        answer = "interrupted"
    else:
        assert talk.has_header, "only we knew the deadline"
    assert answer == "interrupted"
    echo(talk)
    if talk.has_header:
        until(lambda: talk.interrupted() > before, "Kitex's handler to hear of its deadline")


def test_many_calls_in_flight(talk: Talk) -> None:
    def call(number: int) -> Callable[[], int]:
        return lambda: int(talk.client.add(number, 1))

    assert talk.where.all([call(number) for number in range(CALLS)]) == list(range(1, CALLS + 1))


@pytest.mark.parametrize("framing", HEADED)
def test_weego_calls_kitex_with_checksums(framing: str, weego_stubs: tuple[ModuleType, ModuleType]) -> None:
    """Both ways: Kitex checks the call's and sends its own, which is checked here."""
    newer, types = weego_stubs
    seen: list[str | None] = []

    def watch(next_: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def handler(call: Any, args: Any) -> Any:
            result = next_(call, args)
            seen.append(call.metadata.get("crc32c"))
            return result

        return handler

    with kitex.server("-checksum") as address:
        with newer.ConversationClient(address, framing=framing, checksum=True, timeout=30.0, middleware=[watch]) as client:
            sent = full(types)
            assert client.every(sent) == sent
            assert client.blob(b"x" * MEGABYTE) == b"x" * MEGABYTE
        assert len(seen) == 2
        assert all(each is not None and len(each) == 8 for each in seen)
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            header = ttheader.Header(7, strings={"isn": "Conversation", "crc32c": "00000000"})
            connection.sendall(ttheader.dumps(header, message(1, "echo", 7, HI_ARGS)))
            assert connection.recv(1) == b"", "Kitex takes a wrong checksum"


@pytest.mark.parametrize("pool", ["exclusive", "shared"])
@pytest.mark.parametrize("framing", HEADED)
def test_heartbeats_of_weego_do_kitex_no_harm(framing: str, pool: str, weego_stubs: tuple[ModuleType, ModuleType]) -> None:
    """Kitex's codec refuses message type 6 and closes the connection: it loses two idle ones and is not asked any more. No call notices."""
    newer, types = weego_stubs
    with kitex.server(*(["-shared"] if pool == "shared" else [])) as address:
        with newer.ConversationClient(address, framing=framing, pool=pool, heartbeat=0.1, timeout=30.0) as client:
            for lost in (1, 2):
                assert client.echo(types.Request(message="hi")).message == "hi"
                until(lambda lost=lost: client.statistics()[0].dead >= lost and client.statistics()[0].idle == 0, "the end of the connection")
            assert client.echo(types.Request(message="hi")).message == "hi"
            time.sleep(0.5)  # five more would have been sent
            assert client.statistics()[0].idle == 1
            assert client.echo(types.Request(message="hi")).message == "hi"
            assert client.statistics()[0].reused >= 1


def test_slow_and_quick_calls_at_once(talk: Talk) -> None:
    """Where connections are shared, the quick ones overtake."""
    order: list[str] = []

    def call(name: str, what: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            what()
            order.append(name)

        return run

    echo(talk)
    talk.where.all([call("slow", lambda: talk.client.linger(800)), *(call("quick", lambda: talk.client.add(1, 1)) for _ in range(20))])
    assert order == ["quick"] * 20 + ["slow"]


# ---------------------------------------------------------------- bytes

# echo({message: "hi"}), and its answer: the message after its sequence id.
HI_ARGS = bytes.fromhex("0c 00 01 0b 00 01 00 00 00 02 68 69 00 00")
HI_RESULT = bytes.fromhex("0c 00 00 0b 00 01 00 00 00 02 68 69 00 00")


def message(kind: int, method: str, seqid: int, body: bytes) -> bytes:
    return struct.pack("!II", 0x80010000 | kind, len(method)) + method.encode() + struct.pack("!i", seqid) + body


def framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the connection ended after {data.hex(' ')}"
        data += more
    return data


def packet(connection: socket.socket) -> bytes:
    """A frame or a TTHeader packet: both begin with their length."""
    head = exactly(connection, 4)
    return head + exactly(connection, struct.unpack("!I", head)[0])


def heard(framing: str, answer: Callable[[bytes], bytes]) -> tuple[bytes, str]:
    """What Kitex's client sends for `echo("hi")`, and what it made of `answer`."""
    sent: list[bytes] = []

    def behave(connection: socket.socket, number: int) -> None:
        sent.append(exactly(connection, 34 - 4) if framing == "buffered" else packet(connection))
        connection.sendall(answer(sent[-1]))
        connection.recv(1)  # until it closes

    with Peer(behave) as peer:
        said = kitex.call(peer.address, framing, "hi", caller="cli", callee="echosvc", timeout="15s")
    (only,) = sent
    return only, said


@pytest.mark.parametrize("framing", ["buffered", "framed"])
def test_the_bytes_of_a_kitex_call(framing: str) -> None:
    wrap = framed if framing == "framed" else bytes
    seqid = 0

    def answer(call: bytes) -> bytes:
        nonlocal seqid
        (seqid,) = struct.unpack("!i", call[-18:-14])
        return wrap(message(2, "echo", seqid, HI_RESULT))

    call, said = heard(framing, answer)
    assert call == wrap(message(1, "echo", seqid, HI_ARGS))
    assert said == "answer hi"


@pytest.mark.parametrize("framing", HEADED)
def test_the_header_of_a_kitex_call(framing: str) -> None:
    """And what Kitex makes of a header whose answer is a business status."""

    def answer(call: bytes) -> bytes:
        header, _ = ttheader.loads(call)
        strings = {"biz-status": "404", "biz-message": "not found", "crrst": "1"}
        return ttheader.dumps(
            ttheader.Header(header.seqid, ints={IntKey.MSG_TYPE: "2"}, strings=strings),
            message(2, "echo", header.seqid, b"\0"),
        )

    call, said = heard(framing, answer)
    header, payload = ttheader.loads(call)
    assert payload == (framed if framing == "ttheader-framed" else bytes)(message(1, "echo", header.seqid, HI_ARGS))
    assert (header.flags, header.protocol_id) == (0, 0)
    assert header.strings == {"isn": "Conversation"}
    assert header.ints == {
        IntKey.TRANSPORT_TYPE: "framed" if framing == "ttheader-framed" else "unframed",
        IntKey.FROM_SERVICE: "cli",
        IntKey.FROM_METHOD: "",
        IntKey.TO_SERVICE: "echosvc",
        IntKey.TO_METHOD: "echo",
        IntKey.RPC_TIMEOUT: "15000",
        IntKey.CONNECT_TIMEOUT: "5000",
        IntKey.MSG_TYPE: "1",
    }
    assert said == "business status 404 not found"


@pytest.mark.parametrize("framing", HEADED)
def test_weego_writes_the_header_that_kitex_writes(framing: str, weego_stubs: tuple[ModuleType, ModuleType]) -> None:
    sent: list[bytes] = []

    def behave(connection: socket.socket, number: int) -> None:
        sent.append(packet(connection))
        header, _ = ttheader.loads(sent[-1])
        connection.sendall(framed(message(2, "echo", header.seqid, HI_RESULT)))
        connection.recv(1)

    def answer(call: bytes) -> bytes:
        header, _ = ttheader.loads(call)
        return framed(message(2, "echo", header.seqid, HI_RESULT))

    newer, types = weego_stubs
    with (
        Peer(behave) as peer,
        newer.ConversationClient(
            peer.address, framing=framing, caller="cli", service_name="echosvc", timeout=15.0
        ) as client,
    ):
        assert client.echo(types.Request(message="hi")).message == "hi"
    ours, _ = ttheader.loads(sent[0])
    call, said = heard(framing, answer)
    assert said == "answer hi"
    theirs, _ = ttheader.loads(call)
    assert ours.strings == theirs.strings
    # weego leaves out what it does not know, and says what is left of the timeout.
    assert 14_000 < int(ours.ints.pop(IntKey.RPC_TIMEOUT)) <= int(theirs.ints.pop(IntKey.RPC_TIMEOUT))
    assert (theirs.ints.pop(IntKey.FROM_METHOD), theirs.ints.pop(IntKey.CONNECT_TIMEOUT)) == ("", "5000")
    assert ours.ints == theirs.ints
    assert (ours.flags, ours.protocol_id) == (theirs.flags, theirs.protocol_id)


@pytest.fixture
def wire(kitex_server: str) -> Iterator[socket.socket]:
    """A bare connection to the Kitex server."""
    host, _, port = kitex_server.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def test_the_bytes_of_a_kitex_answer(wire: socket.socket) -> None:
    """All four framings on one connection."""
    call, answer = message(1, "echo", 7, HI_ARGS), message(2, "echo", 7, HI_RESULT)
    wire.sendall(framed(call))
    assert packet(wire) == framed(answer)
    wire.sendall(call)
    assert exactly(wire, len(answer)) == answer
    for payload, wanted in ((call, answer), (framed(call), framed(answer))):
        wire.sendall(ttheader.dumps(ttheader.Header(9), payload))
        header, got = ttheader.loads(packet(wire))
        # The header's sequence id is the message's, whatever the call's header had.
        assert (got, header.seqid, header.flags) == (wanted, 7, 0)
        assert (header.ints, header.strings) == ({IntKey.MSG_TYPE: "2"}, {})
    wire.sendall(framed(message(1, "nothing", 8, b"\0")))
    assert packet(wire) == framed(message(2, "nothing", 8, b"\0"))


def application_error(kind: int, text: str) -> bytes:
    said = text.encode()
    return b"\x0b\0\x01" + struct.pack("!I", len(said)) + said + b"\x08\0\x02" + struct.pack("!i", kind) + b"\0"


def test_the_bytes_of_a_kitex_refusal(wire: socket.socket) -> None:
    wire.sendall(framed(message(1, "nope", 1, b"\0")))
    assert packet(wire) == framed(message(3, "nope", 1, application_error(20, "unknown service , method nope")))
    assert wire.recv(1) == b""


def test_the_header_of_a_kitex_refusal(wire: socket.socket) -> None:
    wire.sendall(ttheader.dumps(ttheader.Header(7, strings={"isn": "Conversation"}), message(1, "nope", 7, b"\0")))
    header, payload = ttheader.loads(packet(wire))
    assert payload == message(3, "nope", 7, application_error(1, "unknown method nope (service Conversation)"))
    assert (header.seqid, header.ints, header.strings) == (7, {IntKey.MSG_TYPE: "3"}, {"crrst": "1"})
    assert wire.recv(1) == b""


def test_the_header_of_a_kitex_business_status(wire: socket.socket) -> None:
    args = b"\x08\0\x01" + struct.pack("!i", 404) + b"\x0b\0\x02" + struct.pack("!I", 2) + b"no" + b"\0"
    wire.sendall(ttheader.dumps(ttheader.Header(7, strings={"isn": "Conversation"}), message(1, "refuse", 7, args)))
    header, payload = ttheader.loads(packet(wire))
    assert payload == message(2, "refuse", 7, b"\0")
    assert (header.ints, header.strings) == ({IntKey.MSG_TYPE: "2"}, {"biz-status": "404", "biz-message": "no"})


def test_the_acl_token_reaches_kitex(wire: socket.socket) -> None:
    """It has a block of its own, without a name, and is transient metainfo to the handler."""
    strings = {"isn": "Conversation", ttheader.ACL_KEY: "tok"}
    wire.sendall(ttheader.dumps(ttheader.Header(7, strings=strings), message(1, "facts", 7, b"\0")))
    _, payload = ttheader.loads(packet(wire))
    assert b"transient gdpr-token\0\0\0\x03tok" in payload


def test_kitex_serves_a_method_under_any_service_name(wire: socket.socket) -> None:
    """If only one service has it, and so does weego: see the test of the same name in tests/codec."""
    call = message(1, "echo", 7, HI_ARGS)
    wire.sendall(ttheader.dumps(ttheader.Header(7, strings={"isn": "Elsewhere"}), call))
    _, payload = ttheader.loads(packet(wire))
    assert payload == message(2, "echo", 7, HI_RESULT)


# What a Kitex server that leaves says on a connection that calls share: sequence id 0, "crrst", and an empty answer of no method.
GOODBYE = bytes.fromhex(
    "00 00 00 2b 10 00 00 00 00 00 00 00 00 04 00 00 01 00 01 00 05 63 72 72 73 74 00 01 31 00"
    "80 01 00 02 00 00 00 04 6e 6f 6e 65 00 00 00 00 00"
)


def test_the_bytes_of_a_kitex_goodbye() -> None:
    """And weego says the same. The call under way is answered behind it."""
    with Process([str(kitex.conversation()), "serve", "-shared"], env={"GOMAXPROCS": "2"}) as process:
        port = int(process.wait_for(r"^listening on (\d+)$")[1])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            header = ttheader.Header(7, flags=1, strings={"isn": "Conversation"})
            connection.sendall(ttheader.dumps(header, message(1, "echo", 7, HI_ARGS)))
            packet(connection)  # now the connection is known to be shared
            linger = b"\x08\0\x01" + struct.pack("!i", 800) + b"\0"
            connection.sendall(ttheader.dumps(ttheader.Header(8, flags=1, strings={"isn": "Conversation"}), message(1, "linger", 8, linger)))
            time.sleep(0.2)  # what arrives after its end it does not read any more
            process.signal(signal.SIGTERM)
            assert packet(connection) == GOODBYE
            assert ttheader.loads(packet(connection))[0].seqid == 8
    out = WriteBuffer()
    ThriftServerProtocol({}, {}).write_goodbye(out)
    assert out.take() == GOODBYE


@pytest.mark.parametrize("framing", ["framed", *HEADED])
def test_kitex_closes_on_a_heartbeat(framing: str, wire: socket.socket) -> None:
    """Without a word: its codec takes no message of type 6, which its own server would answer."""
    out = WriteBuffer()
    ThriftClientProtocol(framing).write_call(HEARTBEAT_CALL, (), 9, out)
    wire.sendall(out.take())
    assert wire.recv(1) == b""
