"""Layers that are kept in float stay float in the runtime too, whatever stands around them, and their neighbours integer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import fails
from networks import Net, quantize_net, random_data

from fcdeploy.graph.model import write_model
from fcdeploy.int8.read_back import check_kernels
from fcdeploy.runtime.kernels import find_kernels

LAYERS = ("one", "two", "three")


def dense(activation: str) -> Net:
    """Three dense layers with an activation behind each but the last."""
    net = Net(5, opset=13)
    x = net.input("x", 24)
    for name in LAYERS:
        x = net.dense(x, 24, 24, name=name)
        x = x if name == "three" else net.op(activation, x)
    return net.output(x)


@pytest.mark.parametrize("kept", LAYERS)
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Elu", "Softplus"])
def test_only_what_is_kept_is_float(activation: str, kept: str, tmp_path: Path) -> None:
    """Both neighbours are at stake: a Gemm with an activation behind it, and a float Gemm between bytes."""
    line = quantize_net(dense(activation), random_data(2, 40, x=(24,)), keep_float=[kept])
    write_model(line.int8, tmp_path / "int8.onnx")
    kernels = {kernel.node: kernel.integer for kernel in find_kernels(tmp_path / "int8.onnx")}
    assert {name: kernels[name] for name in LAYERS} == {name: name != kept for name in LAYERS}
    assert line.sqnr() > 25


SPATIAL: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Softmax": {"axis": 1}, "AveragePool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]}, "Transpose": {"perm": [0, 1, 3, 2]}, "Add": {}, "Mul": {}, "Concat": {"axis": 1},
}  # fmt: skip


@pytest.mark.parametrize("op", SPATIAL)
def test_what_lies_between_bytes_stays_float_too(op: str, tmp_path: Path) -> None:
    """Between a DequantizeLinear and a QuantizeLinear onnxruntime would make a kernel on bytes of it."""
    net = Net(5, opset=13)
    x = net.input("x", 3, 8, 8)
    first = net.conv(x, 3, 8)
    inputs = [first, net.conv(x, 3, 8)] if op in ("Add", "Mul", "Concat") else [first]
    middle = net.op(op, *inputs, name="middle", **SPATIAL[op])
    net.output(net.conv(middle, 16 if op == "Concat" else 8, 4, name="last"))
    line = quantize_net(net, random_data(2, 40, x=(3, 8, 8)), keep_float=["middle"])
    write_model(line.int8, tmp_path / "int8.onnx")
    kernels = {kernel.node: kernel for kernel in find_kernels(tmp_path / "int8.onnx")}
    assert kernels["last"].kernel == "QLinearConv"
    middle_kernel = kernels["middle"]
    moves = (
        op == "Sigmoid" and middle_kernel.kernel == "Reshape"
    )  # a table of floats ends in one, which moves bytes as well
    assert moves or not middle_kernel.integer
    check_kernels(tuple(kernels.values()), line.plan)


def test_a_kernel_that_the_plan_does_not_have_is_an_error(tmp_path: Path) -> None:
    line = quantize_net(dense("Sigmoid"), random_data(2, 40, x=(24,)))
    write_model(line.int8, tmp_path / "int8.onnx")
    as_float = [replace(d, kind="float") if d.node == "one" else d for d in line.plan.nodes]
    with fails("node 'one', a Gemm, is to stay float", "report it"):
        check_kernels(find_kernels(tmp_path / "int8.onnx"), replace(line.plan, nodes=tuple(as_float)))
