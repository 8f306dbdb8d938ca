"""The matrix that a convolution multiplies its weights with, against the runtime's own convolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.arithmetic.weights.im2col import extract_patches
from fcdeploy.arithmetic.weights.layout import to_rows
from fcdeploy.arithmetic.windows import Window, compute_same_pads
from fcdeploy.runtime.session import Session

EVERYTHING = 10**9


def convolved(x: np.ndarray, weight: np.ndarray, **attributes: object) -> np.ndarray:
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["?"] * x.ndim)], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Session(model.SerializeToString(), threads=1, optimize=False).run({"x": x})[0]


def multiplied(
    x: np.ndarray, weight: np.ndarray, window: Window, groups: int = 1, most: int = EVERYTHING
) -> np.ndarray:
    """(samples, outputs, positions) by the matrix."""
    rows, matrix = to_rows(weight, 0), extract_patches(x, window, groups, most)
    each = len(rows) // groups
    parts = [matrix[g] @ rows[g * each : (g + 1) * each].T for g in range(groups)]
    return np.concatenate(parts, axis=1).reshape(len(x), -1, len(rows)).transpose(0, 2, 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_to_a_convolution(data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 3))
    few = st.tuples(*[st.integers(1, 3)] * spatial)
    kernel, strides, dilations = data.draw(few), data.draw(few), data.draw(few)
    pads = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(spatial))
    groups, inputs, outputs = data.draw(st.sampled_from([(1, 3, 4), (2, 2, 3), (4, 1, 1), (3, 1, 2)]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = random.normal(size=(2, groups * inputs, *[7, 8, 9][:spatial])).astype(np.float32)
    weight = random.normal(size=(groups * outputs, inputs, *kernel)).astype(np.float32)
    window = Window(kernel, strides, tuple(low for low, _ in pads), tuple(high for _, high in pads), dilations)
    attributes = {"strides": strides, "dilations": dilations, "group": groups}
    expected = convolved(x, weight, pads=window.pads, **attributes)
    found = multiplied(x, weight, window, groups)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pads_that_keep_the_size(mode: str, kernel: int, stride: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 2, 10, 7)).astype(np.float32)
    weight = random.normal(size=(3, 2, kernel, kernel)).astype(np.float32)
    size, strides = (kernel, kernel), (stride, stride)
    begins, ends = compute_same_pads(x.shape[2:], size, strides, (1, 1), upper=mode == "SAME_UPPER")
    expected = convolved(x, weight, auto_pad=mode, strides=strides)
    found = multiplied(x, weight, Window(size, strides, begins, ends, (1, 1)))
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(3, 20), width=st.integers(3, 20), most=st.integers(1, 50))
def test_a_part_of_the_positions_is_the_same_in_every_sample(height: int, width: int, most: int) -> None:
    x = np.random.default_rng(1).normal(size=(3, 2, height, width)).astype(np.float32)
    window = Window((3, 3), (1, 1), (0, 0), (0, 0), (1, 1))
    whole, some = extract_patches(x, window, 1, EVERYTHING)[0], extract_patches(x, window, 1, most)[0]
    places = (height - 2) * (width - 2)
    step = max(places // most, 1) | 1
    assert len(some) == 3 * math.ceil(places / step)
    np.testing.assert_array_equal(some, np.concatenate([whole[i * places : (i + 1) * places : step] for i in range(3)]))
    np.testing.assert_array_equal(
        extract_patches(x[1:2], window, 1, most)[0], some[len(some) // 3 : 2 * len(some) // 3]
    )
