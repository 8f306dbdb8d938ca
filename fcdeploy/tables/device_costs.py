"""Instructions, code and stack of native kernels, written by scripts/devices/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(False, 111, 1144, {
        "fc_add_bytes": Cost(0, 797.2, 0, 0, 276, 248),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(201.7, 683.5, 0, 0, 468, 336),  # 0.91 to 1.08
        "fc_binary_Add": Cost(0, 104.5, 0, 0, 262, 240),  # 0.99 to 1.00
        "fc_binary_Div": Cost(0, 320.2, 0, 0, 262, 272),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 8.133, 50.61, 27.33, 158, 136),  # 0.79 to 1.34
        "fc_copy_4": Cost(0, 12.06, 42.07, 0, 176, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(23.81, 70.72, 0, 0, 548, 480),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4.01, 38.61, 114.2, 152, 128),  # 0.97 to 1.03
        "fc_float_layer": Cost(147.3, 0, 0, 0, 1032, 440),  # 0.78 to 1.28
        "fc_global_average": Cost(7.231, 203.5, 16.34, 0, 312, 304),  # 0.96 to 1.05
        "fc_gru": Cost(85.76, 10255, 0, 0, 5968, 1168),  # 0.98 to 1.02
        "fc_layer_bytes": Cost(7.864, 223.1, 0, 1704, 1282, 696),  # 0.91 to 1.09
        "fc_layer_reals": Cost(7.739, 285.4, 0, 0, 770, 704),  # 0.91 to 1.10
        "fc_lstm": Cost(98.61, 15620, 0, 0, 3476, 1152),  # 1.00 to 1.01
        "fc_max_pool_bytes": Cost(0, 0, 139.6, 0, 418, 208),  # 0.64 to 1.55
        "fc_mul_bytes": Cost(0, 784.8, 0, 0, 276, 248),  # 1.00 to 1.00
        "fc_product_bytes": Cost(10.28, 215.2, 32.65, 0, 480, 328),  # 1.00 to 1.00
        "fc_quantize": Cost(0, 384.6, 0, 0, 182, 224),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 111.5, 309.5, 0, 254, 264),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 817.2, 0, 0, 276, 224),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 10.99, 107.7, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 8.014, 129.4, 0, 212, 168),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 6, 50.97, 0, 166, 144),  # 0.99 to 1.01
        "fc_unary_Exp": Cost(0, 2254, 0, 0, 536, 264),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 8.958, 141.4, 0, 210, 168),  # 0.97 to 1.03
        "fc_unary_Sigmoid": Cost(0, 2667, 0, 0, 560, 280),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 106, 72, {
        "fc_add_bytes": Cost(0, 44.41, 0, 0, 392, 128),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(0, 73.75, 87.52, 0, 652, 260),  # 0.80 to 1.25
        "fc_binary_Add": Cost(0, 8.998, 125.4, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9.152, 0, 0, 254, 148),  # 0.99 to 1.01
        "fc_copy_1": Cost(0, 6.271, 50.04, 0, 166, 128),  # 0.52 to 1.54
        "fc_copy_4": Cost(0, 10.05, 29.69, 0, 190, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(10.31, 0, 0, 0, 548, 344),  # 0.62 to 1.08
        "fc_fill_border": Cost(0, 3.005, 29.75, 90.34, 152, 128),  # 0.97 to 1.03
        "fc_float_layer": Cost(17.44, 187.9, 0, 0, 1200, 324),  # 0.85 to 1.21
        "fc_global_average": Cost(7.306, 0, 0, 1125, 386, 208),  # 0.91 to 1.09
        "fc_gru": Cost(34, 539.9, 0, 0, 5808, 1060),  # 0.95 to 1.04
        "fc_layer_bytes": Cost(3.697, 35.6, 124.7, 875.1, 1284, 620),  # 0.87 to 1.11
        "fc_layer_reals": Cost(3.71, 27.46, 0, 641.7, 754, 628),  # 0.97 to 1.02
        "fc_lstm": Cost(54.17, 306.8, 0, 9799, 3344, 1040),  # 0.96 to 1.04
        "fc_max_pool_bytes": Cost(0, 0, 126.6, 0, 478, 168),  # 0.64 to 1.56
        "fc_mul_bytes": Cost(0, 44.29, 37.91, 0, 392, 128),  # 0.97 to 1.01
        "fc_product_bytes": Cost(9.048, 37.65, 12.67, 0, 526, 224),  # 0.98 to 1.03
        "fc_quantize": Cost(0, 34.89, 43.53, 0, 280, 128),  # 0.99 to 1.01
        "fc_reduce_mean": Cost(0, 8.126, 21.08, 0, 238, 132),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 58.11, 98.4, 0, 412, 128),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 11.21, 0, 0, 150, 128),  # 0.98 to 1.02
        "fc_table_reals": Cost(0, 6.973, 125.4, 0, 200, 136),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 3.992, 35.89, 0, 178, 128),  # 0.98 to 1.02
        "fc_unary_Exp": Cost(0, 51.32, 0, 0, 536, 172),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 6.989, 101.3, 0, 198, 128),  # 0.94 to 1.04
        "fc_unary_Sigmoid": Cost(0, 54, 132.1, 0, 548, 172),  # 1.00 to 1.00
    }),
    "neon": Costs(True, 0, 0, {
        "fc_add_bytes": Cost(0, 2.622, 1640, 0, 0, 0),  # 0.70 to 1.52
        "fc_average_pool_bytes": Cost(0, 25.79, 46.15, 0, 0, 0),  # 0.78 to 1.19
        "fc_binary_Add": Cost(0, 1.367, 0, 0, 0, 0),  # 0.86 to 1.14
        "fc_binary_Div": Cost(0, 1.329, 0, 0, 0, 0),  # 0.96 to 1.04
        "fc_copy_1": Cost(0, 0.4945, 93.92, 0, 0, 0),  # 0.11 to 2.07
        "fc_copy_4": Cost(0, 10.09, 32.02, 0, 0, 0),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(0.9924, 0, 0, 653.2, 0, 0),  # 0.79 to 1.17
        "fc_fill_border": Cost(0, 0.2115, 41.6, 128.1, 0, 0),  # 0.90 to 1.09
        "fc_float_layer": Cost(0.699, 9.887, 0, 0, 0, 0),  # 0.88 to 1.06
        "fc_global_average": Cost(0, 52.08, 30.73, 0, 0, 0),  # 0.61 to 1.53
        "fc_gru": Cost(0, 224.8, 726.4, 0, 0, 0),  # 0.78 to 1.34
        "fc_layer_bytes": Cost(0.2789, 8.168, 0, 935.3, 0, 0),  # 0.50 to 1.27
        "fc_layer_reals": Cost(0.3559, 18.24, 0, 290.9, 0, 0),  # 0.98 to 1.04
        "fc_lstm": Cost(0, 203.3, 0, 6416, 0, 0),  # 0.91 to 1.13
        "fc_max_pool_bytes": Cost(0, 0, 8.963, 0, 0, 0),  # 0.24 to 1.58
        "fc_mul_bytes": Cost(0, 3.046, 424, 0, 0, 0),  # 0.32 to 1.42
        "fc_product_bytes": Cost(1.912, 30.54, 43.58, 0, 0, 0),  # 0.93 to 1.11
        "fc_quantize": Cost(0, 7.79, 0, 473.5, 0, 0),  # 0.76 to 1.16
        "fc_reduce_mean": Cost(0, 3.8, 0, 0, 0, 0),  # 0.62 to 1.53
        "fc_softmax_bytes": Cost(0, 38.95, 133.9, 0, 0, 0),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 6.623, 146.5, 0, 0, 0),  # 0.96 to 1.11
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.4006, 24.66, 99.24, 0, 0),  # 0.90 to 1.11
        "fc_unary_Exp": Cost(0, 10.24, 214, 0, 0, 0),  # 0.99 to 1.00
        "fc_unary_Neg": Cost(0, 1.18, 0, 0, 0, 0),  # 0.77 to 1.22
        "fc_unary_Sigmoid": Cost(0, 10.71, 258.3, 0, 0, 0),  # 0.98 to 1.01
    }),
}
COSTS["dsp"] = Costs(False, 107, 72, {
    **COSTS["plain"].kernels,
    "fc_depthwise_bytes": Cost(7.048, 0, 0, 0, 1254, 388),  # 0.68 to 1.14
    "fc_fill_border": Cost(0, 3.011, 44.6, 0, 152, 128),  # 0.95 to 1.06
    "fc_layer_bytes": Cost(0.8512, 24.23, 38.72, 0, 3216, 2408),  # 0.59 to 1.29
    "fc_layer_reals": Cost(0.9751, 15.83, 0, 661.6, 0, 1232),  # 0.97 to 1.04
    "fc_mul_bytes": Cost(0, 44.3, 37.1, 0, 392, 128),  # 0.97 to 1.01
    "fc_reduce_mean": Cost(0, 8.069, 24.26, 0, 238, 132),  # 0.99 to 1.01
    "fc_softmax_bytes": Cost(0, 58.09, 94.27, 0, 412, 128),  # 1.00 to 1.01
    "fc_unary_Neg": Cost(0, 7.042, 95.24, 0, 198, 128),  # 0.97 to 1.04
})
COSTS["mve"] = Costs(False, 105, 72, {
    **COSTS["plain"].kernels,
    "fc_add_bytes": Cost(0, 34.16, 33.94, 0, 360, 144),  # 0.99 to 1.00
    "fc_average_pool_bytes": Cost(0.8135, 31.15, 46.18, 0, 624, 288),  # 0.93 to 1.06
    "fc_binary_Add": Cost(0, 7.996, 136.2, 0, 260, 168),  # 0.99 to 1.00
    "fc_binary_Div": Cost(0, 8.006, 124.3, 0, 260, 168),  # 1.00 to 1.00
    "fc_copy_1": Cost(0, 0, 98.44, 0, 166, 128),  # 0.07 to 2.22
    "fc_copy_4": Cost(0, 10.03, 31.27, 0, 190, 128),  # 0.98 to 1.02
    "fc_depthwise_bytes": Cost(2.515, 0, 0, 0, 1046, 408),  # 0.34 to 1.26
    "fc_fill_border": Cost(0, 0.1153, 42.08, 101.4, 152, 128),  # 0.95 to 1.03
    "fc_float_layer": Cost(0.6156, 0, 52.68, 0, 636, 336),  # 0.86 to 1.15
    "fc_global_average": Cost(1.505, 25.7, 13.68, 0, 386, 220),  # 0.87 to 1.11
    "fc_gru": Cost(5.414, 272.1, 0, 0, 4884, 1080),  # 0.95 to 1.06
    "fc_layer_bytes": Cost(0.1448, 12.78, 0, 573.3, 2146, 3156),  # 0.42 to 1.29
    "fc_layer_reals": Cost(0.1501, 19.37, 0, 592.5, 0, 876),  # 0.97 to 1.04
    "fc_lstm": Cost(8, 313.5, 0, 0, 2622, 1280),  # 0.93 to 1.10
    "fc_max_pool_bytes": Cost(0, 0, 38.78, 0, 416, 200),  # 0.71 to 1.42
    "fc_mul_bytes": Cost(0, 34.52, 0, 0, 360, 144),  # 0.98 to 1.01
    "fc_product_bytes": Cost(2.889, 35.02, 0, 0, 608, 288),  # 0.94 to 1.05
    "fc_quantize": Cost(0, 25.63, 0, 0, 252, 128),  # 0.99 to 1.01
    "fc_reduce_mean": Cost(0, 7.022, 19.69, 88.42, 254, 148),  # 0.99 to 1.01
    "fc_softmax_bytes": Cost(0, 41.26, 85.1, 0, 428, 200),  # 0.99 to 1.01
    "fc_table_bytes": Cost(0, 10.99, 91.4, 0, 150, 128),  # 1.00 to 1.00
    "fc_table_reals": Cost(0, 6.013, 105.2, 0, 200, 152),  # 1.00 to 1.00
    "fc_take_1": Cost(0, 0.2206, 32.31, 73.16, 178, 128),  # 0.98 to 1.02
    "fc_unary_Exp": Cost(0, 47, 145.4, 0, 540, 204),  # 1.00 to 1.00
    "fc_unary_Neg": Cost(0, 6.003, 102.8, 0, 198, 144),  # 0.98 to 1.01
    "fc_unary_Sigmoid": Cost(0, 50.01, 137.1, 0, 552, 204),  # 1.00 to 1.00
})
COSTS["dotprod"] = Costs(True, 0, 0, {
    **COSTS["neon"].kernels,
    "fc_depthwise_bytes": Cost(0.914, 0, 0, 852.9, 0, 0),  # 0.77 to 1.19
    "fc_gru": Cost(4.079, 0, 2089, 0, 0, 0),  # 0.73 to 1.20
    "fc_layer_bytes": Cost(0.09723, 4.123, 0, 1159, 0, 0),  # 0.35 to 1.56
    "fc_layer_reals": Cost(0.1849, 0, 270.6, 209.7, 0, 0),  # 0.99 to 1.02
    "fc_lstm": Cost(0, 113.5, 0, 7822, 0, 0),  # 0.89 to 1.17
})
