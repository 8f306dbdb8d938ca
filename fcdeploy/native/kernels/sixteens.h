/* Floats sixteen at a time, in loops that compilers make vectors of, and their sums, which any number of lanes adds up alike. */
#ifndef FC_SIXTEENS_H
#define FC_SIXTEENS_H

#include "functions.h"
#include "vectors.h"

#define FC_FOR_EACH_SIXTEEN(count)                                                                                \
    for (int i = 0, n = fc_min(FC_TILE, (count)); n > 0; i += n, n = fc_min(FC_TILE, (count) - i))

/* How many of sixteen are computed for `n`: all where vectors are filled anyway. */
#define FC_WITH(n) (FC_BLOCKS ? FC_TILE : (n))

/* Fewer than sixteen neighbours. */
FC_INLINE void fc_copy_some(float *to, const float *from, int n)
{
    FC_UNROLL
    for (int part = FC_TILE / 2; part > 0; part /= 2) {
        if (n & part) {
            memcpy(to, from, (size_t)part * sizeof(float));
            to += part;
            from += part;
        }
    }
}

/* The first `n` of sixteen, the others are `rest`. */
FC_INLINE void fc_take(float *to, const float *from, ptrdiff_t step, int n, float rest)
{
    if (n == FC_TILE && step == 1) {
        memcpy(to, from, FC_TILE * sizeof(float));
        return;
    }
    for (int k = FC_BLOCKS ? 0 : FC_TILE; k < FC_TILE; k++)
        to[k] = rest;
    if (FC_BLOCKS && step == 1)
        fc_copy_some(to, from, n);
    else
        for (int k = 0; k < n; k++)
            to[k] = from[k * step];
}

FC_INLINE void fc_put(float *to, ptrdiff_t step, int n, const float *from)
{
    if (n == FC_TILE && step == 1)
        memcpy(to, from, FC_TILE * sizeof(float));
    else if (FC_BLOCKS && step == 1)
        fc_copy_some(to, from, n);
    else
        for (int k = 0; k < n; k++)
            to[k * step] = from[k];
}

/* Of a sum in sixteen parts, to the i-th of which every element i, i + 16, i + 32 ... was added in turn. */
FC_INLINE float fc_sum_of_parts(float *part)
{
    for (int half = FC_TILE / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            part[k] += part[k + half];
    return part[0];
}

#endif
