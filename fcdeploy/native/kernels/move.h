/* Elements in other places, and borders filled. */
#ifndef FC_MOVE_H
#define FC_MOVE_H

#include "bytes.h"

/* Runs of neighbours are copied whole. */
#define FC_COPY(name, type)                                                                                       \
    FC_KERNEL void name(void *to, const void *from, const struct fc_loop *l)                                      \
    {                                                                                                             \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            type *y = (type *)to + FC_OFFSET(l->y);                                                               \
            const type *a = (const type *)from + FC_OFFSET(l->a);                                                 \
            if (l->y[3] == 1 && l->a[3] == 1)                                                                     \
                memcpy(y, a, (size_t)l->count[3] * sizeof(type));                                                 \
            else                                                                                                  \
                for (int i = 0; i < l->count[3]; i++)                                                             \
                    y[(ptrdiff_t)i * l->y[3]] = a[(ptrdiff_t)i * l->a[3]];                                        \
        }                                                                                                         \
    }
FC_COPY(fc_copy_1, uint8_t)
FC_COPY(fc_copy_4, uint32_t)
FC_COPY(fc_copy_8, uint64_t)
#undef FC_COPY

/* The border of an image of bytes: rows above and below it, and what lies beside each row. */
struct fc_border {
    int32_t images, image;          /* images and bytes of one */
    int32_t rows, row;              /* rows between the border's rows, and bytes of a row */
    int32_t top, bottom, left, right; /* rows above and below; bytes beside */
    int32_t value;
};

/* `count` bytes: those beside a row are few, and a call of memset takes longer than they do. */
FC_INLINE void fc_fill_bytes(uint8_t *y, int value, size_t count)
{
#if FC_BLOCKS
    if (count >= FC_TILE && count <= 16 * FC_TILE) {
        uint8_t block[FC_TILE];
        memset(block, value, sizeof block);
        for (size_t i = 0; i + FC_TILE <= count; i += FC_TILE)
            memcpy(y + i, block, sizeof block);
        memcpy(y + count - FC_TILE, block, sizeof block);
        return;
    }
#endif
    memset(y, value, count);
}

/* What is right of one row lies in front of what is left of the next one. */
FC_KERNEL void fc_fill_border(uint8_t *y, const struct fc_border *border)
{
    const struct fc_border b = *border; /* no byte that is written can be one of these */
    const size_t left = (size_t)b.left, right = (size_t)b.right;
    for (int image = 0; image < b.images; image++) {
        uint8_t *first = y + (ptrdiff_t)image * b.image + (ptrdiff_t)b.top * b.row;
        uint8_t *const last = first + (ptrdiff_t)(b.rows - 1) * b.row;
        fc_fill_bytes(first - (size_t)b.top * (size_t)b.row, b.value, (size_t)b.top * (size_t)b.row + left);
        if (left + right)
            for (uint8_t *row = first; row != last; row += b.row)
                fc_fill_bytes(row + b.row - right, b.value, right + left);
        fc_fill_bytes(last + b.row - right, b.value, right + (size_t)b.bottom * (size_t)b.row);
    }
}

FC_KERNEL void fc_fill_1(uint8_t *y, uint8_t value, int32_t count) { memset(y, value, (size_t)count); }

FC_KERNEL void fc_fill_4(float *y, float value, int32_t count)
{
    for (int i = 0; i < count; i++)
        y[i] = value;
}

/* Rows of a tensor by indices that are computed; what is out of range takes the nearest row. */
#define FC_TAKE_ROWS(name, type)                                                                                  \
    FC_KERNEL void name(void *to, const void *from, const type *index, int32_t count, int32_t rows, int32_t bytes) \
    {                                                                                                             \
        for (int i = 0; i < count; i++) {                                                                         \
            int64_t row = index[i] < 0 ? (int64_t)index[i] + rows : index[i];                                     \
            row = row < 0 ? 0 : row >= rows ? rows - 1 : row;                                                     \
            memcpy((uint8_t *)to + (ptrdiff_t)i * bytes, (const uint8_t *)from + (ptrdiff_t)row * bytes,          \
                   (size_t)bytes);                                                                                \
        }                                                                                                         \
    }
FC_TAKE_ROWS(fc_take_rows_4, int32_t)
FC_TAKE_ROWS(fc_take_rows_8, int64_t)
#undef FC_TAKE_ROWS

/* Along the loop `along` by constant indices, given as offsets in elements; l->a has no stride there. */
#define FC_TAKE(name, type)                                                                                       \
    FC_KERNEL void name(void *to, const void *from, const int32_t *offset, int along, const struct fc_loop *l)     \
    {                                                                                                             \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            const int at[4] = {i0, i1, i2, 0};                                                                    \
            type *y = (type *)to + FC_OFFSET(l->y);                                                               \
            const type *a = (const type *)from + FC_OFFSET(l->a);                                                 \
            if (along < 3)                                                                                        \
                a += offset[at[along]];                                                                           \
            if (along < 3 && l->y[3] == 1 && l->a[3] == 1)                                                        \
                memcpy(y, a, (size_t)l->count[3] * sizeof(type));                                                 \
            else                                                                                                  \
                for (int i = 0; i < l->count[3]; i++)                                                             \
                    y[(ptrdiff_t)i * l->y[3]] = along == 3 ? a[offset[i]] : a[(ptrdiff_t)i * l->a[3]];            \
        }                                                                                                         \
    }
FC_TAKE(fc_take_1, uint8_t)
FC_TAKE(fc_take_4, uint32_t)
FC_TAKE(fc_take_8, uint64_t)
#undef FC_TAKE

#endif
