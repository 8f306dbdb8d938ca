/* Vectors of NEON: four lanes of 32 bits. With dot products of bytes where the CPU has them, signed ones or mixed ones. */
#ifndef FC_VECTORS_H
#define FC_VECTORS_H

#include <arm_neon.h>

#include "common.h"

#define FC_LANES 4
#define FC_BLOCKS 1
#define FC_FORMS 1
#if defined(__ARM_FEATURE_DOTPROD)
#define FC_PAIRS 0
#else
#define FC_PAIRS 1
#define FC_HALVES 1 /* layers keep two sums of each channel */
#endif
#define FC_POSITIONS_16 (FC_PAIRS ? 2 : 6)
#define FC_POSITIONS_8 (FC_PAIRS ? 4 : 8)
#define FC_GROUP 180
#define FC_AGAIN 1 /* the last positions of a layer are computed with some before them, once more */

typedef int32x4_t fc_ints;
typedef float32x4_t fc_reals;

FC_INLINE fc_ints fc_load_ints(const int32_t *p) { return vld1q_s32(p); }

FC_INLINE fc_ints fc_splat(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return vdupq_n_s32(four);
}

/* Eight bytes or four in the first lanes, for products with one lane. */
FC_INLINE fc_ints fc_eight(const uint8_t *p) { return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(p), vdup_n_u8(0))); }
FC_INLINE fc_ints fc_four(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return vreinterpretq_s32_u32(vcombine_u32(vcreate_u32(four), vdup_n_u32(0)));
}

FC_INLINE fc_ints fc_weights(const int8_t *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }

#if defined(__ARM_FEATURE_MATMUL_INT8)

FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w)
{
    return vusdotq_s32(sum, vreinterpretq_u8_s32(x), vreinterpretq_s8_s32(w));
}

FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w) { return fc_dot(sum, x, w); }

/* Four bytes of x in one lane, for all of w; x as fc_operand has it. */
#define fc_dot_lane(sum, x, w, lane) vsudotq_laneq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_u8_s32(x), lane)
FC_INLINE fc_ints fc_mask(void) { return vdupq_n_s32(0); }
FC_INLINE fc_ints fc_operand(fc_ints x, fc_ints mask) { (void)mask; return x; }
FC_INLINE fc_ints fc_dot_signs(fc_ints sum, fc_ints x, fc_ints w) { return fc_dot(sum, x, w); }
FC_INLINE fc_ints fc_depthwise_bias(fc_ints raised, const int32_t *plain) { (void)raised; return fc_load_ints(plain); }

#elif defined(__ARM_FEATURE_DOTPROD)

/* x * w = (x - 128) * w + 64 * w + 64 * w; what depends on weights alone is computed once for all positions. */
FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w)
{
    const int8x16_t weights = vreinterpretq_s8_s32(w), half = vdupq_n_s8(64);
    const int8x16_t lowered = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(x), vdupq_n_u8(128)));
    const fc_ints missing = vdotq_s32(vdotq_s32(vdupq_n_s32(0), half, weights), half, weights);
    return vdotq_s32(vaddq_s32(sum, missing), lowered, weights);
}

FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w) { return fc_dot(sum, x, w); }

/* Four bytes of x in one lane, for all of w; x as fc_operand has it. */
#define fc_dot_lane(sum, x, w, lane) vdotq_laneq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x), lane)
FC_INLINE fc_ints fc_mask(void)
{
    uint8x16_t mask;
    __asm__ volatile("movi %0.16b, #128" : "=w"(mask)); /* where it is needed: it would take a register of the sums all along */
    return vreinterpretq_s32_u8(mask);
}
FC_INLINE fc_ints fc_operand(fc_ints x, fc_ints mask) { return veorq_s32(x, mask); }

/* Of operands, as they are. */
FC_INLINE fc_ints fc_dot_signs(fc_ints sum, fc_ints x, fc_ints w)
{
    return vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
}
FC_INLINE fc_ints fc_depthwise_bias(fc_ints raised, const int32_t *plain) { (void)plain; return raised; }

#define FC_LOWERED 1 /* operands are 128 less than x: 128 times the sums of weights are added elsewhere */
FC_INLINE fc_ints fc_sum_weights(fc_ints sum, fc_ints w) { return vdotq_s32(sum, vdupq_n_s8(1), vreinterpretq_s8_s32(w)); }
FC_INLINE fc_ints fc_raise(fc_ints sum, fc_ints weights) { return vaddq_s32(sum, vshlq_n_s32(weights, 7)); }

#else

/* Eight bytes, less 128: the first four of them in `first` and the others in `second`, over and over. */
FC_INLINE void fc_operands(int8x16_t *first, int8x16_t *second, const uint8_t *p)
{
    const int32x2_t eight = vreinterpret_s32_u8(veor_u8(vld1_u8(p), vdup_n_u8(128)));
    *first = vreinterpretq_s8_s32(vdupq_lane_s32(eight, 0));
    *second = vreinterpretq_s8_s32(vdupq_lane_s32(eight, 1));
}

FC_INLINE int8x16_t fc_operand(const uint8_t *p)
{
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(fc_splat(p)), vdupq_n_u8(128)));
}

/* Two products of bytes within -128 and 127 fit in 16 bits, unless all four are -128. */
FC_INLINE void fc_dot_halves(fc_ints *low, fc_ints *high, int8x16_t x0, int8x16_t w0, int8x16_t x1, int8x16_t w1)
{
    const int16x8_t near = vmlal_s8(vmull_s8(vget_low_s8(x0), vget_low_s8(w0)), vget_low_s8(x1), vget_low_s8(w1));
    *low = vpadalq_s16(*low, near);
    *high = vpadalq_s16(*high, vmlal_high_s8(vmull_high_s8(x0, w0), x1, w1));
}

#define FC_LOWERED 1 /* operands are 128 less than x: 128 times the sums of weights are added elsewhere */
FC_INLINE fc_ints fc_sum_weights(fc_ints sum, fc_ints w) { return vpadalq_s16(sum, vpaddlq_s8(vreinterpretq_s8_s32(w))); }
FC_INLINE fc_ints fc_raise(fc_ints sum, fc_ints weights) { return vaddq_s32(sum, vshlq_n_s32(weights, 7)); }

/* Products of two bytes fit in 16 bits: -128 * 255 to 127 * 255. */
FC_INLINE void fc_products(int16x8_t *low, int16x8_t *high, fc_ints x, fc_ints w)
{
    const uint8x16_t bytes = vreinterpretq_u8_s32(x);
    const int8x16_t weights = vreinterpretq_s8_s32(w);
    *low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))), vmovl_s8(vget_low_s8(weights)));
    *high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(bytes)), vmovl_high_s8(weights));
}

/* Two neighbouring products are added in 16 bits: only where the weights are known to leave room. */
FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w)
{
    int16x8_t low, high;
    fc_products(&low, &high, x, w);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}

FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w)
{
    int16x8_t low, high;
    fc_products(&low, &high, x, w);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

#endif

/* Of x below 128. */
#define fc_dot_digits fc_dot_digits
FC_INLINE fc_ints fc_dot_digits(fc_ints sum, fc_ints x, fc_ints w)
{
    const int8x16_t bytes = vreinterpretq_s8_s32(x), weights = vreinterpretq_s8_s32(w);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, bytes, weights);
#else
    return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(bytes), vget_low_s8(weights)), vmull_high_s8(bytes, weights)));
#endif
}

FC_INLINE void fc_taps(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    const uint8x16_t a = vld1q_u8(r0), b = vld1q_u8(r1), c = vld1q_u8(r2), d = vld1q_u8(r3);
    const uint16x8_t ab = vreinterpretq_u16_u8(vzip1q_u8(a, b)), cd = vreinterpretq_u16_u8(vzip1q_u8(c, d));
    const uint16x8_t ab_high = vreinterpretq_u16_u8(vzip2q_u8(a, b)), cd_high = vreinterpretq_u16_u8(vzip2q_u8(c, d));
    out[0] = vreinterpretq_s32_u16(vzip1q_u16(ab, cd));
    out[1] = vreinterpretq_s32_u16(vzip2q_u16(ab, cd));
    out[2] = vreinterpretq_s32_u16(vzip1q_u16(ab_high, cd_high));
    out[3] = vreinterpretq_s32_u16(vzip2q_u16(ab_high, cd_high));
}

FC_INLINE fc_reals fc_load_reals(const float *p) { return vld1q_f32(p); }
/* p[0], p[2], p[4], p[6] and nothing behind it. */
FC_INLINE fc_reals fc_every_other(const float *p)
{
    const float32x4_t first = vld1q_f32(p), last = vld1q_f32(p + 3);
    return vcombine_f32(vget_low_f32(vuzp1q_f32(first, first)), vget_low_f32(vuzp2q_f32(last, last)));
}

FC_INLINE void fc_store_reals(float *p, fc_reals x) { vst1q_f32(p, x); }
FC_INLINE fc_reals fc_real(float x) { return vdupq_n_f32(x); }
FC_INLINE fc_reals fc_reals_of(fc_ints x) { return vcvtq_f32_s32(x); }
FC_INLINE fc_reals fc_add(fc_reals a, fc_reals b) { return vaddq_f32(a, b); }
FC_INLINE fc_reals fc_sub(fc_reals a, fc_reals b) { return vsubq_f32(a, b); }
FC_INLINE fc_reals fc_mul(fc_reals a, fc_reals b) { return vmulq_f32(a, b); }
FC_INLINE fc_reals fc_div(fc_reals a, fc_reals b) { return vdivq_f32(a, b); }

FC_INLINE fc_reals fc_reals_of_bytes(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}

FC_INLINE fc_reals fc_reals_of_weights(const int8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}

/* Rounds to the nearest, halves to even; what is no number becomes the lowest. */
FC_INLINE int32x4_t fc_rounded(fc_reals x)
{
    return vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(x, vdupq_n_f32(-1024.0f)), vdupq_n_f32(1024.0f)));
}

FC_INLINE void fc_store_bytes(uint8_t *y, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)code->zero);
    const uint8x8_t low = vdup_n_u8((uint8_t)code->low), high = vdup_n_u8((uint8_t)code->high);
    FC_UNROLL
    for (int v = 0; v < vectors; v += 2) {
        const int16x4_t first = vmovn_s32(fc_rounded(x[v]));
        const int16x4_t second = v + 1 < vectors ? vmovn_s32(fc_rounded(x[v + 1])) : first;
        const uint8x8_t bytes = vqmovun_s16(vaddq_s16(vcombine_s16(first, second), zero));
        const uint8x8_t cut = vmin_u8(vmax_u8(bytes, low), high);
        const int left = fc_min(count, vectors * FC_LANES) - v * FC_LANES;
        if (left >= 8) {
            vst1_u8(y + v * FC_LANES, cut);
        } else if (left > 0) {
            uint8_t eight[8];
            vst1_u8(eight, cut);
            for (int i = 0; i < left; i++)
                y[v * FC_LANES + i] = eight[i];
        }
    }
}

/* The bytes of 8 or 16 numbers: what is too large saturates on its way. With `clip` they are kept within code's ends. */
FC_INLINE void fc_store_numbers(uint8_t *y, const int vectors, const int clip, const fc_reals *x, const struct fc_code *code)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)code->zero);
    const uint8x16_t low = vdupq_n_u8((uint8_t)code->low), high = vdupq_n_u8((uint8_t)code->high);
    int16x8_t near[2];
    FC_UNROLL
    for (int v = 0; v < vectors; v += 2)
        near[v / 2] = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(x[v])), vcvtnq_s32_f32(x[v + 1])), zero);
    if (vectors > 2) {
        const uint8x16_t bytes = vqmovun_high_s16(vqmovun_s16(near[0]), near[1]);
        vst1q_u8(y, clip ? vminq_u8(vmaxq_u8(bytes, low), high) : bytes);
    } else {
        const uint8x8_t bytes = vqmovun_s16(near[0]);
        vst1_u8(y, clip ? vmin_u8(vmax_u8(bytes, vget_low_u8(low)), vget_low_u8(high)) : bytes);
    }
}

/* The bytes of scaled sums, of all 8 or 16 channels. */
#define FC_SCALED 1
FC_INLINE void fc_store_scaled(
    uint8_t *y, const int vectors, const int clip, const fc_ints *sums, const fc_reals *factor, const struct fc_code *code)
{
    fc_reals x[FC_TILE / FC_LANES];
    FC_UNROLL
    for (int v = 0; v < vectors; v++)
        x[v] = vmulq_f32(vcvtq_f32_s32(sums[v]), factor[v]);
    fc_store_numbers(y, vectors, clip, x, code);
}

/* Sixteen bytes, less their zero point. */
FC_INLINE void fc_reals_of_sixteen(fc_reals *x, const uint8_t *p, float zero)
{
    const uint8x16_t bytes = vld1q_u8(p), less = vdupq_n_u8((uint8_t)zero);
    const int16x8_t low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(bytes), vget_low_u8(less)));
    const int16x8_t high = vreinterpretq_s16_u16(vsubl_high_u8(bytes, less));
    x[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    x[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    x[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    x[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}

/* An offset that compilers add to each address where it is used, in place of an address of its own for each. */
#define FC_OPAQUE(x) __asm__("" : "+r"(x))
/* Nothing is loaded before it that is needed behind it: registers are few. */
#define FC_AFTER __asm__ volatile("" ::: "memory");

#endif
