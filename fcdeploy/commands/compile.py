"""Int8 model to native code: read, placed, written down, compiled, proven, and only then put in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.atomic_files import replace_file, replace_files, replace_folder, temporary_folder
from fcdeploy.bundles.golden import DIFFERENT
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.files import check_output
from fcdeploy.graph.model import TensorSpec, files_of, hash_model, input_specs, read_model
from fcdeploy.native.build import (
    Built,
    build,
    choose_name,
    compile_library,
    compile_object,
    core_named,
    machine_named,
    write_sources,
)
from fcdeploy.native.one_sample import fill_shapes
from fcdeploy.native.placing.memory import Memory
from fcdeploy.native.program.steps import Program, in_float, name_in_float
from fcdeploy.native.prove import CLOSE, Proof, prove
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import STRICT, compile_c, find_compiler
from fcdeploy.preprocessing.read import Given
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import origin
from fcdeploy.records.data_format import choose_format, from_metadata
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.runtime.session import Session
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.kinds import check_limit, open_source
from fcdeploy.samples.layout import arrange_samples, runs_alone
from fcdeploy.samples.source import make_batches
from fcdeploy.tables.native import CORES, Core, Machine

EMITS = ("library", "c", "object")
SAMPLES = 4  # what the proof runs unless --samples says otherwise
QUANTIZE = "fcdeploy quantize MODEL --int8 --costs none makes integers of every layer it can"


def compile(  # the command's name
    model: str | Path,
    *,
    output: str | Path | None = None,
    target: str = "host",
    emit: str = "library",
    name: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    allow_float: bool = False,
    dry_run: bool = False,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Compile a quantized model: `emit` "library" makes a shared library for `fcdeploy.load_native`, "c" a folder of C, "object"
    an object file for a microcontroller (`target` "cortex-m4"), with its header beside it.

    One sample is compiled; `shapes` gives the lengths of other free axes.  The proof takes samples of `data`, else those
    that `calibration` carries, else drawn ones; for another machine than this it is about the same program compiled for
    this one.  `dry_run` shows the program and writes nothing.  Raises FcdeployError at
    an operator without a kernel, and, without `allow_float`, where steps compute in float.
    """
    path = Path(model)
    if emit not in EMITS:
        raise FcdeployError(f"--emit {emit!r} is unknown, expected {', '.join(EMITS)}", "--emit library")
    core, here = core_named(target), machine_named("host")
    row = here if core else machine_named(target)
    _check_kind(target, emit, core)
    graph = read_model(path)
    warnings = list(refuse_untrusted(graph, str(path)))

    out = Path(output or "")
    if not dry_run:
        _check_output(out, output, emit, files_of(graph, path), force=force)

    called = choose_name(name, path)
    program = read_program(graph, called, fill_shapes(input_specs(graph), shapes or {}))
    program = replace(program, model=hash_model(files_of(graph, path)))
    floats = in_float(program)
    if floats and not allow_float:
        raise FcdeployError(
            f"{len(floats)} of {len(program.steps)} steps compute in float, {floats[0]}",
            f"--allow-float, or {QUANTIZE}",
        )
    built = build(program)
    if dry_run:
        return _report(path, None, built, None, floats, warnings)

    elsewhere = row if row is not here and emit == "library" else None
    if elsewhere:
        warnings.append(
            f"the library for {row.name} was not run: what was proven is the same program, compiled for {here.name}; "
            f"fcdeploy verify --engine native tries it on an {row.name} CPU"
        )
    given = _read_samples(graph, path, program, data, calibration, samples, preprocess)
    with _prove(path, built, given, elsewhere, on_step) as (library, proof):
        sizes = _put(built, library, out, emit, core, force=force) if proof.passed else None
    report = _report(path, out if proof.passed else None, built, proof, floats, warnings)
    return report if sizes is None or core is None else _add_object(report, built, core, out, sizes)


@contextmanager
def _prove(
    path: Path, built: Built, samples: Sequence[Arrays], elsewhere: Machine | None, on_step: OnStep | None
) -> Iterator[tuple[Path, Proof]]:
    """A library of the program, for the machine `elsewhere` or else this one, and the proof of the one for this machine."""
    here, compiler = machine_named("host"), find_compiler()
    with temporary_folder() as folder:
        library = folder / "proven.so"
        if on_step:
            on_step(f"compiling with {compiler.name}", 0, 1)
        compile_library(built, here, compiler, folder, library)
        if on_step:
            on_step("proving", 0, 1)
        proof = prove_here(path, built, here, library, samples)
        if proof.passed and elsewhere:
            library = folder / "other.so"
            compile_library(built, elsewhere, compiler, folder, library)
        yield library, proof


def prove_here(path: Path, built: Built, row: Machine, library: Path, samples: Sequence[Arrays]) -> Proof:
    """All levels that this CPU has, against exact arithmetic, each other, and onnxruntime."""
    levels = [level.name for level in row.levels if set(level.cpu) <= read_cpu_flags()]
    models = [NativeModel(library, level) for level in levels]
    sessions = [Session(path, threads=1), Session(path, threads=1, precise=True)]
    runtimes = [
        lambda feeds, session=session: dict(zip(session.outputs, session.run(feeds), strict=True))
        for session in sessions
    ]
    return prove(built, models, samples, runtimes)


def _check_output(out: Path, output: object, emit: str, inputs: tuple[Path, ...], *, force: bool) -> None:
    if not output:
        raise FcdeployError("there is no output: -o was not given", "-o model.so, or --dry-run to see the program")
    if emit == "c" and out.is_dir():
        if not force:
            raise FcdeployError(
                f"output {str(out)!r} exists", "add --force to replace it, or give another name with -o"
            )
        if not any(out.glob("*_weights.*")) or any(each.is_dir() for each in out.iterdir()):
            raise FcdeployError(f"output {str(out)!r} is a folder of something else", "give another name with -o")
        return
    check_output(out, force=force, inputs=inputs)


def _read_samples(
    graph: ir.Model, path: Path, program: Program, data: str | Path | None, calibration: str | Path | None,
    count: int | None, preprocess: Given,
) -> list[Arrays]:  # fmt: skip
    """Samples to prove it on, each a batch of what was compiled."""
    check_limit(count)
    inputs = input_specs(graph)
    size = _count_samples(program, inputs)
    runs = -(-(count or SAMPLES) // size)
    if data is not None:
        recorded = from_metadata(graph.metadata_props, str(path))
        how = choose_format(recorded, preprocess=preprocess)
        source = open_source(data, inputs, limit=runs * size, format=how, model=path)
        samples = [batch.inputs for batch in make_batches(source, size) if len(batch.names) == size]
    elif calibration is not None:
        kept = calibrations.read(Path(calibration))
        origin.check_calibration(kept, Path(calibration), origin.read(graph.metadata_props, str(path)), data=False)
        samples = [
            arrange_samples({name: array[at : at + size] for name, array in group.items()}, inputs)
            for group in kept.sample_groups
            for at in range(0, len(next(iter(group.values()))) - size + 1, size)
        ][:runs]
    else:
        shapes = {tensor.name: tensor.shape for tensor in program.inputs}
        specs = fix_shapes(inputs, None, shapes)
        samples = [draw_feeds(specs, seed=seed) for seed in range(runs)]
    if not samples:
        raise FcdeployError(
            f"{str(data or calibration)!r} has less than the {size} samples of a run, expected one run at least",
            "--samples N alone proves it on drawn ones",
        )
    for sample in samples:
        for tensor in program.inputs:
            if tensor.name not in sample:
                raise FcdeployError(
                    f"input {tensor.name!r}: {str(calibration)!r} has no samples of it, it has {quote_names(sample)}",
                    "give the calibration that the model was quantized with",
                )
            if sample[tensor.name].shape != tensor.shape:
                raise FcdeployError(
                    f"input {tensor.name!r}: a sample has the shape {list(sample[tensor.name].shape)}, "
                    f"{list(tensor.shape)} was compiled",
                    f"--shape {tensor.name}:{','.join(map(str, sample[tensor.name].shape))}",
                )
    return samples


def _count_samples(program: Program, inputs: Sequence[TensorSpec]) -> int:
    """How many samples a run of the program takes."""
    axis = inputs[0].sample_axis
    return 1 if runs_alone(inputs) or axis is None else program.inputs[0].shape[axis]


def _check_kind(target: str, emit: str, core: Core | None) -> None:
    if core and emit == "library":
        raise FcdeployError(f"a library is for a machine, and {target} is none", "--emit object, or --emit c")
    if emit == "object" and core is None:
        raise FcdeployError(
            f"an object file is for a microcontroller, and --target is {target!r}", f"--target {', '.join(CORES)}"
        )


def _put(
    built: Built, library: Path, out: Path, emit: str, core: Core | None, *, force: bool
) -> tuple[int, int] | None:
    """Put what was made in place; of an object its bytes that are read, and that are written."""
    if emit == "library":
        with replace_file(out, force=force) as aside:
            aside.write_bytes(library.read_bytes())
    elif emit == "object" and core is not None:
        header = f"{built.source.name}.h"
        with replace_files((out, out.with_name(header)), force=force) as (aside, beside), temporary_folder() as folder:
            beside.write_text(str(built.source.files[header]))
            return compile_object(built, core, find_compiler(), folder, aside)
    else:
        with (
            temporary_folder() as trial
        ):  # the library was compiled without the function that a folder of C is called by
            write_sources(built, trial)
            compile_c(find_compiler(), [*STRICT, "-c", f"{built.source.name}.c", "-o", "whole.o"], trial)
        with replace_folder(out) as (folder,):
            write_sources(built, folder)
    return None


def _add_object(report: Report, built: Built, core: Core, out: Path, sizes: tuple[int, int]) -> Report:
    """The report with the sizes of the object file; what was proven is the same program on this machine."""
    flash, written = sizes
    code = flash - len(built.weights)
    line = (
        f"{out}: {flash:,} bytes of flash for {core.name}, {len(built.weights):,} of them weights, {code:,} code and tables; "
        f"{written or 'no'} bytes of memory beside the arena"
    )
    said = f"the object for {core.name} was not run: what was proven is the same program, compiled for this machine"
    values = {"core": core.name, "flash": flash, "flash_code": code, "written_bytes": written}
    return replace(
        report,
        values=report.values | {"object": values},
        lines=(*report.lines, line),
        warnings=(*report.warnings, said),
    )


def _report(
    path: Path, out: Path | None, built: Built, proof: Proof | None, floats: Sequence[str], warnings: Sequence[str]
) -> Report:
    program = built.program
    values: dict[str, Any] = {
        "model": str(path), "output": None if out is None else str(out), "macs": program.macs,
        "flash_weight_bytes": len(built.weights), "arena_bytes": built.arena_bytes, "arena_bound": built.memory.bound,
        "steps": [{"node": call.node, "what": call.what, "kernel": call.kernel, "macs": call.macs} for call in built.calls],
        "float_steps": list(floats),
    }  # fmt: skip
    rows = tuple((call.what, call.kernel, f"{call.macs:,}" if call.macs else "", call.node) for call in built.calls)
    tables = [Table("program", ("step", "kernel", "MACs", "node"), rows)]
    lines = [
        f"{program.macs:,} multiply-accumulates in {len(built.calls)} steps"
        + (f", {len(floats)} of them in float" if floats else ""),
        f"{len(built.weights):,} bytes of weights; arena {built.memory.nbytes:,} bytes, {_compare_arena(built.memory)}",
    ]
    if proof is not None:
        values |= {"proof": _describe_proof(proof)}
        lines += format_proof(proof)
    said = (*warnings, *name_in_float(floats))
    return Report("compile", values, tuple(tables), tuple(lines), passed=proof is None or proof.passed, warnings=said)


def _compare_arena(memory: Memory) -> str:
    if memory.nbytes <= memory.bound:
        return "no smaller one is possible"
    return f"{memory.nbytes / max(1, memory.bound):.2f} of the most that one step needs"


def _describe_proof(proof: Proof) -> dict[str, Any]:
    return {
        "passed": proof.passed,
        "samples": proof.samples,
        "levels": list(proof.levels),
        "unequal": list(proof.unequal),
        "elements": sum(step.elements for step in proof.steps),
        "differ": sum(step.differ for step in proof.steps),
        "outputs": [
            {"output": each.output, "kind": each.kind, "differ": each.differ, "elements": each.elements}
            for each in proof.outputs
        ],
        "onnxruntime_saturates": proof.saturates,
    }


def format_proof(proof: Proof) -> list[str]:
    """What was proven, in words."""
    elements = sum(step.elements for step in proof.steps)
    floats = sum(step.elements for step in proof.steps if step.floats)
    samples = "1 sample" if proof.samples == 1 else f"{proof.samples} samples"
    bad = [step for step in proof.steps if step.differ]
    if bad:
        worst = max(bad, key=lambda step: step.largest)
        count = "1 step differs" if len(bad) == 1 else f"{len(bad)} steps differ"
        first = f"not exact: {count} from exact arithmetic, {worst.what} of {worst.node!r} most"
    else:
        first = f"exact: all {elements:,} elements of {samples}, step by step, are those of exact arithmetic" + (
            f"; floats, {floats:,} of them, within {CLOSE:g} of the largest" if floats else ""
        )
    levels = ", ".join(proof.levels)
    second = f"levels that ran here: {levels}" + (
        f"; {', '.join(proof.unequal)} gave other bits"
        if proof.unequal
        else "; the same bits"
        if len(proof.levels) > 1
        else ""
    )
    return [first, second, _compare_outputs(proof)]


def _compare_outputs(proof: Proof) -> str:
    """Bytes one level off are rounding ties; of floats that differ it is said by how much, whatever the reason."""
    differ, total = sum(e.differ for e in proof.outputs), sum(e.elements for e in proof.outputs)
    runtime = "onnxruntime adding in 32 bits (its default saturates here)" if proof.saturates else "onnxruntime"
    if not differ:
        return f"equal to {runtime} in all {total:,} outputs"
    said = f"{differ:,} of {total:,} outputs differ from {runtime}"
    if any(each.kind == DIFFERENT for each in proof.outputs):
        return f"{said}, by more than rounding ties"
    if all(each.sqnr_db is None for each in proof.outputs if each.differ):
        return f"{said}: rounding ties"
    return f"{said}, by {max(each.levels for each in proof.outputs):.2g} of 255 levels at most"
