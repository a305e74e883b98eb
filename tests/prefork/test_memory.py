"""Limits of memory and kills for want of it: read from made-up files, and from the kernel where we may make a cgroup."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from prefork.memory import Memory
from tests.prefork.harness import Server, until
from tests.prefork.test_upgrade import ask

MIB = 2**20



def make(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V2 = {
    "proc/self/cgroup": "0::/app/one\n",
    "proc/vmstat": "pgfault 1\noom_kill 3\n",
    "sys/fs/cgroup/memory.events": "oom_kill 0\n",
    "sys/fs/cgroup/app/memory.max": str(800 * MIB),
    "sys/fs/cgroup/app/memory.current": str(700 * MIB),
    "sys/fs/cgroup/app/memory.stat": f"anon 5\ninactive_file {300 * MIB}\n",
    "sys/fs/cgroup/app/memory.events": "low 0\noom 0\noom_kill 0\n",
    "sys/fs/cgroup/app/one/memory.max": "max\n",
    "sys/fs/cgroup/app/one/memory.current": str(700 * MIB),
    "sys/fs/cgroup/app/one/memory.events": "low 0\noom 1\noom_kill 1\noom_group_kill 0\n",
}
V1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:memory:/box/one\n0::/\n",
    "proc/vmstat": "oom_kill 3\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 0\n",
    "sys/fs/cgroup/memory/box/one/memory.limit_in_bytes": str(512 * MIB),
    "sys/fs/cgroup/memory/box/one/memory.usage_in_bytes": str(384 * MIB),
    "sys/fs/cgroup/memory/box/one/memory.stat": f"cache 9\ntotal_inactive_file {128 * MIB}\n",
    "sys/fs/cgroup/memory/box/one/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
}
CONTAINER = {  # named from outside, mounted as the root
    "proc/self/cgroup": "0::/kubepods/pod1/c2\n",
    "sys/fs/cgroup/memory.max": str(64 * MIB),
    "sys/fs/cgroup/memory.current": str(60 * MIB),
    "sys/fs/cgroup/memory.events": "oom_kill 0\n",
}


@pytest.mark.parametrize(
    ("files", "limit", "used", "events"),
    [
        (V2, 800 * MIB, 0.5, "sys/fs/cgroup/app/one/memory.events"),
        (V1, 512 * MIB, 0.5, "sys/fs/cgroup/memory/box/one/memory.oom_control"),
        (CONTAINER, 64 * MIB, 60 / 64, "sys/fs/cgroup/memory.events"),
    ],
    ids=["v2", "v1", "container"],
)
def test_limit_use_and_kills(tmp_path, files, limit, used, events):
    make(tmp_path, files)
    memory = Memory(str(tmp_path))
    assert (memory.limit(), memory.used()) == (limit, pytest.approx(used))
    assert memory.left() == limit - limit * used
    assert not memory.look(), "a kill of before is nobody's"
    (tmp_path / events).write_text("oom_kill 7\n")
    assert memory.look()
    assert memory.look(), "two may have been killed at once"
    assert f"{limit // MIB} MiB" in memory.shortage()


def test_a_kill_by_the_machine(tmp_path):
    make(tmp_path, {"proc/vmstat": "oom_kill 3\n"})
    memory = Memory(str(tmp_path))
    assert (memory.limit(), memory.used(), memory.left(), memory.look()) == (0, 0.0, None, False)
    make(tmp_path, {"proc/vmstat": "oom_kill 4\n"})
    assert memory.look()
    assert memory.shortage() == "the machine has none left"


def test_nothing_readable_is_no_limit(tmp_path):
    assert (Memory(str(tmp_path)).limit(), Memory(str(tmp_path)).look()) == (0, False)


# -- real processes -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def cgroup(limit):
    """A cgroup with a limit, to put a server in; skips where there can be none."""
    for mount, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = Path(mount) / f"weego-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / file).write_text(str(limit))
        except OSError:
            folder.rmdir()
            continue
        try:
            yield folder
        finally:
            _remove(folder)
        return
    pytest.skip("needs root and a memory cgroup that may have children (run as root, outside of an unprivileged container)")


def _remove(folder):
    until(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup to be empty")
    folder.rmdir()


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, control=str(tmp_path / "control"), **conf)


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_worker_killed_by_the_kernel_is_told_from_one_killed_by_a_person(server):
    with cgroup(256 * MIB) as group, server(workers=2) as s:
        for pid in (s.process.pid, *s.children()):
            (group / "cgroup.procs").write_text(str(pid))
        assert ask(s.folder / "control", do="upgrade")["ok"]  # the master learns at its start which cgroup it is in
        with s.connect() as client:
            victim, _ = client.who()
            client.send(b"eat 2000")
            until(lambda: victim not in s.workers(), "the worker to be killed")
        s.wait_log("was killed by SIGKILL, out of memory: the limit of 256 MiB for the container is reached")
        until(lambda: len(s.workers()) == 2, "a replacement")
        os.kill(min(s.workers()), signal.SIGKILL)
        s.wait_log("was killed by SIGKILL", 2)
        assert s.log.count("out of memory") in (1, 2)  # within two seconds of a shortage nobody can tell
        restarts = ask(s.folder / "control", do="status")["result"]["restarts"]
        assert restarts["oom"] >= 1


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_reload_that_has_no_room_is_warned_of(server):
    with cgroup(500 * MIB) as group, server(workers=1, graceful_timeout=2.0) as s:
        for pid in (s.process.pid, *s.children()):
            (group / "cgroup.procs").write_text(str(pid))
        assert ask(s.folder / "control", do="upgrade")["ok"]
        with s.connect() as client:
            client.call(b"eat 300")
            s.reload()
            assert "MiB of memory left, and the new workers may take" in s.log
            assert "reload done" in s.log
            until(lambda: client.who()[1] == 2, "the connection to go over")


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_before_the_kernel_kills_the_largest_is_recycled(server):
    with cgroup(400 * MIB) as group, server(workers=2) as s:
        for pid in (s.process.pid, *s.children()):
            (group / "cgroup.procs").write_text(str(pid))
        assert ask(s.folder / "control", do="upgrade")["ok"]
        with s.connect() as client:
            glutton, _ = client.who()
            size = 100
            client.call(b"eat 100")
            while "of the container's memory are used" not in s.log and size < 380:
                size += 10
                client.call(b"eat %d" % size)
            s.wait_log("of the container's memory are used, and it has most of it")
            until(lambda: glutton not in s.workers(), "it to be gone")
            assert client.who()[0] != glutton, "its connection went over"
        assert "SIGKILL" not in s.log


def states(s):
    return [each["state"] for each in ask(s.folder / "control", do="workers")["result"]]


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_kill_memory_replaces_first(server):
    with server(workers=2, kill_memory=150 * MIB, sleep_boot=2.0) as s, s.connect() as client:
        glutton, _ = client.who()
        client.send(b"eat 200")
        until(lambda: "oversize" in states(s), "weego ctl workers to tell what it is")
        until(lambda: glutton not in s.workers(), "it to be killed")
        lines = s.log
        assert "more than kill_memory; its replacement starts" in lines
        assert lines.index("more than kill_memory") < lines.index("is replaced: SIGKILL")
        until(lambda: len(s.workers()) == 2, "two workers")
        assert ask(s.folder / "control", do="status")["result"]["restarts"]["oversize"] == 1


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_at_twice_kill_memory_nobody_waits(server):
    with server(workers=1, kill_memory=100 * MIB, sleep_boot=2.0) as s, s.connect() as client:
        client.send(b"eat 600")
        s.wait_log("more than kill_memory: SIGKILL")
        until(lambda: len(s.workers()) == 1, "another")
        s.wait_log("is ready", 2)
        assert ask(s.folder / "control", do="status")["result"]["restarts"]["oversize"] == 1
