/* Depthwise convolutions on bytes: each channel has a window of its own, 16 channels at a time.

   Four taps of a column of the window lie side by side in each lane, so that the dot product of a layer adds them up.
   Weights lie as [tile of 16 channels][column][four rows][channel][row], filled up with zeros. */
#ifndef FC_DEPTHWISE_H
#define FC_DEPTHWISE_H

#include "layer_sums.h"

struct fc_depthwise {
    int32_t images, rows, columns;
    int32_t x_image, x_row, x_column;
    int32_t y_image, y_row, y_column;
    int32_t taps_y, taps_x, tap_y, tap_x; /* the window, and bytes between its rows and columns */
    int32_t channels;
    struct fc_code code;
    const uint8_t *wide;
};

#if defined(FC_MVE)
#include "depthwise_mve.h"
#elif defined(FC_DSP)
#include "depthwise_dsp.h"
#elif defined(FC_SMALL)

/* The sum of one channel's window; its weights lie four rows by four, a column of them 4 * FC_TILE apart. */
FC_INLINE int32_t fc_depthwise_sum(
    int32_t sum, const uint8_t *x, const int8_t *w, int taps_y, int taps_x, ptrdiff_t down, ptrdiff_t right)
{
    if (taps_y == 3) {
        const uint8_t *second = x + down, *third = second + down;
        for (int tx = 0; tx < taps_x; tx++, x += right, second += right, third += right, w += 4 * FC_TILE) {
            sum += *x * w[0];
            sum += *second * w[1];
            sum += *third * w[2];
        }
        return sum;
    }
    for (int tx = 0; tx < taps_x; tx++, x += right) {
        const uint8_t *p = x;
        for (int left = taps_y; left > 0; left -= 4, w += 4 * FC_TILE)
            for (int ty = 0; ty < 4 && ty < left; ty++, p += down)
                sum += *p * w[ty];
    }
    return sum;
}

/* A row of positions for one tile of channels, channel by channel. */
static __attribute__((noinline, unused)) void fc_depthwise_row(
    const int vectors, const int wide, const int both, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_depthwise *d, const struct fc_written *to, int32_t at, int count)
{
    const int taps_y = d->taps_y, taps_x = d->taps_x;
    const ptrdiff_t down = d->tap_y, right = d->tap_x;
    (void)vectors, (void)wide, (void)both;
    for (int column = 0; column < d->columns; column++, x += d->x_column, at += d->y_column) {
        int32_t sums[FC_TILE];
        for (int c = 0; c < count; c++)
            sums[c] = fc_depthwise_sum(bias[c], x + c, weights + 4 * c, taps_y, taps_x, down, right);
        fc_layer_write(to, at, count, sums);
    }
}

#else

FC_INLINE void fc_depthwise_one(
    const int vectors, const int wide, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_depthwise *d,
    const struct fc_written *to, int32_t at, int count)
{
    fc_ints sums[FC_TILE / FC_LANES];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = fc_load_ints(bias + v * FC_LANES);
    for (int c = 0; c < d->taps_x; c++) {
        for (int r = 0; r < d->taps_y; r += 4) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) /* beyond the window the last row again, times zero */
                rows[i] = x + (ptrdiff_t)fc_min(r + i, d->taps_y - 1) * d->tap_y + (ptrdiff_t)c * d->tap_x;
            fc_ints four[FC_TILE / FC_LANES];
            fc_taps(four, rows[0], rows[1], rows[2], rows[3]);
            FC_UNROLL
            for (int v = 0; v < vectors; v++) {
                const fc_ints w = fc_weights(weights + v * 4 * FC_LANES);
                sums[v] = wide ? fc_dot_wide(sums[v], four[v], w) : fc_dot(sums[v], four[v], w);
            }
            weights += 4 * FC_TILE;
        }
    }
    fc_layer_write(to, at, count, vectors, sums);
}

#if defined(FC_STORED)
#define FC_DEPTHWISE_TOGETHER(vectors, rows) (FC_STORED / ((vectors) * (rows))) /* columns whose bytes are rounded together */
#else
#define FC_DEPTHWISE_TOGETHER(vectors, rows) 1
#endif

/* One position further: of the three columns of its window `step` are new, of rows that lie `away` from x. */
FC_INLINE const uint8_t *fc_depthwise_next(
    fc_ints columns[3][FC_TILE / FC_LANES], const int step, const uint8_t *x, const ptrdiff_t *away, ptrdiff_t tap_x)
{
    FC_UNROLL
    for (int v = 0; v < FC_TILE / FC_LANES; v++) {
        columns[0][v] = columns[step][v];
        columns[1][v] = columns[2][v];
    }
    FC_UNROLL
    for (int c = 3 - step; c < 3; c++, x += tap_x)
        fc_taps(columns[c], x, x + away[1], x + away[2], x + away[3]);
    return x;
}

/* A row of positions, or two that lie below each other, whose windows are three columns of at most four rows side by side.

   Each column is put in order once. The lower one of two windows of three rows has its weights one row further down. */
FC_INLINE void fc_depthwise_three(
    const int vectors, const int wide, const int both, const int step, const uint8_t *x, const int8_t *weights,
    const int32_t *bias,
    const struct fc_depthwise *d, const struct fc_written *to, int32_t at, int count)
{
    const int together = FC_DEPTHWISE_TOGETHER(vectors, both);
    fc_ints w[2][3][FC_TILE / FC_LANES], columns[3][FC_TILE / FC_LANES];
    ptrdiff_t away[4];
    FC_UNROLL
    for (int i = 0; i < 4; i++)
        away[i] = (ptrdiff_t)(both == 2 ? i : fc_min(i, d->taps_y - 1)) * d->tap_y;
    FC_UNROLL
    for (int c = 0; c < 3; c++)
        FC_UNROLL
        for (int v = 0; v < vectors; v++) {
            w[0][c][v] = fc_weights(weights + (c * FC_TILE + v * FC_LANES) * 4);
#if defined(FC_STORED)
            w[1][c][v] = fc_one_row_down(w[0][c][v]);
#endif
        }
    FC_UNROLL
    for (int c = step; c < 3; c++, x += d->tap_x)
        fc_taps(columns[c], x, x + away[1], x + away[2], x + away[3]);
    for (int column = 0; column < d->columns;) {
        fc_ints sums[4];
        int32_t place[4];
        const int some = fc_min(together, d->columns - column);
        FC_UNROLL
        for (int j = 0; j < together; j++) {
            if (j < some) { /* else the last column once more */
                x = fc_depthwise_next(columns, step, x, away, d->tap_x);
                at += d->y_column;
            }
            FC_UNROLL
            for (int r = 0; r < both; r++) {
                place[j * both + r] = at - d->y_column + r * d->y_row;
                FC_UNROLL
                for (int v = 0; v < vectors; v++) {
                    fc_ints sum = fc_load_ints(bias + v * FC_LANES);
                    FC_UNROLL
                    for (int c = 0; c < 3; c++)
                        sum = wide ? fc_dot_wide(sum, columns[c][v], w[r][c][v]) : fc_dot(sum, columns[c][v], w[r][c][v]);
                    sums[(j * both + r) * vectors + v] = sum;
                }
            }
        }
        fc_layer_write_all(to, place, count, together * both, vectors, sums);
        column += some;
    }
}

#if defined(FC_SCALED)
#include "depthwise_neon.h"
#endif

/* A row of positions for one tile of channels, or two. */
FC_INLINE void fc_depthwise_row(
    const int vectors, const int wide, const int both, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_depthwise *d, const struct fc_written *to, int32_t at, int count)
{
    if (FC_FORMS && d->taps_x == 3 && d->taps_y <= 4) {
#if defined(FC_STORED)
        if (both == 2) {
            fc_depthwise_three(vectors, wide, 2, 1, x, weights, bias, d, to, at, count);
            return;
        }
        if (d->x_column == 2 * d->tap_x) {
            fc_depthwise_three(vectors, wide, 1, 2, x, weights, bias, d, to, at, count);
            return;
        }
#else
        (void)both;
#endif
        if (d->x_column == d->tap_x) {
            fc_depthwise_three(vectors, wide, 1, 1, x, weights, bias, d, to, at, count);
            return;
        }
    }
    for (int column = 0; column < d->columns; column++, x += d->x_column, at += d->y_column)
        fc_depthwise_one(vectors, wide, x, weights, bias, d, to, at, count);
}

#endif

#if defined(FC_STORED)
#include "depthwise_rows.h"
#endif

FC_INLINE void fc_depthwise_run(
    struct fc_written to, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_depthwise *depthwise)
{
#if defined(FC_SMALL)
    const struct fc_depthwise *d = depthwise;
#else
    const struct fc_depthwise own = *depthwise, *d = &own; /* no byte that is written can be one of these */
#endif
    to.code = &d->code;
    const struct fc_written all = to;
#if defined(FC_STORED)
    if (fc_depthwise_in_rows(&all, d)) {
        if (FC_APART && d->wide)
            fc_depthwise_rows(2, &all, x, weights, bias, d);
        else
            fc_depthwise_rows(1, &all, x, weights, bias, d);
        return;
    }
#endif
    const ptrdiff_t size = (ptrdiff_t)d->taps_x * ((d->taps_y + 3) / 4) * 4 * FC_TILE;
#if defined(FC_SCALED)
    int missing = 0; /* tiles that are computed below */
    for (int c = 0; c < d->channels; c += FC_TILE) {
        if (fc_depthwise_fits(weights + c / FC_TILE * size, d->channels - c, d))
            fc_depthwise_nine(all, x, weights + c / FC_TILE * size, bias, c, d);
        else
            missing++;
    }
    if (!missing)
        return;
#endif
#if defined(FC_STORED)
    const int pairs = d->taps_x == 3 && d->taps_y == 3 && d->x_column == d->tap_x && d->x_row == d->tap_y;
#else
    const int pairs = 0;
#endif
    for (int image = 0; image < d->images; image++) {
        for (int row = 0; row < d->rows; row++) {
            const int both = pairs && row + 1 < d->rows ? 2 : 1;
            for (int c = 0, tile = 0; c < d->channels; c += FC_TILE, tile++) {
                const uint8_t *from = x + (ptrdiff_t)image * d->x_image + (ptrdiff_t)row * d->x_row + c;
                const int32_t at = image * d->y_image + row * d->y_row;
                const int count = fc_min(FC_TILE, d->channels - c);
                to.bytes = all.bytes ? all.bytes + c : 0;
                to.reals = all.reals ? all.reals + c : 0;
                to.factor = all.factor + c;
#if defined(FC_STORED)
                to.bounded = fc_bounded(to.factor);
#endif
                to.bias = all.bias ? all.bias + c : 0;
                const int wide = FC_PAIRS && d->wide && d->wide[tile];
                const int8_t *w = weights + tile * size;
#if defined(FC_SCALED)
                if (fc_depthwise_fits(w, count, d))
                    continue;
#endif
                if (FC_FORMS && FC_LANES <= 8 && count <= 8 && wide)
                    fc_depthwise_row(FC_VECTORS(8), 1, both, from, w, bias + c, d, &to, at, count);
                else if (FC_FORMS && FC_LANES <= 8 && count <= 8)
                    fc_depthwise_row(FC_VECTORS(8), 0, both, from, w, bias + c, d, &to, at, count);
                else if (wide)
                    fc_depthwise_row(FC_VECTORS(16), 1, both, from, w, bias + c, d, &to, at, count);
                else
                    fc_depthwise_row(FC_VECTORS(16), 0, both, from, w, bias + c, d, &to, at, count);
            }
            row += both - 1;
        }
    }
}

FC_KERNEL void fc_depthwise_bytes(
    uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor,
    const struct fc_depthwise *d)
{
    fc_depthwise_run((struct fc_written){.bytes = y, .factor = factor, .code = &d->code}, x, weights, bias, d);
}

FC_KERNEL void fc_depthwise_reals(
    float *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const float *real_bias,
    const struct fc_depthwise *d)
{
    fc_depthwise_run((struct fc_written){.reals = y, .factor = factor, .bias = real_bias, .code = &d->code}, x, weights, bias, d);
}

#endif
