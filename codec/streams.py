"""What a client holds of a call that sends or receives more than one message.

The transports implement these; emitted clients name them. Iterating waits for the next message, ends when the peer has
finished well and raises RpcError when the call failed. Leaving a `with` block before the end cancels the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self, TypeVar

__all__ = ["BidiStream", "ClientStream", "ServerStream"]

_Request_contra = TypeVar("_Request_contra", contravariant=True)
_Reply_co = TypeVar("_Reply_co", covariant=True)


class _Stream(Protocol):
    def cancel(self) -> None:
        """Give the call up; the peer is told. Does nothing after the end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class _Sending(_Stream, Protocol[_Request_contra]):
    def send(self, request: _Request_contra, /) -> None:
        """Send one message; waits while the peer is slow. RpcError when the call has ended."""

    def close_send(self) -> None:
        """Say that no more messages follow."""


class ServerStream(_Stream, Protocol[_Reply_co]):
    """One request, many replies: iterate."""

    def __iter__(self) -> Iterator[_Reply_co]: ...

    def __next__(self) -> _Reply_co: ...


class ClientStream(_Sending[_Request_contra], Protocol[_Request_contra, _Reply_co]):
    """Many requests, one reply: `send`, then `result`."""

    def result(self) -> _Reply_co:
        """The reply; says `close_send` if that was not said yet, and waits."""


class BidiStream(_Sending[_Request_contra], Protocol[_Request_contra, _Reply_co]):
    """Many requests, many replies, in any order: `send` and iterate."""

    def __iter__(self) -> Iterator[_Reply_co]: ...

    def __next__(self) -> _Reply_co: ...
