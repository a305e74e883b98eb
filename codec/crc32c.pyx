# cython: language_level=3, boundscheck=False, wraparound=False
"""CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum that Kitex puts into a TTHeader (`pkg/remote/codec/validate.go`).

x86-64 and ARM have an instruction for it, eight bytes a cycle or three; where the processor lacks it, eight tables of 256 numbers do.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef extern from *:
    """
    static uint32_t weego_crc_tables[8][256];

    static void weego_crc_prepare(void) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? (c >> 1) ^ 0x82F63B78u : c >> 1;
            weego_crc_tables[0][i] = c;
        }
        for (uint32_t i = 0; i < 256; i++)
            for (int t = 1; t < 8; t++)
                weego_crc_tables[t][i] = (weego_crc_tables[t - 1][i] >> 8) ^ weego_crc_tables[0][weego_crc_tables[t - 1][i] & 0xFF];
    }

    static uint32_t weego_crc_by_tables(uint32_t c, const uint8_t *p, size_t n) {
        for (; n >= 8; n -= 8, p += 8) {
            c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            c = weego_crc_tables[7][c & 0xFF] ^ weego_crc_tables[6][c >> 8 & 0xFF] ^ weego_crc_tables[5][c >> 16 & 0xFF]
                ^ weego_crc_tables[4][c >> 24] ^ weego_crc_tables[3][p[4]] ^ weego_crc_tables[2][p[5]]
                ^ weego_crc_tables[1][p[6]] ^ weego_crc_tables[0][p[7]];
        }
        for (; n; n--, p++)
            c = (c >> 8) ^ weego_crc_tables[0][(c ^ *p) & 0xFF];
        return c;
    }

    #if defined(__x86_64__)
    #include <nmmintrin.h>
    __attribute__((target("sse4.2")))
    static uint32_t weego_crc_by_processor(uint32_t c, const uint8_t *p, size_t n) {
        uint64_t wide = c;
        for (; n >= 8; n -= 8, p += 8) {
            uint64_t word;
            __builtin_memcpy(&word, p, 8);
            wide = _mm_crc32_u64(wide, word);
        }
        c = (uint32_t)wide;
        for (; n; n--, p++)
            c = _mm_crc32_u8(c, *p);
        return c;
    }
    #define weego_crc_has_instruction() __builtin_cpu_supports("sse4.2")
    #else
    #define weego_crc_by_processor weego_crc_by_tables
    #define weego_crc_has_instruction() 0
    #endif
    """
    void prepare "weego_crc_prepare"() noexcept nogil
    uint32_t by_tables "weego_crc_by_tables"(uint32_t c, const uint8_t* p, size_t n) noexcept nogil
    uint32_t by_processor "weego_crc_by_processor"(uint32_t c, const uint8_t* p, size_t n) noexcept nogil
    int has_instruction "weego_crc_has_instruction"() noexcept nogil

prepare()
cdef bint native = has_instruction() != 0


cdef uint32_t crc32c_of(const uint8_t* p, Py_ssize_t n, uint32_t crc) noexcept nogil:
    crc = ~crc
    crc = by_processor(crc, p, n) if native else by_tables(crc, p, n)
    return ~crc


def crc32c(const uint8_t[::1] data not None, uint32_t crc=0):
    """CRC-32C of `data`, going on from `crc`: ``crc32c(b"123456789") == 0xE3069283``."""
    return crc32c_of(&data[0], data.shape[0], crc) if data.shape[0] else crc


def _by_tables(const uint8_t[::1] data not None, uint32_t crc=0):
    """The same without the processor's instruction, for tests."""
    return <uint32_t>~by_tables(<uint32_t>~crc, &data[0], data.shape[0]) if data.shape[0] else crc
