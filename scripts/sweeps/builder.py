"""What sandwiches are built of (scripts/sweep): values of attributes, nodes and weights as they are added."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import defs, helper, numpy_helper

Array = np.ndarray[Any, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
SAMPLES = 24
NEWEST = 27  # the operator set that onnxruntime 1.32 takes; it is lowered to what the installed one takes

# values of attributes: (operator, attribute), or the attribute of any operator; functions of rank and shape where needed
FLOATS = st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5])
FLAG = st.integers(0, 1)


def axis_of(rank: int) -> st.SearchStrategy[int]:
    """Any axis but that of the samples, from either end."""
    return st.integers(1, rank - 1).flatmap(lambda axis: st.sampled_from([axis, axis - rank]))


VALUES: dict[str | tuple[str, str], Any] = {
    "keepdims": FLAG, "count_include_pad": FLAG, "ceil_mode": FLAG, "exclude_outside": FLAG, "antialias": FLAG,
    "noop_with_empty_axes": FLAG, "align_corners": FLAG, "reverse": FLAG, "exclusive": FLAG, "largest": FLAG,
    "select_last_index": FLAG, "detect_negative": FLAG, "detect_positive": FLAG, "storage_order": st.just(0),
    "alpha": FLOATS, "beta": FLOATS, "gamma": FLOATS, "bias": FLOATS, "epsilon": st.sampled_from([1e-5, 1e-3]),
    "cubic_coeff_a": st.sampled_from([-0.75, -0.5]), "extrapolation_value": st.sampled_from([0.0, 0.5]),
    ("LRN", "size"): st.sampled_from([1, 3, 5]), ("LpPool", "p"): st.integers(1, 3), ("GlobalLpPool", "p"): st.integers(1, 3),
    ("LpNormalization", "p"): st.integers(1, 2), ("Gelu", "approximate"): st.sampled_from(["none", "tanh"]),
    ("Resize", "mode"): st.sampled_from(["nearest", "linear", "cubic"]),
    ("Resize", "coordinate_transformation_mode"): st.sampled_from(
        ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    ),
    ("Resize", "nearest_mode"): st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    ("DepthToSpace", "mode"): st.sampled_from(["DCR", "CRD"]),
    ("GridSample", "mode"): st.sampled_from(["linear", "nearest", "cubic"]),
    ("GridSample", "padding_mode"): st.sampled_from(["zeros", "border", "reflection"]),
    ("Pad", "mode"): st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    "training_mode": st.just(0), "momentum": st.just(0.9), "stash_type": st.just(1), "seed": st.just(1),
}  # fmt: skip


@dataclass
class Sandwich:
    """A model, what was drawn for the operator in its middle, and samples for it."""

    op: str
    model: onnx.ModelProto
    said: str
    data: dict[str, Array]


class Builder:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(list(values), np.int64)

    def normal(self, *shape: int, size: float = 1.0) -> str:
        return self.constant(self.random.standard_normal(shape) * size)

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> list[str]:
        name = name or f"n{len(self.nodes)}"
        wrote = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), wrote, name=name, **attributes))
        return wrote

    def layer(self, x: str, shape: tuple[int, ...], channels: int, name: str) -> str:
        """A dense layer or a convolution of 1 by tensor's rank: (n, *shape) to (n, channels, ...)."""
        size = 1 / math.sqrt(shape[0])
        weight = self.normal(channels, shape[0], *[1] * (len(shape) - 1), size=size)
        bias = self.normal(channels, size=0.1)
        attributes = {"transB": 1} if len(shape) == 1 else {"kernel_shape": [1] * (len(shape) - 1)}
        return self.add("Gemm" if len(shape) == 1 else "Conv", x, weight, bias, name=name, **attributes)[0]


def draw_attributes(draw: Draw, op: str, opset: int, *, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """Attributes by the schema: each one given or left out."""
    found = {}
    for key in sorted(defs.get_schema(op, opset).attributes):
        values = VALUES.get((op, key), VALUES.get(key))
        if values is not None and key not in leave and draw(st.booleans()):
            found[key] = draw(values)
    return found
