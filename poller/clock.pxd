# cython: language_level=3
"""The one clock: CLOCK_MONOTONIC, which no one can set."""

cdef extern from *:
    """
    #include <time.h>
    static inline double weego_monotonic(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    """
    # Seconds, comparable with time.monotonic().
    double monotonic "weego_monotonic"() noexcept nogil
