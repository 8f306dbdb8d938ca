/* LSTM and GRU: what the inputs give to the gates is known for all times, and is overwritten; states are floats.

   Weights lie as [tile of 16 gates][unit of the state][gate], as floats or as bytes with a scale for each gate. */
#ifndef FC_RECURRENT_H
#define FC_RECURRENT_H

#include "functions.h"
#include "vectors.h"

struct fc_recurrent {
    int32_t times, batch, units;
    int32_t backwards, reset_last;
};

struct fc_again {
    const float *reals; /* one of these two */
    const int8_t *bytes;
    const float *scale, *bias;
};

#if FC_FORMS
#define FC_AGAIN_TILES (4 * FC_LANES / FC_TILE > 1 ? 4 * FC_LANES / FC_TILE : 1) /* one sum would wait for itself */
#else
#define FC_AGAIN_TILES 1
#endif

/* to[i] += the product of row `first` + i of the weights with the state, and its bias, for rows of `tiles` tiles to before `last`. */
FC_INLINE void fc_again_tiles(
    const int tiles, float *to, const float *state, int units, int tile, int first, int last, const struct fc_again *w, const int replace)
{
    enum { vectors = FC_TILE / FC_LANES };
    fc_reals sums[FC_AGAIN_TILES * vectors];
    float row[FC_AGAIN_TILES * FC_TILE];
    FC_UNROLL
    for (int v = 0; v < tiles * vectors; v++)
        sums[v] = fc_real(0.0f);
    for (int k = 0; k < units; k++) {
        const fc_reals x = fc_real(state[k]);
        FC_UNROLL
        for (int v = 0; v < tiles * vectors; v++) {
            const ptrdiff_t from = ((ptrdiff_t)(tile + v / vectors) * units + k) * FC_TILE + v % vectors * FC_LANES;
            sums[v] = fc_add(sums[v], fc_mul(x, w->bytes ? fc_reals_of_weights(w->bytes + from) : fc_load_reals(w->reals + from)));
        }
    }
    FC_UNROLL
    for (int v = 0; v < tiles * vectors; v++) {
        const int from = tile * FC_TILE + v * FC_LANES;
        if (w->bytes)
            sums[v] = fc_mul(sums[v], fc_load_reals(w->scale + from));
        fc_store_reals(row + v * FC_LANES, fc_add(sums[v], fc_load_reals(w->bias + from)));
    }
    for (int i = fc_max(first, tile * FC_TILE); i < fc_min(last, (tile + tiles) * FC_TILE); i++)
        to[i - first] = replace ? row[i - tile * FC_TILE] : to[i - first] + row[i - tile * FC_TILE];
}

FC_INLINE void fc_again_add(
    float *to, const float *state, int units, int first, int last, const struct fc_again *w, const int replace)
{
    int tile = first / FC_TILE;
    for (; (tile + FC_AGAIN_TILES) * FC_TILE <= last; tile += FC_AGAIN_TILES)
        fc_again_tiles(FC_AGAIN_TILES, to, state, units, tile, first, last, w, replace);
    for (; tile * FC_TILE < last; tile++)
        fc_again_tiles(1, to, state, units, tile, first, last, w, replace);
}

FC_INLINE void fc_begin(float *to, const float *from, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = from ? from[i] : 0.0f;
}

/* Gates i o f c. `state` and `cell` begin as `first` and `first_cell`, or as zeros where those are NULL. */
FC_KERNEL void fc_lstm(
    float *y, float *state, float *cell, float *gates, const float *first, const float *first_cell, const float *reals,
    const int8_t *bytes, const float *scale, const float *bias, const struct fc_recurrent *r)
{
    const struct fc_again w = {reals, bytes, scale, bias};
    const int n = r->units;
    fc_begin(state, first, r->batch * n);
    fc_begin(cell, first_cell, r->batch * n);
    for (int t = 0; t < r->times; t++) {
        const int at = r->backwards ? r->times - 1 - t : t;
        for (int b = 0; b < r->batch; b++) {
            float *g = gates + ((ptrdiff_t)at * r->batch + b) * 4 * n, *h = state + b * n, *c = cell + b * n;
            fc_again_add(g, h, n, 0, 4 * n, &w, 0);
            for (int i = 0; i < n; i++) {
                const float kept = fc_sigmoid(g[2 * n + i]) * c[i], added = fc_sigmoid(g[i]) * fc_tanh(g[3 * n + i]);
                c[i] = kept + added;
                h[i] = fc_sigmoid(g[n + i]) * fc_tanh(c[i]);
            }
            memcpy(y + ((ptrdiff_t)at * r->batch + b) * n, h, (size_t)n * sizeof(float));
        }
    }
}

/* Gates z r h. The reset state, or the product that is reset, takes the place of r. */
FC_KERNEL void fc_gru(
    float *y, float *state, float *gates, const float *first, const float *reals, const int8_t *bytes, const float *scale,
    const float *bias, const struct fc_recurrent *r)
{
    const struct fc_again w = {reals, bytes, scale, bias};
    const int n = r->units;
    fc_begin(state, first, r->batch * n);
    for (int t = 0; t < r->times; t++) {
        const int at = r->backwards ? r->times - 1 - t : t;
        for (int b = 0; b < r->batch; b++) {
            float *g = gates + ((ptrdiff_t)at * r->batch + b) * 3 * n, *h = state + b * n;
            float *own = y + ((ptrdiff_t)at * r->batch + b) * n; /* of the product, until the state is written */
            fc_again_add(g, h, n, 0, 2 * n, &w, 0);
            for (int i = 0; i < n; i++) {
                g[i] = fc_sigmoid(g[i]);
                g[n + i] = fc_sigmoid(g[n + i]);
                if (!r->reset_last)
                    g[n + i] = g[n + i] * h[i];
            }
            fc_again_add(own, r->reset_last ? h : g + n, n, 2 * n, 3 * n, &w, 1);
            for (int i = 0; i < n; i++) {
                const float inner = r->reset_last ? g[n + i] * own[i] : own[i];
                const float fresh = (1.0f - g[i]) * fc_tanh(g[2 * n + i] + inner), old = g[i] * h[i];
                h[i] = fresh + old;
                own[i] = h[i];
            }
        }
    }
}

#endif
