/* exp(x - largest) / sum, where the sum is taken in parts (fc_sum_of_parts): any number of lanes gives the same bits. */
#ifndef FC_SOFTMAX_H
#define FC_SOFTMAX_H

#include "sixteens.h"

struct fc_softmax {
    int32_t outer, count, inner;          /* `outer` times `inner` softmaxes of `count` elements */
    int32_t a_outer, a_step, a_inner;     /* elements between them */
    int32_t y_outer, y_step, y_inner;
    float scale;
    struct fc_code code;
};

#define FC_FOR_EACH_SOFTMAX(s)                                                                                    \
    for (int o = 0; o < (s)->outer; o++)                                                                          \
        for (int j = 0; j < (s)->inner; j++)

FC_INLINE float fc_largest(const float *x, ptrdiff_t step, int count)
{
    float most[FC_TILE], some[FC_TILE];
    for (int k = 0; k < FC_TILE; k++)
        most[k] = x[0];
    FC_FOR_EACH_SIXTEEN(count) {
        fc_take(some, x + i * step, step, n, x[0]);
        for (int k = 0; k < FC_WITH(n); k++)
            most[k] = some[k] > most[k] ? some[k] : most[k];
    }
    for (int k = 1; k < FC_TILE; k++)
        most[0] = most[k] > most[0] ? most[k] : most[0];
    return most[0];
}

/* Up to sixteen exponentials, 0 behind them. */
FC_INLINE void fc_exponentials(float *to, const float *x, ptrdiff_t step, int n, float most)
{
    fc_take(to, x, step, n, -fc_of_bits(0x7f800000u));
    for (int k = 0; k < FC_WITH(n); k++)
        to[k] = fc_exp(to[k] - most);
}

FC_INLINE void fc_look_up(float *to, const uint8_t *x, ptrdiff_t step, int n, const float *table)
{
    for (int k = 0; k < n; k++)
        to[k] = table[-(int)x[k * step]];
    for (int k = n; k < FC_WITH(n); k++)
        to[k] = 0.0f;
}

/* Bytes of sixteen real numbers, `n` of which are written. */
FC_INLINE void fc_write_bytes(uint8_t *y, ptrdiff_t step, int n, float *real, float scale, const struct fc_code *code)
{
#if FC_BLOCKS
    enum { vectors = FC_TILE / FC_LANES };
    fc_reals x[vectors];
    uint8_t bytes[FC_TILE];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        x[v] = fc_div(fc_load_reals(real + v * FC_LANES), fc_real(scale));
    fc_store_bytes(bytes, FC_TILE, vectors, x, code);
    for (int k = 0; k < n; k++)
        y[k * step] = bytes[k];
#else
    for (int k = 0; k < n; k++)
        y[k * step] = fc_byte(real[k] / scale, code);
#endif
}

/* One of `bytes` and `reals` is NULL. Exponentials lie where floats are written until their sum is known; in front of bytes
   they are computed twice, so that nothing has to be kept. */
#define FC_SOFTMAX(take, from)                                                                                    \
    {                                                                                                             \
        float part[FC_TILE] = {0}, some[FC_TILE];                                                                 \
        FC_FOR_EACH_SIXTEEN(s->count) {                                                                           \
            take(some, x + i * step, step, n, from);                                                              \
            for (int k = 0; k < FC_WITH(n); k++)                                                                \
                part[k] += some[k];                                                                               \
            if (reals)                                                                                            \
                fc_put(reals + at + i * to, to, n, some);                                                         \
        }                                                                                                         \
        const float sum = fc_sum_of_parts(part);                                                                  \
        FC_FOR_EACH_SIXTEEN(s->count) {                                                                           \
            if (reals)                                                                                            \
                fc_take(some, reals + at + i * to, to, n, 0.0f);                                                  \
            else                                                                                                  \
                take(some, x + i * step, step, n, from);                                                          \
            for (int k = 0; k < FC_WITH(n); k++)                                                                \
                some[k] /= sum;                                                                                   \
            if (reals)                                                                                            \
                fc_put(reals + at + i * to, to, n, some);                                                         \
            else                                                                                                  \
                fc_write_bytes(bytes + at + i * to, to, n, some, s->scale, &s->code);                             \
        }                                                                                                         \
    }

/* Of bytes: the exponential of each distance from the largest comes from a table. */
FC_KERNEL void fc_softmax_bytes(
    uint8_t *bytes, float *reals, const uint8_t *a, const float *table, const struct fc_softmax *given)
{
    const struct fc_softmax own = *given, *s = &own; /* no byte that is written can be one of these */
    const ptrdiff_t step = s->a_step, to = s->y_step;
    FC_FOR_EACH_SOFTMAX(s) {
        const uint8_t *x = a + (ptrdiff_t)o * s->a_outer + (ptrdiff_t)j * s->a_inner;
        const ptrdiff_t at = (ptrdiff_t)o * s->y_outer + (ptrdiff_t)j * s->y_inner;
        int most = 0;
        for (int i = 0; i < s->count; i++)
            most = fc_max(most, x[i * step]);
        FC_SOFTMAX(fc_look_up, table + most)
    }
}

FC_KERNEL void fc_softmax_reals(uint8_t *bytes, float *reals, const float *a, const struct fc_softmax *given)
{
    const struct fc_softmax own = *given, *s = &own;
    const ptrdiff_t step = s->a_step, to = s->y_step;
    FC_FOR_EACH_SOFTMAX(s) {
        const float *x = a + (ptrdiff_t)o * s->a_outer + (ptrdiff_t)j * s->a_inner;
        const ptrdiff_t at = (ptrdiff_t)o * s->y_outer + (ptrdiff_t)j * s->y_inner;
        const float most = fc_largest(x, step, s->count);
        FC_SOFTMAX(fc_exponentials, most)
    }
}

#endif
