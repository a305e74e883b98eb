"""A server says what it serves: the IDL of its Thrift services, written anew from what the codec knows of them.

    weego.Server([ShopService(), weego.reflection([ShopService])])
    [server]
    reflection = true                       # the same in conf/server.toml
    weego call tcp://… Shop.getItem '{"id": 7}'          # needs no --idl then

The service is called ``weego.Reflection``; its one method ``string idl()`` gives one Thrift file with everything in it. Names, ids, types,
requiredness and enum numbers are those of the IDL; comments, constants, typedefs and annotations are not known any more. Two types of
one name, from different files, are told apart by numbers.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from codec.spec import ABSENT, OPTIONAL, REQUIRED, Field, MethodSpec, Service, ServiceSpec
from codec.structs import IdlException, Union
from codec.types import STRING, EnumType, List, Map, Primitive, Set, StructType, Type
from weego.client import Client

__all__ = ["SERVICE_NAME", "fetch_idl", "idl_text", "reflection"]

SERVICE_NAME: Final = "weego.Reflection"

_IDL: Final = MethodSpec("idl", args=(), result=STRING)
_SPEC: Final = ServiceSpec(SERVICE_NAME, [_IDL])


class _Reflection(Service):
    __spec__ = _SPEC

    def __init__(self, text: str) -> None:
        self._text = text

    def idl(self) -> str:
        return self._text


class _ReflectionClient(Client):
    __spec__ = _SPEC

    def idl(self, timeout: float | None = None) -> str:
        text: str = self._invoke(_IDL, (), timeout)
        return text


def reflection(services: Iterable[object]) -> Service:
    """A service to serve beside others, which describes them: objects or classes of generated service bases. Protobuf ones are left out."""
    specs = [getattr(each, "__spec__", None) for each in services]
    return _Reflection(idl_text([spec for spec in specs if isinstance(spec, ServiceSpec) and spec.kind == "thrift"]))


def fetch_idl(address: str | Sequence[str], timeout: float, **options: Any) -> str:
    """The IDL that a server describes its services with. UnknownMethod or UnknownService when it does not."""
    with _ReflectionClient(address, **options) as client:
        return client.idl(timeout)


# ---- writing IDL -----------------------------------------------------------------------------------------------------


def idl_text(specs: Iterable[ServiceSpec]) -> str:
    """One Thrift file with these services and all they are made of."""
    return _Writer().text(list(specs))


class _Writer:
    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set()
        self._types: dict[Any, list[str]] = {}

    def text(self, specs: list[ServiceSpec]) -> str:
        ordered: dict[str, ServiceSpec] = {}
        for spec in specs:
            chain = [spec]
            while chain[-1].base is not None:
                chain.append(chain[-1].base)
            for each in reversed(chain):
                ordered.setdefault(each.name, each)
        self._taken |= set(ordered)
        services = [self._service(spec) for spec in ordered.values()]
        blocks = [*self._types.values(), *services]
        return "\n\n".join("\n".join(block) for block in blocks) + "\n"

    def _service(self, spec: ServiceSpec) -> list[str]:
        base = f" extends {spec.base.name}" if spec.base is not None else ""
        return [f"service {spec.name}{base} {{", *(f"  {self._method(method)}" for method in spec.own_methods), "}"]

    def _method(self, method: Any) -> str:
        args = ", ".join(self._field(field) for field in method.args)
        throws = ", ".join(self._field(field) for field in method.throws)
        result = "void" if method.result is None else self._type(method.result)
        mode = {(True, True): "bidirectional", (True, False): "client", (False, True): "server"}.get((method.client_streaming, method.server_streaming))
        marks = [f'streaming.mode = "{mode}"'] if mode else []
        marks += ['idempotent = "true"'] if method.idempotent else []
        ending = (f" throws ({throws})" if throws else "") + (f" ({', '.join(marks)})" if marks else "")
        return f"{'oneway ' if method.oneway else ''}{result} {method.name}({args}){ending}"

    def _field(self, field: Field) -> str:
        requiredness = {REQUIRED: "required ", OPTIONAL: "optional "}.get(field.requiredness, "")
        return f"{field.id}: {requiredness}{self._type(field.type)} {field.wire_name or field.name}{_default(field)}"

    def _type(self, type_: Type) -> str:
        match type_:
            case Primitive(name):
                return name
            case List(elem):
                return f"list<{self._type(elem)}>"
            case Set(elem):
                return f"set<{self._type(elem)}>"
            case Map():
                return f"map<{self._type(type_.key)}, {self._type(type_.value)}>"
            case EnumType(cls):
                return self._enum(cls)
            case StructType(struct):
                return self._struct(struct)

    def _named(self, cls: type) -> str:
        name, number = cls.__name__, 2
        while name in self._taken:
            name, number = f"{cls.__name__}_{number}", number + 1
        self._taken.add(name)
        self._names[cls] = name
        return name

    def _enum(self, cls: type[enum.IntEnum]) -> str:
        if cls in self._names:
            return self._names[cls]
        name = self._named(cls)
        self._types[cls] = [f"enum {name} {{", *(f"  {member} = {int(value)}" for member, value in cls.__members__.items()), "}"]
        return name

    def _struct(self, cls: Any) -> str:
        if cls in self._names:
            return self._names[cls]
        name = self._named(cls)  # before the fields: they may lead back here
        kind = "union" if issubclass(cls, Union) else "exception" if issubclass(cls, IdlException) else "struct"
        self._types[cls] = [f"{kind} {name} {{", *(f"  {self._field(field)}" for field in cls.__plan__.fields), "}"]
        return name


def _default(field: Field) -> str:
    """Defaults of numbers, truths and texts; others would need the types' own spelling, and matter to nobody who calls."""
    value = field.default
    if value is ABSENT or isinstance(value, enum.Enum):
        return ""
    match value:
        case bool():
            return f" = {str(value).lower()}"
        case int() | float() if value == value and abs(value) != float("inf"):  # noqa: PLR0124 - not NaN
            return f" = {value!r}"
        case str() if value.isprintable() and "\\" not in value:
            return f" = {json.dumps(value, ensure_ascii=False)}"
    return ""
