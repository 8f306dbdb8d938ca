"""Inference fills in types and shapes, whole and graph by graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.prepare.pipeline import prepare
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import Session

FLOAT = TensorProto.FLOAT


def test_a_sequence_of_tensors_stays_one() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x", "two"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "one"], ["y"]),
    ]
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])], [helper.make_tensor_value_info("y", FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array(value), name) for name, value in (("one", 1), ("two", 2))],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    prepare(model)
    parts = next(value for node in model.graph for value in node.outputs if value.name == "parts")
    assert isinstance(parts.type, ir.SequenceType)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(Session(model).run({"x": x})[0], x[:, 2:])


def test_a_name_in_a_body_is_not_that_of_the_graph_around() -> None:
    """Scan's body may call its row `x`, as the whole is called outside."""
    row = [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("x", "z")]
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "body", row[:1], row[1:])
    made = helper.make_graph(
        [helper.make_node("Scan", ["x"], ["y"], num_scan_inputs=1, body=body)], "g",
        [helper.make_tensor_value_info("x", FLOAT, [3, 2])], [helper.make_tensor_value_info("y", FLOAT, [3, 2])],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 16)], ir_version=8))
    infer_shapes(model)
    assert list(model.graph.inputs[0].shape or ()) == [3, 2]
    assert list(next(iter(model.graph.subgraphs())).inputs[0].shape or ()) == [2]
