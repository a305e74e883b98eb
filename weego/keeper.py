"""Keeps directories fresh: asks their resolvers again in time, and lets those that watch watch.

In a thread that gevent runs: a greenlet for each directory. In a plain program: one thread for all of them, and one for each that watches. Either ends when
its directories are no longer used. Whoever did it may be gone – a hub that was destroyed, a parent before a fork – so a call that finds a
directory overdue has it kept anew. A watch waits for years; it is ended when its directory is forgotten, or nobody refers to it any more.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from governance.discovery import Directory, Watching
from poller.clock import monotonic
from weego.tasks import hub_of_this_thread, see_end

__all__ = ["forget", "is_overdue", "keep"]

log = logging.getLogger("weego.governance")

# A directory that is overdue by so much (seconds) has nobody who keeps it.
PATIENCE: Final = 2.0
# Pauses between two attempts of a watch that failed (seconds): twice as long each time, and then at random between half of that and all, for all
# clients of a registry that restarts see that at one moment.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
# A thread looks at its directories at least so often (seconds), so that it notices when they are gone.
LONGEST_SLEEP: Final = 1.0

# Who works for each directory – greenlets, or the thread of a watch – and what ends the watch.
_refreshed: weakref.WeakKeyDictionary[Directory, Any] = weakref.WeakKeyDictionary()
_watched: weakref.WeakKeyDictionary[Directory, Any] = weakref.WeakKeyDictionary()
_ends: weakref.WeakKeyDictionary[Directory, tuple[weakref.finalize[Any, Directory], Callable[[], None]]] = weakref.WeakKeyDictionary()
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
    hub = hub_of_this_thread()
    if hub is None:
        _keep_in_thread(directory)
    elif not _is_at_work(_refreshed.get(directory)):
        import gevent

        _refreshed[directory] = gevent.spawn(_refresh_alone, reference, gevent.sleep)
    if watches and not _is_at_work(_watched.get(directory)):
        _watched[directory] = _start_watch(reference, hub)


def _start_watch(reference: weakref.ref[Directory], hub: Any) -> Any:
    """The greenlet or thread that watches from now on, until its directory is forgotten or is no more; then the resolver is closed."""
    has_ended = threading.Event()
    directory = reference()
    assert directory is not None
    resolver = directory.resolver
    started: Any
    if hub is not None:
        import gevent

        started = gevent.spawn(_watch, reference, gevent.sleep, has_ended.is_set)
    else:
        started = threading.Thread(
            target=_watch, args=(reference, has_ended.wait, has_ended.is_set), name="weego-watch", daemon=True
        )
        started.start()

    def end() -> None:
        has_ended.set()
        if hub is not None:
            _in_hub(hub, lambda: started.kill(block=False))
        _close(resolver)

    before = _ends.pop(directory, None)
    if before is not None:
        before[0].detach()
    finalizer = weakref.finalize(directory, _end_aside, end, hub)
    finalizer.atexit = False
    _ends[directory] = finalizer, end
    return started


def _end_aside(end: Callable[[], None], hub: Any) -> None:
    """The collector found that nobody uses a directory any more, in the middle of anything, perhaps with a lock held that closing wants too."""
    if hub is not None:
        end()  # takes none of them, and does not wait
    else:
        threading.Thread(target=end, name="weego-end", daemon=True).start()


def _is_at_work(it: Any) -> bool:
    """Does that greenlet or thread still do its work? One whose hub was destroyed does not."""
    if it is None or isinstance(it, threading.Thread):
        return it is not None and it.is_alive()
    return not it.dead and it.parent is not None and it.parent.loop is not None


def _in_hub(hub: Any, action: Callable[[], Any]) -> None:
    from weego.transport import in_hub_thread

    if hub.loop is not None:
        in_hub_thread(hub, action)


def _close(resolver: Any) -> None:
    close = getattr(resolver, "close", None)
    if close is not None:
        try:
            close()
        except Exception:
            log.exception("%r could not be closed", resolver)


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


def _watch(reference: weakref.ref[Directory], sleep: Any, has_ended: Callable[[], bool]) -> None:
    pause = FIRST_PAUSE
    while not has_ended() and (directory := reference()) is not None:
        resolver, started = directory.resolver, monotonic()
        directory = None
        problem = "its watch has ended"
        try:
            if isinstance(resolver, Watching):
                resolver.watch(lambda found: _publish(reference, found))
        except _Unused:
            return
        except Exception as error:
            problem = str(error) or type(error).__name__
        if has_ended() or (directory := reference()) is None:
            return
        directory.failed(problem)
        directory = None
        pause = FIRST_PAUSE if monotonic() - started > LONGEST_PAUSE else min(LONGEST_PAUSE, pause * 2)
        sleep(pause * random.uniform(0.5, 1.0))


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
    """Its user is done with it, and with its resolver. Greenlets that worked for it have ended afterwards, and closed what they had open, where that can be
    waited for: their hub may be about to be destroyed, and who is in the middle of connecting then never comes to an end.
    """
    with _lock:
        _kept.pop(directory, None)
    workers = [each for each in (_refreshed.pop(directory, None), _watched.pop(directory, None)) if each is not None]
    greenlets = [each for each in workers if not isinstance(each, threading.Thread)]
    for each in greenlets:
        _kill(each)
    known = _ends.pop(directory, None)
    if known is None:
        _close(directory.resolver)
    else:
        finalizer, end = known
        finalizer.detach()
        end()
    see_end(greenlets)


def _kill(greenlet: Any) -> None:
    if _is_at_work(greenlet):
        _in_hub(greenlet.parent, lambda: greenlet.kill(block=False))


def _after_fork() -> None:
    global _thread, _lock
    _thread = None
    _lock = threading.Lock()
    for directory in list(_kept.keys()):
        directory.due = 0.0
    _kept.clear()
    for directory, (finalizer, _) in list(_ends.items()):  # who watched is not in this process
        finalizer.detach()
        directory.due = 0.0
    for each in (_refreshed, _watched, _ends):
        each.clear()


os.register_at_fork(after_in_child=_after_fork)
