"""The same model is not timed twice: costs kept in the cache folder, and every way in which they may not be there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Net, quantize_net, random_data

from fcdeploy.cli import main
from fcdeploy.int8.timing import choose_kernels, cost_cache
from fcdeploy.int8.timing import costs as times
from fcdeploy.records.costs import Choice, Costs, Rates, TimeTrial, from_text, hash_choice, to_text
from fcdeploy.runtime.cache import VARIABLE, cache_folder

DATA = random_data(0, 16, x=(32,))
Quantize = Callable[..., dict[str, Any]]


def dense(seed: int = 0) -> Net:
    net = Net(seed)
    x = net.dense(net.input("x", 32), 32, 48, name="a")
    return net.output(net.dense(net.op("Relu", x), 48, 8, name="b"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(times, "find_noise", lambda _: "")  # of a busy machine nothing would be kept
    monkeypatch.setattr(times, "is_uneven", lambda _: False)  # or timed again
    dense().save(Path("model.onnx"))
    np.savez("data.npz", **DATA)
    return tmp_path / "cache" / "costs"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the model's costs are."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder / "cache"))
        patch.setattr(times, "find_noise", lambda _: "")
        dense().save(folder / "model.onnx")
        np.savez(folder / "data.npz", **DATA)
        words = ["--int8", "--data", str(folder / "data.npz"), "-o", str(folder / "one.onnx"), "--floor", "none"]
        assert main(["quantize", str(folder / "model.onnx"), *words]) == 0
    return folder / "cache"


@pytest.fixture
def kept(cache: Path, measured: Path) -> Path:
    """The one file in the cache, where the model was timed before."""
    shutil.copytree(measured, cache.parent)
    (file,) = cache.iterdir()
    return file


@pytest.fixture
def quantize(cache: Path, capsys: pytest.CaptureFixture[str]) -> Quantize:  # noqa: ARG001 - the folder to be in
    def run(out: str, *arguments: str) -> dict[str, Any]:
        code = main(
            [
                "quantize",
                "model.onnx",
                "--int8",
                "--data",
                "data.npz",
                "-o",
                out,
                "--json",
                "--floor",
                "none",
                *arguments,
            ]
        )
        assert code == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    return run


def edit(file: Path) -> Costs:
    """Costs by which float is the choice, whatever was measured."""
    found = from_text(file.read_text(), "costs")
    nowhere = Choice(("a", "b"))
    made = Costs(found.model, "by hand", found.rates, found.nodes, found.layers, (TimeTrial(nowhere, 0.5, 0.4, 0.6),))
    file.write_text(to_text(made))
    return made


def test_the_second_time_costs_come_from_the_cache_and_the_bytes_are_the_same(cache: Path, quantize: Quantize) -> None:
    first = quantize("one.onnx")
    (file,) = cache.iterdir()
    kept = from_text(file.read_text(), "costs")
    assert first["costs"] == {"source": kept.source, "hash": kept.hash, "measured_before": False}
    assert kept.confirmed[-1].ratio == first["ratio"]
    second = quantize("two.onnx")
    assert second["costs"] == first["costs"] | {"measured_before": True}
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    carried = {entry.key: entry.value for entry in onnx.load("one.onnx").metadata_props}
    assert json.loads(carried["fcdeploy"])["costs"] == hash_choice(kept.confirmed[-1].choice)
    made = edit(file)
    third = quantize("three.onnx")
    assert third["costs"]["hash"] == made.hash
    assert [node["node"] for node in third["nodes_float"]] == ["a", "b"]
    assert list(cache.iterdir()) == [file]


def test_costs_measured_anew_take_the_place_of_those_kept(kept: Path, quantize: Quantize) -> None:
    made = edit(kept)
    anew = quantize("two.onnx", "--costs", "measure")
    assert anew["costs"]["hash"] != made.hash
    assert not anew["costs"]["measured_before"]
    assert from_text(kept.read_text(), "costs").hash == anew["costs"]["hash"]


def test_a_figure_of_a_busy_moment_is_taken_anew(
    kept: Path, quantize: Quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice stands, unless it turns out slower than float beyond doubt."""
    monkeypatch.setattr(times, "is_uneven", lambda trial: trial.high > 100)
    costs = from_text(kept.read_text(), "costs")
    uneven = TimeTrial(Choice(("a", "b")), 0.4, 0.0001, 900.0)
    kept.write_text(to_text(replace(costs, confirmed=(uneven,))))
    told = quantize("two.onnx")
    assert [node["node"] for node in told["nodes_float"]] == ["a", "b"]
    assert told["ratio_low"] > 0.0001
    assert told["ratio_high"] < 900
    (now,) = from_text(kept.read_text(), "costs").confirmed
    assert (now.choice, now.ratio) == (uneven.choice, told["ratio"])

    slow = replace(uneven, choice=Choice())
    kept.write_text(to_text(replace(costs, confirmed=(slow,))))
    with monkeypatch.context() as patch:
        patch.setattr(choose_kernels, "confirm", lambda *_, **__: TimeTrial(Choice(), 2.0, 1.9, 2.1))
        told = quantize("three.onnx")
    assert not told["costs"]["measured_before"]


def test_a_file_of_costs_is_written_from_the_cache(kept: Path, quantize: Quantize) -> None:
    made = edit(kept)
    quantize("two.onnx", "--costs", "mine.json")
    assert from_text(Path("mine.json").read_text(), "costs") == made


def test_a_damaged_file_is_measured_anew_with_a_warning(kept: Path, quantize: Quantize) -> None:
    hash_before = from_text(kept.read_text(), "costs").hash
    for damage in ("", "{", '{"schema": "fcdeploy.costs/2"}', "\x00"):
        kept.write_text(damage)
        found, warning = cost_cache.read(kept, "model")
        assert found is None
        assert warning.startswith(f"cached costs {str(kept)!r} is not a file of costs")
        assert warning.endswith("it is replaced")
    again = quantize("two.onnx")
    assert again["warnings"] == [warning]
    assert again["costs"]["hash"] != hash_before
    assert from_text(kept.read_text(), "costs").hash == again["costs"]["hash"]


def test_costs_of_another_model_are_not_taken(cache: Path) -> None:
    file = cache / "x.json"
    cache.mkdir(parents=True)
    file.write_text(to_text(Costs("other", "cpu", Rates(0.0, 0.0, 0.0, 0.0), {})))
    assert cost_cache.read(file, "mine") == (
        None,
        f"cached costs {str(file)!r} are those of another model; they are replaced",
    )


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(cache: Path, quantize: Quantize) -> None:
    cache.parent.write_text("a file where the folder should be")
    warnings = quantize("one.onnx")["warnings"]  # a noisy machine may lead to another one, on time
    (warning,) = [text for text in warnings if text.startswith("costs are not kept for the next time: ")]
    assert warning.endswith("FCDEPLOY_CACHE=FOLDER keeps them elsewhere")


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "fcdeploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    assert cache_folder() == tmp_path / ".cache" / "fcdeploy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "fcdeploy"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_the_name_depends_on_all_that_times_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    line = quantize_net(dense(), DATA)
    plan, feeds = line.plan, {"x": DATA["x"][:1]}
    other_plan = quantize_net(dense(), DATA, keep_float=["a"]).plan
    names = [
        cost_cache.file_of("m", plan, feeds),
        cost_cache.file_of("n", plan, feeds),
        cost_cache.file_of("m", other_plan, feeds),
        cost_cache.file_of("m", plan, {"x": DATA["x"][:2]}),
    ]
    monkeypatch.setattr(cost_cache, "read_cpu_name", lambda: "another")
    names.append(cost_cache.file_of("m", plan, feeds))
    monkeypatch.setattr(cost_cache, "read_cpu_flags", lambda: frozenset({"avx2"}))
    names.append(cost_cache.file_of("m", plan, feeds))
    monkeypatch.setattr(cost_cache, "read_versions", lambda: {"onnxruntime": "0.0"})
    names.append(cost_cache.file_of("m", plan, feeds))
    assert len(set(names)) == len(names)
    assert names[-1] == cost_cache.file_of("m", plan, feeds)
