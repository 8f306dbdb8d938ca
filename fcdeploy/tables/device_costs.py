"""Instructions, code and stack of native kernels, written by scripts/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(False, 111, 1110, {
        "fc_add_bytes": Cost(0, 835.1, 0, 0, 250, 224),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(163.3, 676.7, 0, 0, 468, 336),  # 0.82 to 1.15
        "fc_binary_Add": Cost(0, 104, 184.4, 0, 262, 240),  # 1.00 to 1.00
        "fc_binary_Div": Cost(0, 320.5, 0, 0, 262, 272),  # 0.99 to 1.00
        "fc_copy_1": Cost(0, 8.042, 55.61, 16.65, 158, 136),  # 0.65 to 1.33
        "fc_copy_4": Cost(0, 12.08, 42.69, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(23.78, 79.23, 0, 0, 548, 472),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4, 40.49, 102.8, 152, 128),  # 0.97 to 1.02
        "fc_float_layer": Cost(145.4, 0, 0, 0, 1032, 440),  # 0.78 to 1.21
        "fc_global_average": Cost(6.988, 193.8, 19.05, 0, 312, 304),  # 0.93 to 1.03
        "fc_gru": Cost(966.8, 7208, 0, 0, 4460, 568),  # 0.89 to 1.12
        "fc_layer_bytes": Cost(7.335, 231.4, 0, 1608, 1204, 688),  # 0.92 to 1.09
        "fc_layer_reals": Cost(7.221, 291.3, 0, 0, 736, 696),  # 0.91 to 1.10
        "fc_lstm": Cost(1014, 13970, 0, 0, 3332, 504),  # 0.95 to 1.06
        "fc_max_pool_bytes": Cost(0, 24.85, 127.1, 0, 418, 208),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 821.9, 0, 0, 250, 224),  # 0.97 to 1.03
        "fc_quantize": Cost(0, 382.9, 0, 0, 182, 224),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 111.1, 321.7, 0, 254, 264),  # 1.00 to 1.00
        "fc_softmax_bytes": Cost(0, 822.7, 0, 0, 276, 224),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 11.01, 95.48, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 8.038, 124.2, 0, 212, 168),  # 0.98 to 1.01
        "fc_take_1": Cost(0, 6.017, 44.7, 68.78, 166, 144),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 2219, 0, 0, 488, 248),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 8.981, 145.3, 0, 210, 168),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2632, 0, 0, 516, 264),  # 1.00 to 1.00
    }),
    "dsp": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.29, 0, 0, 364, 128),  # 1.00 to 1.00
        "fc_average_pool_bytes": Cost(0, 58.04, 104.7, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 9.03, 108.2, 0, 254, 148),  # 0.99 to 1.02
        "fc_binary_Div": Cost(0, 9.006, 109.6, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 6.13, 58.04, 0, 166, 128),  # 0.64 to 1.58
        "fc_copy_4": Cost(0, 10.08, 30.64, 0, 190, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(12.86, 0, 0, 0, 548, 352),  # 0.74 to 1.07
        "fc_fill_border": Cost(0, 3.007, 29.42, 93.39, 152, 128),  # 0.97 to 1.04
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.567, 0, 0, 650.1, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10966, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(1.978, 80.96, 0, 0, 1640, 636),  # 0.86 to 1.15
        "fc_layer_reals": Cost(1.729, 0, 828.5, 0, 728, 636),  # 0.96 to 1.04
        "fc_lstm": Cost(114.7, 853.3, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.88, 115.6, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.6, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.14, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 8.035, 20.74, 94.29, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 57.48, 105.6, 0, 412, 128),  # 0.97 to 1.02
        "fc_table_bytes": Cost(0, 10.97, 103.6, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 6.944, 135.5, 0, 200, 136),  # 0.99 to 1.03
        "fc_take_1": Cost(0, 3.979, 29.72, 102.8, 178, 128),  # 1.00 to 1.01
        "fc_unary_Exp": Cost(0, 45.21, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 6.993, 103.1, 0, 198, 128),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.19, 0, 0, 508, 160),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.29, 0, 0, 364, 128),  # 1.00 to 1.00
        "fc_average_pool_bytes": Cost(0, 58.02, 104.7, 0, 652, 260),  # 0.86 to 1.06
        "fc_binary_Add": Cost(0, 9.007, 119, 0, 254, 148),  # 0.98 to 1.01
        "fc_binary_Div": Cost(0, 8.984, 150.7, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 6.068, 58.58, 0, 166, 128),  # 0.64 to 1.59
        "fc_copy_4": Cost(0, 10.09, 30.52, 0, 190, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(12.86, 0, 0, 0, 548, 352),  # 0.74 to 1.07
        "fc_fill_border": Cost(0, 3.015, 31.85, 71.61, 152, 128),  # 0.98 to 1.04
        "fc_float_layer": Cost(18.7, 0, 0, 0, 1200, 324),  # 0.84 to 1.17
        "fc_global_average": Cost(7.541, 0, 0, 657, 468, 208),  # 0.89 to 1.07
        "fc_gru": Cost(124.5, 0, 0, 10980, 4528, 416),  # 0.84 to 1.20
        "fc_layer_bytes": Cost(3.689, 57.94, 118.9, 902.8, 1280, 616),  # 0.90 to 1.08
        "fc_layer_reals": Cost(3.664, 0, 814.9, 0, 706, 624),  # 0.95 to 1.04
        "fc_lstm": Cost(114.7, 853.5, 0, 0, 3180, 368),  # 0.93 to 1.05
        "fc_max_pool_bytes": Cost(0, 21.88, 115.6, 0, 478, 168),  # 0.78 to 1.25
        "fc_mul_bytes": Cost(0, 55.57, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_quantize": Cost(0, 35.14, 0, 0, 280, 128),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 7.971, 23.31, 89.36, 238, 132),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 58.16, 107.1, 0, 412, 128),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 10.98, 101.9, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 7.018, 98.67, 0, 200, 136),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 4.006, 29.52, 60.12, 178, 128),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 45.22, 0, 0, 488, 152),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 7.042, 93.99, 0, 198, 128),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.2, 0, 0, 508, 160),  # 0.99 to 1.00
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
