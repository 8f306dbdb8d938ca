"""Instructions, code and stack of native kernels, written by scripts/devices/device_costs.py: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs

COSTS = {
    "m0": Costs(False, 111, 1110, {
        "fc_add_bytes": Cost(0, 835.1, 0, 0, 250, 224),  # 0.99 to 1.01
        "fc_average_pool_bytes": Cost(201.7, 683.5, 0, 0, 468, 336),  # 0.91 to 1.08
        "fc_binary_Add": Cost(0, 104.5, 0, 0, 262, 240),  # 0.99 to 1.00
        "fc_binary_Div": Cost(0, 320.2, 0, 0, 262, 272),  # 1.00 to 1.00
        "fc_copy_1": Cost(0, 8.15, 50.72, 21.14, 158, 136),  # 0.73 to 1.33
        "fc_copy_4": Cost(0, 12.06, 41.91, 0, 176, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(23.83, 70.58, 0, 0, 548, 480),  # 0.98 to 1.01
        "fc_fill_border": Cost(0, 4.004, 41.89, 97.02, 152, 128),  # 0.98 to 1.02
        "fc_float_layer": Cost(147.3, 0, 0, 0, 1032, 440),  # 0.78 to 1.28
        "fc_global_average": Cost(7.243, 203.3, 16.1, 0, 312, 304),  # 0.96 to 1.05
        "fc_gru": Cost(760.2, 13544, 0, 0, 4460, 576),  # 0.93 to 1.12
        "fc_layer_bytes": Cost(7.332, 223.4, 0, 1604, 1224, 696),  # 0.91 to 1.09
        "fc_layer_reals": Cost(7.221, 283.9, 0, 0, 750, 704),  # 0.91 to 1.10
        "fc_lstm": Cost(896.1, 15064, 0, 0, 3332, 504),  # 0.96 to 1.05
        "fc_max_pool_bytes": Cost(0, 0, 139.7, 0, 418, 208),  # 0.64 to 1.55
        "fc_mul_bytes": Cost(0, 821.8, 0, 0, 250, 224),  # 0.98 to 1.03
        "fc_product_bytes": Cost(10.28, 215.2, 32.65, 0, 480, 328),  # 1.00 to 1.00
        "fc_quantize": Cost(0, 383.3, 0, 0, 182, 224),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 111.5, 309.8, 0, 254, 264),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 817.3, 0, 0, 276, 224),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 10.99, 114, 0, 150, 128),  # 0.99 to 1.00
        "fc_table_reals": Cost(0, 8.007, 130.5, 0, 212, 168),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 5.99, 52.38, 0, 166, 144),  # 0.99 to 1.01
        "fc_unary_Exp": Cost(0, 2217, 0, 0, 488, 248),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 8.997, 129.9, 0, 210, 168),  # 0.98 to 1.02
        "fc_unary_Sigmoid": Cost(0, 2633, 0, 0, 516, 264),  # 1.00 to 1.00
    }),
    "plain": Costs(False, 105, 72, {
        "fc_add_bytes": Cost(0, 55.32, 0, 0, 364, 128),  # 1.00 to 1.01
        "fc_average_pool_bytes": Cost(0, 73.75, 87.52, 0, 652, 260),  # 0.80 to 1.25
        "fc_binary_Add": Cost(0, 9.011, 123, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9.145, 0, 0, 254, 148),  # 0.99 to 1.01
        "fc_copy_1": Cost(0, 6.17, 50.88, 0, 166, 128),  # 0.53 to 1.50
        "fc_copy_4": Cost(0, 10.07, 29.65, 0, 190, 128),  # 0.99 to 1.01
        "fc_depthwise_bytes": Cost(10.31, 0, 0, 0, 548, 344),  # 0.62 to 1.08
        "fc_fill_border": Cost(0, 3.001, 31.37, 85.51, 152, 128),  # 0.98 to 1.03
        "fc_float_layer": Cost(17.44, 187.9, 0, 0, 1200, 324),  # 0.85 to 1.21
        "fc_global_average": Cost(7.288, 0, 0, 1132, 386, 208),  # 0.90 to 1.10
        "fc_gru": Cost(99.69, 1085, 0, 0, 4528, 416),  # 0.83 to 1.09
        "fc_layer_bytes": Cost(3.691, 34.66, 122.2, 855, 1208, 616),  # 0.87 to 1.10
        "fc_layer_reals": Cost(3.668, 0, 687.7, 0, 702, 624),  # 0.95 to 1.03
        "fc_lstm": Cost(116, 792.9, 0, 0, 3180, 368),  # 0.91 to 1.13
        "fc_max_pool_bytes": Cost(0, 0, 126.6, 0, 478, 168),  # 0.64 to 1.56
        "fc_mul_bytes": Cost(0, 55.58, 0, 0, 364, 128),  # 0.99 to 1.01
        "fc_product_bytes": Cost(9.048, 37.65, 12.67, 0, 526, 224),  # 0.98 to 1.03
        "fc_quantize": Cost(0, 35.03, 58.71, 0, 280, 128),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 8.072, 24.34, 0, 238, 132),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 58.11, 98.4, 0, 412, 128),  # 0.98 to 1.01
        "fc_table_bytes": Cost(0, 11.21, 0, 0, 150, 128),  # 0.98 to 1.02
        "fc_table_reals": Cost(0, 6.984, 124.9, 0, 200, 136),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 3.99, 35.67, 0, 178, 128),  # 0.98 to 1.01
        "fc_unary_Exp": Cost(0, 45.31, 0, 0, 488, 152),  # 0.99 to 1.01
        "fc_unary_Neg": Cost(0, 6.974, 106.5, 0, 198, 128),  # 0.98 to 1.03
        "fc_unary_Sigmoid": Cost(0, 48.02, 119, 0, 508, 160),  # 1.00 to 1.00
    }),
    "neon": Costs(True, 0, 0, {
        "fc_add_bytes": Cost(0, 4.629, 1825, 0, 0, 0),  # 0.74 to 1.42
        "fc_average_pool_bytes": Cost(0, 25.79, 46.15, 0, 0, 0),  # 0.78 to 1.19
        "fc_binary_Add": Cost(0, 1.367, 0, 0, 0, 0),  # 0.86 to 1.14
        "fc_binary_Div": Cost(0, 1.329, 0, 0, 0, 0),  # 0.96 to 1.04
        "fc_copy_1": Cost(0, 0.4945, 93.92, 0, 0, 0),  # 0.11 to 2.07
        "fc_copy_4": Cost(0, 10.09, 32.02, 0, 0, 0),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(0.8595, 0, 0, 1614, 0, 0),  # 0.67 to 1.44
        "fc_fill_border": Cost(0, 0.2115, 41.6, 128.1, 0, 0),  # 0.90 to 1.09
        "fc_float_layer": Cost(0.6711, 0, 42.84, 0, 0, 0),  # 0.86 to 1.19
        "fc_global_average": Cost(0, 52.08, 30.73, 0, 0, 0),  # 0.61 to 1.53
        "fc_gru": Cost(0, 287.3, 0, 0, 0, 0),  # 0.89 to 1.12
        "fc_layer_bytes": Cost(0.4214, 5.729, 0, 666.2, 0, 0),  # 0.62 to 1.29
        "fc_layer_reals": Cost(0.4925, 9.373, 0, 222.3, 0, 0),  # 0.99 to 1.02
        "fc_lstm": Cost(3.203, 300.9, 0, 0, 0, 0),  # 0.96 to 1.07
        "fc_max_pool_bytes": Cost(0, 5.838, 25.36, 0, 0, 0),  # 0.74 to 1.35
        "fc_mul_bytes": Cost(0, 4.851, 526.3, 0, 0, 0),  # 0.38 to 1.43
        "fc_product_bytes": Cost(1.912, 30.54, 43.58, 0, 0, 0),  # 0.93 to 1.11
        "fc_quantize": Cost(0, 3.22, 213, 0, 0, 0),  # 0.96 to 1.08
        "fc_reduce_mean": Cost(0, 3.8, 0, 0, 0, 0),  # 0.62 to 1.53
        "fc_softmax_bytes": Cost(0, 38.95, 133.9, 0, 0, 0),  # 0.99 to 1.00
        "fc_table_bytes": Cost(0, 6.623, 146.5, 0, 0, 0),  # 0.96 to 1.11
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.4006, 24.66, 99.24, 0, 0),  # 0.90 to 1.11
        "fc_unary_Exp": Cost(0, 8.495, 205.5, 0, 0, 0),  # 0.99 to 1.01
        "fc_unary_Neg": Cost(0, 1.18, 0, 0, 0, 0),  # 0.77 to 1.22
        "fc_unary_Sigmoid": Cost(0, 9.213, 241.8, 0, 0, 0),  # 0.98 to 1.01
    }),
}
COSTS["dsp"] = Costs(False, 109, 72, {
    **COSTS["plain"].kernels,
    "fc_binary_Add": Cost(0, 8.994, 136.6, 0, 254, 148),  # 0.98 to 1.01
    "fc_copy_1": Cost(0, 6.277, 49.76, 0, 166, 128),  # 0.64 to 1.54
    "fc_depthwise_bytes": Cost(7.017, 0, 0, 0, 1254, 388),  # 0.69 to 1.14
    "fc_fill_border": Cost(0, 3.006, 32.75, 71.34, 152, 128),  # 0.96 to 1.04
    "fc_layer_bytes": Cost(0.8515, 25.15, 38.26, 0, 2932, 2424),  # 0.57 to 1.29
    "fc_layer_reals": Cost(0.9564, 16.66, 0, 764.7, 0, 2424),  # 0.97 to 1.04
    "fc_quantize": Cost(0, 34.97, 95, 0, 280, 128),  # 1.00 to 1.01
    "fc_softmax_bytes": Cost(0, 57.64, 138.3, 0, 412, 128),  # 0.99 to 1.01
    "fc_table_bytes": Cost(0, 10.98, 87.87, 0, 150, 128),  # 0.99 to 1.01
    "fc_unary_Sigmoid": Cost(0, 48.02, 126.3, 0, 508, 160),  # 0.99 to 1.00
})
COSTS["mve"] = Costs(False, 105, 72, {
    **COSTS["plain"].kernels,
    "fc_add_bytes": Cost(0, 45.5, 0, 0, 340, 128),  # 0.98 to 1.01
    "fc_average_pool_bytes": Cost(0.8118, 31.17, 46.19, 0, 624, 288),  # 0.93 to 1.06
    "fc_binary_Add": Cost(0, 8.008, 125, 0, 260, 168),  # 0.99 to 1.01
    "fc_binary_Div": Cost(0, 8.008, 119.9, 0, 260, 168),  # 1.00 to 1.00
    "fc_copy_1": Cost(0, 0, 98.71, 0, 166, 128),  # 0.07 to 2.23
    "fc_copy_4": Cost(0, 9.948, 29.28, 78.47, 190, 128),  # 0.99 to 1.01
    "fc_depthwise_bytes": Cost(2.515, 0, 0, 0, 1046, 408),  # 0.34 to 1.26
    "fc_fill_border": Cost(0, 0.1214, 40.94, 101.1, 152, 128),  # 0.95 to 1.07
    "fc_float_layer": Cost(0.6157, 0, 52.68, 0, 636, 336),  # 0.86 to 1.15
    "fc_global_average": Cost(1.508, 25.97, 13.44, 0, 386, 220),  # 0.87 to 1.10
    "fc_gru": Cost(2.143, 219.6, 0, 0, 2152, 412),  # 0.93 to 1.08
    "fc_layer_bytes": Cost(0.1451, 12.65, 0, 528.7, 1852, 3148),  # 0.43 to 1.29
    "fc_layer_reals": Cost(0.1494, 18.88, 0, 600.8, 0, 1348),  # 0.97 to 1.04
    "fc_lstm": Cost(4.149, 233.7, 0, 0, 1908, 352),  # 0.98 to 1.03
    "fc_max_pool_bytes": Cost(0, 0, 38.9, 0, 416, 200),  # 0.71 to 1.41
    "fc_mul_bytes": Cost(0, 45.38, 0, 0, 340, 128),  # 0.99 to 1.01
    "fc_product_bytes": Cost(2.889, 35.02, 0, 0, 608, 288),  # 0.94 to 1.05
    "fc_quantize": Cost(0, 25.16, 0, 0, 252, 128),  # 0.99 to 1.01
    "fc_reduce_mean": Cost(0, 6.994, 18.5, 123.3, 254, 148),  # 0.99 to 1.01
    "fc_softmax_bytes": Cost(0, 41.42, 84.48, 0, 428, 200),  # 0.99 to 1.01
    "fc_table_bytes": Cost(0, 10.98, 92.42, 0, 150, 128),  # 1.00 to 1.00
    "fc_table_reals": Cost(0, 6.006, 105.9, 0, 200, 152),  # 0.99 to 1.00
    "fc_take_1": Cost(0, 0.2419, 30.94, 67.05, 178, 128),  # 0.97 to 1.02
    "fc_unary_Exp": Cost(0, 36.01, 136.4, 0, 460, 168),  # 1.00 to 1.00
    "fc_unary_Neg": Cost(0, 6.002, 102.7, 0, 198, 144),  # 0.98 to 1.01
    "fc_unary_Sigmoid": Cost(0, 39.01, 131, 0, 472, 168),  # 1.00 to 1.00
})
COSTS["dotprod"] = Costs(True, 0, 0, {
    **COSTS["neon"].kernels,
    "fc_depthwise_bytes": Cost(0.7304, 0, 0, 1523, 0, 0),  # 0.65 to 1.42
    "fc_layer_bytes": Cost(0.2895, 4.132, 0, 937.9, 0, 0),  # 0.62 to 1.39
    "fc_layer_reals": Cost(0.4647, 8.655, 0, 210.9, 0, 0),  # 0.98 to 1.03
})
