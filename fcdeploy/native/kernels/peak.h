/* How many products of bytes a second this CPU can do at most: the dot product of a layer in registers, again and again. */
#ifndef FC_PEAK_H
#define FC_PEAK_H

#include "vectors.h"

#define FC_PEAK_SUMS 12 /* more than an instruction's latency, fewer than registers */

#if defined(__AVX2__) && !defined(FC_PLAIN)
#define FC_PEAK_PLACE "+x"
#elif defined(__aarch64__) && !defined(FC_PLAIN)
#define FC_PEAK_PLACE "+w"
#else
#define FC_PEAK_PLACE "+m"
#endif

/* `rounds` of FC_PEAK_SUMS dot products; returns how many products one round has. */
FC_KERNEL int32_t fc_peak(uint8_t *y, const uint8_t *x, const int8_t *weights, int32_t rounds)
{
    fc_ints sums[FC_PEAK_SUMS], four = fc_splat(x), w = fc_weights(weights);
    fc_reals some[FC_TILE / FC_LANES];
    const struct fc_code code = {0, 0, 255};
    FC_UNROLL
    for (int i = 0; i < FC_PEAK_SUMS; i++)
        sums[i] = fc_dot(four, four, w);
    for (int32_t r = 0; r < rounds; r++) {
        FC_UNROLL
        for (int i = 0; i < FC_PEAK_SUMS; i++) {
#if defined(__GNUC__)
            __asm__ volatile("" : FC_PEAK_PLACE(four)); /* no product may be taken for another's */
#endif
            sums[i] = fc_dot(sums[i], four, w);
        }
    }
    FC_UNROLL
    for (int i = 0; i < FC_PEAK_SUMS; i++) {
        FC_UNROLL
        for (int v = 0; v < FC_TILE / FC_LANES; v++)
            some[v] = fc_reals_of(sums[i]);
        fc_store_bytes(y + FC_TILE * i, FC_TILE, FC_TILE / FC_LANES, some, &code);
    }
    return FC_PEAK_SUMS * FC_LANES * 4;
}

#endif
