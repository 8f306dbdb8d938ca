"""Inputs that reach new lines are mutated further; and a few of what scripts/fuzz --kind parsers tries by thousands."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fcdeploy
from scripts.robustness.fuzz_models import make_network
from scripts.robustness.fuzz_parsers import Corpus, make_corpora, make_parser_tries, mutate

NESTED = """
def parse(data):
    if data[:1] == b"F":
        if data[1:2] == b"U":
            if data[2:3] == b"Z":
                raise KeyError("reached")
"""
MOST = 20_000


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[bytes], object]:
    """Three checks, one behind the other."""
    file = tmp_path / "nested.py"
    file.write_text(NESTED)
    spec = importlib.util.spec_from_file_location("nested", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[bytes], object] = module.parse
    return found


def test_what_lies_behind_several_checks_is_reached(parse: Callable[[bytes], object], tmp_path: Path) -> None:
    corpus = Corpus(parse, [b"aaaa"], ours=str(tmp_path))
    draw = random.Random(4)
    faults = (corpus.try_next(draw)[1] for _ in range(MOST))
    assert next((fault for fault in faults if fault), "") == "KeyError: 'reached'"
    assert corpus.members[-1].startswith(b"FU")


def test_without_what_was_reached_before_it_is_not() -> None:
    draw = random.Random(4)
    assert not any(mutate(b"aaaa", b"aaaa", draw).startswith(b"FUZ") for _ in range(MOST))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and all that is made of it."""
    folder = tmp_path_factory.mktemp("parsed")
    base = folder / "net"
    base.with_suffix(".onnx").write_bytes(make_network("convolutions").SerializeToString())
    images = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "net.npz", image=images)
    fcdeploy.calibrate(folder / "net.onnx", data=folder / "net.npz", output=folder / "net.calib")
    fcdeploy.quantize(
        folder / "net.onnx", output=folder / "net.int8.onnx", calibration=folder / "net.calib", costs="none",
        floor="none", save_plan=folder / "net.plan.json",
    )  # fmt: skip
    fcdeploy.bundle(folder / "net.int8.onnx", output=folder / "net.zip", calibration=folder / "net.calib")
    return folder


def test_good_files_are_read(folder: Path) -> None:
    """Else their mutants would be refused at the first line."""
    for corpus in make_corpora(folder, "net").values():
        corpus.parse(corpus.members[0])


def test_parsers_refuse_in_a_sentence_or_read(folder: Path) -> None:
    attempt = make_parser_tries(folder, "net", None)
    assert [fault for number in range(400) for fault in attempt(number, 7)] == []
