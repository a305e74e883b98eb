"""grpcio's channelz client: ``python -m tests.support.grpcio_channelz ADDRESS [CA]``. Walks through all there is, and prints it as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc


def refused(call: Callable[..., Any], **given: int) -> str:
    """The code a call fails with."""
    name = call._method.decode().rpartition("/")[2]  # type: ignore[attr-defined]
    try:
        call(getattr(channelz_pb2, f"{name}Request")(**given))
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def main(address: str, ca: str = "") -> None:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca).read_bytes())) if ca else grpc.insecure_channel(address)
    with channel:
        stub = channelz_pb2_grpc.ChannelzStub(channel)
        found: dict[str, Any] = {"servers": [], "sockets": [], "channels": [], "subchannels": []}
        for server in stub.GetServers(channelz_pb2.GetServersRequest()).server:
            number = server.ref.server_id
            assert stub.GetServer(channelz_pb2.GetServerRequest(server_id=number)).server.ref == server.ref
            found["servers"].append(MessageToDict(server))
            start, end = 0, False
            while not end:  # one at a time
                page = stub.GetServerSockets(channelz_pb2.GetServerSocketsRequest(server_id=number, start_socket_id=start, max_results=1))
                end = page.end
                for ref in page.socket_ref:
                    start = ref.socket_id + 1
                    found["sockets"].append(MessageToDict(stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=ref.socket_id)).socket))
        top = stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest())
        assert top.end
        for each in top.channel:
            again = stub.GetChannel(channelz_pb2.GetChannelRequest(channel_id=each.ref.channel_id)).channel
            assert again.ref == each.ref
            found["channels"].append(MessageToDict(again))
            for sub in again.subchannel_ref:
                subchannel = stub.GetSubchannel(channelz_pb2.GetSubchannelRequest(subchannel_id=sub.subchannel_id)).subchannel
                made = MessageToDict(subchannel)
                made["sockets"] = [
                    MessageToDict(stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=ref.socket_id)).socket) for ref in subchannel.socket_ref
                ]
                found["subchannels"].append(made)
        found["refused"] = [
            refused(stub.GetServer, server_id=10**6),
            refused(stub.GetServerSockets, server_id=10**6),
            refused(stub.GetChannel, channel_id=10**6),
            refused(stub.GetSubchannel, subchannel_id=10**6),
            refused(stub.GetSocket, socket_id=10**6),
        ]
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
