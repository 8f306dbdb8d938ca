"""Comparisons, Where, ArgMax in native code, and models of operators on quantized tensors, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from native_kernels import assert_same
from networks import Net
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import Layer
from fcdeploy.native.program.steps import Lookup, Program, Select
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def check(net: Net, feeds: dict[str, Array], *, model: Any = None, close: float = 0.0) -> Program:
    """Native code gives what the program gives, and the program what onnxruntime gives, every bit unless it may be `close`."""
    proto = net.model() if model is None else model
    graph = ir.from_proto(proto)
    name_everything(graph.graph)
    program = read_program(graph, "net")
    found = run(program, feeds)
    answers = Session(ir.from_proto(proto), threads=1, precise=True).run(feeds)
    for tensor, wanted in zip(program.outputs, answers, strict=True):
        assert found[tensor.name].dtype == wanted.dtype
        np.testing.assert_allclose(found[tensor.name], wanted, rtol=close, atol=0)
    assert_same(build(program), feeds, found)
    return program


def as_bytes(net: Net, x: str, scale: float = 0.02, zero: int = 100) -> str:
    numbers = net.constant(scale), net.constant(zero, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, *numbers), *numbers)


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_of_floats_and_of_bytes(op: str) -> None:
    random = np.random.default_rng(0)
    net = Net()
    x, z = net.input("x", 3, 4, 5), net.input("z", 1, 4, 1)
    held = net.op(op, as_bytes(net, x), net.constant(0.1))
    net.output(net.op(op, x, z), net.op("Cast", net.op("Not", net.op("And", net.op(op, x, z), held)), to=1), held)
    feeds = {"x": random.integers(-2, 3, (1, 3, 4, 5)), "z": random.integers(-2, 3, (1, 1, 4, 1))}
    check(net, {name: each.astype(np.float32) / 10 for name, each in feeds.items()})


def test_where_is_a_table_where_all_are_functions_of_one_tensor() -> None:
    net = Net()
    real = as_bytes(net, net.input("x", 6, 3))
    slope = net.op("Mul", real, net.constant(0.25))
    chosen = net.op("Where", net.op("Less", real, net.constant(0.0)), slope, real)
    net.output(as_bytes(net, chosen, 0.01, 128))
    program = check(net, {"x": np.random.default_rng(1).normal(size=(1, 6, 3)).astype(np.float32)})
    assert {type(step).__name__ for step in program.steps} == {"Quantize", "Lookup"}


@pytest.mark.parametrize("kind", ["bytes", "floats", "held"])
def test_where_on_bytes_and_on_floats(kind: str) -> None:
    """In bytes where bytes follow: of two codings, of a constant, behind a convolution whose channels lie last."""
    random = np.random.default_rng(2)
    net = Net(opset=19)
    x, z = net.input("x", 4, 5, 6), net.input("z", 1, 5, 6)
    condition = net.op("Greater", as_bytes(net, z), net.constant(0.0))
    a = net.conv(as_bytes(net, x), 4, 3) if kind == "floats" else as_bytes(net, x)
    if kind == "held":
        condition = net.constant(random.integers(0, 2, (1, 4, 1, 6)), bool)
        b = net.constant(-3.0)
    else:
        b = as_bytes(net, z, 0.05, 3)
    chosen = net.op("Where", condition, a, b)
    net.output(chosen if kind == "floats" else as_bytes(net, chosen, 0.03, 90))
    feeds = {
        "x": random.normal(size=(1, 4, 5, 6)).astype(np.float32),
        "z": random.normal(size=(1, 1, 5, 6)).astype(np.float32),
    }
    if kind == "floats":  # the convolution's sums are added up in another order
        graph = ir.from_proto(net.model())
        name_everything(graph.graph)
        program = read_program(graph, "net")
        found = run(program, feeds)
        (wanted,) = ReferenceEvaluator(net.model()).run(None, feeds)
        np.testing.assert_allclose(found[program.outputs[0].name], wanted, atol=1e-5)
        assert_same(build(program), feeds, found)
        return
    program = check(net, feeds)
    assert list_float_steps(program) == []
    assert next(step for step in program.steps if isinstance(step, Select)).output.dtype == "uint8"


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_places_of_the_largest_and_smallest(op: str) -> None:
    """Of floats and of bytes, with ties, along every axis."""
    random = np.random.default_rng(3)
    for axis in (1, 2, -1):
        for last, keep in ((0, 1), (1, 0)):
            net = Net()
            x = net.input("x", 7, 3, 4)
            pooled = net.op("MaxPool", as_bytes(net, x), kernel_shape=[1, 1])
            more = {"axis": axis, "select_last_index": last, "keepdims": keep}
            net.output(net.op(op, x, **more), net.op(op, pooled, **more))
            program = check(net, {"x": random.integers(-3, 4, (1, 7, 3, 4)).astype(np.float32) / 10})
            assert not any(isinstance(step, Lookup) for step in program.steps)


@pytest.mark.parametrize("op", COMPARISONS)
def test_places_are_compared(op: str) -> None:
    """With whole numbers, those that no float32 holds among them, and with other places."""
    net = Net()
    x = net.input("x", 4, 6)
    first, last = (net.op("ArgMax", x, axis=-1, select_last_index=last) for last in (0, 1))
    held = net.constant([[[-3, 1, 2, 3, 2**24 + 1]]], np.int64)
    net.output(net.op(op, first, held), net.op(op, held, last), net.op(op, first, last))
    check(net, {"x": np.random.default_rng(7).integers(0, 3, (1, 4, 6)).astype(np.float32)})


def test_narrower_places_choose_rows() -> None:
    random = np.random.default_rng(6)
    net = Net()
    place = net.op("ArgMax", net.input("x", 7), axis=1, keepdims=0)
    net.output(net.op("Gather", net.constant(net.normal(7, 3)), net.op("Cast", place, to=TensorProto.INT32)))
    check(net, {"x": random.normal(size=(1, 7)).astype(np.float32)})


def test_an_operator_on_quantized_tensors_is_refused_by_its_own_name() -> None:
    net = Net(opset=19)
    coded = [net.constant(0.1), net.constant(3, np.uint8)]
    weight = [net.constant(np.ones((4, 2)), np.int8), net.constant(0.1), net.constant(0, np.int8)]
    x = net.op("QuantizeLinear", net.input("x", 4), *coded)
    bias = net.constant(np.zeros(2), np.int32)
    output = net.op("QGemm", x, *coded, *weight, bias, *coded, domain="com.microsoft", transA=1, name="scaled")
    model = ir.from_proto(save_quantized(net, output, TensorProto.UINT8))
    name_everything(model.graph)
    with fails("node 'scaled' is a QGemm that cannot be compiled"):
        read_program(model, "net")


@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "DynamicQuantizeLinear"])
def test_what_is_scaled_in_every_run_is_named_with_the_way_out(op: str) -> None:
    net = Net(opset=19)
    x = net.input("x", 4)
    if op == "DynamicQuantizeMatMul":
        weight = [net.constant(np.ones((4, 2)), np.int8), net.constant(0.1)]
        output = net.op(op, x, *weight, domain="com.microsoft", name="scaled")
    else:
        output = net.op(op, x, name="scaled")
    model = ir.from_proto(save_quantized(net, output, TensorProto.FLOAT))
    with fails(f"node 'scaled' is a {op} that cannot be compiled: it scales its activations anew", "--engine native"):
        read_program(model, "net")


@pytest.mark.parametrize("alpha", [0.5, 1.25, -0.75])
@pytest.mark.parametrize("to_bytes", [True, False])
def test_a_product_times_a_number(alpha: float, to_bytes: bool) -> None:
    """QGemm has its bias in units of alpha times both scales, Gemm adds beta times what its bias stands for."""
    net, random, close = Net(opset=19), np.random.default_rng(5), 0.0 if to_bytes else 1e-5
    coded = [net.constant(0.0513), net.constant(128, np.uint8)]
    x = net.op("QuantizeLinear", net.input("x", 9), *coded)
    weight = [net.constant(random.integers(-63, 64, (9, 5)), np.int8), net.constant(0.0107), net.constant(0, np.int8)]
    bias = net.constant(random.integers(-900, 900, 5), np.int32)
    ends = coded if to_bytes else []
    output = net.op("QGemm", x, *coded, *weight, bias, *ends, domain="com.microsoft", alpha=alpha)
    model = save_quantized(net, output, TensorProto.UINT8 if to_bytes else TensorProto.FLOAT)
    for seed in range(3):
        check(net, {"x": np.random.default_rng(seed).normal(size=(1, 9)).astype(np.float32)}, model=model, close=close)

    plain = Net(opset=19)
    coded = [plain.constant(0.0513), plain.constant(128, np.uint8)]
    read = plain.op("DequantizeLinear", plain.op("QuantizeLinear", plain.input("x", 9), *coded), *coded)
    stored = plain.constant(random.integers(-63, 64, (9, 5)), np.int8)
    weight_read = plain.op("DequantizeLinear", stored, plain.constant(0.0107))
    added = plain.op(
        "DequantizeLinear", plain.constant(random.integers(-900, 900, 5), np.int32), plain.constant(0.00053)
    )
    y = plain.op("Gemm", read, weight_read, added, alpha=alpha, beta=0.5)
    plain.output(plain.op("DequantizeLinear", plain.op("QuantizeLinear", y, *coded), *coded) if to_bytes else y)
    for seed in range(3):
        check(plain, {"x": np.random.default_rng(seed).normal(size=(1, 9)).astype(np.float32)}, close=close)


def save_quantized(net: Net, output: str, kind: int) -> Any:
    """The network with the operators of onnxruntime's QOperator format in it."""
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = helper.make_graph(
        net.nodes, "net", net.inputs, [helper.make_tensor_value_info(output, kind, None)], net.weights
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_models_of_operators_on_quantized_tensors() -> None:
    """The same integers as onnxruntime's kernels; weights of 7 bits, as they would saturate on this CPU."""
    net, random = Net(opset=19), np.random.default_rng(4)

    def coded(scale: float, zero: int) -> list[str]:
        return [net.constant(scale), net.constant(zero, np.uint8)]

    def own(op: str, *inputs: str, **attributes: Any) -> str:
        return net.op(op, *inputs, domain="com.microsoft", **attributes)

    one, two, narrow = coded(0.02, 120), coded(0.05, 128), coded(1 / 256, 0)
    x = net.op("QuantizeLinear", net.input("x", 3, 6, 6), *one)
    weight = [
        net.constant(random.integers(-63, 64, (8, 3, 3, 3)), np.int8),
        net.constant(random.uniform(0.001, 0.004, 8)), net.constant(np.zeros(8), np.int8),
    ]  # fmt: skip
    bias = net.constant(random.integers(-900, 900, 8), np.int32)
    y = net.op("QLinearConv", x, *one, *weight, *two, bias, pads=[1, 1, 1, 1])
    leaky = own("QLinearLeakyRelu", y, *two, *two, alpha=0.25)
    gate = own("QLinearSigmoid", y, *two, *narrow)
    y = own("QLinearMul", leaky, *two, gate, *narrow, *two)
    y = own("QLinearAdd", y, *two, leaky, *two, *two)
    y = own("QLinearConcat", *two, y, *two, leaky, *two, axis=1)
    y = own("QLinearAveragePool", y, *two, *two, kernel_shape=[3, 3], strides=[3, 3])
    y = net.op("MaxPool", y, kernel_shape=[1, 2])
    y = own("QLinearGlobalAveragePool", y, *two, *one)
    y = net.op("Reshape", y, net.constant([1, 16], np.int64))
    inner = [net.constant(random.integers(-63, 64, (16, 9)), np.int8), net.constant(0.01), net.constant(0, np.int8)]
    y = net.op("QLinearMatMul", y, *one, *inner, *two)
    last = [
        net.constant(random.integers(68, 195, (5, 9)), np.uint8), net.constant(np.float32(0.01)),
        net.constant(131, np.uint8),
    ]  # fmt: skip
    added = net.constant(random.integers(-99, 99, 5), np.int32)
    output = own("QGemm", y, *two, *last, added, alpha=1.0, transB=1)
    model = save_quantized(net, output, TensorProto.FLOAT)
    for seed in range(3):
        feeds = {"x": np.random.default_rng(seed).normal(size=(1, 3, 6, 6)).astype(np.float32)}
        program = check(net, feeds, model=model)
    assert list_float_steps(program) == []
    assert sum(isinstance(step, Layer) for step in program.steps) == 3


def test_signed_operators_on_quantized_tensors_are_those_of_onnx() -> None:
    """onnxruntime has none for signed activations on this CPU: ONNX's reference evaluator answers."""
    net, random = Net(opset=19), np.random.default_rng(5)
    one, two = ([net.constant(scale), net.constant(zero, np.int8)] for scale, zero in ((0.02, -7), (0.05, 11)))
    weight = [
        net.constant(random.integers(-127, 128, (4, 2, 3, 3)), np.int8),
        net.constant(0.003),
        net.constant(0, np.int8),
    ]
    x = net.op("QuantizeLinear", net.input("x", 2, 5, 5), *one)
    y = net.op("QLinearConv", x, *one, *weight, *two, net.constant(random.integers(-900, 900, 4), np.int32))
    model = save_quantized(net, net.op("DequantizeLinear", y, *two), TensorProto.FLOAT)
    graph = ir.from_proto(model)
    name_everything(graph.graph)
    program = read_program(graph, "net")
    feeds = {"x": random.normal(size=(1, 2, 5, 5)).astype(np.float32)}
    found = run(program, feeds)
    (wanted,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(found[program.outputs[0].name], wanted, atol=1e-6)
    assert_same(build(program), feeds, found)
