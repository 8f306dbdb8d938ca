/* One of two elements, and the place of the largest or smallest of several. */
#ifndef FC_CHOOSE_H
#define FC_CHOOSE_H

#include "bytes.h"

struct fc_select {
    struct fc_loop loop;
    int32_t c[4]; /* strides of the condition */
};

/* y = c ? a : b */
#define FC_SELECT(name, type)                                                                                     \
    FC_KERNEL void name(type *y, const uint8_t *c, const type *a, const type *b, const struct fc_select *s)       \
    {                                                                                                             \
        const struct fc_loop *l = &s->loop;                                                                       \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            type *to = y + FC_OFFSET(l->y);                                                                       \
            const uint8_t *chosen = c + FC_OFFSET(s->c);                                                          \
            const type *first = a + FC_OFFSET(l->a), *second = b + FC_OFFSET(l->b);                               \
            for (int i = 0; i < l->count[3]; i++)                                                                 \
                to[(ptrdiff_t)i * l->y[3]] =                                                                      \
                    chosen[(ptrdiff_t)i * s->c[3]] ? first[(ptrdiff_t)i * l->a[3]] : second[(ptrdiff_t)i * l->b[3]]; \
        }                                                                                                         \
    }
FC_SELECT(fc_select_bytes, uint8_t)
FC_SELECT(fc_select_reals, float)
#undef FC_SELECT

struct fc_places {
    int32_t outer, count, inner; /* `outer` times `inner` searches among `count` elements */
    int32_t a_outer, a_step, a_inner, y_outer, y_inner;
    int32_t last; /* of equal ones the last */
};

/* The first or last i where x is what `better` says: x is the element, z the best so far. */
#define FC_PLACE(name, type, better)                                                                              \
    FC_KERNEL void name(int64_t *y, const type *a, const struct fc_places *s)                                     \
    {                                                                                                             \
        for (int o = 0; o < s->outer; o++) {                                                                      \
            for (int j = 0; j < s->inner; j++) {                                                                  \
                const type *from = a + (ptrdiff_t)o * s->a_outer + (ptrdiff_t)j * s->a_inner;                     \
                type z = from[0];                                                                                 \
                int at = 0;                                                                                       \
                for (int i = 1; i < s->count; i++) {                                                              \
                    const type x = from[(ptrdiff_t)i * s->a_step];                                                \
                    if ((better) || (s->last && x == z)) {                                                        \
                        z = x;                                                                                    \
                        at = i;                                                                                   \
                    }                                                                                             \
                }                                                                                                 \
                y[(ptrdiff_t)o * s->y_outer + (ptrdiff_t)j * s->y_inner] = at;                                    \
            }                                                                                                     \
        }                                                                                                         \
    }
FC_PLACE(fc_place_max_bytes, uint8_t, x > z)
FC_PLACE(fc_place_min_bytes, uint8_t, x < z)
FC_PLACE(fc_place_max_reals, float, x > z)
FC_PLACE(fc_place_min_reals, float, x < z)
#undef FC_PLACE

#endif
