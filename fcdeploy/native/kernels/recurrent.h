/* LSTM and GRU: what the inputs give to the gates is known for all times; states are floats.

   Where weights are bytes, products with the state are integers: a state within +-bound is rounded to 1048575 steps to either
   side, which is as fine as sums of float32 are, and written in three digits of seven bits. Sums of each digit are exact in
   32 bits for FC_PART units, and so is their sum until it becomes a float32: the same on every level.

   Weights lie as [tile of 16 units][four units of the state][gate][unit][4], or as floats [tile of 16 units][unit of the
   state][gate][unit]; scales, biases and shifts as [tile of 16 units][gate][unit]. */
#ifndef FC_RECURRENT_H
#define FC_RECURRENT_H

#include "functions.h"
#include "vectors.h"

#define FC_PART 1024     /* units of the state whose products are added in 32 bits: 1024 * 128 * (2^14 - 1) is below 2^31 */
#define FC_STEPS 1048575 /* of a state, to either side of zero */
#define FC_DIGITS 3

#if !defined(fc_dot_digits) /* of digits: two neighbouring products fit in 16 bits */
#define fc_dot_digits fc_dot
#endif

struct fc_recurrent {
    int32_t times, batch, units;
    int32_t backwards, reset_last;
};

struct fc_again {
    const float *reals; /* one of these two */
    const int8_t *bytes;
    const int32_t *shift; /* what digits are more than states, times weights; for each part */
    const float *scale, *bias;
    const uint8_t *order; /* fours of units: see fc_find_order */
    uint8_t *digits; /* [3][units, filled up to 4], the highest first */
    float bound;
    int units, gates;
};

typedef float fc_row[FC_TILE];

/* How many of a row are computed for `count` units: all lanes where vectors are filled anyway. */
#define FC_FILLED(count) (FC_FORMS ? FC_TILE : (count))

FC_INLINE int fc_plane(int units) { return (units + 3) & ~3; }
FC_INLINE int fc_units_of(const struct fc_again *w, int tile) { return fc_min(FC_TILE, w->units - tile * FC_TILE); }

/* The digits of a state. What is infinite or no number makes all products no number. */
FC_INLINE void fc_split_state(struct fc_again *w, const float *state)
{
    const int units = w->units, plane = fc_plane(units); /* copies: a byte that is written could be one of what is pointed to */
    const float steps = (float)FC_STEPS / w->bound;
    uint8_t *first = w->digits, *second = first + plane, *third = second + plane;
    int endless = 0;
    for (int i = 0; i < units; i++) {
        endless |= (fc_bits(state[i]) & 0x7fffffffu) >= 0x7f800000u;
        float x = state[i] * steps;
        x = x > -(float)FC_STEPS ? x : -(float)FC_STEPS;
        x = x < (float)FC_STEPS ? x : (float)FC_STEPS;
        /* round(x) + 2^20: 1.5 * 2^23 leaves no bits behind the point */
        const uint32_t above = fc_bits(x + 12582912.0f) - 0x4b300000u;
        first[i] = (uint8_t)(above >> 14);
        second[i] = (uint8_t)(above >> 7 & 127);
        third[i] = (uint8_t)(above & 127);
    }
    if (endless)
        w->bound = fc_of_bits(0x7fc00000u);
}

/* high * 128 + low as a float32, rounded once: neither part of it needs more than 24 bits. */
FC_INLINE float fc_float_of(int32_t high, int32_t low)
{
    high += low >> 7;
    return (float)(high >> 7) * 16384.0f + (float)((high & 127) << 7 | (low & 127));
}

#if defined(FC_SMALL)

/* Sums of the two higher digits together and of the lowest, for the gates of a unit one by one. */
FC_INLINE void fc_part_sums(
    fc_row *to, const struct fc_again *w, int begin, int end, int tile, const int8_t *weights, const int32_t *shift,
    const int from,
    const int count)
{
    const int plane = fc_plane(w->units), units = fc_units_of(w, tile);
    for (int g = 0; g < count; g++) {
        for (int i = 0; i < units; i++) {
            const int8_t *own = weights + ((from + g) * FC_TILE + i) * 4;
            int32_t high = shift[(from + g) * FC_TILE + i] * 128, low = 0;
            for (int k = begin; k < end; own += 4 * (FC_TILE * w->gates - 1)) {
                for (const int four = k + 4; k < four; k++, own++) {
                    const uint8_t *digit = w->digits + k;
                    high += (int32_t)*own * (digit[0] << 7 | digit[plane]); /* an int may have 16 bits */
                    low += *own * digit[2 * plane];
                }
            }
            to[g][i] = fc_float_of(high, low);
        }
    }
}

#elif defined(fc_dot_lane)
#include "recurrent_neon.h"
#else

#if defined(fc_dot_two)
/* How many pairs of fours follow, these, and what fours are left: of pairs, four products of digits add up within 16 bits. */
FC_INLINE const uint8_t *fc_find_order(const struct fc_again *w, int begin, int tile)
{
    const int parts = (w->units + FC_PART - 1) / FC_PART;
    return w->order + tile * (fc_plane(w->units) / 4 + parts) + begin / 4 + begin / FC_PART;
}

/* Products of a pair of fours and their weights for `count` gates. */
FC_INLINE void fc_add_two_fours(
    const int count, fc_ints *sums, const uint8_t *digit, const uint8_t *other, int plane, const int8_t *own, const int8_t *others)
{
    FC_UNROLL
    for (int d = 0; d < FC_DIGITS; d++) {
        const fc_ints x = fc_splat(digit + d * plane), y = fc_splat(other + d * plane);
        FC_UNROLL
        for (int g = 0; g < count; g++)
            sums[4 * d + g] = fc_dot_two(
                sums[4 * d + g], x, fc_weights(own + g * 4 * FC_TILE), y, fc_weights(others + g * 4 * FC_TILE));
    }
}
#endif

/* Products of four units of the state and their weights for `count` gates. */
FC_INLINE void fc_add_four(const int count, fc_ints *sums, const uint8_t *digit, int plane, const int8_t *own)
{
    const fc_ints high = fc_splat(digit), middle = fc_splat(digit + plane), low = fc_splat(digit + 2 * plane);
    FC_UNROLL
    for (int g = 0; g < count; g++) {
        const fc_ints each = fc_weights(own + g * 4 * FC_TILE);
        sums[g] = fc_dot_digits(sums[g], high, each);
        sums[4 + g] = fc_dot_digits(sums[4 + g], middle, each);
        sums[8 + g] = fc_dot_digits(sums[8 + g], low, each);
    }
}

FC_INLINE void fc_part_sums(
    fc_row *to, const struct fc_again *w, int begin, int end, int tile, const int8_t *weights, const int32_t *shift,
    const int from,
    const int count)
{
    enum { vectors = FC_TILE / FC_LANES };
    const int plane = fc_plane(w->units);
    const int units = FC_FILLED(fc_units_of(w, tile));
    int32_t of[FC_DIGITS][4][FC_TILE];
    for (int v = 0; v < vectors; v++) {
        fc_ints sums[4 * FC_DIGITS];
        memset(sums, 0, sizeof sums);
        FC_UNROLL
        for (int g = 0; g < count; g++)
            sums[g] = fc_load_ints(shift + (from + g) * FC_TILE + v * FC_LANES);
        const int8_t *own = weights + (from * FC_TILE + v * FC_LANES) * 4;
        const uint8_t *digit = w->digits + begin;
        const int next = 4 * FC_TILE * w->gates, fours = (end - begin) / 4;
#if defined(fc_dot_two)
        const uint8_t *order = fc_find_order(w, begin, tile), *const last = order + 1 + fours;
        for (int pairs = *order++; pairs > 0; pairs--, order += 2)
            fc_add_two_fours(
                count, sums, digit + 4 * order[0], digit + 4 * order[1], plane, own + order[0] * next, own + order[1] * next);
        for (; order < last; order++)
            fc_add_four(count, sums, digit + 4 * *order, plane, own + *order * next);
#else
        for (const uint8_t *const last = digit + 4 * fours; digit < last; digit += 4, own += next)
            fc_add_four(count, sums, digit, plane, own);
#endif
        FC_UNROLL
        for (int d = 0; d < FC_DIGITS; d++) {
            FC_UNROLL
            for (int g = 0; g < count; g++)
                memcpy(&of[d][g][v * FC_LANES], &sums[4 * d + g], sizeof sums[0]);
        }
    }
    FC_UNROLL
    for (int g = 0; g < count; g++)
        for (int i = 0; i < units; i++)
            to[g][i] = fc_float_of(of[0][g][i] * 128 + of[1][g][i], of[2][g][i]);
}

#endif

/* Products of the state, as digits, with the weights of `count` gates from gate `from` on. */
FC_INLINE void fc_again_bytes(fc_row *to, const struct fc_again *w, int tile, const int from, const int count)
{
    const int rows = w->gates * FC_TILE, plane = fc_plane(w->units), tiles = (w->units + FC_TILE - 1) / FC_TILE;
    const int units = FC_FILLED(fc_units_of(w, tile));
    const int8_t *weights = w->bytes + (ptrdiff_t)tile * plane * rows;
    for (int begin = 0, part = 0; begin < plane; begin += FC_PART, part++) {
        const int32_t *shift = w->shift + (ptrdiff_t)(part * tiles + tile) * rows;
        fc_row own[4];
        fc_part_sums(
            part ? own : to, w, begin, fc_min(plane, begin + FC_PART), tile, weights + (ptrdiff_t)begin * rows, shift, from,
            count);
        for (int g = 0; part && g < count; g++)
            for (int i = 0; i < units; i++)
                to[g][i] += own[g][i];
    }
    const ptrdiff_t at = (ptrdiff_t)tile * rows + from * FC_TILE;
    const float *scale = w->scale + at, *bias = w->bias + at;
    for (int g = 0; g < count; g++)
        for (int i = 0; i < units; i++)
            to[g][i] = to[g][i] * (scale[g * FC_TILE + i] * w->bound) + bias[g * FC_TILE + i];
}

/* The same with weights that are floats: added up from the first unit of the state to the last. */
FC_INLINE void fc_again_reals(
    fc_row *to, const struct fc_again *w, const float *state, int tile, const int from, const int count)
{
    enum { vectors = FC_TILE / FC_LANES };
    const ptrdiff_t rows = w->gates * FC_TILE;
    const float *own = w->reals + tile * w->units * rows + from * FC_TILE, *bias = w->bias + tile * rows + from * FC_TILE;
    for (int v = 0; v < vectors; v++) {
        fc_reals sums[4];
        FC_UNROLL
        for (int g = 0; g < count; g++)
            sums[g] = fc_real(0.0f);
        for (int k = 0; k < w->units; k++) {
            const fc_reals x = fc_real(state[k]);
            FC_UNROLL
            for (int g = 0; g < count; g++)
                sums[g] = fc_add(sums[g], fc_mul(x, fc_load_reals(own + k * rows + g * FC_TILE + v * FC_LANES)));
        }
        FC_UNROLL
        for (int g = 0; g < count; g++)
            fc_store_reals(to[g] + v * FC_LANES, fc_add(sums[g], fc_load_reals(bias + g * FC_TILE + v * FC_LANES)));
    }
}

FC_INLINE void fc_again_rows(
    fc_row *to, const struct fc_again *w, const float *state, int tile, const int from, const int count)
{
    if (w->bytes)
        fc_again_bytes(to, w, tile, from, count);
    else
        fc_again_reals(to, w, state, tile, from, count);
}

FC_INLINE void fc_begin(float *to, const float *from, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = from ? from[i] : 0.0f;
}

/* What no state of a sequence is beyond: those that are computed lie within 1, or between it and the one before. */
FC_INLINE float fc_bound(const float *state, int count)
{
    float most = 1.0f;
    for (int i = 0; i < count; i++)
        most = fc_absolute(state[i]) > most ? fc_absolute(state[i]) : most;
    return most;
}

/* `count` floats of a row, zeros behind them where they are computed with. */
FC_INLINE void fc_take_row(float *row, const float *from, const int count)
{
    for (int i = 0; i < FC_FILLED(count); i++)
        row[i] = i < count ? from[i] : 0.0f;
}

FC_INLINE void fc_put_row(float *to, const float *row, const int count) { memcpy(to, row, (size_t)count * sizeof(float)); }

/* 1 / sigmoid(x) */
FC_INLINE float fc_shut(float x) { return 1.0f + fc_exp_within_40(-x); }

/* tanh(x) / by, with one division: tanh(x) = (e^2x - 1) / (e^2x + 1), which is near enough beside numbers of 1 */
FC_INLINE float fc_tanh_over(float x, float by)
{
    const float e = fc_exp_within_40(2.0f * x);
    return (e - 1.0f) / ((e + 1.0f) * by);
}

/* `count` units of an LSTM from unit 16 * tile on. */
FC_INLINE void fc_lstm_tile(
    float *next, float *cell, const float *gates, const float *state, const struct fc_again *w, int tile, const int count)
{
    fc_row again[4], given[4], c, h;
    const int first = tile * FC_TILE, n = w->units;
    fc_again_rows(again, w, state, tile, 0, 4);
    for (int g = 0; g < 4; g++)
        fc_take_row(given[g], gates + g * n + first, count);
    fc_take_row(c, cell + first, count);
    for (int i = 0; i < FC_FILLED(count); i++) {
        const float in = fc_shut(given[0][i] + again[0][i]), out = fc_shut(given[1][i] + again[1][i]);
        const float kept = c[i] / fc_shut(given[2][i] + again[2][i]);
        c[i] = kept + fc_tanh_over(given[3][i] + again[3][i], in);
        h[i] = fc_tanh_over(c[i], out);
    }
    fc_put_row(cell + first, c, count);
    fc_put_row(next + first, h, count);
}

/* Gates i o f c. `state` and `cell` begin as `first` and `first_cell`, or as zeros where those are NULL. */
FC_KERNEL void fc_lstm(
    float *y, float *state, float *cell, const float *gates, const float *first, const float *first_cell, const float *reals,
    const int8_t *bytes, const int32_t *shift, const float *scale, const float *bias, const uint8_t *order, uint8_t *digits,
    const struct fc_recurrent *r)
{
    const int n = r->units;
    struct fc_again w = {reals, bytes, shift, scale, bias, order, digits, 1.0f, n, 4};
    fc_begin(state, first, r->batch * n);
    fc_begin(cell, first_cell, r->batch * n);
    for (int b = 0; b < r->batch; b++) {
        const float *h = state + b * n;
        w.bound = fc_bound(h, n);
        for (int t = 0; t < r->times; t++) {
            const ptrdiff_t at = (ptrdiff_t)(r->backwards ? r->times - 1 - t : t) * r->batch + b;
            if (bytes)
                fc_split_state(&w, h);
            for (int tile = 0; tile * FC_TILE < n; tile++)
                if (FC_FORMS && n - tile * FC_TILE >= FC_TILE)
                    fc_lstm_tile(y + at * n, cell + b * n, gates + at * 4 * n, h, &w, tile, FC_TILE);
                else
                    fc_lstm_tile(y + at * n, cell + b * n, gates + at * 4 * n, h, &w, tile, fc_min(FC_TILE, n - tile * FC_TILE));
            h = y + at * n;
            w.bound = 1.0f;
        }
        fc_put_row(state + b * n, h, n);
    }
}

/* Of `count` units of a GRU exp(-x) of the update gate into `z`, for z = 1 / (1 + exp(-x)), and the reset gate into `r`,
   times the state where that is what is multiplied. */
FC_INLINE void fc_gru_gates(
    float *z, float *r, const fc_row *again, const float *gates, const float *state, int n, const int count, const int reset_last)
{
    fc_row given[2], h;
    for (int g = 0; g < 2; g++)
        fc_take_row(given[g], gates + g * n, count);
    fc_take_row(h, state, count);
    for (int i = 0; i < FC_FILLED(count); i++) {
        z[i] = fc_exp_within_40(-(given[0][i] + again[0][i]));
        r[i] = (reset_last ? 1.0f : h[i]) / fc_shut(given[1][i] + again[1][i]);
    }
}

/* The next state of `count` units, (1 - z) tanh(x) + z h, with one division. */
FC_INLINE void fc_gru_state(
    float *next, const float *z, const float *inner, const float *given, const float *state, const int count)
{
    fc_row x, h;
    fc_take_row(x, given, count);
    fc_take_row(h, state, count);
    for (int i = 0; i < FC_FILLED(count); i++) {
        const float e = fc_exp_within_40(2.0f * (x[i] + inner[i]));
        const float fresh = z[i] * (e - 1.0f), old = h[i] * (e + 1.0f);
        h[i] = (fresh + old) / ((1.0f + z[i]) * (e + 1.0f));
    }
    fc_put_row(next, h, count);
}

/* `count` units where the product is reset. */
FC_INLINE void fc_gru_tile(
    float *next, const float *gates, const float *state, const struct fc_again *w, int tile, const int count)
{
    fc_row again[3], z, r;
    const int first = tile * FC_TILE, n = w->units;
    fc_again_rows(again, w, state, tile, 0, 3);
    fc_gru_gates(z, r, again, gates + first, state + first, n, count, 1);
    for (int i = 0; i < FC_FILLED(count); i++)
        again[2][i] = r[i] * again[2][i];
    fc_gru_state(next + first, z, again[2], gates + 2 * n + first, state + first, count);
}

/* `count` units where the state is reset: first both into their places, then the state. */
FC_INLINE void fc_gru_reset(float *gates, const float *state, const struct fc_again *w, int tile, const int count)
{
    fc_row again[2], z, r;
    const int first = tile * FC_TILE, n = w->units;
    fc_again_rows(again, w, state, tile, 0, 2);
    fc_gru_gates(z, r, again, gates + first, state + first, n, count, 0);
    fc_put_row(gates + first, z, count);
    fc_put_row(gates + n + first, r, count);
}

FC_INLINE void fc_gru_finish(
    float *next, const float *gates, const float *state, const struct fc_again *w, int tile, const int count)
{
    fc_row again[1], z;
    const int first = tile * FC_TILE, n = w->units;
    fc_again_rows(again, w, gates + n, tile, 2, 1);
    fc_take_row(z, gates + first, count);
    fc_gru_state(next + first, z, again[0], gates + 2 * n + first, state + first, count);
}

/* One time of a sample. */
FC_INLINE void fc_gru_time(float *next, float *gates, const float *h, struct fc_again *w, int reset_last)
{
    const int n = w->units;
    if (w->bytes)
        fc_split_state(w, h);
    if (reset_last) {
        for (int tile = 0; tile * FC_TILE < n; tile++)
            if (FC_FORMS && n - tile * FC_TILE >= FC_TILE)
                fc_gru_tile(next, gates, h, w, tile, FC_TILE);
            else
                fc_gru_tile(next, gates, h, w, tile, fc_min(FC_TILE, n - tile * FC_TILE));
        return;
    }
    for (int tile = 0; tile * FC_TILE < n; tile++)
        fc_gru_reset(gates, h, w, tile, fc_min(FC_TILE, n - tile * FC_TILE));
    if (w->bytes)
        fc_split_state(w, gates + n);
    for (int tile = 0; tile * FC_TILE < n; tile++)
        fc_gru_finish(next, gates, h, w, tile, fc_min(FC_TILE, n - tile * FC_TILE));
}

/* Gates z r h, which are overwritten where the state is reset. */
FC_KERNEL void fc_gru(
    float *y, float *state, float *gates, const float *first, const float *reals, const int8_t *bytes, const int32_t *shift,
    const float *scale, const float *bias, const uint8_t *order, uint8_t *digits, const struct fc_recurrent *r)
{
    const int n = r->units;
    struct fc_again w = {reals, bytes, shift, scale, bias, order, digits, 1.0f, n, 3};
    fc_begin(state, first, r->batch * n);
    for (int b = 0; b < r->batch; b++) {
        const float *h = state + b * n;
        w.bound = fc_bound(h, n);
        for (int t = 0; t < r->times; t++) {
            const ptrdiff_t at = (ptrdiff_t)(r->backwards ? r->times - 1 - t : t) * r->batch + b;
            fc_gru_time(y + at * n, gates + at * 3 * n, h, &w, r->reset_last);
            h = y + at * n;
            if (w.bound != 1.0f) /* a first state that was large, which is left behind */
                w.bound = fc_bound(h, n);
        }
        fc_put_row(state + b * n, h, n);
    }
}

#endif
