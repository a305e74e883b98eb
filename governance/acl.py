"""Who may call what: rules by caller, method and certificate, the first that fits decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from governance.call import Call
from governance.chain import Handler, Middleware
from governance.errors import PermissionDenied

__all__ = ["Rule", "acl"]


@dataclass(frozen=True)
class Rule:
    """Who (all given patterns must fit) may (`allow`) or may not. Patterns are shell-like: ``*``, ``order-*``.

    `callers` are names that peers give themselves; only `certificates`, the names in the peer's verified client certificate, are proof.
    `check(call, args)`, when given, must say True as well.
    """

    allow: bool
    callers: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    check: Callable[[Call, tuple[Any, ...]], bool] | None = None

    def fits(self, call: Call, args: tuple[Any, ...]) -> bool:
        """Does this rule speak of this call?"""
        return (
            (not self.methods or _any(self.methods, (call.method, f"{call.service}.{call.method}")))
            and (not self.callers or _any(self.callers, (call.caller,)))
            and (not self.certificates or _any(self.certificates, names_of(call)))
            and (self.check is None or self.check(call, args))
        )


def names_of(call: Call) -> tuple[str, ...]:
    """The names in the certificate that the peer proved to be its own: common name, subject, alternative names. Empty without one."""
    identity = call.peer_identity
    if identity is None:
        return ()
    return (identity.name, identity.subject, *identity.dns, *identity.uris, *identity.emails)


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def acl(rules: Sequence[Rule], *, allow: bool) -> Middleware:
    """A middleware that raises PermissionDenied for what the first fitting rule denies; `allow` is for calls that none fits."""

    def wrap(handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            for rule in rules:
                if rule.fits(call, args):
                    if rule.allow:
                        return handler(call, args)
                    break
            else:
                if allow:
                    return handler(call, args)
            who = call.caller or "a caller without a name"
            names = ", ".join(names_of(call))
            raise PermissionDenied(
                f"{who}{f' (certificate: {names})' if names else ''} may not call {call.service}.{call.method}: an access rule denies it"
            )

        return handle

    return wrap
