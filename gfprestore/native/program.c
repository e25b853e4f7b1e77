/* Runs a program of steps; every thread of the caller's runs it whole and takes blocks of each step as they come.

   A step starts when all blocks of the one before are done. The sums of an output are added in one order whatever the
   blocks, so that results do not depend on the number of threads. */

#include "program.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "multiply.h"
#include "winograd.h"

#if defined(_WIN32)
#include <windows.h>
#define YIELD() SwitchToThread()
#elif defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#define YIELD() sched_yield()
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define LARGE (3L << 20) /* floats of features that are no longer near when the next step reads them */
#define SPINS 2000 /* looks at a counter before the processor is offered to others */
#define FEWEST_TILES 24 /* in a block: a multiple of every ROWS */
#define PADDING 16 /* floats after every plane of a block: equal offsets in many planes would share a few cache lines */

typedef struct {
    _Atomic int32_t next, done;
} Progress;

static inline Vector load(const float *x) { return *(const InMemory *)x; }
static inline void store(float *y, Vector value) { *(InMemory *)y = value; }
typedef int32_t Bits __attribute__((vector_size(4 * LANES)));

/* Leaky ReLU without a comparison: (1 + slope) / 2 x + (1 - slope) / 2 |x|. */
static inline Vector leaky(Vector value, float slope) {
    Vector size = (Vector)((Bits)value & 0x7fffffff);
    return (0.5f + 0.5f * slope) * value + (0.5f - 0.5f * slope) * size;
}
/* Store what is read again only after more than a cache has gone by. */
static inline void store_past_cache(float *y, Vector value) {
#if defined(__AVX512F__)
    _mm512_stream_ps(y, (__m512)value);
#elif defined(__AVX2__)
    _mm256_stream_ps(y, (__m256)value);
#else
    store(y, value);
#endif
}

/* Such stores are not in order with others. */
static inline void finish_stores(void) {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

static inline int clamp(int value, int most) { return value < 0 ? 0 : value > most ? most : value; }
static inline int least(int a, int b) { return a < b ? a : b; }

/* What follows a convolution for the channels from c on of the pixel at `pixel`. */
static inline Vector activate(const Step *s, Vector value, long pixel, int c) {
    if (s->gain) value *= load(s->gain + c);
    if (s->bias) value += load(s->bias + c);
    if (s->noise) value += s->noise[pixel];
    value = leaky(value, s->slope);
    if (s->scale && c >= s->kept) {
        long at = pixel * (s->channels_out - s->kept) + c - s->kept;
        value = value * load(s->scale + at) + load(s->shift + at);
    }
    return value;
}

/* ---- Winograd convolution ---- */

/* Tiles along a side; the last may reach beyond the features. */
static inline int count_tiles(int side) { return (side + TILE - 1) / TILE; }

/* Where a window's samples lie: at row + column, or outside, where a row is NULL or a column negative. */
typedef struct {
    const float *row[WINDOW];
    long column[WINDOW];
} Window;

static Window find_window(const Step *s, int ty, int tx) {
    Window at;
    for (int i = 0; i < WINDOW; i++) {
        int row = TILE * ty - 1 + i, column = TILE * tx - 1 + i;
        int above = row >= 0 && row < s->height, beside = column >= 0 && column < s->width;
        at.row[i] = above ? (const float *)s->x + (long)row * s->width * s->stride_in : NULL;
        at.column[i] = beside ? (long)column * s->stride_in : -1;
    }
    return at;
}

/* The same in features of half the size, of which four samples each way make a window. */
static Window find_half_window(const float *x, int height, int width, int stride, int ty, int tx) {
    Window at;
    for (int i = 0; i < 4; i++) {
        at.row[i] = x + (long)clamp(2 * ty - 1 + i, height - 1) * width * stride;
        at.column[i] = (long)clamp(2 * tx - 1 + i, width - 1) * stride;
    }
    return at;
}

/* Columns of B' d, or of B' d B with `border` telling whether samples may lie outside. */
static inline __attribute__((always_inline)) void read_tile(const Window *at, int c, int border, long ahead,
                                                            Vector half_way[WINDOW][WINDOW]) {
    for (int j = 0; j < WINDOW; j++) {
        Vector column[WINDOW], out[WINDOW];
        for (int i = 0; i < WINDOW; i++) {
            if (!border && j >= 2) __builtin_prefetch(at->row[i] + at->column[j] + ahead + c);
            int outside = border && (!at->row[i] || at->column[j] < 0);
            column[i] = outside ? (Vector){0} : load(at->row[i] + at->column[j] + c);
        }
        to_products(column, out);
        for (int i = 0; i < WINDOW; i++) half_way[i][j] = out[i];
    }
}

/* Four samples of features of half the size to the six of a window. */
static inline void widen(const Vector d[4], Vector v[WINDOW], int repeats) {
    if (!repeats) {
        to_doubled(d, v);
        return;
    }
    v[0] = d[0];
    v[1] = v[2] = d[1];
    v[3] = v[4] = d[2];
    v[5] = d[3];
}

/* Zero for the samples of a window that lie outside. */
static inline void clear_outside(Vector v[WINDOW], int tile, int side) {
    if (tile == 0) v[0] = (Vector){0};
    for (int i = side - TILE * tile + 1; i < WINDOW; i++) v[i] = (Vector){0};
}

/* The same of features of half the size, doubled or repeated. */
static inline __attribute__((always_inline)) void read_wider_tile(const Step *s, const Window *at, int ty, int tx, int c,
                                                                  int repeats, Vector half_way[WINDOW][WINDOW]) {
    Vector wide[4][WINDOW];
    for (int i = 0; i < 4; i++) {
        Vector row[4];
        for (int j = 0; j < 4; j++) row[j] = load(at->row[i] + at->column[j] + c);
        for (int j = 2; j < 4; j++) __builtin_prefetch(at->row[i] + at->column[j] + 2L * s->stride_in + c);
        widen(row, wide[i], repeats);
        clear_outside(wide[i], tx, s->width);
    }
    for (int j = 0; j < WINDOW; j++) {
        Vector column[4], doubled[WINDOW], out[WINDOW];
        for (int i = 0; i < 4; i++) column[i] = wide[i][j];
        widen(column, doubled, repeats);
        clear_outside(doubled, ty, s->height);
        to_products(doubled, out);
        for (int i = 0; i < WINDOW; i++) half_way[i][j] = out[i];
    }
}

/* v[PRODUCTS][tiles][channels_in] of the tiles from `first` on. */
static inline __attribute__((always_inline)) void gather_tiles_as(const Step *s, int first, int tiles, void *v,
                                                                  long plane, int half, int wider) {
    int across = count_tiles(s->width), down = count_tiles(s->height);
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        int border = ty == 0 || tx == 0 || ty == down - 1 || tx == across - 1;
        Window at = wider ? find_half_window(s->x, s->height / 2, s->width / 2, s->stride_in, ty, tx)
                          : find_window(s, ty, tx);
        for (int c = 0; c < s->channels_in; c += LANES) {
            Vector half_way[WINDOW][WINDOW], out[WINDOW];
            if (wider)
                read_wider_tile(s, &at, ty, tx, c, wider & REPEATS_INPUT, half_way);
            else if (border)
                read_tile(&at, c, 1, 0, half_way);
            else
                read_tile(&at, c, 0, (long)TILE * s->stride_in, half_way);
            Vector style = s->style ? load(s->style + c) : (Vector){0} + 1;
            for (int i = 0; i < WINDOW; i++) {
                to_products(half_way[i], out);
                for (int j = 0; j < WINDOW; j++) {
                    long place = (i * WINDOW + j) * plane + (long)t * s->channels_in + c;
#if defined(__AVX512BF16__)
                    if (half) {
                        store_half((uint16_t *)v + place, out[j] * style);
                        continue;
                    }
#endif
                    store((float *)v + place, out[j] * style);
                }
            }
        }
    }
    (void)half;
}

static void gather_tiles(const Step *s, int first, int tiles, void *v, long plane, int half) {
    /* Every case a loop of its own, without questions inside. */
    switch ((s->flags & (DOUBLES_INPUT | REPEATS_INPUT)) | (half ? 32 : 0)) {
    case DOUBLES_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, DOUBLES_INPUT); break;
    case DOUBLES_INPUT | 32: gather_tiles_as(s, first, tiles, v, plane, 1, DOUBLES_INPUT); break;
    case REPEATS_INPUT: gather_tiles_as(s, first, tiles, v, plane, 0, REPEATS_INPUT); break;
    case REPEATS_INPUT | 32: gather_tiles_as(s, first, tiles, v, plane, 1, REPEATS_INPUT); break;
    case 32: gather_tiles_as(s, first, tiles, v, plane, 1, 0); break;
    default: gather_tiles_as(s, first, tiles, v, plane, 0, 0);
    }
}

static void multiply_tiles(const Step *s, int tiles, const void *v, long plane_v, float *m, long plane_m, int half) {
    long panel_size = (long)s->channels_in * PANEL;
    int panels = s->channels_out / PANEL;
    for (int k = 0; k < PRODUCTS; k++)
        for (int panel = 0; panel < panels; panel++)
            for (int t = 0; t < tiles; t += ROWS) {
                long at = k * plane_v + (long)t * s->channels_in, weight = (k * panels + panel) * panel_size;
                float *c = m + k * plane_m + (long)t * s->channels_out + panel * PANEL;
#if defined(__AVX512BF16__)
                if (half) {
                    multiply_half((const uint16_t *)v + at, s->channels_in, (const uint16_t *)s->weight + weight,
                                  s->channels_in, c, s->channels_out);
                    continue;
                }
#endif
                multiply_float((const float *)v + at, s->channels_in, (const float *)s->weight + weight,
                               s->channels_in, c, s->channels_out);
            }
}

/* Four by four of the residual's bilinear double: the middle of a window. */
static inline __attribute__((always_inline)) void add_doubled_residual(const Window *at, int c,
                                                                       Vector y[TILE][TILE]) {
    Vector wide[4][WINDOW];
    for (int i = 0; i < 4; i++) {
        Vector row[4];
        for (int j = 0; j < 4; j++) row[j] = load(at->row[i] + at->column[j] + c);
        to_doubled(row, wide[i]);
    }
    for (int j = 0; j < TILE; j++) {
        Vector column[4], doubled[WINDOW];
        for (int i = 0; i < 4; i++) column[i] = wide[i][j + 1];
        to_doubled(column, doubled);
        for (int i = 0; i < TILE; i++) y[i][j] += doubled[i + 1];
    }
}

/* What follows the convolution; see `activate`, whose vectors are read once here. */
static inline __attribute__((always_inline)) void activate_tile(const Step *s, long pixel, int c,
                                                                Vector y[TILE][TILE]) {
    Vector gain = s->gain ? load(s->gain + c) : (Vector){0} + 1, bias = s->bias ? load(s->bias + c) : (Vector){0};
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            Vector value = y[i][j] * gain + bias;
            if (s->noise) value += s->noise[pixel + (long)i * s->width + j];
            y[i][j] = leaky(value, s->slope);
        }
    if (!s->scale || c < s->kept) return;
    int reached = s->channels_out - s->kept;
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            long at = (pixel + (long)i * s->width + j) * reached + c - s->kept;
            y[i][j] = y[i][j] * load(s->scale + at) + load(s->shift + at);
        }
}

static inline __attribute__((always_inline)) void store_halved(const Step *s, int ty, int tx, int c,
                                                               Vector y[TILE][TILE]) {
    for (int i = 0; i < TILE; i += 2)
        for (int j = 0; j < TILE; j += 2) {
            long pixel = (long)(TILE * ty + i) / 2 * (s->width / 2) + (TILE * tx + j) / 2;
            store((float *)s->y + pixel * s->stride_out + c,
                  0.25f * (y[i][j] + y[i][j + 1] + y[i + 1][j] + y[i + 1][j + 1]));
        }
}

/* Only as many channels as y has: the last panel may have more. */
static inline void store_channels(const Step *s, long pixel, int c, Vector value, int is_large) {
    float *y = (float *)s->y + pixel * s->stride_out + c;
    if (s->stride_out < LANES) {
        if (c == 0) memcpy(y, &value, 4 * s->stride_out);
    } else if (is_large)
        store_past_cache(y, value);
    else
        store(y, value);
}

/* From products m[PRODUCTS][tiles][channels_out] to features. */
static inline __attribute__((always_inline)) void scatter_tiles_as(const Step *s, int first, int tiles, const float *m,
                                                                   long plane, int flags) {
    int across = count_tiles(s->width), doubles = flags & DOUBLES_RESIDUAL;
    int is_large = (long)s->height * s->width * s->channels_out > LARGE;
    for (int t = 0; t < tiles; t++) {
        int ty = (first + t) / across, tx = (first + t) % across;
        long corner = (long)TILE * ty * s->width + TILE * tx;
        Window at = {0};
        if (doubles) at = find_half_window(s->residual, s->height / 2, s->width / 2, s->stride_residual, ty, tx);
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector half_way[TILE][WINDOW], y[TILE][TILE];
            for (int j = 0; j < WINDOW; j++) {
                Vector column[WINDOW], out[TILE];
                for (int i = 0; i < WINDOW; i++)
                    column[i] = load(m + (i * WINDOW + j) * plane + (long)t * s->channels_out + c);
                to_outputs(column, out);
                for (int i = 0; i < TILE; i++) half_way[i][j] = out[i];
            }
            for (int i = 0; i < TILE; i++) to_outputs(half_way[i], y[i]);
            activate_tile(s, corner, c, y);
            if (flags & HALVES_OUTPUT) {
                store_halved(s, ty, tx, c, y);
                continue;
            }
            if (doubles) add_doubled_residual(&at, c, y);
            for (int i = 0; i < least(TILE, s->height - TILE * ty); i++)
                for (int j = 0; j < least(TILE, s->width - TILE * tx); j++) {
                    long pixel = corner + (long)i * s->width + j;
                    if (s->residual && !doubles) y[i][j] += load(s->residual + pixel * s->stride_residual + c);
                    store_channels(s, pixel, c, y[i][j], is_large);
                }
        }
    }
}

static void scatter_tiles(const Step *s, int first, int tiles, const float *m, long plane) {
    if (s->flags & HALVES_OUTPUT)
        scatter_tiles_as(s, first, tiles, m, plane, HALVES_OUTPUT);
    else if (s->flags & DOUBLES_RESIDUAL)
        scatter_tiles_as(s, first, tiles, m, plane, DOUBLES_RESIDUAL);
    else
        scatter_tiles_as(s, first, tiles, m, plane, 0);
}

/* Floats of one thread's memory for a block of tiles: values, then products. */
static long winograd_memory(const Step *s, int tiles) {
    return PRODUCTS * ((long)tiles * (s->channels_in + s->channels_out) + 3 * PADDING);
}

static int tiles_in_block(const Step *s, long memory, int threads) {
    int tiles = count_tiles(s->height) * count_tiles(s->width);
    /* Weights are read once for a block: wide layers, whose weights fill the caches, take more tiles than fit there. */
    int most = FEWEST_TILES;
    while (winograd_memory(s, most + ROWS) <= memory) most += ROWS;
    /* As many blocks for every thread, none much smaller than the others. */
    int rounds = (tiles + threads * most - 1) / (threads * most);
    int even = (tiles + threads * rounds - 1) / (threads * rounds);
    return least(most, (even + ROWS - 1) / ROWS * ROWS);
}

static void run_winograd(const Step *s, int block, int tiles_each, float *memory, int half) {
    int tiles = count_tiles(s->height) * count_tiles(s->width), first = block * tiles_each;
    int count = least(tiles_each, tiles - first);
    long plane_v = (long)tiles_each * s->channels_in + 2 * PADDING, plane_m = (long)tiles_each * s->channels_out + PADDING;
    float *m = memory + PRODUCTS * plane_v;
    gather_tiles(s, first, count, memory, plane_v, half);
    multiply_tiles(s, count, memory, plane_v, m, plane_m, half);
    scatter_tiles(s, first, count, m, plane_m);
    finish_stores();
}

/* ---- Everything else ---- */

#define MATMUL_ROWS 48 /* pixels in a block of a product: a multiple of every ROWS */

static void run_matmul(const Step *s, int block, float *memory) {
    int panels = s->channels_out / PANEL, pixels = s->height * s->width;
    int panel = block % panels, first = block / panels * MATMUL_ROWS;
    int count = least(MATMUL_ROWS, pixels - first);
    const float *a = (const float *)s->x + (long)first * s->stride_in;
    const float *u = (const float *)s->weight + (long)panel * s->channels_in * PANEL;
    for (int t = 0; t < count; t += ROWS)
        multiply_float(a + (long)t * s->stride_in, s->stride_in, u, s->channels_in, memory + (long)t * PANEL, PANEL);
    for (int t = 0; t < count; t++)
        for (int c = 0; c < PANEL; c += LANES) {
            long pixel = first + t;
            int channel = panel * PANEL + c;
            Vector value = activate(s, load(memory + (long)t * PANEL + c), pixel, channel);
            if (s->residual) value += load(s->residual + pixel * s->stride_residual + channel);
            store((float *)s->y + pixel * s->stride_out + channel, value);
        }
}

/* Row by row: the nine neighbours of every pixel side by side, times the style. */
static void run_gather(const Step *s, int row) {
    const float *x = s->x;
    for (int column = 0; column < s->width; column++)
        for (int k = 0; k < 9; k++) {
            int i = row + k / 3 - 1, j = column + k % 3 - 1;
            float *y = (float *)s->y + ((long)row * s->width + column) * s->channels_out + (long)k * s->channels_in;
            int inside = i >= 0 && i < s->height && j >= 0 && j < s->width;
            for (int c = 0; c < s->channels_in; c += LANES) {
                Vector value = inside ? load(x + ((long)i * s->width + j) * s->stride_in + c) : (Vector){0};
                store(y + c, s->style ? value * load(s->style + c) : value);
            }
        }
}

static void run_halve(const Step *s, int row) {
    const float *x = s->x;
    long line = 2L * s->width * s->stride_in;
    for (int column = 0; column < s->width; column++) {
        const float *from = x + 2 * row * line + 2L * column * s->stride_in;
        float *y = (float *)s->y + ((long)row * s->width + column) * s->channels_in;
        for (int c = 0; c < s->channels_in; c += LANES)
            store(y + c, 0.25f * (load(from + c) + load(from + s->stride_in + c) + load(from + line + c) +
                                  load(from + line + s->stride_in + c)));
    }
}

static void run_double(const Step *s, int row) {
    const float *x = s->x;
    int height = s->height / 2, width = s->width / 2;
    int near = row / 2, far = clamp(row % 2 ? near + 1 : near - 1, height - 1);
    for (int column = 0; column < s->width; column++) {
        int here = column / 2, there = clamp(column % 2 ? here + 1 : here - 1, width - 1);
        const float *a = x + ((long)near * width + here) * s->stride_in, *b = x + ((long)near * width + there) * s->stride_in;
        const float *d = x + ((long)far * width + here) * s->stride_in, *e = x + ((long)far * width + there) * s->stride_in;
        float *y = (float *)s->y + ((long)row * s->width + column) * s->channels_in;
        for (int c = 0; c < s->channels_in; c += LANES)
            store(y + c, 0.75f * (0.75f * load(a + c) + 0.25f * load(b + c)) +
                             0.25f * (0.75f * load(d + c) + 0.25f * load(e + c)));
    }
}

static void run_add(const Step *s, int row) {
    for (int column = 0; column < s->width; column++) {
        long pixel = (long)row * s->width + column;
        const float *a = (const float *)s->x + pixel * s->stride_in, *b = s->residual + pixel * s->stride_residual;
        float *y = (float *)s->y + pixel * s->stride_out;
        for (int c = 0; c < s->channels_in; c += LANES) store(y + c, load(a + c) + s->slope * load(b + c));
    }
}

static float sum_lanes(Vector value) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += value[lane];
    return sum;
}

/* One output of a matrix times a vector, or the demodulation of one output channel. */
static void run_linear(const Step *s, int row) {
    const float *x = s->x, *w = (const float *)s->weight + (long)row * s->channels_in;
    int squares = s->kind == STEP_INVERSE_NORM;
    Vector sum[4] = {0}; /* several, since one addition waits for the one before */
    for (int i = 0; i < s->channels_in; i += 4 * LANES)
        for (int k = 0; k < 4; k++) {
            Vector value = load(x + i + k * LANES);
            sum[k] += load(w + i + k * LANES) * (squares ? value * value : value);
        }
    float total = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
    /* The leaky ReLU that follows halves the variance, which sqrt(2) makes up for. */
    ((float *)s->y)[row] = squares ? 1.41421356237f / sqrtf(total + 1e-8f) : total + s->bias[row];
}

static void run_from_pixels(const Step *s, int row) {
    const float *w = s->weight; /* [3][channels_out], for pixels from 0 to 255 */
    for (int column = 0; column < s->width; column++) {
        const uint8_t *pixel = (const uint8_t *)s->x + ((long)row * s->width + column) * 3;
        float *y = (float *)s->y + ((long)row * s->width + column) * s->channels_out;
        for (int c = 0; c < s->channels_out; c += LANES) {
            Vector value = load(s->bias + c);
            for (int k = 0; k < 3; k++) value += (float)pixel[k] * load(w + (long)k * s->channels_out + c);
            store(y + c, leaky(value, s->slope));
        }
    }
}

#define RGB 4 /* floats of a pixel of the image: three colours and one of no meaning */

static float doubled_at(const Step *s, int row, int column, int channel) {
    int height = s->height / 2, width = s->width / 2;
    int near = row / 2, far = clamp(row % 2 ? near + 1 : near - 1, height - 1);
    int here = column / 2, there = clamp(column % 2 ? here + 1 : here - 1, width - 1);
    const float *r = s->residual + channel;
    float first = 0.75f * r[((long)near * width + here) * RGB] + 0.25f * r[((long)near * width + there) * RGB];
    float second = 0.75f * r[((long)far * width + here) * RGB] + 0.25f * r[((long)far * width + there) * RGB];
    return 0.75f * first + 0.25f * second;
}

static void run_to_rgb(const Step *s, int row) {
    const float *w = s->weight; /* [3][channels_in] */
    for (int column = 0; column < s->width; column++) {
        const float *x = (const float *)s->x + ((long)row * s->width + column) * s->stride_in;
        float *y = (float *)s->y + ((long)row * s->width + column) * RGB;
        Vector sum[3] = {0};
        for (int c = 0; c < s->channels_in; c += LANES) {
            Vector value = load(x + c) * load(s->style + c);
            for (int k = 0; k < 3; k++) sum[k] += value * load(w + (long)k * s->channels_in + c);
        }
        for (int k = 0; k < 3; k++)
            y[k] = sum_lanes(sum[k]) + s->bias[k] + (s->residual ? doubled_at(s, row, column, k) : 0);
    }
}

static void run_to_pixels(const Step *s, int row) {
    for (int column = 0; column < s->width; column++) {
        const float *x = (const float *)s->x + ((long)row * s->width + column) * RGB;
        uint8_t *y = (uint8_t *)s->y + ((long)row * s->width + column) * 3;
        for (int k = 0; k < 3; k++) {
            float value = rintf((x[k] + 1) * 127.5f);
            y[k] = value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
        }
    }
}

static int count_blocks(const Step *s, long memory, int threads, int *tiles_each) {
    switch (s->kind) {
    case STEP_WINOGRAD:
        *tiles_each = tiles_in_block(s, memory, threads);
        return (count_tiles(s->height) * count_tiles(s->width) + *tiles_each - 1) / *tiles_each;
    case STEP_MATMUL:
        return (s->height * s->width + MATMUL_ROWS - 1) / MATMUL_ROWS * (s->channels_out / PANEL);
    case STEP_LINEAR:
    case STEP_INVERSE_NORM:
        return (s->channels_out + 63) / 64;
    default:
        return s->height;
    }
}

static void run_block(const Step *s, int block, int tiles_each, float *memory, int half) {
    switch (s->kind) {
    case STEP_WINOGRAD: run_winograd(s, block, tiles_each, memory, half); break;
    case STEP_MATMUL: run_matmul(s, block, memory); break;
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
    }
}

/* Run the program; every thread calls this with memory of its own (`floats` of them) and the same zeroed progress. */
EXPORT void run_program(const Step *steps, int count, Progress *progress, int threads, float *memory, long floats,
                        int half) {
    for (int i = 0; i < count; i++) {
        int tiles_each = 0, block, blocks = count_blocks(steps + i, floats, threads, &tiles_each);
        while ((block = atomic_fetch_add_explicit(&progress[i].next, 1, memory_order_relaxed)) < blocks) {
            run_block(steps + i, block, tiles_each, memory, half);
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

/* Pack a kernel w[3][3][inputs][outputs] for STEP_WINOGRAD: u[PRODUCTS][outputs / PANEL][inputs][PANEL], or in bfloat16
   u[PRODUCTS][outputs / PANEL][inputs / 2][PANEL][2]. */
EXPORT void pack_winograd(const float *w, int outputs, int inputs, void *packed, int half) {
    long panels = outputs / PANEL;
    for (long i = 0; i < inputs; i++)
        for (long o = 0; o < outputs; o += LANES) {
            Vector column[3], rows[WINDOW][3], u[WINDOW];
            for (int j = 0; j < 3; j++) {
                for (int k = 0; k < 3; k++) column[k] = load(w + ((3 * k + j) * (long)inputs + i) * outputs + o);
                to_factors(column, u);
                for (int k = 0; k < WINDOW; k++) rows[k][j] = u[k];
            }
            for (int k = 0; k < PRODUCTS; k++) {
                if (k % WINDOW == 0) to_factors(rows[k / WINDOW], u);
                long panel = (k * panels + o / PANEL) * inputs * PANEL;
                if (half)
                    store_pairs((uint16_t *)packed + panel + (i / 2 * PANEL + o % PANEL) * 2 + i % 2, u[k % WINDOW]);
                else
                    store((float *)packed + panel + i * PANEL + o % PANEL, u[k % WINDOW]);
            }
        }
}

EXPORT int panel_width(void) { return PANEL; }

EXPORT int has_half(void) {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}
