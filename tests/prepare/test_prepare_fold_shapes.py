"""Shape arithmetic worked out with free axes kept as symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import apply, graph, op, ops

from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.prepare.passes.fold_shapes import fold_shapes
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.session import Session

INDEX = {f"i{at}": np.asarray(at) for at in range(-2, 8)} | {f"v{at}": np.asarray([at]) for at in range(-2, 8)}


def prepared(model: ir.Model) -> Changes:
    return Changes("prepare", sum(item.count for item in prepare(model)))


def target(model: ir.Model) -> list[int]:
    (node,) = [node for node in model.graph if node.op_type == "Reshape"]
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return [int(item) for item in value.const_value.numpy()]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_batch_minus_one_two(opset: int) -> None:
    """The chain that view(x.size(0), -1, 2) is exported as."""
    nodes = [
        op("Shape", "x", "s"),
        op("Gather", "s i0", "g"),
        op("Unsqueeze", "g v0", "u"),
        op("Unsqueeze", "i-1 v0", "minus"),
        op("Concat", "u minus v2", "t", axis=0),
        op("Reshape", "x t", "y"),
    ]
    model = graph(nodes, {"x": ["n", 4, 6]}, {"y": ["n", None, 2]}, INDEX, opset=opset)
    apply(prepared, model)
    assert ops(model) == ["Reshape"]
    assert target(model) == [0, -1, 2]


def test_a_free_axis_that_moves_is_the_one_left_to_compute() -> None:
    nodes = [
        op("Shape", "x", "s"),
        op("Slice", "s v0 v1", "n"),
        op("Concat", "v4 n v6", "t", axis=0),
        op("Reshape", "x t", "y"),
    ]
    model = graph(nodes, {"x": ["n", 4, 6]}, {"y": [4, "n", 6]}, INDEX)
    apply(prepared, model)
    assert target(model) == [4, -1, 6]


def test_two_free_axes_that_stay_are_kept() -> None:
    nodes = [op("Shape", "x", "s"), op("Slice", "s v0 v2", "n"), op("Concat", "n v6 v-1", "t", axis=0)]
    model = graph([*nodes, op("Reshape", "x t", "y")], {"x": ["n", "t", 6, 5]}, {"y": [None] * 4}, INDEX)
    apply(prepared, model)
    assert target(model) == [0, 0, 6, -1]


def test_two_free_axes_that_move_stay_computed() -> None:
    nodes = [op("Shape", "x", "s"), op("Gather", "s swap", "t"), op("Reshape", "x t", "y")]
    model = graph(nodes, {"x": ["n", "t"]}, {"y": [None, None]}, {"swap": np.asarray([1, 0])})
    changes = apply(fold_shapes, model)
    assert changes.count == 0
    assert changes.declined == (
        "Reshape 'n_y' keeps a computed target: the lengths of its axes [0, 1] are only known at run time",
    )


def test_axes_without_a_name_are_not_taken_for_each_other() -> None:
    nodes = [op("Shape", "a", "s"), op("Gather", "s swap", "t"), op("Reshape", "b t", "y")]
    inputs: dict[str, Any] = {"a": [None, None], "b": [None, None]}
    model = graph(nodes, inputs, {"y": [None, None]}, {"swap": np.asarray([0, 1])})
    assert apply(fold_shapes, model).count == 0


def test_a_target_with_a_real_zero_stays() -> None:
    nodes = [op("Shape", "x", "s"), op("Gather", "s v0", "n"), op("Concat", "n v0", "t", axis=0)]
    model = graph([*nodes, op("Reshape", "x t", "y", allowzero=1)], {"x": ["n", 0]}, {"y": ["n", None]}, INDEX)
    assert apply(fold_shapes, model).declined == (
        "Reshape 'n_y' keeps a computed target: it asks for an axis of length 0",
    )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    op_type=st.sampled_from(["Add", "Sub", "Mul", "Div"]),
    at=st.integers(-3, 2),
    by=st.integers(1, 5),
    dtype=st.sampled_from([onnx.TensorProto.INT64, onnx.TensorProto.INT32]),
)
def test_arithmetic_on_fixed_lengths_is_what_the_runtime_computes(
    shape: list[int], op_type: str, at: int, by: int, dtype: int
) -> None:
    nodes = [
        op("Shape", "x", "s"),
        op("Cast", "s", "c", to=dtype),
        op("Cast", "by", "d", to=dtype),
        op("Gather", "c at", "g"),
        op(op_type, "g d", "a"),
        op("Size", "x", "size"),
        op("Cast", "size", "z", to=dtype),
        op("Add", "a z", "b"),
        op("Squeeze", "b", "q"),
        op("Cast", "q", "y", to=onnx.TensorProto.FLOAT),
        op("Cast", "b", "v", to=onnx.TensorProto.FLOAT),
    ]
    constants = {"at": np.asarray([at]), "by": np.asarray(by)}
    model = graph(nodes, {"x": shape}, ["y", "v"], constants)
    assert apply(fold_shapes, model).count > 0
    assert "Shape" not in [node.op_type for node in model.graph if node.outputs[0].uses()]


def test_a_shape_that_is_an_output_stays() -> None:
    nodes = [op("Shape", "x", "y"), op("Gather", "y i0", "g"), op("Identity", "g", "z")]
    model = graph(nodes, {"x": [2, 3]}, ["y", "z"], INDEX)
    apply(fold_shapes, model)
    assert ops(model)[0] == "Shape"


def test_a_length_of_minus_one_in_a_file_is_a_free_axis(tmp_path: Path) -> None:
    """As older exporters store it: onnxruntime takes any length, and no shape is computed from it."""
    rows = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [-1, 3])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [-1, 5])
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["shape"]),
        onnx.helper.make_node("Slice", ["shape", "zero", "one"], ["n"]),
        onnx.helper.make_node("Concat", ["n", "one"], ["times"], axis=0),
        onnx.helper.make_node("Tile", ["row", "times"], ["rows"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"]),
        onnx.helper.make_node("Add", ["product", "rows"], ["y"]),
    ]
    random = np.random.default_rng(0)
    constants = {
        "zero": np.array([0]), "one": np.array([1]),
        "row": random.normal(size=(1, 5)).astype(np.float32), "w": random.normal(size=(3, 5)).astype(np.float32),
    }  # fmt: skip
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [rows], [made], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    read = read_model(tmp_path / "m.onnx")
    assert [spec.shape for spec in input_specs(read)] == [(None, 3)]
    prepare(read)
    x = random.normal(size=(4, 3)).astype(np.float32)
    (y,) = Session(read, threads=1).run({"x": x})
    np.testing.assert_allclose(y, x @ constants["w"] + constants["row"], rtol=1e-5, atol=1e-6)
