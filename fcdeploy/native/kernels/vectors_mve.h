/* Cortex-M55 with Helium: plain C, but for layers and depthwise convolutions, whose bytes are multiplied sixteen at once. */
#ifndef FC_VECTORS_MVE_H
#define FC_VECTORS_MVE_H

#include <arm_mve.h>

#include "vectors_plain.h"

#define FC_MVE 1

/* `count` bytes of float32(sum) * factor, to the nearest, halves to even. */
FC_INLINE void fc_mve_store(uint8_t *y, int count, const int32_t *sums, const float *factor, const struct fc_code *code)
{
    const int32x4_t low = vdupq_n_s32(code->low), high = vdupq_n_s32(code->high);
    for (; count > 0; count -= 4, y += 4, sums += 4, factor += 4) {
        const mve_pred16_t some = vctp32q((uint32_t)count);
        const float32x4_t real = vmulq_f32(vcvtq_f32_s32(vldrwq_z_s32(sums, some)), vldrwq_z_f32(factor, some));
        const int32x4_t near = vqaddq_n_s32(vcvtnq_s32_f32(real), code->zero);
        vstrbq_p_s32((int8_t *)y, vminq_s32(vmaxq_s32(near, low), high), some);
    }
}

#endif
