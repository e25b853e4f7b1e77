/* 3x3 convolutions in Winograd's tiles, with all that is joined to them. */

#ifndef GFPRESTORE_CONVOLVE_H
#define GFPRESTORE_CONVOLVE_H

#include "gather.h"
#include "multiply.h"
#include "scatter.h"

/* Tiles in a block at least: multiples of every ROWS. Large ones take 1.8 times the memory, and what they save by
   reading the weights for twice as many costs more when their values and products leave the cache. */
#define FEWEST_TILES 24
#define FEWEST_LARGE_TILES 12
#define PADDING 16 /* floats after every plane of a block: equal offsets in many planes would share a few cache lines */

/* As many tiles as are multiplied for so many. */
INLINE int whole_rows(int tiles) { return (tiles + ROWS - 1) / ROWS * ROWS; }

INLINE int tile_of(const Step *s) { return s->flags & LARGE_TILES ? 6 : 4; }

static inline int fewest_tiles(const Step *s) { return s->flags & LARGE_TILES ? FEWEST_LARGE_TILES : FEWEST_TILES; }

static inline int count_all_tiles(const Step *s) {
    return count_tiles(s->height, tile_of(s)) * count_tiles(s->width, tile_of(s));
}

/* Product k of ROWS tiles from `t` on and one panel. */
INLINE void multiply_rows_of(const Step *s, int k, int t, int panel, const void *v, Index plane_v, float *m, Index plane_m,
                             int half) {
    Index at = k * plane_v + (Index)t * s->channels_in;
    Index weight = ((Index)k * count_panels(s) + panel) * s->channels_in * PANEL;
    float *c = m + k * plane_m + (Index)t * s->channels_out + panel * PANEL;
    multiply_panel(s, v, at, s->channels_in, weight, s->channels_in, panel < s->channels_out / PANEL, c, s->channels_out, half);
}

/* The panels from `from` up to `to`. */
static void multiply_tiles(const Step *s, int tiles, int from, int to, const void *v, Index plane_v, float *m, Index plane_m,
                           int half) {
    for (int k = 0; k < products_of(tile_of(s)); k++)
        for (int panel = from; panel < to; panel++)
            for (int t = 0; t < tiles; t += ROWS) multiply_rows_of(s, k, t, panel, v, plane_v, m, plane_m, half);
}

/* Floats of one thread's memory for a block of tiles: values, then products. */
static Index winograd_memory(const Step *s, int tiles) {
    return products_of(tile_of(s)) * ((Index)tiles * (s->channels_in + s->channels_out) + 3 * PADDING);
}

/* How a convolution is shared out: blocks of tiles, and of their results parts of the panels; 0 for other steps. */
typedef struct {
    int tiles, parts;
} Split;

#define TRANSFORM 11 /* cycles for a vector of values or of products; a product of two vectors takes one */
#define RELOAD 0.6   /* rows of a product that reading its weights takes as long as */
#define MOST_PARTS 4

static inline int count_blocks_of(const Step *s, Split split) {
    return (count_all_tiles(s) + split.tiles - 1) / split.tiles * split.parts;
}

/* Cycles until the last of some threads is done, but for a factor that is the same for every split. */
static double time_of(const Step *s, Split split, int threads, int half) {
    double outputs = (double)s->channels_out / split.parts, rows = whole_rows(split.tiles) + RELOAD;
    double each = TRANSFORM * split.tiles * (s->channels_in + outputs) + s->channels_in * outputs * rows * (half ? 0.5 : 1);
    return (count_blocks_of(s, split) + threads - 1) / threads * each;
}

/* The largest block whose values and products stay near, or of so many tiles that reading its weights is worth it. */
static int most_tiles(const Step *s, Index memory) {
    int tiles = fewest_tiles(s);
    while (tiles < count_all_tiles(s) && winograd_memory(s, tiles + ROWS) <= memory) tiles += ROWS;
    return tiles;
}

/* Large blocks read the weights less often, small ones leave no thread without work at the end. Where there are few tiles
   several blocks read the same ones, each for a part of the results. */
static Split split_tiles(const Step *s, Index memory, int threads, int half) {
    Split best = {0};
    double shortest = 0;
    /* Colours are sums over all channels. */
    int most = most_tiles(s, memory), most_parts = s->flags & FEEDS_NEXT ? 1 : MOST_PARTS;
    for (int tiles = most; tiles >= ROWS; tiles = tiles / 2 / ROWS * ROWS)
        for (int parts = 1; parts <= most_parts && count_panels(s) % parts == 0; parts *= 2) {
            Split split = {tiles, parts};
            double time = time_of(s, split, threads, half);
            if (!best.tiles || time < shortest) best = split, shortest = time;
        }
    return best;
}

static void run_winograd(const Step *s, int block, Split split, float *memory, int half) {
    int first = block / split.parts * split.tiles, count = least(split.tiles, count_all_tiles(s) - first);
    int panels = count_panels(s) / split.parts, panel = block % split.parts * panels;
    Index plane_v = (Index)split.tiles * s->channels_in + 2 * PADDING, plane_m = (Index)split.tiles * s->channels_out + PADDING;
    float *m = memory + products_of(tile_of(s)) * plane_v;
    gather_tiles(s, first, count, memory, plane_v, half);
    multiply_tiles(s, count, panel, panel + panels, memory, plane_v, m, plane_m, half);
    scatter_tiles(s, first, count, panel * PANEL, least((panel + panels) * PANEL, s->channels_out), m, plane_m);
    finish_stores();
}

/* The same in three steps, for layers whose weights are more than a cache holds: a product's weights are read once for
   all tiles of the step, while a block of the above reads all weights for its own few. */

#define TILES_AT_ONCE 4         /* tiles that a block reads or writes */
#define PANELS_MEMORY (1 << 18) /* bytes of weights that stay near while all tiles pass them by */

static inline Index value_plane(const Step *s) { return (Index)whole_rows(s->tiles) * s->channels_in + 2 * PADDING; }

static inline Index product_plane(const Step *s) { return (Index)whole_rows(s->tiles) * s->channels_out + PADDING; }

static inline int panels_at_once(const Step *s, int half) {
    return most_of(1, (int)(PANELS_MEMORY / ((Index)s->channels_in * PANEL * (half ? 2 : 4))));
}

static inline int count_groups(const Step *s, int half) {
    return (count_panels(s) + panels_at_once(s, half) - 1) / panels_at_once(s, half);
}

static inline int count_tile_blocks(const Step *s) { return (s->tiles + TILES_AT_ONCE - 1) / TILES_AT_ONCE; }

/* y is v[products][tiles][channels_in]. */
static void run_read_tiles(const Step *s, int block, int half) {
    int first = block * TILES_AT_ONCE, count = least(TILES_AT_ONCE, s->tiles - first);
    void *v = (char *)s->y + (Index)first * s->channels_in * (half ? 2 : 4);
    gather_tiles(s, s->first_tile + first, count, v, value_plane(s), half);
}

/* From those values in x to y, m[products][tiles][channels_out]. */
static void run_multiply_tiles(const Step *s, int block, int half) {
    int groups = count_groups(s, half), k = block / groups, from = block % groups * panels_at_once(s, half);
    int to = least(from + panels_at_once(s, half), count_panels(s));
    for (int t = 0; t < s->tiles; t += ROWS)
        for (int panel = from; panel < to; panel++)
            multiply_rows_of(s, k, t, panel, s->x, value_plane(s), s->y, product_plane(s), half);
}

/* From those products in x. */
static void run_write_tiles(const Step *s, int block) {
    int first = block * TILES_AT_ONCE, count = least(TILES_AT_ONCE, s->tiles - first);
    const float *m = (const float *)s->x + (Index)first * s->channels_out;
    scatter_tiles(s, s->first_tile + first, count, 0, s->channels_out, m, product_plane(s));
    finish_stores();
}

#endif
