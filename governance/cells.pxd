# cython: language_level=3
"""64-bit cells that several processes may change at the same time."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline int64_t weego_cell_load(int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void weego_cell_store(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int64_t weego_cell_add(int64_t *p, int64_t n) { return __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL); }
    static inline int weego_cell_swap(int64_t *p, int64_t seen, int64_t v) {
        return __atomic_compare_exchange_n(p, &seen, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    int64_t load "weego_cell_load"(int64_t* cell) noexcept nogil
    void store "weego_cell_store"(int64_t* cell, int64_t value) noexcept nogil
    int64_t add "weego_cell_add"(int64_t* cell, int64_t amount) noexcept nogil
    # Puts `value` into the cell if it still holds `seen`; says whether it did.
    bint swap "weego_cell_swap"(int64_t* cell, int64_t seen, int64_t value) noexcept nogil


cdef class Cells:
    cdef object buffer
    cdef int64_t[::1] view
    cdef readonly Py_ssize_t size

    cdef int64_t* at(self, Py_ssize_t index, Py_ssize_t count) except NULL
