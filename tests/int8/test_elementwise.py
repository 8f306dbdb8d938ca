"""The function behind a tensor, against the runtime's own on the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from prepare_graphs import graph, op, run

from fcdeploy.arithmetic.histogram import make_histogram
from fcdeploy.arithmetic.ranges.mse import mse
from fcdeploy.int8.planning.elementwise import function_behind, within_flat_ends

CONSTANTS = {
    "three": np.float32(3), "six": np.float32([6]), "zero": np.float32(0), "half": np.float32(0.5), "one": np.float32(1),
    "root": np.float32(np.sqrt(2)), "row": np.float32([1, 2, 3, 4]), "two": np.float32(2),
}  # fmt: skip
FUNCTIONS = {
    "hard swish": [op("HardSigmoid", "t", "g", alpha=1 / 6), op("Mul", "t g", "u")],
    "Paddle": [op("Add", "t three", "a"), op("Clip", "a zero six", "c"), op("Mul", "t c", "m"), op("Div", "m six", "u")],
    "SiLU": [op("Sigmoid", "t", "s"), op("Mul", "s t", "u")],
    "GELU": [op("Div", "t root", "d"), op("Erf", "d", "e"), op("Add", "e one", "a"), op("Mul", "t a", "m"),
             op("Mul", "m half", "u")],
    "Mish": [op("Softplus", "t", "p"), op("Tanh", "p", "h"), op("Mul", "t h", "u")],
    "moved": [op("Transpose", "t", "p", perm=[1, 0]), op("LeakyRelu", "p", "l", alpha=0.1),
              op("Transpose", "l", "u", perm=[1, 0])],
    "the rest": [op("Exp", "t", "e"), op("Neg", "e", "n"), op("Elu", "n", "l"), op("Abs", "l", "b"), op("Relu", "b", "r"),
                 op("Pow", "r two", "q"), op("Sub", "q one", "u")],
}  # fmt: skip


def behind(nodes: list[onnx.NodeProto], output: str = "y") -> ir.Model:
    """Softmax -> the nodes -> Softmax, so that neither end is of single numbers."""
    return graph(
        [op("Softmax", "x", "t"), *nodes, op("Softmax", "u", "y")], {"x": ["n", 4]}, [output], CONSTANTS
    )  # fmt: skip


def value(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_is_what_the_runtime_computes(name: str) -> None:
    model = behind(FUNCTIONS[name])
    function = function_behind(value(model, "t"))
    assert function is not None
    alone = graph(FUNCTIONS[name], {"t": ["n", 4]}, ["u"], CONSTANTS)
    x = np.linspace(-4, 4, 200, dtype=np.float32).reshape(-1, 4)
    (expected,) = run(alone, {"t": x})
    np.testing.assert_allclose(function(x.astype(np.float64)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([op("Sigmoid", "t", "s"), op("Softmax", "t", "z"), op("Mul", "s z", "u")], id="read by others"),
        pytest.param([op("Add", "t row", "u")], id="a constant a channel"),
        pytest.param([op("Sigmoid", "t", "s"), op("Mul", "s x", "u")], id="times another tensor"),
        pytest.param([op("Identity", "t", "u"), op("Softmax", "t", "z")], id="two ways"),
    ],
)
def test_there_is_none_where_a_number_meets_others(nodes: list[onnx.NodeProto]) -> None:
    model = behind(nodes)
    function = function_behind(value(model, "t"))
    if function is not None:  # what lies before the meeting is a function still
        assert nodes[0].op_type == "Sigmoid"
        np.testing.assert_allclose(function(np.zeros(1)), 0.5)


def test_a_graph_output_is_read_by_somebody() -> None:
    model = behind([op("Sigmoid", "t", "u")], output="t")
    assert function_behind(value(model, "t")) is None


def test_flat_ends_are_left_out() -> None:
    function = function_behind(value(behind(FUNCTIONS["Paddle"]), "t"))
    assert function is not None
    low, high = within_flat_ends(function, -40.0, 20.0)
    assert -3.1 < low <= -3.0
    assert high == 20.0
    assert within_flat_ends(lambda x: 0 * x, -1.0, 1.0) == (-1.0, 1.0)


def test_the_range_with_least_error_behind_a_function() -> None:
    """Against all pairs of ends, the error measured on the numbers themselves."""
    random = np.random.default_rng(0)
    x = random.normal(size=4000) * 4
    h = make_histogram(x.astype(np.float32))

    def function(v: np.ndarray) -> np.ndarray:
        return v * np.clip(v / 6 + 0.5, 0, 1)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        rounded = np.clip(np.rint((x - low) / step) * step + low, low, high)
        outside = (x < low) | (x > high)
        weight = np.where(outside, 6.0, 1.0)
        return float((weight * (function(rounded) - function(x)) ** 2).sum())

    found = mse(h, function=function)
    ends = [error(low, high) for low in np.linspace(x.min(), -1, 30) for high in np.linspace(4, x.max(), 30)]
    assert error(found.low, found.high) <= 1.15 * min(ends)
    plain = mse(h)
    assert error(found.low, found.high) < error(plain.low, plain.high)
