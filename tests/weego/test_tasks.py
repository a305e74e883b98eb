"""Several things at a time, with greenlets and with threads: the same words, the same outcomes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import gevent
import pytest

from tests.support.net import with_hub, without_hub
from weego.tasks import tasks

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


@BOTH
def test_the_first_to_be_over(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        crew = tasks()
        go = threading.Event()

        def slow() -> str:
            while not go.is_set():
                crew.sleep(0.005)
            return "slow"

        late, quick = crew.start(slow), crew.start(lambda: "quick")
        assert crew.wait([late, quick], 20) is quick
        assert quick.result() == "quick"
        assert crew.wait([late], 0.01) is None
        assert not late.done
        go.set()
        assert crew.wait([late], None) is late
        assert late.result() == "slow"

    run()


@BOTH
def test_what_was_raised_is_raised_where_it_is_looked_at(decorate: Decorator, capfd: pytest.CaptureFixture[str]) -> None:
    @decorate
    def run() -> None:
        crew = tasks()
        task = crew.start(lambda: 1 // 0)
        assert crew.wait([task], 20) is task
        with pytest.raises(ZeroDivisionError):
            task.result()

    run()
    assert "Traceback" not in capfd.readouterr().err


@with_hub
def test_a_greenlet_that_is_given_up_ends_where_it_waits() -> None:
    crew, ended = tasks(), []

    def wait() -> None:
        try:
            gevent.sleep(60)
        finally:
            ended.append(True)

    task = crew.start(wait)
    gevent.sleep(0)
    task.cancel()
    assert crew.wait([task], 20) is task
    assert ended == [True]
