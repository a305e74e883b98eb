"""Probes and metrics of a real master."""

import contextlib
import json
import os
import re
import signal
import socket

import pytest

from tests.prefork.harness import PATIENCE, Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FREE = "tcp://127.0.0.1:0"


@pytest.fixture
def server(tmp_path):
    def make(**conf):
        return Server(tmp_path, **{"admin": FREE, **conf})

    return make


def talk(address, data, *, shut=False):
    """Send raw bytes, read to the end."""
    if address.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(address.removeprefix("unix://"))
    else:
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        sock = socket.create_connection((host, int(port)), timeout=PATIENCE)
    with sock:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    return answer


def get(address, path):
    """Status and body."""
    head, _, body = talk(address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) == len(body)
    return int(head.split()[1]), body.decode()


def probe(address, path):
    code, body = get(address, path)
    answer = json.loads(body)
    assert answer["ok"] == (code == 200) == (not answer["reasons"])
    return code, answer["reasons"]


def metrics(address):
    code, body = get(address, "/metrics")
    assert code == 200
    samples = {}
    for line in body.splitlines():
        if not line.startswith("#"):
            name, value = re.fullmatch(r"(\w+(?:\{.*\})?) (\S+)", line).groups()
            assert name not in samples
            samples[name] = float(value)
    return samples


def test_probes_of_a_healthy_server(server):
    with server() as s:
        assert s.ready["admin"].startswith("tcp://127.0.0.1:")
        assert not s.ready["admin"].endswith(":0")
        for path in ("/livez", "/readyz", "/startupz", "/healthz", "/readyz?verbose"):
            assert probe(s.ready["admin"], path) == (200, [])


def test_without_an_address_nothing_is_opened(server):
    with server(admin=None) as s:
        assert s.ready["admin"] is None
        assert s.ready["control"] is None


def test_probes_before_anybody_is_ready_and_while_stopping(server, tmp_path):
    address = f"unix://{tmp_path}/admin/sock"
    s = server(admin=address, sleep_boot=1.0, never_drains=True, graceful_timeout=30).start()
    try:
        until((tmp_path / "admin/sock").exists, "the socket")
        assert probe(address, "/readyz") == (503, ["no worker is ready"])
        assert probe(address, "/startupz") == (503, ["no worker has been ready yet"])
        until(lambda: probe(address, "/livez") == (200, []), "a living worker")
        s.wait_ready()
        assert probe(address, "/readyz") == probe(address, "/startupz") == (200, [])
        s.signal(signal.SIGTERM)
        s.wait_log("SIGTERM: stopping")
        assert probe(address, "/livez") == (200, [])
        assert probe(address, "/readyz") == (503, ["the server is stopping"])
        s.signal(signal.SIGQUIT)
        assert s.wait_exit() == 0
        assert not (tmp_path / "admin/sock").exists()
    finally:
        s.__exit__()


def test_not_ready_when_every_worker_is_gone(server):
    with server(workers=1) as s:
        s.configure(boot="exit")
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGSTOP)  # so that nobody takes the place of the dead
        for pid in s.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: probe(s.ready["admin"], "/readyz") == (503, ["no worker is ready"]), "not ready")
        assert probe(s.ready["admin"], "/livez") == (503, ["no worker is alive"])
        os.kill(loader, signal.SIGCONT)
        until(lambda: probe(s.ready["admin"], "/readyz")[0] == 200, "ready again")


@pytest.mark.parametrize(
    ("request_head", "code"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /readyz HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"GET /readyz\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET readyz HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"GET /readyz HTTP/2.0\r\n\r\n", 505),
        (b"GET /readyz HTTP/1.1\r\nCookie: " + b"x" * 9000, 431),
        (b"GET /readyz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_whatever_comes_gets_an_answer(server, request_head, code):
    with server(workers=1) as s:
        assert talk(s.ready["admin"], request_head).startswith(f"HTTP/1.1 {code} ".encode())
        assert talk(s.ready["admin"], request_head, shut=True).startswith(f"HTTP/1.1 {code} ".encode())


def test_head_has_the_length_and_no_body(server):
    with server(workers=1) as s:
        head, _, body = talk(s.ready["admin"], b"HEAD /readyz HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
        assert b"Content-Length: 28" in head
        assert body == b""


def test_metrics_and_that_counters_never_go_backwards(server):
    with server(workers=2) as s:
        admin = s.ready["admin"]
        first = metrics(admin)
        assert first['weego_workers{state="ready"}'] == first["weego_workers_wanted"] == 2
        assert first["weego_generation"] == first["weego_config_last_reload_successful"] == 1
        assert first['weego_process_resident_memory_bytes{process="master"}'] > 1 << 20
        assert first['weego_process_resident_memory_bytes{process="worker 1"}'] > 1 << 20
        (build,) = [name for name in first if name.startswith("weego_build_info")]
        assert 'version="test"' in build
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(s.connect()) for _ in range(6)]
            for client in clients:
                client.who()
            busy = metrics(admin)
            assert busy["weego_requests_total"] == busy["weego_accepted_connections_total"] == 6
            assert busy["weego_connections"] == 6
            s.reload()
            until(lambda: not s.workers(1), "generation 1 to leave")
            after = until(lambda: (m := metrics(admin))["weego_adopted_connections_total"] == 6 and m, "six adopted")
            assert after["weego_handed_over_connections_total"] == 6
            assert after["weego_requests_total"] == 6
            assert after["weego_generation"] == 2
            assert after['weego_reloads_total{result="success"}'] == 1
        for pid in s.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: metrics(admin)['weego_worker_restarts_total{reason="signal"}'] == 2, "two restarts")
        os.kill(min(until(lambda: len(s.workers()) == 2 and s.workers(), "two workers")), signal.SIGTERM)
        until(lambda: metrics(admin)['weego_worker_restarts_total{reason="leave"}'] == 1, "one more")
        s.configure(workers=0)
        s.reload()
        last = metrics(admin)
        assert last['weego_reloads_total{result="failure"}'] == 1
        assert last["weego_config_last_reload_successful"] == 0
        for name, value in busy.items():
            if "_total" in name:
                assert last[name] >= value, name


def test_a_taken_port_ends_the_start_and_not_a_reload(server):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        s = server(admin=taken).start()
        assert s.wait_exit() == 71
        (line,) = s.errors
        assert f"cannot start: cannot listen on {taken}: address already in use" in line
        s.__exit__()
        s.configure(admin=FREE)
        with s:
            before, admin = s.children(), s.ready["admin"]
            s.configure(admin=taken, listen=[FREE, "tcp://127.0.0.1:0"])
            s.reload()
            assert f"reload failed, generation 1 goes on: cannot listen on {taken}" in s.errors[-1]
            until(lambda: s.children() == before, "the new loader to be gone")
            assert probe(admin, "/readyz") == (200, [])
            assert metrics(admin)["weego_config_last_reload_successful"] == 0


def test_a_reload_adds_moves_and_removes_it(server, tmp_path):
    path = tmp_path / "admin.sock"
    with server(admin=None) as s:
        s.configure(admin=f"unix://{path}")
        s.reload()
        assert probe(f"unix://{path}", "/readyz") == (200, [])
        s.reload()
        assert probe(f"unix://{path}", "/readyz") == (200, [])
        s.configure(admin=FREE)
        s.reload()
        assert not path.exists()
        moved = re.findall(r"admin on (tcp://\S+)", s.log)[-1]
        assert probe(moved, "/readyz") == (200, [])
        s.configure(admin=None)
        s.reload()
        with pytest.raises(ConnectionRefusedError):
            probe(moved, "/readyz")
    assert s.errors == []


def test_a_failed_reload_leaves_a_new_address_unbound(server, tmp_path):
    path = tmp_path / "admin.sock"
    with server() as s:
        s.configure(admin=f"unix://{path}", boot="exit")
        s.reload()
        assert len(s.errors) == 1
        assert not path.exists()
        assert probe(s.ready["admin"], "/readyz") == (200, [])
