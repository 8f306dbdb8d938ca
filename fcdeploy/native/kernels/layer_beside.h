/* Bytes of a layer that are combined with those beside them in registers, on x86: what the layer would store is never in memory.

   Sums become the integers that its bytes would be, less their zero point: the same sum or product of two tensors as fc_combine
   computes of them. What is stored may take the place of what is beside it: each is read before, and once. */
#include "layer_sums.h" /* which includes this behind its structs */

#ifndef FC_LAYER_BESIDE_H
#define FC_LAYER_BESIDE_H

#include "bytes.h"

/* `count` vectors of sums, `vectors` of them for each position, in units of what is stored. */
FC_INLINE void fc_layer_combine(
    fc_reals *x, const int count, const int vectors, const struct fc_written *to, const int32_t *at, const fc_ints *sums)
{
    const struct fc_combine *c = to->with;
    const fc_reals low = fc_real((float)(to->code->low - to->code->zero)), high = fc_real((float)(to->code->high - to->code->zero));
    FC_UNROLL
    for (int i = 0; i < count; i++) {
        const uint8_t *beside = to->beside + at[i / vectors] + i % vectors * FC_LANES;
        const fc_reals scaled = fc_mul(fc_reals_of(sums[i]), fc_load_reals(to->factor + i % vectors * FC_LANES));
        const fc_reals p = fc_mul(fc_near_within(scaled, low, high), fc_real(c->a_scale));
        const fc_reals q = fc_mul(fc_sub(fc_reals_of_bytes(beside), fc_real(c->b_zero)), fc_real(c->b_scale));
        x[i] = to->product ? fc_mul(p, q) : fc_add(p, q);
    }
    if (c->scale != 1.0f) {
        FC_UNROLL
        for (int i = 0; i < count; i++)
            x[i] = fc_div(x[i], fc_real(c->scale));
    }
}

/* A full tile of channels at several positions. */
FC_INLINE void fc_layer_write_beside(
    const struct fc_written *to, const int32_t *at, const int positions, const int vectors, const fc_ints *sums)
{
    const int together = FC_STORED / vectors;
    int p = 0;
    FC_UNROLL
    for (; p + together <= positions; p += together) {
        fc_reals x[FC_STORED];
        fc_layer_combine(x, FC_STORED, vectors, to, at + p, sums + p * vectors);
        FC_UNROLL
        for (int i = 0; i < FC_STORED; i++)
            x[i] = fc_limited(x[i]);
        fc_store_positions(to->bytes, at + p, FC_TILE, vectors, x, &to->with->code);
    }
    FC_UNROLL
    for (; p < positions; p++) {
        fc_reals x[FC_TILE / FC_LANES];
        fc_layer_combine(x, vectors, vectors, to, at + p, sums + p * vectors);
        fc_store_bytes(to->bytes + at[p], FC_TILE, vectors, x, &to->with->code);
    }
}

#endif
