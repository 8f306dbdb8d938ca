"""`fcdeploy calibrate` as a command: what it prints and writes, and every way it refuses."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import run_command
from networks import Net, random_data

from fcdeploy.cli import main
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.records.calibration import read


def small(net: Net) -> Net:
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 4, name="conv"), name="relu")
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 3, name="dense"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx and data.npz, the current one."""
    monkeypatch.chdir(tmp_path)
    small(Net(0)).save(Path("model.onnx"))
    np.savez("data.npz", **random_data(0, 20, x=(3, 6, 6)))
    return tmp_path


def calibrated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run_command(capsys, "calibrate", "model.onnx", "--data", "data.npz", "--json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.usefixtures("here")
def test_json_is_one_object_that_says_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrated(capsys)
    assert next(iter(found.items())) == ("schema", "fcdeploy.calibrate/1")
    assert found["samples"] == 20
    assert found["output"] == "model.calib"
    assert Path("model.calib").is_file()
    rows = {row["tensor"]: row for row in found["tensors"]}
    data = np.load("data.npz")["x"]
    assert (rows["x"]["kind"], rows["x"]["min"], rows["x"]["max"]) == ("input", data.min(), data.max())
    assert rows["relu_out"]["min"] == 0
    assert {"weight", "bias", "activation"} <= {row["kind"] for row in found["tensors"]}
    assert {row["layer"] for row in found["tensors"] if row["kind"] == "weight"} == {"conv", "dense"}
    assert "conv_out" not in rows


@pytest.mark.usefixtures("here")
def test_the_table_is_for_people_and_as_csv_for_spreadsheets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(
        capsys, "calibrate", "model.onnx", "--data", "data.npz", "--csv", "ranges.csv", "--all-tensors"
    )
    assert code == 0
    assert "dynamic ranges" in out
    assert (
        out.strip().splitlines()[-1]
        == "next: fcdeploy quantize model.onnx --int8 --calibration model.calib -o model.int8.onnx"
    )
    with Path("ranges.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["layer", "tensor", "kind", "min", "max", "fixed_point"]
    assert "conv_out" in {row[1] for row in rows}
    assert len(rows) == len(read(Path("model.calib")).tensors)


@pytest.mark.usefixtures("here")
def test_a_long_table_has_the_inputs_and_what_reaches_furthest(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(0)
    value = net.input("x", 3, 6, 6)
    for _ in range(25):
        value = net.op("Relu", net.conv(value, 3, 3, bias=False))
    Path("long").mkdir()
    net.output(value).save(Path("long/model.onnx"))
    code, out, _ = run_command(capsys, "calibrate", "long/model.onnx", "--data", "data.npz")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[2:22]]
    recorded = read(Path("long/model.calib")).tensors
    assert rows[0][:3] == ["-", "x", "input"]
    reach = {name: row.histogram.high for name, row in recorded.items() if row.kind == "activation"}
    assert {row[1] for row in rows[1:]} == set(sorted(reach, key=reach.__getitem__)[-19:])
    assert f"and {len(recorded) - 20} more rows, of less interest: --all" in out
    assert "-> long/model.calib, beside the model; -o puts it elsewhere" in out
    code, out, _ = run_command(capsys, "calibrate", "long/model.onnx", "--data", "data.npz", "--all", "-o", "all.calib")
    assert all(name in out for name in recorded)
    assert "-> all.calib\n" in out


@pytest.mark.usefixtures("here")
def test_the_file_is_the_same_for_any_batch(capsys: pytest.CaptureFixture[str]) -> None:
    files = set()
    for batch in ("1", "7", "20"):
        calibrated(capsys, "--batch", batch, "-o", f"{batch}.calib")
        files.add(Path(f"{batch}.calib").read_bytes())
    assert len(files) == 1


@pytest.mark.usefixtures("here")
def test_fewer_samples_and_none_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrated(capsys, "--samples", "5", "--no-keep-samples")["samples"] == 5
    recorded = read(Path("model.calib"))
    assert (recorded.samples, recorded.kept) == (5, {})


@pytest.mark.usefixtures("here")
def test_a_tensor_that_is_always_the_same_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("data.npz", x=np.zeros((16, 3, 6, 6), np.float32))
    net = Net(0)
    net.output(net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 4, bias=False), name="dead")).save(
        Path("model.onnx")
    )
    assert calibrated(capsys)["warnings"] == [
        "16 samples of data.npz are all equal: is the same one yielded, or read, again and again?",
        "tensor 'dead_out' was the same value in every sample",
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("samples", "what"), [("1", "1 sample"), ("15", "15 samples"), ("16", None)])
def test_hardly_any_samples_are_a_warning(samples: str, what: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [] if what is None else [f"calibrated on {what}: others may leave these ranges, 100 to 500 are usual"]
    assert calibrated(capsys, "--samples", samples)["warnings"] == expected
    words = ("quantize", "model.onnx", "--int8", "--costs", "none", "--calibration", "model.calib", "-o", "int8.onnx")
    code, out, err = run_command(capsys, *words, "--json")
    assert code == 0, err
    assert [text for text in json.loads(out)["warnings"] if text.startswith("calibrated on")] == expected


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("body", "what"),
    [("return 3", "an int"), ("pass", "nothing"), ("return {'x': 1}", "a dict"), ("return open", "a builtin")],
)
def test_a_function_that_yields_nothing(body: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text(f"def f():\n    {body}\n")
    code, out, err = run_command(capsys, "calibrate", "model.onnx", "--data", "own.py:f")
    assert (code, out) == (2, "")
    assert f"error: own.py:f returns {what}" in err
    assert "expected one dict per sample, yielded\nhint: yield {'x': array}" in err
    assert "TypeError" not in err


@pytest.mark.usefixtures("here")
def test_a_tensor_that_becomes_nan_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(0)
    net.output(net.conv(net.op("Sqrt", net.input("x", 3, 6, 6), name="root"), 3, 4, name="last")).save(
        Path("model.onnx")
    )
    warnings = calibrated(capsys)["warnings"]
    assert "tensor 'root_out' became NaN or infinite: its layers will stay float" in warnings


def broken(name: str) -> list[str]:
    """Prepare a mistake in the current folder; the arguments that make it."""
    model, data, more = "model.onnx", "data.npz", ["-o", "out.calib"]
    x = np.load("data.npz")["x"]
    if name == "no model":
        model = "nothing.onnx"
    elif name == "folder":
        model = "."
    elif name == "text":
        Path("model.onnx").write_text("not a model")
    elif name == "truncated":
        Path("model.onnx").write_bytes(Path("model.onnx").read_bytes()[:300])
    elif name == "domain":
        proto = onnx.load("model.onnx")
        proto.graph.node[0].domain = "my.own"
        proto.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
        onnx.save(proto, "model.onnx")
    elif name == "quantized":
        assert (
            main(["quantize", "model.onnx", "--int8", "--costs", "none", "--data", "data.npz", "-o", "int8.onnx"]) == 0
        )
        model = "int8.onnx"
    elif name == "no data":
        data = "nothing.npz"
    elif name == "shape":
        np.savez("data.npz", x=x[:, :, :5])
    elif name == "missing":
        np.savez("data.npz", y=x)
    elif name == "nan":
        x[7, 1, 2, 3] = np.nan
        np.savez("data.npz", x=x)
    elif name == "empty":
        np.savez("data.npz", x=x[:0])
    elif name == "exists":
        Path("out.calib").write_text("mine")
    elif name == "input":
        more = ["-o", "model.onnx", "--force"]
    elif name == "data is output":
        more = ["-o", "data.npz", "--force"]
    elif name == "no folder":
        more = ["-o", "no/where.calib"]
    elif name == "batch":
        more += ["--batch", "0"]
    return ["calibrate", model, "--data", data, *more]


MISTAKES = {
    "no model": ("model 'nothing.onnx' does not exist", "give the path"),
    "folder": ("model '.' is a folder, expected an .onnx file", "ls ."),
    "text": ("'model.onnx' is not an ONNX model, or is damaged", "fcdeploy export"),
    "truncated": ("'model.onnx' is not an ONNX model, or is damaged", "fcdeploy export"),
    "domain": ("is a Conv of the domain 'my.own', which onnxruntime does not know", "--ops LIB"),
    "quantized": ("the model is quantized already, expected a float model", "give the float model"),
    "no data": ("data 'nothing.npz' does not exist", "DATA is one of"),
    "shape": ("has shape (3, 5, 6), the model wants (3, 6, 6)", "fcdeploy transform dense-to-conv"),
    "missing": ("data.npz: input 'x' is missing, it has 'y'", "the model wants 'x'"),
    "nan": ("sample 7 has nan at (1, 2, 3), and 1 such values in all, expected finite numbers", "repair or remove"),
    "empty": ("data.npz holds no samples, expected at least one", "--data"),
    "exists": ("output 'out.calib' exists", "--force"),
    "input": ("output 'model.onnx' is also an input", "-o"),
    "data is output": ("output 'data.npz' is also an input", "-o"),
    "no folder": ("folder 'no' of the output does not exist", "mkdir -p no"),
    "batch": ("0 is not in the range", "fcdeploy calibrate --help"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, hint = MISTAKES[name]
    arguments = broken(name)
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in here.iterdir()}
    code, out, err = run_command(capsys, *arguments)
    lines = err.strip().splitlines()
    text = " ".join(lines)
    assert (code, out) == (2, "")
    assert text.startswith("error: ")
    assert message in text, err
    assert "hint: " in text
    assert hint in text.split("hint: ")[1]
    assert "Traceback" not in err
    assert {file.name: file.read_bytes() for file in here.iterdir()} == before


def test_progress_that_cannot_be_deleted_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs stand by then."""
    net = Net()
    model = net.output(net.dense(net.input("x", 4), 4, 3)).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((8, 4), np.float32))

    def refuse(path: Path, **_: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    report = calibrate(model, data=tmp_path / "d.npz", output=tmp_path / "c.calib")
    assert any("c.calib.progress' is no longer needed, and cannot be deleted" in text for text in report.warnings)
    assert read(tmp_path / "c.calib").samples == 8
