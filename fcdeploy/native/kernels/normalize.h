/* Rows less their mean, over their deviation; sums are taken in parts (fc_sum_of_parts). */
#ifndef FC_NORMALIZE_H
#define FC_NORMALIZE_H

#include "sixteens.h"

FC_KERNEL void fc_normalize(
    float *y, const float *a, const float *gain, const float *shift, int32_t rows, int32_t length, float epsilon)
{
    for (int row = 0; row < rows; row++, y += length, a += length) {
        float part[FC_TILE] = {0}, squares[FC_TILE] = {0}, some[FC_TILE], by[FC_TILE], more[FC_TILE];
        FC_FOR_EACH_SIXTEEN(length) {
            fc_take(some, a + i, 1, n, 0.0f);
            for (int k = 0; k < FC_WITH(n); k++)
                part[k] += some[k];
        }
        const float mean = fc_sum_of_parts(part) / (float)length;
        FC_FOR_EACH_SIXTEEN(length) {
            fc_take(some, a + i, 1, n, mean);
            for (int k = 0; k < FC_WITH(n); k++) {
                const float away = some[k] - mean, square = away * away;
                squares[k] += square;
            }
        }
        const float deviation = fc_sqrt(fc_sum_of_parts(squares) / (float)length + epsilon);
        FC_FOR_EACH_SIXTEEN(length) {
            fc_take(some, a + i, 1, n, mean);
            fc_take(by, gain + i, 1, n, 1.0f);
            fc_take(more, shift + i, 1, n, 0.0f);
            for (int k = 0; k < FC_WITH(n); k++) {
                const float scaled = (some[k] - mean) / deviation * by[k];
                some[k] = scaled + more[k];
            }
            fc_put(y + i, 1, n, some);
        }
    }
}

#endif
