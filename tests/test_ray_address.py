"""A Ray that runs already, reached at its address: calibrating and validating on it give the bytes of one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ray_head import ray_head
from small_models import samples

OWN = """
import numpy as np

def samples():
    for x in np.load("data.npz")["x"]:
        yield {"x": x}

def score(outputs, labels):
    return outputs["logits"].max(axis=1)
"""
COMMAND = "import sys; from fcdeploy.cli import main; sys.exit(main(sys.argv[1:]))"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    pytest.importorskip("ray")
    with ray_head(cpus=2) as found:
        yield found


@pytest.fixture
def run(head: tuple[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run fcdeploy beside data.npz and own.py, whose names are relative; `there=True` on the Ray."""
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=samples(100, 3, 8, 8))
    Path("own.py").write_text(OWN)
    address, environment = head

    def command(*words: object, there: bool = False) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", COMMAND, *map(str, words)]
        arguments += ["--cluster", f"ray:{address}"] if there else []
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=120)

    return command


def test_calibrating_there_writes_the_same_file(run: Run, nets: dict[str, Path]) -> None:
    words = ("calibrate", nets["residual"], "--data", "data.npz", "-o")
    here, there = run(*words, "here.calib"), run(*words, "there.calib", there=True)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert Path("there.calib").read_bytes() == Path("here.calib").read_bytes()


def test_validating_there_prints_the_same_report(run: Run, nets: dict[str, Path]) -> None:
    """With data and a metric of the user's own file, which the workers find where the command runs."""
    words = ("validate", nets["residual8"], "--against", nets["residual"], "--data", "own.py:samples")
    words = (*words, "--metric", "own.py:score", "--json")
    here, there = run(*words), run(*words, "--workers", 3, there=True)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert there.stdout == here.stdout
    assert '"samples": 100' in there.stdout
