"""Layers that are kept in float stay float in the runtime too, whatever stands around them, and their neighbours integer."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import Net, quantize_net, random_data

from fcdeploy.graph.model import write_model
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
