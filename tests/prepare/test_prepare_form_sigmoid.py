"""Every spelling of sigmoid and SiLU becomes Sigmoid, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.form_sigmoid import form_sigmoid
from fcdeploy.runtime.session import Session

NUMBERS = {"one": np.float32(1), "ones": np.ones(1, np.float32), "minus": np.float32(-1), "steep": np.float32(-1.702)}
X = np.concatenate([np.linspace(-8, 8, 58), [-200.0, 200.0]]).astype(np.float32).reshape(3, 4, 5)


def spelled(*nodes: onnx.NodeProto, opset: int = 18) -> ir.Model:
    return graph(nodes, {"x": ["n", 4, 5]}, ["y"], NUMBERS, opset=opset)


EXP = [op("Neg", "x", "n"), op("Exp", "n", "e"), op("Add", "e one", "a")]
SIGMOIDS = {
    "reciprocal": [*EXP, op("Reciprocal", "a", "y")],
    "quotient": [*EXP, op("Div", "ones a", "y")],
    "times minus one": [op("Mul", "minus x", "n"), op("Exp", "n", "e"), op("Add", "one e", "a"), op("Div", "one a", "y")],
    "exponentials": [op("Exp", "x", "e"), op("Add", "e one", "a"), op("Div", "e a", "y")],
}  # fmt: skip


@pytest.mark.parametrize("spelling", SIGMOIDS)
def test_a_sigmoid_in_pieces_is_one_operator(spelling: str) -> None:
    model = spelled(*SIGMOIDS[spelling])
    feed = {"x": X if spelling != "exponentials" else np.clip(X, -80, 80)}
    before = Session(model.clone(), threads=1).run(feed)[0]
    assert apply(form_sigmoid, model).count == 1
    assert ops(model) == ["Sigmoid"]
    np.testing.assert_allclose(Session(model, threads=1).run(feed)[0], before, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "left", "gain"),
    [
        ([*EXP, op("Div", "x a", "y")], ["Sigmoid", "Mul"], 1.0),
        ([*EXP, op("Reciprocal", "a", "g"), op("Mul", "x g", "y")], ["Sigmoid", "Mul"], 1.0),
        ([op("Mul", "x steep", "n"), *EXP[1:], op("Div", "x a", "y")], ["Mul", "Sigmoid", "Mul"], 1.702),
    ],
)
def test_silu_is_its_input_times_a_sigmoid(nodes: list[onnx.NodeProto], left: list[str], gain: float) -> None:
    model = spelled(*nodes)
    assert apply(form_sigmoid, model).count == 1
    assert ops(model) == left
    x = X.astype(np.float64)
    expected = x / (1 + np.exp(np.clip(-gain * x, -700, 700)))
    np.testing.assert_allclose(Session(model, threads=1).run({"x": X})[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        [op("Exp", "x", "e"), op("Add", "e one", "a"), op("Div", "one a", "y")],  # sigmoid(-x)
        [op("Neg", "x", "n"), op("Exp", "n", "e"), op("Add", "e steep", "a"), op("Reciprocal", "a", "y")],
        [*EXP, op("Div", "a x", "y")],
    ],
)
def test_what_only_looks_like_it_stays(nodes: list[onnx.NodeProto]) -> None:
    model = spelled(*nodes)
    kept = ops(model)
    assert apply(form_sigmoid, model).count == 0
    assert ops(model) == kept


@pytest.mark.parametrize(
    ("attributes", "left"), [({}, ["Sigmoid", "Mul"]), ({"alpha": 1.5}, ["Mul", "Sigmoid", "Mul"])]
)
def test_the_operator_of_newer_sets(attributes: dict[str, float], left: list[str]) -> None:
    model = spelled(op("Swish", "x", "y", **attributes), opset=24)
    x = X.astype(np.float64)
    expected = x / (1 + np.exp(np.clip(-attributes.get("alpha", 1.0) * x, -700, 700)))
    assert form_sigmoid(model).count == 1
    assert ops(model) == left
    np.testing.assert_allclose(Session(model, threads=1).run({"x": X})[0], expected, atol=1e-5)
