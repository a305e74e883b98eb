"""Thrift in the framings of Kitex, or a payload of the user's in its TTHeader."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from greenlet import getcurrent

from codec.compression import compressor
from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Code,
    DeadlineExceeded,
    Origin,
    ProtocolError,
    ResourceExhausted,
    RpcError,
    UsageError,
)
from codec.payload import CODE, PayloadCodec, check_client, payload_codec
from codec.spec import MethodSpec, ServiceSpec
from codec.thrift import HEARTBEAT_CALL, Reply, Route
from codec.ttheader import IntKey, StringKey
from governance import metainfo
from governance.call import Call, current
from poller.address import Address
from poller.dialer import connect_blocking, connect_with_hub, secure_blocking, secure_with_hub
from poller.liveness import probe_every
from poller.loop import Loop
from weego.blocking import BlockingExchange
from weego.exchange import IN_THE_LOOP, Exchange
from weego.heartbeat import Hearts
from weego.shared import SharedExchange
from weego.shared_blocking import SharedBlockingExchange
from weego.sharing import SharedBlockingTransport, SharedHubTransport
from weego.transport import BlockingTransport, HubTransport, PoolLimits, Transport

__all__ = ["ThriftChannel"]

# Sequence ids are 32-bit and signed; 0 is Kitex's mark for control messages.
_LAST_SEQID: Final = 0x7FFFFFFF
# Refusals after which Kitex closes the connection (`default_server_handler.go`: what fails before the handler is found or called).
_DISMISSALS: Final = frozenset(
    (ApplicationErrorType.UNKNOWN_METHOD, ApplicationErrorType.PROTOCOL_ERROR, ApplicationErrorType.UNKNOWN_SERVICE)
)


_Connection = Exchange | BlockingExchange | SharedExchange | SharedBlockingExchange


class ThriftChannel:
    """How calls of one client become Thrift messages, and answers their values."""

    def __init__(self, spec: ServiceSpec, *, framing: str, limits: PoolLimits, caller: str = "", service_name: str = "",
        checksum: bool = False, shared: int = 0, compression: str = "", payload: str = "",
    ) -> None:  # fmt: skip
        self.spec = spec
        self.limits = limits
        self._framing = framing
        self._has_header = framing.startswith("ttheader")
        self._transport_type = "framed" if framing.startswith("ttheader-framed") else "unframed"
        self._checksum = checksum
        self._compression = compression
        if compression:
            compressor(compression)  # a name that nobody has shows here, not at the first call
            if not self._has_header:
                raise UsageError(f'compression is announced in the TTHeader; choose framing="ttheader", not {framing!r}')
        self._payload = payload_codec_for(payload, framing, checksum=checksum, compression=compression) if payload else None
        self._shared = shared  # connections to an address that calls share; 0: each call has one to itself
        if shared and not self._has_header:
            raise UsageError(f'pool="shared" tells answers apart by the TTHeader; choose framing="ttheader", not {framing!r}')
        self._caller = caller
        self._service_name = service_name or spec.name
        self._routes: dict[MethodSpec, Route] = {}
        self._seqid = count(1)

    def with_hub(self, hub: Any) -> Transport:
        """A transport that waits with this gevent hub."""
        return SharedHubTransport(self, self._shared, hub) if self._shared else HubTransport(self, hub)

    def blocking(self) -> Transport:
        """A transport that waits in the calling thread."""
        return SharedBlockingTransport(self, self._shared) if self._shared else BlockingTransport(self)

    # ---- connections -------------------------------------------------------------------------------------------------

    def connect_with_hub(self, loop: Loop, address: Address, deadline: float, ended: Callable[[Exchange], None]) -> Exchange:
        """A new connection in `loop`."""
        if getcurrent() is loop.hub:
            raise UsageError(IN_THE_LOOP)
        fd = self._watched(connect_with_hub(address, deadline, loop.hub))
        try:
            tls = self.limits.tls_for(address)
            session = secure_with_hub(fd, tls, address, deadline, loop.hub) if tls else None
            return Exchange(loop, fd, address.text, self._framing, self.limits.max_message, ended, self._checksum, session, self._compression, self._payload)
        except BaseException:
            os.close(fd)
            raise

    def connect_blocking(self, address: Address, deadline: float) -> BlockingExchange:
        """A new connection for the calling thread."""
        fd = self._watched(connect_blocking(address, deadline))
        tls = self.limits.tls_for(address)
        sock = secure_blocking(fd, tls, address, deadline) if tls else None
        return BlockingExchange(fd, address.text, self._framing, self.limits.max_message, self._checksum, sock, self._compression, self._payload)

    def share_with_hub(
        self, loop: Loop, address: Address, deadline: float, ended: Callable[[SharedExchange], None]
    ) -> SharedExchange:
        """A new connection in `loop` for many calls at a time."""
        if getcurrent() is loop.hub:
            raise UsageError(IN_THE_LOOP)
        fd = self._watched(connect_with_hub(address, deadline, loop.hub))
        try:
            tls = self.limits.tls_for(address)
            session = secure_with_hub(fd, tls, address, deadline, loop.hub) if tls else None
            size = self.limits.max_message
            return SharedExchange(loop, fd, address.text, self._framing, size, ended, self._checksum, session, self._compression, self._payload)
        except BaseException:
            os.close(fd)
            raise

    def share_blocking(self, address: Address, deadline: float) -> SharedBlockingExchange:
        """A new connection for many calls at a time, of all threads."""
        fd = self._watched(connect_blocking(address, deadline))
        tls = self.limits.tls_for(address)
        sock = secure_blocking(fd, tls, address, deadline) if tls else None
        return SharedBlockingExchange(fd, address.text, self._framing, self.limits.max_message, self._checksum, self._compression, sock, self._payload)

    # ---- is anybody there? -------------------------------------------------------------------------------------------

    def hearts(self) -> Hearts | None:
        """Heartbeats are for peers that speak TTHeader; who is asked by a bare framed message takes it for noise, unless it is weego.

        They are Thrift messages: not for connections with a payload codec, which the kernel watches.
        """
        every = self.limits.heartbeat
        return Hearts(every, self._beat, self.is_last) if every and self._has_header and self._payload is None else None

    def _beat(self, connection: _Connection, deadline: float) -> Reply:
        answer = connection.call(HEARTBEAT_CALL, (), self._next_seqid(), deadline)
        assert answer is not None
        return answer

    def _watched(self, fd: int) -> int:
        if self.limits.heartbeat:
            probe_every(fd, self.limits.heartbeat)
        return fd

    # ---- a call ------------------------------------------------------------------------------------------------------

    def _next_seqid(self) -> int:
        return next(self._seqid) & _LAST_SEQID or next(self._seqid) & _LAST_SEQID

    def exchange(self, connection: _Connection, call: Call, args: tuple[Any, ...]) -> Reply | None:
        """Send the call, wait for the answer; None for a oneway method."""
        seqid = self._next_seqid()
        route = self._routes.get(call.spec) or self._route(call.spec)
        ints, strings = self._header(call) if self._has_header else (None, None)
        return connection.call(route, args, seqid, call.deadline or 0.0, ints, strings)

    def is_last(self, answer: Reply | None) -> bool:
        """Is the peer about to close the connection? Kitex says so by "crrst" (graceful shutdown), or not at all after it refused a call."""
        if answer is None:
            return False
        if answer.header is not None:
            return "crrst" in answer.header.strings
        error = answer.error
        return error is not None and isinstance(error, ApplicationError) and error.type in _DISMISSALS

    def result(self, call: Call, answer: Reply | None) -> Any:
        """The value in an answer, or what it says went wrong, raised."""
        if answer is None:
            return None
        call.answer(answer)
        if answer.header is not None:
            added = metainfo.given.get()
            if added is not None and added.slot is not None:
                added.slot.update(answer.header.strings)
        error = answer.error
        if error is None:
            return answer.value
        if isinstance(error, RpcError):
            if self._payload is None or answer.header is None:
                error = with_code(error)
            elif not isinstance(error, ProtocolError):  # what the codec could not read is this side's word, not the peer's
                error = coded(error, answer.header.strings.get(CODE, ""))
            error.instance = call.instance
            if isinstance(error, BusinessError):
                error.attempt = call.attempt
        raise error

    def _header(self, call: Call) -> tuple[dict[int, str], dict[str, str]]:
        """TTHeader infos as Kitex's ClientTTHeaderHandler writes them."""
        ints = {
            IntKey.TRANSPORT_TYPE: self._transport_type,
            IntKey.TO_SERVICE: self._service_name,
            IntKey.TO_METHOD: call.method,
            IntKey.MSG_TYPE: "4" if call.spec.oneway else "1",
        }
        facts, strings = beside(call, self._caller)
        ints.update(facts)
        return ints, {StringKey.SERVICE: self.spec.name, **strings}

    def _route(self, spec: MethodSpec) -> Route:
        return self._routes.setdefault(spec, Route(spec))


def beside(call: Call, caller: str) -> tuple[dict[int, str], dict[str, str]]:
    """What goes with a call whatever it asks for: who calls, until when, the log id, metainfo and metadata."""
    ints: dict[int, str] = {}
    strings: dict[str, str] = {}
    if caller:
        ints[IntKey.FROM_SERVICE] = caller
    if call.remaining is not None:
        ints[IntKey.RPC_TIMEOUT] = str(max(1, int(call.remaining * 1000)))
    serving = current()
    if serving is not None:
        ints[IntKey.FROM_METHOD] = serving.method
        if not caller:
            ints[IntKey.FROM_SERVICE] = serving.service
        if serving.log_id:
            ints[IntKey.LOG_ID] = serving.log_id
        strings.update(serving.carried)
    added = metainfo.given.get()
    if added is not None:
        if added.log_id:
            ints[IntKey.LOG_ID] = added.log_id
        strings.update(added.strings)
    if call.send_metadata:
        strings.update(call.send_metadata)
    return ints, strings


def with_code(error: RpcError) -> RpcError:
    """An internal error whose text begins with the name of a code, as our own server writes it, as the error it was over there."""
    if not isinstance(error, ApplicationError) or error.type != ApplicationErrorType.INTERNAL_ERROR:
        return error
    name, colon, text = error.message.partition(": ")
    return coded(error, name, text) if colon else error


def coded(error: RpcError, name: str, text: str = "") -> RpcError:
    """`error` as one of the code of this name, `text` its message where it has one of its own; itself where there is no such code."""
    if name not in Code.__members__:
        return error
    for cls in (DeadlineExceeded, ResourceExhausted):
        if name == cls.default_code.name:
            return cls(text or error.message, origin=Origin.PEER)
    error.code = Code[name]
    return error


def payload_codec_for(name: str, framing: str, *, checksum: bool, compression: str) -> PayloadCodec:
    """The payload codec of this name, for a client that asked for all this; UsageError where it does not go together."""
    codec = check_client(payload_codec(name))
    if framing != "ttheader":
        raise UsageError(f'the payload of a codec of one\'s own is in a TTHeader; choose framing="ttheader", not {framing!r}')
    if checksum or compression:
        raise UsageError("checksum and compression are for Thrift payloads; a payload codec brings its own")
    return codec
