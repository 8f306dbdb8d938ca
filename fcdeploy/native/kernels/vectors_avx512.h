/* Vectors of AVX-512 with VNNI: sixteen lanes of 32 bits. */
#ifndef FC_VECTORS_H
#define FC_VECTORS_H

#include <immintrin.h>

#include "common.h"

#define FC_LANES 16
#define FC_BLOCKS 1
#define FC_FORMS 1
#define FC_PAIRS 0
#define FC_SIXTEEN 1 /* a vector is a tile: layer_avx512.h */

typedef __m512i fc_ints;
typedef __m512 fc_reals;

FC_INLINE fc_ints fc_load_ints(const int32_t *p) { return _mm512_loadu_si512(p); }

FC_INLINE fc_ints fc_no_ints(void) { return _mm512_setzero_si512(); }
FC_INLINE fc_ints fc_add_ints(fc_ints a, fc_ints b) { return _mm512_add_epi32(a, b); }

FC_INLINE fc_ints fc_splat(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

FC_INLINE fc_ints fc_weights(const int8_t *p) { return _mm512_loadu_si512(p); }
FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w) { return _mm512_dpbusd_epi32(sum, x, w); }
FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w) { return _mm512_dpbusd_epi32(sum, x, w); }

#if defined(__GNUC__)
#define FC_KEPT(vector) __asm__("" : "+v"(vector))
#else
#define FC_KEPT(vector)
#endif

/* Four quarters of four lanes to four lanes of each quarter, which is its own inverse. */
FC_INLINE __m512i fc_quarters(__m512i x)
{
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    FC_KEPT(order); /* else clang makes several shuffles of one */
    return _mm512_permutexvar_epi32(order, x);
}

FC_INLINE void fc_taps(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    const __m128i each = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)r0)), columns = _mm512_broadcast_i32x4(each);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)r1), 1);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)r2), 2);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)r3), 3);
    FC_KEPT(columns);
    out[0] = _mm512_shuffle_epi8(fc_quarters(rows), columns);
}

/* Bytes of four rows by turns: of each sixteen the first four in out[0], the next ones in out[1]. */
FC_INLINE void fc_interleave_rows(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    const __m512i a = _mm512_loadu_si512(r0), b = _mm512_loadu_si512(r1), c = _mm512_loadu_si512(r2), d = _mm512_loadu_si512(r3);
    const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
    const __m512i ab_high = _mm512_unpackhi_epi8(a, b), cd_high = _mm512_unpackhi_epi8(c, d);
    out[0] = _mm512_unpacklo_epi16(ab, cd);
    out[1] = _mm512_unpackhi_epi16(ab, cd);
    out[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

/* Weights of a window of three rows for four that begin one row above it. */
FC_INLINE fc_ints fc_one_row_down(fc_ints w) { return _mm512_slli_epi32(w, 8); }

FC_INLINE fc_reals fc_load_reals(const float *p) { return _mm512_loadu_ps(p); }
/* p[0], p[2] ... p[30] and nothing behind it. */
FC_INLINE fc_reals fc_every_other(const float *p)
{
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(_mm512_loadu_ps(p), order, _mm512_loadu_ps(p + 15));
}

FC_INLINE void fc_store_reals(float *p, fc_reals x) { _mm512_storeu_ps(p, x); }
FC_INLINE fc_reals fc_real(float x) { return _mm512_set1_ps(x); }
FC_INLINE fc_reals fc_reals_of(fc_ints x) { return _mm512_cvtepi32_ps(x); }
FC_INLINE fc_reals fc_add(fc_reals a, fc_reals b) { return _mm512_add_ps(a, b); }
FC_INLINE fc_reals fc_sub(fc_reals a, fc_reals b) { return _mm512_sub_ps(a, b); }
FC_INLINE fc_reals fc_mul(fc_reals a, fc_reals b) { return _mm512_mul_ps(a, b); }
FC_INLINE fc_reals fc_div(fc_reals a, fc_reals b) { return _mm512_div_ps(a, b); }

FC_INLINE fc_reals fc_reals_of_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

FC_INLINE fc_reals fc_reals_of_weights(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* Rounds to the nearest, halves to even. What is no number or far below becomes the lowest integer: vminps gives its second
   operand then, and vcvtps2dq that integer. */
FC_INLINE fc_reals fc_limited(fc_reals x) { return _mm512_min_ps(_mm512_set1_ps(1024.0f), x); }
FC_INLINE __m512i fc_rounded(fc_reals x) { return _mm512_cvtps_epi32(fc_limited(x)); }

/* The nearest integers as floats, halves to even, within `low` and `high`; what is no number becomes the lowest. */
FC_INLINE fc_reals fc_near_within(fc_reals x, fc_reals low, fc_reals high)
{
    return _mm512_roundscale_ps(_mm512_min_ps(_mm512_max_ps(x, low), high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Whether sixteen factors keep every sum of 32 bits below 2^31, where nothing needs a limit. */
FC_INLINE int fc_bounded(const float *factor)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(fc_load_reals(factor)), fc_real(1.0f), _CMP_LT_OQ) == 0xffff;
}

/* What x / scale takes without a division: 1 / scale as a float, and what it is short of. */
#define FC_FUSED 1
struct fc_divisor {
    fc_reals scale, inverse, rest, most;
};

FC_INLINE struct fc_divisor fc_divisor_of(float scale)
{
    struct fc_divisor by;
    by.scale = fc_real(scale);
    by.inverse = _mm512_div_ps(fc_real(1.0f), by.scale);
    by.rest = _mm512_div_ps(_mm512_fnmadd_ps(by.scale, by.inverse, fc_real(1.0f)), by.scale);
    by.most = fc_real(1024.0f * scale);
    return by;
}

/* x / scale, for fc_rounded: rounded as a division rounds it, for scales of 2^-60 to 2^60.

   q is within one last place of the quotient, so that x - q * scale is exact, and a sum with that rest over scale is rounded
   once: Markstein's theorem, which needs 1 / scale rounded to the nearest. 1024 for all that is above; no number, as for NaN,
   only far below, where both become the lowest byte. */
FC_INLINE fc_reals fc_quotient(fc_reals x, const struct fc_divisor *by)
{
    x = _mm512_min_ps(by->most, x); /* a NaN stays */
    const fc_reals q = _mm512_fmadd_ps(x, by->inverse, _mm512_mul_ps(x, by->rest));
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, by->scale, x), by->inverse, q);
}

#if defined(__GNUC__)
#define FC_OPAQUE(n) __asm__("" : "+r"(n))
#endif

FC_INLINE void fc_store_count(uint8_t *y, int count, __m128i bytes)
{
    if (count >= FC_LANES)
        _mm_storeu_si128((__m128i *)y, bytes);
    else if (count == 8)
        _mm_storel_epi64((__m128i *)y, bytes);
    else
        _mm_mask_storeu_epi8(y, (__mmask16)((1u << count) - 1), bytes);
}

/* The bytes of four vectors by turns of four, below 2^31: packed numbers as fc_interleave_rows had them. */
FC_INLINE __m512i fc_bytes_by_turns(const fc_reals *x, const struct fc_code *code)
{
    const __m512i zero = _mm512_set1_epi16((int16_t)code->zero);
    const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(x[0]), _mm512_cvtps_epi32(x[1]));
    const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(x[2]), _mm512_cvtps_epi32(x[3]));
    const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(low, zero), _mm512_adds_epi16(high, zero));
    if (code->low <= 0 && code->high >= 255)
        return bytes;
    return _mm512_min_epu8(_mm512_max_epu8(bytes, _mm512_set1_epi8((char)code->low)), _mm512_set1_epi8((char)code->high));
}

FC_INLINE void fc_store_rows(uint8_t *y, const fc_reals *x, const struct fc_code *code)
{
    _mm512_storeu_si512(y, fc_bytes_by_turns(x, code));
}

/* The first of each of three or four vectors, the second ones ...: pixels of four bytes, the last of which stays where there
   are three. */
#define FC_PIXELS 1
FC_INLINE void fc_store_pixels(uint8_t *y, int planes, const fc_reals *x, const struct fc_code *code)
{
    __m512i columns = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    FC_KEPT(columns); /* else clang makes several shuffles of one */
    const __m512i pixels = _mm512_shuffle_epi8(fc_bytes_by_turns(x, code), columns);
    _mm512_mask_storeu_epi8(y, planes == 4 ? ~(__mmask64)0 : (__mmask64)0x7777777777777777, pixels);
}

/* One vector's sixteen bytes after the other's. */
FC_INLINE void fc_store_vectors(uint8_t *y, const fc_reals *x, const struct fc_code *code)
{
    _mm512_storeu_si512(y, fc_quarters(fc_bytes_by_turns(x, code))); /* in each quarter there were four channels of all */
}

/* Four vectors that are four positions of up to sixteen channels, `count` of them written; numbers below 2^31. */
#define FC_STORED 4
FC_INLINE void fc_store_positions(
    uint8_t *y, const int32_t *at, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    const __m512i bytes = fc_quarters(fc_bytes_by_turns(x, code)); /* in each quarter there were four channels of all positions */
    (void)vectors;
    const int side_by_side = at[1] - at[0] == count && at[2] - at[1] == count && at[3] - at[2] == count;
    if (count == FC_LANES && side_by_side) {
        _mm512_storeu_si512(y + at[0], bytes);
        return;
    }
    const __m128i second_one = _mm512_extracti32x4_epi32(bytes, 1), third = _mm512_extracti32x4_epi32(bytes, 2);
    if (count >= FC_LANES || (count >= 8 && side_by_side)) { /* what is too much the next positions overwrite */
        _mm_storeu_si128((__m128i *)(y + at[0]), _mm512_castsi512_si128(bytes));
        _mm_storeu_si128((__m128i *)(y + at[1]), second_one);
        _mm_storeu_si128((__m128i *)(y + at[2]), third);
    } else if (count == 8 || (count >= 4 && side_by_side)) {
        _mm_storel_epi64((__m128i *)(y + at[0]), _mm512_castsi512_si128(bytes));
        _mm_storel_epi64((__m128i *)(y + at[1]), second_one);
        _mm_storel_epi64((__m128i *)(y + at[2]), third);
    } else {
        fc_store_count(y + at[0], count, _mm512_castsi512_si128(bytes));
        fc_store_count(y + at[1], count, second_one);
        fc_store_count(y + at[2], count, third);
    }
    fc_store_count(y + at[3], count, _mm512_extracti32x4_epi32(bytes, 3));
}

FC_INLINE void fc_store_bytes(uint8_t *y, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    __m512i each = _mm512_add_epi32(fc_rounded(x[0]), _mm512_set1_epi32(code->zero));
    each = _mm512_max_epi32(each, _mm512_set1_epi32(code->low));
    each = _mm512_min_epi32(each, _mm512_set1_epi32(code->high));
    (void)vectors;
    fc_store_count(y, count, _mm512_cvtepi32_epi8(each));
}

#include "interleave_sse.h"

#endif
