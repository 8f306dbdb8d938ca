"""Bench: what it reports and refuses. Speeds are the machine's, so none is asserted."""

from __future__ import annotations

import gc
import json
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import fails
from networks import Net, random_data
from onnx import helper
from small_models import dense, quantized, residual, samples, save

from fcdeploy.cli.bench import command, parse_batches
from fcdeploy.cli.options import parse_shapes
from fcdeploy.commands import bench as bench_module
from fcdeploy.commands.bench import bench
from fcdeploy.commands.compile import compile as compile_native
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.origin import read_shapes
from fcdeploy.reporting import bench as bench_report
from fcdeploy.runtime import feeds, paired_timing
from fcdeploy.runtime.footprint import measure_footprint

QUICK = 0.1
ANY = 1e6  # an interval that any machine reaches


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bench")
    model = residual(folder / "float.onnx")
    return {"float": model, "int8": quantized(model, samples(32, 3, 8, 8), folder / "int8.onnx")}


@pytest.fixture
def no_footprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own for every model takes most of a test's time."""
    monkeypatch.setattr(bench_module, "measure_footprint", lambda *_: None)


def test_two_models(nets: dict[str, Path]) -> None:
    report = bench(nets["int8"], against=nets["float"], seconds=QUICK, interval=ANY)
    found = report.values
    assert 0 < found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    for which in ("float", "int8"):
        assert 0 < found[f"{which}_ms"] <= found[f"{which}_p99_ms"]
        assert found[f"{which}_per_second"] == pytest.approx(1e3 / found[f"{which}_ms"])
        assert found[f"{which}_load_ms"] > 0
        assert found[f"bytes_{which}"] == nets[which].stat().st_size
    assert found["rss_mb"] > found["model_mb"] >= 0
    assert found["rounds"] >= 6
    assert found["runs"] >= found["rounds"]
    assert report.passed
    plain = json.loads(json.dumps(report.to_json()))
    assert next(iter(plain)) == "schema"
    assert plain["schema"] == "fcdeploy.bench/1"
    assert "of the float time, 95 % interval" in report.lines[-1]
    assert [row[0] for row in report.tables[0].rows] == ["int8.onnx", "float.onnx"]


@pytest.mark.usefixtures("no_footprint")
def test_the_gate(nets: dict[str, Path]) -> None:
    within = bench(nets["int8"], against=nets["float"], seconds=QUICK, max_ratio=1e6, interval=ANY)
    beyond = bench(nets["int8"], against=nets["float"], seconds=QUICK, max_ratio=1e-6, interval=ANY)
    assert within.passed
    assert within.lines[-1].startswith("passed:")
    assert not beyond.passed
    assert beyond.values["passed"] is False
    assert beyond.lines[-1].startswith("failed:")


@pytest.mark.usefixtures("no_footprint")
def test_one_model_has_no_ratio(nets: dict[str, Path]) -> None:
    report = bench(nets["int8"], seconds=QUICK)
    assert report.values["ratio"] is None
    assert report.values["float_ms"] is None
    assert report.lines[-1].endswith("ms a run")
    with fails("a largest ratio needs a model to compare with", "--against"):
        bench(nets["int8"], max_ratio=1)


class Clock:
    """Stands for what is timed and for the clock: a run takes what the schedule says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run(self, cost: float, drift: float = 0.0) -> paired_timing.Run:
        clock = self

        def run() -> None:
            clock.now += cost * (1 + drift * clock.now)

        return run

    def load(self, run: paired_timing.Run) -> paired_timing.Load:
        """Loads in no time."""
        return lambda: run

    def noisy(self, cost: float, random: np.random.Generator) -> paired_timing.Run:
        """Another speed every 20 ms, up to twenty times slower."""
        clock, slower = self, random.uniform(1, 20, 10**4)

        def run() -> None:
            clock.now += cost * slower[int(clock.now * 50)]

        return run


def test_ratios_are_of_neighbours_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that becomes ten times slower while it runs, the paired ratio stays what it is."""
    clock = Clock(monkeypatch)
    one, other = paired_timing.time_in_turns([clock.run(0.002, 2), clock.run(0.004, 2)], 5.0)
    ratios = one.turns / other.turns
    assert np.median(ratios) == pytest.approx(0.5, rel=0.02)
    assert one.runs.max() > 5 * one.runs.min()
    assert len(one.turns) == len(other.turns) >= 6


def test_time_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    steps: list[tuple[str, int, int | None]] = []
    (quick,) = paired_timing.time_in_turns([clock.run(0.001)], 3.0, lambda *step: steps.append(step))
    assert clock.now == pytest.approx(3.0, abs=0.1)
    assert len(quick.turns) == pytest.approx(paired_timing.ROUNDS, abs=2)
    assert steps[-1][0] == "timing"
    assert steps[-1][1] == steps[-1][2]
    begun = clock.now
    (slow,) = paired_timing.time_in_turns([clock.run(10.0)], 3.0, lambda *_: None)
    assert len(slow.turns) == paired_timing.FEWEST_ROUNDS
    assert clock.now - begun == pytest.approx(10.0 * (2 + paired_timing.FEWEST_ROUNDS))


def test_what_is_said_of_an_interval() -> None:
    def said(
        ratio: float, low: float, high: float, limit: float | None = None, asked: float = 10
    ) -> tuple[str, list[str]]:
        conclusive = high - low <= asked / 100 * ratio
        values = {"ratio": ratio, "ratio_low": low, "ratio_high": high, "conclusive": conclusive}
        values["passed"] = limit is None or bench_report._holds(values, limit)
        return next(bench_report._conclude(values, limit, asked, 20)), list(bench_report._warn(values, limit))

    assert said(0.6, 0.59, 0.61)[0].endswith("faster")
    assert said(1.6, 1.55, 1.65)[0].endswith("slower")
    assert "no difference" in said(1.01, 0.98, 1.04)[0]
    assert said(0.6, 0.59, 0.61)[1] == []
    assert "another run may answer otherwise" in said(0.6, 0.59, 0.61, 0.605)[1][0]
    assert said(0.6, 0.5, 0.7)[0].startswith("the machine is too noisy to tell: 0.600 of the float time, 95 % interval")
    assert "33.3 % wide and not 10 % as asked, after 20 s" in said(0.6, 0.5, 0.7)[0]
    assert said(0.6, 0.5, 0.7, limit=0.65)[0].startswith("failed: the machine is too noisy to tell")
    # an interval on one side of the limit decides, however wide it is
    assert said(0.6, 0.5, 0.7, limit=0.8)[0].startswith("passed: 0.600")
    assert said(0.6, 0.5, 0.7, limit=0.4)[0].startswith("failed: 0.600")
    assert said(0.6, 0.5, 0.7, limit=1, asked=40)[0].startswith("passed: 0.600")


def test_more_rounds_until_the_interval_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean machine takes the time asked for, a noisy one up to four times as long."""
    clock = Clock(monkeypatch)
    paired_timing.time_reloaded([clock.load(clock.run(0.001)), clock.load(clock.run(0.002))], 3.0, interval=0.1)
    assert clock.now == pytest.approx(3.0, abs=0.5)
    begun = clock.now
    random = np.random.default_rng(0)
    noisy = clock.load(clock.noisy(0.001, random))
    pair = paired_timing.time_reloaded([noisy, clock.load(clock.run(0.002))], 3.0, interval=0.01)
    assert clock.now - begun == pytest.approx(12.0, abs=1.0)
    assert paired_timing.compute_ratio(*pair).width > 0.01
    begun = clock.now
    paired_timing.time_reloaded([noisy], 3.0, interval=0.01)
    assert clock.now - begun == pytest.approx(3.0, abs=0.5)


def test_every_load_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a model's loads is lucky: the interval reaches there, and the median does not; within a load all is calm."""
    clock = Clock(monkeypatch)
    lucky = iter([0.0010, 0.0011, 0.0011, 0.0012, 0.0011, 0.0012, 0.0011, 0.0010, 0.0011])
    loads: list[paired_timing.Load] = [lambda: clock.run(next(lucky)), clock.load(clock.run(0.001))]
    pair = paired_timing.time_reloaded(loads, 3.0)
    ratio = paired_timing.compute_ratio(*pair)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.1, 1.0, 1.2), rel=1e-3)
    assert [len(set(timed.loads)) for timed in pair] == [paired_timing.LOADS, paired_timing.LOADS]


def test_models_that_load_slowly_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, loaded = Clock(monkeypatch), []

    def load() -> paired_timing.Run:
        clock.now += 1.0
        loaded.append(1)
        return clock.run(0.01)

    pair = paired_timing.time_reloaded([load, load], 3.0)
    assert len(loaded) == 2
    assert set(pair[0].loads) == {0}
    assert paired_timing.compute_ratio(*pair).median == pytest.approx(1.0)


def test_no_model_is_loaded_twice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of two comes first; what was loaded before is let go without a collection of garbage."""
    clock, most = Clock(monkeypatch), 0
    held: weakref.WeakSet[Callable[[], None]] = weakref.WeakSet()

    def load() -> paired_timing.Run:
        nonlocal most
        run = clock.run(0.01)
        held.add(run)
        most = max(most, len(held))
        return run

    gc.disable()
    try:
        pair = paired_timing.time_reloaded([load, load], 3.0)
    finally:
        gc.enable()
    assert len(set(pair[0].loads)) == paired_timing.LOADS
    assert most == 2


@pytest.mark.usefixtures("no_footprint")
def test_a_noisy_machine_is_no_answer(nets: dict[str, Path]) -> None:
    report = bench(nets["int8"], against=nets["float"], seconds=QUICK, interval=1e-9, max_ratio=1e6)
    assert report.passed  # the whole interval lies far below
    assert (report.values["conclusive"], report.values["interval"]) == (False, 1e-9)
    assert report.lines[-1].startswith("passed: ")
    ungated = bench(nets["int8"], against=nets["float"], seconds=QUICK, interval=1e-9)
    assert ungated.passed
    assert ungated.lines[-1].startswith("the machine is too noisy to tell")


@pytest.mark.usefixtures("no_footprint")
def test_batch_and_threads(nets: dict[str, Path], tmp_path: Path) -> None:
    report = bench(nets["int8"], batch=3, threads=2, seconds=QUICK)
    assert report.values["inputs"] == {"x": [3, 3, 8, 8]}
    assert (report.values["batch"], report.values["threads"]) == (3, 2)
    assert report.values["int8_per_second"] == pytest.approx(3e3 / report.values["int8_ms"])
    fixed = residual(tmp_path / "fixed.onnx", batch=4)
    assert bench(fixed, seconds=QUICK).values["batch"] == 4
    with fails("input x float32[4, 3, 8, 8]: the model runs batches of exactly 4, not 2", "--batch"):
        bench(fixed, batch=2)


@pytest.mark.usefixtures("no_footprint")
def test_several_batch_sizes(nets: dict[str, Path]) -> None:
    report = bench(nets["int8"], against=nets["float"], batch=(2, 5), seconds=QUICK, interval=ANY, max_ratio=1e6)
    found = report.values
    assert [each["batch"] for each in found["batches"]] == [2, 5]
    assert all(found[key] == value for key, value in found["batches"][0].items())
    assert found["batches"][1]["inputs"] == {"x": [5, 3, 8, 8]}
    assert [table.title[:9] for table in report.tables] == ["x 2,3,8,8", "x 5,3,8,8"]
    assert report.lines[0].startswith("batch 2: passed")
    assert report.lines[-1] == "passed: all 2 batch sizes"
    beyond = bench(nets["int8"], against=nets["float"], batch=(2, 5), seconds=QUICK, interval=ANY, max_ratio=1e-6)
    assert beyond.lines[-1] == "failed: batch 2, 5"
    assert len(bench(nets["int8"], seconds=QUICK).values["batches"]) == 1
    with fails("batches 2 and 3 give the model the same inputs, x float32[2, 3, 8, 8]", "--batch 2"):
        bench(nets["int8"], batch=(2, 3), shapes={"x": (2, 3, 8, 8)})
    with fails("batch 1, 0 is not positive"):
        bench(nets["int8"], batch=(1, 0))


@pytest.mark.usefixtures("no_footprint")
def test_time_of_each_node(nets: dict[str, Path]) -> None:
    report = bench(nets["int8"], against=nets["float"], seconds=QUICK, per_node=True)
    found = report.values["per_node"]
    layers = {row["node"]: row for row in found["matched"]}
    assert {"conv1", "conv2", "conv3", "dense"} <= set(layers)
    for row in layers.values():
        if row["ratio"] is not None:
            assert row["ratio"] == pytest.approx(row["int8_us"] / row["float_us"])
    assert any(row["ratio"] is not None for row in layers.values())
    kernels = {row["kernel"] for row in found["int8_only"]}
    assert {"QuantizeLinear", "Transpose"} <= kernels
    assert all(row["inserted"] for row in found["float_only"] if row["kernel"] in ("ReorderInput", "ReorderOutput"))
    together = sum(row["int8_us"] for row in layers.values()) + sum(row["us"] for row in found["int8_only"])
    assert together <= found["int8_us"] * 1.001
    titles = [table.title for table in report.tables]
    assert titles[1:] == ["Nodes that both models have", "Nodes that one of them has"]
    assert report.tables[1].rows[-1][0] == "together"
    alone = bench(nets["int8"], seconds=QUICK, per_node=True)
    assert alone.values["per_node"]["matched"] == []
    assert alone.values["per_node"]["float_us"] is None
    assert {"conv1", "conv2", "conv3"} <= {row[0] for row in alone.tables[1].rows}


def test_free_lengths_of_an_int8_model_are_those_of_its_commonest_samples(tmp_path: Path) -> None:
    """So `deploy`, which has no --shape, times it too; a batch and shapes that are given go first."""
    net, folder = Net(0), tmp_path / "data"
    x = net.op("Relu", net.conv(net.input("x", 3, "h", "w"), 3, 8))
    path = net.output(net.conv(x, 8, 4)).save(tmp_path / "net.onnx")
    folder.mkdir()
    for at, (n, h, w) in enumerate([(4, 9, 7), (40, 16, 12), (6, 20, 20)]):
        np.savez(folder / f"{at}.npz", **random_data(at, n, x=(3, h, w)))
    int8 = tmp_path / "int8.onnx"
    quantize(path, output=int8, data=folder, costs="none", floor="none")
    assert bench(int8, against=path, seconds=QUICK).values["inputs"] == {"x": [1, 3, 16, 12]}
    assert bench(int8, against=path, batch=3, seconds=QUICK).values["inputs"] == {"x": [3, 3, 16, 12]}
    assert bench(int8, shapes={"x": (2, 3, 8, 8)}, seconds=QUICK).values["inputs"] == {"x": [2, 3, 8, 8]}
    with fails("free axes [n, 3, h, w]: native code is made for one shape", "--shape x:1,3,16,12"):
        compile_native(int8, output=tmp_path / "net.so")
    with fails("which length do the free axes marked ? have?"):
        bench(path, seconds=QUICK)


@pytest.mark.parametrize("text", ["[1, 2]", '{"x": 3}', '{"x": [1, 0]}', '{"x": [1, true]}', '{"x": [1, 2.5]}', "{"])
def test_shapes_that_were_edited_to_something_else_are_refused(text: str) -> None:
    with fails("model 'q.onnx': its metadata 'fcdeploy' has shapes", "fcdeploy quantize MODEL"):
        read_shapes({"fcdeploy": json.dumps({"shapes": text})}, "q.onnx")


def test_free_axes_need_a_shape(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = save(tmp_path / "free.onnx", [node], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 3, "h", "w"]}, {})
    with fails("input x float32[?, 3, ?, ?]: which length do the free axes marked ? have?", "--shape x:1,3,1,1"):
        bench(model, seconds=QUICK)
    report = bench(model, shapes={"x": (2, 3, 4, 5)}, seconds=QUICK)
    assert report.values["inputs"] == {"x": [2, 3, 4, 5]}
    assert report.values["batch"] == 2
    with fails("shape 1,4,2,2 for input x float32[?, 3, ?, ?], which does not take it"):
        bench(model, shapes={"x": (1, 4, 2, 2)})
    with fails("shape 1,3,2 for input x"):
        bench(model, shapes={"x": (1, 3, 2)})
    with fails("shape 0,3,2,2 for input x float32[?, 3, ?, ?] holds nothing"):
        bench(model, shapes={"x": (0, 3, 2, 2)})
    with fails("shape for 'z', which is no input of the model; it has 'x'"):
        bench(model, shapes={"z": (1, 3, 2, 2)})


def test_bad_options(nets: dict[str, Path], tmp_path: Path) -> None:
    with fails("seconds 0 is not positive", "--seconds"):
        bench(nets["int8"], seconds=0)
    for value in (float("nan"), -1.0):
        with fails(f"seconds {value} is not positive", "--seconds"):
            bench(nets["int8"], seconds=value)
    with fails("seconds inf is more than 86400", "--seconds 86400"):
        bench(nets["int8"], seconds=float("inf"))
    with fails("threads 5000 is more than 1024", "--threads 1024"):
        bench(nets["int8"], threads=5000)
    with fails("a quarter of this machine", "--batch 1"):
        bench(nets["int8"], batch=10**12)
    with fails("'int8.onnx' is quantized and 'float.onnx' is not, expected it the other way round", "--against"):
        bench(nets["float"], against=nets["int8"])
    with fails("model 'none.onnx' does not exist"):
        bench("none.onnx")
    with fails("the models differ in input 'x'"):
        bench(nets["int8"], against=dense(tmp_path / "other.onnx", 6, name="logits"))


def test_drawn_inputs() -> None:
    kinds = {"f": np.float32, "h": np.float16, "u": np.uint8, "i": np.int64, "b": np.bool_}
    specs = [TensorSpec(name, np.dtype(kind), (2, 500)) for name, kind in kinds.items()]
    drawn = feeds.draw_feeds(specs)
    assert {name: value.dtype.type for name, value in drawn.items()} == kinds
    assert {value.shape for value in drawn.values()} == {(2, 500)}
    assert set(drawn["i"].ravel()) == {0, 1}
    assert drawn["u"].max() > 200
    assert drawn["f"].std() == pytest.approx(1, abs=0.1)
    assert all(np.array_equal(value, drawn[name]) for name, value in feeds.draw_feeds(specs).items())
    assert feeds.draw_feeds([TensorSpec("t", np.dtype(object), (1, 2))])["t"].tolist() == [["", ""]]


def test_memory_grows_with_the_weights(tmp_path: Path) -> None:
    """64 MB of weights are resident while the model runs."""
    weight = np.ones((4096, 4096), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = save(tmp_path / "large.onnx", [node], {"x": [1, 4096]}, {"y": [1, 4096]}, {"w": weight})
    used = measure_footprint(model, [TensorSpec("x", np.dtype(np.float32), (1, 4096))], threads=1)
    assert used is not None
    assert used.peak_mb - used.before_mb > 60


def test_shapes_on_the_command_line() -> None:
    assert parse_shapes(("x:1,3,224,224", "a:b:2")) == {"x": (1, 3, 224, 224), "a:b": (2,)}
    for text in ("x", "x:", "x:1,a", ":1", "x:-1"):
        with fails(f"shape {text!r} is not of the form NAME:1,3,224,224"):
            parse_shapes((text,))


def test_batches_on_the_command_line() -> None:
    assert parse_batches(None) is None
    assert parse_batches("1, 8,32") == (1, 8, 32)
    for text in ("x", "1,,2", "0", "-1"):
        with fails(f"batch {text!r} is not one or more numbers of samples", "--batch 1,8,32"):
            parse_batches(text)


def test_command(nets: dict[str, Path]) -> None:
    arguments = [str(nets["int8"]), "--against", str(nets["float"]), "--seconds", "0.1", "--interval", "1e6"]
    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 0, shown.output
    for text in ("int8.onnx", "float.onnx", "median", "p99", "1 thread", "of the float time"):
        assert text in shown.stdout
    as_json = CliRunner().invoke(command, [*arguments, "--json", "--max-ratio", "0.000001"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["passed"] is False
