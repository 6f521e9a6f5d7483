/* Maxima over windows, and their way back. */
#pragma once
#include "lanes.h"

/* The maximum of a window of size x size pixels, `x_pixel` and `x_row` numbers apart, and where in it that stood; the
 * first of equals, NaN above all. relu: what is not above zero becomes zero, and its place -1. */
INLINE void window_max(const int size, const float *x, int64_t x_row, int64_t x_pixel, float *y, int8_t *which, int relu) {
    vec best = *(const vec *)x;
    ivec place = {0};
    UNROLL for (int j = 1; j < size * size; j++) {
        const vec v = *(const vec *)(x + j / size * x_row + j % size * x_pixel);
        const mask more = above(v, best) | no_number(v);
        best = pick(more, v, best), place = pick_place(more, j, place);
    }
    if (relu) {
        const mask stays = above(best, (vec){0}) | no_number(best);
        best = where(stays, best), place = pick_place((mask)~stays, -1, place);
    }
    *(vec *)y = best;
    put_places(place, which);
}

/* Maximum over windows of size x size: x [C, H, W, B] to y [C, OH, OW, B], and in `which` [C, OH, OW, B] where in its
 * window each one stood. relu: what is not above zero becomes zero, and `which` -1. */
static void max_pool(const float *x, float *y, int8_t *which, int C, int H, int W, int B, int size, int stride,
                     int relu) {
    const int OH = (H - size) / stride + 1, OW = (W - size) / stride + 1;
    for (int64_t row = 0; row < (int64_t)C * OH; row++)
        for (int ox = 0; ox < OW; ox++) {
            const int64_t to = (row * OW + ox) * B;
            for (int b = 0; b < B; b += LANES)
                window_max(size, x + ((row / OH * H + row % OH * stride) * W + ox * stride) * B + b, (int64_t)W * B, B,
                           y + to + b, which + to + b, relu);
        }
}

/* A window of max_pool's way back, LANES images. apart: no other window has these pixels. */
INLINE void window_back(const int size, const float *dy, const int8_t *which, float *dx, int64_t dx_row, int64_t dx_pixel,
                        int apart) {
    const vec d = *(const vec *)dy;
    const ivec place = places(which);
    UNROLL for (int j = 0; j < size * size; j++) {
        vec *to = (vec *)(dx + j / size * dx_row + j % size * dx_pixel);
        if (apart) *to = where(equal(place, j), d);
        else *to += where(equal(place, j), d);
    }
}

/* A row of windows of max_pool's way back: from dy, `which` [C maps, OW, B] to dx, whose maps are dx_map numbers apart. */
static void max_pool_row_back(const float *dy, const int8_t *which, int64_t dy_map, float *dx, int64_t dx_map, int C,
                              int OW, int W, int B, int size, int stride) {
    const int64_t row = (int64_t)W * B;
    for (int c = 0; c < C; c++)
        for (int ox = 0; ox < OW; ox++)
            for (int b = 0; b < B; b += LANES) {
                const int64_t from = c * dy_map + (int64_t)ox * B + b;
                float *to = dx + c * dx_map + (int64_t)ox * stride * B + b;
                if (size == 2 && stride == 2) window_back(2, dy + from, which + from, to, row, B, 1);
                else window_back(size, dy + from, which + from, to, row, B, stride >= size);
            }
}

/* The gradient dx [C, H, W, B] of max_pool's input from dy and `which`. */
static void max_pool_back(const float *dy, const int8_t *which, float *dx, int C, int H, int W, int B, int size,
                          int stride) {
    const int OH = (H - size) / stride + 1, OW = (W - size) / stride + 1;
    const int64_t row = (int64_t)OW * B;
    if (stride != size || H % size || W % size) memset(dx, 0, sizeof(float) * (size_t)C * H * W * B);
    for (int oy = 0; oy < OH; oy++)
        max_pool_row_back(dy + oy * row, which + oy * row, OH * row, dx + (int64_t)oy * stride * W * B,
                          (int64_t)H * W * B, C, OW, W, B, size, stride);
}
