"""IDL files without generated code: load one at run time, and turn its values into JSON and back.

    module = load("shop.thrift", ["idl/"])                  # as if `weego gen` had written it and you had imported it
    item = from_json(StructType(module.Item), {"name": "tea", "tags": ["hot"]})
    to_json(StructType(module.Item), item)                  # {"name": "tea", "tags": ["hot"]}
    services(module)["Shop"].methods["getItem"]             # a MethodSpec; arguments(spec, {...}) makes its tuple

| IDL | JSON |
|---|---|
| `bool`, integers, `string` | the same; numbers in the range of their type |
| `double` | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
| `binary` | base64 |
| `uuid` | its text |
| enum | the name or the number; written as the name, as the number where the IDL has no name for it |
| `list`, `set` | an array |
| `map<string, T>` | an object |
| any other `map` | an array of pairs `[[key, value], …]`, which is read for `map<string, T>` too; integer keys are also read from an object |
| struct, exception | an object by the IDL's field names; a field that is not set is left out, null is not set |
| union | an object with its one member |
"""

from __future__ import annotations

import base64
import binascii
import difflib
import enum
import importlib
import itertools
import math
import os
import re
import sys
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from codec.errors import UsageError
from codec.spec import ABSENT, OPTIONAL, REQUIRED, Field, MethodSpec, Service, ServiceSpec, forget_emitted
from codec.structs import FrozenMap, Union
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type

if TYPE_CHECKING:
    from idlc.model import Program

__all__ = ["Followers", "JsonError", "Loaded", "arguments", "find_method", "from_json", "likely", "load", "load_model", "services", "to_json", "unload"]

_BITS: Final = {"byte": 8, "i16": 16, "i32": 32, "i64": 64}
_NOT_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WORDS: Final = {"bool": "true or false", "double": "a number", "string": "a string", "binary": "base64 text", "uuid": "the text of a UUID"}
_TOO_DEEP: Final = "nested too deeply"

_numbers = itertools.count(1)


class JsonError(UsageError):
    """A JSON value does not fit its IDL type. `path` names it from the outside in: ``req.items[3].name``."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.reason = message


# ---- loading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """An IDL file in memory: the module made of it, and the compiler's model of it and all it includes, the file itself last."""

    module: ModuleType
    programs: tuple[Program, ...]


def load(path: str | os.PathLike[str], include_dirs: Sequence[str | os.PathLike[str]] = ()) -> ModuleType:
    """The module that `weego gen` would make of an IDL file, without anything staying on disk.

    Included files are looked for beside the including file, then in `include_dirs`. Each call makes new classes, which stay in
    `sys.modules` until `unload`, like those of any module: load once, not per request. Raises idlc.IdlError when the IDL has mistakes.
    """
    return load_model(path, include_dirs).module


def load_model(path: str | os.PathLike[str], include_dirs: Sequence[str | os.PathLike[str]] = ()) -> Loaded:
    """The same, with the model, which has comments and annotations."""
    from idlc import compile_files
    from idlc.errors import Report
    from idlc.packages import assign
    from idlc.resolver import resolve

    root = f"weego_dynamic_{next(_numbers)}"
    with tempfile.TemporaryDirectory(prefix="weego-") as folder:
        written = compile_files([path], folder, include_dirs).written
        report = Report()
        programs = resolve([os.fspath(path)], [os.fspath(each) for each in include_dirs], report)
        places = assign(programs, report)
        wanted = next(place for program, place in places.items() if os.path.realpath(program.path) == os.path.realpath(path))
        package = ModuleType(root, f"Modules made of {os.fspath(path)} at run time.")
        package.__path__ = [folder]
        sys.modules[root] = package
        try:
            for file in written:  # all of them now: some packages look their modules up only when asked
                parts = file.relative_to(folder).with_suffix("").parts
                if parts[:-1]:
                    importlib.import_module(".".join([root, *(part for part in parts if part != "__init__")]))
        except BaseException:
            _forget(root)
            raise
        finally:
            for name in [name for name in sys.path_importer_cache if Path(name).is_relative_to(folder)]:
                del sys.path_importer_cache[name]
    return Loaded(sys.modules[f"{root}.{wanted}"], tuple(programs))


def unload(module: ModuleType) -> None:
    """Take what `load` made out of `sys.modules`. Values and specs of it that are still held go on working."""
    _forget(module.__name__.partition(".")[0])


def _forget(root: str) -> None:
    for name in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
        del sys.modules[name]
        forget_emitted(name)


def services(module: ModuleType) -> dict[str, ServiceSpec]:
    """The services that the IDL file itself defines, by their IDL names."""
    found = (each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Service))
    return {each.__spec__.name: each.__spec__ for each in found if each.__module__ == module.__name__}


def find_method(services: Mapping[str, ServiceSpec], name: str, where: str) -> tuple[ServiceSpec, Any]:
    """`Service.method` (for Protobuf `package.Service.Method`), or as much of its end as only one has. UsageError when there is none."""
    owner, dot, method = name.rpartition(".")
    if dot:
        owners = [spec for full, spec in services.items() if full == owner] or [
            spec for full, spec in services.items() if full.endswith(f".{owner}")
        ]
        if not owners:
            raise UsageError(f'no service "{owner}" in {where}; {likely(owner, services)}')
        if len(owners) > 1:
            raise UsageError(f"{owner} is {' and '.join(spec.full_name for spec in owners)}: name the package too")
        if method not in owners[0].methods:
            raise UsageError(f'service {owner} has no method "{method}"; {likely(method, owners[0].methods)}')
        return owners[0], owners[0].methods[method]
    found = [spec for spec in services.values() if method in spec.methods]
    if len(found) == 1:
        return found[0], found[0].methods[method]
    if found:
        raise UsageError(f"{method} is a method of {' and of '.join(spec.full_name for spec in found)}: name the service too")
    every = [each for spec in services.values() for each in spec.methods]
    raise UsageError(f'no method "{method}" in {where}; {likely(method, every)}')


class Followers:
    """Who wants to know that something changed: bound methods, held as long as their objects live."""

    def __init__(self) -> None:
        self._methods: list[weakref.WeakMethod[Callable[[], None]]] = []

    def add(self, changed: Callable[[], None]) -> None:
        """`changed` is a method of what follows."""
        self._methods.append(weakref.WeakMethod(changed))

    def tell(self) -> None:
        """Call them all; those that are gone are forgotten."""
        alive = [(each, method) for each in self._methods if (method := each()) is not None]
        self._methods = [each for each, _ in alive]
        for _, method in alive:
            method()


def likely(name: str, names: Iterable[str]) -> str:
    """How an error about an unknown name ends: the one that was meant if there is one that is close, else all there are."""
    known = list(names)
    close = difflib.get_close_matches(name, known, 1) or [each for each in known if each.lower() == name.lower()]
    if close:
        return f'did you mean "{close[0]}"?'
    return f"there is {', '.join(known)}" if known else "there is none"


# ---- JSON to values --------------------------------------------------------------------------------------------------


def arguments(method: MethodSpec, given: object) -> tuple[Any, ...]:
    """The arguments of a call from a JSON object by argument names. JsonError when they do not fit."""
    try:
        values = _fields(method.args, given, f"the arguments of {method.name}", "argument", "")
    except RecursionError:
        raise JsonError(_TOO_DEEP) from None
    return tuple(values[field.name] if field.name in values else _default(field) for field in method.args)


def _default(field: Field) -> Any:
    if field.factory is not None:
        return field.factory()
    if field.default is not ABSENT:
        return field.default
    if field.requiredness == OPTIONAL:
        return None
    raise JsonError(f'argument "{_idl_name(field)}" ({field.type}) is missing')


def from_json(type: Type, value: object, path: str = "") -> Any:
    """The value of an IDL type from what `json.loads` gives; `path` begins the messages. Raises JsonError."""
    try:
        return _read(type, value, path, hashable=False)
    except RecursionError:
        raise JsonError(_TOO_DEEP, path) from None


def _read(type: Type, value: object, path: str, *, hashable: bool) -> Any:
    match type:
        case Primitive():
            return _read_primitive(type, value, path)
        case EnumType():
            return _read_enum(type.cls, value, path)
        case StructType():
            return _read_struct(type.cls, value, path)
        case List(elem):
            items = [_read(elem, each, f"{path}[{at}]", hashable=hashable) for at, each in enumerate(_array(type, value, path))]
            return tuple(items) if hashable else items
        case Set(elem):
            members = {_read(elem, each, f"{path}[{at}]", hashable=True) for at, each in enumerate(_array(type, value, path))}
            return frozenset(members) if hashable else members
        case Map():
            pairs = {
                _read(type.key, key, f"{path}[{at}]", hashable=True): _read(type.value, each, f"{path}[{at}]", hashable=hashable)
                for at, key, each in _pairs(type, value, path)
            }
            return FrozenMap(pairs) if hashable else pairs


def _array(type: Type, value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise JsonError(f"expected an array for {type}, got {_shown(value)}", path)
    return value


def _pairs(type: Map, value: object, path: str) -> list[tuple[object, object, object]]:
    """Where in the map, key, value."""
    is_text = isinstance(type.key, Primitive) and type.key.name == "string"
    if is_text and isinstance(value, dict):
        return [(key, key, each) for key, each in value.items()]
    if isinstance(value, dict) and isinstance(type.key, Primitive) and type.key.name in _BITS:
        # How Kitex and JavaScript write such maps: the numbers as text.
        return [(key, int(key) if _is_integer(key) else key, each) for key, each in value.items()]
    if isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value):
        return [(at, key, each) for at, (key, each) in enumerate(value)]
    wanted = "an object" if is_text else "an array of [key, value] pairs"
    raise JsonError(f"expected {wanted} for {type}, got {_shown(value)}", path)


def _is_integer(text: object) -> bool:
    # No more digits than the widest integer has: longer ones do not fit, and take long to read.
    return isinstance(text, str) and re.fullmatch(r"-?[0-9]{1,19}", text) is not None


def _read_primitive(type: Primitive, value: object, path: str) -> Any:
    name = type.name
    if name in _BITS:
        if isinstance(value, bool) or not isinstance(value, int):
            raise JsonError(f"expected an integer for {name}, got {_shown(value)}", path)
        bound = 1 << (_BITS[name] - 1)
        if not -bound <= value < bound:
            raise JsonError(f"{value} does not fit in {name}", path)
        return value
    if name == "bool" and isinstance(value, bool):
        return value
    if name == "double":
        if isinstance(value, str) and value in _NOT_NUMBERS:
            return _NOT_NUMBERS[value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise JsonError(f"{value} does not fit in double", path) from None
    if isinstance(value, str):
        try:
            if name == "string":
                return value
            if name == "binary":
                return base64.b64decode(value, validate=True)
            if name == "uuid":
                return uuid.UUID(value)
        except (ValueError, binascii.Error):
            pass  # said below, with the value
    raise JsonError(f"expected {_WORDS[name]} for {name}, got {_shown(value)}", path)


def _read_enum(cls: type[enum.IntEnum], value: object, path: str) -> enum.IntEnum:
    members = cls.__members__
    if isinstance(value, str):
        member = members.get(value, members.get(f"{value}_"))  # the second: a name that Python keeps for itself
        if member is None:
            raise JsonError(f'{cls.__name__} has no member "{value}"; {likely(value, members)}', path)
        return member
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return cls(value)
        except ValueError:
            raise JsonError(f"{value} does not fit in an enum, which has 32 bits", path) from None
    raise JsonError(f"expected a name or number of {cls.__name__}, got {_shown(value)}", path)


def _read_struct(cls: Any, value: object, path: str) -> Any:
    fields: Sequence[Field] = cls.__plan__.fields
    what = "member" if issubclass(cls, Union) else "field"
    values = _fields(fields, value, cls.__name__, what, path)
    if issubclass(cls, Union):
        if len(values) != 1:
            got = " and ".join(values) or "none"
            raise JsonError(f"{cls.__name__} is a union and takes exactly one member, got {got}", path)
    else:
        for field in fields:
            if field.requiredness == REQUIRED and field.name not in values:
                raise JsonError(f'required field "{_idl_name(field)}" of {cls.__name__} is missing', path)
    return cls(**values)


def _fields(fields: Iterable[Field], value: object, owner: str, what: str, path: str) -> dict[str, Any]:
    """Python name → value of the fields that are set."""
    if not isinstance(value, dict):
        raise JsonError(f"expected an object for {owner}, got {_shown(value)}", path)
    known = {_idl_name(field): field for field in fields}
    given: dict[str, Any] = {}
    for name, each in value.items():
        if name not in known:
            raise JsonError(f'{owner}: no {what} "{name}"; {likely(name, known)}', path)
        if each is not None:
            field = known[name]
            given[field.name] = _read(field.type, each, f"{path}.{name}" if path else name, hashable=False)
    return given


def _idl_name(field: Field) -> str:
    return field.name if field.wire_name is None else field.wire_name


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "an object"
        case list():
            return "an array"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# ---- values to JSON --------------------------------------------------------------------------------------------------


def to_json(type: Type | None, value: Any) -> Any:
    """What `json.dumps` takes, of a value of an IDL type; None (void) gives None. The value is trusted to be of the type."""
    if value is None:
        return None
    match type:
        case EnumType():
            number = int(value)
            member = type.cls(number)
            return member.name if member.name in type.cls.__members__ else number
        case StructType():
            return _write_struct(type.cls, value)
        case List(elem):
            return [to_json(elem, each) for each in value]
        case Set(elem):
            return [to_json(elem, each) for each in _ordered(value)]
        case Map():
            if isinstance(type.key, Primitive) and type.key.name == "string":
                return {key: to_json(type.value, each) for key, each in value.items()}
            return [[to_json(type.key, key), to_json(type.value, each)] for key, each in value.items()]
    return _write_primitive(value)


def _write_struct(cls: Any, value: Any) -> dict[str, Any]:
    written = {}
    for field in cls.__plan__.fields:
        each = getattr(value, field.name, None)
        if each is not None:
            written[_idl_name(field)] = to_json(field.type, each)
    return written


def _write_primitive(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, uuid.UUID) else value


def _ordered(items: Iterable[Any]) -> list[Any]:
    """A set in an order that does not change from run to run, where its items have one."""
    try:
        return sorted(items)
    except TypeError:
        return list(items)
