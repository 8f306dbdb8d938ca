/* Convolutions and dense layers on bytes: for each output position, 16 channels at a time, sums of products in 32 bits.

   A window is read as runs of neighbouring bytes: the bytes of one of its rows where pixels lie side by side, else those
   of one pixel.  Weights lie as [tile of channels][run][4 bytes of the run][channel][4], runs filled up with zeros, so
   that what is read behind a run does not matter. */
#ifndef FC_LAYER_H
#define FC_LAYER_H

#include "layer_sums.h"

#if defined(FC_DSP) || defined(FC_MVE)
#include "layer_together.h"
#else
#include "layer_tiles.h"
#endif

FC_KERNEL void fc_layer_bytes(
    uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const struct fc_layer *l)
{
    fc_layer_run(&(struct fc_written){.bytes = y, .factor = factor, .code = &l->code}, x, weights, bias, l);
}

/* float32(sum) * factor + real_bias; without the latter where it is NULL. */
FC_KERNEL void fc_layer_reals(
    float *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const float *real_bias,
    const struct fc_layer *l)
{
    fc_layer_run(&(struct fc_written){.reals = y, .factor = factor, .bias = real_bias, .code = &l->code}, x, weights, bias, l);
}

#endif
