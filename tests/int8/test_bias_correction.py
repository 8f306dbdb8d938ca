"""Means matched behind an activation, against means computed anew."""

from __future__ import annotations

import numpy as np
import pytest
from networks import Array, Net, quantize_net, random_data

from fcdeploy.int8.refining.bias_correction import find_bend, find_shift, measure_rows, pick_positions


def hard_swish(x: Array) -> Array:
    return x * np.clip(x / 6 + 0.5, 0, 1)


@pytest.mark.parametrize("shape", [(40, 6), (40, 6, 9, 9)])
def test_a_shift_matches_means_behind_a_function(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    exact = (2 * random.normal(size=shape) + 1).astype(np.float32)
    off = np.array([0.3, -0.2, 0.1, 0.0, -0.3, 0.2], np.float32).reshape(1, 6, *[1] * (len(shape) - 2))
    written = [(part + off).astype(np.float32) for part in np.split(np.round(exact * 8) / 8, 4)]
    shift = find_shift(
        written, hard_swish, measure_rows(pick_positions(exact, 81), hard_swish), -off.reshape(6).astype(np.float64), 81
    )
    rest = tuple(i for i in range(len(shape)) if i != 1)
    moved = np.concatenate(written) + shift.reshape(off.shape)
    before, after = (
        np.abs(hard_swish(y).mean(axis=rest) - hard_swish(exact).mean(axis=rest))
        for y in (np.concatenate(written), moved)
    )
    assert after.max() < 0.1 * before.max()


def test_what_is_chance_is_not_corrected() -> None:
    random = np.random.default_rng(1)
    exact = random.normal(size=(16, 500)).astype(np.float32) + 2
    error = random.normal(size=(16, 500)).astype(np.float32)
    truth = measure_rows(pick_positions(exact, 81), hard_swish)
    shift = find_shift([exact + error], hard_swish, truth, -error.mean(axis=0, dtype=np.float64), 81)
    assert np.mean(shift == 0) > 0.4
    assert np.abs(shift).mean() < 0.6 * np.abs(error.mean(axis=0)).mean()


def test_what_counts_as_a_function_behind() -> None:
    found = {}
    for name in ("Relu", "HardSwish", "Sigmoid", "Identity"):
        net = Net(0)
        y = net.dense(net.input("x", 4), 4, 4)
        z = net.op("Mul", y, net.op("HardSigmoid", y, alpha=1 / 6)) if name == "HardSwish" else net.op(name, y)
        model = quantize_net(net.output(net.dense(z, 4, 2)), random_data(0, 8, x=(4,)), correct=False).prepared
        layer = next(node for node in model.graph if node.op_type == "Gemm")
        found[name] = find_bend(layer.outputs[0])
    assert found["Relu"] is None
    assert found["Identity"] is None
    x = np.linspace(-5, 5, 41)
    np.testing.assert_allclose(found["HardSwish"](x), hard_swish(x), atol=1e-6)  # type: ignore[misc]
    assert found["Sigmoid"] is not None
