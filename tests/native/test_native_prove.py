"""What the proof of native code takes for equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.program.interpret import compute
from fcdeploy.native.program.layers import FloatLayer, Recurrent
from fcdeploy.native.program.steps import Pointwise
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.prove import _make_row, find_scale
from fcdeploy.proof.exact import _compare


def test_nan_is_what_nan_should_be() -> None:
    value = np.array([np.nan, np.inf, 1.0], np.float32)
    other = np.array([np.nan, np.nan, 1.0], np.float32)
    assert [_make_row("n", "what", each, value, 1.0).differ for each in (value, other)] == [0, 1]
    assert [_compare("n", "Log", each, value, of=3, floats=True).differ for each in (value, other)] == [0, 1]


def test_tiny_floats_beside_large_ones_are_held_to_themselves() -> None:
    """An error of half a tiny channel, or of a tiny result of a function, is nothing beside the largest, and is found."""
    x, to = Tensor("x", (1, 3), "float32"), Tensor("y", (1, 2), "float32")
    weight = np.float32([[1, 2, 3], [1e-8, -2e-8, 3e-8]])
    layer = FloatLayer(node="n", inputs=(x,), outputs=(to,), weight=weight, bias=np.zeros(2, np.float32))
    wide = Tensor("x", (1, 3, 2, 2), "float32")
    window = Window((1, 1), (1, 1), (0, 0), (0, 0), (1, 1))
    conv = FloatLayer(
        node="n", inputs=(wide,), outputs=(Tensor("y", (1, 2, 2, 2), "float32"),),
        weight=weight.reshape(2, 3, 1, 1), bias=np.zeros(2, np.float32), window=window,
    )  # fmt: skip
    exp = Pointwise(node="n", inputs=(x,), outputs=(replace(to, shape=(1, 3)),), kind="Exp")
    feeds = [np.float32([[1, 2, 3]]), np.ones((1, 3, 2, 2), np.float32), np.float32([[-30, 2, 3]])]
    places = [(0, 1), (0, 1, 1, 0), (0, 0)]
    for step, given, place in zip((layer, conv, exp), feeds, places, strict=True):
        (expected,) = compute(step, [given])
        scale = find_scale(step, [given], expected)
        wrong = expected.copy()
        wrong[place] *= np.float32(1.5)
        assert np.abs(wrong - expected).max() < 1e-5 * np.abs(expected).max()
        assert [_make_row("n", "what", each, expected, scale).differ for each in (expected, wrong)] == [0, 1]


def test_states_near_zero_are_held_to_what_gates_are() -> None:
    """All of them closed, the last bit of a gate is much of a state: no fault; a hundred thousandth of a gate is one."""
    units, times = 2, 1
    tensors = [Tensor(name, shape, "float32") for name, shape in (("x", (times, 1, 8)), ("y", (times, 1, 2)))]
    step = Recurrent(
        node="n", inputs=(tensors[0],), outputs=(tensors[1], *(Tensor(each, (1, units), "float32") for each in "hc")),
        kind="lstm", weight=np.zeros((8, units), np.float32), scale=None, bias=np.zeros(8, np.float32),
    )  # fmt: skip
    given = [np.full((times, 1, 8), -17, np.float32)]
    expected = compute(step, given)[1]
    assert 0 < np.abs(expected).max() < 1e-7
    scale = find_scale(step, given, expected)
    found = [_make_row("n", "what", expected + np.float32(each), expected, scale).differ for each in (6e-8, 2e-5)]
    assert found == [0, 2]
