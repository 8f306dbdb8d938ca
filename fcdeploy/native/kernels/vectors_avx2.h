/* Vectors of AVX2: eight lanes of 32 bits. */
#ifndef FC_VECTORS_H
#define FC_VECTORS_H

#include <immintrin.h>

#include "common.h"

#define FC_LANES 8
#define FC_BLOCKS 1
#define FC_FORMS 1
#define FC_PAIRS 1
#define FC_POSITIONS_16 4
#define FC_POSITIONS_8 8

typedef __m256i fc_ints;
typedef __m256 fc_reals;

FC_INLINE fc_ints fc_load_ints(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

FC_INLINE fc_ints fc_no_ints(void) { return _mm256_setzero_si256(); }
FC_INLINE fc_ints fc_add_ints(fc_ints a, fc_ints b) { return _mm256_add_epi32(a, b); }

FC_INLINE fc_ints fc_splat(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

FC_INLINE fc_ints fc_weights(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* vpmaddubsw adds two products in 16 bits and saturates: only where the weights are known to leave room. */
FC_INLINE fc_ints fc_dot(fc_ints sum, fc_ints x, fc_ints w)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, x, w);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
#endif
}

#if !defined(__AVXVNNI__)
/* Two of them at once: only where all four products of bytes that lie in the same 16 bits leave room. */
#define fc_dot_two fc_dot_two
FC_INLINE fc_ints fc_dot_two(fc_ints sum, fc_ints x, fc_ints w, fc_ints y, fc_ints v)
{
    const __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(x, w), _mm256_maddubs_epi16(y, v));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
}

#define FC_APART 1
/* Bytes 0 and 2, then 1 and 3 of each lane, as 16 bits; and what adds up products of these. */
FC_INLINE void fc_split_pairs(fc_ints *out, fc_ints x)
{
    out[0] = _mm256_and_si256(x, _mm256_set1_epi16(255));
    out[1] = _mm256_srli_epi16(x, 8);
}
FC_INLINE void fc_weights_apart(fc_ints *out, fc_ints w)
{
    out[0] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
    out[1] = _mm256_srai_epi16(w, 8);
}
FC_INLINE fc_ints fc_add_pairs(fc_ints sum, fc_ints x, fc_ints w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)); }
#endif

/* The same where they may leave 16 bits. */
FC_INLINE fc_ints fc_dot_wide(fc_ints sum, fc_ints x, fc_ints w)
{
#if defined(FC_APART)
    fc_ints bytes[2], weights[2];
    fc_split_pairs(bytes, x);
    fc_weights_apart(weights, w);
    return fc_add_pairs(fc_add_pairs(sum, bytes[0], weights[0]), bytes[1], weights[1]);
#else
    return fc_dot(sum, x, w);
#endif
}

FC_INLINE void fc_taps(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    const __m128i a = _mm_loadu_si128((const __m128i *)r0), b = _mm_loadu_si128((const __m128i *)r1);
    const __m128i c = _mm_loadu_si128((const __m128i *)r2), d = _mm_loadu_si128((const __m128i *)r3);
    const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    const __m128i ab_high = _mm_unpackhi_epi8(a, b), cd_high = _mm_unpackhi_epi8(c, d);
    out[0] = _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd));
    out[1] = _mm256_set_m128i(_mm_unpackhi_epi16(ab_high, cd_high), _mm_unpacklo_epi16(ab_high, cd_high));
}

/* Bytes of four rows by turns: of each sixteen the first four in out[0], the next ones in out[1]. */
FC_INLINE void fc_interleave_rows(fc_ints *out, const uint8_t *r0, const uint8_t *r1, const uint8_t *r2, const uint8_t *r3)
{
    const __m256i a = _mm256_loadu_si256((const __m256i *)r0), b = _mm256_loadu_si256((const __m256i *)r1);
    const __m256i c = _mm256_loadu_si256((const __m256i *)r2), d = _mm256_loadu_si256((const __m256i *)r3);
    const __m256i ab = _mm256_unpacklo_epi8(a, b), cd = _mm256_unpacklo_epi8(c, d);
    const __m256i ab_high = _mm256_unpackhi_epi8(a, b), cd_high = _mm256_unpackhi_epi8(c, d);
    out[0] = _mm256_unpacklo_epi16(ab, cd);
    out[1] = _mm256_unpackhi_epi16(ab, cd);
    out[2] = _mm256_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi16(ab_high, cd_high);
}

/* Weights of a window of three rows for four that begin one row above it. */
FC_INLINE fc_ints fc_one_row_down(fc_ints w) { return _mm256_slli_epi32(w, 8); }

FC_INLINE fc_reals fc_load_reals(const float *p) { return _mm256_loadu_ps(p); }
/* p[0], p[2] ... p[14] and nothing behind it. */
FC_INLINE fc_reals fc_every_other(const float *p)
{
    const __m256 halves = _mm256_shuffle_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 7), _MM_SHUFFLE(3, 1, 2, 0));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), _MM_SHUFFLE(3, 1, 2, 0)));
}

FC_INLINE void fc_store_reals(float *p, fc_reals x) { _mm256_storeu_ps(p, x); }
FC_INLINE fc_reals fc_real(float x) { return _mm256_set1_ps(x); }
FC_INLINE fc_reals fc_reals_of(fc_ints x) { return _mm256_cvtepi32_ps(x); }
FC_INLINE fc_reals fc_add(fc_reals a, fc_reals b) { return _mm256_add_ps(a, b); }
FC_INLINE fc_reals fc_sub(fc_reals a, fc_reals b) { return _mm256_sub_ps(a, b); }
FC_INLINE fc_reals fc_mul(fc_reals a, fc_reals b) { return _mm256_mul_ps(a, b); }
FC_INLINE fc_reals fc_div(fc_reals a, fc_reals b) { return _mm256_div_ps(a, b); }

FC_INLINE fc_reals fc_reals_of_bytes(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

FC_INLINE fc_reals fc_reals_of_weights(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* Rounds to the nearest, halves to even. What is no number or far below becomes the lowest integer: vminps gives its second
   operand then, and vcvtps2dq that integer. */
FC_INLINE fc_reals fc_limited(fc_reals x) { return _mm256_min_ps(_mm256_set1_ps(1024.0f), x); }
FC_INLINE __m256i fc_rounded(fc_reals x) { return _mm256_cvtps_epi32(fc_limited(x)); }

/* The nearest integers as floats, halves to even, within `low` and `high`; what is no number becomes the lowest. */
FC_INLINE fc_reals fc_near_within(fc_reals x, fc_reals low, fc_reals high)
{
    return _mm256_round_ps(_mm256_min_ps(_mm256_max_ps(x, low), high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Whether sixteen factors keep every sum of 32 bits below 2^31, where nothing needs a limit. */
FC_INLINE int fc_bounded(const float *factor)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    const __m256 first = _mm256_andnot_ps(sign, fc_load_reals(factor)), last = _mm256_andnot_ps(sign, fc_load_reals(factor + 8));
    return _mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(first, one, _CMP_LT_OQ), _mm256_cmp_ps(last, one, _CMP_LT_OQ))) == 255;
}

#if defined(__GNUC__)
#define FC_OPAQUE(n) __asm__("" : "+r"(n))
#endif

FC_INLINE void fc_store_count(uint8_t *y, int count, __m128i bytes)
{
    if (count >= 16) {
        _mm_storeu_si128((__m128i *)y, bytes);
        return;
    }
    if (count & 8) {
        _mm_storel_epi64((__m128i *)y, bytes);
        bytes = _mm_srli_si128(bytes, 8);
        y += 8;
    }
    if (count & 4) {
        const int32_t four = _mm_cvtsi128_si32(bytes);
        memcpy(y, &four, 4);
        bytes = _mm_srli_si128(bytes, 4);
        y += 4;
    }
    uint32_t rest = (uint32_t)_mm_cvtsi128_si32(bytes);
    if (count & 2) {
        memcpy(y, &rest, 2);
        rest >>= 16;
        y += 2;
    }
    if (count & 1)
        *y = (uint8_t)rest;
}

/* The bytes of four vectors by turns of four, below 2^31: packed numbers as fc_interleave_rows had them. */
FC_INLINE __m256i fc_bytes_by_turns(const fc_reals *x, const struct fc_code *code)
{
    const __m256i zero = _mm256_set1_epi16((int16_t)code->zero);
    const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
    const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(x[2]), _mm256_cvtps_epi32(x[3]));
    __m256i bytes = _mm256_packus_epi16(_mm256_adds_epi16(low, zero), _mm256_adds_epi16(high, zero));
    if (code->low > 0 || code->high < 255) {
        bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8((char)code->low));
        bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8((char)code->high));
    }
    return bytes;
}

FC_INLINE void fc_store_rows(uint8_t *y, const fc_reals *x, const struct fc_code *code)
{
    _mm256_storeu_si256((__m256i *)y, fc_bytes_by_turns(x, code));
}

/* One vector's eight bytes after the other's: the lower halves of all four came first. */
FC_INLINE __m256i fc_bytes_of(const fc_reals *x, const struct fc_code *code)
{
    return _mm256_permutevar8x32_epi32(fc_bytes_by_turns(x, code), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

FC_INLINE void fc_store_vectors(uint8_t *y, const fc_reals *x, const struct fc_code *code)
{
    _mm256_storeu_si256((__m256i *)y, fc_bytes_of(x, code));
}

/* Four vectors that are four positions of up to eight channels, or two of up to sixteen, `count` of them written. */
#define FC_STORED 4
FC_INLINE void fc_store_positions(
    uint8_t *y, const int32_t *at, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    const __m256i bytes = fc_bytes_of(x, code);
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    if (vectors == 2) {
        fc_store_count(y + at[0], count, low);
        fc_store_count(y + at[1], count, high);
        return;
    }
    const __m128i low_end = _mm_srli_si128(low, 8), high_end = _mm_srli_si128(high, 8);
    count = fc_min(count, 8);
    if (count == 8 || (count >= 4 && at[1] - at[0] == count && at[2] - at[1] == count && at[3] - at[2] == count)) {
        _mm_storel_epi64((__m128i *)(y + at[0]), low); /* what is too much the next positions overwrite */
        _mm_storel_epi64((__m128i *)(y + at[1]), low_end);
        _mm_storel_epi64((__m128i *)(y + at[2]), high);
    } else {
        fc_store_count(y + at[0], count, low);
        fc_store_count(y + at[1], count, low_end);
        fc_store_count(y + at[2], count, high);
    }
    fc_store_count(y + at[3], count, high_end);
}

FC_INLINE void fc_store_bytes(uint8_t *y, int count, const int vectors, const fc_reals *x, const struct fc_code *code)
{
    const __m256i first = fc_rounded(x[0]), second = vectors > 1 ? fc_rounded(x[vectors - 1]) : first;
    /* lanes 0-3 8-11 4-7 12-15, put in order */
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xD8);
    words = _mm256_adds_epi16(words, _mm256_set1_epi16((int16_t)code->zero));
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    bytes = _mm_max_epu8(bytes, _mm_set1_epi8((char)code->low));
    bytes = _mm_min_epu8(bytes, _mm_set1_epi8((char)code->high));
    fc_store_count(y, fc_min(count, vectors * FC_LANES), bytes);
}

#include "interleave_sse.h"

#endif
