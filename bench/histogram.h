/* A histogram of nanoseconds with buckets that grow with the value, after the idea of HdrHistogram.
 *
 * Values below 128 have a bucket each; above, each power of two is cut into 64 buckets, so that a bucket is never wider
 * than 1/64 of its value (1.6 %). A percentile is reported as the upper edge of its bucket: never too good.
 */
#ifndef WEEGO_BENCH_HISTOGRAM_H
#define WEEGO_BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    SUB_BITS = 6,
    SUB_COUNT = 1 << SUB_BITS,
    BUCKETS = (64 - SUB_BITS) * SUB_COUNT + SUB_COUNT,
};

struct histogram {
    uint64_t count, sum, min, max;
    uint64_t buckets[BUCKETS];
};

static inline unsigned bucket_of(uint64_t value) {
    if (value < 2 * SUB_COUNT) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift << SUB_BITS) + (unsigned)(value >> shift);
}

static inline uint64_t upper_edge(unsigned bucket) {
    if (bucket < 2 * SUB_COUNT) return bucket;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    uint64_t top = bucket - (shift << SUB_BITS);
    return ((top + 1) << shift) - 1;
}

static inline void record(struct histogram *h, uint64_t value) {
    if (h->count == 0 || value < h->min) h->min = value;
    if (value > h->max) h->max = value;
    h->count++;
    h->sum += value;
    h->buckets[bucket_of(value)]++;
}

/* The smallest value that at least `share` (0 to 1) of all values do not exceed; 0 when there are none. */
static inline uint64_t percentile(const struct histogram *h, double share) {
    double exact = share * (double)h->count;
    uint64_t rank = (uint64_t)exact, seen = 0;
    if ((double)rank < exact || rank == 0) rank++;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank && h->count > 0) return upper_edge(i) < h->max ? upper_edge(i) : h->max;
    }
    return h->max;
}

#endif
