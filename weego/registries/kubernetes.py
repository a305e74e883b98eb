"""kubernetes:// – the pods behind a Service, from its EndpointSlices: listed, then watched, with the pod's own service account.

    kubernetes:///item                         the Service item of this pod's namespace, its first port
    kubernetes:///shop/item?port=rpc           of the namespace shop, the port of that name or number

Kubernetes itself announces pods; there is no registry. The service account needs `list` and `watch` on `endpointslices` (`discovery.k8s.io`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from codec.errors import UsageError
from governance.discovery import DiscoveryError
from governance.instance import Instance
from poller.address import parse
from weego.registries.http import Http
from weego.registries.url import TLS_OPTIONS, RegistryUrl, duration, read

__all__ = ["KubernetesResolver", "instances_of"]

log = logging.getLogger("weego.governance")

# Where a pod finds who it is (Kubernetes: "Accessing the Kubernetes API from a Pod").
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
PORT: Final = 443
TIMEOUT: Final = 5.0
INTERVAL: Final = 10.0
# Slices in one answer to a list; each has up to 100 endpoints, up to 1000 where somebody configured it.
PAGE: Final = 200
MOST_PAGES: Final = 1000
# How long the server lets a watch live (seconds), and how much longer it may be silent at its end. Bookmarks come about every minute.
WATCH: Final = 300
SLACK: Final = 15.0
GONE: Final = 410
EXAMPLE: Final = "kubernetes:///namespace/service?port=name"

_Slices = dict[str, dict[str, Any]]


class KubernetesResolver:
    """Finds the ready pods of the Service that `url` names. UsageError for a wrong one, or outside of a cluster without a host in it."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        options: dict[str, Callable[[str], Any]] = {"port": str, "timeout": duration, "token_file": str, **TLS_OPTIONS}
        found = read(url, port=PORT, options=options, secure="kubernetes", example=EXAMPLE)
        namespace, _, service = found.service.rpartition("/")
        if not service or "/" in namespace:
            raise UsageError(f"{url.partition('?')[0]} does not name a Service; write it like {EXAMPLE}")
        self._namespace = namespace or _own_namespace()
        self._service = service
        self._port = found.option("port", "")
        self.url = _in_pod(found)
        self.source = f"{self.url.text}/{self._namespace}/{service}"
        self._timeout = float(found.option("timeout", TIMEOUT))
        self._token_file = found.option("token_file", f"{ACCOUNT}/token")
        self._http = Http("Kubernetes", self.url, self._headers)
        self._known: list[Instance] | None = None
        """What the watch that is at work has seen; None while none is."""

    def _headers(self) -> dict[str, str]:
        # Tokens are renewed in the file (BoundServiceAccountTokenVolume): read for each request.
        try:
            with open(self._token_file) as file:
                return {"Authorization": f"Bearer {file.read().strip()}"}
        except OSError as error:
            raise DiscoveryError(f"the token of the service account, {self._token_file}, cannot be read: {error.strerror}") from None

    @property
    def _path(self) -> tuple[str, ...]:
        return ("apis", "discovery.k8s.io", "v1", "namespaces", self._namespace, "endpointslices")

    @property
    def _selector(self) -> dict[str, str]:
        return {"labelSelector": f"kubernetes.io/service-name={self._service}"}

    def resolve(self) -> Sequence[Instance]:
        """All ready ones. Raises DiscoveryError."""
        known = self._known
        if known is not None:
            return known
        found = self._instances(self._list()[0])
        return found if self._known is None else self._known  # since then a watch may have begun, which knows better

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        slices, version = self._list()
        try:
            self._tell(slices, publish)
            while True:
                for kind, it in self._events(version):
                    version = _metadata(it).get("resourceVersion") or version
                    if kind == "BOOKMARK":
                        continue
                    slices = dict(slices)
                    slices.pop(str(_metadata(it).get("name")), None)
                    if kind in ("ADDED", "MODIFIED"):
                        slices[str(_metadata(it).get("name"))] = it
                    self._tell(slices, publish)
        finally:
            self._known = None

    def _tell(self, slices: _Slices, publish: Callable[[Sequence[Instance]], None]) -> None:
        self._known = found = self._instances(slices)
        publish(found)

    def _list(self) -> tuple[_Slices, str]:
        found: _Slices = {}
        query = {**self._selector, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            answer = self._http.ask("GET", self._path, query, timeout=self._timeout)
            if answer.status == GONE and "continue" in query:  # the list has grown too old between two pages
                del query["continue"]
                found = {}
                continue
            if answer.status != 200:
                raise self._http.refused(answer)
            try:
                plain = answer.plain()
            except ValueError as error:
                raise self._http.malformed(str(error)) from None
            if not isinstance(plain, dict) or not isinstance(plain.get("items"), list):
                raise self._http.malformed("it is no list of EndpointSlices")
            for it in plain["items"]:
                if isinstance(it, dict):
                    found[str(_metadata(it).get("name"))] = it
            if not (more := _metadata(plain).get("continue")):
                return found, str(_metadata(plain).get("resourceVersion") or "")
            query["continue"] = str(more)
        raise self._http.malformed("it has no end")

    def _events(self, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What happens from `version` on, until the server ends this watch. DiscoveryError when one must list anew."""
        query = {
            **self._selector, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH),
        }  # fmt: skip
        for status, line in self._http.lines(self._path, query, timeout=self._timeout, silence=WATCH + SLACK):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._http.malformed(str(error)) from None
            if status != 200 or not isinstance(event, dict) or event.get("type") == "ERROR":
                told = event.get("object", event) if isinstance(event, dict) else {}
                if status == GONE or (isinstance(told, dict) and told.get("code") == GONE):
                    raise DiscoveryError(f"{self.source}: what happened since {version} is forgotten there (410 Gone)")
                message = told.get("message") if isinstance(told, dict) else None
                raise DiscoveryError(f"{self.source}: its watch answered {status}: {message or line[:200]!r}")
            if isinstance(it := event.get("object"), dict):
                yield str(event.get("type")), it

    def _instances(self, slices: _Slices) -> list[Instance]:
        found: dict[str, Instance] = {}
        for name, each in sorted(slices.items()):
            try:
                for instance in instances_of(each, self._port):
                    found.setdefault(instance.address, instance)  # while a pod moves between slices it is in both
            except ValueError as error:
                log.warning("the EndpointSlice %s of %s is passed over: %s", name, self.source, error)
        return list(found.values())

    def close(self) -> None:
        """End the watch that is under way. From any thread."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<KubernetesResolver {self.source}>"


def instances_of(it: dict[str, Any], port: str = "") -> Iterator[Instance]:
    """The ready endpoints of an EndpointSlice (discovery.k8s.io/v1), at the port of that name or number, or at the first. ValueError."""
    number = _port(it.get("ports"), port)
    if number is None:
        return
    endpoints = it.get("endpoints") or []
    if not isinstance(endpoints, list):
        raise ValueError("its endpoints are no list")  # noqa: TRY004 -- one error for what others wrote
    for each in endpoints:
        if not isinstance(each, dict) or not isinstance(addresses := each.get("addresses"), list) or not addresses:
            raise ValueError("an endpoint has no addresses")
        conditions = each.get("conditions") or {}
        # Absent means ready; a pod that terminates is not (API: EndpointConditions).
        if not isinstance(conditions, dict) or conditions.get("ready") is False or conditions.get("terminating") is True:
            continue
        host = str(addresses[0])
        try:
            address = parse(f"tcp://[{host}]:{number}" if ":" in host else f"tcp://{host}:{number}").text
        except UsageError as error:
            raise ValueError(str(error)) from None
        target = each.get("targetRef")
        pod = target.get("name") if isinstance(target, dict) else None
        yield Instance.from_plain({"address": address, "zone": each.get("zone") or "", "tags": {"pod": pod} if isinstance(pod, str) else {}})


def _port(ports: Any, wanted: str) -> int | None:
    """The number of the port that is wanted; None: the slice has none such."""
    if not isinstance(ports, list):
        return None
    for each in ports:
        if not isinstance(each, dict) or not isinstance(number := each.get("port"), int):
            continue
        if wanted in ("", str(number), each.get("name")):
            return number
    return None


def _metadata(it: dict[str, Any]) -> dict[str, Any]:
    found = it.get("metadata")
    return found if isinstance(found, dict) else {}


def _own_namespace() -> str:
    try:
        with open(f"{ACCOUNT}/namespace") as file:
            return file.read().strip()
    except OSError:
        raise UsageError(f"this is no pod, and has no namespace of its own: name one, {EXAMPLE}") from None


def _in_pod(url: RegistryUrl) -> RegistryUrl:
    """With the API server and its authority as a pod has them, where the URL names none."""
    options = dict(url.options)
    if "ca" not in options:
        options["ca"] = f"{ACCOUNT}/ca.crt"
    if url.hosts:
        return replace(url, options=options)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", str(PORT))
    if not host:
        raise UsageError("kubernetes:// is for pods, which have KUBERNETES_SERVICE_HOST in their environment; elsewhere name the API server")
    return replace(url, hosts=((host, int(port)),), options=options, text=f"kubernetes://{quote(host, safe=':')}:{port}")
