/* Layers of up to eight channels on x86: lanes are eight or sixteen neighbouring positions, and each channel is a vector.

   With channels in its lanes a vector would be half empty. What windows have at one of their steps is put in order once for
   all channels. */
#ifndef FC_LAYER_LANES_H
#define FC_LAYER_LANES_H

#include "layer_pairs.h"

#if defined(FC_SIXTEEN)
#define FC_LANES_BLOCKS 2 /* vectors of positions that are computed together */
#else
#define FC_LANES_BLOCKS 1
#endif

/* Whether neighbouring windows are as far apart as fc_lanes_of can read, and no two products leave 16 bits. */
FC_INLINE int fc_layer_fits_lanes(const struct fc_written *to, const struct fc_layer *l)
{
    return to->bytes && l->groups == 1 && l->outs > 4 && l->outs <= 8 && l->columns >= FC_LANES &&
           !(FC_PAIRS && l->wide && *l->wide) && (l->x_column == 1 || l->x_column == 4 || l->x_column == 8);
}

#if defined(FC_SIXTEEN)
/* Four bytes for each of FC_LANES positions that are 1, 4 or 8 bytes apart. */
FC_INLINE fc_ints fc_lanes_of(const uint8_t *x, int32_t apart)
{
    if (apart == 4)
        return _mm512_loadu_si512(x);
    if (apart == 8) {
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        return _mm512_permutex2var_epi32(_mm512_loadu_si512(x), even, _mm512_loadu_si512(x + 64));
    }
    const __m512i words = _mm512_setr_epi32(0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4); /* each quarter: two of them */
    const __m128i each = _mm_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6);
    const __m512i eight = _mm512_permutexvar_epi32(words, _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)x)));
    return _mm512_shuffle_epi8(eight, _mm512_broadcast_i32x4(each));
}

/* The bytes of eight vectors, eight of a position side by side; numbers below 2^31. */
FC_INLINE void fc_store_lanes(uint8_t *all, const fc_reals *x, const struct fc_code *code)
{
    const __m512i columns = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    /* in each quarter four channels of four positions */
    const __m512i low = _mm512_shuffle_epi8(fc_bytes_by_turns(x, code), columns);
    const __m512i high = _mm512_shuffle_epi8(fc_bytes_by_turns(x + 4, code), columns);
    const __m512i first = _mm512_unpacklo_epi32(low, high), second = _mm512_unpackhi_epi32(low, high);
    const __m512i front = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), back = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(all, _mm512_permutex2var_epi64(first, front, second));
    _mm512_storeu_si512(all + 64, _mm512_permutex2var_epi64(first, back, second));
}
#else
FC_INLINE fc_ints fc_lanes_of(const uint8_t *x, int32_t apart)
{
    if (apart == 4)
        return _mm256_loadu_si256((const __m256i *)x);
    if (apart == 8) {
        const __m256 first = _mm256_loadu_ps((const float *)(const void *)x);
        const __m256 last = _mm256_loadu_ps((const float *)(const void *)(x + 32));
        return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(first, last, 0x88)), 0xD8);
    }
    const __m256i each = _mm256_setr_epi8(
        0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6, 4, 5, 6, 7, 5, 6, 7, 8, 6, 7, 8, 9, 7, 8, 9, 10);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)x)), each);
}

FC_INLINE void fc_store_lanes(uint8_t *all, const fc_reals *x, const struct fc_code *code)
{
    const __m256i columns =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    /* in each half four channels of four positions */
    const __m256i low = _mm256_shuffle_epi8(fc_bytes_by_turns(x, code), columns);
    const __m256i high = _mm256_shuffle_epi8(fc_bytes_by_turns(x + 4, code), columns);
    const __m256i first = _mm256_unpacklo_epi32(low, high), second = _mm256_unpackhi_epi32(low, high);
    _mm256_storeu_si256((__m256i *)all, _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256((__m256i *)(all + 32), _mm256_permute2x128_si256(first, second, 0x31));
}
#endif

/* FC_LANES positions of a row to where they belong. What is too much of one the next one overwrites, but for the last. */
FC_INLINE void fc_layer_write_lanes(
    const int channels, const struct fc_written *to, uint8_t *y, const fc_ints *sums, const struct fc_layer *l)
{
    uint8_t all[8 * FC_LANES];
    fc_reals x[8];
    FC_UNROLL
    for (int c = 0; c < 8; c++)
        x[c] = c < channels ? fc_mul(fc_reals_of(sums[c]), fc_real(to->factor[c])) : fc_real(0.0f);
    if (!to->bounded) {
        FC_UNROLL
        for (int c = 0; c < channels; c++)
            x[c] = fc_limited(x[c]);
    }
    if (l->outs == 8 && l->y_column == 8) {
        fc_store_lanes(y, x, &l->code);
        return;
    }
    fc_store_lanes(all, x, &l->code);
    FC_UNROLL
    for (int p = 0; p < FC_LANES - 1; p++) {
        if (l->y_column == l->outs)
            memcpy(y + (ptrdiff_t)p * l->y_column, all + 8 * p, 8);
        else
            memcpy(y + (ptrdiff_t)p * l->y_column, all + 8 * p, (size_t)l->outs);
    }
    memcpy(y + (ptrdiff_t)(FC_LANES - 1) * l->y_column, all + 8 * (FC_LANES - 1), (size_t)l->outs);
}

#if defined(fc_dot_two)
/* Sums of FC_LANES positions of a row, where steps go in pairs. */
FC_INLINE void fc_layer_paired_lanes(
    const int channels, fc_ints *sums, const uint8_t *x, int32_t apart, const int8_t *weights, const struct fc_layer *l)
{
    const uint8_t *order = l->order, *const paired = order + 1 + 2 * *order;
    const uint8_t *const last = order + fc_order_size(l);
    for (order++; order < paired; order += 2) {
        const fc_ints one = fc_lanes_of(x + l->offsets[order[0]], apart), two = fc_lanes_of(x + l->offsets[order[1]], apart);
        const uint8_t *w = (const uint8_t *)weights + 32 * order[0], *v = (const uint8_t *)weights + 32 * order[1];
        FC_UNROLL
        for (int c = 0; c < channels; c++)
            sums[c] = fc_dot_two(sums[c], one, fc_splat(w + 4 * c), two, fc_splat(v + 4 * c));
    }
    for (; order < last; order++) {
        const fc_ints one = fc_lanes_of(x + l->offsets[*order], apart);
        FC_UNROLL
        for (int c = 0; c < channels; c++)
            sums[c] = fc_dot(sums[c], one, fc_splat((const uint8_t *)weights + 32 * *order + 4 * c));
    }
}
#endif

/* `blocks` times FC_LANES positions of a row, which begin at x and y. */
FC_INLINE void fc_layer_lanes(
    const int channels, const int blocks, const struct fc_written *to, uint8_t *const *y, const uint8_t *const *x, int32_t apart,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    fc_ints sums[FC_LANES_BLOCKS * 8];
    FC_UNROLL
    for (int i = 0; i < blocks * channels; i++)
        sums[i] = fc_splat((const uint8_t *)(bias + i % channels));
#if defined(fc_dot_two)
    if (l->order && l->runs_y * l->runs_x * l->steps <= FC_PAIRED) {
        fc_layer_paired_lanes(channels, sums, x[0], apart, weights, l);
        fc_layer_write_lanes(channels, to, y[0], sums, l);
        return;
    }
#endif
    for (int ry = 0; ry < l->runs_y; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            const ptrdiff_t run = (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            for (int k = 0; k < l->steps; k++, weights += 4 * 8) {
                fc_ints windows[FC_LANES_BLOCKS];
                FC_UNROLL
                for (int b = 0; b < blocks; b++)
                    windows[b] = fc_lanes_of(x[b] + run + 4 * k, apart);
                FC_UNROLL
                for (int c = 0; c < channels; c++) {
                    const fc_ints w = fc_splat((const uint8_t *)weights + 4 * c);
                    FC_UNROLL
                    for (int b = 0; b < blocks; b++)
                        sums[b * channels + c] = fc_dot(sums[b * channels + c], windows[b], w);
                }
            }
        }
    }
    FC_UNROLL
    for (int b = 0; b < blocks; b++)
        fc_layer_write_lanes(channels, to, y[b], sums + b * channels, l);
}

/* All positions; the last FC_LANES of a row begin where they end with it. */
FC_INLINE void fc_layer_rows_of_lanes(
    const int channels, const struct fc_written *all, const uint8_t *x, int32_t apart, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l)
{
    struct fc_written to = *all;
    to.bounded = 1;
    for (int c = 0; c < l->outs; c++)
        to.bounded &= all->factor[c] < 1.0f && all->factor[c] > -1.0f;
    for (int i = 0; i < l->images * l->rows; i++) {
        const ptrdiff_t image = i / l->rows, row = i % l->rows;
        const uint8_t *from = x + image * l->x_image + row * l->x_row;
        uint8_t *y = all->bytes + image * l->y_image + row * l->y_row;
        for (int column = 0; column < l->columns; column += FC_LANES_BLOCKS * FC_LANES) {
            const ptrdiff_t first = fc_min(column, l->columns - FC_LANES);
            const ptrdiff_t last = fc_min(column + (FC_LANES_BLOCKS - 1) * FC_LANES, l->columns - FC_LANES);
            const uint8_t *const begin[2] = {from + first * apart, from + last * apart};
            uint8_t *const end[2] = {y + first * l->y_column, y + last * l->y_column};
            if (last > first)
                fc_layer_lanes(channels, FC_LANES_BLOCKS, &to, end, begin, apart, weights, bias, l);
            else
                fc_layer_lanes(channels, 1, &to, end, begin, apart, weights, bias, l);
        }
    }
}

/* A copy for each distance. */
FC_INLINE void fc_layer_in_lanes(
    const int channels, const struct fc_written *to, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l)
{
    if (l->x_column == 1)
        fc_layer_rows_of_lanes(channels, to, x, 1, weights, bias, l);
    else if (l->x_column == 4)
        fc_layer_rows_of_lanes(channels, to, x, 4, weights, bias, l);
    else
        fc_layer_rows_of_lanes(channels, to, x, 8, weights, bias, l);
}

#endif
