/* Rows less their mean, over their deviation. Sums are taken in eight parts, each from the first element to the last. */
#ifndef FC_NORMALIZE_H
#define FC_NORMALIZE_H

#include "functions.h"

FC_INLINE float fc_sum_of_eight(const float *part)
{
    const float a = (part[0] + part[4]) + (part[2] + part[6]), b = (part[1] + part[5]) + (part[3] + part[7]);
    return a + b;
}

FC_KERNEL void fc_normalize(
    float *y, const float *a, const float *gain, const float *shift, int32_t rows, int32_t length, float epsilon)
{
    for (int row = 0; row < rows; row++, y += length, a += length) {
        float part[8] = {0}, squares[8] = {0};
        for (int i = 0; i < length; i++)
            part[i % 8] += a[i];
        const float mean = fc_sum_of_eight(part) / (float)length;
        for (int i = 0; i < length; i++) {
            const float away = a[i] - mean, square = away * away;
            squares[i % 8] += square;
        }
        const float deviation = fc_sqrt(fc_sum_of_eight(squares) / (float)length + epsilon);
        for (int i = 0; i < length; i++) {
            const float scaled = (a[i] - mean) / deviation * gain[i];
            y[i] = scaled + shift[i];
        }
    }
}

#endif
