"""Targets of clients as resolvers: what ``file://``, ``dns://`` and schemes of a user's own stand for.

    EchoClient("file://run/registry/echo")         the folder run/registry, the service echo
    EchoClient("dns://echo.internal:8888")         every address the name has
    EchoClient("dns://_echo._tcp.internal")        SRV records: hosts, ports and weights
    EchoClient("etcd://10.0.0.1:2379/echo")        what announced itself in etcd; weego/registries has this and the like
    register_scheme("mine", lambda url: MyResolver(url))

A registry, which services announce themselves in, has a URL without the service: ``file://run/registry``.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registry, Resolver
from governance.file_registry import FileRegistry, FileResolver
from governance.instance import DEFAULT_WEIGHT, Instance
from weego.tasks import hub_of_this_thread

__all__ = ["DnsResolver", "close", "is_registry_url", "register_registry", "register_scheme", "registry_of", "resolver_of"]

# A name's addresses change when somebody deploys; resolvers below us cache by the records' TTL (seconds).
DNS_INTERVAL: Final = 5.0


def _file(url: str) -> Resolver:
    root, _, service = _path(url).rpartition("/")
    if not root or not service:
        raise UsageError(f"{url} does not name a folder and a service: file://run/registry/echo")
    try:
        return FileResolver(root, service)
    except DiscoveryError as error:
        raise UsageError(str(error)) from None


def _file_registry(url: str) -> Registry:
    path = _path(url)
    if not path:
        raise UsageError(f"{url} names no folder: file://run/registry")
    return FileRegistry(path)


def _path(url: str) -> str:
    path = url.partition("://")[2].rstrip("/")
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def _dns(url: str) -> Resolver:
    return DnsResolver(url.partition("://")[2])


def _later(module: str, name: str) -> Callable[[str], Any]:
    """Make what is in a module that is imported when the first URL wants it: who uses one registry does not load all."""

    def make(url: str) -> Any:
        return getattr(importlib.import_module(f"weego.registries.{module}"), name)(url)

    return make


_schemes: dict[str, Callable[[str], Resolver]] = {
    "file": _file,
    "dns": _dns,
    "etcd": _later("etcd", "EtcdResolver"),
    "etcds": _later("etcd", "EtcdResolver"),
    "zookeeper": _later("zookeeper", "ZookeeperResolver"),
    "zookeepers": _later("zookeeper", "ZookeeperResolver"),
    "consul": _later("consul", "ConsulResolver"),
    "consuls": _later("consul", "ConsulResolver"),
    "kubernetes": _later("kubernetes", "KubernetesResolver"),
    "nacos": _later("nacos", "NacosResolver"),
    "nacoss": _later("nacos", "NacosResolver"),
    "xds": _later("xds", "XdsResolver"),
    "xdss": _later("xds", "XdsResolver"),
}
_registries: dict[str, Callable[[str], Registry]] = {
    "file": _file_registry,
    "etcd": _later("etcd", "EtcdRegistry"),
    "etcds": _later("etcd", "EtcdRegistry"),
    "zookeeper": _later("zookeeper", "ZookeeperRegistry"),
    "zookeepers": _later("zookeeper", "ZookeeperRegistry"),
    "consul": _later("consul", "ConsulRegistry"),
    "consuls": _later("consul", "ConsulRegistry"),
    "nacos": _later("nacos", "NacosRegistry"),
    "nacoss": _later("nacos", "NacosRegistry"),
}


def register_scheme(scheme: str, make: Callable[[str], Resolver]) -> None:
    """From now on a client's target ``scheme://…`` is what ``make(target)`` resolves."""
    _schemes[scheme] = make


def register_registry(scheme: str, make: Callable[[str], Registry]) -> None:
    """From now on ``[registry] url = "scheme://…"`` is the Registry ``make(url)``."""
    _registries[scheme] = make


def resolver_of(target: str) -> Resolver | None:
    """The resolver that a target means; None when it is an address. UsageError when it is neither."""
    scheme, separator, _ = target.partition("://")
    make = _schemes.get(scheme) if separator else None
    return None if make is None else make(target)


def registry_of(url: str) -> Registry:
    """The registry at a URL. UsageError when there is no such kind."""
    scheme = url.partition("://")[0]
    if scheme not in _registries:
        raise UsageError(f"{url}: unknown kind of registry; known are {', '.join(f'{name}://' for name in sorted(_registries))}")
    return _registries[scheme](url)


def close(it: Resolver | Registry) -> None:
    """Its user is done with a resolver or a registry."""
    end = getattr(it, "close", None)
    if end is not None:
        end()


def is_registry_url(url: str) -> bool:
    """Is there a registry of that kind?"""
    return url.partition("://")[0] in _registries


class DnsResolver:
    """Instances by name: ``host:port`` has every address of the host, ``_service._proto.domain`` what its SRV records say.

    Waits with the hub of a gevent program, else in the thread. SRV records need dnspython (``pip install dnspython``).
    """

    interval = DNS_INTERVAL

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = f"dns://{name}"
        self.is_srv = name.startswith("_")
        host, _, port = name.rpartition(":")
        if not self.is_srv and (not host or not port.isdigit() or not 0 < int(port) < 65536):
            raise UsageError(f"dns://{name} is not dns://host:port, nor the name of SRV records, dns://_service._tcp.domain")
        self.host, self.port = (host.strip("[]"), int(port)) if not self.is_srv else (name, 0)

    def resolve(self) -> Sequence[Instance]:
        """Ask the system's resolver, or for SRV the name servers. Raises DiscoveryError."""
        if self.is_srv:
            return _in_thread(self._srv)
        return self._addresses(self.host, self.port, DEFAULT_WEIGHT)

    def _addresses(self, host: str, port: int, weight: int) -> list[Instance]:
        hub = hub_of_this_thread()
        ask: Any = socket.getaddrinfo if hub is None else hub.resolver.getaddrinfo
        try:
            found = ask(host, port, 0, socket.SOCK_STREAM)
        except OSError as error:
            raise DiscoveryError(f"cannot resolve {host!r}: {(error.strerror or str(error)).lower()}") from None
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        return [
            Instance(f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}", weight)
            for address in addresses
        ]

    def _srv(self) -> list[Instance]:
        try:
            import dns.exception
            import dns.resolver
        except ImportError:
            raise DiscoveryError("SRV records need dnspython: pip install dnspython") from None
        try:
            records = list(dns.resolver.resolve(self.name, "SRV"))
        except dns.exception.DNSException as error:
            raise DiscoveryError(f"cannot resolve {self.name!r}: {error}") from None
        # The lowest number is tried first (RFC 2782); the others are for when it has no host left, which the records would say.
        first = min((record.priority for record in records), default=0)
        found: list[Instance] = []
        for record in records:
            if record.priority == first:
                found += self._addresses(str(record.target).rstrip("."), record.port, max(1, record.weight))
        return found

    def __repr__(self) -> str:
        return f"<DnsResolver {self.name}>"


def _in_thread(run: Callable[[], list[Instance]]) -> list[Instance]:
    """Where a hub is at work: in a thread of its pool, for `run` waits in ways that gevent does not know."""
    hub = hub_of_this_thread()
    return run() if hub is None else hub.threadpool.apply(run)
