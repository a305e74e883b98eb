from typing import Any, Final, Self

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ApplicationError
from codec.payload import PayloadCodec
from codec.protocol import Protocol
from codec.spec import MethodSpec
from codec.ttheader import Header

DEFAULT_MAX_MESSAGE: Final[int]
FRAMINGS: Final[dict[str, int]]
FRAMING_NAMES: Final[dict[int, str]]

class Route:
    """One method as the codec needs it."""

    target: Any
    def __new__(cls, spec: MethodSpec, target: Any = None) -> Self: ...
    @property
    def spec(self) -> MethodSpec: ...
    @property
    def name(self) -> bytes: ...
    @property
    def oneway(self) -> bool: ...

HEARTBEAT_CALL: Final[Route]

class Request:
    """A call that arrived."""

    @property
    def route(self) -> Route | None: ...
    @property
    def name(self) -> bytes: ...
    @property
    def method(self) -> str: ...
    @property
    def type(self) -> int: ...
    @property
    def seqid(self) -> int: ...
    @property
    def framing(self) -> int: ...
    @property
    def framing_name(self) -> str: ...
    @property
    def strict(self) -> bool: ...
    @property
    def header(self) -> Header | None: ...
    @property
    def args(self) -> tuple[Any, ...] | None: ...
    @property
    def error(self) -> ApplicationError | None: ...
    @property
    def fatal(self) -> bool: ...
    @property
    def size(self) -> int: ...

class Reply:
    """An answer that arrived."""

    @property
    def seqid(self) -> int: ...
    @property
    def value(self) -> Any: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def header(self) -> Header | None: ...
    @property
    def size(self) -> int: ...

class ThriftProtocol(Protocol):
    """What both sides share. `max_decoded` bounds the memory, in bytes, that one message may become."""

    max_decoded: int

class ThriftServerProtocol(ThriftProtocol):
    """The server's side of one connection."""

    def __init__(
        self,
        routes: dict[bytes, Route],
        services: dict[str, dict[bytes, Route]] | None = None,
        max_message: int = ...,
        max_decoded: int = ...,
    ) -> None: ...
    def feed(self, data: ReadBuffer) -> list[Request]: ...
    def write_reply(
        self, request: Request, value: object, out: WriteBuffer, strings: dict[str, str] | None = None
    ) -> None: ...
    def write_declared(
        self, request: Request, error: object, out: WriteBuffer, strings: dict[str, str] | None = None
    ) -> bool: ...
    def write_failure(
        self, request: Request, type: int, message: str, out: WriteBuffer, strings: dict[str, str] | None = None
    ) -> None: ...
    def write_empty(self, request: Request, out: WriteBuffer, strings: dict[str, str] | None = None) -> None: ...
    def write_goodbye(self, out: WriteBuffer) -> None: ...

class ThriftClientProtocol(ThriftProtocol):
    """The client's side of one connection."""

    checksum: bool
    shared: bool
    def __init__(self, framing: str = "framed", max_message: int = ..., checksum: bool = False, compression: str = ""
    ) -> None: ...
    @property
    def framing(self) -> int: ...
    def feed(self, data: ReadBuffer) -> list[Reply]: ...
    def forget(self, seqid: int) -> None: ...
    def write_heartbeat(self, seqid: int, out: WriteBuffer) -> None: ...
    def write_call(
        self,
        route: Route,
        args: tuple[Any, ...],
        seqid: int,
        out: WriteBuffer,
        ints: dict[int, str] | None = None,
        strings: dict[str, str] | None = None,
    ) -> None: ...

class PayloadClientProtocol(ThriftClientProtocol):
    """The client's side of a connection whose payloads are a user's."""

    def __init__(self, codec: PayloadCodec, max_message: int = ...) -> None: ...

def client_protocol(
    framing: str = "framed", max_message: int = ..., checksum: bool = False, compression: str = "", payload: PayloadCodec | None = None
) -> ThriftClientProtocol: ...
