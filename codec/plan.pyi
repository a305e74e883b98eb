import enum
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, final

from typing_extensions import disjoint_base

from codec.spec import Field
from codec.types import Type

_Bytes: TypeAlias = bytes | bytearray | memoryview

MAX_DEPTH: Final[int]
DEFAULT_MAX_DECODED: Final[int]

@disjoint_base
class FieldTable:
    """Fields that are read and written together."""

    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> tuple[Field, ...]: ...
    @property
    def names(self) -> tuple[str, ...]: ...

@final
class StructPlan(FieldTable):
    """Instances of one struct class ⇄ bytes."""

    def __init__(self, cls: type[StructBase], fields: Iterable[Field], *, is_union: bool = False) -> None: ...
    @property
    def cls(self) -> type[StructBase]: ...
    def fill(self, value: StructBase) -> None: ...
    def loads(self, data: _Bytes, compact: bool = False) -> Any: ...
    def dumps(self, value: StructBase, compact: bool = False) -> bytes: ...

@final
class ArgsPlan(FieldTable):
    """The arguments of one method ⇄ bytes."""

    def __init__(self, name: str, fields: Iterable[Field], *, raw: bool = False) -> None: ...
    def loads(self, data: _Bytes, compact: bool = False) -> tuple[Any, ...]: ...
    def dumps(self, args: tuple[Any, ...], compact: bool = False) -> bytes: ...

@final
class ResultPlan(FieldTable):
    """The result of one method, or an exception that it declares ⇄ bytes."""

    def __init__(self, name: str, result: Type | None, throws: Iterable[Field] = (), *, raw: bool = False) -> None: ...
    def loads(self, data: _Bytes, compact: bool = False) -> Any: ...
    def dumps(self, value: Any, compact: bool = False) -> bytes: ...
    def dumps_exception(self, exc: BaseException, compact: bool = False) -> bytes | None: ...

@final
class EnumTable:
    """Numbers ⇄ members of one enum; made by plans."""

    def __init__(self, cls: type[enum.IntEnum]) -> None: ...

class StructBase:
    """What all structs have that must be fast."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> Any: ...

def value_hash(value: object) -> int: ...
