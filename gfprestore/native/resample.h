/* What enlarging and warping share: pixels in and out of floats. */

#ifndef GFPRESTORE_RESAMPLE_H
#define GFPRESTORE_RESAMPLE_H

#include "quads.h"
#include "vectors.h"

/* Four samples in a row as floats. */
static inline Quad load_samples(const uint8_t *x, int bytes) {
#if defined(__AVX2__)
    if (bytes == 1) {
        int32_t four;
        memcpy(&four, x, 4);
        return (Quad)_mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
    }
    return (Quad)_mm_cvtepi32_ps(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)x)));
#else
    Quad value;
    uint16_t wide[QUAD];
    if (bytes == 2) memcpy(wide, x, sizeof wide);
    for (int i = 0; i < QUAD; i++) value[i] = bytes == 1 ? x[i] : wide[i];
    return value;
#endif
}

static inline float load_sample(const uint8_t *x, int bytes) {
    uint16_t wide;
    if (bytes == 1) return *x;
    memcpy(&wide, x, 2);
    return wide;
}

/* The pixels from column `first` on, as quads, `pace` floats from one to the next; beyond the edges these repeat. */
INLINE void read_quads(const uint8_t *row, int bytes, int width, int first, int count, float *y, Index pace) {
    for (int i = 0; i < count; i++) {
        int column = clamp(first + i, width - 1);
        const uint8_t *pixel = row + (Index)column * 3 * bytes;
        /* The fourth sample belongs to the next pixel, so the last one is read by itself. */
        Quad value = column < width - 1 ? load_samples(pixel, bytes)
                                        : (Quad){load_sample(pixel, bytes), load_sample(pixel + bytes, bytes),
                                                 load_sample(pixel + 2 * bytes, bytes), 0};
        store_quad(y + i * pace, value);
    }
}

static inline Vector smaller(Vector a, Vector b) {
#if defined(__AVX512F__)
    return (Vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return -larger(-a, -b);
#endif
}

/* Whole numbers below 65536 to fewer bytes. */
static inline void store_narrow(uint8_t *y, Bits n, int bytes) {
#if defined(__AVX512BW__)
    if (bytes == 1)
        _mm_storeu_si128((__m128i *)y, _mm512_cvtepi32_epi8((__m512i)n));
    else
        _mm256_storeu_si256((__m256i *)y, _mm512_cvtepi32_epi16((__m512i)n));
#elif defined(__AVX2__)
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)n), _mm256_extracti128_si256((__m256i)n, 1));
    if (bytes == 1)
        _mm_storel_epi64((__m128i *)y, _mm_packus_epi16(words, words));
    else
        _mm_storeu_si128((__m128i *)y, words);
#else
    for (int lane = 0; lane < LANES; lane++) {
        uint16_t word = (uint16_t)n[lane];
        if (bytes == 1)
            y[lane] = (uint8_t)word;
        else
            memcpy(y + 2 * lane, &word, 2);
    }
#endif
}

/* Store the first `count` lanes as samples: to the nearest and ties to even, clipped to what a sample holds. */
static inline void store_samples(uint8_t *y, Vector value, int bytes, int count) {
    const float whole = 0x1p23f; /* floats from here on are whole numbers, one apart */
    Vector zero = {0};
    Bits n = (Bits)(smaller(larger(value, zero), zero + (bytes == 1 ? 255.0f : 65535.0f)) + whole) & 0xffff;
    if (count >= LANES) {
        store_narrow(y, n, bytes);
        return;
    }
    uint8_t all[2 * LANES];
    store_narrow(all, n, bytes);
    memcpy(y, all, (size_t)count * bytes);
}

#endif
