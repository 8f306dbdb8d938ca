"""Memory that a model takes, measured in a process of its own that loads it and runs it twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches NumPy the names of small floats)
import numpy as np

from fcdeploy.graph.model import TensorSpec
from fcdeploy.runtime.feeds import draw_feeds
from fcdeploy.runtime.interpreters import interpreter_environment
from fcdeploy.runtime.open_engine import open_engine

MEBI = 1 << 20
CHILD = "from fcdeploy.runtime.footprint import run_child; run_child()"


@dataclass(frozen=True)
class Footprint:
    """Resident megabytes (2^20 bytes): before the model is loaded (Python and onnxruntime), and the peak with it."""

    before_mb: float
    peak_mb: float


def measure_footprint(model: Path, specs: Sequence[TensorSpec], threads: int) -> Footprint | None:
    """Measure in a fresh process; None where the system does not tell."""
    inputs = [[spec.name, spec.dtype.name, spec.shape] for spec in specs]
    request = json.dumps({"model": str(model), "inputs": inputs, "threads": threads})
    command, environment = [sys.executable, "-c", CHILD], interpreter_environment()
    done = subprocess.run(command, input=request, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        return None
    before, peak = json.loads(done.stdout)
    return Footprint(before / MEBI, peak / MEBI)


def run_child() -> None:
    """The child process: a request on stdin, two byte counts on stdout."""
    request = json.load(sys.stdin)
    specs = [TensorSpec(name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in request["inputs"]]
    feeds = draw_feeds(specs)
    before = read_peak_resident_bytes()
    session = open_engine(request["model"], threads=request["threads"])
    for _ in range(2):
        session.run(feeds)
    json.dump([before, read_peak_resident_bytes()], sys.stdout)


def read_resident_bytes() -> int:
    """Bytes this process has resident now; what it had at most where the system does not tell."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return read_peak_resident_bytes()


def read_peak_resident_bytes() -> int:
    """Bytes this process has had resident at most.

    Linux's own counter is of this program alone; getrusage's starts at what the parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
