/* Matrix product of a few rows and one panel of weights, in registers from first to last. */

#ifndef GFPRESTORE_MULTIPLY_H
#define GFPRESTORE_MULTIPLY_H

#include "program.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define AHEAD 24 /* steps of the sum by which weights are asked for before they are needed */

#define GROUP 3 /* rows that are found from one address: it, once and twice the stride after it */

/* Weights are packed as u[count_panels][depth][PANEL]; of the last panel only the channels that y has are stored. */
static inline int count_panels(const Step *s) { return (s->channels_out + PANEL - 1) / PANEL; }

/* sum[ROWS][vectors] += a[ROWS][depth] u[depth][PANEL], in float; of u the first or both vectors of a panel. */
INLINE void add_products(const float *a, Index stride_a, const float *u, int depth, int vectors, Vector sum[ROWS][2]) {
    /* An address for every row would not fit into the registers that there are for addresses. */
    const float *groups[ROWS / GROUP];
#pragma GCC unroll 4
    for (int group = 0; group < ROWS / GROUP; group++) groups[group] = a + group * GROUP * stride_a;
    /* Some processors start no more than four instructions at a time, of which counting takes its share. */
#pragma GCC unroll 4
    for (int i = 0; i < depth; i++, u += PANEL) {
        __builtin_prefetch(u + AHEAD * PANEL);
        if (vectors > 1) __builtin_prefetch(u + AHEAD * PANEL + LANES);
        Vector left = *(const InMemory *)u, right = left;
        if (vectors > 1) right = *(const InMemory *)(u + LANES);
#pragma GCC unroll 4
        for (int group = 0; group < ROWS / GROUP; group++) {
#pragma GCC unroll 3
            for (int k = 0; k < GROUP; k++) {
                float value = groups[group][k * stride_a];
                sum[GROUP * group + k][0] += value * left;
                if (vectors > 1) sum[GROUP * group + k][1] += value * right;
            }
            groups[group]++;
        }
    }
}

/* c[ROWS][PANEL] = a[ROWS][depth] u[depth][PANEL], in float; the first or both vectors of the panel. */
INLINE void multiply_float(const float *a, Index stride_a, const float *u, int depth, int vectors, float *c,
                           Index stride_c) {
    Vector sum[ROWS][2] = {0};
    add_products(a, stride_a, u, depth, vectors, sum);
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) {
        *(InMemory *)(c + row * stride_c) = sum[row][0];
        if (vectors > 1) *(InMemory *)(c + row * stride_c + LANES) = sum[row][1];
    }
}

#if defined(__AVX512BF16__)
/* The same from bfloat16 a[ROWS][depth] and u[depth / 2][PANEL][2]; products and sums are float. */
INLINE void multiply_half(const uint16_t *a, Index stride_a, const uint16_t *u, int depth, int vectors, float *c,
                          Index stride_c) {
    __m512 sum[ROWS][2];
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) sum[row][0] = sum[row][1] = _mm512_setzero_ps();
    for (int i = 0; i < depth; i += 2) {
        __builtin_prefetch(u + (Index)(i + 2 * AHEAD) * PANEL);
        if (vectors > 1) __builtin_prefetch(u + (Index)(i + 2 * AHEAD) * PANEL + 2 * LANES);
        __m512bh left = (__m512bh)_mm512_loadu_si512(u + (Index)i * PANEL), right = left;
        if (vectors > 1) right = (__m512bh)_mm512_loadu_si512(u + (Index)i * PANEL + 2 * LANES);
#pragma GCC unroll 12
        for (int row = 0; row < ROWS; row++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(a + row * stride_a + i));
            sum[row][0] = _mm512_dpbf16_ps(sum[row][0], pair, left);
            if (vectors > 1) sum[row][1] = _mm512_dpbf16_ps(sum[row][1], pair, right);
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < ROWS; row++) {
        _mm512_storeu_ps(c + row * stride_c, sum[row][0]);
        if (vectors > 1) _mm512_storeu_ps(c + row * stride_c + LANES, sum[row][1]);
    }
}

static inline void store_half(uint16_t *y, Vector value) {
    _mm256_storeu_si256((__m256i *)y, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
#endif

/* One panel of a step's weights for ROWS rows of values, which are what the weights are, float or bfloat16; places and
   the stride between rows are counted in values. Of a panel that is not whole the first vector is multiplied. */
INLINE void multiply_panel(const Step *s, const void *a, Index at, Index stride_a, Index weight, int depth, int is_whole,
                           float *c, Index stride_c, int half) {
#if defined(__AVX512BF16__)
    if (half) {
        const uint16_t *rows = (const uint16_t *)a + at, *u = (const uint16_t *)s->weight + weight;
        if (is_whole)
            multiply_half(rows, stride_a, u, depth, 2, c, stride_c);
        else
            multiply_half(rows, stride_a, u, depth, 1, c, stride_c);
        return;
    }
#endif
    const float *rows = (const float *)a + at, *u = (const float *)s->weight + weight;
    if (is_whole)
        multiply_float(rows, stride_a, u, depth, 2, c, stride_c);
    else
        multiply_float(rows, stride_a, u, depth, 1, c, stride_c);
    (void)half;
}

/* Store a vector of such values at a place. */
INLINE void store_value(void *a, Index place, Vector value, int half) {
#if defined(__AVX512BF16__)
    if (half) {
        store_half((uint16_t *)a + place, value);
        return;
    }
#endif
    *(InMemory *)((float *)a + place) = value;
    (void)half;
}

#endif
