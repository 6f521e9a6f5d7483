/* Batch normalisation. */
#pragma once
#include "lanes.h"

/* Which of the images b to b + LANES are among the first `rows`. */
INLINE ivec real(int b, int rows) {
    ivec lanes = {0};
    for (int l = 0; l < LANES; l++) lanes[l] = b + l < rows ? -1 : 0;
    return lanes;
}

/* y = a x + z, of x [count]; relu: its positive part. */
static void scaled(const float *x, float *y, float a, float z, int64_t count, int relu) {
    for (int64_t n = 0; n < count; n += LANES) {
        const vec v = *(const vec *)(x + n) * a + z;
        *(vec *)(y + n) = relu ? positive(v) : v;
    }
}

/* Batch normalisation of x [C, pixels, B] over pixels and the first `rows` images, with the running statistics brought
 * up to date (Ioffe & Szegedy 2015, algorithm 1). relu: its positive part. mean, inverse [C]: 1 / sqrt(variance + eps). */
static void batch_norm(const float *x, float *y, const float *scale, const float *shift, float *mean, float *inverse,
                       float *running_mean, float *running_var, double momentum, double eps, int C, int64_t pixels,
                       int B, int rows, int relu) {
    const double count = (double)pixels * rows;
    for (int c = 0; c < C; c++) {
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
        const float a = inverse[c] * scale[c];
        scaled(from, to, a, shift[c] - m * a, pixels * B, relu);
    }
}

/* Batch normalisation by the running statistics. */
static void batch_norm_by(const float *x, float *y, const float *scale, const float *shift, const float *running_mean,
                          const float *running_var, double eps, int C, int64_t pixels, int B, int relu) {
    for (int c = 0; c < C; c++) {
        const float a = scale[c] / sqrtf(running_var[c] + (float)eps);
        scaled(x + c * pixels * B, y + c * pixels * B, a, shift[c] - running_mean[c] * a, pixels * B, relu);
    }
}

/* Gradients of batch_norm: dx (zero for images that are not real), d_scale and d_shift [C]. */
static void batch_norm_back(const float *x, const float *dy, float *dx, const float *scale, const float *shift,
                            const float *mean, const float *inverse, float *d_scale, float *d_shift, int C,
                            int64_t pixels, int B, int rows, int relu) {
    const double count = (double)pixels * rows;
    for (int c = 0; c < C; c++) {
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
}
