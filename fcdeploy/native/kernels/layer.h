/* Convolutions and dense layers on bytes: for each output position, 16 channels at a time, sums of products in 32 bits.

   A window is read as runs of neighbouring bytes: the bytes of one of its rows where pixels lie side by side, else those
   of one pixel.  Weights lie as [tile of channels][run][4 bytes of the run][channel][4], runs filled up with zeros, so
   that what is read behind a run does not matter. */
#ifndef FC_LAYER_H
#define FC_LAYER_H

#include "bytes.h"
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

#if defined(FC_STORED)
/* Whether the bytes of a layer are combined in registers: those of full tiles, which lie as those beside them do. Kernels for few
   channels or inputs have no such form, and a position that is computed twice must not find the first result beside it. */
FC_INLINE int fc_layer_combines(const uint8_t *y, const uint8_t *beside, const struct fc_combine *c, const struct fc_layer *l)
{
    const int full = l->outs % FC_TILE == 0 || (FC_LANES < FC_TILE && l->outs % FC_LANES == 0);
    if (!full || c->loop.y[3] != 1 || l->images * l->rows * l->columns == 1)
        return 0;
    for (int i = 0; i < 4; i++)
        if (c->loop.y[i] != c->loop.b[i])
            return 0;
#if defined(FC_SIXTEEN)
    const struct fc_written to = {.bytes = (uint8_t *)y};
    return !fc_layer_narrow_steps(&to, l) && (y != beside || fc_layer_across(l) == l->columns);
#else
    (void)y, (void)beside;
    return 1;
#endif
}
#endif

/* A layer whose bytes are combined with those beside them, where the result may be stored.

   l->code is that of the layer's own bytes. Where they are not combined in registers they lie in `own`: all of them where that is y,
   else those of `some` rows at a time (of a layer of one row, columns), which the first loop of c walks over. */
FC_INLINE void fc_layer_combined(
    const int product, uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor,
    const uint8_t *beside, uint8_t *own, int32_t some, const struct fc_combine *c, const struct fc_layer *l)
{
    struct fc_combine with = *c; /* no byte that is written can be one of these */
    struct fc_layer part = *l;
#if defined(FC_STORED)
    if (fc_layer_combines(y, beside, c, l)) {
        fc_layer_run(
            &(struct fc_written){.bytes = y, .factor = factor, .combined = 1, .product = product, .beside = beside, .with = &with}, x, weights, bias, l);
        return;
    }
#endif
    int32_t *const count = l->rows > 1 ? &part.rows : &part.columns, total = *count;
    const int32_t from = l->rows > 1 ? l->x_row : l->x_column;
    if (own != y) {
        part.y_column = l->groups * l->outs;
        part.y_row = part.columns * part.y_column;
    }
    for (int32_t first = 0; first < total; first += some) {
        *count = fc_min(some, total - first);
        if (some < total)
            with.loop.count[0] = *count;
        fc_layer_bytes(own, x + (ptrdiff_t)first * from, weights, bias, factor, &part);
        uint8_t *to = y + (ptrdiff_t)first * c->loop.y[0];
        const uint8_t *other = beside + (ptrdiff_t)first * c->loop.b[0];
        if (product)
            fc_mul_bytes(to, own, other, &with);
        else
            fc_add_bytes(to, own, other, &with);
    }
}

FC_KERNEL void fc_layer_add_bytes(
    uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const uint8_t *beside,
    uint8_t *own, int32_t some, const struct fc_combine *c, const struct fc_layer *l)
{
    fc_layer_combined(0, y, x, weights, bias, factor, beside, own, some, c, l);
}

FC_KERNEL void fc_layer_mul_bytes(
    uint8_t *y, const uint8_t *x, const int8_t *weights, const int32_t *bias, const float *factor, const uint8_t *beside,
    uint8_t *own, int32_t some, const struct fc_combine *c, const struct fc_layer *l)
{
    fc_layer_combined(1, y, x, weights, bias, factor, beside, own, some, c, l);
}

#endif
