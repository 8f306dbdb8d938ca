/* What all kernels share: types, rounding, and loops over tensors that need not lie in one piece. */
#ifndef FC_COMMON_H
#define FC_COMMON_H

#include <stddef.h>
#include <stdint.h>
#if !defined(__GNUC__) || __STDC_HOSTED__
#include <string.h>
#endif

/* Also where the compiler is told that there is no library: a copy of four bytes is one instruction. */
#if defined(__GNUC__)
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#endif

/* A product and a sum are rounded one after the other, as on every other target. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && defined(__FP_FAST_FMAF) && !defined(__STRICT_ANSI__)
#error "gcc would contract products and sums: compile with -std=c11 or -ffp-contract=off"
#endif

#if defined(__GNUC__)
#define FC_INLINE static inline __attribute__((always_inline, unused))
#define FC_KERNEL static __attribute__((unused))
#else
#define FC_INLINE static inline
#define FC_KERNEL static
#endif
#if defined(__clang__)
#define FC_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FC_UNROLL _Pragma("GCC unroll 64")
#else
#define FC_UNROLL
#endif

#define FC_TILE 16 /* channels that are computed together; weights lie in tiles of so many, the last of 8 or 16 */
#define FC_VECTORS(channels) (((channels) + FC_LANES - 1) / FC_LANES)

/* Four nested loops over elements; the innermost runs over neighbours where its strides are 1. Strides are in elements. */
struct fc_loop {
    int32_t count[4];
    int32_t y[4], a[4], b[4];
};

/* What a real number becomes: round(real) + zero, within low and high. */
struct fc_code {
    int32_t zero, low, high;
};

FC_INLINE int32_t fc_min(int32_t a, int32_t b) { return a < b ? a : b; }
FC_INLINE int32_t fc_max(int32_t a, int32_t b) { return a > b ? a : b; }

#if !defined(FC_SOFT) && ((defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen)) || \
                          defined(__AVR__) || defined(__XTENSA_SOFT_FLOAT__))
#define FC_SOFT 1 /* no floating-point unit */
#endif

#if defined(FC_SOFT)
#include "soft.h"
#else

#if defined(__arm__) && defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#endif

/* The nearest integer, halves to even: 1.5 * 2^23 leaves no bits behind the point. For |x| < 2^22. */
FC_INLINE int32_t fc_nearest(float x)
{
    return (int32_t)((x + 12582912.0f) - 12582912.0f);
}

/* A byte of a real number in units of the scale; what is no number becomes the lowest. */
FC_INLINE uint8_t fc_byte(float x, const struct fc_code *code)
{
    x = x > -1024.0f ? x : -1024.0f;
    x = x < 1024.0f ? x : 1024.0f;
    return (uint8_t)fc_max(code->low, fc_min(code->high, fc_nearest(x) + code->zero));
}

/* The byte of float32(sum) * factor. */
FC_INLINE uint8_t fc_scaled_byte(int32_t sum, float factor, const struct fc_code *code)
{
#if defined(__arm__) && defined(__ARM_FEATURE_DSP)
    int32_t near; /* as the unit's register says: to the nearest, halves to even, from the reset on */
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(near) : "t"((float)sum * factor));
    near = __qadd(near, code->zero);
    return (uint8_t)fc_max(code->low, fc_min(code->high, near));
#else
    return fc_byte((float)sum * factor, code);
#endif
}

FC_INLINE float fc_scaled(int32_t n, float factor) { return (float)n * factor; }

#endif

#endif
