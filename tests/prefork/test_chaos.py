"""Everything at once: whoever can be killed is, in the middle of reloads good and bad, and all is well in the end."""

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

from tests.prefork.harness import Server, until
from tests.support.leaks import descriptors

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

#: Ways to break a config; each of them ends a reload.
BAD = (
    {"die": True},
    {"boot": "exit"},
    {"boot_fails_slots": [1]},
    {"code": "no_such"},
    {"workers": 0},
    {"sleep_boot": 5},
)
ACTIONS = ("hup", "hup", "burst", "kill", "kill", "term", "stop", "bad", "good", "hot", "ttin", "ttou", "upgrade", "connect")


def good(server):
    server.conf = {"listen": ["tcp://127.0.0.1:0"], "workers": 2, "graceful_timeout": 2, "boot_timeout": 3}
    server.configure()


def states(server):
    """Who is there, and in which state."""
    found = {}
    for pid, title in server.children().items():
        with contextlib.suppress(psutil.Error):
            found[pid] = title, psutil.Process(pid).status()
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chaos(tmp_path, seed):
    rng = random.Random(seed)
    s = Server(tmp_path)
    good(s)
    with s, contextlib.ExitStack() as stack:
        s.wait_log("forked after", 2)  # and so the descriptors of both are there
        quiet = len(descriptors(s.process.pid))
        for _ in range(60):
            action, children = rng.choice(ACTIONS), list(s.children())
            if action in ("hup", "burst"):
                for _ in range(1 if action == "hup" else 20):
                    s.signal(signal.SIGHUP)
            elif action in ("kill", "term", "stop") and children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(children), getattr(signal, f"SIG{action.upper()}"))
            elif action == "bad":
                s.configure(**rng.choice(BAD))
            elif action == "good":
                good(s)
            elif action == "hot":  # what needs no new workers
                s.configure(hang_timeout=10.0 + rng.random())
            elif action == "upgrade":
                s.signal(signal.SIGUSR2)
            elif action in ("ttin", "ttou"):
                s.signal(getattr(signal, f"SIG{action.upper()}"))
            else:
                with contextlib.suppress(OSError):  # whoever takes it may be killed
                    stack.enter_context(s.connect()).send(b"x")
            time.sleep(rng.random() * 0.1)
            assert s.process.poll() is None, s.log
        for pid in s.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        stack.close()
        good(s)
        done = s.log.count("reload done")
        while s.log.count("reload done") == done:  # one under way may still have the bad config
            s.reload()
        try:
            until(lambda: len(s.children()) == 3 and len(s.workers()) == 2, "two workers and a loader")
        except AssertionError as error:
            raise AssertionError(f"{error}: {states(s)}") from None
        with s.connect() as client:
            assert client.call(b"well") == b"well"
        until(lambda: len(descriptors(s.process.pid)) == quiet, "as many descriptors as in the beginning")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0


def test_a_loader_that_is_stopped_is_replaced(tmp_path):
    """Rule of the loader: it may die, or worse, without consequence."""
    with Server(tmp_path, boot_timeout=1.0) as s:
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGSTOP)
        os.kill(min(s.workers()), signal.SIGKILL)
        s.wait_log("does not fork: SIGKILL")
        s.wait_log("takes over, generation 1")
        until(lambda: len(s.workers()) == 2, "two workers")
        assert loader not in s.children()


def test_a_loader_whose_successor_meets_a_reload_that_fails(tmp_path):
    """The successor has read the config of that reload, and so may not join the generation that goes on; another one must."""
    with Server(tmp_path) as s:
        before, (loader,) = dict(s.conf), s.children("loader")
        s.configure(boot="hang", boot_timeout=2.0, sleep_load=0.5)
        s.signal(signal.SIGHUP)
        s.wait_log("generation 2 loads")
        os.kill(loader, signal.SIGKILL)
        s.wait_log("generation 2 loaded")
        s.wait_log("reload failed, generation 1 goes on")
        s.conf = before
        s.configure()
        killed = min(s.workers())
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(s.workers() - {killed}) == 2, "a new worker")


@pytest.mark.parametrize("killed", [None, 1])
def test_who_waits_for_a_replacement_that_is_not_wanted_any_more(tmp_path, killed):
    """Without a loader there are no replacements; when there is one again, fewer workers are wanted."""
    with Server(tmp_path, workers=3) as s:
        by_slot = {int(title.split()[2]): pid for pid, title in s.children("worker").items()}
        before = dict(s.conf)
        s.configure(code="no_such")
        os.kill(*s.children("loader"), signal.SIGKILL)
        s.wait_log("a new one in 0.1 s")
        os.kill(by_slot[2], signal.SIGTERM)
        s.wait_log(f"worker 2 gen 1 (pid {by_slot[2]}) wants to leave")
        if killed is not None:
            os.kill(by_slot[killed], signal.SIGKILL)
            s.wait_log("was killed by SIGKILL", 2)
        s.signal(signal.SIGTTOU)
        s.wait_log("SIGTTOU: 2 workers instead of 3")
        s.conf = before
        s.configure()
        s.wait_log("takes over, generation 1")
        until(lambda: len(s.workers()) == 2 and by_slot[2] not in s.workers(), "two workers, and not the one that wants to leave")


def test_a_loader_killed_with_forks_under_way(tmp_path):
    """Found by chaos: the replacement of a worker lost with its loader was ordered from the same dead loader."""
    with Server(tmp_path, workers=3) as s:
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGSTOP)
        for pid in s.workers():
            os.kill(pid, signal.SIGKILL)
        s.wait_log("was killed by SIGKILL", times=3)
        os.kill(loader, signal.SIGKILL)
        until(lambda: len(s.workers()) == 3, "three workers")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0
