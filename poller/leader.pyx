# cython: language_level=3, boundscheck=False, wraparound=False
"""The greenlets that run the loop's turns.

A handler is called straight from the turn that read its request, in the leader of that turn. Most return without blocking, and then serving a
call has cost no switch at all: two switches a turn serve all calls in it. A handler that blocks takes the leader with it; the hub has another
one go on with the turn. When the handler is done the former leader parks itself, to lead again later.

Nothing of one call may be seen by the next in the same greenlet. Its context is the caller's business (weego.dispatch); here are the other two.
What the call, or gevent.local for it, hung on the greenlet is
cleared (attributes, `rawlink`). And a leader that someone else refers to after the call, for
example a gevent.Timeout that was never closed and will throw into it, hands the turn on and ends. That someone refers to it shows in its
reference count, so while it runs we hold exactly one reference ourselves, in `members`, and pass bare pointers around. After a call that
blocked whoever woke the leader still refers to it, and rightly: then its references are counted when it is to lead again.
"""

import logging

from cpython.ref cimport Py_XDECREF

from greenlet import GreenletExit, getcurrent

cdef extern from *:
    """
    #include "greenlet.h"
    /* Takes a bare pointer: a Cython cast to an object would count as a reference. */
    static PyObject *weego_switch(PyObject *g) { return PyGreenlet_Switch((PyGreenlet *)g, NULL, NULL); }
    """
    PyObject* weego_switch(PyObject* g) except NULL

cdef extern from "greenlet.h":
    void PyGreenlet_Import()
    bint PyGreenlet_ACTIVE(greenlet g)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* o)
    PyObject** _PyObject_GetDictPtr(object o)
    void PyDict_Clear(PyObject* d)

PyGreenlet_Import()

cdef enum:
    # Greenlets kept for re-use; each pins a 16 KiB data stack of CPython, so this bounds them to about 16 MiB.
    MOST_IDLE = 1024

log = logging.getLogger("weego.worker")


cdef class Leader(greenlet):
    def __init__(self, Leaders owner not None):
        super().__init__(run, owner.loop.hub)
        self.owner = owner

    def rawlink(self, callback):
        """gevent.local registers here what clears its data when the greenlet ends; for us that is the end of the call."""
        if self.links is None:
            self.links = []
        self.links.append(callback)

    def unlink(self, callback):
        """Take back a `rawlink`."""
        if self.links is not None and callback in self.links:
            self.links.remove(callback)

    cdef Py_ssize_t begin(self, object call) noexcept:
        self.serving = call
        return Py_REFCNT(<PyObject*>self)

    cdef int end(self, Py_ssize_t references, bint blocked) except -1:
        """The call is over: clear what it left. Returns 1 when someone still refers to this greenlet, which then ends soon."""
        cdef list links
        cdef PyObject** attributes = _PyObject_GetDictPtr(self)
        self.serving = None
        if attributes != NULL and attributes[0] != NULL:
            PyDict_Clear(attributes[0])
        if self.links is not None:
            links, self.links = self.links, None
            for callback in links:
                try:
                    callback(self)
                except Exception:
                    log.exception("clearing the local data of a call failed")
        if not blocked and Py_REFCNT(<PyObject*>self) > references:
            self.owner.members.discard(self)
            self.owner.loop.term += 1  # the turn is still ours: another one goes on with it
            return 1
        return 0


def run():
    """What a leader runs. Its stack holds no reference to it, so that it ends, by GreenletExit, when nobody refers to it any more."""
    cdef Leader self = <Leader>getcurrent()
    cdef Leaders owner = self.owner
    cdef PyObject* hub = <PyObject*>owner.loop.hub
    cdef PyObject* leader = <PyObject*>self
    self = None
    if owner.measuring:
        try:
            Py_XDECREF(weego_switch(hub))
        except GreenletExit:
            pass
        return
    while True:
        owner.chosen = NULL
        owner.current = leader
        try:
            while owner.loop.turn() and owner.loop.linger():
                pass
        except BaseException:
            log.exception("a turn of the loop failed")
        if owner.current == leader:
            owner.current = NULL
        if <object>leader not in owner.members or len(owner.idle) >= MOST_IDLE or owner.loop.epoll < 0:
            owner.members.discard(<object>leader)
            return
        owner.idle.append(<object>leader)
        while owner.chosen != leader:
            try:
                Py_XDECREF(weego_switch(hub))
            except GreenletExit:
                owner.members.discard(<object>leader)
                return
            except BaseException as error:
                # Thrown by something that outlived its call; the call it was meant for is over.
                log.debug("a parked greenlet was woken with %r", error)


cdef class Leaders(Runner):
    """The leaders of one loop, which must have a hub."""

    def __init__(self, Loop loop not None):
        self.loop = loop
        self.members = set()
        self.idle = []

    cdef int lead(self) except -1:
        cdef Leader g = None
        cdef PyObject* leader
        if self.idle_references == 0:
            self.measure()
        while self.idle:
            g = <Leader>self.idle.pop()
            if PyGreenlet_ACTIVE(g) and Py_REFCNT(<PyObject*>g) <= self.idle_references:
                break
            self.members.discard(g)
            g = None
        if g is None:
            g = Leader(self)
            self.members.add(g)
        leader = <PyObject*>g
        g = None
        self.chosen = leader
        Py_XDECREF(weego_switch(leader))
        return 0

    cdef int measure(self) except -1:
        """How often is a parked leader referred to that has served nobody? By `g` here, and by `members`."""
        cdef Leader g = Leader(self)
        self.measuring = True
        try:
            Py_XDECREF(weego_switch(<PyObject*>g))
            self.idle_references = Py_REFCNT(<PyObject*>g) + 1
        finally:
            g = None
            self.measuring = False
        return 0

    cdef int close(self) except -1:
        """Those that are parked end, those that serve a call end after it."""
        self.members.difference_update(self.idle)
        self.idle.clear()
        return 0

    def __repr__(self):
        return f"<Leaders {len(self.members)}, {len(self.idle)} idle>"
