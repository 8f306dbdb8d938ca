"""The plain form of an LSTM's surroundings computes what the exporter's form computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.pytorch.recurrent import simplify_recurrent
from fcdeploy.runtime.session import Session

SIZE, WIDTH = 3, 4


def surrounded(directions: int, start: float) -> ir.Model:
    """x (length, batch, 4) -> LSTM from a constant state -> (length, batch, directions * 3), as torch writes it."""
    numbers = np.random.default_rng(0)
    weights = {
        "W": numbers.standard_normal((directions, 4 * SIZE, WIDTH)).astype(np.float32),
        "R": numbers.standard_normal((directions, 4 * SIZE, SIZE)).astype(np.float32),
        "B": numbers.standard_normal((directions, 8 * SIZE)).astype(np.float32),
        "start": np.float32(start),
        "front": np.array([directions], np.int64),
        "back": np.array([SIZE], np.int64),
        "merged": np.array([5, -1, directions * SIZE], np.int64),  # the example's length, baked in
    }
    direction = "bidirectional" if directions == 2 else "forward"
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=1, end=2),
        helper.make_node("Concat", ["front", "batch", "back"], ["size"], axis=0),
        helper.make_node("Expand", ["start", "size"], ["state"]),
        helper.make_node(
            "LSTM", ["x", "W", "R", "B", "", "state", "state"], ["y"], hidden_size=SIZE, direction=direction
        ),
        helper.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["z", "merged"], ["out"], allowzero=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["length", "batch", WIDTH])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["length", "batch", directions * SIZE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@pytest.mark.parametrize("directions", [1, 2])
def test_the_same_numbers_at_the_length_of_the_example_and_any_other_length_works(directions: int) -> None:
    model = surrounded(directions, start=0.0)
    x = np.random.default_rng(1).standard_normal((5, 2, WIDTH)).astype(np.float32)
    (before,) = Session(model).run({"x": x})
    assert simplify_recurrent(model.graph) == 3
    session = Session(model)
    np.testing.assert_array_equal(session.run({"x": x})[0], before)
    longer = np.concatenate([x, x])
    (after,) = session.run({"x": longer})
    assert after.shape == (10, 2, directions * SIZE)
    np.testing.assert_allclose(after[:5, :, :SIZE], before[:, :, :SIZE], atol=1e-6)  # forwards knows no future
    assert simplify_recurrent(model.graph) == 0


def test_a_state_that_is_not_zero_is_kept() -> None:
    model = surrounded(1, start=0.5)
    x = np.ones((5, 2, WIDTH), np.float32)
    (before,) = Session(model).run({"x": x})
    assert simplify_recurrent(model.graph) == 1
    np.testing.assert_array_equal(Session(model).run({"x": x})[0], before)
    (zero,) = Session(surrounded(1, start=0.0)).run({"x": x})
    assert np.abs(zero - before).max() > 1e-3
