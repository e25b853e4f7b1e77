/* 3x3 convolutions in Winograd's tiles, with all that is joined to them. */

#ifndef GFPRESTORE_CONVOLVE_H
#define GFPRESTORE_CONVOLVE_H

#include "multiply.h"
#include "vectors.h"
#include "winograd.h"

#define LARGE (3L << 20) /* floats of features that are no longer near when the next step reads them */
#define FEWEST_TILES 24 /* in a block: a multiple of every ROWS */
#define HALF_CASE 32 /* beside the flags, for bfloat16 */
#define PADDING 16 /* floats after every plane of a block: equal offsets in many planes would share a few cache lines */

/* Tiles along a side; the last may reach beyond the features. */
static inline int count_tiles(int side) { return (side + TILE - 1) / TILE; }

/* Where a window's samples lie: at row + column, or outside, where a row is NULL or a column negative. */
typedef struct {
    const float *row[WINDOW];
    Index column[WINDOW];
} Window;

static Window find_window(const Step *s, int ty, int tx) {
    Window at;
    for (int i = 0; i < WINDOW; i++) {
        int row = TILE * ty - 1 + i, column = TILE * tx - 1 + i;
        int above = row >= 0 && row < s->height, beside = column >= 0 && column < s->width;
        at.row[i] = above ? (const float *)s->x + (Index)row * s->width * s->stride_in : NULL;
        at.column[i] = beside ? (Index)column * s->stride_in : -1;
    }
    return at;
}

/* The same in features of half the size, of which four samples each way make a window. */
static Window find_half_window(const float *x, int height, int width, int stride, int ty, int tx) {
    Window at;
    for (int i = 0; i < 4; i++) {
        at.row[i] = x + (Index)clamp(2 * ty - 1 + i, height - 1) * width * stride;
        at.column[i] = (Index)clamp(2 * tx - 1 + i, width - 1) * stride;
    }
    return at;
}

/* B' d of a window d, with `border` telling whether samples may lie outside. */
static inline __attribute__((always_inline)) void read_tile(const Window *at, int c, int border, Index ahead,
                                                            Vector half_way[WINDOW][WINDOW]) {
    for (int j = 0; j < WINDOW; j++) {
        Vector column[WINDOW], out[WINDOW];
        for (int i = 0; i < WINDOW; i++) {
            if (!border && j >= 2) __builtin_prefetch(at->row[i] + at->column[j] + ahead + c, 0, 2);
            int outside = border && (!at->row[i] || at->column[j] < 0);
            column[i] = outside ? (Vector){0} : load(at->row[i] + at->column[j] + c);
        }
        to_products(column, out);
        for (int i = 0; i < WINDOW; i++) half_way[i][j] = out[i];
    }
}

/* Four samples of features of half the size to the six of a window. */
static inline void widen(const Vector d[4], Vector v[WINDOW], int repeats) {
    if (!repeats) {
        to_doubled(d, v);
        return;
    }
    v[0] = d[0];
    v[1] = v[2] = d[1];
    v[3] = v[4] = d[2];
    v[5] = d[3];
}

/* Zero for the samples of a window that lie outside. */
static inline void clear_outside(Vector v[WINDOW], int tile, int side) {
    if (tile == 0) v[0] = (Vector){0};
    for (int i = side - TILE * tile + 1; i < WINDOW; i++) v[i] = (Vector){0};
}

/* The same of features of half the size, doubled or repeated. */
static inline __attribute__((always_inline)) void read_wider_tile(const Step *s, const Window *at, int ty, int tx, int c,
                                                                  int repeats, int border,
                                                                  Vector half_way[WINDOW][WINDOW]) {
    Vector wide[4][WINDOW];
    for (int i = 0; i < 4; i++) {
        Vector row[4];
        for (int j = 0; j < 4; j++) row[j] = load(at->row[i] + at->column[j] + c);
        for (int j = 2; j < 4; j++) __builtin_prefetch(at->row[i] + at->column[j] + (Index)2 * s->stride_in + c, 0, 2);
        widen(row, wide[i], repeats);
        if (border) clear_outside(wide[i], tx, s->width);
    }
    for (int j = 0; j < WINDOW; j++) {
        Vector column[4], doubled[WINDOW], out[WINDOW];
        for (int i = 0; i < 4; i++) column[i] = wide[i][j];
        widen(column, doubled, repeats);
        if (border) clear_outside(doubled, ty, s->height);
        to_products(doubled, out);
        for (int i = 0; i < WINDOW; i++) half_way[i][j] = out[i];
    }
}

/* v[PRODUCTS][tiles][channels_in] of the tiles from `first` on. */
static inline __attribute__((always_inline)) void gather_tiles_as(const Step *s, int first, int tiles, void *v,
                                                                  Index plane, int half, int wider) {
    int across = count_tiles(s->width), down = count_tiles(s->height);
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int border = ty == 0 || tx == 0 || ty == down - 1 || tx == across - 1;
        Window at = wider ? find_half_window(s->x, s->height / 2, s->width / 2, s->stride_in, ty, tx)
                          : find_window(s, ty, tx);
        for (int c = 0; c < s->channels_in; c += LANES) {
            Vector half_way[WINDOW][WINDOW], out[WINDOW];
            if (wider && border)
                read_wider_tile(s, &at, ty, tx, c, wider & REPEATS_INPUT, 1, half_way);
            else if (wider)
                read_wider_tile(s, &at, ty, tx, c, wider & REPEATS_INPUT, 0, half_way);
            else if (border)
                read_tile(&at, c, 1, 0, half_way);
            else
                read_tile(&at, c, 0, (Index)TILE * s->stride_in, half_way);
            Vector style = s->style ? load(s->style + c) : (Vector){0} + 1;
            for (int i = 0; i < WINDOW; i++) {
                to_products(half_way[i], out);
                for (int j = 0; j < WINDOW; j++) {
                    Index place = (i * WINDOW + j) * plane + (Index)t * s->channels_in + c;
#if defined(__AVX512BF16__)
                    if (half) {
                        store_half((uint16_t *)v + place, out[j] * style);
                        continue;
                    }
#endif
                    store((float *)v + place, out[j] * style);
                }
            }
        }
    }
    (void)half;
}

static void gather_tiles(const Step *s, int first, int tiles, void *v, Index plane, int half) {
    /* Every case a loop of its own, without questions inside. */
    switch ((s->flags & (DOUBLES_INPUT | REPEATS_INPUT)) | (half ? HALF_CASE : 0)) {
    case DOUBLES_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, DOUBLES_INPUT); break;
    case DOUBLES_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, DOUBLES_INPUT); break;
    case REPEATS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, REPEATS_INPUT); break;
    case REPEATS_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, REPEATS_INPUT); break;
    case HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, 0); break;
    default: gather_tiles_as(s, first, tiles, v, plane, 0, 0);
    }
}

static void multiply_tiles(const Step *s, int tiles, const void *v, Index plane_v, float *m, Index plane_m, int half) {
    Index panel_size = (Index)s->channels_in * PANEL;
    int panels = s->channels_out / PANEL;
    for (int k = 0; k < PRODUCTS; k++)
        for (int panel = 0; panel < panels; panel++)
            for (int t = 0; t < tiles; t += ROWS) {
                Index at = k * plane_v + (Index)t * s->channels_in, weight = (k * panels + panel) * panel_size;
                float *c = m + k * plane_m + (Index)t * s->channels_out + panel * PANEL;
#if defined(__AVX512BF16__)
                if (half) {
                    multiply_half((const uint16_t *)v + at, s->channels_in, (const uint16_t *)s->weight + weight,
                                  s->channels_in, c, s->channels_out);
                    continue;
                }
#endif
                multiply_float((const float *)v + at, s->channels_in, (const float *)s->weight + weight,
                               s->channels_in, c, s->channels_out);
            }
    (void)half;
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
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            Vector value = y[i][j] * gain + bias;
            if (s->noise) value += s->noise[pixel + (Index)i * s->width + j];
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
    int is_large = (Index)s->height * s->width * s->channels_out > LARGE;
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
