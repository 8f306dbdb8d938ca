"""What is read of a node, against the same model's fields in the protobuf and by its definition in the ONNX standard."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import (
    array_of,
    attribute_of,
    bias_of,
    data_inputs,
    floats_of,
    input_of,
    ints_of,
    is_constant,
    is_op,
    name_of,
    output_axis,
    shape_of,
    subgraphs_of,
    texts_of,
    values_read_by,
    weight_of,
    zero_point_of,
)

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def node_of(op: str, inputs: list[str], **attributes: object) -> ir.Node:
    """The last node of a graph that knows x (fed), w and listed (initializers, the second an input too), told (Constant)."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["told"], value_ints=[2, 3]),
            helper.make_node("Constant", [], ["text"], value_strings=["a"]),
            helper.make_node(op, inputs, ["y"], name="n", **attributes),
        ],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in ("x", "listed")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(W, "listed")],
    )
    return list(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).graph)[-1]


@pytest.mark.parametrize(
    ("name", "expected"), [("w", W), ("listed", W), ("told", [2, 3]), ("text", None), ("x", None), ("", None)]
)
def test_what_stands_in_the_file_is_constant(name: str, expected: object) -> None:
    """An initializer that a caller might override counts: nothing here feeds one. Text is no array of numbers."""
    value = node_of("Sum", [name, "x"]).inputs[0]
    assert is_constant(value) == (expected is not None)
    array = array_of(value)
    assert array is None if expected is None else np.array_equal(np.asarray(expected), array)


def test_attributes_have_the_type_of_their_default() -> None:
    node = node_of("Conv", ["x", "w"], strides=[2, 1], group=3, auto_pad="VALID", alpha=0.5)
    given = (attribute_of(node, "group", 1), attribute_of(node, "alpha", 1.0), attribute_of(node, "auto_pad", "NOTSET"))
    assert given == (3, 0.5, "VALID")
    assert attribute_of(node, "strides", ()) == (2, 1)
    assert attribute_of(node, "pads", (0, 0)) == (0, 0)
    with pytest.raises(FcdeployError, match=r"Conv 'n': attribute 'group' is INT, expected STRING"):
        attribute_of(node, "group", "")


def test_lists_of_floats_and_of_texts() -> None:
    node = node_of("LSTM", ["x"], activations=["Relu", "Tanh"], activation_alpha=[0.5, 1.0], hidden_size=3)
    assert texts_of(node, "activations") == ("Relu", "Tanh")
    assert floats_of(node, "activation_alpha") == (0.5, 1.0)
    assert texts_of(node, "other") == floats_of(node, "other") == ()
    with pytest.raises(FcdeployError, match=r"LSTM 'n': attribute 'hidden_size' is INT, expected STRINGS"):
        texts_of(node, "hidden_size")
    with pytest.raises(FcdeployError, match=r"LSTM 'n': attribute 'activations' is STRINGS, expected FLOATS"):
        floats_of(node, "activations")


def test_lists_are_attributes_or_constant_inputs() -> None:
    assert ints_of(node_of("ReduceMean", ["x"], axes=[1, 2]), "axes", 1) == (1, 2)
    assert ints_of(node_of("ReduceMean", ["x", "told"]), "axes", 1) == (2, 3)
    assert ints_of(node_of("ReduceMean", ["x"]), "axes", 1) == ()
    assert ints_of(node_of("ReduceMean", ["x", "x"]), "axes", 1) is None


def test_inputs_by_their_roles() -> None:
    layer = node_of("Gemm", ["x", "w", "listed"], transB=1)
    assert [name_of(value) for value in (*data_inputs(layer), weight_of(layer), bias_of(layer))] == ["x", "w", "listed"]
    assert (output_axis(layer), output_axis(node_of("Gemm", ["x", "w"])), output_axis(node_of("MatMul", ["x", "w"]))) == (
        0, 1, 1,
    )  # fmt: skip
    assert weight_of(node_of("Gemm", ["x", "x"])) is None
    assert [name_of(value) for value in data_inputs(node_of("Add", ["x", "w"]))] == ["x", "w"]
    pad = node_of("Pad", ["x", "told", "", "told"])
    assert input_of(pad, 2) is None
    assert input_of(pad, 9) is None
    assert name_of(input_of(pad, 2)) == ""
    assert is_op(pad, "Pad")
    assert not is_op(node_of("Pad", ["x"], domain="com.microsoft"), "Pad")
    assert not is_op(None, "Pad")
    with pytest.raises(AssertionError):
        shape_of(pad.outputs[0])
    assert shape_of(pad.inputs[0]) == (3, 4) if pad.inputs[0] is not None else False


def test_bodies_read_from_around_them() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["inner"])],
        "b",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    node = node_of("If", ["flag"], then_branch=branch, else_branch=branch)
    assert len(list(subgraphs_of(node))) == 2
    assert [name_of(value) for value in values_read_by(node)] == ["flag", "x", "w", "x", "w"]


@pytest.mark.parametrize("kind", [None, TensorProto.INT8, TensorProto.UINT16])
def test_zero_points_that_are_left_out_have_the_type_of_what_is_written(kind: int | None) -> None:
    node = node_of("QuantizeLinear", ["x", "told"], **({} if kind is None else {"output_dtype": kind}))
    zero = zero_point_of(node)
    assert zero is not None
    assert (zero.dtype, zero.tolist()) == (helper.tensor_dtype_to_np_dtype(kind or TensorProto.UINT8), 0)
    assert zero_point_of(node_of("QuantizeLinear", ["x", "told", "x"])) is None
    given = zero_point_of(node_of("DequantizeLinear", ["x", "told", "w"]))
    assert given is not None
    assert np.array_equal(given, W)
