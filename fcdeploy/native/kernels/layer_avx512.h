/* Layers with AVX-512: a tile of channels is one vector, and thirty-two registers hold the sums of sixteen positions.

   Of a tile of 8 channels the upper lanes compute what is not written; they read what lies behind its numbers. */
#ifndef FC_LAYER_AVX512_H
#define FC_LAYER_AVX512_H

#include "layer_sums.h"

/* `positions` sums of a tile of `width` channels, in registers: both are constants wherever this is called.

   Where each four of the positions lie side by side (`fours`), addresses are those of the first ones and a distance: sixteen
   would not fit the registers. Of few positions each has several sums, which are added up in the end: one would wait for
   itself. Runs of one step below each other are walked as the steps of one (`down`). */
FC_INLINE void fc_layer_block(
    const int positions, const int width, const int fours, const int down, const uint8_t *x, const int32_t *from,
    const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    const int ways = positions >= 8 ? 1 : 4, bases = fours ? positions / 4 : positions;
    fc_ints sums[16];
    const uint8_t *start[16];
    ptrdiff_t once = l->x_column, thrice = (ptrdiff_t)3 * l->x_column;
    const int rows = down ? 1 : l->runs_y, steps = down ? l->runs_y : l->steps;
    const ptrdiff_t next = down ? l->run_y : 4;
    FC_UNROLL
    for (int b = 0; b < bases; b++)
        start[b] = x + from[fours ? 4 * b : b];
    FC_UNROLL
    for (int i = 0; i < positions * ways; i++)
        sums[i] = i < positions ? fc_load_ints(bias) : _mm512_setzero_si512();
    for (int ry = 0; ry < rows; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            ptrdiff_t run = (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            const uint8_t *window[4] = {0};
            int k = 0;
            FC_UNROLL
            for (int b = 0; b < bases && fours; b++)
                window[b] = start[b] + run;
            for (; ways > 1 && k + ways <= steps; k += ways, run += ways * next, weights += ways * 4 * width) {
                FC_UNROLL
                for (int i = 0; i < ways * positions; i++)
                    sums[i] = fc_dot(
                        sums[i], fc_splat(start[i % positions] + run + i / positions * next),
                        fc_weights(weights + i / positions * 4 * width));
            }
            for (; k < steps; k++, run += next, weights += 4 * width) {
                const fc_ints w = fc_weights(weights);
#if defined(FC_OPAQUE)
                if (fours) { /* else compilers make sixteen addresses of them again */
                    FC_OPAQUE(once);
                    FC_OPAQUE(thrice);
                } else {
                    FC_OPAQUE(run);
                }
#endif
                FC_UNROLL
                for (int p = 0; p < positions; p++) {
                    const ptrdiff_t away = p % 4 == 0 ? 0 : p % 4 == 1 ? once : p % 4 == 2 ? 2 * once : thrice;
                    sums[p] = fc_dot(sums[p], fc_splat(fours ? window[p / 4] + away : start[p] + run), w);
                }
                FC_UNROLL
                for (int b = 0; b < bases && fours; b++)
                    window[b] += next;
            }
        }
    }
    FC_UNROLL
    for (int i = positions; i < positions * ways; i++)
        sums[i % positions] = _mm512_add_epi32(sums[i % positions], sums[i]);
    fc_layer_write_all(to, at, count, positions, 1, sums);
}

/* Columns of a row with those that are computed twice, so that each four lie side by side: none where rows follow each other,
   or where it would be more than a fifth more. */
FC_INLINE int fc_layer_across(const struct fc_layer *l)
{
    const int across = (l->columns + 3) / 4 * 4;
    return l->columns < 4 || l->x_row == l->columns * l->x_column || 5 * across > 6 * l->columns ? l->columns : across;
}

/* As fc_layer_places, with `across` columns in a row: the last four are its last ones. */
FC_INLINE void fc_layer_places_in_fours(
    int first, int total, int across, int32_t *from, int32_t *at, const struct fc_layer *l)
{
    int column = first % across, row = first / across % l->rows, image = first / across / l->rows;
    for (int p = 0; p < total; p++) {
        const int own = column < across - 4 ? column : column - across + l->columns;
        from[p] = image * l->x_image + row * l->x_row + own * l->x_column;
        at[p] = image * l->y_image + row * l->y_row + own * l->y_column;
        if (++column == across) {
            column = 0;
            if (++row == l->rows) {
                row = 0;
                image++;
            }
        }
    }
}

/* Whether four positions lie side by side. Each is looked at: rows of one column can have the last where it would be. */
FC_INLINE int fc_layer_four(const int32_t *from, const struct fc_layer *l)
{
    const int32_t once = l->x_column;
    return ((from[1] - from[0] - once) | (from[2] - from[1] - once) | (from[3] - from[2] - once)) == 0;
}

/* Whether each four of sixteen positions do. */
FC_INLINE int fc_layer_in_fours(const int32_t *from, const struct fc_layer *l)
{
    return fc_layer_four(from, l) && fc_layer_four(from + 4, l) && fc_layer_four(from + 8, l) && fc_layer_four(from + 12, l);
}

/* Whether runs are one step each below each other. */
FC_INLINE int fc_layer_down(const struct fc_layer *l) { return l->runs_y > 1 && l->runs_x == 1 && l->steps == 1 && !l->early; }

/* All positions of a group for one tile of channels. */
FC_INLINE void fc_layer_tile(
    const int width, const int down, int positions, const uint8_t *x, const int32_t *from, const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    int p = 0;
    while (p + 8 <= positions)
        if (p + 16 <= positions && fc_layer_in_fours(from + p, l)) {
            fc_layer_block(16, width, 1, down, x, from + p, weights, bias, l, to, at + p, count);
            p += 16;
        } else {
            fc_layer_block(8, width, 0, down, x, from + p, weights, bias, l, to, at + p, count);
            p += 8;
        }
    if (p + 4 <= positions) {
        fc_layer_block(4, width, 0, down, x, from + p, weights, bias, l, to, at + p, count);
        p += 4;
    }
    for (; p < positions; p++)
        fc_layer_block(1, width, 0, down, x, from + p, weights, bias, l, to, at + p, count);
}

/* Two tiles of 16 channels at eight positions, each four of which lie side by side: sums of one tile behind those of the other.

   What is read of a window serves two products: sixteen positions of one tile read it for one, which takes as long as that.
   Meanwhile (`fetch`) as many weights as those of a tile are fetched, `ahead` bytes further on. */
FC_INLINE void fc_layer_two_tiles_block(
    const int fetch, ptrdiff_t ahead, const uint8_t *x, const int32_t *from, const int8_t *weights, ptrdiff_t size, const int32_t *bias, const struct fc_layer *l,
    const struct fc_written *to, const int32_t *at)
{
    enum { positions = 8 };
    fc_ints sums[2 * positions];
    const uint8_t *const first = x + from[0], *const last = x + from[4];
    ptrdiff_t once = l->x_column, thrice = (ptrdiff_t)3 * l->x_column;
    FC_UNROLL
    for (int i = 0; i < 2 * positions; i++)
        sums[i] = fc_load_ints(bias + i / positions * FC_TILE);
    for (int ry = 0; ry < l->runs_y; ry++) {
        for (int rx = 0; rx < l->runs_x; rx++) {
            const ptrdiff_t run = (ptrdiff_t)ry * l->run_y + (ptrdiff_t)rx * l->run_x - (ry & l->early);
            const uint8_t *window[2] = {first + run, last + run};
            for (int k = 0; k < l->steps; k++, weights += 4 * FC_TILE) {
                const fc_ints w = fc_weights(weights), v = fc_weights(weights + size);
                if (fetch)
                    _mm_prefetch((const char *)weights + ahead, _MM_HINT_T1);
#if defined(FC_OPAQUE)
                FC_OPAQUE(once); /* else compilers make eight addresses of them */
                FC_OPAQUE(thrice);
#endif
                FC_UNROLL
                for (int p = 0; p < positions; p++) {
                    const ptrdiff_t away = p % 4 == 0 ? 0 : p % 4 == 1 ? once : p % 4 == 2 ? 2 * once : thrice;
                    const fc_ints bytes = fc_splat(window[p / 4] + away);
                    sums[p] = fc_dot(sums[p], bytes, w);
                    sums[positions + p] = fc_dot(sums[positions + p], bytes, v);
                }
                window[0] += 4;
                window[1] += 4;
            }
        }
    }
    fc_layer_write_all(to, at, FC_TILE, positions, 1, sums);
    fc_layer_write_all(to + 1, at, FC_TILE, positions, 1, sums + positions);
}

/* All positions of a group for two tiles. */
FC_INLINE void fc_layer_two_tiles(
    int positions, const uint8_t *x, const int32_t *from, const int8_t *weights, const int32_t *bias, const struct fc_layer *l,
    const struct fc_written *all, const int32_t *at)
{
    const ptrdiff_t size = (ptrdiff_t)l->runs_y * l->runs_x * l->steps * 4 * FC_TILE;
    struct fc_written to[2] = {*all, *all};
    to[1].bytes = all->bytes ? all->bytes + FC_TILE : 0;
    to[1].reals = all->reals ? all->reals + FC_TILE : 0;
    to[1].beside = all->combined ? all->beside + FC_TILE : 0;
    to[1].factor = all->factor + FC_TILE;
    to[1].bounded = fc_bounded(to[1].factor);
    to[1].bias = all->bias ? all->bias + FC_TILE : 0;
    const int fetch = positions >= 24 ? 8 : 0;
    int p = 0;
    for (; p + 8 <= positions && fc_layer_four(from + p, l) && fc_layer_four(from + p + 4, l); p += 8)
        if (p == fetch || p == fetch + 8) /* the next two tiles, one after the other */
            fc_layer_two_tiles_block(1, p == fetch ? 2 * size : 3 * size, x, from + p, weights, size, bias, l, to, at + p);
        else
            fc_layer_two_tiles_block(0, 0, x, from + p, weights, size, bias, l, to, at + p);
    for (int t = 0; p < positions && t < 2; t++)
        fc_layer_tile(16, 0, positions - p, x, from + p, weights + t * size, bias + t * FC_TILE, l, to + t, at + p, FC_TILE);
}

/* How many channels are computed together next. */
FC_INLINE int fc_layer_width(int left, const struct fc_layer *l)
{
    return left >= 2 * FC_TILE && !fc_layer_down(l) ? 2 * FC_TILE : left > 8 ? FC_TILE : 8;
}

/* The same, with constants for what the tile is: of 16 channels or 8, its runs one step each below each other or not. */
FC_INLINE void fc_layer_any_tile(
    int width, int wide, int positions, const uint8_t *x, const int32_t *from, const int8_t *weights, const int32_t *bias,
    const struct fc_layer *l, const struct fc_written *to, const int32_t *at, int count)
{
    const int down = fc_layer_down(l);
    (void)wide;
    if (width == 32)
        fc_layer_two_tiles(positions, x, from, weights, bias, l, to, at);
    else if (width == 16 && down)
        fc_layer_tile(16, 1, positions, x, from, weights, bias, l, to, at, count);
    else if (width == 16)
        fc_layer_tile(16, 0, positions, x, from, weights, bias, l, to, at, count);
    else if (!to->combined) /* which full tiles alone are */
        fc_layer_tile(8, 0, positions, x, from, weights, bias, l, to, at, count);
}

#endif
