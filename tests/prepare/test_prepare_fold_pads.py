"""A Pad of zeros moved into the convolutions and pools behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.prepare.passes.fold_pads import fold_pads

WEIGHT = {"w": normal(6, 3, 3, 3), "zero": np.float32(0), "one": np.float32(1)}


def pads(*values: int) -> dict[str, Any]:
    return {"p": np.asarray(values, np.int64)}


@settings(max_examples=30, deadline=None)
@given(
    around=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    own=st.sampled_from([None, [0, 0, 0, 0], [1, 0, 2, 1]]),
    stride=st.integers(1, 2),
    form=st.sampled_from(["attribute", "input", "value", "axes"]),
)
def test_into_a_convolution(around: list[int], own: list[int] | None, stride: int, form: str) -> None:
    top, left, bottom, right = around
    opset = {"attribute": 10, "input": 13, "value": 17, "axes": 18}[form]
    whole = [0, 0, top, left, 0, 0, bottom, right]
    constants = dict(WEIGHT)
    if form == "attribute":
        pad = op("Pad", "x", "z", pads=whole)
    elif form == "axes":
        pad = op("Pad", "x p - axes", "z")
        constants |= pads(left, top, right, bottom) | {"axes": np.asarray([-1, 2])}
    else:
        pad = op("Pad", "x p" if form == "input" else "x p zero", "z")
        constants |= pads(*whole)
    conv = op("Conv", "z w", "y", strides=[stride, stride], **({} if own is None else {"pads": own}))
    model = graph([pad, conv], {"x": ["n", 3, 7, 6]}, ["y"], constants, opset=opset)
    assert apply(fold_pads, model).count == 1
    assert ops(model) == ["Conv"]


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_ranks_and_several_readers(dimensions: int) -> None:
    around = [0, 0, *[1] * dimensions, 0, 0, *[2] * dimensions]
    nodes = [op("Pad", "x p", "z"), op("Conv", "z w", "y0"), op("Conv", "z w", "y1", auto_pad="VALID")]
    constants = {"w": normal(6, 3, *[3] * dimensions), **pads(*around)}
    model = graph(nodes, {"x": ["n", 3, *[5] * dimensions]}, ["y0", "y1"], constants)
    assert apply(fold_pads, model).count == 1
    assert ops(model) == ["Conv", "Conv"]


@pytest.mark.parametrize("own", [None, [1, 1, 1, 1]])
@pytest.mark.parametrize("counted", [0, 1])
def test_into_an_average_pool(own: list[int] | None, counted: int) -> None:
    extra = {} if own is None else {"pads": own}
    pool = op("AveragePool", "z", "y", kernel_shape=[3, 3], count_include_pad=counted, **extra)
    model = graph([op("Pad", "x p", "z"), pool], {"x": ["n", 3, 6, 5]}, ["y"], pads(0, 0, 1, 0, 0, 0, 1, 1))
    changes = apply(fold_pads, model)
    if own and not counted:
        assert "leaves its own padding out of the mean" in changes.declined[0]
    else:
        assert ops(model) == ["AveragePool"]


@pytest.mark.parametrize("before", ["Relu", "Sigmoid", "Clip"])
def test_into_a_max_pool_of_what_is_never_negative(before: str) -> None:
    first = op("Clip", "x one", "r") if before == "Clip" else op(before, "x", "r")
    nodes = [first, op("Pad", "r p", "z"), op("MaxPool", "z", "y", kernel_shape=[3, 3], strides=[2, 2])]
    model = graph(nodes, {"x": ["n", 3, 6, 6]}, ["y"], {**WEIGHT, **pads(0, 0, 1, 1, 0, 0, 1, 1)})
    assert apply(fold_pads, model).count == 1
    assert ops(model) == [before, "MaxPool"]


MAX = {"kernel_shape": [3, 3]}


@pytest.mark.parametrize(
    ("pad", "reader", "around", "why"),
    [
        (
            op("Pad", "x p", "z", mode="reflect"),
            op("Conv", "z w", "y"),
            (0, 0, 1, 1, 0, 0, 1, 1),
            "its mode is 'reflect'",
        ),
        (
            op("Pad", "x p one", "z"),
            op("Conv", "z w", "y"),
            (0, 0, 1, 1, 0, 0, 1, 1),
            "does not pad with a constant zero",
        ),
        (op("Pad", "x p", "z"), op("Conv", "z w", "y"), (0, 0, -1, 1, 0, 0, 1, 1), "it crops (a pad is negative)"),
        (op("Pad", "x p", "z"), op("Conv", "z w", "y"), (1, 0, 1, 1, 0, 0, 1, 1), "it pads the batch or the channels"),
        (op("Pad", "x p", "z"), op("Relu", "z", "y"), (0, 0, 1, 1, 0, 0, 1, 1), "Relu 'n_y', which has no padding"),
        (
            op("Pad", "x p", "z"),
            op("Conv", "z w", "y", auto_pad="SAME_UPPER"),
            (0, 0, 1, 1, 0, 0, 1, 1),
            "Conv 'n_y' computes its padding itself (auto_pad)",
        ),
        (
            op("Pad", "x p", "z"),
            op("MaxPool", "z", "y", kernel_shape=[3, 3]),
            (0, 0, 1, 1, 0, 0, 1, 1),
            "MaxPool 'n_y' pads with minus infinity, and 'x' may be negative",
        ),
        (
            op("Pad", "x p", "z"),
            op("AveragePool", "z", "y", kernel_shape=[3, 3]),
            (0, 0, 3, 1, 0, 0, 1, 1),
            "AveragePool 'n_y' has kernel [3, 3], which must be larger than the padding",
        ),
        (
            op("Pad", "x p", "z"),
            op("AveragePool", "z", "y", kernel_shape=[3, 3], ceil_mode=1),
            (0, 0, 1, 1, 0, 0, 1, 1),
            "AveragePool 'n_y' rounds its output size up",
        ),
    ],
)
def test_declines(pad: Any, reader: Any, around: tuple[int, ...], why: str) -> None:
    model = graph([pad, reader], {"x": [2, 3, 6, 6]}, ["y"], {**WEIGHT, **pads(*around)})
    changes = apply(fold_pads, model)
    assert changes.count == 0
    (reason,) = changes.declined
    assert reason.startswith("Pad 'n_z' keeps: ")
    assert why in reason


def test_a_padded_tensor_that_is_an_output_stays() -> None:
    nodes = [op("Pad", "x p", "z"), op("Conv", "z w", "y")]
    model = graph(nodes, {"x": [2, 3, 6, 6]}, ["z", "y"], {**WEIGHT, **pads(0, 0, 1, 1, 0, 0, 1, 1)})
    assert apply(fold_pads, model).declined == ("Pad 'n_z' keeps: its output 'z' is an output of the graph",)
