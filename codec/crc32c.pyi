def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC-32C of `data`, going on from `crc`: ``crc32c(b"123456789") == 0xE3069283``."""

def _by_tables(data: bytes | bytearray | memoryview, crc: int = 0) -> int: ...
