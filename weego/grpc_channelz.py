"""Channelz (`grpc.channelz.v1`): what this process's gRPC server and clients are connected to, and what went over it.

Numbers are given when something is first asked for, and mean the same for as long as it is there. A Client is a channel, an address that it has called a
subchannel, a connection of either side a socket. What is counted anyway is told; nothing is counted for this alone but streams and messages, by the connection.
"""

from __future__ import annotations

import ipaddress
import itertools
import weakref
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import wrappers_pb2

from codec.errors import Code, StatusError
from codec.h2.connection import H2Connection
from weego.grpc_channel import Traffic, traffic_of
from weego.grpc_services import _base, _build, _fields, _file, _message, _pool, _service

if TYPE_CHECKING:
    from codec.spec import Service
    from weego.dispatch import Dispatcher

__all__ = ["channelz_service"]

# Most of a list in one answer, also where nothing is asked (the protocol leaves it to the server).
_MOST: Final = 100
_IDLE, _READY = 1, 3  # ChannelConnectivityState.State

_numbers: Final = itertools.count(1)
# By Client, and by transport its addresses. The number of a connection is its protocol's own.
_channels: Final[weakref.WeakKeyDictionary[Any, int]] = weakref.WeakKeyDictionary()
_subchannels: Final[weakref.WeakKeyDictionary[Any, dict[str, int]]] = weakref.WeakKeyDictionary()

_METHODS: Final = {
    "GetTopChannels": "get_top_channels",
    "GetServers": "get_servers",
    "GetServer": "get_server",
    "GetServerSockets": "get_server_sockets",
    "GetChannel": "get_channel",
    "GetSubchannel": "get_subchannel",
    "GetSocket": "get_socket",
}


@cache
def _channelz() -> tuple[type[Service], dict[str, Any]]:
    _pool().AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = _file("grpc/channelz/v1/channelz.proto", "grpc.channelz.v1")
    file.dependency.append("google/protobuf/wrappers.proto")
    calls = ((4, "calls_started", "int64", False), (5, "calls_succeeded", "int64", False), (6, "calls_failed", "int64", False))
    for name in ("Channel", "Subchannel"):
        _message(
            file,
            name,
            (1, "ref", f".{name}Ref", False),
            (2, "data", ".ChannelData", False),
            (3, "channel_ref", ".ChannelRef", True),
            (4, "subchannel_ref", ".SubchannelRef", True),
            (5, "socket_ref", ".SocketRef", True),
        )
    _message(file, "ChannelConnectivityState", (1, "state", ".ChannelConnectivityState.State", False))
    state = file.message_type[-1].enum_type.add(name="State")
    for number, name in enumerate(("UNKNOWN", "IDLE", "CONNECTING", "READY", "TRANSIENT_FAILURE", "SHUTDOWN")):
        state.value.add(name=name, number=number)
    _message(file, "ChannelData", (1, "state", ".ChannelConnectivityState", False), (2, "target", "string", False), *calls)
    _message(file, "ChannelRef", (1, "channel_id", "int64", False), (2, "name", "string", False))
    _message(file, "SubchannelRef", (7, "subchannel_id", "int64", False), (8, "name", "string", False))
    _message(file, "SocketRef", (3, "socket_id", "int64", False), (4, "name", "string", False))
    _message(file, "ServerRef", (5, "server_id", "int64", False), (6, "name", "string", False))
    _message(file, "Server", (1, "ref", ".ServerRef", False), (2, "data", ".ServerData", False), (3, "listen_socket", ".SocketRef", True))
    _message(file, "ServerData", *((number - 2, name, kind, many) for number, name, kind, many in calls))
    _message(
        file,
        "Socket",
        (1, "ref", ".SocketRef", False),
        (2, "data", ".SocketData", False),
        (3, "local", ".Address", False),
        (4, "remote", ".Address", False),
        (5, "security", ".Security", False),
        (6, "remote_name", "string", False),
    )
    _message(
        file,
        "SocketData",
        (1, "streams_started", "int64", False),
        (2, "streams_succeeded", "int64", False),
        (3, "streams_failed", "int64", False),
        (4, "messages_sent", "int64", False),
        (5, "messages_received", "int64", False),
        (11, "local_flow_control_window", ".google.protobuf.Int64Value", False),
        (12, "remote_flow_control_window", ".google.protobuf.Int64Value", False),
        (14, "received_goaway_error", ".google.protobuf.UInt32Value", False),
        (15, "peer_max_concurrent_streams", "uint32", False),
    )
    _message(
        file,
        "Address",
        (1, "tcpip_address", ".Address.TcpIpAddress", False),
        (2, "uds_address", ".Address.UdsAddress", False),
        (3, "other_address", ".Address.OtherAddress", False),
        oneof="address",
    )
    address = file.message_type[-1].nested_type
    _fields(address.add(name="TcpIpAddress"), file.package, (1, "ip_address", "bytes", False), (2, "port", "int32", False))
    _fields(address.add(name="UdsAddress"), file.package, (1, "filename", "string", False))
    _fields(address.add(name="OtherAddress"), file.package, (1, "name", "string", False))
    _message(file, "Security", (1, "tls", ".Security.Tls", False), oneof="model")
    tls = file.message_type[-1].nested_type.add(name="Tls")
    _fields(tls, file.package, (1, "standard_name", "string", False), (2, "other_name", "string", False), oneof="cipher_suite")
    _fields(tls, file.package, (3, "local_certificate", "bytes", False), (4, "remote_certificate", "bytes", False))
    for name, kind in (("TopChannels", "channel"), ("Servers", "server")):
        _message(file, f"Get{name}Request", (1, f"start_{kind}_id", "int64", False), (2, "max_results", "int64", False))
        _message(file, f"Get{name}Response", (1, kind, f".{kind.title()}", True), (2, "end", "bool", False))
    _message(
        file,
        "GetServerSocketsRequest",
        (1, "server_id", "int64", False),
        (2, "start_socket_id", "int64", False),
        (3, "max_results", "int64", False),
    )
    _message(file, "GetServerSocketsResponse", (1, "socket_ref", ".SocketRef", True), (2, "end", "bool", False))
    for name in ("Server", "Channel", "Subchannel", "Socket"):
        _message(file, f"Get{name}Request", (1, f"{name.lower()}_id", "int64", False))
        _message(file, f"Get{name}Response", (1, name.lower(), f".{name}", False))
    request = next(each for each in file.message_type if each.name == "GetSocketRequest")
    _fields(request, file.package, (2, "summary", "bool", False))
    _service(file, "Channelz", *((name, f"{name}Request", f"{name}Response", False, False) for name in _METHODS))
    found, classes = _build(file)
    return _base(found, classes, **_METHODS), classes


def channelz_service(dispatcher: Dispatcher) -> Any:
    """The service to serve, of a server whose connections `dispatcher` has, and of all clients of this process."""
    base, classes = _channelz()
    look = _Look(dispatcher, classes)
    return type("ChannelzService", (base,), {name: getattr(look, name) for name in _METHODS.values()})()


class _Look:
    """Answers the requests: a look at what is there now."""

    def __init__(self, dispatcher: Dispatcher, classes: dict[str, Any]) -> None:
        self._dispatcher = dispatcher
        self._classes = classes
        self._number = next(_numbers)

    # ---- servers

    def get_servers(self, request: Any) -> Any:
        """All servers of this process that this look is for: one."""
        return self._listed("GetServersResponse", [(self._number, self._server)], request.start_server_id, request.max_results, "server")

    def get_server(self, request: Any) -> Any:
        """The one server."""
        self._mine(request.server_id)
        return self._classes["GetServerResponse"](server=self._server())

    def get_server_sockets(self, request: Any) -> Any:
        """Its HTTP/2 connections."""
        self._mine(request.server_id)
        found = [(_number_of(each.protocol), lambda each=each: _ref(each.protocol, each.peer)) for each in self._connections()]
        return self._listed("GetServerSocketsResponse", found, request.start_socket_id, request.max_results, "socket_ref")

    def _mine(self, number: int) -> None:
        if number != self._number:
            raise StatusError(Code.NOT_FOUND, f"there is no server {number}")

    def _server(self) -> dict[str, Any]:
        d = self._dispatcher
        data = {"calls_started": d.requests, "calls_succeeded": max(0, d.requests - d.errors - d.inflight), "calls_failed": d.errors}
        return {"ref": {"server_id": self._number}, "data": data}

    def _connections(self) -> list[Any]:
        return [each for each in list(self._dispatcher.connections) if isinstance(each.protocol, H2Connection)]

    # ---- clients

    def get_top_channels(self, request: Any) -> Any:
        """The gRPC clients."""
        found = [(number, lambda c=client, n=number: _channel(c, n)) for number, client in _clients()]
        return self._listed("GetTopChannelsResponse", found, request.start_channel_id, request.max_results, "channel")

    def get_channel(self, request: Any) -> Any:
        """One client."""
        for number, client in _clients():
            if number == request.channel_id:
                return self._classes["GetChannelResponse"](channel=_channel(client, number))
        raise StatusError(Code.NOT_FOUND, f"there is no channel {request.channel_id}")

    def get_subchannel(self, request: Any) -> Any:
        """One address that a client has called."""
        for _, client in _clients():
            for number, address, links, past in _addresses(client):
                if number == request.subchannel_id:
                    data = _data(address, links, past)
                    sockets = [_ref(link.protocol, link.address) for link in links]
                    ref = {"subchannel_id": number, "name": address}
                    return self._classes["GetSubchannelResponse"](subchannel={"ref": ref, "data": data, "socket_ref": sockets})
        raise StatusError(Code.NOT_FOUND, f"there is no subchannel {request.subchannel_id}")

    def get_socket(self, request: Any) -> Any:
        """One connection of the server or of a client."""
        for each in self._connections():
            if each.protocol.number == request.socket_id:
                return self._socket(each.protocol, each.peer, getattr(each, "session", None))
        for _, client in _clients():
            for _, address, links, _ in _addresses(client):
                for link in links:
                    if link.protocol.number == request.socket_id:
                        connection = getattr(link, "connection", link)
                        return self._socket(link.protocol, address, getattr(connection, "session", None))
        raise StatusError(Code.NOT_FOUND, f"there is no socket {request.socket_id}")

    def _socket(self, protocol: H2Connection, peer: str, session: Any) -> Any:
        traffic = traffic_of(protocol)
        data: dict[str, Any] = {
            "streams_started": traffic.well + traffic.badly + traffic.open,
            "streams_succeeded": traffic.well,
            "streams_failed": traffic.badly,
            "messages_sent": traffic.sent,
            "messages_received": traffic.received,
            "local_flow_control_window": {"value": protocol.send_window},
            "remote_flow_control_window": {"value": protocol.receive_window},
            "peer_max_concurrent_streams": protocol.peer_max_streams,
        }
        if protocol.peer_goaway >= 0:
            data["received_goaway_error"] = {"value": protocol.peer_goaway}
        socket: dict[str, Any] = {"ref": _ref(protocol, peer), "data": data, "remote": _address(peer)}
        if session is not None:
            name = (session.ssl.cipher() or ("",))[0]
            # What OpenSSL calls those of TLS 1.3 is what the standard calls them.
            socket["security"] = {"tls": {"standard_name" if name.startswith("TLS_") else "other_name": name}}
        return self._classes["GetSocketResponse"](socket=socket)

    def _listed(self, kind: str, found: Iterable[tuple[int, Any]], start: int, most: int, field: str) -> Any:
        """A page: those from number `start` on, no more than `most`."""
        rest = sorted((each for each in found if each[0] >= start), key=lambda each: each[0])
        page = rest[: min(most, _MOST) if most > 0 else _MOST]
        return self._classes[kind](**{field: [make() for _, make in page], "end": len(page) == len(rest)})


def _number_of(protocol: H2Connection) -> int:
    if not protocol.number:
        protocol.number = next(_numbers)
    return protocol.number


def _ref(protocol: H2Connection, name: str) -> dict[str, Any]:
    return {"socket_id": _number_of(protocol), "name": name}


def _clients() -> list[tuple[int, Any]]:
    """Those that call by gRPC, with their numbers."""
    from weego import client

    found = [each for each in list(client._clients) if any(hasattr(transport, "traffic") for transport in list(each._transports.values()))]
    return sorted(((_channels.get(each) or _channels.setdefault(each, next(_numbers)), each) for each in found), key=lambda each: each[0])


def _addresses(client: Any) -> list[tuple[int, str, list[Any], Traffic]]:
    """What a client has called: number, address, the connections there are, and what went over those that are over."""
    found = []
    for transport in list(client._transports.values()):
        if hasattr(transport, "traffic"):
            numbers = _subchannels.setdefault(transport, {})
            for address, (links, past) in transport.traffic().items():
                number = numbers.get(address) or numbers.setdefault(address, next(_numbers))
                found.append((number, address, links, past))
    return found


def _channel(client: Any, number: int) -> dict[str, Any]:
    addresses = _addresses(client)
    links = [link for _, _, some, _ in addresses for link in some]
    past = Traffic()
    for each in addresses:
        past += each[3]
    name = client.__spec__.full_name
    refs = [{"subchannel_id": each, "name": address} for each, address, _, _ in addresses]
    target = ",".join(dict.fromkeys(address for _, address, _, _ in addresses))
    return {"ref": {"channel_id": number, "name": name}, "data": _data(target, links, past), "subchannel_ref": refs}


def _data(target: str, links: list[Any], past: Traffic) -> dict[str, Any]:
    for link in links:
        past += traffic_of(link.protocol)
    return {
        "state": {"state": _READY if any(not link.is_leaving for link in links) else _IDLE},
        "target": target,
        "calls_started": past.well + past.badly + past.open,
        "calls_succeeded": past.well,
        "calls_failed": past.badly,
    }


def _address(text: str) -> dict[str, Any]:
    """Of ``tcp://host:port``, ``unix:///path`` or the like."""
    scheme, _, rest = text.rpartition("://")
    if scheme == "unix":
        return {"uds_address": {"filename": rest}}
    host, _, port = rest.rpartition(":")
    try:
        return {"tcpip_address": {"ip_address": ipaddress.ip_address(host.strip("[]")).packed, "port": int(port)}}
    except ValueError:  # a name, or nothing
        return {"other_address": {"name": text}}
