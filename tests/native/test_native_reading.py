"""Operators that native code reads as steps it has: tables, differences, extremes, pieces moved, sums of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from native_kernels import assert_same
from networks import Net

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.steps import Combine, Lookup, LookupTable, Pool, Program
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
SCALE, ZERO, TO = 0.02, 100, 0.05


def as_bytes(net: Net, real: str, scale: float = SCALE, zero: int = ZERO) -> str:
    """Through a QuantizeLinear and a DequantizeLinear."""
    pair = net.constant(scale), net.constant(zero, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", real, *pair), *pair)


def check(net: Net, feeds: dict[str, Array], *, levels: float = 0.0, floats: bool = False) -> Program:
    """The program gives what onnxruntime's plain kernels do, native code the program's bits; `levels` is what a tie may cost."""
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    program = read_program(model, "net")
    assert bool(list_float_steps(program)) == floats
    found = run(program, feeds)
    (wanted,) = Session(model, threads=1, optimize=False).run(feeds)
    got = found[program.outputs[0].name]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 + levels)
    assert_same(build(program), feeds, found)
    return program


def count_tables(program: Program) -> int:
    return sum(isinstance(step, LookupTable | Lookup) for step in program.steps)


def draw(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "more"),
    [
        *((op, {}) for op in ("Acos", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan")),
        ("Shrink", {}),
        ("Shrink", {"lambd": 0.3, "bias": 0.1}),
    ],
)
def test_functions_of_bytes_without_a_kernel_on_floats(op: str, more: dict[str, Any]) -> None:
    net = Net()
    x = as_bytes(net, net.input("x", 6, 5), 0.0078, 128)
    net.output(as_bytes(net, net.op(op, x, **more), TO, 128))
    with np.errstate(all="ignore"):
        program = check(net, {"x": draw((6, 5)) / 2}, levels=TO)
    assert count_tables(program) == 1


def test_functions_of_floats_without_a_kernel_are_named() -> None:
    net = Net()
    net.output(net.op("Atan", net.input("x", 4)))
    with fails("Atan that cannot be compiled: it has a kernel on bytes alone"):
        read_program(ir.from_proto(net.model()), "net")


@pytest.mark.parametrize("constant", [None, 0, 1])
def test_differences_are_sums(constant: int | None) -> None:
    """Of two tensors, or of one and a constant that is stored as bytes and differs along the rows."""
    net = Net()
    operands = [as_bytes(net, net.input(name, 3, 6, 5), scale, 90) for name, scale in (("x", 0.02), ("y", 0.03))]
    feeds = {"x": draw((3, 6, 5)), "y": draw((3, 6, 5), 1)}
    if constant is not None:
        held = np.random.default_rng(2).integers(0, 256, (6, 5)).astype(np.uint8)
        pair = net.constant(0.03), net.constant(77, np.uint8)
        operands[constant] = net.op("DequantizeLinear", net.constant(held, np.uint8), *pair)
    net.output(as_bytes(net, net.op("Sub", *operands), TO))
    program = check(net, feeds, levels=TO)
    assert [type(step) for step in program.steps].count(Combine) == 1


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize(("axes", "keep"), [([2, 3], 1), ([1], 0), ([3], 1), ([1, 3], 0), ([1, 2, 3], 1)])
def test_extremes_of_bytes_are_pools(op: str, axes: list[int], keep: int) -> None:
    net = Net()
    x = as_bytes(net, net.op("Relu", as_bytes(net, net.input("x", 5, 4, 6))))
    net.output(as_bytes(net, net.op(op, x, axes=axes, keepdims=keep), 0.013, 3))
    program = check(net, {"x": draw((5, 4, 6))}, levels=0.013)
    assert Pool in {type(step) for step in program.steps}


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_extremes_of_codes_are_pools(op: str) -> None:
    """As onnxruntime's kernels move bytes: between a QuantizeLinear and its DequantizeLinear."""
    net = Net()
    pair = net.constant(SCALE), net.constant(-20, np.int8)
    codes = net.op("QuantizeLinear", net.input("x", 5, 4, 6), *pair)
    net.output(net.op("DequantizeLinear", net.op(op, codes, axes=[2, 3], keepdims=1), *pair))
    check(net, {"x": draw((5, 4, 6))})


def test_extremes_of_what_falls_are_floats() -> None:
    net = Net()
    net.output(net.op("ReduceMax", net.op("Neg", as_bytes(net, net.input("x", 5, 4))), axes=[2], keepdims=1))
    check(net, {"x": draw((5, 4))}, floats=True)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [[0, 0, -1, 1, 0, 0, 2, -2], [0, -2, 0, 0, 0, -1, -3, 0], [0, 1, 2, 0, 0, 0, 1, 3]])
def test_pads_that_take_away(mode: str, pads: list[int]) -> None:
    net = Net()
    x = as_bytes(net, net.input("x", 5, 6, 7))
    net.output(as_bytes(net, net.op("Pad", x, net.constant(pads, np.int64), mode=mode)))
    feeds, lengths = {"x": draw((5, 6, 7))}, (1, 5, 6, 7)
    model = ir.from_proto(net.model())
    program = read_program(model, "net")
    found = run(program, feeds)
    code = np.clip(np.rint(feeds["x"] / np.float32(SCALE)) + ZERO, 0, 255) - ZERO
    cut = code[tuple(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(pads[:4], pads[4:], lengths, strict=True))]
    wanted = np.pad(cut, [(max(b, 0), max(e, 0)) for b, e in zip(pads[:4], pads[4:], strict=True)], mode=mode)  # type: ignore[call-overload]
    np.testing.assert_allclose(found[program.outputs[0].name], wanted * SCALE, rtol=1e-5)
    assert_same(build(program), feeds, found)


def test_pads_that_leave_nothing_are_named() -> None:
    net = Net()
    net.output(net.op("Pad", net.input("x", 3), net.constant([0, -2, 0, -1], np.int64)))
    with fails("its pads leave no elements"):
        read_program(ir.from_proto(net.model()), "net")


@pytest.mark.parametrize("bytes_", [True, False])
def test_tiles(bytes_: bool) -> None:
    net = Net()
    x = net.input("x", 3, 4)
    x = as_bytes(net, x) if bytes_ else x
    net.output(net.op("Tile", x, net.constant([1, 2, 3], np.int64)))
    check(net, {"x": draw((3, 4))})


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_several_tensors(op: str, count: int) -> None:
    net = Net()
    feeds = {f"x{i}": draw((3, 4), i) for i in range(count)}
    net.output(net.op(op, *(net.input(name, 3, 4) for name in feeds)))
    check(net, feeds, floats=count > 1)


def test_a_sum_of_two_tensors_of_bytes_is_that_of_an_add() -> None:
    net = Net()
    net.output(as_bytes(net, net.op("Sum", *(as_bytes(net, net.input(name, 3, 4)) for name in "xy")), TO))
    program = check(net, {"x": draw((3, 4)), "y": draw((3, 4), 1)}, levels=TO)
    assert Combine in {type(step) for step in program.steps}


@pytest.mark.parametrize("axis", [1, -1])
def test_log_softmax(axis: int) -> None:
    """Of numbers so far apart that a softmax would be zero."""
    net = Net()
    net.output(net.op("LogSoftmax", net.input("x", 6, 5), axis=axis))
    check(net, {"x": draw((6, 5)) * 100}, floats=True)


@pytest.mark.parametrize("stored", [True, False])
def test_products_with_one_column(stored: bool) -> None:
    """A constant of one axis, which the product does not have."""
    random = np.random.default_rng(0)
    net = Net()
    weight: str = net.constant(random.normal(size=7))
    if stored:
        weight = net.op("DequantizeLinear", net.constant(random.integers(-127, 128, 7), np.int8), net.constant(0.01))
    x = net.input("x", 3, 7)
    net.output(as_bytes(net, net.op("MatMul", as_bytes(net, x) if stored else x, weight), TO))
    check(net, {"x": draw((3, 7))}, levels=TO, floats=not stored)


def test_tables_of_tables_are_one() -> None:
    """Of one tensor, and where a channel has a table of its own, before or behind; but not where others read what is between."""

    def count(join: Callable[[Net, str], str], tables: int) -> None:
        net = Net()
        net.output(join(net, as_bytes(net, net.input("x", 3, 4))))
        program = check(net, {"x": draw((3, 4))}, levels=TO)
        assert count_tables(program) == tables

    slopes = np.array([[0.1], [0.5], [-0.3]], np.float32)
    count(lambda net, x: as_bytes(net, net.op("Tanh", as_bytes(net, net.op("Sigmoid", x), 0.004, 0)), 0.008, 9), 1)
    count(
        lambda net, x: as_bytes(
            net, net.op("Tanh", as_bytes(net, net.op("PRelu", x, net.constant(slopes)))), 0.008, 128
        ),
        1,
    )
    count(
        lambda net, x: as_bytes(
            net, net.op("PRelu", as_bytes(net, net.op("Tanh", x), 0.008, 128), net.constant(slopes))
        ),
        1,
    )

    def both(net: Net, x: str) -> str:
        first = as_bytes(net, net.op("Sigmoid", x), 0.004, 0)
        return as_bytes(net, net.op("Add", first, as_bytes(net, net.op("Exp", first), 0.012, 0)), TO)

    count(both, 3)  # one of them makes floats of the sum


@pytest.mark.parametrize("scale", [np.nan, np.inf, -0.1, 0.0])
@pytest.mark.parametrize("of_weights", [False, True])
def test_scales_that_are_no_numbers_above_zero_are_refused(scale: float, of_weights: bool) -> None:
    """Of weights any finite number is a factor."""
    net = Net(0)
    real = as_bytes(net, net.input("x", 4), SCALE if of_weights else scale)
    scales = np.float32([SCALE, scale if of_weights else SCALE, SCALE])
    integers = net.constant(net.random.integers(-99, 99, (4, 3)), np.int8)
    weight = net.op("DequantizeLinear", integers, net.constant(scales), net.constant(np.zeros(3), np.int8), axis=1)
    net.output(as_bytes(net, net.op("MatMul", real, weight)))
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    if of_weights and np.isfinite(scale):
        assert read_program(model, "net").outputs
        return
    with fails(
        f"that cannot be compiled: its scale is {scale:g}, expected a finite number", "quantize the float model"
    ):
        read_program(model, "net")
