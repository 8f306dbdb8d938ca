/* Pools: the largest element or the mean of each window, and of whole images. Windows end where the input does. */
#ifndef FC_POOL_H
#define FC_POOL_H

#include "vectors.h"

struct fc_pool {
    int32_t images, rows, columns, channels;
    int32_t x_rows, x_columns;                      /* of the input */
    int32_t x_image, x_row, x_column;               /* elements between its rows and pixels */
    int32_t y_image, y_row, y_column;
    int32_t taps_y, taps_x, step_y, step_x, gap_y, gap_x, before_y, before_x; /* window, stride, dilation, padding */
    int32_t behind;                                 /* whether 16 elements may be read wherever there is one */
    int32_t counted;                                /* elements that a mean divides by; 0: those inside the input */
    float zero, scale, y_scale;                     /* of bytes in and out */
    struct fc_code code;
};

/* Calls `tap` for each element of a window that lies inside the input: `from` is its first channel. */
#define FC_FOR_EACH_TAP(p)                                                                                        \
    for (int ty = 0; ty < (p)->taps_y; ty++)                                                                      \
        for (int tx = 0; tx < (p)->taps_x; tx++)                                                                  \
            if ((unsigned)(row * (p)->step_y + ty * (p)->gap_y - (p)->before_y) < (unsigned)(p)->x_rows &&         \
                (unsigned)(column * (p)->step_x + tx * (p)->gap_x - (p)->before_x) < (unsigned)(p)->x_columns)

#define FC_TAP(p)                                                                                                 \
    ((ptrdiff_t)image * (p)->x_image + (ptrdiff_t)(row * (p)->step_y + ty * (p)->gap_y - (p)->before_y) * (p)->x_row + \
     (ptrdiff_t)(column * (p)->step_x + tx * (p)->gap_x - (p)->before_x) * (p)->x_column + c)

#define FC_FOR_EACH_WINDOW(p)                                                                                     \
    for (int image = 0; image < (p)->images; image++)                                                             \
        for (int row = 0; row < (p)->rows; row++)                                                                 \
            for (int column = 0; column < (p)->columns; column++)                                                 \
                for (int c = 0; c < (p)->channels; c += FC_TILE)

#define FC_MAX_POOL(name, type, lowest)                                                                           \
    FC_KERNEL void name(type *y, const type *x, const struct fc_pool *p)                                          \
    {                                                                                                             \
        FC_FOR_EACH_WINDOW(p) {                                                                                   \
            type most[FC_TILE];                                                                                   \
            const int count = fc_min(FC_TILE, p->channels - c);                                                   \
            for (int i = 0; i < FC_TILE; i++)                                                                     \
                most[i] = lowest;                                                                                 \
            FC_FOR_EACH_TAP(p) {                                                                                  \
                const type *from = x + FC_TAP(p);                                                                 \
                if (count == FC_TILE || p->behind)                                                                \
                    for (int i = 0; i < FC_TILE; i++)                                                             \
                        most[i] = from[i] > most[i] ? from[i] : most[i];                                          \
                else                                                                                              \
                    for (int i = 0; i < count; i++)                                                               \
                        most[i] = from[i] > most[i] ? from[i] : most[i];                                          \
            }                                                                                                     \
            type *to = y + (ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row + (ptrdiff_t)column * p->y_column + c; \
            memcpy(to, most, (size_t)count * sizeof(type));                                                       \
        }                                                                                                         \
    }
FC_MAX_POOL(fc_max_pool_bytes, uint8_t, 0)
FC_MAX_POOL(fc_max_pool_reals, float, -__builtin_inff())
#undef FC_MAX_POOL

/* Sums of floats in the order of the window, from its first row on, divided by how many there are. */
FC_KERNEL void fc_average_pool_bytes(uint8_t *y, const uint8_t *x, const struct fc_pool *p)
{
    FC_FOR_EACH_WINDOW(p) {
        float sum[FC_TILE] = {0};
        int inside = 0;
        const int count = fc_min(FC_TILE, p->channels - c);
        FC_FOR_EACH_TAP(p) {
            const uint8_t *from = x + FC_TAP(p);
            inside++;
            for (int i = 0; i < count; i++)
                sum[i] += fc_scaled(from[i] - (int)p->zero, p->scale);
        }
        uint8_t *to = y + (ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row + (ptrdiff_t)column * p->y_column + c;
        const float divisor = (float)(p->counted ? p->counted : inside);
        for (int i = 0; i < count; i++)
            to[i] = fc_byte(sum[i] / divisor / p->y_scale, &p->code);
    }
}

FC_KERNEL void fc_average_pool_reals(float *y, const float *x, const struct fc_pool *p)
{
    FC_FOR_EACH_WINDOW(p) {
        float sum[FC_TILE] = {0};
        int inside = 0;
        const int count = fc_min(FC_TILE, p->channels - c);
        FC_FOR_EACH_TAP(p) {
            const float *from = x + FC_TAP(p);
            inside++;
            for (int i = 0; i < count; i++)
                sum[i] += from[i];
        }
        float *to = y + (ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row + (ptrdiff_t)column * p->y_column + c;
        const float divisor = (float)(p->counted ? p->counted : inside);
        for (int i = 0; i < count; i++)
            to[i] = sum[i] / divisor;
    }
}

struct fc_global {
    int32_t images, rows, columns, channels;
    int32_t x_image, x_row, x_column, y_image;
    int32_t offset; /* -zero point times the number of pixels */
    float factor;
    struct fc_code code;
};

FC_KERNEL void fc_global_average(uint8_t *y, const uint8_t *x, const struct fc_global *g)
{
    for (int image = 0; image < g->images; image++) {
        for (int c = 0; c < g->channels; c += FC_TILE) {
            int32_t sum[FC_TILE];
            const int count = fc_min(FC_TILE, g->channels - c);
            for (int i = 0; i < FC_TILE; i++)
                sum[i] = g->offset;
            for (int row = 0; row < g->rows; row++) {
                for (int column = 0; column < g->columns; column++) {
                    const uint8_t *from =
                        x + (ptrdiff_t)image * g->x_image + (ptrdiff_t)row * g->x_row + (ptrdiff_t)column * g->x_column + c;
                    if (count == FC_TILE)
                        for (int i = 0; i < FC_TILE; i++)
                            sum[i] += from[i];
                    else
                        for (int i = 0; i < count; i++)
                            sum[i] += from[i];
                }
            }
            for (int i = 0; i < count; i++)
                y[(ptrdiff_t)image * g->y_image + c + i] = fc_scaled_byte(sum[i], g->factor, &g->code);
        }
    }
}

#endif
