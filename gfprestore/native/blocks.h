/* Features of few channels, held as blocks: the four pixels of 2 x 2 side by side, as channels of one pixel of half the
   size, so that they fill vectors. Convolutions of such blocks are convolutions of more channels, with other weights
   (`gfprestore/native/layout.py`); these are the steps into blocks, out of them, and along their border. */

#ifndef GFPRESTORE_BLOCKS_H
#define GFPRESTORE_BLOCKS_H

#include "products.h"
#include "quads.h"
#include "steps.h"

static inline Quad leaky_quad(Quad value, float slope) {
    QuadBits above = value > 0;
    return (Quad)(((QuadBits)value & above) | ((QuadBits)(slope * value) & ~above));
}

/* STEP_FROM_PIXELS for a row of blocks: channels_out are four times those of the weights [3][] and the bias, a multiple
   of four. */
static void run_pixels_to_blocks(const Step *s, int row) {
    const float *w = s->weight;
    int channels = s->channels_out / 4;
    for (int column = 0; column < s->width; column++)
        for (int place = 0; place < 4; place++) {
            Index pixel = (Index)(2 * row + place / 2) * 2 * s->width + 2 * column + place % 2;
            const uint8_t *x = (const uint8_t *)s->x + 3 * pixel;
            float *y = (float *)s->y + ((Index)row * s->width + column) * s->stride_out + place * channels;
            for (int c = 0; c < channels; c += 4) {
                Quad value = load_quad(s->bias + c);
                for (int k = 0; k < 3; k++) value += (float)x[k] * load_quad(w + (Index)k * channels + c);
                store_quad(y + c, leaky_quad(value, s->slope));
            }
        }
}

/* The four pixels of a block of the bilinear double of the residual, an image of RGB floats as large as the blocks are
   many. */
static inline void double_image(const float *x, int height, int width, int row, int column, Quad y[4]) {
    Quad above[3], below[3];
    for (int j = 0; j < 3; j++) {
        const float *at = x + (Index)clamp(column - 1 + j, width - 1) * RGB;
        Quad middle = 0.75f * load_quad(at + (Index)row * width * RGB);
        above[j] = middle + 0.25f * load_quad(at + (Index)clamp(row - 1, height - 1) * width * RGB);
        below[j] = middle + 0.25f * load_quad(at + (Index)clamp(row + 1, height - 1) * width * RGB);
    }
    y[0] = 0.75f * above[1] + 0.25f * above[0];
    y[1] = 0.75f * above[1] + 0.25f * above[2];
    y[2] = 0.75f * below[1] + 0.25f * below[0];
    y[3] = 0.75f * below[1] + 0.25f * below[2];
}

/* STEP_TO_RGB for a row of blocks. Their channels lie in groups of `depth`: a group of every pixel, then the next group
   of every pixel. The weights are [channels_in / 4][RGB]; of the style, which repeats itself for every pixel, the first
   pixel's is taken. */
static void run_blocks_to_rgb(const Step *s, int row, float *memory) {
    int width = s->width / 2, group = s->depth, groups = s->channels_in / (4 * group);
    for (int c = 0; c < group * groups; c++) {
        float style = s->style[c / group * 4 * group + c % group];
        store_quad(memory + c * RGB, style * load_quad((const float *)s->weight + (Index)c * RGB));
    }
    for (int column = 0; column < width; column++) {
        const float *x = (const float *)s->x + ((Index)row * width + column) * s->stride_in, *weight = memory;
        Quad sum[4] = {0};
        if (s->residual) double_image(s->residual, s->height / 2, width, row, column, sum);
        for (int place = 0; place < 4; place++) sum[place] += load_quad(s->bias);
        for (int g = 0; g < groups; g++, x += 4 * group)
            for (int c = 0; c < group; c++, weight += RGB)
                for (int place = 0; place < 4; place++) sum[place] += x[c + place * group] * load_quad(weight);
        for (int place = 0; place < 4; place++) {
            Index pixel = (Index)(2 * row + place / 2) * s->width + 2 * column + place % 2;
            store_quad((float *)s->y + pixel * RGB, sum[place]);
        }
    }
}

/* Some pixels of the border: `count` from (row, column) on, one after another down or to the right. Corners and sides
   have weights of their own, since other parts of the kernel lie outside. */
typedef struct {
    int row, column, down, count, weights;
} Run;

static inline int runs_along(int side) { return (side - 2 + PRODUCT_ROWS - 1) / PRODUCT_ROWS; }

static inline int count_border(const Step *s) { return 4 + 2 * runs_along(s->width) + 2 * runs_along(s->height); }

/* Four corners, then the top and the bottom in turn, then the left and the right. */
static Run find_run(const Step *s, int block) {
    int bottom = s->height - 1, right = s->width - 1, far = block % 2;
    if (block < 4) return (Run){block / 2 * bottom, far * right, 0, 1, block};
    block -= 4;
    int is_upright = block >= 2 * runs_along(s->width);
    if (is_upright) block -= 2 * runs_along(s->width);
    int first = 1 + block / 2 * PRODUCT_ROWS, count = least(PRODUCT_ROWS, (is_upright ? bottom : right) - first);
    if (is_upright) return (Run){first, far * right, 1, count, 6 + far};
    return (Run){far * bottom, first, 0, count, 4 + far};
}

/* The nine pixels around one of x times the style; the border pixels go on. */
static void gather_around(const Step *s, int row, int column, float *a) {
    for (int k = 0; k < 9; k++) {
        Index i = clamp(row + k / 3 - 1, s->height - 1), j = clamp(column + k % 3 - 1, s->width - 1);
        const float *x = (const float *)s->x + (i * s->width + j) * s->stride_in;
        for (int c = 0; c < s->channels_in; c += LANES, a += LANES)
            store(a, s->style ? load(x + c) * load(s->style + c) : load(x + c));
    }
}

/* 3x3 convolution of the outermost pixels alone: weights are u[8][count_panels][9 * channels_in][PANEL]. */
static void run_border(const Step *s, int block, float *memory) {
    Run run = find_run(s, block);
    Index depth = 9 * s->channels_in;
    float *c = memory + PRODUCT_ROWS * depth;
    for (int t = 0; t < run.count; t++)
        gather_around(s, run.row + (run.down ? t : 0), run.column + (run.down ? 0 : t), memory + t * depth);
    for (int panel = 0; panel < count_panels(s); panel++) {
        const float *u = (const float *)s->weight + ((Index)run.weights * count_panels(s) + panel) * depth * PANEL;
        for (int t = 0; t < run.count; t += ROWS)
            multiply_float(memory + t * depth, depth, u, (int)depth, 2, c + (Index)t * PANEL, PANEL);
        for (int t = 0; t < run.count; t++) {
            Index pixel = (Index)(run.row + (run.down ? t : 0)) * s->width + run.column + (run.down ? 0 : t);
            store_product(s, pixel, panel, c + (Index)t * PANEL);
        }
    }
}

#endif
