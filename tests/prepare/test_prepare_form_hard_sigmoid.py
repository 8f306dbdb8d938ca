"""Every spelling of hard-sigmoid and hard-swish becomes HardSigmoid, and computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from prepare_graphs import apply, graph, op, ops

from fcdeploy.prepare.passes.form_hard_sigmoid import form_hard_sigmoid
from fcdeploy.prepare.pipeline import prepare

NUMBERS = {
    "three": np.float32(3), "six": np.float32([6]), "zero": np.float32(0), "sixth": np.float32(1 / 6),
    "half": np.float32(0.5), "one": np.float32(1), "minus": np.float32(-3), "fifth": np.float32(0.2),
}  # fmt: skip
X = np.linspace(-5, 5, 60, dtype=np.float32).reshape(3, 4, 5)


def spelled(*nodes: onnx.NodeProto, opset: int = 18) -> ir.Model:
    return graph(nodes, {"x": ["n", 4, 5]}, ["y"], NUMBERS, opset=opset)


SWISHES = {
    "Paddle": [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Mul", "x c", "m"), op("Div", "m six", "y")],
    "reciprocal": [op("Add", "three x", "a"), op("Clip", "a zero six", "c"), op("Mul", "c x", "m"), op("Mul", "sixth m", "y")],
    "gate first": [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Div", "c six", "g"), op("Mul", "x g", "y")],
    "input first": [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Div", "x six", "d"), op("Mul", "d c", "y")],
    "to one": [op("Mul", "x sixth", "s"), op("Add", "s half", "a"), op("Clip", "a zero one", "c"), op("Mul", "x c", "y")],
    "subtracted": [op("Sub", "x minus", "a"), op("Clip", "a zero six", "c"), op("Mul", "x c", "m"), op("Div", "m six", "y")],
    "operator": [op("HardSwish", "x", "y")],
}  # fmt: skip


@pytest.mark.parametrize("spelling", SWISHES)
def test_hard_swish_is_its_input_times_a_hard_sigmoid(spelling: str) -> None:
    model = spelled(*SWISHES[spelling])
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count > 0
    prepare(model)
    assert ops(model) == ["HardSigmoid", "Mul"]
    gate = model.graph[0]
    np.testing.assert_allclose([gate.attributes[k].as_float() for k in ("alpha", "beta")], [1 / 6, 0.5], rtol=1e-6)


SIGMOIDS = {
    "Paddle": ([op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Div", "c six", "y")], (1 / 6, 0.5)),
    "bounds below zero": ([op("Clip", "x minus three", "c"), op("Add", "c three", "d"), op("Mul", "d sixth", "y")], (1 / 6, 0.5)),
    "slope of a fifth": ([op("Mul", "x fifth", "s"), op("Add", "half s", "a"), op("Clip", "a zero one", "y")], (0.2, 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SIGMOIDS)
def test_hard_sigmoid_is_one_operator(spelling: str) -> None:
    nodes, expected = SIGMOIDS[spelling]
    model = spelled(*nodes)
    apply(form_hard_sigmoid, model, feeds={"x": X})
    prepare(model)
    assert ops(model) == ["HardSigmoid"]
    found = [model.graph[0].attributes[k].as_float() for k in ("alpha", "beta")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bounds_as_attributes() -> None:
    nodes = [
        op("Add", "x three", "a"),
        op("Clip", "a", "c", min=0.0, max=6.0),
        op("Mul", "x c", "m"),
        op("Div", "m six", "y"),
    ]
    model = spelled(*nodes, opset=10)
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count == 1


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([op("Clip", "x zero six", "y")], id="a clip alone"),
        pytest.param([op("Clip", "x zero one", "y")], id="a clip at 0 and 1"),
        pytest.param([op("Add", "x three", "a"), op("Clip", "a zero six", "y")], id="not to 1"),
        pytest.param(
            [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Mul", "x c", "m"), op("Div", "m three", "y")],
            id="a product of another size",
        ),
        pytest.param(
            [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Sigmoid", "x", "s"), op("Mul", "s c", "m"),
             op("Div", "m six", "y")],
            id="times another tensor",
        ),
    ],
)  # fmt: skip
def test_what_is_none_stays(nodes: list[Any]) -> None:
    model = spelled(*nodes)
    before = ops(model)
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count == 0
    assert ops(model) == before


def test_a_step_that_is_read_elsewhere_keeps_its_nodes() -> None:
    nodes = [
        op("Add", "x three", "a"),
        op("Clip", "a zero six", "c"),
        op("Mul", "x c", "m"),
        op("Div", "m six", "d"),
        op("Add", "d c", "y"),
    ]
    assert apply(form_hard_sigmoid, spelled(*nodes), feeds={"x": X}).count == 0


def test_a_vector_is_no_number() -> None:
    nodes = [op("Add", "x row", "a"), op("Clip", "a zero six", "c"), op("Mul", "x c", "m"), op("Div", "m six", "y")]
    model = graph(nodes, {"x": ["n", 4, 5]}, ["y"], {**NUMBERS, "row": np.full(5, 3, np.float32)})
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count == 0


def test_a_product_with_what_is_clipped_is_gated_by_a_line_through_zero() -> None:
    nodes = [op("Add", "x three", "a"), op("Clip", "a zero six", "c"), op("Mul", "a c", "m"), op("Div", "m six", "y")]
    model = spelled(*nodes)
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count == 1
    (gate,) = (node for node in model.graph if node.op_type == "HardSigmoid")
    np.testing.assert_allclose([gate.attributes[k].as_float() for k in ("alpha", "beta")], [1 / 6, 0], atol=1e-7)


def test_what_scales_the_result_further_is_left_to_others() -> None:
    nodes = [*SWISHES["Paddle"][:3], op("Div", "m six", "h"), op("Mul", "h fifth", "s"), op("Add", "s half", "y")]
    model = spelled(*nodes)
    assert apply(form_hard_sigmoid, model, feeds={"x": X}).count == 1
    assert ops(model) == ["HardSigmoid", "Mul", "Mul", "Add"]
