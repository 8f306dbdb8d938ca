/* Layers of a Cortex-M4, M7, M33 or M55: four positions at a time, or four channels at one.

   The bytes of the windows are unpacked to 16 bits once for all channels, bytes 0 and 2 of four in one word and bytes 1 and 3
   in the next, so that SMLAD multiplies two of them at once.  The innermost loops are assembly: fourteen registers hold all
   they need, and compilers do not load several words with one instruction.  Included by layer.h. */
#ifndef FC_LAYER_DSP_H
#define FC_LAYER_DSP_H

#define FC_DSP_STEPS 36 /* of four bytes, unpacked at once: a window of 3 x 3 x 16 */
#define FC_TOGETHER 4 /* positions */
#define FC_ALONE 1
#define FC_DSP_CHANNELS 32 /* whose sums are kept at once; the assembly below knows them as 128 bytes */

#define FC_DSP_FOUR_POSITIONS(stride) \
    "ldr r12, [r2], #" #stride "\n ldmia r1!, {r8-r11}\n sxtb16 lr, r12\n sxtb16 r12, r12, ror #8\n" \
    "smlad r4, r8, lr, r4\n smlad r5, r10, lr, r5\n smlad r4, r9, r12, r4\n smlad r5, r11, r12, r5\n" \
    "ldmia r1!, {r8-r11}\n" \
    "smlad r6, r8, lr, r6\n smlad r7, r10, lr, r7\n smlad r6, r9, r12, r6\n smlad r7, r11, r12, r7\n"
#define FC_DSP_ONE(sum, weights) \
    "sxtb16 r0, " #weights "\n sxtb16 " #weights ", " #weights ", ror #8\n" \
    "smlad " #sum ", r8, r0, " #sum "\n smlad " #sum ", r9, " #weights ", " #sum "\n"
#define FC_DSP_FOUR_CHANNELS(stride) \
    "ldmia r1!, {r8, r9}\n ldm r2, {r10-r12, lr}\n add r2, r2, #" #stride "\n" \
    FC_DSP_ONE(r4, r10) FC_DSP_ONE(r5, r11) FC_DSP_ONE(r6, r12) FC_DSP_ONE(r7, lr)

/* All steps of `body`, `unrolled` of them a turn. */
#define FC_DSP_LOOP(body, unrolled, bodies) \
    "subs r3, r3, #" #unrolled "\n blt 2f\n" \
    "1:\n" bodies "subs r3, r3, #" #unrolled "\n bge 1b\n" \
    "2: adds r3, r3, #" #unrolled "\n beq 4f\n" \
    "3:\n" body "subs r3, r3, #1\n bne 3b\n" \
    "4:\n"
#define FC_DSP_TWICE(body) body body

/* sums: int32_t *, x: unpacked, weights: of one channel or of four neighbours, `stride` bytes from step to step. */
#define FC_DSP_KERNEL(name, load, loop, store) \
    static __attribute__((naked, noinline, unused)) void name( \
        int32_t *sums __attribute__((unused)), const uint32_t *x __attribute__((unused)), \
        const int8_t *weights __attribute__((unused)), int steps __attribute__((unused))) \
    { \
        __asm__("push {r0, r4-r11, lr}\n" load loop "ldr r0, [sp]\n" store "add sp, sp, #4\n pop {r4-r11, pc}\n"); \
    }
#define FC_DSP_LOAD_FOUR "ldr r4, [r0]\n ldr r5, [r0, #128]\n ldr r6, [r0, #256]\n ldr r7, [r0, #384]\n"
#define FC_DSP_STORE_FOUR "str r4, [r0]\n str r5, [r0, #128]\n str r6, [r0, #256]\n str r7, [r0, #384]\n"
#define FC_DSP_POSITIONS(name, stride) \
    FC_DSP_KERNEL(name, FC_DSP_LOAD_FOUR, \
        FC_DSP_LOOP(FC_DSP_FOUR_POSITIONS(stride), 4, FC_DSP_TWICE(FC_DSP_TWICE(FC_DSP_FOUR_POSITIONS(stride)))), \
        FC_DSP_STORE_FOUR)
#define FC_DSP_DENSE(name, stride) \
    FC_DSP_KERNEL(name, "ldmia r0, {r4-r7}\n", \
        FC_DSP_LOOP(FC_DSP_FOUR_CHANNELS(stride), 2, FC_DSP_TWICE(FC_DSP_FOUR_CHANNELS(stride))), \
        "stmia r0, {r4-r7}\n")

FC_DSP_POSITIONS(fc_layer_positions_16, 64)
FC_DSP_POSITIONS(fc_layer_positions_8, 32)
FC_DSP_DENSE(fc_layer_channels_16, 64)
FC_DSP_DENSE(fc_layer_channels_8, 32)

/* `count` steps of the window at `x`, from step `begin` on, every `apart` words. */
static __attribute__((noinline, unused)) void fc_layer_unpack(
    uint32_t *to, int apart, const uint8_t *x, int begin, int count, const struct fc_layer *l)
{
    int run = begin / l->steps, k = begin - run * l->steps;
    for (; count > 0; run++, k = 0) {
        const int row = run / l->runs_x;
        const uint8_t *p = x + row * l->run_y + run % l->runs_x * l->run_x + 4 * k - (row & l->early);
        const int some = fc_min(count, l->steps - k);
        count -= some;
        for (const uint8_t *end = p + 4 * some; p != end; p += 4, to += apart) {
            const uint32_t word = fc_word(p);
            to[0] = (uint32_t)__uxtb16((uint8x4_t)word);
            to[1] = (uint32_t)__uxtb16((uint8x4_t)__ror(word, 8));
        }
    }
}

/* Sums of up to FC_DSP_CHANNELS channels over some steps; `weights` is where their first tile begins. */
static __attribute__((noinline, unused)) void fc_layer_add(
    int32_t *sums, const uint32_t *x, const int8_t *weights, int begin, int count, int channels, int positions,
    const struct fc_layer *l)
{
    const int all = l->runs_y * l->runs_x * l->steps;
    while (channels > 0) {
        const int width = channels > 8 ? 16 : 8, real = fc_min(width, channels);
        const int8_t *w = weights + 4 * width * begin;
        if (positions == 4)
            for (int c = 0; c < real; c++)
                (width == 16 ? fc_layer_positions_16 : fc_layer_positions_8)(sums + c, x, w + 4 * c, count);
        else
            for (int c = 0; c < real; c += 4)
                (width == 16 ? fc_layer_channels_16 : fc_layer_channels_8)(sums + c, x, w + 4 * c, count);
        weights += 4 * width * all;
        sums += width;
        channels -= width;
    }
}

/* One position, or four, for the channels of a group. */
static __attribute__((noinline, unused)) void fc_layer_several(
    const struct fc_written *to, const uint8_t *x, const int32_t *from, const int32_t *at, int positions,
    const int8_t *weights, const int32_t *bias, const struct fc_layer *l)
{
    uint32_t unpacked[FC_DSP_STEPS * 4 * 2];
    int32_t sums[4][FC_DSP_CHANNELS];
    const int all = l->runs_y * l->runs_x * l->steps;
    struct fc_written some = *to;
    for (int done = 0; done < l->outs; done += FC_DSP_CHANNELS) {
        const int channels = fc_min(FC_DSP_CHANNELS, l->outs - done);
        for (int c = 0; c < channels; c++)
            sums[0][c] = sums[1][c] = sums[2][c] = sums[3][c] = bias[done + c];
        for (int begin = 0, count; begin < all; begin += count) {
            count = fc_min(FC_DSP_STEPS, all - begin);
            if (done == 0 || count < all)
                for (int p = 0; p < positions; p++)
                    fc_layer_unpack(unpacked + 2 * p, 2 * positions, x + from[p], begin, count, l);
            fc_layer_add(sums[0], unpacked, weights, begin, count, channels, positions, l);
        }
        for (int p = 0; p < positions; p++)
            fc_layer_write(&some, at[p], channels, sums[p]);
        weights += 4 * FC_DSP_CHANNELS * all;
        fc_layer_next(&some, FC_DSP_CHANNELS, FC_DSP_CHANNELS);
    }
}

#endif
