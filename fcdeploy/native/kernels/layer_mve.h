/* Layers of a Cortex-M55: two channels at three positions, or four channels at one, sixteen bytes of each at a time.

   VMLAVA multiplies numbers that are both unsigned.  Weights are raised by 128 for it, and lie as [channel][run][4 bytes of the
   run]; 128 times the sum of the window's bytes is taken off each sum.  The innermost loops are assembly, as compilers keep
   copies of what they count. */
#ifndef FC_LAYER_MVE_H
#define FC_LAYER_MVE_H

#include "layer_sums.h"

#define FC_TOGETHER 12 /* positions, three by three */
#define FC_AGAIN 0
#define FC_MVE_STEPS 144 /* of four bytes of a window, copied at once: 3 x 3 x 64 */
#define FC_MVE_CHANNELS 64 /* whose sums are kept at once; the assembly below knows them as 256 bytes */

/* What the loops below are given. */
struct fc_mve_part {
    const uint8_t *x[3]; /* where the windows' bytes are that are added up together */
    int32_t bytes;       /* of each */
    int32_t *sums, *end; /* of the first position; those of the others 256 bytes on */
    const int8_t *weights;
    int32_t hop, row; /* bytes from where a channel's weights have been read to the next one's, and from channel to channel */
};

#define FC_MVE_ALL(x, sum, other) "vldrb.u8 q2, [" x "], #16\n vmlava.u8 " sum ", q0, q2\n vmlava.u8 " other ", q1, q2\n"

/* On top of the sums of two channels at three positions, until no channel is left. */
static __attribute__((naked, noinline, unused)) void fc_layer_three(struct fc_mve_part *part __attribute__((unused)))
{
    __asm__("push {r4-r11, lr}\n mov r12, r0\n ldr r11, [r12, #16]\n ldr r1, [r12, #24]\n ldr r3, [r12, #32]\n add r3, r1\n"
            "1: ldm r12, {r5, r7, r9}\n ldr lr, [r12, #12]\n"
            "ldrd r0, r2, [r11]\n ldrd r4, r6, [r11, #256]\n ldrd r8, r10, [r11, #512]\n dlstp.8 lr, lr\n"
            "2: vldrb.u8 q0, [r1], #16\n vldrb.u8 q1, [r3], #16\n"
            FC_MVE_ALL("r5", "r0", "r2") FC_MVE_ALL("r7", "r4", "r6") FC_MVE_ALL("r9", "r8", "r10") "letp lr, 2b\n"
            "strd r0, r2, [r11], #8\n strd r4, r6, [r11, #248]\n strd r8, r10, [r11, #504]\n"
            "ldrd r0, r2, [r12, #28]\n add r1, r3, r0\n add r3, r1, r2\n"
            "ldr r0, [r12, #20]\n cmp r11, r0\n blo 1b\n pop {r4-r11, pc}\n");
}

#define FC_MVE_ONE(weights, sum) "vldrb.u8 q1, [" weights "], #16\n vmlava.u8 " sum ", q0, q1\n"

/* On top of the sums of four channels at one position, until no channel is left. */
static __attribute__((naked, noinline, unused)) void fc_layer_four(struct fc_mve_part *part __attribute__((unused)))
{
    __asm__("push {r4-r11, lr}\n mov r12, r0\n ldrd r11, r10, [r12, #16]\n ldr r1, [r12, #24]\n ldr r8, [r12, #32]\n"
            "1: add r3, r1, r8\n add r5, r3, r8\n add r7, r5, r8\n ldr r9, [r12]\n ldr lr, [r12, #12]\n"
            "ldrd r0, r2, [r11]\n ldrd r4, r6, [r11, #8]\n dlstp.8 lr, lr\n"
            "2: vldrb.u8 q0, [r9], #16\n" FC_MVE_ONE("r1", "r0") FC_MVE_ONE("r3", "r2") FC_MVE_ONE("r5", "r4")
            FC_MVE_ONE("r7", "r6") "letp lr, 2b\n"
            "strd r0, r2, [r11], #8\n strd r4, r6, [r11], #8\n"
            "ldr r1, [r12, #28]\n add r1, r7\n cmp r11, r10\n blo 1b\n pop {r4-r11, pc}\n");
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

/* `count` steps of the windows at `from`, from step `begin` on, copied side by side; `total` of their bytes. */
static __attribute__((noinline, unused)) void fc_layer_copy(
    uint8_t *to, const uint8_t *x, const int32_t *from, int positions, int begin, int count, const struct fc_layer *l,
    uint32_t *total)
{
    const int run = begin / l->steps;
    int line = run / l->runs_x;
    const uint8_t *row = x + line * l->run_y;
    int k = 4 * (begin - run * l->steps), at = run - line * l->runs_x;
    total[0] = total[1] = total[2] = 0;
    for (int some, left = 4 * count; left > 0; left -= some, to += some, k = 0) {
        const uint8_t *start = row + at * l->run_x + k - (line & l->early);
        some = fc_min(left, 4 * l->steps - k);
        for (int p = 0; p < positions; p++)
            total[p] += fc_mve_sum(to + 4 * FC_MVE_STEPS * p, start + from[p], some);
        if (++at == l->runs_x) {
            at = 0;
            line++;
            row += l->run_y;
        }
    }
}

/* `count` sums: `from`, or what they are, less what raising the weights adds. */
FC_INLINE void fc_mve_begin(int32_t *sums, const int32_t *from, int count, uint32_t total)
{
    for (int c = 0; c < count; c += 4)
        vstrwq_s32(sums + c, vsubq_n_s32(vldrwq_s32(from + c), (int32_t)(128 * total)));
}

/* One position or three, for the channels of a group; `copied` holds windows that are several runs. */
static __attribute__((noinline, unused)) void fc_layer_windows(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions, uint8_t *copied,
    int32_t (*sums)[FC_MVE_CHANNELS], const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    uint32_t total[3];
    const int all = l->runs_y * l->runs_x * l->steps;
    struct fc_mve_part part = {.sums = sums[0], .row = 4 * all};
    struct fc_written some = *to;
    for (int done = 0; done < l->outs; done += FC_MVE_CHANNELS) {
        const int channels = fc_min(FC_MVE_CHANNELS, l->outs - done);
        part.end = part.sums + channels;
        for (int begin = 0, count; begin < all; begin += count) {
            count = copied ? fc_min(FC_MVE_STEPS, all - begin) : all;
            part.bytes = 4 * count;
            part.weights = weights + 4 * begin;
            part.hop = part.row - (part.bytes + 15) / 16 * 16;
            if (copied && (done == 0 || count < all))
                fc_layer_copy(copied, x, from, positions, begin, count, l, total);
            for (int p = 0; p < positions; p++) {
                part.x[p] = copied ? copied + 4 * FC_MVE_STEPS * p : x + from[p];
                if (!copied && done == 0)
                    total[p] = fc_mve_sum(0, part.x[p], part.bytes);
                fc_mve_begin(sums[p], begin ? sums[p] : bias + done, channels, total[p]);
            }
            if (positions == 3)
                fc_layer_three(&part);
            else
                fc_layer_four(&part);
        }
        for (int p = 0; p < positions; p++)
            fc_layer_write(&some, at[p], channels, sums[p]);
        weights += 4 * FC_MVE_CHANNELS * all;
        fc_layer_next(&some, channels);
    }
}

static __attribute__((noinline, unused)) void fc_layer_copying(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    uint8_t copied[3 * 4 * FC_MVE_STEPS];
    int32_t sums[3][FC_MVE_CHANNELS];
    for (int p = 0, some; p < positions; p += some) {
        some = positions - p < 3 ? 1 : 3;
        fc_layer_windows(to, x, from + p, at + p, some, copied, sums, weights, bias, l);
    }
}

/* Where a window is one run; a network of dense layers never needs the memory of three positions. */
static __attribute__((noinline, unused)) void fc_layer_beside(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    int32_t sums[3][FC_MVE_CHANNELS];
    for (int p = 0; p < positions; p += 3)
        fc_layer_windows(to, x, from + p, at + p, 3, 0, sums, weights, bias, l);
}

static __attribute__((noinline, unused)) void fc_layer_one(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    int32_t sums[1][FC_MVE_CHANNELS];
    fc_layer_windows(to, x, from, at, 1, 0, sums, weights, bias, l);
}

/* `to` goes on to the next group. */
FC_INLINE void fc_layer_several(
    struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    int done = positions / 3 * 3;
    if (l->runs_y * l->runs_x > 1) {
        fc_layer_copying(to, x, from, at, positions, weights, bias, l);
        done = positions;
    } else if (done)
        fc_layer_beside(to, x, from, at, done, weights, bias, l);
    for (; done < positions; done++)
        fc_layer_one(to, x, from + done, at + done, weights, bias, l);
    fc_layer_next(to, l->outs);
}

#endif
