"""What an IDL says about fields, methods and services, as the emitted code writes it down."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, TypeAlias

from codec.errors import Origin, UnknownMethod
from codec.plan import ArgsPlan, ResultPlan
from codec.types import DESCRIPTORS, StructType, Type, check_type

__all__ = [
    "ABSENT",
    "DEFAULT",
    "OPTIONAL",
    "REQUIRED",
    "STUB_FORMAT",
    "Field",
    "Kind",
    "Method",
    "MethodSpec",
    "RawMethodSpec",
    "Requiredness",
    "Service",
    "ServiceSpec",
    "forget_emitted",
    "require",
    "unimplemented",
]

# Number of the agreement between emitted code and this runtime. Raise it when old stubs would misbehave.
STUB_FORMAT: Final = 1

# Thrift's field ids are 16-bit and signed; the IDL hands out negative ones to fields without a number.
_MIN_FIELD_ID: Final = -32768
_MAX_FIELD_ID: Final = 32767


class Requiredness(enum.IntEnum):
    """What it means when a field is not there."""

    DEFAULT = 0
    REQUIRED = 1
    OPTIONAL = 2


DEFAULT: Final = Requiredness.DEFAULT
REQUIRED: Final = Requiredness.REQUIRED
OPTIONAL: Final = Requiredness.OPTIONAL


class _Absent(enum.Enum):
    ABSENT = enum.auto()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent.ABSENT
"""The IDL gives the field no default."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct, an argument of a method, or an exception that a method throws.

    `name` is the Python slot; `wire_name` the IDL's spelling, given if it differs. `default` is an immutable value; a
    mutable one comes from `factory`. A field that is absent on decode: REQUIRED raises ProtocolError; DEFAULT takes
    the default, else the zero value of its type (None for structs and uuids); OPTIONAL takes the default, else None.
    """

    id: int
    name: str
    type: Type
    requiredness: Requiredness = DEFAULT
    default: object = ABSENT
    factory: Callable[[], object] | None = None
    wire_name: str | None = None

    def __post_init__(self) -> None:
        if not _MIN_FIELD_ID <= self.id <= _MAX_FIELD_ID:
            raise ValueError(f"field {self.name!r}: id {self.id} does not fit in 16 bits")
        given: object = self.type
        if not isinstance(given, DESCRIPTORS):
            check_type(given, f"the type of field {self.name!r}")
        if self.factory is not None and self.default is not ABSENT:
            raise ValueError(f"field {self.name!r}: give a default or a factory, not both")


Kind: TypeAlias = Literal["thrift", "protobuf"]
"""The IDL family of a service, and with it what its payloads are."""


class Method:
    """What every method has, whatever IDL it comes from: MethodSpec and ProtobufMethodSpec derive from it.

    `name` is the IDL's spelling and `wire_name` its bytes; `py_name` the attribute of the service class. `idempotent`
    says that calling twice does no more than calling once, as the IDL's author declared.
    """

    kind: ClassVar[Kind]
    name: str
    wire_name: bytes
    py_name: str
    doc: str
    oneway: bool
    idempotent: bool
    client_streaming: bool
    server_streaming: bool


class MethodSpec(Method):
    """One method of a Thrift service: what it takes, what it gives, and the plans that turn both into bytes.

    The plans are compiled when they are first used, because the emitted tables may refer to structs in any order.
    """

    kind = "thrift"

    def __init__(
        self,
        name: str,
        *,
        args: Iterable[Field],
        result: Type | None,
        throws: Iterable[Field] = (),
        oneway: bool = False,
        py_name: str | None = None,
        doc: str = "",
        idempotent: bool = False,
        client_streaming: bool = False,
        server_streaming: bool = False,
    ) -> None:
        self.name = name
        self.wire_name = name.encode()
        self.py_name = name if py_name is None else py_name
        self.args: Final = tuple(args)
        self.result: Final = result
        self.throws: Final = tuple(throws)
        self.oneway = oneway
        self.doc = doc
        self.idempotent = idempotent
        self.client_streaming = client_streaming
        self.server_streaming = server_streaming
        if result is not None:
            check_type(result, f"the result of method {name!r}")
        for field in self.throws:
            if not (isinstance(field.type, StructType) and issubclass(field.type.cls, BaseException)):
                raise TypeError(f"method {name!r} throws {field.name!r}: {field.type} is not an exception")
        if oneway and (result is not None or self.throws):
            raise ValueError(f"method {name!r} is oneway: it can neither return nor throw")
        if (client_streaming or server_streaming) and (oneway or len(self.args) != 1):
            raise ValueError(f"method {name!r} streams: it takes exactly one argument and is not oneway")

    @cached_property
    def args_plan(self) -> ArgsPlan:
        """Arguments ⇄ bytes."""
        return ArgsPlan(self.name, self.args)

    @cached_property
    def result_plan(self) -> ResultPlan:
        """Result or declared exception ⇄ bytes."""
        return ResultPlan(self.name, self.result, self.throws)

    def __repr__(self) -> str:
        args = ", ".join(f"{field.type} {field.name}" for field in self.args)
        return f"<MethodSpec {'oneway ' if self.oneway else ''}{self.result or 'void'} {self.name}({args})>"


class RawMethodSpec(MethodSpec):
    """A method of which only the name is known: its one argument and its result are bytes, the structs as they are on the wire.

    The result struct holds the value in field 0, or a declared exception in another. Proxies and gateways pass them on.
    """

    def __init__(self, name: str, *, oneway: bool = False) -> None:
        super().__init__(name, args=(), result=None, oneway=oneway)

    @cached_property
    def args_plan(self) -> ArgsPlan:
        """The args struct as bytes, in a tuple of one."""
        return ArgsPlan(self.name, (), raw=True)

    @cached_property
    def result_plan(self) -> ResultPlan:
        """The result struct as bytes."""
        return ResultPlan(self.name, None, raw=True)


class ServiceSpec:
    """One service. `methods` has its own methods and the inherited ones, by their names on the wire.

    `full_name` is what gRPC paths, Kitex's `isn` and reflection call it: `package.Service` for Protobuf, the bare name for
    Thrift. `kind` is the IDL family; methods of a "protobuf" service are ProtobufMethodSpecs.
    """

    def __init__(
        self,
        name: str,
        methods: Iterable[Method],
        base: ServiceSpec | None = None,
        doc: str = "",
        *,
        full_name: str | None = None,
        kind: Kind = "thrift",
    ) -> None:
        self.name: Final = name
        self.full_name: Final = name if full_name is None else full_name
        self.kind: Final[Kind] = kind
        self.base: Final = base
        self.doc: Final = doc
        self.own_methods: Final = tuple(methods)
        table = dict(base.methods) if base is not None else {}
        own: set[str] = set()
        for method in self.own_methods:
            if method.name in own:
                raise ValueError(f"service {name!r} has two methods {method.name!r}")
            if method.kind != kind:
                raise TypeError(f"service {name!r} is of kind {kind}, its method {method.name!r} of kind {method.kind}")
            own.add(method.name)
            table[method.name] = method
        self.methods: Final[dict[str, Any]] = table

    def __repr__(self) -> str:
        return f"<ServiceSpec {self.name}: {', '.join(self.methods) or 'no methods'}>"


class Service:
    """Base of the emitted service bases: subclass one of those and write its methods."""

    __spec__: ClassVar[ServiceSpec]


def unimplemented(service: str, method: str) -> UnknownMethod:
    """The error that an emitted method raises until it is overridden; peers see "unknown method"."""
    return UnknownMethod(
        f"{service}.{method} is declared in the IDL, but the service class does not implement it", origin=Origin.LOCAL
    )


_emitted: Final[set[str]] = set()


def require(stub_format: int, module: str) -> None:
    """Refuse, with ImportError, a stub that was generated for another runtime."""
    if stub_format < STUB_FORMAT:
        raise ImportError(
            f"{module}: generated for stub format {stub_format}, this weego needs {STUB_FORMAT}; run `weego gen` again"
        )
    if stub_format > STUB_FORMAT:
        raise ImportError(
            f"{module}: generated for stub format {stub_format} by a newer weego than this one, "
            f"which knows {STUB_FORMAT}; upgrade weego, or run this version's `weego gen`"
        )
    _emitted.add(module)


def is_emitted(module: str) -> bool:
    """Did `weego gen` write this module? It said so by `require`."""
    return module in _emitted


def forget_emitted(module: str) -> None:
    """A module made at run time is gone."""
    _emitted.discard(module)
