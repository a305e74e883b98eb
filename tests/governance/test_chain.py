"""Handlers and what wraps them."""

from __future__ import annotations

from typing import Any

import pytest

from governance.chain import Handler, compose


def named(name: str) -> Any:
    def wrap(handler: Handler) -> Handler:
        return lambda call, args: f"{name}({handler(call, args)})"

    return wrap


def test_the_first_is_outermost() -> None:
    handler = compose(lambda call, args: args[0], [named("a"), named("b")])
    assert handler(None, ("x",)) == "a(b(x))"  # type: ignore[arg-type]


def test_none_at_all_is_the_handler_itself() -> None:
    def handler(call: Any, args: tuple[Any, ...]) -> None:
        return None

    assert compose(handler, []) is handler


def test_one_that_forgets_to_return() -> None:
    with pytest.raises(TypeError, match=r"returned None, which is no Handler"):
        compose(lambda call, args: None, [lambda handler: None])  # type: ignore[arg-type, return-value]
