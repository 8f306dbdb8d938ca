"""A hard-sigmoid behind a layer becomes a clip, its slope and offset part of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.prepare.passes.fold_hard_sigmoid import fold_hard_sigmoid


@pytest.mark.parametrize("opset", [10, 13, 18])
@pytest.mark.parametrize("bias", ["", " b"])
def test_the_gate_of_a_convolution_is_a_clip(bias: str, opset: int) -> None:
    nodes = [op("Conv", f"x w{bias}", "c"), op("HardSigmoid", "c", "g", alpha=0.3, beta=0.4), op("Mul", "x g", "y")]
    constants = {"w": normal(4, 4, 1, 1), "b": normal(4)}
    model = graph(nodes, {"x": [2, 4, 3, 3]}, ["y"], constants, opset=opset)
    assert apply(fold_hard_sigmoid, model).count == 1
    assert ops(model) == ["Conv", "Clip", "Mul"]


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_dense_layers(op_type: str) -> None:
    nodes = [op(op_type, "x w", "c"), op("HardSigmoid", "c", "y")]
    model = graph(nodes, {"x": ["n", 4]}, ["y"], {"w": normal(4, 5)})
    assert apply(fold_hard_sigmoid, model).count == 1
    assert ops(model) == ["Gemm", "Clip"]


def test_a_layer_that_others_read_stays() -> None:
    nodes = [op("Conv", "x w", "c"), op("HardSigmoid", "c", "g"), op("Mul", "c g", "y")]
    model = graph(nodes, {"x": [2, 4, 3, 3]}, ["y"], {"w": normal(4, 4, 1, 1)})
    assert apply(fold_hard_sigmoid, model).count == 0


def test_declines_what_is_no_plain_layer() -> None:
    nodes = [op("Gemm", "x w", "c", alpha=0.5), op("HardSigmoid", "c", "y")]
    model = graph(nodes, {"x": ["n", 4]}, ["y"], {"w": normal(4, 5)})
    assert apply(fold_hard_sigmoid, model).declined == (
        "HardSigmoid 'n_y' keeps: Gemm 'n_c' has alpha, beta or transA",
    )


def test_a_slope_that_falls_stays() -> None:
    nodes = [op("Conv", "x w", "c"), op("HardSigmoid", "c", "y", alpha=-0.5)]
    model = graph(nodes, {"x": [2, 4, 3, 3]}, ["y"], {"w": np.ones((4, 4, 1, 1), np.float32)})
    assert apply(fold_hard_sigmoid, model).count == 0
