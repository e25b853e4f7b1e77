/* Convolutions of pixels and separable ones, alone or as a chain whose features never leave the caches. */

#ifndef GFPRESTORE_SEPARABLE_H
#define GFPRESTORE_SEPARABLE_H

#include "products.h"
#include "steps.h"

#define BAND 16      /* rows of a chain's result that a thread makes at a time */
#define RING 3       /* rows that are kept of what passes through a chain: as many as a kernel reaches */
#define LONGEST 4    /* steps of a chain */
#define WIDEST_SIDE 8 /* of a convolution of pixels */

/* Floats of a row of x from half a kernel before its first pixel to behind what the last vector reads. */
static inline int line_of_pixels(const Step *s) { return (s->width * s->pace + 2 * s->side) * 3 + ROWS * 3 * s->pace + LANES; }

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
        store(line + before + k, load_bytes(x + k) - load(s->mean + k % (3 * LANES)));
    memset(line + before + 3 * width, 0, 4 * (end - before - 3 * width));
}

/* A row of a convolution of pixels: the values under a row of the kernel lie side by side. */
static void filter_pixels(const Step *s, int row, float *memory, float *y) {
    const float *lines[WIDEST_SIDE];
    for (int i = 0; i < s->side; i++) {
        float *line = memory + (Index)i * line_of_pixels(s);
        read_pixels(s, row * s->pace - s->side / 2 + i, line);
        lines[i] = line;
    }
    for (int column = 0; column < s->width; column += ROWS) {
        const float *a[WIDEST_SIDE];
        for (int i = 0; i < s->side; i++) a[i] = lines[i] + (Index)3 * s->pace * column;
        filter_panels(s, a, 3 * s->pace, s->side, 3 * s->side, y + (Index)column * s->stride_out, s->width - column);
    }
}

/* What of a 3x3 kernel lies outside. */
enum Side { ABOVE = 1, BELOW = 2, BEFORE = 4, AFTER = 8 };

/* The middles of the three rows under a kernel; NULL is outside. */
typedef struct {
    const float *row[3];
} Rows;

INLINE Vector filter(const Rows *at, Index place, Index stride, const Vector w[10], int outside) {
    Vector sum = w[9];
#pragma GCC unroll 9
    for (int k = 0; k < 9; k++) {
        int beyond = (k < 3 ? ABOVE : k < 6 ? 0 : BELOW) | (k % 3 == 0 ? BEFORE : k % 3 == 1 ? 0 : AFTER);
        if (!(outside & beyond)) sum += w[k] * load(at->row[k / 3] + place + (k % 3 - 1) * stride);
    }
    return sum;
}

/* Every channel's own convolution of a few pixels in a row of x: a[count][channels_in]. */
static void filter_channels(const Step *s, Rows at, int column, int count, float *a) {
    Vector slope = (Vector){0} + s->slope_between;
    Index step = (Index)s->pace * s->stride_in;
    int beyond = (at.row[0] ? 0 : ABOVE) | (at.row[2] ? 0 : BELOW);
    for (int c = 0; c < s->channels_in; c += LANES) {
        Vector w[10];
        for (int k = 0; k < 10; k++) w[k] = load(s->filters + (Index)k * s->channels_in + c);
        Index place = (Index)column * s->pace * s->stride_in + c;
        for (int t = 0; t < count; t++, place += step) {
            /* At pace 2 the kernel never reaches beyond the last column: they are even in number. */
            int last = s->pace == 1 && column + t == s->width - 1;
            int outside = beyond | (column + t ? 0 : BEFORE) | (last ? AFTER : 0);
            Vector value = outside ? filter(&at, place, s->stride_in, w, outside) : filter(&at, place, s->stride_in, w, 0);
            store(a + (Index)t * s->channels_in + c, leaky(value, slope));
        }
    }
}

/* The product across the channels. */
static void join_channels(const Step *s, int count, const float *a, float *y) {
    for (int t = 0; t < count; t += ROWS, a += ROWS * s->channels_in)
        filter_panels(s, &a, s->channels_in, 1, s->depth, y + (Index)t * s->stride_out, count - t);
}

static void separate_row(const Step *s, Rows at, float *memory, float *y) {
    for (int column = 0; column < s->width; column += PRODUCT_ROWS) {
        int count = least(PRODUCT_ROWS, s->width - column);
        filter_channels(s, at, column, count, memory);
        join_channels(s, count, memory, y + (Index)column * s->stride_out);
    }
}

/* Blocks of pixels that go on from one row to the next, which leave less over than rows of few pixels would. */
static void run_separable(const Step *s, int block, float *memory) {
    Index first = (Index)block * PRODUCT_ROWS, line = (Index)s->width * s->pace * s->stride_in;
    int count = least(PRODUCT_ROWS, (int)(s->height * s->width - first));
    int row = (int)(first / s->width), column = (int)(first % s->width);
    for (int t = 0, some; t < count; t += some, row++, column = 0) {
        const float *middle = (const float *)s->x + row * s->pace * line;
        int last = s->pace == 1 && row == s->height - 1;
        some = least(count - t, s->width - column);
        Rows at = {{row ? middle - line : NULL, middle, last ? NULL : middle + line}};
        filter_channels(s, at, column, some, memory + (Index)t * s->channels_in);
    }
    join_channels(s, count, memory, (float *)s->y + first * s->stride_out);
}

/* Steps of the chain that begins here. */
static inline int count_chain(const Step *s) {
    int count = 1;
    while (s[count - 1].flags & FEEDS_NEXT) count++;
    return count;
}

static inline Index ring_size(const Step *s) { return (Index)RING * s->width * s->stride_out; }

/* Floats of one thread's memory for a step alone: rows of values, and the products of a panel. */
static Index memory_alone(const Step *s) {
    switch (s->kind) {
    case STEP_FILTER_PIXELS: return (Index)s->side * line_of_pixels(s);
    case STEP_CONVOLVE: return PRODUCT_ROWS * ((Index)s->side * s->side * s->channels_in + PANEL);
    case STEP_SEPARABLE: return PRODUCT_ROWS * (Index)s->channels_in;
    case STEP_MATMUL: return rounded_rows(s) + PRODUCT_ROWS * PANEL;
    case STEP_BLOCKS_TO_RGB: return s->channels_in; /* a quad for every channel of a pixel */
    case STEP_CLASSES: return classes_memory(s);
    case STEP_BORDER: return PRODUCT_ROWS * (Index)(9 * s->channels_in + PANEL);
    default: return 0;
    }
}

/* The same for a chain: the most that one of its steps needs, then the rows that pass. */
static Index product_memory(const Step *s) {
    Index most = 0, rings = 0;
    for (int k = 0; k < count_chain(s); k++) {
        if (memory_alone(s + k) > most) most = memory_alone(s + k);
        if (s[k].flags & FEEDS_NEXT) rings += ring_size(s + k);
    }
    return most + LANES + rings;
}

typedef struct {
    const Step *step;
    float *ring;  /* rows of what it makes, by their number's remainder; NULL where they go to y */
    int made;     /* the last row that is made */
} Link;

static float *row_of(const Link *link, int row) {
    Index line = (Index)link->step->width * link->step->stride_out;
    return link->ring ? link->ring + row % RING * line : (float *)link->step->y + row * line;
}

/* Make rows up to `last`, and before each what it needs. */
static void make_rows(Link *links, int k, int last, float *memory) {
    const Step *s = links[k].step;
    for (int row = links[k].made + 1; row <= last; row++) {
        if (k == 0)
            filter_pixels(s, row, memory, row_of(links, row));
        else {
            const Link *before = links + k - 1;
            int middle = row * s->pace, end = before->step->height - 1;
            make_rows(links, k - 1, least(middle + 1, end), memory);
            Rows at = {{middle ? row_of(before, middle - 1) : NULL, row_of(before, middle),
                        middle < end ? row_of(before, middle + 1) : NULL}};
            separate_row(s, at, memory, row_of(links + k, row));
        }
        links[k].made = row;
    }
}

/* A band of rows of what a chain makes. */
static void run_chain(const Step *s, int band, float *memory) {
    Link links[LONGEST];
    int count = count_chain(s), first = band * BAND;
    Index most = product_memory(s);
    for (int k = count - 1; k >= 0; k--) {
        if (s[k].flags & FEEDS_NEXT) most -= ring_size(s + k);
        links[k] = (Link){s + k, s[k].flags & FEEDS_NEXT ? memory + most : NULL, first - 1};
        first = most_of(first * s[k].pace - 1, 0);
    }
    make_rows(links, count - 1, least((band + 1) * BAND, s[count - 1].height) - 1, memory);
}

#endif
