"""What else runs, or is written, when a command runs: nothing of the current folder, nothing of the runtime's maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run_fcdeploy
from networks import Net, random_data
from servers import serving

RUN = [sys.executable, run_fcdeploy.__file__]
STRAYS = ("fcdeploy", "multiprocessing", "pickle", "numpy", "onnxruntime", "json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model and samples, and files that are called as modules are and say when they are run."""
    monkeypatch.chdir(tmp_path)
    net = Net(0)
    net.output(net.dense(net.input("x", 8), 8, 3)).save(Path("net.onnx"))
    np.savez("data.npz", **random_data(0, 6, x=(8,)))
    for name in STRAYS:
        Path(f"{name}.py").write_text(
            f"open({str(tmp_path / 'stray')!r}, 'a').write({name!r})\nraise SystemExit('stray')\n"
        )
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["calibrate", "net.onnx", "--data", "data.npz", "-o", "net.calib", "--workers", "2"],
        ["bench", "net.onnx", "--threads", "1"],
        ["validate", "net.onnx", "--against", "net.onnx", "--data", "data.npz", "--workers", "2"],
    ],
    ids=lambda command: command[0],
)
def test_no_module_of_the_current_folder_is_run(folder: Path, command: list[str]) -> None:
    done = subprocess.run([*RUN, *command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert not (folder / "stray").exists()


def test_no_module_of_the_current_folder_is_run_by_servers(folder: Path) -> None:
    with serving(folder / "net.onnx", "--workers", "2", command=RUN) as server:
        assert server.ask("GET", "/v2/health/ready").status == 200
    assert not (folder / "stray").exists()


def test_a_child_that_runs_the_current_folder_is_noticed(folder: Path) -> None:
    """The strays do what the tests above rely on."""
    unsafe = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, "-c", "import multiprocessing"], check=False, capture_output=True, env=unsafe)
    assert (folder / "stray").read_text() == "multiprocessing"


@pytest.mark.usefixtures("folder")
def test_nothing_is_written_below_the_home_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """onnxruntime's own telemetry writes there with the first session, unless it was switched off before its import."""
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    for command in (["inspect", "net.onnx", "--kernels"], ["calibrate", "net.onnx", "--data", "data.npz", "-o", "c"]):
        subprocess.run([*RUN, *command], env={**environment, "HOME": str(home)}, check=True, capture_output=True)
    assert not list(home.rglob("*"))
