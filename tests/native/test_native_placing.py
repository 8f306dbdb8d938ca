"""Where steps write: what reads it may want another order, rows that are apart, or a part of something larger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from native_kernels import Machine, assert_same, levels, library
from networks import Net

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.interpret import run
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

SCALE = 0.01
TIES = 3 * SCALE
TIMES, WIDTH = 6, 4


def as_bytes(net: Net, real: str) -> str:
    coding = net.constant(SCALE), net.constant(128, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", real, *coding), *coding)


def integers(net: Net, *shape: int) -> str:
    return net.op("DequantizeLinear", net.constant(net.random.integers(-99, 99, shape), np.int8), net.constant(0.01))


def dense(net: Net, x: str) -> str:
    return net.op("MatMul", x, integers(net, WIDTH, WIDTH))


def float_dense(net: Net, x: str) -> str:
    return net.op("MatMul", net.op("Sin", x), net.constant(net.normal(WIDTH, WIDTH)))


def product(net: Net, x: str) -> str:
    return net.op("MatMul", as_bytes(net, net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))), x)


def normalize(net: Net, x: str) -> str:
    return net.op("LayerNormalization", x, *(net.constant(net.normal(WIDTH)) for _ in range(2)), axis=-1)


def recurrent(net: Net, x: str) -> str:
    weights = [net.constant(net.normal(1, 4 * WIDTH, WIDTH, size=0.4)) for _ in range(2)]
    times = net.op("Transpose", x, perm=[1, 0, 2])
    states = net.ops("LSTM", times, *weights, outputs=2, hidden_size=WIDTH)[0]
    return net.op("Transpose", net.op("Squeeze", states, net.constant([1], np.int64)), perm=[1, 0, 2])


def softmax(net: Net, x: str) -> str:
    return net.op("Softmax", x, axis=-1)


def mean(net: Net, x: str) -> str:
    return net.op("Add", net.op("ReduceMean", x, axes=[2], keepdims=1), x)


def largest(net: Net, x: str) -> str:
    return net.ops("TopK", x, net.constant([WIDTH], np.int64), outputs=2, axis=-1)[0]


def seen_along_the_second_axis(net: Net, y: str) -> list[str]:
    return [net.op("GlobalAveragePool", y), net.op("MaxPool", y, kernel_shape=[2])]


def windows(net: Net, y: str) -> list[str]:
    return [net.op("Conv", as_bytes(net, y), integers(net, 3, TIMES, 3))]


def parts(net: Net, y: str) -> list[str]:
    """Of what lies in both orders, along every axis."""
    other, found = as_bytes(net, net.op("Neg", y)), []
    for axis in (1, 2):
        whole = net.op("Concat", *([y, other] if axis == 1 else [other, y]), axis=axis)
        found += [net.op("MaxPool", net.op("Concat", other, y, axis=axis), kernel_shape=[1]), net.op("Sigmoid", whole)]
    return found


@pytest.mark.parametrize("read", [seen_along_the_second_axis, windows, parts])
@pytest.mark.parametrize("write", [dense, float_dense, product, normalize, recurrent, softmax, mean, largest])
@pytest.mark.parametrize("coded", [False, True])
def test_a_step_writes_where_its_readers_want_it(
    write: Callable[[Net, str], str], read: Callable[[Net, str], list[str]], coded: bool
) -> None:
    net = Net()
    y = write(net, as_bytes(net, net.input("x", TIMES, WIDTH)))
    found = read(net, as_bytes(net, y) if coded else y)
    net.output(*([as_bytes(net, each) for each in found] if coded else found))
    check(net, {"x": net.random.normal(size=(1, TIMES, WIDTH)).astype(np.float32)})


@pytest.mark.parametrize("layer", [dense, float_dense])
@pytest.mark.parametrize("rows", ["transposed", "cut", "cut rows"])
def test_a_dense_layer_reads_rows_in_their_order(layer: Callable[[Net, str], str], rows: str) -> None:
    """Of axes that have changed places, and of parts, rows lie at uneven distances."""
    net = Net()
    x = as_bytes(net, net.input("x", 3, 5, WIDTH))
    if rows == "transposed":
        x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    else:
        axis, step = (2, 1) if rows == "cut" else (1, 2)
        x = net.op("Slice", x, *(net.constant([each], np.int64) for each in (0, 3, axis, step)))
    net.output(layer(net, x), as_bytes(net, layer(net, x)))
    check(net, {"x": net.random.normal(size=(1, 3, 5, WIDTH)).astype(np.float32)})


def check(net: Net, feeds: dict[str, Any]) -> None:
    """The program gives what onnxruntime's plain kernels do, and every level what the program does, but for ties."""
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    program = read_program(model, "net")
    found, built = run(program, feeds), build(program)
    results = [Machine(built, library(level.name), fill=n).run(feeds) for n, level in enumerate(levels())]
    for tensor, wanted in zip(program.outputs, Session(model, threads=1, optimize=False).run(feeds), strict=True):
        np.testing.assert_allclose(found[tensor.name], wanted, rtol=0, atol=TIES)
        for result in results:
            np.testing.assert_allclose(result[tensor.name], found[tensor.name], rtol=0, atol=TIES)
            np.testing.assert_array_equal(result[tensor.name].view(np.uint8), results[0][tensor.name].view(np.uint8))


def test_constants_of_one_axis_beside_a_result_without_any() -> None:
    net = Net(0)
    mean = net.op("ReduceMean", net.input("x", 4), axes=[0, 1], keepdims=0)
    net.output(net.op("Add", net.op("Mul", mean, net.constant(2.5)), net.constant(-1.0)))
    graph = ir.from_proto(net.model())
    name_everything(graph.graph)
    program = read_program(graph, "net")
    x = np.float32([[1, 2, 3, 7]])
    found = run(program, {"x": x})
    assert found[program.outputs[0].name] == pytest.approx(2.5 * x.mean() - 1)
    assert_same(build(program), {"x": x}, found)
