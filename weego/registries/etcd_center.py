"""etcd as a config centre: the keys below ``/KitexConfig/<service>/``, where kitex-contrib/config-etcd looks too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from codec.errors import UsageError
from weego.registries.etcd_client import DELETE, EtcdWatch, end_of, open_etcd, read_url

__all__ = ["EtcdSource"]

# config-etcd's own.
PREFIX: Final = "/KitexConfig"


class EtcdSource:
    """The values for the service `name` in the etcd at `url`: ``etcd://host:port,host:port?prefix=…``. UsageError for a wrong one."""

    def __init__(self, url: str, name: str) -> None:
        self.url = read_url(url, prefix=str)
        if not self.url.hosts:
            raise UsageError(f"{url.partition('?')[0].rpartition('@')[2]} names no host; write it like etcd://10.0.0.1:2379,10.0.0.2:2379")
        if not name or "/" in name:
            raise UsageError(f"{name!r} cannot be the name of a service in a config centre: it is a part of a key, without /")
        self._prefix = f"{str(self.url.option('prefix', PREFIX)).rstrip('/')}/{name}/".encode()
        self._etcd = open_etcd(self.url)
        self._watch: EtcdWatch | None = None
        self._is_closed = False

    def list(self) -> Mapping[str, bytes]:
        """All, now. Raises DiscoveryError."""
        return self._list()[0]

    def watch(self, publish: Callable[[Mapping[str, bytes]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        known, revision = self._list()
        publish(known)
        self._watch = watch = self._etcd.watch(self._prefix, end_of(self._prefix), revision + 1)
        try:
            if self._is_closed:
                return
            for events in watch:
                known = dict(known)
                for event in events:
                    if event.kv is not None:
                        known.pop(name := self._name(event.kv.key), None)
                        if event.type != DELETE:
                            known[name] = event.kv.value
                publish(known)
        finally:
            self._watch = None
            watch.close()

    def close(self) -> None:
        """End the watch that is under way, and leave etcd. From any thread."""
        was_closed, self._is_closed = self._is_closed, True  # before one looks for a watch: whoever is about to begin one looks afterwards
        watch = self._watch
        if watch is not None:
            watch.close()
        if not was_closed:
            self._etcd.close()

    def _list(self) -> tuple[dict[str, bytes], int]:
        found, revision = self._etcd.range(self._prefix, end_of(self._prefix))
        return {self._name(each.key): each.value for each in found}, revision

    def _name(self, key: bytes) -> str:
        return key[len(self._prefix) :].decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<EtcdSource {self.url.text} {self._prefix.decode()}>"
