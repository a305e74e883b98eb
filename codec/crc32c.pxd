# cython: language_level=3
"""CRC-32C, the checksum that Kitex puts into a TTHeader."""

from libc.stdint cimport uint8_t, uint32_t


# Of `n` bytes, going on from `crc` (0 to begin).
cdef uint32_t crc32c_of(const uint8_t* p, Py_ssize_t n, uint32_t crc) noexcept nogil
