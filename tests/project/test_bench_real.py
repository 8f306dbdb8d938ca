"""`scripts/bench real`: the folder it reads, and how answers of any shape are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import Net

from scripts.benchmarks.real import _describe, _run, _runs, arrange, find_cases, measure_ratios, read_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with samples of two lengths and a score of its own, one that lacks samples, and one without a score."""
    net = Net(0)
    net.output(net.op("Relu", net.op("Conv", net.input("x", 3, "time"), net.constant(net.normal(4, 3, 3))))).save(
        tmp_path / "ragged.onnx"
    )
    for part in ("calib", "eval"):
        (tmp_path / f"ragged.{part}").mkdir()
        for number, length in enumerate((9, 12, 9)):
            np.save(tmp_path / f"ragged.{part}" / f"{number}.npy", net.normal(3, length))
    (tmp_path / "ragged.py").write_text(
        "def score(one, other):\n    return {'samples': len(one), 'outputs': len(other[0])}\n"
    )
    plain = Net(1)
    plain.output(plain.dense(plain.input("x", 6), 6, 4)).save(tmp_path / "plain.onnx")
    for part in ("calib", "eval"):
        np.savez(tmp_path / f"plain.{part}.npz", x=plain.normal(20, 6))
    (tmp_path / "bare.onnx").write_bytes((tmp_path / "plain.onnx").read_bytes())
    return tmp_path


def test_models_with_samples_are_found_and_compared(folder: Path) -> None:
    plain, ragged = find_cases(folder)
    assert (plain.name, plain.score, ragged.name) == ("plain", None, "ragged")
    for case, said in ((plain, "100 % equal decisions"), (ragged, "samples 3, outputs 1")):
        samples = read_samples(case.model, case.evaluation)
        feeds = arrange(case.model, samples)
        assert {array.shape[0] for feed in feeds for array in feed.values()} == {1}
        assert _describe(case, case.model, _run(case.model, feeds), samples) == (said, "inf dB")
        (ratio,) = measure_ratios(case.model, [case.model], feeds)
        assert ratio > 0


def test_files_of_peers_that_do_not_run_have_no_figures(folder: Path) -> None:
    plain, ragged = find_cases(folder)
    feeds = arrange(plain.model, read_samples(plain.model, plain.evaluation))
    (folder / "damaged.onnx").write_bytes(plain.model.read_bytes()[:-20])
    runs = [_runs(file, feeds[0]) for file in (plain.model, ragged.model, folder / "damaged.onnx")]
    assert runs == [True, False, False]
