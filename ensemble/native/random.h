/* Counter-based random bits, the same as those of ensemble/data/counter_random.py. */
#pragma once
#include "lanes.h"

/* SplitMix64 at the counters first .. first + count - 1 of every key, as bits [K, count]: the `part`-th of `parts` shares. */
int random_bits(const int64_t *keys, int64_t first, int64_t *bits, int K, int64_t count, int part, int parts) {
    const int64_t start = share(count, part, parts), end = share(count, part + 1, parts);
    for (int k = 0; k < K; k++) {
        uint64_t *to = (uint64_t *)bits + k * count;
        const uint64_t key = (uint64_t)keys[k] + ((uint64_t)first + 1) * 0x9E3779B97F4A7C15u;
        for (int64_t n = start; n < end; n++) {
            uint64_t z = key + (uint64_t)n * 0x9E3779B97F4A7C15u;
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
            z = (z ^ z >> 27) * 0x94D049BB133111EBu;
            to[n] = z ^ z >> 31;
        }
    }
    return 0;
}
