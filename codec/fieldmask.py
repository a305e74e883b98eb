"""Field masks: which fields, elements and entries of a struct go out or are wanted, as thriftgo has them.

    mask = FieldMask(Order, "$.id", "$.buyer.name", "$.items[0,1]", '$.prices{"eur"}.net')
    mask.outgoing(order)                      # a copy that encodes to these alone
    text = mask.to_json()                     # the form that thriftgo's masks have too, for a field of a request
    FieldMask.from_json(Order, text)          # and back

A path begins with `$`, the struct. `.name` or `.7` (the id) is a field, `[0,2]` are elements of a list or set, `{"a","b"}` or `{1,2}` entries of
a map by their keys, `*` in the place of any of them stands for all. A path that ends at a struct or container takes all of it. A mask is a
white list: what it does not name is left out. With `black=True` it is a black list: what its paths end at is left out. A mask without paths
lets everything pass. How values are cut is in `codec.masking`.

Paths and JSON are read and written as thriftgo 0.4.5 does, but for its accidents: here a path must be whole (`$.a[1` is refused), `.*` can only
end one, keys of integers may be negative, text in JSON is escaped as JSON has it, unions and exceptions are structs like others, and what a
black path ends at is left out even if it ends in `[*]` or other paths go further.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from codec.errors import UsageError
from codec.structs import Struct
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type

__all__ = ["FieldMask", "FieldMaskError", "Node", "kind_of"]

S = TypeVar("S", bound=Struct)

# A mask that a peer sent may nest this deep, as messages may (`codec.plan.MAX_DEPTH`): a list in a struct is two levels.
MAX_LEVELS: Final = 128

_KINDS: Final = ("Invalid", "Scalar", "List", "Struct", "StrMap", "IntMap")
_INTEGERS: Final = {"byte", "i16", "i32", "i64"}
_TOKEN: Final = re.compile(r"""(?P<mark>[$.\[\]{},*])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^$.\[\]{},*"\\]+)""", re.DOTALL)
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


class FieldMaskError(UsageError):
    """A path or the JSON of a mask does not fit the struct that it is for, or is written wrongly."""


@dataclass(slots=True)
class Node:
    """What a mask says of one value: of all that is in it (`all`, with `every` for how), or of `children` by field id, index or key."""

    kind: str = "Invalid"
    black: bool = False
    all: bool = False
    every: Node | None = None
    children: dict[int | str, Node] = field(default_factory=dict)

    def has_children(self) -> bool:
        """Does it go into the value?"""
        return self.kind != "Invalid" and (self.every is not None or bool(self.children))

    def passes(self, key: int | str) -> bool:
        """Does the field, element or entry `key` go along?"""
        if self.kind == "Invalid":
            return True
        child = self.child(key)
        if self.black:
            # What the black list names is what its paths end at; what lies on the way there passes.
            return (child is None and not self.all) or (child is not None and child.has_children())
        return self.all or child is not None

    def child(self, key: int | str) -> Node | None:
        """What the mask says of the field, element or entry `key`; None: nothing."""
        return self.every if self.all else self.children.get(key)


class FieldMask(Generic[S]):
    """A mask for instances of one struct, union or exception; immutable, so make it once. FieldMaskError names the path that is wrong."""

    __slots__ = ("_ready", "cls", "root")

    def __init__(self, cls: type[S], *paths: str, black: bool = False) -> None:
        self.cls = cls
        self.root = Node(black=black)
        self._ready: dict[str, Any] = {}
        for path in paths:
            _Path(path, cls.__name__).add(self.root, StructType(cls))

    @property
    def black(self) -> bool:
        """Is it a black list?"""
        return self.root.black

    def outgoing(self, value: S, *, zero_required: bool = False) -> S:
        """A copy of `value` that is encoded without what the mask leaves out.

        Required fields go out nevertheless, as every reader insists on them: as they are, or, with `zero_required`, as the zero of their type.
        What passes is shared with `value`, not copied.
        """
        return self._cut("zero" if zero_required else "omit", value)

    def incoming(self, value: S) -> S:
        """A copy of a `value` that came, in which what the mask leaves out is as if it had not come: its default, else zero or None."""
        return self._cut("default", value)

    def _cut(self, mode: str, value: S) -> S:
        from codec.masking import cutter

        if not isinstance(value, self.cls):
            raise FieldMaskError(f"the mask is for {self.cls.__name__}, got {type(value).__name__}")
        if mode not in self._ready:
            self._ready[mode] = cutter(StructType(self.cls), self.root, mode)
        cut = self._ready[mode]
        return value if cut is None else cut(value)

    def to_json(self) -> str:
        """The mask as thriftgo writes it: fields by id, in order."""
        return json.dumps(_to_plain(self.root, "$"), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, struct: type[S], text: str | bytes) -> FieldMask[S]:
        """The mask of a JSON text, thriftgo's or ours. Fields that `struct` does not have (a newer peer's) are kept and mean nothing here."""
        mask = cls(struct)
        try:
            plain = json.loads(text)
            if not isinstance(plain, dict) or plain.get("path") != "$":
                raise FieldMaskError('the JSON of a mask is an object whose "path" is "$"')
            mask.root = _from_plain(plain, StructType(struct), struct.__name__, MAX_LEVELS)
        except RecursionError:
            raise FieldMaskError("the JSON of the mask is nested too deeply") from None
        except ValueError as error:
            raise FieldMaskError(f"the mask is not JSON: {error}") from None
        return mask

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldMask) and self.cls is other.cls and self.root == other.root

    def __hash__(self) -> int:
        return hash((self.cls, self.to_json()))

    def __repr__(self) -> str:
        return f"<FieldMask {self.cls.__name__} {'black' if self.black else 'white'} {self.to_json()}>"


def kind_of(type: Type) -> str:
    """What thriftgo calls the mask of a value of this type."""
    if isinstance(type, StructType):
        return "Struct"
    if isinstance(type, List | Set):
        return "List"
    if isinstance(type, Map):
        key = type.key
        if isinstance(key, EnumType) or (isinstance(key, Primitive) and key.name in _INTEGERS):
            return "IntMap"
        return "StrMap" if isinstance(key, Primitive) and key.name in ("string", "binary") else "Scalar"
    return "Scalar"


# ---- paths -----------------------------------------------------------------------------------------------------------


class _Path:
    """One path, taken apart."""

    def __init__(self, text: str, owner: str) -> None:
        self.text = text
        self.owner = owner
        self.tokens = list(self._split())
        self.at = 0

    def _split(self) -> Iterator[tuple[str, str, int]]:
        """Kind, text and place of each token; for marks the kind is the mark."""
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                raise self.error("a quote is not closed" if self.text[at] == '"' else f"{self.text[at]!r} belongs between quotes", at)
            kind = found.lastgroup or ""
            yield found[0] if kind == "mark" else kind, found[0], at
            at = found.end()

    def error(self, message: str, at: int | None = None) -> FieldMaskError:
        if at is None:
            at = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        return FieldMaskError(f"mask path {self.text!r} of {self.owner}, at {at}: {message}")

    def next(self) -> tuple[str, str]:
        """The next token; ("", "") at the end."""
        if self.at == len(self.tokens):
            return "", ""
        kind, text, _ = self.tokens[self.at]
        self.at += 1
        return kind, text

    def add(self, root: Node, type: Type) -> None:
        if self.next()[0] != "$":
            self.at = 0
            raise self.error("a path begins with $")
        root.kind = kind_of(type)
        self._step(root, type)

    def _step(self, node: Node, type: Type) -> None:
        """What follows is about a value of `type`, of which `node` speaks."""
        start = self.at
        kind, text = self.next()
        if not kind:
            node.all = True
            node.children.clear()
            return
        if kind == ".":
            self._field(node, type)
        elif kind in ("[", "{"):
            self._elements(node, type, kind)
        else:
            self.at = start
            raise self.error(f"expected .field, [index] or {{key}}, got {text}")

    def _field(self, node: Node, type: Type) -> None:
        if not isinstance(type, StructType):
            self.at -= 1
            raise self.error(f"{type} is no struct and has no fields")
        start = self.at
        kind, text = self.next()
        fields = _fields(type)
        if kind == "*":
            if self.at < len(self.tokens):
                raise self.error('".*" can only end a path, for fields differ in type')
            if not fields:
                raise self.error(f"{type} has no fields")
            node.all = True
            node.children.clear()
            node.every = node.every or Node(kind_of(fields[0].type), node.black, all=True)
            return
        found = next((each for each in fields if text in (each.wire_name or each.name, str(each.id))), None)
        if kind != "word" or found is None:
            self.at = start
            raise self.error(f"{type} has no field {text!r}; {_likely(text, [each.wire_name or each.name for each in fields])}")
        if node.all:
            raise self.error("an earlier path takes all of it already", 0)
        self._step(node.children.setdefault(found.id, Node(kind_of(found.type), node.black)), found.type)

    def _elements(self, node: Node, type: Type, opening: str) -> None:
        is_map = opening == "{"
        if not isinstance(type, Map if is_map else (List, Set)):
            self.at -= 1
            raise self.error(f"{type} is no {'map and has no {keys}' if is_map else 'list or set and has no [indices]'}")
        value = type.value if isinstance(type, Map) else type.elem
        keys, is_all = self._keys(node.kind, "}" if is_map else "]", type)
        if is_all:
            node.all = True
            node.children.clear()
            node.every = node.every or Node(kind_of(value), node.black)
            self._step(node.every, value)
            return
        if node.all:
            raise self.error("an earlier path takes all of it already", 0)
        rest = self.at
        for key in keys:
            self.at = rest
            self._step(node.children.setdefault(key, Node(kind_of(value), node.black)), value)

    def _keys(self, kind: str, closing: str, type: Type) -> tuple[list[int | str], bool]:
        """The keys or indices up to the closing bracket, and whether they are all."""
        keys: list[int | str] = []
        is_all = False
        while True:
            start = self.at
            mark, text = self.next()
            if mark == "*":
                is_all = True
            elif mark == "word" and kind in ("List", "IntMap") and _INTEGER.fullmatch(text) and (kind == "IntMap" or text[0] != "-"):
                keys.append(int(text))
            elif mark == "text" and kind == "StrMap":
                keys.append(self._unquoted(text))
            else:
                self.at = start
                wanted = {"List": "an index", "IntMap": "an integer", "StrMap": "a quoted text", "Scalar": "*"}[kind]
                raise self.error(f"expected {wanted} for {type}, got {text or 'the end'}")
            start = self.at
            mark, text = self.next()
            if mark == closing:
                return keys, is_all
            if mark != ",":
                self.at = start
                raise self.error(f"expected , or {closing}, got {text or 'the end'}")

    def _unquoted(self, text: str) -> str:
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            self.at -= 1
            raise self.error(f"{text} is no text as JSON has it") from None


def _likely(name: str, known: list[str]) -> str:
    """How an error about an unknown name ends."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"


def _fields(type: StructType) -> tuple[Any, ...]:
    return type.cls.__plan__.fields  # type: ignore[attr-defined, no-any-return]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _to_plain(node: Node, path: int | str) -> dict[str, Any]:
    plain: dict[str, Any] = {"path": path, "type": node.kind, "is_black": node.black}
    if node.all or node.kind in ("Scalar", "Invalid"):
        if node.every is not None:
            plain["children"] = [_to_plain(node.every, "*")]
    else:
        if "*" in node.children:
            raise FieldMaskError('the key "*" of a map has no form in the JSON of a mask, which takes it for all keys')
        plain["children"] = [_to_plain(child, key) for key, child in sorted(node.children.items())]
    return plain


def _from_plain(plain: Any, type: Type | None, where: str, levels: int) -> Node:
    """The node that `plain` describes, for a value of `type`; None where the struct has no such field."""
    if levels == 0:
        raise FieldMaskError(f"{where}: the mask goes deeper than {MAX_LEVELS} levels")
    if not isinstance(plain, dict) or plain.get("type") not in _KINDS[1:]:
        raise FieldMaskError(f'{where}: expected an object whose "type" is one of {", ".join(_KINDS[1:])}')
    kind = plain["type"]
    if type is not None and kind != kind_of(type):
        raise FieldMaskError(f"{where}: the mask is for a {kind}, but this is {type}")
    if not isinstance(plain.get("is_black", False), bool):
        raise FieldMaskError(f'{where}: "is_black" is true or false')
    node = Node(kind, plain.get("is_black", False))
    children = plain.get("children") or []
    if not isinstance(children, list):
        raise FieldMaskError(f'{where}: "children" is an array')
    node.all = not children
    for each in children:
        key = each.get("path") if isinstance(each, dict) else None
        if key == "*":
            node.all = True
            node.children.clear()
            inner = None if kind == "Struct" else _inside(type)
            node.every = _from_plain(each, inner, f"{where}{'.*' if kind == 'Struct' else '[*]'}", levels - 1)
            break
        if kind == "Scalar" or isinstance(key, bool) or not isinstance(key, str if kind == "StrMap" else int):
            raise FieldMaskError(f'{where}: {json.dumps(key)} is no "path" in a {kind}')
        found = next((one for one in _fields(type) if one.id == key), None) if isinstance(type, StructType) else None
        inner = found.type if found else None if kind == "Struct" else _inside(type)
        at = f"{where}.{(found.wire_name or found.name) if found else key}" if kind == "Struct" else f"{where}[{key!r}]"
        node.children[key] = _from_plain(each, inner, at, levels - 1)
    return node


def _inside(type: Type | None) -> Type | None:
    """The type of what a container holds."""
    if isinstance(type, Map):
        return type.value
    return type.elem if isinstance(type, List | Set) else None
