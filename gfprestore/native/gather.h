/* Reading the tiles of a convolution: windows of the features, doubled or repeated where wanted, as Winograd's values. */

#ifndef GFPRESTORE_GATHER_H
#define GFPRESTORE_GATHER_H

#include "vectors.h"
#include "winograd.h"

#define HALF_CASE 256 /* beside the flags, for bfloat16 */

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

/* The same where the border pixels go on. */
static Window find_clamped_window(const Step *s, int ty, int tx) {
    Window at;
    for (int i = 0; i < WINDOW; i++) {
        at.row[i] = (const float *)s->x + (Index)clamp(TILE * ty - 1 + i, s->height - 1) * s->width * s->stride_in;
        at.column[i] = (Index)clamp(TILE * tx - 1 + i, s->width - 1) * s->stride_in;
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
                                                                  Index plane, int half, int flags) {
    int across = count_tiles(s->width), down = count_tiles(s->height);
    int wider = flags & (DOUBLES_INPUT | REPEATS_INPUT), clamps = flags & CLAMPS_INPUT;
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int border = !clamps && (ty == 0 || tx == 0 || ty == down - 1 || tx == across - 1);
        Window at = wider    ? find_half_window(s->x, s->height / 2, s->width / 2, s->stride_in, ty, tx)
                    : clamps ? find_clamped_window(s, ty, tx)
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
    switch ((s->flags & (DOUBLES_INPUT | REPEATS_INPUT | CLAMPS_INPUT)) | (half ? HALF_CASE : 0)) {
    case DOUBLES_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, DOUBLES_INPUT); break;
    case DOUBLES_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, DOUBLES_INPUT); break;
    case REPEATS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, REPEATS_INPUT); break;
    case REPEATS_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, REPEATS_INPUT); break;
    case CLAMPS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, CLAMPS_INPUT); break;
    case CLAMPS_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, CLAMPS_INPUT); break;
    case HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, 0); break;
    default: gather_tiles_as(s, first, tiles, v, plane, 0, 0);
    }
}

#endif
