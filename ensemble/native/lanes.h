/* Vector registers: their lanes, masks and shuffles, and how many of them a tile of sums takes. */
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Registers: a tile holds TILE_MAPS x TILE_VECTORS sums, or up to TILE_WEIGHTS sums of weight gradients. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE_VECTORS 4
#define TILE_MAPS 6
#define TILE_WEIGHTS 25
#elif defined(__AVX__)
#define LANES 8
#define TILE_VECTORS 2
#define TILE_MAPS 6
#define TILE_WEIGHTS 10
#else
#define LANES 4
#define TILE_VECTORS 4
#define TILE_MAPS 5
#define TILE_WEIGHTS 20
#endif
#define IMAGES 64 /* whose gradients are summed in one go, so that their rows stay in the caches */

/* CASE(maps, vectors) for every number of maps that a tile may have; then for every size of a tile. */
#if TILE_MAPS > 5
#define EACH_MAPS(CASE, vectors) CASE(1, vectors) CASE(2, vectors) CASE(3, vectors) CASE(4, vectors) CASE(5, vectors) CASE(6, vectors)
#else
#define EACH_MAPS(CASE, vectors) CASE(1, vectors) CASE(2, vectors) CASE(3, vectors) CASE(4, vectors) CASE(5, vectors)
#endif
#if TILE_VECTORS > 2
#define EACH_TILE(CASE) EACH_MAPS(CASE, 1) EACH_MAPS(CASE, 2) EACH_MAPS(CASE, 4)
#else
#define EACH_TILE(CASE) EACH_MAPS(CASE, 1) EACH_MAPS(CASE, 2)
#endif

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int8_t bvec __attribute__((vector_size(LANES), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

/* Strides in numbers. */
typedef struct {
    int I, O, H, W, B, KH, KW, pad_y, pad_x;
    int64_t w_out, w_in, w_row, w_column;
} Shape;

/* Yes or no for every lane. Of the second form compilers make poor code for processors with masks. */
#if defined(__AVX512F__)
typedef __mmask16 mask;
INLINE mask above(const vec a, const vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE mask no_number(const vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
INLINE mask equal(const ivec a, int b) { return _mm512_cmpeq_epi32_mask((__m512i)a, _mm512_set1_epi32(b)); }
INLINE vec pick(mask m, const vec a, const vec b) { return _mm512_mask_mov_ps(b, m, a); }
INLINE vec where(mask m, const vec a) { return _mm512_maskz_mov_ps(m, a); }
INLINE ivec pick_place(mask m, int a, const ivec b) {
    return (ivec)_mm512_mask_mov_epi32((__m512i)b, m, _mm512_set1_epi32(a));
}
#else
typedef ivec mask;
INLINE mask above(const vec a, const vec b) { return a > b; }
INLINE mask no_number(const vec a) { return a != a; }
INLINE mask equal(const ivec a, int b) { return a == b; }
#if defined(__AVX2__)
INLINE vec pick(mask m, const vec a, const vec b) { return (vec)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m); }
#else
INLINE vec pick(mask m, const vec a, const vec b) { return (vec)((m & (ivec)a) | (~m & (ivec)b)); }
#endif
INLINE vec where(mask m, const vec a) { return (vec)(m & (ivec)a); }
INLINE ivec pick_place(mask m, int a, const ivec b) { return (m & a) | (~m & b); }
#endif

/* Places in a window, kept as a byte each. Here too some compilers need help. */
#if defined(__AVX512F__)
INLINE ivec places(const int8_t *from) { return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)); }
INLINE void put_places(const ivec a, int8_t *to) { _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)a)); }
#elif defined(__AVX2__)
INLINE ivec places(const int8_t *from) { return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)); }
INLINE void put_places(const ivec a, int8_t *to) {
    const __m256i all = (__m256i)a;
    const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(shorts, shorts));
}
#else
INLINE ivec places(const int8_t *from) { return __builtin_convertvector(*(const bvec *)from, ivec); }
INLINE void put_places(const ivec a, int8_t *to) { *(bvec *)to = __builtin_convertvector(a, bvec); }
#endif

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE int64_t share(int64_t count, int part, int parts) { return count * part / parts; }
INLINE int height(const Shape *s) { return s->H + 2 * s->pad_y - s->KH + 1; }
INLINE int width(const Shape *s) { return s->W + 2 * s->pad_x - s->KW + 1; }
INLINE vec positive(const vec v) { return (vec)(~(v <= 0.0f) & (ivec)v); } /* NaN stays */

INLINE float total(const vec sum) {
    float numbers[LANES], result = 0;
    memcpy(numbers, &sum, sizeof numbers);
    for (int l = 0; l < LANES; l++) result += numbers[l];
    return result;
}

/* Of the numbers, those for which `which` (if given) is not below zero. */
static float sum_of(const float *numbers, const int8_t *which, int64_t count) {
    vec sums[4] = {{0}, {0}, {0}, {0}};
    for (int64_t n = 0; n < count; n += LANES) {
        const vec v = *(const vec *)(numbers + n);
        if (!which) sums[n / LANES & 3] += v;
        else sums[n / LANES & 3] += where((mask)~equal(places(which + n), -1), v);
    }
    return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* The lanes of a and b in turn: the LOWER and the UPPER half of that. */
#if LANES == 16
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#endif
#if defined(__clang__)
#define LACED(indices, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LACED(indices, a, b, ...) __builtin_shuffle(a, b, (indices){__VA_ARGS__})
#endif
