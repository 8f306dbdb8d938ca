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

#if FC_BLOCKS
#define FC_POOL_ROW 1024 /* bytes of a row that are looked at together */

/* Whether all windows end inside an input whose pixels lie side by side, and one is no longer than a row. */
FC_INLINE int fc_pool_in_rows(const struct fc_pool *p)
{
    const int reach = (p->taps_x - 1) * p->gap_x + 1;
    return !p->before_y && !p->before_x && p->x_column == p->channels && p->y_column == p->channels &&
           (p->rows - 1) * p->step_y + (p->taps_y - 1) * p->gap_y < p->x_rows &&
           (p->columns - 1) * p->step_x + reach <= p->x_columns && FC_POOL_ROW / p->channels >= reach;
}

/* Windows of 2 x 2, each by itself: sixteen elements at a time, of which the next windows overwrite what is too much. */
static __attribute__((noinline, unused)) void fc_max_pool_four(uint8_t *y, const uint8_t *x, const struct fc_pool *pool)
{
    const struct fc_pool own = *pool, *p = &own; /* no byte that is written can be one of these */
    const int channels = p->channels, columns = p->columns, step = p->step_x * channels, width = columns * channels;
    const ptrdiff_t across = (ptrdiff_t)p->gap_x * channels, down = (ptrdiff_t)p->gap_y * p->x_row;
    const int follow = p->y_row == width && (p->images == 1 || p->y_image == p->rows * width); /* rows behind each other */
    for (int line = 0, lines = p->images * p->rows; line < lines; line++) {
        const ptrdiff_t image = line / p->rows, row = line % p->rows;
        const uint8_t *from = x + image * p->x_image + row * p->step_y * p->x_row;
        uint8_t *to = y + image * p->y_image + row * p->y_row;
        const int end = follow ? (lines - line) * width : width;
        for (int column = 0; column < columns; column++, from += step) {
            for (int c = 0; c < channels; c += FC_TILE) {
                const uint8_t *window = from + c;
                const int at = column * channels + c;
                uint8_t best[FC_TILE];
                for (int k = 0; k < FC_TILE; k++) {
                    const uint8_t upper = window[k] > window[across + k] ? window[k] : window[across + k];
                    const uint8_t *below = window + down + k;
                    const uint8_t lower = below[0] > below[across] ? below[0] : below[across];
                    best[k] = upper > lower ? upper : lower;
                }
                if (at + FC_TILE <= end)
                    memcpy(to + at, best, FC_TILE);
                else
                    memcpy(to + at, best, (size_t)fc_min(FC_TILE, channels - c));
            }
        }
    }
}

/* The largest of the rows of windows first, for a stretch of all their pixels, then that of their columns. */
static __attribute__((noinline, unused)) void fc_max_pool_rows(uint8_t *y, const uint8_t *x, const struct fc_pool *p)
{
    const int channels = p->channels, reach = (p->taps_x - 1) * p->gap_x + 1;
    const int together = (FC_POOL_ROW / channels - reach) / p->step_x + 1;
    for (int line = 0; line < p->images * p->rows; line++) {
        const int image = line / p->rows, row = line % p->rows;
        const uint8_t *from = x + (ptrdiff_t)image * p->x_image + (ptrdiff_t)row * p->step_y * p->x_row;
        uint8_t *to = y + (ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row;
        for (int first = 0; first < p->columns; first += together) {
            const int columns = fc_min(together, p->columns - first);
            const int width = ((columns - 1) * p->step_x + reach) * channels;
            const uint8_t *part = from + (ptrdiff_t)first * p->step_x * channels;
            uint8_t most[FC_POOL_ROW + FC_TILE];
            memcpy(most, part, (size_t)width);
            memset(most + width, 0, FC_TILE);
            for (int ty = 1; ty < p->taps_y; ty++) {
                const uint8_t *below = part + (ptrdiff_t)ty * p->gap_y * p->x_row;
                for (int i = 0; i < width; i += FC_TILE) { /* gcc 12 sees a separate loop for the rest run on */
                    uint8_t *largest = most + i;
                    const uint8_t *each = below + i;
                    const int count = fc_min(FC_TILE, width - i);
                    if (count == FC_TILE)
                        for (int k = 0; k < FC_TILE; k++)
                            largest[k] = each[k] > largest[k] ? each[k] : largest[k];
                    else
                        for (int k = 0; k < count; k++)
                            largest[k] = each[k] > largest[k] ? each[k] : largest[k];
                }
            }
            for (int column = 0; column < columns; column++) {
                for (int c = 0; c < channels; c += FC_TILE) {
                    const uint8_t *window = most + column * p->step_x * channels + c;
                    const int at = (first + column) * channels + c;
                    uint8_t best[FC_TILE];
                    memcpy(best, window, FC_TILE);
                    for (int tx = 1; tx < p->taps_x; tx++)
                        for (int k = 0; k < FC_TILE; k++) {
                            const uint8_t one = window[tx * p->gap_x * channels + k];
                            best[k] = one > best[k] ? one : best[k];
                        }
                    if (at + FC_TILE <= p->columns * channels) /* what is too much the next ones overwrite */
                        memcpy(to + at, best, FC_TILE);
                    else
                        memcpy(to + at, best, (size_t)fc_min(FC_TILE, channels - c));
                }
            }
        }
    }
}
#endif

#define FC_MAX_POOL(name, type, lowest)                                                                           \
    FC_INLINE void name(type *y, const type *x, const struct fc_pool *p)                                          \
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
FC_MAX_POOL(fc_max_pool_windows, uint8_t, 0)
FC_MAX_POOL(fc_max_pool_floats, float, -__builtin_inff())
#undef FC_MAX_POOL

#if defined(FC_SCALED)
#include "pool_neon.h"
#endif

FC_KERNEL void fc_max_pool_bytes(uint8_t *y, const uint8_t *x, const struct fc_pool *p)
{
#if FC_BLOCKS
    if (fc_pool_in_rows(p)) {
        if (p->taps_y == 2 && p->taps_x == 2 && p->behind)
            fc_max_pool_four(y, x, p);
        else
            fc_max_pool_rows(y, x, p);
        return;
    }
#endif
#if defined(FC_SCALED)
    if (p->channels >= 8) {
        fc_max_pool_channels(y, x, p);
        return;
    }
#endif
    fc_max_pool_windows(y, x, p);
}

FC_KERNEL void fc_max_pool_reals(float *y, const float *x, const struct fc_pool *p) { fc_max_pool_floats(y, x, p); }

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
            if (count == FC_TILE)
                for (int i = 0; i < FC_TILE; i++)
                    sum[i] += fc_scaled(from[i] - (int)p->zero, p->scale);
            else
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
