/* Which instructions this CPU has, asked once when a library is loaded. */
#ifndef FC_CPU_H
#define FC_CPU_H

#include <stdint.h>

enum { FC_AVX2 = 1, FC_AVXVNNI = 2, FC_AVX512VNNI = 4, FC_DOTPROD = 8, FC_I8MM = 16 };

#if defined(__x86_64__)

static void fc_cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

/* Intel SDM, volume 2, CPUID, and volume 1, chapter 13: registers count only where the system saves them. */
static int fc_cpu(void)
{
    uint32_t r[4], low, high;
    int found = 0;
    fc_cpuid(0, 0, r);
    const uint32_t leaves = r[0];
    fc_cpuid(1, 0, r);
    if (leaves < 7 || !(r[2] >> 27 & 1) || !(r[2] >> 12 & 1))
        return found;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    fc_cpuid(7, 0, r);
    const uint32_t b = r[1], c = r[2];
    if ((low & 6) == 6 && (b >> 5 & 1)) {
        found |= FC_AVX2;
        fc_cpuid(7, 1, r);
        if (r[0] >> 4 & 1)
            found |= FC_AVXVNNI;
        const uint32_t foundation = (b >> 16 & 1) & (b >> 17 & 1) & (b >> 30 & 1) & (b >> 31 & 1); /* F, DQ, BW, VL */
        if ((low & 0xe6) == 0xe6 && foundation && (c >> 11 & 1))
            found |= FC_AVX512VNNI;
    }
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

unsigned long getauxval(unsigned long);

static int fc_cpu(void)
{
    int found = 0;
    if (getauxval(16) >> 20 & 1) /* AT_HWCAP, HWCAP_ASIMDDP */
        found |= FC_DOTPROD;
    if (getauxval(26) >> 13 & 1) /* AT_HWCAP2, HWCAP2_I8MM */
        found |= FC_I8MM;
    return found;
}

#else

static int fc_cpu(void) { return 0; }

#endif
#endif
