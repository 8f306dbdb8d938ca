/* Depthwise convolutions on bytes: each channel has a window of its own, 16 channels at a time.

   Four taps of a column of the window lie side by side in each lane, so that the dot product of a layer adds them up.
   Weights lie as [tile of 16 channels][column][four rows][channel][row], filled up with zeros. */
#ifndef FC_DEPTHWISE_H
#define FC_DEPTHWISE_H

#include "layer.h"

struct fc_depthwise {
    int32_t images, rows, columns;
    int32_t x_image, x_row, x_column;
    int32_t y_image, y_row, y_column;
    int32_t taps_y, taps_x, tap_y, tap_x; /* the window, and bytes between its rows and columns */
    int32_t channels;
    struct fc_code code;
    const uint8_t *wide;
};

FC_INLINE void fc_depthwise_one(
    const int wide, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_depthwise *d,
    const struct fc_written *to, int32_t at, int count)
{
    enum { vectors = FC_TILE / FC_LANES };
    fc_ints sums[vectors];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = fc_load_ints(bias + v * FC_LANES);
    for (int c = 0; c < d->taps_x; c++) {
        for (int r = 0; r < d->taps_y; r += 4) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) /* beyond the window the last row again, times zero */
                rows[i] = x + (ptrdiff_t)fc_min(r + i, d->taps_y - 1) * d->tap_y + (ptrdiff_t)c * d->tap_x;
            fc_ints four[vectors];
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

FC_INLINE void fc_depthwise_run(
    struct fc_written to, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_depthwise *d)
{
    const struct fc_written all = to;
    const ptrdiff_t size = (ptrdiff_t)d->taps_x * ((d->taps_y + 3) / 4) * 4 * FC_TILE;
    for (int image = 0; image < d->images; image++) {
        for (int row = 0; row < d->rows; row++) {
            for (int c = 0, tile = 0; c < d->channels; c += FC_TILE, tile++) {
                const uint8_t *from = x + (ptrdiff_t)image * d->x_image + (ptrdiff_t)row * d->x_row + c;
                int32_t at = image * d->y_image + row * d->y_row;
                const int count = fc_min(FC_TILE, d->channels - c);
                to.bytes = all.bytes ? all.bytes + c : 0;
                to.reals = all.reals ? all.reals + c : 0;
                to.factor = all.factor + c;
                to.bias = all.bias ? all.bias + c : 0;
                const int wide = d->wide && d->wide[tile];
                for (int column = 0; column < d->columns; column++, from += d->x_column, at += d->y_column) {
                    if (wide)
                        fc_depthwise_one(1, from, weights + tile * size, bias + c, d, &to, at, count);
                    else
                        fc_depthwise_one(0, from, weights + tile * size, bias + c, d, &to, at, count);
                }
            }
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
