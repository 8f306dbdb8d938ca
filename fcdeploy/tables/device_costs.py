"""Instructions, code and stack of native kernels, written by scripts/devices/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(False, 112, 1280, {
        "fc_add_bytes": Cost(0, 791.7, 0, 0, 356, 416),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(202.1, 683, 0, 0, 540, 336),  # 0.91 to 1.08
        "fc_binary_Add": Cost(0, 104.4, 0, 0, 262, 240),  # 0.99 to 1.00
        "fc_binary_Div": Cost(0, 320.2, 0, 0, 262, 272),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 8.126, 50.58, 28.74, 158, 136),  # 0.80 to 1.34
        "fc_copy_4": Cost(0, 12.08, 41.97, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(23.81, 70.72, 0, 0, 548, 488),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4.013, 38.53, 114, 152, 128),  # 0.97 to 1.03
        "fc_float_layer": Cost(147.2, 0, 0, 0, 1032, 432),  # 0.78 to 1.28
        "fc_global_average": Cost(7.217, 203.5, 16.56, 0, 312, 304),  # 0.96 to 1.05
        "fc_gru": Cost(64.84, 10729, 0, 0, 5968, 1168),  # 0.98 to 1.02
        "fc_layer_bytes": Cost(7.865, 223.1, 0, 1709, 1284, 696),  # 0.91 to 1.09
        "fc_layer_reals": Cost(7.741, 284.6, 0, 0, 772, 712),  # 0.91 to 1.10
        "fc_lstm": Cost(88.55, 15732, 0, 0, 3476, 1152),  # 0.98 to 1.02
        "fc_max_pool_bytes": Cost(0, 0, 139.7, 0, 418, 208),  # 0.64 to 1.55
        "fc_mul_bytes": Cost(0, 781.5, 0, 0, 356, 416),  # 0.99 to 1.01
        "fc_product_bytes": Cost(10.28, 215.2, 32.67, 0, 480, 328),  # 1.00 to 1.00
        "fc_quantize": Cost(0, 384.6, 0, 0, 182, 224),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 111.5, 309, 0, 254, 264),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 817.8, 0, 0, 276, 224),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 10.99, 122.6, 0, 150, 128),  # 0.99 to 1.01
        "fc_table_reals": Cost(0, 8.007, 142.9, 0, 212, 168),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 5.93, 55.82, 0, 166, 144),  # 0.99 to 1.01
        "fc_unary_Exp": Cost(0, 2297, 0, 0, 544, 264),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 9.049, 126.8, 0, 210, 168),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2712, 0, 0, 568, 280),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 107, 72, {
        "fc_add_bytes": Cost(0, 39.39, 0, 0, 456, 200),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(0, 74.57, 87.59, 0, 720, 260),  # 0.78 to 1.27
        "fc_binary_Add": Cost(0, 8.998, 125.4, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9.151, 0, 0, 254, 148),  # 0.99 to 1.01
        "fc_copy_1": Cost(0, 6.178, 50.53, 0, 166, 128),  # 0.52 to 1.52
        "fc_copy_4": Cost(0, 10.05, 29.93, 0, 190, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(10.32, 0, 0, 0, 556, 344),  # 0.62 to 1.08
        "fc_fill_border": Cost(0, 2.987, 32.18, 84.47, 152, 128),  # 0.96 to 1.04
        "fc_float_layer": Cost(17.53, 185.3, 0, 0, 1210, 304),  # 0.85 to 1.21
        "fc_global_average": Cost(7.275, 0, 0, 1156, 386, 208),  # 0.91 to 1.11
        "fc_gru": Cost(31.78, 605, 0, 0, 5808, 1060),  # 0.96 to 1.03
        "fc_layer_bytes": Cost(3.698, 35.61, 124.5, 878.5, 1288, 620),  # 0.87 to 1.11
        "fc_layer_reals": Cost(3.711, 28.1, 0, 594.8, 758, 628),  # 0.97 to 1.02
        "fc_lstm": Cost(44.26, 641.7, 0, 0, 3344, 1040),  # 0.94 to 1.09
        "fc_max_pool_bytes": Cost(0, 0, 126.6, 0, 478, 168),  # 0.64 to 1.56
        "fc_mul_bytes": Cost(0, 39.32, 0, 136.2, 456, 200),  # 0.99 to 1.01
        "fc_product_bytes": Cost(9.051, 37.55, 12.67, 0, 526, 224),  # 0.99 to 1.03
        "fc_quantize": Cost(0, 34.88, 43.59, 0, 280, 128),  # 0.99 to 1.01
        "fc_reduce_mean": Cost(0, 8.135, 20.72, 0, 238, 132),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 58.05, 94.68, 0, 412, 128),  # 1.00 to 1.01
        "fc_table_bytes": Cost(0, 10.98, 87.87, 0, 150, 128),  # 0.99 to 1.01
        "fc_table_reals": Cost(0, 6.984, 124.9, 0, 200, 136),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 3.913, 40.43, 0, 178, 128),  # 0.99 to 1.02
        "fc_unary_Exp": Cost(0, 56.32, 0, 0, 552, 188),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 7.059, 87.71, 0, 198, 128),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 57.99, 148.6, 0, 572, 196),  # 1.00 to 1.00
    }),
    "neon": Costs(True, 0, 0, {
        "fc_add_bytes": Cost(0, 2.453, 1544, 0, 0, 0),  # 0.68 to 1.59
        "fc_average_pool_bytes": Cost(0, 25.71, 45.23, 0, 0, 0),  # 0.78 to 1.20
        "fc_binary_Add": Cost(0, 1.367, 0, 0, 0, 0),  # 0.86 to 1.14
        "fc_binary_Div": Cost(0, 1.329, 0, 0, 0, 0),  # 0.96 to 1.04
        "fc_copy_1": Cost(0, 0.4945, 93.92, 0, 0, 0),  # 0.11 to 2.07
        "fc_copy_4": Cost(0, 10.09, 32.02, 0, 0, 0),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(0.9972, 0, 0, 651.1, 0, 0),  # 0.80 to 1.17
        "fc_fill_border": Cost(0, 0.2115, 41.6, 128.1, 0, 0),  # 0.90 to 1.09
        "fc_float_layer": Cost(0.5697, 0, 27.14, 0, 0, 0),  # 0.76 to 1.19
        "fc_global_average": Cost(0, 52.08, 30.73, 0, 0, 0),  # 0.61 to 1.53
        "fc_gru": Cost(0, 222.7, 0, 3721, 0, 0),  # 0.80 to 1.20
        "fc_layer_bytes": Cost(0.2789, 8.173, 0, 946.6, 0, 0),  # 0.50 to 1.27
        "fc_layer_reals": Cost(0.3559, 18.24, 0, 296.9, 0, 0),  # 0.98 to 1.04
        "fc_lstm": Cost(9.021, 0, 1954, 0, 0, 0),  # 0.76 to 1.26
        "fc_max_pool_bytes": Cost(0, 0, 8.963, 0, 0, 0),  # 0.24 to 1.58
        "fc_mul_bytes": Cost(0, 2.914, 524.7, 0, 0, 0),  # 0.38 to 1.41
        "fc_product_bytes": Cost(1.912, 30.54, 43.58, 0, 0, 0),  # 0.93 to 1.11
        "fc_quantize": Cost(0, 7.866, 0, 494.2, 0, 0),  # 0.76 to 1.16
        "fc_reduce_mean": Cost(0, 3.8, 0, 0, 0, 0),  # 0.62 to 1.53
        "fc_softmax_bytes": Cost(0, 38.95, 133.9, 0, 0, 0),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 6.623, 146.5, 0, 0, 0),  # 0.96 to 1.11
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.4006, 24.66, 99.24, 0, 0),  # 0.90 to 1.11
        "fc_unary_Exp": Cost(0, 10.74, 234.1, 0, 0, 0),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 1.18, 0, 0, 0, 0),  # 0.77 to 1.22
        "fc_unary_Sigmoid": Cost(0, 11.21, 291.3, 0, 0, 0),  # 0.98 to 1.01
    }),
}
COSTS["dsp"] = Costs(False, 107, 72, {
    **COSTS["plain"].kernels,
    "fc_binary_Add": Cost(0, 8.991, 131, 0, 254, 148),  # 0.99 to 1.01
    "fc_depthwise_bytes": Cost(7.057, 0, 0, 0, 1262, 388),  # 0.69 to 1.14
    "fc_fill_border": Cost(0, 3.011, 29.05, 95.23, 152, 128),  # 0.97 to 1.03
    "fc_layer_bytes": Cost(0.7843, 25.95, 58.88, 0, 3180, 2400),  # 0.69 to 1.32
    "fc_layer_reals": Cost(0.8658, 11.47, 0, 585.6, 72, 1168),  # 0.97 to 1.05
    "fc_mul_bytes": Cost(0, 39.25, 0, 154.5, 456, 200),  # 0.99 to 1.01
    "fc_reduce_mean": Cost(0, 8.084, 24.05, 0, 238, 132),  # 0.99 to 1.01
    "fc_table_bytes": Cost(0, 11.2, 0, 0, 150, 128),  # 0.98 to 1.02
    "fc_table_reals": Cost(0, 7.037, 90.15, 0, 200, 136),  # 0.98 to 1.01
    "fc_take_1": Cost(0, 3.992, 35.89, 0, 178, 128),  # 0.98 to 1.02
    "fc_unary_Neg": Cost(0, 7.032, 99.05, 0, 198, 128),  # 0.97 to 1.04
})
COSTS["mve"] = Costs(False, 104, 72, {
    **COSTS["plain"].kernels,
    "fc_add_bytes": Cost(0, 27.98, 25.96, 145.8, 432, 216),  # 1.00 to 1.00
    "fc_average_pool_bytes": Cost(0, 32.87, 52.62, 0, 768, 288),  # 0.91 to 1.08
    "fc_binary_Add": Cost(0, 8.013, 128.6, 0, 260, 168),  # 0.99 to 1.01
    "fc_binary_Div": Cost(0, 8.008, 119.9, 0, 260, 168),  # 1.00 to 1.00
    "fc_copy_1": Cost(0, 0, 98.62, 0, 166, 128),  # 0.07 to 2.23
    "fc_copy_4": Cost(0, 10.05, 30.98, 0, 190, 128),  # 0.98 to 1.01
    "fc_depthwise_bytes": Cost(2.513, 0, 0, 0, 1050, 408),  # 0.34 to 1.26
    "fc_fill_border": Cost(0, 0.1253, 42.42, 88.85, 152, 128),  # 0.92 to 1.07
    "fc_float_layer": Cost(0.6162, 0, 45.67, 0, 572, 312),  # 0.86 to 1.16
    "fc_global_average": Cost(1.508, 25.97, 13.44, 0, 386, 220),  # 0.87 to 1.10
    "fc_gru": Cost(10.79, 91.33, 1190, 0, 4884, 1080),  # 0.94 to 1.06
    "fc_layer_bytes": Cost(0.132, 0, 72.09, 619.8, 2434, 3180),  # 0.41 to 1.56
    "fc_layer_reals": Cost(0.1498, 18.92, 0, 502.9, 72, 756),  # 0.97 to 1.04
    "fc_lstm": Cost(9.94, 262.9, 0, 0, 2622, 1280),  # 0.94 to 1.06
    "fc_max_pool_bytes": Cost(0, 0, 38.87, 0, 416, 200),  # 0.71 to 1.41
    "fc_mul_bytes": Cost(0, 28.52, 0, 0, 432, 216),  # 0.98 to 1.01
    "fc_product_bytes": Cost(2.888, 35.04, 0, 0, 608, 288),  # 0.94 to 1.05
    "fc_quantize": Cost(0, 25.63, 0, 0, 252, 128),  # 0.99 to 1.01
    "fc_reduce_mean": Cost(0, 6.961, 20.67, 105.6, 254, 148),  # 0.97 to 1.03
    "fc_softmax_bytes": Cost(0, 41.42, 84.48, 0, 428, 200),  # 0.99 to 1.01
    "fc_table_bytes": Cost(0, 10.98, 92.52, 0, 150, 128),  # 1.00 to 1.00
    "fc_table_reals": Cost(0, 6.01, 108, 0, 200, 152),  # 0.99 to 1.00
    "fc_take_1": Cost(0, 0.2681, 30.4, 59.58, 178, 128),  # 0.95 to 1.03
    "fc_unary_Exp": Cost(0, 49.4, 0, 0, 548, 204),  # 0.98 to 1.01
    "fc_unary_Neg": Cost(0, 5.994, 101.2, 0, 198, 144),  # 0.99 to 1.01
    "fc_unary_Sigmoid": Cost(0, 52.31, 0, 0, 572, 212),  # 0.98 to 1.00
})
COSTS["dotprod"] = Costs(True, 0, 0, {
    **COSTS["neon"].kernels,
    "fc_depthwise_bytes": Cost(0.9158, 0, 0, 862.8, 0, 0),  # 0.76 to 1.19
    "fc_gru": Cost(0, 120.9, 623, 2298, 0, 0),  # 0.85 to 1.16
    "fc_layer_bytes": Cost(0.09731, 4.1, 0, 1171, 0, 0),  # 0.35 to 1.56
    "fc_layer_reals": Cost(0.1849, 0, 272.4, 213.8, 0, 0),  # 0.99 to 1.02
    "fc_lstm": Cost(4.668, 0, 1622, 0, 0, 0),  # 0.80 to 1.21
})
