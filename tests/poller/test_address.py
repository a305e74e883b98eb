"""Addresses as people write them."""

from __future__ import annotations

import socket

import pytest

from codec.errors import UsageError
from poller.address import parse


@pytest.mark.parametrize(
    ("text", "normal", "host", "port", "family"),
    [
        ("127.0.0.1:80", "tcp://127.0.0.1:80", "127.0.0.1", 80, socket.AF_UNSPEC),
        ("tcp://name.example:65535", "tcp://name.example:65535", "name.example", 65535, socket.AF_UNSPEC),
        ("tcp://[::1]:8080", "tcp://[::1]:8080", "::1", 8080, socket.AF_INET6),
        ("[fe80::1]:1", "tcp://[fe80::1]:1", "fe80::1", 1, socket.AF_INET6),
    ],
)
def test_tcp(text: str, normal: str, host: str, port: int, family: int) -> None:
    address = parse(text)
    assert (address.text, address.host, address.port, address.family) == (normal, host, port, family)
    assert not address.is_unix
    assert parse(address.text) == address


def test_unix() -> None:
    address = parse("unix:///run/echo.sock")
    assert address.is_unix
    assert (address.path, address.family, address.text) == ("/run/echo.sock", socket.AF_UNIX, "unix:///run/echo.sock")
    assert parse("unix:///" + "x" * 106).is_unix
    with pytest.raises(UsageError, match="longer than the 107 bytes"):
        parse("unix:///" + "x" * 107)
