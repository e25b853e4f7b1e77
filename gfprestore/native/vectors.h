/* Loads, stores, and what follows a convolution. */

#ifndef GFPRESTORE_VECTORS_H
#define GFPRESTORE_VECTORS_H

#include <stddef.h>
#include <string.h>

#include "program.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

static inline Vector load(const float *x) { return *(const InMemory *)x; }
static inline void store(float *y, Vector value) { *(InMemory *)y = value; }

typedef int32_t Bits __attribute__((vector_size(4 * LANES)));

/* Bytes as floats. */
static inline Vector load_bytes(const uint8_t *x) {
#if defined(__AVX512F__)
    return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)x)));
#elif defined(__AVX2__)
    return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x)));
#else
    Vector value;
    for (int lane = 0; lane < LANES; lane++) value[lane] = x[lane];
    return value;
#endif
}

static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
    return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    Bits first = a > b;
    return (Vector)(((Bits)a & first) | ((Bits)b & ~first));
#endif
}

/* The vector at x[at] of floats, or of bfloat16 where `rounded`. */
static inline Vector load_as(const void *x, Index at, int rounded) {
#if defined(__AVX512BF16__)
    if (rounded) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)((const uint16_t *)x + at));
        return (Vector)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
#endif
    (void)rounded;
    return load((const float *)x + at);
}

/* Leaky ReLU whose slope is at most 1. */
static inline Vector leaky(Vector value, Vector slope) { return larger(slope * value, value); }

/* Store what is read again only after more than a cache has gone by. Only whole lines of the cache pay: halves of 36
   pixels, whose other halves come later, took ten times as long as to the cache. */
static inline void store_past_cache(float *y, Vector value) {
#if defined(__AVX512F__)
    _mm512_stream_ps(y, (__m512)value);
#else
    store(y, value);
#endif
}

/* Such stores are not in order with others. */
static inline void finish_stores(void) {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

static inline float sum_lanes(Vector value) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)value);
#else
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += value[lane];
    return sum;
#endif
}

static inline int clamp(int value, int most) { return value < 0 ? 0 : value > most ? most : value; }
static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most_of(int a, int b) { return a > b ? a : b; }

/* Of the leaky ReLU of the channels from c on. */
static inline Vector slope_of(const Step *s, int c) { return s->slopes ? load(s->slopes + c) : (Vector){0} + s->slope; }

/* Noise of the channels from c on, and of these at a pixel. */
static inline const float *noise_of(const Step *s, int c) { return s->stride_noise ? s->noise + c % s->stride_noise : s->noise; }

static inline Vector noise_at(const Step *s, const float *noise, Index pixel) {
    return s->stride_noise ? load(noise + pixel * s->stride_noise) : (Vector){0} + noise[pixel];
}

/* What follows a convolution for the channels from c on of the pixel at `pixel`. */
static inline Vector activate(const Step *s, Vector value, Index pixel, int c) {
    if (s->gain) value *= load(s->gain + c);
    if (s->bias) value += load(s->bias + c);
    if (s->noise) value += noise_at(s, noise_of(s, c), pixel);
    value = leaky(value, slope_of(s, c));
    if (s->scale && c >= s->kept) {
        Index at = pixel * (s->channels_out - s->kept) + c - s->kept;
        value = value * load_as(s->scale, at, 0) + load_as(s->shift, at, 0);
    }
    return value;
}

#endif
