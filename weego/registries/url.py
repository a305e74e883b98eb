"""URLs of registries, and what stands in them.

    etcd://10.0.0.1:2379,10.0.0.2:2379/echo?prefix=services&timeout=1s
    etcds://user:secret@etcd.internal/echo?ca=/etc/etcd/ca.pem

hosts with ports, a user where there is one, the service (a registry's URL has none), and options, which each kind of registry names for itself. Errors and
logs never show the password.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, unquote

from codec.errors import UsageError
from weego.units import Duration

if TYPE_CHECKING:
    from poller.tls import TLS

__all__ = ["TLS_OPTIONS", "RegistryUrl", "absolute", "duration", "read", "with_service"]

# Options that are files; in a configuration they start from app_dir, as all paths there.
FILES: Final = ("ca", "cert", "key", "password_file", "token_file")


def duration(text: str) -> float:
    """An option that is a time, such as 1s or 500ms. ValueError for what is none, or nothing."""
    seconds = float(Duration.parse(text))
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time to wait")
    return seconds


TLS_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {"ca": str, "cert": str, "key": str, "server_name": str}
"""For those that speak TLS: a file of authorities, this side's certificate and its key, and the name that the peer's certificate must have."""


@dataclass(frozen=True)
class RegistryUrl:
    """One URL, taken apart. `text` is it without its service and with no password."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    user: str
    password: str
    options: Mapping[str, Any]
    text: str
    is_secure: bool

    def option(self, name: str, otherwise: Any) -> Any:
        """The value of an option, or what it is without one."""
        return self.options.get(name, otherwise)

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same for two URLs that want the same connections."""
        return (self.scheme, self.hosts, self.user, self.password, self.is_secure, *sorted(self.options.items()))

    def addresses(self) -> list[str]:
        """The hosts as addresses of a client."""
        scheme = "tcps" if self.is_secure else "tcp"
        return [f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}" for host, port in self.hosts]

    def tls(self) -> TLS | None:
        """How to speak TLS with the hosts; None: not at all. UsageError when a file cannot be used."""
        if not self.is_secure:
            return None
        from poller.tls import TLS

        given: dict[str, Any] = {name: self.options[name] for name in TLS_OPTIONS if name in self.options}
        found = TLS(**given)
        found.context()
        return found


def read(url: str, *, port: int, options: Mapping[str, Callable[[str], Any]], secure: str = "", example: str) -> RegistryUrl:
    """Take a URL apart. `port` is the usual one; `options` says how each is read; `secure` is the scheme that means TLS.

    UsageError says what is wrong with it, and shows `example`.
    """
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, hosts_text = authority.rpartition("@")
    user, _, password = login.partition(":")
    shown = f"{scheme}://{user + '@' if at else ''}{hosts_text}"

    def wrong(what: str) -> UsageError:
        return UsageError(f"{shown}{'/' + path if path else ''}: {what}; write it like {example}")

    hosts = tuple(_host(each.strip(), port, wrong) for each in hosts_text.split(",")) if hosts_text else ()
    known: dict[str, Callable[[str], Any]] = {**options, "password_file": str}
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise wrong(f"unknown option {name!r}, " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"))
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise wrong(f"option {name}: {error}") from None
    password = unquote(password)
    if (file := values.pop("password_file", None)) is not None:
        password = _content(file, wrong)
    is_secure = bool(secure) and (scheme == secure or any(name in values for name in TLS_OPTIONS))
    return RegistryUrl(scheme, hosts, unquote(path.strip("/")), unquote(user), password, values, shown, is_secure)


def _host(text: str, port: int, wrong: Callable[[str], UsageError]) -> tuple[str, int]:
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
        number = tail.removeprefix(":")
    else:
        host, _, number = text.partition(":")
    if not host or (number and not (number.isascii() and number.isdigit() and 0 < int(number) < 65536)):
        raise wrong(f"{text!r} is not host or host:port")
    return host, int(number) if number else port


def _content(file: str, wrong: Callable[[str], UsageError]) -> str:
    try:
        with open(file) as opened:
            return opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"password_file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def with_service(url: str, service: str) -> str:
    """The URL of `service` in the registry at `url`: the target of a client."""
    if url.startswith("file://"):
        return f"{url.rstrip('/')}/{service}"
    base, question, query = url.partition("?")
    return f"{base.rstrip('/')}/{quote(service, safe='')}{question}{query}"


def absolute(url: str, folder: str) -> str:
    """The URL with the files in its options absolute; relative ones start from `folder`."""
    base, question, query = url.partition("?")
    if not question:
        return url
    parts = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if name in FILES and value:
            value = quote(os.path.normpath(os.path.join(folder, os.path.expanduser(unquote(value)))), safe="/")
        parts.append(f"{name}{equals}{value}")
    return f"{base}?{'&'.join(parts)}"
