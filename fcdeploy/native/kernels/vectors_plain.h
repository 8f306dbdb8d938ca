/* Vectors in plain C: four lanes, each loop as written. What every other level must agree with, bit for bit. */
#ifndef FC_VECTORS_H
#define FC_VECTORS_H

#include "common.h"

#define FC_LANES 4
#if defined(FC_SMALL)
#define FC_BLOCKS 0 /* whether elements are computed a vector at a time */
#else
#define FC_BLOCKS 1
#endif
#define FC_FORMS 0 /* whether code is written for some shapes alone: faster, and more of it */
#define FC_PAIRS 0 /* whether a product is faster where two neighbours fit in 16 bits */
#define FC_POSITIONS_16 1 /* positions that are computed together, with 16 channels */
#define FC_POSITIONS_8 2  /* and with 8 */

typedef struct { int32_t of[FC_LANES]; } fc_ints;
typedef struct { float of[FC_LANES]; } fc_reals;

FC_INLINE fc_ints fc_load_ints(const int32_t *p)
{
    fc_ints r;
    memcpy(r.of, p, sizeof r.of);
    return r;
}

/* Four bytes of activations, for every lane. */
FC_INLINE fc_ints fc_splat(const uint8_t *p)
{
    fc_ints r;
    for (int i = 0; i < FC_LANES; i++)
        memcpy(&r.of[i], p, 4);
    return r;
}

/* Four bytes of weights for each lane. */
FC_INLINE fc_ints fc_weights(const int8_t *p)
{
    fc_ints r;
    memcpy(r.of, p, sizeof r.of);
    return r;
}

/* Adds to each lane the products of its four unsigned and four signed bytes. */
FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w)
{
    for (int i = 0; i < FC_LANES; i++) {
        uint8_t a[4];
        int8_t b[4];
        memcpy(a, &x.of[i], 4);
        memcpy(b, &w.of[i], 4);
        for (int k = 0; k < 4; k++)
            sum.of[i] += a[k] * b[k];
    }
    return sum;
}

/* The same, where two neighbouring products are known to fit in 16 bits. */
FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w) { return fc_dot_wide(sum, x, w); }

/* One byte of each of four rows for every channel: 16 channels in 16 / FC_LANES vectors. */
FC_INLINE void fc_taps(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    for (int i = 0; i < FC_TILE; i++) {
        const uint8_t four[4] = {r0[i], r1[i], r2[i], r3[i]};
        memcpy(&out[i / FC_LANES].of[i % FC_LANES], four, 4);
    }
}

FC_INLINE fc_reals fc_load_reals(const float *p)
{
    fc_reals r;
    memcpy(r.of, p, sizeof r.of);
    return r;
}

FC_INLINE void fc_store_reals(float *p, fc_reals x) { memcpy(p, x.of, sizeof x.of); }

FC_INLINE fc_reals fc_real(float x)
{
    fc_reals r;
    for (int i = 0; i < FC_LANES; i++)
        r.of[i] = x;
    return r;
}

FC_INLINE fc_reals fc_reals_of(fc_ints x)
{
    fc_reals r;
    for (int i = 0; i < FC_LANES; i++)
        r.of[i] = (float)x.of[i];
    return r;
}

FC_INLINE fc_reals fc_reals_of_bytes(const uint8_t *p)
{
    fc_reals r;
    for (int i = 0; i < FC_LANES; i++)
        r.of[i] = (float)p[i];
    return r;
}

FC_INLINE fc_reals fc_reals_of_weights(const int8_t *p)
{
    fc_reals r;
    for (int i = 0; i < FC_LANES; i++)
        r.of[i] = (float)p[i];
    return r;
}

#define FC_EACH(name, expression)                        \
    FC_INLINE fc_reals name(fc_reals a, fc_reals b)      \
    {                                                    \
        for (int i = 0; i < FC_LANES; i++)               \
            a.of[i] = expression;                        \
        return a;                                        \
    }
FC_EACH(fc_add, a.of[i] + b.of[i])
FC_EACH(fc_sub, a.of[i] - b.of[i])
FC_EACH(fc_mul, a.of[i] * b.of[i])
FC_EACH(fc_div, a.of[i] / b.of[i])
#undef FC_EACH

/* Real numbers in units of the scale to bytes: of `vectors` vectors the first `count` lanes. */
FC_INLINE void fc_store_bytes(uint8_t *y, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    for (int i = 0; i < vectors * FC_LANES && i < count; i++)
        y[i] = fc_byte(x[i / FC_LANES].of[i % FC_LANES], code);
}

#endif
