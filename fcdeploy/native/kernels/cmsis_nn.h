/* Layers that CMSIS-NN computes: arm_convolve_wrapper_s8 and arm_depthwise_conv_wrapper_s8 of a copy that is not part of this.

   Its bytes are signed: those of the input are made signed where they lie, and unsigned again afterwards.  Sums are scaled
   with one rounding, for which CMSIS-NN must be compiled with CMSIS_NN_USE_SINGLE_ROUNDING as well.  A copy that refuses a
   layer, or wants more memory than is kept for it, ends in FC_REFUSED, which may be defined as something else. */
#ifndef FC_CMSIS_NN_H
#define FC_CMSIS_NN_H

#include "common.h"
#include <arm_nnfunctions.h>

#if !defined(CMSIS_NN_USE_SINGLE_ROUNDING)
#error "compile this file and CMSIS-NN with -DCMSIS_NN_USE_SINGLE_ROUNDING"
#endif
#if !defined(FC_REFUSED)
#define FC_REFUSED() __builtin_trap()
#endif

struct fc_cmsis_nn {
    int32_t depthwise;                          /* whether each channel has its own window, and channels lie innermost */
    int32_t images, x_rows, x_columns, x_channels;
    int32_t rows, columns, channels;            /* of the output */
    int32_t taps_y, taps_x, step_y, step_x, gap_y, gap_x, before_y, before_x;
    int32_t x_zero, y_zero, low, high;          /* zero points, and the ends of what is written, all of signed bytes */
    int32_t scratch;                            /* bytes */
};

/* 128 is 0 of signed bytes, and 0 is -128. */
FC_INLINE void fc_change_sign(uint8_t *x, int32_t count)
{
    for (; count >= 4; count -= 4, x += 4) {
        uint32_t word;
        memcpy(&word, x, 4);
        word ^= 0x80808080u;
        memcpy(x, &word, 4);
    }
    for (; count > 0; count--)
        *x++ ^= 0x80;
}

FC_KERNEL void fc_cmsis_nn(
    uint8_t *y, uint8_t *x, const int8_t *weights, const int32_t *bias, const int32_t *multiplier, const int32_t *shift,
    uint8_t *scratch, const struct fc_cmsis_nn *l)
{
    const cmsis_nn_per_channel_quant_params scales = {(int32_t *)multiplier, (int32_t *)shift};
    const cmsis_nn_dims from = {l->images, l->x_rows, l->x_columns, l->x_channels};
    const cmsis_nn_dims to = {l->images, l->rows, l->columns, l->channels};
    const cmsis_nn_dims biases = {1, 1, 1, l->channels};
    const cmsis_nn_tile step = {l->step_x, l->step_y}, before = {l->before_x, l->before_y}, gap = {l->gap_x, l->gap_y};
    const cmsis_nn_activation ends = {l->low, l->high};
    const int32_t count = l->images * l->x_rows * l->x_columns * l->x_channels;
    cmsis_nn_context context = {scratch, l->scratch};
    arm_cmsis_nn_status status = ARM_CMSIS_NN_FAILURE;
    fc_change_sign(x, count);
    if (l->depthwise) {
        const cmsis_nn_dims taps = {1, l->taps_y, l->taps_x, l->channels};
        const cmsis_nn_dw_conv_params how = {-l->x_zero, l->y_zero, 1, step, before, gap, ends};
        if (arm_depthwise_conv_wrapper_s8_get_buffer_size(&how, &from, &taps, &to) <= l->scratch)
            status = arm_depthwise_conv_wrapper_s8(
                &context, &how, &scales, &from, (const int8_t *)x, &taps, weights, &biases, bias, &to, (int8_t *)y);
    } else {
        const cmsis_nn_dims taps = {l->channels, l->taps_y, l->taps_x, l->x_channels};
        const cmsis_nn_conv_params how = {-l->x_zero, l->y_zero, step, before, gap, ends};
        if (arm_convolve_wrapper_s8_get_buffer_size(&how, &from, &taps, &to) <= l->scratch)
            status = arm_convolve_wrapper_s8(
                &context, &how, &scales, &from, (const int8_t *)x, &taps, weights, &biases, bias, &to, (int8_t *)y);
    }
    if (status != ARM_CMSIS_NN_SUCCESS)
        FC_REFUSED();
    fc_change_sign(x, count);
    fc_change_sign(y, l->images * l->rows * l->columns * l->channels);
}

#endif
