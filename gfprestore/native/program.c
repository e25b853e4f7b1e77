/* Runs a program of steps; every thread of the caller's runs it whole and takes blocks of each step as they come.

   A step starts when all blocks of the one before are done. The sums of an output are added in one order whatever the
   blocks, so that results do not depend on the number of threads. */

#include <stdatomic.h>

#include "blocks.h"
#include "convolve.h"
#include "enlarge.h"
#include "paste.h"
#include "separable.h"
#include "steps.h"
#include "warp.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#undef interface /* which some of its headers define */
#define YIELD() SwitchToThread()
#elif defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#define YIELD() sched_yield()
#endif

#define SPINS 2000 /* looks at a counter before the processor is offered to others */

typedef struct {
    _Atomic int32_t next, done;
} Progress;

/* Whether rows are passed from step to step. */
static inline int is_chain(const Step *s) { return s->flags & FEEDS_NEXT && s->kind != STEP_WINOGRAD; }

static int count_blocks(const Step *s, Index memory, int threads, Split *split) {
    if (is_chain(s)) return (s[count_chain(s) - 1].height + BAND - 1) / BAND;
    switch (s->kind) {
    case STEP_WINOGRAD:
        *split = split_tiles(s, memory, threads, is_half(s));
        return count_blocks_of(s, *split);
    case STEP_MATMUL:
        return count_products(s) * count_panel_groups(s);
    case STEP_CONVOLVE:
    case STEP_SEPARABLE:
        return count_products(s);
    case STEP_BORDER:
        return count_border(s);
    case STEP_READ_TILES:
    case STEP_WRITE_TILES:
        return count_tile_blocks(s);
    case STEP_MULTIPLY_TILES:
        return products_of(tile_of(s)) * count_groups(s, is_half(s));
    case STEP_BLOCKS_TO_RGB:
        return s->height / 2;
    case STEP_MEAN:
        return s->channels_in / LANES;
    case STEP_SIGMOID:
        return 1;
    case STEP_LINEAR:
    case STEP_INVERSE_NORM:
        return (s->channels_out + 63) / 64;
    default:
        return s->height;
    }
}

static void run_block(const Step *s, int block, Split split, float *memory) {
    int half = is_half(s);
    if (is_chain(s)) {
        run_chain(s, block, memory);
        return;
    }
    switch (s->kind) {
    case STEP_WINOGRAD: run_winograd(s, block, split, memory, half); break;
    case STEP_MATMUL: run_matmul(s, block, memory, half); break;
    case STEP_FILTER_PIXELS:
        filter_pixels(s, block, memory, (float *)s->y + (Index)block * s->width * s->stride_out);
        break;
    case STEP_CONVOLVE: run_convolve(s, block, memory, half); break;
    case STEP_SEPARABLE: run_separable(s, block, memory); break;
    case STEP_POOL: run_pool(s, block); break;
    case STEP_GATHER: run_gather(s, block); break;
    case STEP_HALVE: run_halve(s, block); break;
    case STEP_DOUBLE: run_double(s, block); break;
    case STEP_ADD: run_add(s, block); break;
    case STEP_LINEAR:
    case STEP_INVERSE_NORM:
        for (int row = 64 * block; row < least(64 * block + 64, s->channels_out); row++) run_linear(s, row);
        break;
    case STEP_FROM_PIXELS: run_from_pixels(s, block); break;
    case STEP_TO_RGB: run_to_rgb(s, block); break;
    case STEP_TO_PIXELS: run_to_pixels(s, block); break;
    case STEP_PIXELS_TO_BLOCKS: run_pixels_to_blocks(s, block); break;
    case STEP_BLOCKS_TO_RGB: run_blocks_to_rgb(s, block, memory); break;
    case STEP_BORDER: run_border(s, block, memory); break;
    case STEP_READ_TILES: run_read_tiles(s, block, half); break;
    case STEP_MULTIPLY_TILES: run_multiply_tiles(s, block, half); break;
    case STEP_WRITE_TILES: run_write_tiles(s, block); break;
    case STEP_MEAN: run_mean(s, block); break;
    case STEP_SIGMOID: run_sigmoid(s); break;
    case STEP_ACTIVATE: run_activate(s, block); break;
    case STEP_CLASSES: run_classes(s, block, memory); break;
    }
}

/* Run the program; every thread calls this with the same zeroed progress and memory of its own, `scratch_size` of it
   where blocks of tiles are to take `block_size` bytes. */
EXPORT void run_program(const Step *steps, int count, Progress *progress, int threads, float *memory,
                        Index block_size) {
    for (int i = 0; i < count; i += count_chain(steps + i)) {
        Split split = {0};
        int block, blocks = count_blocks(steps + i, block_size / 4, threads, &split);
        while ((block = atomic_fetch_add_explicit(&progress[i].next, 1, memory_order_relaxed)) < blocks) {
            run_block(steps + i, block, split, memory);
            atomic_fetch_add_explicit(&progress[i].done, 1, memory_order_release);
        }
        for (int spin = 0; atomic_load_explicit(&progress[i].done, memory_order_acquire) < blocks; spin++)
            if (spin > SPINS) YIELD();
    }
}

/* bfloat16, to the nearest and ties to even, in every other place. */
static void store_pairs(uint16_t *y, Vector value) {
    float lanes[LANES];
    store(lanes, value);
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t bits;
        memcpy(&bits, lanes + lane, 4);
        bits += 0x7fff + (bits >> 16 & 1);
        y[2 * lane] = (uint16_t)(bits >> 16);
    }
}

/* Pack a kernel w[3][3][inputs][outputs] for STEP_WINOGRAD in tiles of 4 or 6: u[products][panels][inputs][PANEL], or in
   bfloat16 u[products][panels][inputs / 2][PANEL][2]; of a last panel that is not whole nothing is written for the rest. */
EXPORT void pack_winograd(const float *w, int outputs, int inputs, void *packed, int tile, int half) {
    Index panels = (outputs + PANEL - 1) / PANEL;
    int window = window_of(tile);
    for (Index i = 0; i < inputs; i++)
        for (Index o = 0; o < outputs; o += LANES) {
            Vector column[3], rows[LARGEST_WINDOW][3], u[LARGEST_WINDOW];
            for (int j = 0; j < 3; j++) {
                for (int k = 0; k < 3; k++) column[k] = load(w + ((3 * k + j) * (Index)inputs + i) * outputs + o);
                to_factors(column, u, tile);
                for (int k = 0; k < window; k++) rows[k][j] = u[k];
            }
            for (int k = 0; k < window * window; k++) {
                if (k % window == 0) to_factors(rows[k / window], u, tile);
                Index panel = (k * panels + o / PANEL) * inputs * PANEL;
                if (half)
                    store_pairs((uint16_t *)packed + panel + (i / 2 * PANEL + o % PANEL) * 2 + i % 2, u[k % window]);
                else
                    store((float *)packed + panel + i * PANEL + o % PANEL, u[k % window]);
            }
        }
}

/* Bytes of every thread's memory for a program whose blocks of tiles are to take `memory` bytes. */
EXPORT Index scratch_size(const Step *steps, int count, Index memory) {
    for (int i = 0; i < count; i++) {
        int tiled = steps[i].kind == STEP_WINOGRAD;
        Index least_size = 4 * (tiled ? winograd_memory(steps + i, fewest_tiles(steps + i)) : product_memory(steps + i));
        if (least_size > memory) memory = least_size;
    }
    return memory;
}

/* What the library was compiled from: `interface_digest` of library.py. */
EXPORT const char *interface(void) { return INTERFACE; }

EXPORT int panel_width(void) { return PANEL; }

EXPORT int has_half(void) {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}
