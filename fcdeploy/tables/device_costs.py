"""Instructions, code and stack of native kernels, written by scripts/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(False, 111, 1110, {
        "fc_add_bytes": Cost(0, 835.1, 0, 0, 250, 224),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(163.3, 676.6, 0, 0, 468, 336),  # 0.82 to 1.15
        "fc_binary_Add": Cost(0, 104.6, 0, 0, 262, 240),  # 0.98 to 1.00
        "fc_binary_Div": Cost(0, 320.5, 0, 0, 262, 272),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 8.016, 55.72, 20.96, 158, 136),  # 0.68 to 1.33
        "fc_copy_4": Cost(0, 12.1, 42.57, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(23.8, 79.11, 0, 0, 548, 472),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4.002, 42.62, 95.28, 152, 128),  # 0.99 to 1.02
        "fc_float_layer": Cost(145.4, 0, 0, 0, 1032, 440),  # 0.78 to 1.21
        "fc_global_average": Cost(6.978, 193.7, 19.07, 0, 312, 304),  # 0.93 to 1.03
        "fc_gru": Cost(966.8, 7208, 0, 0, 4460, 568),  # 0.89 to 1.12
        "fc_layer_bytes": Cost(7.341, 230.2, 0, 1616, 1208, 1072),  # 0.91 to 1.08
        "fc_layer_reals": Cost(7.22, 291.9, 0, 0, 740, 1080),  # 0.91 to 1.10
        "fc_lstm": Cost(1014, 13969, 0, 0, 3332, 504),  # 0.95 to 1.06
        "fc_max_pool_bytes": Cost(0, 24.84, 127.1, 0, 418, 208),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 821.9, 0, 0, 250, 224),  # 0.97 to 1.03
        "fc_quantize": Cost(0, 382.9, 0, 0, 182, 224),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 110.7, 342.9, 0, 254, 264),  # 1.00 to 1.00
        "fc_softmax_bytes": Cost(0, 823.2, 0, 0, 276, 224),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 10.98, 112, 0, 150, 128),  # 0.99 to 1.01
        "fc_table_reals": Cost(0, 7.965, 154.4, 0, 212, 168),  # 0.99 to 1.02
        "fc_take_1": Cost(0, 6.001, 46.35, 67.16, 166, 144),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 2219, 0, 0, 488, 248),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 8.979, 139.9, 0, 210, 168),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2632, 0, 0, 516, 264),  # 1.00 to 1.00
    }),
    "dsp": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.29, 0, 0, 364, 128),  # 1.00 to 1.00
        "fc_average_pool_bytes": Cost(0, 58.05, 104.7, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 9.03, 108.2, 0, 254, 148),  # 0.99 to 1.02
        "fc_binary_Div": Cost(0, 9.014, 109.2, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 6.081, 58.18, 0, 166, 128),  # 0.64 to 1.58
        "fc_copy_4": Cost(0, 10.07, 30.6, 0, 190, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(12.86, 0, 0, 0, 548, 352),  # 0.74 to 1.07
        "fc_fill_border": Cost(0, 3.016, 29.45, 91.28, 152, 128),  # 0.97 to 1.02
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.567, 0, 0, 650.1, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10980, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(1.98, 80.69, 0, 0, 1642, 1020),  # 0.86 to 1.15
        "fc_layer_reals": Cost(1.73, 0, 827.8, 0, 730, 1020),  # 0.96 to 1.04
        "fc_lstm": Cost(114.7, 853.4, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.88, 115.6, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.6, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.14, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.033, 21.45, 92.92, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 58.1, 107.5, 0, 412, 128),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 10.98, 101.9, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 7.008, 99.45, 0, 200, 136),  # 1.00 to 1.01
        "fc_take_1": Cost(0, 3.977, 31.77, 59.15, 178, 128),  # 0.99 to 1.00
        "fc_unary_Exp": Cost(0, 45.22, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 7.005, 102.1, 0, 198, 128),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.19, 0, 0, 508, 160),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.32, 0, 0, 364, 128),  # 1.00 to 1.01
        "fc_average_pool_bytes": Cost(0, 58.1, 104.7, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 8.965, 150.6, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9.018, 109.4, 0, 254, 148),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 6.148, 57.07, 0, 166, 128),  # 0.65 to 1.56
        "fc_copy_4": Cost(0, 10.08, 30.26, 0, 190, 128),  # 0.97 to 1.02
        "fc_depthwise_bytes": Cost(12.86, 0, 0, 0, 548, 352),  # 0.74 to 1.07
        "fc_fill_border": Cost(0, 3.013, 28.79, 94.19, 152, 128),  # 0.98 to 1.02
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.559, 0, 0, 643, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10980, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(3.694, 58.07, 113.5, 913.5, 1282, 1000),  # 0.90 to 1.09
        "fc_layer_reals": Cost(3.704, 35.2, 0, 637.9, 708, 1008),  # 0.97 to 1.02
        "fc_lstm": Cost(114.7, 854.2, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.87, 115.6, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.58, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.14, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.037, 20.46, 94.82, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 57.82, 103.8, 0, 412, 128),  # 0.97 to 1.03
        "fc_table_bytes": Cost(0, 11.15, 0, 0, 150, 128),  # 0.97 to 1.01
        "fc_table_reals": Cost(0, 6.96, 142.8, 0, 200, 136),  # 1.00 to 1.01
        "fc_take_1": Cost(0, 3.998, 29.81, 60.59, 178, 128),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 45.2, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 6.939, 119.3, 0, 198, 128),  # 0.97 to 1.04
        "fc_unary_Sigmoid": Cost(0, 48.2, 0, 0, 508, 160),  # 1.00 to 1.00
    }),
    "neon": Costs(True, 0, 0, {
        "fc_add_bytes": Cost(0, 4.629, 1825, 0, 0, 0),  # 0.74 to 1.42
        "fc_average_pool_bytes": Cost(4.296, 9.625, 0, 1955, 0, 0),  # 0.79 to 1.22
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
        "fc_mul_bytes": Cost(0, 4.851, 526.3, 0, 0, 0),  # 0.38 to 1.43
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
    "dotprod": Costs(True, 0, 0, {
        "fc_add_bytes": Cost(0, 4.629, 1825, 0, 0, 0),  # 0.74 to 1.42
        "fc_average_pool_bytes": Cost(4.296, 9.625, 0, 1955, 0, 0),  # 0.79 to 1.22
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
        "fc_mul_bytes": Cost(0, 4.851, 526.3, 0, 0, 0),  # 0.38 to 1.43
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
