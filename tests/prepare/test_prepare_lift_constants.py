"""Constant nodes, and weights listed as inputs, as plain initializers."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from networks import Net
from onnx import helper
from prepare_graphs import apply, graph, normal, op

from fcdeploy.prepare.passes.lift_constants import lift_constants, warn_of_defaults


def test_constants_of_every_form_are_lifted() -> None:
    nodes = [
        op("Constant", "", "a", value=onnx.numpy_helper.from_array(normal(3))),
        op("Constant", "", "b", value_float=2.0),
        op("Constant", "", "c", value_floats=[1.0, 2.0, 3.0]),
        op("Constant", "", "i", value_int=1),
        op("Constant", "", "j", value_ints=[0]),
        op("Constant", "", "out", value_floats=[4.0]),
        op("Sum", "x a b c", "s"),
        op("Unsqueeze", "s j", "u"),
        op("Squeeze", "u j", "q"),
        op("Gather", "q i", "y", axis=1),
    ]
    model = graph(nodes, {"x": ["n", 3]}, ["y", "out"])
    changes = apply(lift_constants, model)
    assert changes.count == 5
    assert changes.declined == ("Constant 'n_out' stays: its output 'out' is an output of the graph",)
    assert set(model.graph.initializers) == {"a", "b", "c", "i", "j"}


def test_a_constant_of_text_stays() -> None:
    nodes = [op("Constant", "", "t", value_string="text"), op("Identity", "t", "y")]
    model = graph(nodes, {"x": ["n", 3]}, {"y": [1]})
    assert lift_constants(model).declined == ("Constant 'n_t' stays: it holds no dense tensor of numbers",)


def test_weights_that_are_listed_as_inputs_stop_being_inputs() -> None:
    made = onnx.helper.make_graph(
        [op("MatMul", "x w", "y")],
        "old",
        [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 4]), ("w", [4, 2]))],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 2])],
        [onnx.numpy_helper.from_array(normal(4, 2), "w")],
    )
    old = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=3)
    model = ir.from_proto(old)
    assert lift_constants(model).count == 1
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.ir_version == 4
    onnx.checker.check_model(ir.to_proto(model))


def test_defaults_that_callers_may_override_are_said() -> None:
    """IR version 4 and later: one of several weights listed among the inputs is meant; all of them are an exporter's habit."""
    net = Net(0)
    model = net.output(net.dense(net.input("x", 4), 4, 3)).model()
    model.ir_version = 8
    assert warn_of_defaults(ir.serde.deserialize_model(model)) == []
    listed = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(listed.name, listed.data_type, listed.dims))
    (warning,) = warn_of_defaults(ir.serde.deserialize_model(model))
    assert warning.startswith(f"callers can override {listed.name!r} in the float model")
    for other in model.graph.initializer[1:]:
        model.graph.input.append(helper.make_tensor_value_info(other.name, other.data_type, other.dims))
    assert warn_of_defaults(ir.serde.deserialize_model(model)) == []
