/* Windows of 3 x 3 over rows of bytes: FC_BLOCK neighbouring bytes of an output row at a time, which are channels of one
   pixel, or all channels of several.

   Four rows are interleaved byte by byte, so that each lane has four taps of its channel. The four vectors that come of it
   have the channels 0-3 16-19 ..., 4-7 20-23 ..., and so on; weights are brought into that order, and bytes that are packed
   come out of it. Where two neighbouring products of bytes leave 16 bits (`parts` is 2), bytes 0 and 2 and bytes 1 and 3 are
   taken apart. Included by depthwise.h. */
#ifndef FC_DEPTHWISE_ROWS_H
#define FC_DEPTHWISE_ROWS_H

#define FC_BLOCK (4 * FC_LANES)

#if !defined(FC_APART) /* never called */
#define FC_APART 0
#define fc_split_pairs(out, x) (void)(x)
#define fc_weights_apart(out, w) (void)(w)
#define fc_add_pairs(sum, x, w) (sum)
#endif

struct fc_depthwise_block {
    fc_ints weights[2][3][4][2]; /* of a window of rows 0 to 2, and of one of rows 1 to 3 */
    fc_ints bias[4];
    fc_reals factor[4];
    int bounded;
};

/* Whether pixels lie as is assumed here. */
FC_INLINE int fc_depthwise_in_rows(const struct fc_written *to, const struct fc_depthwise *d)
{
    const int channels = d->channels;
    if (!to->bytes || d->taps_y != 3 || d->taps_x != 3)
        return 0;
    if (channels % FC_BLOCK == 0)
        return d->x_column == d->tap_x || d->x_column == 2 * d->tap_x;
    return channels >= 8 && FC_BLOCK % channels == 0 && d->tap_x == channels && d->x_column == channels &&
           d->y_column == channels && d->columns * channels >= FC_BLOCK;
}

/* Numbers of FC_BLOCK bytes of a row from channel `first` on. */
FC_INLINE void fc_depthwise_arrange(
    const int parts, struct fc_depthwise_block *b, int first, const struct fc_written *all, const int8_t *weights,
    const int32_t *bias,
    const struct fc_depthwise *d)
{
    for (int v = 0; v < 4; v++) {
        for (int j = 0; j < FC_LANES / 4; j++) {
            const int c = (first + 16 * j + 4 * v) % d->channels;
            memcpy((int32_t *)&b->bias[v] + 4 * j, bias + c, 16);
            memcpy((float *)&b->factor[v] + 4 * j, all->factor + c, 16);
        }
        for (int column = 0; column < 3; column++) {
            fc_ints own[2];
            for (int j = 0; j < FC_LANES / 4; j++) {
                const int c = (first + 16 * j + 4 * v) % d->channels;
                memcpy((int8_t *)own + 16 * j, weights + (c / FC_TILE * 3 + column) * 4 * FC_TILE + c % FC_TILE * 4, 16);
            }
            own[1] = fc_one_row_down(own[0]);
            for (int lower = 0; lower < 2; lower++) {
                if (parts == 2)
                    fc_weights_apart(b->weights[lower][column][v], own[lower]);
                else
                    b->weights[lower][column][v][0] = own[lower];
            }
        }
    }
    b->bounded = 1;
    for (int i = 0; i < FC_BLOCK; i += FC_TILE)
        b->bounded &= fc_bounded((const float *)b->factor + i);
}

/* A column of four rows. */
FC_INLINE void fc_depthwise_column(const int parts, fc_ints column[4][2], const uint8_t *x, const ptrdiff_t *away)
{
    fc_ints four[4];
    fc_interleave_rows(four, x, x + away[1], x + away[2], x + away[3]);
    FC_UNROLL
    for (int v = 0; v < 4; v++)
        if (parts == 2)
            fc_split_pairs(column[v], four[v]);
        else
            column[v][0] = four[v];
}

/* FC_BLOCK bytes, and as many of the row below. */
FC_INLINE void fc_depthwise_write(
    const int parts, const int both, uint8_t *y, fc_ints columns[3][4][2], const struct fc_depthwise_block *b,
    const struct fc_depthwise *d)
{
    fc_reals x[2][4];
    FC_UNROLL
    for (int v = 0; v < 4; v++) {
        FC_UNROLL
        for (int r = 0; r < both; r++) {
            fc_ints sum = b->bias[v];
            FC_UNROLL
            for (int c = 0; c < 3; c++) {
                if (parts == 2) {
                    sum = fc_add_pairs(sum, columns[c][v][0], b->weights[r][c][v][0]);
                    sum = fc_add_pairs(sum, columns[c][v][1], b->weights[r][c][v][1]);
                } else {
                    sum = fc_dot(sum, columns[c][v][0], b->weights[r][c][v][0]);
                }
            }
            x[r][v] = fc_mul(fc_reals_of(sum), b->factor[v]);
        }
    }
    FC_UNROLL
    for (int r = 0; r < both; r++) {
        if (!b->bounded) {
            FC_UNROLL
            for (int v = 0; v < 4; v++)
                x[r][v] = fc_limited(x[r][v]);
        }
        fc_store_rows(y + r * d->y_row, x[r], &d->code);
    }
}

/* A row of pixels, or two below each other (`both`), of channels that fill blocks: of three columns `step` are new. */
FC_INLINE void fc_depthwise_pixels(
    const int parts, const int both, const int step, uint8_t *y, const uint8_t *x, const struct fc_depthwise_block *b,
    const ptrdiff_t *away,
    const struct fc_depthwise *d)
{
    fc_ints columns[3][4][2];
    FC_UNROLL
    for (int c = step; c < 3; c++, x += d->tap_x)
        fc_depthwise_column(parts, columns[c], x, away);
    for (int column = 0; column < d->columns; column++, y += d->y_column) {
        FC_UNROLL
        for (int v = 0; v < 4; v++) {
            FC_UNROLL
            for (int i = 0; i < parts; i++) {
                columns[0][v][i] = columns[step][v][i];
                columns[1][v][i] = columns[2][v][i];
            }
        }
        FC_UNROLL
        for (int c = 3 - step; c < 3; c++, x += d->tap_x)
            fc_depthwise_column(parts, columns[c], x, away);
        fc_depthwise_write(parts, both, y, columns, b, d);
    }
}

/* The same of all channels of several pixels: the last block begins where it ends with the row. */
FC_INLINE void fc_depthwise_groups(
    const int parts, const int both, uint8_t *y, const uint8_t *x, const struct fc_depthwise_block *b, const ptrdiff_t *away,
    const struct fc_depthwise *d)
{
    const int length = d->columns * d->channels;
    for (int at = 0; at < length; at += FC_BLOCK) {
        fc_ints columns[3][4][2];
        at = fc_min(at, length - FC_BLOCK);
        FC_UNROLL
        for (int c = 0; c < 3; c++)
            fc_depthwise_column(parts, columns[c], x + at + c * d->tap_x, away);
        fc_depthwise_write(parts, both, y + at, columns, b, d);
    }
}

FC_INLINE void fc_depthwise_in_block(
    const int parts, const int both, uint8_t *y, const uint8_t *x, const struct fc_depthwise_block *b,
    const struct fc_depthwise *d)
{
    const ptrdiff_t away[4] = {0, d->tap_y, 2 * d->tap_y, (both == 2 ? 3 : 2) * d->tap_y}; /* without a lower window times zero */
    if (d->channels % FC_BLOCK)
        fc_depthwise_groups(parts, both, y, x, b, away, d);
    else if (d->x_column == d->tap_x)
        fc_depthwise_pixels(parts, both, 1, y, x, b, away, d);
    else
        fc_depthwise_pixels(parts, both, 2, y, x, b, away, d);
}

FC_INLINE void fc_depthwise_rows(
    const int parts, const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_depthwise *d)
{
    for (int first = 0; first < d->channels; first += FC_BLOCK) {
        struct fc_depthwise_block block;
        fc_depthwise_arrange(parts, &block, first, all, weights, bias, d);
        for (int image = 0; image < d->images; image++) {
            uint8_t *y = all->bytes + (ptrdiff_t)image * d->y_image + first;
            const uint8_t *from = x + (ptrdiff_t)image * d->x_image + first;
            int row = 0;
            for (; d->x_row == d->tap_y && row + 2 <= d->rows; row += 2)
                fc_depthwise_in_block(parts, 2, y + (ptrdiff_t)row * d->y_row, from + (ptrdiff_t)row * d->x_row, &block, d);
            for (; row < d->rows; row++)
                fc_depthwise_in_block(parts, 1, y + (ptrdiff_t)row * d->y_row, from + (ptrdiff_t)row * d->x_row, &block, d);
        }
    }
}

#endif
