/* Layers on AVX2 whose steps are taken in pairs: four products add up in 16 bits, five instructions in place of six.

   That four products stay within them is known of eight channels at a time and of pairs that are chosen for it when the code
   is written. For each eight channels, and FC_PAIRED steps of the window, `order` has the number of pairs, these, and the
   steps that are left; `offsets` has where the bytes of each step of the window lie. */
#ifndef FC_LAYER_PAIRS_H
#define FC_LAYER_PAIRS_H

#include "layer_sums.h"

#if defined(fc_dot_two)

#define FC_PAIRED 256
#define FC_PAIRS_POSITIONS 8

/* Bytes of `order` for eight channels. */
FC_INLINE ptrdiff_t fc_order_size(const struct fc_layer *l)
{
    const ptrdiff_t steps = (ptrdiff_t)l->runs_y * l->runs_x * l->steps;
    return steps + (steps + FC_PAIRED - 1) / FC_PAIRED;
}

/* Eight channels at FC_PAIRS_POSITIONS positions; weights of a step lie 2^next bytes behind those of the one before.

   Where windows lie at `even` distances, their addresses are four and a distance. */
FC_INLINE void fc_layer_paired_block(
    const int even, const uint8_t *x, const int32_t *from, const int8_t *weights, int next, const uint8_t *order,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    fc_ints sums[FC_PAIRS_POSITIONS];
    const uint8_t *start[FC_PAIRS_POSITIONS];
    const int32_t *offsets = l->offsets;
    ptrdiff_t four = even ? (ptrdiff_t)4 * l->x_column : 0;
    FC_UNROLL
    for (int p = 0; p < FC_PAIRS_POSITIONS; p++) {
        start[p] = x + from[p];
        sums[p] = fc_load_ints(bias);
    }
    for (int left = l->runs_y * l->runs_x * l->steps; left > 0; left -= FC_PAIRED) {
        const uint8_t *const last = order + 1 + fc_min(left, FC_PAIRED);
        const uint8_t *const paired = order + 1 + 2 * *order;
        for (order++; order < paired; order += 2) {
            const fc_ints w = fc_weights(weights + ((ptrdiff_t)order[0] << next));
            const fc_ints v = fc_weights(weights + ((ptrdiff_t)order[1] << next));
            const ptrdiff_t one = offsets[order[0]], two = offsets[order[1]];
#if defined(FC_OPAQUE)
            if (even)
                FC_OPAQUE(four); /* else compilers make eight addresses of it again */
#endif
            FC_UNROLL
            for (int p = 0; p < FC_PAIRS_POSITIONS; p++) {
                const uint8_t *window = even ? start[p & 3] + (p >> 2) * four : start[p];
                sums[p] = fc_dot_two(sums[p], fc_splat(window + one), w, fc_splat(window + two), v);
            }
        }
        for (; order < last; order++) {
            const fc_ints w = fc_weights(weights + ((ptrdiff_t)*order << next));
            const ptrdiff_t one = offsets[*order];
#if defined(FC_OPAQUE)
            if (even)
                FC_OPAQUE(four);
#endif
            FC_UNROLL
            for (int p = 0; p < FC_PAIRS_POSITIONS; p++) {
                const uint8_t *window = even ? start[p & 3] + (p >> 2) * four : start[p];
                sums[p] = fc_dot(sums[p], fc_splat(window + one), w);
            }
        }
        weights += (ptrdiff_t)FC_PAIRED << next;
        offsets += FC_PAIRED;
    }
    fc_layer_write_all(to, at, count, FC_PAIRS_POSITIONS, 1, sums);
}

/* A tile of `width` channels, eight after eight, at as many positions as fill blocks; returns how many. */
FC_INLINE int fc_layer_paired_tile(
    int width, int positions, const uint8_t *x, const int32_t *from, const int8_t *weights, const uint8_t *order,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *all, const int32_t *at, int count)
{
    const int done = positions - positions % FC_PAIRS_POSITIONS, next = width == 16 ? 6 : 5;
    struct fc_written to = *all;
    for (int c = 0; c < width && c < count; c += FC_LANES, order += fc_order_size(l)) {
        const int left = fc_min(FC_LANES, count - c);
        for (int p = 0; p < done; p += FC_PAIRS_POSITIONS)
            if (from[p + FC_PAIRS_POSITIONS - 1] - from[p] == (FC_PAIRS_POSITIONS - 1) * l->x_column)
                fc_layer_paired_block(1, x, from + p, weights + 4 * c, next, order, bias + c, l, &to, at + p, left);
            else
                fc_layer_paired_block(0, x, from + p, weights + 4 * c, next, order, bias + c, l, &to, at + p, left);
        to.bytes = to.bytes ? to.bytes + FC_LANES : 0;
        to.reals = to.reals ? to.reals + FC_LANES : 0;
        to.factor += FC_LANES;
        to.bias = to.bias ? to.bias + FC_LANES : 0;
    }
    return done;
}

#endif

#endif
