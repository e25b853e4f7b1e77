/* Four floats: a pixel of three colours and one of no meaning, or four channels. */

#ifndef GFPRESTORE_QUADS_H
#define GFPRESTORE_QUADS_H

#include <stdint.h>

#define QUAD 4

typedef float Quad __attribute__((vector_size(4 * QUAD)));
typedef float QuadInMemory __attribute__((vector_size(4 * QUAD), aligned(4), may_alias)); /* at any address */
typedef int32_t QuadBits __attribute__((vector_size(4 * QUAD)));

static inline Quad load_quad(const float *x) { return *(const QuadInMemory *)x; }
static inline void store_quad(float *y, Quad value) { *(QuadInMemory *)y = value; }

#endif
