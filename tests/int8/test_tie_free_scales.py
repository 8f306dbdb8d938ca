"""Sums and products of bytes whose scales were chosen so that kernels of every CPU round them alike.

Compared with rounding in exact rational arithmetic, with float32 evaluated in several orders, and with the real kernel.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, quantize_net, random_data
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.arithmetic.rounding_ties import (
    LEVELS,
    choose_product_step,
    choose_sum_steps,
    count_halves,
    product_clearance,
    sum_clearance,
)
from fcdeploy.int8.cpu_differences import Sameness, add_sameness, find_differences
from fcdeploy.int8.planning.tie_free_scales import find_near_halves
from fcdeploy.records.report import Report
from fcdeploy.runtime.session import Session
from fcdeploy.tables.types import TYPES

scale = st.floats(0.002, 0.5)
few = st.integers(0, 255)


@given(scale, scale, st.floats(0.4, 1.3), st.lists(st.tuples(few, few, few, few), min_size=8, max_size=8))
def test_sums_stay_away_from_halves_in_exact_arithmetic(
    a: float, b: float, width: float, codes: list[tuple[int, ...]]
) -> None:
    written = float(np.float32((a + b) * width))
    chosen = choose_sum_steps([a, b, written], [False, False, True], [False] * 3)
    assert chosen is not None
    coarser = chosen / np.array([a, b, written])
    assert (coarser > 1 - 3e-6).all()
    unit = max(a, b, written) / 125  # no worse than all as multiples of that
    assert (coarser**2).sum() <= ((1 + 2 * unit / np.array([a, b, written])) ** 2).sum()
    assert sum_clearance(chosen[:2].tolist(), chosen[2]) > 0
    one, two, to = (Fraction(float(np.float32(step))) for step in chosen)
    for x, zx, y, zy in codes:
        value = (one * (x - zx) + two * (y - zy)) / to
        assert abs(value - (value // 1) - Fraction(1, 2)) > Fraction(1, 300)


@given(scale, scale, st.floats(1, 400))
def test_products_stay_away_from_halves(a: float, b: float, levels: float) -> None:
    written = float(np.float32(a * b * levels))
    chosen = choose_product_step([a, b], written)
    assert written * (1 - 1e-5) <= chosen <= 1.02 * written
    assert product_clearance([a, b], chosen) > 0
    coarser = choose_product_step([a, b], written, of_read=True)
    assert b * (1 - 1e-5) <= coarser <= 1.02 * b
    assert product_clearance([a, coarser], written) > 0


@given(scale, scale, st.tuples(few, few, few))
def test_orders_of_float32_agree(a: float, b: float, zeros: tuple[int, int, int]) -> None:
    """Fused or not, zero points taken off before or folded into one constant, scaled before the division or behind it."""
    chosen = choose_sum_steps([a, b, float(np.float32(a + b))], [False, False, True], [False] * 3)
    assert chosen is not None
    sa, sb, sc = chosen.astype(np.float32)
    x, y = (codes.astype(np.float32) for codes in np.meshgrid(np.arange(256), np.arange(256)))
    za, zb, zc = (np.float32(zero) for zero in zeros)
    ra, rb = sa / sc, sb / sc
    fixed = zc - (ra * za + rb * zb)
    fused = (np.float64(ra) * x + fixed).astype(np.float32)
    ways = (
        ((x - za) * sa + (y - zb) * sb) / sc + zc,
        x * ra + (y * rb + fixed),
        (np.float64(rb) * y + fused).astype(np.float32),
        ((x - za) * ra + (y - zb) * rb) + zc,
    )
    for way in ways:
        assert way.dtype == np.float32
        np.testing.assert_array_equal(np.rint(way), np.rint(ways[0]))


def test_scales_that_are_held_stay() -> None:
    chosen = choose_sum_steps([0.02, 0.013, 0.031], [False, False, True], [True, False, False])
    assert chosen is not None and chosen[0] == 0.02
    assert choose_sum_steps([0.02, 0.0131, 0.031], [False, False, True], [True, True, True]) is None


def test_a_half_is_found() -> None:
    assert sum_clearance([0.02, 0.03], 0.04) < 0 < sum_clearance([0.02, 0.04], 0.06)
    assert product_clearance([1.0, 1.0], 128.0) < 0 < product_clearance([1.0, 1.0], 127.0)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_the_kernel_rounds_as_exact_arithmetic_on_all_codes(op: str) -> None:
    """Of all 65,536 pairs of bytes."""
    steps = [0.0173, 0.0291]
    if op == "Add":
        chosen = choose_sum_steps([*steps, 0.04], [False, False, True], [False] * 3)
        assert chosen is not None
        scales = chosen.tolist()
    else:
        scales = [*steps, choose_product_step(steps, 0.09)]
    zeros = (113, 7, 120)
    inits = [
        numpy_helper.from_array(np.array(value, dtype), name)
        for name, value, dtype in [
            *((f"s{i}", s, np.float32) for i, s in enumerate(scales)),
            *((f"z{i}", z, np.uint8) for i, z in enumerate(zeros)),
        ]
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [LEVELS + 1, LEVELS + 1]) for name in "abc"]
    node = helper.make_node(
        f"QLinear{op}", ["a", "s0", "z0", "b", "s1", "z1", "s2", "z2"], ["c"], domain="com.microsoft"
    )
    graph = helper.make_graph([node], "all codes", values[:2], values[2:], inits)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)], ir_version=8
    )
    a, b = (codes.astype(np.uint8) for codes in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    (c,) = Session(ir.from_proto(model)).run({"a": a, "b": b})
    x, y = scales[0] * (a.astype(np.float64) - zeros[0]), scales[1] * (b.astype(np.float64) - zeros[1])
    wanted = np.clip(np.rint((x + y if op == "Add" else x * y) / scales[2]) + zeros[2], 0, LEVELS)
    np.testing.assert_array_equal(c, wanted)


def residual() -> Net:
    """A chain of sums, a tensor added to itself, three sums of each two of three tensors, a product and a Clip behind a sum."""
    net = Net(3)
    x = net.conv(net.input("x", 8, 6, 6), 8, 8)
    for _ in range(3):
        x = net.op("Relu", net.op("Add", x, net.conv(x, 8, 8)))
    x = net.conv(net.op("Add", x, x, name="twice"), 8, 8)
    y, z = net.conv(x, 8, 8), net.conv(net.op("Relu", x), 8, 8)
    pairs = [net.op("Add", *pair, name=name) for name, pair in (("xy", (x, y)), ("xz", (x, z)), ("yz", (y, z)))]
    several = [net.conv(each, 8, 8) for each in pairs]
    product = net.conv(net.op("Mul", several[0], several[1], name="product"), 8, 8)
    clipped = net.op("Clip", net.op("Add", product, several[2]), net.constant(0), net.constant(500))
    return net.output(net.conv(clipped, 8, 8))


def test_portable_plans_keep_all_sums_and_products_from_halves() -> None:
    line = quantize_net(residual(), random_data(3, 8, x=(8, 6, 6)))
    assert [line.kinds[name] for name in ("twice", "xy", "xz", "yz", "product")] == ["int8"] * 5
    assert find_near_halves(line.prepared.graph, line.plan) == []
    other = quantize_net(residual(), random_data(3, 8, x=(8, 6, 6)), target="x86-avx2")
    assert {"xy", "xz", "yz"} <= set(find_near_halves(other.prepared.graph, other.plan))
    assert line.sqnr() > other.sqnr() - 1.5


def test_a_sum_whose_scale_would_be_twice_what_it_reads_gets_a_coarser_one() -> None:
    """Elsewhere than in portable files too: half of its results would lie exactly half-way between two levels."""
    net, eye = Net(0), np.eye(4, dtype=np.float32)[:, :, None, None]
    one, two = (net.op("Relu", net.op("Conv", net.input(name, 4, 5, 5), net.constant(eye))) for name in "ab")
    net.output(net.conv(net.op("Add", one, two, name="sum"), 4, 4))
    data = {name: np.random.default_rng(i).random((8, 4, 5, 5)).astype(np.float32) for i, name in enumerate("ab")}
    for array in data.values():
        array[0, 0, 0, 0] = 1
    line = quantize_net(net, data, target="x86-avx2", ranges="minmax")
    (node,) = [node for node in line.prepared.graph if node.op_type == "Add"]
    assert line.kinds["sum"] == "int8"
    read = [line.plan.tensors[value.name].scale[0] for value in node.inputs]
    written = line.plan.tensors[node.outputs[0].name].scale[0]
    assert read == [pytest.approx(1 / 255)] * 2 and 2 / 255 < written < 2.04 / 255
    assert count_halves(read, 2 / 255) == pytest.approx(0.5, abs=0.01)
    assert count_halves(read, written) < 0.02


def test_floats_that_are_rounded_again_are_named() -> None:
    """An Elu between two convolutions; a Max, which rounds nothing, and a Softmax at the end do not count."""
    net = Net(4)
    x = net.op("Max", net.conv(net.input("x", 8, 6, 6), 8, 8), net.constant(-1), name="max")
    x = net.conv(x, 8, 8)
    x = net.conv(net.op("Elu", net.op("Min", x, net.constant(1)), name="elu"), 8, 8)
    line = quantize_net(net.output(net.op("Softmax", net.op("Elu", x))), random_data(4, 8, x=(8, 6, 6)))
    found = find_differences(line.prepared.graph, line.plan)
    assert found.rounded_floats == ("elu",) and found.near_halves == () and len(found.float_outputs) == 1
    report = add_sameness(Report("quantize", {}, lines=("wrote it", "next")), found)
    assert report.warnings == (
        "not the same on every CPU: 1 float result ('elu') whose last bits differ between CPUs are rounded to integers; "
        "now and then an integer is one level off",
    )
    none = add_sameness(Report("quantize", {}, lines=("wrote it", "next")), Sameness((), (), ()))
    assert none.lines == ("wrote it", "the same bytes on every CPU", "next") and not none.warnings


def test_blocks_of_4_bits_compute_in_float_where_one_answer_is_promised() -> None:
    net = Net(5)
    net.output(net.dense(net.input("x", 64), 64, 32))
    data = random_data(5, 8, x=(64,))
    for target, level in (("portable", 1), ("x86-avx2", 4)):
        line = quantize_net(net, data, target=target, types=TYPES["int4", "none"])
        (node,) = [node for node in line.int8.graph if node.op_type == "MatMulNBits"]
        assert node.attributes["accuracy_level"].as_int() == level
