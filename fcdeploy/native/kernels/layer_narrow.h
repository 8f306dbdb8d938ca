/* Layers of few inputs with AVX-512, as the 1x1 convolutions of small networks are, and first layers of one channel: all
   weights of one tile of channels, or of two, stay in registers while positions pass.

   Such a sum is over after two to eight products, and what each block of positions takes besides would cost as much. */
#ifndef FC_LAYER_NARROW_H
#define FC_LAYER_NARROW_H

#include "layer_sums.h"

enum { FC_NARROW_SUMS = 4 }; /* vectors whose bytes are rounded together */

/* Steps of a layer of bytes that is one, in full tiles: of its only run, or one of each row of its windows, then less than 0.
   Else 0. */
FC_INLINE int fc_layer_narrow_steps(const struct fc_written *to, const struct fc_layer *l)
{
    const int computed = (l->columns + FC_NARROW_SUMS - 1) / FC_NARROW_SUMS * FC_NARROW_SUMS;
    if (!to->bytes || l->groups != 1 || l->outs % FC_TILE || l->columns < FC_NARROW_SUMS || 5 * computed > 6 * l->columns)
        return 0;
    if (l->runs_x != 1 || l->early)
        return 0;
    if (l->runs_y == 1)
        return l->steps <= 8 && l->steps % 2 == 0 ? l->steps : 0;
    return l->steps == 1 && l->runs_y == 3 ? -l->runs_y : 0;
}

/* Four sums as bytes: of one position after the other, whose `tiles` tiles are one piece. */
FC_INLINE void fc_narrow_store(
    const int tiles, int bounded, uint8_t *y, ptrdiff_t column, const fc_ints *sums, const fc_reals *factor,
    const struct fc_code *code)
{
    fc_reals scaled[FC_NARROW_SUMS];
    FC_UNROLL
    for (int i = 0; i < FC_NARROW_SUMS; i++) {
        scaled[i] = fc_mul(fc_reals_of(sums[i]), factor[i % tiles]);
    }
    if (!bounded) {
        FC_UNROLL
        for (int i = 0; i < FC_NARROW_SUMS; i++)
            scaled[i] = fc_limited(scaled[i]);
    }
    const __m512i bytes = fc_quarters(fc_bytes_by_turns(scaled, code));
    if (column == tiles * FC_TILE) {
        _mm512_storeu_si512(y, bytes);
    } else if (tiles == 2) {
        _mm256_storeu_si256((__m256i *)y, _mm512_castsi512_si256(bytes));
        _mm256_storeu_si256((__m256i *)(y + column), _mm512_extracti64x4_epi64(bytes, 1));
    } else {
        _mm_storeu_si128((__m128i *)y, _mm512_castsi512_si128(bytes));
        _mm_storeu_si128((__m128i *)(y + column), _mm512_extracti32x4_epi32(bytes, 1));
        _mm_storeu_si128((__m128i *)(y + 2 * column), _mm512_extracti32x4_epi32(bytes, 2));
        _mm_storeu_si128((__m128i *)(y + 3 * column), _mm512_extracti32x4_epi32(bytes, 3));
    }
}

/* All positions for `tiles` tiles; steps are `apart` bytes from each other. The last ones of a row are computed again where
   need be. */
FC_INLINE void fc_narrow_tiles(
    const int steps, const int tiles, const ptrdiff_t apart, const struct fc_written *to, const uint8_t *x, const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    const int positions = FC_NARROW_SUMS / tiles;
    const ptrdiff_t size = steps * 4 * FC_TILE, x_column = l->x_column, y_column = l->y_column;
    const struct fc_code code = l->code;
    int bounded = 1;
    fc_ints w[16], begin[2];
    fc_reals factor[2];
    FC_UNROLL
    for (int i = 0; i < steps * tiles; i++)
        w[i] = fc_weights(weights + i % tiles * size + i / tiles * 4 * FC_TILE);
    FC_UNROLL
    for (int t = 0; t < tiles; t++) {
        begin[t] = fc_load_ints(bias + t * FC_TILE);
        factor[t] = fc_load_reals(to->factor + t * FC_TILE);
        bounded &= fc_bounded(to->factor + t * FC_TILE);
    }
    for (int i = 0; i < l->images * l->rows; i++) {
        const ptrdiff_t image = i / l->rows, row = i % l->rows;
        const uint8_t *from = x + image * l->x_image + row * l->x_row;
        uint8_t *y = to->bytes + image * l->y_image + row * l->y_row;
        for (int column = 0; column < l->columns; column += positions) {
            const ptrdiff_t first = fc_min(column, l->columns - positions);
            fc_ints sums[FC_NARROW_SUMS];
            FC_UNROLL
            for (int s = 0; s < FC_NARROW_SUMS; s++)
                sums[s] = begin[s % tiles];
            FC_UNROLL
            for (int k = 0; k < steps; k++) {
                FC_UNROLL
                for (int p = 0; p < positions; p++) {
                    const fc_ints bytes = fc_splat(from + (first + p) * x_column + k * apart);
                    FC_UNROLL
                    for (int t = 0; t < tiles; t++)
                        sums[p * tiles + t] = fc_dot(sums[p * tiles + t], bytes, w[k * tiles + t]);
                }
            }
            fc_narrow_store(tiles, bounded, y + first * y_column, y_column, sums, factor, &code);
        }
    }
}

static __attribute__((noinline, unused)) void fc_layer_narrow(
    int steps, const struct fc_written *all, const uint8_t *x, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l)
{
    struct fc_written to = *all;
    for (int done = 0, tiles; done < l->outs; done += tiles * FC_TILE) {
        tiles = steps > 0 && l->outs - done >= 2 * FC_TILE ? 2 : 1;
#define FC_NARROW(steps, tiles, apart)                                                                            \
    case (steps) * 2 + (tiles) - 1:                                                                               \
        fc_narrow_tiles(steps < 0 ? -(steps) : (steps), tiles, apart, &to, x, weights, bias, l);                  \
        break;
        switch (steps * 2 + tiles - 1) {
            FC_NARROW(2, 1, 4)
            FC_NARROW(2, 2, 4)
            FC_NARROW(4, 1, 4)
            FC_NARROW(4, 2, 4)
            FC_NARROW(6, 1, 4)
            FC_NARROW(6, 2, 4)
            FC_NARROW(8, 1, 4)
            FC_NARROW(8, 2, 4)
            FC_NARROW(-3, 1, l->run_y)
        }
#undef FC_NARROW
        weights += (ptrdiff_t)(steps < 0 ? -steps : steps) * 4 * FC_TILE * tiles;
        bias += FC_TILE * tiles;
        to.factor += FC_TILE * tiles;
        to.bytes += FC_TILE * tiles;
    }
}

#endif
