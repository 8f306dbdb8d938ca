/* Convolutions and dense layers on bytes: for each output position, 16 channels at a time, sums of products in 32 bits.

   A window is read as runs of neighbouring bytes: the bytes of one of its rows where pixels lie side by side, else those
   of one pixel.  Weights lie as [tile of channels][run][4 bytes of the run][channel][4], runs filled up with zeros, so
   that what is read behind a run does not matter. */
#ifndef FC_LAYER_H
#define FC_LAYER_H

#include "vectors.h"

#if defined(FC_SMALL)
#define FC_GROUP 16 /* positions that are computed together: their places lie on the stack */
#elif !defined(FC_GROUP)
#define FC_GROUP 64 /* positions whose inputs stay in the cache while all channels are computed */
#endif

struct fc_layer {
    int32_t images, rows, columns;       /* output positions */
    int32_t x_image, x_row, x_column;    /* bytes from one position's window to the next one's */
    int32_t y_image, y_row, y_column;    /* elements of the output */
    int32_t runs_y, runs_x, run_y, run_x; /* runs of a window, and bytes between them */
    int32_t steps;                       /* of four bytes in a run */
    int32_t early;                       /* 1: every second run begins a byte earlier */
    int32_t groups, x_group, outs;       /* output channels of a group */
    struct fc_code code;
    const uint8_t *wide; /* for each tile, whether two products can leave 16 bits; none of them where NULL */
};

/* What becomes of the sums of a tile: bytes, or floats. */
struct fc_written {
    uint8_t *bytes;
    float *reals;
    const float *factor, *bias;
    const struct fc_code *code;
    int bounded; /* no scaled sum of the tile reaches 2^31 */
};

/* `total` positions from `first` on, as offsets of their windows and of what they write. */
FC_INLINE void fc_layer_places(int first, int total, int32_t *from, int32_t *at, const struct fc_layer *l)
{
    int column = first % l->columns, row = first / l->columns % l->rows, image = first / l->columns / l->rows;
    for (int p = 0; p < total; column = 0) {
        int32_t x = image * l->x_image + row * l->x_row + column * l->x_column;
        int32_t y = image * l->y_image + row * l->y_row + column * l->y_column;
        for (const int end = fc_min(total, p + l->columns - column); p < end; p++) {
            from[p] = x;
            at[p] = y;
            x += l->x_column;
            y += l->y_column;
        }
        if (++row == l->rows) {
            row = 0;
            image++;
        }
    }
}

#if defined(FC_SMALL)

/* One sum after the other. */
static __attribute__((noinline, unused)) void fc_layer_write(
    const struct fc_written *to, int32_t at, int count, const int32_t *sums)
{
    if (to->bytes) {
        const struct fc_code code = *to->code;
        const float *factor = to->factor;
        uint8_t *y = to->bytes + at, *const end = y + count;
#if defined(FC_MVE)
        fc_mve_store(y, count, sums, factor, &code);
        return;
#elif defined(FC_DSP) && !defined(FC_SOFT)
        const uint32_t each = 0x01010101;
        const uint8x4_t low = code.low * each, above = (255u - (uint32_t)code.high) * each;
        for (; end - y >= 4; y += 4) {
            uint32_t four = fc_dsp_scaled(&sums, &factor, code.zero);
            if (low | above)
                four = __uqsub8(__uqadd8(__uqadd8(__uqsub8(four, low), low), above), above);
            memcpy(y, &four, 4);
        }
#endif
        for (; y < end; y++)
            *y = fc_scaled_byte(*sums++, *factor++, &code);
        return;
    }
    for (int i = 0; i < count; i++) {
        const float scaled = fc_scaled(sums[i], to->factor[i]);
        to->reals[at + i] = to->bias ? scaled + to->bias[i] : scaled;
    }
}

#endif

#if defined(FC_DSP) || defined(FC_MVE)
/* On to what is `channels` further on, where factors and biases are filled up to 8 or 16. */
FC_INLINE void fc_layer_next(struct fc_written *to, int channels)
{
    const int rest = channels % FC_TILE, padded = channels - rest + (rest > 8 ? 16 : rest ? 8 : 0);
    to->bytes = to->bytes ? to->bytes + channels : 0;
    to->reals = to->reals ? to->reals + channels : 0;
    to->factor += padded;
    to->bias = to->bias ? to->bias + padded : 0;
}

#if defined(FC_DSP)
#include "layer_dsp.h"
#else
#include "layer_mve.h"
#endif

/* All groups at some positions. */
FC_INLINE void fc_layer_groups(
    const struct fc_written *all, const uint8_t *x, const int32_t *from, const int32_t *at, const int positions,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    struct fc_written to = *all;
    for (int g = 0; g < l->groups; g++) {
        const float *before = to.factor;
        fc_layer_several(&to, x + g * l->x_group, from, at, positions, weights, bias, l);
        weights += 4 * (to.factor - before) * (l->runs_y * l->runs_x * l->steps);
        bias += to.factor - before;
    }
}

/* A layer of one position, as dense layers are. */
static __attribute__((noinline, unused)) void fc_layer_run_alone(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    const int32_t none = 0;
    fc_layer_groups(all, x, &none, &none, 1, weights, bias, l);
}

/* FC_TOGETHER positions at a time; where FC_AGAIN, some are computed again rather than less than so many. */
static __attribute__((noinline, unused)) void fc_layer_run_all(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    const int total = l->images * l->rows * l->columns;
    for (int first = 0, positions; first < total; first += positions) {
        int32_t from[FC_TOGETHER], at[FC_TOGETHER];
        positions = fc_min(FC_TOGETHER, total - first);
#if FC_AGAIN
        first = fc_max(0, first + positions - FC_TOGETHER);
        positions = fc_min(FC_TOGETHER, total);
        if (positions < FC_TOGETHER) /* two: the first one twice */
            fc_layer_places(0, 1, from + 2, at + 2, l);
        fc_layer_places(first, positions, from, at, l);
        positions = FC_TOGETHER;
#else
        fc_layer_places(first, positions, from, at, l);
#endif
        fc_layer_groups(all, x, from, at, positions, weights, bias, l);
    }
}

/* Apart, so that a network of dense layers needs the stack of one position alone. */
FC_INLINE void fc_layer_run(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    if (l->images * l->rows * l->columns == 1)
        fc_layer_run_alone(all, x, weights, bias, l);
    else
        fc_layer_run_all(all, x, weights, bias, l);
}

#else

#if defined(FC_SMALL)

/* Four channels at one position. */
static __attribute__((noinline, unused)) void fc_layer_sums_of_four(
    int32_t *sums, const uint8_t *x, const int8_t *weights, int width, const struct fc_layer *l)
{
    int32_t a0 = sums[0], a1 = sums[1], a2 = sums[2], a3 = sums[3];
    for (int ry = 0; ry < l->runs_y; ry++, x += l->run_y) {
        const uint8_t *from = x - (ry & l->early);
        for (int rx = 0; rx < l->runs_x; rx++, from += l->run_x) {
            for (const uint8_t *p = from, *end = from + 4 * l->steps; p < end; p += 4, weights += 4 * width) {
                const int8_t *w = weights;
                for (int i = 0; i < 4; i++, w++) {
                    const int32_t one = p[i];
                    a0 += one * w[0];
                    a1 += one * w[4];
                    a2 += one * w[8];
                    a3 += one * w[12];
                }
            }
        }
    }
    sums[0] = a0, sums[1] = a1, sums[2] = a2, sums[3] = a3;
}

static __attribute__((noinline, unused)) void fc_layer_block(
    const int positions, const int vectors, const int wide, const int even, const uint8_t *x, const int32_t *from,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    int32_t sums[2][FC_TILE];
    const int width = vectors * FC_LANES;
    (void)wide;
    (void)even;
    count = fc_min(count, width);
    for (int p = 0; p < positions; p++)
        for (int c = 0; c < width; c++)
            sums[p][c] = bias[c];
    for (int p = 0; p < positions; p++)
        for (int c = 0; c < count; c += 4)
            fc_layer_sums_of_four(sums[p] + c, x + from[p], weights + 4 * c, width, l);
    for (int p = 0; p < positions; p++)
        fc_layer_write(to, at[p], count, sums[p]);
}

#else

FC_INLINE void fc_layer_write(
    const struct fc_written *to, int32_t at, int count, const int vectors, const fc_ints *sums)
{
    fc_reals scaled[FC_TILE / FC_LANES + 1];
#if defined(FC_SCALED)
    if (to->bytes && count >= vectors * FC_LANES) {
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            scaled[v] = fc_load_reals(to->factor + v * FC_LANES);
        fc_store_scaled(to->bytes + at, vectors, 1, sums, scaled, to->code);
        return;
    }
#endif
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        scaled[v] = fc_mul(fc_reals_of(sums[v]), fc_load_reals(to->factor + v * FC_LANES));
    if (to->bytes) {
        fc_store_bytes(to->bytes + at, count, vectors, scaled, to->code);
        return;
    }
    float row[FC_TILE];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        fc_store_reals(row + v * FC_LANES, to->bias ? fc_add(scaled[v], fc_load_reals(to->bias + v * FC_LANES)) : scaled[v]);
    memcpy(to->reals + at, row, (size_t)fc_min(count, FC_TILE) * sizeof(float));
}

#if defined(FC_SCALED)
/* Floats, and bytes of fewer channels than a tile has: apart, so that they take no registers of the others. */
static __attribute__((noinline, unused)) void fc_layer_write_others(
    const struct fc_written *to, const int32_t *at, int count, int positions, int vectors, const int32_t *sums)
{
    for (int p = 0; p < positions; p++, sums += vectors * FC_LANES) {
        fc_ints own[FC_TILE / FC_LANES];
        for (int v = 0; v < vectors; v++)
            own[v] = fc_load_ints(sums + v * FC_LANES);
        if (vectors == FC_VECTORS(8))
            fc_layer_write(to, at[p], count, FC_VECTORS(8), own);
        else
            fc_layer_write(to, at[p], count, FC_VECTORS(16), own);
    }
}
#endif

/* Those of several positions: bytes are rounded and packed together. */
FC_INLINE void fc_layer_write_all(
    const struct fc_written *to, const int32_t *at, int count, const int positions, const int vectors, const fc_ints *sums)
{
    int p = 0;
#if defined(FC_SCALED)
    if (to->bytes && count >= vectors * FC_LANES) {
        fc_reals factor[FC_TILE / FC_LANES];
        const struct fc_code code = *to->code;
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            factor[v] = fc_load_reals(to->factor + v * FC_LANES);
        if (code.low > 0 || code.high < 255) {
            FC_UNROLL
            for (; p < positions; p++)
                fc_store_scaled(to->bytes + at[p], vectors, 1, sums + p * vectors, factor, &code);
        }
        FC_UNROLL
        for (; p < positions; p++)
            fc_store_scaled(to->bytes + at[p], vectors, 0, sums + p * vectors, factor, &code);
        return;
    }
    int32_t all[FC_POSITIONS_16 * FC_TILE];
    FC_UNROLL
    for (int i = 0; i < positions * vectors; i++)
        vst1q_s32(all + i * FC_LANES, sums[i]);
    fc_layer_write_others(to, at, count, positions, vectors, all);
#else
#if defined(FC_STORED)
    if (to->bytes) {
        FC_UNROLL
        for (; (p + FC_STORED / vectors) <= positions; p += FC_STORED / vectors) {
            fc_reals scaled[FC_STORED];
            FC_UNROLL
            for (int i = 0; i < FC_STORED; i++)
                scaled[i] = fc_mul(fc_reals_of(sums[p * vectors + i]), fc_load_reals(to->factor + i % vectors * FC_LANES));
            if (!to->bounded) {
                FC_UNROLL
                for (int i = 0; i < FC_STORED; i++)
                    scaled[i] = fc_limited(scaled[i]);
            }
            fc_store_positions(to->bytes, at + p, count, vectors, scaled, to->code);
        }
    }
#endif
    FC_UNROLL
    for (; p < positions; p++)
        fc_layer_write(to, at[p], count, vectors, sums + p * vectors);
#endif
}

#if defined(FC_STORED)
#include "layer_alone.h"
#endif

#if defined(FC_SIXTEEN)
#include "layer_avx512.h"
#include "layer_lanes.h"
#include "layer_narrow.h"
#elif defined(FC_HALVES) || defined(fc_dot_lane)
#include "layer_neon.h"
#endif

#if !defined(fc_dot_lane) && !defined(FC_SIXTEEN)

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
    for (int ry = 0; ry < l->runs_y; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            const ptrdiff_t run = (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            for (int k = 0; k < l->steps; k++) {
                fc_ints w[FC_TILE / FC_LANES + 1];
                FC_UNROLL
                for (int v = 0; v < vectors; v++)
                    w[v] = fc_weights(weights + v * 4 * FC_LANES);
                weights += vectors * 4 * FC_LANES;
#if defined(FC_OPAQUE)
                if (even)
                    FC_OPAQUE(four); /* else compilers make eight addresses of it again */
#endif
                FC_UNROLL
                for (int p = 0; p < positions; p++) {
                    const uint8_t *window = even ? start[p & 3] + (p >> 2) * four : start[p];
                    const fc_ints bytes = fc_splat(window + run + 4 * k);
                    FC_UNROLL
                    for (int v = 0; v < vectors; v++)
                        sums[p * vectors + v] = wide ? fc_dot_wide(sums[p * vectors + v], bytes, w[v])
                                                     : fc_dot(sums[p * vectors + v], bytes, w[v]);
                }
            }
        }
    }
    fc_layer_write_all(to, at, count, positions, vectors, sums);
}

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

#endif

FC_INLINE void fc_layer_run(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *layer)
{
#if defined(FC_STORED)
    if (layer->images * layer->rows * layer->columns == 1) {
        fc_layer_alone(all, x, weights, bias, layer);
        return;
    }
#endif
#if defined(FC_SMALL)
    const struct fc_layer *l = layer;
#else
    const struct fc_layer own = *layer, *l = &own; /* no byte that is written can be one of these */
#endif
#if defined(FC_SIXTEEN)
    if (fc_layer_fits_lanes(all, l)) {
        if (l->outs <= 6)
            fc_layer_in_lanes(6, all, x, weights, bias, l);
        else
            fc_layer_in_lanes(8, all, x, weights, bias, l);
        return;
    }
    const int narrow = fc_layer_narrow_steps(all, l);
    if (narrow) {
        fc_layer_narrow(narrow, all, x, weights, bias, l);
        return;
    }
    const int across = fc_layer_across(l), down = l->runs_y > 1 && l->runs_x == 1 && l->steps == 1 && !l->early;
#else
    const int across = l->columns;
#endif
    const int total = l->images * l->rows * across;
    struct fc_written to = *all;
    to.code = &l->code;
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
        const int8_t *w = weights;
        int tile = 0, channel = 0;
        for (int g = 0; g < l->groups; g++) {
            const uint8_t *own = x + (ptrdiff_t)g * l->x_group;
            for (int done = 0; done < l->outs; tile++) {
                const int left = l->outs - done, width = left > 8 ? 16 : 8;
                const int32_t *b = bias + channel;
                to.bytes = all->bytes ? all->bytes + g * l->outs + done : 0;
                to.reals = all->reals ? all->reals + g * l->outs + done : 0;
                to.factor = all->factor + channel;
#if defined(FC_STORED)
                to.bounded = fc_bounded(to.factor);
#endif
                to.bias = all->bias ? all->bias + channel : 0;
                const int wide = FC_PAIRS && l->wide && l->wide[tile];
#if defined(FC_SIXTEEN)
                (void)wide;
                if (width == 16 && down)
                    fc_layer_tile(16, 1, positions, own, from, w, b, l, &to, at, left);
                else if (width == 16)
                    fc_layer_tile(16, 0, positions, own, from, w, b, l, &to, at, left);
                else
                    fc_layer_tile(8, 0, positions, own, from, w, b, l, &to, at, left);
#else
                if (width == 16 && !wide)
                    fc_layer_tile(FC_POSITIONS_16, FC_VECTORS(16), 0, positions, own, from, w, b, l, &to, at, left);
                else if (width == 16)
                    fc_layer_tile(FC_POSITIONS_16, FC_VECTORS(16), 1, positions, own, from, w, b, l, &to, at, left);
                else if (!wide)
                    fc_layer_tile(FC_POSITIONS_8, FC_VECTORS(8), 0, positions, own, from, w, b, l, &to, at, left);
                else
                    fc_layer_tile(FC_POSITIONS_8, FC_VECTORS(8), 1, positions, own, from, w, b, l, &to, at, left);
#endif
                w += (ptrdiff_t)l->runs_y * l->runs_x * l->steps * 4 * width;
                channel += width;
                done += width;
            }
        }
    }
}

#endif

FC_KERNEL void fc_layer_bytes(
    uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const struct fc_layer *l)
{
    fc_layer_run(&(struct fc_written){.bytes = y, .factor = factor, .code = &l->code}, x, weights, bias, l);
}

/* float32(sum) * factor + real_bias; without the latter where it is NULL. */
FC_KERNEL void fc_layer_reals(
    float *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const float *real_bias,
    const struct fc_layer *l)
{
    fc_layer_run(&(struct fc_written){.reals = y, .factor = factor, .bias = real_bias, .code = &l->code}, x, weights, bias, l);
}

#endif
