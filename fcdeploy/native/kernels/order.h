/* In which order the weights of layers lie: for what the compiler was told of the CPU.  The assembler reads this, too. */
#ifndef FC_ORDER_H
#define FC_ORDER_H

#if !defined(FC_PLAIN) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#define FC_ORDER_ROWS 1 /* layer_mve.h */
#elif !defined(FC_PLAIN) && defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define FC_ORDER_PAIRS 1 /* layer_dsp.h */
#endif

#endif
