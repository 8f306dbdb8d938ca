/* Layers of a Cortex-M55: two channels at three positions, or four channels at one, sixteen bytes of each at a time.

   VMLAVA multiplies numbers that are both unsigned: weights are raised by 128, and 128 times the sum of the window's bytes is
   taken off each of its sums.  A weight lies four bytes beside those of the other channels; four such words are gathered.  The
   innermost loops are assembly, as compilers keep copies of what they count.  Included by layer.h. */
#ifndef FC_LAYER_MVE_H
#define FC_LAYER_MVE_H

#define FC_TOGETHER 12 /* positions, three by three */
#define FC_ALONE 0
#define FC_MVE_STEPS 144 /* of four bytes of a window, copied at once: 3 x 3 x 64 */
#define FC_MVE_CHANNELS 32 /* whose sums are kept at once; the assembly below knows them as 128 bytes */

/* Loads of weights: of the next four steps, `turn` bytes on, and of another channel, `beside` bytes from those. */
#define FC_MVE_NEXT(q, turn) "vldrw.u32 " q ", [%q[at], #" #turn "]!\n veor " q ", " q ", %q[raised]\n"
#define FC_MVE_BESIDE(q, beside) "vldrw.u32 " q ", [%q[at], #" beside "]\n veor " q ", " q ", %q[raised]\n"
#define FC_MVE_BOTH(x, sum, other) \
    "vldrb.u8 q2, [" x "], #16\n vmlava.u8 " sum ", q0, q2\n vmlava.u8 " other ", q1, q2\n"

/* Two neighbouring channels at three positions; `at` are the places of the first weights of four steps, less `turn`. */
#define FC_MVE_TWO(turn) \
    __asm__ volatile( \
        "ldrd %[a0], %[b0], [%[sums]]\n ldrd %[a1], %[b1], [%[sums], #128]\n ldrd %[a2], %[b2], [%[sums], #256]\n" \
        "dlstp.8 lr, %[bytes]\n 1:\n" FC_MVE_NEXT("q0", turn) FC_MVE_BESIDE("q1", "4") \
        FC_MVE_BOTH("%[p]", "%[a0]", "%[b0]") FC_MVE_BOTH("%[q]", "%[a1]", "%[b1]") FC_MVE_BOTH("%[r]", "%[a2]", "%[b2]") \
        "letp lr, 1b\n" \
        "strd %[a0], %[b0], [%[sums]]\n strd %[a1], %[b1], [%[sums], #128]\n strd %[a2], %[b2], [%[sums], #256]\n" \
        : [a0] "=&Te"(a0), [b0] "=&Te"(b0), [a1] "=&Te"(a1), [b1] "=&Te"(b1), [a2] "=&Te"(a2), [b2] "=&Te"(b2), \
          [p] "+r"(p), [q] "+r"(q), [r] "+r"(r), [at] "+w"(at) \
        : [bytes] "r"(bytes), [raised] "w"(raised), [sums] "r"(sums) \
        : "lr", "q0", "q1", "q2", "memory")

/* Four neighbouring channels at one position. */
#define FC_MVE_FOUR(turn) \
    __asm__ volatile( \
        "ldrd %[a0], %[b0], [%[sums]]\n ldrd %[a1], %[b1], [%[sums], #8]\n" \
        "dlstp.8 lr, %[bytes]\n 1: vldrb.u8 q2, [%[p]], #16\n" FC_MVE_NEXT("q0", turn) FC_MVE_BESIDE("q1", "4") \
        "vmlava.u8 %[a0], q0, q2\n vmlava.u8 %[b0], q1, q2\n" FC_MVE_BESIDE("q0", "8") FC_MVE_BESIDE("q1", "12") \
        "vmlava.u8 %[a1], q0, q2\n vmlava.u8 %[b1], q1, q2\n letp lr, 1b\n" \
        "strd %[a0], %[b0], [%[sums]]\n strd %[a1], %[b1], [%[sums], #8]\n" \
        : [a0] "=&Te"(a0), [b0] "=&Te"(b0), [a1] "=&Te"(a1), [b1] "=&Te"(b1), [p] "+r"(p), [at] "+w"(at) \
        : [bytes] "r"(bytes), [raised] "w"(raised), [sums] "r"(sums) \
        : "lr", "q0", "q1", "q2", "memory")

/* `body` for so many channels at a time, until none are left. */
#define FC_MVE_EACH(channels, body) \
    for (; real > 0; real -= (channels), sums += (channels), next = vaddq_n_u32(next, 4 * (channels))) { \
        const uint8_t *p = s->start[0], *q = s->start[1], *r = s->start[2]; \
        uint32x4_t at = next; \
        uint32_t a0, b0, a1, b1, a2, b2; \
        (void)q, (void)r, (void)a2, (void)b2; \
        body; \
    }

/* Windows that are added up together: where their bytes are, and 128 times the sum of these. */
struct fc_mve_windows {
    const uint8_t *start[3];
    int32_t less[3];
    int positions, bytes;
};

/* All channels of a tile: their sums, on top of `before` or of the sums so far, less what raising the weights adds. */
static __attribute__((noinline, unused)) void fc_layer_tile(
    int32_t *sums, const int32_t *before, const struct fc_mve_windows *s, const int8_t *weights, int width, int real)
{
    const uint8x16_t raised = vdupq_n_u8(128);
    const uint32_t bytes = (uint32_t)s->bytes;
    uint32x4_t next = vmlaq_n_u32(vdupq_n_u32((uint32_t)weights - 16 * (uint32_t)width), vidupq_n_u32(0, 1), 4 * width);
    for (int n = 0; n < s->positions; n++) {
        int32_t *own = sums + n * FC_MVE_CHANNELS;
        const int32_t *from = before ? before : own;
        for (int c = 0; c < width; c += 4)
            vstrwq_s32(own + c, vsubq_n_s32(vldrwq_s32(from + c), s->less[n]));
    }
    if (s->positions == 3 && width == 16)
        FC_MVE_EACH(2, FC_MVE_TWO(256))
    else if (s->positions == 3)
        FC_MVE_EACH(2, FC_MVE_TWO(128))
    else if (width == 16)
        FC_MVE_EACH(4, FC_MVE_FOUR(256))
    else
        FC_MVE_EACH(4, FC_MVE_FOUR(128))
}

/* The sum of `bytes` bytes; copied to `to` where that is not NULL. */
FC_INLINE uint32_t fc_mve_sum(uint8_t *to, const uint8_t *x, int bytes)
{
    uint32_t sum = 0;
    for (; bytes > 0; bytes -= 16, x += 16) {
        const mve_pred16_t some = vctp8q((uint32_t)bytes);
        const uint8x16_t part = vldrbq_z_u8(x, some);
        sum = vaddvaq_p_u8(sum, part, some);
        if (to) {
            vstrbq_p_u8(to, part, some);
            to += 16;
        }
    }
    return sum;
}

/* `count` steps of the window at `x`, from step `begin` on, copied side by side: the sum of their bytes. */
static __attribute__((noinline, unused)) uint32_t fc_layer_copy(
    uint8_t *to, const uint8_t *x, int begin, int count, const struct fc_layer *l)
{
    const int run = begin / l->steps;
    int line = run / l->runs_x;
    const uint8_t *row = x + line * l->run_y;
    int k = 4 * (begin - run * l->steps), at = run % l->runs_x;
    uint32_t sum = 0;
    for (int some, left = 4 * count; left > 0; left -= some, to += some, k = 0) {
        some = fc_min(left, 4 * l->steps - k);
        sum += fc_mve_sum(to, row + at * l->run_x + k - (line & l->early), some);
        if (++at == l->runs_x) {
            at = 0;
            line++;
            row += l->run_y;
        }
    }
    return sum;
}

/* One position or three, for the channels of a group; `copied` holds windows that are several runs. */
static __attribute__((noinline, unused)) void fc_layer_windows(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions, uint8_t *copied,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    int32_t sums[3][FC_MVE_CHANNELS];
    struct fc_mve_windows s = {.positions = positions};
    const int all = l->runs_y * l->runs_x * l->steps;
    struct fc_written some = *to;
    for (int done = 0; done < l->outs; done += FC_MVE_CHANNELS) {
        const int channels = fc_min(FC_MVE_CHANNELS, l->outs - done);
        for (int begin = 0, count; begin < all; begin += count) {
            count = copied ? fc_min(FC_MVE_STEPS, all - begin) : all;
            for (int p = 0; p < positions && (done == 0 || count < all); p++) {
                s.start[p] = copied ? copied + 4 * FC_MVE_STEPS * p : x + from[p];
                s.less[p] = (int32_t)(128 * (copied ? fc_layer_copy(copied + 4 * FC_MVE_STEPS * p, x + from[p], begin, count, l)
                                                    : fc_mve_sum(0, x + from[p], 4 * all)));
            }
            s.bytes = 4 * count;
            for (int c = 0; c < channels; c += 16) {
                const int width = channels - c > 8 ? 16 : 8;
                fc_layer_tile(
                    sums[0] + c, begin ? 0 : bias + done + c, &s, weights + 4 * c * all + 4 * width * begin, width,
                    fc_min(width, channels - c));
            }
        }
        for (int p = 0; p < positions; p++)
            fc_layer_write(&some, at[p], channels, sums[p]);
        weights += 4 * FC_MVE_CHANNELS * all;
        fc_layer_next(&some, FC_MVE_CHANNELS, FC_MVE_CHANNELS);
    }
}

static __attribute__((noinline, unused)) void fc_layer_copying(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    uint8_t copied[3 * 4 * FC_MVE_STEPS];
    for (int p = 0, some; p < positions; p += some) {
        some = positions - p < 3 ? 1 : 3;
        fc_layer_windows(to, x, from + p, at + p, some, copied, weights, bias, l);
    }
}

FC_INLINE void fc_layer_several(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    if (l->runs_y * l->runs_x > 1) {
        fc_layer_copying(to, x, from, at, positions, weights, bias, l);
        return;
    }
    for (int p = 0, some; p < positions; p += some) {
        some = positions - p < 3 ? 1 : 3;
        fc_layer_windows(to, x, from + p, at + p, some, 0, weights, bias, l);
    }
}

#endif
