/* Layers tile by tile: all positions of a group, then the next tile of channels. */
#ifndef FC_LAYER_TILES_H
#define FC_LAYER_TILES_H

#include "layer_sums.h"

#if defined(FC_SIXTEEN)
#include "layer_avx512.h"
#include "layer_narrow.h"
#elif defined(FC_SMALL)
#include "layer_small.h"
#elif defined(fc_dot_lane)
#include "layer_neon.h"
#else
#include "layer_block.h"
#endif
#include "layer_pairs.h"
#if defined(FC_STORED)
#include "layer_alone.h"
#include "layer_lanes.h"
#if !defined(FC_SIXTEEN)
#include "layer_short.h"
#endif
#endif

#if !defined(FC_SIXTEEN)

/* All positions of a group for one tile of channels. */
FC_INLINE void fc_layer_tile(
    const int block, const int vectors, const int wide, int positions, const uint8_t *x, const int32_t *from,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at,
    int count)
{
    int p = 0;
    const int32_t *const own = bias;
#if defined(FC_LOWERED)
    int32_t raised[FC_TILE];
    if (positions >= block && !wide) {
        fc_layer_raise(raised, bias, weights, vectors, l);
        bias = raised;
    }
#endif
#if defined(FC_AGAIN)
    for (; positions >= block && p < positions; p += block) {
        p = fc_min(p, positions - block);
        fc_layer_block(block, vectors, wide, 0, x, from + p, weights, bias, l, to, at + p, count);
    }
#else
    for (; p + block <= positions; p += block)
        if (block > 4 && !wide && from[p + block - 1] - from[p] == (block - 1) * l->x_column)
            fc_layer_block(block, vectors, wide, 1, x, from + p, weights, bias, l, to, at + p, count);
        else
            fc_layer_block(block, vectors, wide, 0, x, from + p, weights, bias, l, to, at + p, count);
#endif
    for (; p < positions; p++)
        fc_layer_block(1, vectors, wide, 0, x, from + p, weights, own, l, to, at + p, count);
}

/* The same, with constants for what the tile is: of 16 channels or 8, with products that can leave 16 bits or without. */
FC_INLINE void fc_layer_any_tile(
    int width, int wide, int positions, const uint8_t *x, const int32_t *from, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    if (width == 16 && !wide)
        fc_layer_tile(FC_POSITIONS_16, FC_VECTORS(16), 0, positions, x, from, weights, bias, l, to, at, count);
    else if (width == 16)
        fc_layer_tile(FC_POSITIONS_16, FC_VECTORS(16), 1, positions, x, from, weights, bias, l, to, at, count);
    else if (!wide)
        fc_layer_tile(FC_POSITIONS_8, FC_VECTORS(8), 0, positions, x, from, weights, bias, l, to, at, count);
    else
        fc_layer_tile(FC_POSITIONS_8, FC_VECTORS(8), 1, positions, x, from, weights, bias, l, to, at, count);
}

#endif

/* All channels at some positions. */
FC_INLINE void fc_layer_channels(
    const struct fc_written *all, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    struct fc_written to = *all;
    int tile = 0, channel = 0;
#if defined(fc_dot_two)
    const uint8_t *order = l->order;
#endif
    to.code = &l->code;
    for (int g = 0; g < l->groups; g++) {
        const uint8_t *own = x + (ptrdiff_t)g * l->x_group;
        for (int done = 0; done < l->outs; tile++) {
#if defined(FC_SIXTEEN)
            const int left = l->outs - done, width = fc_layer_width(left, l);
#else
            const int left = l->outs - done, width = left > 8 ? 16 : 8;
#endif
            const int32_t *b = bias + channel;
            to.bytes = all->bytes ? all->bytes + g * l->outs + done : 0;
            to.reals = all->reals ? all->reals + g * l->outs + done : 0;
            to.beside = all->combined ? all->beside + g * l->outs + done : 0;
            to.factor = all->factor + channel;
#if defined(FC_STORED)
            to.bounded = fc_bounded(to.factor);
#endif
            to.bias = all->bias ? all->bias + channel : 0;
            const int wide = FC_PAIRS && l->wide && l->wide[tile];
            int first = 0; /* position that is left */
#if defined(fc_dot_two)
            if (order)
                first = fc_layer_paired_tile(
                    FC_PAIRS_POSITIONS, width, wide, positions, own, from, weights, order, b, l, &to, at, left);
            order = order ? order + width / FC_LANES * fc_order_size(l) : 0;
#endif
            if (first < positions)
                fc_layer_any_tile(width, wide, positions - first, own, from + first, weights, b, l, &to, at + first, left);
            weights += (ptrdiff_t)l->runs_y * l->runs_x * l->steps * 4 * width;
            channel += width;
            done += width;
        }
    }
}

/* Layers that have loops of their own, on x86: of one position, of few channels, of few inputs. */
FC_INLINE int fc_layer_run_special(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
#if defined(FC_STORED)
    if (l->images * l->rows * l->columns == 1) {
        fc_layer_alone(all, x, weights, bias, l);
        return 1;
    }
    if (fc_layer_fits_lanes(all, l)) {
        const struct fc_layer own = *l;
        if (l->outs <= 6)
            fc_layer_in_lanes(6, all, x, weights, bias, &own);
        else
            fc_layer_in_lanes(8, all, x, weights, bias, &own);
        return 1;
    }
#endif
#if defined(FC_SIXTEEN)
    const int narrow = fc_layer_narrow_steps(all, l);
    if (narrow) {
        fc_layer_narrow(narrow, all, x, weights, bias, l);
        return 1;
    }
#elif defined(FC_STORED)
    if (fc_layer_is_short(all, l)) {
        fc_layer_short(all, x, weights, bias, l);
        return 1;
    }
#endif
    (void)all, (void)x, (void)weights, (void)bias, (void)l;
    return 0;
}

FC_INLINE void fc_layer_run(
    const struct fc_written *given, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *layer)
{
    if (!given->combined && fc_layer_run_special(given, x, weights, bias, layer))
        return;
    const struct fc_written own_written = *given, *all = &own_written; /* nothing else knows its address: compilers know what it is */
#if defined(FC_SMALL)
    const struct fc_layer *l = layer;
#else
    const struct fc_layer own = *layer, *l = &own; /* no byte that is written can be one of these */
#endif
#if defined(FC_SIXTEEN)
    const int across = fc_layer_across(l);
#else
    const int across = l->columns;
#endif
    const int total = l->images * l->rows * across;
#if defined(fc_dot_two)
    if (fc_layer_rows_in_blocks(l)) {
        const int all_rows = l->images * l->rows, some = FC_GROUP / l->columns;
        for (int row = 0; row < all_rows; row += some) {
            int32_t from[FC_GROUP], at[FC_GROUP];
            const int rows = fc_min(some, all_rows - row);
            fc_layer_places_in_blocks(row, rows, from, at, l);
            fc_layer_channels(all, x, from, at, rows * l->columns, weights, bias, l);
        }
        return;
    }
#endif
    for (int first = 0; first < total; first += FC_GROUP) {
        int32_t from[FC_GROUP], at[FC_GROUP];
#if defined(FC_AGAIN)
        if (total - first < FC_POSITIONS_8)
            first = fc_max(0, total - FC_POSITIONS_8);
#endif
        const int positions = fc_min(FC_GROUP, total - first);
#if defined(FC_SIXTEEN)
        if (across > l->columns)
            fc_layer_places_in_fours(first, positions, across, from, at, l);
        else
#endif
            fc_layer_places(first, positions, from, at, l);
        fc_layer_channels(all, x, from, at, positions, weights, bias, l);
    }
}

#endif
