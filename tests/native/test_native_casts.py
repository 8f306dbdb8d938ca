"""Numbers of other types and elements in their order, against onnxruntime and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import EXAMPLES, Machine, assert_same, levels, library
from networks import Net
from onnx import TensorProto

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.steps import Convert, Order, Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

FEW = settings(max_examples=EXAMPLES // 3, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
Array = np.ndarray[Any, Any]


def check(net: Net, feeds: dict[str, Array]) -> Program:
    """All bits and types of onnxruntime's plain kernels, at every level."""
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    program = read_program(model, "net")
    found = run(program, feeds)
    for tensor, wanted in zip(program.outputs, Session(model, threads=1, optimize=False).run(feeds), strict=True):
        assert tensor.dtype == wanted.dtype.name
        np.testing.assert_array_equal(found[tensor.name], wanted)
    assert_same(build(program), feeds, found)
    return program


def as_bytes(net: Net, real: str, scale: float = 0.02, zero: int = 128) -> str:
    pair = net.constant(scale), net.constant(zero, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", real, *pair), *pair)


def draw(*shape: int, seed: int = 0, size: float = 1.0) -> Array:
    return (np.random.default_rng(seed).normal(size=(1, *shape)) * size).astype(np.float32)


# --- types ---


@pytest.mark.parametrize("to", ["INT32", "INT64", "UINT8", "BOOL", "FLOAT"])
def test_casts_of_floats_and_of_bytes(to: str) -> None:
    kind = getattr(TensorProto, to)
    net = Net()
    x = net.input("x", 3, 4)
    net.output(net.op("Cast", x, to=kind))
    feeds = {"x": np.abs(draw(3, 4, size=40)) if to == "UINT8" else draw(3, 4, size=40)}
    feeds["x"][0, 0] = 0
    check(net, feeds)
    if to == "UINT8":
        return
    net = Net()
    x = net.input("x", 3, 4)
    cast = net.op("Cast", as_bytes(net, x), to=kind)
    net.output(net.op("Cast", cast, to=TensorProto.FLOAT), cast)
    check(net, {"x": draw(3, 4)})


@pytest.mark.parametrize("kind", ["INT32", "INT64", "BOOL"])
def test_casts_of_inputs(kind: str) -> None:
    for to in ("FLOAT", "INT32", "INT64", "BOOL"):
        net = Net()
        x = net.input("x", 3, 4, dtype=getattr(TensorProto, kind))
        if kind == to or (kind, to[:3]) == ("BOOL", "INT"):
            continue
        net.output(net.op("Cast", x, to=getattr(TensorProto, to)))
        numbers = np.random.default_rng(1).integers(-(2**40), 2**40, (1, 3, 4)) * (np.arange(12).reshape(1, 3, 4) > 2)
        check(net, {"x": numbers.astype({"INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}[kind])})


def test_floats_that_no_whole_number_is() -> None:
    """Out of range the nearest that is in it, 0 for what is no number: the program's and every level's."""
    odd = [np.nan, np.inf, -np.inf, 2.0**63, -(2.0**63), 2.0**31, -(2.0**31), 2147483520.0, 256.0, 255.9, -0.9, 3e18]
    numbers = np.array(odd, np.float32)
    x = Tensor("x", (len(numbers),), "float32")
    for dtype, ends in (("int64", (-(2**63), 2**63 - 1)), ("int32", (-(2**31), 2**31 - 1)), ("uint8", (0, 255))):
        step = Convert(node="n", inputs=(x,), outputs=(Tensor("y", x.shape, dtype),))
        program = Program("drawn", (x,), step.outputs, (step,))
        found = run(program, {"x": numbers})["y"]
        assert found[0] == 0 and found[1] == ends[1] and found[2] == ends[0] and found[10] == 0
        assert found[11] == min(int(np.float32(3e18)), ends[1])
        assert_same(build(program), {"x": numbers}, {"y": found})


def test_rows_by_numbers_that_are_floats() -> None:
    """As tf2onnx writes an embedding of what a user gives as floats."""
    net = Net()
    x = net.input("x", 5)
    index = net.op("Cast", x, to=TensorProto.INT32)
    net.output(net.op("Gather", net.constant(net.normal(7, 3)), index))
    check(net, {"x": np.array([[0, 6, 3.7, 1, 2]], np.float32)})


@pytest.mark.parametrize("op", ["Equal", "Less", "GreaterOrEqual"])
def test_whole_numbers_beside_constants(op: str) -> None:
    """One hot, and masks: exact beyond what a float32 holds."""
    net = Net()
    x = net.input("x", 5, 1, dtype=TensorProto.INT64)
    hot = net.op(op, x, net.constant(np.arange(6), np.int64))
    net.output(net.op("Cast", hot, to=TensorProto.FLOAT), hot)
    check(net, {"x": np.array([0, 5, -1, 2**24 + 1, -(2**40)]).reshape(1, 5, 1)})


def test_whole_numbers_without_kernels_are_refused() -> None:
    for op, constant in (("Equal", 2**24), ("Less", 2**30), ("Add", 1)):
        net = Net()
        x = net.input("x", 5, dtype=TensorProto.INT64)
        net.output(net.op(op, x, net.constant([constant], np.int64), name="whole"))
        with fails(f"node 'whole' is a {op} that cannot be compiled: its inputs are int64 and "):
            read_program(ir.from_proto(net.model()), "net")
    for op in ("Neg", "Abs", "ReduceSum", "TopK"):
        net = Net()
        x = net.input("x", 5, dtype=TensorProto.INT64)
        more = [net.constant([2], np.int64)] if op == "TopK" else []
        net.output(net.ops(op, x, *more, name="whole", outputs=2 if op == "TopK" else 1)[0])
        with fails("node 'whole' computes with int64, for which there is no kernel"):
            read_program(ir.from_proto(net.model()), "net")


# --- elements in their order ---


@FEW
@given(seed=SEEDS, on_bytes=st.booleans(), largest=st.integers(0, 1))
def test_the_largest_and_smallest_in_their_order(seed: int, on_bytes: bool, largest: int) -> None:
    """Of equal ones the first first, along any axis, channels last too; the next steps read values and places."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(2, 7, int(random.integers(1, 4))))
    axis = int(random.integers(1, len(shape) + 1))
    count = int(random.integers(1, shape[axis - 1] + 1))
    net = Net()
    x = net.input("x", *shape)
    real = as_bytes(net, x, 0.3) if on_bytes else x
    if len(shape) == 3:
        real = net.op("MaxPool", real, kernel_shape=[1, 1])
    values, places = net.ops("TopK", real, net.constant([count], np.int64), outputs=2, axis=axis, largest=largest)
    net.output(net.op("Neg", values), places)
    numbers = np.rint(random.normal(size=(1, *shape)) * 2).astype(np.float32)
    program = check(net, {"x": numbers})
    step = next(step for step in program.steps if isinstance(step, Order))
    assert step.inputs[0].dtype == ("uint8" if on_bytes else "float32")


def test_the_largest_of_one() -> None:
    """Is that itself, also of whole numbers."""
    net = Net()
    x = net.input("x", 3, 1, dtype=TensorProto.INT64)
    values, places = net.ops("TopK", x, net.constant([1], np.int64), outputs=2)
    net.output(values, net.op("Gather", net.constant(net.normal(4)), places))
    model = ir.from_proto(net.model())
    with fails("is a constant"):
        read_program(model, "net")
    net.outputs = [values]
    check(net, {"x": np.arange(3).reshape(1, 3, 1)})


def test_an_order_of_what_is_no_number_ends() -> None:
    """Some place within the row: nothing is read or written elsewhere."""
    x = Tensor("x", (1, 5), "float32")
    outputs = Tensor("y", (1, 3), "float32"), Tensor("i", (1, 3), "int64")
    step = Order(node="n", inputs=(x,), outputs=outputs, kind="largest", axis=1)
    built = build(Program("drawn", (x,), outputs, (step,)))
    for level in levels():
        places = Machine(built, library(level.name)).run({"x": np.array([[np.nan, 1, np.nan, 3, 2]], np.float32)})["i"]
        assert ((places >= 0) & (places < 5)).all()
