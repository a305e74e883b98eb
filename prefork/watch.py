"""Who of the workers does not turn: late, stopped, hung. What is done about it, and what is not.

    late     no beat for 1 s: looked at, logged with what it is doing
    starved  it gets no CPU: the time does not count, nobody is killed for it
    stopped  replaced at once, so that new connections have somebody; killed after ``stop_grace``. If it goes on before, it drains
    hung     no beat for ``hang_timeout`` although it could run: replaced; when the replacement is ready SIGABRT, at which
             it writes its stacks to standard error, and 1 s later SIGKILL

Rules
 1. Time counts as observed, look by look, and not by the clock: when the master did not run, neither did perhaps the
    workers, and what nobody saw is held against nobody.
 2. Replacement first. But who hangs has callers that wait: it does not outlive its time by more than as much again.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

from prefork.diagnosis import BLOCKED, SPINNING, STARVED, STOPPED, Pulse, denied, diagnose, feel
from prefork.loop import LATE_SECONDS
from prefork.primitives import monotonic, monotonic_ns
from prefork.scoreboard import BEAT_NS

if TYPE_CHECKING:
    from prefork.generation import WorkerProcess
    from prefork.loop import Loop
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: Beats come every 100 ms. Ten in a row are not missed by chance.
LATE = 1.0

#: Between two looks at the beats, while all are well and while somebody is late.
CALM_TICK, TENSE_TICK = 0.5, 0.1

#: Between SIGABRT and SIGKILL: time to write the stacks.
ABORT_DELAY = 1.0

HUNG = "hung"

_MEANING = {
    STOPPED: "stopped by a signal or a debugger",
    SPINNING: "spinning: it uses the CPU and does not come back to its loop",
    BLOCKED: "blocked: it waits for something else than its loop",
    STARVED: "starved: it gets no CPU, which is not held against it",
}


class _Case:
    """A worker that does not beat."""

    __slots__ = ("beat", "counted", "is_ending", "is_hung", "kind", "opened", "pulse", "seen")

    def __init__(self, beat: int, pulse: Pulse, counted: float) -> None:
        self.beat = beat
        """The last, as it stands in the scoreboard."""
        self.pulse = pulse
        self.opened = self.seen = monotonic()
        self.counted = counted
        """Seconds without a beat that are held against it."""
        self.kind: str | None = None
        self.is_hung = False
        self.is_ending = False


class Watch:
    """Looks at the beats of a master's workers for as long as its loop runs."""

    def __init__(self, loop: Loop, master: Master) -> None:
        self._loop = loop
        self._master = master
        self._cases: dict[WorkerProcess, _Case] = {}

    def start(self) -> None:
        """From now on."""
        self._loop.after(CALM_TICK, self._tick)

    def trouble(self, worker: WorkerProcess) -> str | None:
        """What is wrong with it, in one word; None: nothing known."""
        case = self._cases.get(worker)
        if case is None:
            return None
        return HUNG if case.is_hung else case.kind

    def on_stop(self, worker: WorkerProcess) -> None:
        """The kernel says that it was stopped, a moment ago."""
        if worker in self._cases:
            self._follow(worker, self._cases[worker])
        elif self._is_ours(worker):
            self._open(worker, 0.0)
            case = self._cases.get(worker)
            if case is not None and case.pulse.is_stopped:
                self._judge(worker, case, STOPPED)
            else:  # it goes on already
                self._cases.pop(worker, None)

    def patience(self, worker: WorkerProcess) -> float:
        """Seconds that a worker which is told to drain needs on top, for it is stopped."""
        return worker.generation.settings.stop_grace if self.trouble(worker) == STOPPED else 0.0

    def end_if_hung(self, worker: WorkerProcess) -> bool:
        """A hung worker can be spared now: end it, and let it say where it hangs. Whether it was one."""
        case = self._cases.get(worker)
        if case is None or not case.is_hung or self._has_beaten(worker, case):
            return False
        if not case.is_ending:
            case.is_ending = True
            log.error("%r still hangs: SIGABRT, its stacks follow on standard error", worker)
            worker.send(signal.SIGABRT)
            self._loop.after(ABORT_DELAY, worker.kill)
        return True

    # -- looking ----------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._master.is_stopping:  # everybody has a deadline now
            self._cases.clear()
            return
        alive = self._master.family.workers
        try:
            for worker in list(self._cases):
                if alive.get(worker.index) is not worker:
                    del self._cases[worker]
            for worker in list(alive.values()):
                self._look(worker)
        finally:  # whatever went wrong with one worker, the others are watched
            self._loop.after(TENSE_TICK if self._cases else CALM_TICK, self._tick)

    def _is_ours(self, worker: WorkerProcess) -> bool:
        """Those that boot or drain have deadlines of their own."""
        return (
            worker.is_ready
            and worker.pid is not None
            and not worker.is_draining
            and not self._master.is_stopping
            and worker.generation is self._master.current
        )

    def _look(self, worker: WorkerProcess) -> None:
        case = self._cases.get(worker)
        if case is None:
            hang_timeout = worker.generation.settings.hang_timeout
            late = min(LATE, hang_timeout / 2) if hang_timeout else LATE
            age = (monotonic_ns() - self._master.board.row(worker.index)[BEAT_NS]) / 1e9
            if age >= late and self._is_ours(worker):
                most = (
                    late + CALM_TICK
                )  # more than that nobody has seen, and before the first look even starved time counts
                self._open(worker, min(age, most, hang_timeout / 2) if hang_timeout else min(age, most))
        elif self._has_beaten(worker, case):
            self._close(worker, case)
        else:
            self._follow(worker, case)

    def _has_beaten(self, worker: WorkerProcess, case: _Case) -> bool:
        return bool(self._master.board.row(worker.index)[BEAT_NS] != case.beat)

    def _open(self, worker: WorkerProcess, counted: float) -> None:
        pulse = feel(worker.pid or 0)
        if pulse is not None:
            self._cases[worker] = _Case(self._master.board.row(worker.index)[BEAT_NS], pulse, counted)

    def _close(self, worker: WorkerProcess, case: _Case) -> None:
        """It beats again."""
        del self._cases[worker]
        if case.kind is None:
            return
        seconds = monotonic() - case.opened
        log.info("%r turns again, %.1f s later%s", worker, seconds, "; its place is taken" if worker.is_leaving else "")
        if worker.is_draining:  # from here on it has as long as any other
            self._master.family.kill_after(worker, monotonic() + worker.generation.settings.graceful_timeout)

    def _follow(self, worker: WorkerProcess, case: _Case) -> None:
        now, pulse = monotonic(), feel(worker.pid or 0)
        if pulse is None:
            return
        elapsed = now - case.seen
        kind = diagnose(case.pulse, pulse, elapsed)
        counted = elapsed if kind == STOPPED else elapsed - denied(case.pulse, pulse, elapsed)
        if elapsed > CALM_TICK + LATE_SECONDS:
            counted = min(counted, TENSE_TICK)  # rule 1
        if kind != case.kind and STOPPED in (kind, case.kind):
            case.counted = 0.0  # another measure applies
        case.seen, case.pulse = now, pulse
        case.counted += counted
        self._judge(worker, case, kind)

    # -- acting -----------------------------------------------------------------------------------------------------------

    def _judge(self, worker: WorkerProcess, case: _Case, kind: str) -> None:
        settings = worker.generation.settings
        if kind != case.kind and not case.is_hung:
            case.kind = kind
            log.warning("%r is late: %s", worker, _MEANING[kind])
        if kind == STOPPED:
            if not worker.is_leaving and not worker.is_draining:
                self._master.crew.replace_first(worker, "is stopped", "stopped")
            if case.counted >= settings.stop_grace and not worker.is_doomed:
                log.warning("%r was stopped for %.1f s: SIGKILL", worker, case.counted)
                worker.kill()
        elif settings.hang_timeout and case.counted >= settings.hang_timeout and not case.is_hung:
            case.is_hung = True
            log.error("%r hangs: its loop has not turned for %.1f s, %s", worker, case.counted, _MEANING[kind])
            if worker.is_draining:
                self.end_if_hung(worker)
            elif not worker.is_leaving:
                self._master.crew.replace_first(worker, "hangs", "hung")
        elif case.is_hung and case.counted >= 2 * settings.hang_timeout:
            self.end_if_hung(worker)  # rule 2
