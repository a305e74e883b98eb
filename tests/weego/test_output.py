"""Where lines go: nobody waits, whole lines, what is lost is counted and told."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leaks import descriptors
from tests.support.service import until
from weego.output import SPOOL_BYTES, Output

PIPE = 4096  # the size the tests give a pipe


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def notice(count: int, why: str) -> bytes:
    return f"LOST {count} {why}\n".encode()


def drain(reader: int, size: int = 1 << 20) -> bytes:
    os.set_blocking(reader, False)
    data = b""
    while True:
        try:
            data += os.read(reader, size)
        except BlockingIOError:
            return data


# ---------------------------------------------------------------- directly


def test_a_pipe_that_nobody_reads(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output(writer, notice=notice)
    line = b"x" * 99 + b"\n"
    for _ in range(100):
        output.write(line)
    assert output.dropped == 60
    assert drain(reader) == line * 40
    output.write(b"again\n")
    assert drain(reader) == b"again\nLOST 60 nobody reads them fast enough\n"
    output.write(b"more\n")
    assert drain(reader) == b"more\n"
    assert os.get_blocking(writer), "the file that others share must wait as before"


def test_a_socket_that_nobody_reads() -> None:
    """As standard error is under systemd: it cannot be opened anew."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = Output(theirs.fileno(), notice=notice)
        line = b"x" * 999 + b"\n"
        while not output.dropped:
            output.write(line)
        taken = bytearray()
        ours.settimeout(0.2)
        while True:
            try:
                taken += ours.recv(1 << 20)
            except TimeoutError:
                break
        assert set(bytes(taken).split(b"\n")) <= {line[:-1], b"", *[line[:n] for n in range(1000)]}
        output.write(b"again\n")
        assert b"again\nLOST " in ours.recv(1 << 20)
        output.close()


def test_a_long_line_in_a_pipe_that_is_nearly_full_is_not_torn_apart_by_the_next(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output(writer)
    output.write(b"y" * 10_000 + b"\n")
    assert output.dropped == 1
    assert drain(reader).rstrip(b"y") == b""
    output.write(b"next\n")
    assert drain(reader) == b"\nnext\n"


def test_a_full_disk() -> None:
    output = Output.open("/dev/full", notice=notice)
    for _ in range(3):
        output.write(b"line\n")
    assert output.dropped == 3
    output.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """Found with a limit on the size of a file, which the kernel treats alike: a part is written, then nothing."""
    code = f"""
import os, resource, signal, sys
from weego.output import Output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
output = Output.open({str(tmp_path / "log")!r}, notice=lambda count, why: b"LOST %d %s\\n" % (count, why.encode()))
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.RLIM_INFINITY))
for n in range(4): output.write(b"number %d..\\n" % n)
assert output.dropped == 2, output.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
output.write(b"again\\n")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    why = os.strerror(errno.EFBIG)
    assert (tmp_path / "log").read_text() == f"number 0..\nnumber 1..\nnum\nagain\nLOST 2 {why}\n"


def test_a_folder_is_made_if_only_that_is_missing(tmp_path: Path) -> None:
    output = Output.open(str(tmp_path / "log" / "a"))
    output.write(b"x\n")
    output.close()
    assert (tmp_path / "log/a").read_text() == "x\n"
    with pytest.raises(FileNotFoundError):
        Output.open(str(tmp_path / "no/such/folder/a"))


def test_a_fifo_that_nobody_reads_is_no_place_to_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as found:
        Output.open(str(tmp_path / "fifo"))
    assert found.value.errno == errno.ENXIO


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run as root")
def test_a_file_is_given_to_who_will_write_to_it(tmp_path: Path) -> None:
    Output.open(str(tmp_path / "a"), owner=(65534, 65534)).close()
    found = os.stat(tmp_path / "a")
    assert (found.st_uid, found.st_gid) == (65534, 65534)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else: run as root")
def test_somebody_else_opens_again_what_root_has_made(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    path, owner = tmp_path / "log", (65534, 65534)
    output = Output.open(str(path), owner=owner)
    path.rename(tmp_path / "old")
    Output.open(str(path), owner=owner).close()  # as the master does, before it tells the workers
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            output.reopen()
            output.write(b"mine\n")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_text() == "mine\n"
    output.close()


def test_nothing_stays_open(tmp_path: Path, pipe: tuple[int, int]) -> None:
    before = descriptors()
    for output in (Output.open(str(tmp_path / "a")), Output(pipe[1])):
        output.spool()
        output.write(b"x\n")
        output.close()
        output.close()
        output.write(b"ignored\n")
    until(lambda: descriptors() == before, "everything to be closed")


# ---------------------------------------------------------------- with a thread


def test_lines_at_once_and_spooled_lines_soon(tmp_path: Path) -> None:
    output = Output.open(str(tmp_path / "log"))
    spool = output.spool()
    output.write(b"at once\n")
    assert (tmp_path / "log").read_bytes() == b"at once\n"
    spool.put(b"soon\n")
    assert output.flush(30)
    assert (tmp_path / "log").read_bytes() == b"at once\nsoon\n"
    output.close()


def test_a_reader_that_stalls_gets_what_the_queue_holds(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output(writer, notice=notice)
    spool = output.spool()
    line = b"x" * 999 + b"\n"
    total = 2 * SPOOL_BYTES // len(line)
    for n in range(total):
        (output.write if n % 2 else spool.put)(line)
    until(lambda: output._stuck, "the thread to find that nobody reads")
    begun = time.monotonic()
    while not output.dropped:
        output.write(line)
        total += 1
    assert time.monotonic() - begun < 20
    taken: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not (taken and taken[-1].endswith(b"fast enough\n")):
            taken.append(os.read(reader, 1 << 16))
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert done.wait(50)
    thread.join()
    lines = b"".join(taken).split(b"\n")
    assert lines.pop() == b""
    lost = lines.pop().split()
    assert set(lines) == {line[:-1]}, "no line is torn"
    assert lost[0] == b"LOST"
    assert len(lines) + int(lost[1]) == total
    assert output.dropped == int(lost[1])
    output.write(b"and so on\n")
    assert os.read(reader, 100) == b"and so on\n"
    output.close()


def test_the_loss_is_told_even_if_nothing_more_is_logged(pipe: tuple[int, int]) -> None:
    """The pipe is full again when the last line has gone: there is no room for the notice, and no other line would bring it."""
    reader, writer = pipe
    output = Output(writer, notice=notice)
    spool = output.spool()
    spool.put(b"x" * (PIPE - 1) + b"\n")
    until(lambda: len(spool) == 0, "the pipe to be full")
    spool.lose(3)
    spool.put(b"y" * (PIPE - 1) + b"\n")
    assert os.read(reader, PIPE) == b"x" * (PIPE - 1) + b"\n"
    until(lambda: output._stuck and not len(spool), "the thread to have written, and to want to tell")
    assert os.read(reader, PIPE) == b"y" * (PIPE - 1) + b"\n"
    assert os.read(reader, PIPE) == b"LOST 3 nobody reads them fast enough\n"
    output.close()


def test_long_lines_and_short_ones_of_two_writers_stay_whole(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    outputs = [Output(writer), Output(writer)]
    spools = [output.spool() for output in outputs]
    taken = bytearray()

    def read() -> None:
        while not taken.endswith(b"END\n"):
            taken.extend(os.read(reader, 1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(2000):
        for index, spool in enumerate(spools):
            spool.put(b"%d" % index * (n % 300 + 1) + b"\n")
    assert all(output.flush(50) for output in outputs)
    os.write(writer, b"END\n")
    thread.join(50)
    lines = bytes(taken).split(b"\n")[:-2]
    assert len(lines) == 4000
    assert all(set(line) in ({48}, {49}) for line in lines)
    for output in outputs:
        output.close()


def test_a_line_longer_than_a_pipe_waits_for_its_rest(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = Output(writer)
    output.spool()
    output.write(b"a" * 20_000 + b"\n")
    output.write(b"b\n")
    taken = b""
    while not taken.endswith(b"b\n"):
        taken += os.read(reader, 1 << 16)
    assert taken == b"a" * 20_000 + b"\nb\n"
    output.close()


def test_rotation_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = Output.open(str(path))
    spool = output.spool()
    for n in range(5000):
        (spool.put if n % 3 else output.write)(b"%d\n" % n)
        if n % 1000 == 999:
            path.rename(tmp_path / f"log.{n}")
            output.reopen()
    output.close(50)
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().split()]
    assert sorted(map(int, lines)) == list(range(5000))


def test_an_ending_that_nobody_reads_ends_all_the_same(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    spool = output.spool()
    for _ in range(100):
        spool.put(b"x" * 999 + b"\n")
    output.close(0.1)
    assert output._closed


def test_a_thread_that_cannot_start_costs_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output.open(str(tmp_path / "log"))
    spool = output.spool()
    refusals = iter([True, False])

    def refuse(module: str, name: str, found: object) -> object:
        def starts(*arguments: object) -> object:
            if next(refusals, False):
                raise RuntimeError("can't start new thread")
            return found(*arguments)  # type: ignore[operator]

        return starts if name == "start_new_thread" else found

    monkeypatch.setattr("weego.output._original", refuse)
    spool.put(b"1\n")
    assert not output._thread
    spool.put(b"2\n")
    assert output.flush(30)
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"
    output.close()


def test_a_fork_starts_anew(tmp_path: Path) -> None:
    code = f"""
import os, sys
from weego.output import Output
output = Output.open({str(tmp_path / "log")!r})
spool = output.spool()
spool.put(b"parent\\n")
pid = os.fork()
if not pid:
    output.lines.put(b"child\\n")
    os._exit(not output.flush(30))
assert os.waitpid(pid, 0)[1] == 0
assert output.flush(30)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=50)
    assert sorted((tmp_path / "log").read_text().split()) == ["child", "parent"]


def test_in_a_process_that_gevent_has_patched(tmp_path: Path) -> None:
    """The thread is a real one with real locks: in the hub's thread it would wait for itself."""
    code = """
from gevent import monkey; monkey.patch_all()
import os, gevent
from weego.output import Output
reader, writer = os.pipe()
output = Output(writer)
spool = output.spool()
for _ in range(2000): spool.put(b"x" * 99 + b"\\n")      # more than the pipe takes
begun = []
gevent.spawn(begun.append, 1); gevent.sleep(0.2); assert begun  # the hub turns
assert len(os.listdir("/proc/self/task")) == 2
taken = 0
while taken < 200_000: taken += len(os.read(reader, 1 << 16))
output.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
