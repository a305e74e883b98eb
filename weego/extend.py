"""Where weego takes further protocols, payload codecs, metadata handlers, compressors and last acts of workers of yours, and bundles of options. docs/extending.md has an example of each."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from struct import pack, unpack_from
from typing import Any, Final, Protocol

from codec import compression, grpc_compression, ttheader
from codec.compression import Compressor
from codec.errors import BusinessError, RpcError, UsageError
from codec.metadata import Metadata
from codec.payload import CODE, PayloadCodec, check_magic
from codec.payload import register as register_payload
from codec.spec import MethodSpec
from governance.call import Call
from governance.chain import Handler, Middleware
from weego.detect import MOST_SEEN
from weego.endings import at_end

__all__ = [
    "Compressor",
    "HeaderProtocol",
    "Incoming",
    "MetadataHandler",
    "PayloadCodec",
    "ServerProtocol",
    "Suite",
    "at_end",
    "carrying",
    "framed",
    "header_call",
    "header_protocol",
    "register_compressor",
    "register_payload_codec",
    "register_protocol",
    "together",
]


# ---- protocols -----------------------------------------------------------------------------------------------------------


@dataclass
class Incoming:
    """A call that a protocol of yours has read. `size` is the number of bytes it took.

    `args` are the arguments in the order of the IDL, or a function that makes them of the MethodSpec once the method is found. Without a
    `service`, the first one that has the method is called. `timeout` is in seconds, 0 for none. `token` is yours: a sequence id, say.
    """

    size: int
    method: str
    args: Iterable[Any] | Callable[[MethodSpec], Iterable[Any]] = ()
    service: str = ""
    metadata: Metadata = field(default_factory=Metadata)
    timeout: float = 0.0
    oneway: bool = False
    token: Any = None
    framing_name: str = "extension"
    caller_name: str = ""
    """Who calls, as the peer says: `Call.caller`."""
    log_id: str = ""


class ServerProtocol(ABC):
    """The rules of one connection, without the connection: bytes in, calls out; values in, bytes out. One object for each connection."""

    name: str = "extension"

    @classmethod
    @abstractmethod
    def detect(cls, head: bytes) -> bool | None:
        """Are `head`, the first bytes of a connection (one at least), this protocol's? None: more are needed to tell."""

    @abstractmethod
    def receive(self, data: bytes) -> Incoming | int | None:
        """The first call in `data`; when it has not come whole, how many bytes it has in all, or None if that is not known yet.

        Until as many are there nothing is asked again; with None each read asks again, and hands over a copy of all that waits. ProtocolError ends the
        connection.
        """

    @abstractmethod
    def answer(self, call: Incoming, spec: MethodSpec, value: Any, metadata: Mapping[str, str]) -> bytes:
        """The bytes that answer `call` with what the handler returned."""

    @abstractmethod
    def refuse(self, call: Incoming, spec: MethodSpec | None, error: BaseException, metadata: Mapping[str, str]) -> bytes:
        """The bytes that answer `call` with `error`: an exception of the IDL, an RpcError, or a handler's bug. `spec` is None for an unknown method."""


_protocols: Final[list[type[ServerProtocol]]] = []


def register_protocol(protocol: type[ServerProtocol]) -> type[ServerProtocol]:
    """Have servers that are started from now on ask `protocol.detect` before they take a connection for Thrift. Usable as a decorator.

    In a served program, call it in the module of the service: it is imported before the server starts.
    """
    given: object = protocol
    if not (isinstance(given, type) and issubclass(given, ServerProtocol)):
        raise UsageError(f"register_protocol takes a subclass of ServerProtocol, got {protocol!r}")
    if protocol not in _protocols:
        _protocols.append(protocol)
    return protocol


def protocols() -> list[type[ServerProtocol]]:
    """What was registered, in that order."""
    return list(_protocols)


# ---- payload codecs ------------------------------------------------------------------------------------------------------


_header_protocols: Final[dict[str, type[ServerProtocol]]] = {}


def register_payload_codec(codec: PayloadCodec) -> PayloadCodec:
    """Have servers started from now on read payloads of `codec`, and clients made from now on ask for it: ``EchoClient(…, payload=codec.name)``.

    One of the same name is replaced. UsageError when the codec has no name, or a magic of two bytes that is another's.
    """
    register_payload(codec)
    before = _header_protocols.get(codec.name)
    if before is not None and before in _protocols:
        _protocols.remove(before)
    _header_protocols[codec.name] = register_protocol(header_protocol(codec))
    return codec


# Beside the payload's own words for it, an answer says by TTHeader's MsgType which of the two it is.
_REPLY: Final = "2"
_EXCEPTION: Final = "3"
_FIXED: Final = 14


def header_protocol(codec: PayloadCodec) -> type[ServerProtocol]:
    """A ServerProtocol for TTHeader packets whose payload is `codec`'s, for servers only; `register_payload_codec` makes and registers one."""
    check_magic(codec)
    return type(f"HeaderProtocol[{type(codec).__name__}]", (HeaderProtocol,), {"codec": codec})


class HeaderProtocol(ServerProtocol):
    """TTHeader around a payload codec of yours; make one with `header_protocol`."""

    codec: PayloadCodec
    name = "ttheader with a payload codec"

    @classmethod
    def detect(cls, head: bytes) -> bool | None:
        """By TTHeader's magic and, behind the header, the codec's."""
        if len(head) < _FIXED:
            return None if head[4:6] in (b"", b"\x10", b"\x10\x00") else False
        at = _FIXED + 4 * int(unpack_from("!H", head, 12)[0])
        if head[4:6] != b"\x10\x00":
            return False
        if len(head) < at + 2:
            return None if unpack_from("!I", head)[0] + 4 >= at + 2 and at + 2 <= MOST_SEEN else False
        return head[at : at + 2] == cls.codec.magic

    def receive(self, data: bytes) -> Incoming | int | None:
        """One packet."""
        if len(data) < 4:
            return 4
        size = int(unpack_from("!I", data)[0]) + 4
        if len(data) < size:
            return size
        header, payload = ttheader.loads(data[:size])
        return Incoming(
            size=size,
            method=header.ints.get(ttheader.IntKey.TO_METHOD, ""),
            args=lambda spec: self.codec.read_args(spec, payload[2:]),
            service=header.strings.get(ttheader.StringKey.SERVICE, ""),
            metadata=Metadata(header.strings),
            timeout=_seconds(header.ints.get(ttheader.IntKey.RPC_TIMEOUT, "")),
            oneway=header.ints.get(ttheader.IntKey.MSG_TYPE) == "4",
            token=header.seqid,
            framing_name="ttheader",
            caller_name=header.ints.get(ttheader.IntKey.FROM_SERVICE, ""),
            log_id=header.ints.get(ttheader.IntKey.LOG_ID, ""),
        )

    def answer(self, call: Incoming, spec: MethodSpec, value: Any, metadata: Mapping[str, str]) -> bytes:
        """A packet with the result."""
        return self._packet(call, _REPLY, self.codec.write_result(spec, value), metadata)

    def refuse(self, call: Incoming, spec: MethodSpec | None, error: BaseException, metadata: Mapping[str, str]) -> bytes:
        """A packet with the error. A business status goes in the header, as with Thrift; an RpcError's code too."""
        payload = self.codec.write_error(error)
        if isinstance(error, BusinessError):
            return self._packet(call, _REPLY, payload, {**metadata, **_business(error)})
        code = {CODE: error.code.name} if isinstance(error, RpcError) else {}
        return self._packet(call, _EXCEPTION, payload, {**metadata, **code})

    def _packet(self, call: Incoming, kind: str, payload: bytes, metadata: Mapping[str, str]) -> bytes:
        header = ttheader.Header(call.token, ints={ttheader.IntKey.MSG_TYPE: kind}, strings=dict(metadata))
        return ttheader.dumps(header, self.codec.magic + payload)


def _business(error: BusinessError) -> dict[str, str]:
    found = {ttheader.StringKey.BUSINESS_STATUS: str(error.status), ttheader.StringKey.BUSINESS_MESSAGE: error.message}
    if error.extra:
        found[ttheader.StringKey.BUSINESS_EXTRA] = json.dumps(error.extra, ensure_ascii=False)
    return found


def header_call(codec: PayloadCodec, service: str, method: str, payload: bytes, seqid: int = 1, **infos: str) -> bytes:
    """The packet of a call, for tests of a payload codec and clients that are no stubs; `infos` are string infos."""
    ints = {ttheader.IntKey.TO_METHOD: method, ttheader.IntKey.MSG_TYPE: "1"}
    return ttheader.dumps(ttheader.Header(seqid, ints=ints, strings={"isn": service, **infos}), codec.magic + payload)


def framed(payload: bytes) -> bytes:
    """`payload` behind its length in four bytes: what many small protocols of one's own are."""
    return pack("!I", len(payload)) + payload


def _seconds(milliseconds: str) -> float:
    return int(milliseconds) / 1000 if milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) < 10 else 0.0


# ---- compressors ---------------------------------------------------------------------------------------------------------


def register_compressor(added: Compressor) -> Compressor:
    """Let clients made from now on name `added` as their ``compression``, on TTHeader and on gRPC, and servers read it and answer with it.

    One of the same name is replaced, gRPC's own too. UsageError when another one has its transform id, or gRPC cannot carry its name.
    """
    compression.check(added)
    grpc_compression.register(added.name, added.compress, added.decompress)
    return compression.register(added)


# ---- metadata ------------------------------------------------------------------------------------------------------------


class MetadataHandler:
    """Reads and writes what travels beside calls (Kitex: MetaHandler). Override what you need; each gets the Call and a mapping.

    On a client, `sending` may add to what goes out with a call and `received` sees what came back with the answer, also of a failed call.
    On a server, `received` sees what came with a call, before the handler runs, and `sending` may add to what goes back.
    """

    def sending(self, call: Call, metadata: dict[str, str]) -> None:
        """About to be sent."""

    def received(self, call: Call, metadata: Metadata) -> None:
        """Has come. An RpcError raised here refuses the call (server) or fails it (client)."""


def carrying(handler: MetadataHandler) -> Middleware:
    """The middleware that runs `handler`, on either side: ``Server(…, middleware=[carrying(Mine())])``, ``EchoClient(…, middleware=[…])``."""

    def middleware(next_: Handler) -> Handler:
        def handle(call: Call, args: Any) -> Any:
            if call.is_server:
                handler.received(call, call.metadata)
                try:
                    return next_(call, args)
                finally:
                    handler.sending(call, call.send_metadata)
            handler.sending(call, call.send_metadata)
            try:
                value = next_(call, args)
            except RpcError:
                handler.received(call, call.metadata)
                raise
            handler.received(call, call.metadata)
            return value

        return handle

    return middleware


# ---- bundles -------------------------------------------------------------------------------------------------------------


class Suite(Protocol):
    """Options that belong together (Kitex: client.Suite, server.Suite)."""

    def options(self) -> Mapping[str, Any]:
        """Keyword arguments of a client or of a Server."""


# Of these every suite may bring some, in the order of the suites.
_JOINED: Final = ("middleware",)


def together(*suites: Suite, **options: Any) -> dict[str, Any]:
    """The options of several suites as one: ``EchoClient(target, **together(Company(), Careful(), timeout=1.0))``.

    Middleware of all suites is composed, the first suite's outermost, that among `options` innermost. Any other option may come from one suite alone, for
    nobody could say which counts: UsageError names both. What `options` say overrides the suites.
    """
    found: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for suite in suites:
        name = type(suite).__name__
        for key, value in suite.options().items():
            if key in _JOINED:
                found[key] = [*found.get(key, ()), *value]
            elif key in found and key not in options:
                raise UsageError(f"both {said_by[key]} and {name} give {key}; say which counts: together(…, {key}=…)")
            else:
                found[key] = value
                said_by[key] = name
    for key, value in options.items():
        found[key] = [*found.get(key, ()), *value] if key in _JOINED else value
    return found
