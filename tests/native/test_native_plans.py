"""`quantize --engine native` on drawn networks: every layer in integers, and a file that onnxruntime answers alike."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import Array, assert_same
from networks import Net, random_data

import fcdeploy
from fcdeploy.graph.model import read_model
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

SHAPE, CHANNELS = (3, 8, 8), 8
FUNCTIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Elu")


def _transposed(net: Net, x: str, write: int) -> str:
    weight, bias = net.constant(net.normal(CHANNELS, write, 2, 2, size=0.4)), net.constant(net.normal(write, size=0.2))
    return net.op("ConvTranspose", x, weight, bias, strides=[2, 2], kernel_shape=[2, 2])


def _grow(net: Net, kind: str, x: str, before: str) -> str:
    """One piece more behind `x`, of as many channels and the same size; `before` is an earlier tensor like it."""
    if kind == "conv":
        return net.conv(x, CHANNELS, CHANNELS)
    if kind == "depthwise":
        return net.conv(x, CHANNELS, CHANNELS, group=CHANNELS)
    if kind == "narrow":
        return net.conv(net.conv(x, CHANNELS, 3, (1, 1)), 3, CHANNELS, (1, 1))
    if kind in ("Add", "Mul"):
        return net.op(kind, x, before)
    if kind == "gate":
        mean = net.op("GlobalAveragePool", x)
        return net.op("Mul", x, net.op("HardSigmoid", net.conv(mean, CHANNELS, CHANNELS, (1, 1)), alpha=0.2, beta=0.5))
    if kind == "up":
        return net.op("MaxPool", _transposed(net, x, CHANNELS), kernel_shape=[2, 2], strides=[2, 2])
    if kind == "concat":
        return net.conv(net.op("Concat", x, before, axis=1), 2 * CHANNELS, CHANNELS, (1, 1))
    return net.op(kind, x)


KINDS = ("conv", "depthwise", "narrow", "Add", "Mul", "gate", "up", "concat", *FUNCTIONS)
ENDS = ("dense", "map", "softmax", "up")


def _draw_net(seed: int, kinds: list[str], end: str) -> Net:
    net = Net(seed, opset=17)
    x = before = net.op("Relu", net.conv(net.input("x", *SHAPE), SHAPE[0], CHANNELS))
    for kind in kinds:
        before, x = x, _grow(net, kind, x, before)
    if end == "map":
        return net.output(net.conv(x, CHANNELS, 5, (1, 1)))
    if end == "up":
        return net.output(net.op("Sigmoid", _transposed(net, net.op("Relu", _transposed(net, x, CHANNELS)), 1)))
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, CHANNELS, 16)))
    scores = net.dense(flat, 16, 4)
    return net.output(net.op("Softmax", scores, axis=1) if end == "softmax" else scores)


def _quantize(net: Net, folder: Path) -> Path:
    net.save(folder / "net.onnx")
    np.savez(folder / "data.npz", **random_data(0, 24, x=SHAPE))
    fcdeploy.quantize(
        folder / "net.onnx", data=folder / "data.npz", output=folder / "int8.onnx", engine="native", floor="none"
    )
    return folder / "int8.onnx"


@settings(max_examples=8)
@given(st.integers(0, 99), st.lists(st.sampled_from(KINDS), min_size=1, max_size=5), st.sampled_from(ENDS))
def test_native_code_and_onnxruntime_answer_alike(seed: int, kinds: list[str], end: str) -> None:
    """But for a rounding tie here and there: a byte that is one level off moves what follows by a few."""
    with tempfile.TemporaryDirectory() as folder:
        int8 = _quantize(_draw_net(seed, kinds, end), Path(folder))
        onnx.checker.check_model(onnx.load(int8), full_check=True)
        program, session = read_program(read_model(int8), "net"), Session(int8, threads=1, precise=True)
        unequal = []
        for i in range(6):
            feeds: dict[str, Array] = {"x": random_data(1, 6, x=SHAPE)["x"][i : i + 1]}
            found = run(program, feeds)
            (wanted,), (value,) = session.run(feeds), (found[tensor.name] for tensor in program.outputs)
            assert value.shape == wanted.shape
            unequal.append(float(np.abs(value - wanted).max() / max(np.abs(wanted).max(), 1e-3)))
        assert np.median(unequal) < 0.03
        assert max(unequal) < 0.3
        assert_same(build(program), feeds, found)


@pytest.mark.parametrize("end", ENDS)
def test_only_functions_of_outputs_compute_in_float(end: str, tmp_path: Path) -> None:
    """A ConvTranspose becomes a convolution whose channels are laid out in space, and is in bytes what it reads and writes."""
    kinds = ["conv", "depthwise", "Add", "gate", "up", "concat", "HardSwish", "conv"]
    int8 = _quantize(_draw_net(5, kinds, end), tmp_path)
    floats = list_float_steps(read_program(read_model(int8), "net"))
    assert all("softmax" in step or "Sigmoid" in step for step in floats), floats
    assert "ConvTranspose" not in {node.op_type for node in onnx.load(int8).graph.node}
