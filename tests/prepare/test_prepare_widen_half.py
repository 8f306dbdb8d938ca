"""Half-precision models computed in float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from prepare_graphs import apply, graph, normal, op, ops, run

from fcdeploy.prepare.passes.widen_half import widen_half
from fcdeploy.prepare.pipeline import prepare

HALF = {"float16": (TensorProto.FLOAT16, np.float16), "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}


def network(dtype: Any, *, kind: int) -> tuple[ir.Model, ir.Model]:
    """A small half-precision network, and the float32 one with the same rounded weights."""
    weights = {"w": normal(4, 3, 3, 3).astype(dtype), "d": normal(4, 5).astype(dtype), "b": normal(5).astype(dtype)}
    nodes = [
        op("Conv", "x w", "c"),
        op("Relu", "c", "r"),
        op("GlobalAveragePool", "r", "g"),
        op("Flatten", "g", "f"),
        op("Gemm", "f d b", "h"),
        op("Cast", "h", "wide", to=TensorProto.FLOAT),
        op("Softmax", "wide", "s"),
        op("Cast", "s", "y", to=kind),
    ]
    half = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y", "h"], weights, dtype=kind)
    nodes[-1] = op("Identity", "s", "y")
    same = {name: array.astype(np.float32) for name, array in weights.items()}
    return half, graph(nodes, {"x": ["n", 3, 6, 6]}, ["y", "h"], same)


@pytest.mark.parametrize("name", HALF)
def test_inside_is_float32_and_the_border_is_kept(name: str) -> None:
    kind, dtype = HALF[name]
    half, single = network(dtype, kind=kind)
    assert widen_half(half).count > 0
    border = {*half.graph.inputs, *half.graph.outputs}
    assert {value.dtype for value in border} == {ir.DataType(kind)}
    inside = {value.dtype for node in half.graph for value in node.outputs if value not in border}
    assert inside == {ir.DataType.FLOAT}
    assert {value.dtype for value in half.graph.initializers.values()} == {ir.DataType.FLOAT}
    assert [(value.name) for value in half.graph.outputs] == ["y", "h"]
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    assert widen_half(half).count == 0
    if name == "float16":
        x = normal(2, 3, 6, 6).astype(dtype)
        for found, expected in zip(run(half, {"x": x}), run(single, {"x": x.astype(np.float32)}), strict=True):
            np.testing.assert_array_equal(found, expected.astype(dtype))


def test_a_half_model_prepares_like_a_float_one() -> None:
    half, single = network(np.float16, kind=TensorProto.FLOAT16)
    prepare(half)
    prepare(single)
    assert [kind for kind in ops(half) if kind != "Cast"] == ops(single)
    assert ops(half).count("Cast") == 3
    assert sum(changes.count for changes in prepare(half)) == 0


def test_half_inside_a_float_model() -> None:
    nodes = [
        op("Cast", "x", "h", to=TensorProto.FLOAT16),
        op("Constant", "", "one", value=onnx.numpy_helper.from_array(np.ones(1, np.float16))),
        op("Add", "h one", "a"),
        op("Cast", "a", "y", to=TensorProto.FLOAT),
    ]
    model = graph(nodes, {"x": ["n", 3]}, ["y"])
    apply(widen_half, model, tolerance=1e-3)
    assert {value.dtype for node in model.graph for value in node.outputs} == {ir.DataType.FLOAT}


def test_what_a_subgraph_captures_is_widened_with_it() -> None:
    branches = {}
    for name, constant in (("then_branch", 1.0), ("else_branch", 2.0)):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT16, ["n", 3])
        held = onnx.numpy_helper.from_array(np.asarray([constant], np.float16), f"{name}_c")
        branches[name] = helper.make_graph([op("Add", f"r {name}_c", f"{name}_y")], name, [], [out], [held])
    nodes = [op("Relu", "x", "r"), op("If", "flag", "z", **branches), op("Mul", "z z", "y")]
    shapes = {"y": ["n", 3]}
    model = graph(nodes, {"x": ["n", 3]}, shapes, {"flag": np.asarray(True)}, dtype=TensorProto.FLOAT16)
    # three roundings to 11 bits, the last one of a square
    apply(widen_half, model, feeds={"x": normal(2, 3).astype(np.float16)}, tolerance=4 * 2.0**-11)


def test_a_float_model_is_left_alone() -> None:
    model = graph([op("Relu", "x", "y")], {"x": ["n", 3]}, ["y"])
    assert apply(widen_half, model).count == 0
    assert ops(model) == ["Relu"]
