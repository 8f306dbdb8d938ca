#include "arm_nnfunctions.h"

int32_t arm_convolve_wrapper_s8_get_buffer_size(
    const cmsis_nn_conv_params *conv_params, const cmsis_nn_dims *input_dims, const cmsis_nn_dims *filter_dims,
    const cmsis_nn_dims *output_dims)
{
    (void)conv_params, (void)output_dims;
    return 2 * (int32_t)sizeof(int16_t) * input_dims->c * filter_dims->w * filter_dims->h;
}

/* Every byte of the scratch memory is overwritten, as a copy may do. */
arm_cmsis_nn_status arm_convolve_wrapper_s8(
    const cmsis_nn_context *ctx, const cmsis_nn_conv_params *conv_params, const cmsis_nn_per_channel_quant_params *quant_params,
    const cmsis_nn_dims *input_dims, const int8_t *input_data, const cmsis_nn_dims *filter_dims, const int8_t *filter_data,
    const cmsis_nn_dims *bias_dims, const int32_t *bias_data, const cmsis_nn_dims *output_dims, int8_t *output_data)
{
    for (int32_t i = 0; i < ctx->size; i++)
        ((uint8_t *)ctx->buf)[i] = 0xA5;
    if (bias_dims->c != output_dims->c || filter_dims->n != output_dims->c || filter_dims->c != input_dims->c)
        return ARM_CMSIS_NN_ARG_ERROR;
    for (int32_t n = 0; n < input_dims->n; n++)
        for (int32_t y = 0; y < output_dims->h; y++)
            for (int32_t x = 0; x < output_dims->w; x++)
                for (int32_t o = 0; o < output_dims->c; o++) {
                    int32_t sum = bias_data[o];
                    for (int32_t i = 0; i < filter_dims->h; i++)
                        for (int32_t j = 0; j < filter_dims->w; j++) {
                            const int32_t row = y * conv_params->stride.h - conv_params->padding.h + i * conv_params->dilation.h;
                            const int32_t column = x * conv_params->stride.w - conv_params->padding.w + j * conv_params->dilation.w;
                            if (row < 0 || row >= input_dims->h || column < 0 || column >= input_dims->w)
                                continue;
                            for (int32_t c = 0; c < input_dims->c; c++)
                                sum += (input_data[((n * input_dims->h + row) * input_dims->w + column) * input_dims->c + c] +
                                        conv_params->input_offset) *
                                       filter_data[((o * filter_dims->h + i) * filter_dims->w + j) * filter_dims->c + c];
                        }
                    output_data[((n * output_dims->h + y) * output_dims->w + x) * output_dims->c + o] = stand_in_encode(
                        sum, quant_params->multiplier[o], quant_params->shift[o], conv_params->output_offset,
                        &conv_params->activation);
                }
    return ARM_CMSIS_NN_SUCCESS;
}
