"""What the graph proves about bytes, against what every path through the runtime writes, on inputs far out of range."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Line, Net, quantize_net, random_data

from fcdeploy.arithmetic.interval_arithmetic import (
    Interval,
    add_intervals,
    apply_leaky_relu,
    bound_row_sums,
    make_interval,
    multiply_intervals,
    subtract_intervals,
)
from fcdeploy.evaluate.quantized_tensors import expose_tensors
from fcdeploy.proof.byte_bounds import TensorBounds
from fcdeploy.proof.saturation import prove_no_saturation
from fcdeploy.runtime.session import Session

many = settings(max_examples=60, deadline=None)
numbers = st.floats(-100, 100, width=32)


def ends(draw: tuple[float, float]) -> Interval:
    return make_interval(min(draw), max(draw))


@many
@given(st.tuples(numbers, numbers), st.tuples(numbers, numbers), numbers, st.floats(0, 1), st.floats(0, 1))
def test_what_is_computed_lies_inside(
    a: tuple[float, float], b: tuple[float, float], slope: float, s: float, t: float
) -> None:
    one, other = ends(a), ends(b)
    x = np.float32(one.low + s * (one.high - one.low))
    y = np.float32(other.low + t * (other.high - other.low))
    x, y = np.clip(x, *one.ends()), np.clip(y, *other.ends())
    leaky = x if x >= 0 else np.float32(slope) * x
    for found, value in (
        (add_intervals(one, other), x + y),
        (subtract_intervals(one, other), x - y),
        (multiply_intervals(one, other), x * y),
        (apply_leaky_relu(one, slope), leaky),
    ):
        assert found.ends()[0] <= value <= found.ends()[1]


@many
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_row_sums_are_reached(k: int, n: int, seed: int) -> None:
    """By the input that takes each end where the weight wants it, and by no more than rounding besides."""
    random = np.random.default_rng(seed)
    rows = random.integers(-128, 128, (n, k)).astype(np.int8)
    low = random.integers(-50, 10, k).astype(float)
    high = low + random.integers(0, 99, k)
    found = bound_row_sums(rows, np.ones(1), low, high)
    w = rows.astype(int)
    np.testing.assert_allclose(found.high, np.where(w > 0, w * high, w * low).sum(axis=1), rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(found.low, np.where(w > 0, w * low, w * high).sum(axis=1), rtol=1e-4, atol=0.1)
    assert (found.high >= np.where(w > 0, w * high, w * low).sum(axis=1)).all()


def test_row_sums_take_nothing_from_an_infinite_end_without_weight() -> None:
    found = bound_row_sums(
        np.array([[2, 0], [1, 1]], np.int8), np.ones(1), np.array([0.0, 0.0]), np.array([3.0, np.inf])
    )
    assert found.high[0] == pytest.approx(6, rel=1e-5)
    assert found.high[1] == np.inf


def images(net: Net, seed: int) -> Net:
    """Depthwise and pointwise layers, whose few terms leave bounds; a residual; joined branches; a dense end."""
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8))
    y = net.op("Relu", net.conv(x, 8, 8, group=8))
    y = net.op("Relu", net.conv(y, 8, 8, (1, 1)))
    z = net.op("LeakyRelu", net.conv(y, 8, 8, (1, 1), group=2), alpha=0.2)
    z = net.op("Add", z, y) if seed % 2 else net.op("Concat", z, y, axis=1)
    z = net.op("MaxPool", z, kernel_shape=[2, 2], strides=[2, 2])
    z = net.op("Relu", net.conv(z, 8 if seed % 2 else 16, 6, (1, 1)))
    if seed % 3 == 0:
        z = net.op("AveragePool", z, kernel_shape=[2, 2], count_include_pad=1, pads=[1, 1, 1, 1])
    z = net.op("Sigmoid", z) if seed % 5 == 0 else z
    z = net.op("Flatten", net.op("GlobalAveragePool", z))
    return net.output(net.dense(net.op("Relu", net.dense(z, 6, 5)), 5, 4, transB=0))


def sequence(net: Net, seed: int) -> Net:
    x = net.op("Clip", net.input("x", 6), net.constant(-1.0), net.constant(0.5))
    y = net.op("Relu", net.dense(x, 6, 8))
    y = net.op("Mul", y, net.op("Sigmoid", net.dense(y, 8, 8))) if seed % 2 else y
    return net.output(net.dense(net.op("Transpose", net.op("Transpose", y, perm=[1, 0]), perm=[1, 0]), 8, 3))


def check(line: Line) -> tuple[int, int]:
    """Channels whose bytes are bounded by more than their type, and all channels."""
    known, taps = TensorBounds(), []
    for node in line.int8.graph:
        known.add(node)
        if node.op_type == "QuantizeLinear":
            taps.append(node.outputs[0])
    exposed = ir.from_proto(ir.to_proto(line.int8))
    expose_tensors(exposed, [value.name or "" for value in taps])
    names = [value.name or "" for value in taps]
    tighter = total = 0
    for optimize in (True, False):
        session = Session(exposed, threads=1, optimize=optimize)
        for size in (1, 40, 1e4):
            for value, found in zip(
                taps, session.run({k: (v * size).astype(np.float32) for k, v in line.data.items()}, names), strict=True
            ):
                bounds = known.of(value)
                assert (found >= bounds.low).all(), value.name
                assert (found <= bounds.high).all(), value.name
                tighter += int((bounds.high < 255).sum())
                total += bounds.high.size
    return tighter, total


@pytest.mark.parametrize("seed", range(8))
def test_no_path_writes_a_byte_outside_its_bounds(seed: int) -> None:
    kind, shape = (images, (4, 8, 8)) if seed < 6 else (sequence, (6,))
    line = quantize_net(kind(Net(seed), seed), random_data(seed, 12, x=shape), correct=True)
    assert all(proof.safe for proof in prove_no_saturation(line.int8))
    tighter, total = check(line)
    assert 0 < tighter < total


def test_a_bound_by_channel_proves_what_one_for_all_could_not() -> None:
    """The second channel of a depthwise layer reaches few bytes, so its neighbour's weight may be large."""
    net = Net(0)
    x = net.op("Relu", net.op("Conv", net.input("x", 2, 4, 4), net.constant([[[[1.0]]], [[[0.2]]]]), group=2))
    net.output(net.op("Conv", x, net.constant([[[[0.8]], [[1.0]]]])))
    data = {"x": np.random.default_rng(0).random((8, 2, 4, 4), np.float32)}
    free = quantize_net(net, data, target="x86-vnni", ranges="minmax")
    last = prove_no_saturation(free.int8)[-1]
    assert last.safe
    assert "lower in 1 of 2 channels" in last.why
    for initializer in free.int8.graph.initializers.values():  # the same with a first layer that reaches every byte
        if initializer.const_value is not None and initializer.const_value.shape == (2, 1, 1, 1):
            initializer.const_value = ir.tensor(np.full((2, 1, 1, 1), 127, np.int8))
            scale = initializer.uses()[0].node.inputs[1]
            assert scale is not None
            scale.const_value = ir.tensor(np.full(2, 1.0, np.float32))
    worst = prove_no_saturation(free.int8)[-1]
    assert not worst.safe
    assert worst.why == "activations in 0 .. 255"


def test_what_saturates_bounds_nothing() -> None:
    """A layer whose pairs overflow may write any byte, whatever its weights say."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 4, 4, 4), 4, 8, (1, 1)))
    net.output(net.conv(net.op("Relu", net.conv(x, 8, 8, (1, 1))), 8, 4, (1, 1)))
    line = quantize_net(net, random_data(1, 8, x=(4, 4, 4)), target="x86-vnni")
    rows = prove_no_saturation(line.int8)
    over = [i for i, row in enumerate(rows) if not row.safe]
    assert over
    assert all("lower in" not in rows[i + 1].why for i in over if i + 1 < len(rows))
