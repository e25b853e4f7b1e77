/* Convolutions as products of rows of values, one for every output pixel, with a matrix of weights. */

#ifndef GFPRESTORE_PRODUCTS_H
#define GFPRESTORE_PRODUCTS_H

#include "multiply.h"
#include "vectors.h"

#define PRODUCT_ROWS 48 /* pixels in a block of a product: a multiple of every ROWS */

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

/* Weights are packed as u[count_panels][depth][PANEL]; of the last panel only the channels that y has are stored. */
static inline int count_panels(const Step *s) { return (s->channels_out + PANEL - 1) / PANEL; }

static inline int count_products(const Step *s) { return (s->height * s->width + PRODUCT_ROWS - 1) / PRODUCT_ROWS; }

/* Floats of a row of x from one pixel before its first to behind what the last vector reads. */
static inline int line_of_pixels(const Step *s) { return (s->width * s->pace + 2 * s->side) * 3 + ROWS * 3 * s->pace + LANES; }

/* Floats of one thread's memory for a block: rows of values, and the products of a panel. */
static Index product_memory(const Step *s) {
    switch (s->kind) {
    case STEP_FILTER_PIXELS: return (Index)s->side * line_of_pixels(s);
    case STEP_CONVOLVE: return PRODUCT_ROWS * ((Index)s->side * s->side * s->channels_in + PANEL);
    case STEP_SEPARABLE: return PRODUCT_ROWS * (Index)s->channels_in;
    case STEP_MATMUL: return PRODUCT_ROWS * PANEL;
    default: return 0;
    }
}

static inline Index residual_pixel(const Step *s, Index pixel) {
    if (!(s->flags & REPEATS_RESIDUAL)) return pixel;
    Index row = pixel / s->width, column = pixel % s->width;
    return row / 2 * (s->width / 2) + column / 2;
}

/* What follows a product: c[count][PANEL] of one panel to the pixels from `first` on. */
static void store_products(const Step *s, Index first, int count, int panel, const float *c) {
    int channels = least(PANEL, s->channels_out - panel * PANEL);
    for (int t = 0; t < count; t++) {
        Index pixel = first + t;
        const float *residual = s->residual ? s->residual + residual_pixel(s, pixel) * s->stride_residual : NULL;
        for (int i = 0; i < channels; i += LANES) {
            int channel = panel * PANEL + i;
            Vector value = load(c + (Index)t * PANEL + i);
            if (residual && s->flags & ADDS_FIRST) value += load(residual + channel);
            value = activate(s, value, pixel, channel);
            if (residual && !(s->flags & ADDS_FIRST)) value += load(residual + channel);
            store((float *)s->y + pixel * s->stride_out + channel, value);
        }
    }
}

static void multiply_rows(const Step *s, Index first, int count, int panel, const float *a, Index stride, int depth, float *c) {
    const float *u = (const float *)s->weight + (Index)panel * depth * PANEL;
    for (int t = 0; t < count; t += ROWS)
        multiply_float(a + t * stride, stride, u, depth, c + (Index)t * PANEL, PANEL);
    store_products(s, first, count, panel, c);
}

/* 1x1: the rows are the pixels of x themselves. */
static void run_matmul(const Step *s, int block, float *memory) {
    int panels = count_panels(s);
    Index first = (Index)(block / panels) * PRODUCT_ROWS;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first));
    multiply_rows(s, first, count, block % panels, (const float *)s->x + first * s->stride_in, s->stride_in,
                  s->channels_in, memory);
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

/* Bias and leaky ReLU, and of ROWS pixels of y the first `count`. */
static inline __attribute__((always_inline)) void store_rows(const Step *s, Index pixel, int count, int c, int vectors,
                                                             Vector sum[ROWS][2]) {
    float *y = (float *)s->y + pixel * s->stride_out + c;
    Vector slope = (Vector){0} + s->slope;
#pragma GCC unroll 2
    for (int k = 0; k < vectors; k++) {
        Vector bias = load(s->bias + c + k * LANES);
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++)
            if (row < count) store(y + (Index)row * s->stride_out + k * LANES, leaky(sum[row][k] + bias, slope));
    }
}

/* One panel for ROWS pixels, whose values under the kernel are `pieces` of `depth` each. */
static inline __attribute__((always_inline)) void filter_rows(const Step *s, const float *const *a, Index stride, int pieces,
                                                              int depth, Index pixel, int count, int panel, int vectors) {
    Vector sum[ROWS][2] = {0};
    const float *u = (const float *)s->weight + (Index)panel * pieces * depth * PANEL;
    for (int piece = 0; piece < pieces; piece++)
        add_products(a[piece], stride, u + (Index)piece * depth * PANEL, depth, vectors, sum);
    store_rows(s, pixel, count, panel * PANEL, vectors, sum);
}

/* All panels; one that has a single vector is not multiplied by two. */
static void filter_panels(const Step *s, const float *const *a, Index stride, int pieces, int depth, Index pixel, int count) {
    int whole = s->channels_out / PANEL;
    for (int panel = 0; panel < whole; panel++) filter_rows(s, a, stride, pieces, depth, pixel, count, panel, 2);
    if (s->channels_out % PANEL) filter_rows(s, a, stride, pieces, depth, pixel, count, whole, 1);
}

/* A row of pixels as floats, less the mean; zeros beyond its ends. */
static void read_pixels(const Step *s, int i, float *line) {
    int width = s->width * s->pace, before = s->side / 2 * 3, end = line_of_pixels(s);
    const uint8_t *x = (const uint8_t *)s->x + (Index)i * width * 3;
    if (i < 0 || i >= s->height * s->pace) {
        memset(line, 0, 4 * end);
        return;
    }
    memset(line, 0, 4 * before);
    for (int k = 0; k < 3 * width; k += LANES)
        store(line + before + k, __builtin_convertvector(*(const Bytes *)(x + k), Vector) - load(s->mean + k % (3 * LANES)));
    memset(line + before + 3 * width, 0, 4 * (end - before - 3 * width));
}

/* A row of a convolution of pixels: the values under a row of the kernel lie side by side. */
static void run_filter_pixels(const Step *s, int row, float *memory) {
    const float *lines[8];
    for (int i = 0; i < s->side; i++) {
        float *line = memory + (Index)i * line_of_pixels(s);
        read_pixels(s, row * s->pace - s->side / 2 + i, line);
        lines[i] = line;
    }
    for (int column = 0; column < s->width; column += ROWS) {
        const float *a[8];
        for (int i = 0; i < s->side; i++) a[i] = lines[i] + (Index)3 * s->pace * column;
        filter_panels(s, a, 3 * s->pace, s->side, 3 * s->side, (Index)row * s->width + column, s->width - column);
    }
}

/* Where the middle of a 3x3 kernel lies, and which of its sides lie outside. */
typedef struct {
    const float *middle;
    int outside;
} Neighbours;

enum Side { ABOVE = 1, BELOW = 2, BEFORE = 4, AFTER = 8 };

static void find_neighbours(const Step *s, Index first, int count, Neighbours *at) {
    int row = (int)(first / s->width), column = (int)(first % s->width);
    Index line = (Index)s->width * s->pace * s->stride_in;
    for (int t = 0; t < count; t++) {
        /* At pace 2 the kernel never reaches beyond the last row and column, which are even in number. */
        int last_row = s->pace == 1 && row == s->height - 1, last_column = s->pace == 1 && column == s->width - 1;
        at[t].middle = (const float *)s->x + row * s->pace * line + (Index)column * s->pace * s->stride_in;
        at[t].outside = (row ? 0 : ABOVE) | (last_row ? BELOW : 0) | (column ? 0 : BEFORE) | (last_column ? AFTER : 0);
        if (++column == s->width) column = 0, row++;
    }
}

static inline __attribute__((always_inline)) Vector filter(const float *middle, Index line, Index stride,
                                                           const Vector w[10], int outside) {
    Vector sum = w[9];
#pragma GCC unroll 9
    for (int k = 0; k < 9; k++) {
        int beyond = (k < 3 ? ABOVE : k < 6 ? 0 : BELOW) | (k % 3 == 0 ? BEFORE : k % 3 == 1 ? 0 : AFTER);
        if (!(outside & beyond)) sum += w[k] * load(middle + (k / 3 - 1) * line + (k % 3 - 1) * stride);
    }
    return sum;
}

/* Rows of every channel's own 3x3 convolution, of a separable one. */
static void filter_channels(const Step *s, const Neighbours *at, int count, float *a) {
    Index line = (Index)s->width * s->pace * s->stride_in, stride = s->stride_in;
    Vector slope = (Vector){0} + s->slope_between;
    for (int c = 0; c < s->channels_in; c += LANES) {
        Vector w[10];
        for (int k = 0; k < 10; k++) w[k] = load(s->filters + (Index)k * s->channels_in + c);
        for (int t = 0; t < count; t++) {
            const float *middle = at[t].middle + c;
            Vector value = at[t].outside ? filter(middle, line, stride, w, at[t].outside) : filter(middle, line, stride, w, 0);
            store(a + (Index)t * s->channels_in + c, leaky(value, slope));
        }
    }
}

/* Every channel's own 3x3 convolution, and a product across the channels. */
static void run_separable(const Step *s, int block, float *memory) {
    Index first = (Index)block * PRODUCT_ROWS;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first));
    Neighbours at[PRODUCT_ROWS];
    find_neighbours(s, first, count, at);
    filter_channels(s, at, count, memory);
    for (int t = 0; t < count; t += ROWS) {
        const float *a = memory + (Index)t * s->channels_in;
        filter_panels(s, &a, s->channels_in, 1, s->depth, first + t, count - t);
    }
}

#endif
