"""What changed between two versions of an IDL, and whether peers that still have the other version break.

    changes = compare(old_programs, new_programs)

A change is *breaking* when bytes that one side writes mean something else to the other side, or cannot be read there, or when a
method that is called is gone. Everything else that peers can notice is a *warning*: another name, another default, another constant.
New definitions, new optional fields and new methods are no changes in this sense; they are *additions*.

The rules follow the wire: fields and arguments are known by their ids, enum members by their numbers, methods by their names.
Types are compared by what they look like in bytes, so a typedef may come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from idlc import model
from idlc.errors import Position

__all__ = ["Change", "Severity", "compare", "sort_changes"]

Severity = Literal["breaking", "warning", "addition"]

_ORDER: Final = {"breaking": 0, "warning": 1, "addition": 2}


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `code` is a stable word; `position` is where it is now, or was, if it is gone."""

    severity: Severity
    code: str
    message: str
    position: Position

    def __str__(self) -> str:
        return f"{self.position}: {self.severity}: {self.message}"

    def plain(self) -> dict[str, object]:
        """The same for programs."""
        place = {"file": self.position.file, "line": self.position.line, "column": self.position.column}
        return {"severity": self.severity, "code": self.code, "message": self.message, **place}


def compare(
    old: Sequence[model.Program],
    new: Sequence[model.Program],
    same: Mapping[model.Program, model.Program] | None = None,
) -> list[Change]:
    """All changes, the worst first. Files are matched by their names unless `same` says which old one is which new one."""
    return sort_changes(_Comparison(old, new, same or {}).changes())


def sort_changes(changes: Iterable[Change]) -> list[Change]:
    """The worst first, else in the order they come."""
    return sorted(changes, key=lambda change: _ORDER[change.severity])


@dataclass(slots=True)
class _Comparison:
    old: Sequence[model.Program]
    new: Sequence[model.Program]
    same: Mapping[model.Program, model.Program]

    def changes(self) -> Iterator[Change]:
        after = {program.stem: program for program in self.new}
        for program in self.old:
            now = self.same.get(program) or after.get(program.stem)
            if now is not None:
                after = {stem: each for stem, each in after.items() if each is not now}
                yield from self._program(program, now)
                continue
            # The file may have been merged into another: its definitions are looked for everywhere.
            for definition in program.definitions:
                yield from self._definition(definition, self._anywhere(definition.name))
        for program in after.values():
            known = {definition.name for each in self.old for definition in each.definitions}
            for definition in program.definitions:
                if definition.name not in known:
                    yield Change("addition", "added", f"{_kind(definition)} {definition.name} is new", definition.pos)

    def _anywhere(self, name: str) -> model.Definition | None:
        return next((program.symbols[name] for program in self.new if name in program.symbols), None)

    def _program(self, old: model.Program, new: model.Program) -> Iterator[Change]:
        for definition in old.definitions:
            yield from self._definition(definition, new.symbols.get(definition.name) or self._anywhere(definition.name))
        for definition in new.definitions:
            if definition.name not in old.symbols:
                yield Change("addition", "added", f"{_kind(definition)} {definition.name} is new", definition.pos)
        for scope, name in old.namespaces.items():
            now = new.namespaces.get(scope)
            if now != name and new.document.namespaces:
                place = new.document.namespaces[0].pos
                yield Change("warning", "namespace", f"namespace {scope} was {name} and is {now or 'gone'}", place)

    def _definition(self, old: model.Definition, new: model.Definition | None) -> Iterator[Change]:
        if new is None:
            severity: Severity = "breaking" if isinstance(old, model.Service) else "warning"
            yield Change(severity, "removed", f"{_kind(old)} {old.name} is gone", old.pos)
            return
        match old, new:
            case model.Struct(), model.Struct():
                yield from self._struct(old, new)
            case model.Enum(), model.Enum():
                yield from self._enum(old, new)
            case model.Service(), model.Service():
                yield from self._service(old, new)
            case model.Const(), model.Const():
                yield from self._const(old, new)
            case model.Alias(), model.Alias():
                # Whoever uses it is compared by bytes; here only what a reader of code notices.
                if not alike(old.target, new.target):
                    message = f"typedef {old.name} was {model.spell(old.target)} and is {model.spell(new.target)}"
                    yield Change("warning", "typedef", message, new.pos)
            case _:
                yield Change("breaking", "kind", f"{old.name} was a {_kind(old)} and is a {_kind(new)}", new.pos)

    # ---- structs -----------------------------------------------------------------------------------------------------

    def _struct(self, old: model.Struct, new: model.Struct) -> Iterator[Change]:
        if old.kind != new.kind:
            # The bytes are the same; what a union promises (one member) and whether it can be thrown are not.
            yield Change("breaking", "kind", f"{old.name} was a {old.kind} and is a {new.kind}", new.pos)
        yield from self._fields(old.fields, new.fields, f"{new.kind} {new.name}", new.pos, "field")

    def _fields(
        self, old: Sequence[model.Field], new: Sequence[model.Field], owner: str, pos: Position, what: str
    ) -> Iterator[Change]:
        after = {field.id: field for field in new}
        by_name = {field.name: field for field in new}
        for field in old:
            now = after.pop(field.id, None)
            if now is None:
                moved = by_name.get(field.name)
                if moved is not None:
                    message = f"{what} {field.name} of {owner} had the id {field.id} and has {moved.id}"
                    yield Change("breaking", "id", message, moved.pos)
                    after.pop(moved.id, None)
                elif field.requiredness == "optional":
                    message = f"optional {what} {field.name} of {owner} is gone; never use the id {field.id} for another"
                    yield Change("warning", "removed", message, pos)
                else:
                    yield Change("breaking", "removed", f"{what} {field.id}: {field.name} of {owner} is gone", pos)
                continue
            yield from self._field(field, now, owner, what)
        for field in after.values():
            if field.requiredness == "required":
                message = f"{what} {field.name} of {owner} is new and required: who does not know it cannot write it"
                yield Change("breaking", "required", message, field.pos)
            else:
                yield Change("addition", "added", f"{what} {field.name} of {owner} is new", field.pos)

    def _field(self, old: model.Field, new: model.Field, owner: str, what: str) -> Iterator[Change]:
        name = f"{what} {new.name} of {owner}"
        if not alike(old.type, new.type):
            message = f"{name} was {model.spell(old.type)} and is {model.spell(new.type)}"
            yield Change("breaking", "type", message, new.pos)
        if old.name != new.name:
            message = f"{what} {old.id} of {owner} was called {old.name} and is {new.name}; JSON and code name it"
            yield Change("warning", "renamed", message, new.pos)
        before, now = old.requiredness, new.requiredness
        if now == "required" != before:
            message = f"{name} was {before} and is required: who leaves it out is refused"
            yield Change("breaking", "required", message, new.pos)
        elif before == "required" != now:
            message = f"{name} was required and is {now}: who still requires it refuses what leaves it out"
            yield Change("breaking", "required", message, new.pos)
        elif before != now:
            yield Change("warning", "requiredness", f"{name} was {before} and is {now}", new.pos)
        if _value(old.default) != _value(new.default):
            yield Change("warning", "default", f"{name} has another default", new.pos)

    # ---- enums and constants -----------------------------------------------------------------------------------------

    def _enum(self, old: model.Enum, new: model.Enum) -> Iterator[Change]:
        for member in old.members:
            now = new.member(member.name)
            if now is not None and now.value != member.value:
                message = f"{new.name}.{member.name} was {member.value} and is {now.value}"
                yield Change("breaking", "number", message, now.pos)
            elif now is None:
                same = new.numbered(member.value)
                if same is not None:
                    message = f"{member.value} of enum {new.name} was called {member.name} and is {same.name}"
                    yield Change("warning", "renamed", message, same.pos)
                else:
                    message = f"member {member.name} = {member.value} of enum {new.name} is gone"
                    yield Change("breaking", "removed", message, new.pos)
        for each in new.members:
            if old.member(each.name) is None and old.numbered(each.value) is None:
                yield Change("addition", "added", f"member {each.name} of enum {new.name} is new", each.pos)

    def _const(self, old: model.Const, new: model.Const) -> Iterator[Change]:
        if not alike(old.type, new.type) or _value(old.value) != _value(new.value):
            yield Change("warning", "constant", f"constant {new.name} has another value", new.pos)

    # ---- services ----------------------------------------------------------------------------------------------------

    def _service(self, old: model.Service, new: model.Service) -> Iterator[Change]:
        after = {function.name: function for function in _all(new)}
        own = {function.name for function in old.functions}
        for function in _all(old):
            now = after.pop(function.name, None)
            if now is not None:
                if function.name in own:
                    yield from self._function(old, function, now)
            elif function.name in own or new.base is None or old.base is None or new.base.name != old.base.name:
                yield Change("breaking", "removed", f"method {new.name}.{function.name} is gone", new.pos)
        for function in after.values():
            if function in new.functions:
                yield Change("addition", "added", f"method {new.name}.{function.name} is new", function.pos)

    def _function(self, service: model.Service, old: model.Function, new: model.Function) -> Iterator[Change]:
        name = f"{service.name}.{new.name}"
        if old.oneway != new.oneway:
            yield Change("breaking", "oneway", f"{name} {'is no longer' if old.oneway else 'became'} oneway", new.pos)
        if not _alike_results(old.result, new.result):
            message = f"the result of {name} was {model.spell(old.result)} and is {model.spell(new.result)}"
            yield Change("breaking", "result", message, new.pos)
        if (old.streaming or "unary") != (new.streaming or "unary"):
            message = f"{name} was {old.streaming or 'unary'} and is {new.streaming or 'unary'}"
            yield Change("breaking", "streaming", message, new.pos)
        yield from self._fields(old.args, new.args, name, new.pos, "argument")
        yield from self._throws(name, old, new)

    def _throws(self, name: str, old: model.Function, new: model.Function) -> Iterator[Change]:
        after = {field.id: field for field in new.throws}
        for field in old.throws:
            now = after.pop(field.id, None)
            if now is None:
                message = f"{name} no longer throws {model.spell(field.type)}"
                yield Change("warning", "throws", message, new.pos)
            elif not alike(field.type, now.type):
                message = f"exception {field.id} of {name} was {model.spell(field.type)} and is {model.spell(now.type)}"
                yield Change("breaking", "throws", message, now.pos)
        for field in after.values():
            message = f"{name} may throw {model.spell(field.type)} now, which older clients take for no answer"
            yield Change("breaking", "throws", message, field.pos)


def alike(old: model.Type, new: model.Type) -> bool:
    """Are values of both types the same bytes with the same meaning? Structs and enums are compared where they are defined."""
    old, new = model.strip(old), model.strip(new)
    match old, new:
        case model.Base(a), model.Base(b):
            # string and binary are one on the wire, but bytes that are no text would be refused on one side.
            return a == b
        case (model.ListOf(a), model.ListOf(b)) | (model.SetOf(a), model.SetOf(b)):
            return alike(a, b)
        case model.MapOf(a, b), model.MapOf(c, d):
            return alike(a, c) and alike(b, d)
        case (model.Enum() | model.Struct()), (model.Enum() | model.Struct()):
            return type(old) is type(new) and old.name == new.name
    return False


def _alike_results(old: model.Type | None, new: model.Type | None) -> bool:
    if old is None or new is None:
        return old is new
    return alike(old, new)


def _all(service: model.Service) -> Iterator[model.Function]:
    yield from service.functions
    for ancestor in service.ancestors():
        yield from ancestor.functions


def _value(value: model.Value | None) -> object:
    from idlc.values import freeze

    return None if value is None else freeze(value)


def _kind(definition: model.Definition) -> str:
    match definition:
        case model.Struct():
            return definition.kind
        case model.Alias():
            return "typedef"
        case model.Const():
            return "constant"
        case model.Enum():
            return "enum"
        case model.Service():
            return "service"
