/* Every kind of step that is neither a tiled convolution nor a product. */

#ifndef GFPRESTORE_STEPS_H
#define GFPRESTORE_STEPS_H

#include <math.h>

#include "quads.h"
#include "vectors.h"

/* Row by row: the nine neighbours of every pixel side by side, times the style. */
static void run_gather(const Step *s, int row) {
    const float *x = s->x;
    for (int column = 0; column < s->width; column++)
        for (int k = 0; k < 9; k++) {
            int i = row + k / 3 - 1, j = column + k % 3 - 1;
            float *y = (float *)s->y + ((Index)row * s->width + column) * s->channels_out + (Index)k * s->channels_in;
            int inside = i >= 0 && i < s->height && j >= 0 && j < s->width;
            for (int c = 0; c < s->channels_in; c += LANES) {
                Vector value = inside ? load(x + ((Index)i * s->width + j) * s->stride_in + c) : (Vector){0};
                store(y + c, s->style ? value * load(s->style + c) : value);
            }
        }
}

static void run_halve(const Step *s, int row) {
    const float *x = s->x;
    Index line = (Index)2 * s->width * s->stride_in;
    for (int column = 0; column < s->width; column++) {
        const float *from = x + 2 * row * line + (Index)2 * column * s->stride_in;
        float *y = (float *)s->y + ((Index)row * s->width + column) * s->channels_in;
        for (int c = 0; c < s->channels_in; c += LANES)
            store(y + c, 0.25f * (load(from + c) + load(from + s->stride_in + c) + load(from + line + c) +
                                  load(from + line + s->stride_in + c)));
    }
}

static void run_double(const Step *s, int row) {
    const float *x = s->x;
    int height = s->height / 2, width = s->width / 2;
    int near = row / 2, far = clamp(row % 2 ? near + 1 : near - 1, height - 1);
    for (int column = 0; column < s->width; column++) {
        int here = column / 2, there = clamp(column % 2 ? here + 1 : here - 1, width - 1);
        const float *a = x + ((Index)near * width + here) * s->stride_in, *b = x + ((Index)near * width + there) * s->stride_in;
        const float *d = x + ((Index)far * width + here) * s->stride_in, *e = x + ((Index)far * width + there) * s->stride_in;
        float *y = (float *)s->y + ((Index)row * s->width + column) * s->channels_in;
        for (int c = 0; c < s->channels_in; c += LANES)
            store(y + c, 0.75f * (0.75f * load(a + c) + 0.25f * load(b + c)) +
                             0.25f * (0.75f * load(d + c) + 0.25f * load(e + c)));
    }
}

static void run_add(const Step *s, int row) {
    for (int column = 0; column < s->width; column++) {
        Index pixel = (Index)row * s->width + column;
        const float *a = (const float *)s->x + pixel * s->stride_in, *b = s->residual + pixel * s->stride_residual;
        float *y = (float *)s->y + pixel * s->stride_out;
        for (int c = 0; c < s->channels_in; c += LANES) store(y + c, load(a + c) + s->slope * load(b + c));
    }
}

/* The largest under a kernel; what lies outside does not count. */
static void run_pool(const Step *s, int row) {
    int height = s->height * s->pace, width = s->width * s->pace, reach = s->side / 2;
    for (int column = 0; column < s->width; column++) {
        int top = s->pace * row - reach, left = s->pace * column - reach;
        for (int c = 0; c < s->channels_in; c += LANES) {
            Vector most = load((const float *)s->x + ((Index)(top + reach) * width + left + reach) * s->stride_in + c);
            for (int i = most_of(top, 0); i < least(top + s->side, height); i++)
                for (int j = most_of(left, 0); j < least(left + s->side, width); j++) {
                    Vector value = load((const float *)s->x + ((Index)i * width + j) * s->stride_in + c);
                    most = larger(most, value);
                }
            store((float *)s->y + ((Index)row * s->width + column) * s->stride_out + c, most);
        }
    }
}

/* The mean of all pixels, for a vector of channels. */
static void run_mean(const Step *s, int block) {
    Index pixels = (Index)s->height * s->width;
    const float *x = (const float *)s->x + block * LANES;
    Vector sum[4] = {0}; /* several, since one addition waits for the one before */
    for (Index pixel = 0; pixel < pixels; pixel++) sum[pixel % 4] += load(x + pixel * s->stride_in);
    store((float *)s->y + block * LANES, ((sum[0] + sum[1]) + (sum[2] + sum[3])) * (1.0f / pixels));
}

static void run_sigmoid(const Step *s) {
    for (int c = 0; c < s->channels_out; c++) ((float *)s->y)[c] = s->slope + 1 / (1 + expf(-((const float *)s->x)[c]));
}

/* What follows a convolution, without one. */
static void run_activate(const Step *s, int row) {
    for (int column = 0; column < s->width; column++) {
        Index pixel = (Index)row * s->width + column;
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector value = activate(s, load((const float *)s->x + pixel * s->stride_in + c), pixel, c);
            if (s->residual) value += load(s->residual + pixel * s->stride_residual + c);
            store((float *)s->y + pixel * s->stride_out + c, value);
        }
    }
}

/* Where an output lies between two of `few` samples that are spread over `many`, the outermost on the outermost. */
typedef struct {
    int near, far;
    float part; /* of the far one */
} Between;

static inline Between find_between(int place, int few, int many) {
    float at = many > 1 ? (float)(few - 1) / (many - 1) * place : 0;
    int near = least((int)at, few - 1);
    return (Between){near, least(near + 1, few - 1), at - near};
}

/* Floats of memory for a row: scores of all classes, then what every pixel lies between and the highest so far. */
static inline Index classes_memory(const Step *s) { return (Index)s->depth * (s->width / s->pace) + 5 * (Index)s->width; }

/* One more class: where its score is higher than any before, it is the best. The scores lie one after another. */
static void compare_class(const float *restrict scores, int k, int count, const int32_t *restrict near,
                          const int32_t *restrict far, const float *restrict parts, float *restrict highest,
                          int32_t *restrict best) {
    for (int column = 0; column < count; column++) {
        float left = scores[near[column]], score = left + parts[column] * (scores[far[column]] - left);
        best[column] = score > highest[column] ? k : best[column];
        highest[column] = score > highest[column] ? score : highest[column];
    }
}

/* The class of the highest score, the first of several, for a row of pixels; x holds scores, which are interpolated. */
static void run_classes(const Step *s, int row, float *memory) {
    int width = s->width / s->pace, count = s->width;
    float *parts = memory + (Index)s->depth * width, *highest = parts + count;
    int32_t *near = (int32_t *)(highest + count), *far = near + count, *best = far + count;
    Between rows = find_between(row, s->height / s->pace, s->height);
    const float *above = (const float *)s->x + (Index)rows.near * width * s->stride_in;
    const float *below = (const float *)s->x + (Index)rows.far * width * s->stride_in;
    for (int column = 0; column < width; column++)
        for (int k = 0; k < s->depth; k++) {
            Index at = (Index)column * s->stride_in + k;
            memory[k * width + column] = above[at] + rows.part * (below[at] - above[at]);
        }
    for (int column = 0; column < count; column++) {
        Between columns = find_between(column, width, count);
        near[column] = columns.near, far[column] = columns.far, parts[column] = columns.part;
        highest[column] = -INFINITY, best[column] = 0;
    }
    for (int k = 0; k < s->depth; k++)
        compare_class(memory + (Index)k * width, k, count, near, far, parts, highest, best);
    for (int column = 0; column < count; column++) ((uint8_t *)s->y)[(Index)row * count + column] = (uint8_t)best[column];
}

/* One output of a matrix times a vector, or the demodulation of one output channel. */
INLINE void linear_as(const Step *s, int row, int rounded) {
    const float *x = s->x;
    Index w = (Index)row * s->channels_in;
    int squares = s->kind == STEP_INVERSE_NORM;
    Vector sum[4] = {0}; /* several, since one addition waits for the one before */
    for (int i = 0; i < s->channels_in; i += 4 * LANES)
        for (int k = 0; k < 4; k++) {
            Vector value = load(x + i + k * LANES);
            sum[k] += load_as(s->weight, w + i + k * LANES, rounded) * (squares ? value * value : value);
        }
    float total = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
    /* The leaky ReLU that follows halves the variance, which sqrt(2) makes up for. */
    ((float *)s->y)[row] = squares ? 1.41421356237f / sqrtf(total + 1e-8f) : total + s->bias[row];
}

static void run_linear(const Step *s, int row) {
    if (s->flags & ROUNDED_WEIGHT)
        linear_as(s, row, 1);
    else
        linear_as(s, row, 0);
}

static void run_from_pixels(const Step *s, int row) {
    const float *w = s->weight; /* [3][channels_out], for pixels from 0 to 255 */
    for (int column = 0; column < s->width; column++) {
        const uint8_t *pixel = (const uint8_t *)s->x + ((Index)row * s->width + column) * 3;
        float *y = (float *)s->y + ((Index)row * s->width + column) * s->channels_out;
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector value = load(s->bias + c);
            for (int k = 0; k < 3; k++) value += (float)pixel[k] * load(w + (Index)k * s->channels_out + c);
            store(y + c, leaky(value, (Vector){0} + s->slope));
        }
    }
}

#define RGB 4 /* floats of a pixel of the image: three colours and one of no meaning */

/* A pixel of the bilinear double of the residual, an image of half the size. */
static inline Quad doubled_at(const Step *s, int row, int column) {
    int height = s->height / 2, width = s->width / 2;
    int near = row / 2, far = clamp(row % 2 ? near + 1 : near - 1, height - 1);
    int here = column / 2, there = clamp(column % 2 ? here + 1 : here - 1, width - 1);
    const float *above = s->residual + (Index)near * width * RGB, *below = s->residual + (Index)far * width * RGB;
    Quad first = 0.75f * load_quad(above + here * RGB) + 0.25f * load_quad(above + there * RGB);
    Quad second = 0.75f * load_quad(below + here * RGB) + 0.25f * load_quad(below + there * RGB);
    return 0.75f * first + 0.25f * second;
}

/* The colours of a pixel, from sums over lanes of its channels. */
static inline void store_colours(const Step *s, int row, int column, const Vector sum[3]) {
    Quad image = s->residual ? doubled_at(s, row, column) : (Quad){0};
    float *y = (float *)s->y + ((Index)row * s->width + column) * RGB;
    for (int k = 0; k < 3; k++) y[k] = sum_lanes(sum[k]) + s->bias[k] + image[k];
}

INLINE void to_rgb_as(const Step *s, int row, int rounded) {
    const float *w = s->weight; /* [3][channels_in] */
    for (int column = 0; column < s->width; column++) {
        Index x = ((Index)row * s->width + column) * s->stride_in;
        Vector sum[3] = {0};
        for (int c = 0; c < s->channels_in; c += LANES) {
            Vector value = load_as(s->x, x + c, rounded) * load(s->style + c);
            for (int k = 0; k < 3; k++) sum[k] += value * load(w + (Index)k * s->channels_in + c);
        }
        store_colours(s, row, column, sum);
    }
}

static void run_to_rgb(const Step *s, int row) {
    if (s->flags & ROUNDED_INPUT)
        to_rgb_as(s, row, 1);
    else
        to_rgb_as(s, row, 0);
}

static void run_to_pixels(const Step *s, int row) {
    for (int column = 0; column < s->width; column++) {
        const float *x = (const float *)s->x + ((Index)row * s->width + column) * RGB;
        uint8_t *y = (uint8_t *)s->y + ((Index)row * s->width + column) * 3;
        for (int k = 0; k < 3; k++) {
            float value = rintf((x[k] + 1) * 127.5f);
            y[k] = value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
        }
    }
}

#endif
