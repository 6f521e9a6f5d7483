/* Convolutions of one member, and those whose maxima over windows are wanted only. */
#pragma once
#include "lanes.h"
#include "pooling.h"

/* One output pixel, `maps` output maps, `vectors` registers of images. x: those images; packed: [I, KH, KW, maps]. */
INLINE void pixel(const int maps, const int vectors, const Shape *s, const float *x, const float *packed,
                  const float *bias, float *y, int64_t y_map, int top, int left) {
    vec sum[TILE_MAPS][TILE_VECTORS];
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++) sum[o][v] = (vec){0} + (bias ? bias[o] : 0.0f);
    }
    const int ky0 = most(0, -top), ky1 = least(s->KH, s->H - top);
    const int kx0 = most(0, -left), kx1 = least(s->KW, s->W - left);
    for (int i = 0; i < s->I; i++)
        for (int ky = ky0; ky < ky1; ky++) {
            const float *from = x + ((int64_t)(i * s->H + top + ky) * s->W + left + kx0) * s->B;
            const float *w = packed + ((i * s->KH + ky) * s->KW + kx0) * maps;
            for (int kx = kx0; kx < kx1; kx++, from += s->B, w += maps) {
                vec xs[TILE_VECTORS];
                UNROLL for (int v = 0; v < vectors; v++) xs[v] = *(const vec *)(from + v * LANES);
                UNROLL for (int o = 0; o < maps; o++) {
                    UNROLL for (int v = 0; v < vectors; v++) sum[o][v] += w[o] * xs[v];
                }
            }
        }
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++) *(vec *)(y + o * y_map + v * LANES) = sum[o][v];
    }
}

INLINE void pixel_row(const int maps, const Shape *s, const float *x, const float *packed, const float *bias, float *y,
                      int64_t y_map, int OW, int top) {
    for (int ox = 0; ox < OW; ox++, y += s->B) {
        const int left = ox - s->pad_x;
        int b = 0;
        for (; b + TILE_VECTORS * LANES <= s->B; b += TILE_VECTORS * LANES)
            pixel(maps, TILE_VECTORS, s, x + b, packed, bias, y + b, y_map, top, left);
        for (; b + 2 * LANES <= s->B; b += 2 * LANES)
            pixel(maps, 2, s, x + b, packed, bias, y + b, y_map, top, left);
        for (; b < s->B; b += LANES) pixel(maps, 1, s, x + b, packed, bias, y + b, y_map, top, left);
    }
}

/* Weights in the order in which they are used: tile by tile [I, KH, KW, maps of the tile]. */
static void pack(const Shape *s, const float *w, float *packed, int turned) {
    const int tiles = (s->O + TILE_MAPS - 1) / TILE_MAPS;
    for (int t = 0; t < tiles; t++)
        for (int i = 0; i < s->I; i++)
            for (int ky = 0; ky < s->KH; ky++)
                for (int kx = 0; kx < s->KW; kx++)
                    for (int o = share(s->O, t, tiles); o < share(s->O, t + 1, tiles); o++)
                        *packed++ = turned ? w[i * s->w_out + o * s->w_in + (s->KH - 1 - ky) * s->w_row +
                                               (s->KW - 1 - kx) * s->w_column]
                                           : w[o * s->w_out + i * s->w_in + ky * s->w_row + kx * s->w_column];
}

/* Row oy of a convolution, all maps. y: that row of the first map; y_map: numbers between maps. */
static void conv_row(const Shape *s, const float *x, const float *packed, const float *bias, float *y, int64_t y_map,
                     int oy) {
    const int tiles = (s->O + TILE_MAPS - 1) / TILE_MAPS;
    for (int t = 0; t < tiles; t++) {
        const int first = share(s->O, t, tiles), maps = share(s->O, t + 1, tiles) - first;
        const float *p = packed + (int64_t)first * s->I * s->KH * s->KW, *b = bias ? bias + first : 0;
#define MAPS(n, _) case n: pixel_row(n, s, x, p, b, y + first * y_map, y_map, width(s), oy - s->pad_y); break;
        switch (maps) { EACH_MAPS(MAPS, TILE_VECTORS) }
#undef MAPS
    }
}

/* y = w * x + bias (cross-correlation). bias [O] or none. Returns 1 where there was no memory for scratch, else 0.
 *
 * turned: w is [I, O, KH, KW] and each kernel turned by half a turn; with the padding K - 1 - pad that makes the
 * gradient of a convolution's input of the gradient of its output. */
static int convolve(const Shape *s, const float *x, const float *w, const float *bias, float *y, int turned) {
    const int64_t y_row = (int64_t)width(s) * s->B;
    float *packed = malloc(sizeof(float) * (size_t)s->O * s->I * s->KH * s->KW);
    if (!packed) return 1;
    pack(s, w, packed, turned);
    for (int oy = 0; oy < height(s); oy++) conv_row(s, x, packed, bias, y + oy * y_row, height(s) * y_row, oy);
    free(packed);
    return 0;
}

/* One pooled pixel: `maps` output maps, `vectors` registers of images, size x size pixels of the convolution. */
INLINE void pooled(const int maps, const int vectors, const Shape *s, const float *x, const float *packed,
                   const float *bias, float *y, int8_t *which, int64_t y_map, int top, int left, int size, int relu,
                   float *scratch) {
    const int64_t apart = maps * vectors * LANES;
    for (int j = 0; j < size * size; j++)
        pixel(maps, vectors, s, x, packed, bias, scratch + j * apart, vectors * LANES, top + j / size, left + j % size);
    for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            const float *from = scratch + (o * vectors + v) * LANES;
            const int64_t to = o * y_map + v * LANES;
            if (size == 2) window_max(2, from, 2 * apart, apart, y + to, which + to, relu);
            else window_max(size, from, size * apart, apart, y + to, which + to, relu);
        }
    }
}

INLINE void pooled_row(const int maps, const Shape *s, const float *x, const float *packed, const float *bias,
                       float *y, int8_t *which, int64_t y_map, int PW, int top, int size, int relu, float *scratch) {
    for (int px = 0; px < PW; px++, y += s->B, which += s->B) {
        const int left = px * size - s->pad_x;
        int b = 0;
#define WHILE(n) for (; b + n * LANES <= s->B; b += n * LANES) \
            pooled(maps, n, s, x + b, packed, bias, y + b, which + b, y_map, top, left, size, relu, scratch);
        WHILE(TILE_VECTORS) WHILE(2) WHILE(1)
#undef WHILE
    }
}

/* max_pool(convolve(x, w, bias)), windows side by side, whose pixels never leave the caches. y, which [O, PH, PW, B]. */
static int convolve_pool(const Shape *s, const float *x, const float *w, const float *bias, float *y, int8_t *which,
                         int size, int relu) {
    const int PH = height(s) / size, PW = width(s) / size, tiles = (s->O + TILE_MAPS - 1) / TILE_MAPS;
    const size_t weights = (size_t)s->O * s->I * s->KH * s->KW, window = (size_t)size * size * TILE_MAPS * TILE_VECTORS;
    float *packed = malloc(sizeof(float) * (weights + window * LANES));
    if (!packed) return 1;
    pack(s, w, packed, 0);
    for (int py = 0; py < PH; py++)
        for (int t = 0; t < tiles; t++) {
            const int first = share(s->O, t, tiles), maps = share(s->O, t + 1, tiles) - first, top = py * size - s->pad_y;
            const float *p = packed + (int64_t)first * s->I * s->KH * s->KW, *b = bias ? bias + first : 0;
            const int64_t y_map = (int64_t)PH * PW * s->B, to = first * y_map + (int64_t)py * PW * s->B;
#define MAPS(n, _) case n: pooled_row(n, s, x, p, b, y + to, which + to, y_map, PW, top, size, relu, packed + weights); break;
            switch (maps) { EACH_MAPS(MAPS, TILE_VECTORS) }
#undef MAPS
        }
    free(packed);
    return 0;
}
