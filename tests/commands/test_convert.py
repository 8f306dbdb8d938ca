"""`fcdeploy calibration convert`: ranges from one tool to another, and what a model made of them is."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from foreign_ranges import DATA, measured, network, truth
from networks import Net
from onnxruntime.quantization.calibrate import save_tensors_data

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.cli import main
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.convert import convert
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.records.calibration import read
from fcdeploy.records.exchange.formats import read_ranges
from fcdeploy.records.exchange.onnxruntime_json import write_json
from fcdeploy.runtime.session import Session

# --- the command


def test_ranges_of_onnxruntime_quantize(tmp_path: Path) -> None:
    """From onnxruntime's ranges to an int8 model; one of our own knows means, by which rounded weights are made up for."""
    save_tensors_data(measured(tmp_path), tmp_path / "c.json")
    model = tmp_path / "net.onnx"
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert (report.values["unknown"], report.values["missing"]) == ([], [])
    assert report.warnings == ()
    assert report.lines[0] == f"7 ranges: onnxruntime's calibration JSON -> {tmp_path / 'c.calib'}"
    back = read(tmp_path / "c.calib")
    assert (back.made_by, back.samples) == ({"imported": "onnxruntime MinMax"}, 0)
    assert back.tensors["relu_out"].shape == (None, 8, 6, 6)
    assert (back.tensors["relu_out"].op, back.tensors["x"].kind) == ("Relu", "input")
    with fails("was measured elsewhere and has no histogram", "--ranges minmax"):
        quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", costs="none")
    options: Any = {"ranges": "minmax", "costs": "none", "effort": "fast"}
    made = quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", **options)
    assert made.values["nodes_float"] == []
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    quantize(model, output=tmp_path / "own.onnx", calibration=tmp_path / "net.calib", **options)
    exact = Session(model.read_bytes(), threads=1).run(DATA)[0]
    theirs, ours = (
        measure_fidelity(exact, Session((tmp_path / f"{name}.onnx").read_bytes(), threads=1).run(DATA)[0]).sqnr_db
        for name in ("q", "own")
    )
    assert ours > theirs > 25


def test_what_the_model_has_not_and_the_other_way_round(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    ends = {name: pair for name, pair in truth().items() if name not in ("pool_out", "flat_out")}
    (tmp_path / "c.json").write_bytes(write_json({**ends, "other": (0.0, 1.0), "k0": (-1.0, 1.0)}))
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert (report.values["unknown"], report.values["missing"]) == (["other"], ["pool_out", "flat_out"])
    assert report.warnings == (
        "1 range is of no tensor of the model: 'other'",
        "2 tensors of the model have no range: 'pool_out', 'flat_out'; their layers will stay float",
    )
    made = quantize(
        model,
        output=tmp_path / "q.onnx",
        calibration=tmp_path / "c.calib",
        ranges="minmax",
        costs="none",
        effort="fast",
    )
    assert {row["node"] for row in made.values["nodes_float"]} == {"pool", "flat", "last"}
    (tmp_path / "c.json").write_bytes(write_json({"other": (0.0, 1.0)}))
    with fails("none of the 1 range of ", "with its tensors' names unchanged"):
        convert(tmp_path / "c.json", output=tmp_path / "c2.calib", model=model)
    assert not (tmp_path / "c2.calib").exists()


def test_our_ranges_for_tensorrt(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    report = convert(tmp_path / "net.calib", output=tmp_path / "c.cache", header="TRT-100300-EntropyCalibration2")
    lines = (tmp_path / "c.cache").read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    expected = {name: max(-low, high) / 127 for name, (low, high) in truth().items() if name != "first_out"}
    found = {line.split(": ")[0]: struct.unpack(">f", bytes.fromhex(line.split(": ")[1]))[0] for line in lines[1:]}
    assert found == pytest.approx(expected, rel=1e-5)
    assert report.lines[1] == "6 of them widen, because the format is symmetric: -amax to amax"
    assert sorted(report.values["widened"]) == sorted(expected)
    again = convert(tmp_path / "c.cache", output=tmp_path / "t.calib", model=model)
    assert again.warnings == (
        "ranges are symmetric: of a tensor that is never negative, unless a Relu writes it, half of the levels are not used",
    )
    assert {name: r.histogram.high for name, r in read(tmp_path / "t.calib").tensors.items()} == pytest.approx(
        {name: scale * 127 for name, scale in expected.items()}, rel=1e-5
    )


def test_from_one_tool_to_another(tmp_path: Path) -> None:
    """No model is needed, and names stay as they are."""
    (tmp_path / "c.json").write_text('{"a": [-1, 2]}')
    convert(tmp_path / "c.json", output=tmp_path / "c.cache")
    convert(tmp_path / "c.cache", output=tmp_path / "d.json")
    assert read_ranges(tmp_path / "d.json")[0].ends == {"a": pytest.approx((-2, 2), rel=1e-6)}


def test_ranges_for_a_model_whose_weights_lie_beside_it(tmp_path: Path) -> None:
    model, ranges = tmp_path / "net.onnx", tmp_path / "c.json"
    onnx.save(network().model(), model, save_as_external_data=True, location="net.data", size_threshold=0)
    ranges.write_bytes(write_json(truth()))
    convert(ranges, model=model, output=tmp_path / "c.calib")
    report = quantize(
        model, calibration=tmp_path / "c.calib", ranges="minmax", costs="none", output=tmp_path / "int8.onnx"
    )
    assert report.values["nodes_int8"]


def test_mistakes_of_convert(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    own, other = tmp_path / "net.calib", tmp_path / "c.json"
    other.write_bytes(write_json(truth()))
    with fails("c.txt' ends with none of .json, .cache, .calib", "-o NAME.json writes onnxruntime's calibration JSON"):
        convert(own, output=tmp_path / "c.txt")
    with fails("is a calibration file of fcdeploy's already", "-o NAME.json"):
        convert(own, output=tmp_path / "c.calib", model=model)
    with fails("does not say which model its ranges are of, and a .calib has to", "--model MODEL"):
        convert(other, output=tmp_path / "c.calib")
    with fails("c.json' is also an input"):
        convert(other, output=other, force=True)
    with fails("net.calib' exists", "--force"):
        convert(other, output=own, model=model)
    with fails("header 'x' is not TRT-VERSION-ALGORITHM", "--header TRT-8601-EntropyCalibration2"):
        convert(own, output=tmp_path / "c.cache", header="x")
    with fails("nothing.json' does not exist", "ranges are read from TensorRT's calibration cache, onnxruntime's"):
        convert(tmp_path / "nothing.json", output=tmp_path / "c.cache")
    changed = network(1).save(tmp_path / "other.onnx")
    with fails("was made from another model than"):
        convert(own, output=tmp_path / "c.cache", model=changed)
    own.write_bytes(own.read_bytes()[:200])
    with fails("is not a calibration file, or is damaged"):
        convert(own, output=tmp_path / "c.cache")


# --- the command


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    network().save(Path("net.onnx"))
    Path("c.json").write_bytes(write_json(truth()))
    command = ["calibration", "convert"]
    assert main([*command, "c.json", "-o", "c.calib", "--model", "net.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert next(iter(found)) == "schema"
    assert (found["schema"], found["from"]) == ("fcdeploy.calibration-convert/1", "onnxruntime's calibration JSON")
    assert len(found["tensors"]) == 7
    assert main([*command, "c.json", "-o", "c.cache", "--header", "TRT-1-A"]) == 0
    shown = capsys.readouterr()
    assert "7 of them widen, because the format is symmetric" in shown.out
    assert Path("c.cache").read_text().startswith("TRT-1-A\n")
    assert main([*command, "c.json", "-o", "c.calib"]) == 2
    assert "error: output 'c.calib' exists" in capsys.readouterr().err
    assert main(["calibration", "show", "c.calib"]) == 0
    assert "relu_out" in capsys.readouterr().out
    for tensor in ("relu_out", "x"):
        assert main(["calibration", "show", "c.calib", "--tensor", tensor]) == 0
        assert "nan" not in capsys.readouterr().out


def test_a_name_means_what_it_meant_in_the_model(tmp_path: Path) -> None:
    """Folding a batch normalization moves its result into the convolution: the range of the one, not of the other."""
    net = Net(3)
    x = net.conv(net.input("x", 3, 6, 6), 3, 8, name="conv", bias=False)
    scale = [net.constant(value) for value in (np.full(8, 50.0), np.zeros(8), np.zeros(8), np.ones(8))]
    x = net.op(
        "Add", net.op("BatchNormalization", x, *scale, name="norm"), net.conv("x", 3, 8, name="side"), name="add"
    )
    model = net.output(net.op("GlobalAveragePool", net.conv(x, 8, 8, name="last"), name="pool")).save(
        tmp_path / "n.onnx"
    )
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    names = ["conv_out", "norm_out"]
    proto = onnx.load(model)
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    conv, norm = Session(proto.SerializeToString(), threads=1, optimize=False).run(DATA, names)
    assert np.abs(norm).max() > 40 * np.abs(conv).max()
    own = read(tmp_path / "n.calib").tensors
    assert "conv_out" not in own
    assert own["norm_out"].histogram.high == pytest.approx(norm.max(), rel=1e-5)
    ends = {"conv_out": (float(conv.min()), float(conv.max())), "norm_out": (float(norm.min()), float(norm.max()))}
    (tmp_path / "c.json").write_bytes(write_json(ends))
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert [row["tensor"] for row in report.values["tensors"]] == ["norm_out"]
    assert report.values["unknown"] == []  # the model has the other, and preparing folds it away


def test_a_model_of_imported_ranges_validates(tmp_path: Path) -> None:
    """It was calibrated on samples that nobody knows, so there is nothing to compare the samples with."""
    model = network().save(tmp_path / "net.onnx")
    (tmp_path / "c.json").write_bytes(write_json(truth()))
    convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", ranges="minmax", costs="none")
    np.savez(tmp_path / "d.npz", **DATA)
    report = validate(tmp_path / "q.onnx", against=model, data=tmp_path / "d.npz")
    assert report.values["calibration_samples"] is None
