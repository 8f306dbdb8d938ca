"""Padding that nodes compute by themselves, written out as pads: onnxruntime's answers stay, free lengths are declined."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.prepare.passes.fold_pads import fold_pads
from fcdeploy.prepare.passes.form_pads import RULES, form_pads

SIZES = st.lists(st.integers(5, 9), min_size=2, max_size=2)  # a kernel of 3, dilated, fits
SMALL = st.lists(st.integers(1, 3), min_size=2, max_size=2)


def node_with(op_type: str, kernel: list[int], **attributes: Any) -> tuple[list[Any], dict[str, Any]]:
    """One node of four channels, and its constants."""
    if op_type in ("Conv", "ConvTranspose"):
        return [op(op_type, "x w", "y", **attributes)], {"w": normal(4, 4, *kernel)}
    return [op(op_type, "x", "y", kernel_shape=kernel, **attributes)], {}


def has_rule(model: Any) -> bool:
    return not {*RULES}.isdisjoint(model.graph[0].attributes)


@settings(max_examples=60, deadline=None)
@given(
    op_type=st.sampled_from(["Conv", "MaxPool", "AveragePool"]),
    mode=st.sampled_from(["SAME_LOWER", "SAME_UPPER", "VALID"]),
    size=SIZES,
    kernel=SMALL,
    strides=SMALL,
    dilation=st.integers(1, 2),
)
def test_auto_pad(
    op_type: str, mode: str, size: list[int], kernel: list[int], strides: list[int], dilation: int
) -> None:
    dilations = {"dilations": [dilation, 1]} if op_type == "Conv" and mode == "VALID" else {}  # others do not run
    strides = [min(pair) for pair in zip(strides, kernel, strict=True)]  # onnxruntime runs no other pool with auto_pad
    nodes, constants = node_with(op_type, kernel, auto_pad=mode, strides=strides, **dilations)
    model = graph(nodes, {"x": ["n", 4, *size]}, ["y"], constants)
    assert apply(form_pads, model).count == 1
    assert not has_rule(model)


@settings(max_examples=40, deadline=None)
@given(
    size=SIZES,
    kernel=st.integers(2, 3),
    stride=st.integers(1, 4),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
)
def test_a_max_pool_that_rounds_up(size: list[int], kernel: int, stride: int, pads: list[int]) -> None:
    nodes, _ = node_with("MaxPool", [kernel, kernel], ceil_mode=1, strides=[stride, stride], pads=pads)
    model = graph(nodes, {"x": ["n", 4, *size]}, ["y"])
    assert apply(form_pads, model).count == 1
    assert not has_rule(model)


@settings(max_examples=40, deadline=None)
@given(
    size=SIZES,
    kernel=st.integers(2, 4),
    stride=st.integers(1, 2),
    mode=st.sampled_from(["SAME_LOWER", "SAME_UPPER", "VALID", "NOTSET"]),
    shorter=st.one_of(st.none(), st.integers(0, 2)),
)
def test_a_transposed_convolution(size: list[int], kernel: int, stride: int, mode: str, shorter: int | None) -> None:
    told: dict[str, Any] = {"auto_pad": mode, "strides": [stride, stride]}
    if shorter is not None:
        told["output_shape"] = [(n - 1) * stride + kernel - shorter for n in size]
    nodes, constants = node_with("ConvTranspose", [kernel, kernel], kernel_shape=[kernel, kernel], **told)
    model = graph(nodes, {"x": ["n", 4, *size]}, ["y"], constants)
    assert apply(form_pads, model).count == (mode != "NOTSET" or shorter is not None)
    assert mode == "NOTSET" or not has_rule(model)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_free_length(stride: int) -> None:
    """The same pads do for all lengths where the stride is one."""
    nodes, constants = node_with("Conv", [4, 3], auto_pad="SAME_LOWER", strides=[1, stride])
    model = graph(nodes, {"x": ["n", 4, "height", "width"]}, ["y"], constants)
    changes = apply(form_pads, model, feeds={"x": normal(2, 4, 6, 7)})
    assert changes.count == (stride == 1)
    if stride == 2:
        assert changes.declined == ("Conv 'n_y' keeps: the length of its input is not known before it runs",)


@pytest.mark.parametrize(
    ("op_type", "kernel", "told", "why"),
    [
        (
            "AveragePool",
            [2, 2],
            {"auto_pad": "SAME_UPPER", "ceil_mode": 1},
            "it has auto_pad and rounds its output size up",
        ),
        ("ConvTranspose", [1, 1], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "it is longer than"),
        ("MaxPool", [3, 2], {"auto_pad": "SAME_LOWER", "dilations": [2, 1]}, "pads a dilated pool as if it were not"),
    ],
)
def test_declined(op_type: str, kernel: list[int], told: dict[str, Any], why: str) -> None:
    nodes, constants = node_with(op_type, kernel, **told)
    model = graph(nodes, {"x": ["n", 4, 6, 6]}, ["y"], constants)
    changes = apply(form_pads, model)
    assert changes.count == 0
    assert why in changes.declined[0]


def test_a_pad_in_front_follows() -> None:
    """What was computed on the padded length and the pad itself are one padding."""
    nodes = [op("Pad", "x p", "z"), op("Conv", "z w", "y", auto_pad="SAME_LOWER", strides=[2, 2])]
    constants = {"w": normal(4, 4, 4, 4), "p": [0, 0, 1, 1, 0, 0, 1, 1]}
    model = graph(nodes, {"x": ["n", 4, 7, 7]}, ["y"], constants)
    assert apply(form_pads, model).count == 1
    assert apply(fold_pads, model).count == 1
    assert ops(model) == ["Conv"]
