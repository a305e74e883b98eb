"""Directories are kept fresh for as long as somebody uses them, by a greenlet or by a thread, and again after a fork."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.socket
import pytest

from governance.balancers.rotation import RoundRobin
from governance.discovery import Directory, Static
from governance.instance import Instance
from tests.support.net import wait_until, with_hub, without_hub
from weego import keeper

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


class Counting:
    interval = 0.02

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self) -> Sequence[Instance]:
        self.asked += 1
        if self.asked % 3 == 0:
            raise RuntimeError("now and then it does not know")
        return [Instance(str(self.asked))]


@BOTH
def test_refreshed_until_nobody_needs_it(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        resolver = Counting()
        directory: Any = Directory("echo", resolver, RoundRobin())
        directory.require()
        keeper.keep(directory)
        wait_until(lambda: resolver.asked > 5)
        assert not keeper.is_overdue(directory)
        keeper.forget(directory)
        directory = None
        gc.collect()

        def still() -> bool:
            before = resolver.asked
            time.sleep(0.2)
            return resolver.asked == before

        wait_until(still)
        wait_until(lambda: not any(thread.name == "weego-discovery" for thread in threading.enumerate()))

    run()


@BOTH
def test_a_resolver_that_watches_is_heard(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        class Watching:
            interval = float("inf")

            def __init__(self) -> None:
                self.watched = 0

            def resolve(self) -> Sequence[Instance]:
                return [Instance("first")]

            def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
                self.watched += 1
                publish([Instance(f"watched {self.watched}")])
                raise RuntimeError("the connection broke")

        resolver = Watching()
        directory: Any = Directory("echo", resolver, RoundRobin())
        directory.require()
        keeper.keep(directory)
        wait_until(lambda: directory.instances == (Instance("watched 3"),))
        keeper.forget(directory)
        directory = None
        gc.collect()
        wait_until(lambda: not any(thread.name.startswith("weego-") for thread in threading.enumerate()))

    run()


@without_hub
def test_what_never_changes_needs_nobody() -> None:
    directory = Directory("echo", Static([Instance("a")]), RoundRobin())
    directory.require()
    keeper.keep(directory)
    assert directory.due == float("inf")
    assert not any(thread.name == "weego-discovery" for thread in threading.enumerate())


@without_hub
def test_a_child_keeps_it_itself() -> None:
    resolver = Counting()
    directory = Directory("echo", resolver, RoundRobin())
    directory.require()
    keeper.keep(directory)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            # Nobody keeps it in this process, and who asks finds that out.
            if keeper.is_overdue(directory):
                before = resolver.asked
                keeper.keep(directory)
                deadline = time.monotonic() + 20
                while resolver.asked < before + 3 and time.monotonic() < deadline:
                    time.sleep(0.01)
                code = 0 if resolver.asked >= before + 3 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    keeper.forget(directory)
    wait_until(lambda: not any(thread.name == "weego-discovery" for thread in threading.enumerate()))


class Connecting:
    """One that is always in the middle of a connection."""

    interval = 60.0

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.begun: list[str] = []

    def _connect(self, who: str) -> None:
        with socket.create_connection(self.address) as sock:
            self.begun.append(who)
            gevent.socket.wait_read(sock.fileno())

    def resolve(self) -> Sequence[Instance]:
        self._connect("refresh")
        return []

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        self._connect("watch")


def test_who_worked_for_a_directory_has_ended_when_it_is_forgotten() -> None:
    """The thread and its hub end at once afterwards: nobody would go on with what is left, and its descriptors would stay open."""
    with socket.create_server(("127.0.0.1", 0)) as silent:

        @with_hub
        def run() -> None:
            resolver = Connecting(silent.getsockname())
            directory = Directory("echo", resolver, RoundRobin())
            keeper.keep(directory)
            directory.due = 0.0
            wait_until(lambda: sorted(resolver.begun) == ["refresh", "watch"])
            keeper.forget(directory)

        run()


@with_hub
def test_a_directory_that_is_forgotten_by_who_watches_it() -> None:
    forgotten = []

    class Ending(Counting):
        def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
            keeper.forget(directory)
            forgotten.append(True)
            gevent.sleep(60)

    directory = Directory("echo", Ending(), RoundRobin())
    keeper.keep(directory)
    watcher = keeper._watched[directory]
    wait_until(lambda: watcher.dead)
    assert forgotten == [True]
