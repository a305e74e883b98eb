"""xds:// – instances as a control plane such as Istio has them, by xDS (v3) over one gRPC stream: listener, route, clusters, endpoints.

    xds://istiod.istio-system:15010/item.shop.svc.cluster.local:8888

The listener of the service's name leads to a route, in it or by its name; the route to one cluster or several with weights; each cluster to endpoints with
theirs. Weights of clusters, localities and endpoints become one weight of each instance. Of a cluster's priorities the first that has a healthy endpoint counts.
Routes by headers or methods are a matter of single calls and not of a resolver: the first route that takes all calls is followed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from codec.errors import RpcError, UsageError, WeegoError
from governance.call import Call
from governance.chain import Handler
from governance.discovery import DiscoveryError
from governance.instance import DEFAULT_WEIGHT, MOST_WEIGHT, Instance
from poller.address import parse
from weego import __version__
from weego.registries.gen.envoy.service.discovery.v3 import xds as messages
from weego.registries.url import TLS_OPTIONS, duration, read

__all__ = ["Subscription", "XdsResolver"]

log = logging.getLogger("weego.governance")

PORT: Final = 15010
# Seconds in which a control plane has to say all of a service; and how often it is asked again while no watch is at work.
TIMEOUT: Final = 5.0
INTERVAL: Final = 10.0
KEEPALIVE_TIME: Final = 30.0
KEEPALIVE_TIMEOUT: Final = 10.0
EXAMPLE: Final = "xds://istiod.istio-system:15010/item.shop.svc.cluster.local:8888"

_PREFIX: Final = "type.googleapis.com/envoy."
LISTENER: Final = f"{_PREFIX}config.listener.v3.Listener"
ROUTE: Final = f"{_PREFIX}config.route.v3.RouteConfiguration"
CLUSTER: Final = f"{_PREFIX}config.cluster.v3.Cluster"
ENDPOINTS: Final = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
HTTP: Final = f"{_PREFIX}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
THRIFT: Final = f"{_PREFIX}extensions.filters.network.thrift_proxy.v3.ThriftProxy"
# HealthStatus: who may be called (UNKNOWN and HEALTHY).
HEALTHY: Final = (0, 1)
# google.rpc.Code of what is refused.
INVALID_ARGUMENT: Final = 3

_Weighted = list[tuple[str, int]]
_Message = TypeVar("_Message")


def _decode(kind: type[_Message], data: bytes) -> _Message:
    """ValueError when the bytes are none of that kind."""
    try:
        found: _Message = kind.__plan__.loads(data)  # type: ignore[attr-defined]
    except WeegoError as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None
    return found


# ---- what one listener means ---------------------------------------------------------------------------------------------


def _route_of(listener: messages.Listener) -> tuple[str, messages.RouteConfiguration | None, _Weighted]:
    """The name of its route, or the route itself, or the clusters that its Thrift proxy names. ValueError when it has none of them."""
    chains = [*listener.filter_chains, *([listener.default_filter_chain] if listener.default_filter_chain is not None else [])]
    configs = [each.typed_config for chain in chains for each in chain.filters if each.typed_config is not None]
    if listener.api_listener is not None and listener.api_listener.api_listener is not None:
        configs.insert(0, listener.api_listener.api_listener)
    for config in configs:
        if config.type_url == THRIFT:
            clusters = _thrift_clusters(_decode(messages.ThriftProxy, config.value))
            if clusters:
                return "", None, clusters
    for config in configs:
        if config.type_url == HTTP:
            proxy = _decode(messages.HttpConnectionManager, config.value)
            if proxy.route_config is not None:
                return "", proxy.route_config, []
            if proxy.rds is not None and proxy.rds.route_config_name:
                return proxy.rds.route_config_name, None, []
    raise ValueError(f"the listener {listener.name} has no route: neither a Thrift proxy nor an HTTP connection manager with one")


def _thrift_clusters(proxy: messages.ThriftProxy) -> _Weighted:
    for route in proxy.route_config.routes if proxy.route_config is not None else []:
        match = route.match
        if route.route is None or match is None or match.headers or match.method_name or match.invert:
            continue
        return _clusters(route.route.cluster, route.route.weighted_clusters)
    return []


def _http_clusters(config: messages.RouteConfiguration) -> _Weighted:
    for host in config.virtual_hosts:
        for route in host.routes:
            match = route.match
            if route.route is None or match is None or match.headers or match.path is not None or match.prefix not in ("", "/"):
                continue
            return _clusters(route.route.cluster, route.route.weighted_clusters)
    raise ValueError(f"the route {config.name} has none that takes all calls: without headers, with the prefix /")


def _clusters(one: str | None, several: messages.WeightedCluster | None) -> _Weighted:
    if one:
        return [(one, 1)]
    found = [(each.name, each.weight.value if each.weight is not None else 0) for each in several.clusters] if several is not None else []
    found = [(name, weight) for name, weight in found if name and weight]
    if not found:
        raise ValueError("a route names no cluster with a weight")
    return found


def _shares(assignment: messages.ClusterLoadAssignment) -> Iterator[tuple[str, str, float]]:
    """Address, zone and share, all shares together 1, of the endpoints that may be called."""
    by_priority: dict[int, list[tuple[messages.LocalityLbEndpoints, list[tuple[str, int]]]]] = {}
    for locality in assignment.endpoints:
        well = [(_address(each), _number(each.load_balancing_weight, 1)) for each in locality.lb_endpoints if each.health_status in HEALTHY]
        well = [(address, weight) for address, weight in well if weight]
        if well:
            by_priority.setdefault(locality.priority, []).append((locality, well))
    if not by_priority:
        return
    chosen = by_priority[min(by_priority)]
    has_weights = any(_number(locality.load_balancing_weight, 0) for locality, _ in chosen)
    weights = [
        _number(locality.load_balancing_weight, 0) if has_weights else sum(weight for _, weight in well) for locality, well in chosen
    ]
    for (locality, well), of_locality in zip(chosen, weights, strict=True):
        zone = locality.locality.zone if locality.locality is not None else ""
        total = sum(weight for _, weight in well)
        for address, weight in well:
            if of_locality:
                yield address, zone, of_locality / sum(weights) * weight / total


def _number(value: messages.UInt32Value | None, otherwise: int) -> int:
    return otherwise if value is None else value.value


def _address(endpoint: messages.LbEndpoint) -> str:
    address = endpoint.endpoint.address if endpoint.endpoint is not None else None
    try:
        if address is not None and address.pipe is not None:
            return parse(f"unix://{address.pipe.path}").text
        if address is not None and (found := address.socket_address) is not None:
            host = f"[{found.address}]" if ":" in found.address else found.address
            return parse(f"tcp://{host}:{found.port_value}").text
    except UsageError as error:
        raise ValueError(str(error)) from None
    raise ValueError("an endpoint has no address")


# ---- what one client asks for --------------------------------------------------------------------------------------------


class _Kind:
    """What was asked for and said of one type of resources."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.version = ""
        self.nonce = ""
        self.found: dict[str, Any] = {}


class Subscription:
    """The rules of one stream (xDS transport protocol, state of the world), for the listener `name`. Without sockets: requests and responses."""

    def __init__(self, name: str, node: messages.Node) -> None:
        self.name = name
        self._node: messages.Node | None = node
        self._kinds = {each: _Kind() for each in (LISTENER, ROUTE, CLUSTER, ENDPOINTS)}
        self.problem = ""
        """Why there are no instances yet, or no new ones."""

    def begin(self) -> messages.DiscoveryRequest:
        """The first request."""
        self._kinds[LISTENER].names = (self.name,)
        return self._request(LISTENER)

    def receive(self, response: messages.DiscoveryResponse) -> list[messages.DiscoveryRequest]:
        """What there is to say to it: that it is taken or not, and what is asked for now."""
        kind = self._kinds.get(response.type_url)
        if kind is None:
            return []  # nobody asked for it
        kind.nonce = response.nonce
        self.problem = ""
        try:
            fresh = dict(self._parsed(response.type_url, each) for each in response.resources)
        except ValueError as error:
            self.problem = str(error)
            return [self._request(response.type_url, problem=str(error))]
        kind.version = response.version_info
        if response.type_url in (LISTENER, CLUSTER):  # of these, what is not there is gone; of the others, only what has changed may come
            kind.found = fresh
        else:
            kind.found.update(fresh)
        said = [self._request(response.type_url)]
        return said + self._ask_for_more(response.type_url, said)

    def _ask_for_more(self, type_url: str, said: list[messages.DiscoveryRequest]) -> list[messages.DiscoveryRequest]:
        try:
            wanted = self._wanted()
        except ValueError as error:
            self.problem = str(error)
            return []
        asked = []
        for each, names in wanted.items():
            kind = self._kinds[each]
            if names and names != kind.names:
                kind.names = names
                kind.found = {name: it for name, it in kind.found.items() if name in names}
                asked.append(self._request(each))
        return asked

    def _parsed(self, type_url: str, resource: messages.Any) -> tuple[str, Any]:
        if resource.type_url != type_url:
            raise ValueError(f"a {resource.type_url} among those of {type_url}")
        if type_url == LISTENER:
            listener = _decode(messages.Listener, resource.value)
            # Others' listeners may be there too, and need not mean anything to us.
            return listener.name, _route_of(listener) if listener.name == self.name else None
        if type_url == ROUTE:
            route = _decode(messages.RouteConfiguration, resource.value)
            return route.name, route
        if type_url == CLUSTER:
            cluster = _decode(messages.Cluster, resource.value)
            return cluster.name, cluster
        assignment = _decode(messages.ClusterLoadAssignment, resource.value)
        return assignment.cluster_name, list(_shares(assignment))

    def _wanted(self) -> dict[str, tuple[str, ...]]:
        """The names of each type that lead to the instances, as far as they are known. ValueError when they lead nowhere."""
        route, clusters = self._clusters()
        names = tuple(sorted(name for name, _ in clusters))
        known = self._kinds[CLUSTER].found
        endpoints = tuple(sorted({_eds_name(known[name]) for name in names if name in known and known[name].load_assignment is None}))
        return {ROUTE: (route,) if route else (), CLUSTER: names, ENDPOINTS: endpoints}

    def _clusters(self) -> tuple[str, _Weighted]:
        """The name of the route, if it has one, and the clusters, if they are known."""
        found = self._kinds[LISTENER].found.get(self.name)
        if found is None:
            raise ValueError(f"there is no listener {self.name}")
        name, route, clusters = found
        if name:
            route = self._kinds[ROUTE].found.get(name)
        if route is not None:
            clusters = _http_clusters(route)
        return name, clusters

    def instances(self) -> list[Instance] | None:
        """All there are; None while something is still to be said."""
        try:
            _, clusters = self._clusters()
            if not clusters:
                return None
            shares: dict[str, tuple[str, float]] = {}
            total = sum(weight for _, weight in clusters)
            for name, weight in clusters:
                endpoints = self._endpoints(name)
                if endpoints is None:
                    return None
                for address, zone, share in endpoints:
                    shares[address] = (zone, shares.get(address, ("", 0.0))[1] + share * weight / total)
        except ValueError as error:
            self.problem = str(error)
            return None
        scale = DEFAULT_WEIGHT * len(shares)  # so that equal ones have the weight that all have who say none
        return [
            Instance(address, min(MOST_WEIGHT, max(1, round(share * scale))), zone) for address, (zone, share) in sorted(shares.items())
        ]

    def _endpoints(self, name: str) -> list[tuple[str, str, float]] | None:
        cluster = self._kinds[CLUSTER].found.get(name)
        if cluster is None:
            return None
        if cluster.load_assignment is not None:
            return list(_shares(cluster.load_assignment))
        found: list[tuple[str, str, float]] | None = self._kinds[ENDPOINTS].found.get(_eds_name(cluster))
        return found

    def _request(self, type_url: str, problem: str = "") -> messages.DiscoveryRequest:
        kind = self._kinds[type_url]
        node, self._node = self._node, None  # once a stream is enough
        return messages.DiscoveryRequest(
            version_info=kind.version,
            node=node,
            resource_names=list(kind.names),
            type_url=type_url,
            response_nonce=kind.nonce,
            error_detail=messages.Status(code=INVALID_ARGUMENT, message=problem) if problem else None,
        )


def _eds_name(cluster: messages.Cluster) -> str:
    config = cluster.eds_cluster_config
    return config.service_name if config is not None and config.service_name else cluster.name


# ---- over the network ----------------------------------------------------------------------------------------------------


class XdsResolver:
    """Finds the instances behind the listener that `url` names: ``xds://host:port/listener``. UsageError for a wrong one."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        options: dict[str, Callable[[str], Any]] = {
            "timeout": duration, "node": str, "cluster": str, "metadata": _metadata, "token_file": str, **TLS_OPTIONS,
        }  # fmt: skip
        self.url = read(url, port=PORT, options=options, secure="xdss", example=EXAMPLE)
        if not self.url.hosts or not self.url.service:
            raise UsageError(f"{url.partition('?')[0]} does not name a control plane and a listener; write it like {EXAMPLE}")
        self.source = f"{self.url.text}/{self.url.service}"
        self._timeout = float(self.url.option("timeout", TIMEOUT))
        self._client = messages.AggregatedDiscoveryServiceClient(
            self.url.addresses(),
            tls=self.url.tls(),
            connect_timeout=self._timeout,
            keepalive_time=KEEPALIVE_TIME,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            middleware=[self._authorized],
        )
        self._known: list[Instance] | None = None
        """What the watch that is at work has been told; None while none is."""
        self._stream: Any = None
        self._is_closed = False

    def resolve(self) -> Sequence[Instance]:
        """All that are there. Raises DiscoveryError."""
        known = self._known
        if known is not None:
            return known
        subscription = self._subscription()
        try:
            with self._client.stream_aggregated_resources(timeout=self._timeout) as stream:
                for found in self._told(stream, subscription):
                    return found if self._known is None else self._known
        except RpcError as error:
            raise self._failed(error, subscription) from None
        raise DiscoveryError(f"{self.source}: {subscription.problem or 'the control plane ended the stream'}")

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        subscription = self._subscription()
        try:
            with self._client.stream_aggregated_resources() as stream:
                self._stream = stream
                if self._is_closed:
                    return
                for found in self._told(stream, subscription):
                    self._known = found
                    publish(found)
        except RpcError as error:
            raise self._failed(error, subscription) from None
        finally:
            self._known = self._stream = None
        raise DiscoveryError(f"{self.source}: {subscription.problem or 'the control plane ended the stream'}")

    def _told(self, stream: Any, subscription: Subscription) -> Iterator[list[Instance]]:
        """The instances, whenever there is news of them."""
        stream.send(subscription.begin())
        told = ""
        for response in stream:
            for request in subscription.receive(response):
                stream.send(request)
            found = None if subscription.problem else subscription.instances()
            if subscription.problem and subscription.problem != told:
                log.warning("%s: %s", self.source, subscription.problem)
            told = subscription.problem
            if found is not None:
                yield found

    def _failed(self, error: RpcError, subscription: Subscription) -> DiscoveryError:
        why = f"; before that: {subscription.problem}" if subscription.problem else ""
        return DiscoveryError(f"{self.source}: {error.message}{why}")

    def _subscription(self) -> Subscription:
        """With who we are, as Kitex says it: from the pod's environment, where the URL does not."""
        pod, namespace = os.environ.get("POD_NAME", "unknown"), os.environ.get("POD_NAMESPACE", "default")
        ip, domain = os.environ.get("INSTANCE_IP", "127.0.0.1"), os.environ.get("KITEX_XDS_DOMAIN", "cluster.local")
        metadata = self.url.option("metadata", None)
        if metadata is None:
            try:
                metadata = _metadata(os.environ.get("KITEX_XDS_METAS") or "{}")
            except ValueError as error:
                raise DiscoveryError(f"KITEX_XDS_METAS in the environment: {error}") from None
        node = messages.Node(
            id=self.url.option("node", f"sidecar~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}"),
            cluster=self.url.option("cluster", ""),
            metadata=metadata,
            user_agent_name="weego",
            user_agent_version=__version__,
        )
        return Subscription(self.url.service, node)

    def _authorized(self, handler: Handler) -> Handler:
        file = self.url.option("token_file", None)

        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            if file is not None:
                try:
                    with open(file) as opened:
                        call.send_metadata["authorization"] = f"Bearer {opened.read().strip()}"
                except OSError as error:
                    raise DiscoveryError(f"{self.source}: token_file {file} cannot be read: {error.strerror}") from None
            return handler(call, args)

        return handle

    def close(self) -> None:
        """End the watch that is under way. From any thread."""
        self._is_closed = True  # before one looks for a stream: whoever is about to open one looks afterwards
        stream = self._stream
        if stream is not None:
            stream.cancel()
        self._client.close()

    def __repr__(self) -> str:
        return f"<XdsResolver {self.source}>"


def _metadata(text: str) -> messages.Struct:
    """A node's metadata from JSON. ValueError."""
    try:
        plain = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(plain, dict):
        raise ValueError("metadata is a table in {}")  # noqa: TRY004 -- what the caller of an option reader expects
    return _struct(plain)


def _struct(plain: dict[str, Any]) -> messages.Struct:
    return messages.Struct(fields={name: _value(each) for name, each in plain.items()})


def _value(plain: Any) -> messages.Value:
    if isinstance(plain, bool):
        return messages.Value(bool_value=plain)
    if isinstance(plain, int | float):
        return messages.Value(number_value=float(plain))
    if isinstance(plain, str):
        return messages.Value(string_value=plain)
    if isinstance(plain, dict):
        return messages.Value(struct_value=_struct(plain))
    raise ValueError(f"metadata holds texts, numbers, true, false and tables, not {plain!r:.60}")
