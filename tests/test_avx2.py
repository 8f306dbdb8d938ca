"""The emulator of the byte kernels against the real ones, and against a loop that saturates one pair at a time.

On a CPU that adds pairs in 16 bits the real kernels are compared with the saturating variant, elsewhere with the exact.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as Tp
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.arithmetic import avx2
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
TYPES = {np.dtype(np.uint8): Tp.UINT8, np.dtype(np.int8): Tp.INT8, np.dtype(np.int32): Tp.INT32}
X_SCALE, Y_ZERO = np.float32(0.02), 100
many = settings(max_examples=60, deadline=None, derandomize=True)


def run(node: onnx.NodeProto, inputs: dict[str, Array], weights: dict[str, Any], out: int, threads: int = 1) -> Array:
    """The output y of a model of one node."""
    graph = oh.make_graph(
        [node],
        "one",
        [oh.make_tensor_value_info(name, TYPES[array.dtype], array.shape) for name, array in inputs.items()],
        [oh.make_tensor_value_info("y", out, None)],
        [nh.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [oh.make_opsetid("", 13), oh.make_opsetid("com.microsoft", 1)]
    model = oh.make_model(graph, opset_imports=opsets, ir_version=8)
    result: Array = Session(model.SerializeToString(), threads=threads).run(inputs)[0]
    return result


def saturates_here() -> bool:
    """One pair, 255 * 127 twice: 64,770, or 32,767 where it is added in 16 bits."""
    node = oh.make_node("MatMulInteger", ["a", "w"], ["y"])
    answer = run(node, {"a": np.full((1, 2), 255, np.uint8)}, {"w": np.full((2, 1), 127, np.int8)}, Tp.INT32)
    assert answer in (64770, 32767)
    return bool(answer == 32767)


EXACT = not saturates_here()


def loop(a: Array, w: Array) -> Array:
    """(M, K) times (N, K), a pair at a time, as the instruction is documented."""
    total = np.zeros((len(a), len(w)), np.int64)
    for m, n in product(range(len(a)), range(len(w))):
        for k in range(0, a.shape[1], 2):
            pair = sum(int(a[m, i]) * int(w[n, i]) for i in range(k, min(k + 2, a.shape[1])))
            total[m, n] += max(-32768, min(32767, pair))
    return total


def bytes_like(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Half of them at an end of the range, so that pairs overflow."""
    info = np.iinfo(dtype)
    array = random.integers(info.min, info.max + 1, shape).astype(dtype)
    extreme = random.random(shape)
    array[extreme < 0.4] = info.max
    array[extreme > 0.9] = info.min
    return array


def scales(random: np.random.Generator, channels: int, reduced: int) -> tuple[Array, np.float32]:
    """Per channel, and of an output that neither vanishes nor always clips."""
    w = random.uniform(0.001, 0.01, channels).astype(np.float32)
    return w, np.float32(X_SCALE * w.mean() * 255 * np.sqrt(reduced) / 2)


@many
@given(st.integers(1, 4), st.integers(1, 19), st.integers(1, 5), st.integers(0, 255), st.integers(-9, 9), st.integers())
def test_dense_sums_are_those_of_a_loop(m: int, k: int, n: int, zero: int, weight_zero: int, seed: int) -> None:
    random = np.random.default_rng(abs(seed))
    a, w = bytes_like(random, (m, k), np.uint8), bytes_like(random, (n, k), np.int8)
    correction = zero * w.sum(axis=1, dtype=np.int64) + weight_zero * a.sum(axis=1, dtype=np.int64)[:, None]
    found = avx2.dense(a, w, zero_point=zero, weight_zero_point=weight_zero)
    np.testing.assert_array_equal(found, loop(a, w) - correction + k * zero * weight_zero)
    exact = avx2.dense(a, w, zero_point=zero, weight_zero_point=weight_zero, exact=True)
    np.testing.assert_array_equal(exact, (a.astype(int) - zero) @ (w.astype(int) - weight_zero).T)


@pytest.mark.parametrize("dtypes", [(np.uint8, np.uint8), (np.int8, np.int8)])
def test_other_types_never_saturate(dtypes: tuple[Any, Any]) -> None:
    a, w = np.full((1, 2), np.iinfo(dtypes[0]).min, dtypes[0]), np.full((1, 2), np.iinfo(dtypes[1]).min, dtypes[1])
    a[:], w[:] = (255, 255) if dtypes[0] is np.uint8 else (-128, -128)
    assert avx2.products(a, w) == 2 * int(a[0, 0]) * int(w[0, 0])


def test_pairs_of_a_convolution_are_neighbouring_channels() -> None:
    """Two input channels at one place overflow; two places of one channel do not, unless there is but one channel."""
    x = np.full((1, 2, 1, 2), 255, np.uint8)
    channels = np.array([[[[127, 0]], [[127, 0]]]], np.int8)
    places = np.array([[[[127, 127]], [[0, 0]]]], np.int8)
    assert avx2.convolution(x, channels).item() == 32767
    assert avx2.convolution(x, places).item() == 64770
    assert avx2.convolution(x[:, :1], np.repeat(places[:, :1], 2, axis=0)).ravel().tolist() == [32767, 32767]
    assert avx2.convolution(x[:, :1], places[:, :1]).item() == 64770  # one to one is depthwise


def test_outside_is_the_zero_point_and_saturates_with_its_neighbour() -> None:
    x = np.full((1, 1, 1), 255, np.uint8)
    w = np.full((2, 1, 2), 127, np.int8)
    sums = avx2.convolution(x, w, zero_point=250, pads=[1, 0])
    assert sums[0, 0, 0] == 32767 - 250 * 2 * 127
    assert avx2.convolution(x, w, zero_point=250, pads=[1, 0], exact=True)[0, 0, 0] == 5 * 127


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
    random = np.random.default_rng(case["seed"])
    kind, weight_kind = case["types"]
    zero = case["zero"] - (128 if kind is np.int8 else 0)
    y_zero = Y_ZERO - (128 if kind is np.int8 else 0)
    x = bytes_like(random, (case["batch"], case["channels"], *case["space"]), kind)
    w = bytes_like(random, (case["outs"], case["channels"] // case["groups"], *case["kernel"]), weight_kind)
    w_scale, y_scale = scales(random, case["outs"], w[0].size)
    bias = random.integers(-5000, 5000, case["outs"]).astype(np.int32)
    geometry = {key: case[key] for key in ("strides", "pads", "dilations")}
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    constants = {"xs": X_SCALE, "xz": kind(zero), "w": w, "ws": w_scale, "ys": y_scale, "yz": kind(y_zero), "b": bias}
    constants["wz"] = np.full(case["outs"], case["weight_zero"], weight_kind)
    node = oh.make_node("QLinearConv", names, ["y"], group=case["groups"], **geometry)
    real = run(node, {"x": x}, constants, TYPES[np.dtype(kind)], case["threads"])
    emulated = avx2.convolution(
        x, w, zero_point=zero, weight_zero_point=case["weight_zero"], groups=case["groups"], exact=EXACT, **geometry
    )
    y = avx2.requantize(emulated, (X_SCALE, w_scale, y_scale), y_zero, bias=bias, axis=1, dtype=np.dtype(kind).name)
    np.testing.assert_array_equal(y, real)


@st.composite
def dense_layers(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "m": draw(st.sampled_from([1, 1, 2, 5, 16])), "k": draw(st.sampled_from([1, 2, 3, 7, 32, 33, 130, 389, 771])),
        "n": draw(st.sampled_from([1, 3, 16, 17, 40, 65])), "threads": draw(st.integers(1, 2)),
        "stored": draw(st.booleans()), "zero": draw(st.sampled_from([0, 7, 255])),
        "weight_zero": draw(st.sampled_from([0, 0, 5])), "seed": draw(st.integers(0, 2**32 - 1)),
        "kind": draw(st.sampled_from([np.int8, np.int8, np.int8, np.uint8])),
    }  # fmt: skip


@pytest.mark.parametrize("op", ["QLinearMatMul", "QGemm", "QGemm to float", "MatMulIntegerToFloat", "MatMulInteger"])
@settings(many, max_examples=40)
@given(dense_layers())
def test_dense_layer_is_the_real_kernel(op: str, case: dict[str, Any]) -> None:
    random = np.random.default_rng(case["seed"])
    a = bytes_like(random, (case["m"], case["k"]), np.uint8)
    w = bytes_like(random, (case["k"], case["n"]), case["kind"])
    w_scale, y_scale = scales(random, case["n"], case["k"])
    bias = random.integers(-5000, 5000, case["n"]).astype(np.int32)
    float_bias = random.normal(size=case["n"]).astype(np.float32)
    sums = avx2.dense(a, w.T, zero_point=case["zero"], weight_zero_point=case["weight_zero"], exact=EXACT)
    three, two = (X_SCALE, w_scale, y_scale), (X_SCALE, w_scale)
    names, expected, out = {
        "QLinearMatMul": ("a xs xz w ws wz ys yz", avx2.requantize(sums, three, Y_ZERO), Tp.UINT8),
        "QGemm": ("a xs xz w ws wz b ys yz", avx2.requantize(sums, three, Y_ZERO, bias=bias, alpha=1.5), Tp.UINT8),
        "QGemm to float": ("a xs xz w ws wz b", avx2.dequantize(sums, two, bias=bias, alpha=1.5), Tp.FLOAT),
        "MatMulIntegerToFloat": ("a w xs ws xz wz fb", avx2.dequantize(sums, two, float_bias=float_bias), Tp.FLOAT),
        "MatMulInteger": ("a w xz wz", sums, Tp.INT32),
    }[op]
    constants = {
        "xs": X_SCALE, "xz": np.uint8(case["zero"]), "ws": w_scale, "ys": y_scale, "yz": np.uint8(Y_ZERO), "b": bias,
        "wz": np.full(case["n"], case["weight_zero"], case["kind"]), "fb": float_bias, "w": w,
    }  # fmt: skip
    inputs = {"a": a} if case["stored"] else {"a": a, "w": w}
    kernel = op.split()[0]
    domain = "com.microsoft" if kernel in ("QGemm", "MatMulIntegerToFloat") else ""
    node = oh.make_node(kernel, names.split(), ["y"], domain=domain, **({"alpha": 1.5} if kernel == "QGemm" else {}))
    weights = {name: constants[name] for name in names.split() if name not in inputs}
    np.testing.assert_array_equal(run(node, inputs, weights, out, case["threads"]), expected)


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
    np.testing.assert_array_equal(avx2.requantize(sums, (x, w, y), 0), real)


def test_requantize_rounds_halves_to_even_and_clips() -> None:
    sums = np.array([[-3, -1, 1, 3, 5, 2000, -2000]])
    one = np.float32(1)
    assert avx2.requantize(sums, (one, one, np.float32(2)), 10).tolist() == [[8, 10, 10, 12, 12, 255, 0]]
    assert avx2.requantize(sums, (one, one, np.float32(2)), -10, dtype="int8").tolist() == [
        [-12, -10, -10, -8, -8, 127, -128]
    ]
