"""What a configuration names and code does: the key of a call for consistent hashing, and functions of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from codec.errors import UsageError
from governance.call import Call
from governance.traffic import tag_of

__all__ = ["function", "hash_key"]

_KINDS: Final = ("field", "tag", "metadata")


def hash_key(text: str) -> Callable[[Call, tuple[Any, ...]], str]:
    """What makes the key of a call. UsageError when `text` is none of these:

    ``field:req.user.id``  a field of an argument, by the names of the IDL; of a Protobuf service's request without an argument's name
    ``tag:user``           a tag that travels with the call (`weego.tags`)
    ``metadata:user``      a string that this call alone sends along (`Call.send_metadata`, set by a middleware)

    What is not there has the key "": such calls all go to one instance.
    """
    kind, colon, name = text.partition(":")
    if not colon or kind not in _KINDS or not name:
        raise UsageError(f'hash_key is "field:argument.field", "tag:name" or "metadata:name", not {text!r}')
    if kind == "tag":
        return lambda call, args: tag_of(call, name)
    if kind == "metadata":
        return lambda call, args: str(call.send_metadata.get(name, ""))
    path = name.split(".")

    def of_field(call: Call, args: tuple[Any, ...]) -> str:
        names = [field.name for field in getattr(call.spec, "args", ())]
        if not names:  # Protobuf: one request
            return _walk(args[0] if args else None, path)
        return _walk(args[names.index(path[0])], path[1:]) if path[0] in names else ""

    return of_field


def _walk(value: Any, path: list[str]) -> str:
    for name in path:
        value = getattr(value, name, None)
    return "" if value is None else str(value)


def function(text: str) -> Callable[..., Any]:
    """The function that ``package.module:name`` means. UsageError says what is wrong."""
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise UsageError(f"{text!r}: write it as package.module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UsageError(f"{text!r}: cannot import {module}: {error}") from None
    except AttributeError:
        raise UsageError(f"{text!r}: {module} has no {name}") from None
    if not callable(found):
        raise UsageError(f"{text!r} is a {type(found).__name__}, and no function")
    result: Callable[..., Any] = found
    return result
