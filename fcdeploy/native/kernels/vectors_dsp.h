/* Cortex-M4, M7 and M33: plain C, but for layers, where one instruction multiplies two pairs of 16 bits and adds both. */
#ifndef FC_VECTORS_DSP_H
#define FC_VECTORS_DSP_H

#include <arm_acle.h>

#include "vectors_plain.h"

#undef FC_POSITIONS_16
#define FC_POSITIONS_16 2
#define FC_DSP 1

FC_INLINE uint32_t fc_word(const void *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

/* Bytes 0 and 2 of unsigned activations and signed weights, then 1 and 3. */
FC_INLINE int32_t fc_dsp_dot(int32_t sum, uint32_t even, uint32_t odd, uint32_t w)
{
    sum = __smlad((int16x2_t)even, __sxtb16((int8x4_t)w), sum);
    return __smlad((int16x2_t)odd, __sxtb16((int8x4_t)__ror(w, 8)), sum);
}

#endif
