"""A bound for each channel becomes a clip again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import Array, apply, count, graph, normal, op, ops, random_feeds, run

from fcdeploy.prepare.passes.level_bounds import level_bounds
from fcdeploy.prepare.pipeline import prepare

BOUND = 0.5  # small enough to bind on normal inputs


def constants(s: Array, **more: Array) -> dict[str, Array]:
    """Two convolutions with the channels between them multiplied by s, and their bounds."""
    along = s.reshape(-1, 1, 1, 1)
    return {
        "w1": normal(len(s), 3, 3, 3) * along, "b1": normal(len(s)) * s, "u": (BOUND * s).reshape(1, -1, 1, 1),
        "w2": normal(5, len(s), 1, 1) / along.reshape(1, -1, 1, 1), **more,
    }  # fmt: skip


def powers(seed: int, channels: int = 8) -> Array:
    return np.asarray(2.0 ** np.random.default_rng(seed).integers(-4, 5, channels), np.float32)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99), first=st.booleans(), between=st.sampled_from(["Relu", "LeakyRelu", "PRelu", "MaxPool", ""])
)
def test_the_clip_that_it_was_bit_for_bit(seed: int, first: bool, between: str) -> None:
    s, more = powers(seed), {}
    middle, read = [], "a"
    if between:
        attributes = {"kernel_shape": [2, 2]} if between == "MaxPool" else {}
        if between == "PRelu":
            more["slope"] = normal(8, 1, 1)
        middle, read = [op(between, "a slope" if more else "a", "m", **attributes)], "m"
    nodes = [
        op("Conv", "x w1 b1", "a"), *middle, op("Min", f"u {read}" if first else f"{read} u", "b"), op("Conv", "b w2", "y"),
    ]  # fmt: skip
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants(s, **more))
    assert apply(level_bounds, model, tolerance=0).count == 1
    bound = next(node for node in model.graph if node.op_type == "Min").inputs[0 if first else 1]
    assert bound is not None and bound.const_value is not None
    assert bound.const_value.shape == ()
    assert float(bound.const_value.numpy()) in BOUND * s


def test_prepare_makes_it_a_clip_and_depthwise_layers_stand_between() -> None:
    s, t = powers(1), powers(2)
    more = {
        "dw": normal(8, 1, 3, 3) * (t / s).reshape(-1, 1, 1, 1), "v": (BOUND * t).reshape(8, 1, 1),
        "w2": normal(5, 8, 1, 1) / t.reshape(1, -1, 1, 1),
    }  # fmt: skip
    nodes = [
        op("Conv", "x w1 b1", "a"), op("Relu", "a", "r"), op("Min", "r u", "b"),
        op("Conv", "b dw", "d", group=8, pads=[1, 1, 1, 1]), op("Relu", "d", "e"), op("Min", "v e", "f"),
        op("Conv", "f w2", "y"),
    ]  # fmt: skip
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants(s, **more))
    feeds = random_feeds(model)
    before = run(model, feeds)[0]
    prepare(model)
    assert ops(model) == ["Conv", "Clip", "Conv", "Clip", "Conv"]
    np.testing.assert_array_equal(run(model, feeds)[0], before)


def test_factors_that_are_no_powers_of_two_differ_by_rounding_alone() -> None:
    s = np.geomspace(0.1, 7.3, 8).astype(np.float32)
    nodes = [op("Conv", "x w1 b1", "a"), op("Relu", "a", "r"), op("Min", "r u", "b"), op("Conv", "b w2", "y")]
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], constants(s))
    assert apply(level_bounds, model).count == 1


def test_a_lower_bound_and_equal_ones() -> None:
    s = powers(3)
    lower = constants(s, u=(-BOUND * s).reshape(1, -1, 1, 1))
    nodes = [op("Conv", "x w1 b1", "a"), op("Max", "a u", "b"), op("Conv", "b w2", "y")]
    assert apply(level_bounds, graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], lower), tolerance=0).count == 1
    same = constants(s, u=np.full((1, 8, 1, 1), 2, np.float32))
    for output in (["y"], ["y", "a"]):  # nothing is rescaled, so an output of the graph may stand before it
        model = graph(nodes, {"x": ["n", 3, 6, 6]}, output, same)
        assert apply(level_bounds, model, tolerance=0).count == 1
        assert count(model)["Max"] == 1


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("output", "some channels have to keep their scale"),
        ("sigmoid", "some channels have to keep their scale"),
        ("broadcast", "its input does not keep channels apart"),
        ("zero", "they are not all finite and of one sign"),
        ("infinite", "they are not all finite and of one sign"),
        ("two", "some channels have to keep their scale"),
        ("twice", "two channels of one scale have different ones"),
    ],
)
def test_what_keeps_a_bound_for_each_channel(what: str, why: str) -> None:
    s = powers(4)
    made = constants(s)
    if what in ("zero", "infinite"):
        made["u"][0, 3] = 0 if what == "zero" else np.inf
    nodes = [op("Conv", "x w1 b1", "a"), op("Min", "a u", "b"), op("Conv", "b w2", "y")]
    outputs = ["y", "b"] if what == "output" else ["y"]
    if what == "sigmoid":
        nodes[1:2] = [op("Sigmoid", "a", "g"), op("Min", "g u", "b")]
    if what == "two":  # the first of the two is levelled, and then nothing of it may be rescaled again
        made["v"] = (2 * BOUND * s[::-1]).reshape(1, -1, 1, 1).copy()
        nodes[1:2] = [op("Min", "a u", "m"), op("Min", "m v", "b")]
    if what == "broadcast":
        made["w1"], made["b1"] = normal(1, 3, 3, 3), normal(1)
    if what == "twice":  # channels 0..3 and 4..7 have one scale
        made["w1"], made["b1"] = normal(4, 3, 3, 3), normal(4)
        nodes[1:2] = [op("Concat", "a a", "c", axis=1), op("Min", "c u", "b")]
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, outputs, made)
    changes = apply(level_bounds, model, tolerance=0 if what != "two" else 1e-6)
    assert changes.count == (what == "two")
    assert len(changes.declined) == 1
    assert changes.declined[0].endswith(f"keeps a bound for each channel: {why}")
