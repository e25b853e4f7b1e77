/* Brings a restored face back into its photo: reads its change and its mask where a pixel of the canvas lies in the
   crop, and blends, in one pass and in place.

   Change and mask lie side by side, four floats a pixel, and four pixels beside each other are the taps of one row: the
   kernel of the change, cubic, and of the mask, linear, are weights of one multiplication. */

#ifndef GFPRESTORE_PASTE_H
#define GFPRESTORE_PASTE_H

#include "vectors.h"

#define TAPS 4                            /* in a row or column of the cubic kernel */
#define PIXEL 4                           /* floats: the change of red, green and blue, and the mask's weight */
#define PARTS (TAPS * PIXEL / LANES)      /* vectors of a row of taps */
#define PASTED 16                         /* pixels at once: the colours of these are whole vectors */
#define COLOURS (3 * PASTED)
#define PAD_BEFORE 2                      /* pixels repeated to the left of a face and above it, ... */
#define PAD_AFTER 3                       /* ... to its right and below */
#define PADS (PAD_BEFORE + PAD_AFTER)

typedef struct {
    void *canvas;          /* [height][width][3], uint8 or uint16 */
    const void *base;      /* the same of what the change is added to; may be the canvas */
    const float *tone;     /* [height][width][3], added to the change, or NULL */
    const float *room;     /* [height][width], factors of the mask, or NULL */
    const float *change;   /* [face_height][face_width][3] */
    const void *original;  /* the same in the canvas's type, taken off the change, or NULL */
    const float *mask;     /* [face_height][face_width] */
    float *face;           /* memory for [PADS + face_height][PADS + face_width][PIXEL] */
    double to_face[6];     /* of the canvas's pixel (x, y) the one of the face: 2 x 3 */
    Index canvas_line, base_line, change_line, original_line, mask_line; /* bytes from one row to the next */
    int32_t height, width, face_height, face_width;
    int32_t is_wide;       /* uint16 */
} Paste;

typedef float Pixel __attribute__((vector_size(4 * PIXEL)));
typedef float PixelInMemory __attribute__((vector_size(4 * PIXEL), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint16_t Words __attribute__((vector_size(2 * LANES)));

typedef float Weights __attribute__((vector_size(4 * 2 * TAPS))); /* of the taps for the change, then for the mask */

/* The weights as polynomials in the fraction of a position, the constant first. The cubic kernel is the one of
   cv2.INTER_CUBIC, whose slope at a distance of 1 is A. */
#define A -0.75f
static const Weights POWERS[4] = {
    {0, 1, 0, 0, /* */ 0, 1, 0, 0},
    {A, 0, -A, 0, /* */ 0, -1, 1, 0},
    {-2 * A, -A - 3, 2 * A + 3, A, /* */ 0, 0, 0, 0},
    {A, A + 2, -A - 2, -A, /* */ 0, 0, 0, 0},
};
#undef A

static inline Weights weigh_taps(float fraction) {
    return ((POWERS[3] * fraction + POWERS[2]) * fraction + POWERS[1]) * fraction + POWERS[0];
}

/* Which weight every float of a row of taps takes: of its column, and, of each row, of that row. */
#define OF_TAP(tap) tap, tap, tap, TAPS + tap
static const int32_t COLUMNS[TAPS * PIXEL] = {OF_TAP(0), OF_TAP(1), OF_TAP(2), OF_TAP(3)};
static const int32_t ROWS_OF[TAPS][TAPS * PIXEL] = {
    {OF_TAP(0), OF_TAP(0), OF_TAP(0), OF_TAP(0)},
    {OF_TAP(1), OF_TAP(1), OF_TAP(1), OF_TAP(1)},
    {OF_TAP(2), OF_TAP(2), OF_TAP(2), OF_TAP(2)},
    {OF_TAP(3), OF_TAP(3), OF_TAP(3), OF_TAP(3)},
};
#undef OF_TAP

static inline Vector spread(Weights weights, const int32_t *which) {
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

static inline Pixel add_taps(const Vector *taps) {
#if defined(__AVX512F__)
    __m256 pairs = _mm512_castps512_ps256((__m512)taps[0]) + _mm512_extractf32x8_ps((__m512)taps[0], 1);
#elif defined(__AVX2__)
    __m256 pairs = (__m256)(taps[0] + taps[1]);
#else
    return (taps[0] + taps[1]) + (taps[2] + taps[3]);
#endif
#if defined(__AVX2__)
    return (Pixel)(_mm256_castps256_ps128(pairs) + _mm256_extractf128_ps(pairs, 1));
#endif
}

/* Whether the mask is above zero under any of the four taps that count of it. */
static inline int has_weight(const float *from, Index line) {
    const float *mask = from + line + PIXEL + 3;
    return mask[0] + mask[PIXEL] + mask[line] + mask[line + PIXEL] != 0;
}

/* Change and weight at a position; `from` is the first of its taps, `line` the floats from one row to the next, and
   `fraction` what the position is beyond its second tap, in x and y. */
static inline Pixel read_face(const float *from, Index line, const float *fraction) {
    Weights across = weigh_taps(fraction[0]), down = weigh_taps(fraction[1]);
    Vector taps[PARTS];
    for (int k = 0; k < PARTS; k++, from += LANES) {
        Vector rows[TAPS];
        for (int row = 0; row < TAPS; row++) rows[row] = spread(down, ROWS_OF[row] + k * LANES);
        Vector upper = rows[0] * load(from) + rows[1] * load(from + line);
        Vector lower = rows[2] * load(from + 2 * line) + rows[3] * load(from + 3 * line);
        taps[k] = (upper + lower) * spread(across, COLUMNS + k * LANES);
    }
    return add_taps(taps);
}

/* Where not a number, `low`. */
static inline Vector within(Vector value, Vector low, Vector high) {
    return -larger(-larger(value, low), -high);
}

/* To whole numbers, ties to even, below 2^22: floats above 2^23 have no fraction. */
static inline Vector rounded(Vector value) {
    const float whole = 12582912.0f;
    return (value + whole) - whole;
}

static inline Vector load_colours(const void *pixels, int at, int is_wide) {
    if (!is_wide) return load_bytes((const uint8_t *)pixels + at);
    Words words;
    memcpy(&words, (const uint16_t *)pixels + at, sizeof words);
    return __builtin_convertvector(__builtin_convertvector(words, Bits), Vector);
}

static inline void store_colours(void *pixels, int at, int is_wide, Vector value) {
    Bits whole = __builtin_convertvector(value, Bits);
#if defined(__AVX512F__)
    Words words = (Words)_mm512_cvtusepi32_epi16((__m512i)whole);
    Bytes bytes = (Bytes)_mm512_cvtusepi32_epi8((__m512i)whole);
#elif defined(__AVX2__)
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)whole), _mm256_extracti128_si256((__m256i)whole, 1));
    Words words = (Words)packed;
    Bytes bytes = (Bytes)_mm_cvtsi128_si64(_mm_packus_epi16(packed, packed));
#else
    Words words = __builtin_convertvector(whole, Words);
    Bytes bytes = __builtin_convertvector(whole, Bytes);
#endif
    if (is_wide)
        memcpy((uint16_t *)pixels + at, &words, sizeof words);
    else
        memcpy((uint8_t *)pixels + at, &bytes, sizeof bytes);
}

/* Change and mask side by side, with the outermost pixels repeated around them. */
static void lay_out_face(const Paste *p) {
    Pixel *to = (Pixel *)p->face;
    for (int row = -PAD_BEFORE; row < p->face_height + PAD_AFTER; row++) {
        Index i = clamp(row, p->face_height - 1);
        const float *change = (const float *)((const char *)p->change + i * p->change_line);
        const float *mask = (const float *)((const char *)p->mask + i * p->mask_line);
        const char *original = p->original ? (const char *)p->original + i * p->original_line : NULL;
        for (int column = -PAD_BEFORE; column < p->face_width + PAD_AFTER; column++) {
            int j = clamp(column, p->face_width - 1);
            Pixel pixel = {change[3 * j], change[3 * j + 1], change[3 * j + 2], mask[j]};
            if (original && p->is_wide) {
                const uint16_t *from = (const uint16_t *)original + 3 * j;
                pixel -= (Pixel){from[0], from[1], from[2], 0};
            } else if (original) {
                const uint8_t *from = (const uint8_t *)original + 3 * j;
                pixel -= (Pixel){from[0], from[1], from[2], 0};
            }
            *to++ = pixel;
        }
    }
}

/* Where the pixels of a block lie in the face: x and y of each in turn, as the first of the taps and the fraction. */
typedef struct {
    int32_t first[2 * PASTED];
    float fraction[2 * PASTED];
} Places;

static const float TURNS[16] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}; /* pixels, for x and y in turn */

/* x in every other place from the first on, y in the others. */
static inline Vector in_turn(float x, float y) {
    const Pixel pair = {x, y, x, y};
    Vector value;
    for (int k = 0; k < LANES; k += PIXEL) memcpy((float *)&value + k, &pair, sizeof pair);
    return value;
}

/* Positions beyond the face are moved to just outside, where every tap is what is repeated: all reads are inside. */
static inline void find_places(const Paste *p, double x, double y, Places *places) {
    Vector first = in_turn(PAD_BEFORE - 1, PAD_BEFORE - 1), step = in_turn(p->to_face[0], p->to_face[3]);
    Vector last = in_turn(p->face_width + PAD_BEFORE, p->face_height + PAD_BEFORE);
    Vector start = in_turn(x + PAD_BEFORE, y + PAD_BEFORE), ahead = load(TURNS);
    for (int k = 0; k < 2 * PASTED; k += LANES) {
        Vector at = within(start + (ahead + (float)(k / 2)) * step, first, last);
        Bits whole = __builtin_convertvector(at, Bits), tap = whole - 1;
        memcpy(places->first + k, &tap, sizeof tap);
        store(places->fraction + k, at - __builtin_convertvector(whole, Vector));
    }
}

/* Change and weight of every colour of a block. */
typedef struct {
    float change[COLOURS + 1], weight[COLOURS + 1]; /* a pixel is stored as four, of which the next overwrites one */
} Changes;

/* Returns whether any has weight: a quarter to a half of a face's box has none. */
static inline int read_changes(const Paste *p, const Places *places, const float *room, int count, Changes *changes) {
    Index line = (Index)(p->face_width + PADS) * PIXEL;
    int any = 0;
    for (int i = 0; i < count; i++) {
        const float *from = p->face + places->first[2 * i + 1] * line + PIXEL * places->first[2 * i];
        Pixel pixel = {0};
        if (has_weight(from, line)) {
            pixel = read_face(from, line, places->fraction + 2 * i);
            any = 1;
        }
        float weight = room ? pixel[3] * room[i] : pixel[3];
        *(PixelInMemory *)(changes->change + 3 * i) = pixel;
        *(PixelInMemory *)(changes->weight + 3 * i) = (Pixel){0} + weight;
    }
    return any;
}

/* Move colours of the canvas towards the base with its change in full, by the weight. */
static inline void blend_colours(void *canvas, const void *base, const float *tone, const Changes *changes,
                                 int is_wide) {
    Vector none = {0}, most = none + (is_wide ? 65535.0f : 255.0f);
    for (int k = 0; k < COLOURS; k += LANES) {
        Vector change = load(changes->change + k), now = load_colours(canvas, k, is_wide);
        if (tone) change += load(tone + k);
        Vector target = rounded(within(load_colours(base, k, is_wide) + change, none, most));
        Vector blended = now + (target - now) * load(changes->weight + k);
        store_colours(canvas, k, is_wide, rounded(within(blended, none, most)));
    }
}

/* Up to PASTED pixels of a row, `at` pixels from the first of the box. */
static void paste_pixels(const Paste *p, const Places *places, int row, int column, int count) {
    Changes changes;
    if (count < PASTED) memset(&changes, 0, sizeof changes);
    Index at = (Index)row * p->width + column;
    int size = p->is_wide ? 6 : 3; /* bytes of a pixel */
    char *canvas = (char *)p->canvas + row * p->canvas_line + (Index)column * size;
    const char *base = (const char *)p->base + row * p->base_line + (Index)column * size;
    const float *tone = p->tone ? p->tone + 3 * at : NULL;
    if (!read_changes(p, places, p->room ? p->room + at : NULL, count, &changes)) return;
    if (count == PASTED) {
        blend_colours(canvas, base, tone, &changes, p->is_wide);
        return;
    }
    /* The last of a row, where whole vectors would reach beyond it. */
    uint16_t some_canvas[COLOURS] = {0}, some_base[COLOURS] = {0};
    float some_tone[COLOURS] = {0};
    memcpy(some_canvas, canvas, (size_t)(count * size));
    memcpy(some_base, base, (size_t)(count * size));
    if (tone) memcpy(some_tone, tone, (size_t)count * 3 * sizeof *tone);
    blend_colours(some_canvas, some_base, some_tone, &changes, p->is_wide);
    memcpy(canvas, some_canvas, (size_t)(count * size));
}

EXPORT void paste_face(const Paste *p) {
    const double *m = p->to_face;
    lay_out_face(p);
    for (int row = 0; row < p->height; row++)
        for (int column = 0; column < p->width; column += PASTED) {
            double x = m[0] * column + m[1] * row + m[2], y = m[3] * column + m[4] * row + m[5];
            Places places;
            find_places(p, x, y, &places);
            paste_pixels(p, &places, row, column, least(PASTED, p->width - column));
        }
}

#endif
