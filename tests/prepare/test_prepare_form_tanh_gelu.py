"""Every spelling of the GELU by tanh becomes the one for which onnxruntime has a kernel, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.form_tanh_gelu import form_tanh_gelu
from fcdeploy.runtime.kernels import optimize_graph
from fcdeploy.runtime.session import Session

NUMBERS = {
    "c": np.float32(0.044715), "r": np.float32(0.7978846), "rc": np.float32(0.7978846 * 0.044715), "one": np.ones(1, np.float32),
    "half": np.float32(0.5), "two": np.float32(2), "three": np.float32(3), "other": np.float32(0.05),
}  # fmt: skip
X = np.linspace(-6, 6, 60, dtype=np.float32).reshape(3, 4, 5)
SPELLED = ["Relu", "Pow", "Mul", "Add", "Mul", "Tanh", "Add", "Mul", "Mul", "Relu"]

ARGUMENTS = {
    "products": [
        op("Mul", "c x", "a"), op("Mul", "x a", "b"), op("Mul", "x b", "d"), op("Add", "x d", "e"), op("Mul", "r e", "i"),
    ],
    "square": [op("Mul", "x x", "a"), op("Mul", "a x", "b"), op("Mul", "b c", "d"), op("Add", "d x", "e"), op("Mul", "e r", "i")],
    "power": [op("Pow", "x three", "b"), op("Mul", "b c", "d"), op("Add", "x d", "e"), op("Mul", "e r", "i")],
    "x taken out": [op("Pow", "x two", "a"), op("Mul", "rc a", "b"), op("Add", "b r", "d"), op("Mul", "x d", "i")],
}  # fmt: skip
RESULTS = {
    "x of a half": [op("Mul", "half s", "h"), op("Mul", "x h", "y")],
    "half of x": [op("Mul", "x half", "h"), op("Mul", "h s", "y")],
    "half at last": [op("Mul", "x s", "h"), op("Mul", "h half", "y")],
    "halved": [op("Mul", "s x", "h"), op("Div", "h two", "y")],
}


def spelled(argument: list[onnx.NodeProto], result: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [
        op("Relu", "u", "x"),
        *argument,
        op("Tanh", "i", "t"),
        op("Add", "t one", "s"),
        *result,
        op("Relu", "y", "v"),
    ]


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_gelu_by_tanh_is_one_kernel(argument: str, result: str) -> None:
    model = graph(spelled(ARGUMENTS[argument], RESULTS[result]), {"u": ["n", 4, 5]}, ["v"], NUMBERS)
    again = argument == "power" and result == "half of x"
    assert apply(form_tanh_gelu, model).count == (0 if again else 1)
    assert sorted(ops(model)) == sorted(SPELLED)
    assert form_tanh_gelu(model).count == 0
    assert "FastGelu" in [node.op_type for node in optimize_graph(model)]
    x = np.maximum(X, 0).astype(np.float64)
    expected = 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(Session(model, threads=1).run({"u": X})[0], expected, atol=2e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [
            op("Mul", "x x", "a"),
            op("Mul", "a x", "b"),
            op("Mul", "b other", "d"),
            op("Add", "d x", "e"),
            op("Mul", "e r", "i"),
        ],
        [op("Mul", "x x", "a"), op("Mul", "a c", "d"), op("Add", "d x", "e"), op("Mul", "e r", "i")],
    ],
    ids=["another constant", "a square"],
)
def test_what_only_looks_like_it_stays(nodes: list[onnx.NodeProto]) -> None:
    model = graph(spelled(nodes, RESULTS["half of x"]), {"u": ["n", 4, 5]}, ["v"], NUMBERS)
    kept = ops(model)
    assert apply(form_tanh_gelu, model).count == 0
    assert ops(model) == kept


def test_a_tanh_that_others_read_stays() -> None:
    nodes = [*spelled(ARGUMENTS["products"], RESULTS["half of x"]), op("Relu", "t", "w")]
    model = graph(nodes, {"u": ["n", 4, 5]}, ["v", "w"], NUMBERS)
    assert apply(form_tanh_gelu, model).count == 0
