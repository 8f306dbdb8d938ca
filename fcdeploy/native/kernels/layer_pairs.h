/* Layers on AVX2 whose steps are taken in pairs: four products add up in 16 bits, five instructions in place of six.

   That four products stay within them is known of eight channels at a time and of pairs that are chosen for it when the code
   is written. For each eight channels, and FC_PAIRED steps of the window, `order` has the number of pairs, these, and the
   steps that are left, of which two products can leave 16 bits in a tile that is `wide`; `offsets` has where the bytes of each
   step of the window lie. */
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

/* Eight channels at `positions` positions, at most FC_PAIRS_POSITIONS; weights of a step lie 2^next bytes behind those of the
   one before.

   Where windows lie at `even` distances, their addresses are four and a distance. */
FC_INLINE void fc_layer_paired_block(
    const int positions, const int even, const int wide, const uint8_t *x, const int32_t *from, const int8_t *weights, int next,
    const uint8_t *order, const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    fc_ints sums[FC_PAIRS_POSITIONS];
    const uint8_t *start[FC_PAIRS_POSITIONS];
    const int32_t *offsets = l->offsets;
    ptrdiff_t four = even ? (ptrdiff_t)4 * l->x_column : 0;
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
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
            for (int p = 0; p < positions; p++) {
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
            for (int p = 0; p < positions; p++) {
                const uint8_t *window = even ? start[p & 3] + (p >> 2) * four : start[p];
                sums[p] = wide ? fc_dot_wide(sums[p], fc_splat(window + one), w) : fc_dot(sums[p], fc_splat(window + one), w);
            }
        }
        weights += (ptrdiff_t)FC_PAIRED << next;
        offsets += FC_PAIRED;
    }
    fc_layer_write_all(to, at, count, positions, 1, sums);
}

/* Whether positions are taken row by row: those that fill blocks first, then what is left of all rows. */
FC_INLINE int fc_layer_rows_in_blocks(const struct fc_layer *l)
{
    return l->order && l->columns % FC_PAIRS_POSITIONS && l->columns > FC_PAIRS_POSITIONS && l->columns <= FC_GROUP;
}

/* Places of `rows` rows from `first` on in this order. */
FC_INLINE void fc_layer_places_in_blocks(int first, int rows, int32_t *from, int32_t *at, const struct fc_layer *l)
{
    const int filled = l->columns - l->columns % FC_PAIRS_POSITIONS;
    for (int i = 0, p = 0, left = rows * filled; i < rows; i++) {
        const int image = (first + i) / l->rows, row = (first + i) % l->rows;
        int32_t x = image * l->x_image + row * l->x_row, y = image * l->y_image + row * l->y_row;
        for (int column = 0; column < l->columns; column++, x += l->x_column, y += l->y_column) {
            const int place = column < filled ? p++ : left++;
            from[place] = x;
            at[place] = y;
        }
    }
}

/* A tile of `width` channels, eight after eight, at as many positions as fill blocks of `block`; returns how many. */
FC_INLINE int fc_layer_paired_tile(
    const int block, int width, int wide, int positions, const uint8_t *x, const int32_t *from, const int8_t *weights,
    const uint8_t *order, const int32_t *bias, const struct fc_layer *l, const struct fc_written *all, const int32_t *at, int count)
{
    const int done = positions - positions % block, next = width == 16 ? 6 : 5;
    struct fc_written to = *all;
    for (int c = 0; c < width && c < count; c += FC_LANES, order += fc_order_size(l)) {
        const int left = fc_min(FC_LANES, count - c);
        const int8_t *w = weights + 4 * c;
        for (int p = 0; p < done; p += block)
            if (wide)
                fc_layer_paired_block(block, 0, 1, x, from + p, w, next, order, bias + c, l, &to, at + p, left);
            else if (block > 1 && from[p + block - 1] - from[p] == (block - 1) * l->x_column)
                fc_layer_paired_block(block, 1, 0, x, from + p, w, next, order, bias + c, l, &to, at + p, left);
            else
                fc_layer_paired_block(block, 0, 0, x, from + p, w, next, order, bias + c, l, &to, at + p, left);
        to.bytes = to.bytes ? to.bytes + FC_LANES : 0;
        to.reals = to.reals ? to.reals + FC_LANES : 0;
        to.beside = to.combined ? to.beside + FC_LANES : 0;
        to.factor += FC_LANES;
        to.bias = to.bias ? to.bias + FC_LANES : 0;
    }
    return done;
}

#endif

#endif
