/* Layers of few steps on AVX2, as 1x1 convolutions of small networks are: positions of a row at even distances, four at a time,
   and one loop over all steps.

   Such a sum is over after a few products: what looking up places and counting runs takes besides would be half as much. */
#ifndef FC_LAYER_SHORT_H
#define FC_LAYER_SHORT_H

#include "layer_sums.h"

enum { FC_SHORT_STEPS = 16, FC_SHORT_POSITIONS = 4, FC_SHORT_PIECE = 128 }; /* positions whose inputs stay in the cache */

/* Columns of a row, or of all rows where these lie in one piece. */
FC_INLINE int fc_short_columns(const struct fc_layer *l)
{
    const int rows = l->rows == 1 || (l->x_row == l->columns * l->x_column && l->y_row == l->columns * l->y_column);
    return rows ? l->rows * l->columns : l->columns;
}

/* Whether a layer is one: bytes in full tiles, of which no two products leave 16 bits, of few steps. */
FC_INLINE int fc_layer_is_short(const struct fc_written *to, const struct fc_layer *l)
{
    const int columns = fc_short_columns(l), rest = columns % FC_SHORT_POSITIONS;
    return to->bytes && l->groups == 1 && l->outs % FC_TILE == 0 && !l->order && !(FC_PAIRS && l->wide) && l->runs_x == 1 &&
           l->runs_y * l->steps <= FC_SHORT_STEPS && columns >= FC_SHORT_POSITIONS && (!rest || columns > 16);
}

/* A tile of channels at some positions of a row, the last of which are computed again where need be. */
FC_INLINE void fc_short_tile(
    const struct fc_written *to, uint8_t *y, const uint8_t *x, int columns, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l)
{
    const ptrdiff_t x_column = l->x_column, y_column = l->y_column;
    const int runs = l->runs_y, steps = l->steps, vectors = FC_VECTORS(FC_TILE);
    struct fc_written own = *to;
    for (int column = 0; column < columns; column += FC_SHORT_POSITIONS) {
        const ptrdiff_t first = fc_min(column, columns - FC_SHORT_POSITIONS);
        const uint8_t *run = x + first * x_column;
        const int8_t *w = weights;
        fc_ints sums[8];
        int32_t at[FC_SHORT_POSITIONS];
        FC_UNROLL
        for (int i = 0; i < 8; i++)
            sums[i] = fc_load_ints(bias + i % vectors * FC_LANES);
        for (int ry = 0; ry < runs; ry++, run += l->run_y) {
            const uint8_t *window = run - (ry & l->early);
            for (int k = 0; k < steps; k++, window += 4, w += 4 * FC_TILE) {
                FC_UNROLL
                for (int p = 0; p < FC_SHORT_POSITIONS; p++) {
                    const fc_ints bytes = fc_splat(window + p * x_column);
                    FC_UNROLL
                    for (int v = 0; v < vectors; v++)
                        sums[p * vectors + v] = fc_dot(sums[p * vectors + v], bytes, fc_weights(w + v * 4 * FC_LANES));
                }
            }
        }
        FC_UNROLL
        for (int p = 0; p < FC_SHORT_POSITIONS; p++)
            at[p] = (int32_t)(p * y_column);
        own.bytes = y + first * y_column;
        fc_layer_write_all(&own, at, FC_TILE, FC_SHORT_POSITIONS, vectors, sums);
    }
}

static __attribute__((noinline, unused)) void fc_layer_short(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *layer)
{
    const struct fc_layer own = *layer, *l = &own; /* no byte that is written can be one of these */
    const struct fc_code code = l->code;
    const int columns = fc_short_columns(l), rows = l->rows * l->columns / columns;
    for (int i = 0; i < l->images * rows; i++) {
        const ptrdiff_t image = i / rows, row = i % rows;
        for (int begin = 0, count; begin < columns; begin += count) {
            count = columns - begin >= 2 * FC_SHORT_PIECE ? FC_SHORT_PIECE : columns - begin;
            const uint8_t *from = x + image * l->x_image + row * l->x_row + (ptrdiff_t)begin * l->x_column;
            uint8_t *y = all->bytes + image * l->y_image + row * l->y_row + (ptrdiff_t)begin * l->y_column;
            for (int c = 0; c < l->outs; c += FC_TILE) {
                const struct fc_written to = {
                    .bytes = y, .factor = all->factor + c, .code = &code, .bounded = fc_bounded(all->factor + c)};
                fc_short_tile(&to, y + c, from, count, weights + (ptrdiff_t)4 * l->runs_y * l->steps * c, bias + c, l);
            }
        }
    }
}

#endif
