/* Element by element: bytes to bytes, bytes to floats and back, sums and products of two tensors of bytes. */
#ifndef FC_BYTES_H
#define FC_BYTES_H

#include "vectors.h"

/* Begins nested loops over l->count; y, a and b are offsets of a run. */
#define FC_FOR_EACH_RUN(l)                                                                                        \
    for (int i0 = 0; i0 < (l)->count[0]; i0++)                                                                    \
        for (int i1 = 0; i1 < (l)->count[1]; i1++)                                                                \
            for (int i2 = 0; i2 < (l)->count[2]; i2++)

#define FC_OFFSET(strides) ((ptrdiff_t)i0 * (strides)[0] + (ptrdiff_t)i1 * (strides)[1] + (ptrdiff_t)i2 * (strides)[2])

FC_KERNEL void fc_table_bytes(uint8_t *y, const uint8_t *a, const uint8_t *table, const struct fc_loop *l)
{
    FC_FOR_EACH_RUN(l) {
        uint8_t *to = y + FC_OFFSET(l->y);
        const uint8_t *from = a + FC_OFFSET(l->a);
        for (int i = 0; i < l->count[3]; i++)
            to[(ptrdiff_t)i * l->y[3]] = table[from[(ptrdiff_t)i * l->a[3]]];
    }
}

FC_KERNEL void fc_table_reals(float *y, const uint8_t *a, const float *table, const struct fc_loop *l)
{
    FC_FOR_EACH_RUN(l) {
        float *to = y + FC_OFFSET(l->y);
        const uint8_t *from = a + FC_OFFSET(l->a);
        for (int i = 0; i < l->count[3]; i++)
            to[(ptrdiff_t)i * l->y[3]] = table[from[(ptrdiff_t)i * l->a[3]]];
    }
}

/* Tables of 256, one for each index of the loop `along`. */
FC_KERNEL void fc_tables_bytes(uint8_t *y, const uint8_t *a, const uint8_t *table, int along, const struct fc_loop *l)
{
    FC_FOR_EACH_RUN(l) {
        for (int i = 0; i < l->count[3]; i++) {
            const int at[4] = {i0, i1, i2, i};
            y[FC_OFFSET(l->y) + (ptrdiff_t)i * l->y[3]] =
                table[256 * at[along] + a[FC_OFFSET(l->a) + (ptrdiff_t)i * l->a[3]]];
        }
    }
}

FC_KERNEL void fc_tables_reals(float *y, const uint8_t *a, const float *table, int along, const struct fc_loop *l)
{
    FC_FOR_EACH_RUN(l) {
        for (int i = 0; i < l->count[3]; i++) {
            const int at[4] = {i0, i1, i2, i};
            y[FC_OFFSET(l->y) + (ptrdiff_t)i * l->y[3]] =
                table[256 * at[along] + a[FC_OFFSET(l->a) + (ptrdiff_t)i * l->a[3]]];
        }
    }
}

#if FC_BLOCKS
#if !defined(FC_INTERLEAVED)
/* Bytes of `planes` planes, sixteen of each, pixel after pixel, which are `apart`. */
FC_INLINE void fc_interleave(uint8_t *y, uint8_t (*bytes)[FC_TILE], int planes, int apart)
{
    for (int i = 0; i < FC_TILE; i++, y += apart)
        for (int c = 0; c < planes; c++)
            y[c] = bytes[c][i];
}
#endif

/* 1 / scale where it is exact, so that a product is the quotient: of powers of two. Else 0. */
FC_INLINE float fc_inverse(float scale)
{
    uint32_t bits;
    memcpy(&bits, &scale, 4);
    return (bits & 0x7fffff) == 0 && scale >= 0x1p-100f && scale <= 0x1p100f ? 1.0f / scale : 0.0f;
}

enum { FC_PLANES = 4 }; /* of a picture, at most, that are laid side by side at once */

/* How floats become numbers in units of the scale. */
struct fc_scaling {
    const float *gain, *shift; /* one for each plane, or NULL */
    float scale, times;        /* a product with `times` is the quotient where that is not 0 */
#if defined(FC_FUSED)
    int fused;
    struct fc_divisor by;
#endif
};

FC_INLINE struct fc_scaling fc_scaling_of(const float *gain, const float *shift, float scale)
{
    struct fc_scaling by_scale = {.gain = gain, .shift = shift, .scale = scale, .times = fc_inverse(scale)};
#if defined(FC_FUSED)
    by_scale.fused = scale >= 0x1p-60f && scale <= 0x1p60f;
    by_scale.by = fc_divisor_of(by_scale.fused ? scale : 1.0f);
#endif
    return by_scale;
}

/* FC_LANES floats of a plane: (a * gain + shift) / scale. */
FC_INLINE fc_reals fc_in_units(const float *from, int plane, const struct fc_scaling *by_scale)
{
    fc_reals x = fc_load_reals(from);
    if (by_scale->gain)
        x = fc_add(fc_mul(x, fc_real(by_scale->gain[plane])), fc_real(by_scale->shift[plane]));
    if (by_scale->times != 0.0f)
        return fc_mul(x, fc_real(by_scale->times));
#if defined(FC_FUSED)
    if (by_scale->fused)
        return fc_quotient(x, &by_scale->by);
#endif
    return fc_div(x, fc_real(by_scale->scale));
}

/* `count` floats of each of `planes` planes, which are `apart`, to bytes that lie plane after plane. */
FC_INLINE void fc_quantize_planes(
    uint8_t (*bytes)[FC_TILE], const float *from, ptrdiff_t apart, int plane, int planes, int count,
    const struct fc_scaling *by_scale,
    const struct fc_code *code)
{
    enum { vectors = FC_TILE / FC_LANES };
    for (int c = 0; c < planes; c++, from += apart) {
        const float *own = from;
        float some[FC_TILE] = {0};
        fc_reals x[vectors];
        if (count < FC_TILE) {
            memcpy(some, from, (size_t)count * sizeof(float));
            own = some;
        }
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            x[v] = fc_in_units(own + v * FC_LANES, plane + c, by_scale);
        fc_store_bytes(bytes[c], count, vectors, x, code);
    }
}

#if defined(FC_PIXELS)
/* Sixteen floats of three or four planes to as many pixels of four bytes; of three the last byte stays. */
FC_INLINE void fc_quantize_pixels(
    uint8_t *y, const float *from, ptrdiff_t apart, int plane, int planes, const struct fc_scaling *by_scale,
    const struct fc_code *code)
{
    fc_reals x[4];
    FC_UNROLL
    for (int c = 0; c < 3; c++)
        x[c] = fc_limited(fc_in_units(from + c * apart, plane + c, by_scale));
    x[3] = planes == 4 ? fc_limited(fc_in_units(from + 3 * apart, plane + 3, by_scale)) : x[2];
    fc_store_pixels(y, planes, x, code);
}
#endif

/* Rows of planes, which are the loop 1: a * gain + shift, where those are not NULL, to bytes that lie side by side or apart. */
FC_INLINE void fc_quantize_rows(
    uint8_t *y, const float *a, const float *gain, const float *shift, float scale, const struct fc_code *given,
    const struct fc_loop *l)
{
    const int planes = l->y[1] == 1 && l->count[1] <= FC_PLANES ? l->count[1] : 1;
    const int side_by_side = planes == 1 && l->y[3] == 1;
    const struct fc_scaling by_scale = fc_scaling_of(gain, shift, scale);
    const struct fc_code own = *given, *code = &own; /* no byte that is written can be one of these */
    for (int i0 = 0; i0 < l->count[0]; i0++) {
        for (int i1 = 0; i1 < l->count[1]; i1 += planes) {
            for (int i2 = 0; i2 < l->count[2]; i2++) {
                const float *from = a + FC_OFFSET(l->a);
                uint8_t *to = y + FC_OFFSET(l->y);
                int i = 0;
#if defined(FC_PIXELS)
                if (planes >= 3 && l->y[3] == 4)
                    for (; i + FC_TILE <= l->count[3]; i += FC_TILE)
                        fc_quantize_pixels(to + 4 * i, from + i, l->a[1], i1, planes, &by_scale, code);
#endif
                for (; i < l->count[3]; i += FC_TILE) {
                    uint8_t bytes[FC_PLANES][FC_TILE], *at = to + (ptrdiff_t)i * l->y[3];
                    const int count = fc_min(FC_TILE, l->count[3] - i);
                    if (side_by_side) {
                        fc_quantize_planes((uint8_t (*)[FC_TILE])at, from + i, l->a[1], i1, 1, count, &by_scale, code);
                        continue;
                    }
                    fc_quantize_planes(bytes, from + i, l->a[1], i1, planes, count, &by_scale, code);
                    if (count == FC_TILE && planes > 1)
                        fc_interleave(at, bytes, planes, l->y[3]);
                    else
                        for (int k = 0; k < count; k++)
                            for (int c = 0; c < planes; c++)
                                at[(ptrdiff_t)k * l->y[3] + c] = bytes[c][k];
                }
            }
        }
    }
}
#endif

/* round(a / scale) + zero. */
FC_KERNEL void fc_quantize(uint8_t *y, const float *a, float scale, const struct fc_code *code, const struct fc_loop *l)
{
#if FC_BLOCKS
    if (l->a[3] == 1) {
        fc_quantize_rows(y, a, 0, 0, scale, code, l);
        return;
    }
#endif
    FC_FOR_EACH_RUN(l) {
        uint8_t *to = y + FC_OFFSET(l->y);
        const float *from = a + FC_OFFSET(l->a);
        for (int i = 0; i < l->count[3]; i++)
            to[(ptrdiff_t)i * l->y[3]] = fc_byte(from[(ptrdiff_t)i * l->a[3]] / scale, code);
    }
}

/* round((a * gain + shift) / scale) + zero; gain and shift are one for each index of the loop `along`. */
FC_KERNEL void fc_quantize_channels(
    uint8_t *y, const float *a, const float *gain, const float *shift, float scale, int along, const struct fc_code *code,
    const struct fc_loop *l)
{
#if FC_BLOCKS
    if (l->a[3] == 1 && along == 1) {
        fc_quantize_rows(y, a, gain, shift, scale, code, l);
        return;
    }
#endif
    FC_FOR_EACH_RUN(l) {
        for (int i = 0; i < l->count[3]; i++) {
            const int at[4] = {i0, i1, i2, i};
            const float product = a[FC_OFFSET(l->a) + (ptrdiff_t)i * l->a[3]] * gain[at[along]];
            const float real = product + shift[at[along]];
            y[FC_OFFSET(l->y) + (ptrdiff_t)i * l->y[3]] = fc_byte(real / scale, code);
        }
    }
}

struct fc_combine {
    struct fc_loop loop;
    float a_zero, b_zero, a_scale, b_scale, scale;
    struct fc_code code;
};

/* Sums (or products) of bytes that lie side by side: `vectors` vectors, a constant wherever this is called. */
#if FC_BLOCKS
FC_INLINE void fc_combine_block(
    const int product, const int vectors, uint8_t *y, const uint8_t *a, const uint8_t *b, const struct fc_combine *c)
{
    enum { tile = FC_TILE / FC_LANES };
    fc_reals p[4 * tile], q[4 * tile], x[4 * tile];
#if defined(FC_SCALED)
    FC_UNROLL
    for (int v = 0; v < vectors; v += tile) {
        fc_reals_of_sixteen(p + v, a + v * FC_LANES, c->a_zero);
        fc_reals_of_sixteen(q + v, b + v * FC_LANES, c->b_zero);
    }
#else
    FC_UNROLL
    for (int v = 0; v < vectors; v++) {
        p[v] = fc_sub(fc_reals_of_bytes(a + v * FC_LANES), fc_real(c->a_zero));
        q[v] = fc_sub(fc_reals_of_bytes(b + v * FC_LANES), fc_real(c->b_zero));
    }
#endif
    FC_UNROLL
    for (int v = 0; v < vectors; v++) {
        p[v] = fc_mul(p[v], fc_real(c->a_scale));
        q[v] = fc_mul(q[v], fc_real(c->b_scale));
        x[v] = product ? fc_mul(p[v], q[v]) : fc_add(p[v], q[v]);
    }
    if (c->scale != 1.0f) {
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            x[v] = fc_div(x[v], fc_real(c->scale));
    }
#if defined(FC_SCALED)
    fc_store_numbers(y, tile, c->code.low > 0 || c->code.high < 255, x, &c->code);
#elif defined(FC_STORED)
    if (vectors == FC_STORED) {
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            x[v] = fc_limited(x[v]);
        const int32_t at[4] = {0, FC_TILE, 2 * FC_TILE, 3 * FC_TILE};
        fc_store_positions(y, at, FC_TILE, tile, x, &c->code);
        return;
    }
    fc_store_bytes(y, FC_TILE, tile, x, &c->code);
#else
    fc_store_bytes(y, FC_TILE, tile, x, &c->code);
#endif
}
#endif

/* Both operands as floats, scale * (byte - zero), their sum or product divided by the scale of the result: by none where it
   is 1. */
FC_INLINE void fc_combine(const int product, uint8_t *y, const uint8_t *a, const uint8_t *b, const struct fc_combine *given)
{
    const struct fc_combine own = *given, *c = &own; /* no byte that is written can be one of these */
    const struct fc_loop *l = &c->loop;
    FC_FOR_EACH_RUN(l) {
        uint8_t *to = y + FC_OFFSET(l->y);
        const uint8_t *first = a + FC_OFFSET(l->a), *second = b + FC_OFFSET(l->b);
        int i = 0;
#if FC_BLOCKS
        if (l->y[3] == 1 && l->a[3] == 1 && l->b[3] == 1) {
#if defined(FC_STORED)
            for (; i + FC_STORED * FC_LANES <= l->count[3]; i += FC_STORED * FC_LANES)
                fc_combine_block(product, FC_STORED, to + i, first + i, second + i, c);
#endif
            for (; i + FC_TILE <= l->count[3]; i += FC_TILE)
                fc_combine_block(product, FC_TILE / FC_LANES, to + i, first + i, second + i, c);
        }
#endif
        for (; i < l->count[3]; i++) {
            const float p = fc_scaled(first[(ptrdiff_t)i * l->a[3]] - (int)c->a_zero, c->a_scale);
            const float q = fc_scaled(second[(ptrdiff_t)i * l->b[3]] - (int)c->b_zero, c->b_scale);
            to[(ptrdiff_t)i * l->y[3]] = fc_byte((product ? p * q : p + q) / c->scale, &c->code);
        }
    }
}

FC_KERNEL void fc_add_bytes(uint8_t *y, const uint8_t *a, const uint8_t *b, const struct fc_combine *c)
{
    fc_combine(0, y, a, b, c);
}

FC_KERNEL void fc_mul_bytes(uint8_t *y, const uint8_t *a, const uint8_t *b, const struct fc_combine *c)
{
    fc_combine(1, y, a, b, c);
}

#endif
