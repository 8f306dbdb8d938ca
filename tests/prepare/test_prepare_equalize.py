"""Channels out of proportion rescaled by powers of two: no output changes by a bit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import Array, apply, graph, normal, op

from fcdeploy.arithmetic.weights.equalize import FURTHEST, choose_exponents
from fcdeploy.prepare.passes.equalize import equalize


def spread(channels: int, seed: int) -> Array:
    """Factors of 2^-4 to 2^4, one a channel."""
    return np.asarray(2.0 ** np.random.default_rng(seed).integers(-4, 5, channels), np.float32)


def weight(model: ir.Model, layer: int) -> Array:
    """The weight of the layer'th layer."""
    layers = [node for node in model.graph if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    constants = [node.inputs[1].const_value for node in layers if node.inputs[1]]
    return [constant.numpy() for constant in constants if constant is not None][layer]


def ratio(model: ir.Model) -> float:
    """Largest / smallest of range written / range read, over the channels between two convolutions."""
    first, second = weight(model, 0), weight(model, 1)
    r1 = np.abs(first).reshape(len(first), -1).max(axis=1)
    r2 = np.abs(np.moveaxis(second, 1, 0)).reshape(second.shape[1], -1).max(axis=1)
    return float((r1 / r2).max() / (r1 / r2).min())


@settings(max_examples=25, deadline=None)
@given(
    between=st.sampled_from(
        ["Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "Add", "Bounds", "Identity chain"]
    ),
    seed=st.integers(0, 99),
)
def test_two_convolutions_with_something_homogeneous_between(between: str, seed: int) -> None:
    s = spread(8, seed)
    s[0] = 2.0**12
    pool = {"kernel_shape": [2, 2]} if between.endswith("Pool") else {}
    more: dict[str, Array] = {}
    if between == "Identity chain":
        middle = [op("Relu", "a", "m"), op("LeakyRelu", "m", "b")]
    elif between == "PRelu":
        middle, more = [op("PRelu", "a slope", "b")], {"slope": normal(8, 1, 1)}
    elif between == "Add":
        middle, more = [op("Add", "a shift", "b")], {"shift": normal(1, 8, 1, 1)}
    elif between == "Bounds":  # that are not those of one clip, with one that never binds
        high = np.abs(normal(1, 8, 1, 1))
        high[0, 3] = np.inf
        middle, more = (
            [op("Max", "low a", "m"), op("Min", "m high", "b")],
            {"low": -np.abs(normal(8, 1, 1)), "high": high},
        )
    else:
        middle = [op(between, "a", "b", **pool)]
    constants = {
        "w1": normal(8, 3, 3, 3) * s.reshape(-1, 1, 1, 1), "b1": normal(8) * s,
        "w2": normal(5, 8, 1, 1) / s.reshape(1, -1, 1, 1), **more,
    }  # fmt: skip
    model = graph(
        [op("Conv", "x w1 b1", "a"), *middle, op("Conv", "b w2", "y")], {"x": ["n", 3, 6, 6]}, ["y"], constants
    )
    before = ratio(model)
    changes = apply(equalize, model, tolerance=0)
    assert changes.count == 1
    assert ratio(model) < before


@pytest.mark.parametrize("behind", ["Mul", "HardSwish"])
def test_a_channel_that_one_mul_makes_large_and_another_small_is_like_the_others(behind: str) -> None:
    """Behind a function that no factor passes; what a Sigmoid or a HardSwish reads keeps its scale."""
    size = np.ones((8, 1, 1), np.float32)
    size[3] = 2.0**10
    last = [op("Mul", "l off", "s"), op("Conv", "s w2", "y")] if behind == "Mul" else [op("HardSwish", "l", "y")]
    constants = {"w1": normal(8, 3, 1, 1), "w2": normal(5, 8, 1, 1), "size": size, "off": 1 / size}
    if behind == "Mul":
        del constants["w1"]
        first = [op("HardSwish", "x", "h")]
    else:  # a layer writes what the Mul reads
        constants = {"w1": normal(8, 8, 1, 1) / size[..., None], "size": size}
        first = [op("Conv", "x w1", "a"), op("Relu", "a", "h")]
    model = graph([*first, op("Mul", "size h", "l"), *last], {"x": ["n", 8, 6, 6]}, ["y"], constants, opset=14)
    assert apply(equalize, model, tolerance=0).count
    muls = [node for node in model.graph if node.op_type == "Mul"]
    rows = [np.abs(value.const_value.numpy()) for node in muls for value in node.inputs if value and value.const_value]
    assert len(rows) == len(muls)
    assert all(row.max() <= 32 * row.min() for row in rows)


@pytest.mark.parametrize("inputs", ["a c", "c a"])
def test_a_slope_that_is_computed_keeps_its_scale(inputs: str) -> None:
    s = spread(8, 1).reshape(-1, 1, 1, 1)
    constants = {"w1": normal(8, 3, 3, 3) * s, "w2": normal(5, 8, 1, 1), "w3": normal(8, 3, 3, 3) * s}
    nodes = [op("Conv", "x w1", "a"), op("Conv", "x w3", "c"), op("PRelu", inputs, "b")]
    nodes += [op("Conv", f"{read} w2", f"{read}2") for read in "abc"]
    apply(equalize, graph(nodes, {"x": ["n", 3, 6, 6]}, ["a2", "b2", "c2"], constants), tolerance=0)


def test_a_residual_stream_has_one_factor_per_channel() -> None:
    """Everything that writes or reads the tensors of a sum is rescaled alike, a layer that does both as well."""
    s = np.asarray([16, 1, 1 / 16, 1, 1, 4], np.float32)
    along, across = s.reshape(-1, 1, 1, 1), s.reshape(1, -1, 1, 1)
    constants = {
        "w0": normal(6, 3, 1, 1) * along,
        "w1": normal(6, 6, 3, 3) * along / across, "b1": normal(6) * s,
        "w2": normal(4, 6) / s,
    }  # fmt: skip
    nodes = [
        op("Conv", "x w0", "a"), op("Conv", "a w1 b1", "c", pads=[1, 1, 1, 1]), op("Add", "a c", "sum"),
        op("Relu", "sum", "r"), op("GlobalAveragePool", "r", "g"), op("Flatten", "g", "f"),
        op("Gemm", "f w2", "y", transB=1),
    ]  # fmt: skip
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants)
    assert apply(equalize, model, tolerance=0).count == 1
    largest = np.abs(weight(model, 0)).reshape(6, -1).max(axis=1)
    assert largest.max() / largest.min() < 64


@pytest.mark.parametrize("gate", ["e a", "a e"])
def test_through_squeeze_excitation(gate: str) -> None:
    """The gate reads all channels and keeps its scale; what it lets through is rescaled with all that reads or writes it."""
    s = spread(8, 3)
    s[0] = 2.0**12
    constants = {
        "w1": normal(8, 3, 3, 3) * s.reshape(-1, 1, 1, 1), "b1": normal(8) * s,
        "down": normal(2, 8, 1, 1) / s.reshape(1, -1, 1, 1), "up": normal(8, 2, 1, 1),
        "w2": normal(5, 8, 1, 1) / s.reshape(1, -1, 1, 1),
    }  # fmt: skip
    nodes = [
        op("Conv", "x w1 b1", "c"), op("Relu", "c", "a"), op("GlobalAveragePool", "a", "p"), op("Conv", "p down", "d"),
        op("Relu", "d", "r"), op("Conv", "r up", "u"), op("Sigmoid", "u", "e"), op("Mul", gate, "b"),
        op("Conv", "b w2", "y"),
    ]  # fmt: skip
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants)
    up = weight(model, 2).copy()
    assert apply(equalize, model, tolerance=0).count == 1
    written = np.abs(weight(model, 0)).reshape(8, -1).max(axis=1)
    assert written.max() / written.min() < 64 < s.max() / s.min()
    np.testing.assert_array_equal(weight(model, 2), up)  # a Sigmoid is seen by what it is given


def test_depthwise_and_transposed_layers_in_between() -> None:
    s, t = (
        np.roll(np.asarray([16, 1, 1 / 16, 1, 4, 1], np.float32), 1),
        np.asarray([1 / 16, 2, 1, 16, 1, 1], np.float32),
    )
    constants = {
        "w1": normal(6, 4, 1, 1) * s.reshape(-1, 1, 1, 1),
        "dw": normal(6, 1, 3, 3) * (t / s).reshape(-1, 1, 1, 1), "b": normal(6) * t,
        "up": normal(6, 5, 2, 2) / t.reshape(-1, 1, 1, 1),
    }  # fmt: skip
    nodes = [
        op("Conv", "x w1", "a"), op("Relu", "a", "r"), op("Conv", "r dw b", "d", group=6, pads=[1, 1, 1, 1]),
        op("Relu", "d", "e"), op("ConvTranspose", "e up", "y", strides=[2, 2]),
    ]  # fmt: skip
    model = graph(nodes, {"x": ["n", 4, 6, 6]}, ["y"], constants)
    before = ratio(model)
    assert apply(equalize, model, tolerance=0).count >= 1  # how many rounds neighbours take depends on the weights
    assert ratio(model) < before / 4


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        ([op("Clip", "a low high", "b")], "a clip at 6 is not homogeneous"),
        ([op("Sigmoid", "a", "b")], "neither is a sigmoid"),
        ([op("Pow", "a shift", "b")], "a power is not homogeneous"),
        ([op("Softmax", "a", "b", axis=1)], "channels are mixed"),
    ],
)
def test_what_is_not_homogeneous_is_left_alone(middle: list[object], why: str) -> None:
    s = spread(8, 1).reshape(-1, 1, 1, 1)
    constants = {
        "w1": normal(8, 3, 1, 1) * s, "w2": normal(5, 8, 1, 1) / s.reshape(1, -1, 1, 1),
        "low": np.float32(0), "high": np.float32(6), "shift": np.full((1, 8, 1, 1), 2, np.float32),
    }  # fmt: skip
    nodes = [op("Conv", "x w1", "a"), *middle, op("Conv", "b w2", "y")]
    used = {name: array for name, array in constants.items() if name[0] == "w" or any(name in n.input for n in middle)}  # type: ignore[attr-defined]
    model = graph(nodes, {"x": ["n", 3, 4, 4]}, ["y"], used)  # type: ignore[arg-type]
    assert apply(equalize, model, tolerance=0).count == 0, why


def test_graph_outputs_and_ordinary_networks_stay_as_they_are() -> None:
    s = spread(8, 2).reshape(-1, 1, 1, 1)
    nodes = [op("Conv", "x w1", "a"), op("Relu", "a", "b"), op("Conv", "b w2", "y")]
    even = {"w1": normal(8, 3, 3, 3), "w2": normal(5, 8, 1, 1)}
    uneven = {"w1": even["w1"] * s, "w2": even["w2"] / s.reshape(1, -1, 1, 1)}
    assert apply(equalize, graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], even), tolerance=0).count == 0
    assert apply(equalize, graph(nodes, {"x": ["n", 3, 6, 6]}, ["y", "a"], uneven), tolerance=0).count == 0
    assert apply(equalize, graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], uneven), tolerance=0).count == 1


def test_a_layer_that_reads_a_constant_has_no_channels_of_another() -> None:
    weights = {"c": normal(1, 4), "w": normal(4, 3)}
    assert (
        apply(equalize, graph([op("Gemm", "c w", "k"), op("Add", "x k", "y")], {"x": ["n", 3]}, ["y"], weights)).count
        == 0
    )


@settings(max_examples=200, deadline=None)
@given(
    written=st.lists(st.floats(0, 2.0**20, width=32), min_size=1, max_size=12),
    read=st.lists(st.floats(0, 2.0**20, width=32), min_size=1, max_size=12),
)
def test_exponents_bring_ranges_within_a_factor_of_each_other(written: list[float], read: list[float]) -> None:
    count = min(len(written), len(read))
    r1, r2 = np.array(written[:count]), np.array(read[:count])
    found = choose_exponents(r1, r2)
    assert np.abs(found).max() <= FURTHEST
    used = (r1 > 2.0**-40) & (r2 > 2.0**-40)
    assert not found[~used].any()
    after = np.log2(r1[used] / r2[used]) / 2 - found[used]
    within = np.abs(found[used]) < FURTHEST
    if found.any() and within.any():
        assert after[within].max() - after[within].min() <= 1 + 1e-9


def test_exponents_by_hand() -> None:
    assert choose_exponents(np.array([256.0, 1, 1]), np.array([1.0, 1, 1])).tolist() == [4, 0, 0]
    assert choose_exponents(np.array([16.0, 1, 1]), np.array([1.0, 1, 1])).tolist() == [0, 0, 0]  # within proportion
    assert choose_exponents(np.array([0.0, 64, 1]), np.array([1.0, 1, 1])).tolist()[0] == 0
