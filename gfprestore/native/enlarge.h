/* Enlarging of images with a kernel of TAPS samples along each axis.

   Rows are filtered across first, as many at once as a vector holds, into a ring of rows, and the ring down, into the
   result: so every row of the image is converted and filtered across once, and memory does not grow with the image. It
   is done in strips of columns that are narrow enough for their ring to stay in the caches. */

#ifndef GFPRESTORE_ENLARGE_H
#define GFPRESTORE_ENLARGE_H

#include "resample.h"

#define STRIP 768 /* samples of a row of the result that are done before those beside them: a multiple of 3 */
#define SLOTS 32  /* rows in the ring: more than those under the kernel and those that are filtered at once */
#define SLOT (STRIP + LANES)                    /* floats of one: the last quad reaches beyond the strip */
#define SOURCE ((Index)(STRIP + TAPS) * LANES) /* floats of the rows that are filtered at once */

/* Columns `left` to `left + columns` of the result. */
typedef struct {
    int left, columns;
    float *source; /* [columns][LANES]: the same column of all rows that are filtered at once, side by side */
    float *ring;   /* [SLOTS][SLOT] */
} Strip;

static inline float *find_slot(const Strip *strip, int row) { return strip->ring + (row & (SLOTS - 1)) * SLOT; }

/* Rows that are filtered at once. */
static inline int rows_at_once(int channels) { return channels == 3 ? LANES / QUAD : LANES; }

/* The samples from column `first` on of one row, LANES floats from one to the next. */
INLINE void read_plane(const uint8_t *row, int bytes, int width, int first, int count, float *y) {
    for (int i = 0; i < count; i++)
        y[(Index)i * LANES] = load_sample(row + (Index)clamp(first + i, width - 1) * bytes, bytes);
}

/* Column `column` of the strip, of all rows from `top` on: as many quads as there are rows. */
static inline void store_quads(const Strip *strip, int top, int column, Vector value) {
    float quads[LANES];
    store(quads, value);
    /* Every quad's fourth float is overwritten by the next column. */
    for (int r = 0; r < LANES / QUAD; r++)
        store_quad(find_slot(strip, top + r) + 3 * column, load_quad(quads + QUAD * r));
}

static inline void store_plane(const Strip *strip, int top, int column, Vector value) {
    for (int r = 0; r < LANES; r++) find_slot(strip, top + r)[column] = value[r];
}

/* Filter rows from `top` on across, into their slots. Rows below the last repeat it, which is never read. */
INLINE void filter_across(const Enlargement *e, const Strip *strip, int top, int channels, int bytes) {
    const int32_t *first = e->first_columns + strip->left;
    int count = first[strip->columns - 1] + TAPS - first[0];
    for (int r = 0; r < rows_at_once(channels); r++) {
        const uint8_t *row = (const uint8_t *)e->x + clamp(top + r, e->height - 1) * e->stride;
        if (channels == 3)
            read_quads(row, bytes, e->width, first[0], count, strip->source + QUAD * r, LANES);
        else
            read_plane(row, bytes, e->width, first[0], count, strip->source + r);
    }
    for (int column = 0; column < strip->columns; column++) {
        const float *x = strip->source + (Index)(first[column] - first[0]) * LANES;
        const float *weight = e->column_weights + (Index)(strip->left + column) * TAPS;
        Vector sum = load(x) * weight[0];
        for (int k = 1; k < TAPS; k++) sum += load(x + k * LANES) * weight[k];
        if (channels == 3)
            store_quads(strip, top, column, sum);
        else
            store_plane(strip, top, column, sum);
    }
}

/* Filter the ring down, into one row of the result. */
INLINE void filter_down(const Enlargement *e, const Strip *strip, int row, int channels, int bytes) {
    const float *x[TAPS], *weight = e->row_weights + (Index)row * TAPS;
    for (int k = 0; k < TAPS; k++) x[k] = find_slot(strip, clamp(e->first_rows[row] + k, e->height - 1));
    int count = strip->columns * channels;
    uint8_t *y = (uint8_t *)e->y + ((Index)row * e->new_width + strip->left) * channels * bytes;
    for (int i = 0; i < count; i += LANES) {
        Vector sum = load(x[0] + i) * weight[0];
        for (int k = 1; k < TAPS; k++) sum += load(x[k] + i) * weight[k];
        store_samples(y + (Index)i * bytes, sum, bytes, count - i);
    }
}

INLINE void enlarge_as(const Enlargement *e, int first, int last, float *scratch, int channels, int bytes) {
    for (int left = 0; left < e->new_width; left += STRIP / channels) {
        Strip strip = {left, least(STRIP / channels, e->new_width - left), scratch, scratch + SOURCE};
        int ready = clamp(e->first_rows[first], e->height - 1); /* rows above are in the ring, as far as needed */
        for (int row = first; row < last; row++) {
            for (; ready <= clamp(e->first_rows[row] + TAPS - 1, e->height - 1); ready += rows_at_once(channels))
                filter_across(e, &strip, ready, channels, bytes);
            filter_down(e, &strip, row, channels, bytes);
        }
    }
}

/* Floats of the memory that `enlarge` works in. */
EXPORT Index enlarge_scratch(void) { return SOURCE + SLOTS * SLOT; }

/* Rows `first` to `last` of the result. */
EXPORT void enlarge(const Enlargement *e, int first, int last, float *scratch) {
    /* Every case a loop of its own, without questions inside. */
    if (e->channels == 3 && e->bytes == 1)
        enlarge_as(e, first, last, scratch, 3, 1);
    else if (e->channels == 3)
        enlarge_as(e, first, last, scratch, 3, 2);
    else if (e->bytes == 1)
        enlarge_as(e, first, last, scratch, 1, 1);
    else
        enlarge_as(e, first, last, scratch, 1, 2);
}

#endif
