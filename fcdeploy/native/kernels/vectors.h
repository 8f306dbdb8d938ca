/* The vectors of the level that is compiled: by what the compiler was told of the CPU, or plain C. */
#if !defined(FC_SMALL) && ((defined(__arm__) && !defined(__ARM_NEON)) || (defined(__riscv) && !defined(__riscv_vector)) || \
                           defined(__xtensa__) || defined(__AVR__))
#define FC_SMALL 1 /* few registers, little flash: one sum after the other */
#endif

#include "order.h"

#if defined(FC_PLAIN)
#include "vectors_plain.h"
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "vectors_avx512.h"
#elif defined(__AVX2__)
#include "vectors_avx2.h"
#elif defined(__aarch64__)
#include "vectors_neon.h"
#elif defined(FC_ORDER_ROWS)
#include "vectors_mve.h"
#elif defined(FC_ORDER_PAIRS)
#include "vectors_dsp.h"
#else
#include "vectors_plain.h"
#endif
