"""Quantizing and reading back, against exact fractions and against the ONNX reference evaluator."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fcdeploy.arithmetic.fixed_point import describe_fixed_point
from fcdeploy.arithmetic.quantization import (
    LIMITS,
    broadcast_along,
    choose_activation_qparams,
    choose_bias_qparams,
    dequantize,
    quantize,
)
from fcdeploy.records.plan import QParams, Range

floats = st.floats(allow_nan=False, width=32)  # infinities saturate
scales = st.floats(2.0**-100, 2.0**100, width=32, exclude_min=True)
ONNX = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def reference(x: np.ndarray, q: QParams) -> np.ndarray:
    """QuantizeLinear of the ONNX reference evaluator."""
    return run("QuantizeLinear", x, TensorProto.FLOAT, ONNX[q.dtype], q)


def read_back(integers: np.ndarray, q: QParams) -> np.ndarray:
    """DequantizeLinear of the ONNX reference evaluator."""
    return run("DequantizeLinear", integers, ONNX[q.dtype], TensorProto.FLOAT, q)


def run(op: str, x: np.ndarray, given_type: int, made: int, q: QParams) -> np.ndarray:
    scale = np.array(q.scale if q.axis is not None else q.scale[0], np.float32)
    zero_point = np.full(scale.shape, q.zero_point, q.dtype)
    attributes = {} if q.axis is None else {"axis": q.axis}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "s", "z"], ["y"], **attributes)],
        "one",
        [
            helper.make_tensor_value_info("x", given_type, None),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("z", ONNX[q.dtype], None),
        ],
        [helper.make_tensor_value_info("y", made, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, {"x": x, "s": scale, "z": zero_point})[0]


def exactly(x: float, scale: float, zero_point: int, dtype: str) -> int:
    """The same in rational numbers; the quotient is rounded to float32, as the definition divides in that type."""
    lowest, highest = LIMITS[dtype]
    if np.isinf(x):
        return highest if x > 0 else lowest
    quotient = Fraction(x) / Fraction(scale)
    if abs(quotient) < 2**100:
        quotient = Fraction(float(np.float32(float(quotient))))
    return min(max(round(quotient) + zero_point, lowest), highest)  # Python rounds halves to even


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
@given(data=st.data(), scale=scales)
def test_quantize_is_exact(dtype, data, scale) -> None:
    lowest, highest = LIMITS[dtype]
    zero_point = data.draw(st.integers(lowest, highest)) if dtype != "int32" else 0
    near = st.integers(-600, 600).map(lambda n: float(np.float32(n / 2 * scale)))  # halves, and what saturates
    x = data.draw(arrays(np.float32, 12, elements=st.one_of(floats, near)))
    found = quantize(x, QParams(dtype, (scale,), zero_point))
    assert found.dtype == dtype
    assert found.tolist() == [exactly(float(v), scale, zero_point, dtype) for v in x]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_both_are_the_onnx_operators(dtype) -> None:
    random = np.random.default_rng(0)
    lowest, highest = LIMITS[dtype]
    every = np.arange(lowest, highest + 1).astype(dtype)
    for _ in range(20):
        scale = float(np.float32(np.exp(random.normal() * 5)))
        q = QParams(dtype, (scale,), int(random.integers(lowest, highest + 1)))
        x = np.concatenate([random.normal(size=300) * 100 * scale, np.arange(-300, 300) * scale / 2])
        x = x.astype(np.float32)
        assert quantize(x, q).tolist() == reference(x, q).tolist()
        assert dequantize(every, q).tobytes() == read_back(every, q).tobytes()
        assert quantize(dequantize(every, q), q).tolist() == every.tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_scale_per_index_of_an_axis(dtype, axis) -> None:
    random = np.random.default_rng(axis)
    x = random.normal(size=(3, 4, 5)).astype(np.float32)
    n = x.shape[axis]
    q = QParams(dtype, tuple(float(s) for s in np.float32(np.linspace(0.003, 0.02, n))), 3, axis)
    integers = quantize(x, q)
    assert integers.tolist() == reference(x, q).tolist()
    assert dequantize(integers, q).tobytes() == read_back(integers, q).tobytes()
    for i, scale in enumerate(q.scale):
        alone = quantize(np.take(x, i, axis), QParams(dtype, (scale,), 3))
        assert np.take(integers, i, axis).tolist() == alone.tolist()


def test_along_puts_scales_on_their_axis() -> None:
    assert broadcast_along((1.0, 2.0), 1, 3).shape == (1, 2, 1)
    assert broadcast_along((1.0,), None, 3).shape == (1,)


ends = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@given(ends)
def test_a_range_is_covered_and_zero_is_exact(dtype, low_high) -> None:
    r = Range(*low_high)
    q = choose_activation_qparams(r, dtype)
    lowest, highest = LIMITS[dtype]
    assert lowest <= q.zero_point <= highest
    assert q.scale[0] == float(np.float32(q.scale[0])) > 0
    assert dequantize(quantize(np.zeros(1, np.float32), q), q).tolist() == [0.0]
    low, high = min(r.low, 0.0), max(r.high, 0.0)
    assume(high - low > 1e-30)
    # the zero point is rounded: an end may be off by half a step, and the width by the rounding of a float32
    found = Range(*(q.scale[0] * (end - q.zero_point) for end in (lowest, highest)))
    assert found.low == pytest.approx(low, abs=0.5001 * q.scale[0])
    assert found.high == pytest.approx(high, abs=0.5001 * q.scale[0])
    assert found.high - found.low == pytest.approx(high - low, rel=1e-6)


@pytest.mark.parametrize(("dtype", "lowest", "highest"), [("uint8", 0, 255), ("int8", -128, 127)])
@given(st.floats(1e-30, 1e30))
def test_one_sided_ranges_waste_no_integer(dtype, lowest, highest, end) -> None:
    after_relu = choose_activation_qparams(Range(0.0, end), dtype)
    assert after_relu.zero_point == lowest  # saturation clips where the Relu does
    above = choose_activation_qparams(Range(end / 2, end), dtype)
    assert (above.zero_point, above.scale) == (lowest, after_relu.scale)
    assert choose_activation_qparams(Range(-end, 0.0), dtype).zero_point == highest


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("end", [0.0, 1e-45, 1e-38])
def test_a_tensor_that_is_always_zero_has_a_scale_all_the_same(dtype, end) -> None:
    q = choose_activation_qparams(Range(0.0, end), dtype)
    assert (q.scale, q.zero_point, q.why) == ((1.0,), LIMITS[dtype][0], "always zero")


positive = st.floats(2.0**-60, 2.0**60, width=32, exclude_min=True)


@given(positive, st.lists(positive, min_size=1, max_size=5))
def test_bias_scales_are_the_float32_products(input_scale, weight_scale) -> None:
    q = choose_bias_qparams(input_scale, QParams("int8", tuple(weight_scale), axis=0))
    assert (q.dtype, q.zero_point, q.axis) == ("int32", 0, 0)
    for found, w in zip(q.scale, weight_scale, strict=True):
        exact = Fraction(input_scale) * Fraction(w)  # 48 bits: a float64 holds it, and rounds to float32 once
        assert found == float(np.float32(float(exact)))
        assert float(exact) == exact


def test_needs_are_said_in_words() -> None:
    assert describe_fixed_point(-2.1, 2.6) == "signed, 2 integer bits, step 0.0184"
    assert describe_fixed_point(0.0, 0.2) == "unsigned, -2 integer bits, step 0.000784"
    assert describe_fixed_point(0.0, 0.0) == "always 0"


@given(ends)
def test_integer_bits_hold_the_larger_end_and_are_not_one_too_many(low_high) -> None:
    low, high = low_high
    top = Fraction(max(abs(low), abs(high)))
    assume(top > 0)
    words = describe_fixed_point(low, high)
    bits = int(words.split(", ")[1].split()[0])
    assert Fraction(2) ** (bits - 1) <= top < Fraction(2) ** bits
    assert words.startswith("signed") == (low < 0)
