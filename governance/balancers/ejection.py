"""Leave out who fails while the others do not: outlier ejection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from governance.call import Call
from governance.instance import NOBODY, Balancer, Instance, Observing
from poller.clock import monotonic

__all__ = ["Ejection"]

# Envoy's defaults for its outlier detection: five failures in a row, 30 s for the first time, at most 300 s. Ours is shorter to begin with, because one
# call is enough to find out, and that one is tried elsewhere where it may be.
DEFAULT_FAILURES: Final = 5
DEFAULT_SECONDS: Final = 5.0
DEFAULT_MOST_SECONDS: Final = 120.0
DEFAULT_MOST_SHARE: Final = 0.5


class _Record:
    __slots__ = ("in_a_row", "is_out", "probe_out", "times", "until")

    def __init__(self) -> None:
        self.in_a_row = 0
        self.times = 0
        self.until = 0.0
        self.is_out = False
        self.probe_out = False


class Ejection:
    """`inner` without the instances of which `failures` attempts in a row failed.

    An instance is left out for `seconds`, twice as long each further time, `most_seconds` at most. Then one call goes to it; when that goes well
    it is back. Never more than `most_share` of all instances are left out, and never the last one: if most of them fail,
    the trouble is elsewhere. `on_change(instance, "ejected" or "restored")` hears of it.
    """

    def __init__(
        self,
        inner: Balancer,
        *,
        failures: int = DEFAULT_FAILURES,
        seconds: float = DEFAULT_SECONDS,
        most_seconds: float = DEFAULT_MOST_SECONDS,
        most_share: float = DEFAULT_MOST_SHARE,
        clock: Callable[[], float] = monotonic,
        on_change: Callable[[Instance, str], object] | None = None,
    ) -> None:
        if failures < 1 or seconds <= 0 or most_seconds < seconds or not 0 <= most_share <= 1:
            raise ValueError("ejection needs failures ≥ 1, 0 < seconds ≤ most_seconds and a most_share from 0 to 1")
        self.inner = inner
        self.failures = failures
        self.seconds = seconds
        self.most_seconds = most_seconds
        self.most_share = most_share
        self._clock = clock
        self._on_change = on_change
        self._instances: dict[str, Instance] = {}
        self._records: dict[str, _Record] = {}
        self._out: dict[str, _Record] = {}
        self._observing = inner if isinstance(inner, Observing) else None

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on; the record of those that stay is kept."""
        self._instances = {each.address: each for each in instances}
        self._records = {address: self._records.get(address) or _Record() for address in self._instances}
        self._out = {address: record for address, record in self._records.items() if record.is_out}
        self.inner.update(instances)

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """One that is not left out; one that is, when it is due for a try or when there is no other."""
        if not self._out:
            return self.inner.pick(call, avoid)
        now = self._clock()
        for address, record in list(self._out.items()):
            if now >= record.until and not record.probe_out and address not in avoid and address in self._instances:
                record.probe_out = True
                return self._instances[address]
        return self.inner.pick(call, self._out.keys() | avoid) or self.inner.pick(call, avoid)

    def begin(self, instance: Instance) -> None:
        """An attempt begins."""
        if self._observing is not None:
            self._observing.begin(instance)

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        """It is over."""
        if self._observing is not None:
            self._observing.end(instance, seconds, failed)
        record = self._records.get(instance.address)
        if record is None:
            return
        if not failed:
            record.in_a_row = 0
            if record.is_out and record.probe_out:
                self._restore(instance, record)
            return
        record.in_a_row += 1
        if record.is_out:
            if record.probe_out:
                self._eject(instance, record)
        elif record.in_a_row >= self.failures and len(self._out) < self.most_out:
            self._eject(instance, record)

    @property
    def most_out(self) -> int:
        """How many may be left out at one time."""
        count = len(self._instances)
        return min(count - 1, max(1, int(count * self.most_share))) if self.most_share and count else 0

    @property
    def ejected(self) -> list[str]:
        """Addresses of those left out now."""
        return list(self._out)

    def _eject(self, instance: Instance, record: _Record) -> None:
        record.until = self._clock() + min(self.most_seconds, self.seconds * 2.0 ** min(record.times, 60))
        record.times += 1
        record.probe_out = False
        self._out[instance.address] = record
        if not record.is_out:
            record.is_out = True
            self._tell(instance, "ejected")

    def _restore(self, instance: Instance, record: _Record) -> None:
        record.is_out = record.probe_out = False
        record.times = 0
        self._out.pop(instance.address, None)
        self._tell(instance, "restored")

    def _tell(self, instance: Instance, what: str) -> None:
        if self._on_change is not None:
            self._on_change(instance, what)
