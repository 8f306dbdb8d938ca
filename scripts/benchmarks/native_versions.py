"""`scripts/bench native-versions`: two libraries of one network, made by two versions of fcdeploy or of a kernel, in turn."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from fcdeploy.native.machines import list_levels_here
from fcdeploy.runtime.native_library import NativeModel
from scripts.benchmarks.native import time_in_turn
from scripts.benchmarks.native_peers import time_runs

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("native-versions")
@click.argument("before", type=FILE, metavar="BEFORE.so")
@click.argument("after", type=FILE, metavar="AFTER.so")
@click.option("--level", "levels", multiple=True, help="Levels of instructions; all of this CPU by default.")
@click.option("--rounds", type=click.IntRange(2), default=60, show_default=True, help="Rounds, each of both in turn.")
def native_versions(before: Path, after: Path, levels: tuple[str, ...], rounds: int) -> None:
    """AFTER / BEFORE of a run in C at each level: least times and the median over rounds, and whether the bytes are equal."""
    for level in levels or [each.name for each in list_levels_here()]:
        old, new = NativeModel(before, level), NativeModel(after, level)
        random = np.random.default_rng(0)
        feeds = {
            name: (random.standard_normal(shape) if kind == "float32" else random.integers(0, 255, shape)).astype(kind)
            for name, (kind, shape) in old.inputs.items()
        }
        answers = [model.run(feeds) for model in (old, new)]
        same = all(
            np.array_equal(array.view(np.uint8), answers[1][name].view(np.uint8)) for name, array in answers[0].items()
        )
        times = time_in_turn({"before": time_runs(old._places.run), "after": time_runs(new._places.run)}, rounds)
        ratios = times["after"] / times["before"]
        click.echo(
            f"{level:12}{'equal' if same else 'DIFFERENT':10} {times['before'].min():9.2f} us {times['after'].min():9.2f} us   "
            f"least {times['after'].min() / times['before'].min():.3f}   median {np.median(ratios):.3f}"
        )
