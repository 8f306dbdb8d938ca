"""Gains and offsets between float convolutions become convolutions that the runtime computes in their layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net, random_data

from fcdeploy.graph.model import name_everything
from fcdeploy.int8.writing.blocked_arithmetic import keep_layout
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.kernels import optimize_graph
from fcdeploy.runtime.session import Session

DATA = random_data(0, 2, x=(3, 12, 12))


def model_of(channels: int, *steps: tuple[str, float], swapped: bool = False, output: bool = False) -> ir.Model:
    """A convolution, hard-swish, steps of one number each, and another convolution."""
    net = Net(3)
    y = net.conv(net.input("x", 3, 12, 12), 3, channels)
    y = net.op("Mul", y, net.op("HardSigmoid", y, alpha=1 / 6, beta=0.5))
    for op, number in steps:
        pair = (y, net.constant(np.float32(number)))
        y = net.op(op, *(pair[::-1] if swapped else pair))
    last = net.conv(y, channels, 16)
    model = ir.from_proto((net.output(last, y) if output else net.output(last)).model())
    name_everything(model.graph)
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("steps", "swapped"),
    [
        ([("Mul", 0.7), ("Add", -0.3)], False),
        ([("Mul", 0.7), ("Add", -0.3)], True),
        ([("Add", 0.4), ("Mul", 1.5)], False),
        ([("Sub", 0.4)], True),
        ([("Div", 3.0)], False),
        ([("Mul", 2.0), ("Add", 1.0), ("Mul", 0.25)], False),
    ],
)
def test_the_numbers_are_the_same_and_the_layout_is_kept(steps: list[tuple[str, float]], swapped: bool) -> None:
    model = model_of(16, *steps, swapped=swapped)
    before = Session(model.clone(), threads=1).run(DATA)[0]
    assert keep_layout(model.graph) == (len(steps) + 1) // 2
    after = Session(model, threads=1).run(DATA)[0]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    kernels = [node.op_type for node in optimize_graph(model)]
    assert set(kernels) <= {"Conv", "ReorderInput", "ReorderOutput"}
    assert kernels.count("ReorderOutput") == 1


def test_others_stay() -> None:
    assert keep_layout(model_of(12, ("Mul", 0.7)).graph) == 0  # no whole blocks of channels
    net = Net(3)
    y = net.op("Mul", net.op("Relu", net.input("x", 16, 8, 8)), net.constant(np.float32(2)))
    model = ir.from_proto(net.output(net.conv(y, 16, 16)).model())
    infer_shapes(model)
    assert keep_layout(model.graph) == 0  # not behind a convolution


def gelu(net: Net, x: str) -> str:
    """As PyTorch's exporter writes it."""
    share = net.op("Erf", net.op("Div", x, net.constant(2**0.5)))
    return net.op("Mul", net.op("Mul", x, net.op("Add", share, net.constant(1))), net.constant(0.5))


def gelu_of_a_half(net: Net, x: str) -> str:
    """As BERT has it: x / 2 first."""
    share = net.op("Erf", net.op("Div", x, net.constant(2**0.5)))
    return net.op("Mul", net.op("Mul", x, net.constant(0.5)), net.op("Add", share, net.constant(1)))


def gelu_of_a_cube(net: Net, x: str) -> str:
    """The approximation, by tanh."""
    cube = net.op("Mul", net.op("Pow", x, net.constant(3)), net.constant(0.044715))
    share = net.op("Tanh", net.op("Mul", net.op("Add", x, cube), net.constant((2 / np.pi) ** 0.5)))
    return net.op("Mul", net.op("Mul", x, net.constant(0.5)), net.op("Add", share, net.constant(1)))


@pytest.mark.parametrize(("write", "kernel"), [(gelu, "Gelu"), (gelu_of_a_half, "Gelu"), (gelu_of_a_cube, "FastGelu")])
def test_a_gelu_stays_whole(write: Callable[[Net, str], str], kernel: str) -> None:
    """One kernel, as it was; of an Add in front of it a convolution is made all the same."""
    net = Net(3)
    x = net.op("Add", net.conv(net.input("x", 3, 12, 12), 3, 16), net.constant(0.5))
    model = ir.from_proto(net.output(net.conv(write(net, x), 16, 16)).model())
    name_everything(model.graph)
    infer_shapes(model)
    assert kernel in [node.op_type for node in optimize_graph(model)]
    before = Session(model.clone(), threads=1).run(DATA)[0]
    assert keep_layout(model.graph) == 1
    assert kernel in [node.op_type for node in optimize_graph(model)]
    np.testing.assert_allclose(Session(model, threads=1).run(DATA)[0], before, rtol=1e-5, atol=1e-5)


def test_a_result_that_is_an_output_keeps_its_name() -> None:
    model = model_of(16, ("Mul", 0.7), ("Add", -0.3), output=True)
    names = [value.name for value in model.graph.outputs]
    before = Session(model.clone(), threads=1).run(DATA)
    assert keep_layout(model.graph) == 1
    assert [value.name for value in model.graph.outputs] == names
    for one, other in zip(before, Session(model, threads=1).run(DATA), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
