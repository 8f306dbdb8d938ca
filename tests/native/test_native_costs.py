"""`quantize --engine native --costs`: what native code takes in float and as integers, and the plan that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Net, random_data

from fcdeploy.cli import main
from fcdeploy.graph.model import read_model
from fcdeploy.native.build import build
from fcdeploy.native.estimate import estimate
from fcdeploy.native.reading.operators import read_program
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.costs import from_text
from fcdeploy.tables.devices import DEVICES
from fcdeploy.tables.types import INT8, TYPES

DATA = random_data(0, 20, x=(3, 8, 8))
QUANTIZE = ["quantize", "model.onnx", "--int8", "--engine", "native", "--data", "data.npz", "--floor", "none"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="first"), name="relu")
    x = net.op("Add", net.conv(x, 8, 8, name="second"), x, name="add")
    x = net.conv(x, 8, 8, name="third")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"), name="flat")
    net.output(net.dense(x, 8, 3, name="dense")).save(Path("model.onnx"))
    np.savez("data.npz", **DATA)


def quantize(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*QUANTIZE, "--json", *arguments]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_step_is_timed_both_ways_and_a_file_repeats_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = quantize(capsys, "--costs", "costs.json", "-o", "one.onnx")
    costs = from_text(Path("costs.json").read_text(), "costs")
    assert (costs.engine, "native code" in costs.source) == ("native", True)
    assert found["costs"]["hash"] == costs.hash
    for node in (
        "first",
        "second",
        "add",
        "third",
        "mean",
        "dense",
    ):  # what computes has a time in float, below 1 us or not
        assert node in costs.nodes
    assert costs.nodes["relu"] == (0.0, 0.0)  # a part of the kernel
    assert min(trial.ratio for trial in costs.trials) > 0
    assert {trial.choice.slow for trial in costs.trials} >= {()}

    again = quantize(capsys, "--costs", "costs.json", "-o", "two.onnx")
    assert again["costs"] == found["costs"]
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


def test_what_costs_more_as_integers_stays_float(capsys: pytest.CaptureFixture[str]) -> None:
    """The file of costs decides, as it does for onnxruntime; the plan says so, and native code of it has that step in float."""
    quantize(capsys, "--costs", "costs.json", "-o", "all.onnx")
    costs = json.loads(Path("costs.json").read_text())
    costs["nodes"] = {name: [50.0, 500.0 if name == "third" else 5.0] for name in costs["nodes"]}
    costs["trials"] = []
    Path("costs.json").write_text(json.dumps(costs))
    found = quantize(capsys, "--costs", "costs.json", "-o", "split.onnx")
    (third,) = (row for row in found["nodes_float"] if row["node"] == "third")
    assert "500 us as integers, 50 us in float" in third["why"]
    assert any("'third'" in step for step in found["native"]["float_steps"])


def test_instructions_of_a_device_are_those_of_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    device = DEVICES["stm32f4"]
    found = quantize(capsys, "--device", device.name, "--costs", "table", "-o", "table.onnx")
    assert f"table of instructions on {device.name}" in found["costs"]["source"]
    assert found["costs"] == quantize(capsys, "--device", device.name, "--costs", "table", "-o", "again.onnx")["costs"]
    none = quantize(capsys, "--device", device.name, "-o", "none.onnx")
    assert (none["costs"], Path("none.onnx").read_bytes() != b"") == (None, True)

    model = read_model(Path("model.onnx"))
    prepare(model)
    floats, integers = (
        estimate(build(read_program(each, "net")), device).instructions
        for each in (model, read_model(Path("table.onnx")))
    )
    assert integers < floats  # so that nothing had a reason to stay float
    assert found["native"]["float_steps"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--costs", "table"], "there is no table of what native code costs on this CPU"),
        (["--costs", "measure", "--device", "stm32f4"], "nothing is timed on stm32f4"),
        (["--costs", "new.json", "--device", "raspberry-pi-4"], "nothing is timed on raspberry-pi-4"),
    ],
)
def test_costs_that_there_are_not(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUANTIZE, *arguments, "-o", "out.onnx"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert said in error and hint.startswith("hint: --costs table") == ("--device" in arguments)
    assert not Path("out.onnx").exists()
    assert not Path("new.json").exists()


def test_costs_of_one_engine_are_not_those_of_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    quantize(capsys, "--costs", "native.json", "-o", "native.onnx")
    words = ["quantize", "model.onnx", "--int8", "--data", "data.npz", "--floor", "none"]
    assert main([*words, "--costs", "native.json", "-o", "out.onnx"]) == 2
    assert "'native.json' are those of --engine native, expected onnxruntime" in capsys.readouterr().err
    costs = json.loads(Path("native.json").read_text())
    del costs["engine"]  # as files were written before there were others
    Path("old.json").write_text(json.dumps(costs))
    assert main([*QUANTIZE, "--costs", "old.json", "-o", "out.onnx"]) == 2
    assert "those of --engine onnxruntime, expected native" in capsys.readouterr().err


@pytest.mark.parametrize("types", [each for each in TYPES if TYPES[each] != INT8], ids="-".join)
def test_types_without_kernels_are_refused_before_anything_is_read(
    types: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["quantize", "missing.onnx", "--weights", types[0], "--activations", types[1], "--data", "missing.npz"]
    assert main([*words, "--engine", "native", "-o", "out.onnx"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: native code has no kernels of --weights {types[0]} --activations {types[1]}"
    assert hint == "hint: --int8, or leave --engine native out"


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
def test_efforts(effort: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [] if effort == "default" else ["--effort", effort]
    found = quantize(capsys, *words, "-o", "out.onnx")
    assert found["native"]["float_steps"] == []
    onnx.checker.check_model(onnx.load("out.onnx"))


def test_a_largest_drop_is_held_and_timed_as_native_code(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(40) % 3
    np.savez("eval.npz", x=random_data(1, 40, x=(3, 8, 8))["x"], label=labels)
    words = [word for word in QUANTIZE if word not in ("--floor", "none")]
    code = main([*words, "--max-drop", "30", "--eval", "eval.npz", "-o", "out.onnx"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "of the float time, both as native code on this CPU" in out
    code = main([*words, "--max-drop", "30", "--eval", "eval.npz", "--device", "stm32f4", "-o", "device.onnx"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "of the float time" not in out
