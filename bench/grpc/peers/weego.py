"""weego: one process, the whole stack of a real call."""

from __future__ import annotations

import json
import os
import sys

from google.protobuf import wrappers_pb2

from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import Service
from poller.tls import ServerTLS
from weego.server import Server

TYPE = message_type(wrappers_pb2.BytesValue)


class Echo(Service):
    __spec__ = protobuf_service("bench.Echo", (ProtobufMethodSpec("Echo", py_name="echo", request=TYPE, response=TYPE),))

    def echo(self, request: wrappers_pb2.BytesValue) -> wrappers_pb2.BytesValue:
        return wrappers_pb2.BytesValue(value=request.value)


if __name__ == "__main__":
    # With two files, a certificate and its key: TLS.
    tls = ServerTLS(cert=sys.argv[1], key=sys.argv[2]) if len(sys.argv) > 1 else None
    server = Server([Echo()], listen="tcp://127.0.0.1:0", tls=tls)
    print(json.dumps({"port": int(server.addresses[0].rpartition(":")[2]), "pid": os.getpid()}), flush=True)
    server.serve_forever()
