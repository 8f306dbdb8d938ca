/* Depthwise convolutions of a Cortex-M4, M7 or M33: four channels at a time, two rows of the window in one SMLAD.

   A word of bytes is four channels of one row, a word of weights four rows of one channel: the former are unpacked to 16 bits
   and paired row by row.  Included by depthwise.h. */
#ifndef FC_DEPTHWISE_DSP_H
#define FC_DEPTHWISE_DSP_H

/* The lower or upper halves of two words in one. */
FC_INLINE uint32_t fc_dsp_lower(uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; }
FC_INLINE uint32_t fc_dsp_upper(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000); }

/* Two channels, in the halves of each word of `x`: up to four rows of a column, a constant wherever this is called. */
FC_INLINE void fc_depthwise_two(int32_t *low, int32_t *high, const uint32_t *x, const int8_t *w, const int rows)
{
    const uint32_t of_low = fc_word(w), of_high = fc_word(w + 8);
    const int32_t even = __sxtb16((int8x4_t)of_low), even_high = __sxtb16((int8x4_t)of_high);
    if (rows > 2) {
        *low = __smlad((int16x2_t)fc_dsp_lower(x[0], x[2]), even, *low);
        *high = __smlad((int16x2_t)fc_dsp_upper(x[0], x[2]), even_high, *high);
    } else {
        *low = __smlabb((int32_t)x[0], even, *low);
        *high = __smlatb((int32_t)x[0], even_high, *high);
    }
    if (rows == 1)
        return;
    const int32_t odd = __sxtb16((int8x4_t)__ror(of_low, 8)), odd_high = __sxtb16((int8x4_t)__ror(of_high, 8));
    if (rows > 3) {
        *low = __smlad((int16x2_t)fc_dsp_lower(x[1], x[3]), odd, *low);
        *high = __smlad((int16x2_t)fc_dsp_upper(x[1], x[3]), odd_high, *high);
    } else {
        *low = __smlabb((int32_t)x[1], odd, *low);
        *high = __smlatb((int32_t)x[1], odd_high, *high);
    }
}

/* A column of the window for four channels. */
FC_INLINE void fc_depthwise_column(int32_t *sums, const uint8_t *x, const int8_t *w, const int rows, ptrdiff_t down)
{
    uint32_t words[4], half[4];
    FC_UNROLL
    for (int ty = 0; ty < rows; ty++)
        words[ty] = fc_word(x + ty * down);
    FC_UNROLL
    for (int ty = 0; ty < rows; ty++)
        half[ty] = (uint32_t)__uxtb16((uint8x4_t)words[ty]);
    fc_depthwise_two(sums, sums + 2, half, w, rows);
    FC_UNROLL
    for (int ty = 0; ty < rows; ty++)
        half[ty] = (uint32_t)__uxtb16((uint8x4_t)__ror(words[ty], 8));
    fc_depthwise_two(sums + 1, sums + 3, half, w + 4, rows);
}

/* Four channels at one position: windows of three rows, and others. */
static __attribute__((noinline, unused)) void fc_depthwise_threes(
    int32_t *sums, const int32_t *bias, const uint8_t *x, const int8_t *w, int taps_x, ptrdiff_t down, ptrdiff_t right)
{
    int32_t own[4] = {bias[0], bias[1], bias[2], bias[3]};
    for (; taps_x > 0; taps_x--, x += right, w += 4 * FC_TILE)
        fc_depthwise_column(own, x, w, 3, down);
    memcpy(sums, own, sizeof own);
}

static __attribute__((noinline, unused)) void fc_depthwise_fours(
    int32_t *sums, const int32_t *bias, const uint8_t *x, const int8_t *w, const struct fc_depthwise *d)
{
    int32_t own[4] = {bias[0], bias[1], bias[2], bias[3]};
    for (int tx = d->taps_x; tx > 0; tx--, x += d->tap_x) {
        const uint8_t *p = x;
        int left = d->taps_y;
        for (; left > 3; left -= 4, w += 4 * FC_TILE, p += 4 * d->tap_y)
            fc_depthwise_column(own, p, w, 4, d->tap_y);
        if (left == 3)
            fc_depthwise_column(own, p, w, 3, d->tap_y);
        else if (left == 2)
            fc_depthwise_column(own, p, w, 2, d->tap_y);
        else if (left == 1)
            fc_depthwise_column(own, p, w, 1, d->tap_y);
        w += left > 0 ? 4 * FC_TILE : 0;
    }
    memcpy(sums, own, sizeof own);
}

/* A row of positions for one tile of channels. */
static __attribute__((noinline, unused)) void fc_depthwise_row(
    const int vectors, const int wide, const int both, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_depthwise *d, const struct fc_written *to, int32_t at, int count)
{
    (void)vectors, (void)wide, (void)both;
    for (int column = 0; column < d->columns; column++, x += d->x_column, at += d->y_column) {
        int32_t sums[FC_TILE];
        for (int c = 0; c < count; c += 4) {
            if (d->taps_y == 3)
                fc_depthwise_threes(sums + c, bias + c, x + c, weights + 4 * c, d->taps_x, d->tap_y, d->tap_x);
            else
                fc_depthwise_fours(sums + c, bias + c, x + c, weights + 4 * c, d);
        }
        fc_layer_write(to, at, count, sums);
    }
}

#endif
