from typing import Any, Self

from codec.proto_fields import ProtoField

MAX_DEPTH: int

class ProtoPlan:
    cls: type[Any]
    name: str
    full_name: str
    fields: tuple[ProtoField, ...]
    names: tuple[str, ...]
    def __new__(cls, owner: type[Any], full_name: str, fields: tuple[ProtoField, ...]) -> Self: ...
    def fill(self, value: Any) -> None: ...
    def loads(self, data: bytes | bytearray | memoryview) -> Any: ...
    def dumps(self, value: Any) -> bytes: ...

class ProtoBase:
    def __copy__(self) -> Self: ...

class OneofMember:
    __name__: str

def define_proto(cls: type[Any], full_name: str, *fields: ProtoField) -> None: ...
def which(message: object, *names: str) -> Any: ...
