"""nacos:// – instances in Nacos, by its HTTP API: ephemeral ones that live as long as they beat.

    nacos://10.0.0.1:8848,10.0.0.2:8848/echo?namespace=…&group=DEFAULT_GROUP&cluster=DEFAULT

Group, cluster and metadata (the tags) are those of kitex-contrib/registry-nacos; zone and start time are two more entries of the metadata. By HTTP Nacos tells
nobody of changes: it is asked every two seconds.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import DEFAULT_WEIGHT, Instance
from poller.address import parse
from weego.registries.http import Answer, Http
from weego.registries.url import TLS_OPTIONS, RegistryUrl, duration, read

__all__ = ["NacosRegistry", "NacosResolver", "instance_of"]

log = logging.getLogger("weego.governance")

PORT: Final = 8848
TIMEOUT: Final = 2.0
INTERVAL: Final = 2.0
GROUP: Final = "DEFAULT_GROUP"
CLUSTER: Final = "DEFAULT"
# A token is asked for anew when so much of its life is over.
TOKEN_SHARE: Final = 0.9
# Answers to a beat: it counts; nobody knows the instance (NamingResponseCode).
BEAT_TAKEN, BEAT_UNKNOWN = 10200, 20404
# Entries of the metadata that Nacos itself reads, in milliseconds (PreservedMetadataKeys).
BEAT_INTERVAL: Final = "preserved.heart.beat.interval"
BEAT_TIMEOUT: Final = "preserved.heart.beat.timeout"
DELETE_TIMEOUT: Final = "preserved.ip.delete.timeout"
ZONE, STARTED = "weego.zone", "weego.started"
EXAMPLE: Final = "nacos://10.0.0.1:8848/echo"


def read_url(url: str) -> RegistryUrl:
    """A URL of Nacos. UsageError."""
    options: dict[str, Callable[[str], Any]] = {
        "timeout": duration, "namespace": str, "group": str, "cluster": str, "context": _context, "api": _api, **TLS_OPTIONS,
    }  # fmt: skip
    found = read(url, port=PORT, options=options, secure="nacoss", example=EXAMPLE)
    if not found.hosts:
        raise UsageError(f"{found.text} names no host; write it like {EXAMPLE}")
    return found


def _context(text: str) -> str:
    return text.strip("/")


def _api(text: str) -> str:
    if text not in ("v1", "v2"):
        raise ValueError(f"{text!r} is not v1 or v2")
    return text


class _Nacos:
    """What registry and resolver share: where Nacos is, and who asks."""

    def __init__(self, url: RegistryUrl) -> None:
        self.url = url
        self._http = Http("Nacos", url)
        self._timeout = float(url.option("timeout", TIMEOUT))
        self._api = url.option("api", "v1")
        self._token = ""
        self._token_until = 0.0

    def _path(self, *parts: str) -> tuple[str, ...]:
        context = self.url.option("context", "nacos")
        return (*(context.split("/") if context else ()), *parts)

    def ask(self, method: str, what: str, fields: dict[str, str]) -> Any:
        """The data of an answer of the naming service. Raises DiscoveryError."""
        for is_last in (False, True):
            query = {
                **fields,
                "namespaceId": self.url.option("namespace", ""),
                "groupName": self.url.option("group", GROUP),
                "accessToken": self._login() if self.url.user else "",
            }
            answer = self._http.ask(method, self._path(self._api, "ns", *what.split("/")), query, timeout=self._timeout)
            if answer.status == 403 and self.url.user and not is_last:
                self._token_until = 0.0  # it was restarted, or the token's time is over
                continue
            break
        if answer.status != 200:
            raise self._http.refused(answer)
        return self._data(answer)

    def _data(self, answer: Answer) -> Any:
        """Without the wrapping of v2."""
        if answer.body == b"ok":
            return "ok"
        try:
            plain = answer.plain()
        except ValueError as error:
            raise self._http.malformed(str(error)) from None
        if self._api == "v2":
            if not isinstance(plain, dict) or plain.get("code") != 0:
                raise self._http.refused(answer)
            return plain.get("data")
        return plain

    def _login(self) -> str:
        if time.monotonic() < self._token_until:
            return self._token
        form = {"username": self.url.user, "password": self.url.password}
        answer = self._http.ask("POST", self._path("v1", "auth", "login"), form=form, timeout=self._timeout)
        if answer.status != 200:
            raise DiscoveryError(f"Nacos at {self.url.text}: it answered {answer.status} to the login of {self.url.user}")
        try:
            plain = answer.plain()
            self._token, seconds = str(plain["accessToken"]), float(plain["tokenTtl"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._http.malformed(f"a login without {error}") from None
        self._token_until = time.monotonic() + seconds * TOKEN_SHARE
        return self._token

    def close(self) -> None:
        """Its user is done; what is announced ends when it beats no more."""
        self._http.close()

    def malformed(self, what: str) -> DiscoveryError:
        """An answer that nobody understands."""
        return self._http.malformed(what)


class NacosRegistry:
    """Announces instances in the Nacos at `url`: ``nacos://host:port,host:port``. UsageError for a wrong one."""

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        self._nacos = _Nacos(self.url)
        self._said: dict[str, dict[str, str]] = {}

    def register(self, registration: Registration) -> None:
        """Beat; if Nacos does not know the instance, or knows it otherwise, announce it first. Raises DiscoveryError."""
        fields = self._fields(registration)
        key = f"{registration.service} {registration.instance.address}"
        if self._said.get(key) == fields and self._beats(registration, fields):
            return
        self._said.pop(key, None)
        said = self._nacos.ask("POST", "instance", fields)
        if said != "ok":
            raise self._nacos.malformed(f"{said!r:.60} to an instance that was announced")
        self._said[key] = fields

    def _beats(self, registration: Registration, fields: dict[str, str]) -> bool:
        """Say that it lives. False: Nacos does not know it."""
        beat = {
            "serviceName": f"{self.url.option('group', GROUP)}@@{registration.service}",
            "ip": fields["ip"],
            "port": int(fields["port"]),
            "cluster": fields["clusterName"],
            "weight": float(fields["weight"]),
            "metadata": json.loads(fields["metadata"]),
            "scheduled": True,
        }
        # To `beat` the name has its group in front (nacos 1.x and 2.x), as SDKs send it.
        query = {**fields, "serviceName": beat["serviceName"], "beat": json.dumps(beat, separators=(",", ":"))}
        said = self._nacos.ask("PUT", "instance/beat", query)
        code = said.get("code", BEAT_TAKEN) if isinstance(said, dict) else BEAT_TAKEN
        if code not in (BEAT_TAKEN, BEAT_UNKNOWN):
            raise self._nacos.malformed(f"code {code!r:.60} to a beat")
        return bool(code == BEAT_TAKEN)

    def withdraw(self, registration: Registration) -> None:
        """Take the instance back. Raises DiscoveryError."""
        self._said.pop(f"{registration.service} {registration.instance.address}", None)
        self._nacos.ask("DELETE", "instance", self._fields(registration))

    def close(self) -> None:
        """Its user is done; what is announced ends when it beats no more."""
        self._nacos.close()

    def _fields(self, registration: Registration) -> dict[str, str]:
        instance = registration.instance
        if not instance.address.startswith("tcp://"):
            raise DiscoveryError(f"{instance.address} cannot be announced in Nacos: only tcp://host:port can")
        address = parse(instance.address)
        milliseconds = round(registration.ttl * 1000)
        metadata = {
            **instance.tags,
            BEAT_INTERVAL: str(milliseconds // 3),
            BEAT_TIMEOUT: str(milliseconds),
            DELETE_TIMEOUT: str(milliseconds * 2),
        }
        if instance.zone:
            metadata[ZONE] = instance.zone
        if instance.started:
            metadata[STARTED] = repr(instance.started)
        return {
            "serviceName": registration.service,
            "ip": address.host,
            "port": str(address.port),
            "weight": str(float(instance.weight)),
            "enabled": "true",
            "healthy": "true",
            "ephemeral": "true",
            "clusterName": self.url.option("cluster", CLUSTER),
            "metadata": json.dumps(metadata, separators=(",", ":"), sort_keys=True),
        }

    def __repr__(self) -> str:
        return f"<NacosRegistry {self.url.text}>"


class NacosResolver:
    """Finds the healthy instances of the service that `url` names: ``nacos://host:port/echo``. UsageError for a wrong one."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        if not self.url.service:
            raise UsageError(f"{self.url.text} names no service; write it like {EXAMPLE}")
        self.source = f"{self.url.text}/{self.url.service}"
        self._nacos = _Nacos(self.url)

    def resolve(self) -> Sequence[Instance]:
        """All that are there. Raises DiscoveryError."""
        fields = {"serviceName": self.url.service, "clusters": self.url.option("cluster", CLUSTER), "healthyOnly": "true"}
        if self.url.option("api", "v1") == "v2":
            fields["clusterName"] = fields.pop("clusters")
        data = self._nacos.ask("GET", "instance/list", fields)
        hosts = data.get("hosts") if isinstance(data, dict) else None
        if not isinstance(hosts, list):
            raise self._nacos.malformed("it has no hosts")
        found = []
        for host in hosts:
            try:
                if isinstance(host, dict) and (host.get("enabled") is False or host.get("healthy") is False):
                    continue
                found.append(instance_of(host))
            except ValueError as error:
                log.warning("an instance of %s is passed over: %s", self.source, error)
        return found

    def close(self) -> None:
        """Its client is done."""
        self._nacos.close()

    def __repr__(self) -> str:
        return f"<NacosResolver {self.source}>"


def instance_of(host: Any) -> Instance:
    """One host of a list. Raises ValueError that says what is wrong."""
    if not isinstance(host, dict) or not isinstance(host.get("ip"), str):
        raise ValueError("it is no table with an ip")  # noqa: TRY004 -- one error for what others wrote
    ip, port = host["ip"], host.get("port")
    weight = host.get("weight", DEFAULT_WEIGHT)
    metadata = host.get("metadata") or {}
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isinstance(metadata, dict):
        raise ValueError("its weight is no number, or its metadata no table")  # noqa: TRY004 -- likewise
    try:
        address = parse(f"tcp://[{ip}]:{port}" if ":" in ip else f"tcp://{ip}:{port}").text
    except UsageError as error:
        raise ValueError(str(error)) from None
    own = (BEAT_INTERVAL, BEAT_TIMEOUT, DELETE_TIMEOUT, ZONE, STARTED)
    plain = {
        "address": address,
        "weight": round(weight) if weight >= 1 or weight <= 0 else 1,  # its weights may be fractions, as 0.5
        "zone": metadata.get(ZONE) or "",
        "tags": {name: value for name, value in metadata.items() if name not in own},
        "started": float(str(metadata.get(STARTED) or 0.0)),
    }
    return Instance.from_plain(plain)
