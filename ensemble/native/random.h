/* Counter-based random numbers, to the bit those of ensemble/data/counter_random.py. */
#pragma once
#include "lanes.h"

#define GAMMA 0x9E3779B97F4A7C15u

/* SplitMix64: what it makes of a state, as a signed number. */
INLINE int64_t mixed(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (int64_t)(z ^ z >> 31);
}

/* Numbers in [-1, 1) at the counters starts[n] .. starts[n] + count - 1 of every key, as doubles [N, K, count] or, where
 * these are null, floats. */
typedef struct {
    const int64_t *keys, *starts;
    double *doubles;
    float *floats;
    int N, K;
    int64_t count;
} Uniform;

int signed_uniform(const void *given, int part, int parts) {
    const Uniform *u = given;
    double *doubles = u->doubles;
    float *floats = u->floats;
    const int64_t count = u->count, begin = share(count, part, parts), end = share(count, part + 1, parts);
    for (int64_t row = 0; row < (int64_t)u->N * u->K; row++) {
        const uint64_t first = (uint64_t)u->keys[row % u->K] + ((uint64_t)u->starts[row / u->K] + 1) * GAMMA;
        if (doubles)
            for (int64_t c = begin; c < end; c++)
                doubles[row * count + c] = (double)(mixed(first + (uint64_t)c * GAMMA) >> 11) * 0x1p-52;
        else
            for (int64_t c = begin; c < end; c++)
                floats[row * count + c] = (float)(int32_t)(mixed(first + (uint64_t)c * GAMMA) >> 40) * 0x1p-23f;
    }
    return 0;
}

/* 64 random bits at the same counters: [N, K, count]. */
typedef struct {
    const int64_t *keys, *starts;
    int64_t *bits;
    int N, K;
    int64_t count;
} Bits;

int random_bits(const void *given, int part, int parts) {
    const Bits *b = given;
    const int64_t count = b->count, begin = share(count, part, parts), end = share(count, part + 1, parts);
    for (int64_t row = 0; row < (int64_t)b->N * b->K; row++) {
        const uint64_t first = (uint64_t)b->keys[row % b->K] + ((uint64_t)b->starts[row / b->K] + 1) * GAMMA;
        for (int64_t c = begin; c < end; c++)
            b->bits[row * count + c] = mixed(first + (uint64_t)c * GAMMA);
    }
    return 0;
}
