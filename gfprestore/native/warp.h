/* Warping of images with a kernel of TAPS x TAPS pixels.

   The image is converted first, to floats with a border, so that the sums ask nothing. The border is as wide as the
   kernel reaches, mirrored about the edge's pixel. A position that lies further out is mirrored itself: the kernel is
   symmetric, so what it finds in a mirrored image is mirrored as well, and the border need never be wider. */

#ifndef GFPRESTORE_WARP_H
#define GFPRESTORE_WARP_H

#include <math.h>

#include "resample.h"

#define CHUNK 64  /* pixels whose weights are found before their sums */

/* As many weights as a vector holds: compilers take wider ones than the processor has apart, float by float. */
#define TOGETHER (LANES < TAPS ? LANES : TAPS)
typedef float Weights __attribute__((vector_size(4 * TOGETHER)));
typedef float WeightsInMemory __attribute__((vector_size(4 * TOGETHER), aligned(4), may_alias));

static inline Weights load_weights(const float *x) { return *(const WeightsInMemory *)x; }

/* Where the pixels of a chunk lie in the image, and their weights. */
typedef struct {
    const float *corner[CHUNK]; /* the first of TAPS x TAPS quads */
    float across[CHUNK][TAPS], down[CHUNK][TAPS];
} Places;

/* A position within 0 to `most` that shows the same in a mirrored row; 0 for one that is not a number. */
static double mirror(double x, double most) {
    x = most > 0 ? fmod(fabs(x), 2 * most) : 0;
    x = x > most ? 2 * most - x : x;
    return x >= 0 ? x : 0;
}

static int mirror_index(int i, int size) { return (int)mirror(i, size - 1); }

/* Quads from one row of the converted image to the next. */
static inline Index count_quads(const Warp *w) { return (Index)w->width + 2 * BORDER; }

/* Convert rows `first` to `last`, counted with the border. */
EXPORT void convert_rows(const Warp *w, int first, int last) {
    for (int i = first; i < last; i++) {
        const uint8_t *row = (const uint8_t *)w->x + mirror_index(i - BORDER, w->height) * w->stride;
        float *y = w->quads + (i * count_quads(w) + BORDER) * QUAD;
        if (w->bytes == 1)
            read_quads(row, 1, w->width, 0, w->width, y, QUAD);
        else
            read_quads(row, 2, w->width, 0, w->width, y, QUAD);
        for (Index k = 1; k <= BORDER; k++) {
            store_quad(y - k * QUAD, load_quad(y + (Index)mirror_index(-k, w->width) * QUAD));
            int beyond = mirror_index((int)(w->width - 1 + k), w->width);
            store_quad(y + (w->width - 1 + k) * QUAD, load_quad(y + (Index)beyond * QUAD));
        }
    }
}

/* The weights of the pixels around a position that lies `fraction` after the middle two's first, as polynomials of its
   distance from half way between them, which keeps the powers small. */
static inline void find_weights(const float *powers, double fraction, float *weights) {
    float at = (float)(fraction - 0.5);
    for (int i = 0; i < TAPS; i += TOGETHER) {
        Weights sum = load_weights(powers + (POWERS - 1) * TAPS + i);
        for (int k = POWERS - 2; k >= 0; k--) sum = sum * at + load_weights(powers + k * TAPS + i);
        *(WeightsInMemory *)(weights + i) = sum;
    }
}

/* Find where the pixels from (column, row) on lie. */
static void find_places(const Warp *w, int row, int column, int count, Places *at) {
    for (int i = 0; i < count; i++) {
        double x = w->to_x[0] * (column + i) + (w->to_x[1] * row + w->to_x[2]);
        double y = w->to_y[0] * (column + i) + (w->to_y[1] * row + w->to_y[2]);
        if (!(x >= 0 && x <= w->width - 1)) x = mirror(x, w->width - 1);
        if (!(y >= 0 && y <= w->height - 1)) y = mirror(y, w->height - 1);
        int left = (int)x, top = (int)y; /* the border's BORDER less the BORDER - 1 taps before a position */
        at->corner[i] = w->quads + ((top + 1) * count_quads(w) + left + 1) * QUAD;
        find_weights(w->powers, x - left, at->across[i]);
        find_weights(w->powers, y - top, at->down[i]);
    }
}

/* The v-th vector of quads' weights: each of them QUAD times. */
static inline Vector repeat_weights(const float *weights, int v) {
#if defined(__AVX512F__)
    __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return (Vector)_mm512_permutexvar_ps(each, _mm512_castps128_ps512(_mm_loadu_ps(weights + 4 * v)));
#elif defined(__AVX2__)
    __m128 two = _mm_castpd_ps(_mm_load_sd((const double *)(weights + 2 * v)));
    return (Vector)_mm256_permutevar8x32_ps(_mm256_castps128_ps256(two), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
#else
    return (Vector){0} + weights[v];
#endif
}

static inline Quad sum_quads(Vector value) {
#if defined(__AVX512F__)
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)value), _mm512_extractf32x8_ps((__m512)value, 1));
    return (Quad)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
    return (Quad)_mm_add_ps(_mm256_castps256_ps128((__m256)value), _mm256_extractf128_ps((__m256)value, 1));
#else
    return (Quad)value;
#endif
}

/* The weighted sum of TAPS x TAPS quads, down first. */
static inline Quad sum_window(const float *corner, Index pitch, const float *across, const float *down) {
    enum { VECTORS = TAPS * QUAD / LANES };
    Vector sums[VECTORS], total = {0};
    for (int v = 0; v < VECTORS; v++) sums[v] = load(corner + v * LANES) * down[0];
    for (int k = 1; k < TAPS; k++)
        for (int v = 0; v < VECTORS; v++) sums[v] += load(corner + k * pitch + v * LANES) * down[k];
    for (int v = 0; v < VECTORS; v++) total += sums[v] * repeat_weights(across, v);
    return sum_quads(total);
}

/* Rows `first` to `last` of the square. */
EXPORT void warp_rows(const Warp *w, int first, int last) {
    Index pitch = count_quads(w) * QUAD;
    Places at;
    float samples[3 * CHUNK + LANES]; /* the last quad reaches beyond the chunk */
    for (int row = first; row < last; row++)
        for (int column = 0; column < w->side; column += CHUNK) {
            int count = least(CHUNK, w->side - column);
            uint8_t *y = (uint8_t *)w->y + ((Index)row * w->side + column) * 3 * w->bytes;
            find_places(w, row, column, count, &at);
            for (int i = 0; i < count; i++)
                store_quad(samples + 3 * i, sum_window(at.corner[i], pitch, at.across[i], at.down[i]));
            for (int i = 0; i < 3 * count; i += LANES)
                store_samples(y + (Index)i * w->bytes, load(samples + i), w->bytes, 3 * count - i);
        }
}

#endif
