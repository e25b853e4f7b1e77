/* Convolutions as products of rows of values, one for every output pixel, with a matrix of weights. */

#ifndef GFPRESTORE_PRODUCTS_H
#define GFPRESTORE_PRODUCTS_H

#include "multiply.h"
#include "vectors.h"

#define PRODUCT_ROWS 48 /* pixels in a block of a product: a multiple of every ROWS */

#define PANELS_AT_ONCE 4 /* of a 1x1 convolution's weights in a block */

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

/* Multiply rows of values with a panel and store what follows; see `multiply_panel`. */
static void multiply_rows(const Step *s, Index first, int count, int panel, const void *a, Index stride, int depth, float *c,
                          int half) {
    Index weight = (Index)panel * depth * PANEL;
    int is_whole = s->channels_out - panel * PANEL > LANES;
    for (int t = 0; t < count; t += ROWS)
        multiply_panel(s, a, t * stride, stride, weight, depth, is_whole, c + (Index)t * PANEL, PANEL, half);
    for (int t = 0; t < count; t++) store_product(s, first + t, panel, c + (Index)t * PANEL);
}

/* Groups of panels that a block of rows is multiplied with: rounded rows are read by several. */
static inline int count_panel_groups(const Step *s) { return (count_panels(s) + PANELS_AT_ONCE - 1) / PANELS_AT_ONCE; }

/* 1x1: the rows are the pixels of x themselves, or in bfloat16 a rounded copy. */
static void run_matmul(const Step *s, int block, float *memory, int half) {
    int groups = count_panel_groups(s), depth = s->channels_in;
    int panel = block % groups * PANELS_AT_ONCE, end = least(panel + PANELS_AT_ONCE, count_panels(s));
    Index first = (Index)(block / groups) * PRODUCT_ROWS;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first));
    const float *x = (const float *)s->x + first * s->stride_in;
    if (half)
        for (int t = 0; t < count; t++)
            for (int i = 0; i < depth; i += LANES)
                store_value(memory, (Index)t * depth + i, load(x + (Index)t * s->stride_in + i), 1);
    for (; panel < end; panel++)
        if (half)
            multiply_rows(s, first, count, panel, memory, depth, depth, memory + rounded_rows(s), 1);
        else
            multiply_rows(s, first, count, panel, x, s->stride_in, depth, memory, 0);
}

/* The channels of x at row i from column `left` on, as many columns as the kernel has, as values from `place` on. */
INLINE void gather_features(const Step *s, int i, int left, void *a, Index place, int half) {
    int height = s->height * s->pace, width = s->width * s->pace;
    for (int j = left; j < left + s->side; j++)
        for (int c = 0; c < s->channels_in; c += LANES, place += LANES) {
            int inside = i >= 0 && i < height && j >= 0 && j < width;
            const float *x = (const float *)s->x + ((Index)i * width + j) * s->stride_in;
            store_value(a, place, inside ? load(x + c) : (Vector){0}, half);
        }
}

/* The rows are what lies under the kernel at every output. */
static void run_convolve(const Step *s, int block, float *memory, int half) {
    Index first = (Index)block * PRODUCT_ROWS, line = (Index)s->side * s->channels_in, depth = s->side * line, place = 0;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first)), reach = s->side / 2;
    for (int t = 0; t < count; t++) {
        int top = (int)((first + t) / s->width) * s->pace - reach, left = (int)((first + t) % s->width) * s->pace - reach;
        for (int i = top; i < top + s->side; i++, place += line)
            if (half)
                gather_features(s, i, left, memory, place, 1);
            else
                gather_features(s, i, left, memory, place, 0);
    }
    for (int panel = 0; panel < count_panels(s); panel++)
        multiply_rows(s, first, count, panel, memory, depth, (int)depth, memory + PRODUCT_ROWS * depth, half);
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
