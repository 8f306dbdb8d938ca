/* Scaling and rounding in integers, for cores without a floating-point unit: the same results as float32 gives, bit for bit. */
#ifndef FC_SOFT_H
#define FC_SOFT_H

/* Zeros in front of n, which is not 0: where an int has 16 bits too. */
FC_INLINE int fc_zeros(uint32_t n)
{
    return sizeof(unsigned) == 4 ? __builtin_clz((unsigned)n) : __builtin_clzl(n);
}

/* n / 2^shift, halves to even; shift from 1 to 31. */
FC_INLINE uint32_t fc_halve(uint32_t n, int shift)
{
    const uint32_t kept = n >> shift, rest = n << (32 - shift);
    return kept + (rest > 0x80000000u || (rest == 0x80000000u && (kept & 1)));
}

FC_INLINE int32_t fc_clip_near(int32_t near, int negative, const struct fc_code *code)
{
    near = fc_min(near, 1024);
    return fc_max(code->low, fc_min(code->high, (negative ? -near : near) + code->zero));
}

/* A float32 taken apart: m * 2^power. */
FC_INLINE uint32_t fc_take_apart(uint32_t bits, int *power)
{
    const int exponent = (int)(bits >> 23 & 255);
    *power = fc_max(exponent, 1) - 150;
    return exponent ? (bits & 0x7FFFFF) | 0x800000 : bits & 0x7FFFFF;
}

/* float32(|n|) * m * 2^power as another m * 2^power: both the number and the product are rounded to 24 bits. */
static __attribute__((noinline, unused)) uint32_t fc_multiply(uint32_t n, uint32_t m, int *power)
{
    if (n >> 24) {
        const int shift = 8 - fc_zeros(n);
        n = fc_halve(n, shift);
        *power += shift;
    }
    const uint64_t product = (uint64_t)n * m;
    const uint32_t high = (uint32_t)(product >> 24);
    if (!high)
        return (uint32_t)product;
    const int shift = 32 - fc_zeros(high);
    const uint32_t kept = (uint32_t)(product >> shift);
    const uint64_t rest = product << (64 - shift), half = (uint64_t)1 << 63;
    *power += shift;
    return kept + (rest > half || (rest == half && (kept & 1)));
}

FC_INLINE int32_t fc_round_off(uint32_t n, int power)
{
    return n && power >= 0 ? 1024 : power > -32 && n ? (int32_t)fc_halve(n, -power) : 0;
}

/* A byte of a real number in units of the scale; what is no number becomes the lowest. */
static __attribute__((noinline, unused)) uint8_t fc_byte(float x, const struct fc_code *code)
{
    uint32_t bits;
    int power;
    memcpy(&bits, &x, 4);
    const uint32_t n = fc_take_apart(bits, &power);
    const int nan = (bits & 0x7FFFFFFF) > 0x7F800000;
    return (uint8_t)fc_clip_near(fc_round_off(n, power), nan || bits >> 31, code);
}

/* The byte of float32(sum) * factor. */
static __attribute__((noinline, unused)) uint8_t fc_scaled_byte(int32_t sum, float factor, const struct fc_code *code)
{
    uint32_t bits;
    int power;
    memcpy(&bits, &factor, 4);
    const uint32_t m = fc_take_apart(bits, &power);
    const uint32_t n = fc_multiply(sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum, m, &power);
    return (uint8_t)fc_clip_near(fc_round_off(n, power), (sum < 0) != (bits >> 31), code);
}

/* float32(n) * factor. */
static __attribute__((noinline, unused)) float fc_scaled(int32_t n, float factor)
{
    uint32_t bits;
    memcpy(&bits, &factor, 4);
    if ((bits >> 23 & 255) < 32 || (bits >> 23 & 255) > 222)
        return (float)n * factor;
    int power;
    const uint32_t m = fc_take_apart(bits, &power), sign = (n < 0) != (bits >> 31);
    uint32_t product = fc_multiply(n < 0 ? 0u - (uint32_t)n : (uint32_t)n, m, &power);
    float real;
    if (product >> 24) { /* rounded up to a power of two */
        product >>= 1;
        power++;
    }
    bits = sign << 31 | (product ? ((uint32_t)(power + 150) << 23) + (product & 0x7FFFFF) : 0);
    memcpy(&real, &bits, 4);
    return real;
}

#endif
