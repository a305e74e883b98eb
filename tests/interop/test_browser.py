"""gRPC-Web from a real browser: Chromium runs the clients of Connect and of Google, across origins, on HTTP/1.1 and on HTTP/2 by TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.interop import grpc_service
from tests.support import browser
from tests.support.certs import Certificates
from tests.support.net import served, without_hub
from weego.serving import GrpcOptions

# Building the page and starting a browser, on a busy machine.
pytestmark = pytest.mark.timeout(400)

CASES = ["connect_empty_unary", "connect_large_unary", "connect_server_streaming", "connect_streams_as_it_goes", "connect_metadata", "connect_error_in_trailers", "connect_error_after_messages", "connect_unimplemented", "connect_deadline", "connect_cancel", "connect_concurrent", "connect_refused_origin", "google_text_unary", "google_text_error", "google_text_server_streaming", "google_binary_unary", "google_binary_error"]


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


def descriptors(t: Any) -> bytes:
    """testing.proto as a FileDescriptorSet."""
    from google.protobuf import descriptor_pb2

    found = descriptor_pb2.FileDescriptorSet()
    t.Empty.DESCRIPTOR.file.CopyToProto(found.file.add())
    return found.SerializeToString()


@pytest.mark.parametrize("tls", [False, True], ids=["http1", "h2"])
def test_a_browser_calls(t: Any, tmp_path: Path, tls: bool) -> None:
    script = browser.page()

    @without_hub
    def run() -> None:
        options = {"tls": Certificates(tmp_path).server()} if tls else {}
        scheme = "https" if tls else "http"
        strict = GrpcOptions(web_origins=("https://elsewhere.example",))
        with served(grpc_service.service(t), **options) as server, served(grpc_service.service(t), grpc=strict, **options) as refusing:
            arguments = {
                name: f"{scheme}://localhost:{each.addresses[0].rpartition(':')[2]}"
                for name, each in (("target", server), ("refusing", refusing))
            }
            results = browser.run(script, arguments, {"/descriptors": descriptors(t)})
        assert results == dict.fromkeys(CASES, "passed")

    run()
