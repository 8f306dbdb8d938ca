#include "arm_nnfunctions.h"

#if !defined(CMSIS_NN_USE_SINGLE_ROUNDING)
#error "the stand-in rounds once"
#endif

int8_t stand_in_encode(int32_t sum, int32_t multiplier, int32_t shift, int32_t offset, const cmsis_nn_activation *ends)
{
    const int64_t half = (int64_t)1 << (30 - shift);
    const int64_t near = ((int64_t)sum * multiplier + half) >> (31 - shift);
    const int64_t code = near + offset;
    return (int8_t)(code < ends->min ? ends->min : code > ends->max ? ends->max : code);
}
