"""The file that an engine runs: the model itself, or native code that is compiled from it for this command alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.graph.model import input_specs
from fcdeploy.native.build import build, compile_library
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.runtime.engine import check_engine
from fcdeploy.wording import say_count

Shapes = Mapping[str, Sequence[int | None]]


@dataclass(frozen=True)
class EngineFile:
    """What `runtime.open_engine` opens, and what a user must know of it."""

    path: Path
    notes: tuple[str, ...] = ()


@contextmanager
def open_engine_file(engine: str, path: Path, model: ir.Model, shapes: Shapes | None = None) -> Iterator[EngineFile]:
    """The file that runs the model; native code is gone afterwards.

    `shapes` gives lengths of free axes.  Raises FcdeployError at an engine that is unknown, and where native code cannot be
    made of the model.
    """
    check_engine(engine)
    if engine == "onnxruntime":
        yield EngineFile(path)
        return
    row = find_machine("host")
    program = read_program(model, "model", _fill_shapes(model, shapes or {}))
    floats = list_float_steps(program)
    of = f"{len(floats)} of {say_count(len(program.steps), 'step')}"
    notes = (f"native code: {of} {'computes' if len(floats) == 1 else 'compute'} in float",) if floats else ()
    with temporary_folder() as folder:
        library = folder / "model.so"
        compile_library(
            build(program, paired=row.paired), row, find_compiler(), folder, library, list_levels_here()[:1]
        )
        yield EngineFile(library, notes)


def _fill_shapes(model: ir.Model, shapes: Shapes) -> dict[str, list[int]]:
    """Shapes of one sample for the inputs with free axes behind the first."""
    return {
        spec.name: [1 if spec.shape[0] is None else spec.shape[0], *(n or 0 for n in shapes[spec.name][1:])]
        for spec in input_specs(model)
        if None in spec.shape[1:] and spec.name in shapes
    }
