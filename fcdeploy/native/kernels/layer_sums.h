/* What all kernels of layers share: the numbers of a layer, where its positions lie, and what becomes of sums. */
#ifndef FC_LAYER_SUMS_H
#define FC_LAYER_SUMS_H

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
    const uint8_t *order; /* of each eight channels, steps in pairs (layer_pairs.h); NULL where that does not pay */
    const int32_t *offsets; /* bytes from the beginning of a window to those of each step, where there is an order */
};

/* What becomes of the sums of a tile: bytes, or floats. */
struct fc_written {
    uint8_t *bytes;
    float *reals;
    const float *factor, *bias;
    const struct fc_code *code;
    int bounded; /* no scaled sum of the tile reaches 2^31 */
    int combined, product;         /* combined with bytes beside them before they are stored (layer_beside.h): added, or multiplied */
    const uint8_t *beside;
    const struct fc_combine *with;
};

#if defined(FC_STORED)
#include "layer_beside.h"
#endif

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
#endif

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
    if (to->combined) {
        fc_layer_write_beside(to, at, positions, vectors, sums);
        return;
    }
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

#endif

#endif
