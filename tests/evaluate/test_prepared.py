"""The prepared model is held against the file, and a pass that changes answers is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, random_data
from onnx import TensorProto

import fcdeploy
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.prepared import check_prepared, measure_distance
from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import read_model
from fcdeploy.prepare import pipeline
from fcdeploy.prepare.pipeline import prepare


def two_layers(path: Path) -> Path:
    net = Net(0)
    x = net.input("x", 3, 8, 8)
    return net.output(net.conv(net.op("Relu", net.conv(x, 3, 8)), 8, 4)).save(path)


def weights_halved(model: ir.Model) -> Changes:
    """A pass that is wrong: the first weight it finds is halved, once."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) == 4 and "halved" not in value.meta:
            value.meta["halved"] = True
            value.const_value = ir.tensor(tensor.numpy() / 2, name=value.name)
            return Changes("weights_halved", 0)
    return Changes("weights_halved", 0)


@pytest.mark.parametrize("command", ["calibrate", "quantize"])
def test_a_pass_that_changes_answers_is_named(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two_layers(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(1, 20, x=(3, 8, 8)))
    wrong = (*pipeline.PASSES, weights_halved)
    monkeypatch.setattr(pipeline, "PASSES", wrong)
    monkeypatch.setattr("fcdeploy.evaluate.prepared.PASSES", wrong)
    given: dict[str, Any] = {"output": tmp_path / "out", "data": tmp_path / "data.npz"}
    with fails("which is a fault of fcdeploy: without the pass weights_halved they are the same", "report it"):
        getattr(fcdeploy, command)(path, **given)
    assert not (tmp_path / "out").exists()


def test_a_calibration_s_own_samples_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two_layers(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(1, 20, x=(3, 8, 8)))
    fcdeploy.calibrate(path, data=tmp_path / "data.npz", output=tmp_path / "model.calib")
    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES, weights_halved))
    with fails("which is a fault of fcdeploy"):
        fcdeploy.quantize(path, calibration=tmp_path / "model.calib", output=tmp_path / "out.onnx")


def test_half_precision_may_differ_by_its_own_rounding(tmp_path: Path) -> None:
    net = Net(0)
    x = net.input("x", 16, dtype=TensorProto.FLOAT16)
    y = x
    for _ in range(3):
        y = net.op("Relu", net.op("MatMul", y, net.constant(net.normal(16, 16, size=0.3), np.float16)))
    made = net.output(y).model()
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(made, tmp_path / "model.onnx")
    model = read_model(tmp_path / "model.onnx")
    prepare(model)
    check_prepared(tmp_path / "model.onnx", model, {"x": random_data(1, 4, x=(16,))["x"].astype(np.float16)})


def test_a_model_that_a_last_bit_decides_is_not_held_to_it(tmp_path: Path) -> None:
    """A normalization folded into a layer moves the last bits, and each is blown up to a step of the answer."""
    net = Net(0)
    x = net.input("x", 3, 8, 8)
    y = net.conv(x, 3, 8)
    shift = [net.constant(np.abs(net.normal(8)) + 0.1) for _ in range(4)]
    y = net.op("Sin", net.op("Mul", net.op("BatchNormalization", y, *shift), net.constant(1e6)))
    path = net.output(y).save(tmp_path / "model.onnx")
    model = read_model(path)
    prepare(model)
    check_prepared(path, model, random_data(1, 2, x=(3, 8, 8)))


@given(st.floats(1e-6, 1.0), st.integers(1, 50))
def test_the_distance_is_that_of_the_root_mean_squares(share: float, count: int) -> None:
    a = np.random.default_rng(count).standard_normal((count, 3)) + 3
    assert measure_distance([a], [a * (1 + share)]) == pytest.approx(share)
    assert measure_distance([a], [a]) == 0.0
    assert measure_distance([a], [a[:, :2]]) == measure_distance([a], [a.astype(np.float32)]) == np.inf
    assert measure_distance([np.arange(4)], [np.array([0, 1, 2, 5])]) == 0.25
    names = np.array(["a", "b"], object)
    assert measure_distance([names], [names.copy()]) == 0.0
    assert measure_distance([np.array([np.nan, 1.0])], [np.array([np.nan, 1.0])]) == 0.0


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_rows_that_make_one_answer_together_are_asked_for_as_one_sample(tmp_path: Path, rows: int) -> None:
    """Views of an image or frames of a clip: x (any multiple of `rows`, 4) is reshaped into groups, of which means are taken."""
    net = Net(0)
    x = net.op("MatMul", net.input("x", 4), net.constant(net.normal(4, 4)))
    y = net.op("Reshape", x, net.constant(np.array([-1, rows, 4]), np.int64))
    net.output(net.op("ReduceMean", y, axes=[1], keepdims=0)).save(tmp_path / "m.onnx")
    flat = random_data(1, 24 * rows, x=(4,))["x"]
    np.savez(tmp_path / "flat.npz", x=flat)
    np.savez(tmp_path / "together.npz", x=flat.reshape(24, rows, 4))
    options = {"output": tmp_path / "q.onnx", "accept": True}
    hint = f"x (samples, {rows}, 4), and add --batch-axis x=none"
    with fails(f"does not run on one sample of these data, and does on {rows}", hint):
        quantize(tmp_path / "m.onnx", data=tmp_path / "flat.npz", **options)  # type: ignore[arg-type]
    quantize(tmp_path / "m.onnx", data=tmp_path / "together.npz", batch_axes=["x=none"], **options)  # type: ignore[arg-type]
    validated = validate(
        tmp_path / "q.onnx", against=tmp_path / "m.onnx", data=tmp_path / "together.npz", same_data=True
    )
    assert validated.values["samples"] == 24
