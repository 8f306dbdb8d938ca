"""`scripts/same-bytes`: does native code give the same bytes at every level, by every compiler and without optimization?"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.native.build import Built, build, compile_library
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import Compiler, find_compiler
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.tables.native import Machine
from scripts.checkout import list_families
from scripts.shipped import DIGITS, make_model

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
    levels = [level.name for level in list_levels_here()]
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


def read_models(models: Sequence[str]) -> Iterator[tuple[str, ir.Model, list[TensorSpec]]]:
    """Their names, graphs and inputs; what is no file is a network of models/, all of them where nothing is given."""
    families = list_families()
    for model in models or [*DIGITS, *families]:
        if Path(model).exists():
            graph = read_model(Path(model))
            yield (
                Path(model).name.removesuffix(".onnx").removesuffix(".int8"),
                graph,
                fix_shapes(input_specs(graph), None),
            )
            continue
        if model not in DIGITS and model not in families:
            raise click.UsageError(
                f"{model!r} is no file, expected one or a network: {', '.join([*DIGITS, *families])}"
            )
        with tempfile.TemporaryDirectory() as folder:
            path, one = make_model(model, families, Path(folder))
            yield model, read_model(path), [TensorSpec(name, x.dtype, x.shape) for name, x in one.items()]


@click.command()
@click.argument("models", nargs=-1)
@click.option("--samples", type=int, default=1000, show_default=True)
@click.option(
    "--macs", type=int, default=10**10, show_default=True, help="Fewer samples of networks that would take more."
)
def main(models: tuple[str, ...], samples: int, macs: int) -> None:
    """Compile int8 MODELS, or networks of models/, with every compiler and compare the bits of all levels; 1 where any differ."""
    machine, failed = find_machine("host"), False
    click.echo(f"{'network':<20} {'MACs':>12} {'samples':>8} {'runs':>5}  differing")
    for name, graph, specs in read_models(models):
        built = build(read_program(graph, "net", {spec.name: spec.shape for spec in specs}), paired=True)
        count = min(samples, max(2 * SLOW, macs // max(built.program.macs, 1)))
        drawn = [dict(draw_feeds(specs, seed=seed)) for seed in range(count)]
        ran, unequal = compare(built, machine, drawn)
        failed |= bool(unequal)
        click.echo(f"{name:<20} {built.program.macs:>12,} {count:>8,} {ran:>5}  {'; '.join(unequal) or 'none'}")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
