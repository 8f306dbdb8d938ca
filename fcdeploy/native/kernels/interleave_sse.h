/* Sixteen pixels of three or four planes, side by side, with SSE4.1. Included by the vectors of x86. */
#ifndef FC_INTERLEAVE_SSE_H
#define FC_INTERLEAVE_SSE_H

#define FC_INTERLEAVED 1
FC_INLINE void fc_interleave(uint8_t *y, uint8_t (*bytes)[FC_TILE], int planes, int apart)
{
    if (planes < 3 || apart > 4) {
        for (int i = 0; i < FC_TILE; i++, y += apart)
            for (int c = 0; c < planes; c++)
                y[c] = bytes[c][i];
        return;
    }
    const __m128i a = _mm_loadu_si128((const __m128i *)bytes[0]), b = _mm_loadu_si128((const __m128i *)bytes[1]);
    const __m128i c = _mm_loadu_si128((const __m128i *)bytes[2]);
    const __m128i d = planes == 4 ? _mm_loadu_si128((const __m128i *)bytes[3]) : _mm_setzero_si128();
    const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    const __m128i ab_high = _mm_unpackhi_epi8(a, b), cd_high = _mm_unpackhi_epi8(c, d);
    const __m128i four[4] = {
        _mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd),
        _mm_unpacklo_epi16(ab_high, cd_high), _mm_unpackhi_epi16(ab_high, cd_high),
    };
    for (int i = 0; i < 4; i++) {
        __m128i *to = (__m128i *)(y + 4 * i * apart);
        if (planes == 4) {
            _mm_storeu_si128(to, four[i]);
        } else if (apart == 4) { /* what lies behind three bytes stays */
            _mm_storeu_si128(to, _mm_blendv_epi8(_mm_loadu_si128(to), four[i], _mm_set1_epi32(0x00ffffff)));
        } else {
            const __m128i twelve =
                _mm_shuffle_epi8(four[i], _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
            const int32_t last = _mm_extract_epi32(twelve, 2);
            _mm_storel_epi64(to, twelve);
            memcpy((uint8_t *)to + 8, &last, 4);
        }
    }
}

#endif
