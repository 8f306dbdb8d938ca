"""The whole line on models whose weights are never in memory as a whole, with what is large made small."""

from __future__ import annotations

import contextlib
import io
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Net, random_data
from numpy.typing import NDArray

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.cli import main
from fcdeploy.graph import external_data, weights
from fcdeploy.graph import model as files
from fcdeploy.graph.weights import initializer_bytes
from fcdeploy.int8.calibrating.statistics import PLENTY
from fcdeploy.int8.refining import refine
from fcdeploy.records import origin
from fcdeploy.runtime.session import Session

DATA = random_data(0, 12, x=(3, 8, 8))


def network(net: Net) -> Net:
    """Convolutions, a layer without an integer kernel, and dense layers of both orientations."""
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="stem"), name="relu0")
    x = net.op("Relu", net.conv(x, 8, 16, name="conv"), name="relu1")
    x = net.op("Tanh", net.conv(x, 16, 16, name="kept"), name="tanh")
    x = net.op("Flatten", x, name="flat")
    x = net.op("Relu", net.dense(x, 1024, 40, transB=1, name="turned"), name="relu2")
    return net.output(net.dense(x, 40, 24, name="last"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx, its weights in model.data, and data.npz, the current one. Large weights stay turned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_module("fcdeploy.prepare.passes.form_gemm"), "LARGE_FROM", 1000)
    onnx.save(network(Net(0)).model(), "model.onnx", save_as_external_data=True, location="model.data")
    np.savez("data.npz", **random_data(0, PLENTY, x=(3, 8, 8)))  # of fewer, what is not large leaves judged ones out
    return tmp_path


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large, and blocks are small."""
    monkeypatch.setattr(weights, "LARGE", 1000)
    monkeypatch.setattr(weights, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(files, "ONE_FILE", 1000)
    monkeypatch.setattr(external_data, "MESSAGE", 1000)
    monkeypatch.setattr(external_data, "OUTSIDE_FROM", 256)
    monkeypatch.setattr(weights, "HEAVY", 1000)


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*arguments, "--json"])
    return code, json.loads(out.getvalue() or "{}")


def quantize(out: str, *arguments: str) -> dict[str, Any]:
    code, found = run("quantize", "model.onnx", "--int8", "--calibration", "m.calib", "-o", out, *arguments)
    assert code == 0
    return found | {"warnings": [each for each in found["warnings"] if not each.startswith("calibrated on")]}


def whole(path: str) -> bytes:
    """The model with its weights inside, and without how it would be judged: a large one is not run for that."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == origin.KEY:
            made = json.loads(entry.value)
            made.pop(origin.DECIDES, None)
            entry.value = json.dumps(made)
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")  # says "in the file" otherwise, which is so where it says nothing
    return model.SerializeToString(deterministic=True)


PLAIN = ("--effort", "fast", "--costs", "none", "--keep-float", "op:Tanh", "--floor", "none")  # weights are random


def test_large_or_not_the_file_says_the_same(request: pytest.FixtureRequest) -> None:
    seen = run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[1]
    found = quantize("small.onnx", *PLAIN)
    assert not Path("small.onnx.data").exists()
    request.getfixturevalue("lowered")
    again = run("calibrate", "model.onnx", "--data", "data.npz", "-o", "large.calib")[1]
    for one, other in zip(seen["tensors"], again["tensors"], strict=True):  # other kernels, so not the same last bits
        assert [one["min"], one["max"]] == pytest.approx([other["min"], other["max"]], rel=1e-5)
        assert one["tensor"] == other["tensor"]
        assert one["elements"] == other["elements"]
    large = quantize("large.onnx", *PLAIN)
    assert Path("large.onnx.data").stat().st_size > 50_000
    assert whole("large.onnx") == whole("small.onnx")
    assert large["nodes_int8"] == found["nodes_int8"]
    assert large["bytes_float"] == sum(Path(name).stat().st_size for name in ("model.onnx", "model.data"))
    assert large["bytes_int8"] == sum(Path(name).stat().st_size for name in ("large.onnx", "large.onnx.data"))
    assert large["warnings"] == []
    np.testing.assert_array_equal(*(Session(Path(f"{name}.onnx")).run(DATA)[0] for name in ("small", "large")))


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("arguments", [("--costs", "none"), ("--keep-float", "turned"), ("--target", "portable")])
def test_every_layer_comes_through(arguments: tuple[str, ...]) -> None:
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    found = quantize("int8.onnx", *arguments)
    why = ": the weights take 0.0 GB, and running the model takes more"
    expected = {f"times were not measured{why}"} if "--costs" not in arguments else set()
    expected |= {f"exactness was not looked at{why}"} if "--target" in arguments else set()
    assert set(found["warnings"]) == expected
    a, b = (Session(Path(name)).run(DATA)[0] for name in ("model.onnx", "int8.onnx"))
    assert measure_fidelity(a, b).sqnr_db > 25


def biases(path: str) -> dict[str, NDArray[np.int32]]:
    model = onnx.load(path)
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == 6}


def test_biases_are_corrected_layer_by_layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the model had been run as a whole, but for the last bits of a float; no session holds much more than a layer."""
    monkeypatch.setattr(refine, "KEPT_LEAST", 12)
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    plainly = ("--costs", "none", "--ranges", "mse", "--floor", "none")
    quantize("small.onnx", *plainly)
    quantize("plain.onnx", *plainly, "--effort", "fast")
    request.getfixturevalue("lowered")
    most, load = 0, Session.__init__

    def watched(self: Session, model: Any, **how: Any) -> None:
        nonlocal most
        most = max(most, initializer_bytes(model) if isinstance(model, ir.Model) else 0)
        load(self, model, **how)

    monkeypatch.setattr(Session, "__init__", watched)
    assert quantize("large.onnx", *plainly)["warnings"] == []
    assert most < 0.5 * Path("model.data").stat().st_size
    small, large, plain = (biases(f"{name}.onnx") for name in ("small", "large", "plain"))
    assert set(small) == set(large)
    moved = 0
    for name, bias in small.items():
        assert np.abs(bias - large[name]).max() <= 2
        moved += int(np.abs(bias - plain[name]).max() > 2)
    assert moved == len(small) == 5


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("room", [True, False])
def test_what_keeps_a_large_model_from_being_corrected_is_said(room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [] if not room else ["--no-keep-samples"]
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib", *arguments)[0] == 0
    if not room:
        monkeypatch.setattr(refine, "ROOM", 16)
    (warning,) = quantize("int8.onnx", "--costs", "none")["warnings"]
    why = "the calibration carries no samples" if room else "results of its layers for 16 samples take more than 0 MB"
    assert warning.startswith(f"bias correction left out: {why}")


def test_stored_weights_are_the_same_bytes(request: pytest.FixtureRequest) -> None:
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    plan = run("quantize", "model.onnx", "--int8", "--calibration", "m.calib", "--dry-run", *PLAIN)[1]["plan"]
    for row in plan["nodes"]:
        row["kind"] = "weight_only" if row["op"] in ("Conv", "Gemm") and row["node"] != "stem" else "float"
    Path("plan.json").write_text(json.dumps(plan))
    quantize("small.onnx", "--effort", "fast", "--plan", "plan.json", "--floor", "none")
    request.getfixturevalue("lowered")
    quantize("large.onnx", "--effort", "fast", "--plan", "plan.json", "--floor", "none")
    assert whole("large.onnx") == whole("small.onnx")


@pytest.mark.usefixtures("lowered")
def test_other_commands_read_it() -> None:
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    quantize("int8.onnx", *PLAIN)
    np.savez("other.npz", **random_data(1, 12, x=(3, 8, 8)))
    code, found = run("validate", "int8.onnx", "--against", "model.onnx", "--data", "other.npz")
    assert code == 0
    assert found["sqnr_db"] > 25
    assert found["kernel_sqnr_db"] > 38
    code, found = run("bench", "int8.onnx", "--against", "model.onnx", "--seconds", "0.1")
    assert found["bytes_int8"] == sum(Path(name).stat().st_size for name in ("int8.onnx", "int8.onnx.data"))
    code, found = run("inspect", "int8.onnx", "--kernels", "--saturation")
    assert code == 0
    assert found["safe"]
    assert {"QLinearConv", "QGemm"} <= {row["kernel"] for row in found["kernels"]}
    assert run("inspect", "int8.onnx", "--exact", "--data", "other.npz")[0] == 0


@pytest.mark.usefixtures("lowered")
def test_no_file_of_the_model_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(network(Net(0)).model(), "net", save_as_external_data=True, location="net.data")
    Path("model.onnx").unlink()
    common = ["net", "--data", "data.npz", "--force", "-o"]
    for command in (["calibrate", *common, "net.data"], ["quantize", *common, "net", "--int8"]):
        assert main(command) == 2
        assert "is also an input" in capsys.readouterr().err
    Path("net").rename("net.onnx")
    Path("int8.onnx.data").write_bytes(b"mine")
    assert main(["quantize", "net.onnx", "--data", "data.npz", "--int8", "-o", "int8.onnx"]) == 2
    assert "error: output 'int8.onnx.data' exists" in capsys.readouterr().err


@pytest.mark.usefixtures("lowered")
def test_a_calibration_of_other_weights_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    content = bytearray(Path("model.data").read_bytes())
    content[-1] ^= 1
    Path("model.data").write_bytes(content)
    assert main(["quantize", "model.onnx", "--int8", "--calibration", "m.calib", "-o", "int8.onnx"]) == 2
    assert "was made from another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "types", [("int16", "int16"), ("int8", "int16"), ("int4", "none"), ("int8", "dynamic"), ("int8", "none")]
)
def test_other_types_of_a_large_model_are_the_same_bytes(
    types: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    arguments = ("--weights", types[0], "--activations", types[1], "--effort", "fast")
    assert run("calibrate", "model.onnx", "--data", "data.npz", "-o", "m.calib")[0] == 0
    common = ("model.onnx", "--calibration", "m.calib", "--floor", "none", *arguments)
    assert run("quantize", *common, "-o", "small.onnx")[0] == 0
    request.getfixturevalue("lowered")
    assert run("quantize", *common, "-o", "large.onnx")[0] == 0
    assert Path("large.onnx.data").exists()
    assert whole("large.onnx") == whole("small.onnx")
