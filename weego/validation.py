"""Rules of the IDL (`vt.*`) enforced by a server: calls whose arguments break one never reach the handler.

    weego.Server(ShopService(), middleware=[validate_arguments])
    [server]
    validate = true                        # the same in conf/server.toml

The caller gets an application exception of type PROTOCOL_ERROR (code INVALID_ARGUMENT) that names every value and its rule. Rules count for
structs, unions and exceptions, also where an argument is a list, set or map of them, and for each message of a client that streams.

Messages of a `.proto` are checked by protovalidate, where they have rules of `buf.validate`: `weego.proto_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    known: dict[Any, Callable[[tuple[Any, ...]], tuple[Any, ...]] | None] = {}

    def validated(call: Call, args: tuple[Any, ...]) -> Any:
        if call.spec not in known:
            known[call.spec] = _validator(call.spec)
        validate = known[call.spec]
        return handler(call, args if validate is None else validate(args))

    return validated


def _validator(spec: Any) -> Callable[[tuple[Any, ...]], tuple[Any, ...]] | None:
    """What checks the arguments of a method and returns them; None for a method without rules."""
    if spec.kind == "protobuf":
        from weego.proto_rules import checker_of

        check_one = checker_of(spec.request.cls)
    else:
        checkers = [(index, field.name, checker) for index, field in enumerate(spec.args) if (checker := _checker(field.type)) is not None]
        if not checkers:
            return None
        if not spec.client_streaming:
            return lambda args: _checked(checkers, args)
        ((_, name, checker),) = checkers

        def check_one(message: Any) -> None:
            _checked([(0, name, checker)], (message,))

    if check_one is None:
        return None
    if spec.client_streaming:
        return lambda args: (_each_checked(check_one, args[0]),)

    def validate(args: tuple[Any, ...]) -> tuple[Any, ...]:
        check_one(args[0])
        return args

    return validate


def _checked(checkers: list[tuple[int, str, _Checker]], args: tuple[Any, ...]) -> tuple[Any, ...]:
    found = Violations()
    for index, name, checker in checkers:
        if args[index] is not None:
            checker(args[index], name, found)
    if found:
        raise ApplicationError("invalid arguments: " + "; ".join(map(str, found)), ApplicationErrorType.PROTOCOL_ERROR)
    return args


def _each_checked(check_one: Callable[[Any], None], messages: Iterator[Any]) -> Iterator[Any]:
    """A stream whose messages are checked when the handler takes them: it ends at the first that breaks a rule."""
    for message in messages:
        check_one(message)
        yield message


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
