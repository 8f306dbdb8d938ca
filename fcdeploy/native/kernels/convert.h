/* Numbers of one type as those of another, and the largest or smallest of several in their order. */
#ifndef FC_CONVERT_H
#define FC_CONVERT_H

#include "bytes.h"

/* What lies in front of the point; what is no number is 0, and what is out of range the nearest that is in it. */
FC_INLINE int64_t fc_whole(float x, float low, float high, int64_t least, int64_t most)
{
    return x != x ? 0 : x >= high ? most : x < low ? least : (int64_t)x;
}

#define FC_CONVERT(name, from, to, value)                                                                         \
    FC_KERNEL void name(to *y, const from *a, const struct fc_loop *l)                                            \
    {                                                                                                             \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            to *target = y + FC_OFFSET(l->y);                                                                     \
            const from *source = a + FC_OFFSET(l->a);                                                             \
            for (int i = 0; i < l->count[3]; i++) {                                                               \
                const from x = source[(ptrdiff_t)i * l->a[3]];                                                    \
                target[(ptrdiff_t)i * l->y[3]] = (to)(value);                                                     \
            }                                                                                                     \
        }                                                                                                         \
    }
FC_CONVERT(fc_convert_float32_int64, float, int64_t, fc_whole(x, -0x1p63f, 0x1p63f, INT64_MIN, INT64_MAX))
FC_CONVERT(fc_convert_float32_int32, float, int32_t, fc_whole(x, -0x1p31f, 0x1p31f, INT32_MIN, INT32_MAX))
FC_CONVERT(fc_convert_float32_uint8, float, uint8_t, fc_whole(x, 0.0f, 256.0f, 0, 255))
FC_CONVERT(fc_convert_int64_float32, int64_t, float, x)
FC_CONVERT(fc_convert_int32_float32, int32_t, float, x)
FC_CONVERT(fc_convert_bool_float32, uint8_t, float, x)
FC_CONVERT(fc_convert_int32_int64, int32_t, int64_t, x)
FC_CONVERT(fc_convert_int64_int32, int64_t, int32_t, (uint32_t)x)
#undef FC_CONVERT

struct fc_order {
    int32_t count[4]; /* loops around the searches */
    int32_t y[4], i[4], a[4];
    int32_t length, kept, y_step, i_step, a_step; /* elements that are looked at, and how many are kept */
};

/* Each search finds the best behind the one before: `better` says whether x stands in front of z, of equal ones the first. */
#define FC_ORDER(name, type, better)                                                                              \
    FC_KERNEL void name(type *y, int64_t *index, const type *a, const struct fc_order *s)                         \
    {                                                                                                             \
        FC_FOR_EACH_RUN(s) {                                                                                      \
            for (int inner = 0; inner < s->count[3]; inner++) {                                                   \
                const type *from = a + FC_OFFSET(s->a) + (ptrdiff_t)inner * s->a[3];                              \
                type *values = y + FC_OFFSET(s->y) + (ptrdiff_t)inner * s->y[3];                                  \
                int64_t *places = index + FC_OFFSET(s->i) + (ptrdiff_t)inner * s->i[3];                           \
                int last = -1;                                                                                    \
                for (int k = 0; k < s->kept; k++) {                                                               \
                    int best = -1;                                                                                \
                    for (int i = 0; i < s->length; i++) {                                                         \
                        const type x = from[(ptrdiff_t)i * s->a_step];                                            \
                        if (last >= 0) {                                                                          \
                            const type z = from[(ptrdiff_t)last * s->a_step];                                     \
                            if (!(z better x) && !(x == z && i > last))                                           \
                                continue;                                                                         \
                        }                                                                                         \
                        if (best < 0 || x better from[(ptrdiff_t)best * s->a_step])                               \
                            best = i;                                                                             \
                    }                                                                                             \
                    last = best < 0 ? 0 : best; /* what is no number has no order */                              \
                    values[(ptrdiff_t)k * s->y_step] = from[(ptrdiff_t)last * s->a_step];                         \
                    places[(ptrdiff_t)k * s->i_step] = last;                                                      \
                }                                                                                                 \
            }                                                                                                     \
        }                                                                                                         \
    }
FC_ORDER(fc_largest_bytes, uint8_t, >)
FC_ORDER(fc_smallest_bytes, uint8_t, <)
FC_ORDER(fc_largest_reals, float, >)
FC_ORDER(fc_smallest_reals, float, <)
#undef FC_ORDER

#endif
