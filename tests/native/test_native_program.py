"""Int8 models read as integer programs: what onnxruntime computes, the program computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from native_kernels import assert_same
from networks import Line, Net, quantize_net, random_data
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.placing.layout import place
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import Layer, Product
from fcdeploy.native.program.steps import Combine, Lookup, LookupTable, Program, Quantize
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session


def program_of(line: Line) -> Program:
    return read_program(line.int8, "net")


def check(line: Line, *, ties: int = 0, native: bool = True) -> Program:
    """The program gives what onnxruntime does, and native code what the program does."""
    program = program_of(line)
    session = Session(line.int8, threads=1)
    assert [tensor.name for tensor in program.outputs] == session.outputs
    for i in range(3):
        feeds = {name: array[i : i + 1] for name, array in line.data.items()}
        found = run(program, feeds)
        for tensor, wanted in zip(program.outputs, session.run(feeds), strict=True):
            value = found[tensor.name]
            assert value.shape == wanted.shape
            close = np.isclose(value, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max()))
            assert np.count_nonzero(~close) <= ties
    if native:
        assert_same(build(program), feeds, found)
    return program


def kinds(program: Program) -> list[str]:
    return [type(step).__name__ for step in program.steps]


def test_a_residual_network_is_integers_from_end_to_end() -> None:
    net = Net()
    x = net.input("x", 3, 9, 8)
    first = net.op("Relu", net.conv(x, 3, 12, name="c1"))
    second = net.conv(first, 12, 12, name="c2")
    added = net.op("Relu", net.op("Add", first, second, name="add"))
    pooled = net.op("GlobalAveragePool", added, name="mean")
    net.output(net.dense(net.op("Flatten", pooled), 12, 5, name="fc"))
    quantized = quantize_net(net, random_data(0, 8, x=(3, 9, 8)))
    program = check(quantized)
    assert {type(step) for step in program.steps} >= {Quantize, Layer, Combine}
    assert kinds(program).count("Layer") == 3
    assert program.macs == 9 * 8 * (36 * 12 + 108 * 12) + 60  # a fourth channel, in whose pairs weights are bound
    small = read_program(quantized.int8, "net", pairs=False)
    assert small.macs == 9 * 8 * (27 * 12 + 108 * 12) + 60
    assert "convolution 3x3, 3 -> 12 (" in str(small)
    feeds = {"x": quantized.data["x"][:1]}
    (output,) = program.outputs
    assert np.array_equal(run(small, feeds)[output.name], run(program, feeds)[output.name])


def test_depthwise_and_pointwise_and_a_flatten_that_moves_nothing() -> None:
    net = Net()
    x = net.input("x", 4, 10, 6)
    y = net.op("Clip", net.conv(x, 4, 20), net.constant(0.0), net.constant(6.0))
    y = net.op("Relu", net.conv(y, 20, 20, group=20, strides=[2, 2]))
    y = net.conv(y, 20, 10, (1, 1))
    y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[1, 1])
    net.output(net.dense(net.op("Flatten", y), 10 * 4 * 2, 7))
    program = check(quantize_net(net, random_data(1, 8, x=(4, 10, 6))))
    assert any(isinstance(step, Layer) and step.depthwise for step in program.steps)
    layout = place(program)
    copies = [work for work in layout.work if type(work).__name__ == "Copy"]
    assert not copies, [work.node for work in copies]  # the flatten is in the order of the weights


def test_a_signal_through_a_concatenation_of_two_scales() -> None:
    net = Net()
    x = net.input("x", 6, 30)
    a = net.op("Relu", net.conv(x, 6, 9, (5,), strides=[2]))
    b = net.conv(x, 6, 5, (3,), strides=[2], dilations=[1])
    joined = net.op("Concat", a, b, axis=1)
    y = net.op("AveragePool", joined, kernel_shape=[3], strides=[2])
    net.output(net.conv(y, 14, 4, (3,)))
    check(quantize_net(net, random_data(2, 8, x=(6, 30))), ties=3)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_constant_in_a_concatenation(axis: int) -> None:
    """A class token in front of patches, in floats and in bytes."""
    token = np.random.default_rng(3).normal(size=(1, 1, 9) if axis == 1 else (1, 6, 1)).astype(np.float32)
    net = Net()
    x = net.input("x", 6, 9)
    joined = net.op("Concat", net.constant(token), net.op("Relu", net.conv(x, 6, 6, (1,))), axis=axis)
    y = net.op("Sin", joined) if axis == 1 else joined
    net.output(net.dense(net.op("Flatten", y), 63 if axis == 1 else 60, 4))
    check(quantize_net(net, random_data(4, 8, x=(6, 9))), ties=1)


@pytest.mark.parametrize(
    ("op", "more"),
    [("Sigmoid", {}), ("LeakyRelu", {"alpha": 0.1}), ("HardSwish", {}), ("Tanh", {}), ("Gelu", {})],
)
def test_activations_between_bytes_are_tables(op: str, more: dict[str, Any]) -> None:
    """Also those that no integer kernel of onnxruntime has: in native code a function of bytes is 256 bytes."""
    net = Net(opset=21 if op == "Gelu" else 17)
    x = net.input("x", 3, 6, 6)
    y = net.op(op, net.conv(x, 3, 8, name="c1"), **more)
    net.output(net.conv(y, 8, 4, name="c2"))
    line = quantize_net(net, random_data(3, 8, x=(3, 6, 6)))
    program = check(line, ties=2)
    between = [step for step in program.steps if isinstance(step, LookupTable | Lookup)]
    assert len(between) <= (3 if op == "Tanh" else 2)  # a Tanh is a Sigmoid of bytes that are read with another scale


def test_parts_without_elements_are_no_part_of_a_concatenation() -> None:
    """As exporters write a roll by nothing, and the first axes of a shape that has none of them."""
    numbers = {"six": [6], "nine": [9], "zero": [0], "one": [1], "last": [8, 3]}
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Slice", ["x", "six", "nine", "one"], ["none"]),
                helper.make_node("Concat", ["none", "x"], ["rolled"], axis=1),
                helper.make_node("Shape", ["rolled"], ["shape"]),
                helper.make_node("Slice", ["shape", "zero", "zero"], ["no axes"]),
                helper.make_node("Slice", ["shape", "zero", "one"], ["first axis"]),
                helper.make_node("Concat", ["no axes", "first axis", "last"], ["to"], axis=0),
                helper.make_node("Reshape", ["rolled", "to"], ["y"]),
            ],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 3])],
            [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    x = np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)
    program = read_program(ir.from_proto(model), "net")
    found = run(program, {"x": x})
    assert np.array_equal(found["y"], x.reshape(1, 8, 3))
    assert_same(build(program), {"x": x}, found)


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 2, 5, 4), (2, 3, 2, 4, 6)), ((2, 3, 2, 5, 4), (1, 1, 1, 4, 6)), ((2, 3, 2, 5, 4), (2, 3, 1, 4, 6))],
)
def test_products_of_many_matrices(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """More axes in front of two matrices than a kernel walks over: those side by side are one."""
    net = Net()
    left, right = net.input("a", *a), net.input("b", *b)
    net.output(net.op("MatMul", net.op("Relu", left), net.op("Relu", right)))
    program = check(quantize_net(net, random_data(5, 8, a=a, b=b)), ties=2)
    assert any(isinstance(step, Product) and len(step.output.shape) <= 4 for step in program.steps)


def test_a_product_along_axes_apart_from_each_other_is_refused() -> None:
    net = Net()
    shapes = {"a": (2, 1, 2, 5, 4), "b": (1, 3, 2, 4, 6)}
    net.output(net.op("MatMul", *[net.input(name, *shape) for name, shape in shapes.items()]))
    with fails("along more than 2 axes apart from each other"):
        program_of(quantize_net(net, random_data(5, 8, **shapes)))


@pytest.mark.parametrize("axis", [1, 2])
def test_sums_that_a_convolution_reads_with_its_border(axis: int) -> None:
    """What is reduced lies with its channels first, and what is read of it with its channels last, and zeros around."""
    random, left = np.random.default_rng(6), 6 if axis == 1 else 2
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Reshape", ["x", "to"], ["split"]),
                helper.make_node("ReduceMean", ["split"], ["mean"], axes=[axis], keepdims=0),
                helper.make_node("Conv", ["mean", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            ],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 5, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 5, 4])],
            [
                numpy_helper.from_array(np.array([1, 2, 6, 5, 4], np.int64), "to"),
                numpy_helper.from_array(random.normal(size=(4, left, 3, 3)).astype(np.float32), "w"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    feeds = {"x": random.normal(size=(1, 12, 5, 4)).astype(np.float32)}
    program = read_program(ir.from_proto(model), "net")
    found = run(program, feeds)
    (wanted,) = Session(ir.from_proto(model), threads=1).run(feeds)
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-5)
    assert_same(build(program), feeds, found)


def test_a_model_of_another_tool_with_unsigned_weights() -> None:
    """Codes less their zero points need 9 bits: each is two weights of 8."""
    random = np.random.default_rng(0)
    net = Net()
    x = net.input("x", 3, 7, 7)
    scale, zero = net.constant(0.02), net.constant(120, np.uint8)
    image = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
    weight = net.constant(random.integers(0, 256, (6, 3, 3, 3)), np.uint8)
    w = net.op("DequantizeLinear", weight, net.constant(0.003), net.constant(7, np.uint8))
    y = net.op("Conv", image, w, kernel_shape=[3, 3])
    net.output(net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero))
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    program = read_program(model, "net")
    layer = next(step for step in program.steps if isinstance(step, Layer))
    assert layer.weight.dtype == np.int16
    feeds = {"x": random.normal(size=(1, 3, 7, 7)).astype(np.float32)}
    found = run(program, feeds)
    (wanted,) = Session(model, threads=1).run(feeds)
    assert np.count_nonzero(found[program.outputs[0].name] != wanted) <= 1
    assert_same(build(program), feeds, found)


def test_what_has_no_kernel_is_named() -> None:
    net = Net()
    x = net.input("x", 4)
    net.output(net.op("Hardmax", net.dense(x, 4, 4), name="odd one"))
    with fails(
        "node 'odd one' is a Hardmax that cannot be compiled: there is no kernel", "the documentation under Native code"
    ):
        program_of(quantize_net(net, random_data(4, 4, x=(4,))))


def test_free_axes_are_asked_for() -> None:
    net = Net()
    x = net.input("x", 5, "time")
    net.output(net.conv(x, 5, 4, (3,)))
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    with fails("input 'x' has the free axes [n, 5, time]: native code is made for one shape", "--shape x:1,5,N"):
        read_program(model, "net")
    assert read_program(model, "net", {"x": (1, 5, 9)}).outputs[0].shape == (1, 4, 9)


def test_outputs_that_are_read_on_given_twice_or_the_input_itself() -> None:
    net = Net()
    x = net.input("x", 8)
    hidden = net.op("Relu", net.dense(x, 8, 16, name="a"))
    net.output(hidden)
    net.output(net.op("Identity", hidden))
    net.output(net.op("Identity", x))
    net.output(net.dense(hidden, 16, 3, name="b"))
    assert kinds(check(quantize_net(net, random_data(0, 8, x=(8,))))).count("Layer") == 2


def test_byte_outputs_of_both_kinds() -> None:
    for kind in (np.uint8, np.int8):
        net = Net()
        x = net.input("x", 6)
        scale, zero = net.constant(0.03), net.constant(3, kind)
        coded = net.op("QuantizeLinear", x, scale, zero)
        real = net.op("DequantizeLinear", coded, scale, zero)
        net.output(
            net.op(
                "QuantizeLinear",
                net.op("Sigmoid", real),
                net.constant(1 / 255),
                net.constant(-5 if kind == np.int8 else 0, kind),
            )
        )
        model = ir.from_proto(net.model())
        name_everything(model.graph)
        program = read_program(model, "net")
        feeds = {"x": np.linspace(-4, 4, 6, dtype=np.float32)[None]}
        found = run(program, feeds)
        (wanted,) = Session(model, threads=1).run(feeds)
        np.testing.assert_array_equal(found[program.outputs[0].name], wanted)
        assert found[program.outputs[0].name].dtype == kind
        assert_same(build(program), feeds, found)
