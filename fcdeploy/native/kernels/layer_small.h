/* Layers of small cores: four channels at one position, one sum after the other. */
#ifndef FC_LAYER_SMALL_H
#define FC_LAYER_SMALL_H

#include "layer_sums.h"

/* Four channels at one position. */
static __attribute__((noinline, unused)) void fc_layer_sums_of_four(
    int32_t *sums, const uint8_t *x, const int8_t *weights, int width, const struct fc_layer *l)
{
    int32_t a0 = sums[0], a1 = sums[1], a2 = sums[2], a3 = sums[3];
    for (int ry = 0; ry < l->runs_y; ry++, x += l->run_y) {
        const uint8_t *from = x - (ry & l->early);
        for (int rx = 0; rx < l->runs_x; rx++, from += l->run_x) {
            for (const uint8_t *p = from, *end = from + 4 * l->steps; p < end; p += 4, weights += 4 * width) {
                const int8_t *w = weights;
                for (int i = 0; i < 4; i++, w++) {
                    const int32_t one = p[i];
                    a0 += one * w[0];
                    a1 += one * w[4];
                    a2 += one * w[8];
                    a3 += one * w[12];
                }
            }
        }
    }
    sums[0] = a0, sums[1] = a1, sums[2] = a2, sums[3] = a3;
}

static __attribute__((noinline, unused)) void fc_layer_block(
    const int positions, const int vectors, const int wide, const int even, const uint8_t *x, const int32_t *from,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    int32_t sums[2][FC_TILE];
    const int width = vectors * FC_LANES;
    (void)wide;
    (void)even;
    count = fc_min(count, width);
    for (int p = 0; p < positions; p++)
        for (int c = 0; c < width; c++)
            sums[p][c] = bias[c];
    for (int p = 0; p < positions; p++)
        for (int c = 0; c < count; c += 4)
            fc_layer_sums_of_four(sums[p] + c, x + from[p], weights + 4 * c, width, l);
    for (int p = 0; p < positions; p++)
        fc_layer_write(to, at[p], count, sums[p]);
}

#endif
