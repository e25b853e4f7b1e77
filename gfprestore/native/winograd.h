/* Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): 36 products give 16 outputs of a 3x3
   convolution, a quarter of the 144 that it is written with.

   y = A' [ (G g G') * (B' d B) ] A, with the polynomials' points 0, +-P, +-Q and infinity. Points nearer to one than
   the usual 1 and 2 keep the numbers' sizes together and halve the error. */

#ifndef GFPRESTORE_WINOGRAD_H
#define GFPRESTORE_WINOGRAD_H

#include "program.h"

#define TILE 4            /* outputs along a side */
#define WINDOW 6          /* inputs along a side */
#define PRODUCTS 36       /* of a tile */
#define P 0.625f
#define Q 1.5f
#define PP (P * P)
#define QQ (Q * Q)

/* B': six samples to the six values that are multiplied. */
static inline void to_products(const Vector d[WINDOW], Vector v[WINDOW]) {
    Vector even_p = d[4] - QQ * d[2], odd_p = P * (d[3] - QQ * d[1]);
    Vector even_q = d[4] - PP * d[2], odd_q = Q * (d[3] - PP * d[1]);
    v[0] = d[4] - (PP + QQ) * d[2] + (PP * QQ) * d[0];
    v[1] = even_p + odd_p;
    v[2] = even_p - odd_p;
    v[3] = even_q + odd_q;
    v[4] = even_q - odd_q;
    v[5] = d[5] - (PP + QQ) * d[3] + (PP * QQ) * d[1];
}

/* A': six products to four outputs. */
static inline void to_outputs(const Vector m[WINDOW], Vector y[TILE]) {
    Vector sum_p = m[1] + m[2], difference_p = m[1] - m[2];
    Vector sum_q = m[3] + m[4], difference_q = m[3] - m[4];
    y[0] = m[0] + sum_p + sum_q;
    y[1] = P * difference_p + Q * difference_q;
    y[2] = PP * sum_p + QQ * sum_q;
    y[3] = (P * PP) * difference_p + (Q * QQ) * difference_q + m[5];
}

/* G: three weights to six factors. */
static inline void to_factors(const Vector g[3], Vector u[WINDOW]) {
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

/* Bilinear doubling of four samples to the six of a window that starts at an odd one. */
static inline void to_doubled(const Vector d[4], Vector v[WINDOW]) {
    Vector quarter[4];
    for (int i = 0; i < 4; i++) quarter[i] = 0.25f * d[i];
    v[0] = 0.75f * d[0] + quarter[1];
    v[1] = 0.75f * d[1] + quarter[0];
    v[2] = 0.75f * d[1] + quarter[2];
    v[3] = 0.75f * d[2] + quarter[1];
    v[4] = 0.75f * d[2] + quarter[3];
    v[5] = 0.75f * d[3] + quarter[2];
}

#endif
