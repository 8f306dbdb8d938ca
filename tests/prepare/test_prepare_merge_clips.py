"""Clips, Relus and Max/Min pairs in as few nodes as possible."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.merge_clips import merge_clips
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import LoadOptions, Session


def chain(steps: list[tuple[str, float, float]], opset: int = 18) -> ir.Model:
    """Nodes one after the other, each a (type, low, high); the constants are scalars."""
    nodes, constants = [], {}
    names = ["x", *(f"t{at}" for at in range(1, len(steps))), "y"]
    for at, ((op_type, low, high), (read, written)) in enumerate(zip(steps, pairwise(names), strict=True)):
        constants |= {f"low{at}": np.float32(low), f"high{at}": np.float32(high)}
        if op_type == "Clip" and opset < 11:
            nodes.append(op("Clip", read, written, min=float(low), max=float(high)))
        else:
            given = {"Clip": f"low{at} high{at}", "Max": f"low{at}", "Min": f"high{at}", "Relu": ""}[op_type]
            nodes.append(op(op_type, f"{read} {given}", written))
    return graph(nodes, {"x": ["n", 4]}, ["y"], constants, opset=opset)


def bounds(model: ir.Model) -> list[float | None]:
    (node,) = model.graph
    return [None if value is None else float(value.const_value.numpy()) for value in node.inputs[1:]]  # type: ignore[union-attr]


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("order", [("Max", "Min"), ("Min", "Max")])
def test_max_and_min_are_a_clip(order: tuple[str, str], opset: int) -> None:
    model = chain([(op_type, -1.0, 0.5) for op_type in order], opset)
    apply(merge_clips, model)
    assert ops(model) == ["Clip"]
    assert bounds(model) == [-1.0, 0.5]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Relu", 0, 0), ("Relu", 0, 0)], "Relu"),
        ([("Clip", 0, np.inf)], "Relu"),
        ([("Clip", 0, np.finfo(np.float32).max)], "Relu"),
        ([("Max", 0, 0)], "Relu"),
        ([("Relu", 0, 0), ("Clip", -1, 0.5)], "Clip"),
        ([("Relu", 0, 0), ("Min", 0, 0.5)], "Clip"),
        ([("Clip", -2, 0.7), ("Clip", -0.3, 3)], "Clip"),
    ],
)
def test_shorter_forms(steps: list[tuple[str, float, float]], expected: str) -> None:
    model = chain(steps)
    assert apply(merge_clips, model).count > 0
    assert ops(model) == [expected]


def test_relu6_has_scalar_bounds() -> None:
    model = chain([("Relu", 0, 0), ("Min", 0, 6)])
    merge_clips(model)
    assert bounds(model) == [0, 6]
    (node,) = model.graph
    assert [value.shape for value in node.inputs[1:] if value] == [ir.Shape(()), ir.Shape(())]


LARGEST = float(np.finfo(np.float32).max)
BOUNDS = st.floats(-2, 2) | st.sampled_from([-LARGEST, LARGEST])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Clip", "Max", "Min", "Relu"]), BOUNDS, BOUNDS), max_size=4))
def test_any_chain_computes_the_same(steps: list[tuple[str, float, float]]) -> None:
    ordered = [(op_type, min(low, high), max(low, high)) for op_type, low, high in steps] or [("Relu", 0, 0)]
    model = chain(ordered)
    x = np.linspace(-3, 3, 32, dtype=np.float32).reshape(8, 4)
    apply(merge_clips, model, feeds={"x": x}, tolerance=0)


@pytest.mark.parametrize("op_type", ["Max", "Clip"])
def test_a_mask_of_minus_infinity_stays_finite(op_type: str) -> None:
    """Else a row that is masked everywhere becomes NaN in the softmax."""
    nodes = [op("Add", "x mask", "a"), op(op_type, "a low", "b"), op("Softmax", "b", "y")]
    constants = {"mask": np.full((2, 4), -np.inf, np.float32), "low": np.float32(-LARGEST)}
    model = graph(nodes, {"x": [2, 4]}, ["y"], constants)
    apply(merge_clips, model, tolerance=0)
    assert np.isfinite(
        Session(ir.to_proto(model).SerializeToString(), threads=1).run({"x": np.ones((2, 4), np.float32)})[0]
    ).all()


def test_a_clip_of_nothing_goes_and_the_output_keeps_its_name() -> None:
    nodes = [op("Sigmoid", "x", "s"), op("Clip", "s low high", "y")]
    constants = {"low": np.float32(-np.inf), "high": np.float32(np.inf)}
    model = graph(nodes, {"x": ["n", 4]}, ["y"], constants)
    assert apply(merge_clips, model).count == 1
    assert ops(model) == ["Sigmoid"]


def test_attributes_stay_attributes_in_old_operator_sets() -> None:
    model = chain([("Relu", 0, 0), ("Clip", -1, 6)], opset=10)
    assert apply(merge_clips, model).count == 1
    last = model.graph.outputs[0].producer()
    assert last is not None
    assert {name: attr.as_float() for name, attr in last.attributes.items()} == {"min": 0.0, "max": 6.0}


def test_a_relu_that_others_read_is_not_merged() -> None:
    nodes = [op("Relu", "x", "r"), op("Clip", "r - six", "c"), op("Add", "r c", "y")]
    model = graph(nodes, {"x": ["n", 4]}, ["y"], {"six": np.float32(6)})
    assert apply(merge_clips, model).count == 0


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([op("ReduceMax", "x", "m", keepdims=0), op("Clip", "x - m", "y")], "its bound 'm' is computed at run time"),
        ([op("Clip", "x one zero", "y")], "its min 1 lies above its max 0"),
        ([op("Clip", "x nan one", "y")], "its min is not a number"),
    ],
)
def test_declines(nodes: list[Any], why: str) -> None:
    constants = {"one": np.float32(1), "zero": np.float32(0), "nan": np.float32(np.nan)}
    model = graph(nodes, {"x": [2, 4]}, ["y"], constants)
    assert apply(merge_clips, model).declined == (f"Clip 'n_y' keeps its form: {why}",)


@pytest.mark.parametrize("constant", [np.ones(4, np.float32), np.ones((1, 1, 1), np.float32)])
def test_max_with_a_vector_or_a_longer_shape_stays(constant: np.ndarray[Any, Any]) -> None:
    model = graph([op("Max", "x c", "y")], {"x": ["n", 4]}, ["y"], {"c": constant})
    assert apply(merge_clips, model).count == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (None, 6.0), (-1.0, None), (0.0, None)])
def test_onnxruntime_drops_the_form_written_here_in_front_of_a_quantizer(
    low: float | None, high: float | None, tmp_path: Path
) -> None:
    """Conv, clip, QuantizeLinear whose range lies inside the bounds: one integer kernel and no clip."""
    steps = [("Max", low, 0.0)] * (low is not None) + [("Min", 0.0, high)] * (high is not None)
    zero_point = 0 if low is None or low == 0 else 40
    constants = {
        "w": np.ones((2, 2, 1, 1), np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "s": np.float32(6 / 255 if low in (None, 0.0) else 1 / 40),
        "z": np.uint8(zero_point),
    }
    nodes = [
        op("QuantizeLinear", "x s z", "xq"),
        op("DequantizeLinear", "xq s z", "xd"),
        op("DequantizeLinear", "w ws wz", "wd"),
        op("Conv", "xd wd", "t0"),
    ]
    name = "t0"
    for at, (op_type, down, up) in enumerate(steps, start=1):
        constants[f"b{at}"] = np.float32(down if op_type == "Max" else up)
        nodes.append(op(op_type, f"{name} b{at}", f"t{at}"))
        name = f"t{at}"
    nodes += [op("QuantizeLinear", f"{name} s z", "q"), op("DequantizeLinear", "q s z", "y")]
    model = graph(nodes, {"x": ["n", 2, 4, 4]}, ["y"], constants, opset=13)
    infer_shapes(model)
    merge_clips(model)
    Session(model, load=LoadOptions(dump=tmp_path / "fused.onnx"))
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert [kind for kind in fused if kind != "Transpose"] == ["QuantizeLinear", "QLinearConv", "DequantizeLinear"]
