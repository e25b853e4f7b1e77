/* What the kernels are called with, one step of a network for the processor or an image to resample, and the vectors
   that they compute in.

   Features are float, or bfloat16 where a flag says so, height x width x channels with the channels innermost. Widths are
   multiples of LANES, and every buffer begins at a cache line. `gfprestore/native/program.py` writes the steps and
   `library.py` repeats their layout in ctypes; `resampling.py` and `pasting.py` do both for images. */

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

#define INLINE static inline __attribute__((always_inline)) /* so that constants given are constants inside */

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
    STEP_PIXELS_TO_BLOCKS,
    STEP_BLOCKS_TO_RGB,
    STEP_BORDER,
    STEP_READ_TILES, /* these three are STEP_WINOGRAD apart, with its flags */
    STEP_MULTIPLY_TILES,
    STEP_WRITE_TILES,
    STEP_MEAN,
    STEP_SIGMOID,
    STEP_ACTIVATE,
    STEP_CLASSES,
};

enum Flag {
    DOUBLES_INPUT = 1,     /* STEP_WINOGRAD: convolve the bilinear double of x */
    HALVES_OUTPUT = 2,     /* STEP_WINOGRAD: keep the means of 2 x 2 outputs */
    DOUBLES_RESIDUAL = 4,  /* STEP_WINOGRAD: the residual has half the size, add its bilinear double */
    REPEATS_INPUT = 8,     /* STEP_WINOGRAD: convolve x with every row and column twice */
    REPEATS_RESIDUAL = 16, /* STEP_MATMUL: the residual has half the size, add each of its pixels four times */
    ADDS_FIRST = 32,       /* add the residual before the activation; not with DOUBLES_RESIDUAL or HALVES_OUTPUT */
    FEEDS_NEXT = 64,       /* STEP_FILTER_PIXELS, STEP_SEPARABLE: y is passed to the next, a separable step, in a chain;
                              STEP_WINOGRAD: to the next, STEP_TO_RGB, which is done with it */
    CLAMPS_INPUT = 128,    /* STEP_WINOGRAD: beyond its border x goes on as it ends, instead of zeros */
    LARGE_TILES = 256,     /* STEP_WINOGRAD: tiles of 6 x 6 instead of 4 x 4; only in float */
    ROUNDED_INPUT = 512,      /* STEP_WINOGRAD, STEP_TO_RGB: x is bfloat16 */
    ROUNDED_OUTPUT = 1024,    /* STEP_WINOGRAD: y is bfloat16, and whole panels */
    ROUNDED_TRANSFORM = 2048, /* STEP_WINOGRAD: scale and shift are bfloat16 */
    ROUNDED_WEIGHT = 4096,    /* the weights are bfloat16, and so becomes what they multiply but for STEP_LINEAR; see below */
};

typedef struct {
    int32_t kind, flags;
    int32_t height, width; /* of the output; STEP_WINOGRAD: before HALVES_OUTPUT; STEP_MEAN: of x */
    int32_t channels_in, channels_out;
    int32_t stride_in, stride_out, stride_residual; /* floats from one pixel of x, y, residual to the next */
    int32_t stride_noise; /* floats of noise for every pixel, in turn for its channels; 0 is one for all of them */
    int32_t kept;                                   /* channels before those that scale and shift reach */
    int32_t side, pace; /* STEP_FILTER_PIXELS and those after it: of the kernel, and from one output to the next in x;
                           STEP_CLASSES: pace times larger than x */
    int32_t first_tile, tiles; /* STEP_READ_TILES and the two after it: of all tiles of the output those that it takes */
    int32_t depth;      /* STEP_SEPARABLE: channels that have weights in the product; STEP_CLASSES: how many they are;
                           STEP_BLOCKS_TO_RGB: see there */
    const void *x;        /* features, pixels, or a vector */
    const void *weight;   /* as packed below */
    const float *style;   /* factor of every input channel, or NULL */
    const float *gain;    /* factor of every output channel, or NULL */
    const float *bias;    /* of every output channel, or NULL */
    const float *noise;   /* of every output pixel, see stride_noise, or NULL */
    const float *residual; /* added after the activation but for ADDS_FIRST, or NULL */
    const void *scale;    /* feature transform of the channels from `kept` on: their factors, or NULL */
    const void *shift;    /* ... and what is added */
    const float *slopes;  /* `slope` of every output channel, or NULL */
    const float *mean;    /* STEP_FILTER_PIXELS: taken off every byte of a row of x, which repeats them */
    const float *filters; /* STEP_SEPARABLE: [10][channels_in], nine weights of every channel and what is added */
    void *y;
    float slope;          /* of the leaky ReLU below zero, 1 is none; STEP_ADD: the residual's factor; STEP_SIGMOID: added */
    float slope_between;  /* STEP_SEPARABLE: of the one before the product */
} Step;

/* Whether a step multiplies in bfloat16: in tiles, of 1 x 1, and STEP_CONVOLVE. */
static inline int is_half(const Step *s) { return (s->flags & ROUNDED_WEIGHT) != 0; }

#define TAPS 8            /* samples that one output is a sum of, along each axis */
#define BORDER (TAPS / 2) /* pixels of mirrored border about an image to warp */
#define POWERS 10         /* coefficients of the polynomials that are a warp's weights */

/* An image to enlarge. No two neighbours' first samples are more than one apart, and they may lie outside: beyond the
   edges their pixels go on. */
typedef struct {
    const void *x; /* height x width x channels */
    void *y;       /* new_height x new_width x channels, without gaps */
    Index stride;  /* bytes from one row of x to the next */
    const int32_t *first_rows, *first_columns; /* the first sample that every output row and column is a sum of */
    const float *row_weights, *column_weights; /* [TAPS] of each */
    int32_t height, width, new_height, new_width;
    int32_t channels; /* 1 or 3 */
    int32_t bytes;    /* of a sample: 1 or 2 */
} Enlargement;

/* A square to warp out of an image: the pixel at (column, row) shows the image at
   (to_x[0] * column + to_x[1] * row + to_x[2], to_y[0] * column + ...). */
typedef struct {
    const void *x; /* height x width x 3 */
    void *y;       /* side x side x 3, without gaps */
    float *quads;  /* the image in floats with a mirrored border, as `convert_rows` of warp.h leaves it */
    Index stride;  /* bytes from one row of x to the next */
    double to_x[3], to_y[3];
    const float *powers; /* [POWERS][TAPS]: every tap's weight as a polynomial, see `find_weights` of warp.h */
    int32_t height, width, side;
    int32_t bytes; /* of a sample: 1 or 2 */
} Warp;

#define PAD_BEFORE 2                      /* pixels repeated to the left of a face and above it, ... */
#define PAD_AFTER 3                       /* ... to its right and below */
#define PADS (PAD_BEFORE + PAD_AFTER)

/* A face to bring back into its photo, see paste.h. */
typedef struct {
    void *canvas;          /* [height][width][3], uint8 or uint16 */
    const void *base;      /* the same of what the change is added to; may be the canvas */
    const float *tone;     /* [height][width][3], added to the change, or NULL */
    const float *room;     /* [height][width], factors of the mask, or NULL */
    const float *change;   /* [face_height][face_width][3] */
    const void *original;  /* the same in the canvas's type, taken off the change, or NULL */
    const float *mask;     /* [face_height][face_width] */
    float *face;           /* memory for [PADS + face_height][PADS + face_width][4] */
    double to_face[6];     /* of the canvas's pixel (x, y) the one of the face: 2 x 3 */
    Index canvas_line, base_line, change_line, original_line, mask_line; /* bytes from one row to the next */
    int32_t height, width, face_height, face_width;
    int32_t bytes;         /* of a colour: 1 or 2 */
} Paste;

EXPORT Index enlarge_scratch(void);
EXPORT void enlarge(const Enlargement *e, int first, int last, float *scratch);
EXPORT void convert_rows(const Warp *w, int first, int last);
EXPORT void warp_rows(const Warp *w, int first, int last);
EXPORT void paste_face(const Paste *p);

#endif
