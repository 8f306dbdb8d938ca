"""`scripts/bench native-costs`: does an integer kernel ever lose, as native code?  Each step of networks both ways, by kind.

The network in float and its int8 model, both as native code; the steps of a node are added up, and nodes with the same kernels.
Reads pairs of models, or makes those of models/.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.native.build import build, compile_library
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.one_sample import fill_shapes
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.native_library import SHORTEST_US, NativeModel, StepTime, time_steps
from scripts.benchmarks.native import LIMITED
from scripts.checkout import list_families
from scripts.shipped import DIGITS, make_model

Feeds = dict[str, np.ndarray]
RUNS, TRIES = 40, 3  # of all steps; of the medians the least counts
LOST = 0.02  # of the network's time: what a node loses as integers is told of from here on
MOVES = ("fc_fill", "fc_copy")  # kernels that belong to another step


@click.command("native-costs")
@click.option(
    "--model", "models", multiple=True, metavar="FLOAT,INT8,FEEDS", help="Models of yours, and an npz of one sample."
)
@click.option("--only", multiple=True, metavar="NAME", help="These networks of models/ alone.")
def native_costs(models: tuple[str, ...], only: tuple[str, ...]) -> None:
    """What nodes cost as native code in float and as integers; writes nothing."""
    best = list_levels_here()[0]
    levels = list(dict.fromkeys((best.name, LIMITED)))
    kinds: dict[str, dict[str, list[tuple[float, float]]]] = {level: defaultdict(list) for level in levels}
    with tempfile.TemporaryDirectory() as folder:
        for name, in_float, int8, feeds in _list_pairs(models, only, Path(folder)):
            try:
                libraries = [_compile(model, feeds, Path(folder)) for model in (in_float, int8)]
            except FcdeployError as error:
                click.echo(f"{name}: {error.message}")
                continue
            for level in levels:
                _compare(name, [NativeModel(library, level) for library in libraries], feeds, kinds[level])
    for level, found in kinds.items():
        click.echo(f"\n{level}: kernels of the integer form, nodes, us in float, us as integers, ratio")
        for kind, pairs in sorted(found.items(), key=lambda each: -sum(pair[0] for pair in each[1])):
            both = [sum(pair[side] for pair in pairs) for side in (0, 1)]
            click.echo(f"{kind:40} {len(pairs):4} {both[0]:10.1f} {both[1]:10.1f} {both[1] / max(both[0], 1e-3):6.2f}")


def _list_pairs(
    models: tuple[str, ...], only: tuple[str, ...], folder: Path
) -> Iterator[tuple[str, ir.Model, ir.Model, Feeds]]:
    for given in models:
        in_float, int8, feeds = map(Path, given.split(","))
        with np.load(feeds) as stored:
            yield in_float.stem, read_model(in_float), read_model(int8), dict(stored)
    if models:
        return
    families = list_families()
    for name in [*DIGITS, *families]:
        if not only or name in only:
            own = folder / name
            own.mkdir()
            int8, feeds = make_model(name, families, own)
            yield name, read_model(own / "float.onnx"), read_model(int8), feeds


def _compile(model: ir.Model, feeds: Feeds, folder: Path) -> Path:
    prepare(model)
    shapes = fill_shapes(input_specs(model), {name: array.shape for name, array in feeds.items()})
    own = Path(tempfile.mkdtemp(dir=folder))
    compile_library(
        build(read_program(model, "net", shapes)), find_machine("host"), find_compiler(), own, own / "net.so"
    )
    return own / "net.so"


def _compare(name: str, models: list[NativeModel], feeds: Feeds, kinds: dict[str, list[tuple[float, float]]]) -> None:
    """Prints the whole network and the nodes that lose; adds its nodes to the `kinds`."""
    timed = [[time_steps(model, feeds, RUNS) for _ in range(TRIES)] for model in models]
    whole = [min(total for total, _ in each) for each in timed]
    ratio = whole[1] / max(whole[0], 1e-3)
    click.echo(
        f"{name:20} {models[0].level:10} {whole[0]:10.1f} {whole[1]:10.1f} {ratio:6.2f} load {os.getloadavg()[0]:.0f}"
    )
    in_float, as_integers = (_sum_steps([steps for _, steps in each]) for each in timed)
    for node in in_float.keys() & as_integers.keys():
        (float_us, _), (int8_us, kernels) = in_float[node], as_integers[node]
        kinds[" ".join(sorted(kernels))].append((float_us, int8_us))
        if int8_us - float_us > max(LOST * whole[1], 2 * SHORTEST_US):
            click.echo(
                f"    {node!r} loses: {float_us:.2f} us in float, {int8_us:.2f} as integers ({', '.join(kernels)})"
            )


def _sum_steps(tries: list[list[StepTime]]) -> dict[str, tuple[float, set[str]]]:
    """Node -> microseconds, and its kernels without what only moves."""
    found: dict[str, tuple[float, set[str]]] = {}
    for same in zip(*tries, strict=True):
        us, kernels = found.get(same[0].node, (0.0, set[str]()))
        own = set[str]() if same[0].kernel.startswith(MOVES) else {same[0].kernel}
        found[same[0].node] = us + min(step.us for step in same), kernels | own
    return found
