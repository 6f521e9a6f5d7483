/* Products of matrices: linear layers and convolutions with kernels of one pixel. */
#pragma once
#include "lanes.h"

/* Columns b to b + count of x [I, columns] as rows of y [count, wide], zero beyond I. */
static void transposed(const float *x, float *y, int I, int64_t columns, int count, int wide) {
    for (int i = 0; i < wide; i += LANES)
        for (int b = 0; b < count; b += LANES) {
            vec block[LANES], next[LANES];
            UNROLL for (int l = 0; l < LANES; l++)
                block[l] = i + l < I ? *(const vec *)(x + (i + l) * columns + b) : (vec){0};
            UNROLL for (int stage = 1; stage < LANES; stage *= 2) {
                UNROLL for (int l = 0; l < LANES / 2; l++) {
                    next[2 * l] = LACED(ivec, block[l], block[l + LANES / 2], LOWER);
                    next[2 * l + 1] = LACED(ivec, block[l], block[l + LANES / 2], UPPER);
                }
                UNROLL for (int l = 0; l < LANES; l++) block[l] = next[l];
            }
            UNROLL for (int l = 0; l < LANES; l++) *(vec *)(y + (int64_t)(b + l) * wide + i) = block[l];
        }
}

/* A tile of `maps` rows and `vectors` registers of the product of a (by its strides) and b [depth, row]. */
INLINE void product_tile(const int maps, const int vectors, const float *a, int64_t a_row, int64_t a_column,
                         const float *b, int64_t b_row, int depth, vec sum[TILE_MAPS][TILE_VECTORS]) {
    for (int d = 0; d < depth; d++, a += a_column, b += b_row) {
        vec bs[TILE_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) bs[v] = *(const vec *)(b + v * LANES);
        UNROLL for (int o = 0; o < maps; o++) {
            UNROLL for (int v = 0; v < vectors; v++) sum[o][v] += a[o * a_row] * bs[v];
        }
    }
}

/* Some rows and columns of `product`. */
INLINE void product_part(const int maps, const int vectors, const float *w, int64_t w_out, int64_t w_in,
                         const float *bias, int relu, const float *x, float *y, int I, int64_t columns) {
    vec sum[TILE_MAPS][TILE_VECTORS];
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++) sum[o][v] = (vec){0} + (bias ? bias[o] : 0.0f);
    }
    product_tile(maps, vectors, w, w_out, w_in, x, columns, I, sum);
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++)
            *(vec *)(y + o * columns + v * LANES) = relu ? positive(sum[o][v]) : sum[o][v];
    }
}

/* y [O, columns] = w x + bias, x [I, columns]; relu: the positive part. columns: a multiple of 16. */
static void product(int O, int I, int64_t columns, const float *w, int64_t w_out, int64_t w_in, const float *bias,
                    int relu, const float *x, float *y) {
    const int tiles = (O + TILE_MAPS - 1) / TILE_MAPS;
    for (int64_t c = 0, vectors; c < columns; c += vectors * LANES) {
        const int64_t left = (columns - c) / LANES;
        vectors = left >= TILE_VECTORS ? TILE_VECTORS : left >= 2 ? 2 : 1;
        for (int t = 0; t < tiles; t++) {
            const int first = share(O, t, tiles), maps = share(O, t + 1, tiles) - first;
            const float *a = w + first * w_out, *b = bias ? bias + first : 0;
            float *to = y + first * columns + c;
#define PART(n, v) case 10 * v + n: product_part(n, v, a, w_out, w_in, b, relu, x + c, to, I, columns); break;
            switch (10 * (int)vectors + maps) { EACH_TILE(PART) }
#undef PART
        }
    }
}

/* Some rows and columns of `product_weights`, of `count` columns of dy; i: the numbers of a row that are wanted. */
INLINE void product_weights_part(const int maps, const int vectors, const float *dy, int64_t columns, const float *xt,
                                 int wide, int count, float *dw, int64_t w_out, int i, int more) {
    vec sum[TILE_MAPS][TILE_VECTORS];
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            sum[o][v] = (vec){0};
            if (more) memcpy(&sum[o][v], dw + o * w_out + v * LANES, sizeof(float) * least(LANES, i - v * LANES));
        }
    }
    product_tile(maps, vectors, dy, columns, 1, xt, wide, count, sum);
    UNROLL for (int o = 0; o < maps; o++) {
        UNROLL for (int v = 0; v < vectors; v++)
            memcpy(dw + o * w_out + v * LANES, &sum[o][v], sizeof(float) * least(LANES, i - v * LANES));
    }
}

/* dw [O, I] = dy [O, columns] x [I, columns] transposed, rows of dw by their stride. */
static int product_weights(int O, int I, int64_t columns, const float *x, const float *dy, float *dw, int64_t w_out) {
    const int tiles = (O + TILE_MAPS - 1) / TILE_MAPS, wide = (I + LANES - 1) / LANES * LANES;
    float *xt = aligned_alloc(64, sizeof(float) * IMAGES * (size_t)wide);
    if (!xt) return 1;
    for (int64_t c = 0; c < columns; c += IMAGES) {
        const int count = columns - c < IMAGES ? (int)(columns - c) : IMAGES;
        transposed(x + c, xt, I, columns, count, wide);
        for (int i = 0, vectors; i < wide; i += vectors * LANES) {
            const int left = (wide - i) / LANES;
            vectors = left >= TILE_VECTORS ? TILE_VECTORS : left >= 2 ? 2 : 1;
            for (int t = 0; t < tiles; t++) {
                const int first = share(O, t, tiles), maps = share(O, t + 1, tiles) - first;
                const float *d = dy + first * columns + c;
                float *to = dw + first * w_out + i;
#define PART(n, v) case 10 * v + n: product_weights_part(n, v, d, columns, xt + i, wide, count, to, w_out, I - i, c > 0); break;
                switch (10 * vectors + maps) { EACH_TILE(PART) }
#undef PART
            }
        }
    }
    free(xt);
    return 0;
}
