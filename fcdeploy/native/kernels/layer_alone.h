/* Layers of one position, as dense layers are, on x86: up to four tiles of channels at a time.

   Each load of the window's bytes serves all of them, and weights, which nothing else reads, come in several streams: that is as
   fast as the second cache gives them. */
#ifndef FC_LAYER_ALONE_H
#define FC_LAYER_ALONE_H

#include "layer_pairs.h"

#define FC_ALONE_SUMS 8 /* in registers: with fewer of them one would wait for itself */

/* `ways` steps of a run, each into sums of its own: FC_VECTORS(width) vectors for each of the tiles. */
FC_INLINE void fc_alone_steps(
    const int ways, const int tiles, const int width, const int wide, fc_ints *sums, const uint8_t *window, const int8_t *weights,
    ptrdiff_t size)
{
    const int vectors = FC_VECTORS(width), all = tiles * vectors;
    FC_UNROLL
    for (int i = 0; i < ways; i++) {
        const fc_ints bytes = fc_splat(window + 4 * i);
        FC_UNROLL
        for (int v = 0; v < all; v++) {
            const int8_t *own = weights + v / vectors * size + i * 4 * width + v % vectors * 4 * FC_LANES;
            fc_ints *sum = sums + i * all + v;
            *sum = wide ? fc_dot_wide(*sum, bytes, fc_weights(own)) : fc_dot(*sum, bytes, fc_weights(own));
        }
    }
}

/* Sums of `tiles` tiles of `width` channels, whose weights lie `size` bytes apart. */
FC_INLINE void fc_alone_sums(
    const int tiles, const int width, const int wide, fc_ints *sums, const uint8_t *x, const int8_t *weights, ptrdiff_t size,
    const int32_t *bias, const struct fc_layer *l)
{
    const int all = tiles * FC_VECTORS(width), ways = FC_ALONE_SUMS / all, steps = l->steps;
    FC_UNROLL
    for (int i = 0; i < ways * all; i++)
        sums[i] = i < all ? fc_load_ints(bias + i * FC_LANES) : fc_no_ints();
    for (int ry = 0; ry < l->runs_y; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            const uint8_t *window = x + (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            int k = 0;
            for (; k + ways <= steps; k += ways, window += 4 * ways, weights += ways * 4 * width)
                fc_alone_steps(ways, tiles, width, wide, sums, window, weights, size);
            for (; k < steps; k++, window += 4, weights += 4 * width)
                fc_alone_steps(1, tiles, width, wide, sums, window, weights, size);
        }
    }
    FC_UNROLL
    for (int i = all; i < ways * all; i++)
        sums[i % all] = fc_add_ints(sums[i % all], sums[i]);
}

/* What becomes of them: bytes of four vectors together where there are so many, floats one vector after the other. */
FC_INLINE void fc_alone_write(
    const struct fc_written *to, int count, const int tiles, const int width, const fc_ints *sums)
{
    const int vectors = FC_VECTORS(width), all = tiles * vectors;
    if (count < all * FC_LANES) { /* part of a tile, or of a vector */
        fc_layer_write(to, 0, count, vectors, sums);
        return;
    }
    fc_reals scaled[FC_ALONE_SUMS];
    FC_UNROLL
    for (int v = 0; v < all; v++) {
        scaled[v] = fc_mul(fc_reals_of(sums[v]), fc_load_reals(to->factor + v * FC_LANES));
        if (to->bias)
            scaled[v] = fc_add(scaled[v], fc_load_reals(to->bias + v * FC_LANES));
    }
    if (!to->bytes) {
        FC_UNROLL
        for (int v = 0; v < all; v++)
            fc_store_reals(to->reals + v * FC_LANES, scaled[v]);
    } else if (all % FC_STORED == 0) {
        FC_UNROLL
        for (int v = 0; v < all; v++)
            scaled[v] = fc_limited(scaled[v]);
        FC_UNROLL
        for (int v = 0; v < all; v += FC_STORED)
            fc_store_vectors(to->bytes + v * FC_LANES, scaled + v, to->code);
    } else {
        FC_UNROLL
        for (int i = 0; i < tiles; i++)
            fc_store_bytes(to->bytes + i * FC_TILE, width, vectors, scaled + i * vectors, to->code);
    }
}

/* Up to four tiles, `count` channels of which are written. */
FC_INLINE void fc_alone_tiles(
    const int tiles, const int width, const int wide, const struct fc_written *to, int count, const uint8_t *x,
    const int8_t *weights, ptrdiff_t size, const int32_t *bias, const struct fc_layer *l)
{
    fc_ints sums[FC_ALONE_SUMS];
    fc_alone_sums(tiles, width, wide, sums, x, weights, size, bias, l);
    fc_alone_write(to, count, tiles, width, sums);
}

/* How many of the next tiles can be computed together: full ones, of whose products no two leave 16 bits. */
FC_INLINE int fc_alone_count(const uint8_t *wide, int left)
{
    int tiles = 0;
    while (tiles < 4 && left >= (tiles + 1) * FC_TILE && !(FC_PAIRS && wide && wide[tiles]))
        tiles++;
    return tiles == 3 ? 2 : tiles;
}

static __attribute__((noinline, unused)) void fc_layer_alone(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    const int steps = l->runs_y * l->runs_x * l->steps;
    const ptrdiff_t size = (ptrdiff_t)steps * 4 * FC_TILE;
    const uint8_t *wide = l->wide;
    struct fc_written to = *all;
#if defined(fc_dot_two)
    const int32_t none = 0;
    const uint8_t *order = l->order;
#endif
    to.code = &l->code;
    for (int g = 0; g < l->groups; g++, x += l->x_group) {
        for (int left = l->outs, done; left > 0; left -= done) {
            const int tiles = fc_alone_count(wide, left), slow = FC_PAIRS && wide && *wide;
            const int width = left > 8 ? 16 : 8, padded = tiles ? tiles * FC_TILE : width;
            done = fc_min(left, padded);
#if defined(fc_dot_two)
            if (slow && order)
                fc_layer_paired_tile(1, width, 1, 1, x, &none, weights, order, bias, l, &to, &none, done);
            else
#endif
            if (tiles == 4)
                fc_alone_tiles(4, 16, 0, &to, done, x, weights, size, bias, l);
            else if (tiles == 2)
                fc_alone_tiles(2, 16, 0, &to, done, x, weights, size, bias, l);
            else if (width == 16 && !slow)
                fc_alone_tiles(1, 16, 0, &to, done, x, weights, size, bias, l);
            else if (width == 16)
                fc_alone_tiles(1, 16, 1, &to, done, x, weights, size, bias, l);
            else if (!slow)
                fc_alone_tiles(1, 8, 0, &to, done, x, weights, size, bias, l);
            else
                fc_alone_tiles(1, 8, 1, &to, done, x, weights, size, bias, l);
            weights += (ptrdiff_t)steps * 4 * padded;
#if defined(fc_dot_two)
            order = order ? order + padded / FC_LANES * fc_order_size(l) : 0;
#endif
            bias += padded;
            to.factor += padded;
            to.bias = to.bias ? to.bias + padded : 0;
            to.bytes = to.bytes ? to.bytes + done : 0;
            to.reals = to.reals ? to.reals + done : 0;
            wide = wide ? wide + (tiles ? tiles : 1) : 0;
        }
    }
}

#endif
