"""Probes of what onnxruntime computes otherwise than written, and of how its integer kernels add."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.runtime.options import ACCURACY_LEVEL, PRECISION
from fcdeploy.runtime.probes.qdq_graph import MICROSOFT, SCALE, Probe, QdqGraph

N = 16
RANDOM = np.random.default_rng(1)
SCALES = (np.exp(RANDOM.normal(size=N)) * 0.01).astype(np.float32)
SQUARE = RANDOM.integers(-60, 60, (N, N)).astype(np.int8)
CONV = RANDOM.integers(-60, 60, (8, 8, 3, 3)).astype(np.int8)
BIAS = RANDOM.integers(-5000, 5000, N).astype(np.int32)
PRODUCT = np.float32(SCALE) * SCALES
PRECISE = {PRECISION: "1"}


def _scales_along(op: str, weight: Array, axis: int, *, to_bytes: bool = True, **attributes: Any) -> Probe:
    """A layer whose weight has a scale for each index of `axis`, with zero points where it is a Gemm."""
    g = QdqGraph(opset=13)
    x = g.pair(g.input(1, 8, 6, 6) if op == "Conv" else g.input(4, N))
    w = g.weight(weight, SCALES[: weight.shape[axis]], axis, "own" if op == "Gemm" else None)
    y = g.op(op, x, w, **attributes)
    return g.probe(g.pair(y, 0.5) if to_bytes else y)


def _bias(op: str, factor: float, zero: int | None = None, size: float = 1.0) -> Probe:
    """A layer whose bias has `factor` times the scale that an integer kernel reads it in; `size` times the scales."""
    g = QdqGraph(opset=13)
    if op == "Conv":
        x, w = g.pair(g.input(1, 8, 6, 6)), g.weight(CONV, size * SCALES[:8], 0, None)
    else:
        x, w = g.pair(g.input(4, N)), g.weight(SQUARE, size * SCALES, 1)
    count = 8 if op == "Conv" else N
    b = g.bias(BIAS[:count] * (20_000 if size < 1 else 1), factor * PRODUCT[:count], zero)
    y = g.op("Add", g.op(op, x, w), b) if op == "MatMul" else g.op(op, x, w, b)
    return g.probe(g.pair(y, 0.5))


def _large_bias(op: str, dtype: str) -> Probe:
    """A float bias that does not fit 32 bits of input scale x weight scale."""
    g = QdqGraph(dtype, 0, opset=13, domain=MICROSOFT if dtype == "int16" else "")
    shape = (2, 3, 2, 2) if op == "Conv" else (2, 3)
    x = g.pair(g.input(*shape, fed=np.ones(shape)), 1e-2)
    integers = np.arange(-6, 6).reshape((4, 3, 1, 1) if op == "Conv" else (3, 4))
    w = g.weight(integers.astype(np.int16 if dtype == "int16" else np.int8), np.full(4, 1e-9), 0 if op == "Conv" else 1)
    return g.probe(g.pair(g.op(op, x, w, g.constant(np.full(4, 5.0))), 0.1))


def _blocks(weight: Array, dwarf: bool, **entries: str) -> Probe:
    """Floats times weights stored alone; `dwarf`: one activation is thousands of times its neighbours, its weights 0."""
    g = QdqGraph(opset=21)
    rows = 2 * g.random.normal(size=(4, N))
    if dwarf:
        rows[:, 0] = 1e4
        weight = np.where(np.arange(N)[:, None] == 0, 0, weight).astype(weight.dtype)
    scaled = g.weight(weight, SCALES, 1, None)
    return g.probe(g.op("MatMul", g.input(4, N, fed=rows), scaled), entries=entries)


def _uneven(*shape: int) -> Array:
    """Weights that no pair saturates, one of them beyond 64: 32-bit sums take them apart from small ones."""
    weights = RANDOM.integers(-31, 32, shape).astype(np.int8)
    weights[:, :2] = 0
    weights.reshape(shape[0], -1)[:, 0] = -127
    return weights


def _shared_zero_points(entries: Mapping[str, str]) -> Probe:
    """Two convolutions whose weights have the same zero points, stored once."""
    g = QdqGraph()
    zero, scales = g.constant(np.zeros(4), np.int8), SCALES[:4]
    x = g.pair(g.input(1, 4, 6, 6))
    for _ in range(2):
        x = g.pair(g.op("Conv", x, g.weight(_uneven(4, 4, 3, 3), scales, 0, zero), pads=[1, 1, 1, 1]), 0.5)
    return g.probe(x, entries=entries)


def _no_zero_points(op: str) -> Probe:
    """A layer whose weight has no zero points, where 32-bit sums are asked for."""
    g = QdqGraph()
    x = g.pair(g.input(1, 4, 6, 6) if op == "Conv" else g.input(4, N))
    conv = op == "Conv"
    w = g.weight(_uneven(4, 4, 3, 3), SCALES[:4], 0, None) if conv else g.weight(_uneven(N, N).T, SCALES, 1, None)
    return g.probe(g.pair(g.op(op, x, w), 0.5), entries=PRECISE)


def _signed_no_zero_points() -> Probe:
    """int8 activations without zero points in front of a convolution, where 32-bit sums are asked for."""
    g = QdqGraph("int8", 0)
    scale, x = g.constant(SCALE), g.input(1, 4, 6, 6)
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, g.constant(0, np.int8)), scale)
    y = g.op("Conv", x, g.weight(_uneven(4, 4, 3, 3), SCALES[:4], 0))
    return g.probe(g.pair(y, 0.5), entries=PRECISE)


def _per_channel_activations(group: int) -> Probe:
    """A convolution whose input has a scale for each channel."""
    g = QdqGraph()
    scale = g.constant(np.linspace(0.02, 0.06, 4))
    zero = g.constant(np.full(4, 128), np.uint8)
    x = g.op("QuantizeLinear", g.input(1, 4, 6, 6), scale, zero, axis=1)
    x = g.op("DequantizeLinear", x, scale, zero, axis=1)
    y = g.op("Conv", x, g.weight(g.bytes(4, 4 // group, 3, 3), SCALES[:4], 0), group=group)
    return g.probe(g.pair(y, 0.1))


def _zero_points(kind: str) -> Probe:
    """A weight whose zero points are of another type than its integers, or fewer than its scales."""
    g = QdqGraph(opset=21)
    zeros = np.zeros(N, np.uint8) if kind == "type" else np.zeros((), np.int8)
    w = g.weight(SQUARE, SCALES, 1, g.constant(zeros, zeros.dtype))
    return g.probe(g.pair(g.op("MatMul", g.pair(g.input(4, N)), w), 0.5))


def _packed(columns: int) -> Probe:
    """A MatMulNBits whose weights are for another number of columns than it says."""
    g = QdqGraph()
    q, s = g.constant(np.zeros((5, 1, 32)), np.uint8), g.constant(np.ones((5, 1)))
    numbers = {"K": 64, "N": columns, "bits": 4, "block_size": 64}
    return g.probe(
        g.op("MatMulNBits", g.input(2, 64), q, s, domain=MICROSOFT, **numbers), expected=np.zeros((2, columns))
    )


def _average_pool(**attributes: Any) -> Probe:
    """An average pool between pairs of one scale."""
    g = QdqGraph(opset=19)
    x = g.input(1, 2, 7, 7, fed=np.repeat(2.0 * np.arange(1, 8), 14).reshape(1, 2, 7, 7) / 7)  # no average is a half
    y = g.op("AveragePool", g.pair(x), kernel_shape=[3, 3], **attributes)
    return g.probe(g.pair(y))


def _softmax(scale: float) -> Probe:
    """A softmax of two numbers that are everywhere between the ends of bytes, written with this scale."""
    g = QdqGraph(opset=13)
    x = g.input(256, 2, fed=np.stack([np.linspace(-6, 6, 256), np.zeros(256)], axis=1))
    return g.probe(g.pair(g.op("Softmax", g.pair(x), axis=1), scale, 0))


def _sums(largest: int, weight: str = "int8", kind: str = "Gemm", entries: Mapping[str, str] | None = None) -> Probe:
    """64 products of 255 and the largest weight, in float out: neighbours are 255 * largest * 2."""
    g = QdqGraph("uint8", 0)
    if kind == "depthwise":
        x = g.pair(g.input(1, 8, 3, 3, fed=np.full((1, 8, 3, 3), 255.0)), 1.0)
        w = g.weight(np.full((8, 1, 3, 3), largest).astype(weight), np.ones(8), 0)
        y, scale = g.op("Conv", x, w, group=8), 9 * largest
        return g.probe(g.pair(y, scale), expected=np.full((1, 8, 1, 1), 255.0 * scale), entries=entries)
    x = g.pair(g.input(1, 64, fed=np.full((1, 64), 255.0)), 1.0)
    if kind == "Conv":
        x = g.op("Reshape", x, g.constant([1, 64, 1, 1], np.int64))
    shape = (64, 4) if kind == "Gemm" else (4, 64, 1, 1)
    w = g.weight(np.full(shape, largest).astype(weight), np.ones(4), 1 if kind == "Gemm" else 0)
    y, scale = g.op(kind, x, w, g.bias(np.zeros(4), np.ones(4))), 64 * largest
    return g.probe(
        g.pair(y, scale), expected=np.full((1, 4) + (1, 1) * (kind == "Conv"), 255.0 * scale), entries=entries
    )


def _dynamic() -> Probe:
    """A dense layer that scales its activations in every run."""
    g = QdqGraph()
    w, s, z = g.constant(SQUARE, np.int8), g.constant(np.full(N, 0.01)), g.constant(np.zeros(N), np.int8)
    rows = np.linspace(-1, 1.0, 4 * N).reshape(4, N)
    steps = np.float32(2 / 255)
    q = np.rint(rows.astype(np.float32) / steps)
    exact = q @ SQUARE.astype(np.float64) * steps * 0.01
    y = g.op("DynamicQuantizeMatMul", g.input(4, N, fed=rows), w, s, z, domain=MICROSOFT)
    return g.probe(y, expected=exact)


def _dynamic_lstm() -> Probe:
    """An LSTM of 8-bit weights: of zeros, so that its result is plain."""
    g = QdqGraph()
    x = g.input(3, 2, 5)
    weights = [g.constant(np.zeros((1, n, 16)), np.int8) for n in (5, 4)]
    scale, zero = g.constant(np.ones((1, 16))), g.constant(np.zeros((1, 16)), np.int8)
    inputs = [x, *weights, *[""] * 5, scale, zero, scale, zero]
    y = g.op("DynamicQuantizeLSTM", *inputs, domain=MICROSOFT, hidden_size=4)
    return g.probe(y, expected=np.zeros((3, 1, 2, 4)))


def _in_operator_set(opset: int) -> Probe:
    """A pair of conversions, which every int8 file has."""
    g = QdqGraph(opset=opset)
    return g.probe(g.op("Relu", g.pair(g.input(2, 3))))


def _new_type(kind: type[np.generic], opset: int) -> Probe:
    """A weight of ones of a new type, in front of a dense layer."""
    g = QdqGraph(opset=opset)
    g.constants["w"] = np.ones((N, N)).astype(kind)
    w = g.op("DequantizeLinear", "w", g.constant(1.0))
    return g.probe(g.op("MatMul", g.input(4, N, fed=np.ones((4, N))), w), expected=np.full((4, N), float(N)))


INT4 = (SQUARE // 8).astype(ml_dtypes.int4)
TRAPS: dict[str, Callable[[], Probe]] = {
    "scales along the wrong axis, MatMul": partial(_scales_along, "MatMul", SQUARE, 0),
    "scales along the wrong axis, MatMul to float": partial(_scales_along, "MatMul", SQUARE, 0, to_bytes=False),
    "scales along the wrong axis, MatMul of no square": partial(_scales_along, "MatMul", SQUARE[:, :8].copy(), 0),
    "scales along the wrong axis, Gemm": partial(_scales_along, "Gemm", SQUARE, 0),
    "scales along the wrong axis, Gemm turned": partial(_scales_along, "Gemm", SQUARE, 1, transB=1),
    "scales along the wrong axis, Conv": partial(_scales_along, "Conv", CONV, 1),
    "scales along a kernel's axis, Conv": partial(_scales_along, "Conv", CONV[:3], 2),
    "bias scale not the product, Gemm": partial(_bias, "Gemm", 1.5),
    "bias scale not the product, MatMul and Add": partial(_bias, "MatMul", 1.5),
    "bias scale not the product, Conv": partial(_bias, "Conv", 1.5),
    "bias scale not the product, Conv of tiny scales": partial(_bias, "Conv", 2e-4, size=1e-4),
    "bias zero point, Gemm": partial(_bias, "Gemm", 1.0, 1000),
    "bias beyond 32 bits, Conv": partial(_large_bias, "Conv", "uint8"),
    "bias beyond 32 bits, Gemm": partial(_large_bias, "Gemm", "uint8"),
    "bias beyond 32 bits, Conv of 16 bits": partial(_large_bias, "Conv", "int16"),
    "bias beyond 32 bits, Gemm of 16 bits": partial(_large_bias, "Gemm", "int16"),
    "weights alone, int8": partial(_blocks, SQUARE, False),
    "weights alone, int4": partial(_blocks, INT4, False),
    "weights alone, one large activation": partial(_blocks, SQUARE, True),
    "weights alone, accuracy level 1": partial(_blocks, SQUARE, True, **{ACCURACY_LEVEL: "1"}),
    "zero points shared by two weights": partial(_shared_zero_points, {}),
    "zero points shared by two weights, 32-bit sums": partial(_shared_zero_points, PRECISE),
    "no zero points, Conv, 32-bit sums": partial(_no_zero_points, "Conv"),
    "no zero points, MatMul, 32-bit sums": partial(_no_zero_points, "MatMul"),
    "no zero points, int8 activations, 32-bit sums": _signed_no_zero_points,
    "zero points of another type": partial(_zero_points, "type"),
    "zero points of another number": partial(_zero_points, "number"),
    "activation scales by channel, Conv": partial(_per_channel_activations, 1),
    "activation scales by channel, depthwise": partial(_per_channel_activations, 4),
    "MatMulNBits of another size": partial(_packed, 4),
    "AveragePool, counting pads": partial(_average_pool, strides=[2, 2], count_include_pad=1, pads=[1, 1, 1, 1]),
    "AveragePool, ceil_mode": partial(_average_pool, strides=[3, 3], ceil_mode=1),
    "AveragePool, ceil_mode counting pads": partial(_average_pool, strides=[3, 3], ceil_mode=1, count_include_pad=1),
    "AveragePool, dilations": partial(_average_pool, dilations=[2, 2]),
    "Softmax, scale 1/255": partial(_softmax, 1 / 255),
    "Softmax, scale below 1/255": partial(_softmax, float(np.nextafter(np.float32(1 / 255), np.float32(0)))),
}
"""What may be computed otherwise than it is written."""

SUMS: dict[str, Callable[[], Probe]] = {
    "pairs of products, full weights, Gemm": partial(_sums, 127),
    "pairs of products, full weights, Conv": partial(_sums, 127, kind="Conv"),
    "pairs of products, weights within 64, Gemm": partial(_sums, 64),
    "pairs of products, weights within 64, Conv": partial(_sums, 64, kind="Conv"),
    "pairs of products, depthwise": partial(_sums, 127, kind="depthwise"),
    "pairs of products, uint8 weights": partial(_sums, 255, "uint8"),
    "pairs of products, full weights, 32-bit sums": partial(_sums, 127, entries=PRECISE),
}
"""How integer kernels add, which is the CPU's and the runtime's."""

OPERATORS: dict[str, Callable[[], Probe]] = {
    "DynamicQuantizeMatMul": _dynamic,
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "weights of INT2": partial(_new_type, ml_dtypes.int2, 25),
    "weights of UINT2": partial(_new_type, ml_dtypes.uint2, 25),
    "weights of FLOAT4E2M1": partial(_new_type, ml_dtypes.float4_e2m1fn, 23),
    **{f"operator set {opset}": partial(_in_operator_set, opset) for opset in range(19, 29)},
}
"""What runs at all."""
