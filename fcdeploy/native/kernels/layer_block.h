/* A block of sums in registers: some positions times one tile of channels, with any vectors but AVX-512 and ARM's dot product. */
#ifndef FC_LAYER_BLOCK_H
#define FC_LAYER_BLOCK_H

#include "layer_sums.h"

#if defined(FC_HALVES)
#include "layer_neon.h"
#endif

/* A step of a window at `positions` positions; its bytes lie `at` bytes behind where the window begins. */
FC_INLINE void fc_block_step(
    const int positions, const int vectors, const int wide, const int even, fc_ints *sums, const uint8_t *const *start,
    ptrdiff_t four, ptrdiff_t at, const int8_t *weights)
{
    fc_ints w[FC_TILE / FC_LANES + 1];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        w[v] = fc_weights(weights + v * 4 * FC_LANES);
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        const uint8_t *window = even ? start[p & 3] + (p >> 2) * four : start[p];
        const fc_ints bytes = fc_splat(window + at);
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[p * vectors + v] = wide ? fc_dot_wide(sums[p * vectors + v], bytes, w[v])
                                         : fc_dot(sums[p * vectors + v], bytes, w[v]);
    }
}

/* `positions` times `vectors` sums, kept in registers: both are constants wherever this is called.

   Where windows lie at `even` distances, those of eight positions are four addresses and a distance, which fit the registers. */
FC_INLINE void fc_layer_block(
    const int positions, const int vectors, const int wide, const int even, const uint8_t *x, const int32_t *from,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    fc_ints sums[16];
    const uint8_t *start[16];
    ptrdiff_t four = even ? (ptrdiff_t)4 * l->x_column : 0;
#if defined(FC_HALVES)
    if (!wide) {
        fc_layer_halves(positions, vectors, x, from, weights, bias, l, to, at, count);
        return;
    }
#endif
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        start[p] = x + from[p];
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[p * vectors + v] = fc_load_ints(bias + v * FC_LANES);
    }
    if (!even && l->steps == 1 && l->runs_x == 1 && !l->early) { /* one loop takes less than three */
        ptrdiff_t run = 0;
        for (int ry = l->runs_y; ry > 0; ry--, run += l->run_y, weights += vectors * 4 * FC_LANES)
            fc_block_step(positions, vectors, wide, even, sums, start, four, run, weights);
        fc_layer_write_all(to, at, count, positions, vectors, sums);
        return;
    }
    for (int ry = 0; ry < l->runs_y; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            const ptrdiff_t run = (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            for (int k = 0; k < l->steps; k++, weights += vectors * 4 * FC_LANES) {
#if defined(FC_OPAQUE)
                if (even)
                    FC_OPAQUE(four); /* else compilers make eight addresses of it again */
#endif
                fc_block_step(positions, vectors, wide, even, sums, start, four, run + 4 * k, weights);
            }
        }
    }
    fc_layer_write_all(to, at, count, positions, vectors, sums);
}

#endif
