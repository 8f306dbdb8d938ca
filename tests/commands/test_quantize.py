"""`fcdeploy quantize` as a command: plan round trip, same bytes, what it prints, and every way it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Net, random_data

import fcdeploy
from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.cli import main
from fcdeploy.runtime.session import Session

DATA = random_data(0, 20, x=(3, 8, 8))


def small(net: Net) -> Net:
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="first"), name="relu")
    x = net.op("Add", net.conv(x, 8, 8, name="second"), x, name="add")
    x = net.op("Elu", net.conv(x, 8, 8, name="middle"), name="elu")
    x = net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, 8, 8, name="third"), name="mean"), name="flat")
    return net.output(net.dense(x, 8, 3, name="dense"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx and data.npz, the current one."""
    monkeypatch.chdir(tmp_path)
    small(Net(0)).save(Path("model.onnx"))
    np.savez("data.npz", **DATA)
    return tmp_path


class Command:
    """Runs `fcdeploy quantize model.onnx --int8 ...` in this process, on every integer kernel there is."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def text(self, *arguments: str, command: str = "quantize") -> tuple[int, str, str]:
        self.capsys.readouterr()
        fixed = [command, "model.onnx"]
        if command == "quantize":
            fixed += ["--int8", *([] if {"--plan", "--costs", "--engine"} & set(arguments) else ["--costs", "none"])]
            # a network that was never trained has its classes near each other
            fixed += [] if {"--floor", "--max-drop"} & set(arguments) else ["--floor", "90"]
        code = main([*fixed, *arguments])
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *arguments: str, data: bool = True) -> dict[str, Any]:
        code, out, err = self.text("--json", *(["--data", "data.npz"] if data else []), *arguments)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def plan(self, *arguments: str) -> dict[str, Any]:
        plan: dict[str, Any] = self.json("--dry-run", *arguments)["plan"]
        return plan

    def file(self, name: str, *arguments: str, data: bool = True) -> bytes:
        self.json("-o", name, *arguments, data=data)
        return Path(name).read_bytes()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def kinds(plan: dict[str, Any]) -> dict[str, str]:
    return {row["node"]: row["kind"] for row in plan["nodes"]}


def test_json_says_which_nodes_are_int8_and_why_others_are_not(command: Command) -> None:
    found = command.json("-o", "int8.onnx")
    assert next(iter(found.items())) == ("schema", "fcdeploy.quantize/1")
    integer = {row["node"]: row["kernel"] for row in found["nodes_int8"]}
    assert {"first", "second", "third", "add", "mean", "dense"} <= set(integer)
    assert integer["first"] == "QLinearConv"
    assert integer["dense"] == "QGemm"
    (elu,) = found["nodes_float"]
    assert elu == {"node": "elu", "op": "Elu", "why": "onnxruntime has no integer kernel for it on CPUs"}
    assert found["bytes_int8"] == Path("int8.onnx").stat().st_size
    assert found["bytes_float"] == Path("model.onnx").stat().st_size
    assert found["output"] == "int8.onnx"
    assert [text.split(",")[0] for text in found["warnings"]] == ["judged on 6 samples alone"]
    f, q = (Session(Path(name), threads=1).run(DATA)[0] for name in ("model.onnx", "int8.onnx"))
    assert measure_fidelity(f, q).sqnr_db > 28


def test_people_see_counts_and_reasons(command: Command) -> None:
    code, out, _ = command.text("--data", "data.npz", "-o", "int8.onnx")
    assert code == 0
    assert "4 of 4 Conv, 1 of 1 Gemm, 1 of 1 Add" in out
    assert "onnxruntime has no integer kernel" in " ".join(out.split())
    assert out.strip().splitlines()[-1].startswith("next: fcdeploy validate int8.onnx --against model.onnx")


def test_a_dry_run_writes_nothing(command: Command, here: Path) -> None:
    before = sorted(file.name for file in here.iterdir())
    code, out, _ = command.text("--data", "data.npz", "--dry-run", "-o", "int8.onnx")
    assert code == 0
    assert "nothing was written" in out
    assert "separate_shared_weights" not in out  # a pass that had nothing to do
    assert command.plan()["schema"] == "fcdeploy.plan/2"
    assert sorted(file.name for file in here.iterdir()) == before


def test_an_edited_plan_is_followed_and_says_so(command: Command) -> None:
    """A node turned to float has a new reason; the scale of a tensor may change, and the biases that depend on it follow."""
    plan = command.plan()
    for row in plan["nodes"]:
        if row["node"] == "third":
            row["kind"] = "float"
    relu = plan["tensors"]["relu_out"]
    relu["scale"] = [2 * relu["scale"][0]]
    Path("plan.json").write_text(json.dumps(plan))
    said = command.json("--plan", "plan.json", "-o", "int8.onnx")
    assert {"node": "third", "op": "Conv", "why": "float by the plan"} in said["nodes_float"]
    exact, found = (Session(Path(name)).run(DATA)[0] for name in ("model.onnx", "int8.onnx"))
    assert measure_fidelity(exact, found).sqnr_db > 15


def test_a_plan_goes_round(command: Command) -> None:
    """What --dry-run --json prints, given back with --plan, makes the same bytes; so does the plan alone."""
    expected = command.file("a.onnx", "--ranges", "minmax")
    printed = command.json("--dry-run", "--ranges", "minmax")
    Path("printed.json").write_text(json.dumps(printed))
    Path("plan.json").write_text(json.dumps(printed["plan"]))
    assert command.file("b.onnx", "--plan", "printed.json") == expected
    assert command.file("c.onnx", "--plan", "plan.json") == expected
    assert command.file("d.onnx", "--ranges", "percentile") != expected


def test_a_plan_of_version_1_is_read_and_said(command: Command) -> None:
    expected, plan = command.file("a.onnx", "--floor", "none"), command.plan()
    text = json.dumps({**plan, "schema": "fcdeploy.plan/1"}).replace('"kind": "fused"', '"kind": "absorbed"')
    assert "absorbed" in text
    Path("old.json").write_text(text.replace('"kind": "passthrough"', '"kind": "moves"'))
    warning = "plan 'old.json' is of version 1, read in the words of version 2; --save-plan FILE writes it so"
    assert warning in command.json("--plan", "old.json", "--floor", "none", "-o", "b.onnx")["warnings"]
    assert Path("b.onnx").read_bytes() == expected
    assert command.json("--plan", "old.json", "--dry-run")["warnings"] == [warning]


def test_an_edited_plan_is_followed(command: Command) -> None:
    plan = command.plan()
    next(row for row in plan["nodes"] if row["node"] == "third")["kind"] = "float"
    Path("plan.json").write_text(json.dumps(plan))
    found = command.json("--plan", "plan.json", "-o", "int8.onnx")
    assert "third" in {row["node"] for row in found["nodes_float"]}


def test_the_same_bytes_from_data_and_from_a_calibration_file(command: Command) -> None:
    expected = command.file("a.onnx")
    assert command.text("--data", "data.npz", "--batch", "3", command="calibrate")[0] == 0
    assert command.file("b.onnx", "--calibration", "model.calib", data=False) == expected
    assert command.file("c.onnx", "--calibration", "model.calib") == expected


def test_the_same_bytes_for_any_number_of_threads(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = command.file("a.onnx")
    for threads in (1, 3):
        monkeypatch.setattr("fcdeploy.runtime.session.count_usable_cores", lambda threads=threads: threads)
        assert command.file(f"{threads}.onnx") == expected


def test_keep_float_by_name_glob_and_operator(command: Command) -> None:
    plan = command.plan("--keep-float", "f*", "--keep-float", "op:Add", "--keep-float", "dense")
    found = kinds(plan)
    assert {found[name] for name in ("first", "flat", "add", "dense")} == {"float"}
    assert found["third"] == "int8"
    reasons = {row["node"]: row["why"] for row in plan["nodes"]}
    assert reasons["dense"] == "kept in float by --keep-float dense"


def test_activations_are_unsigned_on_every_target(command: Command) -> None:
    for target in ("portable", "arm64", "arm64-dotprod"):
        plan = command.plan("--target", target)
        assert plan["target"] == target
        assert plan["tensors"]["x"]["dtype"] == "uint8"


def test_effort_and_samples(command: Command) -> None:
    assert command.file("fast.onnx", "--effort", "fast") != command.file("balanced.onnx")
    assert command.text("--data", "data.npz", "--no-keep-samples", command="calibrate")[0] == 0
    found = command.json("--calibration", "model.calib", "-o", "c.onnx", data=False)
    assert found["warnings"] == ["bias correction left out: the calibration carries no samples, and there is no --data"]
    assert command.file("fewer.onnx", "--samples", "6") != command.file("all.onnx")


def test_the_file_says_what_it_was_made_from(command: Command) -> None:
    command.file("int8.onnx")
    entry, _, samples = onnx.load("int8.onnx").metadata_props
    assert samples.key == "fcdeploy.samples"
    made = json.loads(entry.value)
    assert entry.key == "fcdeploy"
    assert set(made) >= {"float", "data", "target", "effort"}


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_old_operator_sets(opset: int, command: Command) -> None:
    """Per-channel scales need opset 13: an older model is brought there, or refused in words."""
    net = Net(0, 13)
    small(net)
    proto = net.model()
    proto.opset_import[0].version = opset
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, "model.onnx")
    f = Session(Path("model.onnx"), threads=1).run(DATA)[0]
    command.file("int8.onnx")
    assert measure_fidelity(f, Session(Path("int8.onnx"), threads=1).run(DATA)[0]).sqnr_db > 28


def edited(**changes: Any) -> None:
    data = json.loads(Path("plan.json").read_text())
    for key, value in changes.items():
        place, name, field = key.split("__")
        row = data["tensors"][name] if place == "tensors" else next(r for r in data["nodes"] if r["node"] == name)
        row[field] = value
    Path("plan.json").write_text(json.dumps(data))


def broken(name: str, command: Command) -> list[str]:
    """Prepare a mistake in the current folder; the arguments that make it."""
    out, data = ["-o", "out.onnx"], ["--data", "data.npz"]
    x = DATA["x"].copy()
    if name.startswith("plan"):
        Path("plan.json").write_text(json.dumps(command.plan()))
        data += ["--plan", "plan.json"]
    if name == "calibration of another model":
        assert command.text(*data, command="calibrate")[0] == 0
        small(Net(1)).save(Path("model.onnx"))
        return ["--calibration", "model.calib", *out]
    if name == "calibration that is none":
        return ["--calibration", "data.npz", *out]
    if name == "calibration damaged":
        assert command.text(*data, command="calibrate")[0] == 0
        Path("model.calib").write_bytes(Path("model.calib").read_bytes()[:-40])
        return ["--calibration", "model.calib", *out]
    if name == "neither":
        return out
    if name == "no output":
        return data
    if name == "exists":
        Path("out.onnx").write_text("mine")
    if name == "output is input":
        out = ["-o", "model.onnx", "--force"]
    if name == "output is data":
        out = ["-o", "data.npz", "--force"]
    if name == "shape":
        np.savez("data.npz", x=x[..., :7])
    if name == "nan":
        x[2, 0, 0, 1] = np.inf
        np.savez("data.npz", x=x)
    if name == "missing":
        np.savez("data.npz", y=x)
    if name == "truncated":
        Path("model.onnx").write_bytes(Path("model.onnx").read_bytes()[:-200])
    if name == "quantized":
        command.file("int8.onnx")
        Path("int8.onnx").replace("model.onnx")
    if name == "domain":
        proto = onnx.load("model.onnx")
        proto.graph.node[0].domain = "my.own"
        proto.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
        onnx.save(proto, "model.onnx")
    options = {
        "ranges": ["--ranges", "best"], "effort": ["--effort", "most"], "target": ["--target", "z80"],
        "keep": ["--keep-float", "nobody"], "unknown option": ["--rangs", "mse"],
        "plan and keep": ["--keep-float", "first"], "plan of another target": ["--target", "arm64"],
    }  # fmt: skip
    if name == "plan kind":
        edited(nodes__first__kind="int3")
    if name == "plan key":
        edited(nodes__first__bits=8)
    if name == "plan scale":
        edited(tensors__x__scale=[-1.0])
    if name == "plan moves":
        edited(tensors__flat_out__scale=[0.75])
    if name == "plan text":
        Path("plan.json").write_text("{")
    if name == "plan list":
        Path("plan.json").write_text("[1]")
    if name == "plan rows":
        data_ = json.loads(Path("plan.json").read_text())
        Path("plan.json").write_text(json.dumps(data_ | {"nodes": 3}))
    if name == "plan tensors":
        data_ = json.loads(Path("plan.json").read_text())
        Path("plan.json").write_text(json.dumps(data_ | {"tensors": []}))
    if name == "plan operator":
        edited(nodes__first__op="Gemm")
    if name == "plan int16":
        edited(nodes__first__kind="int16")
    if name == "plan twice":
        data_ = json.loads(Path("plan.json").read_text())
        Path("plan.json").write_text(json.dumps(data_ | {"nodes": [*data_["nodes"], data_["nodes"][1]]}))
    if name == "plan is output":
        out = ["-o", "plan.json", "--force"]
    if name == "plan missing":
        Path("plan.json").unlink()
    return [*data, *out, *options.get(name, [])]


MISTAKES = {
    "calibration of another model": (
        "calibration 'model.calib' was made from another model",
        "fcdeploy calibrate model.onnx",
    ),
    "calibration that is none": ("'data.npz' is not a calibration file, or is damaged", "fcdeploy calibrate"),
    "calibration damaged": ("'model.calib' is not a calibration file, or is damaged", "fcdeploy calibrate"),
    "neither": ("neither --data nor --calibration was given", "fcdeploy quantize MODEL"),
    "no output": ("there is no output: -o was not given", "--dry-run"),
    "exists": ("output 'out.onnx' exists", "--force"),
    "output is input": ("output 'model.onnx' is also an input", "-o"),
    "output is data": ("output 'data.npz' is also an input", "-o"),
    "shape": ("has shape (3, 8, 7), the model wants (3, 8, 8)", "fcdeploy transform dense-to-conv"),
    "nan": ("sample 2 has inf at (0, 0, 1)", "repair or remove"),
    "missing": ("input 'x' is missing, it has 'y'", "the model wants 'x'"),
    "truncated": ("'model.onnx' is not an ONNX model, or is damaged", "fcdeploy export"),
    "quantized": ("the model is quantized already, expected a float model", "give the float model"),
    "domain": ("of the domain 'my.own', which onnxruntime does not know", "--ops LIB"),
    "ranges": (
        "--ranges 'best' is unknown, expected mse, mse-unweighted, minmax, percentile, percentile-99.9, entropy",
        "--ranges mse",
    ),
    "effort": ("--effort 'most' is unknown, expected fast, balanced", "--effort fast"),
    "target": ("--target 'z80' is unknown, expected host, portable", "fcdeploy doctor"),
    "keep": ("--keep-float 'nobody' fits no node of the model", "fcdeploy inspect"),
    "unknown option": ("unknown option '--rangs'", "did you mean"),
    "plan and keep": ("--keep-float and --plan were both given", '"kind" to "float"'),
    "plan of another target": ("is for target 'x86-avx2', not 'arm64'", "--target x86-avx2"),
    "plan kind": ("node 'first' has kind 'int3', expected int8", "--save-plan"),
    "plan key": ("node 'first' has the unknown key 'bits', expected", "--save-plan"),
    "plan scale": ("tensor 'x' has scale '[-1.0]', expected a list of positive float32 numbers", "--save-plan"),
    "plan moves": ("moves bytes between tensors of different scales", "--save-plan"),
    "plan text": ("plan 'plan.json' cannot be read as JSON", "--save-plan"),
    "plan list": ("plan 'plan.json' is no plan: its schema is not", "--save-plan"),
    "plan rows": ("plan 'plan.json'", "--save-plan"),
    "plan tensors": ("plan 'plan.json'", "--save-plan"),
    "plan operator": ("node 'first' is a 'Gemm' in the plan and a 'Conv' in the model", "--save-plan"),
    "plan int16": ("node 'first' is 'int16' in a plan without 16 bits", '"int8"'),
    "plan twice": ("plan 'plan.json' names node 'relu' twice", "--save-plan"),
    "plan is output": ("output 'plan.json' is also an input", "-o"),
    "plan missing": ("plan 'plan.json' does not exist", "--save-plan"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, here: Path, command: Command) -> None:
    message, hint = MISTAKES[name]
    arguments = broken(name, command)
    before = {file.name: file.read_bytes() for file in here.iterdir()}
    code, out, err = command.text(*arguments)
    text = " ".join(err.split())
    assert (code, out) == (2, "")
    assert text.startswith("error: ")
    assert message in text, err
    assert "internal" not in text
    assert hint in text.split("hint: ")[1]
    assert {file.name: file.read_bytes() for file in here.iterdir()} == before


def test_multiplications_are_counted_at_the_shape_of_samples(tmp_path: Path) -> None:
    net = Net(0)
    x = net.op("Conv", net.input("x", 3, "time"), net.constant(net.normal(4, 3, 3)), name="conv", pads=[1, 1])
    model = net.output(net.op("Relu", x)).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **random_data(0, 20, x=(3, 9)))
    report = fcdeploy.quantize(model, data=tmp_path / "d.npz", output=tmp_path / "q.onnx", costs="none")
    assert report.values["integer_share"] == 1
    assert "1 of 1 Conv in integer kernels, 100 % of the multiplications" in report.lines


@pytest.mark.parametrize("effort", ["balanced", "best"])
def test_a_batch_that_the_kept_samples_do_not_fill(effort: str, tmp_path: Path) -> None:
    """Nothing can be run on them, which is said; no tool fails, and no figure is made up."""
    net = Net(1)
    x = net.conv(net.input("x", 3, 6, 6), 3, 8, name="c")
    model = net.output(net.op("Relu", net.conv(net.op("Relu", x), 8, 8, name="d"))).model()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 512
    onnx.save(model, tmp_path / "fixed.onnx")
    np.savez(tmp_path / "many.npz", **random_data(0, 512, x=(3, 6, 6)))
    report = fcdeploy.quantize(
        tmp_path / "fixed.onnx", data=tmp_path / "many.npz", output=tmp_path / "out.onnx", effort=effort
    )
    assert any("do not fill the batch of the model" in text for text in report.warnings)
    assert "sqnr_db" not in report.values


def test_for_native_code(command: Command) -> None:
    """Every integer kernel, the same file as with --costs none, and what compile will say of it."""
    found = command.json("-o", "native.onnx", "--engine", "native", "--floor", "none")
    assert found["native"]["float_steps"] == []
    assert found["native"]["macs"] > 0
    assert found["native"]["arena_bytes"] > 8 * 8 * 8
    assert Path("native.onnx").read_bytes() == command.file("all.onnx", "--floor", "none")
    code, _, err = command.text("--engine", "tflite", "--data", "data.npz", "-o", "out.onnx")
    assert (code, err.splitlines()[0]) == (2, "error: engine 'tflite' is unknown, expected onnxruntime, native")


def test_what_quantize_inspect_split_and_compile_say_of_native_code_is_the_same(command: Command) -> None:
    """And of its multiplications what they say of the float model: channels of zeros in front of byte kernels are none."""
    words = ["--device", "stm32f4", "--data", "data.npz", "-o", "native.onnx", "--floor", "none"]
    _, out, _ = command.text("--engine", "native", *words)
    native = next(line for line in out.splitlines() if line.startswith("native code: "))
    row = fcdeploy.inspect("native.onnx", device="stm32f4").values
    made = fcdeploy.compile("native.onnx", dry_run=True, allow_float=True, emit="object", target="cortex-m4")
    said = " ".join(made.report.lines)
    for steps in (f"{len(row['device']['steps'])} steps", f"{len(made.report.values['steps'])} steps"):
        assert steps in native
        assert steps in said
    for arena in (row["device"]["ram_arena"], made.report.values["arena_bytes"]):
        assert f"arena {arena:,} bytes" in native
        assert f"arena {arena:,} bytes" in said
    assert row["macs"] == made.report.values["macs"] == fcdeploy.inspect("model.onnx").values["macs"]
    assert row["parameters"] == fcdeploy.inspect("model.onnx").values["parameters"]
    assert fcdeploy.split("native.onnx").values["cuts"][-1]["macs"] == row["macs"] - 8 * 3


def test_what_native_code_has_no_kernel_for_is_not_written(command: Command) -> None:
    net = Net(0)
    y = net.op("Det", net.conv(net.input("x", 3, 8, 8), 3, 8, name="first"), name="determinant")
    net.output(y).save(Path("model.onnx"))
    code, _, err = command.text("--engine", "native", "--data", "data.npz", "-o", "out.onnx", "--floor", "none")
    assert code == 2
    assert "'determinant'" in err
    assert "there is no kernel" in err
    assert not Path("out.onnx").exists()


def test_an_lstm_keeps_its_state_in_float_for_native_code(command: Command) -> None:
    """Which has no kernel for one that scales its activations in every run, what --costs none takes."""
    net = Net(0)
    x = net.op("Transpose", net.input("x", 6, 8), perm=[1, 0, 2])
    w, r, b = (net.constant(net.normal(*shape, size=0.4)) for shape in ((1, 48, 8), (1, 48, 12), (1, 96)))
    y = net.op("Squeeze", net.op("LSTM", x, w, r, b, name="cell", hidden_size=12), net.constant([1], np.int64))
    net.output(net.op("MatMul", y, net.constant(net.normal(12, 4, size=0.3)), name="head")).save(Path("model.onnx"))
    np.savez("data.npz", **random_data(0, 20, x=(6, 8)))
    found = command.json("-o", "native.onnx", "--engine", "native", "--floor", "none")
    assert any("lstm of 12" in step for step in found["native"]["float_steps"])
    command.file("all.onnx", "--floor", "none")
    types = {name: {node.op_type for node in onnx.load(f"{name}.onnx").graph.node} for name in ("native", "all")}
    assert "LSTM" in types["native"]
    assert "DynamicQuantizeLSTM" in types["all"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_that_grew_is_warned_of(tied: bool, tmp_path: Path) -> None:
    """Of a weight that something else computes with, too, floats are stored beside integers."""
    net = Net(0)
    x, weight = net.input("x", 256), net.constant(net.normal(256, 256, size=0.06))
    y = net.op("MatMul", x, weight)
    if tied:
        apart = net.op("Sub", net.op("Unsqueeze", x, net.constant([2], np.int64)), weight)
        y = net.op("Add", y, net.op("ReduceMean", apart, axes=[1], keepdims=0))
    path = net.output(y).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **random_data(0, 64, x=(256,)))
    report = fcdeploy.quantize(path, data=tmp_path / "d.npz", output=tmp_path / "q.onnx", costs="none", floor="none")
    said = [text for text in report.warnings if text.startswith("the file is larger than the float one, 1.2")]
    assert bool(said) == tied
    assert tied == ((tmp_path / "q.onnx").stat().st_size > path.stat().st_size)
