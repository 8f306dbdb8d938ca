/* Depthwise convolutions of a Cortex-M55: eight channels at a time, each tap's bytes widened to 16 bits; products of even and of
   odd channels are added up apart.  Included by depthwise.h. */
#ifndef FC_DEPTHWISE_MVE_H
#define FC_DEPTHWISE_MVE_H

/* Up to four rows of a column of the window: a constant wherever this is called. */
FC_INLINE int32x4x2_t fc_depthwise_column(
    int32x4x2_t sums, const uint8_t *x, const int8_t *w, const int rows, ptrdiff_t down, uint16x8_t fourth)
{
    FC_UNROLL
    for (int ty = 0; ty < rows; ty++, x += down) {
        const int16x8_t some = vreinterpretq_s16_u16(vldrbq_u16(x)), own = vldrbq_gather_offset_s16(w + ty, fourth);
        sums.val[0] = vaddq_s32(sums.val[0], vmullbq_int_s16(some, own));
        sums.val[1] = vaddq_s32(sums.val[1], vmulltq_int_s16(some, own));
    }
    return sums;
}

/* Eight channels at one position. */
FC_INLINE int32x4x2_t fc_depthwise_eight(
    int32x4x2_t sums, const uint8_t *x, const int8_t *w, int taps_y, int taps_x, ptrdiff_t down, ptrdiff_t right,
    uint16x8_t fourth)
{
    for (int tx = 0; tx < taps_x; tx++, x += right) {
        const uint8_t *p = x;
        int left = taps_y;
        for (; left > 3; left -= 4, w += 4 * FC_TILE, p += 4 * down)
            sums = fc_depthwise_column(sums, p, w, 4, down, fourth);
        if (left == 3)
            sums = fc_depthwise_column(sums, p, w, 3, down, fourth);
        else if (left == 2)
            sums = fc_depthwise_column(sums, p, w, 2, down, fourth);
        else if (left == 1)
            sums = fc_depthwise_column(sums, p, w, 1, down, fourth);
        w += left > 0 ? 4 * FC_TILE : 0;
    }
    return sums;
}

/* A row of positions for one tile of channels. */
static __attribute__((noinline, unused)) void fc_depthwise_row(
    const int vectors, const int wide, const int both, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_depthwise *d, const struct fc_written *to, int32_t at, int count)
{
    const uint16x8_t fourth = vmulq_n_u16(vidupq_n_u16(0, 1), 4);
    const int taps_y = d->taps_y, taps_x = d->taps_x;
    const ptrdiff_t down = d->tap_y, right = d->tap_x;
    (void)vectors, (void)wide, (void)both;
    for (int column = 0; column < d->columns; column++, x += d->x_column, at += d->y_column) {
        int32_t sums[FC_TILE];
        for (int c = 0; c < count; c += 8) {
            const int32x4x2_t before = vld2q_s32(bias + c);
            const int8_t *w = weights + 4 * c;
            if (taps_y == 3 && taps_x == 3) {
                int32x4x2_t sum = fc_depthwise_column(before, x + c, w, 3, down, fourth);
                sum = fc_depthwise_column(sum, x + c + right, w + 4 * FC_TILE, 3, down, fourth);
                vst2q_s32(sums + c, fc_depthwise_column(sum, x + c + 2 * right, w + 8 * FC_TILE, 3, down, fourth));
            } else
                vst2q_s32(sums + c, fc_depthwise_eight(before, x + c, w, taps_y, taps_x, down, right, fourth));
        }
        fc_layer_write(to, at, count, sums);
    }
}

#endif
