"""Tiny models of what an operator asks by its attributes: one for each form of fcdeploy/graph/form_details.py.

Beside them a few without the detail, where none of our networks shows that a runtime takes what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto

from fcdeploy.runtime.probes.qdq_graph import Probe, QdqGraph

NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
PLACES = ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")


def list_details() -> Iterator[tuple[str, Probe]]:
    """Names that no fact has, and models."""
    yield from _list_windows()
    yield from _list_recurrent()
    yield from _list_conversions()
    for nearest, places in product(NEAREST, PLACES):
        told = {"mode": "nearest", "nearest_mode": nearest, "coordinate_transformation_mode": places}
        g = QdqGraph()
        resized = g.op("Resize", g.input(1, 2, 5, 7), "", g.constant([1, 1, 2, 3]), **told)
        yield f"detail Resize, {nearest}, {places}", g.probe(resized)
    g = QdqGraph(opset=17)  # which no other operator of ours asks for
    yield "detail LayerNormalization", g.probe(g.op("LayerNormalization", g.input(1, 6, 8), g.constant(np.ones(8))))
    for op, axis in (("Softmax", 3), ("Softmax", 1), ("LogSoftmax", 1), ("Hardmax", 1)):
        g = QdqGraph(opset=11)
        name = "over one axis" if axis == 3 else "over several axes"
        yield f"detail {op}, {name}", g.probe(g.op(op, g.input(1, 3, 4, 4), axis=axis))


def _list_windows() -> Iterator[tuple[str, Probe]]:
    kernel: dict[str, Any] = {"kernel_shape": [2, 2]}
    for op, told in (("Conv", {}), ("MaxPool", kernel), ("AveragePool", kernel)):
        yield f"detail {op}, padded by SAME_LOWER", _over_pictures(op, auto_pad="SAME_LOWER", **told)
    yield "detail MaxPool, dilated", _over_pictures("MaxPool", dilations=[2, 2], **kernel)
    beyond = {"strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    yield "detail MaxPool, windows behind the input", _over_pictures("MaxPool", **beyond, **kernel)
    for name, told in (
        ("its lengths by auto_pad", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("its lengths by output_shape", {"output_shape": [10, 14], "strides": [2, 2]}),
        ("dilated", {"dilations": [2, 2]}),
    ):
        yield f"detail ConvTranspose, {name}", _over_pictures("ConvTranspose", **told)


def _over_pictures(op: str, **told: Any) -> Probe:
    """On five rows of seven pixels, in three channels; with weights where the operator has them."""
    g = QdqGraph()
    x = g.input(1, 3, 5, 7)
    size = 3 if op == "ConvTranspose" else 2
    weights = [] if op.endswith("Pool") else [g.constant(g.random.normal(size=(3, 3, size, size)))]
    return g.probe(g.op(op, x, *weights, **told))


def _list_recurrent() -> Iterator[tuple[str, Probe]]:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        details: tuple[tuple[str, dict[str, Any]], ...] = (("in float", {}), ("clipped", {"clip": 0.3}))
        if op == "RNN":
            details = (*details, ("other activations", {"activations": ["Relu"]}))
        for name, told in details:
            g = QdqGraph()
            x = g.input(5, 1, 3)
            weights = [g.constant(g.random.normal(size=(1, gates * 4, width))) for width in (3, 4)]
            yield f"detail {op}, {name}", g.probe(g.op(op, x, *weights, hidden_size=4, **told))


def _list_conversions() -> Iterator[tuple[str, Probe]]:
    """From float to integers and back, and what bytes are given."""
    for name, into in (("integers", TensorProto.INT64), ("bool", TensorProto.BOOL)):
        g = QdqGraph()
        x = g.input(1, 5, fed=np.array([[-1.7, 1.7, 0.3, 2.5, 0]]))
        yield f"detail Cast, to {name}", g.probe(g.op("Cast", g.op("Cast", x, to=into), to=TensorProto.FLOAT))
    for name, told in (("without a zero point", {}), ("with output_dtype", {"output_dtype": TensorProto.INT8})):
        g = QdqGraph(opset=21 if told else 13)
        scale = g.constant(0.05)
        x = g.op("QuantizeLinear", g.input(1, 4, 6), scale, **told)
        yield f"detail QuantizeLinear, {name}", g.probe(g.op("DequantizeLinear", x, scale))
    g = QdqGraph("int8", -60)
    x = g.quantize(g.input(1, 4, 6, 6))
    padded = g.op("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), g.constant(-60, np.int8))
    yield "detail Pad, with a negative number", g.probe(g.dequantize(padded))
    for name in ("bytes", "float"):
        g = QdqGraph()
        weights = g.weight(g.bytes(6, 4), np.full(4, 0.01), 1)
        bias = g.bias(1000 * np.arange(1, 5), np.full(4, 0.0005))
        sums = g.op("Gemm", g.pair(g.input(3, 6)), weights, bias)
        yield f"detail Gemm, of several rows, to {name}", g.probe(g.pair(sums, 0.1) if name == "bytes" else sums)
