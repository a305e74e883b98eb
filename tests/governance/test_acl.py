"""Who may call what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from governance.acl import Rule, acl
from governance.call import Call
from governance.errors import PermissionDenied
from tests.governance.clock import a_call


def call_of(caller: str = "", identity: Any = None) -> Call:
    return a_call(
        is_server=True,
        source=SimpleNamespace(header=SimpleNamespace(ints={3: caller}, strings={})),
        connection=SimpleNamespace(identity=identity, peer="tcp://127.0.0.1:1"),
    )


SHOP = SimpleNamespace(name="shop", subject="CN=shop,O=Example", dns=("shop.internal",), uris=("spiffe://example/shop",), emails=())


def may(rules: list[Rule], call: Call, *, allow: bool = False) -> bool:
    try:
        acl(rules, allow=allow)(lambda call, args: True)(call, ())
    except PermissionDenied:
        return False
    return True


def test_the_first_that_fits_decides() -> None:
    rules = [Rule(False, callers=("bad-*",)), Rule(True, callers=("*-1",))]
    assert may(rules, call_of("good-1"))
    assert not may(rules, call_of("bad-1"))
    assert not may(rules, call_of("good-2"))
    assert may(rules, call_of("good-2"), allow=True)


def test_methods() -> None:
    assert may([Rule(True, methods=("ec*",))], call_of())
    assert may([Rule(True, methods=("Echo.echo",))], call_of())
    assert not may([Rule(True, methods=("Other.*",))], call_of())


@pytest.mark.parametrize("pattern", ["shop", "CN=shop,*", "*.internal", "spiffe://example/*"])
def test_only_a_certificate_is_proof(pattern: str) -> None:
    rules = [Rule(True, certificates=(pattern,))]
    assert may(rules, call_of(identity=SHOP))
    assert not may(rules, call_of("shop"))
    assert not may(rules, call_of(identity=SimpleNamespace(name="x", subject="", dns=(), uris=(), emails=())))


def test_the_refusal_says_who_and_what() -> None:
    with pytest.raises(PermissionDenied, match=r"me \(certificate: shop, .*\) may not call Echo\.echo: an access rule denies it"):
        acl([], allow=False)(lambda call, args: True)(call_of("me", SHOP), ())
