/* Operations on floats, element by element, and reductions. */
#ifndef FC_FLOATS_H
#define FC_FLOATS_H

#include "bytes.h"
#include "sixteens.h"

/* y = expression of x and of the numbers n of the node; of floats that lie side by side sixteen at a time */
#define FC_UNARY(name, expression)                                                                                \
    FC_INLINE float name##_of(float x, const float *n)                                                            \
    {                                                                                                             \
        (void)n;                                                                                                  \
        return expression;                                                                                        \
    }                                                                                                             \
    FC_KERNEL void name(float *y, const float *a, const float *numbers, const struct fc_loop *l)                  \
    {                                                                                                             \
        const float own[2] = {numbers[0], numbers[1]};                                                            \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            float *to = y + FC_OFFSET(l->y);                                                                      \
            const float *from = a + FC_OFFSET(l->a);                                                              \
            int i = 0;                                                                                            \
            if (FC_BLOCKS && l->y[3] == 1 && l->a[3] == 1) {                                                      \
                for (; i + FC_TILE <= l->count[3]; i += FC_TILE) {                                                \
                    float some[FC_TILE];                                                                          \
                    memcpy(some, from + i, sizeof some);                                                          \
                    for (int k = 0; k < FC_TILE; k++)                                                             \
                        some[k] = name##_of(some[k], own);                                                        \
                    memcpy(to + i, some, sizeof some);                                                            \
                }                                                                                                 \
            }                                                                                                     \
            for (; i < l->count[3]; i++)                                                                          \
                to[(ptrdiff_t)i * l->y[3]] = name##_of(from[(ptrdiff_t)i * l->a[3]], own);                        \
        }                                                                                                         \
    }
FC_UNARY(fc_unary_Abs, fc_absolute(x))
FC_UNARY(fc_unary_Ceil, fc_ceil(x))
FC_UNARY(fc_unary_Celu, x > 0.0f ? x : n[0] * fc_exp_minus_one(x / n[0]))
FC_UNARY(fc_unary_Clip, x < n[0] ? n[0] : x > n[1] ? n[1] : x)
FC_UNARY(fc_unary_Cos, fc_sine(x, 1))
FC_UNARY(fc_unary_Elu, x < 0.0f ? n[0] * fc_exp_minus_one(x) : x)
FC_UNARY(fc_unary_Erf, fc_erf(x))
FC_UNARY(fc_unary_Exp, fc_exp(x))
FC_UNARY(fc_unary_Floor, fc_floor(x))
FC_UNARY(fc_unary_Gelu, 0.5f * x * (1.0f + fc_erf(x * 0.707106781f)))
FC_UNARY(fc_unary_GeluTanh, 0.5f * x * (1.0f + fc_tanh(0.797884561f * (x + 0.044715f * (x * x * x)))))
FC_UNARY(fc_unary_HardSigmoid, fc_hard(n[0] * x + n[1]))
FC_UNARY(fc_unary_HardSwish, x * fc_hard(x / 6.0f + 0.5f))
FC_UNARY(fc_unary_LeakyRelu, x >= 0.0f ? x : n[0] * x)
FC_UNARY(fc_unary_Log, fc_log(x))
FC_UNARY(fc_unary_Mish, x * fc_tanh(fc_softplus(x)))
FC_UNARY(fc_unary_Neg, -x)
FC_UNARY(fc_unary_Not, x == 0.0f ? 1.0f : 0.0f)
FC_UNARY(fc_unary_Reciprocal, 1.0f / x)
FC_UNARY(fc_unary_Round, fc_round(x))
FC_UNARY(fc_unary_Selu, n[1] * (x < 0.0f ? n[0] * fc_exp_minus_one(x) : x))
FC_UNARY(fc_unary_Sigmoid, fc_sigmoid(x))
FC_UNARY(fc_unary_Sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x)
FC_UNARY(fc_unary_Sin, fc_sine(x, 0))
FC_UNARY(fc_unary_Softplus, fc_softplus(x))
FC_UNARY(fc_unary_Softsign, x / (1.0f + fc_absolute(x)))
FC_UNARY(fc_unary_Sqrt, fc_sqrt(x))
FC_UNARY(fc_unary_Swish, x * fc_sigmoid(n[0] * x))
FC_UNARY(fc_unary_Tanh, fc_tanh(x))
FC_UNARY(fc_unary_ThresholdedRelu, x > n[0] ? x : 0.0f)
#undef FC_UNARY

#define FC_BINARY(name, expression)                                                                               \
    FC_KERNEL void name(float *y, const float *a, const float *b, const struct fc_loop *l)                        \
    {                                                                                                             \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            float *to = y + FC_OFFSET(l->y);                                                                      \
            const float *first = a + FC_OFFSET(l->a), *second = b + FC_OFFSET(l->b);                              \
            for (int i = 0; i < l->count[3]; i++) {                                                               \
                const float x = first[(ptrdiff_t)i * l->a[3]], z = second[(ptrdiff_t)i * l->b[3]];                \
                to[(ptrdiff_t)i * l->y[3]] = expression;                                                          \
            }                                                                                                     \
        }                                                                                                         \
    }
FC_BINARY(fc_binary_Add, x + z)
FC_BINARY(fc_binary_Sub, x - z)
FC_BINARY(fc_binary_Mul, x * z)
FC_BINARY(fc_binary_Div, x / z)
FC_BINARY(fc_binary_Max, x > z || x != x ? x : z)
FC_BINARY(fc_binary_Min, x < z || x != x ? x : z)
FC_BINARY(fc_binary_Pow, fc_power(x, z))
FC_BINARY(fc_binary_PRelu, x < 0.0f ? x * z : x)
FC_BINARY(fc_binary_Equal, x == z ? 1.0f : 0.0f)
FC_BINARY(fc_binary_Greater, x > z ? 1.0f : 0.0f)
FC_BINARY(fc_binary_GreaterOrEqual, x >= z ? 1.0f : 0.0f)
FC_BINARY(fc_binary_Less, x < z ? 1.0f : 0.0f)
FC_BINARY(fc_binary_LessOrEqual, x <= z ? 1.0f : 0.0f)
FC_BINARY(fc_binary_And, x != 0.0f && z != 0.0f ? 1.0f : 0.0f)
FC_BINARY(fc_binary_Or, x != 0.0f || z != 0.0f ? 1.0f : 0.0f)
FC_BINARY(fc_binary_Xor, (x != 0.0f) != (z != 0.0f) ? 1.0f : 0.0f)
#undef FC_BINARY

/* l->y are the strides of what is kept, 0 along the axes that are reduced; `count` elements make one. What lies along the
   innermost loop is reduced in sixteen parts, as sums are (fc_sum_of_parts). */
#define FC_REDUCE(name, first, step, last)                                                                        \
    FC_INLINE float name##_of(float z, float x) { return step; }                                                  \
    FC_KERNEL void name(float *y, int32_t outputs, const float *a, float count, const struct fc_loop *given)      \
    {                                                                                                             \
        const struct fc_loop own = *given, *l = &own;                                                             \
        const ptrdiff_t along = l->a[3], kept = l->y[3];                                                          \
        (void)count;                                                                                              \
        for (int i = 0; i < outputs; i++)                                                                         \
            y[i] = first;                                                                                         \
        FC_FOR_EACH_RUN(l) {                                                                                      \
            float *to = y + FC_OFFSET(l->y), part[FC_TILE], some[FC_TILE];                                        \
            const float *from = a + FC_OFFSET(l->a);                                                              \
            for (int k = 0; k < FC_TILE; k++)                                                                     \
                part[k] = first;                                                                                  \
            FC_FOR_EACH_SIXTEEN(l->count[3]) {                                                                    \
                fc_take(some, from + i * along, along, n, first);                                                 \
                if (kept)                                                                                         \
                    fc_take(part, to + i * kept, kept, n, first);                                                 \
                for (int k = 0; k < FC_WITH(n); k++)                                                              \
                    part[k] = name##_of(part[k], some[k]);                                                        \
                if (kept)                                                                                         \
                    fc_put(to + i * kept, kept, n, part);                                                         \
            }                                                                                                     \
            for (int half = kept ? 0 : FC_TILE / 2; half > 0; half /= 2)                                          \
                for (int k = 0; k < half; k++)                                                                    \
                    part[k] = name##_of(part[k], part[k + half]);                                                 \
            if (!kept)                                                                                            \
                *to = name##_of(*to, part[0]);                                                                    \
        }                                                                                                         \
        for (int i = 0; i < outputs; i++)                                                                         \
            y[i] = last;                                                                                          \
    }
FC_REDUCE(fc_reduce_mean, 0.0f, z + x, y[i] / count)
FC_REDUCE(fc_reduce_sum, 0.0f, z + x, y[i])
FC_REDUCE(fc_reduce_max, -fc_of_bits(0x7f800000u), x > z || x != x ? x : z, y[i])
FC_REDUCE(fc_reduce_min, fc_of_bits(0x7f800000u), x < z || x != x ? x : z, y[i])
#undef FC_REDUCE

#endif
