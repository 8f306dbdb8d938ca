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

enum { FC_PLANES = 4 }; /* of a picture, at most, that are laid side by side at once */

/* Rows of planes, which are the loop 1: a * gain + shift, where those are not NULL, to bytes that lie side by side or apart. */
FC_INLINE void fc_quantize_rows(
    uint8_t *y, const float *a, const float *gain, const float *shift, float scale, const struct fc_code *code, const struct fc_loop *l)
{
    enum { vectors = FC_TILE / FC_LANES };
    const int planes = l->y[1] == 1 && l->count[1] <= FC_PLANES ? l->count[1] : 1;
    const int side_by_side = planes == 1 && l->y[3] == 1;
    for (int i0 = 0; i0 < l->count[0]; i0++) {
        for (int i1 = 0; i1 < l->count[1]; i1 += planes) {
            for (int i2 = 0; i2 < l->count[2]; i2++) {
                for (int i = 0; i < l->count[3]; i += FC_TILE) {
                    uint8_t bytes[FC_PLANES][FC_TILE], *to = y + FC_OFFSET(l->y) + (ptrdiff_t)i * l->y[3];
                    const int count = fc_min(FC_TILE, l->count[3] - i);
                    for (int c = 0; c < planes; c++) {
                        const float *from = a + FC_OFFSET(l->a) + (ptrdiff_t)c * l->a[1] + i;
                        float some[FC_TILE] = {0};
                        fc_reals x[vectors];
                        if (count < FC_TILE) {
                            memcpy(some, from, (size_t)count * sizeof(float));
                            from = some;
                        }
                        FC_UNROLL
                        for (int v = 0; v < vectors; v++) {
                            x[v] = fc_load_reals(from + v * FC_LANES);
                            if (gain)
                                x[v] = fc_add(fc_mul(x[v], fc_real(gain[i1 + c])), fc_real(shift[i1 + c]));
                            x[v] = fc_div(x[v], fc_real(scale));
                        }
                        fc_store_bytes(side_by_side ? to : bytes[c], count, vectors, x, code);
                    }
                    if (side_by_side)
                        continue;
                    if (count == FC_TILE && planes > 1)
                        fc_interleave(to, bytes, planes, l->y[3]);
                    else
                        for (int k = 0; k < count; k++)
                            for (int c = 0; c < planes; c++)
                                to[(ptrdiff_t)k * l->y[3] + c] = bytes[c][k];
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

/* The bytes of sums or products, of both operands less their zero points; and these from bytes. */
#if defined(FC_SCALED)
#define FC_COMBINE_LOAD(x, p, zero) fc_reals_of_sixteen(x, p, zero);
#define FC_COMBINE_STORE(y, x, code) fc_store_numbers(y, FC_TILE / FC_LANES, (code)->low > 0 || (code)->high < 255, x, code)
#else
#define FC_COMBINE_LOAD(x, p, zero) \
    FC_UNROLL \
    for (int v = 0; v < FC_TILE / FC_LANES; v++) \
        (x)[v] = fc_sub(fc_reals_of_bytes((p) + v * FC_LANES), fc_real(zero));
#define FC_COMBINE_STORE(y, x, code) fc_store_bytes(y, FC_TILE, FC_TILE / FC_LANES, x, code)
#endif

/* Both operands as floats: scale * (byte - zero). */
#define FC_COMBINE(name, vector_operation, operation)                                                             \
    FC_KERNEL void name(uint8_t *y, const uint8_t *a, const uint8_t *b, const struct fc_combine *c)               \
    {                                                                                                             \
        enum { vectors = FC_TILE / FC_LANES };                                                                    \
        const struct fc_loop *l = &c->loop;                                                                       \
        const float a_zero = c->a_zero, b_zero = c->b_zero, a_scale = c->a_scale, b_scale = c->b_scale;           \
        const float scale = c->scale;                                                                             \
        const struct fc_code code = c->code;                                                                      \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            uint8_t *to = y + FC_OFFSET(l->y);                                                                    \
            const uint8_t *first = a + FC_OFFSET(l->a), *second = b + FC_OFFSET(l->b);                            \
            int i = 0;                                                                                            \
            if (FC_BLOCKS && l->y[3] == 1 && l->a[3] == 1 && l->b[3] == 1) {                                      \
                for (; i + FC_TILE <= l->count[3]; i += FC_TILE) {                                                \
                    fc_reals p[vectors], q[vectors], x[vectors];                                                  \
                    FC_COMBINE_LOAD(p, first + i, a_zero)                                                         \
                    FC_COMBINE_LOAD(q, second + i, b_zero)                                                        \
                    FC_UNROLL                                                                                     \
                    for (int v = 0; v < vectors; v++) {                                                           \
                        const fc_reals both = vector_operation(                                                   \
                            fc_mul(p[v], fc_real(a_scale)), fc_mul(q[v], fc_real(b_scale)));                      \
                        x[v] = fc_div(both, fc_real(scale));                                                      \
                    }                                                                                             \
                    FC_COMBINE_STORE(to + i, x, &code);                                                           \
                }                                                                                                 \
            }                                                                                                     \
            for (; i < l->count[3]; i++) {                                                                        \
                const float p = fc_scaled(first[(ptrdiff_t)i * l->a[3]] - (int)a_zero, a_scale);                  \
                const float q = fc_scaled(second[(ptrdiff_t)i * l->b[3]] - (int)b_zero, b_scale);                 \
                to[(ptrdiff_t)i * l->y[3]] = fc_byte((p operation q) / scale, &code);                             \
            }                                                                                                     \
        }                                                                                                         \
    }
FC_COMBINE(fc_add_bytes, fc_add, +)
FC_COMBINE(fc_mul_bytes, fc_mul, *)
#undef FC_COMBINE
#undef FC_COMBINE_LOAD
#undef FC_COMBINE_STORE

#endif
