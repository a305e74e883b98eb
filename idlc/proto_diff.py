"""What changed between two versions of `.proto` files, and whether peers that have the other version break.

The rules are those of `idlc.diff`, for Protobuf's wire: fields are known by their numbers, enum values by theirs, methods by `package.Service/Method`.
Breaking: a type of another wire form, another cardinality, another oneof, `required` that came or went, numbers of fields that peers write and that are
neither there nor reserved any more, numbers of enums, methods gone or with other messages or streams. Warnings: what readers of code and of JSON
notice, such as names and defaults, and types that share a wire form (int32 and int64).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from idlc import model
from idlc.diff import Change, Severity, sort_changes
from idlc.proto_files import EnumType, MessageType, ProtoFile, TypeTable

__all__ = ["compare_protos"]

_F: Final = FieldDescriptorProto
# Types that may take each other's place: the bytes can be read, though not every value survives ("Updating A Message Type" in Protobuf's guide).
_ALIKE: Final = (
    {_F.TYPE_INT32, _F.TYPE_INT64, _F.TYPE_UINT32, _F.TYPE_UINT64, _F.TYPE_BOOL, _F.TYPE_ENUM},
    {_F.TYPE_SINT32, _F.TYPE_SINT64},
    {_F.TYPE_FIXED32, _F.TYPE_SFIXED32},
    {_F.TYPE_FIXED64, _F.TYPE_SFIXED64},
    {_F.TYPE_STRING, _F.TYPE_BYTES},
)
_LABELS: Final = {_F.LABEL_OPTIONAL: "singular", _F.LABEL_REPEATED: "repeated", _F.LABEL_REQUIRED: "required"}
_FIELD: Final = 2
_VALUE: Final = 2


def compare_protos(
    old: Sequence[ProtoFile], new: Sequence[ProtoFile], same: Mapping[str, str] | None = None
) -> list[Change]:
    """All changes, the worst first; files are compared as one. `same`: full name → full name now, of packages that were renamed on purpose."""
    return sort_changes(_Comparison(_types(old), _types(new), _services(old), _services(new), dict(same or {})).changes())


def _types(files: Sequence[ProtoFile]) -> dict[str, MessageType | EnumType]:
    found: dict[str, MessageType | EnumType] = {}

    def add(prefix: str, messages: Sequence[MessageType], enums: Sequence[EnumType]) -> None:
        every: list[MessageType | EnumType] = [*messages, *enums]
        for each in every:
            name = f"{prefix}{each.descriptor.name}"
            found[name] = each
            if isinstance(each, MessageType):
                add(f"{name}.", each.messages, each.enums)

    for file in files:
        add(f"{file.package}." if file.package else "", file.messages, file.enums)
    return found


def _services(files: Sequence[ProtoFile]) -> dict[str, tuple[ProtoFile, model.Service]]:
    return {f"{file.package}.{each.name}".lstrip("."): (file, each) for file in files for each in file.services()}


class _Comparison:
    def __init__(
        self,
        old: dict[str, MessageType | EnumType],
        new: dict[str, MessageType | EnumType],
        old_services: dict[str, tuple[ProtoFile, model.Service]],
        new_services: dict[str, tuple[ProtoFile, model.Service]],
        same: dict[str, str],
    ) -> None:
        self.old, self.new, self.old_services, self.new_services, self.same = old, new, old_services, new_services, same

    def changes(self) -> Iterator[Change]:
        for name, was in self.old.items():
            if isinstance(was, MessageType) and was.is_map_entry:
                continue  # its field says it
            now = self.new.get(self.same.get(name, name))
            kind = _kind(was)
            if now is None:
                yield Change("warning", "removed", f"{kind} {name} is gone", was.file.position(was.path))
            elif isinstance(was, MessageType) and isinstance(now, MessageType):
                yield from self._message(name, was, now)
            elif isinstance(was, EnumType) and isinstance(now, EnumType):
                yield from self._enum(name, was, now)
            else:
                yield Change("breaking", "kind", f"{name} was a {kind} and is a {_kind(now)}", now.file.position(now.path))
        for name, now in self.new.items():
            if name not in self.old and not (isinstance(now, MessageType) and now.is_map_entry):
                yield Change("addition", "added", f"{_kind(now)} {name} is new", now.file.position(now.path))
        for name, (_, service) in self.old_services.items():
            after = self.new_services.get(self.same.get(name, name))
            if after is None:
                yield Change("breaking", "removed", f"service {name} is gone", service.pos)
            else:
                yield from self._service(name, self.old_services[name], after)
        for name, (_, service) in self.new_services.items():
            if name not in self.old_services:
                yield Change("addition", "added", f"service {name} is new", service.pos)

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _message(self, name: str, old: MessageType, new: MessageType) -> Iterator[Change]:
        after = {field.number: (index, field) for index, field in enumerate(new.descriptor.field)}
        before = {field.number: field for field in old.descriptor.field}
        names = {field.name: field for field in new.descriptor.field}
        for index, was in enumerate(old.descriptor.field):
            if was.number in after:
                yield from self._field(f"{name}.{was.name}", old, was, new, *after[was.number])
                continue
            where = old.file.position((*old.path, _FIELD, index))
            moved = names.get(was.name)
            if moved is not None:
                place = new.file.position((*new.path, _FIELD, list(new.descriptor.field).index(moved)))
                yield Change("breaking", "number", f"{name}.{was.name} had the number {was.number} and has {moved.number}", place)
            elif was.label == _F.LABEL_REQUIRED:
                yield Change("breaking", "removed", f"{name}.{was.name}, which old readers require, is gone", where)
            elif _reserves(new.descriptor, was.number):
                yield Change("warning", "removed", f"{name}.{was.name} is gone", where)
            else:
                message = f"{name}.{was.name} is gone, and its number {was.number} is not reserved: another field may take it"
                yield Change("breaking", "removed", message, where)
        old_names = {field.name for field in old.descriptor.field}
        for index, now in enumerate(new.descriptor.field):
            if now.number not in before and now.name not in old_names:
                place = new.file.position((*new.path, _FIELD, index))
                if now.label == _F.LABEL_REQUIRED:
                    yield Change("breaking", "required", f"{name}.{now.name} is new and required: old writers do not send it", place)
                elif _reserves(old.descriptor, now.number):
                    yield Change("breaking", "reserved", f"{name}.{now.name} takes the number {now.number}, which was reserved", place)
                else:
                    yield Change("addition", "added", f"{name}.{now.name} is new", place)

    def _field(self, name: str, old: MessageType, was: Any, new: MessageType, index: int, now: Any) -> Iterator[Change]:
        place = new.file.position((*new.path, _FIELD, index))
        before, after = self._spell(was, old, self.old), self._spell(now, new, self.new)
        if self.same.get(before, before) != after:
            severity: Severity = "warning" if self._is_alike(was, now) else "breaking"
            yield Change(severity, "type", f"{name} was {before} and is {after}", place)
        if was.label != now.label:
            yield Change("breaking", "label", f"{name} was {_LABELS[was.label]} and is {_LABELS[now.label]}", place)
        before_oneof, after_oneof = _oneof(old, was), _oneof(new, now)
        if (before_oneof is None) != (after_oneof is None):
            message = f"{name} was {'in the oneof ' + before_oneof if before_oneof else 'in no oneof'} and is {'in ' + after_oneof if after_oneof else 'in none'}"
            yield Change("breaking", "oneof", message, place)
        elif before_oneof != after_oneof:
            yield Change("warning", "name", f"the oneof of {name} was {before_oneof} and is {after_oneof}", place)
        if was.name != now.name:
            yield Change("warning", "name", f"{name} is called {now.name} now: JSON and code notice", place)
        elif was.json_name != now.json_name:
            yield Change("warning", "json-name", f"{name} was {was.json_name} in JSON and is {now.json_name}", place)
        if was.default_value != now.default_value:
            yield Change("warning", "default", f"{name} had the default {was.default_value or 'of its type'} and has {now.default_value or 'that of its type'}", place)
        if was.proto3_optional != now.proto3_optional:
            yield Change("warning", "presence", f"{name} is {'optional' if now.proto3_optional else 'no longer optional'}: whether it was set is {'known' if now.proto3_optional else 'not known'} now", place)

    def _spell(self, field: Any, owner: MessageType, types: TypeTable | dict[str, MessageType | EnumType]) -> str:
        """A type as an author would write it, with full names."""
        if field.type_name:
            entry = types.get(field.type_name.removeprefix("."))
            if isinstance(entry, MessageType) and entry.is_map_entry:
                key, value = entry.descriptor.field
                return f"map<{self._spell(key, entry, types)}, {self._spell(value, entry, types)}>"
            return str(field.type_name.removeprefix("."))
        return str(_F.Type.Name(field.type).removeprefix("TYPE_").lower())

    @staticmethod
    def _is_alike(was: Any, now: Any) -> bool:
        return (any(was.type in group and now.type in group for group in _ALIKE) and was.type_name == now.type_name) or (
            {was.type, now.type} <= _ALIKE[0] and _F.TYPE_ENUM in (was.type, now.type) and was.type != now.type
        )

    # ---- enums and services ------------------------------------------------------------------------------------------

    def _enum(self, name: str, old: EnumType, new: EnumType) -> Iterator[Change]:
        after: dict[int, set[str]] = {}
        for each in new.descriptor.value:
            after.setdefault(each.number, set()).add(each.name)
        numbers = {each.name: each.number for each in new.descriptor.value}
        for index, was in enumerate(old.descriptor.value):
            where = old.file.position((*old.path, _VALUE, index))
            if was.name in numbers and numbers[was.name] != was.number:
                at = next(at for at, each in enumerate(new.descriptor.value) if each.name == was.name)
                place = new.file.position((*new.path, _VALUE, at))
                yield Change("breaking", "enum-number", f"{name}.{was.name} was {was.number} and is {numbers[was.name]}", place)
            elif was.number not in after:
                severity: Severity = "warning" if _reserves(new.descriptor, was.number, inclusive=True) else "breaking"
                yield Change(severity, "removed", f"{name}.{was.name} ({was.number}) is gone", where)
            elif was.name not in after[was.number]:
                yield Change("warning", "name", f"{name}.{was.name} ({was.number}) is called {' and '.join(sorted(after[was.number]))} now", where)
        known = {each.number for each in old.descriptor.value} | {each.name for each in old.descriptor.value}
        for index, now in enumerate(new.descriptor.value):
            if now.number not in known and now.name not in known:
                yield Change("addition", "added", f"{name}.{now.name} is new", new.file.position((*new.path, _VALUE, index)))

    def _service(self, name: str, old: tuple[ProtoFile, model.Service], new: tuple[ProtoFile, model.Service]) -> Iterator[Change]:
        functions = {each.name: each for each in new[1].functions}
        for function in old[1].functions:
            now = functions.pop(function.name, None)
            if now is None:
                yield Change("breaking", "removed", f"{name}.{function.name} is gone", function.pos)
                continue
            was_method, now_method = old[0].method(old[1], function), new[0].method(new[1], now)
            for what, before, after in (
                ("takes", was_method.input_type, now_method.input_type),
                ("answers", was_method.output_type, now_method.output_type),
            ):
                before, after = before.removeprefix("."), after.removeprefix(".")
                if self.same.get(before, before) != after:
                    yield Change("breaking", "method-type", f"{name}.{function.name} {what} {after}, no longer {before}", now.pos)
            if function.streaming != now.streaming:
                message = f"{name}.{function.name} was {function.streaming} and is {now.streaming}"
                yield Change("breaking", "streaming", message, now.pos)
        for function in functions.values():
            yield Change("addition", "added", f"{name}.{function.name} is new", function.pos)


def _kind(each: MessageType | EnumType) -> str:
    return "message" if isinstance(each, MessageType) else "enum"


def _oneof(message: MessageType, field: Any) -> str | None:
    """The oneof of a field, but for those that only keep proto3's `optional`."""
    if not field.HasField("oneof_index") or field.proto3_optional:
        return None
    return str(message.descriptor.oneof_decl[field.oneof_index].name)


def _reserves(descriptor: Any, number: int, *, inclusive: bool = False) -> bool:
    """Is a number reserved? The ranges of enums have their ends, those of messages have not."""
    return any(each.start <= number < each.end + inclusive for each in descriptor.reserved_range)
