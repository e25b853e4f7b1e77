/* Brings a restored face back into its photo: reads its change and its mask where a pixel of the canvas lies in the
   crop, and blends, in one pass and in place.

   Change and mask lie side by side, four floats a pixel, and four pixels beside each other are the taps of one row: the
   kernel of the change, cubic, and of the mask, linear, are weights of one multiplication. */

#ifndef GFPRESTORE_PASTE_H
#define GFPRESTORE_PASTE_H

#include "resample.h"

#define CUBIC 4                      /* taps in a row or column of the cubic kernel */
#define PARTS (CUBIC * QUAD / LANES) /* vectors of a row of taps */
#define PASTED 16                    /* pixels at once: the colours of these are whole vectors */
#define COLOURS (3 * PASTED)

typedef uint16_t Words __attribute__((vector_size(2 * LANES)));

typedef float CubicWeights __attribute__((vector_size(4 * 2 * CUBIC))); /* of the taps for the change, then for the mask */

/* The weights as polynomials in the fraction of a position, the constant first. The cubic kernel is the one of
   cv2.INTER_CUBIC, whose slope at a distance of 1 is A. */
#define A -0.75f
static const CubicWeights CUBIC_POWERS[4] = {
    {0, 1, 0, 0, /* */ 0, 1, 0, 0},
    {A, 0, -A, 0, /* */ 0, -1, 1, 0},
    {-2 * A, -A - 3, 2 * A + 3, A, /* */ 0, 0, 0, 0},
    {A, A + 2, -A - 2, -A, /* */ 0, 0, 0, 0},
};
#undef A

static inline CubicWeights weigh_taps(float fraction) {
    return ((CUBIC_POWERS[3] * fraction + CUBIC_POWERS[2]) * fraction + CUBIC_POWERS[1]) * fraction + CUBIC_POWERS[0];
}

/* Which weight every float of a row of taps takes: of its column, and, of each row, of that row. */
#define OF_TAP(tap) tap, tap, tap, CUBIC + tap
static const int32_t COLUMNS[CUBIC * QUAD] = {OF_TAP(0), OF_TAP(1), OF_TAP(2), OF_TAP(3)};
static const int32_t ROWS_OF[CUBIC][CUBIC * QUAD] = {
    {OF_TAP(0), OF_TAP(0), OF_TAP(0), OF_TAP(0)},
    {OF_TAP(1), OF_TAP(1), OF_TAP(1), OF_TAP(1)},
    {OF_TAP(2), OF_TAP(2), OF_TAP(2), OF_TAP(2)},
    {OF_TAP(3), OF_TAP(3), OF_TAP(3), OF_TAP(3)},
};
#undef OF_TAP

static inline Vector spread(CubicWeights weights, const int32_t *which) {
#if defined(__AVX512F__)
    return (Vector)_mm512_permutexvar_ps(_mm512_loadu_si512(which), _mm512_castps256_ps512((__m256)weights));
#elif defined(__AVX2__)
    return (Vector)_mm256_permutevar8x32_ps((__m256)weights, _mm256_loadu_si256((const __m256i *)which));
#else
    Vector value;
    for (int lane = 0; lane < LANES; lane++) value[lane] = weights[which[lane]];
    return value;
#endif
}

static inline Quad add_taps(const Vector *taps) {
#if defined(__AVX512F__)
    __m256 pairs = _mm512_castps512_ps256((__m512)taps[0]) + _mm512_extractf32x8_ps((__m512)taps[0], 1);
#elif defined(__AVX2__)
    __m256 pairs = (__m256)(taps[0] + taps[1]);
#else
    return (taps[0] + taps[1]) + (taps[2] + taps[3]);
#endif
#if defined(__AVX2__)
    return (Quad)(_mm256_castps256_ps128(pairs) + _mm256_extractf128_ps(pairs, 1));
#endif
}

/* Whether the mask is above zero under any of the four taps that count of it. */
static inline int has_weight(const float *from, Index line) {
    const float *mask = from + line + QUAD + 3;
    return mask[0] + mask[QUAD] + mask[line] + mask[line + QUAD] != 0;
}

/* Change and weight at a position; `from` is the first of its taps, `line` the floats from one row to the next, and
   `fraction` what the position is beyond its second tap, in x and y. */
static inline Quad read_face(const float *from, Index line, const float *fraction) {
    CubicWeights across = weigh_taps(fraction[0]), down = weigh_taps(fraction[1]);
    Vector taps[PARTS];
    for (int k = 0; k < PARTS; k++, from += LANES) {
        Vector rows[CUBIC];
        for (int row = 0; row < CUBIC; row++) rows[row] = spread(down, ROWS_OF[row] + k * LANES);
        Vector upper = rows[0] * load(from) + rows[1] * load(from + line);
        Vector lower = rows[2] * load(from + 2 * line) + rows[3] * load(from + 3 * line);
        taps[k] = (upper + lower) * spread(across, COLUMNS + k * LANES);
    }
    return add_taps(taps);
}

/* Where not a number, `low`. */
static inline Vector within(Vector value, Vector low, Vector high) {
    return smaller(larger(value, low), high);
}

/* To whole numbers, ties to even, below 2^22: floats above 2^23 have no fraction. */
static inline Vector rounded(Vector value) {
    const float whole = 12582912.0f;
    return (value + whole) - whole;
}

static inline Vector load_colours(const uint8_t *pixels, int bytes) {
    if (bytes == 1) return load_bytes(pixels);
    Words words;
    memcpy(&words, pixels, sizeof words);
    return __builtin_convertvector(__builtin_convertvector(words, Bits), Vector);
}

/* Change and mask side by side, with the outermost pixels repeated around them. */
static void lay_out_face(const Paste *p) {
    Quad *to = (Quad *)p->face;
    for (int row = -PAD_BEFORE; row < p->face_height + PAD_AFTER; row++) {
        Index i = clamp(row, p->face_height - 1);
        const float *change = (const float *)((const char *)p->change + i * p->change_line);
        const float *mask = (const float *)((const char *)p->mask + i * p->mask_line);
        const char *original = p->original ? (const char *)p->original + i * p->original_line : NULL;
        for (int column = -PAD_BEFORE; column < p->face_width + PAD_AFTER; column++) {
            int j = clamp(column, p->face_width - 1);
            Quad pixel = {change[3 * j], change[3 * j + 1], change[3 * j + 2], mask[j]};
            if (original && p->bytes == 2) {
                const uint16_t *from = (const uint16_t *)original + 3 * j;
                pixel -= (Quad){from[0], from[1], from[2], 0};
            } else if (original) {
                const uint8_t *from = (const uint8_t *)original + 3 * j;
                pixel -= (Quad){from[0], from[1], from[2], 0};
            }
            *to++ = pixel;
        }
    }
}

/* Where the pixels of a block lie in the face: x and y of each in turn, as the first of the taps and the fraction. */
typedef struct {
    int32_t first[2 * PASTED];
    float fraction[2 * PASTED];
} Spots;

static const float TURNS[16] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}; /* pixels, for x and y in turn */

/* x in every other place from the first on, y in the others. */
static inline Vector in_turn(float x, float y) {
    const Quad pair = {x, y, x, y};
    Vector value = {0};
    for (int k = 0; k < LANES; k += QUAD) memcpy((float *)&value + k, &pair, sizeof pair);
    return value;
}

/* Positions beyond the face are moved to just outside, where every tap is what is repeated: all reads are inside. */
static inline void find_spots(const Paste *p, double x, double y, Spots *spots) {
    Vector first = in_turn(PAD_BEFORE - 1, PAD_BEFORE - 1), step = in_turn(p->to_face[0], p->to_face[3]);
    Vector last = in_turn(p->face_width + PAD_BEFORE, p->face_height + PAD_BEFORE);
    Vector start = in_turn(x + PAD_BEFORE, y + PAD_BEFORE), ahead = load(TURNS);
    for (int k = 0; k < 2 * PASTED; k += LANES) {
        Vector at = within(start + (ahead + (float)(k / 2)) * step, first, last);
        Bits whole = __builtin_convertvector(at, Bits), tap = whole - 1;
        memcpy(spots->first + k, &tap, sizeof tap);
        store(spots->fraction + k, at - __builtin_convertvector(whole, Vector));
    }
}

/* Change and weight of every colour of a block. */
typedef struct {
    float change[COLOURS + 1], weight[COLOURS + 1]; /* a pixel is stored as four, of which the next overwrites one */
} Changes;

/* Returns whether any has weight: a quarter to a half of a face's box has none. */
static inline int read_changes(const Paste *p, const Spots *spots, const float *room, int count, Changes *changes) {
    Index line = (Index)(p->face_width + PADS) * QUAD;
    int any = 0;
    for (int i = 0; i < count; i++) {
        const float *from = p->face + spots->first[2 * i + 1] * line + QUAD * spots->first[2 * i];
        Quad pixel = {0};
        if (has_weight(from, line)) {
            pixel = read_face(from, line, spots->fraction + 2 * i);
            any = 1;
        }
        float weight = room ? pixel[3] * room[i] : pixel[3];
        store_quad(changes->change + 3 * i, pixel);
        store_quad(changes->weight + 3 * i, (Quad){0} + weight);
    }
    return any;
}

/* Move colours of the canvas towards the base with its change in full, by the weight. */
static inline void blend_colours(uint8_t *canvas, const uint8_t *base, const float *tone, const Changes *changes,
                                 int bytes) {
    Vector none = {0}, most = none + (bytes == 1 ? 255.0f : 65535.0f);
    for (int k = 0; k < COLOURS; k += LANES) {
        Vector change = load(changes->change + k), now = load_colours(canvas + k * bytes, bytes);
        if (tone) change += load(tone + k);
        Vector target = rounded(within(load_colours(base + k * bytes, bytes) + change, none, most));
        store_samples(canvas + k * bytes, now + (target - now) * load(changes->weight + k), bytes, LANES);
    }
}

/* Up to PASTED pixels of a row. */
static void paste_pixels(const Paste *p, const Spots *spots, int row, int column, int count) {
    Changes changes;
    if (count < PASTED) memset(&changes, 0, sizeof changes);
    Index at = (Index)row * p->width + column;
    uint8_t *canvas = (uint8_t *)p->canvas + row * p->canvas_line + (Index)column * 3 * p->bytes;
    const uint8_t *base = (const uint8_t *)p->base + row * p->base_line + (Index)column * 3 * p->bytes;
    const float *tone = p->tone ? p->tone + 3 * at : NULL;
    if (!read_changes(p, spots, p->room ? p->room + at : NULL, count, &changes)) return;
    if (count == PASTED) {
        blend_colours(canvas, base, tone, &changes, p->bytes);
        return;
    }
    /* The last of a row, where whole vectors would reach beyond it. */
    uint8_t some_canvas[2 * COLOURS] = {0}, some_base[2 * COLOURS] = {0};
    float some_tone[COLOURS] = {0};
    size_t colours = 3 * (size_t)count;
    memcpy(some_canvas, canvas, colours * p->bytes);
    memcpy(some_base, base, colours * p->bytes);
    if (tone) memcpy(some_tone, tone, colours * sizeof *tone);
    blend_colours(some_canvas, some_base, some_tone, &changes, p->bytes);
    memcpy(canvas, some_canvas, colours * p->bytes);
}

EXPORT void paste_face(const Paste *p) {
    const double *m = p->to_face;
    lay_out_face(p);
    for (int row = 0; row < p->height; row++)
        for (int column = 0; column < p->width; column += PASTED) {
            double x = m[0] * column + m[1] * row + m[2], y = m[3] * column + m[4] * row + m[5];
            Spots spots;
            find_spots(p, x, y, &spots);
            paste_pixels(p, &spots, row, column, least(PASTED, p->width - column));
        }
}

#endif
