/* Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308) for 3x3 convolutions in tiles of 4x4 or 6x6 outputs: 36
   products give 16 outputs, 64 give 36, where the convolution is written with 144 and 324.

   y = A' [ (G g G') * (B' d B) ] A, with the polynomials' points 0, +-P, +-Q and infinity, or 0, +-1, +-2, +-1/2 and
   infinity. For tiles of 4 points nearer to one than the usual 1 and 2 keep the numbers' sizes together and halve the
   error. Those of 6 have an error three times as large: too large for bfloat16, small for float. */

#ifndef GFPRESTORE_WINOGRAD_H
#define GFPRESTORE_WINOGRAD_H

#include "program.h"

#define LARGEST_TILE 6 /* outputs along a side */
#define LARGEST_WINDOW (LARGEST_TILE + 2) /* inputs along a side */
#define P 0.625f
#define Q 1.5f
#define PP (P * P)
#define QQ (Q * Q)

INLINE int window_of(int tile) { return tile + 2; }
INLINE int products_of(int tile) { return window_of(tile) * window_of(tile); }

/* B' for tiles of 4: six samples to the six values that are multiplied. */
INLINE void to_six_products(const Vector d[6], Vector v[6]) {
    Vector even_p = d[4] - QQ * d[2], odd_p = P * (d[3] - QQ * d[1]);
    Vector even_q = d[4] - PP * d[2], odd_q = Q * (d[3] - PP * d[1]);
    v[0] = d[4] - (PP + QQ) * d[2] + (PP * QQ) * d[0];
    v[1] = even_p + odd_p;
    v[2] = even_p - odd_p;
    v[3] = even_q + odd_q;
    v[4] = even_q - odd_q;
    v[5] = d[5] - (PP + QQ) * d[3] + (PP * QQ) * d[1];
}

/* B' for tiles of 6. */
INLINE void to_eight_products(const Vector d[8], Vector v[8]) {
    Vector even_1 = d[2] + d[6] - 4.25f * d[4], odd_1 = d[1] + d[5] - 4.25f * d[3];
    Vector even_2 = d[6] + (0.25f * d[2] - 1.25f * d[4]), odd_2 = 2 * d[5] + (0.5f * d[1] - 2.5f * d[3]);
    Vector even_h = d[6] + (4 * d[2] - 5 * d[4]), odd_h = 0.5f * d[5] + (2 * d[1] - 2.5f * d[3]);
    v[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    v[1] = even_1 + odd_1;
    v[2] = even_1 - odd_1;
    v[3] = even_2 + odd_2;
    v[4] = even_2 - odd_2;
    v[5] = even_h + odd_h;
    v[6] = even_h - odd_h;
    v[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
}

INLINE void to_products(const Vector *d, Vector *v, int tile) {
    if (tile == 4)
        to_six_products(d, v);
    else
        to_eight_products(d, v);
}

/* A' for tiles of 4: six products to four outputs. */
INLINE void to_four_outputs(const Vector m[6], Vector y[4]) {
    Vector sum_p = m[1] + m[2], difference_p = m[1] - m[2];
    Vector sum_q = m[3] + m[4], difference_q = m[3] - m[4];
    y[0] = m[0] + sum_p + sum_q;
    y[1] = P * difference_p + Q * difference_q;
    y[2] = PP * sum_p + QQ * sum_q;
    y[3] = (P * PP) * difference_p + (Q * QQ) * difference_q + m[5];
}

/* A' for tiles of 6. */
INLINE void to_six_outputs(const Vector m[8], Vector y[6]) {
    Vector sum_1 = m[1] + m[2], difference_1 = m[1] - m[2];
    Vector sum_2 = m[3] + m[4], difference_2 = m[3] - m[4];
    Vector sum_h = m[5] + m[6], difference_h = m[5] - m[6];
    y[0] = (m[0] + sum_1) + (sum_2 + sum_h);
    y[1] = difference_1 + 2 * difference_2 + 0.5f * difference_h;
    y[2] = sum_1 + 4 * sum_2 + 0.25f * sum_h;
    y[3] = difference_1 + 8 * difference_2 + 0.125f * difference_h;
    y[4] = sum_1 + 16 * sum_2 + 0.0625f * sum_h;
    y[5] = (m[7] + difference_1) + 32 * difference_2 + 0.03125f * difference_h;
}

INLINE void to_outputs(const Vector *m, Vector *y, int tile) {
    if (tile == 4)
        to_four_outputs(m, y);
    else
        to_six_outputs(m, y);
}

/* G for tiles of 4: three weights to six factors. */
INLINE void to_six_factors(const Vector g[3], Vector u[6]) {
    const float at_p = 1 / (2 * PP * (PP - QQ)), at_q = 1 / (2 * QQ * (QQ - PP));
    Vector even_p = at_p * (g[0] + PP * g[2]), odd_p = (at_p * P) * g[1];
    Vector even_q = at_q * (g[0] + QQ * g[2]), odd_q = (at_q * Q) * g[1];
    u[0] = (1 / (PP * QQ)) * g[0];
    u[1] = even_p + odd_p;
    u[2] = even_p - odd_p;
    u[3] = even_q + odd_q;
    u[4] = even_q - odd_q;
    u[5] = g[2];
}

/* G for tiles of 6. */
INLINE void to_eight_factors(const Vector g[3], Vector u[8]) {
    const float at_1 = -1 / 4.5f, at_2 = 1 / 90.f, at_h = 32 / 45.f;
    Vector even_1 = at_1 * (g[0] + g[2]), odd_1 = at_1 * g[1];
    Vector even_2 = at_2 * (g[0] + 4 * g[2]), odd_2 = (at_2 * 2) * g[1];
    Vector even_h = at_h * (g[0] + 0.25f * g[2]), odd_h = (at_h * 0.5f) * g[1];
    u[0] = g[0];
    u[1] = even_1 + odd_1;
    u[2] = even_1 - odd_1;
    u[3] = even_2 + odd_2;
    u[4] = even_2 - odd_2;
    u[5] = even_h + odd_h;
    u[6] = even_h - odd_h;
    u[7] = g[2];
}

INLINE void to_factors(const Vector *g, Vector *u, int tile) {
    if (tile == 4)
        to_six_factors(g, u);
    else
        to_eight_factors(g, u);
}

/* Samples of half the size that make a window. */
INLINE int halves_of(int tile) { return tile / 2 + 2; }

/* Bilinear doubling of such samples to a window, which starts at an odd one. */
INLINE void to_doubled(const Vector *d, Vector *v, int tile) {
    Vector quarter[LARGEST_TILE / 2 + 2];
    for (int i = 0; i < halves_of(tile); i++) quarter[i] = 0.25f * d[i];
    for (int i = 0; i < halves_of(tile) - 1; i++) {
        v[2 * i] = 0.75f * d[i] + quarter[i + 1];
        v[2 * i + 1] = 0.75f * d[i + 1] + quarter[i];
    }
}

#endif
