/* Matrix products of two tensors that are computed at run time. */
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

#define FC_PRODUCT(name, to, type, sum, add_up, result) \
    FC_KERNEL void name(to *y, const type *a, const type *b, const struct fc_product *p) \
    { \
        FC_FOR_EACH_TILE(p) { \
            sum sums[FC_TILE]; \
            const int count = fc_min(FC_TILE, p->count[3] - column); \
            add_up(sums, a + FC_PLACE(p->a, row, 0), b + FC_PLACE(p->b, 0, column), count, p); \
            for (int i = 0; i < count; i++) \
                y[FC_PLACE(p->y, row, column + i)] = result; \
        } \
    }
FC_PRODUCT(fc_product_bytes, uint8_t, uint8_t, int32_t, fc_product_of_bytes, fc_scaled_byte(sums[i], p->factor, &p->code))
FC_PRODUCT(fc_product_reals, float, uint8_t, int32_t, fc_product_of_bytes, fc_scaled(sums[i], p->factor))
FC_PRODUCT(fc_product_floats, float, float, float, fc_product_of_floats, sums[i])
#undef FC_PRODUCT
#undef FC_FOR_EACH_TILE
#undef FC_PLACE

#endif
