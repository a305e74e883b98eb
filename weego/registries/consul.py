"""consul:// – services of a Consul agent, found by blocking queries, announced with a check that passes as long as somebody says so.

    consul://127.0.0.1:8500/echo

Names, tags (``lane:blue``) and weights are those of kitex-contrib/registry-consul; zone and start time are in the service's meta, where Kitex does not look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import DEFAULT_WEIGHT, Instance
from poller.address import parse
from weego.registries.http import Answer, Http
from weego.registries.url import TLS_OPTIONS, RegistryUrl, duration, read

__all__ = ["ConsulRegistry", "ConsulResolver", "instance_of"]

log = logging.getLogger("weego.governance")

PORT: Final = 8500
TIMEOUT: Final = 2.0
# How long a query waits for news (seconds). Consul adds up to a sixteenth of it at random.
WAIT: Final = 55.0
SLACK: Final = 10.0
INTERVAL: Final = 15.0
# How long Consul keeps a service whose check fails: what it allows at least.
KEPT: Final = "1m"
EXAMPLE: Final = "consul://127.0.0.1:8500/echo"


def read_url(url: str) -> RegistryUrl:
    """A URL of Consul. UsageError."""
    options: dict[str, Callable[[str], Any]] = {"timeout": duration, "token": str, "token_file": str, "dc": str, **TLS_OPTIONS}
    found = read(url, port=PORT, options=options, secure="consuls", example=EXAMPLE)
    if not found.hosts:
        raise UsageError(f"{found.text} names no host; write it like {EXAMPLE}")
    return found


def _http(url: RegistryUrl) -> Http:
    def headers() -> dict[str, str]:
        token = url.option("token", "")
        if (file := url.option("token_file", None)) is not None:
            try:
                with open(file) as opened:
                    token = opened.read().strip()
            except OSError as error:
                raise DiscoveryError(f"the token of Consul, {file}, cannot be read: {error.strerror}") from None
        return {"X-Consul-Token": token} if token else {}

    return Http("Consul", url, headers)


class ConsulRegistry:
    """Announces instances at the agent of `url`: ``consul://host:port``. UsageError for a wrong one."""

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        self._timeout = float(self.url.option("timeout", TIMEOUT))
        self._http = _http(self.url)
        self._said: dict[str, dict[str, Any]] = {}

    def register(self, registration: Registration) -> None:
        """Say that the instance is well; if the agent does not know it, or knows it otherwise, announce it first. Raises DiscoveryError."""
        service = _service(registration)
        name = service["ID"]
        if self._said.get(name) == service and self._passes(name):
            return
        answer = self._http.ask("PUT", ("v1", "agent", "service", "register"), body=service, timeout=self._timeout)
        if answer.status != 200:
            raise self._http.refused(answer)
        self._said[name] = service
        if not self._passes(name):
            raise DiscoveryError(f"Consul at {self.url.text} forgot {name} as soon as it was told of it")

    def _passes(self, name: str) -> bool:
        """Have the check pass for another ttl. False: there is none."""
        path = ("v1", "agent", "check", "pass", f"service:{name}")
        answer = self._http.ask("PUT", path, timeout=self._timeout)
        if answer.status == 200:
            return True
        # 404, and before 1.11 a 500 that says it.
        if answer.status == 404 or b"TTL" in answer.body or b"Unknown check" in answer.body:
            return False
        raise self._http.refused(answer)

    def withdraw(self, registration: Registration) -> None:
        """Take the instance back. Raises DiscoveryError."""
        name = _service(registration)["ID"]
        self._said.pop(name, None)
        answer = self._http.ask("PUT", ("v1", "agent", "service", "deregister", name), timeout=self._timeout)
        if answer.status not in (200, 404):
            raise self._http.refused(answer)

    def close(self) -> None:
        """Its user is done; what is announced ends with its check."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<ConsulRegistry {self.url.text}>"


def _service(registration: Registration) -> dict[str, Any]:
    """What the agent is told of an instance."""
    instance = registration.instance
    if not instance.address.startswith("tcp://"):
        raise DiscoveryError(f"{instance.address} cannot be announced in Consul: only tcp://host:port can")
    address = parse(instance.address)
    for name in instance.tags:
        if ":" in name:
            raise DiscoveryError(f"the tag {name!r} cannot be announced in Consul: there its name ends at the first colon")
    name = f"{registration.service}:{address.host}:{address.port}"
    meta = {"zone": instance.zone} if instance.zone else {}
    if instance.started:
        meta["started"] = repr(instance.started)
    return {
        "ID": name,
        "Name": registration.service,
        "Address": address.host,
        "Port": address.port,
        "Tags": [f"{tag}:{value}" for tag, value in sorted(instance.tags.items())],
        "Meta": meta,
        "Weights": {"Passing": max(1, instance.weight), "Warning": max(1, instance.weight)},  # Consul refuses 0
        "Check": {"CheckID": f"service:{name}", "TTL": f"{registration.ttl:g}s", "DeregisterCriticalServiceAfter": KEPT},
    }


class ConsulResolver:
    """Finds the instances of the service that `url` names whose checks pass: ``consul://host:port/echo``. UsageError for a wrong one."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        if not self.url.service:
            raise UsageError(f"{self.url.text} names no service; write it like {EXAMPLE}")
        self.source = f"{self.url.text}/{self.url.service}"
        self._timeout = float(self.url.option("timeout", TIMEOUT))
        self._http = _http(self.url)
        self._known: list[Instance] | None = None
        """What the watch that is at work has seen; None while none is."""

    def resolve(self) -> Sequence[Instance]:
        """All that are there. Raises DiscoveryError."""
        # Asked beside the watch too: where Consul's index has gone back, a query waits in vain until its time is over.
        before = self._known
        found, _ = self._ask(0, self._timeout)
        return found if self._known is before or self._known is None else self._known

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        index = 0
        try:
            while True:
                found, fresh = self._ask(index, WAIT + SLACK if index else self._timeout)
                # An index that goes back is of an agent that has begun anew (Consul's own advice for blocking queries).
                index = 0 if fresh < index else max(1, fresh)
                self._known = found
                publish(found)
        finally:
            self._known = None

    def _ask(self, index: int, timeout: float) -> tuple[list[Instance], int]:
        query = {"passing": "1", "dc": self.url.option("dc", "")}
        if index:
            query |= {"index": str(index), "wait": f"{WAIT:g}s"}
        answer = self._http.ask("GET", ("v1", "health", "service", self.url.service), query, timeout=timeout)
        if answer.status != 200:
            raise self._http.refused(answer)
        return self._read(answer)

    def _read(self, answer: Answer) -> tuple[list[Instance], int]:
        try:
            entries = answer.plain()
            index = int(answer.headers.get("x-consul-index", "1"))
        except ValueError as error:
            raise self._http.malformed(str(error)) from None
        if not isinstance(entries, list):
            raise self._http.malformed("it is no list")
        found = []
        for entry in entries:
            try:
                found.append(instance_of(entry))
            except ValueError as error:
                log.warning("an instance of %s is passed over: %s", self.source, error)
        return found, index

    def close(self) -> None:
        """End the watch that is under way. From any thread."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<ConsulResolver {self.source}>"


def instance_of(entry: Any) -> Instance:
    """One entry of a health query. Raises ValueError that says what is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Service"), dict):
        raise ValueError("it has no Service")  # noqa: TRY004 -- one error for what others wrote
    service = entry["Service"]
    node = entry.get("Node")
    host = service.get("Address") or (node.get("Address") if isinstance(node, dict) else "")
    port = service.get("Port")
    try:
        address = parse(f"tcp://[{host}]:{port}" if ":" in str(host) else f"tcp://{host}:{port}").text
    except UsageError as error:
        raise ValueError(str(error)) from None
    weights = service.get("Weights")
    tags = service.get("Tags") or []
    meta = service.get("Meta") or {}
    if not isinstance(tags, list) or not isinstance(meta, dict):
        raise ValueError("its Tags are no list, or its Meta is no table")  # noqa: TRY004 -- likewise
    pairs = (each.partition(":") for each in tags if isinstance(each, str))
    plain = {
        "address": address,
        "weight": weights.get("Passing", DEFAULT_WEIGHT) if isinstance(weights, dict) else DEFAULT_WEIGHT,
        "tags": {name: value for name, colon, value in pairs if colon},
        "zone": meta.get("zone", ""),
        "started": _seconds(meta.get("started")),
    }
    return Instance.from_plain(plain)


def _seconds(value: Any) -> float:
    try:
        return float(value or 0.0)
    except TypeError:
        raise ValueError(f"started is a number of seconds, not {value!r:.60}") from None
