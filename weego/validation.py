"""Rules of the IDL (`vt.*`) enforced by a server: calls whose arguments break one never reach the handler.

    weego.Server(ShopService(), middleware=[validate_arguments])
    [server]
    validate = true                        # the same in conf/server.toml

The caller gets an application exception of type PROTOCOL_ERROR (code INVALID_ARGUMENT) that names every value and its rule. Rules count for
structs, unions and exceptions, also where an argument is a list, set or map of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codec.errors import ApplicationError, ApplicationErrorType
from codec.types import List, Map, Set, StructType, Type
from codec.validation import Violations, check, has_rules
from governance.call import Call
from governance.chain import Handler

__all__ = ["validate_arguments"]

_Checker = Callable[[Any, str, Violations], None]


def validate_arguments(handler: Handler) -> Handler:
    """Middleware of a server: refuse calls whose arguments break rules of the IDL, with an error that names them all."""
    known: dict[Any, list[tuple[int, str, _Checker]]] = {}

    def validated(call: Call, args: tuple[Any, ...]) -> Any:
        checkers = known.get(call.spec)
        if checkers is None:
            checkers = known[call.spec] = _checkers(call.spec)
        if checkers:
            found = Violations()
            for index, name, checker in checkers:
                if args[index] is not None:
                    checker(args[index], name, found)
            if found:
                raise ApplicationError("invalid arguments: " + "; ".join(map(str, found)), ApplicationErrorType.PROTOCOL_ERROR)
        return handler(call, args)

    return validated


def _checkers(spec: Any) -> list[tuple[int, str, _Checker]]:
    """Position, name and checker of the arguments that have rules; a stream's messages are not known yet and have none."""
    if spec.kind != "thrift" or spec.client_streaming:
        return []
    found = []
    for index, field in enumerate(spec.args):
        checker = _checker(field.type)
        if checker is not None:
            found.append((index, field.name, checker))
    return found


def _checker(type: Type) -> _Checker | None:
    match type:
        case StructType(cls):
            return check if has_rules(cls) else None
        case List(elem) | Set(elem):
            inner = _checker(elem)
            return None if inner is None else _each(inner)
        case Map():
            keys, values = _checker(type.key), _checker(type.value)
            return None if keys is None and values is None else _pairs(keys, values)
    return None


def _each(inner: _Checker) -> _Checker:
    def checker(value: Any, at: str, found: Violations) -> None:
        for index, each in enumerate(value):
            inner(each, f"{at}[{index}]", found)

    return checker


def _pairs(keys: _Checker | None, values: _Checker | None) -> _Checker:
    def checker(value: Any, at: str, found: Violations) -> None:
        for key, each in value.items():
            if keys is not None:
                keys(key, f"{at}.key({key!r})", found)
            if values is not None:
                values(each, f"{at}[{key!r}]", found)

    return checker
