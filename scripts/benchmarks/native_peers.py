"""What native code is timed beside: onnxruntime, also as a CPU without AVX-512 and VNNI runs it, and OpenVINO.

`python -m scripts.benchmarks.native_peers MODEL FEEDS.npz` is onnxruntime in a process of its own: for each number that it
reads it runs the model so often, and writes the least microseconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

from fcdeploy.runtime.cpu import this_machine
from scripts.checkout import ROOT

HIDE = Path(__file__).with_name("hide_avx512.c")
CPUID_DOES_NOT_FAULT = 77  # what hide_avx512.c ends a process with
READY = "ready"
Timer = Callable[[int], float]  # the least microseconds of so many runs


class HidingError(Exception):
    """Why AVX-512 cannot be hidden here."""


def time_runs(run: Callable[[], Any]) -> Timer:
    def time_least(count: int) -> float:
        least = float("inf")
        for _ in range(count):
            begin = time.perf_counter_ns()
            run()
            least = min(least, time.perf_counter_ns() - begin)
        return least / 1e3

    return time_least


def open_runtime(model: Path, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = dict(feeds)
    return lambda: session.run(None, given)


def open_openvino(model: Path, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({name: list(array.shape) for name, array in feeds.items()})
    compiled = core.compile_model(
        network, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    )
    request, given = compiled.create_infer_request(), dict(feeds)
    return lambda: request.infer(given, share_inputs=True, share_outputs=True)


def openvino_version() -> str:
    try:
        import openvino
    except ImportError:
        return "is not here"
    return str(openvino.__version__).split("-")[0]


def make_hiding_environment(folder: Path) -> dict[str, str]:
    """The environment of a process whose cpuid instructions are answered without AVX-512 and VNNI; a library for it in `folder`.

    Raises HidingError where there is no C compiler, and on other systems than Linux on x86-64.
    """
    if sys.platform != "linux" or this_machine() != "x86_64":
        raise HidingError("this is not Linux on x86-64")
    library, compiler = (folder / "hide_avx512.so").resolve(), shutil.which("cc")
    if compiler is None:
        raise HidingError("there is no C compiler named cc")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HIDE], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


class HiddenRuntime:
    """onnxruntime in a process that sees no AVX-512 and no VNNI: a Timer of its runs. Raises HidingError."""

    def __init__(self, model: Path, feeds: Mapping[str, Any], folder: Path) -> None:
        given = folder / "hidden_feeds.npz"
        np.savez(given, **feeds)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(model.resolve()), str(given.resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=make_hiding_environment(folder),
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._ask, self._answers = self._process.stdin, self._process.stdout
        if self._answers.readline().strip() != READY:
            code = self.close()
            raise HidingError("cpuid cannot fault here" if code == CPUID_DOES_NOT_FAULT else f"exit code {code}")

    def __call__(self, count: int) -> float:
        print(count, file=self._ask, flush=True)
        return float(self._answers.readline())

    def close(self) -> int:
        """End the process; its exit code."""
        self._ask.close()
        code = self._process.wait()
        self._answers.close()
        return code


def answer(model: Path, feeds: Path) -> None:
    """Run a model as often as is asked for on stdin."""
    with np.load(feeds) as arrays:
        time_least = time_runs(open_runtime(model, dict(arrays)))
    click.echo(READY)
    for line in sys.stdin:
        click.echo(time_least(int(line)))


if __name__ == "__main__":
    answer(Path(sys.argv[1]), Path(sys.argv[2]))
