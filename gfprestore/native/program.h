/* One step of a network for the processor, and the vectors it is computed in.

   Features are float, height x width x channels with the channels innermost. Widths are multiples of LANES, those that
   STEP_WINOGRAD gives of PANEL, and every buffer begins at a cache line. `gfprestore/native/program.py` writes the steps
   and `library.py` repeats their layout in ctypes. */

#ifndef GFPRESTORE_PROGRAM_H
#define GFPRESTORE_PROGRAM_H

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16 /* floats in a vector */
#define ROWS 12  /* rows that one multiplication holds in registers: 12 x 2 sums, 2 weights, 1 value of 32 registers */
#elif defined(__AVX2__)
#define LANES 8
#define ROWS 6 /* 6 x 2 sums of 16 registers */
#else
#define LANES 4
#define ROWS 6
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define PANEL (2 * LANES) /* output channels that one multiplication holds in registers */

typedef int64_t Index; /* of a float in a buffer: `long` has 32 bits on Windows, and layers have more floats */
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float InMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any address */

enum Kind {
    STEP_WINOGRAD,
    STEP_MATMUL,
    STEP_GATHER,
    STEP_HALVE,
    STEP_DOUBLE,
    STEP_ADD,
    STEP_LINEAR,
    STEP_INVERSE_NORM,
    STEP_FROM_PIXELS,
    STEP_TO_RGB,
    STEP_TO_PIXELS,
    STEP_FILTER_PIXELS,
    STEP_CONVOLVE,
    STEP_SEPARABLE,
    STEP_POOL,
};

enum Flag {
    DOUBLES_INPUT = 1,     /* STEP_WINOGRAD: convolve the bilinear double of x */
    HALVES_OUTPUT = 2,     /* STEP_WINOGRAD: keep the means of 2 x 2 outputs */
    DOUBLES_RESIDUAL = 4,  /* STEP_WINOGRAD: the residual has half the size, add its bilinear double */
    REPEATS_INPUT = 8,     /* STEP_WINOGRAD: convolve x with every row and column twice */
    REPEATS_RESIDUAL = 16, /* STEP_MATMUL: the residual has half the size, add each of its pixels four times */
    ADDS_FIRST = 32,       /* STEP_MATMUL: add the residual before the activation */
    FEEDS_NEXT = 64,       /* STEP_FILTER_PIXELS, STEP_SEPARABLE: y is passed to the next, a separable step, in a chain */
};

typedef struct {
    int32_t kind, flags;
    int32_t height, width; /* of the output; STEP_WINOGRAD: before HALVES_OUTPUT */
    int32_t channels_in, channels_out;
    int32_t stride_in, stride_out, stride_residual; /* floats from one pixel of x, y, residual to the next */
    int32_t kept;                                   /* channels before those that scale and shift reach */
    int32_t side, pace; /* STEP_FILTER_PIXELS and those after it: of the kernel, and from one output to the next in x */
    int32_t depth;      /* STEP_SEPARABLE: channels that have weights in the product */
    const void *x;        /* features, pixels, or a vector */
    const void *weight;   /* as packed below */
    const float *style;   /* factor of every input channel, or NULL */
    const float *gain;    /* factor of every output channel, or NULL */
    const float *bias;    /* of every output channel, or NULL */
    const float *noise;   /* of every output pixel, or NULL */
    const float *residual; /* added after the activation but for ADDS_FIRST, or NULL */
    const float *scale;   /* feature transform of the channels from `kept` on: their factors, or NULL */
    const float *shift;   /* ... and what is added */
    const float *slopes;  /* `slope` of every output channel, or NULL */
    const float *mean;    /* STEP_FILTER_PIXELS: taken off every byte of a row of x, which repeats them */
    const float *filters; /* STEP_SEPARABLE: [10][channels_in], nine weights of every channel and what is added */
    void *y;
    float slope;          /* of the leaky ReLU below zero, 1 is none; STEP_ADD: the residual's factor */
    float slope_between;  /* STEP_SEPARABLE: of the one before the product */
} Step;

#endif
