# The streams of a connection by id, and the header blocks it has seen: part of connection.pyx.

cdef enum:
    FEWEST_SLOTS = 8


cdef class Streams:
    """Open streams by id, for reading like a dict. An id is no object here: most streams come, are found once and go.

    A stream is in the slot of its id or, where that is taken, in the next free one behind it. Ids of one side rise in steps of two, so slots are
    taken one after the other.
    """

    def __cinit__(self):
        self.slots = [None] * FEWEST_SLOTS
        self.mask = FEWEST_SLOTS - 1

    cdef Stream find(self, uint32_t id):
        cdef Py_ssize_t i = (id >> 1) & self.mask
        cdef PyObject* each
        while True:
            each = PyList_GET_ITEM(self.slots, i)
            if each == <PyObject*>None:
                return None
            if (<Stream>each).id == id:
                return <Stream>each
            i = (i + 1) & self.mask

    cdef int add(self, Stream s) except -1:
        cdef Py_ssize_t i
        if (self.count + 1) * 2 > self.mask + 1:
            self.resize((self.mask + 1) * 2)
        i = (s.id >> 1) & self.mask
        while PyList_GET_ITEM(self.slots, i) != <PyObject*>None:
            i = (i + 1) & self.mask
        self.slots[i] = s
        self.count += 1
        return 0

    cdef int remove(self, Stream s) except -1:
        cdef Py_ssize_t i = (s.id >> 1) & self.mask, free, home
        cdef PyObject* each
        while PyList_GET_ITEM(self.slots, i) != <PyObject*>s:
            if PyList_GET_ITEM(self.slots, i) == <PyObject*>None:
                raise KeyError(s.id)
            i = (i + 1) & self.mask
        self.slots[i] = None
        self.count -= 1
        # Those behind it move up, unless that is before their slot: who looks for them stops where nothing is.
        free = i
        while True:
            i = (i + 1) & self.mask
            each = PyList_GET_ITEM(self.slots, i)
            if each == <PyObject*>None:
                break
            home = ((<Stream>each).id >> 1) & self.mask
            if ((i - home) & self.mask) >= ((i - free) & self.mask):
                self.slots[free] = <Stream>each
                self.slots[i] = None
                free = i
        if self.mask >= FEWEST_SLOTS and self.count * 8 < self.mask:
            self.resize((self.mask + 1) // 2)
        return 0

    cdef int resize(self, Py_ssize_t size) except -1:
        cdef list streams = self.values()
        self.slots = [None] * size
        self.mask = size - 1
        self.count = 0
        for s in streams:
            self.add(<Stream>s)
        return 0

    cpdef list values(self):
        """The streams, in no order."""
        return [each for each in self.slots if each is not None]

    def get(self, uint32_t id):
        """The stream of this id, or None."""
        return self.find(id)

    def __getitem__(self, uint32_t id):
        found = self.find(id)
        if found is None:
            raise KeyError(id)
        return found

    def __contains__(self, uint32_t id):
        return self.find(id) is not None

    def __iter__(self):
        return iter([(<Stream>each).id for each in self.values()])

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"<Streams {sorted(self)}>"


cdef class Block:
    """A header block, and what was found in it."""
