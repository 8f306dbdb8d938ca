"""Per-channel multiplications and additions folded into the layer beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.prepare.passes.fold_scale_shift import fold_scale_shift


@settings(max_examples=40, deadline=None)
@given(
    op_type=st.sampled_from(["Mul", "Div", "Add", "Sub"]),
    shape=st.sampled_from([(6, 1, 1), (1, 6, 1, 1), (1, 1, 1), (1,), ()]),
    constant_first=st.booleans(),
    layer=st.sampled_from(["Conv", "ConvTranspose"]),
    opset=st.sampled_from([13, 17, 18, 21]),
)
def test_after_a_convolution(
    op_type: str, shape: tuple[int, ...], constant_first: bool, layer: str, opset: int
) -> None:
    weight = normal(6, 2, 3, 3) if layer == "Conv" else normal(4, 3, 3, 3)
    constants = {"w": weight, "c": np.asarray(np.abs(normal(*shape)) + 0.5, np.float32)}
    nodes = [op(layer, "x w", "z", group=2), op(op_type, "c z" if constant_first else "z c", "y")]
    model = graph(nodes, {"x": ["n", 4, 5, 5]}, ["y"], constants, opset=opset)
    changes = apply(fold_scale_shift, model)
    if op_type == "Div" and constant_first:
        assert changes.declined == ("Div 'n_y' keeps: Div 'n_y' divides by its input",)
    else:
        assert ops(model) == [layer]


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), ()])
@pytest.mark.parametrize("op_type", ["Mul", "Add"])
def test_after_a_dense_layer(op_type: str, shape: tuple[int, ...]) -> None:
    constants = {"w": normal(7, 5), "b": normal(5), "c": np.asarray(normal(*shape), np.float32)}
    model = graph([op("Gemm", "x w b", "z"), op(op_type, "z c", "y")], {"x": ["n", 7]}, ["y"], constants)
    assert apply(fold_scale_shift, model).count == 1
    assert ops(model) == ["Gemm"]


def test_a_batchnorm_that_was_written_as_mul_and_add() -> None:
    nodes = [op("Conv", "x w", "z"), op("Mul", "z s", "m"), op("Add", "m t", "y")]
    constants = {"w": normal(6, 4, 3, 3), "s": normal(6, 1, 1), "t": normal(1, 6, 1, 1)}
    model = graph(nodes, {"x": ["n", 4, 5, 5]}, ["y"], constants)
    assert apply(fold_scale_shift, model).count == 2
    assert ops(model) == ["Conv"]


@pytest.mark.parametrize("op_type", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(6, 1), (1, 6, 1), ()])
@pytest.mark.parametrize("constant_first", [False, True])
def test_behind_a_squeeze_of_a_convolution_along_one_axis(
    op_type: str, shape: tuple[int, ...], constant_first: bool
) -> None:
    """As TensorFlow and JAX write one-dimensional convolutions: the bias is added where the axis of length 1 is gone."""
    constants = {
        "w": normal(6, 4, 5, 1),
        "axes": np.array([-1]),
        "c": np.asarray(np.abs(normal(*shape)) + 0.5, np.float32),
    }
    nodes = [op("Conv", "x w", "z"), op("Squeeze", "z axes", "s"), op(op_type, "c s" if constant_first else "s c", "y")]
    model = graph(nodes, {"x": ["n", 4, 12, 1]}, ["y"], constants)
    apply(fold_scale_shift, model)
    divided = op_type == "Div" and constant_first
    assert ops(model) == (["Conv", "Squeeze", "Div"] if divided else ["Conv", "Squeeze"])


@pytest.mark.parametrize(
    ("axes", "shape", "squeezed_too"),
    [([3], (6, 8), False), ([1], (8, 1), False), ([3], (6, 1), True)],
    ids=["a number a position", "channels that go", "read twice"],
)
def test_a_squeeze_that_stays_in_front(axes: list[int], shape: tuple[int, ...], squeezed_too: bool) -> None:
    channels = 1 if axes == [1] else 6
    constants = {"w": normal(channels, 4, 5, 1), "axes": np.array(axes, np.int64), "c": normal(*shape)}
    nodes = [op("Conv", "x w", "z"), op("Squeeze", "z axes", "s"), op("Add", "s c", "y")]
    nodes += [op("Relu", "s", "r")] if squeezed_too else []
    model = graph(nodes, {"x": ["n", 4, 12, 1]}, ["y", "r"] if squeezed_too else ["y"], constants)
    kept = ops(model)
    assert apply(fold_scale_shift, model).count == 0
    assert ops(model) == kept


def test_a_squeeze_of_all_axes_of_length_1_stays_in_front() -> None:
    """As onnxruntime reads an empty list, whose ends nobody can look at."""
    constants = {"w": normal(6, 4, 5, 1), "axes": np.array([3]), "c": normal(6, 1)}
    nodes = [op("Conv", "x w", "z"), op("Squeeze", "z axes", "s"), op("Add", "s c", "y")]
    model = graph(nodes, {"x": ["n", 4, 12, 1]}, ["y"], constants)
    model.graph.initializers["axes"].const_value = ir.tensor(np.array([], np.int64), name="axes")
    assert fold_scale_shift(model).count == 0


def test_adding_a_bias_leaves_the_weight_alone() -> None:
    constants = {"w": normal(6, 4, 3, 3), "c": normal(6, 1, 1)}
    model = graph([op("Conv", "x w", "z"), op("Add", "z c", "y")], {"x": ["n", 4, 5, 5]}, ["y"], constants)
    weight = model.graph.initializers["w"]
    apply(fold_scale_shift, model)
    assert model.graph[0].inputs[1] is weight


def test_the_normalised_input_moves_into_the_first_layer() -> None:
    """(x - mean) / std: both where there is no padding, the division alone where there is."""
    constants = {
        "w": normal(6, 3, 3, 3),
        "mean": normal(1, 3, 1, 1),
        "std": np.float32([0.9, 1.5, 1.7]).reshape(3, 1, 1),
    }
    for pads, expected in (([0] * 4, ["Conv"]), ([1] * 4, ["Sub", "Conv"])):
        nodes = [op("Sub", "x mean", "a"), op("Div", "a std", "b"), op("Conv", "b w", "y", pads=pads)]
        model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants)
        apply(fold_scale_shift, model)
        assert ops(model) == expected


def test_columns_far_apart_are_normalised_apart_from_the_first_layer() -> None:
    constants = {"w": normal(3, 6), "mean": normal(3), "std": np.float32([0.01, 1.5, 700.0])}
    model = graph(
        [op("Sub", "x mean", "a"), op("Div", "a std", "b"), op("Gemm", "b w", "y")], {"x": ["n", 3]}, ["y"], constants
    )
    changes = apply(fold_scale_shift, model)
    assert ops(model) == ["Sub", "Div", "Gemm"]
    assert any("are scaled by 0.00143 to 100: bytes of one scale would not fit all" in why for why in changes.declined)


def test_the_last_step_of_an_activation_stays_with_it() -> None:
    nodes = [
        op("Add", "x three", "a"),
        op("Clip", "a zero six", "c"),
        op("Mul", "x c", "m"),
        op("Div", "m six", "h"),
        op("Conv", "h w", "y"),
    ]
    constants = {"w": normal(6, 3, 1, 1), "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants)
    assert apply(fold_scale_shift, model).count == 0


@pytest.mark.parametrize(
    ("nodes", "outputs", "constant", "why"),
    [
        ([op("Mul", "z c", "y")], ["y"], normal(1, 1, 5), "its constant 'c' is not one finite number per channel"),
        (
            [op("Add", "z c", "y")],
            ["y"],
            normal(5, 1, 1, 1, 1),
            "its constant 'c' is not one finite number per channel",
        ),
        ([op("Mul", "z c", "y")], ["y"], np.full((4, 1, 1), np.inf), "is not one finite number per channel"),
        ([op("Div", "z c", "y")], ["y"], np.zeros((4, 1, 1)), "Div 'n_y' divides by zero"),
        ([op("Mul", "z c", "y"), op("Add", "z y", "q")], ["q"], normal(4, 1, 1), "its input 'z' is also read by 'n_q'"),
        ([op("Mul", "z c", "y")], ["z", "y"], normal(4, 1, 1), "its input 'z' is also read by the graph's output"),
    ],
)
def test_declines(nodes: list[Any], outputs: list[str], constant: np.ndarray[Any, Any], why: str) -> None:
    constants = {"w": normal(4, 3, 1, 1), "c": constant.astype(np.float32)}
    model = graph([op("Conv", "x w", "z"), *nodes], {"x": [1, 3, 5, 5]}, outputs, constants)
    changes = fold_scale_shift(model)
    assert changes.count == 0
    (reason,) = changes.declined
    assert why in reason


def test_arithmetic_away_from_layers_is_nobodys_business() -> None:
    nodes = [op("Relu", "x", "r"), op("Mul", "r c", "m"), op("Add", "m r", "y")]
    changes = apply(fold_scale_shift, graph(nodes, {"x": ["n", 3]}, ["y"], {"c": normal(3)}))
    assert changes.count == 0
    assert changes.declined == ()
