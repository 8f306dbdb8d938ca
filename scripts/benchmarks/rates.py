"""`scripts/bench rates`: what functions between layers cost on this CPU, in float and as integers: rows for tables/rates.py.

Each function stands between two 1x1 convolutions, in float and as fcdeploy writes it in integers, and the same two convolutions
without it are timed in turn.  What it adds, less a microsecond for each node, is shared by the elements.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

import fcdeploy
from fcdeploy.int8.timing.measure import NODE_US
from fcdeploy.runtime.paired_timing import Load, Run, time_reloaded
from fcdeploy.runtime.session import Session
from scripts.benchmarks.native_peers import HidingError, make_hiding_environment
from scripts.checkout import BENCH

Nodes = list[tuple[str, list[str], dict[str, float]]]
CHANNELS = 16  # few, so that what varies with where weights lie is little
SIDE = 112  # of the images
SECONDS = 6.0  # for each function
NUMBERS = {"half": 0.5, "one": 1.0, "root": 0.5**0.5}
FUNCTIONS: dict[str, Nodes] = {  # what nodes read: a convolution x and what it reads, r, or an earlier node
    "ADD": [("Add", ["x", "r"], {})],
    "MUL": [("Mul", ["x", "r"], {})],
    "LOOK_UP": [("Sigmoid", ["x"], {})],
    "SILU": [("Sigmoid", ["x"], {}), ("Mul", ["x", "0"], {})],
    "GELU": [
        ("Mul", ["x", "half"], {}),
        ("Mul", ["x", "root"], {}),
        ("Erf", ["1"], {}),
        ("Add", ["2", "one"], {}),
        ("Mul", ["0", "3"], {}),
    ],
    "HARD_SWISH": [("HardSigmoid", ["x"], {"alpha": 1 / 6, "beta": 0.5}), ("Mul", ["x", "0"], {})],
}  # fmt: skip


@click.command()
@click.argument("names", nargs=-1, metavar="[FUNCTION]...")
@click.option("--seconds", type=float, default=SECONDS, show_default=True, help="For each function.")
@click.option(
    "--avx2", is_flag=True, help="Hide everything beyond AVX2 from onnxruntime (Intel on Linux, a C compiler)."
)
def rates(names: tuple[str, ...], seconds: float, avx2: bool) -> None:
    """Measure the rows of functions for tables/rates.py on this CPU."""
    if unknown := [name for name in names if name not in FUNCTIONS]:
        raise click.UsageError(f"unknown function {unknown[0]!r}, expected {', '.join(FUNCTIONS)}")
    if avx2:
        sys.exit(_run_with_avx2([*names, "--seconds", str(seconds)]))
    for name in names or FUNCTIONS:
        in_float, as_integers = _measure(name, seconds)
        click.echo(f"{name}: FunctionRate({in_float:.2f}, {as_integers:.2f}),  # load {os.getloadavg()[0]:.1f}")


def _run_with_avx2(arguments: list[str]) -> int:
    """The same command in a process whose cpuid instructions are answered without AVX-512 and VNNI."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            environment = make_hiding_environment(Path(folder))
        except HidingError as error:
            raise click.ClickException(f"--avx2: {error}") from error
        return subprocess.run([*BENCH, "rates", *arguments], env=environment).returncode


def _measure(name: str, seconds: float) -> list[float]:
    """Nanoseconds an element that a function adds, in float and as integers."""
    nodes = FUNCTIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        loads = [load for each in ([], nodes) for load in _write_both(Path(folder), each)]
        times = [float(timing.runs.min()) * 1e3 for timing in time_reloaded(loads, seconds)]
    elements = CHANNELS * SIDE * SIDE
    return [max(times[2 + at] - times[at] - len(nodes) * NODE_US, 0.0) * 1e3 / elements for at in (0, 1)]


def _write_both(folder: Path, nodes: Nodes) -> list[Load]:
    """The network with a function in float and in integers."""
    rng = np.random.default_rng(0)
    one_sample = (1, CHANNELS, SIDE, SIDE)
    model, int8 = folder / f"{len(nodes)}.onnx", folder / f"{len(nodes)}.int8.onnx"
    _write_model(model, one_sample, nodes)
    data = folder / "data.npz"
    np.savez(data, x=rng.standard_normal((8, *one_sample[1:])).astype(np.float32))
    fcdeploy.quantize(model, data=data, output=int8, effort="fast", costs="none", accept=True)
    feeds = {"x": rng.standard_normal(one_sample).astype(np.float32)}
    return [_make_loader(path.read_bytes(), feeds) for path in (model, int8)]


def _make_loader(model: bytes, feeds: dict[str, np.ndarray]) -> Load:
    def load() -> Run:
        session = Session(model, threads=1)
        return lambda: session.run(feeds)

    return load


def _write_model(path: Path, shape: tuple[int, ...], nodes: Nodes) -> None:
    """Conv, Conv, the function, Conv."""
    rng = np.random.default_rng(1)
    weights, made = [], []

    def convolve(x: str, y: str) -> None:
        w = rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / CHANNELS**0.5
        weights.append(numpy_helper.from_array(w, f"{y}.w"))
        made.append(helper.make_node("Conv", [x, f"{y}.w"], [y], name=f"conv {y}"))

    convolve("x", "first")
    convolve("first", "second")
    last = "second"
    for at, (op, inputs, attributes) in enumerate(nodes):
        read = [{"x": "second", "r": "first"}.get(each, each if each in NUMBERS else f"f{each}") for each in inputs]
        last = f"f{at}"
        made.append(helper.make_node(op, read, [last], name=f"{op} {at}", **attributes))
    convolve(last, "y")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    numbers = [numpy_helper.from_array(np.array(number, np.float32), name) for name, number in NUMBERS.items()]
    graph = helper.make_graph(made, "function", ends[:1], ends[1:], weights + numbers)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
