"""Instructions, code and stack of native kernels, written by scripts/device-costs: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs, Widths

COSTS = {
    "m0": Costs(Widths(positions=1, channels=4, alone=4, bytes=4, depthwise=1, again=False), 110, 1306, {
        "fc_add_bytes": Cost(0, 793.8, 0, 0, 0, 356, 416),  # 0.96 to 1.02
        "fc_average_pool_bytes": Cost(268.5, 574.9, 0, 700.7, 0, 540, 336),  # 0.97 to 1.02
        "fc_binary_Add": Cost(0, 104.1, 135, 0, 0, 262, 240),  # 1.00 to 1.00
        "fc_binary_Div": Cost(0, 320.2, 0, 0, 0, 262, 272),  # 1.00 to 1.00
        "fc_copy_1": Cost(6.022, 9.954, 35.47, 0, 74.93, 158, 136),  # 0.85 to 1.11
        "fc_copy_4": Cost(0, 12.08, 42.33, 0, 0, 176, 128),  # 0.98 to 1.01
        "fc_depthwise_bytes": Cost(23.43, 67.35, 0, 95.81, 0, 548, 488),  # 0.97 to 1.03
        "fc_fill_border": Cost(0, 3.997, 19.23, 0, 119, 196, 176),  # 0.96 to 1.04
        "fc_float_layer": Cost(141.5, 0, 0, 0, 0, 1032, 432),  # 0.81 to 1.20
        "fc_global_average": Cost(7.812, 218, 0, 0, 0, 312, 304),  # 0.95 to 1.02
        "fc_gru": Cost(72.23, 10624, 0, 0, 0, 6040, 1176),  # 0.99 to 1.02
        "fc_layer_bytes": Cost(7.586, 203.6, 36.1, 126.7, 0, 1276, 704),  # 0.98 to 1.01
        "fc_layer_reals": Cost(7.39, 292.8, 0, 0, 0, 778, 720),  # 0.95 to 1.10
        "fc_lstm": Cost(93.68, 15706, 0, 0, 0, 3476, 1152),  # 0.98 to 1.02
        "fc_max_pool_bytes": Cost(11.03, 5.914, 19.87, 162.9, 0, 418, 208),  # 0.99 to 1.02
        "fc_mul_bytes": Cost(0, 779.9, 0, 0, 0, 356, 416),  # 0.99 to 1.01
        "fc_product_bytes": Cost(10.11, 213.7, 37.7, 0, 0, 480, 328),  # 0.99 to 1.03
        "fc_quantize": Cost(0, 383.7, 0, 0, 0, 182, 224),  # 0.99 to 1.00
        "fc_reduce_mean": Cost(0, 111.7, 297, 0, 0, 254, 264),  # 0.99 to 1.01
        "fc_softmax_bytes": Cost(0, 815.4, 123.5, 0, 0, 276, 224),  # 1.00 to 1.00
        "fc_table_bytes": Cost(0, 11.2, 0, 0, 0, 150, 128),  # 0.98 to 1.01
        "fc_table_reals": Cost(0, 7.998, 135.1, 0, 0, 212, 168),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 5.991, 45.49, 0, 95.04, 166, 144),  # 1.00 to 1.00
        "fc_unary_Exp": Cost(0, 2300, 0, 0, 0, 544, 264),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 9.046, 119.9, 0, 0, 210, 168),  # 0.97 to 1.01
        "fc_unary_Sigmoid": Cost(0, 2710, 0, 0, 0, 568, 280),  # 1.00 to 1.00
    }),
    "plain": Costs(Widths(positions=1, channels=4, alone=4, bytes=4, depthwise=1, again=False), 105, 72, {
        "fc_add_bytes": Cost(0, 39.19, 0, 0, 144.5, 456, 200),  # 0.99 to 1.00
        "fc_average_pool_bytes": Cost(17, 0, 0, 509.6, 0, 720, 260),  # 0.89 to 1.12
        "fc_binary_Add": Cost(0, 9.037, 115, 0, 0, 254, 148),  # 0.99 to 1.01
        "fc_binary_Div": Cost(0, 9, 116.3, 0, 0, 254, 148),  # 1.00 to 1.00
        "fc_copy_1": Cost(3.996, 9.976, 23.55, 0, 61.67, 166, 128),  # 0.83 to 1.16
        "fc_copy_4": Cost(0, 10.07, 30.22, 0, 0, 190, 128),  # 0.97 to 1.01
        "fc_depthwise_bytes": Cost(0, 0, 31.88, 0, 0, 556, 344),  # 0.76 to 1.12
        "fc_fill_border": Cost(0, 3.007, 14.64, 0, 86.38, 186, 136),  # 0.96 to 1.04
        "fc_float_layer": Cost(18.7, 0, 0, 0, 0, 1210, 304),  # 0.81 to 1.24
        "fc_global_average": Cost(7.155, 53.29, 0, 0, 0, 386, 208),  # 0.94 to 1.08
        "fc_gru": Cost(32.99, 580, 0, 0, 0, 5940, 1064),  # 0.94 to 1.06
        "fc_layer_bytes": Cost(3.579, 36.75, 34.68, 98.49, 0, 1304, 636),  # 0.95 to 1.03
        "fc_layer_reals": Cost(3.609, 50.8, 0, 0, 0, 766, 644),  # 0.97 to 1.02
        "fc_lstm": Cost(46.76, 577.3, 0, 0, 0, 3344, 1040),  # 0.94 to 1.04
        "fc_max_pool_bytes": Cost(11.2, 0, 0, 200.2, 306.9, 478, 168),  # 0.98 to 1.03
        "fc_mul_bytes": Cost(0, 39.2, 51.89, 0, 0, 456, 200),  # 0.99 to 1.02
        "fc_product_bytes": Cost(9.098, 39.79, 0, 0, 0, 526, 224),  # 0.98 to 1.02
        "fc_quantize": Cost(0, 34.98, 35.61, 0, 0, 280, 128),  # 1.00 to 1.00
        "fc_reduce_mean": Cost(0, 8.019, 21.91, 0, 92.62, 238, 132),  # 0.99 to 1.00
        "fc_softmax_bytes": Cost(0, 58.01, 109.7, 0, 0, 412, 128),  # 1.00 to 1.00
        "fc_table_bytes": Cost(0, 10.98, 91.7, 0, 0, 150, 128),  # 1.00 to 1.00
        "fc_table_reals": Cost(0, 7.008, 103.3, 0, 0, 200, 136),  # 0.99 to 1.01
        "fc_take_1": Cost(0, 4.061, 31.8, 0, 0, 178, 128),  # 0.97 to 1.01
        "fc_unary_Exp": Cost(0, 56.01, 127.4, 0, 0, 552, 188),  # 1.00 to 1.00
        "fc_unary_Neg": Cost(0, 6.992, 104.5, 0, 0, 198, 128),  # 0.97 to 1.02
        "fc_unary_Sigmoid": Cost(0, 58.7, 0, 0, 0, 572, 196),  # 0.99 to 1.01
    }),
    "neon": Costs(None, 0, 0, {
        "fc_add_bytes": Cost(0, 3.237, 545.2, 0, 0, 0, 0),  # 0.33 to 1.38
        "fc_average_pool_bytes": Cost(2.509, 0, 50.84, 0, 0, 0, 0),  # 0.70 to 1.29
        "fc_binary_Add": Cost(0, 1.275, 55.24, 0, 0, 0, 0),  # 0.93 to 1.02
        "fc_binary_Div": Cost(0, 1.249, 71.14, 0, 0, 0, 0),  # 0.98 to 1.03
        "fc_copy_1": Cost(0.2557, 9.914, 26.12, 0, 92.25, 0, 0),  # 0.78 to 1.04
        "fc_copy_4": Cost(0, 10, 30.99, 0, 82.18, 0, 0),  # 1.00 to 1.00
        "fc_depthwise_bytes": Cost(0.9565, 0, 0, 0, 883, 0, 0),  # 0.76 to 1.19
        "fc_fill_border": Cost(0, 0.1712, 18.92, 0, 166.5, 0, 0),  # 0.83 to 1.18
        "fc_float_layer": Cost(0.6479, 12.44, 0, 0, 0, 0, 0),  # 0.88 to 1.11
        "fc_global_average": Cost(1.726, 0, 0, 0, 1058, 0, 0),  # 0.60 to 1.41
        "fc_gru": Cost(6.79, 0, 2181, 0, 0, 0, 0),  # 0.81 to 1.09
        "fc_layer_bytes": Cost(0.323, 0, 0, 116, 896.9, 0, 0),  # 0.78 to 1.22
        "fc_layer_reals": Cost(0.3511, 0, 283.5, 244.1, 0, 0, 0),  # 0.94 to 1.04
        "fc_lstm": Cost(0, 212.3, 1010, 0, 0, 0, 0),  # 0.79 to 1.19
        "fc_max_pool_bytes": Cost(0, 0, 17.36, 0, 0, 0, 0),  # 0.36 to 1.47
        "fc_mul_bytes": Cost(0, 2.723, 839.3, 0, 0, 0, 0),  # 0.29 to 1.27
        "fc_product_bytes": Cost(1.465, 36.61, 50.05, 0, 0, 0, 0),  # 0.92 to 1.21
        "fc_quantize": Cost(0, 6.994, 174.9, 0, 0, 0, 0),  # 0.91 to 1.13
        "fc_reduce_mean": Cost(0, 3.43, 0, 0, 0, 0, 0),  # 0.52 to 1.35
        "fc_softmax_bytes": Cost(0, 38.98, 141.1, 0, 0, 0, 0),  # 0.99 to 1.01
        "fc_table_bytes": Cost(0, 7.17, 0, 0, 0, 0, 0),  # 0.89 to 1.02
        "fc_table_reals": Cost(0, 7, 48, 0, 0, 0, 0),  # 1.00 to 1.00
        "fc_take_1": Cost(0, 0.3194, 33.5, 0, 71.59, 0, 0),  # 0.94 to 1.09
        "fc_unary_Exp": Cost(0, 10.8, 221.8, 0, 0, 0, 0),  # 0.98 to 1.00
        "fc_unary_Neg": Cost(0, 1.04, 36.48, 0, 0, 0, 0),  # 0.81 to 1.31
        "fc_unary_Sigmoid": Cost(0, 11.28, 257.3, 0, 0, 0, 0),  # 0.95 to 1.02
    }),
}
COSTS["dsp"] = Costs(Widths(positions=3, channels=2, alone=4, bytes=4, depthwise=4, again=True), 105, 72, {
    **COSTS["plain"].kernels,
    "fc_add_bytes": Cost(0, 39.12, 0, 0, 186.3, 456, 200),  # 0.99 to 1.00
    "fc_binary_Add": Cost(0, 8.946, 156.6, 0, 0, 254, 148),  # 1.00 to 1.00
    "fc_binary_Div": Cost(0, 9.009, 118.8, 0, 0, 254, 148),  # 0.99 to 1.00
    "fc_copy_1": Cost(4.095, 9.989, 23.7, 0, 54.46, 166, 128),  # 0.88 to 1.13
    "fc_copy_4": Cost(0, 10.01, 29.04, 0, 57.85, 190, 128),  # 0.99 to 1.00
    "fc_depthwise_bytes": Cost(5.699, 0, 0, 88.14, 0, 1262, 388),  # 0.94 to 1.06
    "fc_fill_border": Cost(0, 2.977, 14.21, 0, 103.8, 186, 136),  # 0.94 to 1.05
    "fc_layer_bytes": Cost(0.801, 16.35, 99.36, 457.4, 0, 3180, 2400),  # 0.83 to 1.08
    "fc_layer_reals": Cost(0.8327, 16.71, 531.6, 0, 0, 72, 1168),  # 0.89 to 1.05
    "fc_max_pool_bytes": Cost(11.21, 0, 0, 199.6, 300.3, 478, 168),  # 0.97 to 1.03
    "fc_mul_bytes": Cost(0, 39.12, 64.26, 0, 0, 456, 200),  # 0.99 to 1.02
    "fc_reduce_mean": Cost(0, 7.965, 20.64, 0, 129.4, 238, 132),  # 0.99 to 1.02
    "fc_table_bytes": Cost(0, 11.14, 0, 0, 0, 150, 128),  # 0.99 to 1.01
    "fc_table_reals": Cost(0, 7.027, 94.5, 0, 0, 200, 136),  # 0.99 to 1.00
    "fc_take_1": Cost(0, 4.003, 30.79, 0, 44.63, 178, 128),  # 1.00 to 1.00
    "fc_unary_Neg": Cost(0, 7.032, 95.05, 0, 0, 198, 128),  # 0.96 to 1.03
})
COSTS["mve"] = Costs(Widths(positions=3, channels=2, alone=4, bytes=16, depthwise=8, again=False), 106, 72, {
    **COSTS["plain"].kernels,
    "fc_add_bytes": Cost(0, 28.12, 0, 0, 181.3, 432, 216),  # 0.99 to 1.01
    "fc_average_pool_bytes": Cost(6.008, 0, 0, 386.7, 0, 768, 288),  # 0.96 to 1.04
    "fc_binary_Add": Cost(0, 7.998, 120.3, 0, 0, 260, 168),  # 1.00 to 1.00
    "fc_binary_Div": Cost(0, 7.989, 132.4, 0, 0, 260, 168),  # 1.00 to 1.00
    "fc_copy_1": Cost(0.1805, 9.943, 24.22, 0, 63.39, 166, 128),  # 0.74 to 1.14
    "fc_depthwise_bytes": Cost(1.7, 0, 0, 28.97, 338.1, 1050, 408),  # 0.95 to 1.08
    "fc_fill_border": Cost(0, 0.1254, 20.3, 0, 87.06, 186, 160),  # 0.91 to 1.08
    "fc_float_layer": Cost(0.7165, 30.63, 0, 0, 0, 572, 312),  # 0.96 to 1.04
    "fc_global_average": Cost(1.63, 67.09, 0, 0, 0, 386, 220),  # 0.91 to 1.06
    "fc_gru": Cost(7.363, 224.9, 0, 0, 0, 4978, 1080),  # 0.93 to 1.03
    "fc_layer_bytes": Cost(0.1455, 5.787, 92.14, 394.4, 0, 2434, 3180),  # 0.89 to 1.10
    "fc_layer_reals": Cost(0.1651, 14.78, 389.1, 0, 0, 72, 756),  # 0.96 to 1.02
    "fc_lstm": Cost(9.646, 267.3, 0, 0, 0, 2622, 1280),  # 0.96 to 1.03
    "fc_max_pool_bytes": Cost(1.689, 0, 10.32, 83.88, 0, 416, 200),  # 0.95 to 1.03
    "fc_mul_bytes": Cost(0, 28.19, 29.68, 0, 0, 432, 216),  # 0.99 to 1.01
    "fc_product_bytes": Cost(1.991, 37.77, 26.08, 0, 0, 608, 288),  # 0.94 to 1.04
    "fc_quantize": Cost(0, 25.07, 30.9, 0, 0, 252, 128),  # 1.00 to 1.00
    "fc_reduce_mean": Cost(0, 6.998, 23.77, 0, 0, 254, 148),  # 1.00 to 1.00
    "fc_softmax_bytes": Cost(0, 41.15, 90.19, 0, 0, 428, 200),  # 0.99 to 1.00
    "fc_table_bytes": Cost(0, 11.14, 0, 0, 0, 150, 128),  # 0.99 to 1.01
    "fc_table_reals": Cost(0, 6.011, 106.3, 0, 0, 200, 152),  # 0.99 to 1.00
    "fc_take_1": Cost(0, 0.1654, 35.1, 0, 87.94, 178, 128),  # 0.98 to 1.02
    "fc_unary_Exp": Cost(0, 49.57, 0, 0, 0, 548, 204),  # 0.98 to 1.01
    "fc_unary_Neg": Cost(0, 6.299, 0, 0, 0, 198, 144),  # 0.97 to 1.03
    "fc_unary_Sigmoid": Cost(0, 51.96, 166.8, 0, 0, 572, 212),  # 1.00 to 1.00
})
COSTS["dotprod"] = Costs(None, 0, 0, {
    **COSTS["neon"].kernels,
    "fc_depthwise_bytes": Cost(0.883, 0, 0, 0, 915.9, 0, 0),  # 0.74 to 1.24
    "fc_gru": Cost(0, 121.6, 1170, 0, 0, 0, 0),  # 0.89 to 1.11
    "fc_layer_bytes": Cost(0.1163, 0, 0, 51.29, 1323, 0, 0),  # 0.59 to 1.55
    "fc_layer_reals": Cost(0.186, 0, 266.2, 229.2, 0, 0, 0),  # 0.99 to 1.01
    "fc_lstm": Cost(0, 99.06, 1236, 0, 0, 0, 0),  # 0.82 to 1.16
})
