"""Instructions, code and stack of native kernels, written by scripts/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(111, 1194, {
        "fc_add_bytes": Cost(0, 1225, 0, 0, 2300, 512),  # 0.92 to 1.03
        "fc_average_pool_bytes": Cost(194.4, 1034, 0, 0, 548, 336),  # 0.75 to 1.24
        "fc_binary_Add": Cost(0, 104, 184.1, 0, 262, 240),  # 1.00 to 1.00
        "fc_binary_Div": Cost(0, 320.5, 0, 0, 262, 272),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 8.137, 56.13, 0, 158, 136),  # 0.74 to 1.34
        "fc_copy_4": Cost(0, 12.12, 42.24, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(26.85, 514.8, 0, 0, 2196, 632),  # 0.94 to 1.05
        "fc_fill_border": Cost(0, 4.004, 41.22, 98.84, 152, 128),  # 0.98 to 1.02
        "fc_float_layer": Cost(145.4, 0, 0, 0, 1032, 440),  # 0.78 to 1.21
        "fc_global_average": Cost(6.915, 506, 18.74, 0, 400, 288),  # 0.95 to 1.02
        "fc_gru": Cost(966.8, 7208, 0, 0, 4460, 568),  # 0.89 to 1.12
        "fc_layer_bytes": Cost(24.07, 547.6, 0, 0, 9416, 1384),  # 0.95 to 1.08
        "fc_layer_reals": Cost(22.16, 316.2, 0, 0, 8708, 1288),  # 0.97 to 1.04
        "fc_lstm": Cost(1014, 13969, 0, 0, 3332, 504),  # 0.95 to 1.06
        "fc_max_pool_bytes": Cost(0, 24.85, 127.1, 0, 418, 208),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 1225, 0, 0, 2300, 512),  # 0.92 to 1.11
        "fc_quantize": Cost(0, 669.7, 0, 0, 728, 368),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 111.1, 321.7, 0, 254, 264),  # 1.00 to 1.00
        "fc_softmax_bytes": Cost(0, 1054, 207.7, 0, 364, 224),  # 0.99 to 1.01
        "fc_table_bytes": Cost(0, 11.01, 99.85, 0, 150, 128),  # 0.99 to 1.00
        "fc_table_reals": Cost(0, 7.972, 154.2, 0, 212, 168),  # 0.99 to 1.02
        "fc_take_1": Cost(0, 5.996, 44.36, 111.6, 166, 144),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 2219, 0, 0, 488, 248),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 9.032, 122.5, 0, 210, 168),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2632, 0, 0, 516, 264),  # 1.00 to 1.00
    }),
    "dsp": Costs(105, 72, {
        "fc_add_bytes": Cost(0, 59.46, 0, 0, 2704, 268),  # 0.48 to 1.15
        "fc_average_pool_bytes": Cost(0, 58.26, 102.7, 0, 644, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 9.03, 108.2, 0, 254, 148),  # 0.99 to 1.02
        "fc_binary_Div": Cost(0, 8.971, 150.8, 0, 254, 148),  # 1.00 to 1.01
        "fc_copy_1": Cost(0, 6.02, 58.33, 0, 166, 128),  # 0.63 to 1.58
        "fc_copy_4": Cost(0, 10.08, 30.55, 0, 190, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(16.69, 60.82, 0, 0, 1924, 536),  # 0.95 to 1.04
        "fc_fill_border": Cost(0, 3.013, 31.27, 86.45, 152, 128),  # 0.97 to 1.02
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.574, 0, 0, 641.3, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10980, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(1.667, 125, 0, 0, 2680, 1324),  # 0.84 to 1.15
        "fc_layer_reals": Cost(1.648, 99.21, 0, 0, 730, 1324),  # 0.97 to 1.04
        "fc_lstm": Cost(114.7, 853.5, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.81, 115.8, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 67.66, 0, 0, 2704, 268),  # 0.54 to 1.30
        "fc_quantize": Cost(0, 46.01, 0, 0, 808, 228),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.029, 21.44, 93.02, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 58.16, 107.1, 0, 412, 128),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 10.99, 86.77, 0, 150, 128),  # 0.99 to 1.01
        "fc_table_reals": Cost(0, 7.018, 98.67, 0, 200, 136),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 4.01, 29.56, 59.74, 178, 128),  # 0.99 to 1.00
        "fc_unary_Exp": Cost(0, 45.22, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 7.004, 104.2, 0, 198, 128),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 48.2, 0, 0, 508, 160),  # 0.99 to 1.00
    }),
    "plain": Costs(105, 72, {
        "fc_add_bytes": Cost(0, 59.44, 0, 0, 2704, 268),  # 0.48 to 1.15
        "fc_average_pool_bytes": Cost(0, 58.17, 102.7, 0, 644, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 8.995, 119.3, 0, 254, 148),  # 0.98 to 1.01
        "fc_binary_Div": Cost(0, 8.991, 150.3, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 6.06, 58.02, 0, 166, 128),  # 0.64 to 1.57
        "fc_copy_4": Cost(0, 10.09, 30.25, 0, 190, 128),  # 0.98 to 1.02
        "fc_depthwise_bytes": Cost(16.69, 60.79, 0, 0, 1924, 536),  # 0.95 to 1.04
        "fc_fill_border": Cost(0, 3.023, 30.38, 79.9, 152, 128),  # 0.97 to 1.04
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.528, 0, 0, 656, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10987, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(10.56, 65.41, 93.04, 0, 6220, 1084),  # 0.95 to 1.05
        "fc_layer_reals": Cost(10.7, 68.2, 0, 0, 6300, 992),  # 0.98 to 1.01
        "fc_lstm": Cost(114.7, 853.4, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.84, 115.7, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 67.66, 0, 0, 2704, 268),  # 0.54 to 1.30
        "fc_quantize": Cost(0, 46, 0, 0, 808, 228),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.298, 0, 167.6, 238, 132),  # 0.96 to 1.06
        "fc_softmax_bytes": Cost(0, 57.88, 106.8, 0, 412, 128),  # 0.98 to 1.02
        "fc_table_bytes": Cost(0, 11.14, 0, 0, 150, 128),  # 0.98 to 1.01
        "fc_table_reals": Cost(0, 7.023, 105.2, 0, 200, 136),  # 0.97 to 1.01
        "fc_take_1": Cost(0, 4.014, 29.47, 59.45, 178, 128),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 45.21, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 7.044, 89.39, 0, 198, 128),  # 0.97 to 1.02
        "fc_unary_Sigmoid": Cost(0, 48.19, 0, 0, 508, 160),  # 0.99 to 1.00
    }),
    "neon": Costs(0, 0, {
        "fc_add_bytes": Cost(0, 4.67, 1771, 0, 0, 0),  # 0.75 to 1.41
        "fc_average_pool_bytes": Cost(4.407, 9.663, 0, 1926, 0, 0),  # 0.79 to 1.21
        "fc_binary_Add": Cost(0, 1.292, 18.08, 0, 0, 0),  # 0.71 to 1.30
        "fc_binary_Div": Cost(0, 1.283, 31.65, 0, 0, 0),  # 0.94 to 1.01
        "fc_copy_1": Cost(0, 0, 121.6, 0, 0, 0),  # 0.09 to 2.60
        "fc_copy_4": Cost(0, 10, 30.98, 82.59, 0, 0),  # 1.00 to 1.00
        "fc_depthwise_bytes": Cost(0.7666, 7.734, 0, 0, 0, 0),  # 0.64 to 1.35
        "fc_fill_border": Cost(0, 0.2115, 41.6, 128.1, 0, 0),  # 0.90 to 1.09
        "fc_float_layer": Cost(0.7296, 23.33, 0, 0, 0, 0),  # 0.86 to 1.16
        "fc_global_average": Cost(0, 35.74, 31.81, 0, 0, 0),  # 0.68 to 1.38
        "fc_gru": Cost(6.182, 128.6, 0, 1401, 0, 0),  # 0.91 to 1.09
        "fc_layer_bytes": Cost(0.4318, 6.284, 0, 603.1, 0, 0),  # 0.64 to 1.28
        "fc_layer_reals": Cost(0.4925, 9.38, 0, 196.3, 0, 0),  # 0.99 to 1.02
        "fc_lstm": Cost(3.455, 298.8, 0, 0, 0, 0),  # 0.96 to 1.04
        "fc_max_pool_bytes": Cost(0, 6.599, 23.58, 0, 0, 0),  # 0.84 to 1.16
        "fc_mul_bytes": Cost(0, 4.855, 524.4, 0, 0, 0),  # 0.39 to 1.43
        "fc_quantize": Cost(0, 3.203, 243.4, 0, 0, 0),  # 0.96 to 1.04
        "fc_reduce_mean": Cost(0, 3.145, 0, 0, 0, 0),  # 0.49 to 1.33
        "fc_softmax_bytes": Cost(0, 39.44, 134.2, 0, 0, 0),  # 0.98 to 1.02
        "fc_table_bytes": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.356, 29.99, 66.72, 0, 0),  # 0.91 to 1.19
        "fc_unary_Exp": Cost(0, 8.449, 262.2, 0, 0, 0),  # 0.99 to 1.01
        "fc_unary_Neg": Cost(0, 1.132, 0, 0, 0, 0),  # 0.67 to 1.19
        "fc_unary_Sigmoid": Cost(0, 9.221, 241.3, 0, 0, 0),  # 0.99 to 1.01
    }),
    "dotprod": Costs(0, 0, {
        "fc_add_bytes": Cost(0, 4.67, 1771, 0, 0, 0),  # 0.75 to 1.41
        "fc_average_pool_bytes": Cost(4.407, 9.663, 0, 1926, 0, 0),  # 0.79 to 1.21
        "fc_binary_Add": Cost(0, 1.292, 18.08, 0, 0, 0),  # 0.71 to 1.30
        "fc_binary_Div": Cost(0, 1.283, 31.65, 0, 0, 0),  # 0.94 to 1.01
        "fc_copy_1": Cost(0, 0, 121.6, 0, 0, 0),  # 0.09 to 2.60
        "fc_copy_4": Cost(0, 10, 30.98, 82.59, 0, 0),  # 1.00 to 1.00
        "fc_depthwise_bytes": Cost(0.7319, 5.068, 0, 0, 0, 0),  # 0.59 to 1.35
        "fc_fill_border": Cost(0, 0.2115, 41.6, 128.1, 0, 0),  # 0.90 to 1.09
        "fc_float_layer": Cost(0.7296, 23.33, 0, 0, 0, 0),  # 0.86 to 1.16
        "fc_global_average": Cost(0, 35.74, 31.81, 0, 0, 0),  # 0.68 to 1.38
        "fc_gru": Cost(6.182, 128.6, 0, 1401, 0, 0),  # 0.91 to 1.09
        "fc_layer_bytes": Cost(0.2892, 4.204, 0, 956, 0, 0),  # 0.52 to 1.42
        "fc_layer_reals": Cost(0.4649, 9.08, 0, 187, 0, 0),  # 0.98 to 1.03
        "fc_lstm": Cost(3.455, 298.8, 0, 0, 0, 0),  # 0.96 to 1.04
        "fc_max_pool_bytes": Cost(0, 6.599, 23.58, 0, 0, 0),  # 0.84 to 1.16
        "fc_mul_bytes": Cost(0, 4.855, 524.4, 0, 0, 0),  # 0.39 to 1.43
        "fc_quantize": Cost(0, 3.203, 243.4, 0, 0, 0),  # 0.96 to 1.04
        "fc_reduce_mean": Cost(0, 3.145, 0, 0, 0, 0),  # 0.49 to 1.33
        "fc_softmax_bytes": Cost(0, 39.44, 134.2, 0, 0, 0),  # 0.98 to 1.02
        "fc_table_bytes": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.356, 29.99, 66.72, 0, 0),  # 0.91 to 1.19
        "fc_unary_Exp": Cost(0, 8.449, 262.2, 0, 0, 0),  # 0.99 to 1.01
        "fc_unary_Neg": Cost(0, 1.132, 0, 0, 0, 0),  # 0.67 to 1.19
        "fc_unary_Sigmoid": Cost(0, 9.221, 241.3, 0, 0, 0),  # 0.99 to 1.01
    }),
}
