/* Convolutions as products of rows of values, one for every output pixel, with a matrix of weights. */

#ifndef GFPRESTORE_PRODUCTS_H
#define GFPRESTORE_PRODUCTS_H

#include "multiply.h"
#include "vectors.h"

#define PRODUCT_ROWS 48 /* pixels in a block of a product: a multiple of every ROWS */

static inline int count_products(const Step *s) { return (s->height * s->width + PRODUCT_ROWS - 1) / PRODUCT_ROWS; }

static inline Index residual_pixel(const Step *s, Index pixel) {
    if (!(s->flags & REPEATS_RESIDUAL)) return pixel;
    Index row = pixel / s->width, column = pixel % s->width;
    return row / 2 * (s->width / 2) + column / 2;
}

/* What follows a product: c[PANEL] of one panel to a pixel. */
static inline void store_product(const Step *s, Index pixel, int panel, const float *c) {
    int channels = least(PANEL, s->channels_out - panel * PANEL);
    const float *residual = s->residual ? s->residual + residual_pixel(s, pixel) * s->stride_residual : NULL;
    for (int i = 0; i < channels; i += LANES) {
        int channel = panel * PANEL + i;
        Vector value = load(c + i);
        if (residual && s->flags & ADDS_FIRST) value += load(residual + channel);
        value = activate(s, value, pixel, channel);
        if (residual && !(s->flags & ADDS_FIRST)) value += load(residual + channel);
        store((float *)s->y + pixel * s->stride_out + channel, value);
    }
}

/* Floats of memory for the rows of a block in bfloat16. */
static inline Index rounded_rows(const Step *s) { return (Index)PRODUCT_ROWS * s->channels_in / 2; }

static void multiply_rows(const Step *s, Index first, int count, int panel, const float *a, Index stride, int depth, float *c) {
    const float *u = (const float *)s->weight + (Index)panel * depth * PANEL;
    int is_whole = s->channels_out - panel * PANEL > LANES;
    for (int t = 0; t < count; t += ROWS)
        if (is_whole)
            multiply_float(a + t * stride, stride, u, depth, 2, c + (Index)t * PANEL, PANEL);
        else
            multiply_float(a + t * stride, stride, u, depth, 1, c + (Index)t * PANEL, PANEL);
    for (int t = 0; t < count; t++) store_product(s, first + t, panel, c + (Index)t * PANEL);
}

#if defined(__AVX512BF16__)
/* The same in bfloat16 from rows of floats, which are rounded to memory before c. */
static void multiply_half_rows(const Step *s, Index first, int count, int panel, const float *x, Index stride, float *memory) {
    int depth = s->channels_in, is_whole = s->channels_out - panel * PANEL > LANES;
    const uint16_t *u = (const uint16_t *)s->weight + (Index)panel * depth * PANEL;
    uint16_t *a = (uint16_t *)memory;
    float *c = memory + rounded_rows(s);
    for (int t = 0; t < count; t++)
        for (int i = 0; i < depth; i += LANES) store_half(a + (Index)t * depth + i, load(x + t * stride + i));
    for (int t = 0; t < count; t += ROWS)
        if (is_whole)
            multiply_half(a + (Index)t * depth, depth, u, depth, 2, c + (Index)t * PANEL, PANEL);
        else
            multiply_half(a + (Index)t * depth, depth, u, depth, 1, c + (Index)t * PANEL, PANEL);
    for (int t = 0; t < count; t++) store_product(s, first + t, panel, c + (Index)t * PANEL);
}
#endif

/* 1x1: the rows are the pixels of x themselves. */
static void run_matmul(const Step *s, int block, float *memory, int half) {
    int panels = count_panels(s);
    Index first = (Index)(block / panels) * PRODUCT_ROWS;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first));
    const float *x = (const float *)s->x + first * s->stride_in;
#if defined(__AVX512BF16__)
    if (half) {
        multiply_half_rows(s, first, count, block % panels, x, s->stride_in, memory);
        return;
    }
#endif
    multiply_rows(s, first, count, block % panels, x, s->stride_in, s->channels_in, memory);
    (void)half;
}

/* The channels of x at row i from column `left` on, as many columns as the kernel has. */
static void gather_features(const Step *s, int i, int left, float *a) {
    int height = s->height * s->pace, width = s->width * s->pace;
    for (int j = left; j < left + s->side; j++)
        for (int c = 0; c < s->channels_in; c += LANES) {
            int inside = i >= 0 && i < height && j >= 0 && j < width;
            const float *x = (const float *)s->x + ((Index)i * width + j) * s->stride_in;
            store(a + (Index)(j - left) * s->channels_in + c, inside ? load(x + c) : (Vector){0});
        }
}

/* The rows are what lies under the kernel at every output. */
static void run_convolve(const Step *s, int block, float *memory) {
    Index first = (Index)block * PRODUCT_ROWS, line = (Index)s->side * s->channels_in, depth = s->side * line;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first)), reach = s->side / 2;
    float *a = memory;
    for (int t = 0; t < count; t++) {
        int top = (int)((first + t) / s->width) * s->pace - reach, left = (int)((first + t) % s->width) * s->pace - reach;
        for (int i = top; i < top + s->side; i++, a += line) gather_features(s, i, left, a);
    }
    for (int panel = 0; panel < count_panels(s); panel++)
        multiply_rows(s, first, count, panel, memory, depth, (int)depth, memory + PRODUCT_ROWS * depth);
}

/* Leaky ReLU of the channels from c on; of ROWS pixels the first `count` are stored. */
INLINE void store_rows(const Step *s, float *y, int count, int c, int vectors, Vector sum[ROWS][2]) {
    Vector slope = (Vector){0} + s->slope;
#pragma GCC unroll 2
    for (int k = 0; k < vectors; k++)
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++)
            if (row < count) store(y + (Index)row * s->stride_out + c + k * LANES, leaky(sum[row][k], slope));
}

/* One panel for ROWS pixels, whose values under the kernel are `pieces` of `depth` each. */
INLINE void filter_rows(const Step *s, const float *const *a, Index stride, int pieces, int depth, float *y, int count,
                        int panel, int vectors) {
    Vector sum[ROWS][2];
#pragma GCC unroll 2
    for (int k = 0; k < vectors; k++)
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++) sum[row][k] = load(s->bias + panel * PANEL + k * LANES);
    const float *u = (const float *)s->weight + (Index)panel * pieces * depth * PANEL;
    for (int piece = 0; piece < pieces; piece++)
        add_products(a[piece], stride, u + (Index)piece * depth * PANEL, depth, vectors, sum);
    store_rows(s, y, count, panel * PANEL, vectors, sum);
}

/* All panels to the pixels at y; a panel that has a single vector is not multiplied by two. */
static void filter_panels(const Step *s, const float *const *a, Index stride, int pieces, int depth, float *y, int count) {
    int whole = s->channels_out / PANEL;
    for (int panel = 0; panel < whole; panel++) filter_rows(s, a, stride, pieces, depth, y, count, panel, 2);
    if (s->channels_out % PANEL) filter_rows(s, a, stride, pieces, depth, y, count, whole, 1);
}

#endif
