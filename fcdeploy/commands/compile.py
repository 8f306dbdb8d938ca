"""Int8 model to native code: read, placed, written down, compiled, proven, and only then put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.atomic_files import replace_file, replace_files, replace_folder, temporary_folder
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.files import check_output, name_model
from fcdeploy.graph.model import TensorSpec, files_of, hash_model, input_specs, is_quantized, read_model
from fcdeploy.native.build import (
    Built,
    build,
    choose_name,
    compile_library,
    compile_object,
    list_target_flags,
    write_folder,
    write_sources,
)
from fcdeploy.native.cmsis_nn import add_copy, compile_copy, find_copy
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.one_sample import fill_shapes
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.multipliers import hand_over
from fcdeploy.native.program.steps import Program
from fcdeploy.native.prove import AS_IT_IS, IN_32_BITS, UNOPTIMIZED, Proof, prove
from fcdeploy.native.reading.dynamic_lstm import list_dynamic_lstms, spell_out_lstm, warn_of_dynamic_lstms
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.stretches import prove_stretches
from fcdeploy.native.toolchain import STRICT, Compiler, compile_c, find_compiler, find_core_compiler
from fcdeploy.preprocessing.read import Given
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import origin
from fcdeploy.records.data_format import choose_format, from_metadata
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.reporting.compilation import add_handed, add_object, add_written, build_report
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.runtime.session import Session
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.kinds import check_limit, open_source
from fcdeploy.samples.layout import arrange_samples, runs_alone
from fcdeploy.samples.source import make_batches
from fcdeploy.tables.native import CORES, Core, Machine
from fcdeploy.wording import list_some, quote_path, say_count

EMITS = ("library", "c", "object")
SAMPLES = 4  # what the proof runs unless --samples says otherwise
SHOWN = 3  # steps in a message


def compile(  # the command's name
    model: str | Path,
    *,
    output: str | Path | None = None,
    target: str = "host",
    emit: str = "library",
    kernels: str = "own",
    name: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    allow_float: bool = False,
    allow_ties: bool = False,
    dry_run: bool = False,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Compile a quantized model: `emit` "library" makes a shared library for `fcdeploy.load_native`, "c" a folder of C, "object"
    an object file for a microcontroller (`target` "cortex-m4"), with its header beside it.

    `kernels` "cmsis-nn=FOLDER" makes a folder of C that calls the CMSIS-NN in that folder where it gives the same bytes for every
    sum, and with `allow_ties` also where some are one level off.

    One sample is compiled; `shapes` gives the lengths of other free axes.  The proof takes samples of `data`, else those
    that `calibration` carries, else drawn ones; for another machine than this it is about the same program compiled for
    this one.  `dry_run` shows the program and writes nothing.  Raises FcdeployError at
    an operator without a kernel, and, without `allow_float`, where steps compute in float.
    """
    path = Path(model)
    if emit not in EMITS:
        raise FcdeployError(f"--emit {emit!r} is unknown, expected {', '.join(EMITS)}", "--emit library")
    core, here = CORES.get(target), find_machine("host")
    row = here if core else find_machine(target)
    _check_kind(target, emit, core)
    copy = _find_copy(kernels, emit, ties=allow_ties)
    graph = read_model(path)
    warnings = [*refuse_untrusted(graph, str(path)), *warn_of_dynamic_lstms(list_dynamic_lstms(graph))]

    out = Path(output or "")
    if not dry_run:
        _check_output(out, output, emit, files_of(graph, path), force=force)
        if core and emit == "object":
            find_core_compiler(core)  # before the proof, which takes its time

    called = choose_name(name, path)
    program = read_program(graph, called, fill_shapes(input_specs(graph), shapes or {}), pairs=core is None)
    program = replace(program, model=hash_model(files_of(graph, path)))
    floats = list_float_steps(program)
    if floats and not allow_float:
        raise _refuse_floats(graph, path, floats)
    program, handed = (program, None) if copy is None else hand_over(program, ties=allow_ties)
    built = build(program, paired=emit == "library" and row.paired)
    if dry_run:
        return add_handed(build_report(path, None, built, None, floats, warnings), handed)

    elsewhere = row if row is not here and emit == "library" else None
    if elsewhere:
        warnings.append(
            f"the library for {row.name} was not run: what was proven is the same program, compiled for {here.name}; "
            f"fcdeploy verify --engine native tries it on an {row.name} CPU"
        )
    given = _read_samples(graph, path, program, data, calibration, samples, preprocess)
    with _prove(path, built, given, elsewhere, on_step, copy) as (library, proof):
        sizes = _put(built, library, out, emit, core, force=force, copy=copy) if proof.passed else None
    report = add_handed(build_report(path, out if proof.passed else None, built, proof, floats, warnings), handed)
    if sizes is not None and core is not None:
        return add_object(report, built, core, out, sizes)
    return add_written(report, built, path, out, core) if proof.passed and copy is None else report


@contextmanager
def _prove(
    path: Path,
    built: Built,
    samples: Sequence[Arrays],
    elsewhere: Machine | None,
    on_step: OnStep | None,
    copy: Path | None,
) -> Iterator[tuple[Path, Proof]]:
    """A library of the program, for the machine `elsewhere` or else this one, and the proof of the one for this machine."""
    here, compiler = find_machine("host"), _choose_compiler(copy)
    with temporary_folder() as folder:
        library = folder / "proven.so"
        if on_step:
            on_step(f"compiling with {compiler.name}", 0, 1)
        more = [] if copy is None else compile_copy(compiler, copy, list_target_flags(here, compiler), folder)
        compile_library(built, here, compiler, folder, library, more=more)
        if on_step:
            on_step("proving", 0, 1)
        proof = _prove_here(path, built, library, samples)
        if proof.passed and elsewhere:
            library = folder / "other.so"
            compile_library(built, elsewhere, compiler, folder, library)
        yield library, proof


def _prove_here(path: Path, built: Built, library: Path, samples: Sequence[Arrays]) -> Proof:
    """All levels that this CPU has, against exact arithmetic, each other, and onnxruntime."""
    models = [NativeModel(library, level.name) for level in list_levels_here()]
    model = read_model(path)
    source = path if not list_dynamic_lstms(model) else spell_out_lstm(model)
    runtimes = {AS_IT_IS: _run_by_name(Session(source, threads=1))}
    with suppress(FcdeployError):  # some files do not load so: two layers that share a weight, for one
        runtimes[IN_32_BITS] = _run_by_name(Session(source, threads=1, precise=True))
    runtimes[UNOPTIMIZED] = lambda sample: _run_by_name(Session(source, threads=1, optimize=False))(sample)
    proof = prove(built, models, samples, runtimes)
    if not (proof.exact and proof.differs):
        return proof
    with suppress(FcdeployError):  # a file that does not load in pieces stays unproven
        stretches = prove_stretches(
            source if isinstance(source, ir.Model) else model,
            built.program,
            samples,
            lambda part: _run_by_name(Session(part, threads=1, optimize=False)),
        )
        proof = replace(proof, stretches=stretches)
    return proof


def _run_by_name(session: Session) -> Callable[[Arrays], Arrays]:
    return lambda sample: dict(zip(session.outputs, session.run(sample), strict=True))


def _refuse_floats(graph: ir.Model, path: Path, floats: Sequence[str]) -> FcdeployError:
    """What computes in float, and the command that makes integers of it."""
    compute = "computes" if len(floats) == 1 else "compute"
    said = f"{say_count(len(floats), 'step')} {compute} in float: {list_some(floats, SHOWN, '; ')}"
    if is_quantized(graph):
        again = "fcdeploy quantize FLOAT --int8 --data DATA --engine native -o OUT makes integers of every layer it can"
        return FcdeployError(said, f"--allow-float compiles them too; where they are layers, {again}")
    if origin.KEY in graph.metadata_props:
        return FcdeployError(
            f"model {str(path)!r} came out of quantize with its layers in float, as onnxruntime is faster with them: {said}",
            "fcdeploy quantize FLOAT --int8 --data DATA --engine native -o OUT, with the float model, makes integers of them",
        )
    integers = path.with_name(f"{name_model(path)}.int8.onnx")
    return FcdeployError(
        f"model {str(path)!r} is not quantized: {said}",
        f"fcdeploy quantize {quote_path(path)} --int8 --data DATA --engine native -o {quote_path(integers)}; or --allow-float",
    )


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
    if emit == "object":
        check_output(_name_header(out), force=force, inputs=inputs)


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
            f"{str(data or calibration)!r} has less than the {say_count(size, 'sample')} of a run, expected one run at least",
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


def _find_copy(kernels: str, emit: str, *, ties: bool) -> Path | None:
    """The user's CMSIS-NN, where its kernels are asked for."""
    copy = find_copy(kernels)
    if copy is not None and emit != "c":
        raise FcdeployError(f"--kernels cmsis-nn: {emit} holds no CMSIS-NN, expected C to compile with it", "--emit c")
    if copy is None and ties:
        raise FcdeployError("--allow-ties is for CMSIS-NN, and --kernels is 'own'", "--kernels cmsis-nn=FOLDER")
    return copy


def _choose_compiler(copy: Path | None) -> Compiler:
    return find_compiler() if copy is None else add_copy(find_compiler(), copy)


def _check_kind(target: str, emit: str, core: Core | None) -> None:
    if core and emit == "library":
        raise FcdeployError(f"a library is for a machine, and {target} is none", "--emit object, or --emit c")
    if emit == "object" and core is None:
        raise FcdeployError(
            f"an object file is for a microcontroller, and --target is {target!r}, expected one of {', '.join(CORES)}",
            "--target cortex-m4",
        )


def _name_header(out: Path) -> Path:
    """The header that goes with an object file. Raises FcdeployError where it would be the same file."""
    if out.suffix == ".h":
        raise FcdeployError(
            f"output {str(out)!r} is what the header would be called, expected an object file", "-o model.o"
        )
    return out.with_suffix(".h")


def _put(
    built: Built, library: Path, out: Path, emit: str, core: Core | None, *, force: bool, copy: Path | None
) -> tuple[int, int] | None:
    """Put what was made in place; of an object its bytes that are read, and that are written."""
    if emit == "library":
        with replace_file(out, force=force) as aside:
            aside.write_bytes(library.read_bytes())
    elif emit == "object" and core is not None:
        with temporary_folder() as folder:  # nothing lies beside the output while the compiler runs
            made = folder / "whole.o"
            sizes = compile_object(built, core, find_core_compiler(core), folder, made)
            with replace_files((out, _name_header(out)), force=force) as (aside, beside):
                aside.write_bytes(made.read_bytes())
                beside.write_text(str(built.source.files[f"{built.source.name}.h"]))
        return sizes
    else:
        with (
            temporary_folder() as trial
        ):  # the library was compiled without the function that a folder of C is called by
            write_sources(built, trial)
            compile_c(_choose_compiler(copy), [*STRICT, "-c", f"{built.source.name}.c", "-o", "whole.o"], trial)
        with replace_folder(out) as (folder,):
            write_folder(built, folder)
    return None
