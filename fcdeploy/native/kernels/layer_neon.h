/* Layers of 64-bit ARM: sixteen bytes of a window at a time where there is a dot product, else two products of each sum in 16
   bits.

   Bytes are made signed, 128 less, but with i8mm; 128 times the sums of a tile's weights go into its biases. */
#ifndef FC_LAYER_NEON_H
#define FC_LAYER_NEON_H

#include "layer_sums.h"

#if defined(FC_LOWERED)
/* The biases of a tile and 128 times the sums of its weights. */
FC_INLINE void fc_layer_raise(
    int32_t *to, const int32_t *bias, const int8_t *weights, const int vectors, const struct fc_layer *l)
{
    fc_ints sums[FC_TILE / FC_LANES];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = vdupq_n_s32(0);
    for (int k = l->runs_y * l->runs_x * l->steps; k > 0; k--, weights += vectors * 4 * FC_LANES) {
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[v] = fc_sum_weights(sums[v], fc_weights(weights + v * 4 * FC_LANES));
    }
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        vst1q_s32(to + v * FC_LANES, fc_raise(fc_load_ints(bias + v * FC_LANES), sums[v]));
}
#endif

#if defined(fc_dot_lane)

/* Four bytes of each position, of sixteen that were loaded together. */
#define FC_LAYER_LANE(lane) \
    FC_UNROLL \
    for (int v = 0; v < vectors; v++) { \
        const fc_ints w = fc_weights(weights + v * 4 * FC_LANES); \
        FC_UNROLL \
        for (int p = 0; p < positions; p++) \
            sums[p * vectors + v] = fc_dot_lane(sums[p * vectors + v], x[p], w, lane); \
        FC_LAYER_SUM_WEIGHTS \
    } \
    weights += vectors * 4 * FC_LANES;
#if defined(FC_LOWERED)
#define FC_LAYER_SUM_WEIGHTS \
    if (positions == 1) \
        extra[v] = fc_sum_weights(extra[v], w);
#else
#define FC_LAYER_SUM_WEIGHTS
#endif

/* Where windows begin, and biases as their first sums. */
FC_INLINE void fc_layer_begin(
    const int positions, const int vectors, const uint8_t **start, fc_ints *sums, const uint8_t *x, const int32_t *from,
    const int32_t *bias)
{
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        start[p] = x + from[p];
        FC_OPAQUE(bias); /* loaded two by two, not copied one by one */
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[p * vectors + v] = fc_load_ints(bias + v * FC_LANES);
    }
}

/* `positions` times `vectors` sums, kept in registers: both are constants wherever this is called.

   Where operands are FC_LOWERED, `bias` is that of fc_layer_raise, but for one position, whose weights are added up here. */
FC_INLINE void fc_layer_block(
    const int positions, const int vectors, const int wide, const int even, const uint8_t *x0, const int32_t *from,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    fc_ints sums[FC_POSITIONS_16 * FC_TILE / FC_LANES];
    const uint8_t *start[FC_POSITIONS_8];
    (void)wide, (void)even;
#if defined(FC_LOWERED)
    fc_ints extra[FC_TILE / FC_LANES];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        extra[v] = vdupq_n_s32(0);
#endif
    fc_layer_begin(positions, vectors, start, sums, x0, from, bias);
    const ptrdiff_t run_y = l->run_y, run_x = l->run_x, early = l->early, whole = 4 * (l->steps & ~3);
    const int runs_x = l->runs_x, steps = l->steps;
    ptrdiff_t row = 0, before = 0;
    int ry = l->runs_y; /* there is a run: compilers need not ask */
    do {
        ptrdiff_t next = row - before;
        int rx = runs_x;
        do {
            ptrdiff_t run = next;
            const ptrdiff_t end = run + whole;
            for (; run < end; run += 16) {
                const fc_ints mask = fc_mask();
                fc_ints x[FC_POSITIONS_8];
                FC_OPAQUE(run);
                FC_UNROLL
                for (int p = 0; p < positions; p++)
                    x[p] = fc_operand(vreinterpretq_s32_u8(vld1q_u8(start[p] + run)), mask);
                FC_AFTER
                FC_LAYER_LANE(0)
                FC_LAYER_LANE(1)
                FC_LAYER_LANE(2)
                FC_LAYER_LANE(3)
            }
            if (steps & 2) {
                const fc_ints mask = fc_mask();
                fc_ints x[FC_POSITIONS_8];
                FC_UNROLL
                for (int p = 0; p < positions; p++)
                    x[p] = fc_operand(fc_eight(start[p] + run), mask);
                FC_AFTER
                FC_LAYER_LANE(0)
                FC_LAYER_LANE(1)
                run += 8;
            }
            if (steps & 1) {
                const fc_ints mask = fc_mask();
                fc_ints x[FC_POSITIONS_8];
                FC_UNROLL
                for (int p = 0; p < positions; p++)
                    x[p] = fc_operand(fc_four(start[p] + run), mask);
                FC_AFTER
                FC_LAYER_LANE(0)
            }
            next += run_x;
        } while (--rx > 0);
        row += run_y;
        before ^= early;
    } while (--ry > 0);
#if defined(FC_LOWERED)
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = positions == 1 ? fc_raise(sums[v], extra[v]) : sums[v];
#endif
    fc_layer_write_all(to, at, count, positions, vectors, sums);
}

#endif

#if defined(FC_HALVES)
/* Four bytes of each position, and four more with the weights that lie `further` on; 0 where there are none. */
#define FC_LAYER_HALVES(further) \
    FC_UNROLL \
    for (int v = 0; v < vectors; v++) { \
        const int8x16_t w0 = vld1q_s8(weights + v * 4 * FC_LANES), w1 = vld1q_s8(weights + v * 4 * FC_LANES + (further)); \
        FC_UNROLL \
        for (int p = 0; p < positions; p++) \
            fc_dot_halves(&low[p * vectors + v], &high[p * vectors + v], first[p], w0, second[p], w1); \
        if (positions == 1) { \
            some[v] = vpadalq_s8(some[v], w0); \
            if (further) \
                some[v] = vpadalq_s8(some[v], w1); \
        } \
    }

/* The sums of weights go from 16 bits to 32 before they fill them. */
#define FC_LAYER_SUMMED \
    FC_UNROLL \
    for (int v = 0; v < vectors; v++) { \
        extra[v] = vpadalq_s16(extra[v], some[v]); \
        some[v] = vdupq_n_s16(0); \
    }
#define FC_LAYER_MOST 480 /* bytes of a run until then: 120 times two weights */

/* Sums of both halves and biases; `extra` adds up the weights of one position. */
FC_INLINE void fc_layer_add_halves(
    const int positions, const int vectors, fc_ints *sums, const fc_ints *low, const fc_ints *high, const int32_t *bias,
    const fc_ints *extra)
{
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        FC_UNROLL
        for (int v = 0; v < vectors; v++) {
            const int i = p * vectors + v;
            sums[i] = vaddq_s32(vpaddq_s32(low[i], high[i]), fc_load_ints(bias + v * FC_LANES));
            sums[i] = positions == 1 ? fc_raise(sums[i], extra[v]) : sums[i];
        }
    }
}

/* As fc_layer_block; `bias` is that of fc_layer_raise, but for one position, whose weights are added up here. */
FC_INLINE void fc_layer_halves(
    const int positions, const int vectors, const uint8_t *x, const int32_t *from, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    fc_ints low[8], high[8], sums[8], extra[FC_TILE / FC_LANES];
    const uint8_t *start[4];
    const int next = vectors * 4 * FC_LANES;
    int16x8_t some[FC_TILE / FC_LANES];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        extra[v] = vdupq_n_s32(0), some[v] = vdupq_n_s16(0);
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        start[p] = x + from[p];
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            low[p * vectors + v] = high[p * vectors + v] = vdupq_n_s32(0);
    }
    const ptrdiff_t run_y = l->run_y, run_x = l->run_x, early = l->early, whole = 4 * (l->steps & ~1);
    const int runs_x = l->runs_x, steps = l->steps;
    ptrdiff_t row = 0, before = 0;
    int ry = l->runs_y; /* there is a run: compilers need not ask */
    do {
        ptrdiff_t at_run = row - before;
        int rx = runs_x;
        do {
            ptrdiff_t run = at_run;
            const ptrdiff_t end = run + whole;
            while (run < end) {
                const ptrdiff_t until = positions == 1 && end - run > FC_LAYER_MOST ? run + FC_LAYER_MOST : end;
                for (; run < until; run += 8) {
                    FC_OPAQUE(run);
                    int8x16_t first[4], second[4];
                    FC_UNROLL
                    for (int p = 0; p < positions; p++)
                        fc_operands(&first[p], &second[p], start[p] + run);
                    FC_LAYER_HALVES(next)
                    weights += 2 * next;
                }
                if (positions == 1) {
                    FC_LAYER_SUMMED
                }
            }
            if (steps & 1) {
                int8x16_t first[4], second[4];
                FC_UNROLL
                for (int p = 0; p < positions; p++)
                    first[p] = fc_operand(start[p] + run), second[p] = vdupq_n_s8(0);
                FC_LAYER_HALVES(0)
                weights += next;
                if (positions == 1) {
                    FC_LAYER_SUMMED
                }
            }
            at_run += run_x;
        } while (--rx > 0);
        row += run_y;
        before ^= early;
    } while (--ry > 0);
    fc_layer_add_halves(positions, vectors, sums, low, high, bias, extra);
    fc_layer_write_all(to, at, count, positions, vectors, sums);
}
#endif

#endif
