/* Matrix products of two tensors that are computed at run time. Of several rows, bytes are multiplied four at a time: b is packed. */
#ifndef FC_PRODUCT_H
#define FC_PRODUCT_H

#include "vectors.h"

struct fc_product {
    int32_t count[4];         /* of the output: two axes in front, rows, columns */
    int32_t a[4], b[4], y[4]; /* elements from one index of an axis to the next; 0 where an axis is broadcast */
    int32_t length;           /* columns of a, rows of b */
    int32_t a_zero, b_zero;
    float factor;
    struct fc_code code;
};

/* Calls for FC_TILE outputs of a row, or fewer: `from` and `other` are where its sums begin in a and b. */
#define FC_FOR_EACH_TILE(p) \
    for (int i0 = 0; i0 < (p)->count[0]; i0++) \
        for (int i1 = 0; i1 < (p)->count[1]; i1++) \
            for (int row = 0; row < (p)->count[2]; row++) \
                for (int column = 0; column < (p)->count[3]; column += FC_TILE)
#define FC_PLACE(s, i2, i3) \
    ((ptrdiff_t)i0 * (s)[0] + (ptrdiff_t)i1 * (s)[1] + (ptrdiff_t)(i2) * (s)[2] + (ptrdiff_t)(i3) * (s)[3])

/* Sums of one tile, from the first product to the last, whatever the lanes. */
#define FC_PRODUCT_SUMS(name, type, sum, a_less, b_less) \
    FC_INLINE void name(sum *sums, const type *a, const type *b, int count, const struct fc_product *p) \
    { \
        const ptrdiff_t down = p->b[2], right = p->b[3]; \
        for (int i = 0; i < FC_TILE; i++) \
            sums[i] = 0; \
        for (int k = 0; k < p->length; k++, a += p->a[3], b += down) { \
            const sum one = (sum)*a - (a_less); \
            if (count == FC_TILE && right == 1) \
                for (int i = 0; i < FC_TILE; i++) \
                    sums[i] += one * ((sum)b[i] - (b_less)); \
            else \
                for (int i = 0; i < count; i++) \
                    sums[i] += one * ((sum)b[i * right] - (b_less)); \
        } \
    }
FC_PRODUCT_SUMS(fc_product_of_bytes, uint8_t, int32_t, p->a_zero, p->b_zero)
FC_PRODUCT_SUMS(fc_product_of_floats, float, float, 0.0f, 0.0f)
#undef FC_PRODUCT_SUMS

#if FC_FORMS
enum { FC_PRODUCT_ROWS = 4, FC_PRODUCT_LENGTH = 1024 }; /* rows at once, and products that are added up for each of them */

/* A tile of b less 128, four rows by turns, and what the sums of its columns begin with:
   sum (a - az) (b - bz) = sum a (b - 128) - az sum (b - 128) - (bz - 128) sum (a - az). */
struct fc_packed {
    int8_t bytes[FC_PRODUCT_LENGTH * FC_TILE];
    int32_t begin[FC_TILE];
};

FC_INLINE void fc_pack_product(struct fc_packed *to, const uint8_t *b, int count, const struct fc_product *p)
{
    enum { vectors = FC_TILE / FC_LANES };
    const uint8_t ones[4] = {1, 1, 1, 1};
    const ptrdiff_t down = p->b[2], right = p->b[3];
    fc_ints sums[vectors];
    memset(sums, 0, sizeof sums);
    for (int k = 0; k < p->length; k += 4, b += 4 * down) {
        uint8_t own[4 * FC_TILE];
        if (count == FC_TILE && right == 1 && k + 4 <= p->length) {
            fc_ints four[vectors];
            fc_taps(four, b, b + down, b + 2 * down, b + 3 * down);
            memcpy(own, four, sizeof own);
        } else {
            memset(own, 128, sizeof own);
            for (int c = 0; c < count; c++)
                for (int i = 0; i < fc_min(4, p->length - k); i++)
                    own[4 * c + i] = b[i * down + c * right];
        }
        for (int i = 0; i < 4 * FC_TILE; i++)
            own[i] ^= 128;
        memcpy(to->bytes + k * FC_TILE, own, sizeof own);
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            sums[v] = fc_dot_wide(sums[v], fc_splat(ones), fc_weights(to->bytes + k * FC_TILE + 4 * FC_LANES * v));
    }
    memcpy(to->begin, sums, sizeof to->begin);
    for (int c = 0; c < FC_TILE; c++)
        to->begin[c] *= -p->a_zero;
}

/* Sums of four rows, which need not be different ones. */
FC_INLINE void fc_product_of_rows(
    int32_t (*sums)[FC_TILE], const uint8_t *const *rows, const struct fc_packed *packed, const struct fc_product *p)
{
    enum { vectors = FC_TILE / FC_LANES };
    const int whole = p->length & ~3;
    fc_ints of[FC_PRODUCT_ROWS * vectors];
    FC_UNROLL
    for (int i = 0; i < FC_PRODUCT_ROWS * vectors; i++)
        of[i] = fc_load_ints(packed->begin + i % vectors * FC_LANES);
    for (int k = 0; k < p->length; k += 4) {
        uint8_t last[FC_PRODUCT_ROWS][4] = {{0}};
        if (k == whole)
            for (int r = 0; r < FC_PRODUCT_ROWS; r++)
                memcpy(last[r], rows[r] + k, (size_t)(p->length - k));
        FC_UNROLL
        for (int v = 0; v < vectors; v++) {
            const fc_ints weights = fc_weights(packed->bytes + k * FC_TILE + 4 * FC_LANES * v);
            FC_UNROLL
            for (int r = 0; r < FC_PRODUCT_ROWS; r++)
                of[r * vectors + v] = fc_dot_wide(of[r * vectors + v], fc_splat(k == whole ? last[r] : rows[r] + k), weights);
        }
    }
    for (int r = 0; r < FC_PRODUCT_ROWS; r++) {
        memcpy(sums[r], of + r * vectors, sizeof sums[r]);
        int32_t total = 0;
        for (int k = 0; k < p->length; k++)
            total += rows[r][k];
        total = (p->b_zero - 128) * (total - p->length * p->a_zero);
        for (int c = 0; c < FC_TILE; c++)
            sums[r][c] -= total;
    }
}

/* Whether this is faster than one row after the other: what is packed has to be read again. */
FC_INLINE int fc_in_rows(const struct fc_product *p)
{
    return p->count[2] >= FC_PRODUCT_ROWS && p->length <= FC_PRODUCT_LENGTH;
}

/* The same for all rows of a tile; bytes, or floats where there are no bytes. */
FC_INLINE void fc_product_tile(
    uint8_t *bytes, float *reals, const uint8_t *a, const uint8_t *b, int count, const struct fc_product *p)
{
    enum { vectors = FC_TILE / FC_LANES };
    struct fc_packed packed;
    uint8_t lines[FC_PRODUCT_ROWS][FC_PRODUCT_LENGTH];
    fc_pack_product(&packed, b, count, p);
    for (int row = 0; row < p->count[2]; row += FC_PRODUCT_ROWS) {
        const int some = fc_min(FC_PRODUCT_ROWS, p->count[2] - row);
        const uint8_t *rows[FC_PRODUCT_ROWS];
        int32_t sums[FC_PRODUCT_ROWS][FC_TILE];
        for (int r = 0; r < FC_PRODUCT_ROWS; r++) {
            rows[r] = r < some ? a + (ptrdiff_t)(row + r) * p->a[2] : rows[0];
            if (p->a[3] == 1 || r >= some)
                continue;
            for (int k = 0; k < p->length; k++)
                lines[r][k] = rows[r][(ptrdiff_t)k * p->a[3]];
            rows[r] = lines[r];
        }
        fc_product_of_rows(sums, rows, &packed, p);
        for (int r = 0; r < some; r++) {
            const ptrdiff_t at = (ptrdiff_t)(row + r) * p->y[2];
            uint8_t own[FC_TILE];
            float each[FC_TILE];
            fc_reals x[vectors];
            FC_UNROLL
            for (int v = 0; v < vectors; v++)
                x[v] = fc_mul(fc_reals_of(fc_load_ints(sums[r] + v * FC_LANES)), fc_real(p->factor));
            if (bytes) {
                fc_store_bytes(own, FC_TILE, vectors, x, &p->code);
                for (int c = 0; c < count; c++)
                    bytes[at + (ptrdiff_t)c * p->y[3]] = own[c];
                continue;
            }
            FC_UNROLL
            for (int v = 0; v < vectors; v++)
                fc_store_reals(each + v * FC_LANES, x[v]);
            for (int c = 0; c < count; c++)
                reals[at + (ptrdiff_t)c * p->y[3]] = each[c];
        }
    }
}

/* All of it, where that is faster. */
FC_INLINE int fc_product_in_rows(
    uint8_t *bytes, float *reals, const uint8_t *a, const uint8_t *b, const struct fc_product *given)
{
    const struct fc_product own = *given, *p = &own; /* no byte that is written can be one of these */
    if (!fc_in_rows(p))
        return 0;
    for (int i0 = 0; i0 < p->count[0]; i0++) {
        for (int i1 = 0; i1 < p->count[1]; i1++) {
            for (int column = 0; column < p->count[3]; column += FC_TILE) {
                const ptrdiff_t at = FC_PLACE(p->y, 0, column);
                fc_product_tile(
                    bytes ? bytes + at : bytes, bytes ? reals : reals + at, a + FC_PLACE(p->a, 0, 0),
                    b + FC_PLACE(p->b, 0, column), fc_min(FC_TILE, p->count[3] - column), p);
            }
        }
    }
    return 1;
}
#else
#define fc_product_in_rows(bytes, reals, a, b, p) 0
#endif

#define FC_PRODUCT(name, to, type, sum, add_up, result, in_rows) \
    FC_KERNEL void name(to *y, const type *a, const type *b, const struct fc_product *p) \
    { \
        if (in_rows) \
            return; \
        FC_FOR_EACH_TILE(p) { \
            sum sums[FC_TILE]; \
            const int count = fc_min(FC_TILE, p->count[3] - column); \
            add_up(sums, a + FC_PLACE(p->a, row, 0), b + FC_PLACE(p->b, 0, column), count, p); \
            for (int i = 0; i < count; i++) \
                y[FC_PLACE(p->y, row, column + i)] = result; \
        } \
    }
FC_PRODUCT(
    fc_product_bytes, uint8_t, uint8_t, int32_t, fc_product_of_bytes, fc_scaled_byte(sums[i], p->factor, &p->code),
    fc_product_in_rows(y, NULL, a, b, p))
FC_PRODUCT(
    fc_product_reals, float, uint8_t, int32_t, fc_product_of_bytes, fc_scaled(sums[i], p->factor),
    fc_product_in_rows(NULL, y, a, b, p))
FC_PRODUCT(fc_product_floats, float, float, float, fc_product_of_floats, sums[i], 0)
#undef FC_PRODUCT
#undef FC_FOR_EACH_TILE
#undef FC_PLACE

#endif
