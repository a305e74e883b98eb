"""The fork window, and system calls that no patch may replace."""

import os
import signal
import subprocess
import sys
import time

import pytest

from prefork import primitives
from tests.prefork.harness import ROOT


@pytest.mark.timeout(60)
def test_no_signal_is_lost_in_the_fork_window():
    """A TERM sent the moment the child exists reaches the child's own handler, not the parent's copy of one."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # the parent's, which would swallow it
    try:
        for _ in range(300):
            pid = primitives.fork_blocked()
            if pid == 0:
                signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
                primitives.unblock_signals()
                while True:
                    time.sleep(0.001)  # not pause(), which a signal that came just before it does not end
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_monkey_patch_changes_nothing_here():
    script = (
        "from prefork import primitives as p, channel, listeners\n"
        "before = {n: getattr(p, n) for n in p.__all__}\n"
        "from gevent import monkey; monkey.patch_all()\n"
        "import os, socket\n"
        "assert os.fork is not p.fork and p.epoll is not None\n"
        "assert not any(getattr(f, '__module__', '').startswith('gevent') for f in before.values())\n"
        "assert type(channel.pair()[0]).__module__ == '_socket'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, check=True)


def test_threads_are_counted_by_the_kernel():
    assert primitives.thread_count() >= 1


def test_closing_twice_is_quiet():
    fd = os.dup(0)
    primitives.close_quietly(fd)
    primitives.close_quietly(fd)


def test_output_of_our_own_never_blocks_and_leaves_the_others_alone(tmp_path):
    reader, writer = os.pipe()
    own = primitives.own_output(writer)
    try:
        assert own != writer
        with pytest.raises(BlockingIOError):
            while True:
                os.write(own, b"x" * 4096)
        assert os.get_blocking(writer)
    finally:
        for fd in (reader, writer, own):
            os.close(fd)
    with open(tmp_path / "log", "ab") as file:
        assert primitives.own_output(file.fileno()) == file.fileno()
