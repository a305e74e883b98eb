"""Written values → values of their types: constants, defaults, enum members, struct literals.

A value is checked against the type it is for, wherever it was written. Constants are evaluated when something needs
them, so their order in the file does not matter; a constant that needs itself is an error.
"""

from __future__ import annotations

import difflib
import re
import uuid
from dataclasses import dataclass, field
from typing import Final

from idlc import ast, model
from idlc.errors import Position, Report

_INT_BITS: Final = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}
_UUID: Final = re.compile(r"\{?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\}?")


@dataclass(frozen=True, slots=True)
class _Bad:
    """The value was wrong and has been reported."""


_BAD: Final = _Bad()


@dataclass(slots=True)
class Values:
    """All constants and defaults of a run."""

    report: Report
    _consts: dict[model.Const, ast.Const] = field(default_factory=dict)
    _defaults: list[tuple[model.Program, model.Field, ast.Value]] = field(default_factory=list)
    _done: set[model.Const] = field(default_factory=set)
    _open: list[model.Const] = field(default_factory=list)

    def add_const(self, const: model.Const, tree: ast.Const) -> None:
        """A constant to evaluate later."""
        self._consts[const] = tree

    def add_default(self, program: model.Program, target: model.Field, tree: ast.Value) -> None:
        """A field's default to evaluate later."""
        self._defaults.append((program, target, tree))

    def resolve(self) -> None:
        """Evaluate all that was added; every type must be known by now."""
        for const in self._consts:
            self._const(const)
        for program, target, tree in self._defaults:
            value = self._value(program, tree, target.type, f'the default of "{target.name}"')
            if not isinstance(value, _Bad):
                target.default = value

    def _const(self, const: model.Const) -> bool:
        """Evaluate one constant; False in the middle of a circle."""
        if const in self._done:
            return True
        if const in self._open:
            names = [each.name for each in self._open[self._open.index(const) :]] + [const.name]
            self.report.error("constant-circle", "constants need each other: " + " -> ".join(names), const.pos)
            return False
        self._open.append(const)
        value = self._value(const.program, self._consts[const].value, const.type, f"constant {const.name}")
        self._open.pop()
        self._done.add(const)
        if not isinstance(value, _Bad):
            const.value = value
        return True

    # One value

    def _value(self, program: model.Program, tree: ast.Value, type_: model.Type, where: str) -> model.Value | _Bad:
        target = model.strip(type_)
        if isinstance(tree, ast.NameValue):
            if isinstance(target, model.Enum):
                return self._enum_name(program, tree, target, where)
            if tree.name in ("true", "false") and isinstance(target, model.Base):
                return self._truth(tree, target, where)
            return self._name(program, tree, type_, where)
        match target:
            case model.Base():
                return self._base(tree, target, where)
            case model.Enum():
                return self._enum_number(tree, target, where)
            case model.ListOf(elem) | model.SetOf(elem):
                return self._sequence(program, tree, target, elem, where)
            case model.MapOf():
                return self._mapping(program, tree, target, where)
            case model.Struct():
                return self._construction(program, tree, target, where)
        raise AssertionError(target)

    def _misfit(self, tree: ast.Value, type_: model.Type, where: str, hint: str | None = None) -> _Bad:
        self.report.error(
            "wrong-value", f"{where} is {model.spell(type_)} but the value is {_describe(tree)}", tree.pos, hint
        )
        return _BAD

    def _truth(self, tree: ast.NameValue, target: model.Base, where: str) -> model.Value | _Bad:
        truth = tree.name == "true"
        if target.name == "bool":
            return model.Scalar(truth)
        if target.name in _INT_BITS:
            return model.Scalar(int(truth))
        if target.name == "double":
            return model.Scalar(float(truth))
        return self._misfit(tree, target, where)

    def _base(self, tree: ast.Value, target: model.Base, where: str) -> model.Value | _Bad:
        match target.name, tree:
            case "bool", ast.IntValue(value):
                if value not in (0, 1):
                    message = f"{value} as a bool is {str(value > 0).lower()} to Kitex and {str(bool(value)).lower()}"
                    self.report.warn("odd-bool", message + " to others", tree.pos, "write true or false")
                return model.Scalar(value > 0)
            case (("i8" | "i16" | "i32" | "i64"), ast.IntValue(value)):
                bits = _INT_BITS[target.name]
                if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                    self.report.error("int-range", f"{value} does not fit in {target.name}", tree.pos)
                    return _BAD
                return model.Scalar(value)
            case "double", ast.IntValue(value):
                return model.Scalar(float(value))
            case "double", ast.DoubleValue(number):
                return model.Scalar(number)
            case "string", ast.StringValue(text):
                if any("\ud800" <= char <= "\udfff" for char in text):
                    self.report.error("not-utf8", f"{where} is not UTF-8", tree.pos, "use binary for raw bytes")
                    return _BAD
                return model.Scalar(text)
            case "binary", ast.StringValue(text):
                return model.Scalar(text.encode("utf-8", "surrogateescape"))
            case "uuid", ast.StringValue(text):
                found = _UUID.fullmatch(text)
                if found is None:
                    return self._misfit(tree, target, where, "write 00112233-4455-6677-8899-aabbccddeeff")
                return model.Scalar(uuid.UUID(found.group(1)))
        return self._misfit(tree, target, where)

    def _enum_number(self, tree: ast.Value, target: model.Enum, where: str) -> model.Value | _Bad:
        if not isinstance(tree, ast.IntValue):
            return self._misfit(tree, target, where)
        member = target.numbered(tree.value)
        if member is None:
            numbers = ", ".join(f"{each.value} ({each.name})" for each in target.members[:8])
            self.report.error("not-a-member", f"enum {target.name} has no number {tree.value}", tree.pos,
                              f"it has {numbers}" if numbers else None)  # fmt: skip
            return _BAD
        return model.Member(target, member)

    def _sequence(
        self, program: model.Program, tree: ast.Value, target: model.Type, elem: model.Type, where: str
    ) -> model.Value | _Bad:
        if isinstance(tree, ast.MapValue) and not tree.pairs:
            return model.Sequence(())  # `{}` is how some IDL writes an empty set
        if not isinstance(tree, ast.ListValue):
            return self._misfit(tree, target, where, "write [a, b]")
        items = [self._value(program, item, elem, f"an item of {where}") for item in tree.items]
        good = tuple(item for item in items if not isinstance(item, _Bad))
        if len(good) < len(items):
            return _BAD
        if isinstance(target, model.SetOf):
            self._check_unique(good, tree.items, "set item")
        return model.Sequence(good)

    def _mapping(self, program: model.Program, tree: ast.Value, target: model.MapOf, where: str) -> model.Value | _Bad:
        if not isinstance(tree, ast.MapValue):
            return self._misfit(tree, target, where, "write {key: value}")
        pairs: list[tuple[model.Value, model.Value]] = []
        bad = False
        for key_tree, value_tree in tree.pairs:
            key = self._value(program, key_tree, target.key, f"a key of {where}")
            value = self._value(program, value_tree, target.value, f"a value of {where}")
            if isinstance(key, _Bad) or isinstance(value, _Bad):
                bad = True
            else:
                pairs.append((key, value))
        if bad:
            return _BAD
        self._check_unique([key for key, _ in pairs], [key for key, _ in tree.pairs], "map key")
        return model.Mapping(tuple(pairs))

    def _check_unique(
        self, values: tuple[model.Value, ...] | list[model.Value], trees: tuple[ast.Value, ...] | list[ast.Value],
        what: str,
    ) -> None:  # fmt: skip
        seen: set[object] = set()
        for value, tree in zip(values, trees, strict=True):
            frozen = freeze(value)
            if frozen in seen:
                self.report.warn("duplicate-value", f"{what} {_describe(tree)} stands here twice", tree.pos)
            seen.add(frozen)

    def _construction(
        self, program: model.Program, tree: ast.Value, target: model.Struct, where: str
    ) -> model.Value | _Bad:
        if not isinstance(tree, ast.MapValue):
            return self._misfit(tree, target, where, 'write {"field": value}')
        fields: dict[str, tuple[model.Field, model.Value]] = {}
        bad = False
        for key, value_tree in tree.pairs:
            if not isinstance(key, ast.StringValue):
                self.report.error("field-name", f"{target.name}'s fields are named by strings", key.pos,
                                  f'write "{key.name}"' if isinstance(key, ast.NameValue) else None)  # fmt: skip
                bad = True
                continue
            member = target.field(key.value)
            if member is None:
                close = difflib.get_close_matches(key.value, [each.name for each in target.fields], 1)
                self.report.error("unknown-field", f'{target.kind} {target.name} has no field "{key.value}"', key.pos,
                                  f'did you mean "{close[0]}"?' if close else None)  # fmt: skip
                bad = True
                continue
            if member.name in fields:
                self.report.warn("duplicate-value", f'"{member.name}" is given twice; the last counts', key.pos)
            value = self._value(program, value_tree, member.type, f'"{target.name}.{member.name}"')
            if isinstance(value, _Bad):
                bad = True
            else:
                fields[member.name] = (member, value)
        if bad:
            return _BAD
        return self._check_construction(target, fields, tree.pos)

    def _check_construction(
        self, target: model.Struct, fields: dict[str, tuple[model.Field, model.Value]], pos: Position
    ) -> model.Value | _Bad:
        if target.kind == "union" and len(fields) > 1:
            given = " and ".join(fields)
            self.report.error("union-value", f"union {target.name} holds one member, here are {given}", pos)
            return _BAD
        if target.kind == "union" and not fields:
            self.report.error("union-value", f"union {target.name} needs a member", pos)
            return _BAD
        for each in target.fields:
            if each.requiredness == "required" and each.name not in fields:
                message = f'"{target.name}.{each.name}" is required but not given'
                if isinstance(model.strip(each.type), model.Struct):
                    self.report.error("missing-field", message, pos)
                    return _BAD
                self.report.warn("missing-field", message + ": it gets its zero value", pos)
        return model.Construction(target, tuple(fields.values()))

    # Names of constants and enum members

    def _enum_name(
        self, program: model.Program, tree: ast.NameValue, target: model.Enum, where: str
    ) -> model.Value | _Bad:
        found = _lookup(program, tree.name)
        exact = [each for each in found if isinstance(each, model.Member) and each.enum is target]
        if exact:
            return exact[0]
        if any(isinstance(each, model.Const) for each in found):
            return self._name(program, tree, target, where)
        # Apache Thrift looks at the last part only and takes the member of the declared enum.
        qualifier, _, last = tree.name.rpartition(".")
        loose = target.member(last) if qualifier else None
        foreign = next((each for each in found if isinstance(each, model.Member)), None)
        if loose is not None and (foreign is None or foreign.member.value == loose.value):
            message = (
                f'"{tree.name}" is no member of {target.name}; {target.name}.{last} is taken, as Apache Thrift does'
            )
            self.report.warn("loose-member", message, tree.pos, f"write {target.name}.{last}")
            return model.Member(target, loose)
        if foreign is not None:
            message = f'{where} is {target.name} but "{tree.name}" is a member of {foreign.enum.name}'
            self.report.error("wrong-value", message, tree.pos)
            return _BAD
        candidates = [f"{target.name}.{each.name}" for each in target.members]
        close = difflib.get_close_matches(tree.name, candidates, 1, 0.5)
        if not qualifier and target.member(tree.name) is not None:
            close = [f"{target.name}.{tree.name}"]
        self.report.error("undefined-value", f'undefined enum member or constant "{tree.name}"', tree.pos,
                          f'did you mean "{close[0]}"?' if close else None)  # fmt: skip
        return _BAD

    def _name(self, program: model.Program, tree: ast.NameValue, type_: model.Type, where: str) -> model.Value | _Bad:
        found = _lookup(program, tree.name)
        if not found:
            candidates = [name for name, each in program.symbols.items() if isinstance(each, model.Const)]
            close = difflib.get_close_matches(tree.name, candidates, 1)
            self.report.error("undefined-value", f'undefined constant "{tree.name}"', tree.pos,
                              f'did you mean "{close[0]}"?' if close else None)  # fmt: skip
            return _BAD
        if len(found) > 1:
            message = f'"{tree.name}" may mean {len(found)} things: several included files have it'
            self.report.error("ambiguous", message, tree.pos, "give one of the files another name")
            return _BAD
        thing = found[0]
        if isinstance(thing, model.Member):
            if isinstance(model.strip(type_), model.Base) and model.strip(type_) != model.Base("bool"):
                number = ast.IntValue(thing.member.value, tree.pos)
                return self._value(program, number, type_, where)
            message = f'{where} is {model.spell(type_)} but "{tree.name}" is a member of {thing.enum.name}'
            self.report.error("wrong-value", message, tree.pos)
            return _BAD
        if not self._const(thing):
            return _BAD
        if model.same(thing.type, type_):
            return model.Reference(thing)
        return self._converted(thing, tree, type_, where)

    def _converted(self, const: model.Const, tree: ast.NameValue, type_: model.Type, where: str) -> model.Value | _Bad:
        """A constant of another type: its value, if that value fits the type as well."""
        value = model.plain(const.value)
        target = model.strip(type_)
        written: ast.Value | None = None
        match value:
            case model.Scalar(bool() as truth):
                written = ast.IntValue(int(truth), tree.pos)
            case model.Scalar(int() as number):
                written = ast.IntValue(number, tree.pos)
            case model.Scalar(float() as number):
                written = ast.DoubleValue(number, repr(number), tree.pos)
            case model.Scalar(str() as text):
                written = ast.StringValue(text, tree.pos)
            case model.Scalar(bytes() as data):
                written = ast.StringValue(data.decode("utf-8", "surrogateescape"), tree.pos)
            case model.Member(_, member):
                written = ast.IntValue(member.value, tree.pos)
        if written is None or not isinstance(target, model.Base | model.Enum):
            message = f"{where} is {model.spell(type_)} but constant {const.name} is {model.spell(const.type)}"
            self.report.error("wrong-value", message, tree.pos)
            return _BAD
        return self._value(const.program, written, type_, where)


def freeze(value: model.Value) -> object:
    """A hashable stand-in: equal for equal values."""
    value = model.plain(value)
    match value:
        case model.Scalar(data):
            return data
        case model.Member(_, member):
            return member.value
        case model.Sequence(items):
            return tuple(freeze(item) for item in items)
        case model.Mapping(pairs):
            return frozenset((freeze(key), freeze(item)) for key, item in pairs)
        case model.Construction(struct, fields):
            return (struct.name, frozenset((each.name, freeze(item)) for each, item in fields))
    raise AssertionError(value)


def _lookup(program: model.Program, name: str) -> list[model.Const | model.Member]:
    """All that a name may mean: a constant, `Enum.MEMBER`, and both behind an include's prefix."""
    found: list[model.Const | model.Member] = []

    def look(scope: model.Program, rest: str) -> None:
        thing = scope.symbols.get(rest)
        if isinstance(thing, model.Const) and thing not in found:
            found.append(thing)
        head, _, last = rest.partition(".")
        owner = scope.symbols.get(head)
        enum = model.strip(owner) if isinstance(owner, model.Enum | model.Alias) else None
        if isinstance(enum, model.Enum) and last:
            member = enum.member(last)
            if member is not None and model.Member(enum, member) not in found:
                found.append(model.Member(enum, member))

    look(program, name)
    for included in program.includes:
        if name.startswith(included.stem + "."):
            program.used.add(included)
            look(included, name.removeprefix(included.stem + "."))
    return found


def _describe(tree: ast.Value) -> str:
    match tree:
        case ast.IntValue(value):
            return str(value)
        case ast.DoubleValue(_, text):
            return text
        case ast.StringValue(value):
            return f'"{value}"' if len(value) <= 40 else "a string"
        case ast.NameValue(name):
            return name
        case ast.ListValue():
            return "a list"
        case ast.MapValue():
            return "a map"
