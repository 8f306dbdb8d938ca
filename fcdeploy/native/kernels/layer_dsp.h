/* Layers of a Cortex-M4, M7 or M33: two channels at three positions, or four channels at one.

   SMLAD multiplies two pairs of 16 bits and adds both products.  The bytes of the windows are unpacked for it once for all
   channels: bytes 0 and 2 of four in one word, bytes 1 and 3 in the next.  Weights need not be unpacked twice: they lie as
   [four channels][4 bytes of a run][two channels][bytes 0 and 2, or 1 and 3], and such a word holds two numbers of 16 bits, 256
   times the second channel's weight and the first one's raised by 128.  The word as it is gives one sum of both channels, its
   low bytes, which UXTB16 takes out, that of the first one; the difference is 256 times the second one's.  It fits 32 bits
   where no more than 256 products are added up.  The innermost loops are assembly: fourteen registers hold all they need, and
   compilers do not load several words with one instruction.

   At one position the low bytes come in pairs, as Winograd added up products in 1968: (x0 + w1)(x1 + w0) is x0 w0 + x1 w1,
   what is wanted, and x0 x1, the same for all channels, and w0 w1, which does not depend on x: the compiler takes it off the
   bias (calls/layers.py), and UXTAB16 takes bytes out and adds them.  A layer has one position or does not: its biases are
   for one kind of sum alone. */
#ifndef FC_LAYER_DSP_H
#define FC_LAYER_DSP_H

#include "layer_sums.h"

#define FC_TOGETHER 3 /* positions */
#define FC_AGAIN 1
#define FC_DSP_STEPS 48 /* of four bytes, unpacked at once at three positions */
#define FC_DSP_STEPS_ALONE 64 /* at one; 256 products */
#define FC_DSP_CHANNELS 64 /* whose sums are kept at once at three positions; the assembly below knows them as 256 bytes */
#if defined(FC_ALONE_STEPS) && FC_ALONE_STEPS <= FC_DSP_STEPS_ALONE
#define FC_DSP_UNPACKED_ALONE FC_ALONE_STEPS /* no layer of one position has more: all of its window is unpacked once */
#define FC_DSP_CHANNELS_ALONE 16
#else
#define FC_DSP_UNPACKED_ALONE FC_DSP_STEPS_ALONE
#define FC_DSP_CHANNELS_ALONE FC_DSP_CHANNELS
#endif

/* What the loops below are given, and count in. */
struct fc_dsp_part {
    const uint32_t *x; /* unpacked */
    int32_t steps;
    int32_t *sums; /* of the first position; those of the others 256 bytes on */
    const int8_t *weights;
    int32_t hop, left, quad; /* bytes to the weights of the next two channels; channels; bytes of four channels' weights */
    int32_t less[6];         /* what raising the weights adds, negative, twice for each position; at one also the pairs of x */
};

#define FC_DSP_TWICE(body) body body
#define FC_DSP_THREE(word) \
    "ldmia r0!, {r2, r3, r12}\n smlad r4, r2, " word ", r4\n smlad r6, r3, " word ", r6\n smlad r8, r12, " word ", r8\n" \
    "uxtb16 " word ", " word "\n" \
    "smlad r5, r2, " word ", r5\n smlad r7, r3, " word ", r7\n smlad r9, r12, " word ", r9\n"
#define FC_DSP_THREE_STEP "ldrd r10, r11, [r1], #16\n" FC_DSP_THREE("r10") FC_DSP_THREE("r11")
#define FC_DSP_ADDED(at, both, low) \
    "ldrd r2, r3, [r0, #" at "]\n sub " both ", " both ", " low "\n add r2, r2, " low "\n" \
    "add r3, r3, " both ", asr #8\n strd r2, r3, [r0, #" at "]\n"

/* On top of the sums of two channels at three positions, until no channel is left. */
static __attribute__((naked, noinline, unused)) void fc_layer_three(struct fc_dsp_part *part __attribute__((unused)))
{
    __asm__("push {r0, r4-r11, lr}\n"
            "1: ldr r12, [sp]\n ldrd r0, lr, [r12]\n ldr r1, [r12, #12]\n adds r12, r12, #28\n ldmia r12, {r4-r9}\n"
            "subs lr, lr, #4\n blt 3f\n"
            "2:\n" FC_DSP_TWICE(FC_DSP_TWICE(FC_DSP_THREE_STEP)) "subs lr, lr, #4\n bge 2b\n"
            "3: adds lr, lr, #4\n beq 5f\n"
            "4:\n" FC_DSP_THREE_STEP "subs lr, lr, #1\n bne 4b\n"
            "5: ldr r12, [sp]\n ldr r0, [r12, #8]\n"
            FC_DSP_ADDED("0", "r4", "r5") FC_DSP_ADDED("256", "r6", "r7") FC_DSP_ADDED("512", "r8", "r9")
            "ldrd r1, r2, [r12, #12]\n ldrd r3, r4, [r12, #20]\n"
            "adds r0, r0, #8\n adds r1, r1, r2\n subs r2, r4, r2\n subs r3, r3, #2\n"
            "strd r0, r1, [r12, #8]\n strd r2, r3, [r12, #16]\n bgt 1b\n"
            "add sp, sp, #4\n pop {r4-r11, pc}\n");
}

/* Four bytes of x and of two channels, whose sums are both(w) and low(w) */
#define FC_DSP_PAIRED(even, odd, first, second, both, low) \
    "smlad " both ", " even ", " first ", " both "\n smlad " both ", " odd ", " second ", " both "\n" \
    "uxtab16 " second ", " even ", " second "\n uxtab16 " first ", " odd ", " first "\n" \
    "smlad " low ", " first ", " second ", " low "\n"
#define FC_DSP_FOUR_STEP(even, odd) \
    "ldmia r1!, {r8-r11}\n" FC_DSP_PAIRED(even, odd, "r8", "r9", "r4", "r5") FC_DSP_PAIRED(even, odd, "r10", "r11", "r6", "r7")
#define FC_DSP_FOUR_STEPS "ldmia r0!, {r2, r3, r12, lr}\n" FC_DSP_FOUR_STEP("r2", "r3") FC_DSP_FOUR_STEP("r12", "lr")

/* On top of the sums of four channels at one position, until no channel is left. */
static __attribute__((naked, noinline, unused)) void fc_layer_four(struct fc_dsp_part *part __attribute__((unused)))
{
    __asm__("push {r0, r4-r11, lr}\n ldrd r2, r3, [r0]\n bic r1, r3, #7\n add r1, r2, r1, lsl #3\n add r3, r2, r3, lsl #3\n"
            "push {r1, r3}\n" /* where x ends: of eight steps a turn, of one */
            "1: ldr r12, [sp, #8]\n ldr r0, [r12]\n ldr r1, [r12, #12]\n ldrd r4, r5, [r12, #28]\n"
            "mov r6, r4\n mov r7, r5\n ldr r2, [sp]\n cmp r0, r2\n beq 3f\n"
            "2:\n" FC_DSP_TWICE(FC_DSP_TWICE(FC_DSP_FOUR_STEPS)) "ldr r2, [sp]\n cmp r0, r2\n bne 2b\n"
            "3: ldr r12, [sp, #4]\n cmp r0, r12\n beq 5f\n"
            "4: ldrd r2, r3, [r0], #8\n" FC_DSP_FOUR_STEP("r2", "r3") "cmp r0, r12\n bne 4b\n"
            "5: ldr r12, [sp, #8]\n ldrd r0, r1, [r12, #8]\n ldrd r2, r3, [r12, #20]\n ldmia r0, {r8-r11}\n"
            "sub r4, r4, r5\n add r8, r8, r5\n add r9, r9, r4, asr #8\n"
            "sub r6, r6, r7\n add r10, r10, r7\n add r11, r11, r6, asr #8\n"
            "stmia r0!, {r8-r11}\n adds r1, r1, r3\n strd r0, r1, [r12, #8]\n"
            "subs r2, r2, #4\n str r2, [r12, #20]\n bgt 1b\n"
            "add sp, sp, #12\n pop {r4-r11, pc}\n");
}

struct fc_four {
    int32_t each[4];
};

/* Where the steps of a window are that are unpacked together: within its runs. */
struct fc_dsp_place {
    const uint8_t *row;
    int line, column, step;
};

/* The next `count` steps of one window, or of three that begin `beside` bytes from the first; `less` as in fc_dsp_part. */
FC_INLINE void fc_dsp_unpack(
    const int positions, uint32_t *to, struct fc_dsp_place *place, const int32_t *beside, int count, const struct fc_layer *l,
    int32_t *less)
{
    uint32_t a = 0, b = 0, c = 0;
    int32_t pairs = 0;
    while (count > 0) {
        const uint8_t *p = place->row + place->column * l->run_x + 4 * place->step - (place->line & l->early);
        const uint8_t *q = p + beside[0], *r = p + beside[1];
        const int some = fc_min(count, l->steps - place->step);
        for (const uint8_t *end = p + 4 * some; p != end; p += 4, q += 4, r += 4, to += 2 * positions) {
            uint32_t word = fc_word(p);
            a = __usada8((uint8x4_t)word, (uint8x4_t)0u, a);
            to[0] = (uint32_t)__uxtb16((uint8x4_t)word);
            to[positions] = (uint32_t)__uxtb16((uint8x4_t)__ror(word, 8));
            if (positions == 1) {
                pairs = __smlad((int16x2_t)to[0], (int16x2_t)to[1], pairs);
                continue;
            }
            word = fc_word(q);
            b = __usada8((uint8x4_t)word, (uint8x4_t)0u, b);
            to[1] = (uint32_t)__uxtb16((uint8x4_t)word);
            to[4] = (uint32_t)__uxtb16((uint8x4_t)__ror(word, 8));
            word = fc_word(r);
            c = __usada8((uint8x4_t)word, (uint8x4_t)0u, c);
            to[2] = (uint32_t)__uxtb16((uint8x4_t)word);
            to[5] = (uint32_t)__uxtb16((uint8x4_t)__ror(word, 8));
        }
        count -= some;
        place->step += some;
        if (place->step == l->steps) {
            place->step = 0;
            if (++place->column == l->runs_x) {
                place->column = 0;
                place->line++;
                place->row += l->run_y;
            }
        }
    }
    less[0] = -128 * (int32_t)a;
    less[1] = less[0] - pairs;
    if (positions > 1) {
        less[2] = less[3] = -128 * (int32_t)b;
        less[4] = less[5] = -128 * (int32_t)c;
    }
}

/* One position, or three, for the channels of a group, in memory of the caller's; `to` goes on to the next group. */
FC_INLINE void fc_layer_unpacked(
    const int positions, struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l, uint32_t *unpacked, int32_t *sums)
{
    const int all = l->runs_y * l->runs_x * l->steps;
    const int most = positions == 1 ? FC_DSP_STEPS_ALONE : FC_DSP_STEPS;
    const int together = positions == 1 ? FC_DSP_CHANNELS_ALONE : FC_DSP_CHANNELS;
    const int32_t beside[2] = {from[positions / 2] - from[0], from[positions - 1] - from[0]};
    struct fc_dsp_part part;
    part.x = unpacked;
    part.quad = 16 * all;
    for (int done = 0; done < l->outs; done += together) {
        const int channels = fc_min(together, l->outs - done);
        struct fc_dsp_place place = {x + from[0], 0, 0, 0};
        struct fc_four *own = (struct fc_four *)sums;
        const struct fc_four *biases = (const struct fc_four *)(bias + done), *const end = biases + (channels + 3) / 4;
        for (; biases < end; own++) {
            const struct fc_four four = *biases++;
            own[0] = four;
            if (positions == 3)
                own[FC_DSP_CHANNELS / 4] = own[FC_DSP_CHANNELS / 2] = four;
        }
        for (int begin = 0, count; begin < all; begin += count) {
            count = fc_min(most, all - begin);
            if (done == 0 || count < all) {
                part.steps = count;
                fc_dsp_unpack(positions, unpacked, &place, beside, count, l, part.less);
            }
            part.sums = sums;
            part.weights = weights + 16 * begin;
            part.hop = 8;
            part.left = channels;
            if (positions == 1)
                fc_layer_four(&part);
            else
                fc_layer_three(&part);
        }
        for (int p = 0; p < positions; p++)
            fc_layer_write(to, at[p], channels, sums + p * FC_DSP_CHANNELS);
        weights += 4 * together * all;
        fc_layer_next(to, channels);
    }
}

/* A network of dense layers never needs the memory of three positions. */
static __attribute__((noinline, unused)) void fc_layer_one(
    struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    uint32_t unpacked[FC_DSP_UNPACKED_ALONE * 2];
    int32_t sums[FC_DSP_CHANNELS_ALONE];
    fc_layer_unpacked(1, to, x, from, at, weights, bias, l, unpacked, sums);
}

static __attribute__((noinline, unused)) void fc_layer_beside(
    struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, const int8_t *weights,
    const int32_t *bias, const struct fc_layer *l)
{
    uint32_t unpacked[FC_DSP_STEPS * 3 * 2];
    int32_t sums[3 * FC_DSP_CHANNELS];
    fc_layer_unpacked(3, to, x, from, at, weights, bias, l, unpacked, sums);
}

FC_INLINE void fc_layer_several(
    struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    if (positions == 1)
        fc_layer_one(to, x, from, at, weights, bias, l);
    else
        fc_layer_beside(to, x, from, at, weights, bias, l);
}

#endif
