"""`quantize --max-drop`: fragile places found in trained networks, what is said of them, and every way it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, random_data

from fcdeploy.cli import main
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.export import export
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.loss import Loss
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.types import find_types
from fcdeploy.int8.problem import Problem
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records import calibration
from fcdeploy.reporting.search import NOT_KNOWN, _format_drop
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kinds import open_source
from fcdeploy.search import ladder, search
from fcdeploy.search.evaluator import SKETCH, EvaluationResult, sketch_output
from fcdeploy.search.groups import ALL, explain_moves, find_groups
from fcdeploy.search.ladder import NodeGroup, PathStep, Score
from fcdeploy.search.search import MeasuredStep, SearchRun, _try_all_in_float
from fcdeploy.search.stopwatch import UNTIMED
from fcdeploy.sensitivity.error_sources import find_sources
from fcdeploy.user_code import load_file

ROOT = Path(__file__).parents[2]
fragile = load_file(ROOT / "models" / "fragile.py")
CALIB, EVAL = (str(ROOT / "calib_data" / f"digits64.{part}.npz") for part in ("calib", "eval"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dense") / "dense.onnx"
    export(f"{ROOT}/models/dense.py:dense", state=f"{ROOT}/models/dense.safetensors", output=file)
    return file


def layers(model: Path) -> list[str]:
    return [node.name or "" for node in read_model(model).graph if node.op_type in ("Conv", "Gemm")]


def drop(model: Path, output: Path, keep_float: Sequence[str] = ()) -> float:
    quantize(
        model, data=CALIB, output=output, costs="none", keep_float=keep_float, floor="none", effort="fast", force=True
    )
    return float(validate(output, against=model, data=EVAL).values["drop"])


@pytest.mark.parametrize("seed", [0, 4], ids=["cancel", "outlier"])
def test_a_fragile_place_is_found_and_only_its_layers_leave_int8(dense: Path, tmp_path: Path, seed: int) -> None:
    """The place is the true one: in float for its layers alone, and for no others as few, the network is as it was."""
    model, int8 = tmp_path / "fragile.onnx", tmp_path / "int8.onnx"
    place = fragile.fragile(dense, model, seed)
    with np.load(EVAL) as data:
        feeds = {"pixels": data["pixels"]}
    before, after = (Session(file).run(feeds)[0] for file in (dense, model))
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()
    assert drop(model, int8) > 2
    alone = {name: drop(model, int8, [name]) for name in layers(model)}
    assert drop(model, int8, sorted(place.layers)) <= 0.13
    others = [lost for name, lost in alone.items() if {name} != place.layers]
    assert others
    assert min(others) > 2

    report = quantize(model, data=CALIB, output=int8, costs="none", max_drop=0.13, eval=EVAL, force=True)
    found = report.values
    assert report.passed
    assert {row["node"] for row in found["left_out"]["nodes"]} == place.layers
    assert 0 < found["left_out"]["macs_share"] < 1
    proof = validate(int8, against=model, data=EVAL).values
    assert {key: found[key] for key in ("drop", "drop_low", "drop_high", "p_value")} == {
        key: proof[key] for key in ("drop", "drop_low", "drop_high", "p_value")
    }
    assert found["drop"] <= 0.13 < found["path"][0]["drop"]
    assert found["held"] is True
    assert found["verdict"] == "too few samples"
    assert found["samples_needed"] > 800


def test_what_chance_might_explain_is_held_by_price(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Climbing leaves no layer out for what few samples cannot tell; who asked for a bound gets it all the same."""
    monkeypatch.setattr(search, "ONE_SIDED", 1e6)
    monkeypatch.setattr(ladder, "MOST", 2.0)  # no group causes more than all of the error
    model, int8 = tmp_path / "fragile.onnx", tmp_path / "int8.onnx"
    place = fragile.fragile(dense, model, 4)
    report = quantize(model, data=CALIB, output=int8, costs="none", max_drop=0.13, eval=EVAL)
    assert report.passed
    assert place.layers <= {row["node"] for row in report.values["left_out"]["nodes"]}
    assert validate(int8, against=model, data=EVAL).values["drop"] <= 0.13


def test_the_plan_repeats_the_result_without_searching(dense: Path, tmp_path: Path) -> None:
    model, first, again = (tmp_path / name for name in ("fragile.onnx", "first.onnx", "again.onnx"))
    fragile.fragile(dense, model, 0)
    plan = tmp_path / "plan.json"
    quantize(model, data=CALIB, output=first, costs="none", max_drop=0.13, eval=EVAL, save_plan=plan)
    wide = [row for row in json.loads(plan.read_text())["nodes"] if "16-bit integers" in row["why"]]
    assert [row["kind"] for row in wide] == ["weight_only"]
    assert "costs accuracy, to hold --max-drop" in wide[0]["why"]
    quantize(model, data=CALIB, output=again, plan=plan)
    assert first.read_bytes() == again.read_bytes()


class Command:
    """Runs `fcdeploy quantize model.onnx --int8 --data data.npz -o out.onnx ...` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        fixed = ["quantize", "model.onnx", "--int8", "--data", "data.npz", "-o", "out.onnx", "--force"]
        code = main([*fixed, *arguments])
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """In a folder with model.onnx, data.npz to calibrate on, and eval.npz with labels that are half wrong."""
    monkeypatch.chdir(tmp_path)
    net = Net(0)
    x = net.op("Relu", net.dense(net.input("x", 16), 16, 16, name="first"))
    net.output(net.dense(x, 16, 4, name="last")).save(Path("model.onnx"))
    np.savez("data.npz", **random_data(0, 40, x=(16,)))
    other = random_data(1, 120, x=(16,))
    label = Session("model.onnx").run(other)[0].argmax(axis=1)
    label[::2] = np.random.default_rng(0).integers(0, 4, 60)
    np.savez("eval.npz", label=label, **other)
    return Command(capsys)


def test_what_is_held_as_it_is_stays_int8(command: Command) -> None:
    code, out, _ = command("--costs", "none", "--max-drop", "50", "--eval", "eval.npz")
    assert code == 0
    assert "step   changed           drop, points (95 %)" in out
    assert "int8 as planned" in out
    assert "2 of 2 Gemm in integer kernels" in out
    assert out.splitlines()[-1].startswith("held (95 % interval ")
    assert out.splitlines()[-1].endswith("allowed 50 points, on 120 samples")


def score_differences() -> None:
    """A function that scores any difference from the float model makes every rounding a loss."""
    Path("own.py").write_text(
        "import numpy as np\n\n\ndef exact(outputs, labels):\n"
        "    return -np.abs(next(iter(outputs.values())) - labels['label']).max(axis=1)\n"
    )
    with np.load("eval.npz") as arrays:
        x = arrays["x"]
    np.savez("eval.npz", x=x, label=Session("model.onnx").run({"x": x})[0])


def test_a_bound_that_cannot_be_held_writes_the_best_and_exits_with_1(command: Command) -> None:
    score_differences()
    code, out, _ = command("--costs", "none", "--max-drop", "0", "--eval", "eval.npz", "--metric", "own.py:exact",
                           "--minutes", "0.0001", "--json")  # fmt: skip
    found = json.loads(out)
    assert code == 1
    assert Path("out.onnx").exists()
    assert found["held"] is False
    assert found["verdict"] == "not held"
    assert found["in_time"] is False
    code, out, _ = command("--costs", "none", "--max-drop", "0", "--eval", "eval.npz", "--metric", "own.py:exact")
    assert code == 0
    assert "left out of int8 for accuracy: 2 nodes, 100.0 % of the multiplications" in out


def test_the_front_and_the_road_are_in_the_json(command: Command) -> None:
    _, out, _ = command("--costs", "none", "--max-drop", "0", "--eval", "eval.npz", "--json")
    found = json.loads(out)
    keys = {"drop", "drop_low", "drop_high", "p_value", "held", "path", "front", "left_out"}
    assert keys <= set(found)
    assert found["path"][0]["changed"] == []
    assert set(map(str, found["front"])) <= set(map(str, found["path"]))
    assert found["path"][-1]["drop"] == found["drop"]
    assert found["path"][0]["ratio"] > 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--max-drop", "1"], "--max-drop 1 needs samples to measure the drop on: --eval was not given", "--eval EVALUATION"),
        (["--eval", "eval.npz"], "--eval would be ignored: there is no --max-drop", "leave --eval out"),
        (["--same-data"], "--same-data would be ignored: there is no --max-drop", "leave --same-data out"),
        (["--max-drop", "-1", "--eval", "eval.npz"], "--max-drop -1.0 is no finite number of 0 or more", "--max-drop 1"),
        (["--max-drop", "inf", "--eval", "eval.npz"], "--max-drop inf is no finite number of 0 or more", "--max-drop 1"),
        (["--max-drop", "nan", "--eval", "eval.npz"], "--max-drop nan is no finite number of 0 or more", "--max-drop 1"),
        (["--max-drop", "1", "--eval", "eval.npz", "--minutes", "0"], "--minutes 0.0 is not more than 0", "--minutes 10"),
        (["--max-drop", "1", "--eval", "eval.npz", "--plan", "p.json"], "--max-drop would be ignored: --plan decides", "leave"),
        (["--max-drop", "1", "--eval", "none.npz"], "data 'none.npz' does not exist", "DATA is one of"),
        (["--max-drop", "1", "--eval", "eval.npz", "--metric", "top9"], "metric 'top9' is unknown", "--metric top1"),
        (["--max-drop", "1", "--eval", "data.npz"], "is one of the samples that 'model.onnx' was calibrated on",
         "--eval OTHER, or --same-data"),
    ],
)  # fmt: skip
def test_it_refuses(command: Command, arguments: list[str], message: str, hint: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[0].startswith("error: ")
    assert message in err.splitlines()[0]
    assert hint in err.splitlines()[1]
    assert not Path("out.onnx").exists()


def test_other_types_are_refused(command: Command) -> None:
    code = main(["quantize", "model.onnx", "--weights", "int8", "--activations", "none", "-o", "o.onnx",
                 "--max-drop", "1", "--eval", "eval.npz"])  # fmt: skip
    assert code == 2
    assert "--activations none has no such kernels" in command.capsys.readouterr().err


def test_samples_that_were_calibrated_on_are_taken_when_asked_for_and_it_is_said(command: Command) -> None:
    code, _, err = command("--costs", "none", "--max-drop", "50", "--eval", "data.npz", "--same-data")
    assert code == 0
    assert "40 of 40 samples were calibrated on: the int8 figures flatter the model" in err


@given(st.integers(1, 400), st.integers(0, 10**6))
def test_sketches_tell_how_far_outputs_lie_apart(size: int, seed: int) -> None:
    """In expectation: over 400 samples within a fifth; exactly where there is nothing to save."""
    one, other = np.random.default_rng(seed).normal(size=(2, 400, size))
    apart, real = (
        np.square(a - b).sum() for a, b in ((sketch_output(one, 400), sketch_output(other, 400)), (one, other))
    )
    assert sketch_output(one, 400).shape == (400, min(size, SKETCH))
    assert apart == pytest.approx(real, rel=1e-12 if size <= SKETCH else 0.2)


def test_every_source_of_the_int8_model_has_a_group(dense: Path, tmp_path: Path) -> None:
    quantize(dense, data=CALIB, output=tmp_path / "int8.onnx", costs="none")
    found = find_sources(read_model(tmp_path / "int8.onnx"))
    assert len([source for source in found if source.kind == "weights"]) == len(layers(dense))
    assert isinstance(read_model(dense), ir.Model)


def test_a_dry_run_tells_what_the_search_found_and_exits_with_its_answer(command: Command) -> None:
    arguments = ("--costs", "none", "--eval", "eval.npz", "--dry-run")
    code, out, _ = command(*arguments, "--max-drop", "50")
    assert code == 0
    assert out.startswith("path\n")
    assert "nothing was written" in out
    assert out.splitlines()[-1].startswith("held (95 % interval ")
    score_differences()
    code, out, _ = command(*arguments, "--max-drop", "0", "--metric", "own.py:exact", "--minutes", "0.0001")
    assert code == 1
    assert out.splitlines()[0].startswith("not held: own.py:exact drop ")
    assert "written all the same" not in out
    assert "nothing had to leave int8" not in out
    assert not Path("out.onnx").exists()


def test_constants_of_one_node_are_one_group(tmp_path: Path) -> None:
    """Steps name groups, and a wide one takes several."""
    net = Net(0)
    x = net.op("Relu", net.dense(net.input("x", 16), 16, 16, name="first"))
    constants = (net.constant(net.normal(1, 8)), net.constant(net.normal(1, 8)))
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    net.output(net.dense(net.op("Concat", x, *constants, name="both", axis=1), 32, 4, name="last"))
    file = net.save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 20, x=(16,)))
    graph = read_model(file)
    prepare(graph)
    source = open_source(tmp_path / "data.npz", input_specs(graph))
    recorded = observe(graph, source, model_hash="")
    (kept,) = recorded.groups
    how = (find_target("host"), "mse", (), find_types("int8", "int8"), "fast")
    made = Problem(file, graph, recorded, kept, *how, source)
    plan = made.plan()
    int8 = made.build(plan)
    assert [each.node for each in find_sources(int8) if each.kind == "weights"].count("both") == 2
    groups = find_groups(made, plan, int8)
    assert [group.name for group in groups].count("weights of 'both'") == 1
    assert {group.name for group in groups} >= {"weights of 'first'", "weights of 'last'"}


def test_a_calibration_without_hashes_is_said_not_to_tell(command: Command) -> None:
    calibrate("model.onnx", data="data.npz", output="with.calib")
    recorded = replace(calibration.read(Path("with.calib")), seen=np.zeros(0, np.uint64))
    Path("without.calib").write_bytes(calibration.to_bytes(recorded))
    main(["quantize", "model.onnx", "--int8", "--calibration", "without.calib", "-o", "o.onnx", "--costs", "none",
          "--max-drop", "50", "--eval", "data.npz"])  # fmt: skip
    assert NOT_KNOWN in command.capsys.readouterr().out.splitlines()


def test_only_what_moved_is_a_reason() -> None:
    groups = [NodeGroup("w", "weights", ("a",), ("float",)), NodeGroup("t", "tensor", ("a", "b"), ("float",))]
    forms = {"a": "float", "b": "bytes", "c": "rounded"}
    assert explain_moves(groups, forms, {"w"}) == {"a": "w in 8 bits costs accuracy, to hold --max-drop"}
    assert explain_moves(groups, forms, {"w", "t"}) == dict.fromkeys(
        "ab", "t in 8 bits costs accuracy, to hold --max-drop"
    )
    reasons = explain_moves(groups, forms, {"w", ALL})
    assert set(reasons) == {"a", "b"}
    assert all("faster" in why and "accuracy" not in why for why in reasons.values())


def test_outputs_without_an_axis_of_samples_are_compared_whole(command: Command) -> None:
    """Beside the scores, their mean over all samples, a number without axes, and nothing at all."""
    net = Net(0)
    scores = net.dense(net.op("Relu", net.dense(net.input("x", 16), 16, 16)), 16, 4)
    nothing = net.op("Slice", scores, *(net.constant([end], np.int64) for end in (0, 0, 1)))
    net.output(scores, net.op("ReduceMean", scores, keepdims=0), nothing).save(Path("model.onnx"))
    code, out, _ = command("--costs", "none", "--max-drop", "0", "--eval", "eval.npz", "--json")
    path = json.loads(out)["path"]
    assert code in (0, 1)
    assert path[0]["output_error"] > 0
    samples = np.arange(6.0)
    assert sketch_output(samples, 6).shape == (6, 1)
    assert sketch_output(samples, 5).shape == (1, 6)
    assert sketch_output(np.array(2.0), 5).tolist() == [[2.0]]
    assert sketch_output(np.zeros((0, 4)), 5).shape == (1, 0)


def test_rows_that_depend_on_values_end_no_search(command: Command) -> None:
    """How many scores are above 0 depends on the rounding of a bias: the scores decide, and are what is held."""
    net = Net(0)
    scores = net.dense(net.op("Relu", net.dense(net.input("x", 16), 16, 16)), 16, 4)
    net.output(scores, net.op("NonZero", net.op("Relu", scores))).save(Path("model.onnx"))
    code, _, err = command("--costs", "none", "--max-drop", "100", "--eval", "eval.npz")
    assert code == 0, err


def test_where_no_output_is_in_floating_point_the_error_is_the_drop(command: Command) -> None:
    net = Net(0)
    scores = net.dense(net.op("Relu", net.dense(net.input("x", 16), 16, 16)), 16, 4)
    net.output(net.op("ArgMax", scores, axis=1, keepdims=0)).save(Path("model.onnx"))
    data = random_data(1, 400, x=(16,))
    np.savez("eval.npz", label=Session("model.onnx").run(data)[0], **data)
    _, out, _ = command("--costs", "none", "--max-drop", "0", "--eval", "eval.npz", "--json")
    found = json.loads(out)
    assert found["path"][0]["drop"] > 0
    assert [row["output_error"] for row in found["path"]] == [max(row["drop"], 0) for row in found["path"]]


@pytest.mark.parametrize(
    ("seed", "count", "how"),
    [
        ("calls", "40", "sample 0 or one soon after it differs"),
        ("0", "64 - calls // 3", "sample 32 or one soon after it differs"),
        ("0", "64 - 32 * (calls > 2)", "there are fewer samples"),
    ],
)
def test_samples_that_differ_when_read_again_are_an_error(
    command: Command, monkeypatch: pytest.MonkeyPatch, seed: str, count: str, how: str
) -> None:
    monkeypatch.setattr("fcdeploy.search.evaluator.HELD_BYTES", 0)
    Path("own.py").write_text(
        "import numpy as np\n\ncalls = -1\n\n\ndef samples():\n    global calls\n    calls += 1\n"
        f"    random = np.random.default_rng({seed})\n    for _ in range({count}):\n"
        "        yield {'x': random.normal(size=16).astype(np.float32)}\n"
    )
    code, out, err = command("--costs", "none", "--max-drop", "0", "--eval", "own.py:samples")
    assert (code, out) == (2, "")
    assert "was read again, and" in err.splitlines()[0]
    assert how in err.splitlines()[0]
    assert "seed" in err.splitlines()[1]


@pytest.mark.parametrize(
    ("unit", "ends", "shown"),
    [
        ("points", (0.5, 2.0), "1.23 (0.50 .. 2.00)"),
        ("points", (None, None), "1.23"),
        ("unit of the labels", (0.01234567, 2.0), "1.235 (0.01235 .. 2)"),
    ],
)
def test_drops_have_the_digits_of_their_unit(unit: str, ends: tuple[float | None, float | None], shown: str) -> None:
    loss = Loss(0.9, 0.8, 1.2346, *ends, None)
    assert _format_drop(MeasuredStep((), EvaluationResult(loss, 0.0, None)), unit) == shown


def test_all_in_float_is_tried_where_it_is_faster_and_there_is_time() -> None:
    """Of a search that stands at 8 microseconds: tried at 7, not at 9, and not when time is up."""
    best = PathStep((), {"a": "int8"}, Score(0.0, 0.1, 8.0))

    def tried(cost: float, deadline: float) -> list[PathStep]:
        builder = SimpleNamespace(costs=SimpleNamespace(layers=["a"]), cost=lambda _: cost)
        run = SearchRun(builder, None, 1.0, deadline, lambda *_: None, UNTIMED)  # type: ignore[arg-type]
        run.score = lambda _: Score(0.0, 0.0, cost)  # type: ignore[method-assign]
        return _try_all_in_float(run, best)

    assert [step.forms for step in tried(7.0, math.inf)] == [{"a": "bytes"}]
    assert tried(9.0, math.inf) == []
    assert tried(7.0, 0.0) == []


def test_of_few_samples_the_best_is_found_on_those_kept_apart(dense: Path, tmp_path: Path) -> None:
    """Factors and ranges fit the samples that they come from: on these, smoothing looked best and lost 10 dB on others."""
    with np.load(CALIB) as data:
        np.savez(tmp_path / "few.npz", pixels=data["pixels"][:48])
    found = []
    for effort in ("balanced", "best"):
        quantize(dense, data=tmp_path / "few.npz", output=tmp_path / "q.onnx", costs="none", effort=effort, force=True)
        found.append(validate(tmp_path / "q.onnx", against=dense, data=EVAL).values["sqnr_db"])
    assert found[1] > found[0] - 0.3


def test_what_overflows_stays_float(dense: Path, tmp_path: Path) -> None:
    """The layer in front of an activation whose results are not finite, and no bias is corrected by such a sample."""
    with np.load(CALIB) as data:
        np.savez(tmp_path / "large.npz", pixels=data["pixels"][:48] * np.float32(1e38))
    made = quantize(dense, data=tmp_path / "large.npz", output=tmp_path / "q.onnx", costs="none", floor="none").values
    assert {row["node"] for row in made["nodes_float"]} >= {"hidden1", "hidden2"}
