"""The shared pool: a few connections to each address, each with many calls under way (Kitex: `WithMuxConnection`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Protocol

from codec.errors import ClosedError, DeadlineExceeded, Unavailable
from governance.call import Call
from poller.address import Address
from poller.clock import monotonic
from poller.loop import loop_of
from poller.pool import PoolStatistics
from weego.heartbeat import ALIVE, Hearts, HubBeat, ThreadBeat
from weego.transport import PoolLimits, in_hub_thread

__all__ = ["SharedBlockingTransport", "SharedHubTransport", "Sharing"]

# Connections tried for one call, where each turned out to have ended before the first byte left.
_MOST_TRIES = 3


class Sharing(Protocol):
    """What a protocol that multiplexes brings along: its connections, and how a call goes over one."""

    limits: PoolLimits

    def share_with_hub(self, loop: Any, address: Address, deadline: float, ended: Callable[[Any], None]) -> Any:
        """A new connection in `loop`; `ended(connection)` is told when it takes no more calls."""

    def share_blocking(self, address: Address, deadline: float) -> Any:
        """A new connection for all threads."""

    def exchange(self, connection: Any, call: Call, args: tuple[Any, ...]) -> Any:
        """Send the call, wait for the answer."""

    def result(self, call: Call, answer: Any) -> Any:
        """The value in an answer, or what it says went wrong, raised."""

    def hearts(self) -> Hearts | None:
        """Who asks peers of silent connections whether they are there; None: nobody does."""


class _Slot:
    """One place for a connection to an address, and who is making it."""

    __slots__ = ("connection", "lock")

    def __init__(self, lock: Any) -> None:
        self.connection: Any = None
        self.lock = lock


class _Sharing:
    """What both transports share: `connections` slots for each address, taken in turn, filled when a call wants one."""

    def __init__(self, channel: Sharing, connections: int) -> None:
        self._channel = channel
        self._connections = connections
        self._slots: dict[str, list[_Slot]] = {}
        self._turn = count()
        self._closed = False
        self._reused = self._dead = 0
        self._hearts = channel.hearts()
        self._beat: HubBeat | ThreadBeat | None = None

    def call(self, call: Call, address: Address, args: tuple[Any, ...]) -> Any:
        """One attempt; see Transport."""
        for tries in range(_MOST_TRIES):
            if self._closed:
                raise ClosedError("the client is closed")
            try:
                answer = self._channel.exchange(self._connection(call, address), call, args)
            except Unavailable as error:
                if error.sent or tries == _MOST_TRIES - 1:
                    raise
            else:
                return self._channel.result(call, answer)
        raise AssertionError("unreachable")

    def _connection(self, call: Call, address: Address) -> Any:
        slots = self._slots_of(address)
        slot = slots[next(self._turn) % len(slots)]
        connection = slot.connection
        if connection is not None and connection.is_alive():
            self._reused += 1
            return connection
        return self._fill(slot, address, self._channel.limits.connect_deadline(call.deadline or 0.0))

    def _slots_of(self, address: Address) -> list[_Slot]:
        slots = self._slots.get(address.text)
        if slots is None:
            made = [_Slot(self._new_lock()) for _ in range(self._connections)]
            slots = self._slots.setdefault(address.text, made)
        return slots

    def _fill(self, slot: _Slot, address: Address, deadline: float) -> Any:
        """The slot's connection, made if need be by `deadline`."""
        # One connects, the others that want this slot wait for it.
        if not slot.lock.acquire(timeout=max(0.0, deadline - monotonic())):
            raise DeadlineExceeded(f"no connection to {address.text} in time", instance=address.text)
        try:
            connection = slot.connection
            if connection is None or not connection.is_alive():
                if connection is not None:
                    self._dead += 1
                    connection.close_soon()
                connection = slot.connection = self._connect(address, deadline)
                if self._closed:
                    connection.close()
                    raise ClosedError("the client is closed")
                if self._beat is not None:
                    self._beat.start()
            return connection
        finally:
            slot.lock.release()

    def _new_lock(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def _connect(self, address: Address, deadline: float) -> Any:
        raise NotImplementedError

    def _ask_all(self) -> bool:
        """Ask the peers of connections that were silent for long. Calls may be under way there: only who is known to answer is asked among them.

        False: there is no connection left to ask.
        """
        hearts = self._hearts
        assert hearts is not None
        left = False
        for connection in self._all():
            if self._closed or not connection.is_alive():
                continue
            left = True
            silent = connection.silence() >= hearts.interval and hearts.wanted(connection.address)
            if silent and (not len(connection) or hearts.answers(connection.address)) and hearts.ask(connection) != ALIVE:
                self._dead += 1
                connection.give_up(Unavailable(f"{connection.address} did not answer a heartbeat", instance=connection.address))
        return left and not self._closed

    def _all(self) -> list[Any]:
        return [slot.connection for slots in list(self._slots.values()) for slot in slots if slot.connection is not None]

    def warm_up(self, address: Address, count: int, deadline: float) -> int:
        """Fill the slots of `address`; see Transport."""
        before = len(self._all())
        for slot in self._slots_of(address)[:count]:
            self._fill(slot, address, self._channel.limits.connect_deadline(deadline))
        return len(self._all()) - before

    def forget(self, address: str) -> None:
        """See Transport. Calls under way on them finish."""
        slots = self._slots.pop(address, ())
        self._in_its_thread(lambda: [slot.connection.close_soon() for slot in slots if slot.connection is not None])

    def _in_its_thread(self, action: Callable[[], Any]) -> None:
        action()

    def statistics(self) -> PoolStatistics:
        """Of the connections; `idle` are those that are open."""
        return PoolStatistics(sum(each.is_alive() for each in self._all()), self._reused, self._dead, 0, 0, kind="shared")


class SharedHubTransport(_Sharing):
    """Waits with a gevent hub. Belongs to the hub's thread."""

    def __init__(self, channel: Sharing, connections: int, hub: Any) -> None:
        super().__init__(channel, connections)
        self.hub = hub
        self.loop = loop_of(hub)
        if self._hearts is not None:
            self._beat = HubBeat(self.loop, self._hearts.interval, self._ask_all)

    def _new_lock(self) -> Any:
        from gevent.lock import BoundedSemaphore

        return BoundedSemaphore(1)

    def _connect(self, address: Address, deadline: float) -> Any:
        return self._channel.share_with_hub(self.loop, address, deadline, self._ended)

    def _in_its_thread(self, action: Callable[[], Any]) -> None:
        in_hub_thread(self.hub, action)

    def _ended(self, connection: Any) -> None:
        for slot in self._slots.get(connection.address, ()):
            if slot.connection is connection:
                slot.connection = None

    def after_fork(self) -> None:
        """The loop closes our copies of the descriptors; a new one is made when the next call asks for it."""
        self.loop.close()

    def close(self) -> None:
        """Close all connections when their calls end. From another thread: soon."""
        self._closed = True
        in_hub_thread(self.hub, self._close)

    def _close(self) -> None:
        if self._beat is not None:
            self._beat.stop()
        for connection in self._all():
            connection.close_soon()


class SharedBlockingTransport(_Sharing):
    """Waits in the thread itself; any thread may call."""

    def __init__(self, channel: Sharing, connections: int) -> None:
        super().__init__(channel, connections)
        if self._hearts is not None:
            self._beat = ThreadBeat(self._hearts.interval, self._ask_all)

    def _new_lock(self) -> Any:
        return threading.Lock()

    def _connect(self, address: Address, deadline: float) -> Any:
        return self._channel.share_blocking(address, deadline)

    def after_fork(self) -> None:
        """The threads that used them are not here: our copies of the descriptors are closed as they are."""
        self._closed = True
        for connection in self._all():
            connection.abandon()

    def close(self) -> None:
        """Close all connections when their calls end."""
        self._closed = True
        if self._beat is not None:
            self._beat.stop()
        for connection in self._all():
            connection.close_soon()
