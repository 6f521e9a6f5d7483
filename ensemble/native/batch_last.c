/* Forward and backward passes of K narrow networks with the batch as the innermost axis.
 *
 * A pixel of one map is a run of B numbers, one per image, so vector registers are full whatever the number of maps,
 * padding costs nothing (its weights are skipped), and a tile of sums stays in registers for a whole output pixel.
 * One member goes through all its layers before the next one begins, so that what they hand on stays in the caches.
 *
 * Arrays are float32 and, but for weights, contiguous; B is a multiple of 16. A layer is a function of one member: of
 * x [I, H, W, B] it makes y [O, OH, OW, B], with weights [O, I, KH, KW] by their strides. Convolutions have stride 1, no
 * dilation and no groups; a linear layer is one of 1 x 1 pixels. What is to be called from outside is at the end.
 */
#include "batch_norm.h"
#include "batches.h"
#include "convolution.h"
#include "deform.h"
#include "gradients.h"
#include "lanes.h"
#include "pooling.h"
#include "product.h"
#include "random.h"
#include "team.h"

enum { CONVOLUTION, MAX_POOL, BATCH_NORM };

/* A layer of all members. `s` is its shape; of pooling and batch norm, I = O maps. Pointers are to the first member's. */
typedef struct {
    int kind, relu;
    int size, stride;                 /* of pooling; of a convolution, windows of `size` side by side are pooled after it */
    int training;                     /* batch norm: by the batch's own statistics */
    Shape s;
    int64_t w_member;                 /* numbers between the members' weights */
    int64_t y_at, which_at, stats_at; /* in a member's room: its result, places of maxima, mean and 1 / deviation */
    const float *w, *bias;            /* batch norm: scale and shift */
    float *dw, *db, *running_mean, *running_var;
    double momentum, eps;
} Layer;

/* A convolution that is a product of matrices. */
INLINE int is_product(const Shape *s) { return s->KH == 1 && s->KW == 1 && s->pad_y == 0 && s->pad_x == 0; }

/* Member k's way through a layer. */
static int pass(const Layer *l, int k, int rows, const float *x, float *y, float *room) {
    const Shape *s = &l->s;
    const int64_t pixels = (int64_t)s->H * s->W;
    const float *w = l->w + k * l->w_member, *bias = l->bias ? l->bias + (int64_t)k * s->O : 0;
    int8_t *which = (int8_t *)(room + l->which_at);
    float *mean = room + l->stats_at;
    if (l->kind == CONVOLUTION && !is_product(s)) {
        if (l->size > 1 || l->relu) return convolve_pool(s, x, w, bias, y, which, l->size, l->relu);
        return convolve(s, x, w, bias, y, 0);
    }
    if (l->kind == CONVOLUTION) {
        product(s->O, s->I, pixels * s->B, w, s->w_out, s->w_in, bias, l->relu, x, y);
    } else if (l->kind == MAX_POOL) {
        max_pool(x, y, which, s->O, s->H, s->W, s->B, l->size, l->stride, l->relu);
    } else {
        float *running_mean = l->running_mean + (int64_t)k * s->O, *running_var = l->running_var + (int64_t)k * s->O;
        if (l->training)
            batch_norm(x, y, w, bias, mean, mean + s->O, running_mean, running_var, l->momentum, l->eps, s->O, pixels,
                       s->B, rows, l->relu);
        else
            batch_norm_by(x, y, w, bias, running_mean, running_var, l->eps, s->O, pixels, s->B, l->relu);
    }
    return 0;
}

/* Member k's way back through a layer: from dy, which may be overwritten, to dx (where wanted) and the parameters'. */
static int pass_back(const Layer *l, int k, int rows, const float *x, const float *y, float *room, float *dy, float *dx,
                     float *scratch) {
    const Shape *s = &l->s;
    const int64_t pixels = (int64_t)s->H * s->W, columns = pixels * s->B;
    const float *w = l->w + k * l->w_member, *bias = l->bias ? l->bias + (int64_t)k * s->O : 0;
    float *dw = l->dw + k * l->w_member, *db = l->db ? l->db + (int64_t)k * s->O : 0;
    const int8_t *which = (const int8_t *)(room + l->which_at);
    const float *mean = room + l->stats_at;
    if (l->kind == MAX_POOL) {
        if (dx) max_pool_back(dy, which, dx, s->O, s->H, s->W, s->B, l->size, l->stride);
        return 0;
    }
    if (l->kind == BATCH_NORM) {
        batch_norm_back(x, dy, dx, w, bias, mean, mean + s->O, dw, db, s->O, pixels, s->B, rows, l->relu);
        return 0;
    }
    if (is_product(s)) {
        for (int64_t n = 0; l->relu && n < s->O * columns; n += LANES) {
            vec *d = (vec *)(dy + n);
            *d = (vec)(~(*(const vec *)(y + n) <= 0.0f) & (ivec)*d);
        }
        for (int o = 0; db && o < s->O; o++) db[o] = sum_of(dy + o * columns, 0, columns);
        if (dx) product(s->I, s->O, columns, w, s->w_in, s->w_out, 0, 0, dy, dx);
        return product_weights(s->O, s->I, columns, x, dy, dw, s->w_out);
    }
    if (l->size == 1 && !l->relu) which = 0;
    const int64_t d_map = (int64_t)(height(s) / l->size) * (width(s) / l->size) * s->B;
    for (int o = 0; db && o < s->O; o++) db[o] = sum_of(dy + o * d_map, which ? which + o * d_map : 0, d_map);
    return convolve_back(s, x, w, dy, which, dw, dx, l->size, scratch);
}

/* Below: what is called from outside, see `Work`. No number depends on how many shares there are. */

/* Layers, and what their results lie in: of x, `room` numbers for each member, of y. */
typedef struct {
    const Layer *layers;
    int count, K, rows;
    const float *x;
    int64_t x_member;
    float *rooms;
    int64_t room;
    float *y;
    int64_t y_member;
} Passage;

/* Results y of all members' layers, of x with `x_member` numbers between members (0: shared) and `rows` images that are
 * real. rooms: `room` numbers for each member; where not `keep`, for each part. */
typedef struct {
    Passage p;
    int keep;
} Forward;

int forward(const void *given, int part, int parts) {
    const int keep = ((const Forward *)given)->keep;
    const Passage *p = &((const Forward *)given)->p;
    const Layer *layers = p->layers;
    const int K = p->K, count = p->count;
    for (int64_t k = share(K, part, parts); k < share(K, part + 1, parts); k++) {
        float *mine = p->rooms + (keep ? k : part) * p->room;
        const float *from = p->x + k * p->x_member;
        for (int n = 0; n < count; n++) {
            float *to = n == count - 1 ? p->y + k * p->y_member : mine + layers[n].y_at;
            if (pass(layers + n, (int)k, p->rows, from, to, mine)) return 1;
            from = to;
        }
    }
    return 0;
}

/* Gradients of all members' parameters and, where wanted, dx [K, ...] from dy, after `forward` with `keep`. */
typedef struct {
    Passage p;
    const float *dy;
    float *dx;
} Backward;

int backward(const void *given, int part, int parts) {
    const Backward *b = given;
    const Passage *p = &b->p;
    const Layer *layers = p->layers;
    const int K = p->K, count = p->count;
    const Shape *first = &layers[0].s;
    const int64_t dx_member = (int64_t)first->I * first->H * first->W * first->B;
    int64_t largest = p->y_member, wide = 0;
    for (int n = 0; n < count; n++) {
        const Shape *s = &layers[n].s;
        const int64_t in = (int64_t)s->I * s->H * s->W * s->B, out = (int64_t)s->O * height(s) * width(s) * s->B;
        largest = in > largest ? in : largest;
        wide = layers[n].kind == CONVOLUTION && out > wide ? out : wide;
    }
    float *scratch = aligned_alloc(64, sizeof(float) * (size_t)(2 * largest + wide));
    if (!scratch) return 1;
    int failed = 0;
    for (int64_t k = share(K, part, parts); k < share(K, part + 1, parts) && !failed; k++) {
        float *mine = p->rooms + k * p->room, *d = scratch, *next = scratch + largest;
        memcpy(d, b->dy + k * p->y_member, sizeof(float) * (size_t)p->y_member);
        for (int n = count - 1; n >= 0 && !failed; n--) {
            const float *from = n ? mine + layers[n - 1].y_at : p->x + k * p->x_member;
            const float *result = n == count - 1 ? p->y + k * p->y_member : mine + layers[n].y_at;
            float *to = n ? next : b->dx ? b->dx + k * dx_member : layers[n].kind == BATCH_NORM ? next : 0;
            failed = pass_back(layers + n, (int)k, p->rows, from, result, mine, d, to, scratch + 2 * largest);
            float *spare = d;
            d = next, next = spare;
        }
    }
    free(scratch);
    return failed;
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
    const Shape s = {cI, cO, cH, cW, cB, cN, cN, cPAD, cPAD, cI * cN * cN, cN * cN, cN, 1};
    uint32_t state = 1;
    fill((float *)x, sizeof x, &state), fill((float *)w, sizeof w, &state);
    fill((float *)dy, sizeof dy, &state), fill((float *)bias, sizeof bias, &state);
    for (int k = 0; k < cK; k++) {
        if (convolve(&s, (float *)x[k], (float *)w[k], bias[k], (float *)y[k], 0)) return 1;
        if (convolve_back(&s, (float *)x[k], (float *)w[k], (float *)dy[k], 0, (float *)dw[k], (float *)dx[k], 1, 0)) return 1;
        for (int o = 0; o < cO; o++) db[k][o] = sum_of((float *)dy[k][o], 0, cH * cW * cB);
    }
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
    for (int o = 0; o < cO; o++) /* a product of matrices: the kernels' first weights alone */
        for (int p = 0; p < cH * cW * cB; p++) {
            float sum = bias[0][o];
            for (int i = 0; i < cI; i++) sum += w[0][o][i][0][0] * ((float *)x[0][i])[p];
            ((float *)y1[0][o])[p] = sum;
        }
    product(cO, cI, cH * cW * cB, (float *)w[0], cI * cN * cN, cN * cN, bias[0], 0, (float *)x[0], (float *)y[0]);
    if (memcmp(y[0], y1[0], sizeof y[0])) return 1;
    float sums[cO][cI], sums1[cO][cI] = {{0}};
    for (int o = 0; o < cO; o++)
        for (int i = 0; i < cI; i++)
            for (int p = 0; p < cH * cW * cB; p++) sums1[o][i] += ((float *)dy[0][o])[p] * ((float *)x[0][i])[p];
    if (product_weights(cO, cI, cH * cW * cB, (float *)x[0], (float *)dy[0], (float *)sums, cI)) return 1;
    if (memcmp(sums, sums1, sizeof sums)) return 1;
    /* A pooled convolution's weights: chosen pixels against the whole of the gradient. */
    static int8_t places_of[cO][cH / 2][cW / 2][cB];
    if (convolve_pool(&s, (float *)x[0], (float *)w[0], bias[0], (float *)y[0], (int8_t *)places_of, 2, 1)) return 1;
    if (chosen_weights_of_all(&s, (float *)x[0], (float *)dy[0], (int8_t *)places_of, (float *)dw[0])) return 1;
    max_pool_back((float *)dy[0], (int8_t *)places_of, (float *)y[0], cO, cH, cW, cB, 2, 2);
    if (convolve_back(&s, (float *)x[0], (float *)w[0], (float *)y[0], 0, (float *)dw1[0], 0, 1, 0)) return 1;
    if (memcmp(dw[0], dw1[0], sizeof dw[0])) return 1;
    max_pool((float *)x, (float *)pooled, (int8_t *)which, cK * cI, cH, cW, cB, 3, 3, 0);
    max_pool_back((float *)pooled, (int8_t *)which, (float *)dx, cK * cI, cH, cW, cB, 3, 3);
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
    /* The first numbers of the seed 0, by the bits that the reference code gives. */
    const int64_t nought = 0;
    double numbers[3];
    const Uniform few = {&nought, &nought, numbers, 0, 1, 1, 3};
    signed_uniform(&few, 0, 1);
    if (numbers[0] != (double)((int64_t)0xE220A8397B1DCDAFu >> 11) * 0x1p-52) return 1;
    if (numbers[2] != (double)((int64_t)0x06C45D188009454Fu >> 11) * 0x1p-52) return 1;
    /* Mirrored images, moved by a pixel to the right and down. */
    static uint8_t images[cB][cH][cW];
    float source[cB][6];
    int64_t rows[cB];
    const float zero = 0, one = 1, mirrored[6] = {-1, 0, 1, 0, 1, -1};
    for (int n = 0; n < cB * cH * cW; n++) ((uint8_t *)images)[n] = (uint8_t)(37 * n);
    for (int b = 0; b < cB; b++) rows[b] = cB - 1 - b, memcpy(source[b], mirrored, sizeof mirrored);
    const Deformation moved = {.source = (float *)source};
    const Deformed all = {(uint8_t *)images, rows, &zero, &one, (float *)y, &moved, 1, cB, 1, cH, cW, cB};
    if (gather_deformed(&all, 0, 1)) return 1;
    for (int oy = 0; oy < cH; oy++)
        for (int ox = 0; ox < cW; ox++)
            for (int b = 0; b < cB; b++) {
                const int from = cW - ox;
                const float expected = oy && ox ? images[cB - 1 - b][oy - 1][from] : 0;
                if (((float *)y)[(oy * cW + ox) * cB + b] != expected) return 1;
            }
    return 0;
}
