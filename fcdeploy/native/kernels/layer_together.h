/* Layers of Cortex-M4 and of Helium: all channels of a group at one position, or at three. */
#ifndef FC_LAYER_TOGETHER_H
#define FC_LAYER_TOGETHER_H

#include "layer_sums.h"

#if defined(FC_DSP)
#include "layer_dsp.h"
#else
#include "layer_mve.h"
#endif

/* All groups at some positions. */
FC_INLINE void fc_layer_groups(
    const struct fc_written *all, const uint8_t *x, const int32_t *from, const int32_t *at, const int positions,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    struct fc_written to = *all;
    for (int g = 0; g < l->groups; g++) {
        const float *before = to.factor;
        fc_layer_several(&to, x + g * l->x_group, from, at, positions, weights, bias, l);
        weights += 4 * (to.factor - before) * (l->runs_y * l->runs_x * l->steps);
        bias += to.factor - before;
    }
}

/* A layer of one position, as dense layers are. */
static __attribute__((noinline, unused)) void fc_layer_run_alone(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    const int32_t none = 0;
    fc_layer_groups(all, x, &none, &none, 1, weights, bias, l);
}

/* FC_TOGETHER positions at a time; where FC_AGAIN, some are computed again rather than less than so many. */
static __attribute__((noinline, unused)) void fc_layer_run_all(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    const int total = l->images * l->rows * l->columns;
    for (int first = 0, positions; first < total; first += positions) {
        int32_t from[FC_TOGETHER], at[FC_TOGETHER];
        positions = fc_min(FC_TOGETHER, total - first);
#if FC_AGAIN
        first = fc_max(0, first + positions - FC_TOGETHER);
        positions = fc_min(FC_TOGETHER, total);
        if (positions < FC_TOGETHER) /* two: the first one twice */
            fc_layer_places(0, 1, from + 2, at + 2, l);
        fc_layer_places(first, positions, from, at, l);
        positions = FC_TOGETHER;
#else
        fc_layer_places(first, positions, from, at, l);
#endif
        fc_layer_groups(all, x, from, at, positions, weights, bias, l);
    }
}

/* Apart, so that a network of dense layers needs the stack of one position alone. */
FC_INLINE void fc_layer_run(
    const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    if (l->images * l->rows * l->columns == 1)
        fc_layer_run_alone(all, x, weights, bias, l);
    else
        fc_layer_run_all(all, x, weights, bias, l);
}

#endif
