"""Instructions of 64-bit ARM that a run of a shipped network takes under qemu: native code, and onnxruntime on the same model.

QEMU_AARCH64 is a qemu-aarch64 that takes plugins, QEMU_ICOUNT a plugin that writes @COUNT at each getppid() of the guest,
ARM_PYTHON a Python as scripts/test-arm wants it, which runs in that qemu with that plugin. What a model of one Identity takes of
the same interpreter is taken off: it is what the call costs in Python.

    PYTHONPATH=tests/helpers .venv/bin/python -m scripts.devices.arm_counts [NETWORK ...]
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from native_arm import build_program, find_qemu
from onnx import TensorProto, helper, save

from fcdeploy.graph.model import read_model
from fcdeploy.native.build import Built, build
from fcdeploy.native.reading.operators import read_program
from scripts.checkout import list_families
from scripts.shipped import DIGITS, make_model

CPUS = ("cortex-a53", "neoverse-n1")
BAR = 0.5
SECONDS = 1800
RUNS = 3
COUNT = f"""
import os, sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
feeds = dict(np.load(sys.argv[2]))
for model in (sys.argv[1], "identity.onnx"):
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    own = feeds if model == sys.argv[1] else {{"x": np.zeros(1, np.float32)}}
    for _ in range({RUNS}):
        os.getppid()
        session.run(None, own)
    os.getppid()
"""


def main(names: list[str]) -> int:
    """Print a row for each network and CPU; 1 where native code takes more than BAR, 2 where something is missing."""
    if not {"QEMU_AARCH64", "QEMU_ICOUNT", "ARM_PYTHON"} <= os.environ.keys():
        click.echo("error: QEMU_AARCH64, QEMU_ICOUNT and ARM_PYTHON are not set", err=True)
        click.echo("hint: the head of scripts/devices/arm_counts.py says what they are", err=True)
        return 2
    families = list_families()
    click.echo(f"{'network':<20} {'CPU':<12} {'native':>12} {'onnxruntime':>12} {'ratio':>6}")
    missed = 0
    for name in names or [*DIGITS, *families]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model, feeds = make_model(name, families, folder)
            shapes = {key: value.shape for key, value in feeds.items()}
            built = build(read_program(read_model(model), "net", shapes))
            for cpu in CPUS:
                native, other = count_native(built, feeds, folder, cpu), count_onnxruntime(model, folder, cpu)
                missed += native > BAR * other
                click.echo(f"{name:<20} {cpu:<12} {native:>12,} {other:>12,} {native / other:>6.2f}")
    return 1 if missed else 0


def count_native(built: Built, feeds: Mapping[str, np.ndarray[Any, Any]], folder: Path, cpu: str) -> int:
    program = build_program(built, folder)
    given = b"".join(np.ascontiguousarray(feeds[t.name], t.dtype).tobytes() for t in built.program.inputs)
    command = [find_qemu(), "-plugin", os.environ["QEMU_ICOUNT"], "-cpu", cpu, program, "", str(RUNS)]
    done = subprocess.run(command, input=given, capture_output=True, check=True, timeout=SECONDS)  # type: ignore[arg-type]
    return read_counts(done.stderr.decode())[-1]


def count_onnxruntime(model: Path, folder: Path, cpu: str) -> int:
    """Instructions of the last of some runs, less those of an Identity."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "identity.onnx")
    (folder / "count.py").write_text(COUNT)
    command = [*shlex.split(os.environ["ARM_PYTHON"]), "-cpu", cpu, "count.py", model.name, "feeds.npz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=SECONDS)
    counts = read_counts(done.stderr)
    return counts[RUNS - 1] - counts[-1]


def read_counts(text: str) -> list[int]:
    """Instructions from each mark of the plugin to the next."""
    marks = [int(each) for each in re.findall(r"@(\d+)", text)]
    return [later - earlier for earlier, later in pairwise(marks)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
