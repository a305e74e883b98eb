"""Rules in `.proto` files (`buf.validate`, https://protovalidate.com), checked by the library protovalidate: `pip install 'weego[protovalidate]'`.

`weego.validate_arguments` asks here for the messages of a Protobuf method. Rules are options of descriptors, so they are known of protobuf's own messages
(`--messages upb`, and those of a ProtoIdl); native messages carry no descriptors, and are not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage

from codec.errors import Code, StatusError, UsageError

__all__ = ["checker_of"]

_RULES: Final = "buf/validate/validate.proto"


def checker_of(cls: Any) -> Callable[[Any], None] | None:
    """What raises StatusError for a message of this class that breaks its rules; None where no rules can be."""
    descriptor = getattr(cls, "DESCRIPTOR", None)
    if descriptor is None or not _may_have_rules(descriptor):
        return None
    try:
        import protovalidate
    except ImportError:
        raise UsageError(
            f"{descriptor.file.name} has rules of buf.validate, which need pip install 'weego[protovalidate]' (or leave validation off)"
        ) from None
    collect = protovalidate.collect_violations

    def check(message: Any) -> None:
        found = collect(message)
        if found:
            raise _refusal(found)

    return check


def _may_have_rules(descriptor: Any) -> bool:
    """Does a message's file, or that of a message inside it, import the rules?"""
    seen: set[str] = set()
    waiting = [descriptor]
    while waiting:
        each = waiting.pop()
        if each.full_name in seen:
            continue
        seen.add(each.full_name)
        if any(file.name == _RULES for file in each.file.dependencies):
            return True
        waiting += [field.message_type for field in each.fields if field.message_type is not None]
    return False


def _refusal(found: list[Any]) -> StatusError:
    """What the caller is told: in words, and as buf.validate.Violations in the details, as protovalidate's interceptors for Go do."""
    from protovalidate import ViolationsPb

    texts = "; ".join(f"{_path(each.proto)}: {each.proto.message or each.proto.rule_id} ({each.proto.rule_id})" for each in found)
    data = ViolationsPb(violations=[each.proto for each in found]).to_binary()
    detail = AnyMessage(type_url="type.googleapis.com/buf.validate.Violations", value=data)
    return StatusError(Code.INVALID_ARGUMENT, f"invalid arguments: {texts}", [detail])


def _path(violation: Any) -> str:
    """`friends[0].id`; "the message" for rules of the whole."""
    parts: list[str] = []
    for each in violation.field.elements if violation.field is not None else ():
        subscript = each.subscript
        parts.append(f"{'.' if parts else ''}{each.field_name}")
        if subscript is not None:
            parts.append(f"[{subscript.value!r}]")
    return "".join(parts) or "the message"
