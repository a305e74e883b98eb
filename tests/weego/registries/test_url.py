"""URLs of registries: what is read from them, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from codec.errors import UsageError
from weego.registries.etcd import EtcdRegistry, EtcdResolver
from weego.registries.etcd_client import end_of, read_url
from weego.registries.url import absolute, with_service


def test_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3:cr/et\n")
    found = read_url(f"etcds://me@a:1,[::1],b/shop%2Fitem?timeout=500ms&password_file={tmp_path}/secret")
    assert found.hosts == (("a", 1), ("::1", 2379), ("b", 2379))
    assert (found.service, found.user, found.password) == ("shop/item", "me", "s3:cr/et")
    assert found.option("timeout", 2.0) == 0.5
    assert found.is_secure
    assert found.addresses() == ["tcps://a:1", "tcps://[::1]:2379", "tcps://b:2379"]
    assert not read_url("etcd://h").is_secure
    assert read_url("etcd://h?ca=x").is_secure
    assert read_url("etcd://u:p%40ss@h").password == "p@ss"
    assert "p%40ss" not in read_url("etcd://u:p%40ss@h/x").text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("etcd://u:secret@h:0/x", r"etcd://u@h:0/x: 'h:0' is not host or host:port; write it like etcd://10"),
        ("etcd://h:x/y", "is not host or host:port"),
        ("etcd://h,/y", "'' is not host or host:port"),
        ("etcd://h/y?prefx=a", "unknown option 'prefx', did you mean 'prefix'"),
        ("etcd://h/y?zzz=a", "unknown option 'zzz', known are ca, cert"),
        ("etcd://h/y?timeout=0", "option timeout: '0'"),
        ("etcd://h/y?prefix=/", "option prefix: it is the beginning of all keys"),
        ("etcd://h/y?password_file=/nonexistent", r"password_file /nonexistent cannot be read: No such file"),
        ("etcd://u:secret@h", "does not name hosts and a service"),
        ("etcd:///y", "does not name hosts and a service"),
        ("etcd://h/a%2Fb", "'a/b' cannot be the name of a service in etcd"),
        ("etcds://h/x?ca=/nonexistent", "nonexistent"),
    ],
)
def test_wrong_ones(url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        EtcdResolver(url)
    assert "secret" not in str(caught.value)


def test_a_registry_needs_a_host() -> None:
    with pytest.raises(UsageError, match="names no host"):
        EtcdRegistry("etcd://")


def test_the_service_goes_before_the_options() -> None:
    assert with_service("etcd://h:1?prefix=a", "x/y") == "etcd://h:1/x%2Fy?prefix=a"
    assert with_service("etcd://h:1/", "x") == "etcd://h:1/x"
    assert with_service("file:///run/registry", "shop/item") == "file:///run/registry/shop/item"


def test_files_start_from_the_folder_of_the_configuration() -> None:
    assert absolute("etcd://h/x?ca=tls/ca.pem&timeout=1s&key=/k", "/app") == "etcd://h/x?ca=/app/tls/ca.pem&timeout=1s&key=/k"
    assert absolute("etcd://h/x", "/app") == "etcd://h/x"


@pytest.mark.parametrize(("prefix", "end"), [(b"a/", b"a0"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")])
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert end_of(prefix) == end
