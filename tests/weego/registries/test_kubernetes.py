"""kubernetes://, against an API server that answers as Kubernetes' does: pages, watches with bookmarks, 410 Gone; and one in trouble."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codec.errors import UsageError
from governance.discovery import DiscoveryError
from governance.instance import Instance
from tests.support.certs import Certificates
from tests.support.http_fake import Answer, HttpFake, Request
from tests.support.net import wait_until, without_hub
from tests.weego.registries.kept import BOTH, Kept, Run
from weego.registries import kubernetes
from weego.registries.kubernetes import KubernetesResolver, instances_of


def endpoint(address: str, **more: Any) -> dict[str, Any]:
    target = {"kind": "Pod", "name": f"pod-{address.rpartition('.')[2]}", "namespace": "shop"}
    return {"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}, "targetRef": target} | more


def slice_of(name: str, *endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "item"}},
        "addressType": "IPv4",
        "ports": [{"name": "metrics", "port": 9090, "protocol": "TCP"}, {"name": "rpc", "port": 8888, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    } | more


class Api:
    """An API server's state."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.forgotten = 0
        self.page = 500
        self.lock = threading.RLock()
        self.trouble: Answer | None = None
        self.watching = 0

    def put(self, it: dict[str, Any]) -> None:
        with self.lock:
            name = it["metadata"]["name"]
            kind = "MODIFIED" if name in self.slices else "ADDED"
            self.happens(kind, it)
            self.slices[name] = it

    def delete(self, name: str) -> None:
        with self.lock:
            self.happens("DELETED", self.slices.pop(name))

    def happens(self, kind: str, it: dict[str, Any]) -> None:
        self.version += 1
        it["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, {"type": kind, "object": json.loads(json.dumps(it))}))

    def __call__(self, request: Request) -> Answer | None:
        if self.trouble is not None:
            return self.trouble
        if request.headers.get("authorization") != "Bearer t0ken":
            return 401, {}, {"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401}
        if request.path != "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices":
            return 404, {}, {"kind": "Status", "message": "not found", "code": 404}
        assert request.query["labelSelector"] == "kubernetes.io/service-name=item"
        if request.query.get("watch") == "true":
            return 200, {}, self.watch(request, int(request.query["resourceVersion"]))
        with self.lock:
            names = sorted(self.slices)
            start = int(request.query.get("continue", "0"))
            metadata = {"resourceVersion": str(self.version)}
            if start + self.page < len(names):
                metadata["continue"] = str(start + self.page)
            items = [self.slices[name] for name in names[start : start + self.page]]
            return 200, {}, {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "items": items}

    def watch(self, request: Request, version: int) -> Iterator[bytes]:
        self.watching += 1
        try:
            if version < self.forgotten:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {version}"}
                yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
                return
            bookmark = {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(version)}}
            yield json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"
            while not request.is_over() and version >= self.forgotten:
                with self.lock:
                    fresh = [each for each in self.events if each[0] > version]
                for number, event in fresh:
                    version = number
                    line = json.dumps(event).encode() + b"\n"
                    yield line[:10]  # cut anywhere
                    yield line[10:]
                request.wait(lambda seen=version: self.version > seen or seen < self.forgotten)  # type: ignore[misc]
        finally:
            self.watching -= 1


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Api, str]]:
    """The state, and the URL of the Service item."""
    certificates = Certificates(tmp_path / "certs")
    (tmp_path / "token").write_text("t0ken\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.path("server"))
    state = Api()
    with HttpFake(state, tls=context) as fake:
        yield state, f"kubernetes://127.0.0.1:{fake.port}/shop/item?ca={certificates.path('ca')}&token_file={tmp_path}/token&timeout=1s"


@BOTH
def test_pods_come_and_go(run: Run, api: tuple[Api, str]) -> None:
    state, url = api
    state.put(slice_of("item-a", endpoint("10.0.0.1", zone="north"), endpoint("10.0.0.2", conditions={"ready": False})))

    @run
    def body() -> None:
        def hosts() -> set[str]:
            return {each.address for each in kept.directory.instances}

        with Kept(KubernetesResolver(f"{url}&port=rpc")) as kept:
            assert list(kept.directory.instances) == [Instance("tcp://10.0.0.1:8888", 10, "north", {"pod": "pod-1"})]
            wait_until(lambda: state.watching == 1)
            state.put(slice_of("item-b", endpoint("10.0.0.3"), endpoint("10.0.0.1")))
            wait_until(lambda: hosts() == {"tcp://10.0.0.1:8888", "tcp://10.0.0.3:8888"})
            state.put(slice_of("item-a", endpoint("10.0.0.2", conditions={})))  # absent: ready
            wait_until(lambda: "tcp://10.0.0.2:8888" in hosts())
            state.delete("item-b")
            wait_until(lambda: hosts() == {"tcp://10.0.0.2:8888"})
            # What happened is forgotten: the list has it.
            with state.lock:
                state.put(slice_of("item-a", endpoint("10.0.0.9")))
                state.events.clear()
                state.forgotten = state.version
            wait_until(lambda: hosts() == {"tcp://10.0.0.9:8888"})
            wait_until(lambda: state.watching == 1)
            state.put(slice_of("item-c", endpoint("10.0.0.10")))
            wait_until(lambda: len(hosts()) == 2)

    body()


@BOTH
def test_pages(run: Run, api: tuple[Api, str]) -> None:
    state, url = api
    state.page = 2
    for number in range(1, 6):
        state.put(slice_of(f"item-{number}", endpoint(f"10.0.0.{number}")))

    @run
    def body() -> None:
        resolver = KubernetesResolver(url)
        assert [each.address for each in resolver.resolve()] == [f"tcp://10.0.0.{number}:9090" for number in range(1, 6)]
        resolver.close()

    body()


@BOTH
def test_an_api_server_in_trouble(run: Run, api: tuple[Api, str], tmp_path: Path) -> None:
    state, url = api

    @run
    def body() -> None:
        resolver = KubernetesResolver(url)
        for trouble, text in (
            ((403, {}, {"message": "endpointslices is forbidden"}), "it answered 403: .*is forbidden"),
            ((500, {}, b"etcdserver: request timed out"), "it answered 500"),
            ((200, {}, b"{"), "its answer is not understood"),
            ((200, {}, {"items": 3}), "no list of EndpointSlices"),
            ((200, {}, {"items": [], "metadata": {"continue": "1"}}), "it has no end"),
        ):
            state.trouble = trouble  # type: ignore[assignment]
            kubernetes_pages = kubernetes.MOST_PAGES
            kubernetes.MOST_PAGES = 3  # type: ignore[misc]
            try:
                with pytest.raises(DiscoveryError, match=text):
                    resolver.resolve()
            finally:
                kubernetes.MOST_PAGES = kubernetes_pages  # type: ignore[misc]
        # A watch that says nonsense is begun anew, and what is known stays.
        state.trouble = None
        state.put(slice_of("item-a", endpoint("10.0.0.1")))
        with Kept(resolver) as kept:
            wait_until(lambda: state.watching == 1)
            state.events.append((state.version + 1, "nonsense"))  # type: ignore[arg-type]
            state.version += 1
            wait_until(lambda: kept.directory.problem != "" or any(each.problem for each in kept.directory.changes))
            assert len(kept.directory.instances) == 1
            state.events.clear()
            wait_until(lambda: state.watching == 1)
            state.put(slice_of("item-a", endpoint("10.0.0.1"), endpoint("10.0.0.2")))
            wait_until(lambda: len(kept.directory.instances) == 2)

    body()


@without_hub
def _credentials(state: Api, url: str, tmp_path: Path) -> None:
    resolver = KubernetesResolver(url)
    resolver.resolve()
    (tmp_path / "token").write_text("0ld")
    with pytest.raises(DiscoveryError, match="it answered 401"):
        resolver.resolve()
    (tmp_path / "token").write_text("t0ken")  # renewed
    resolver.resolve()
    (tmp_path / "token").unlink()
    with pytest.raises(DiscoveryError, match="the token of the service account"):
        resolver.resolve()
    resolver.close()
    (tmp_path / "token").write_text("t0ken")
    stranger = KubernetesResolver(url.replace("/ca.pem", "/stranger-ca.pem"))
    with pytest.raises(DiscoveryError, match=r"(?i)certificate"):
        stranger.resolve()
    stranger.close()


def test_credentials(api: tuple[Api, str], tmp_path: Path) -> None:
    _credentials(*api, tmp_path)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("kubernetes://h", "does not name a Service"),
        ("kubernetes://h/a/b/c", "does not name a Service"),
        ("kubernetes:///item", "has no namespace of its own"),
        ("kubernetes:///shop/item", "is for pods"),
        ("kubernetes://h/shop/item?prot=x", "did you mean 'port'"),
    ],
)
def test_wrong_urls(url: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match=text):
        KubernetesResolver(url)


def test_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kubernetes, "ACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "namespace").write_text("shop")
    resolver = KubernetesResolver("kubernetes:///item")
    assert resolver.url.hosts == (("10.96.0.1", 6443),)
    assert resolver.source == "kubernetes://10.96.0.1:6443/shop/item"


def test_slices_of_others(caplog: pytest.LogCaptureFixture, api: tuple[Api, str]) -> None:
    assert list(instances_of({})) == []
    assert list(instances_of(slice_of("a", endpoint("::1")), "8888")) == [Instance("tcp://[::1]:8888", tags={"pod": "pod-::1"})]
    assert list(instances_of(slice_of("a", endpoint("h"), ports=None))) == []
    assert list(instances_of(slice_of("a", endpoint("h", conditions={"ready": True, "terminating": True})))) == []
    for odd in ({"endpoints": 3}, {"endpoints": [3]}, {"endpoints": [{"addresses": []}]}, {"endpoints": [{"addresses": [""]}]},
                {"endpoints": [{"addresses": ["h"], "zone": 3}]}):  # fmt: skip
        with pytest.raises(ValueError):
            list(instances_of(slice_of("a", **odd)))
    state, url = api
    state.put(slice_of("good", endpoint("10.0.0.1")))
    state.put(slice_of("odd", endpoints=3))
    with caplog.at_level(logging.WARNING):

        @without_hub
        def body() -> None:
            assert len(KubernetesResolver(url).resolve()) == 1

        body()
    assert "the EndpointSlice odd of" in caplog.text
