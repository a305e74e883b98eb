"""What systemd is told: ready, reloading, stopping, still alive (sd_notify(3)). Elsewhere: nothing, at no cost.

Each message is one datagram to the socket named by the environment, sent without waiting. The variables are taken out of the environment, or
loader, workers and what they start would speak for the service too.
"""

from __future__ import annotations

import _socket
import array
import logging
import os
from typing import TYPE_CHECKING, Any

from prefork.activation import STORED
from prefork.primitives import SCM_RIGHTS, SOL_SOCKET, RawSocket, getpid, monotonic_ns

if TYPE_CHECKING:
    from prefork.loop import Loop

log = logging.getLogger("weego.master")


class Notifier:
    """The service's voice. ``watch`` keeps the watchdog fed for as long as the loop turns."""

    def __init__(self, plain: dict[str, Any] | None = None) -> None:
        """``plain``: what a predecessor in this process left."""
        if plain is not None:
            self._address, self.interval = plain["address"], plain["interval"]
            return
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        interval = os.environ.pop("WATCHDOG_USEC", "")
        is_ours = os.environ.pop("WATCHDOG_PID", str(getpid())) == str(getpid())
        self.interval = int(interval) / 1e6 if interval.isdigit() and is_ours else 0.0
        """Seconds in which systemd wants to hear from us; 0: it does not care."""

    @property
    def keeps_sockets(self) -> bool:
        """Whether what it is told to ``keep`` may be kept: that depends on the unit, of which we know nothing."""
        return bool(self._address)

    def leave(self) -> dict[str, Any]:
        """For a successor."""
        return {"address": self._address, "interval": self.interval}

    def watch(self, loop: Loop) -> None:
        """Say twice in each interval that the loop turns."""
        if self.interval and self._address:
            self._tell("WATCHDOG=1")
            loop.after(self.interval / 2, lambda: self.watch(loop))

    def ready(self, status: str) -> None:
        """Started, or done with a reload, however it went."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}", "STATUS=reloading")

    def keep(self, fd: int) -> None:
        """Have systemd hold a copy of a listening socket, for the next master if this one is killed (FileDescriptorStoreMax=)."""
        self._tell("FDSTORE=1", f"FDNAME={STORED}", fd=fd)

    def forget_kept(self) -> None:
        """Have it let go of all copies."""
        self._tell("FDSTOREREMOVE=1", f"FDNAME={STORED}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def _tell(self, *lines: str, fd: int = -1) -> None:
        if not self._address:
            return
        message = "\n".join(" ".join(line.splitlines()) for line in lines).encode()
        try:
            voice = RawSocket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
            try:
                rights = [(SOL_SOCKET, SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
                voice.sendmsg([message], rights, 0, self._address)
            finally:
                voice.close()
        except OSError as error:
            log.warning("systemd was not told %s: %s", lines[0], error.strerror or error)
