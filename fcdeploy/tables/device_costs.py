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
        "fc_binary_Add": Cost(0, 104, 183.6, 0, 262, 240),  # 1.00 to 1.00
        "fc_binary_Div": Cost(0, 320.5, 0, 0, 262, 272),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 8.071, 55.17, 16.88, 158, 136),  # 0.65 to 1.32
        "fc_copy_4": Cost(0, 12.08, 42.66, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(23.83, 70.58, 0, 0, 548, 480),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4.004, 41.89, 97.02, 152, 128),  # 0.98 to 1.02
        "fc_float_layer": Cost(145.4, 0, 0, 0, 1032, 440),  # 0.78 to 1.21
        "fc_global_average": Cost(7.007, 195.9, 18.3, 0, 312, 304),  # 0.93 to 1.03
        "fc_gru": Cost(966.8, 7208, 0, 0, 4460, 568),  # 0.89 to 1.12
        "fc_layer_bytes": Cost(7.332, 223.4, 0, 1604, 1224, 696),  # 0.91 to 1.09
        "fc_layer_reals": Cost(7.221, 283.9, 0, 0, 750, 704),  # 0.91 to 1.10
        "fc_lstm": Cost(1014, 13970, 0, 0, 3332, 504),  # 0.95 to 1.06
        "fc_max_pool_bytes": Cost(0, 24.89, 127.1, 0, 418, 208),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 821.8, 0, 0, 250, 224),  # 0.98 to 1.03
        "fc_quantize": Cost(0, 382.9, 0, 0, 182, 224),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 111.1, 321.8, 0, 254, 264),  # 1.00 to 1.00
        "fc_softmax_bytes": Cost(0, 822.5, 0, 0, 276, 224),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 11.02, 95.16, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 8.045, 123.7, 0, 212, 168),  # 0.98 to 1.01
        "fc_take_1": Cost(0, 5.994, 47.34, 66.44, 166, 144),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 2219, 0, 0, 488, 248),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 8.961, 139, 0, 210, 168),  # 0.97 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2632, 0, 0, 516, 264),  # 1.00 to 1.00
    }),
    "dsp": Costs(False, 109, 72, {
        "fc_add_bytes": Cost(0, 55.3, 0, 0, 364, 128),  # 1.00 to 1.00
        "fc_average_pool_bytes": Cost(0, 57.93, 104.8, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 8.965, 150.6, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9.018, 109.4, 0, 254, 148),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 6.155, 57.85, 0, 166, 128),  # 0.65 to 1.57
        "fc_copy_4": Cost(0, 10.09, 30.12, 0, 190, 128),  # 0.98 to 1.02
        "fc_depthwise_bytes": Cost(9.57, 0, 0, 0, 548, 364),  # 0.59 to 1.09
        "fc_fill_border": Cost(0, 2.995, 32.42, 76.07, 152, 128),  # 0.96 to 1.04
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.491, 0, 0, 515.9, 386, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10973, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(1.09, 28.97, 0, 0, 2634, 2144),  # 0.55 to 1.24
        "fc_layer_reals": Cost(1.466, 11.62, 0, 647.5, 0, 2144),  # 0.97 to 1.03
        "fc_lstm": Cost(114.7, 854.3, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.85, 115.7, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.61, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.12, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.047, 20, 95.52, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 58.32, 107.2, 0, 412, 128),  # 0.98 to 1.02
        "fc_table_bytes": Cost(0, 10.99, 86.77, 0, 150, 128),  # 0.99 to 1.01
        "fc_table_reals": Cost(0, 7.018, 98.67, 0, 200, 136),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 4.014, 29.47, 59.45, 178, 128),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 45.23, 0, 0, 488, 152),  # 0.98 to 1.00
        "fc_unary_Neg": Cost(0, 6.997, 104.5, 0, 198, 128),  # 0.98 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.19, 0, 0, 508, 160),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.32, 0, 0, 364, 128),  # 1.00 to 1.01
        "fc_average_pool_bytes": Cost(0, 58.1, 104.7, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 9.032, 107.9, 0, 254, 148),  # 0.99 to 1.02
        "fc_binary_Div": Cost(0, 9.01, 109.4, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 6.015, 58.77, 0, 166, 128),  # 0.63 to 1.59
        "fc_copy_4": Cost(0, 10.07, 30.64, 0, 190, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(10.31, 0, 0, 0, 548, 344),  # 0.62 to 1.08
        "fc_fill_border": Cost(0, 3.001, 31.37, 85.51, 152, 128),  # 0.98 to 1.03
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.532, 0, 0, 501.8, 386, 208),  # 0.88 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10964, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(3.691, 34.66, 122.2, 855, 1208, 616),  # 0.87 to 1.10
        "fc_layer_reals": Cost(3.668, 0, 687.7, 0, 702, 624),  # 0.95 to 1.03
        "fc_lstm": Cost(114.7, 853.3, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.87, 115.6, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.58, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.14, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.024, 21.85, 92.29, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 57.62, 104.8, 0, 412, 128),  # 0.97 to 1.03
        "fc_table_bytes": Cost(0, 11.15, 0, 0, 150, 128),  # 0.97 to 1.01
        "fc_table_reals": Cost(0, 6.96, 142.8, 0, 200, 136),  # 1.00 to 1.01
        "fc_take_1": Cost(0, 3.979, 30.19, 102.1, 178, 128),  # 1.00 to 1.01
        "fc_unary_Exp": Cost(0, 45.21, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 6.977, 103.9, 0, 198, 128),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.19, 0, 0, 508, 160),  # 1.00 to 1.00
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
}
COSTS["dotprod"] = Costs(True, 0, 0, {
    **COSTS["neon"].kernels,
    "fc_depthwise_bytes": Cost(0.7319, 5.068, 0, 0, 0, 0),  # 0.59 to 1.35
    "fc_layer_bytes": Cost(0.2892, 4.204, 0, 956, 0, 0),  # 0.52 to 1.42
    "fc_layer_reals": Cost(0.4649, 9.08, 0, 187, 0, 0),  # 0.98 to 1.03
})
