/* Products of a state's digits with stored weights where 64-bit ARM has dot products: four units of the state in each lane of
   what is loaded, eight units of the next at a time.  Included by recurrent.h. */
#ifndef FC_RECURRENT_NEON_H
#define FC_RECURRENT_NEON_H

/* fc_float_of, of four. */
FC_INLINE fc_reals fc_floats_of(fc_ints high, fc_ints low)
{
    high = vsraq_n_s32(high, low, 7);
    const fc_ints rest = vsliq_n_s32(vandq_s32(low, vdupq_n_s32(127)), high, 7);
    return vaddq_f32(
        vmulq_f32(vcvtq_f32_s32(vshrq_n_s32(high, 7)), vdupq_n_f32(16384.0f)),
        vcvtq_f32_s32(vandq_s32(rest, vdupq_n_s32(16383))));
}

/* Four units of the state, which are one lane of `x`: the three digits, one after the other. */
#define FC_STATE_LANE(lane) \
    FC_UNROLL \
    for (int g = 0; g < count; g++) { \
        FC_UNROLL \
        for (int v = 0; v < 2; v++) { \
            const fc_ints each = fc_weights(own + g * 4 * FC_TILE + v * 4 * FC_LANES); \
            FC_UNROLL \
            for (int d = 0; d < FC_DIGITS; d++) \
                sums[d][2 * g + v] = vdotq_laneq_s32(sums[d][2 * g + v], vreinterpretq_s8_s32(each), x[d], lane); \
        } \
    } \
    own += 4 * FC_TILE * w->gates;

FC_INLINE void fc_part_sums(
    fc_row *to, const struct fc_again *w, int begin, int end, int tile, const int8_t *weights, const int32_t *shift,
    const int from,
    const int count)
{
    const int plane = fc_plane(w->units);
    (void)tile;
    for (int half = 0; half < FC_TILE; half += 2 * FC_LANES) {
        const int8_t *own = weights + (from * FC_TILE + half) * 4;
        fc_ints sums[FC_DIGITS][8];
        FC_UNROLL
        for (int i = 0; i < 2 * count; i++) {
            sums[0][i] = fc_load_ints(shift + (from + i / 2) * FC_TILE + half + i % 2 * FC_LANES);
            sums[1][i] = sums[2][i] = vdupq_n_s32(0);
        }
        const uint8_t *digit = w->digits + begin;
        int left = end - begin;
        for (; left >= 16; left -= 16, digit += 16) {
            int8x16_t x[FC_DIGITS];
            FC_UNROLL
            for (int d = 0; d < FC_DIGITS; d++)
                x[d] = vreinterpretq_s8_u8(vld1q_u8(digit + d * plane));
            FC_STATE_LANE(0)
            FC_STATE_LANE(1)
            FC_STATE_LANE(2)
            FC_STATE_LANE(3)
        }
        for (; left > 0; left -= 4, digit += 4) {
            int8x16_t x[FC_DIGITS];
            FC_UNROLL
            for (int d = 0; d < FC_DIGITS; d++)
                x[d] = vreinterpretq_s8_s32(fc_four(digit + d * plane));
            FC_STATE_LANE(0)
        }
        FC_UNROLL
        for (int i = 0; i < 2 * count; i++) {
            const fc_ints high = vaddq_s32(vshlq_n_s32(sums[0][i], 7), sums[1][i]);
            fc_store_reals(to[i / 2] + half + i % 2 * FC_LANES, fc_floats_of(high, sums[2][i]));
        }
    }
}

#endif
