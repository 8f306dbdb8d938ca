"""The emulator of the byte kernels against the real ones, and against a loop that saturates one pair at a time.

On a CPU that adds pairs in 16 bits the real kernels are compared with the saturating variant, elsewhere with the exact;
what such kernels computed is also in a file, so that the saturating variant is checked everywhere.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import avx2_cases
import numpy as np
import pytest
from avx2_cases import run, saturates_here
from byte_convolutions import convolution_sums
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as Tp
from onnx import helper as oh

from fcdeploy.arithmetic.kernels import avx2

Array = np.ndarray[Any, Any]
many = settings(max_examples=60, deadline=None)


EXACT = not saturates_here()


def loop(a: Array, w: Array) -> Array:
    """(M, K) times (N, K), a pair at a time, as the instruction is documented."""
    total = np.zeros((len(a), len(w)), np.int64)
    for m, n in product(range(len(a)), range(len(w))):
        for k in range(0, a.shape[1], 2):
            pair = sum(int(a[m, i]) * int(w[n, i]) for i in range(k, min(k + 2, a.shape[1])))
            total[m, n] += max(-32768, min(32767, pair))
    return total


@many
@given(st.integers(1, 4), st.integers(1, 19), st.integers(1, 5), st.integers(0, 255), st.integers(-9, 9), st.integers())
def test_dense_sums_are_those_of_a_loop(m: int, k: int, n: int, zero: int, weight_zero: int, seed: int) -> None:
    random = avx2_cases.draw(abs(seed) % 2**32)
    a, w = avx2_cases.bytes_like(random, (m, k), np.uint8), avx2_cases.bytes_like(random, (n, k), np.int8)
    correction = zero * w.sum(axis=1, dtype=np.int64) + weight_zero * a.sum(axis=1, dtype=np.int64)[:, None]
    found = avx2.dense_sums(a, w, zero_point=zero, weight_zero_point=weight_zero)
    np.testing.assert_array_equal(found, loop(a, w) - correction + k * zero * weight_zero)
    exact = avx2.dense_sums(a, w, zero_point=zero, weight_zero_point=weight_zero, exact=True)
    np.testing.assert_array_equal(exact, (a.astype(int) - zero) @ (w.astype(int) - weight_zero).T)


@pytest.mark.parametrize("dtypes", [(np.uint8, np.uint8), (np.int8, np.int8)])
def test_other_types_never_saturate(dtypes: tuple[Any, Any]) -> None:
    a, w = np.full((1, 2), np.iinfo(dtypes[0]).min, dtypes[0]), np.full((1, 2), np.iinfo(dtypes[1]).min, dtypes[1])
    a[:], w[:] = (255, 255) if dtypes[0] is np.uint8 else (-128, -128)
    assert avx2.multiply_bytes(a, w) == 2 * int(a[0, 0]) * int(w[0, 0])


def test_pairs_of_a_convolution_are_neighbouring_channels() -> None:
    """Two input channels at one place overflow; two places of one channel do not, unless there is but one channel."""
    x = np.full((1, 2, 1, 2), 255, np.uint8)
    channels = np.array([[[[127, 0]], [[127, 0]]]], np.int8)
    places = np.array([[[[127, 127]], [[0, 0]]]], np.int8)
    assert convolution_sums(x, channels).item() == 32767
    assert convolution_sums(x, places).item() == 64770
    assert convolution_sums(x[:, :1], np.repeat(places[:, :1], 2, axis=0)).ravel().tolist() == [32767, 32767]
    assert convolution_sums(x[:, :1], places[:, :1]).item() == 64770  # one to one is depthwise


def test_outside_is_the_zero_point_and_saturates_with_its_neighbour() -> None:
    x = np.full((1, 1, 1), 255, np.uint8)
    w = np.full((2, 1, 2), 127, np.int8)
    sums = convolution_sums(x, w, zero_point=250, pads=[1, 0])
    assert sums[0, 0, 0] == 32767 - 250 * 2 * 127
    assert convolution_sums(x, w, zero_point=250, pads=[1, 0], exact=True)[0, 0, 0] == 5 * 127


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes of every branch: 1-d to 3-d, groups, depthwise, blocked output channels, padding, strides, dilations."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3, 16]))
    each = draw(st.integers(1, 2) if groups == 16 else st.sampled_from([1, 2, 3, 4, 5, 8, 16]))
    outs = draw(st.integers(1, 2) if groups == 16 else st.sampled_from([1, 3, 5, 16, 24]))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    return {
        "rank": rank, "groups": groups, "channels": groups * each, "outs": groups * outs, "kernel": kernel,
        "space": [(k - 1) * d + draw(st.integers(1, 4)) for k, d in zip(kernel, dilations, strict=True)],
        "strides": [draw(st.integers(1, 2)) for _ in range(rank)], "dilations": dilations,
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * rank)],
        "batch": draw(st.integers(1, 2)), "threads": draw(st.integers(1, 2)), "seed": draw(st.integers(0, 2**32 - 1)),
        "zero": draw(st.integers(0, 255)), "weight_zero": draw(st.sampled_from([0, 0, 0, 5])),
        "types": draw(st.sampled_from([(np.uint8, np.int8)] * 4 + [(np.uint8, np.uint8), (np.int8, np.int8)])),
    }  # fmt: skip


@settings(many, max_examples=150)
@given(convolutions())
def test_convolution_is_the_real_kernel(case: dict[str, Any]) -> None:
    layer = avx2_cases.convolution(case)
    np.testing.assert_array_equal(layer.exact if EXACT else layer.saturating, layer.run(case["threads"]))


@st.composite
def dense_layers(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "m": draw(st.sampled_from([1, 1, 2, 5, 16])), "k": draw(st.sampled_from([1, 2, 3, 7, 32, 33, 130, 389, 771])),
        "n": draw(st.sampled_from([1, 3, 16, 17, 40, 65])), "threads": draw(st.integers(1, 2)),
        "stored": draw(st.booleans()), "zero": draw(st.sampled_from([0, 7, 255])),
        "weight_zero": draw(st.sampled_from([0, 0, 5])), "seed": draw(st.integers(0, 2**32 - 1)),
        "kind": draw(st.sampled_from([np.int8, np.int8, np.int8, np.uint8])),
    }  # fmt: skip


@pytest.mark.parametrize("op", avx2_cases.DENSE_OPS)
@settings(many, max_examples=40)
@given(dense_layers())
def test_dense_layer_is_the_real_kernel(op: str, case: dict[str, Any]) -> None:
    layer = avx2_cases.dense(op, case)
    np.testing.assert_array_equal(layer.exact if EXACT else layer.saturating, layer.run(case["threads"]))


def test_saturating_emulator_is_what_avx2_kernels_computed() -> None:
    """On every CPU: against integers that were recorded where the kernels saturate, `avx2_cases.py` says how."""
    with np.load(avx2_cases.FILE) as file:
        real = dict(file)
    layers = dict(avx2_cases.recorded())
    assert list(layers) == list(real)
    for name, layer in layers.items():
        np.testing.assert_array_equal(layer.saturating, real[name], err_msg=name)
    differs = sum((layer.saturating != layer.exact).any() for layer in layers.values())
    assert differs > len(layers) / 2


@pytest.mark.skipif(EXACT, reason="the kernels of this CPU add in 32 bits")
@pytest.mark.parametrize("threads", avx2_cases.THREADS)
def test_kernels_here_compute_what_was_recorded(threads: int) -> None:
    with np.load(avx2_cases.FILE) as file:
        for name, layer in avx2_cases.recorded():
            np.testing.assert_array_equal(layer.run(threads), file[name], err_msg=name)


@pytest.mark.parametrize("x_scale", [0.013, 0.1, 0.37, 1.7])
@pytest.mark.parametrize("y_scale", [0.011, 0.3, 2.9])
def test_scales_are_multiplied_as_the_runtime_does(x_scale: float, y_scale: float) -> None:
    """Every output lies on a tie but for the rounding of the scales' product, which then decides."""
    half = np.arange(255) + 0.5
    sums = np.full((1, 255), 200 * 111, np.int64)
    x, y = np.float32(x_scale), np.float32(y_scale)
    w = (half * y_scale / (x_scale * 200 * 111)).astype(np.float32)
    constants = {"xs": x, "z": np.uint8(0), "w": np.full((1, 255), 111, np.int8), "ws": w, "ys": y}
    node = oh.make_node("QLinearMatMul", ["a", "xs", "z", "w", "ws", "wz", "ys", "z"], ["y"])
    real = run(node, {"a": np.array([[200]], np.uint8)}, {**constants, "wz": np.zeros(255, np.int8)}, Tp.UINT8)
    np.testing.assert_array_equal(avx2.requantize_sums(sums, (x, w, y), 0), real)


def test_requantize_rounds_halves_to_even_and_clips() -> None:
    sums = np.array([[-3, -1, 1, 3, 5, 2000, -2000]])
    one = np.float32(1)
    assert avx2.requantize_sums(sums, (one, one, np.float32(2)), 10).tolist() == [[8, 10, 10, 12, 12, 255, 0]]
    assert avx2.requantize_sums(sums, (one, one, np.float32(2)), -10, dtype="int8").tolist() == [
        [-12, -10, -10, -8, -8, 127, -128]
    ]
