"""`scripts/same-bytes`: does native code give the same bytes at every level, by every compiler and without optimization?"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.native.build import Built, build, compile_library, find_machine
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import Compiler, find_compiler
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.tables.native import Machine

SLOW = 20  # without optimization each of so many samples is run


def list_compilers() -> Iterator[tuple[str, Compiler, int]]:
    """What they are called, and every how many samples they run: the one here and gcc, each without optimization, too."""
    found = [("default", find_compiler())]
    if shutil.which("gcc"):
        found.append(("gcc", Compiler(("gcc",), "gcc", False)))
    for name, compiler in found:
        yield name, compiler, 1
        words = " ".join(compiler.command)
        slow = ("sh", "-c", f'exec {words} "$@" -O0', name)  # behind -O2, so that it holds
        yield f"{name} -O0", Compiler(slow, compiler.name, compiler.cross), SLOW


def hash_answers(library: Path, level: str, samples: list[dict[str, np.ndarray]]) -> list[str]:
    """Of each sample, over the bits of all outputs in their order."""
    model = NativeModel(library, level)
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(value).tobytes() for value in model.run(feeds).values())
        ).hexdigest()
        for feeds in samples
    ]


def compare(built: Built, machine: Machine, samples: list[dict[str, np.ndarray]]) -> tuple[int, list[str]]:
    """How many libraries and levels were run, and those that gave other bits than the first."""
    levels = [level.name for level in machine.levels if set(level.cpu) <= read_cpu_flags()]
    first: list[str] = []
    ran, unequal = 0, []
    for name, compiler, every in list_compilers():
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "net.so"
            compile_library(built, machine, compiler, Path(folder), library)
            for level in levels:
                answers = hash_answers(library, level, samples[::every])
                first = first or answers
                ran += 1
                different = sum(a != b for a, b in zip(answers, first[::every], strict=True))
                unequal += [f"{name} {level}: {different} of {len(answers)} samples"] if different else []
    return ran, unequal


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--samples", type=int, default=1000, show_default=True)
def main(models: tuple[Path, ...], samples: int) -> None:
    """Compile int8 MODELS with every compiler and compare the bits of all levels on drawn samples; 1 where any differ."""
    machine, failed = find_machine("host"), False
    for path in models:
        graph = read_model(path)
        specs = fix_shapes(input_specs(graph), None)
        drawn = [dict(draw_feeds(specs, seed=seed)) for seed in range(samples)]
        ran, unequal = compare(build(read_program(graph, "net", {})), machine, drawn)
        failed |= bool(unequal)
        said = "; ".join(unequal) or f"the same bits from all {ran} libraries and levels"
        click.echo(f"{path.name:28} {samples:,} samples: {said}")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
