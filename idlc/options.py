"""Typed options, as thriftgo's `use_option` has them: annotations that a struct in an included file declares the type of.

    // entity.thrift                                  // main.thrift
    struct _StructOptions {                           include "entity.thrift"
        1: required Info info                         struct Person { … } ( entity.info = '{name: "x" tags: [a, b]}'
    }                                                                       entity.info.age = "7" )

`_StructOptions` declares those of structs, unions and exceptions, `_FieldOptions`, `_EnumOptions`, `_EnumValueOptions`, `_ServiceOptions` and
`_MethodOptions` the others. A value is `{key: value …}` for a struct or map, `[value …]` for a list or set, else a word or quoted text; separators
are optional. Fields may be given one by one behind another dot. What an annotation names that is declared nowhere is no option and stays text.
Defaults of the declaring struct are filled in, binary is hex, enums are names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from idlc import ast, model
from idlc.errors import Report

__all__ = ["OptionError", "check_options", "options"]

Thing: TypeAlias = model.Struct | model.Field | model.Enum | model.EnumMember | model.Service | model.Function

_DECLARING: Final = {
    model.Struct: "_StructOptions",
    model.Field: "_FieldOptions",
    model.Enum: "_EnumOptions",
    model.EnumMember: "_EnumValueOptions",
    model.Service: "_ServiceOptions",
    model.Function: "_MethodOptions",
}
_BITS: Final = {"byte": 8, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
_TRUTHS: Final = {"true": True, "1": True, "t": True, "T": True, "True": True, "TRUE": True}
_FALSEHOODS: Final = {"false": False, "0": False, "f": False, "F": False, "False": False, "FALSE": False}
_TOKEN: Final = re.compile(r"""\s*(?:(?P<mark>[{}\[\]:,;])|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<word>[^\s{}\[\]:,;"']+)|(?P<wrong>\S))""")
# No option nests deeper; text made for the purpose would end the interpreter's stack.
_DEEPEST: Final = 50

_Tree: TypeAlias = "str | list[_Tree] | dict[str, _Tree]"


class OptionError(ValueError):
    """An annotation names an option and does not fit its type."""


def options(program: model.Program, thing: Thing) -> dict[str, Any]:
    """The options of something in `program`, by `file.option`: plain values. OptionError when one does not fit."""
    return {name: read() for name, _, read in _found(program, thing)}


def check_options(programs: list[model.Program], report: Report) -> None:
    """Warn of every option that does not fit its type (an error to thriftgo, with `use_option`)."""
    for program in programs:
        if not any(_declares(each) for each in [program, *program.includes]):
            continue
        for thing in _things(program):
            for name, annotation, read in _found(program, thing):
                try:
                    read()
                except OptionError as error:
                    report.warn("option", f'the option "{name}" does not fit its type: {error}', annotation.pos)


def _declares(program: model.Program) -> bool:
    return any(name in program.symbols for name in _DECLARING.values())


def _things(program: model.Program) -> Iterator[Thing]:
    for definition in program.definitions:
        match definition:
            case model.Struct():
                if definition.name not in _DECLARING.values():
                    yield definition
                    yield from definition.fields
            case model.Enum():
                yield definition
                yield from definition.members
            case model.Service():
                yield definition
                yield from definition.functions


def _found(program: model.Program, thing: Thing) -> Iterator[tuple[str, ast.Annotation, Any]]:
    """Name, annotation and reader of each option."""
    declaring = _DECLARING[type(thing)]
    parts: dict[str, tuple[model.Field, dict[str, _Tree], ast.Annotation]] = {}
    whole: dict[str, tuple[model.Field, ast.Annotation]] = {}
    for annotation in thing.annotations:
        prefix, _, rest = annotation.key.partition(".")
        name, _, path = rest.partition(".")
        for included in program.includes if prefix != program.stem else [program, *program.includes]:
            struct = included.symbols.get(declaring)
            field = struct.field(name) if isinstance(struct, model.Struct) and included.stem == prefix else None
            if field is None:
                continue
            program.used.add(included)
            full = f"{prefix}.{name}"
            if not path:
                whole[full] = field, annotation
            else:
                _, tree, _ = parts.setdefault(full, (field, {}, annotation))
                _place(tree, path.split("."), annotation.value)
            break
    for full, (field, annotation) in whole.items():
        yield full, annotation, _Reader(field, text=annotation.value)
    for full, (field, tree, annotation) in parts.items():
        if full not in whole:
            yield full, annotation, _Reader(field, tree=tree)


def _place(tree: dict[str, _Tree], path: list[str], text: str) -> None:
    """Put a value given by its path into the tree of the others."""
    for each in path[:-1]:
        inner = tree.get(each)
        if not isinstance(inner, dict):
            inner = tree[each] = {}
        tree = inner
    tree[path[-1]] = text


class _Reader:
    """Reads one option when it is called."""

    def __init__(self, field: model.Field, *, text: str = "", tree: dict[str, _Tree] | None = None) -> None:
        self._field, self._text, self._tree = field, text, tree

    def __call__(self) -> Any:
        return _value(self._field.type, self._text if self._tree is None else self._tree, self._field.name)


# ---- text ------------------------------------------------------------------------------------------------------------


def _parse(text: str) -> _Tree:
    tokens: list[tuple[str, str]] = []
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup or ""
        if kind == "wrong":
            raise OptionError(f"{found[kind]} is not closed" if found[kind] in "\"'" else f"unexpected {found[kind]!r}")
        tokens.append((found[0].strip() if kind == "mark" else "text", found[kind]))
    tokens.append(("", ""))
    at = 0

    def take(depth: int) -> _Tree:
        nonlocal at
        kind, each = tokens[at]
        at += 1
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", each) if "\\" in each else each
        if kind not in ("{", "["):
            raise OptionError(f"expected a value, got {kind or 'the end'}")
        if depth == _DEEPEST:
            raise OptionError("nested too deeply")
        items: list[_Tree] = []
        pairs: dict[str, _Tree] = {}
        closing = "}" if kind == "{" else "]"
        while tokens[at][0] != closing:
            if tokens[at][0] in (",", ";"):
                at += 1
                continue
            if closing == "]":
                items.append(take(depth + 1))
                continue
            key, name = tokens[at]
            if key != "text" or tokens[at + 1][0] != ":":
                raise OptionError(f"expected key: value or }}, got {name or key or 'the end'}")
            at += 2
            pairs[name] = take(depth + 1)
        at += 1
        return pairs if kind == "{" else items

    tree = take(0)
    if tokens[at][0]:
        raise OptionError(f"{tokens[at][1] or tokens[at][0]} behind the end of the value")
    return tree


# ---- values ----------------------------------------------------------------------------------------------------------


def _value(type_: model.Type, tree: _Tree, where: str) -> Any:
    """The value of a type; text is taken apart where the type asks for more than text."""
    type_ = model.strip(type_)
    match type_:
        case model.Base("string") if isinstance(tree, str):
            return _unquoted(tree)
        case model.Struct():
            return _struct(type_, _branch(tree, dict, where, type_), where)
        case model.ListOf(elem) | model.SetOf(elem):
            return [_value(elem, each, f"{where}[{at}]") for at, each in enumerate(_branch(tree, list, where, type_))]
        case model.MapOf(key, value):
            pairs = _branch(tree, dict, where, type_)
            return {_value(key, name, where): _value(value, each, f"{where}[{name}]") for name, each in pairs.items()}
    if not isinstance(tree, str):
        raise OptionError(f"{where}: expected {model.spell(type_)}, got {'a list' if isinstance(tree, list) else 'keys and values'}")
    return _scalar(type_, _unquoted(tree.strip()), where)


def _branch(tree: _Tree, kind: type[Any], where: str, type_: model.Type) -> Any:
    if isinstance(tree, str):
        tree = _parse(_unquoted(tree.strip()) if tree.strip()[:1] in "\"'" else tree)
    if not isinstance(tree, kind):
        raise OptionError(f"{where}: expected {'[…]' if kind is list else '{…}'} for {model.spell(type_)}, got {str(tree)[:40]!r}")
    return tree


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _struct(struct: model.Struct, given: dict[str, _Tree], where: str) -> dict[str, Any]:
    from idlc.dump import plain_value

    for name in given:
        if struct.field(name) is None:
            raise OptionError(f"{where}: {struct.name} has no field {name!r}; it has {', '.join(each.name for each in struct.fields)}")
    found = {}
    for field in struct.fields:
        if field.name in given:
            found[field.name] = _value(field.type, given[field.name], f"{where}.{field.name}")
        elif field.default is not None:
            found[field.name] = plain_value(field.default, field.type)
    return found


def _scalar(type_: model.Type, text: str, where: str) -> Any:
    wrong = OptionError(f"{where}: {text!r} is no {model.spell(type_)}")
    if isinstance(type_, model.Enum):
        member = type_.member(text)
        if member is None:
            raise OptionError(f"{where}: {type_.name} has no member {text!r}")
        return member.name
    assert isinstance(type_, model.Base)
    try:
        if type_.name in _BITS:
            number = int(text)
            if not -(1 << (_BITS[type_.name] - 1)) <= number < 1 << (_BITS[type_.name] - 1):
                raise OptionError(f"{where}: {text} does not fit in {type_.name}")
            return number
        if type_.name == "double":
            return float(text)
        if type_.name == "binary":
            return bytes.fromhex(text)
    except OptionError:
        raise
    except ValueError:
        raise wrong from None
    if type_.name == "bool":
        found = _TRUTHS.get(text, _FALSEHOODS.get(text))
        if found is None:
            raise wrong
        return found
    return text
