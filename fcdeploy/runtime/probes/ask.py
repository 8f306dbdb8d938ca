"""Asking the installed onnxruntime: each probe runs in a process beside this one, since some versions end theirs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import onnx

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import temporary_folder
from fcdeploy.errors import FcdeployError, LoadError
from fcdeploy.runtime.interpreters import interpreter_environment
from fcdeploy.runtime.kernels import is_integer_kernel
from fcdeploy.runtime.options import PRECISION
from fcdeploy.runtime.probes.kernels import PATTERNS, operator_probes
from fcdeploy.runtime.probes.qdq_graph import Probe
from fcdeploy.runtime.probes.traps import OPERATORS, SUMS, TRAPS
from fcdeploy.runtime.session import LoadOptions, Session
from fcdeploy.tables.facts import FACTS, Fact

PROBES = {**operator_probes(), **PATTERNS, **TRAPS, **SUMS, **OPERATORS}
"""Name of the fact -> what builds its model."""

RIGHT_DB, WRONG_DB = 100.0, 25.0
CHILD = "from fcdeploy.runtime.probes.ask import run_child; run_child()"
CRASHES = "crashes"


def ask_apart(names: Iterable[str]) -> dict[str, str]:
    """Answers by fact. One of which the process dies "crashes", and the others are asked in another.

    Raises FcdeployError where the process cannot ask at all: that says nothing of onnxruntime.
    """
    left, answers = list(names), dict[str, str]()
    while left:
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            input="\n".join(left), capture_output=True, text=True, env=interpreter_environment(), check=False,
        )  # fmt: skip
        said = dict(line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 1)
        answers |= {name: said[name] for name in left if name in said}
        left = [name for name in left if name not in said]
        if done.returncode > 0:
            said_last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise FcdeployError(
                f"what onnxruntime computes here could not be asked, in a process of its own: {said_last}",
                "python -m pip check, and room in TMPDIR",
            )
        if done.returncode == 0:
            break
        if left:
            answers[left.pop(0)] = CRASHES
    return answers


def run_child() -> None:
    """The process: names of facts on stdin, a line with its answer for each on stdout."""
    for name in sys.stdin.read().splitlines():
        sys.stdout.write(f"{name}\t{ask(FACTS[name], PROBES[name]())}\n")
        sys.stdout.flush()


def ask(fact: Fact, probe: Probe) -> str:
    """Run a probe."""
    if fact.kind == "kernels":
        return _ask_kernels(probe)
    if fact.kind == "runs":
        written = _run(probe, optimize=False)
        return written if isinstance(written, str) else "runs"
    got = _run(probe, optimize=True)
    if isinstance(got, str):
        return got
    wanted = probe.expected if probe.expected is not None else _run(probe, optimize=False)
    return wanted if isinstance(wanted, str) else _judge(got, wanted)


def _ask_kernels(probe: Probe) -> str:
    with temporary_folder() as folder:
        dump = folder / "optimized.onnx"
        try:
            Session(probe.model, threads=1, load=LoadOptions(dump=dump))
        except LoadError:
            return "does not load"
        graph = onnx.load(dump).graph
    running = [node.op_type for node in graph.node]
    return " + ".join(op for op in running if is_integer_kernel(op) or op == "MatMulNBits") or "float"


def _run(probe: Probe, *, optimize: bool) -> Array | str:
    """The output, or "does not load" or "fails"."""
    try:
        precise = PRECISION in probe.entries  # asked for on every CPU
        options = LoadOptions(entries=probe.entries)
        session = Session(probe.model, threads=1, optimize=optimize, precise=precise, load=options)
    except LoadError:
        return "does not load"
    try:
        output: Array = session.run(probe.feeds)[0]
    except LoadError:
        return "fails"
    return output


def _judge(got: Array, wanted: Array) -> str:
    """By signal over error in decibels."""
    wanted = wanted.astype(np.float64)
    noise = float(np.sum((got.astype(np.float64) - wanted) ** 2))
    decibels = np.inf if noise == 0 else 10 * np.log10(max(float(np.sum(wanted**2)), 1e-300) / noise)
    return "right" if decibels >= RIGHT_DB else "rounded" if decibels >= WRONG_DB else "wrong"
