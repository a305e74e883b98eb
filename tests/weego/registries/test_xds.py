"""xds://, against a control plane of ours that speaks as Istio does, with resources made of Envoy's own messages (xds-protos)."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from codec.errors import RpcError, UsageError
from governance.discovery import DiscoveryError
from governance.instance import Instance
from tests.support.need import module
from tests.support.net import wait_until, without_hub
from tests.support.ports import free_port
from tests.weego.registries.kept import BOTH, Kept, Run
from weego.registries import xds
from weego.registries.gen.envoy.service.discovery.v3 import xds as messages
from weego.registries.xds import CLUSTER, ENDPOINTS, LISTENER, ROUTE, Subscription, XdsResolver
from weego.server import Server

NAME = "item.shop:8888"


def envoy(name: str) -> Any:
    """One of Envoy's generated modules."""
    return module(f"envoy.{name}_pb2")


def any_of(message: Any) -> messages.Any:
    return messages.Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=message.SerializeToString())


def listener(name: str = NAME, *, rds: str = "", route: Any = None, thrift: Any = None, api: bool = False) -> Any:
    pb = envoy("config.listener.v3.listener")
    made = pb.Listener(name=name)
    if thrift is not None:
        made.filter_chains.add().filters.add(name="thrift").typed_config.Pack(thrift)
    manager = envoy("extensions.filters.network.http_connection_manager.v3.http_connection_manager").HttpConnectionManager(stat_prefix="x")
    if rds:
        manager.rds.route_config_name = rds
    if route is not None:
        manager.route_config.CopyFrom(route)
    if api:
        made.api_listener.api_listener.Pack(manager)
    elif rds or route is not None:
        made.filter_chains.add().filters.add(name="http").typed_config.Pack(manager)
    return made


def route(name: str, *clusters: tuple[str, int]) -> Any:
    made = envoy("config.route.v3.route").RouteConfiguration(name=name)
    host = made.virtual_hosts.add(name="h", domains=["*"])
    special = host.routes.add()  # of single calls: not ours to follow
    special.match.prefix = "/"
    special.match.headers.add(name="stage")
    special.route.cluster = "canary"
    usual = host.routes.add()
    usual.match.prefix = "/"
    if len(clusters) == 1:
        usual.route.cluster = clusters[0][0]
    for name, weight in clusters if len(clusters) > 1 else ():
        usual.route.weighted_clusters.clusters.add(name=name).weight.value = weight
    return made


def cluster(name: str, *, eds: str = "", inline: Any = None) -> Any:
    made = envoy("config.cluster.v3.cluster").Cluster(name=name, type=3)
    if eds:
        made.eds_cluster_config.service_name = eds
    if inline is not None:
        made.type = 0
        made.load_assignment.CopyFrom(inline)
    return made


def endpoints(name: str, *localities: dict[str, Any]) -> Any:
    made = envoy("config.endpoint.v3.endpoint").ClusterLoadAssignment(cluster_name=name)
    for each in localities:
        locality = made.endpoints.add(priority=each.get("priority", 0))
        locality.locality.zone = each.get("zone", "")
        if "weight" in each:
            locality.load_balancing_weight.value = each["weight"]
        for port, weight, health in each["ports"]:
            endpoint = locality.lb_endpoints.add(health_status=health)
            endpoint.endpoint.address.socket_address.address = "127.0.0.1"
            endpoint.endpoint.address.socket_address.port_value = port
            if weight:
                endpoint.load_balancing_weight.value = weight
    return made


def simple(*ports: int) -> dict[str, Any]:
    return {"ports": [(port, 0, 1) for port in ports]}


class ControlPlane(messages.AggregatedDiscoveryService):
    """Says what is in `resources`, and anew at each change of `version`; remembers what clients said."""

    def __init__(self) -> None:
        self.resources: dict[str, list[Any]] = {LISTENER: [], ROUTE: [], CLUSTER: [], ENDPOINTS: []}
        self.version = 1
        self.heard: list[messages.DiscoveryRequest] = []
        self.is_silent = False
        self.ends = 0
        self.lock = threading.Lock()

    def set(self, *resources: Any) -> None:
        """These are the resources, with new versions."""
        with self.lock:
            fresh: dict[str, list[Any]] = {each: [] for each in self.resources}
            for each in resources:
                packed = each if isinstance(each, messages.Any) else any_of(each)
                fresh[packed.type_url].append((getattr(each, "cluster_name", "") or getattr(each, "name", ""), packed))
            self.resources = fresh
            self.version += 1

    def stream_aggregated_resources(self, requests: Iterator[messages.DiscoveryRequest]) -> Iterator[messages.DiscoveryResponse]:
        asked: dict[str, tuple[str, ...]] = {}
        told: dict[str, tuple[int, tuple[str, ...]]] = {}
        is_over = []
        ends = self.ends

        def listen() -> None:
            with contextlib.suppress(RpcError):  # who asked has gone
                for request in requests:
                    self.heard.append(request)
                    asked[request.type_url] = tuple(request.resource_names)
            is_over.append(True)

        reader = gevent.spawn(listen)
        try:
            while not is_over and self.ends == ends:
                for kind in (LISTENER, ROUTE, CLUSTER, ENDPOINTS):
                    state = (self.version, asked.get(kind, ()))
                    if kind in asked and told.get(kind) != state and not self.is_silent:
                        told[kind] = state
                        found = [packed for name, packed in self.resources[kind] if not name or name in asked[kind]]
                        yield messages.DiscoveryResponse(
                            version_info=str(self.version), resources=found, type_url=kind, nonce=f"n{len(self.heard)}"
                        )
                gevent.sleep(0.005)
        finally:
            reader.kill()


@pytest.fixture
def plane() -> Iterator[tuple[ControlPlane, str]]:
    module("envoy.config.listener.v3.listener_pb2")
    state = ControlPlane()
    with Server([state], listen=["tcp://127.0.0.1:0"]) as server:
        yield state, server.addresses[0].removeprefix("tcp://")
        state.ends += 1


def usual(*ports: int) -> list[Any]:
    return [
        listener(rds="r"), listener("another:1", rds="elsewhere"), route("r", ("c", 1)), cluster("c", eds="e"), endpoints("e", simple(*ports)),
    ]  # fmt: skip


@BOTH
def test_from_listener_to_endpoints_and_on(run: Run, plane: tuple[ControlPlane, str]) -> None:
    state, host = plane
    state.set(*usual(1, 2))

    @run
    def body() -> None:
        with Kept(XdsResolver(f"xds://{host}/{NAME}?node=me&metadata=%7B%22GENERATOR%22:%22grpc%22,%22n%22:1%7D")) as kept:
            assert [each.weight for each in kept.directory.instances] == [10, 10]
            assert kept.ports == {1, 2}
            first = state.heard[0]
            assert first.node is not None
            assert first.node.metadata is not None
            assert (first.node.id, first.node.metadata.fields["GENERATOR"].string_value) == ("me", "grpc")
            wait_until(lambda: kept.directory.resolver._known is not None)  # type: ignore[attr-defined]
            state.set(*usual(2, 3))
            wait_until(lambda: kept.ports == {2, 3})
            # Another route, to two clusters with weights; one of them brings its endpoints.
            state.set(
                listener(rds="r2"),
                route("r2", ("c", 3), ("d", 1)),
                cluster("c", eds="e"),
                cluster("d", inline=endpoints("d", simple(9))),
                endpoints("e", simple(2, 3)),
            )
            wait_until(lambda: kept.ports == {2, 3, 9})
            weights = {each.address[-1]: each.weight for each in kept.directory.instances}
            assert weights == {"2": 11, "3": 11, "9": 8}  # 3/8, 3/8 and 1/4 of thirty
            # The stream is lost: another one.
            state.ends += 1
            state.set(*usual(4))
            wait_until(lambda: kept.ports == {4})
            # All of it was accepted.
            assert all(each.error_detail is None for each in state.heard)

    body()


@BOTH
def test_what_is_malformed_is_refused_and_the_last_good_stays(
    run: Run, plane: tuple[ControlPlane, str], caplog: pytest.LogCaptureFixture
) -> None:
    state, host = plane
    state.set(*usual(1))

    def refusals() -> list[str]:
        return [each.error_detail.message for each in state.heard if each.error_detail is not None]

    @run
    def body() -> None:
        with Kept(XdsResolver(f"xds://{host}/{NAME}")) as kept:
            wait_until(lambda: kept.directory.resolver._known is not None)  # type: ignore[attr-defined]
            good = str(state.version)
            broken = usual(2)
            broken[-1] = messages.Any(type_url=ENDPOINTS, value=b"\xff\xff")
            state.set(*broken)
            wait_until(lambda: any("no ClusterLoadAssignment" in each for each in refusals()))
            (refused,) = (each for each in state.heard if each.error_detail is not None)
            assert refused.version_info == good
            assert kept.ports == {1}
            state.set(listener(), *usual(1)[2:])
            wait_until(lambda: any(f"the listener {NAME} has no route" in each for each in refusals()))
            assert kept.ports == {1}
            state.set(*usual()[1:])  # the listener is gone
            wait_until(lambda: f"there is no listener {NAME}" in caplog.text)
            assert kept.ports == {1}
            state.set(*usual(1)[:2], route("r", ("c", 1), ("d", 0)), *usual(5)[3:])
            wait_until(lambda: kept.ports == {5})

    with caplog.at_level(logging.WARNING):
        body()


@BOTH
def test_a_control_plane_that_is_silent_or_away(run: Run, plane: tuple[ControlPlane, str]) -> None:
    state, host = plane
    state.is_silent = True

    @run
    def body() -> None:
        resolver = XdsResolver(f"xds://{host}/{NAME}?timeout=300ms")
        with pytest.raises(DiscoveryError, match=r"in time|deadline passed"):
            resolver.resolve()
        state.is_silent = False
        state.set(*usual(1)[1:])
        with pytest.raises(DiscoveryError, match=f"(in time|deadline passed).*; before that: there is no listener {NAME}"):
            resolver.resolve()
        resolver.close()
        away = XdsResolver(f"xds://127.0.0.1:{free_port()}/{NAME}")
        with pytest.raises(DiscoveryError, match="cannot connect"):
            away.resolve()
        away.close()

    body()


def test_a_stream_that_opens_while_the_resolver_is_closed_is_ended(plane: tuple[ControlPlane, str]) -> None:
    """By another thread; greenlets do not come in between."""
    state, host = plane
    state.set(*usual(1))

    @without_hub
    def body() -> None:
        resolver = XdsResolver(f"xds://{host}/{NAME}")
        opens = resolver._client.stream_aggregated_resources

        def closes() -> Any:
            stream = opens()
            resolver.close()
            return stream

        resolver._client.stream_aggregated_resources = closes  # type: ignore[method-assign]
        found: list[Any] = []
        resolver.watch(found.append)
        assert found == []

    body()


def told(*resources: Any) -> Subscription:
    """A subscription that has heard all that."""
    subscription = Subscription(NAME, messages.Node())
    subscription.begin()
    by_kind: dict[str, list[messages.Any]] = {}
    for each in resources:
        by_kind.setdefault(any_of(each).type_url, []).append(any_of(each))
    for kind, found in by_kind.items():
        subscription.receive(messages.DiscoveryResponse(version_info="1", resources=found, type_url=kind, nonce="n"))
        assert subscription.problem == ""
    return subscription


def weights(*localities: dict[str, Any]) -> dict[int, tuple[int, str]]:
    found = told(listener(route=route("r", ("c", 1))), cluster("c"), endpoints("c", *localities)).instances()
    assert found is not None
    return {int(each.address.rpartition(":")[2]): (each.weight, each.zone) for each in found}


def test_weights_of_localities_and_endpoints() -> None:
    module("envoy.config.listener.v3.listener_pb2")
    assert weights({"ports": [(1, 3, 1), (2, 1, 0)], "zone": "a"}) == {1: (15, "a"), 2: (5, "a")}
    assert weights({"ports": [(1, 1, 1)], "weight": 3, "zone": "a"}, {"ports": [(2, 1, 1)], "weight": 1, "zone": "b"}) == {
        1: (15, "a"), 2: (5, "b"),
    }  # fmt: skip
    # Where some have weights, those without are not called; nor who is not well, nor who is for worse times.
    assert weights({"ports": [(1, 1, 1)], "weight": 3}, {"ports": [(2, 1, 1)]}) == {1: (10, "")}
    assert weights({"ports": [(1, 1, 1), (2, 1, 2), (3, 1, 3)]}) == {1: (10, "")}
    assert weights({"ports": [(1, 1, 2)]}, {"ports": [(2, 1, 1)], "priority": 1}, {"ports": [(3, 1, 1)], "priority": 2}) == {2: (10, "")}
    assert weights() == {}


def test_routes_of_thrift_and_of_grpc() -> None:
    proxy = envoy("extensions.filters.network.thrift_proxy.v3.thrift_proxy").ThriftProxy(stat_prefix="x")
    special = proxy.route_config.routes.add()
    special.match.method_name = "GetItem"
    special.route.cluster = "canary"
    usual_ = proxy.route_config.routes.add()
    usual_.match.service_name = ""
    usual_.route.cluster = "c"
    ends = [cluster("c"), endpoints("c", simple(7))]
    assert told(listener(thrift=proxy, rds="r"), *ends).instances() == [Instance("tcp://127.0.0.1:7")]
    assert told(listener(rds="r", api=True), route("r", ("c", 1)), *ends).instances() == [Instance("tcp://127.0.0.1:7")]
    only_special = route("r", ("c", 1))
    del only_special.virtual_hosts[0].routes[1]
    subscription = told(listener(route=route("r", ("c", 1))))
    subscription.receive(messages.DiscoveryResponse(resources=[any_of(listener(route=only_special))], type_url=LISTENER))
    assert "none that takes all calls" in subscription.problem


def test_what_nobody_asked_for_is_not_heard() -> None:
    subscription = told()
    assert subscription.receive(messages.DiscoveryResponse(type_url="type.googleapis.com/other")) == []
    (answer,) = subscription.receive(messages.DiscoveryResponse(type_url=LISTENER, resources=[messages.Any(type_url=CLUSTER)], nonce="7"))
    assert answer.error_detail is not None
    assert (answer.response_nonce, answer.version_info) == ("7", "")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("xds://h", "does not name a control plane and a listener"),
        ("xds:///x", "does not name a control plane and a listener"),
        ("xds://h/x?metadata=3", "metadata is a table"),
        ("xds://h/x?metadata=%7B%22a%22:[]%7D", "metadata holds texts"),
        ("xds://h/x?metadata=%7B", "option metadata"),
    ],
)
def test_wrong_urls(url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        XdsResolver(url)


@without_hub
def test_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POD_NAME", "web-1"), ("POD_NAMESPACE", "shop"), ("INSTANCE_IP", "10.0.0.9"), ("KITEX_XDS_METAS", '{"A": true}')):
        monkeypatch.setenv(name, value)
    resolver = XdsResolver(f"xds://127.0.0.1:1/{NAME}")
    node = resolver._subscription().begin().node
    assert node is not None
    assert node.metadata is not None
    assert node.id == "sidecar~10.0.0.9~web-1.shop~shop.svc.cluster.local"
    assert node.metadata.fields["A"].bool_value is True
    monkeypatch.setenv("KITEX_XDS_METAS", "{")
    with pytest.raises(DiscoveryError, match="KITEX_XDS_METAS"):
        resolver._subscription()
    resolver.close()


THEIRS = {
    "Listener": "config.listener.v3.listener", "ApiListener": "config.listener.v3.api_listener",
    "FilterChain": "config.listener.v3.listener_components", "Filter": "config.listener.v3.listener_components",
    "HttpConnectionManager": "extensions.filters.network.http_connection_manager.v3.http_connection_manager",
    "Rds": "extensions.filters.network.http_connection_manager.v3.http_connection_manager",
    "ThriftProxy": "extensions.filters.network.thrift_proxy.v3.thrift_proxy",
    "ThriftRouteConfiguration": "extensions.filters.network.thrift_proxy.v3.route",
    "ThriftRoute": "extensions.filters.network.thrift_proxy.v3.route", "ThriftRouteMatch": "extensions.filters.network.thrift_proxy.v3.route",
    "ThriftRouteAction": "extensions.filters.network.thrift_proxy.v3.route",
    "RouteConfiguration": "config.route.v3.route", "VirtualHost": "config.route.v3.route_components", "Route": "config.route.v3.route_components",
    "RouteMatch": "config.route.v3.route_components", "RouteAction": "config.route.v3.route_components",
    "HeaderMatcher": "config.route.v3.route_components", "WeightedCluster": "config.route.v3.route_components",
    "Cluster": "config.cluster.v3.cluster", "ClusterLoadAssignment": "config.endpoint.v3.endpoint",
    "LocalityLbEndpoints": "config.endpoint.v3.endpoint_components", "LbEndpoint": "config.endpoint.v3.endpoint_components",
    "Endpoint": "config.endpoint.v3.endpoint_components", "Address": "config.core.v3.address", "SocketAddress": "config.core.v3.address",
    "Pipe": "config.core.v3.address", "Node": "config.core.v3.base", "Locality": "config.core.v3.base",
    "DiscoveryRequest": "service.discovery.v3.discovery", "DiscoveryResponse": "service.discovery.v3.discovery",
}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_numbers_are_envoys(name: str) -> None:
    """Each field of our messages has the number that Envoy's has."""
    theirs = getattr(envoy(THEIRS[name]), name.removeprefix("Thrift") if "thrift_proxy" in THEIRS[name] and name != "ThriftProxy" else name)
    numbers = {field.name: field.number for field in theirs.DESCRIPTOR.fields}
    for field in getattr(messages, name).__plan__.fields:
        assert numbers[field.name] == field.number, f"{name}.{field.name}"
    assert xds.LISTENER.startswith("type.googleapis.com/")
