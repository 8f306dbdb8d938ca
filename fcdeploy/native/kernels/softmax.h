/* exp(x - largest) / sum. Sums run from the first element to the last. */
#ifndef FC_SOFTMAX_H
#define FC_SOFTMAX_H

#include "functions.h"

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

/* Of bytes: the exponential of each distance from the largest comes from a table. One of `bytes` and `reals` is NULL. */
FC_KERNEL void fc_softmax_bytes(
    uint8_t *bytes, float *reals, const uint8_t *a, const float *table, const struct fc_softmax *s)
{
    FC_FOR_EACH_SOFTMAX(s) {
        const uint8_t *x = a + (ptrdiff_t)o * s->a_outer + (ptrdiff_t)j * s->a_inner;
        const ptrdiff_t at = (ptrdiff_t)o * s->y_outer + (ptrdiff_t)j * s->y_inner;
        int most = 0;
        float sum = 0.0f;
        for (int i = 0; i < s->count; i++)
            most = fc_max(most, x[(ptrdiff_t)i * s->a_step]);
        for (int i = 0; i < s->count; i++)
            sum += table[most - x[(ptrdiff_t)i * s->a_step]];
        for (int i = 0; i < s->count; i++) {
            const float real = table[most - x[(ptrdiff_t)i * s->a_step]] / sum;
            if (bytes)
                bytes[at + (ptrdiff_t)i * s->y_step] = fc_byte(real / s->scale, &s->code);
            else
                reals[at + (ptrdiff_t)i * s->y_step] = real;
        }
    }
}

/* Of floats; exponentials are computed twice, so that nothing has to be kept. */
FC_KERNEL void fc_softmax_reals(uint8_t *bytes, float *reals, const float *a, const struct fc_softmax *s)
{
    FC_FOR_EACH_SOFTMAX(s) {
        const float *x = a + (ptrdiff_t)o * s->a_outer + (ptrdiff_t)j * s->a_inner;
        const ptrdiff_t at = (ptrdiff_t)o * s->y_outer + (ptrdiff_t)j * s->y_inner;
        float most = x[0], sum = 0.0f;
        for (int i = 1; i < s->count; i++)
            most = x[(ptrdiff_t)i * s->a_step] > most ? x[(ptrdiff_t)i * s->a_step] : most;
        for (int i = 0; i < s->count; i++)
            sum += fc_exp(x[(ptrdiff_t)i * s->a_step] - most);
        for (int i = 0; i < s->count; i++) {
            const float real = fc_exp(x[(ptrdiff_t)i * s->a_step] - most) / sum;
            if (bytes)
                bytes[at + (ptrdiff_t)i * s->y_step] = fc_byte(real / s->scale, &s->code);
            else
                reals[at + (ptrdiff_t)i * s->y_step] = real;
        }
    }
}

#endif
