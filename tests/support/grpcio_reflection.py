"""grpcio's own reflection and health clients: ``python -m tests.support.grpcio_reflection ADDRESS [CA]``. Prints what they found as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address: str, ca: str = "") -> None:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca).read_bytes())) if ca else grpc.insecure_channel(address)
    with channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        methods = {name: sorted(pool.FindServiceByName(name).methods_by_name) for name in database.get_services()}
        health = health_pb2_grpc.HealthStub(channel)
        status = {name: health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", "grpc.testing.TestService")}
        print(json.dumps({"methods": methods, "health": status}))


if __name__ == "__main__":
    main(*sys.argv[1:])
