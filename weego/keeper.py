"""Keeps directories fresh: asks their resolvers again in time, and lets those that watch watch.

In a thread that gevent runs: a greenlet for each directory. In a plain program: one thread for all of them, and one for each that watches. Either ends when
its directories are no longer used. Whoever did it may be gone – a hub that was destroyed, a parent before a fork – so a call that finds a
directory overdue has it kept anew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import Any, Final

from governance.discovery import Directory, Watching
from poller.clock import monotonic
from weego.tasks import hub_of_this_thread

__all__ = ["keep"]

log = logging.getLogger("weego.governance")

# A directory that is overdue by so much (seconds) has nobody who keeps it.
PATIENCE: Final = 2.0
# Pauses between two attempts of a watch that failed (seconds): twice as long each time.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
# A thread looks at its directories at least so often (seconds), so that it notices when they are gone.
LONGEST_SLEEP: Final = 1.0

_kept: weakref.WeakKeyDictionary[Directory, float] = weakref.WeakKeyDictionary()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def keep(directory: Directory) -> None:
    """Have `directory` refreshed from now on for as long as somebody refers to it."""
    watches = isinstance(directory.resolver, Watching)
    if directory.interval == float("inf") and not watches:
        directory.due = float("inf")
        return
    # For a while nobody else need start anybody.
    directory.due = monotonic() + (min(PATIENCE, directory.interval))
    reference = weakref.ref(directory)
    if hub_of_this_thread() is not None:
        import gevent

        gevent.spawn(_refresh_alone, reference, gevent.sleep)
        if watches:
            gevent.spawn(_watch, reference, gevent.sleep)
        return
    _keep_in_thread(directory)
    if watches:
        threading.Thread(target=_watch, args=(reference, time.sleep), name="weego-watch", daemon=True).start()


def is_overdue(directory: Directory) -> bool:
    """Is it time that somebody kept it?"""
    return monotonic() > directory.due + PATIENCE


def _refresh_alone(reference: weakref.ref[Directory], sleep: Any) -> None:
    directory = reference()
    while directory is not None:
        pause = _turn(directory)
        directory = None  # only those who use it keep it alive
        sleep(pause)
        directory = reference()


def _turn(directory: Directory) -> float:
    """Refresh it if that is due; seconds until it is again."""
    now = monotonic()
    if now >= directory.due:
        try:
            directory.refresh()
        except Exception:
            log.exception("discovery of %s failed", directory.service)
    return min(max(0.01, directory.due - monotonic()), LONGEST_SLEEP)


def _watch(reference: weakref.ref[Directory], sleep: Any) -> None:
    pause = FIRST_PAUSE
    while (directory := reference()) is not None:
        resolver, started = directory.resolver, monotonic()
        service = directory.service
        directory = None
        try:
            if isinstance(resolver, Watching):
                resolver.watch(lambda found: _publish(reference, found))
        except _Unused:
            return
        except Exception as error:
            log.debug("watch of %s: %s; again in %.1f s", service, error, pause)
        pause = FIRST_PAUSE if monotonic() - started > LONGEST_PAUSE else min(LONGEST_PAUSE, pause * 2)
        sleep(pause)


class _Unused(Exception):
    """Nobody uses the directory any more."""


def _publish(reference: weakref.ref[Directory], found: Any) -> None:
    directory = reference()
    if directory is None:
        raise _Unused
    directory.publish(found)


def _keep_in_thread(directory: Directory) -> None:
    global _thread
    with _lock:
        _kept[directory] = directory.due
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="weego-discovery", daemon=True)
            _thread.start()


def _run() -> None:
    global _thread
    while True:
        with _lock:
            directories = list(_kept.keys())
            if not directories:
                _thread = None
                return
        pause = LONGEST_SLEEP
        for directory in directories:
            pause = min(pause, _turn(directory))
        directories = []
        directory = None  # type: ignore[assignment]  # only those who use it keep it alive
        time.sleep(min(pause, 0.1))


def forget(directory: Directory) -> None:
    """Its user is done with it."""
    with _lock:
        _kept.pop(directory, None)


def _after_fork() -> None:
    global _thread, _lock
    _thread = None
    _lock = threading.Lock()
    for directory in list(_kept.keys()):
        directory.due = 0.0
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)
