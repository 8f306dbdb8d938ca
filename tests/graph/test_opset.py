"""Lowering keeps the meaning: every row of the tables is run in opset 18 and lowered, by ONNX's reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fcdeploy.graph.opset import LOWEST, lower_opset, lowest_ir_version, lowest_opset
from fcdeploy.prepare.pipeline import prepare

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
F = TensorProto.FLOAT


def model(
    op: str, constants: dict[str, np.ndarray] | None = None, dtype: int = F, opset: int = 18, **attributes: object
) -> ir.Model:
    """One node on input x, with constants as further inputs ("" leaves one out)."""
    constants = constants or {}
    node = helper.make_node(op, ["x", *("" if key.startswith("_") else key for key in constants)], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", F if "to" in attributes else dtype, list(X.shape))],
        [helper.make_tensor_value_info("y", TensorProto.INT64 if op == "Shape" else dtype, None)],
        [numpy_helper.from_array(value, key) for key, value in constants.items() if not key.startswith("_")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def run(lowered: ir.Model) -> np.ndarray:
    proto = ir.to_proto(lowered)
    onnx.checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto).run(None, {"x": X})[0]


I64 = np.int64
AS_13 = {
    "mean over two axes": ("ReduceMean", {"axes": np.array([2, 3], I64)}, {"keepdims": 0}),
    "max over all": ("ReduceMax", {}, {"keepdims": 1}),
    "l2 with negative axis": ("ReduceL2", {"axes": np.array([-1], I64)}, {"noop_with_empty_axes": 0}),
    "reshape, allowzero without zero": ("Reshape", {"shape": np.array([-1, 48], I64)}, {"allowzero": 1}),
    "reshape, zero copies": ("Reshape", {"shape": np.array([0, -1], I64)}, {"allowzero": 0}),
    "whole shape": ("Shape", {}, {"start": 0}),
    "pad": ("Pad", {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], I64)}, {}),
    "resize": (
        "Resize",
        {"_roi": X, "scales": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "nearest", "antialias": 0, "keep_aspect_ratio_policy": "stretch"},
    ),
    "scatter": (
        "ScatterND",
        {"indices": np.array([[0]], I64), "updates": np.ones((1, 3, 4, 4), np.float32)},
        {"reduction": "none"},
    ),
    "leaky relu": ("LeakyRelu", {}, {"alpha": 0.1}),
    "add": ("Add", {"b": np.float32(2)}, {}),
    "power": ("Pow", {"e": np.float32(2)}, {}),
}


@pytest.mark.parametrize("name", AS_13)
def test_a_node_that_uses_nothing_newer_is_lowered_to_13_and_computes_the_same(name: str) -> None:
    op, constants, attributes = AS_13[name]
    before = run(model(op, constants, **attributes))
    lowered = model(op, constants, **attributes)
    assert lowest_opset(lowered) == (LOWEST, "")
    lower_opset(lowered, LOWEST)
    assert lowered.opset_imports == {"": 13}
    np.testing.assert_array_equal(run(lowered), before)


NEWER = {
    "reshape to nothing": (14, "Reshape", {"shape": np.array([0, 5], I64)}, {"allowzero": 1}),
    "part of a shape": (15, "Shape", {}, {"start": 1}),
    "hard swish": (14, "HardSwish", {}, {}),
    "layer normalization": (17, "LayerNormalization", {"scale": np.ones(4, np.float32)}, {}),
    "mish": (18, "Mish", {}, {}),
    "pad of chosen axes": (18, "Pad", {"pads": np.array([1, 1], I64), "_v": X, "axes": np.array([2], I64)}, {}),
    "split in equal parts": (18, "Split", {}, {"num_outputs": 1, "axis": 1}),
    "anti-aliased resize": (
        18,
        "Resize",
        {"_roi": X, "scales": np.array([1, 1, 0.5, 0.5], np.float32)},
        {"mode": "linear", "antialias": 1},
    ),
    "scatter, add": (
        16,
        "ScatterND",
        {"indices": np.array([[0]], I64), "updates": np.ones((1, 3, 4, 4), np.float32)},
        {"reduction": "add"},
    ),
    "scatter, max": (
        18,
        "ScatterND",
        {"indices": np.array([[0]], I64), "updates": np.ones((1, 3, 4, 4), np.float32)},
        {"reduction": "max"},
    ),
    "reduction that may do nothing": (18, "ReduceMean", {}, {"noop_with_empty_axes": 1}),
}


@pytest.mark.parametrize("name", NEWER)
def test_a_node_that_uses_something_newer_keeps_the_opset_that_has_it_and_is_named(name: str) -> None:
    opset, op, constants, attributes = NEWER[name]
    found = model(op, constants, **attributes)
    assert lowest_opset(found) == (opset, f"{op} {found.graph[0].name!r}")
    lower_opset(found, opset)
    if opset < 18 and "nothing" not in name:
        np.testing.assert_allclose(run(found), run(model(op, constants, **attributes)), rtol=1e-6)


@pytest.mark.parametrize(("op", "dtype", "opset"), [("Relu", TensorProto.INT32, 14), ("Add", TensorProto.INT8, 14)])
def test_types_that_came_later_count_too(op: str, dtype: int, opset: int) -> None:
    constants = {"b": np.array(1, np.int8)} if op == "Add" else {}
    assert lowest_opset(model(op, constants, dtype))[0] == opset


def test_axes_computed_at_run_time_stay_an_input() -> None:
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("ReduceMean", ["x", "b"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, [2, 3]), helper.make_tensor_value_info("a", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", F, None)],
    )
    assert lowest_opset(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])))[0] == 18


ABOVE = {  # op, constants, attributes in opset 28 -> the lowest opset that says the same
    "relu": ("Relu", {}, {}, 13),
    "convolution": ("Conv", {"w": np.ones((2, 3, 3, 3), np.float32)}, {"pads": [1, 1, 1, 1]}, 13),
    "pool": ("AveragePool", {}, {"kernel_shape": [2, 2]}, 13),
    "pool with gaps": ("AveragePool", {}, {"kernel_shape": [2, 2], "dilations": [2, 2]}, 19),
    "pool that ends beyond": ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 19),
    "reshape": ("Reshape", {"shape": np.array([0, -1], I64)}, {}, 13),
    "cast, default said": ("Cast", {}, {"to": F, "saturate": 1}, 13),
    "cast, no saturation": ("Cast", {}, {"to": F, "saturate": 0}, 19),
    "cast to four bits": ("Cast", {}, {"to": TensorProto.INT4}, 21),
    "pad around": ("Pad", {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], I64)}, {"mode": "wrap"}, 19),
    "mean": ("ReduceMean", {"axes": np.array([2, 3], I64)}, {}, 13),
    "gelu": ("Gelu", {}, {}, 20),
    "mish": ("Mish", {}, {}, 18),
}


@pytest.mark.parametrize("name", ABOVE)
def test_a_node_of_the_newest_opset_is_lowered_as_far_as_it_means_the_same(name: str) -> None:
    op, constants, attributes, opset = ABOVE[name]
    newest = min(28, onnx.defs.onnx_opset_version())
    found = model(op, constants, attributes.get("to", F), opset=newest, **attributes)
    assert lowest_opset(found)[0] == opset
    before = run(found)
    lower_opset(found, opset)
    np.testing.assert_array_equal(run(found), before)


def test_a_model_of_an_opset_that_is_not_known_yet_is_left_as_it_is() -> None:
    found = model("LeakyRelu")
    newer = onnx.defs.onnx_opset_version() + 1
    found.opset_imports[""] = newer
    assert lowest_opset(found) == (newer, f"opset above {newer - 1}")


def test_an_operator_that_onnx_does_not_know_keeps_its_model_s_opset() -> None:
    """Where onnxruntime knows more than the installed onnx; such a model is prepared as it is."""
    for opset in (18, onnx.defs.onnx_opset_version() + 1):
        found = model("LeakyRelu")
        found.opset_imports[""] = opset
        next(iter(found.graph)).op_type = "OperatorOfTomorrow"
        assert lowest_opset(found)[0] == opset
        lower_opset(found, opset)
        prepare(found)
        assert [(node.op_type, found.opset_imports[""]) for node in found.graph] == [("OperatorOfTomorrow", opset)]


@pytest.mark.parametrize(("opset", "version"), [(13, 7), (14, 7), (15, 8), (17, 8), (18, 8), (19, 9), (21, 10)])
def test_the_ir_version_is_the_one_that_came_with_the_opset(opset: int, version: int) -> None:
    found = model("LeakyRelu")
    found.opset_imports[""] = opset
    assert lowest_ir_version(found) == version


def test_an_operator_on_a_sequence_keeps_the_opset_it_was_written_in() -> None:
    """Identity takes sequences from 14 on, optionals from 16 on: types that its definitions add one at a time."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
    ends = [onnx.ValueInfoProto(name=name, type=kind) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    made = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8))
    assert lowest_opset(made)[0] == 16
    tensors = model("Identity", opset=16)
    assert lowest_opset(tensors)[0] == LOWEST
