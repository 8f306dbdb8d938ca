/* Cortex-M4, M7 and M33: plain C, but for layers, where one instruction multiplies two pairs of 16 bits and adds both. */
#ifndef FC_VECTORS_DSP_H
#define FC_VECTORS_DSP_H

#include <arm_acle.h>

#include "vectors_plain.h"

#define FC_DSP 1

FC_INLINE uint32_t fc_word(const void *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

#if !defined(FC_SOFT)
/* Four bytes of float32(sum) * factor, to the nearest, halves to even (as the unit's register says from the reset on); goes
   on. */
FC_INLINE uint32_t fc_dsp_scaled(const int32_t **sums, const float **factor, int32_t zero)
{
    int32_t a, b, c, d;
    __asm__("vldmia %4!, {s0-s3}\n vldmia %5!, {s4-s7}\n"
            "vcvt.f32.s32 s0, s0\n vcvt.f32.s32 s1, s1\n vcvt.f32.s32 s2, s2\n vcvt.f32.s32 s3, s3\n"
            "vmul.f32 s0, s0, s4\n vmul.f32 s1, s1, s5\n vmul.f32 s2, s2, s6\n vmul.f32 s3, s3, s7\n"
            "vcvtr.s32.f32 s0, s0\n vcvtr.s32.f32 s1, s1\n vcvtr.s32.f32 s2, s2\n vcvtr.s32.f32 s3, s3\n"
            "vmov %0, %1, s0, s1\n vmov %2, %3, s2, s3"
            : "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d), "+&r"(*sums), "+&r"(*factor)
            :
            : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "memory");
    return (uint32_t)__usat(__qadd(a, zero), 8) | (uint32_t)__usat(__qadd(b, zero), 8) << 8 |
           (uint32_t)__usat(__qadd(c, zero), 8) << 16 | (uint32_t)__usat(__qadd(d, zero), 8) << 24;
}
#endif

#endif
