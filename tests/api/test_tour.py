"""The tour: from a PyTorch network to a proven int8 model through the Python API, one step a test.

Read it from top to bottom.  Each step uses the files of the one before; the asserts say what to expect.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import fcdeploy
from fcdeploy.errors import FcdeployError

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "calib_data" / "digits64.calib.npz"  # 300 images, for calibration
HELD_OUT = ROOT / "calib_data" / "digits64.eval.npz"  # 800 others, for evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tour leaves its files, one step after the other."""
    return tmp_path_factory.mktemp("tour")


def test_1_export(folder: Path) -> None:
    """A function that returns a module, and its weights, become an ONNX file that computes the same."""
    report = fcdeploy.export(
        f"{ROOT}/models/dense.py:dense", state=ROOT / "models" / "dense.safetensors", output=folder / "dense.onnx"
    )
    (output,) = report.values["outputs"]
    assert output["max_rel"] < 1e-4  # against torch, of the largest value
    assert output["shape"] == [None, 10]  # any number of samples, ten classes


def test_2_calibrate(folder: Path) -> None:
    """One pass over samples records the dynamic range of every tensor, and decides nothing."""
    report = fcdeploy.calibrate(folder / "dense.onnx", data=TRAIN, output=folder / "dense.calib")
    assert report.values["samples"] == 300
    ranges = {row["tensor"]: row for row in report.values["tensors"]}
    assert (ranges["pixels"]["min"], ranges["pixels"]["max"]) == (0.0, 1.0)
    assert {row["kind"] for row in ranges.values()} == {"input", "weight", "bias", "activation"}

    # the record does not depend on how samples were grouped
    fcdeploy.calibrate(folder / "dense.onnx", data=TRAIN, output=folder / "again.calib", batch=7)
    assert (folder / "again.calib").read_bytes() == (folder / "dense.calib").read_bytes()


def test_3_plan(folder: Path) -> None:
    """What every node and tensor becomes is a value: look at it before anything is written, edit it, give it back."""
    made = {"calibration": folder / "dense.calib", "costs": "none"}  # none: every integer kernel there is
    report = fcdeploy.quantize(folder / "dense.onnx", dry_run=True, **made)
    plan = report.values["plan"]
    assert [row["kind"] for row in plan["nodes"]] == ["int8", "fused", "int8", "fused", "int8"]
    assert plan["nodes"][1]["why"] == "the saturation of 'hidden1' does it"  # a Relu that costs nothing
    assert plan["tensors"]["pixels"]["scale"] == [pytest.approx(1 / 255)]  # 0 .. 1 on 256 levels

    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    fcdeploy.quantize(folder / "dense.onnx", output=folder / "planned.onnx", plan=file, calibration=made["calibration"])
    # a plan is as it was asked for: what is written without one is judged, and corrections stay only where they help
    fcdeploy.quantize(folder / "dense.onnx", output=folder / "direct.onnx", floor="none", **made)
    assert (folder / "planned.onnx").read_bytes() == (folder / "direct.onnx").read_bytes()


def test_4_quantize(folder: Path) -> None:
    """The int8 file is an ordinary ONNX file; which kernel runs each node is read back from the runtime."""
    report = fcdeploy.quantize(
        folder / "dense.onnx", calibration=folder / "dense.calib", costs="none", target="portable",
        output=folder / "dense.int8.onnx",
    )  # fmt: skip
    assert {node["kernel"] for node in report.values["nodes_int8"]} == {"QGemm"}
    assert report.values["nodes_float"] == []
    assert report.values["bytes_int8"] < 0.35 * report.values["bytes_float"]

    # no fcdeploy is needed to run it
    session = ort.InferenceSession(folder / "dense.int8.onnx", providers=["CPUExecutionProvider"])
    images = np.load(HELD_OUT)
    (scores,) = session.run(None, {"pixels": images["pixels"]})
    assert (scores.argmax(axis=1) == images["label"]).mean() > 0.99


def test_5_validate(folder: Path) -> None:
    """Float against int8 on samples that calibration has not seen: how much is lost, and is it more than chance?"""
    report = fcdeploy.validate(
        folder / "dense.int8.onnx", against=folder / "dense.onnx", data=HELD_OUT, max_drop=0.5, layers=True
    )
    assert report.passed
    values = report.values
    assert values["metric"] == "top1"
    assert values["drop"] == pytest.approx(100 * (values["float"] - values["int8"]))
    assert values["drop_low"] <= values["drop"] <= values["drop_high"]
    assert values["p_value"] > 0.05  # no more than chance explains
    assert values["sqnr_db"] > 38
    assert values["kernel_sqnr_db"] > 38  # the fast kernels compute what exact ones would: nothing saturates
    worst = values["layers"][0]
    assert worst["sqnr_db"] == min(row["sqnr_db"] for row in values["layers"])


def test_6_bench(folder: Path) -> None:
    """Both models in turn. This network is so small that integers do not pay: a limit that is missed is an answer."""
    report = fcdeploy.bench(folder / "dense.int8.onnx", against=folder / "dense.onnx", seconds=0.2, max_ratio=0.01)
    assert report.values["ratio_low"] <= report.values["ratio"] <= report.values["ratio_high"]
    assert not report.passed  # nothing is a hundred times faster; on the command line: exit code 1


def test_7_bundle(folder: Path) -> None:
    """What is deployed: the model, how to run it and how it answers. Another CPU tells whether it answers the same."""
    fcdeploy.bundle(folder / "dense.int8.onnx", output=folder / "dense.zip", data=HELD_OUT, samples=8)
    proof = fcdeploy.verify(folder / "dense.zip")
    assert proof.passed
    assert proof.values["golden"] == "equal"  # this is the CPU it was made on

    # NumPy and onnxruntime are enough from here on
    model = fcdeploy.load_bundle(folder / "dense.zip")
    images = np.load(HELD_OUT)
    scores = model.predict(pixels=images["pixels"])["output"]
    assert (scores.argmax(axis=1) == images["label"]).mean() > 0.99


def test_8_mistakes(folder: Path) -> None:
    """A mistake raises, with what is wrong and what to do."""
    with pytest.raises(FcdeployError, match="is quantized already") as caught:
        fcdeploy.quantize(folder / "dense.int8.onnx", data=TRAIN, output=folder / "twice.onnx")
    assert caught.value.hint == "give the float model it was made from"
    with pytest.raises(FcdeployError, match="exists") as caught:
        fcdeploy.quantize(folder / "dense.onnx", data=TRAIN, output=folder / "dense.int8.onnx")
    assert caught.value.hint.startswith("add force=True")
