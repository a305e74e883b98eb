"""Several things at a time, as the program does that: greenlets where a gevent hub is at work in this thread, else threads."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from governance.retry import Task, Tasks

__all__ = ["hub_of_this_thread", "see_end", "sleep", "tasks"]


# Seconds. A greenlet that is killed ends at its next turn, unless it catches that.
ENDING: Final = 1.0


def hub_of_this_thread() -> Any:
    """gevent's hub of this thread, or None where gevent is not at work."""
    local = sys.modules.get("gevent._hub_local")
    return None if local is None else local.get_hub_if_exists()


def tasks() -> Tasks:
    """Those of this thread."""
    return _threads if hub_of_this_thread() is None else _greenlets


def sleep(seconds: float) -> None:
    """Wait; other greenlets go on meanwhile."""
    tasks().sleep(seconds)


def see_end(greenlets: Sequence[Any]) -> None:
    """Wait until greenlets that were killed have ended, if they are of this thread's hub, and neither that nor one of them is what runs."""
    if greenlets:
        import gevent

        hub, current = hub_of_this_thread(), gevent.getcurrent()
        mine = [each for each in greenlets if each.parent is hub]
        if mine and current is not hub and current not in mine:
            gevent.joinall(mine, timeout=ENDING)


class _Outcome:
    """What came of running something."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._value: Any = None
        self._error: BaseException | None = None
        self.done = False

    def run(self) -> None:
        try:
            self._value = self._run()
        except BaseException as error:
            self._error = error
        finally:
            self.done = True

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """A thread cannot be interrupted: it ends with its call, at the deadline at the latest, and nobody looks at what it brings."""


class _GreenletTask(_Outcome):
    def __init__(self, run: Callable[[], Any]) -> None:
        import gevent

        super().__init__(run)
        self.greenlet = gevent.spawn(self.run)

    def cancel(self) -> None:
        self.greenlet.kill(block=False)


class Greenlets:
    """With gevent's hub."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        import gevent

        gevent.sleep(seconds)

    def start(self, run: Callable[[], Any]) -> Task:
        """In a greenlet of its own."""
        return _GreenletTask(run)

    def wait(self, tasks: list[Task], seconds: float | None) -> Task | None:
        """The first to be over."""
        import gevent

        for task in tasks:
            if task.done:
                return task
        gevent.wait([task.greenlet for task in tasks if isinstance(task, _GreenletTask)], timeout=seconds, count=1)
        return next((task for task in tasks if task.done), None)


class _ThreadTask(_Outcome):
    def __init__(self, run: Callable[[], Any], over: threading.Condition) -> None:
        super().__init__(run)
        self._over = over
        threading.Thread(target=self._tell, name="weego-attempt", daemon=True).start()

    def _tell(self) -> None:
        self.run()
        with self._over:
            self._over.notify_all()


class Threads:
    """Without a hub."""

    def __init__(self) -> None:
        self._over = threading.Condition()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def start(self, run: Callable[[], Any]) -> Task:
        """In a thread of its own."""
        return _ThreadTask(run, self._over)

    def wait(self, tasks: list[Task], seconds: float | None) -> Task | None:
        """The first to be over."""
        with self._over:
            self._over.wait_for(lambda: any(task.done for task in tasks), seconds)
        return next((task for task in tasks if task.done), None)


_greenlets = Greenlets()
_threads = Threads()
