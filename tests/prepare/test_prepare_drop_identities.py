"""Nodes that return their input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.drop_identities import drop_identities

BIG = np.iinfo(np.int64).max
CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "zeros": np.zeros((1, 3, 1), np.float32),
    "ones": np.ones((3, 1), np.float32),
    "half": np.float32(0.5),
    "no": np.asarray(False),
    "keep": np.asarray([0, 0, 0]),
    "spelled": np.asarray([0, 3, -1]),
    "nothing": np.zeros(6, np.int64),
    "start": np.asarray([0, 0]),
    "end": np.asarray([BIG, 4]),
    "axes": np.asarray([0, 2]),
    "steps": np.asarray([1, 1]),
}


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(
    "node",
    [
        op("Identity", "r", "z"),
        op("Dropout", "r", "z"),
        op("Dropout", "r half no", "z mask"),
        op("Cast", "r", "z", to=onnx.TensorProto.FLOAT),
        op("Reshape", "r keep", "z"),
        op("Reshape", "r spelled", "z"),
        op("Transpose", "r", "z", perm=[0, 1, 2]),
        op("Pad", "r nothing", "z"),
        op("Slice", "r start end axes", "z"),
        op("Slice", "r start end axes steps", "z"),
        op("Concat", "r", "z", axis=1),
        op("Sum", "r", "z"),
        op("Max", "r", "z"),
        op("Add", "r zero", "z"),
        op("Add", "zeros r", "z"),
        op("Sub", "r zeros", "z"),
        op("Mul", "ones r", "z"),
        op("Div", "r one", "z"),
    ],
    ids=lambda node: node.op_type,
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_dropped(node: onnx.NodeProto, opset: int, at_the_end: bool) -> None:
    nodes = [op("Relu", "x", "r"), node] + ([] if at_the_end else [op("Sigmoid", "z", "y")])
    model = graph(nodes, {"x": ["n", 3, 4]}, ["z" if at_the_end else "y"], CONSTANTS, opset=opset)
    assert apply(drop_identities, model).count == 1
    assert ops(model) == ["Relu"] + ([] if at_the_end else ["Sigmoid"])


@pytest.mark.parametrize(
    "node",
    [
        op("Add", "r half", "z"),
        op("Add", "r wide", "z"),
        op("Add", "r long", "z"),
        op("Sub", "zero r", "z"),
        op("Div", "one r", "z"),
        op("Cast", "r", "z", to=onnx.TensorProto.DOUBLE),
        op("Transpose", "r", "z"),
        op("Reshape", "r flat", "z"),
        op("Slice", "r start short axes", "z"),
        op("Dropout", "r half yes", "z"),
        op("Expand", "r larger", "z"),
    ],
    ids=lambda node: f"{node.op_type} {node.input[1] if len(node.input) > 1 else ''}",
)
def test_kept(node: onnx.NodeProto) -> None:
    constants: dict[str, np.ndarray[Any, Any]] = {
        **CONSTANTS,
        "wide": np.zeros((1, 1, 1, 1), np.float32),
        "long": np.zeros((2, 1, 1), np.float32),
        "flat": np.asarray([0, -1]),
        "short": np.asarray([BIG, 3]),
        "yes": np.asarray(True),
        "larger": np.asarray([2, 1, 1]),
    }
    model = graph([op("Sigmoid", "x", "r"), node, op("Identity", "z", "y")], {"x": [1, 3, 4]}, ["y"], constants)
    if node.op_type == "Dropout":  # random, so its output cannot be compared
        assert drop_identities(model).count == 1
    else:
        assert apply(drop_identities, model).count == 1
    assert ops(model) == ["Sigmoid", node.op_type]


def test_a_dropout_whose_mask_is_read_stays() -> None:
    nodes = [op("Dropout", "x", "z mask"), op("Cast", "mask", "m", to=1), op("Add", "z m", "y")]
    assert apply(drop_identities, graph(nodes, {"x": ["n", 3]}, ["y"])).count == 0


def test_two_transposes_that_undo_each_other() -> None:
    nodes = [
        op("Transpose", "x", "a", perm=[0, 2, 3, 1]),
        op("Transpose", "a", "b", perm=[0, 3, 1, 2]),
        op("Relu", "b", "y"),
    ]
    model = graph(nodes, {"x": ["n", 3, 4, 5]}, ["y"])
    assert apply(drop_identities, model).count == 1
    assert model.graph.outputs[0].producer().inputs[0] is model.graph.inputs[0]  # type: ignore[union-attr]


def test_outputs_keep_their_names_where_one_value_has_two() -> None:
    nodes = [op("Relu", "x", "a"), op("Identity", "a", "b"), op("Identity", "a", "c"), op("Identity", "x", "d")]
    model = graph(nodes, {"x": ["n", 3]}, ["a", "b", "c", "d"])
    changes = apply(drop_identities, model)
    assert changes.count == 0
    assert changes.declined[0] == "Identity 'n_b' keeps: output 'b' and value 'a' need a name each"
    model = graph(nodes[:3], {"x": ["n", 3]}, ["b", "c"])
    assert apply(drop_identities, model).count == 1
    assert ops(model) == ["Relu", "Identity"]


def test_a_value_that_a_subgraph_captures_survives() -> None:
    """The bodies of an If read the output of an Identity."""
    branches = []
    for name, op_type in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = onnx.helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, ["n", 3])
        branches.append((name, onnx.helper.make_graph([op(op_type, "z", f"{name}_y")], name, [], [out])))
    nodes = [op("Sigmoid", "x", "s"), op("Identity", "s", "z"), op("If", "flag", "y", **dict(branches))]
    for flag in (True, False):
        model = graph(nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, {"flag": np.asarray(flag)})
        assert apply(drop_identities, model).count == 1
        assert ops(model) == ["Sigmoid", "If"]
