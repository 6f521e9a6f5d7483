/* Convolution and max-pooling of K narrow networks with the batch as the innermost axis, for one CPU thread.
 *
 * A pixel of one map is a run of B numbers, one per image, so vector registers are full whatever the number of maps,
 * padding costs nothing (its weights are skipped), and a tile of sums stays in registers for a whole output pixel.
 *
 * Arrays are float32: x [K, I, H, W, B] and y [K, O, OH, OW, B] contiguous, weights [K, O, I, KH, KW] by their strides;
 * B is a multiple of 16. Stride 1, no dilation, no groups. Each function does the `part`-th of `parts` equal shares of
 * its work, and no number depends on how many there are. Returns 0, or 1 where there was no memory for scratch.
 */
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
#define TILE_MAPS 5
#define TILE_WEIGHTS 10
#else
#define LANES 4
#define TILE_VECTORS 4
#define TILE_MAPS 5
#define TILE_WEIGHTS 20
#endif
#define WEIGHT_MAPS 8  /* output maps of a tile of weight gradients, at most */
#define WIDEST 7       /* columns of a kernel, at most */
#define IMAGES 64      /* whose gradients are summed in one go, so that their rows stay in the caches */

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int8_t bvec __attribute__((vector_size(LANES), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

/* Strides in numbers; that between the members' x is zero where they share it. */
typedef struct {
    int K, I, O, H, W, B, KH, KW, pad_y, pad_x;
    int64_t x_member, w_member, w_out, w_in, w_row, w_column;
} Shape;

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE int64_t share(int64_t count, int part, int parts) { return count * part / parts; }

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

/* Row oy of one member's convolution, all maps. y: that row of the first map; y_map: numbers between maps. */
static void conv_row(const Shape *s, const float *x, const float *packed, const float *bias, float *y, int64_t y_map,
                     int oy) {
    const int OW = s->W + 2 * s->pad_x - s->KW + 1, tiles = (s->O + TILE_MAPS - 1) / TILE_MAPS;
    for (int t = 0; t < tiles; t++) {
        const int first = share(s->O, t, tiles), maps = share(s->O, t + 1, tiles) - first;
        const float *p = packed + (int64_t)first * s->I * s->KH * s->KW, *b = bias ? bias + first : 0;
#define MAPS(n) case n: pixel_row(n, s, x, p, b, y + first * y_map, y_map, OW, oy - s->pad_y); break;
        switch (maps) {
            MAPS(1) MAPS(2) MAPS(3) MAPS(4) MAPS(5)
#if TILE_MAPS > 5
            MAPS(6)
#endif
        }
#undef MAPS
    }
}

/* y = w * x + bias (cross-correlation). bias [K, O] or none.
 *
 * turned: w is [K, I, O, KH, KW] and each kernel turned by half a turn; with the padding K - 1 - pad that makes the
 * gradient of a convolution's input of the gradient of its output. */
int convolve(const Shape *s, const float *x, const float *w, const float *bias, float *y, int turned, int part,
             int parts) {
    const int OH = s->H + 2 * s->pad_y - s->KH + 1, OW = s->W + 2 * s->pad_x - s->KW + 1;
    const int64_t y_map = (int64_t)OH * OW * s->B, rows = (int64_t)s->K * OH;
    float *packed = malloc(sizeof(float) * (size_t)s->O * s->I * s->KH * s->KW);
    if (!packed) return 1;
    int member = -1;
    for (int64_t row = share(rows, part, parts); row < share(rows, part + 1, parts); row++) {
        const int k = (int)(row / OH), oy = (int)(row % OH);
        if (k != member) pack(s, w + (member = k) * s->w_member, packed, turned);
        conv_row(s, x + k * s->x_member, packed, bias ? bias + (int64_t)k * s->O : 0,
                 y + k * s->O * y_map + (int64_t)oy * OW * s->B, y_map, oy);
    }
    free(packed);
    return 0;
}

/* The maximum of a window of x (rows of `W` pixels), and where in it that stood; the first of equals, NaN above all. */
INLINE void window_max(const float *x, float *y, int8_t *which, int W, int B, int size, int relu) {
    for (int b = 0; b < B; b += LANES) {
        vec best = *(const vec *)(x + b);
        ivec place = {0};
        for (int iy = 0, j = 0; iy < size; iy++)
            for (int ix = 0; ix < size; ix++, j++) {
                const vec v = *(const vec *)(x + (int64_t)(iy * W + ix) * B + b);
                const ivec more = (v > best) | (v != v);
                best = (vec)((more & (ivec)v) | (~more & (ivec)best));
                place = (more & j) | (~more & place);
            }
        if (relu) {
            const ivec clipped = best <= 0.0f;
            best = (vec)(~clipped & (ivec)best);
            place |= clipped;
        }
        *(vec *)(y + b) = best;
        *(bvec *)(which + b) = __builtin_convertvector(place, bvec);
    }
}

/* max_pool(convolve(x, w, bias)), windows side by side, whose rows never leave the caches. y, which [K, O, PH, PW, B]. */
int convolve_pool(const Shape *s, const float *x, const float *w, const float *bias, float *y, int8_t *which, int size,
                  int relu, int part, int parts) {
    const int PH = (s->H + 2 * s->pad_y - s->KH + 1) / size, OW = s->W + 2 * s->pad_x - s->KW + 1, PW = OW / size;
    const int64_t rows = (int64_t)s->K * PH;
    const int64_t of_map = (int64_t)size * OW * s->B;
    float *packed = malloc(sizeof(float) * ((size_t)s->O * s->I * s->KH * s->KW + LANES + (size_t)(s->O * of_map)));
    if (!packed) return 1;
    float *scratch = packed + (size_t)s->O * s->I * s->KH * s->KW;
    int member = -1;
    for (int64_t row = share(rows, part, parts); row < share(rows, part + 1, parts); row++) {
        const int k = (int)(row / PH), py = (int)(row % PH);
        if (k != member) pack(s, w + (member = k) * s->w_member, packed, 0);
        for (int iy = 0; iy < size; iy++)
            conv_row(s, x + k * s->x_member, packed, bias ? bias + (int64_t)k * s->O : 0,
                     scratch + (int64_t)iy * OW * s->B, of_map, py * size + iy);
        for (int o = 0; o < s->O; o++)
            for (int px = 0; px < PW; px++) {
                const int64_t to = ((((int64_t)k * s->O + o) * PH + py) * PW + px) * s->B;
                window_max(scratch + o * of_map + (int64_t)px * size * s->B, y + to, which + to, OW, s->B, size, relu);
            }
    }
    free(packed);
    return 0;
}

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

INLINE float total(const vec sum) {
    float numbers[LANES], result = 0;
    memcpy(numbers, &sum, sizeof numbers);
    for (int l = 0; l < LANES; l++) result += numbers[l];
    return result;
}

/* Gradients of the weights of one member's output maps first to first + maps. */
INLINE void weight_maps(const int maps, const int KW, const Shape *s, const float *x, const float *dy, float *dw,
                        float *sums) {
    const int OH = s->H + 2 * s->pad_y - s->KH + 1, OW = s->W + 2 * s->pad_x - KW + 1;
    const int64_t dy_map = (int64_t)OH * OW * s->B, of_row = (int64_t)maps * KW * LANES;
    memset(sums, 0, sizeof(float) * (size_t)(s->I * s->KH * of_row));
    for (int b = 0; b < s->B; b += IMAGES)
        for (int oy = 0; oy < OH; oy++)
            for (int i = 0; i < s->I; i++)
                for (int ky = 0; ky < s->KH; ky++) {
                    const int iy = oy - s->pad_y + ky;
                    if (iy >= 0 && iy < s->H)
                        weight_row(maps, KW, s, x + (int64_t)(i * s->H + iy) * s->W * s->B + b,
                                   dy + (int64_t)oy * OW * s->B + b, dy_map, sums + (i * s->KH + ky) * of_row, OW,
                                   least(IMAGES, s->B - b));
                }
    for (int i = 0; i < s->I; i++)
        for (int ky = 0; ky < s->KH; ky++)
            for (int o = 0; o < maps; o++)
                for (int kx = 0; kx < KW; kx++, sums += LANES)
                    dw[o * s->w_out + i * s->w_in + ky * s->w_row + kx * s->w_column] = total(*(vec *)sums);
}

static float sum_of(const float *numbers, int64_t count) {
    vec sums[4] = {{0}, {0}, {0}, {0}};
    int64_t n = 0;
    for (; n + 4 * LANES <= count; n += 4 * LANES)
        UNROLL for (int j = 0; j < 4; j++) sums[j] += *(const vec *)(numbers + n + j * LANES);
    for (; n < count; n += LANES) sums[0] += *(const vec *)(numbers + n);
    return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* Gradients dw (strides as the weights') and, where wanted, db [K, O], of dy [K, O, OH, OW, B]. KW: 1, 3, 5 or 7. */
int convolve_weights(const Shape *s, const float *x, const float *dy, float *dw, float *db, int part, int parts) {
    const int OH = s->H + 2 * s->pad_y - s->KH + 1, OW = s->W + 2 * s->pad_x - s->KW + 1;
    const int at_once = least(WEIGHT_MAPS, most(1, TILE_WEIGHTS / s->KW)), tiles = (s->O + at_once - 1) / at_once;
    const int64_t dy_map = (int64_t)OH * OW * s->B;
    float *sums = malloc(sizeof(float) * (size_t)s->I * s->KH * at_once * s->KW * LANES);
    if (!sums) return 1;
    for (int64_t item = share(s->K * tiles, part, parts); item < share(s->K * tiles, part + 1, parts); item++) {
        const int k = (int)(item / tiles), t = (int)(item % tiles);
        const int first = share(s->O, t, tiles), maps = share(s->O, t + 1, tiles) - first;
        const float *from = x + k * s->x_member, *d = dy + ((int64_t)k * s->O + first) * dy_map;
        float *to = dw + k * s->w_member + first * s->w_out;
#define MAPS(n, KW) case 10 * KW + n: weight_maps(n, KW, s, from, d, to, sums); break;
        switch (10 * s->KW + maps) {
            MAPS(1, 1) MAPS(2, 1) MAPS(3, 1) MAPS(4, 1) MAPS(5, 1) MAPS(6, 1) MAPS(7, 1) MAPS(8, 1)
            MAPS(1, 3) MAPS(2, 3) MAPS(3, 3) MAPS(4, 3) MAPS(5, 3) MAPS(6, 3) MAPS(7, 3) MAPS(8, 3)
            MAPS(1, 5) MAPS(2, 5) MAPS(3, 5) MAPS(4, 5) MAPS(5, 5)
            MAPS(1, 7) MAPS(2, 7) MAPS(3, 7)
        }
#undef MAPS
        for (int o = 0; db && o < maps; o++) db[(int64_t)k * s->O + first + o] = sum_of(d + o * dy_map, dy_map);
    }
    free(sums);
    return 0;
}

/* Maximum over windows of size x size: x [C, H, W, B] to y [C, OH, OW, B], and in `which` [C, OH, OW, B] where in its
 * window each one stood. relu: what is not above zero becomes zero, and `which` -1. */
int max_pool(const float *x, float *y, int8_t *which, int C, int H, int W, int B, int size, int stride, int relu,
             int part, int parts) {
    const int OH = (H - size) / stride + 1, OW = (W - size) / stride + 1;
    for (int64_t row = share((int64_t)C * OH, part, parts); row < share((int64_t)C * OH, part + 1, parts); row++)
        for (int ox = 0; ox < OW; ox++) {
            const int64_t to = (row * OW + ox) * B;
            window_max(x + ((row / OH * H + row % OH * stride) * W + ox * stride) * B, y + to, which + to, W, B, size, relu);
        }
    return 0;
}

/* The gradient dx [C, H, W, B] of max_pool's input from dy and `which`. */
int max_pool_back(const float *dy, const int8_t *which, float *dx, int C, int H, int W, int B, int size, int stride,
                  int part, int parts) {
    const int OH = (H - size) / stride + 1, OW = (W - size) / stride + 1;
    const int apart = stride >= size, covered = stride == size && H % size == 0 && W % size == 0;
    const int64_t map = (int64_t)H * W * B, c0 = share(C, part, parts), c1 = share(C, part + 1, parts);
    if (!covered) memset(dx + c0 * map, 0, sizeof(float) * (size_t)((c1 - c0) * map));
    for (int64_t row = c0 * OH; row < c1 * OH; row++)
        for (int ox = 0; ox < OW; ox++) {
            float *window = dx + row / OH * map + (int64_t)(row % OH * stride * W + ox * stride) * B;
            const int64_t from = (row * OW + ox) * B;
            for (int b = 0; b < B; b += LANES) {
                const vec d = *(const vec *)(dy + from + b);
                const ivec place = __builtin_convertvector(*(const bvec *)(which + from + b), ivec);
                for (int iy = 0, j = 0; iy < size; iy++)
                    for (int ix = 0; ix < size; ix++, j++) {
                        vec *to = (vec *)(window + (int64_t)(iy * W + ix) * B + b);
                        const vec mine = (vec)((place == j) & (ivec)d);
                        if (apart) *to = mine;
                        else *to += mine;
                    }
            }
        }
    return 0;
}

/* Gradients of convolve_pool, member by member, so that what lies between stays in the caches. dx: where wanted. */
int convolve_pool_back(const Shape *s, const Shape *turned, const float *x, const float *w, const float *dy,
                       const int8_t *which, float *dw, float *db, float *dx, int size, int part, int parts) {
    const int OH = turned->H, OW = turned->W;
    const int64_t dx_member = (int64_t)s->I * s->H * s->W * s->B, d_member = (int64_t)s->O * OH * OW * s->B;
    const int64_t y_member = (int64_t)s->O * (OH / size) * (OW / size) * s->B;
    Shape one = *s, back = *turned;
    one.K = back.K = 1;
    float *d = malloc(sizeof(float) * (size_t)d_member);
    int failed = !d;
    for (int64_t k = share(s->K, part, parts); k < share(s->K, part + 1, parts) && !failed; k++) {
        max_pool_back(dy + k * y_member, which + k * y_member, d, s->O, OH, OW, s->B, size, size, 0, 1);
        failed = convolve_weights(&one, x + k * s->x_member, d, dw + k * s->w_member, db ? db + k * s->O : 0, 0, 1) ||
                 (dx && convolve(&back, d, w + k * s->w_member, 0, dx + k * dx_member, 1, 0, 1));
    }
    free(d);
    return failed;
}

/* Which of the images b to b + LANES are among the first `rows`. */
INLINE ivec real(int b, int rows) {
    ivec lanes = {0};
    for (int l = 0; l < LANES; l++) lanes[l] = b + l < rows ? -1 : 0;
    return lanes;
}

/* Batch normalisation of x [C, pixels, B] over pixels and the first `rows` images, with the running statistics brought
 * up to date (Ioffe & Szegedy 2015, algorithm 1). relu: its positive part. mean, inverse [C]: 1 / sqrt(variance + eps). */
int batch_norm(const float *x, float *y, const float *scale, const float *shift, float *mean, float *inverse,
               float *running_mean, float *running_var, double momentum, double eps, int C, int64_t pixels, int B,
               int rows, int relu, int part, int parts) {
    const double count = (double)pixels * rows;
    for (int64_t c = share(C, part, parts); c < share(C, part + 1, parts); c++) {
        const float *from = x + c * pixels * B;
        float *to = y + c * pixels * B;
        vec sums[4] = {{0}, {0}, {0}, {0}};
        for (int b = 0; b < B; b += LANES) {
            const ivec wanted = real(b, rows);
            for (int64_t p = 0; p < pixels; p++) sums[p & 3] += (vec)(wanted & (ivec) * (const vec *)(from + p * B + b));
        }
        mean[c] = (float)(total((sums[0] + sums[1]) + (sums[2] + sums[3])) / count);
        const float m = mean[c];
        memset(sums, 0, sizeof sums);
        for (int b = 0; b < B; b += LANES) {
            const ivec wanted = real(b, rows);
            for (int64_t p = 0; p < pixels; p++) {
                const vec d = (vec)(wanted & (ivec)(*(const vec *)(from + p * B + b) - m));
                sums[p & 3] += d * d;
            }
        }
        const double squares = total((sums[0] + sums[1]) + (sums[2] + sums[3]));
        inverse[c] = (float)(1 / sqrt(squares / count + eps));
        running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * m);
        running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * squares / (count - 1));
        const float a = inverse[c] * scale[c], z = shift[c] - m * a;
        for (int64_t n = 0; n < pixels * B; n += LANES) {
            vec v = *(const vec *)(from + n) * a + z;
            if (relu) v = (vec)(~(v <= 0.0f) & (ivec)v);
            *(vec *)(to + n) = v;
        }
    }
    return 0;
}

/* Gradients of batch_norm: dx (zero for images that are not real), d_scale and d_shift [C]. */
int batch_norm_back(const float *x, const float *dy, float *dx, const float *scale, const float *shift,
                    const float *mean, const float *inverse, float *d_scale, float *d_shift, int C, int64_t pixels,
                    int B, int rows, int relu, int part, int parts) {
    const double count = (double)pixels * rows;
    for (int64_t c = share(C, part, parts); c < share(C, part + 1, parts); c++) {
        const float *from = x + c * pixels * B, *back = dy + c * pixels * B;
        float *to = dx + c * pixels * B;
        const float m = mean[c], a = inverse[c] * scale[c], z = shift[c] - m * a;
        vec shifts[4] = {{0}, {0}, {0}, {0}}, scales[4] = {{0}, {0}, {0}, {0}};
        for (int64_t n = 0; n < pixels * B; n += LANES) { /* what comes back to images that are not real is zero */
            const vec v = *(const vec *)(from + n);
            vec d = *(const vec *)(back + n);
            if (relu) d = (vec)(~(v * a + z <= 0.0f) & (ivec)d);
            shifts[n / LANES & 3] += d, scales[n / LANES & 3] += d * (v - m);
        }
        d_shift[c] = total((shifts[0] + shifts[1]) + (shifts[2] + shifts[3]));
        d_scale[c] = total((scales[0] + scales[1]) + (scales[2] + scales[3])) * inverse[c];
        const float mean_d = (float)(d_shift[c] / count), slope = (float)(d_scale[c] * inverse[c] / count);
        for (int b = 0; b < B; b += LANES) {
            const ivec wanted = real(b, rows);
            for (int64_t p = 0; p < pixels; p++) {
                const vec v = *(const vec *)(from + p * B + b);
                vec d = *(const vec *)(back + p * B + b);
                if (relu) d = (vec)(~(v * a + z <= 0.0f) & (ivec)d);
                *(vec *)(to + p * B + b) = (vec)(wanted & (ivec)((d - mean_d - (v - m) * slope) * a));
            }
        }
    }
    return 0;
}

/* Images x [K, rows, numbers] as y [K, numbers, B], zero beyond `rows`. */
int batch_to_last(const float *x, float *y, int K, int rows, int64_t numbers, int B, int part, int parts) {
    for (int64_t k = share(K, part, parts); k < share(K, part + 1, parts); k++)
        for (int64_t n0 = 0; n0 < numbers; n0 += 16)
            for (int b = 0; b < B; b++) {
                const float *from = x + (k * rows + b) * numbers;
                float *to = y + k * numbers * B + b;
                for (int64_t n = n0; n < n0 + 16 && n < numbers; n++) to[n * B] = b < rows ? from[n] : 0.0f;
            }
    return 0;
}

/* Rows [K, count] of images [N, C, pixels], (image - mean) / std per map, as y [K, C, pixels, B], zero beyond them. */
int gather(const uint8_t *images, const int64_t *rows, const float *mean, const float *std, float *y, int K, int count,
           int C, int64_t pixels, int B, int part, int parts) {
    const int64_t blocks = (int64_t)K * (B / 16), image = C * pixels;
    for (int64_t block = share(blocks, part, parts); block < share(blocks, part + 1, parts); block++) {
        const int64_t k = block / (B / 16);
        const int b = (int)(block % (B / 16)) * 16, wanted = most(0, least(16, count - b));
        const uint8_t *from[16];
        for (int l = 0; l < 16; l++) from[l] = images + rows[k * count + (l < wanted ? b + l : 0)] * image;
        for (int c = 0; c < C; c++) {
            const float m = mean[c], s = std[c];
            for (int64_t p = 0; p < pixels; p++) {
                float *to = y + ((k * C + c) * pixels + p) * B + b, numbers[16];
                for (int l = 0; l < 16; l++) numbers[l] = ((float)from[l][c * pixels + p] - m) / s;
                memcpy(to, numbers, sizeof numbers);
                for (int l = wanted; l < 16; l++) to[l] = 0;
            }
        }
    }
    return 0;
}

enum { cK = 2, cI = 3, cO = 7, cH = 6, cW = 9, cB = 112, cN = 5, cPAD = 2 }; /* sizes of the check */

static void fill(float *numbers, size_t bytes, uint32_t *state) {
    for (size_t n = 0; n < bytes / sizeof(float); n++) {
        *state = *state * 1664525u + 1013904223u;
        numbers[n] = (float)(*state >> 29) - 3;
    }
}

/* 0 when this machine computes what plain loops do, to the last bit: small whole numbers are added without rounding. */
int check(void) {
    static float x[cK][cI][cH][cW][cB], y[cK][cO][cH][cW][cB], w[cK][cO][cI][cN][cN], dy[cK][cO][cH][cW][cB];
    static float dx[cK][cI][cH][cW][cB], dw[cK][cO][cI][cN][cN], db[cK][cO], bias[cK][cO], pooled[cK * cI][2][3][cB];
    static float y1[cK][cO][cH][cW][cB], dx1[cK][cI][cH][cW][cB], dw1[cK][cO][cI][cN][cN], db1[cK][cO];
    static int8_t which[cK * cI][2][3][cB];
    const Shape s = {cK, cI, cO, cH, cW, cB, cN, cN, cPAD, cPAD, cI * cH * cW * cB,
                     cO * cI * cN * cN, cI * cN * cN, cN * cN, cN, 1};
    Shape turned = s;
    turned.x_member = cO * cH * cW * cB, turned.I = cO, turned.O = cI, turned.pad_y = turned.pad_x = cN - 1 - cPAD;
    uint32_t state = 1;
    fill((float *)x, sizeof x, &state), fill((float *)w, sizeof w, &state);
    fill((float *)dy, sizeof dy, &state), fill((float *)bias, sizeof bias, &state);
    if (convolve(&s, (float *)x, (float *)w, (float *)bias, (float *)y, 0, 0, 1)) return 1;
    if (convolve(&turned, (float *)dy, (float *)w, 0, (float *)dx, 1, 0, 1)) return 1;
    if (convolve_weights(&s, (float *)x, (float *)dy, (float *)dw, (float *)db, 0, 1)) return 1;
    for (int k = 0; k < cK; k++)
        for (int o = 0; o < cO; o++)
            for (int oy = 0; oy < cH; oy++)
                for (int ox = 0; ox < cW; ox++)
                    for (int b = 0; b < cB; b++) {
                        const float d = dy[k][o][oy][ox][b];
                        db1[k][o] += d, y1[k][o][oy][ox][b] = bias[k][o];
                        for (int i = 0; i < cI; i++)
                            for (int n = 0; n < cN * cN; n++) {
                                const int iy = oy - cPAD + n / cN, ix = ox - cPAD + n % cN;
                                if (iy < 0 || iy >= cH || ix < 0 || ix >= cW) continue;
                                y1[k][o][oy][ox][b] += w[k][o][i][n / cN][n % cN] * x[k][i][iy][ix][b];
                                dx1[k][i][iy][ix][b] += w[k][o][i][n / cN][n % cN] * d;
                                dw1[k][o][i][n / cN][n % cN] += x[k][i][iy][ix][b] * d;
                            }
                    }
    if (memcmp(y, y1, sizeof y) || memcmp(dx, dx1, sizeof dx)) return 1;
    if (memcmp(dw, dw1, sizeof dw) || memcmp(db, db1, sizeof db)) return 1;
    max_pool((float *)x, (float *)pooled, (int8_t *)which, cK * cI, cH, cW, cB, 3, 3, 0, 0, 1);
    max_pool_back((float *)pooled, (int8_t *)which, (float *)dx, cK * cI, cH, cW, cB, 3, 3, 0, 1);
    for (int c = 0; c < cK * cI; c++)
        for (int n = 0; n < 6 * cB; n++) {
            const int oy = n / cB / 3, ox = n / cB % 3, b = n % cB, place = which[c][oy][ox][b];
            float best = -100;
            for (int j = 0; j < 9; j++) {
                const float v = x[c / cI][c % cI][oy * 3 + j / 3][ox * 3 + j % 3][b];
                if (v > best) best = v;
                const float expected = j == place ? pooled[c][oy][ox][b] : 0.0f;
                if (dx[c / cI][c % cI][oy * 3 + j / 3][ox * 3 + j % 3][b] != expected) return 1;
            }
            if (best != pooled[c][oy][ox][b] || best != x[c / cI][c % cI][oy * 3 + place / 3][ox * 3 + place % 3][b])
                return 1;
        }
    return 0;
}
