/* Reading the tiles of a convolution: windows of the features, doubled or repeated where wanted, as Winograd's values. */

#ifndef GFPRESTORE_GATHER_H
#define GFPRESTORE_GATHER_H

#include "vectors.h"
#include "winograd.h"

#define HALF_CASE (1 << 16) /* beside the flags, to multiply in bfloat16 */

/* Tiles along a side; the last may reach beyond the features. */
INLINE int count_tiles(int side, int tile) { return (side + tile - 1) / tile; }

INLINE int bytes_of(int rounded) { return rounded ? 2 : 4; }

/* Where a window's samples lie: `column` of them after row, or outside, where a row is NULL or a column negative. */
typedef struct {
    const char *row[LARGEST_WINDOW];
    Index column[LARGEST_WINDOW];
} Window;

INLINE Window find_window(const Step *s, int ty, int tx, int tile, int rounded) {
    Window at;
    for (int i = 0; i < window_of(tile); i++) {
        int row = tile * ty - 1 + i, column = tile * tx - 1 + i;
        int above = row >= 0 && row < s->height, beside = column >= 0 && column < s->width;
        at.row[i] = above ? (const char *)s->x + (Index)row * s->width * s->stride_in * bytes_of(rounded) : NULL;
        at.column[i] = beside ? (Index)column * s->stride_in : -1;
    }
    return at;
}

/* The same where the border pixels go on. */
INLINE Window find_clamped_window(const Step *s, int ty, int tx, int tile) {
    Window at;
    for (int i = 0; i < window_of(tile); i++) {
        at.row[i] = (const char *)s->x + (Index)clamp(tile * ty - 1 + i, s->height - 1) * s->width * s->stride_in * 4;
        at.column[i] = (Index)clamp(tile * tx - 1 + i, s->width - 1) * s->stride_in;
    }
    return at;
}

/* The same in features of half the size. */
INLINE Window find_half_window(const void *x, int height, int width, int stride, int ty, int tx, int tile, int rounded) {
    Window at;
    for (int i = 0; i < halves_of(tile); i++) {
        at.row[i] = (const char *)x + (Index)clamp(tile / 2 * ty - 1 + i, height - 1) * width * stride * bytes_of(rounded);
        at.column[i] = (Index)clamp(tile / 2 * tx - 1 + i, width - 1) * stride;
    }
    return at;
}

typedef Vector HalfWay[LARGEST_WINDOW][LARGEST_WINDOW];

/* B' d of a window d, with `border` telling whether samples may lie outside. */
INLINE void read_tile(const Window *at, int c, int border, Index ahead, int tile, int rounded, HalfWay half_way) {
    for (int j = 0; j < window_of(tile); j++) {
        Vector column[LARGEST_WINDOW], out[LARGEST_WINDOW];
        for (int i = 0; i < window_of(tile); i++) {
            if (!border && j >= 2) __builtin_prefetch(at->row[i] + (at->column[j] + ahead + c) * bytes_of(rounded), 0, 2);
            int outside = border && (!at->row[i] || at->column[j] < 0);
            column[i] = outside ? (Vector){0} : load_as(at->row[i], at->column[j] + c, rounded);
        }
        to_products(column, out, tile);
        for (int i = 0; i < window_of(tile); i++) half_way[i][j] = out[i];
    }
}

/* Samples of features of half the size to a window. */
INLINE void widen(const Vector *d, Vector *v, int repeats, int tile) {
    if (!repeats) {
        to_doubled(d, v, tile);
        return;
    }
    for (int i = 0; i < window_of(tile); i++) v[i] = d[(i + 1) / 2];
}

/* Zero for the samples of a window that lie outside. */
INLINE void clear_outside(Vector *v, int at, int side, int tile) {
    if (at == 0) v[0] = (Vector){0};
    for (int i = side - tile * at + 1; i < window_of(tile); i++) v[i] = (Vector){0};
}

/* B' d of a window of features of half the size, doubled or repeated. */
INLINE void read_wider_tile(const Step *s, const Window *at, int ty, int tx, int c, int repeats, int border, int tile,
                            int rounded, HalfWay half_way) {
    Vector wide[LARGEST_TILE / 2 + 2][LARGEST_WINDOW];
    for (int i = 0; i < halves_of(tile); i++) {
        Vector row[LARGEST_TILE / 2 + 2];
        for (int j = 0; j < halves_of(tile); j++) row[j] = load_as(at->row[i], at->column[j] + c, rounded);
        for (int j = 2; j < halves_of(tile); j++)
            __builtin_prefetch(at->row[i] + (at->column[j] + (Index)tile / 2 * s->stride_in + c) * bytes_of(rounded), 0, 2);
        widen(row, wide[i], repeats, tile);
        if (border) clear_outside(wide[i], tx, s->width, tile);
    }
    for (int j = 0; j < window_of(tile); j++) {
        Vector column[LARGEST_TILE / 2 + 2], doubled[LARGEST_WINDOW], out[LARGEST_WINDOW];
        for (int i = 0; i < halves_of(tile); i++) column[i] = wide[i][j];
        widen(column, doubled, repeats, tile);
        if (border) clear_outside(doubled, ty, s->height, tile);
        to_products(doubled, out, tile);
        for (int i = 0; i < window_of(tile); i++) half_way[i][j] = out[i];
    }
}

/* The values of one tile to where it lies in every plane of v. */
INLINE void store_values(const Step *s, HalfWay half_way, int c, void *v, Index place, Index plane, int half, int tile) {
    Vector style = s->style ? load(s->style + c) : (Vector){0} + 1;
    for (int i = 0; i < window_of(tile); i++) {
        Vector out[LARGEST_WINDOW];
        to_products(half_way[i], out, tile);
        for (int j = 0; j < window_of(tile); j++, place += plane) {
#if defined(__AVX512BF16__)
            if (half) {
                store_half((uint16_t *)v + place, out[j] * style);
                continue;
            }
#endif
            store((float *)v + place, out[j] * style);
        }
    }
    (void)half;
}

/* v[products][tiles][channels_in] of the tiles from `first` on. */
INLINE void gather_tiles_as(const Step *s, int first, int tiles, void *v, Index plane, int half, int flags, int tile) {
    int across = count_tiles(s->width, tile), down = count_tiles(s->height, tile);
    int wider = flags & (DOUBLES_INPUT | REPEATS_INPUT), repeats = flags & REPEATS_INPUT, clamps = flags & CLAMPS_INPUT;
    int rounded = flags & ROUNDED_INPUT;
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int border = !clamps && (ty == 0 || tx == 0 || ty == down - 1 || tx == across - 1);
        Window at = wider    ? find_half_window(s->x, s->height / 2, s->width / 2, s->stride_in, ty, tx, tile, rounded)
                    : clamps ? find_clamped_window(s, ty, tx, tile)
                             : find_window(s, ty, tx, tile, rounded);
        for (int c = 0; c < s->channels_in; c += LANES) {
            HalfWay half_way;
            if (wider && border)
                read_wider_tile(s, &at, ty, tx, c, repeats, 1, tile, rounded, half_way);
            else if (wider)
                read_wider_tile(s, &at, ty, tx, c, repeats, 0, tile, rounded, half_way);
            else if (border)
                read_tile(&at, c, 1, 0, tile, rounded, half_way);
            else
                read_tile(&at, c, 0, (Index)tile * s->stride_in, tile, rounded, half_way);
            store_values(s, half_way, c, v, (Index)t * s->channels_in + c, plane, half, tile);
        }
    }
}

/* Every case a loop of its own, without questions inside. */
static void gather_tiles(const Step *s, int first, int tiles, void *v, Index plane, int half) {
    int told = DOUBLES_INPUT | REPEATS_INPUT | CLAMPS_INPUT | LARGE_TILES | ROUNDED_INPUT;
    switch ((s->flags & told) | (half ? HALF_CASE : 0)) {
    case DOUBLES_INPUT | HALF_CASE | ROUNDED_INPUT:
        gather_tiles_as(s, first, tiles, v, plane, 1, DOUBLES_INPUT | ROUNDED_INPUT, 4);
        break;
    case HALF_CASE | ROUNDED_INPUT: gather_tiles_as(s, first, tiles, v, plane, 1, ROUNDED_INPUT, 4); break;
    case DOUBLES_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, DOUBLES_INPUT, 4); break;
    case DOUBLES_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, DOUBLES_INPUT, 4); break;
    case DOUBLES_INPUT | LARGE_TILES: gather_tiles_as(s, first, tiles, v, plane, 0, DOUBLES_INPUT, 6); break;
    case REPEATS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, REPEATS_INPUT, 4); break;
    case REPEATS_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, REPEATS_INPUT, 4); break;
    case REPEATS_INPUT | LARGE_TILES: gather_tiles_as(s, first, tiles, v, plane, 0, REPEATS_INPUT, 6); break;
    case CLAMPS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, CLAMPS_INPUT, 4); break;
    case CLAMPS_INPUT | HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, CLAMPS_INPUT, 4); break;
    case CLAMPS_INPUT | LARGE_TILES: gather_tiles_as(s, first, tiles, v, plane, 0, CLAMPS_INPUT, 6); break;
    case HALF_CASE: gather_tiles_as(s, first, tiles, v, plane, 1, 0, 4); break;
    case LARGE_TILES: gather_tiles_as(s, first, tiles, v, plane, 0, 0, 6); break;
    default: gather_tiles_as(s, first, tiles, v, plane, 0, 0, 4);
    }
}

#endif
