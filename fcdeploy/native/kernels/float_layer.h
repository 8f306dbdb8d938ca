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

#if FC_FORMS
#define FC_FLOAT_POSITIONS 4 /* side by side: one sum would wait for itself */
#else
#define FC_FLOAT_POSITIONS 1
#endif

/* Up to 16 channels at `positions` neighbouring columns. */
FC_INLINE void fc_float_tile(
    const int positions, float *y, const float *x, const float *weights, const float *bias, const struct fc_float_layer *l,
    int row,
    int column, int count)
{
    enum { vectors = FC_TILE / FC_LANES };
    const ptrdiff_t next = (ptrdiff_t)l->step_x * l->x_column;
    fc_reals sums[FC_FLOAT_POSITIONS * vectors];
    FC_UNROLL
    for (int i = 0; i < positions * vectors; i++)
        sums[i] = fc_load_reals(bias + i % vectors * FC_LANES);
    for (int ty = 0; ty < l->taps_y; ty++) {
        for (int tx = 0; tx < l->taps_x; tx++, weights += (ptrdiff_t)l->length * FC_TILE) {
            const int from_y = row * l->step_y + ty * l->gap_y - l->before_y;
            const int from_x = column * l->step_x + tx * l->gap_x - l->before_x;
            if (from_y < 0 || from_y >= l->x_rows || from_x < 0 || from_x >= l->x_columns)
                continue; /* adding 0 changes nothing */
            const float *run = x + (ptrdiff_t)from_y * l->x_row + (ptrdiff_t)from_x * l->x_column;
            const float *w = weights;
            for (int k = 0; k < l->length; k++, w += FC_TILE) {
                FC_UNROLL
                for (int p = 0; p < positions; p++) {
                    const fc_reals one = fc_real(run[p * next + k]);
                    FC_UNROLL
                    for (int v = 0; v < vectors; v++)
                        sums[p * vectors + v] = fc_add(sums[p * vectors + v], fc_mul(one, fc_load_reals(w + v * FC_LANES)));
                }
            }
        }
    }
    FC_UNROLL
    for (int p = 0; p < positions; p++) {
        float out[FC_TILE];
        FC_UNROLL
        for (int v = 0; v < vectors; v++)
            fc_store_reals(out + v * FC_LANES, sums[p * vectors + v]);
        memcpy(y + p * l->y_column, out, (size_t)count * sizeof(float));
    }
}

#if FC_FORMS
enum { FC_FLOAT_COLUMNS = 32 };

/* One channel at many neighbouring columns, `next` elements apart: what lies side by side are positions, not channels. */
FC_INLINE void fc_float_columns(
    const int next, float *y, const float *x, const float *weights, float bias, const struct fc_float_layer *l, int row,
    int column)
{
    enum { vectors = FC_FLOAT_COLUMNS / FC_LANES };
    float out[FC_FLOAT_COLUMNS];
    fc_reals sums[vectors];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = fc_real(bias);
    for (int ty = 0; ty < l->taps_y; ty++) {
        const int from_y = row * l->step_y + ty * l->gap_y - l->before_y;
        if (from_y < 0 || from_y >= l->x_rows) {
            weights += (ptrdiff_t)l->taps_x * l->length * FC_TILE;
            continue;
        }
        const float *run = x + (ptrdiff_t)from_y * l->x_row + (ptrdiff_t)(column * l->step_x - l->before_x) * l->x_column;
        for (int tx = 0; tx < l->taps_x; tx++, run += (ptrdiff_t)l->gap_x * l->x_column) {
            for (int k = 0; k < l->length; k++, weights += FC_TILE) {
                const fc_reals weight = fc_real(*weights);
                FC_UNROLL
                for (int v = 0; v < vectors; v++) {
                    const float *own = run + k + v * FC_LANES * next;
                    sums[v] = fc_add(sums[v], fc_mul(next == 2 ? fc_every_other(own) : fc_load_reals(own), weight));
                }
            }
        }
    }
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        fc_store_reals(out + v * FC_LANES, sums[v]);
    for (int i = 0; i < FC_FLOAT_COLUMNS; i++)
        y[(ptrdiff_t)i * l->y_column] = out[i];
}
#endif

/* Whether no window from `column` to `last` leaves the input to the left or to the right. */
FC_INLINE int fc_float_inside(const struct fc_float_layer *l, int column, int last)
{
    return column * l->step_x >= l->before_x &&
           last * l->step_x + (l->taps_x - 1) * l->gap_x - l->before_x < l->x_columns;
}

FC_KERNEL void fc_float_layer(
    float *y, const float *x, const float *weights, const float *bias, const struct fc_float_layer *l)
{
    const ptrdiff_t size = (ptrdiff_t)l->taps_y * l->taps_x * l->length * FC_TILE;
    for (int g = 0; g < l->groups; g++) {
        for (int c = 0; c < l->outs; c += FC_TILE, weights += size, bias += FC_TILE) {
            const int count = fc_min(FC_TILE, l->outs - c);
            for (int image = 0; image < l->images; image++) {
                const float *from = x + (ptrdiff_t)image * l->x_image + g * l->x_group;
                for (int row = 0; row < l->rows; row++) {
                    float *to = y + (ptrdiff_t)image * l->y_image + (ptrdiff_t)row * l->y_row + g * l->outs + c;
                    for (int column = 0; column < l->columns;) {
#if FC_FORMS
                        const int many = column + FC_FLOAT_COLUMNS - 1, next = l->step_x * l->x_column;
                        if (count == 1 && next <= 2 && many < l->columns && fc_float_inside(l, column, many)) {
                            if (next == 1)
                                fc_float_columns(1, to + column * l->y_column, from, weights, *bias, l, row, column);
                            else
                                fc_float_columns(2, to + column * l->y_column, from, weights, *bias, l, row, column);
                            column += FC_FLOAT_COLUMNS;
                            continue;
                        }
#endif
                        const int last = column + FC_FLOAT_POSITIONS - 1;
                        const int several = FC_FORMS && last < l->columns && fc_float_inside(l, column, last);
                        if (several)
                            fc_float_tile(
                                FC_FLOAT_POSITIONS, to + column * l->y_column, from, weights, bias, l, row, column, count);
                        else
                            fc_float_tile(1, to + column * l->y_column, from, weights, bias, l, row, column, count);
                        column += several ? FC_FLOAT_POSITIONS : 1;
                    }
                }
            }
        }
    }
}

#endif
