# cython: language_level=3, boundscheck=False, wraparound=False
"""64-bit cells that several processes may change at the same time: what policies count in.

The memory is handed in: a shared mapping where the workers of a host count together, plain memory where a process counts for itself. Every
change of a cell is atomic, so that no lock is needed which a killed worker could leave behind.
"""

cimport cython


@cython.final
cdef class Cells:
    """`count` cells of `buffer`, from number `start` on. Without a buffer: fresh ones of this process.

    Raises ValueError when the buffer is too short.
    """

    def __init__(self, buffer=None, Py_ssize_t start=0, Py_ssize_t count=-1):
        if buffer is None:
            buffer = bytearray(max(1, start + max(count, 1)) * 8)
        self.buffer = buffer
        whole = memoryview(buffer)
        if whole.format != "q":
            whole = whole.cast("B").cast("q")
        if count < 0:
            count = len(whole) - start
        if start < 0 or count < 1 or start + count > len(whole):
            raise ValueError(f"cells {start} to {start + count} are not in a buffer of {len(whole)}")
        self.view = whole[start : start + count]
        self.size = count

    cdef int64_t* at(self, Py_ssize_t index, Py_ssize_t count) except NULL:
        """The address of `count` cells from `index` on; good for as long as this object lives."""
        if index < 0 or count < 1 or index + count > self.size:
            raise IndexError(f"there is no cell {index + count - 1} among {self.size}")
        return &self.view[index]

    def load(self, Py_ssize_t index):
        """The value of a cell."""
        return load(self.at(index, 1))

    def store(self, Py_ssize_t index, int64_t value):
        """Set a cell."""
        store(self.at(index, 1), value)

    def add(self, Py_ssize_t index, int64_t amount):
        """Add to a cell; its new value."""
        return add(self.at(index, 1), amount)

    def swap(self, Py_ssize_t index, int64_t seen, int64_t value):
        """Set a cell to `value` if it still holds `seen`; whether it did."""
        return swap(self.at(index, 1), seen, value)

    def part(self, Py_ssize_t start, Py_ssize_t count):
        """Some of these cells as Cells of their own, in the same memory."""
        self.at(start, count)
        return Cells(self.view, start, count)

    def clear(self):
        """Set all to zero, one after the other."""
        cdef Py_ssize_t i
        for i in range(self.size):
            store(&self.view[i], 0)

    def __len__(self):
        return self.size

    def __repr__(self):
        return f"<Cells {self.size}>"
