"""A worker calls itself before it says that it is ready.

A process that has come as far as its loop can still be one that answers nobody: a library has patched away what the loop stands on, a sandbox forbids a
system call, the hub is held by a greenlet of the user's. So a heartbeat of TTHeader goes over a pair of sockets through the same loop, detection,
codec and output as any call. It reaches no handler, no limit, no log and no counter, which are the user's and the operator's.

A generation is switched in when its workers are ready, so a reload, too, goes on only to code that has answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Final

import gevent
from gevent import socket

from codec.buffer import ReadBuffer, WriteBuffer
from codec.thrift import ThriftClientProtocol
from prefork.application import LoadError
from weego.serving import Serving

__all__ = ["call_self"]

SEQID: Final = 1


def call_self(serving: Serving, patience: float) -> None:
    """Return once `serving` has answered. LoadError when it does not within `patience` seconds, or with something else.

    A protocol of the user's (`weego.extend`) that takes such bytes for its own gets no call that it does not know: then nothing is asked.
    """
    client, out, got = ThriftClientProtocol("ttheader"), WriteBuffer(), ReadBuffer()
    client.write_heartbeat(SEQID, out)
    question = out.take()
    if serving.is_taken_by_others(question):
        return
    begun = time.monotonic()
    ours, theirs = socket.socketpair()
    with ours:
        serving.take(theirs.detach())
        replies: Sequence[object] = ()
        try:
            with gevent.Timeout(patience, TimeoutError(f"no answer within {patience:g} s")):
                ours.sendall(question)
                while not replies:
                    data = ours.recv(4096)
                    if not data:
                        raise ConnectionResetError("the connection was closed without an answer")
                    got.write(data)
                    replies = client.feed(got)
                ours.shutdown(socket.SHUT_WR)
                while ours.recv(4096):  # until the loop has let go of its end, so that a stop finds no connection of ours to cut off
                    pass
        except Exception as error:
            raise LoadError(
                f"the worker does not answer a call to itself ({type(error).__name__}: {error}, after {time.monotonic() - begun:.1f} s, "
                f"pid {os.getpid()}): see what the services' modules and constructors do to sockets, to gevent and to the loop"
            ) from error
