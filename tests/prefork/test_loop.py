"""The master's loop: order, timers, signals, and a callback that goes wrong."""

import logging
import os
import signal
import socket
import time

import pytest

from prefork import loop as loop_module
from prefork.loop import Loop


@pytest.fixture
def loop(no_leaks):
    loop = Loop()
    yield loop
    loop.close()


def test_timers_fire_in_order_and_cancelled_ones_do_not(loop):
    seen = []
    loop.after(0.02, lambda: seen.append("late"))
    loop.after(0.01, lambda: seen.append("early"))
    loop.after(0.015, lambda: seen.append("never")).cancel()
    loop.after(0.03, loop.stop)
    loop.run()
    assert seen == ["early", "late"]


def test_a_descriptor_is_watched_until_it_is_not(loop):
    reader, writer = os.pipe()
    seen = []

    def read():
        seen.append(os.read(reader, 1))
        if len(seen) == 2:
            loop.unwatch(reader)
            loop.after(0.01, loop.stop)

    loop.watch(reader, read)
    os.write(writer, b"abc")
    loop.run()
    assert seen == [b"a", b"b"]
    loop.unwatch(reader)  # twice is no mistake
    os.close(reader)
    os.close(writer)


def test_a_mistake_is_logged_and_the_loop_goes_on(loop, caplog):
    def wrong():
        raise ValueError("oops")

    loop.after(0.0, wrong)
    loop.after(0.01, loop.stop)
    with caplog.at_level(logging.ERROR):
        loop.run()
    assert "a mistake in the master" in caplog.text


def test_signals_are_events_and_int_counts(loop):
    seen = []
    loop.on_signals(
        {
            signal.SIGUSR1: lambda: seen.append("usr1"),
            signal.SIGINT: lambda: seen.append("int"),
            signal.SIGUSR2: loop.stop,
        }
    )
    for name in ("USR1", "USR1", "INT", "INT", "USR1"):
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
    os.kill(os.getpid(), signal.SIGUSR2)
    loop.run()
    assert seen == ["usr1", "int", "int"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_time_in_which_the_master_did_not_run_counts_for_nobody(loop, monkeypatch, caplog):
    offset = 0.0
    monkeypatch.setattr(loop_module, "monotonic", lambda: time.monotonic() + offset)
    seen = []

    def be_suspended():
        nonlocal offset
        offset = 3600.0

    reader, writer = os.pipe()
    os.write(writer, b"x")

    def suspend():
        os.read(reader, 1)
        be_suspended()

    loop.watch(reader, suspend)
    kill = loop.after(0.5, lambda: seen.append("kill"))
    loop.after(0.01, lambda: seen.append("first"))
    loop._is_running = True
    loop._turn()
    assert seen == ["first"], "the deadline after it moved along"
    assert kill.when > time.monotonic() + 3599
    assert "was not running" in caplog.text
    loop.unwatch(reader)
    os.close(reader)
    os.close(writer)


def test_an_event_of_a_descriptor_that_was_closed_is_not_its_successors(loop):
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    successors = []
    seen = []

    def replace():
        first.recv(1)
        number = second.fileno()
        loop.unwatch(number)
        second.close()
        successors.extend(socket.socketpair())
        assert number in {each.fileno() for each in successors}
        loop.watch(number, lambda: seen.append("stale"))

    loop.watch(first.fileno(), replace)
    loop.watch(second.fileno(), lambda: seen.append("never"))
    for peer in first_peer, second_peer:
        peer.send(b"x")
    loop._is_running = True
    loop._turn()
    loop.after(0, lambda: None)
    loop._turn()
    assert seen in ([], ["never"]), "never: the kernel told of the second one first"
    loop.unwatch(first.fileno())
    for each in (*successors, first, first_peer, second_peer):
        if each.fileno() in loop._watched:
            loop.unwatch(each.fileno())
        each.close()
