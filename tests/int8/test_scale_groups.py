"""Tensors that share bytes: what each covers, which scale and zero point it has, against arithmetic on the bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.arithmetic.quantization import dequantize, quantize
from fcdeploy.int8.planning.scale_groups import STRETCH, ScaleGroups, follow, snap
from fcdeploy.records.plan import QParams, Range

BYTES = np.arange(256, dtype=np.uint8)
NUMBERS = st.floats(-8, 8, allow_subnormal=False).filter(lambda x: abs(x) > 1e-3)


def named(*names: str) -> list[ir.Value]:
    return [ir.Value(name=name) for name in names]


@given(st.floats(0.01, 4), st.integers(0, 255), st.floats(0.05, 20), NUMBERS)
def test_the_same_bytes_read_twice_differ_by_less_than_a_step(s: float, z: int, gain: float, offset: float) -> None:
    q = QParams("uint8", (float(np.float32(s)),), z)
    read = follow(q, gain, offset)
    exact = gain * dequantize(BYTES, q).astype(np.float64) + offset
    if 0 < read.zero_point < 255:
        assert np.abs(dequantize(BYTES, read) - exact).max() <= 0.5001 * read.scale[0]


def test_bytes_read_unchanged_keep_their_scale() -> None:
    q = QParams("int8", (0.1,), -3)
    assert follow(q, 1.0, 0.0) is q


@given(st.floats(-20, 0), st.floats(0.5, 20), st.floats(0.3, 6))
def test_an_offset_of_several_steps_becomes_a_whole_number_of_them(low: float, high: float, point: float) -> None:
    cover = Range(min(low, -point), high)
    q = snap(cover, "uint8", [0.0, -point])
    plain = snap(cover, "uint8", [])
    assert plain.scale[0] <= q.scale[0] * (1 + 1e-6)
    assert q.scale[0] <= plain.scale[0] * STRETCH * (1 + 1e-6)
    assert dequantize(np.array([255], np.uint8), q)[0] >= cover.high - q.scale[0]
    assert dequantize(np.array([0], np.uint8), q)[0] <= cover.low + q.scale[0]
    if point / plain.scale[0] > 1 / (STRETCH - 1) + 1:  # some count of steps is within reach
        assert abs(point / q.scale[0] - round(point / q.scale[0])) < 1e-3


def test_the_bytes_of_a_hard_swish() -> None:
    """x in [-3, 9]: its gate is read with a sixth of the scale, and 0 where x is -3."""
    x, gate = named("x", "gate")
    groups = ScaleGroups({x: Range(-3.0, 9.0)})
    groups.follow(gate, x, 1 / 6, 0.5)
    found = groups.qparams(groups.choose_firsts("uint8"))
    assert found[x].zero_point == round(3 / found[x].scale[0])
    assert found[gate].zero_point == 0
    np.testing.assert_allclose(
        dequantize(BYTES, found[gate]), dequantize(BYTES, found[x]) / 6 + 0.5, atol=1e-5
    )  # fmt: skip


def test_a_zero_outside_of_the_range_widens_it() -> None:
    x, y = named("x", "y")
    groups = ScaleGroups({x: Range(0.0, 1.0)})
    groups.follow(y, x, 2.0, 1.0)
    assert groups.cover(x) == Range(-0.5, 1.0)


def test_tensors_joined_behind_arithmetic_cover_each_other() -> None:
    """y = 2 x + 1, moved to z, which shares the scale of w: w reaches 9, so x reaches 4."""
    x, y, z, w = named("x", "y", "z", "w")
    groups = ScaleGroups({x: Range(-1.0, 1.0), w: Range(0.0, 9.0)})
    groups.follow(y, x, 2.0, 1.0)
    groups.join([z, y])
    groups.join([z, w])
    assert groups.cover(x) == Range(-1.0, 4.0)
    found = groups.qparams(groups.choose_firsts("uint8"))
    assert found[y] == found[z] == found[w]
    assert quantize(np.float32([9.0]), found[w])[0] == quantize(np.float32([4.0]), found[x])[0]


def test_concat_does_not_join_what_would_lose_a_bit_or_is_the_same_bytes_read_twice() -> None:
    x, y, narrow = named("x", "y", "narrow")
    groups = ScaleGroups({x: Range(-1.0, 1.0), narrow: Range(0.0, 0.1)})
    groups.follow(y, x, 0.5, 0.0)
    groups.join_if_close([x, narrow])
    groups.join_if_close([x, y])
    assert groups.line(narrow).first is narrow
    assert groups.line(y).gain == 0.5


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@settings(max_examples=50)
@given(gain=st.floats(0.1, 5), offset=st.floats(-2, 2))
def test_a_chain_is_the_composition_of_its_steps(dtype: str, gain: float, offset: float) -> None:
    x, y, z = named("x", "y", "z")
    groups = ScaleGroups({x: Range(-4.0, 4.0)})
    groups.follow(y, x, gain, offset)
    groups.follow(z, y, 2.0, -offset)
    line = groups.line(z)
    assert line.first is x
    np.testing.assert_allclose([line.gain, line.offset], [2 * gain, 2 * offset - offset], rtol=1e-12, atol=1e-12)
    assert groups.qparams(groups.choose_firsts(dtype))[x].dtype == dtype


@settings(max_examples=50)
@given(
    gains=st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)), offsets=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    covers=st.tuples(st.floats(0.5, 8), st.floats(0.5, 8)),
)  # fmt: skip
def test_joined_tensors_are_the_same_line_and_cover_what_each_covered(
    gains: tuple[float, float], offsets: tuple[float, float], covers: tuple[float, float]
) -> None:
    """a = g x + o and b = h y + p get one scale: what x and y reached is reached by both."""
    x, y, a, b = named("x", "y", "a", "b")
    groups = ScaleGroups({x: Range(-covers[0], covers[0]), y: Range(-covers[1], covers[1])})
    groups.follow(a, x, gains[0], offsets[0])
    groups.follow(b, y, gains[1], offsets[1])
    groups.join([a, b])

    one, other = groups.line(a), groups.line(b)
    assert one.first is other.first
    np.testing.assert_allclose([one.gain, one.offset], [other.gain, other.offset], rtol=1e-9, atol=1e-9)
    cover = groups.cover(a)
    for value, reach in ((x, covers[0]), (y, covers[1])):
        line = groups.line(value)
        low, high = (line.gain * end + line.offset for end in (cover.low, cover.high))
        assert low <= -reach + 1e-9 and reach - 1e-9 <= high
