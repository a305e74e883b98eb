from typing import ClassVar, Final, TypeAlias

_Bytes: TypeAlias = bytes | bytearray | memoryview

ACL_KEY: Final[str]

class IntKey:
    """Numbers of the int-keyed infos."""

    TRANSPORT_TYPE: Final = 1
    LOG_ID: Final = 2
    FROM_SERVICE: Final = 3
    TO_SERVICE: Final = 6
    TO_METHOD: Final = 9
    RPC_TIMEOUT: Final = 12
    CONNECT_TIMEOUT: Final = 17
    FROM_METHOD: Final = 20
    MSG_TYPE: Final = 22

class StringKey:
    """Names of the string infos that carry a meaning of their own."""

    SERVICE: Final = "isn"
    RESET: Final = "crrst"
    BUSINESS_STATUS: Final = "biz-status"
    BUSINESS_MESSAGE: Final = "biz-message"
    BUSINESS_EXTRA: Final = "biz-extra"
    CHECKSUM: Final = "crc32c"
    PERSISTENT: Final = "RPC_PERSIST_"
    TRANSIENT: Final = "RPC_TRANSIT_"

class Header:
    """One TTHeader."""

    seqid: int
    flags: int
    protocol_id: int
    transforms: bytes
    strings: dict[str, str]
    ints: dict[int, str]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(
        self,
        seqid: int = 0,
        flags: int = 0,
        ints: dict[int, str] | None = None,
        strings: dict[str, str] | None = None,
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...

def loads(packet: _Bytes) -> tuple[Header, bytes]: ...
def dumps(header: Header, payload: bytes = b"") -> bytes: ...
