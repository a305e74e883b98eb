"""bench/peer.py: starting and ending servers."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from bench import peer
from bench.native import BenchError

if TYPE_CHECKING:
    from pathlib import Path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_floor_echoes_and_ends(loadgen: str) -> None:
    with peer.running("floor", min(os.sched_getaffinity(0))) as server:
        assert os.sched_getaffinity(server.pid) == {min(os.sched_getaffinity(0))}
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            big = bytes(range(256)) * 4096  # more than the socket buffers hold: its output has to wait
            connection.settimeout(10)
            got = bytearray()
            sent = memoryview(big)
            while len(got) < len(big):
                if sent:
                    sent = sent[connection.send(sent[:65536]) :]
                got += connection.recv(65536)
            assert got == big
    assert not alive(server.pid)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `bench/peers/probe.py` is what a test makes it."""
    (tmp_path / "bench" / "peers").mkdir(parents=True)
    for package in ("bench", "bench/peers"):  # a real package, so that an installed checkout's does not stand in for it
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.setattr(peer, "BENCH", tmp_path / "bench")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert sys.executable
    return tmp_path / "bench" / "peers" / "probe.py"


def test_a_missing_library_is_a_gap(fake: Path) -> None:
    fake.write_text("import no_such_library\n")
    with pytest.raises(peer.PeerMissing, match="no_such_library"), peer.running("probe"):
        pass


def test_a_crash_shows_its_words(fake: Path) -> None:
    fake.write_text("raise SystemExit('the port is taken')\n")
    with pytest.raises(BenchError, match="the port is taken") as caught, peer.running("probe"):
        pass
    assert not isinstance(caught.value, peer.PeerMissing)


def test_a_silent_peer_is_given_up_and_ended(fake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peer, "START_SECONDS", 1.0)
    fake.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    with pytest.raises(BenchError, match="did not listen"), peer.running("probe"):
        pass
    written = tmp_path / "pid"
    if written.exists() and written.read_text():
        assert not alive(int(written.read_text()))


def test_a_peer_that_ignores_sigterm_is_killed(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "STOP_SECONDS", 0.2)
    fake.write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'print(\'{"port": 1, "pid": %d}\' % os.getpid(), flush=True)\ntime.sleep(60)\n'
    )
    with peer.running("probe") as server:
        assert alive(server.pid)
    assert not alive(server.pid)
