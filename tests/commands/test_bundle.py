"""Bundles: what is written, that it runs on NumPy and onnxruntime alone, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bundle_files import edited, x, zipped
from bundles import QUICKLY
from conftest import fails
from imports import HEAVY
from networks import Net
from small_models import product

import fcdeploy
from fcdeploy import cli
from fcdeploy.bundles import golden
from fcdeploy.bundles.load import load_bundle
from fcdeploy.bundles.read import open_bundle
from fcdeploy.bundles.write import write_bundle
from fcdeploy.commands.bundle import _keep_few, _make_name, bundle
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.commands.verify import verify
from fcdeploy.records.preprocessing import PreprocessingStep
from fcdeploy.runtime.session import Session


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> Path:
    return small_bundle.parent / "net.int8.onnx"


@pytest.fixture(scope="module")
def made(small_bundle: Path) -> Path:
    return small_bundle


def test_a_bundle_holds_the_model_and_says_its_hashes(made: Path, model: Path) -> None:
    said = json.loads((made / "manifest.json").read_text())
    assert (made / "model.onnx").read_bytes() == model.read_bytes()
    for name, file in said["files"].items():
        content = (made / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    assert {path.name for path in made.iterdir()} == {*said["files"], "manifest.json"}
    assert said["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 8]}]
    assert said["name"] == "net"
    assert said["made_from"]["float"] == hashlib.sha256((model.parent / "net.onnx").read_bytes()).hexdigest()
    assert said["needs"] == {"opset": "13", "ir_version": "7", "onnxruntime": "1.7"}


def test_predict_is_onnxruntime_on_the_model(made: Path, model: Path) -> None:
    expected = ort.InferenceSession(model).run(None, {"x": x()})
    predicted = load_bundle(made, threads=1).predict(x=x())
    for answer, wanted in zip(predicted.values(), expected, strict=True):
        np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize(
    ("file", "name"), [("my fruit.int8.onnx", "my-fruit"), ("a_b-1.onnx", "a_b-1"), ("(.onnx", "model")]
)
def test_a_file_s_name_is_made_one_for_an_address(model: Path, tmp_path: Path, file: str, name: str) -> None:
    shutil.copy(model, tmp_path / file)
    assert bundle(tmp_path / file, output=tmp_path / "made").values["name"] == name


def test_a_zip_is_the_same_and_is_read_where_it_lies(made: Path, model: Path, tmp_path: Path) -> None:
    bundle(model, output=tmp_path / "net.zip", data=model.parent / "data.npz")
    with zipfile.ZipFile(tmp_path / "net.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {path.name: path.read_bytes() for path in made.iterdir()}
    one, other = (load_bundle(path).predict(x=x()) for path in (made, tmp_path / "net.zip"))
    np.testing.assert_array_equal(one["second_out"], other["second_out"])
    assert list(tmp_path.iterdir()) == [tmp_path / "net.zip"]


def test_the_same_bundle_has_the_same_bytes(model: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    bundle(model, output=tmp_path / "a.zip")
    os.umask(before)
    time.sleep(2.1 - time.time() % 2)  # a zip counts time in steps of two seconds
    bundle(model, output=tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_reports_lie_beside_the_model(model: Path, tmp_path: Path) -> None:
    folder = model.parent
    data = folder / "data.npz"
    calibrate(folder / "net.onnx", data=data, output=tmp_path / "c.calib")
    again = tmp_path / "again.onnx"
    quantize(folder / "net.onnx", data=data, output=again, save_plan=tmp_path / "p.json", **QUICKLY)
    assert again.read_bytes() == model.read_bytes()
    np.savez(tmp_path / "other.npz", x=x(20))
    report = validate(model, against=folder / "net.onnx", data=tmp_path / "other.npz")
    (tmp_path / "report.json").write_text(json.dumps(report.to_json()))
    found = bundle(
        model, output=tmp_path / "b.fcd", calibration=tmp_path / "c.calib", plan=tmp_path / "p.json",
        validation=tmp_path / "report.json", name="digits", version="7",
    )  # fmt: skip
    assert found.values["golden_from"] == "calibration"
    stored = open_bundle(tmp_path / "b.fcd")
    assert (stored.manifest.name, stored.manifest.version) == ("digits", "7")
    assert stored.manifest.reports == ("plan", "calibration", "validation")
    assert stored.manifest.weights == ()
    assert json.loads(stored.read("plan.json")) == json.loads((tmp_path / "p.json").read_text())
    assert json.loads(stored.read("validation.json")) == report.to_json()
    rows = {row["name"]: row for row in json.loads(stored.read("calibration.json"))["tensors"]}
    seen = np.load(data)["x"]
    assert (rows["x"]["min"], rows["x"]["max"]) == (float(seen.min()), float(seen.max()))


def test_the_plan_in_a_bundle_makes_the_model_again(model: Path, tmp_path: Path) -> None:
    folder = model.parent
    plan, out = tmp_path / "plan.json", tmp_path / "again.onnx"
    given: Any = {"data": folder / "data.npz", "output": out, "force": True}
    quantize(folder / "net.onnx", **given, **QUICKLY, save_plan=plan)
    quantize(folder / "net.onnx", **given, plan=plan, floor="none")
    assert out.read_bytes() == model.read_bytes()
    with fails("plan.json' exists", "--force"):
        quantize(folder / "net.onnx", data=folder / "data.npz", output=tmp_path / "new.onnx", save_plan=plan)
    with fails("--save-plan would be ignored: --dry-run writes nothing"):
        quantize(folder / "net.onnx", data=folder / "data.npz", dry_run=True, save_plan=plan)


def test_reports_of_other_models_are_refused(model: Path, tmp_path: Path) -> None:
    folder = model.parent
    np.savez(tmp_path / "other.npz", x=x(20))
    calibrate(folder / "net.onnx", data=tmp_path / "other.npz", output=tmp_path / "c.calib")
    out = tmp_path / "b.fcd"
    with fails("c.calib' is not the one that the model was made with", "fcdeploy quantize"):
        bundle(model, output=out, calibration=tmp_path / "c.calib")
    plan = quantize(folder / "net.onnx", data=folder / "data.npz", dry_run=True, keep_float=["first"]).to_json()
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with fails("plan.json' is not the one that the model was made by", "--save-plan"):
        bundle(model, output=out, plan=tmp_path / "plan.json")
    with fails("has format 'fcdeploy.quantize/1', expected 'fcdeploy.validate/1'", "fcdeploy validate"):
        bundle(model, output=out, validation=tmp_path / "plan.json")
    report = {"schema": "fcdeploy.validate/1", "passed": False, "samples": 8, "hashes": {"int8": "0" * 64}}
    (tmp_path / "no.json").write_text(json.dumps(report))
    with fails("no.json' is about another model", "fcdeploy validate"):
        bundle(model, output=out, validation=tmp_path / "no.json")
    report["hashes"] = {"int8": hashlib.sha256(model.read_bytes()).hexdigest()}
    (tmp_path / "no.json").write_text(json.dumps(report))
    assert "did not pass" in bundle(model, output=out, validation=tmp_path / "no.json").warnings[0]
    with fails("has format 'fcdeploy.validate/1', expected 'fcdeploy.bench/1'", "fcdeploy bench"):
        bundle(model, output=out, bench=tmp_path / "no.json", force=True)
    times = {"schema": "fcdeploy.bench/1", "threads": 1, "hashes": {"int8": "0" * 64}}
    (tmp_path / "times.json").write_text(json.dumps(times))
    with fails("times.json' is about another model", "fcdeploy bench"):
        bundle(model, output=out, bench=tmp_path / "times.json", force=True)
    (tmp_path / "times.json").write_text(json.dumps({**times, "threads": "one"}))
    with fails("threads is 'one', expected a whole number", "fcdeploy bench"):
        bundle(model, output=out, bench=tmp_path / "times.json", force=True)


def test_golden_samples_take_no_more_than_the_model() -> None:
    """Unless that leaves none: one proves a CPU, and a picture is larger than a small model."""
    run = ({"x": np.zeros(100, np.float32)}, {"y": np.zeros(25, np.float32)})  # 500 bytes
    assert [len(_keep_few([run] * 4, most)) for most in (0, 499, 500, 999, 1000, 1999, 2000, 9999)] == [
        1, 1, 1, 1, 2, 3, 4, 4
    ]  # fmt: skip


def test_golden_samples_open_with_numpy(made: Path, model: Path) -> None:
    data = np.load(model.parent / "data.npz")["x"]
    session = ort.InferenceSession(model)
    with np.load(made / "golden.npz") as found:
        assert len(found) == 4 * 3
        for i in range(4):
            np.testing.assert_array_equal(found[f"{i}/input/x"], data[i : i + 1])
            wanted = session.run(["second_out"], {"x": data[i : i + 1]})[0]
            np.testing.assert_array_equal(found[f"{i}/output/second_out"], wanted)


def test_how_images_became_inputs_is_recorded(tmp_path: Path) -> None:
    net = Net()
    path = net.output(net.conv(net.input("image", 3, 8, 8), 3, 4)).save(tmp_path / "conv.onnx")
    (tmp_path / "p.toml").write_text('colour = "BGR"\nmean = [0.5, 0.4, 0.3]')
    bundle(path, output=tmp_path / "c.fcd", preprocess=tmp_path / "p.toml")
    found = open_bundle(tmp_path / "c.fcd").manifest.format.preprocessing
    assert found
    assert (found.colour, found.mean, found.steps) == ("BGR", (0.5, 0.4, 0.3), (PreprocessingStep("resize", (8, 8)),))


NEEDS_NOTHING = """
import sys
for name in {heavy!r}:
    sys.modules[name] = None  # importing it fails
import numpy, fcdeploy
loaded = fcdeploy.load_bundle({path!r})
print(loaded.predict(x=numpy.ones((1, 8), numpy.float32))["class_out"][0], [one.kind for one in loaded.compare()])
"""


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_load_bundle_needs_only_numpy_and_onnxruntime(form: str, made: Path, tmp_path: Path) -> None:
    path = made if form == "folder" else zipped(made, tmp_path / "net.zip")
    code = NEEDS_NOTHING.format(heavy=sorted(HEAVY | {"fcdeploy.graph"}), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["['equal',", "'equal']"]


def test_predict_checks_its_arrays(made: Path) -> None:
    loaded = load_bundle(made)
    with fails("input 'x' is missing: the model wants x float32[?, 8]"):
        loaded.predict()
    with fails("input 'x' is float64, the model wants float32", "astype"):
        loaded.predict(x=np.zeros((1, 8)))
    with fails("input 'x' has shape [8], the model wants [?, 8]", "array[None]"):
        loaded.predict(x=np.zeros(8, np.float32))


def test_verify_says_bit_equal(made: Path) -> None:
    report = verify(made)
    assert report.passed
    assert report.lines[-1] == "passed: bit-equal, all 16 elements of 2 outputs"
    assert report.values["golden"] == "equal"


def rewritten(made: Path, out: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> Path:
    """The same bundle with other golden outputs, as another CPU might have given them."""
    loaded = load_bundle(made)
    runs = [(fed, {name: change(name, array) for name, array in got.items()}) for fed, got in loaded.golden_runs()]
    contents = {name: loaded.stored.read(name) for name in loaded.manifest.files}
    said = replace(loaded.manifest, made_by={**loaded.manifest.made_by, "family": "arm64", "cpu": "Another"})
    write_bundle(out, said, {**contents, "golden.npz": golden.to_bytes(runs)}, force=False)
    return out


def test_verify_runs_in_as_many_threads_as_golden_samples_were_made_with(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others add floats in another order, which would look as if this CPU answered otherwise."""
    asked, begin = [], Session.__init__

    def record(*given: Any, threads: int | None = None, **more: Any) -> None:
        asked.append(threads)
        begin(*given, threads=threads, **more)

    monkeypatch.setattr(Session, "__init__", record)
    verify(made)
    bundle(next(made.glob("*.onnx")), output=tmp_path / "again.fcd", samples=1)
    assert len(asked) == 2
    assert set(asked) == {1}


def test_verify_within_ties(made: Path, tmp_path: Path) -> None:
    """One element off by 1e-4 of what the output spans."""

    def nudged(name: str, array: np.ndarray) -> np.ndarray:
        return array + (np.arange(array.size) == 0) * np.float32(1e-4) if name == "second_out" else array

    report = verify(rewritten(made, tmp_path / "b.fcd", nudged))
    assert report.passed
    assert report.values["golden"] == "ties"
    assert "passed: within rounding ties, 4 of 16 elements differ; this CPU is " in report.lines[-1]
    assert report.lines[-1].endswith("the bundle was made on arm64 (Another)")


def test_other_kernels_answer_within_ties(tmp_path: Path) -> None:
    """Without graph optimization the layers are computed in floats between conversions, as on another kind of CPU."""
    net = Net(seed=3)
    x = net.op("Relu", net.conv(net.input("x", 3, 12, 12), 3, 16))
    net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 16, 16)))), 16, 5))
    net.save(tmp_path / "c.onnx")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).normal(size=(64, 3, 12, 12)).astype(np.float32))
    quantize(tmp_path / "c.onnx", data=tmp_path / "c.npz", output=tmp_path / "c8.onnx", costs="none", target="portable")
    bundle(tmp_path / "c8.onnx", output=tmp_path / "c.fcd", data=tmp_path / "c.npz", samples=32)
    loaded = load_bundle(tmp_path / "c.fcd")
    other = Session(tmp_path / "c8.onnx", optimize=False)
    (found,) = golden.compare(
        loaded.golden_runs(), lambda feeds: dict(zip(other.outputs, other.run(feeds), strict=True))
    )
    assert found.kind == golden.TIES
    assert 0 < found.differ <= found.elements == 160
    assert found.sqnr_db and found.sqnr_db > 38


@pytest.mark.parametrize(
    ("output", "change", "said"),
    [
        ("second_out", lambda a: a + 1, "failed: output 'second_out' differs on 12 of 12 elements, by 1 at most"),
        ("class_out", lambda a: a + 1, "failed: output 'class_out' differs on 4 of 4 elements, by 1 at most"),
        ("class_out", lambda a: a[None], "failed: output 'class_out' is int64[1] instead of int64[1, 1]"),
        ("second_out", lambda a: a * np.nan, "failed: output 'second_out' is not a number where one was"),
    ],
)
def test_verify_names_the_difference(made: Path, tmp_path: Path, output: str, change: Any, said: str) -> None:
    out = rewritten(made, tmp_path / "b.fcd", lambda name, array: change(array) if name == output else array)
    report = verify(out)
    assert not report.passed
    assert said in report.lines[-1]
    assert "the bundle was made on arm64" in report.lines[-1]


def test_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.fcd"
    assert cli.main(["bundle", str(model), "-o", str(out), "--samples", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (
        "without plan, calibration, validation, bench: --plan, --calibration, --validation, --bench would put it in"
        in shown
    )
    assert "2 golden samples from a seed: --data DATA takes real ones" in shown
    assert shown[-1] == f"next: fcdeploy verify {out}, on the CPU it is for"
    assert cli.main(["verify", str(out)]) == 0
    assert "passed: bit-equal" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "has no manifest.json" in capsys.readouterr().err


def test_outputs_are_guarded(model: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.fcd"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with fails("is a folder that is no bundle", "-o model.fcd"):
        bundle(model, output=out, force=True)
    assert (out / "mine.txt").read_text() == "mine"
    with fails("net.fcd' exists", "--force"):
        bundle(model, output=made)
    with fails("would replace the input", "another name"):
        bundle(made / "model.onnx", output=made, force=True)
    with fails("exists", "--force"):
        bundle(model, output=zipped(made, tmp_path / "a.zip"))
    copied = Path(shutil.copytree(made, tmp_path / "b.fcd"))
    bundle(model, output=copied, version="2", force=True)
    assert open_bundle(copied).manifest.version == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.fcd", "out.fcd"]


def test_a_number_of_golden_samples_is_one_or_more(model: Path, tmp_path: Path) -> None:
    with fails("number of samples 0 is not positive, expected 1 or more"):
        bundle(model, output=tmp_path / "b.fcd", samples=0)


@pytest.mark.parametrize(("option", "value"), [("name", "a/b"), ("name", ""), ("version", "v1"), ("version", "0")])
def test_names_can_stand_in_an_address(model: Path, tmp_path: Path, option: str, value: str) -> None:
    if not value:
        model = Path(shutil.copy(model, tmp_path / "-x.onnx"))
        value = "-x"
    with fails(f"--{option} {value!r} cannot stand in an address"):
        bundle(model, output=tmp_path / "b.fcd", **{option: value})


def outside(folder: Path, location: str) -> Path:
    """A float model whose weight lies in another file."""
    (folder / "m.onnx").write_bytes(product(location))
    (folder / location).write_bytes(np.eye(4, dtype=np.float32).tobytes())
    return folder / "m.onnx"


@pytest.mark.parametrize("suffix", ["fcd", "zip"])
def test_weights_outside_the_model_travel(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = outside(tmp_path, "w.bin")
    bundle(path, output=tmp_path / f"b.{suffix}")
    (tmp_path / "w.bin").write_bytes(np.zeros((4, 4), np.float32).tobytes())  # the bundle has its own
    monkeypatch.chdir(tmp_path)
    loaded = load_bundle(tmp_path / f"b.{suffix}")
    assert loaded.manifest.weights == ("w.bin",)
    np.testing.assert_array_equal(loaded.predict(x=x()[:, :4])["y"], x()[:, :4])


def test_weights_with_the_name_of_another_file(tmp_path: Path) -> None:
    with fails("has weights in 'golden.npz', a name that a bundle cannot hold", "model.data"):
        bundle(outside(tmp_path, "golden.npz"), output=tmp_path / "b.fcd")


def test_session_options_travel_and_are_checked(tmp_path: Path, model: Path) -> None:
    proto = onnx.load(model)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "fcdeploy.session", '{"session.x64quantprecision": "1"}'
    onnx.save(proto, tmp_path / "m.onnx")
    bundle(tmp_path / "m.onnx", output=tmp_path / "b.fcd")
    assert load_bundle(tmp_path / "b.fcd").manifest.session == {"session.x64quantprecision": "1"}
    edited(tmp_path / "b.fcd", lambda said: said["session"].update({"ep.context_file_path": "/x"}))
    with fails("the manifest's session sets 'ep.context_file_path', which a model may not set", "may travel"):
        load_bundle(tmp_path / "b.fcd")


def test_the_package_names_it() -> None:
    assert inspect.unwrap(fcdeploy.load_bundle) is load_bundle
    assert inspect.unwrap(fcdeploy.bundle) is bundle


WITHOUT = """
import sys
missing = {"onnx", "onnx_ir", "ml_dtypes", "safetensors", "torch", "onnxscript"}
class Refuser:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuser())
from fcdeploy.cli import main
first, second = sys.argv[1:]
codes = [main(["verify", first]), main(["inspect", second])]
print(codes)
"""


def test_a_machine_without_what_makes_models_verifies(made: Path, model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, made, model], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[0, 2]"
    assert done.stderr.splitlines() == [
        "error: inspect needs 'onnx_ir', which is not installed",
        "hint: pip install fcdeploy; fcdeploy-runtime verifies and serves",
    ]


WITHOUT_ENGINE = WITHOUT.replace('"onnx",', '"onnx", "onnxruntime",').partition("from fcdeploy.cli")[0]
SAYING = """
import importlib.util
from importlib import metadata
import fcdeploy
from fcdeploy.cli import main
find, version = importlib.util.find_spec, metadata.version
importlib.util.find_spec = lambda name, *more: None if name in missing else find(name, *more)
def find_version(name):
    if name in lacking:
        raise metadata.PackageNotFoundError(name)
    return "0.1.0" if name == "fcdeploy-runtime" else version(name)
metadata.version = find_version
bundle, lacking = sys.argv[1], sys.argv[2:]
print([main(words) for words in (["verify", bundle], ["serve", bundle], ["doctor"])])
missing.add("uvloop")
main(["serve", bundle, "--engine", "native"])
try:
    fcdeploy.load_bundle(bundle)
except fcdeploy.FcdeployError as error:
    print("error:", error.message, "hint:", error.hint, sep="\\n", file=sys.stderr)
"""


@pytest.mark.parametrize("package", ["fcdeploy", "fcdeploy-runtime"])
def test_a_machine_without_onnxruntime_is_told_what_to_install(made: Path, package: str) -> None:
    lacking = [] if package == "fcdeploy" else ["fcdeploy", "onnx", "onnxruntime"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_ENGINE + SAYING, made, *lacking],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    install = "pip install onnxruntime" if package == "fcdeploy" else "pip install 'fcdeploy-runtime[onnxruntime]'"
    assert "[2, 2, 1]" in done.stdout.splitlines(), done.stderr
    assert f"No ONNX model can run here until it does: {install};" in " ".join(done.stdout.split())
    assert done.stderr.splitlines() == [
        "error: verify needs 'onnxruntime', which is not installed",
        f"hint: {install}, or --engine native, for bundles with a library",
        "error: serve needs 'onnxruntime', which is not installed",
        f"hint: {install}, or --engine native, for bundles with a library",
        "error: serve needs 'uvloop', which is not installed",
        f"hint: pip install '{package}[serve]'",
        "error:",
        "fcdeploy.load_bundle needs 'onnxruntime', which is not installed",
        "hint:",
        f"{install}, or engine='native', for bundles with a library",
    ]


def test_a_server_of_native_code_needs_no_onnxruntime() -> None:
    code = "import fcdeploy.serve.run, fcdeploy.commands.doctor"
    subprocess.run([sys.executable, "-P", "-c", WITHOUT_ENGINE + code], capture_output=True, check=True)


def test_halves_of_a_model_have_names_of_their_own() -> None:
    names = {
        "net.first.onnx": "net-first",
        "net.second.int8.onnx": "net-second",
        "first.onnx": "first",
        "a.b.onnx": "a",
    }
    assert {name: _make_name(Path(name)) for name in names} == names
