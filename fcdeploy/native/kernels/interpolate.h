/* Elements between others, along straight lines: columns first, then rows. */
#ifndef FC_INTERPOLATE_H
#define FC_INTERPOLATE_H

#include "common.h"

struct fc_interpolate {
    int32_t images, rows, columns, channels;
    int32_t x_image, x_channel, y_image, y_row, y_column, y_channel; /* elements between them */
    float zero, scale, y_scale;                                      /* of bytes in and out */
    struct fc_code code;
};

/* Lines are, for each output, the offsets of its two elements in the input and the part of the way between them. */

#define FC_INTERPOLATE(name, type, real, write)                                                                   \
    FC_KERNEL void name(                                                                                          \
        type *y, const type *x, const int32_t *row_first, const int32_t *row_second, const float *row_part,       \
        const int32_t *column_first, const int32_t *column_second, const float *column_part,                      \
        const struct fc_interpolate *p)                                                                           \
    {                                                                                                             \
        for (int image = 0; image < p->images; image++)                                                           \
            for (int row = 0; row < p->rows; row++)                                                               \
                for (int column = 0; column < p->columns; column++)                                               \
                    for (int c = 0; c < p->channels; c++) {                                                       \
                        const type *from = x + (ptrdiff_t)image * p->x_image + (ptrdiff_t)c * p->x_channel;       \
                        const type *above = from + row_first[row], *below = from + row_second[row];               \
                        const int left = column_first[column], right = column_second[column];                     \
                        const float part = column_part[column], rest = 1.0f - part;                               \
                        const float a = real(above[left]) * rest, b = real(above[right]) * part, up = a + b;      \
                        const float d = real(below[left]) * rest, e = real(below[right]) * part, down = d + e;    \
                        const float f = up * (1.0f - row_part[row]), g = down * row_part[row], value = f + g;     \
                        y[(ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row + (ptrdiff_t)column * p->y_column + \
                          (ptrdiff_t)c * p->y_channel] = write(value);                                            \
                    }                                                                                             \
    }
#define FC_AS_IT_IS(value) (value)
#define FC_REAL_OF(byte) (((float)(byte) - p->zero) * p->scale)
#define FC_BYTE_OF(value) fc_byte((value) / p->y_scale, &p->code)
FC_INTERPOLATE(fc_interpolate_reals, float, FC_AS_IT_IS, FC_AS_IT_IS)
FC_INTERPOLATE(fc_interpolate_bytes, uint8_t, FC_REAL_OF, FC_BYTE_OF)
#undef FC_INTERPOLATE
#undef FC_AS_IT_IS
#undef FC_REAL_OF
#undef FC_BYTE_OF

#endif
