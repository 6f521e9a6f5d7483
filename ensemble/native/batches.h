/* Batches: images as the last axis. */
#pragma once
#include "lanes.h"

/* Images x [K, rows, numbers] as y [K, numbers, B], zero beyond `rows`. */
typedef struct {
    const float *x;
    float *y;
    int K, rows;
    int64_t numbers;
    int B;
} Turned;

int batch_to_last(const void *given, int part, int parts) {
    const Turned *t = given;
    const int K = t->K, rows = t->rows, B = t->B;
    const int64_t numbers = t->numbers;
    for (int64_t k = share(K, part, parts); k < share(K, part + 1, parts); k++)
        for (int64_t n0 = 0; n0 < numbers; n0 += 16)
            for (int b = 0; b < B; b++) {
                const float *from = t->x + (k * rows + b) * numbers;
                float *to = t->y + k * numbers * B + b;
                for (int64_t n = n0; n < n0 + 16 && n < numbers; n++) to[n * B] = b < rows ? from[n] : 0.0f;
            }
    return 0;
}

typedef uint8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));
#define BYTES_LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define BYTES_UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

/* Pixels p to p + 16 of 16 images, as 16 pixels of all images. */
INLINE void pixels_of_images(const uint8_t *const from[16], int64_t p, bytes to[16]) {
    bytes next[16];
    UNROLL for (int l = 0; l < 16; l++) to[l] = *(const bytes *)(from[l] + p);
    UNROLL for (int stage = 1; stage < 16; stage *= 2) {
        UNROLL for (int l = 0; l < 8; l++) {
            next[2 * l] = LACED(bytes, to[l], to[l + 8], BYTES_LOWER);
            next[2 * l + 1] = LACED(bytes, to[l], to[l + 8], BYTES_UPPER);
        }
        UNROLL for (int l = 0; l < 16; l++) to[l] = next[l];
    }
}

/* Rows [K, count] of images [N, C, pixels], (image - mean) / std per map, as y [K, C, pixels, B], zero beyond them. */
typedef struct {
    const uint8_t *images;
    const int64_t *rows;
    const float *mean, *std;
    float *y;
    int K, count, C;
    int64_t pixels;
    int B;
} Gathered;

int gather(const void *given, int part, int parts) {
    const Gathered *g = given;
    const int K = g->K, count = g->count, C = g->C, B = g->B;
    const int64_t pixels = g->pixels;
    const int64_t blocks = (int64_t)K * (B / 16), image = C * pixels;
    for (int64_t block = share(blocks, part, parts); block < share(blocks, part + 1, parts); block++) {
        const int64_t k = block / (B / 16);
        const int b = (int)(block % (B / 16)) * 16, wanted = most(0, least(16, count - b));
        const uint8_t *from[16];
        for (int l = 0; l < 16; l++) from[l] = g->images + g->rows[k * count + (l < wanted ? b + l : 0)] * image;
        for (int c = 0; c < C; c++)
            for (int64_t p = 0; p < pixels; p += 16) {
                /* The last ones together with some that are done already; a small image pixel by pixel. */
                const int64_t first = pixels < 16 ? p : p + 16 <= pixels ? p : pixels - 16;
                const int many = pixels < 16 ? (int)pixels : 16;
                bytes found[16];
                if (many == 16) pixels_of_images(from, c * pixels + first, found);
                else
                    for (int j = 0; j < many; j++)
                        for (int l = 0; l < 16; l++) found[j][l] = from[l][c * pixels + j];
                float *to = g->y + ((k * C + c) * pixels + first) * B + b;
                for (int j = 0; j < many; j++, to += B) {
                    float numbers[16];
                    for (int l = 0; l < 16; l++) numbers[l] = ((float)found[j][l] - g->mean[c]) / g->std[c];
                    memcpy(to, numbers, sizeof numbers);
                    for (int l = wanted; l < 16; l++) to[l] = 0;
                }
            }
    }
    return 0;
}
