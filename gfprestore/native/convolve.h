/* 3x3 convolutions in Winograd's tiles, with all that is joined to them. */

#ifndef GFPRESTORE_CONVOLVE_H
#define GFPRESTORE_CONVOLVE_H

#include "gather.h"
#include "multiply.h"

#define LARGE (1L << 20) /* floats of features that are no longer near when the next step reads them */
#define FEWEST_TILES 24 /* in a block: a multiple of every ROWS */
#define PADDING 16 /* floats after every plane of a block: equal offsets in many planes would share a few cache lines */

/* One panel for ROWS tiles. */
static inline __attribute__((always_inline)) void multiply_panel(const Step *s, const void *v, Index at, Index weight,
                                                                 int vectors, float *c, int half) {
#if defined(__AVX512BF16__)
    if (half) {
        multiply_half((const uint16_t *)v + at, s->channels_in, (const uint16_t *)s->weight + weight, s->channels_in, vectors,
                      c, s->channels_out);
        return;
    }
#endif
    multiply_float((const float *)v + at, s->channels_in, (const float *)s->weight + weight, s->channels_in, vectors, c,
                   s->channels_out);
    (void)half;
}

static void multiply_tiles(const Step *s, int tiles, const void *v, Index plane_v, float *m, Index plane_m, int half) {
    Index panel_size = (Index)s->channels_in * PANEL;
    int panels = count_panels(s), whole = s->channels_out / PANEL;
    for (int k = 0; k < PRODUCTS; k++)
        for (int panel = 0; panel < panels; panel++)
            for (int t = 0; t < tiles; t += ROWS) {
                Index at = k * plane_v + (Index)t * s->channels_in, weight = (k * panels + panel) * panel_size;
                float *c = m + k * plane_m + (Index)t * s->channels_out + panel * PANEL;
                if (panel < whole)
                    multiply_panel(s, v, at, weight, 2, c, half);
                else
                    multiply_panel(s, v, at, weight, 1, c, half);
            }
}

/* Four by four of the residual's bilinear double: the middle of a window. */
static inline __attribute__((always_inline)) void add_doubled_residual(const Window *at, int c,
                                                                       Vector y[TILE][TILE]) {
    Vector wide[4][WINDOW];
    for (int i = 0; i < 4; i++) {
        Vector row[4];
        for (int j = 0; j < 4; j++) row[j] = load(at->row[i] + at->column[j] + c);
        to_doubled(row, wide[i]);
    }
    for (int j = 0; j < TILE; j++) {
        Vector column[4], doubled[WINDOW];
        for (int i = 0; i < 4; i++) column[i] = wide[i][j + 1];
        to_doubled(column, doubled);
        for (int i = 0; i < TILE; i++) y[i][j] += doubled[i + 1];
    }
}

/* What follows the convolution; see `activate`, whose vectors are read once here. */
static inline __attribute__((always_inline)) void activate_tile(const Step *s, Index pixel, int c,
                                                                Vector y[TILE][TILE]) {
    Vector gain = s->gain ? load(s->gain + c) : (Vector){0} + 1, bias = s->bias ? load(s->bias + c) : (Vector){0};
    Vector slope = slope_of(s, c);
    const float *noise = s->noise ? noise_of(s, c) : NULL;
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            Vector value = y[i][j] * gain + bias;
            if (noise) value += noise_at(s, noise, pixel + (Index)i * s->width + j);
            y[i][j] = leaky(value, slope);
        }
    if (!s->scale || c < s->kept) return;
    int reached = s->channels_out - s->kept;
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            Index at = (pixel + (Index)i * s->width + j) * reached + c - s->kept;
            y[i][j] = y[i][j] * load(s->scale + at) + load(s->shift + at);
        }
}

static inline __attribute__((always_inline)) void store_halved(const Step *s, int ty, int tx, int c,
                                                               Vector y[TILE][TILE]) {
    for (int i = 0; i < TILE; i += 2)
        for (int j = 0; j < TILE; j += 2) {
            Index pixel = (Index)(TILE * ty + i) / 2 * (s->width / 2) + (TILE * tx + j) / 2;
            store((float *)s->y + pixel * s->stride_out + c,
                  0.25f * (y[i][j] + y[i][j + 1] + y[i + 1][j] + y[i + 1][j + 1]));
        }
}

/* Only as many channels as y has: the last panel may have more. */
static inline void store_channels(const Step *s, Index pixel, int c, Vector value, int is_large) {
    float *y = (float *)s->y + pixel * s->stride_out + c;
    if (s->stride_out < LANES) {
        if (c == 0) memcpy(y, &value, 4 * s->stride_out);
    } else if (is_large)
        store_past_cache(y, value);
    else
        store(y, value);
}

/* From products m[PRODUCTS][tiles][channels_out] to features. */
static inline __attribute__((always_inline)) void scatter_tiles_as(const Step *s, int first, int tiles, const float *m,
                                                                   Index plane, int flags) {
    int across = count_tiles(s->width), doubles = flags & DOUBLES_RESIDUAL;
    int is_large = (Index)s->height * s->width * s->channels_out >= LARGE;
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        Index corner = (Index)TILE * ty * s->width + TILE * tx;
        Window at = {0};
        if (doubles) at = find_half_window(s->residual, s->height / 2, s->width / 2, s->stride_residual, ty, tx);
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector half_way[TILE][WINDOW], y[TILE][TILE];
            for (int j = 0; j < WINDOW; j++) {
                Vector column[WINDOW], out[TILE];
                for (int i = 0; i < WINDOW; i++)
                    column[i] = load(m + (i * WINDOW + j) * plane + (Index)t * s->channels_out + c);
                to_outputs(column, out);
                for (int i = 0; i < TILE; i++) half_way[i][j] = out[i];
            }
            for (int i = 0; i < TILE; i++) to_outputs(half_way[i], y[i]);
            activate_tile(s, corner, c, y);
            if (flags & HALVES_OUTPUT) {
                store_halved(s, ty, tx, c, y);
                continue;
            }
            if (doubles) add_doubled_residual(&at, c, y);
            for (int i = 0; i < least(TILE, s->height - TILE * ty); i++)
                for (int j = 0; j < least(TILE, s->width - TILE * tx); j++) {
                    Index pixel = corner + (Index)i * s->width + j;
                    if (s->residual && !doubles) y[i][j] += load(s->residual + pixel * s->stride_residual + c);
                    store_channels(s, pixel, c, y[i][j], is_large);
                }
        }
    }
}

static void scatter_tiles(const Step *s, int first, int tiles, const float *m, Index plane) {
    if (s->flags & HALVES_OUTPUT)
        scatter_tiles_as(s, first, tiles, m, plane, HALVES_OUTPUT);
    else if (s->flags & DOUBLES_RESIDUAL)
        scatter_tiles_as(s, first, tiles, m, plane, DOUBLES_RESIDUAL);
    else
        scatter_tiles_as(s, first, tiles, m, plane, 0);
}

/* Floats of one thread's memory for a block of tiles: values, then products. */
static Index winograd_memory(const Step *s, int tiles) {
    return PRODUCTS * ((Index)tiles * (s->channels_in + s->channels_out) + 3 * PADDING);
}

static int tiles_in_block(const Step *s, Index memory, int threads) {
    int tiles = count_tiles(s->height) * count_tiles(s->width);
    /* Weights are read once for a block: wide layers, whose weights fill the caches, take more tiles than fit there. */
    int most = FEWEST_TILES;
    while (winograd_memory(s, most + ROWS) <= memory) most += ROWS;
    /* As many blocks for every thread, none much smaller than the others. */
    int rounds = (tiles + threads * most - 1) / (threads * most);
    int even = (tiles + threads * rounds - 1) / (threads * rounds);
    return least(most, (even + ROWS - 1) / ROWS * ROWS);
}

static void run_winograd(const Step *s, int block, int tiles_each, float *memory, int half) {
    int tiles = count_tiles(s->height) * count_tiles(s->width), first = block * tiles_each;
    int count = least(tiles_each, tiles - first);
    Index plane_v = (Index)tiles_each * s->channels_in + 2 * PADDING, plane_m = (Index)tiles_each * s->channels_out + PADDING;
    float *m = memory + PRODUCTS * plane_v;
    gather_tiles(s, first, count, memory, plane_v, half);
    multiply_tiles(s, count, memory, plane_v, m, plane_m, half);
    scatter_tiles(s, first, count, m, plane_m);
    finish_stores();
}

#endif
