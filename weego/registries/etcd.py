"""etcd:// – instances under keys of etcd, each living as long as a lease that its service renews.

    kitex/registry-etcd/echo/10.0.0.1:8888    {"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":{"lane":"blue"}}

The keys and values are those of kitex-contrib/registry-etcd, so that services on Kitex find ours and ours theirs; zone and start time stand beside
them, where Kitex does not look.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import DEFAULT_WEIGHT, Instance
from poller.address import parse
from weego.registries.etcd_client import DELETE, EtcdWatch, end_of, open_etcd, read_url

__all__ = ["EtcdRegistry", "EtcdResolver", "instance_of", "value_of"]

log = logging.getLogger("weego.governance")

# registry-etcd's own.
PREFIX: Final = "kitex/registry-etcd"
# While a watch is at work nothing is asked; when it is not, so often (seconds).
INTERVAL: Final = 5.0
# A value that is longer was not written by a registry.
MOST_BYTES: Final = 65536
EXAMPLE: Final = "etcd://10.0.0.1:2379,10.0.0.2:2379/echo"


class EtcdRegistry:
    """Announces instances in the etcd at `url`: ``etcd://host:port,host:port?prefix=…``. UsageError for a wrong one."""

    def __init__(self, url: str) -> None:
        self.url = read_url(url, prefix=_prefix)
        if not self.url.hosts:
            raise UsageError(f"{url} names no host; write it like etcd://10.0.0.1:2379,10.0.0.2:2379")
        self._etcd = open_etcd(self.url)
        self._is_closed = False
        self._leases: dict[bytes, int] = {}

    def register(self, registration: Registration) -> None:
        """Renew the instance's lease, or get one and write the key. Raises DiscoveryError."""
        key, value = self._entry(registration)
        lease = self._leases.get(key, 0)
        if not lease or not self._etcd.renew(lease):
            lease = self._etcd.grant(max(1, round(registration.ttl)))
            self._leases[key] = lease
        # Somebody may have removed it, or another process of ours written it under its own lease.
        found, _ = self._etcd.range(key)
        if not found or found[0].lease != lease or found[0].value != value:
            self._etcd.put(key, value, lease)

    def withdraw(self, registration: Registration) -> None:
        """End the lease, and the key with it. Raises DiscoveryError."""
        key, _ = self._entry(registration)
        self._etcd.delete(key)
        if lease := self._leases.pop(key, 0):
            self._etcd.revoke(lease)

    def close(self) -> None:
        """Leave etcd; what is announced ends with its lease."""
        if not self._is_closed:
            self._is_closed = True
            self._etcd.close()

    def _entry(self, registration: Registration) -> tuple[bytes, bytes]:
        instance = registration.instance
        return _folder(self.url.option("prefix", PREFIX), registration.service) + bare(instance.address).encode(), value_of(instance)

    def __repr__(self) -> str:
        return f"<EtcdRegistry {self.url.text}>"


class EtcdResolver:
    """Finds the instances of the service that `url` names: ``etcd://host:port,host:port/echo``. UsageError for a wrong one."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        self.url = read_url(url, prefix=_prefix)
        if not self.url.hosts or not self.url.service:
            raise UsageError(f"{url.partition('?')[0].rpartition('@')[2]} does not name hosts and a service; write it like {EXAMPLE}")
        try:
            self._prefix = _folder(self.url.option("prefix", PREFIX), self.url.service)
        except DiscoveryError as error:
            raise UsageError(str(error)) from None
        self.source = f"{self.url.text}/{self.url.service}"
        self._etcd = open_etcd(self.url)
        self._is_closed = False
        self._known: dict[bytes, Instance] | None = None
        """What the watch that is at work has seen; None while none is."""
        self._watch: EtcdWatch | None = None

    def resolve(self) -> Sequence[Instance]:
        """All that are there. Raises DiscoveryError."""
        if self._known is None:
            found, _ = self._list()
            if self._known is None:  # since then a watch may have begun, which knows better
                return list(found.values())
        return list(self._known.values())

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        known, revision = self._list()
        publish(list(known.values()))
        self._watch = watch = self._etcd.watch(self._prefix, end_of(self._prefix), revision + 1)
        try:
            if self._is_closed:
                return
            self._known = known
            for events in watch:
                known = dict(known)
                for event in events:
                    if event.kv is None:
                        continue
                    known.pop(event.kv.key, None)
                    if event.type != DELETE:
                        self._add(known, event.kv.key, event.kv.value)
                self._known = known
                publish(list(known.values()))
        finally:
            self._known = self._watch = None
            watch.close()

    def close(self) -> None:
        """End the watch that is under way, and leave etcd. From any thread."""
        was_closed, self._is_closed = self._is_closed, True  # before one looks for a watch: whoever is about to begin one looks afterwards
        watch = self._watch
        if watch is not None:
            watch.close()
        if not was_closed:
            self._etcd.close()

    def _list(self) -> tuple[dict[bytes, Instance], int]:
        found, revision = self._etcd.range(self._prefix, end_of(self._prefix))
        known: dict[bytes, Instance] = {}
        for each in found:
            self._add(known, each.key, each.value)
        return known, revision

    def _add(self, known: dict[bytes, Instance], key: bytes, value: bytes) -> None:
        try:
            known[key] = instance_of(value)
        except ValueError as error:
            log.warning("%s at %s is no instance and is passed over: %s", key.decode("utf-8", "replace"), self.url.text, error)

    def __repr__(self) -> str:
        return f"<EtcdResolver {self.source}>"


def bare(address: str) -> str:
    """An address as Kitex writes it: host:port, or the path of a unix socket."""
    return address.partition("://")[2] or address


def value_of(instance: Instance) -> bytes:
    """What is written for an instance. Other programs read it: the first four names are registry-etcd's."""
    plain: dict[str, Any] = {
        "network": "unix" if instance.address.startswith("unix://") else "tcp",
        "address": bare(instance.address),
        "weight": instance.weight,
        "tags": dict(instance.tags),
    }
    if instance.zone:
        plain["zone"] = instance.zone
    if instance.started:
        plain["started"] = instance.started
    return json.dumps(plain, separators=(",", ":"), sort_keys=True).encode()


def instance_of(value: bytes) -> Instance:
    """The instance that `value_of`, or Kitex, wrote. Raises ValueError that says what is wrong."""
    if len(value) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} bytes")
    try:
        plain = json.loads(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(plain, dict) or not isinstance(plain.get("address"), str):
        raise ValueError("it is no table with an address")  # noqa: TRY004 -- one error for what others wrote
    scheme = "unix" if plain.get("network") == "unix" else "tcp"
    address = f"{scheme}://{plain['address']}"
    try:
        address = parse(address).text
    except UsageError as error:
        raise ValueError(str(error)) from None
    weight = plain.get("weight")
    if isinstance(weight, int) and weight < 0:  # Kitex counts what is not positive as its default; with us 0 has a meaning
        plain = {**plain, "weight": DEFAULT_WEIGHT}
    return Instance.from_plain({**plain, "address": address})


def _prefix(text: str) -> str:
    if not text.strip("/"):
        raise ValueError("it is the beginning of all keys, and not empty")
    return text.rstrip("/")


def _folder(prefix: str, service: str) -> bytes:
    # registry-etcd refuses it too: the keys of one service would lie among those of another.
    if not service or "/" in service:
        raise DiscoveryError(f"{service!r} cannot be the name of a service in etcd: it is a part of a key, without /")
    return f"{prefix}/{service}/".encode()
