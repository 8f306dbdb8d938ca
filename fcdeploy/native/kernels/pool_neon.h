/* Max pools of 64-bit ARM: sixteen channels of a window at a time, or eight; the last ones with some before them, once more.

   Included by pool.h. */
#ifndef FC_POOL_NEON_H
#define FC_POOL_NEON_H

/* The taps of a window that lie inside the input: `count` from `first` on. */
struct fc_pool_taps {
    int first, count;
};

FC_INLINE struct fc_pool_taps fc_pool_inside(int begin, int taps, int gap, int length)
{
    int first = 0, last = taps;
    while (first < last && begin + first * gap < 0)
        first++;
    while (first < last && begin + (last - 1) * gap >= length)
        last--;
    return (struct fc_pool_taps){first, last - first};
}

/* The largest of each of `lanes` channels, 8 or 16. */
FC_INLINE void fc_pool_largest(
    const int lanes, uint8_t *to, const uint8_t *from, int rows, int columns, ptrdiff_t down, ptrdiff_t right)
{
    uint8x16_t most = vdupq_n_u8(0);
    for (; rows > 0; rows--, from += down) {
        const uint8_t *tap = from;
        for (int left = columns; left > 0; left--, tap += right)
            most = vmaxq_u8(most, lanes == 16 ? vld1q_u8(tap) : vcombine_u8(vld1_u8(tap), vdup_n_u8(0)));
    }
    if (lanes == 16)
        vst1q_u8(to, most);
    else
        vst1_u8(to, vget_low_u8(most));
}

/* At least eight channels. */
static __attribute__((noinline, unused)) void fc_max_pool_channels(uint8_t *y, const uint8_t *x, const struct fc_pool *p)
{
    const ptrdiff_t down = (ptrdiff_t)p->gap_y * p->x_row, right = (ptrdiff_t)p->gap_x * p->x_column;
    const int channels = p->channels, lanes = channels < 16 ? 8 : 16;
    for (int line = 0; line < p->images * p->rows; line++) {
        const int image = line / p->rows, row = line % p->rows, above = row * p->step_y - p->before_y;
        const struct fc_pool_taps tall = fc_pool_inside(above, p->taps_y, p->gap_y, p->x_rows);
        const uint8_t *from = x + (ptrdiff_t)image * p->x_image + (ptrdiff_t)(above + tall.first * p->gap_y) * p->x_row;
        uint8_t *to = y + (ptrdiff_t)image * p->y_image + (ptrdiff_t)row * p->y_row;
        for (int column = 0; column < p->columns; column++, to += p->y_column) {
            const int before = column * p->step_x - p->before_x;
            const struct fc_pool_taps broad = fc_pool_inside(before, p->taps_x, p->gap_x, p->x_columns);
            const uint8_t *window = from + (ptrdiff_t)(before + broad.first * p->gap_x) * p->x_column;
            for (int c = 0; c < channels; c += lanes) {
                c = fc_min(c, channels - lanes);
                if (lanes == 16)
                    fc_pool_largest(16, to + c, window + c, tall.count, broad.count, down, right);
                else
                    fc_pool_largest(8, to + c, window + c, tall.count, broad.count, down, right);
            }
        }
    }
}

#endif
