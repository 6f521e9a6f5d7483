/* Images gathered and deformed in one go: lanes are images, so that each may come from another place. */
#pragma once
#include "lanes.h"

/* How the images [K * count] are deformed; what is null is left out. See ensemble/data/augmentation.py. */
typedef struct {
    const float *source;                /* [., 2, 3]: from a pixel to where it comes from, both from the image's centre */
    const float *noise;                 /* [., 2, rows, columns]: displacement in pixels at the nodes of a spline */
    const int32_t *down, *across;       /* [H], [W]: the first of four nodes that move a pixel */
    const float *down_4, *across_4;     /* [H, 4], [W, 4]: their weights */
    int rows, columns;                  /* of nodes */
    const float *brightness, *contrast; /* [.]: factors, of contrast around the image's mean */
} Deformation;

/* table[index] for every lane. */
INLINE ivec looked_up(const int32_t *table, const ivec index) {
#if defined(__AVX512F__)
    return (ivec)_mm512_i32gather_epi32((__m512i)index, table, 4);
#elif defined(__AVX2__)
    return (ivec)_mm256_i32gather_epi32(table, (__m256i)index, 4);
#else
    ivec found;
    UNROLL for (int l = 0; l < LANES; l++) found[l] = table[index[l]];
    return found;
#endif
}

INLINE vec as_numbers(const ivec a) { return __builtin_convertvector(a, vec); }
INLINE vec within(const vec v, float low, float high) {
    const vec lows = low - (vec){0}, highs = high - (vec){0}, above_low = pick(above(v, lows), v, lows);
    return pick(above(highs, above_low), above_low, highs);
}
INLINE vec lane_numbers(const float *const from[LANES], int64_t at) {
    float numbers[LANES];
    vec found;
    for (int l = 0; l < LANES; l++) numbers[l] = from[l][at];
    memcpy(&found, numbers, sizeof found);
    return found;
}

/* Of every map [H, W] of every lane's image: at (y, x) of [H + 2, W + 2] the pixels (y - 1, x - 1), (y - 1, x),
 * (y, x - 1), (y, x), a byte each and 0 outside. So one look at the table finds all that a point between them takes. */
static void neighbours(const uint8_t *const from[LANES], int C, int H, int W, int32_t *table) {
    uint32_t *to = (uint32_t *)table;
    memset(to, 0, sizeof *to * LANES * C * (H + 2) * (W + 2));
    for (int n = 0; n < LANES * C; n++, to += W + 2 + (W + 2)) /* its last two rows are done from the one before them */
        for (int y = 0; y < H; y++, to += W + 2) {
            const uint8_t *row = from[n / C] + ((int64_t)(n % C) * H + y) * W;
            uint32_t *below = to + W + 2;
            for (int x = 0; x < W; x++) to[x] |= (uint32_t)row[x] << 24;
            for (int x = 0; x < W; x++) to[x + 1] |= (uint32_t)row[x] << 16;
            for (int x = 0; x < W; x++) below[x] |= (uint32_t)row[x] << 8;
            for (int x = 0; x < W; x++) below[x + 1] |= row[x];
        }
}

/* Noise [2, rows, columns] of the lanes, drawn out to all columns of pixels: [2, rows, W]. */
static void drawn_out(const Deformation *d, const float *const noise[LANES], int W, vec *wide) {
    for (int n = 0; n < 2 * d->rows; n++)
        for (int x = 0; x < W; x++) {
            const float *weights = d->across_4 + 4 * x;
            const int64_t at = (int64_t)n * d->columns + d->across[x];
            vec sum = {0};
            for (int j = 0; j < 4; j++) sum += weights[j] * lane_numbers(noise, at + j);
            wide[(int64_t)n * W + x] = sum;
        }
}

/* The lanes' images [C, H, W] of `from`, deformed, as y [C, H, W, B] with numbers from 0 to 255, which `sums` adds up. */
INLINE void resample(const Deformation *d, const int32_t *table, const float *const source[LANES], const vec *wide,
                     int C, int H, int W, int B, float *y, vec *sums) {
    const int64_t one = (int64_t)(H + 2) * (W + 2);
    const vec nothing = {0};
    vec a[6] = {1 - nothing, nothing, nothing, nothing, 1 - nothing, nothing};
    ivec lanes;
    for (int l = 0; l < LANES; l++) lanes[l] = (int32_t)(l * C * one);
    if (d->source)
        for (int j = 0; j < 6; j++) a[j] = lane_numbers(source, j);
    const float middle_x = (W - 1) / 2.0f, middle_y = (H - 1) / 2.0f;
    for (int r = 0; r < H; r++) {
        const float down = r - middle_y;
        const vec row_x = a[1] * down + (a[2] + (middle_x + 1)), row_y = a[4] * down + (a[5] + (middle_y + 1));
        vec row_sum = {0};
        for (int c = 0; c < W; c++) {
            vec at_x = a[0] * (c - middle_x) + row_x, at_y = a[3] * (c - middle_x) + row_y;
            if (d->noise)
                for (int j = 0; j < 4; j++) {
                    const float weight = d->down_4[4 * r + j];
                    const int64_t node = d->down[r] + j;
                    at_x += weight * wide[node * W + c], at_y += weight * wide[(d->rows + node) * W + c];
                }
            at_x = within(at_x, 0, W + 1), at_y = within(at_y, 0, H + 1); /* out there it is dark */
            const ivec left = __builtin_convertvector(at_x, ivec), top = __builtin_convertvector(at_y, ivec);
            const vec right = at_x - as_numbers(left), below = at_y - as_numbers(top);
            const ivec index = lanes + top * (W + 2) + left;
            for (int i = 0; i < C; i++) {
                const ivec four = looked_up(table, index + (int32_t)(i * one));
                const vec p00 = as_numbers(four & 255), p01 = as_numbers(four >> 8 & 255);
                const vec p10 = as_numbers(four >> 16 & 255), p11 = as_numbers(four >> 24 & 255);
                const vec upper = p00 + right * (p01 - p00), lower = p10 + right * (p11 - p10);
                const vec v = upper + below * (lower - upper);
                *(vec *)(y + (((int64_t)i * H + r) * W + c) * B) = v;
                row_sum += v;
            }
        }
        *sums += row_sum;
    }
}

/* Numbers from 0 to 255 with the lanes' brightness and contrast, standardised per map; 0 for lanes from `wanted` on. */
INLINE void finish(const Deformation *d, const float *mean, const float *std, const vec sums, const int64_t first,
                   int wanted, int C, int64_t pixels, int B, float *y) {
    vec gain = 1 - (vec){0}, offset = {0};
    for (int l = 0; l < wanted; l++) {
        const float brightness = d->brightness ? d->brightness[first + l] : 1;
        const float contrast = d->contrast ? d->contrast[first + l] : 1;
        gain[l] = brightness * contrast, offset[l] = brightness * (1 - contrast) * (sums[l] / (C * pixels));
    }
    for (int c = 0; c < C; c++)
        for (int64_t p = 0; p < pixels; p++) {
            float *to = y + (c * pixels + p) * B;
            vec v = *(vec *)to;
            if (d->brightness || d->contrast) v = within(v * gain + offset, 0, 255);
            *(vec *)to = (v - mean[c]) / std[c];
            for (int l = wanted; l < LANES; l++) to[l] = 0;
        }
}

/* Like `gather`, of images [., C, H, W], each deformed in its own way. A lane's table has fewer than 2^31 / LANES places. */
typedef struct {
    const uint8_t *images;
    const int64_t *rows;
    const float *mean, *std;
    float *y;
    const Deformation *d;
    int K, count, C, H, W, B;
} Deformed;

int gather_deformed(const void *given, int part, int parts) {
    const Deformed *g = given;
    const Deformation *d = g->d;
    const int K = g->K, count = g->count, C = g->C, H = g->H, W = g->W, B = g->B;
    const int64_t each = B / LANES, pixels = (int64_t)H * W, one = (int64_t)(H + 2) * (W + 2);
    int32_t *table = malloc(sizeof *table * LANES * C * one);
    vec *wide = d->noise ? malloc(sizeof *wide * 2 * d->rows * W) : 0;
    const int failed = !table || (d->noise && !wide);
    for (int64_t block = share(K * each, part, parts); !failed && block < share(K * each, part + 1, parts); block++) {
        const int64_t k = block / each;
        const int b = (int)(block % each) * LANES, wanted = most(0, least(LANES, count - b));
        const int64_t first = k * count + (wanted ? b : 0);
        float *to = g->y + k * C * pixels * B + b;
        const uint8_t *from[LANES];
        const float *source[LANES], *noise[LANES];
        for (int l = 0; l < LANES; l++) {
            const int64_t n = first + (l < wanted ? l : 0);
            from[l] = g->images + g->rows[n] * C * pixels;
            source[l] = d->source ? d->source + 6 * n : 0;
            noise[l] = d->noise ? d->noise + n * 2 * d->rows * d->columns : 0;
        }
        neighbours(from, C, H, W, table);
        if (d->noise) drawn_out(d, noise, W, wide);
        vec sums = {0};
        resample(d, table, source, wide, C, H, W, B, to, &sums);
        finish(d, g->mean, g->std, sums, first, wanted, C, pixels, B, to);
    }
    free(table), free(wide);
    return failed;
}
