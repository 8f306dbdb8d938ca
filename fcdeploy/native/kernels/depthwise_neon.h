/* Depthwise layers of 64-bit ARM with windows of 3 x 3, which is nearly all of them.  Included by depthwise.h.

   Bytes are made signed, 128 less; 128 times the sums of a channel's weights go into its bias once for a row of positions. */
#ifndef FC_DEPTHWISE_NEON_H
#define FC_DEPTHWISE_NEON_H

/* What a row of positions needs beside its bytes. */
struct fc_depthwise_tile {
    int8x16_t taps[9]; /* column by column, as weights lie */
    fc_ints bias[FC_TILE / FC_LANES];
    fc_reals factor[FC_TILE / FC_LANES];
};

FC_INLINE int8x16_t fc_lowered(const uint8_t *p) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128))); }

FC_INLINE void fc_depthwise_begin(
    struct fc_depthwise_tile *tile, const int8_t *weights, const int32_t *bias, const struct fc_written *to)
{
    int16x8_t low = vdupq_n_s16(0), high = vdupq_n_s16(0);
    FC_UNROLL
    for (int c = 0; c < 3; c++) {
        const int8x16x4_t rows = vld4q_s8(weights + c * 4 * FC_TILE);
        FC_UNROLL
        for (int r = 0; r < 3; r++) {
            tile->taps[3 * c + r] = rows.val[r];
            __asm__("" : "+w"(tile->taps[3 * c + r])); /* a register for itself, not one of four neighbours */
            low = vaddw_s8(low, vget_low_s8(rows.val[r]));
            high = vaddw_high_s8(high, rows.val[r]);
        }
    }
    const int16x4_t sums[4] = {vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)};
    FC_UNROLL
    for (int v = 0; v < 4; v++) {
        tile->bias[v] = vaddq_s32(fc_load_ints(bias + v * FC_LANES), vshll_n_s16(sums[v], 7));
        tile->factor[v] = fc_load_reals(to->factor + v * FC_LANES);
    }
}

/* Two products of each channel in 16 bits, or one; then added to its sum. */
FC_INLINE void fc_depthwise_add(fc_ints *sums, const int two, int8x16_t x0, int8x16_t w0, int8x16_t x1, int8x16_t w1)
{
    int16x8_t low = vmull_s8(vget_low_s8(x0), vget_low_s8(w0)), high = vmull_high_s8(x0, w0);
    if (two) {
        low = vmlal_s8(low, vget_low_s8(x1), vget_low_s8(w1));
        high = vmlal_high_s8(high, x1, w1);
    }
    sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
    sums[1] = vaddw_high_s16(sums[1], low);
    sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
    sums[3] = vaddw_high_s16(sums[3], high);
}

/* `full`: sixteen channels become bytes. */
FC_INLINE void fc_depthwise_write(
    const int full, const struct fc_written *to, const struct fc_depthwise_tile *tile, int32_t at, int count, const fc_ints *sums)
{
    if (full) {
        fc_store_scaled(to->bytes + at, FC_TILE / FC_LANES, 1, sums, tile->factor, to->code);
        return;
    }
    int32_t all[FC_TILE];
    FC_UNROLL
    for (int v = 0; v < FC_TILE / FC_LANES; v++)
        vst1q_s32(all + v * FC_LANES, sums[v]);
    fc_layer_write_others(to, &at, count, 1, FC_TILE / FC_LANES, all);
}

/* The position whose window begins at x, tap by tap. */
FC_INLINE void fc_depthwise_taps(
    const int full, const uint8_t *x, const struct fc_depthwise_tile *tile, ptrdiff_t down, ptrdiff_t right,
    const struct fc_written *to, int32_t at, int count)
{
    const int8x16_t *w = tile->taps;
    fc_ints sums[4] = {tile->bias[0], tile->bias[1], tile->bias[2], tile->bias[3]};
    int8x16_t last[3];
    FC_UNROLL
    for (int c = 0; c < 3; c++, x += right) {
        FC_OPAQUE(x); /* else there is an address for each tap */
        last[c] = fc_lowered(x + 2 * down);
        fc_depthwise_add(sums, 1, fc_lowered(x), w[3 * c], fc_lowered(x + down), w[3 * c + 1]);
    }
    fc_depthwise_add(sums, 1, last[0], w[2], last[1], w[5]);
    fc_depthwise_add(sums, 0, last[2], w[8], last[2], w[8]);
    fc_depthwise_write(full, to, tile, at, count, sums);
}

/* That one and the next, a column further on: two of their columns are the same. */
FC_INLINE void fc_depthwise_two(
    const int full, const uint8_t *x, const struct fc_depthwise_tile *tile, ptrdiff_t down, ptrdiff_t right,
    const struct fc_written *to, int32_t at,
    int32_t next, int count)
{
    const int8x16_t *w = tile->taps;
    fc_ints sums[8];
    int8x16_t last[4];
    FC_UNROLL
    for (int v = 0; v < 8; v++)
        sums[v] = tile->bias[v % 4];
    FC_UNROLL
    for (int c = 0; c < 4; c++, x += right) {
        FC_OPAQUE(x);
        const int8x16_t first = fc_lowered(x), second = fc_lowered(x + down);
        last[c] = fc_lowered(x + 2 * down);
        if (c < 3)
            fc_depthwise_add(sums, 1, first, w[3 * c], second, w[3 * c + 1]);
        if (c > 0)
            fc_depthwise_add(sums + 4, 1, first, w[3 * c - 3], second, w[3 * c - 2]);
    }
    FC_UNROLL
    for (int p = 0; p < 2; p++) {
        fc_depthwise_add(sums + 4 * p, 1, last[p], w[2], last[p + 1], w[5]);
        fc_depthwise_add(sums + 4 * p, 0, last[p + 2], w[8], last[p + 2], w[8]);
        fc_depthwise_write(full, to, tile, at + p * next, count, sums + 4 * p);
    }
}

/* A row of positions. */
FC_INLINE void fc_depthwise_line(
    const int full, const uint8_t *x, const struct fc_depthwise_tile *tile, const struct fc_depthwise *d,
    const struct fc_written *to, int32_t at, int count)
{
    const ptrdiff_t down = d->tap_y, right = d->tap_x, step = d->x_column;
    int left = d->columns;
    for (; left > 1 && step == right; left -= 2, x += 2 * step, at += 2 * d->y_column)
        fc_depthwise_two(full, x, tile, down, right, to, at, d->y_column, count);
    for (; left > 0; left--, x += step, at += d->y_column)
        fc_depthwise_taps(full, x, tile, down, right, to, at, count);
}

#if defined(fc_dot_lane)

/* A column of three taps of sixteen channels, the last one twice: its second weight is 0. */
FC_INLINE void fc_depthwise_column(fc_ints *out, const uint8_t *p, ptrdiff_t down)
{
    const fc_ints mask = fc_mask();
    const uint8x16_t a = vreinterpretq_u8_s32(fc_operand(vreinterpretq_s32_u8(vld1q_u8(p)), mask));
    const uint8x16_t b = vreinterpretq_u8_s32(fc_operand(vreinterpretq_s32_u8(vld1q_u8(p + down)), mask));
    const uint8x16_t c = vreinterpretq_u8_s32(fc_operand(vreinterpretq_s32_u8(vld1q_u8(p + 2 * down)), mask));
    const uint16x8_t ab = vreinterpretq_u16_u8(vzip1q_u8(a, b)), cc = vreinterpretq_u16_u8(vzip1q_u8(c, c));
    const uint16x8_t ab_high = vreinterpretq_u16_u8(vzip2q_u8(a, b)), cc_high = vreinterpretq_u16_u8(vzip2q_u8(c, c));
    out[0] = vreinterpretq_s32_u16(vzip1q_u16(ab, cc));
    out[1] = vreinterpretq_s32_u16(vzip2q_u16(ab, cc));
    out[2] = vreinterpretq_s32_u16(vzip1q_u16(ab_high, cc_high));
    out[3] = vreinterpretq_s32_u16(vzip2q_u16(ab_high, cc_high));
}

/* One position: its third column is put in order, the others are known. */
#define FC_DEPTHWISE_NEXT(first, second, third) \
    fc_depthwise_column(third, x, down); \
    FC_UNROLL \
    for (int v = 0; v < 4; v++) { \
        sums[v] = fc_dot_signs(bias[v], first[v], w[v]); \
        sums[v] = fc_dot_signs(sums[v], second[v], w[4 + v]); \
        sums[v] = fc_dot_signs(sums[v], third[v], w[8 + v]); \
    } \
    fc_depthwise_write(full, to, tile, at, count, sums); \
    x += right; \
    at += d->y_column;

/* Windows side by side: each column of bytes is put in order once, and multiplied in three windows. */
FC_INLINE void fc_depthwise_beside(
    const int full, const uint8_t *x, const int8_t *weights, const int32_t *plain, const struct fc_depthwise_tile *tile,
    const struct fc_depthwise *d,
    const struct fc_written *to, int32_t at, int count)
{
    const ptrdiff_t down = d->tap_y, right = d->tap_x;
    fc_ints a[4], b[4], c[4], w[12], bias[4], sums[4];
    FC_UNROLL
    for (int i = 0; i < 12; i++)
        w[i] = fc_weights(weights + i * 4 * FC_LANES);
    FC_UNROLL
    for (int v = 0; v < 4; v++)
        bias[v] = fc_depthwise_bias(tile->bias[v], plain + v * FC_LANES);
    fc_depthwise_column(a, x, down);
    fc_depthwise_column(b, x + right, down);
    x += 2 * right;
    int left = d->columns;
    for (; left >= 3; left -= 3) {
        FC_DEPTHWISE_NEXT(a, b, c)
        FC_DEPTHWISE_NEXT(b, c, a)
        FC_DEPTHWISE_NEXT(c, a, b)
    }
    if (left > 0) {
        FC_DEPTHWISE_NEXT(a, b, c)
    }
    if (left > 1) {
        FC_DEPTHWISE_NEXT(b, c, a)
    }
}

#endif

/* Whether fc_depthwise_nine computes a tile: a window of 3 x 3, more than 8 channels, and no two products that leave 16 bits. */
FC_INLINE int fc_depthwise_fits(const int8_t *weights, int count, const struct fc_depthwise *d)
{
    if (d->taps_x != 3 || d->taps_y != 3 || count <= 8)
        return 0;
#if defined(fc_dot_lane)
    if (d->x_column == d->tap_x)
        return 1;
#endif
    int8x16_t highest = vdupq_n_s8(127), last[3]; /* of two weights that are multiplied together */
    FC_UNROLL
    for (int c = 0; c < 3; c++) {
        const int8x16x4_t rows = vld4q_s8(weights + c * 4 * FC_TILE);
        highest = vminq_s8(highest, vmaxq_s8(rows.val[0], rows.val[1]));
        last[c] = rows.val[2];
    }
    return vminvq_s8(vminq_s8(highest, vmaxq_s8(last[0], last[1]))) > -128;
}

FC_INLINE void fc_depthwise_lines(
    const int full, const uint8_t *x, const int8_t *weights, const int32_t *plain, const struct fc_depthwise_tile *tile,
    const struct fc_depthwise *d, const struct fc_written *to, int count)
{
    for (int image = 0; image < d->images; image++) {
        for (int row = 0; row < d->rows; row++) {
            const uint8_t *from = x + (ptrdiff_t)image * d->x_image + (ptrdiff_t)row * d->x_row;
            const int32_t at = image * d->y_image + row * d->y_row;
#if defined(fc_dot_lane)
            if (d->x_column == d->tap_x) {
                fc_depthwise_beside(full, from, weights, plain, tile, d, to, at, count);
                continue;
            }
#endif
            (void)weights, (void)plain;
            fc_depthwise_line(full, from, tile, d, to, at, count);
        }
    }
}

/* All positions of the channels from `first` on, of which `weights` are. */
FC_INLINE void fc_depthwise_nine(
    struct fc_written to, const uint8_t *x, const int8_t *weights, const int32_t *bias, int first, const struct fc_depthwise *d)
{
    struct fc_depthwise_tile tile;
    const struct fc_code code = *to.code;
    const int count = fc_min(FC_TILE, d->channels - first);
    to.code = &code;
    to.bytes = to.bytes ? to.bytes + first : 0;
    to.reals = to.reals ? to.reals + first : 0;
    to.factor += first;
    to.bias = to.bias ? to.bias + first : 0;
    fc_depthwise_begin(&tile, weights, bias + first, &to);
    if (to.bytes && count == FC_TILE)
        fc_depthwise_lines(1, x + first, weights, bias + first, &tile, d, &to, count);
    else
        fc_depthwise_lines(0, x + first, weights, bias + first, &tile, d, &to, count);
}

#endif
