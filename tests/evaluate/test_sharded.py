"""Validating by many: whoever works on which samples, in whatever order they come, the report is the same to the byte."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from small_models import CLASSES, outputs, residual, samples

from fcdeploy.cli import main
from fcdeploy.commands import validate as validate_module
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate import data as reading
from fcdeploy.evaluate.sharded import answer_all, survey_all
from fcdeploy.records.fingerprints import KEY, to_text
from fcdeploy.runtime.workers import WorkerPool
from fcdeploy.samples.kept_samples import hash_sample

Array = np.ndarray[Any, Any]
COUNT = 170

GENERATOR = """
import numpy as np

def samples():
    data = np.load("eval.npz")
    for i in range(len(data["x"])):
        yield {name: data[name][i] for name in data}

def mixed():
    for i, sample in enumerate(samples()):
        yield sample | ({"label": np.float64(0.5)} if i < 16 else {})

def margin(outputs, labels):
    scores = np.sort(outputs["logits"], axis=1)
    return scores[:, -1] - scores[:, -2] + labels["label"]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nets: dict[str, Path]) -> Path:
    """eval.npz, the same as a generator, and a metric, in the current folder."""
    monkeypatch.chdir(tmp_path)
    x = samples(COUNT, 3, 8, 8, seed=1)
    drawn = np.random.default_rng(5)
    label = np.where(
        drawn.random(COUNT) < 0.3, drawn.integers(0, CLASSES, COUNT), outputs(nets["residual"], x).argmax(1)
    )
    np.savez("eval.npz", x=x, label=label)
    Path("own.py").write_text(GENERATOR)
    return tmp_path


def shuffled(size: int, seed: int) -> WorkerPool:
    """Workers of this process that take turns by chance; each finds what another process would."""

    def run(work: Any, shards: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        turns = random.Random(seed)
        running = {index: work(shard) for index, shard in enumerate(shards)}
        while running:
            index = turns.choice(list(running))
            try:
                yield index, next(running[index])
            except StopIteration:
                del running[index]

    return WorkerPool(size, 1, run)


def text(found: Any) -> str:
    return json.dumps(found.to_json(), default=str)


Validated = Callable[..., Any]


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Validated:
    """Validate by a crew that takes turns by chance."""

    def run(*arguments: Any, size: int, seed: int = 0, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(
                validate_module, "answer_all", lambda _, job, step: answer_all(shuffled(size, seed), job, step)
            )
            patch.setattr(
                validate_module, "survey_all", lambda _, job, step: survey_all(shuffled(size, seed), job, step)
            )
            return validate(*arguments, **options)

    return run


CASES: dict[str, tuple[str, str | None, dict[str, Array]]] = {
    "top1": ("residual", None, {}),
    "own": ("residual", "own.py:margin", {}),
    "agreement": ("residual", "agreement", {}),
    "regression": ("dense", None, {"x": samples(COUNT, 5), "label": samples(COUNT, 3, seed=3)}),
    "iou": ("boxes", "iou", {"x": samples(COUNT, 5), "label": np.sort(samples(COUNT, 4, seed=4), axis=1)}),
    "tokens": ("tagger", None, {"x": samples(COUNT, 4, 7), "label": np.arange(COUNT * 7).reshape(COUNT, 7) % 6}),
    "no decision": ("one", None, {"x": samples(COUNT, 5)}),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", CASES)
def test_whoever_works_the_report_is_the_same(
    name: str, nets: dict[str, Path], by: Validated, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, metric, arrays = CASES[name]
    monkeypatch.setattr(reading, "BLOCK", 8)
    monkeypatch.setattr(reading, "MOST_BATCH", 8)
    if arrays:
        np.savez("eval.npz", **arrays)
    known = {"against": nets[net], "data": "eval.npz", "metric": metric}
    one = validate(nets[f"{net}8"], **known)
    assert one.values["samples"] == COUNT
    for size in (2, 3, 23):  # more than there are blocks
        assert text(by(nets[f"{net}8"], size=size, seed=size, **known)) == text(one), size
    monkeypatch.setattr(reading, "MOST_BATCH", 3)
    assert text(validate(nets[f"{net}8"], **known)) == text(one)
    assert text(by(nets[f"{net}8"], size=2, **known)) == text(one)


@pytest.mark.usefixtures("here")
def test_processes_print_the_report_of_one(nets: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "validate",
        str(nets["residual8"]),
        "--against",
        str(nets["residual"]),
        "--data",
        "own.py:samples",
        "--json",
    ]
    words += ["--metric", "own.py:margin", "--samples", "90", "--seed", "3"]
    printed = []
    for more in ([], ["--workers", "2"]):
        assert main(words + more) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert json.loads(printed[0])["samples"] == 90


def test_progress_counts_all_samples(here: Path, nets: dict[str, Path], by: Validated) -> None:
    steps: list[tuple[str, int, int | None]] = []
    by(
        nets["residual8"], size=3, against=nets["residual"], data=here / "eval.npz", on_step=lambda *s: steps.append(s)
    )  # fmt: skip
    compared = [done for name, done, total in steps if name == "comparing" and total == COUNT]
    assert compared == sorted(compared)
    assert compared[-1] == COUNT


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("seed", range(4))
def test_the_first_error_of_the_data_is_told_whoever_meets_one(
    seed: int, nets: dict[str, Path], by: Validated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK", 8)
    monkeypatch.setattr(reading, "MOST_BATCH", 4)
    with np.load("eval.npz") as found:
        x, label = found["x"], found["label"]
    x[[30, 61], 0, 0, 0] = np.nan
    label[[33, 100]] = 77
    np.savez("eval.npz", x=x, label=label)
    for size in (2, 3, 7):
        with fails("eval.npz, sample 33: 'label' is 77" if seed > 1 else "input 'x': sample 30 has nan"):
            if seed > 1:
                np.savez("eval.npz", x=np.nan_to_num(x), label=label)
            by(nets["residual8"], size=size, seed=seed, against=nets["residual"], data="eval.npz")


@pytest.mark.usefixtures("here")
def test_a_worker_s_error_ends_all_of_them(nets: dict[str, Path]) -> None:
    x = samples(COUNT, 3, 8, 8)
    x[40, 1, 2, 3] = np.inf
    np.savez("eval.npz", x=x)
    with fails("input 'x': sample 40 has inf at (1, 2, 3)"):
        validate(nets["residual8"], against=nets["residual"], data="eval.npz", workers=2)


KILLER = """
import os, signal
import numpy as np

def score(outputs, labels):
    if os.environ.get("WORKER_DIES") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(len(labels["label"]))
"""


@pytest.mark.usefixtures("here")
def test_an_error_of_a_user_s_metric_is_told_with_a_way_to_see_where(nets: dict[str, Path], by: Validated) -> None:
    Path("bad.py").write_text("def score(outputs, labels):\n    raise KeyError('no such thing')\n")
    known = {"against": nets["residual"], "data": "eval.npz", "metric": "bad.py:score"}
    message = "metric bad.py:score fails: KeyError: 'no such thing'"
    with fails(message, "FCDEPLOY_DEBUG=1 shows the traceback"):
        validate(nets["residual8"], **known)
    with fails(message, "run without --workers and --cluster, with FCDEPLOY_DEBUG=1"):
        by(nets["residual8"], size=2, **known)


@pytest.mark.usefixtures("here")
def test_a_worker_that_is_killed_is_named(nets: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("killer.py").write_text(KILLER)
    monkeypatch.setenv("WORKER_DIES", str(os.getpid()))
    known = {"against": nets["residual"], "data": "eval.npz", "metric": "killer.py:score"}
    assert validate(nets["residual8"], **known).values["samples"] == COUNT
    with fails("of 2 was killed by SIGKILL, perhaps for want of memory", "fewer workers"):
        validate(nets["residual8"], **known, workers=2)


@pytest.mark.usefixtures("here")
def test_data_that_are_others_for_each_worker_are_an_error(
    nets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two workers finds 40 samples, the other all of them: one block is nobody's."""

    def differ(_: WorkerPool, job: Any, step: Any) -> Any:
        team = shuffled(2, 0)

        def run(work: Any, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            fewer = replace(jobs[0], data=replace(jobs[0].data, samples=replace(jobs[0].data.samples, limit=40)))
            return team.run(work, [fewer, *jobs[1:]])

        return answer_all(replace(team, run=run), job, step)

    monkeypatch.setattr(validate_module, "answer_all", differ)
    with fails("the data gave other samples to each worker", "run without --workers"):
        validate(nets["residual8"], against=nets["residual"], data="eval.npz")


UNLABELLED = """
import numpy as np

def samples():
    for i in range(100):
        sample = {"x": np.full((3, 8, 8), i, np.float32), "label": i % 6}
        if i == 32:
            del sample["label"]
        yield sample
"""


@pytest.mark.usefixtures("here")
def test_a_label_that_is_missing_is_missed_by_every_worker(nets: dict[str, Path], by: Validated) -> None:
    Path("some.py").write_text(UNLABELLED)
    for size in (1, 2, 3):
        with fails("some.py:samples: sample 32 has labels: none; the first sample has: 'label'"):
            by(nets["residual8"], size=size, against=nets["residual"], data="some.py:samples")


@pytest.mark.usefixtures("here")
def test_a_model_that_insists_on_its_batch_gets_whole_ones(
    tmp_path: Path, by: Validated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK", 10)
    model = residual(tmp_path / "fixed.onnx", batch=4)
    known = {"against": model, "data": "own.py:samples"}
    one = validate(model, **known, limit=64)
    assert one.values["samples"] == 64
    assert text(by(model, size=3, **known, limit=64)) == text(one)
    for size in (1, 2, 3):
        with fails(
            "batches of exactly 4; after 168 of 170 samples of own.py:samples, 2 are left over", "--samples 168"
        ):
            by(model, size=size, **known)


@pytest.mark.usefixtures("here")
def test_samples_of_the_calibration_are_counted_or_left_out_by_every_worker(
    tmp_path: Path, nets: dict[str, Path], by: Validated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK", 8)
    monkeypatch.setattr(reading, "MOST_BATCH", 8)
    int8 = tmp_path / "int8.onnx"
    with np.load("eval.npz") as found:
        x = found["x"]
    np.savez("part.npz", x=np.concatenate([x[50:60], x[100:130]]))
    quantize(nets["residual"], data="part.npz", output=int8, costs="none", effort="fast", floor="none")
    known = {"against": nets["residual"], "data": "eval.npz"}
    one = validate(int8, **known, same_data=True)
    assert one.values["calibration_samples"] == 40
    assert any(warning.startswith(f"40 of {COUNT} samples were calibrated on") for warning in one.warnings)
    left = validate(int8, **known)
    assert left.values["samples"] == COUNT - 40
    for size in (2, 3):
        assert text(by(int8, size=size, **known, same_data=True)) == text(one)
        assert text(by(int8, size=size, **known)) == text(left)

    # a record that is too small to hold them all: whether many are among the samples, all are looked at for
    short = onnx.load(int8)
    entry = next(prop for prop in short.metadata_props if prop.key == KEY)
    numbers = [hash_sample({"x": row}) for row in np.load("part.npz")["x"]]
    entry.value = to_text(np.array([*numbers, *np.random.default_rng(0).integers(0, 2**63, 160)], np.uint64), 0)
    onnx.save(short, int8)
    one = validate(int8, **known)
    assert any("and as many, in proportion, of those" in warning for warning in one.warnings)
    for size in (2, 3):
        assert text(by(int8, size=size, **known)) == text(one)


@pytest.mark.usefixtures("here")
def test_the_metric_is_chosen_by_the_first_samples_that_are_evaluated_on(
    tmp_path: Path, nets: dict[str, Path], by: Validated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of all were calibrated on, and by their labels it would be another metric."""
    monkeypatch.setattr(reading, "BLOCK", 8)
    monkeypatch.setattr(reading, "MOST_BATCH", 8)
    with np.load("eval.npz") as found:
        np.savez("part.npz", x=found["x"][:16])
    int8 = tmp_path / "int8.onnx"
    quantize(nets["residual"], data="part.npz", output=int8, costs="none", effort="fast", floor="none")
    known = {"against": nets["residual"], "data": "own.py:mixed"}
    one = validate(int8, **known)
    assert one.values["metric"] == "top1"
    assert one.values["samples"] == COUNT - 16
    for size in (2, 3):
        assert text(by(int8, size=size, **known)) == text(one)


@pytest.mark.usefixtures("here")
def test_a_model_that_is_another_file_for_a_worker(nets: dict[str, Path], tmp_path: Path) -> None:
    """It is replaced between being read by the command and by the worker."""
    float_model = tmp_path / "float.onnx"
    float_model.write_bytes(nets["residual"].read_bytes())

    def hurried(team: WorkerPool, job: Any, step: Any) -> Any:
        residual(float_model, batch=1)
        return answer_all(team, job, step)

    with pytest.MonkeyPatch.context() as patch, fails("is not the same file for a worker", "see the same files"):
        patch.setattr(validate_module, "answer_all", hurried)
        validate(nets["residual8"], against=float_model, data="eval.npz", workers=2)
