/* Gradients of a convolution. */
#pragma once
#include "convolution.h"
#include "lanes.h"
#include "pooling.h"

#define WEIGHT_MAPS 8 /* output maps of a tile of weight gradients, at most */
#define WIDEST 7      /* columns of a kernel, at most */

/* One row of pixels: to sums [maps, KW, LANES] add dy [maps] times x shifted by each column of the kernel. */
INLINE void weight_row(const int maps, const int KW, const Shape *s, const float *x, const float *dy, int64_t dy_map,
                       float *sums, int OW, int images) {
    vec sum[WEIGHT_MAPS][WIDEST];
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int kx = 0; kx < KW; kx++) sum[o][kx] = *(vec *)(sums + (o * KW + kx) * LANES);
    }
    for (int ox = 0; ox < OW; ox++, dy += s->B) {
        const int left = ox - s->pad_x, inside = left >= 0 && left + KW <= s->W;
        const float *from = x + (int64_t)left * s->B;
        if (inside) {
            for (int b = 0; b < images; b += LANES) {
                vec d[WEIGHT_MAPS];
                UNROLL for (int o = 0; o < maps; o++) d[o] = *(const vec *)(dy + o * dy_map + b);
                UNROLL for (int kx = 0; kx < KW; kx++) {
                    const vec xv = *(const vec *)(from + (int64_t)kx * s->B + b);
                    UNROLL for (int o = 0; o < maps; o++) sum[o][kx] += d[o] * xv;
                }
            }
        } else {
            for (int b = 0; b < images; b += LANES) {
                UNROLL for (int kx = 0; kx < KW; kx++) {
                    if (left + kx >= 0 && left + kx < s->W) {
                        const vec xv = *(const vec *)(from + (int64_t)kx * s->B + b);
                        UNROLL for (int o = 0; o < maps; o++) sum[o][kx] += *(const vec *)(dy + o * dy_map + b) * xv;
                    }
                }
            }
        }
    }
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int kx = 0; kx < KW; kx++) *(vec *)(sums + (o * KW + kx) * LANES) = sum[o][kx];
    }
}

/* Adds to sums [tile, I, KH, maps of the tile, KW, LANES] what row oy of the result brings to the gradient of the
 * weights. d: that row of the first map, whose maps are d_map numbers apart. KW: 1, 3, 5 or 7. */
static void weights_of_row(const Shape *s, const float *x, const float *d, int64_t d_map, int oy, float *sums) {
    const int at_once = least(WEIGHT_MAPS, most(1, TILE_WEIGHTS / s->KW)), tiles = (s->O + at_once - 1) / at_once;
    for (int t = 0; t < tiles; t++) {
        const int first = share(s->O, t, tiles), maps = share(s->O, t + 1, tiles) - first;
        for (int b = 0; b < s->B; b += IMAGES)
            for (int i = 0; i < s->I; i++)
                for (int ky = 0; ky < s->KH; ky++) {
                    const int iy = oy - s->pad_y + ky;
                    if (iy < 0 || iy >= s->H) continue;
                    const float *from = x + (int64_t)(i * s->H + iy) * s->W * s->B + b, *back = d + first * d_map + b;
                    float *to = sums + (int64_t)((first * s->I + i * maps) * s->KH + ky * maps) * s->KW * LANES;
                    const int images = least(IMAGES, s->B - b);
#define MAPS(n, KW) case 10 * KW + n: weight_row(n, KW, s, from, back, d_map, to, width(s), images); break;
                    switch (10 * s->KW + maps) {
                        MAPS(1, 1) MAPS(2, 1) MAPS(3, 1) MAPS(4, 1) MAPS(5, 1) MAPS(6, 1) MAPS(7, 1) MAPS(8, 1)
                        MAPS(1, 3) MAPS(2, 3) MAPS(3, 3) MAPS(4, 3) MAPS(5, 3) MAPS(6, 3) MAPS(7, 3) MAPS(8, 3)
                        MAPS(1, 5) MAPS(2, 5) MAPS(3, 5) MAPS(4, 5) MAPS(5, 5)
                        MAPS(1, 7) MAPS(2, 7) MAPS(3, 7)
                    }
#undef MAPS
                }
    }
}

/* The gradient dw (strides as the weights') from the sums of `weights_of_row`. */
static void weights_of_sums(const Shape *s, const float *sums, float *dw) {
    const int at_once = least(WEIGHT_MAPS, most(1, TILE_WEIGHTS / s->KW)), tiles = (s->O + at_once - 1) / at_once;
    for (int t = 0; t < tiles; t++)
        for (int i = 0; i < s->I; i++)
            for (int ky = 0; ky < s->KH; ky++)
                for (int o = share(s->O, t, tiles); o < share(s->O, t + 1, tiles); o++)
                    for (int kx = 0; kx < s->KW; kx++, sums += LANES)
                        dw[o * s->w_out + i * s->w_in + ky * s->w_row + kx * s->w_column] = total(*(const vec *)sums);
}

#if defined(__AVX2__)
#define CHOSEN 1
#else
#define CHOSEN 0 /* choosing takes too many instructions */
#endif
#define CHOSEN_IMAGES 32

/* Adds to sums [N, N, LANES] the gradient of `columns` columns of one kernel of N x N, from the `first` on, from
 * dy [PH, PW, B], that of the maxima of windows of 2 x 2. Of such a window one pixel counts for an image, so that of x
 * the pixels at its place are chosen, and multiplied once and not four times. x: rows of W pixels, padded. */
INLINE void chosen_weights(const int N, const int first, const int columns, const float *x, const float *dy,
                           const int8_t *which, float *sums, int PH, int PW, int W, int B, int images) {
    vec sum[5][3];
    UNROLL for (int ky = 0; ky < N; ky++) {
        UNROLL for (int kx = 0; kx < columns; kx++) sum[ky][kx] = *(const vec *)(sums + (ky * N + first + kx) * LANES);
    }
    for (int py = 0; py < PH; py++)
        for (int px = 0; px < PW; px++)
            for (int b = 0; b < images; b += LANES) {
                const int64_t at = (int64_t)(py * PW + px) * B + b;
                const float *from = x + (int64_t)(2 * py * W + 2 * px + first) * B + b;
                const ivec place = places(which + at);
                const mask right = equal(place & 1, 1), below = equal(place & 2, 2);
                const vec d = where((mask)~equal(place, -1), *(const vec *)(dy + at));
                vec above_it[3];
                UNROLL for (int kx = 0; kx < columns; kx++)
                    above_it[kx] = pick(right, *(const vec *)(from + (kx + 1) * B), *(const vec *)(from + kx * B));
                UNROLL for (int ky = 0; ky < N; ky++) {
                    from += (int64_t)W * B;
                    UNROLL for (int kx = 0; kx < columns; kx++) {
                        const vec it = pick(right, *(const vec *)(from + (kx + 1) * B), *(const vec *)(from + kx * B));
                        sum[ky][kx] += d * pick(below, it, above_it[kx]);
                        above_it[kx] = it;
                    }
                }
            }
    UNROLL for (int ky = 0; ky < N; ky++) {
        UNROLL for (int kx = 0; kx < columns; kx++) *(vec *)(sums + (ky * N + first + kx) * LANES) = sum[ky][kx];
    }
}

static void chosen_weights_3(const float *x, const float *dy, const int8_t *which, float *sums, int PH, int PW, int W,
                             int B, int images) {
    chosen_weights(3, 0, 3, x, dy, which, sums, PH, PW, W, B, images);
}

static void chosen_weights_5(const float *x, const float *dy, const int8_t *which, float *sums, int PH, int PW, int W,
                             int B, int images) {
    chosen_weights(5, 0, 3, x, dy, which, sums, PH, PW, W, B, images);
    chosen_weights(5, 3, 2, x, dy, which, sums, PH, PW, W, B, images);
}

/* x [C, H, W, B] with zeros around every map. */
static float *padded(const float *x, int C, int H, int W, int B, int pad_y, int pad_x) {
    const int64_t row = (int64_t)(W + 2 * pad_x) * B;
    float *to = calloc((size_t)C * (H + 2 * pad_y) * row, sizeof(float));
    for (int c = 0; to && c < C; c++)
        for (int y = 0; y < H; y++)
            memcpy(to + (c * (H + 2 * pad_y) + y + pad_y) * row + pad_x * B, x + (int64_t)(c * H + y) * W * B,
                   sizeof(float) * (size_t)W * B);
    return to;
}

/* The gradient dw of a convolution with kernels of 3 x 3 or 5 x 5 from that of its maxima in windows of 2 x 2. */
static int chosen_weights_of_all(const Shape *s, const float *x, const float *dy, const int8_t *which, float *dw) {
    const int PH = height(s) / 2, PW = width(s) / 2, N = s->KW, H = s->H + 2 * s->pad_y, W = s->W + 2 * s->pad_x;
    float *around = s->pad_y || s->pad_x ? padded(x, s->I, s->H, s->W, s->B, s->pad_y, s->pad_x) : 0;
    if ((s->pad_y || s->pad_x) && !around) return 1;
    for (int i = 0; i < s->I; i++)
        for (int o = 0; o < s->O; o++) {
            float sums[5 * 5 * LANES] = {0};
            for (int b = 0; b < s->B; b += CHOSEN_IMAGES) {
                const float *from = (around ? around : x) + (int64_t)i * H * W * s->B + b;
                const int64_t at = (int64_t)o * PH * PW * s->B + b;
                (N == 3 ? chosen_weights_3 : chosen_weights_5)(from, dy + at, which + at, sums, PH, PW, W, s->B,
                                                               least(CHOSEN_IMAGES, s->B - b));
            }
            for (int n = 0; n < N * N; n++)
                dw[o * s->w_out + i * s->w_in + n / N * s->w_row + n % N * s->w_column] = total(*(vec *)(sums + n * LANES));
        }
    free(around);
    return 0;
}

/* Gradients of a convolution from dy [O, OH, OW, B], or from that of its maxima and `which`, in windows of size x size.
 * dx: where wanted. d: room for [O, OH, OW, B]. */
static int convolve_back(const Shape *s, const float *x, const float *w, const float *dy, const int8_t *which,
                         float *dw, float *dx, int size, float *d) {
    const int OH = height(s), OW = width(s), chosen = CHOSEN && which && size == 2 && s->KH == s->KW && (s->KW == 3 || s->KW == 5);
    const int64_t row = (int64_t)OW * s->B;
    if (chosen && chosen_weights_of_all(s, x, dy, which, dw)) return 1;
    if (which && (dx || !chosen)) max_pool_back(dy, which, d, s->O, OH, OW, s->B, size, size), dy = d;
    if (!chosen) {
        float *sums = calloc((size_t)s->O * s->I * s->KH * s->KW * LANES, sizeof(float));
        if (!sums) return 1;
        for (int oy = 0; oy < OH; oy++) weights_of_row(s, x, dy + oy * row, OH * row, oy, sums);
        weights_of_sums(s, sums, dw);
        free(sums);
    }
    if (!dx) return 0;
    const Shape turned = {s->O, s->I, OH, OW, s->B, s->KH, s->KW, s->KH - 1 - s->pad_y, s->KW - 1 - s->pad_x,
                          s->w_out, s->w_in, s->w_row, s->w_column};
    return convolve(&turned, dy, w, 0, dx, 1);
}
