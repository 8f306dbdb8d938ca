/* Convolutions and dense layers on floats. Each output is summed up from the first weight to the last, so that any number
   of channels side by side gives the same bits. Weights lie as [tile of 16 channels][tap][element][channel]. */
#ifndef FC_FLOAT_LAYER_H
#define FC_FLOAT_LAYER_H

#include "vectors.h"

struct fc_float_layer {
    int32_t images, rows, columns;
    int32_t x_image, x_row, x_column; /* elements from one row or pixel of the input to the next */
    int32_t y_image, y_row, y_column;
    int32_t taps_y, taps_x, length;   /* the window, and elements of a tap */
    int32_t step_y, step_x, gap_y, gap_x, before_y, before_x; /* stride, dilation, padding */
    int32_t x_rows, x_columns;        /* what lies outside is 0 */
    int32_t groups, x_group, outs;
};

FC_INLINE void fc_float_tile(
    float *y, const float *x, const float *weights, const float *bias, const struct fc_float_layer *l, int row, int column,
    int count)
{
    enum { vectors = FC_TILE / FC_LANES };
    fc_reals sums[vectors];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = fc_load_reals(bias + v * FC_LANES);
    for (int ty = 0; ty < l->taps_y; ty++) {
        for (int tx = 0; tx < l->taps_x; tx++, weights += (ptrdiff_t)l->length * FC_TILE) {
            const int from_y = row * l->step_y + ty * l->gap_y - l->before_y;
            const int from_x = column * l->step_x + tx * l->gap_x - l->before_x;
            if (from_y < 0 || from_y >= l->x_rows || from_x < 0 || from_x >= l->x_columns)
                continue; /* adding 0 changes nothing */
            const float *run = x + (ptrdiff_t)from_y * l->x_row + (ptrdiff_t)from_x * l->x_column;
            const float *w = weights;
            for (int k = 0; k < l->length; k++, w += FC_TILE) {
                const fc_reals one = fc_real(run[k]);
                FC_UNROLL
                for (int v = 0; v < vectors; v++)
                    sums[v] = fc_add(sums[v], fc_mul(one, fc_load_reals(w + v * FC_LANES)));
            }
        }
    }
    float out[FC_TILE];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        fc_store_reals(out + v * FC_LANES, sums[v]);
    memcpy(y, out, (size_t)count * sizeof(float));
}

FC_KERNEL void fc_float_layer(
    float *y, const float *x, const float *weights, const float *bias, const struct fc_float_layer *l)
{
    const ptrdiff_t size = (ptrdiff_t)l->taps_y * l->taps_x * l->length * FC_TILE;
    for (int g = 0, tile = 0; g < l->groups; g++) {
        for (int c = 0; c < l->outs; c += FC_TILE, tile++) {
            for (int image = 0; image < l->images; image++)
                for (int row = 0; row < l->rows; row++)
                    for (int column = 0; column < l->columns; column++)
                        fc_float_tile(
                            y + (ptrdiff_t)image * l->y_image + (ptrdiff_t)row * l->y_row + (ptrdiff_t)column * l->y_column +
                                g * l->outs + c,
                            x + (ptrdiff_t)image * l->x_image + g * l->x_group,
                            weights + tile * size, bias + tile * FC_TILE, l, row, column, fc_min(FC_TILE, l->outs - c));
        }
    }
}

#endif
