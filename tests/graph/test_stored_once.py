"""Integers of several layers: once in a file, one for each in memory, the same answers whatever onnxruntime makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Net, random_data
from onnx import numpy_helper

from fcdeploy import quantize, validate
from fcdeploy.graph.model import read_model, write_model
from fcdeploy.graph.stored_once import store_once
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session


def net_with_one_head(kind: str, copies: int = 3) -> Net:
    """Layers in a row, convolutions or dense, that all have one weight, and each a bias of its own."""
    net = Net(0)
    rows = net.normal(32, 32, 3, 3, size=0.06) if kind == "Conv" else net.normal(128, 128, size=0.09)
    weight = net.constant(rows)
    hidden = net.input("x", 32, 8, 8) if kind == "Conv" else net.input("x", 128)
    for _ in range(copies):
        bias = net.constant(net.normal(len(rows), size=0.1))
        attributes = {"pads": [1, 1, 1, 1]} if kind == "Conv" else {"transB": 1}
        hidden = net.op("Relu", net.op(kind, hidden, weight, bias, **attributes))
    return net.output(hidden)


def data_for(kind: str, n: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    return random_data(seed, n, x=(32, 8, 8) if kind == "Conv" else (128,))


@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_layers_with_one_weight_store_their_integers_once(kind: str, effort: str, tmp_path: Path) -> None:
    source, out = net_with_one_head(kind).save(tmp_path / "net.onnx"), tmp_path / "q.onnx"
    np.savez(tmp_path / "data.npz", **data_for(kind, 96))
    quantize(source, output=out, data=tmp_path / "data.npz", effort=effort, costs="none", target="x86-vnni", force=True)
    assert out.stat().st_size < 0.5 * source.stat().st_size
    stored = [each for each in onnx.load(out).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    large = [each for each in stored if numpy_helper.to_array(each).size > 1000]
    assert len(large) == 1

    held_out = data_for(kind, 16, seed=1)
    answers = Session(out, threads=1).run(held_out)[0]
    exact = Session(source, threads=1).run(held_out)[0]
    assert np.sum(exact**2) > 1000 * np.sum((answers - exact) ** 2)
    # each of its layers is an integer kernel, and it loads where sums are of 32 bits, and without optimization
    np.testing.assert_array_equal(Session(out, precise=True, threads=1).run(held_out)[0], answers)
    unfused = Session(out, optimize=False, threads=1).run(held_out)[0]
    assert np.sum(unfused**2) > 1000 * np.sum((answers - unfused) ** 2)
    layers = [each for each in find_kernels(out) if each.op == kind]
    assert len(layers) == 3
    assert all(each.integer for each in layers)


def test_the_reader_sees_a_weight_for_each_layer_and_writes_it_once(tmp_path: Path) -> None:
    source, out = net_with_one_head("Gemm").save(tmp_path / "net.onnx"), tmp_path / "q.onnx"
    np.savez(tmp_path / "data.npz", **data_for("Gemm", 96))
    quantize(source, output=out, data=tmp_path / "data.npz", costs="none")
    assert [each.op_type for each in ir.load(out).graph].count("Slice") == 2
    model = read_model(out)
    assert "Slice" not in {each.op_type for each in model.graph}
    weights = [value for value in model.graph.initializers.values() if value.const_value.size > 1000]
    assert len(weights) == 3
    assert len({value.const_value.numpy().tobytes() for value in weights}) == 1
    assert write_model(model, tmp_path / "again.onnx") < out.stat().st_size + weights[0].const_value.nbytes
    np.testing.assert_array_equal(
        Session(tmp_path / "again.onnx").run(data_for("Gemm"))[0], Session(out).run(data_for("Gemm"))[0]
    )
    report = validate(out, against=source, data=data_for("Gemm", 40, seed=2))
    assert report.passed


def test_a_model_without_repeats_is_written_as_it_is(tmp_path: Path) -> None:
    source, out = net_with_one_head("Gemm", copies=1).save(tmp_path / "net.onnx"), tmp_path / "q.onnx"
    np.savez(tmp_path / "data.npz", **data_for("Gemm", 96))
    quantize(source, output=out, data=tmp_path / "data.npz", costs="none")
    model = read_model(out)
    assert store_once(model) is model
