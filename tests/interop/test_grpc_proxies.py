"""nginx (`grpc_pass`) and HAProxy in front of a weego server, cleartext and TLS, called by weego's client and by grpcio's."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weego
from tests.interop import grpc_service
from tests.interop.grpc_service import CASES, metadata
from tests.support import need
from tests.support.certs import Certificates
from tests.support.grpc_go import is_open
from tests.support.net import wait_until, without_hub
from tests.support.ports import free_port
from tests.support.processes import Process

GRPCIO = str(need.ROOT / "tests" / "support" / "grpcio_testing.py")

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    upstream weego {{ server 127.0.0.1:{port}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{front} {listen};
        {tls}
        location / {{ grpc_pass {scheme}://weego; grpc_read_timeout 60s; }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{front} {listen}
    default_backend weego
backend weego
    server one 127.0.0.1:{port} {backend}
"""


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@contextlib.contextmanager
def nginx(folder: Path, port: int, certs: Certificates | None) -> Iterator[int]:
    """nginx's port in front of `port`."""
    program = need.program("nginx", "apt-get install nginx-light")
    front = free_port()
    found = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    is_new = tuple(int(part) for part in found.rpartition("/")[2].split()[0].split(".")[:2]) >= (1, 25)
    http2 = "http2 on;" if is_new else ""
    listen = "" if is_new else "http2"
    tls = http2
    if certs is not None:
        listen = f"ssl {listen}"
        tls = f"ssl_certificate {certs.folder}/server.crt; ssl_certificate_key {certs.folder}/server.key; {http2}"
    conf = folder / "nginx.conf"
    conf.write_text(
        NGINX.format(folder=folder, port=port, front=front, listen=listen, tls=tls, scheme="grpcs" if certs else "grpc")
    )
    with Process([program, "-e", "stderr", "-c", str(conf), "-p", str(folder)]) as process:
        wait_until(lambda: is_open(front) or process.child.poll() is not None, "nginx")
        yield front
        assert process.child.poll() is None, process.output


@contextlib.contextmanager
def haproxy(folder: Path, port: int, certs: Certificates | None) -> Iterator[int]:
    """HAProxy's port in front of `port`."""
    program = need.program("haproxy", "apt-get install haproxy")
    front = free_port()
    listen, backend = "proto h2", "proto h2"
    if certs is not None:
        listen = f"ssl crt {certs.path('server')} alpn h2"
        backend = f"ssl verify required ca-file {certs.path('ca')} alpn h2 sni str(localhost) verifyhost localhost"
    conf = folder / "haproxy.cfg"
    conf.write_text(HAPROXY.format(port=port, front=front, listen=listen, backend=backend))
    with Process([program, "-db", "-f", str(conf)]) as process:
        wait_until(lambda: is_open(front) or process.child.poll() is not None, "HAProxy")
        yield front
        assert process.child.poll() is None, process.output


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_in_front_of_weego(t: Any, certs: Certificates, tmp_path: Path, proxy: Any, tls: bool) -> None:
    need.module("grpc")

    @without_hub
    def run() -> None:
        with weego.Server(
            [grpc_service.service(t)], listen=["tcp://127.0.0.1:0"], tls=certs.server() if tls else None
        ) as server:
            port = int(server.addresses[0].rpartition(":")[2])
            with proxy(tmp_path, port, certs if tls else None) as front:
                with t.TestServiceClient(
                    f"tcp://localhost:{front}", timeout=60, middleware=[metadata], tls=certs.client() if tls else None
                ) as client:
                    for case in CASES.values():
                        case(t, client)
                # HAProxy resets a call whose server has answered before all of the request was there, with the answer on its way.
                without = ["status_code_and_message"] if proxy is haproxy else []
                command = [sys.executable, GRPCIO, str(Path(t.__file__).parent), "call", str(front)]
                done = subprocess.run(
                    [*command, certs.path("ca") if tls else "-", *without], capture_output=True, text=True, timeout=120, check=False
                )
                assert "all passed" in done.stdout, f"{done.stdout}\n{done.stderr[-2000:]}"

    run()
