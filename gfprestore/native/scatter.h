/* Writing the tiles of a convolution: from Winograd's products to features, with what follows the convolution. */

#ifndef GFPRESTORE_SCATTER_H
#define GFPRESTORE_SCATTER_H

#include "gather.h"
#include "steps.h"

#define LARGE (1L << 20) /* floats of features that are no longer near when the next step reads them */

typedef Vector Outputs[LARGEST_TILE][LARGEST_TILE];

/* A tile of the residual's bilinear double: the middle of a window. */
INLINE void add_doubled_residual(const Window *at, int c, int tile, Outputs y) {
    Vector wide[LARGEST_TILE / 2 + 2][LARGEST_WINDOW];
    for (int i = 0; i < halves_of(tile); i++) {
        Vector row[LARGEST_TILE / 2 + 2];
        for (int j = 0; j < halves_of(tile); j++) row[j] = load_as(at->row[i], at->column[j] + c, 0);
        to_doubled(row, wide[i], tile);
    }
    for (int j = 0; j < tile; j++) {
        Vector column[LARGEST_TILE / 2 + 2], doubled[LARGEST_WINDOW];
        for (int i = 0; i < halves_of(tile); i++) column[i] = wide[i][j + 1];
        to_doubled(column, doubled, tile);
        for (int i = 0; i < tile; i++) y[i][j] += doubled[i + 1];
    }
}

/* What follows the convolution for a vector of channels, see `activate`: read once for all pixels of a tile. */
typedef struct {
    Vector gain, bias, slope;
    const float *noise;
} After;

INLINE After find_after(const Step *s, int c) {
    Vector gain = s->gain ? load(s->gain + c) : (Vector){0} + 1, bias = s->bias ? load(s->bias + c) : (Vector){0};
    return (After){gain, bias, slope_of(s, c), s->noise ? noise_of(s, c) : NULL};
}

INLINE void transform_row(const Step *s, Index pixel, int c, int columns, int rounded, Vector *y) {
    int reached = s->channels_out - s->kept;
    for (int j = 0; j < columns; j++) {
        Index at = (pixel + j) * reached + c - s->kept;
        y[j] = y[j] * load_as(s->scale, at, rounded) + load_as(s->shift, at, rounded);
    }
}

/* Pixels side by side, from `pixel` on. */
INLINE void activate_row(const Step *s, const After *after, Index pixel, int c, int columns, Vector *y) {
    for (int j = 0; j < columns; j++) {
        Vector value = y[j] * after->gain + after->bias;
        if (after->noise) value += noise_at(s, after->noise, pixel + j);
        y[j] = leaky(value, after->slope);
    }
    if (!s->scale || c < s->kept) return;
    if (s->flags & ROUNDED_TRANSFORM)
        transform_row(s, pixel, c, columns, 1, y);
    else
        transform_row(s, pixel, c, columns, 0, y);
}

INLINE void activate_tile(const Step *s, Index pixel, int c, int rows, int columns, Outputs y) {
    After after = find_after(s, c);
    for (int i = 0; i < rows; i++) activate_row(s, &after, pixel + (Index)i * s->width, c, columns, y[i]);
}

/* Means of 2 x 2; `corner` is the first pixel of the tile among them. */
INLINE void store_halved(const Step *s, Index corner, int c, int rows, int columns, Outputs y) {
    for (int i = 0; i < rows; i += 2)
        for (int j = 0; j < columns; j += 2) {
            Index pixel = corner + (Index)i / 2 * (s->width / 2) + j / 2;
            store((float *)s->y + pixel * s->stride_out + c,
                  0.25f * (y[i][j] + y[i][j + 1] + y[i + 1][j] + y[i + 1][j + 1]));
        }
}

/* Only as many channels as y has: the last panel may have more. */
INLINE void store_row(const Step *s, Index pixel, int c, int columns, int is_far, const Vector *y) {
    Index stride = s->stride_out;
    float *to = (float *)s->y + pixel * stride + c;
    if (stride < LANES) {
        for (int j = 0; j < columns && c == 0; j++) memcpy(to + j * stride, y + j, 4 * stride);
    } else if (is_far)
        for (int j = 0; j < columns; j++) store_past_cache(to + j * stride, y[j]);
    else
        for (int j = 0; j < columns; j++) store(to + j * stride, y[j]);
}

typedef Vector OutputColumns[LARGEST_TILE][LARGEST_WINDOW];

/* m A of products m[products][tiles][channels_out] at `place` of a plane, column by column. */
INLINE void read_columns(const float *m, Index place, Index plane, int tile, OutputColumns half_way) {
    for (int j = 0; j < window_of(tile); j++) {
        Vector column[LARGEST_WINDOW], out[LARGEST_TILE];
        for (int i = 0; i < window_of(tile); i++) column[i] = load(m + (i * window_of(tile) + j) * plane + place);
        to_outputs(column, out, tile);
        for (int i = 0; i < tile; i++) half_way[i][j] = out[i];
    }
}

/* From such products to outputs. */
INLINE void read_products(const float *m, Index place, Index plane, int tile, Outputs y) {
    OutputColumns half_way;
    read_columns(m, place, plane, tile, half_way);
    for (int i = 0; i < tile; i++) to_outputs(half_way[i], y[i], tile);
}

INLINE int is_large(const Step *s) { return (Index)s->height * s->width * s->channels_out >= LARGE; }

#if defined(__AVX512BF16__)
/* Two vectors of every pixel in bfloat16: a line of the cache, which so can be stored past it. */
INLINE void store_rounded(const Step *s, Index corner, int c, int rows, int columns, Outputs low, Outputs high) {
    int is_far = is_large(s);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            uint16_t *y = (uint16_t *)s->y + (corner + (Index)i * s->width + j) * s->stride_out + c;
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high[i][j], (__m512)low[i][j]);
            if (is_far)
                _mm512_stream_si512((__m512i *)y, both);
            else
                _mm512_storeu_si512(y, both);
        }
}

/* As many rows and columns of a tile as lie inside, and two vectors of channels, to features in bfloat16. */
INLINE void finish_rounded_tile(const Step *s, const float *m, Index place, Index plane, Index corner, int c, int rows,
                                int columns) {
    Outputs low, high;
    read_products(m, place + c, plane, 4, low);
    activate_tile(s, corner, c, rows, columns, low);
    read_products(m, place + c + LANES, plane, 4, high);
    activate_tile(s, corner, c + LANES, rows, columns, high);
    store_rounded(s, corner, c, rows, columns, low, high);
}

static void scatter_rounded_tiles(const Step *s, int first, int tiles, int from, int to, const float *m, Index plane) {
    int across = count_tiles(s->width, 4);
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int rows = least(4, s->height - 4 * ty), columns = least(4, s->width - 4 * tx);
        Index corner = (Index)4 * ty * s->width + 4 * tx, place = (Index)t * s->channels_out;
        for (int c = from; c < to; c += PANEL)
            if (rows == 4 && columns == 4)
                finish_rounded_tile(s, m, place, plane, corner, c, 4, 4);
            else
                finish_rounded_tile(s, m, place, plane, corner, c, rows, columns);
    }
}
#endif

INLINE void add_residual(const Step *s, Index pixel, int c, int columns, Vector *y) {
    const float *residual = s->residual + pixel * s->stride_residual + c;
    for (int j = 0; j < columns; j++) y[j] += load(residual + (Index)j * s->stride_residual);
}

/* As many rows and columns of a tile as lie inside, to the features, row by row: so a row's outputs stay in registers. */
INLINE void finish_rows(const Step *s, const float *m, Index place, Index plane, Index corner, int c, int flags, int tile,
                        int rows, int columns) {
    OutputColumns half_way;
    read_columns(m, place, plane, tile, half_way);
    After after = find_after(s, c);
    int is_far = is_large(s);
    for (int i = 0; i < rows; i++) {
        Vector y[LARGEST_TILE];
        Index pixel = corner + (Index)i * s->width;
        to_outputs(half_way[i], y, tile);
        if (flags & ADDS_FIRST) add_residual(s, pixel, c, columns, y);
        activate_row(s, &after, pixel, c, columns, y);
        if (s->residual && !(flags & ADDS_FIRST)) add_residual(s, pixel, c, columns, y);
        store_row(s, pixel, c, columns, is_far, y);
    }
}

/* The same where rows belong together: halved in pairs, or added to what is doubled. */
INLINE void finish_whole(const Step *s, const float *m, Index place, Index plane, Index corner, Index half_corner, int c,
                         const Window *residual, int flags, int tile, int rows, int columns) {
    Outputs y;
    read_products(m, place, plane, tile, y);
    activate_tile(s, corner, c, rows, columns, y);
    if (flags & HALVES_OUTPUT) {
        store_halved(s, half_corner, c, rows, columns, y);
        return;
    }
    add_doubled_residual(residual, c, tile, y);
    int is_far = is_large(s);
    for (int i = 0; i < rows; i++) store_row(s, corner + (Index)i * s->width, c, columns, is_far, y[i]);
}

/* The channels from `from` up to `to`. */
INLINE void scatter_tiles_as(const Step *s, int first, int tiles, int from, int to, const float *m, Index plane,
                             int flags, int tile) {
    int across = count_tiles(s->width, tile), doubles = flags & DOUBLES_RESIDUAL;
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int rows = least(tile, s->height - tile * ty), columns = least(tile, s->width - tile * tx);
        int is_whole = rows == tile && columns == tile;
        Index corner = (Index)tile * ty * s->width + tile * tx;
        Index half_corner = (Index)tile / 2 * ty * (s->width / 2) + tile / 2 * tx;
        Window at = {0};
        if (doubles) at = find_half_window(s->residual, s->height / 2, s->width / 2, s->stride_residual, ty, tx, tile, 0);
        for (int c = from; c < to; c += LANES) {
            Index place = (Index)t * s->channels_out + c;
            if (flags & (HALVES_OUTPUT | DOUBLES_RESIDUAL)) {
                if (is_whole)
                    finish_whole(s, m, place, plane, corner, half_corner, c, &at, flags, tile, tile, tile);
                else
                    finish_whole(s, m, place, plane, corner, half_corner, c, &at, flags, tile, rows, columns);
            } else if (is_whole)
                finish_rows(s, m, place, plane, corner, c, flags, tile, tile, tile);
            else
                finish_rows(s, m, place, plane, corner, c, flags, tile, rows, columns);
        }
    }
}

/* The colours of tiles, by the step after this one: their features are kept nowhere. */
INLINE void colour_tiles_as(const Step *s, int first, int tiles, const float *m, Index plane, int tile) {
    const Step *rgb = s + 1;
    int across = count_tiles(s->width, tile);
    for (int t = 0; t < tiles; t++) {
        int top = (first + t) / across * tile, left = (first + t) % across * tile;
        int rows = least(tile, s->height - top), columns = least(tile, s->width - left);
        Vector sum[LARGEST_TILE][LARGEST_TILE][3] = {0};
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector weight[3], style = load(rgb->style + c);
            for (int k = 0; k < 3; k++) weight[k] = style * load((const float *)rgb->weight + (Index)k * s->channels_out + c);
            Outputs y;
            read_products(m, (Index)t * s->channels_out + c, plane, tile, y);
            activate_tile(s, (Index)top * s->width + left, c, rows, columns, y);
            for (int i = 0; i < tile; i++)
                for (int j = 0; j < tile; j++)
                    for (int k = 0; k < 3; k++) sum[i][j][k] += weight[k] * y[i][j];
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) store_colours(rgb, top + i, left + j, sum[i][j]);
    }
}

static void scatter_tiles(const Step *s, int first, int tiles, int from, int to, const float *m, Index plane) {
#if defined(__AVX512BF16__)
    if (s->flags & ROUNDED_OUTPUT) {
        scatter_rounded_tiles(s, first, tiles, from, to, m, plane);
        return;
    }
#endif
    switch (s->flags & (HALVES_OUTPUT | DOUBLES_RESIDUAL | ADDS_FIRST | FEEDS_NEXT | LARGE_TILES)) {
    case FEEDS_NEXT: colour_tiles_as(s, first, tiles, m, plane, 4); break;
    case FEEDS_NEXT | LARGE_TILES: colour_tiles_as(s, first, tiles, m, plane, 6); break;
    case ADDS_FIRST: scatter_tiles_as(s, first, tiles, from, to, m, plane, ADDS_FIRST, 4); break;
    case ADDS_FIRST | LARGE_TILES: scatter_tiles_as(s, first, tiles, from, to, m, plane, ADDS_FIRST, 6); break;
    case HALVES_OUTPUT: scatter_tiles_as(s, first, tiles, from, to, m, plane, HALVES_OUTPUT, 4); break;
    case HALVES_OUTPUT | LARGE_TILES: scatter_tiles_as(s, first, tiles, from, to, m, plane, HALVES_OUTPUT, 6); break;
    case DOUBLES_RESIDUAL: scatter_tiles_as(s, first, tiles, from, to, m, plane, DOUBLES_RESIDUAL, 4); break;
    case DOUBLES_RESIDUAL | LARGE_TILES: scatter_tiles_as(s, first, tiles, from, to, m, plane, DOUBLES_RESIDUAL, 6); break;
    case LARGE_TILES: scatter_tiles_as(s, first, tiles, from, to, m, plane, 0, 6); break;
    default: scatter_tiles_as(s, first, tiles, from, to, m, plane, 0, 4);
    }
}

#endif
