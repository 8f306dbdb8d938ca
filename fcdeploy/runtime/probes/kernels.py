"""Probes of what becomes an integer kernel, and of what runs on bytes as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto

from fcdeploy.runtime.probes.qdq_graph import MICROSOFT, SCALE, Probe, QdqGraph

SCALES = np.linspace(0.01, 0.03, 4).astype(np.float32)
BIASES = np.arange(4)


def _convolution(g: QdqGraph, rank: int, group: int, bias: float | None) -> str:
    """Four channels in and out; the scale of its bias is `bias` times the product of the others."""
    x = g.pair(g.input(1, 4, *(6,) * rank))
    w = g.weight(g.bytes(4, 4 // group, *(3,) * rank), SCALES, 0)
    tensors = [] if bias is None else [g.bias(BIASES, np.float32(SCALE * bias) * SCALES)]
    return g.op("Conv", x, w, *tensors, group=group, kernel_shape=[3] * rank)


def conv(rank: int = 2, group: int = 1, bias: float | None = 1.0) -> Probe:
    """A convolution between pairs."""
    g = QdqGraph()
    return g.probe(g.pair(_convolution(g, rank, group, bias), 0.1))


def conv_to_float() -> Probe:
    """A convolution that nothing quantizes."""
    g = QdqGraph()
    return g.probe(_convolution(g, 2, 1, 1.0))


def conv_and_clip(kind: str, zero_point: int, scale: float) -> Probe:
    """A convolution with a Relu or a Clip to 0..6 in front of QuantizeLinear."""
    g = QdqGraph()
    x = _convolution(g, 2, 1, 1.0)
    x = g.op("Relu", x) if kind == "Relu" else g.op("Clip", x, g.constant(0.0), g.constant(6.0))
    return g.probe(g.pair(x, scale, zero_point))


def residual(dtype: str) -> Probe:
    """Two convolutions and an Add, whose first input has two readers."""
    g = QdqGraph(dtype, 128 if dtype == "uint8" else 0)
    x = g.quantize(_convolution(g, 2, 1, 1.0), 0.1)
    w = g.weight(g.bytes(4, 4, 1, 1), SCALES, 0)
    y = g.pair(g.op("Conv", g.dequantize(x, 0.1), w), 0.1)
    return g.probe(g.pair(g.op("Add", y, g.dequantize(x, 0.1)), 0.1))


def float_conv(kind: str, held: bool) -> Probe:
    """A convolution with float weights between pairs; a LeakyRelu of slope 1 behind it where it is `held`."""
    g = QdqGraph()
    y = g.op(kind, g.pair(g.input(1, 4, 6, 6)), g.constant(g.random.normal(size=(4, 4, 3, 3))))
    y = g.op("LeakyRelu", y, alpha=1.0) if held else y
    return g.probe(g.pair(y, 0.5))


def gemm(*, to_bytes: bool = True, zero: Any = "own", **attributes: Any) -> Probe:
    """A Gemm on a pair."""
    g = QdqGraph()
    x, turned = g.pair(g.input(2, 6)), attributes.get("transB", 0)
    w = g.weight(g.bytes(*((4, 6) if turned else (6, 4))), SCALES, 1 - turned, zero)
    y = g.op("Gemm", x, w, g.bias(BIASES, np.float32(SCALE) * SCALES), **attributes)
    return g.probe(g.pair(y, 0.1) if to_bytes else y)


def matmul(*, to_bytes: bool = True) -> Probe:
    """A MatMul of sequences with a weight."""
    g = QdqGraph()
    y = g.op("MatMul", g.pair(g.input(2, 5, 6)), g.weight(g.bytes(6, 4), SCALES, 1))
    return g.probe(g.pair(y, 0.1) if to_bytes else y)


def matmul_of_activations() -> Probe:
    """A MatMul of two activations."""
    g = QdqGraph()
    return g.probe(g.pair(g.op("MatMul", g.pair(g.input(2, 5, 6)), g.pair(g.input(2, 6, 3))), 0.1))


def matmul_of_weights_alone(axis: int | None) -> Probe:
    """Floats times stored bytes, whose scales run along `axis`."""
    g = QdqGraph(opset=21)
    scale = SCALES if axis == 1 else np.float32(0.02) if axis is None else np.full(64, 0.02)
    return g.probe(g.op("MatMul", g.input(2, 64), g.weight(g.bytes(64, 4), scale, axis)))


def wide(kind: str, weight: type[np.generic] = np.int8) -> Probe:
    """A layer with activations of 16 bits."""
    g = QdqGraph("uint16", 32768, domain=MICROSOFT)
    x = g.pair(g.input(1, 4, 6, 6) if kind == "Conv" else g.input(2, 6), 1e-4)
    shape = (4, 4, 3, 3) if kind == "Conv" else (6, 4)
    w = g.weight(g.bytes(*shape).astype(weight), SCALES, 0 if kind == "Conv" else 1)
    return g.probe(g.pair(g.op(kind, x, w), 2e-4))


def between_pairs(
    kind: str,
    *constants: tuple[Any, Any],
    inputs: int = 1,
    shape: tuple[int, ...] = (1, 4, 6, 6),
    scale: float = 0.01,
    opset: int = 17,
    **attributes: Any,
) -> Probe:
    """Any operator between pairs; `constants` are more inputs, as values and types."""
    g = QdqGraph(opset=opset)
    x = [g.pair(g.input(*shape), 0.05 - 0.02 * i, 128 - 20 * i) for i in range(inputs)]
    y = g.op(kind, *x, *(g.constant(value, dtype) for value, dtype in constants), **attributes)
    return g.probe(g.pair(y, scale, 0))


def with_float_constant(kind: str) -> Probe:
    """An Add or a Mul of a pair and a constant in float."""
    g = QdqGraph()
    y = g.op(kind, g.pair(g.input(1, 4, 6)), g.constant(g.random.normal(size=(1, 4, 6))))
    return g.probe(g.pair(y, 0.1))


def where() -> Probe:
    """A choice between two pairs."""
    g = QdqGraph()
    mask = g.constant(g.random.random((1, 4, 6)) > 0.5, np.bool_)
    a, b = g.pair(g.input(1, 4, 6)), g.pair(g.input(1, 4, 6), 0.02, 3)
    return g.probe(g.pair(g.op("Where", mask, a, b), 0.1))


def recurrent(kind: str, gates: int) -> Probe:
    """A recurrent layer between pairs."""
    g = QdqGraph()
    weights = [g.constant(0.1 * g.random.normal(size=(1, gates * 5, n))) for n in (6, 5)]
    return g.probe(g.pair(g.op(kind, g.pair(g.input(4, 2, 6)), *weights, hidden_size=5)))


def on_bytes(
    kind: str, *constants: tuple[Any, Any], dtype: str = "uint8", outputs: int = 1, **attributes: Any
) -> Probe:
    """An operator on bytes themselves, without pairs around it."""
    g = QdqGraph(dtype, 0)
    more = [g.constant(value, dtype if kind_of == "same" else kind_of) for value, kind_of in constants]
    y = g.op(kind, g.quantize(g.input(1, 4, 6, 6)), *more, outputs=outputs, **attributes)
    return g.probe(y, TensorProto.UINT8 if dtype == "uint8" else TensorProto.INT8)


def _i64(*values: int) -> tuple[list[int], Any]:
    return list(values), np.int64


MOVES: dict[str, Callable[..., Probe]] = {
    "Reshape": partial(on_bytes, "Reshape", _i64(1, 24, 6)),
    "Flatten": partial(on_bytes, "Flatten"),
    "Transpose": partial(on_bytes, "Transpose", perm=[0, 2, 3, 1]),
    "Squeeze": partial(on_bytes, "Squeeze", _i64(0)),
    "Unsqueeze": partial(on_bytes, "Unsqueeze", _i64(0)),
    "Slice": partial(on_bytes, "Slice", _i64(1), _i64(3), _i64(2)),
    "Gather": partial(on_bytes, "Gather", _i64(2, 0), axis=1),
    "Expand": partial(on_bytes, "Expand", _i64(2, 4, 6, 6)),
    "Tile": partial(on_bytes, "Tile", _i64(1, 1, 2, 1)),
    "Split": partial(on_bytes, "Split", _i64(1, 3), axis=1, outputs=2),
    "DepthToSpace": partial(on_bytes, "DepthToSpace", blocksize=2),
    "SpaceToDepth": partial(on_bytes, "SpaceToDepth", blocksize=2),
    "Pad": partial(on_bytes, "Pad", _i64(0, 0, 1, 1, 0, 0, 1, 1), (7, "same")),
    "Identity": partial(on_bytes, "Identity"),
    "Resize": partial(on_bytes, "Resize", ([], np.float32), ([1, 1, 2, 2], np.float32), mode="nearest"),
    "ReduceMax": partial(on_bytes, "ReduceMax", axes=[2]),
    "ReduceMin": partial(on_bytes, "ReduceMin", axes=[2]),
    "MaxPool": partial(on_bytes, "MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "Clip": partial(on_bytes, "Clip", (10, "same"), (100, "same")),
}
INTEGER: dict[str, Callable[..., Probe]] = {
    "Add": partial(between_pairs, "Add", inputs=2, scale=0.1),
    "Mul": partial(between_pairs, "Mul", inputs=2, scale=0.1),
    "AveragePool": partial(between_pairs, "AveragePool", kernel_shape=[2, 2]),
    "GlobalAveragePool": partial(between_pairs, "GlobalAveragePool"),
    "LeakyRelu": partial(between_pairs, "LeakyRelu", alpha=0.1),
    "Sigmoid": partial(between_pairs, "Sigmoid"),
    "Softmax": partial(between_pairs, "Softmax", axis=1),
    "Concat": partial(between_pairs, "Concat", inputs=2, scale=0.1, axis=1),
    "Where": where,
}
IMAGE = (1, 4, 6, 6)
ZEROS = (np.zeros(IMAGE), np.int64)
FLOAT: dict[str, Callable[..., Probe]] = {
    **{
        op: partial(between_pairs, op)
        for op in (
            "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu", "Exp",
            "Log", "Sqrt", "Reciprocal", "Erf", "Abs", "Neg", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "LogSoftmax",
            "Hardmax", "GlobalMaxPool", "GlobalLpPool", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare",
            "ReduceLogSumExp", "ReduceMean", "ReduceSum",
        )
    },
    **{op: partial(between_pairs, op, inputs=2, scale=0.1) for op in ("Sub", "Div", "Max", "Min", "Pow", "Sum", "Mean")},
    "Gelu": partial(between_pairs, "Gelu", opset=20),
    "Mish": partial(between_pairs, "Mish", opset=18),
    "PRelu": partial(between_pairs, "PRelu", (np.full((4, 1, 1), 0.1), np.float32)),
    "CumSum": partial(between_pairs, "CumSum", (2, np.int64)),
    "LpPool": partial(between_pairs, "LpPool", kernel_shape=[2, 2]),
    "ConvTranspose": partial(between_pairs, "ConvTranspose", (np.ones((4, 4, 3, 3)), np.float32), scale=0.5),
    "Swish": partial(between_pairs, "Swish", opset=24),
    "Cast": partial(between_pairs, "Cast", to=TensorProto.FLOAT),
    "Dropout": partial(between_pairs, "Dropout"),
    "Attention": partial(between_pairs, "Attention", inputs=3, opset=23),
    "GatherElements": partial(between_pairs, "GatherElements", ZEROS),
    "GatherND": partial(between_pairs, "GatherND", ([[0]], np.int64)),
    "ScatterElements": partial(between_pairs, "ScatterElements", ZEROS, (np.ones(IMAGE), np.float32)),
    "ScatterND": partial(between_pairs, "ScatterND", ([[0]], np.int64), (np.ones(IMAGE), np.float32)),
    "MaxUnpool": partial(between_pairs, "MaxUnpool", ZEROS, kernel_shape=[1, 1]),
    "GridSample": partial(between_pairs, "GridSample", (np.zeros((1, 3, 3, 2)), np.float32)),
    "RoiAlign": partial(
        between_pairs, "RoiAlign", ([[0, 0, 3, 3]], np.float32), ([0], np.int64), output_height=2, output_width=2
    ),
    "GRU": partial(recurrent, "GRU", 3),
    "RNN": partial(recurrent, "RNN", 1),
}  # fmt: skip
MULTIPLY: dict[str, Callable[..., Probe]] = {"Conv": conv, "Gemm": gemm, "MatMul": matmul}
"""Operator -> its probe: of those with an integer kernel, of those that move bytes, of those with none."""

PATTERNS: dict[str, Callable[[], Probe]] = {
    "Conv, 1 axis": partial(conv, 1),
    "Conv, 3 axes": partial(conv, 3),
    "Conv, groups": partial(conv, group=2),
    "Conv, depthwise": partial(conv, group=4),
    "Conv, no bias": partial(conv, bias=None),
    "Conv, bias of another scale": partial(conv, bias=1.02),
    "Conv, to float": conv_to_float,
    "Conv, Relu at the lowest byte": partial(conv_and_clip, "Relu", 0, 0.1),
    "Conv, Relu inside the bytes": partial(conv_and_clip, "Relu", 100, 0.1),
    "Conv, Clip at the last byte": partial(conv_and_clip, "Clip", 0, 6 / 255),
    "Conv, Clip inside the bytes": partial(conv_and_clip, "Clip", 0, 0.1),
    "Conv, float weights": partial(float_conv, "Conv", False),
    "Conv, float weights, held": partial(float_conv, "Conv", True),
    "ConvTranspose, float weights, held": partial(float_conv, "ConvTranspose", True),
    "residual, uint8": partial(residual, "uint8"),
    "residual, int8": partial(residual, "int8"),
    "Gemm, to float": partial(gemm, to_bytes=False),
    "Gemm, turned": partial(gemm, transB=1),
    "Gemm, no zero points": partial(gemm, zero=None),
    "Gemm, alpha": partial(gemm, alpha=0.5),
    "Gemm, beta": partial(gemm, beta=0.5),
    "MatMul, to float": partial(matmul, to_bytes=False),
    "MatMul, two activations": matmul_of_activations,
    "MatMul, weights alone": partial(matmul_of_weights_alone, 1),
    "MatMul, weights alone, one scale": partial(matmul_of_weights_alone, None),
    "MatMul, weights alone, scales along inputs": partial(matmul_of_weights_alone, 0),
    "Add, float constant": partial(with_float_constant, "Add"),
    "Mul, float constant": partial(with_float_constant, "Mul"),
    "Relu, alone": partial(between_pairs, "Relu"),
    "Conv, 16 bits": partial(wide, "Conv"),
    "Gemm, 16 bits": partial(wide, "Gemm"),
    "MatMul, 16 bits": partial(wide, "MatMul"),
    "Gemm, 16-bit weights": partial(wide, "Gemm", np.int16),
}


def operator_probes() -> dict[str, Callable[[], Probe]]:
    """Name of the fact -> its probe; of operators on bytes, one for each byte type."""
    probes: dict[str, Callable[[], Probe]] = {**MULTIPLY, **INTEGER, **FLOAT}
    for op, build in MOVES.items():
        probes |= {f"{op}, on {dtype}": partial(build, dtype=dtype) for dtype in ("uint8", "int8")}
    return probes
