/* Functions of floats without a mathematical library: products and sums alone, so that every target gives the same bits.

   Polynomials were fitted by weighted least squares; each is within a few units in the last place of the function. */
#ifndef FC_FUNCTIONS_H
#define FC_FUNCTIONS_H

#include "common.h"

#if !defined(FC_PLAIN) && defined(__SSE2__)
#include <emmintrin.h>
#define fc_root(x) _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)))
#elif !defined(FC_PLAIN) && defined(__aarch64__)
#include <arm_neon.h>
#define fc_root(x) vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0)
#endif

FC_INLINE float fc_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

FC_INLINE uint32_t fc_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

FC_INLINE float fc_absolute(float x) { return fc_of_bits(fc_bits(x) & 0x7fffffffu); }
FC_INLINE float fc_with_sign(float x, float sign) { return fc_of_bits(fc_bits(x) | (fc_bits(sign) & 0x80000000u)); }

/* exp(x) / 2^n, where n is the integer nearest to x / ln 2 */
FC_INLINE float fc_exp_of_rest(float x, float n)
{
    const float high = x - n * 0.693359375f;
    const float r = high - n * -2.12194440e-4f;
    float p = 0.00139517173f;
    p = p * r + 0.00836959841f;
    p = p * r + 0.0416661873f;
    p = p * r + 0.166665129f;
    p = p * r + 0.5f;
    const float square = r * r;
    const float tail = p * square;
    return tail + r + 1.0f;
}

/* exp(x), infinite where float32 ends, 0 where its full precision does, and NaN stays */
FC_INLINE float fc_exp(float given)
{
    float x = given > 88.72f ? 88.72f : given; /* in this order a NaN goes through: no comparison with it holds */
    x = x < -87.3f ? -87.3f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f, one = fc_exp_of_rest(x, n);
    const int32_t whole = n == n ? (int32_t)n : 0;
    const float half = fc_of_bits((uint32_t)((whole >> 1) + 127) << 23); /* 2^n in two factors: n may be 128 */
    const float rest = fc_of_bits((uint32_t)(whole - (whole >> 1) + 127) << 23);
    const float finite = one * half * rest;
    const float low = given < -87.3f ? 0.0f : finite;
    return given > 88.72f ? fc_of_bits(0x7f800000u) : low;
}

/* exp of x, or of what is nearest to it within +-40, where products of two are finite; NaN stays */
FC_INLINE float fc_exp_within_40(float x)
{
    x = x > 40.0f ? 40.0f : x;
    x = x < -40.0f ? -40.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;
    return fc_exp_of_rest(x, shifted - 12582912.0f) * fc_of_bits((fc_bits(shifted) << 23) + 0x3f800000u);
}

FC_INLINE float fc_hard(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }

FC_INLINE float fc_sigmoid(float x) { return 1.0f / (1.0f + fc_exp(-x)); }

FC_INLINE float fc_tanh(float x)
{
    const float size = fc_absolute(x);
    const float square = x * x;
    float p = -0.00571703656f;
    p = p * square + 0.020650579f;
    p = p * square + -0.0537434953f;
    p = p * square + 0.133314912f;
    p = p * square + -0.333332839f;
    const float cube = x * square;
    const float small = cube * p + x;
    const float large = 1.0f - 2.0f / (fc_exp(2.0f * size) + 1.0f);
    return size < 0.625f ? small : fc_with_sign(large, x);
}

/* log(x) = n log 2 + log(1 + f), 1 + f between the roots of 1/2 and 2; of 0 -infinity, of less no number */
FC_INLINE float fc_log(float x)
{
    if (!(x > 0.0f))
        return x == 0.0f ? -fc_of_bits(0x7f800000u) : fc_of_bits(0x7fc00000u);
    if (fc_bits(x) >= 0x7f800000u)
        return x;
    float n = 0.0f;
    if (fc_bits(x) < 0x00800000u) {
        x *= 8388608.0f;
        n = -23.0f;
    }
    const uint32_t bits = fc_bits(x) - 0x3f3504f3u;
    n += (float)((int32_t)bits >> 23);
    const float f = fc_of_bits((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float p = 0.0691537018f;
    p = p * f + -0.117897977f;
    p = p * f + 0.118729696f;
    p = p * f + -0.123843499f;
    p = p * f + 0.142186593f;
    p = p * f + -0.166692508f;
    p = p * f + 0.200022265f;
    p = p * f + -0.249999866f;
    p = p * f + 0.333333104f;
    const float square = f * f;
    const float cube = square * f;
    float tail = cube * p + n * -2.12194440e-4f;
    tail = tail - 0.5f * square;
    return n * 0.693359375f + (f + tail);
}

/* Correctly rounded on every target: by an instruction where there is one that needs no library, else by integers. */
FC_INLINE float fc_sqrt(float x)
{
    if (!(x > 0.0f) || fc_bits(x) >= 0x7f800000u)
        return x >= 0.0f ? x : x == 0.0f ? x : fc_of_bits(0x7fc00000u);
#if defined(fc_root)
    return fc_root(x);
#else
    int32_t exponent = (int32_t)(fc_bits(x) >> 23);
    uint32_t mantissa = fc_bits(x) & 0x007fffffu;
    if (exponent == 0) {
        exponent = 1;
        while (!(mantissa & 0x00800000u)) {
            mantissa <<= 1;
            exponent--;
        }
    } else
        mantissa |= 0x00800000u;
    exponent -= 127;
    if (exponent & 1) {
        mantissa <<= 1;
        exponent--;
    }
    uint32_t root = 0, rest = mantissa << 1; /* one bit of the root after the other, from 2^24 down */
    for (uint32_t bit = 0x01000000u, sum = 0; bit; bit >>= 1) {
        const uint32_t next = sum + bit;
        if (next <= rest) {
            sum = next + bit;
            rest -= next;
            root += bit;
        }
        rest <<= 1;
    }
    root += rest ? root & 1 : 0; /* what is left is more than half where the last bit is set */
    return fc_of_bits((root >> 1) + 0x3f000000u + ((uint32_t)(exponent / 2) << 23));
#endif
}

FC_INLINE float fc_floor(float x)
{
    if (!(fc_absolute(x) < 8388608.0f))
        return x;
    const float whole = (float)(int32_t)x;
    return fc_with_sign(whole > x ? whole - 1.0f : whole, x);
}

FC_INLINE float fc_ceil(float x) { return -fc_floor(-x); }

FC_INLINE float fc_round(float x) /* halves to even */
{
    if (!(fc_absolute(x) < 8388608.0f))
        return x;
    const float size = (fc_absolute(x) + 8388608.0f) - 8388608.0f;
    return fc_with_sign(size, x);
}

FC_INLINE float fc_erf(float x)
{
    const float size = fc_absolute(x), square = x * x;
    float p = -9.64151654e-06f;
    p = p * square + 0.000112569481f;
    p = p * square + -0.000848282886f;
    p = p * square + 0.00522094543f;
    p = p * square + -0.0268654f;
    p = p * square + 0.11283782f;
    p = p * square + -0.376126384f;
    p = p * square + 1.12837917f;
    const float t = 1.0f / (1.0f + 0.5f * size);
    float q = -0.0856815562f;
    q = q * t + 0.39848833f;
    q = q * t + -0.697202214f;
    q = q * t + 0.496187312f;
    q = q * t + -0.166844584f;
    q = q * t + 0.260380087f;
    q = q * t + 0.227943962f;
    q = q * t + 0.284825074f;
    q = q * t + 0.281865632f;
    q = q * t + 8.45199429e-06f;
    const float large = size > 4.0f ? 1.0f : 1.0f - q * fc_exp(-square);
    return size < 1.0f ? x * p : fc_with_sign(large, x);
}

/* Sine of x + quadrant * pi / 2; for |x| up to some thousands. */
FC_INLINE float fc_sine(float x, int32_t quadrant)
{
    const float shifted = x * 0.636619772f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    float r = x - n * 1.5703125f;
    r = r - n * 4.83751297e-4f;
    r = r - n * 7.54953362e-8f;
    const float square = r * r;
    float s = 2.71831158e-06f, c = -2.72102372e-07f;
    s = s * square + -0.000198393348f;
    s = s * square + 0.00833332939f;
    s = s * square + -0.166666666f;
    c = c * square + 2.479952e-05f;
    c = c * square + -0.00138888838f;
    c = c * square + 0.0416666666f;
    const float sine = r + r * square * s, fourth = square * square;
    const float cosine = 1.0f - 0.5f * square + fourth * c;
    const uint32_t turn = (fc_bits(shifted) + (uint32_t)quadrant) & 3; /* n lies in its last bits */
    const float value = turn & 1 ? cosine : sine;
    return turn & 2 ? -value : value;
}

/* log(1 + exp(x)) */
FC_INLINE float fc_softplus(float x)
{
    const float tail = fc_exp(-fc_absolute(x));
    const float grown = 1.0f + tail;
    const float log = grown == 1.0f ? tail : fc_log(grown) * (tail / (grown - 1.0f)); /* what 1 + tail lost of tail */
    return (x > 0.0f ? x : 0.0f) + log;
}

/* exp(x) - 1 */
FC_INLINE float fc_exp_minus_one(float x)
{
    const float grown = fc_exp(x);
    if (fc_absolute(x) > 0.5f)
        return grown - 1.0f;
    float p = 0.000198412698f;
    p = p * x + 0.00138888889f;
    p = p * x + 0.00833333333f;
    p = p * x + 0.0416666667f;
    p = p * x + 0.166666667f;
    p = p * x + 0.5f;
    return x + x * x * p;
}

/* x^y by logarithms, exact for y of 0, 1, 2, 3 and -1; of negative x only whole y */
FC_INLINE float fc_power(float x, float y)
{
    if (y == 2.0f)
        return x * x;
    if (y == 3.0f)
        return x * x * x;
    if (y == 1.0f || y == 0.0f || y == -1.0f)
        return y == 1.0f ? x : y == 0.0f ? 1.0f : 1.0f / x;
    if (y == 0.5f)
        return fc_sqrt(x);
    const float size = fc_exp(y * fc_log(fc_absolute(x)));
    if (x >= 0.0f)
        return size;
    if (fc_floor(y) != y)
        return fc_bits(x) == 0xff800000u ? size : fc_of_bits(0x7fc00000u);
    return fc_floor(y * 0.5f) * 2.0f == y ? size : -size;
}

#endif
