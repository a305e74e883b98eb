"""When to try again: the delay before a slot's next worker, and when to give up at start-up.

Numbers: a first death is replaced at once (a crash once a week deserves no penalty). A worker that dies young earns
0.1 s, doubled with each death up to 5 s and spread by 20 % so that slots do not crash in step: at most 8 boots of a slot
in the first 5 s of a crash loop, one every 5 s after. 30 s of health clear the record.

A worker that served and that somebody else killed has not crashed, and a delay would only punish those who call it: it is replaced at once,
however young it was. Somebody who goes on killing is not kept company for ever: 30 in a minute are forgiven, for a boot costs about 30 ms of CPU;
those beyond count as crashes do.
"""

from __future__ import annotations

import os
from collections import deque

from prefork.primitives import monotonic

FIRST_DELAY = 0.1
MAX_DELAY = 5.0
SPREAD = 0.2
MIN_UPTIME = 5.0
HEALTHY_UPTIME = 30.0

#: Kills by others that a slot is forgiven in so many seconds.
FORGIVEN_KILLS = 30
FORGIVEN_SECONDS = 60.0

#: Boot failures in a row, with no worker ready, after which a server that never served gives up.
START_UP_FAILURES = 5


class Backoff:
    """The record of one slot (or of the loader)."""

    def __init__(self, *, first_delay: float = FIRST_DELAY, max_delay: float = MAX_DELAY) -> None:
        self.young_deaths = 0
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._kills: deque[float] = deque(maxlen=FORGIVEN_KILLS)
        """When somebody else killed its workers, the last ones."""

    def died(self, uptime: float) -> float:
        """Note a death after ``uptime`` seconds; the seconds to wait before the replacement starts."""
        if uptime >= HEALTHY_UPTIME:
            self.young_deaths = 0
        if uptime >= MIN_UPTIME:
            return 0.0
        self.young_deaths += 1
        if self.young_deaths == 1:
            return 0.0
        exponent = min(self.young_deaths - 2, 32)
        delay = min(self._first_delay * 2.0**exponent, self._max_delay)
        # not the random module, which costs the master half a megabyte
        return delay * (1 - SPREAD + 2 * SPREAD * os.urandom(1)[0] / 255)

    def forgives(self, now: float | None = None) -> bool:
        """Note that somebody else killed a worker that served; whether that need not count as a death of its own."""
        now = monotonic() if now is None else now
        is_full = len(self._kills) == FORGIVEN_KILLS and now - self._kills[0] < FORGIVEN_SECONDS
        self._kills.append(now)
        return not is_full
