"""Model and samples to a calibration: what every tensor looked like, in one streaming pass."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arithmetic.fixed_point import describe_fixed_point
from fcdeploy.atomic_files import replace_files
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.input_checks import take_few, warn_of_inputs
from fcdeploy.evaluate.misread_inputs import warn_of_readings
from fcdeploy.evaluate.prepared import check_on_first
from fcdeploy.files import check_output
from fcdeploy.graph.missing_numbers import find_missing
from fcdeploy.graph.model import files_of, hash_model, input_specs, read_model, refuse_unsupported
from fcdeploy.int8.calibrating.collect import CollectedCalibration, collect
from fcdeploy.int8.calibrating.shard import CalibrationJob
from fcdeploy.int8.calibrating.statistics import warn_too_few
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.sample_axes import declare_samples, parse_axes
from fcdeploy.records import sample_layout
from fcdeploy.records.calibration import Calibration, TensorRecord, to_bytes
from fcdeploy.records.data_format import UNSAID, choose_format, to_json
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table, format_next
from fcdeploy.runtime.workers import open_pool
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.source import BadSample, Source
from fcdeploy.samples.states import parse_states
from fcdeploy.wording import list_some, say_count

NAMED = 5  # of the samples that were skipped
SHOWN = 20  # rows of the table on a terminal, as many as fit on a screen
COLUMNS = ("layer", "tensor", "kind", "min", "max", "fixed_point")


def calibrate(
    model: str | Path,
    *,
    data: str | Path,
    output: str | Path | None = None,
    csv_file: str | Path | None = None,
    samples: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    max_memory: int | None = None,
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    everything: bool = False,
    keep_samples: bool = True,
    skip_bad: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Record minimum, maximum and histogram of every weight, bias and activation, and moments of what layers read.

    `output` is MODEL.calib beside the model unless given.  `batch`, `max_memory` (bytes of each process), `workers`
    (processes) and `cluster` ("ray" or "ray:ADDRESS") change speed and memory, never the result.  Progress is saved in
    OUTPUT.progress, from which the same call goes on after a crash.  `skip_bad` leaves out samples that cannot be used instead
    of stopping at the first.  `batch_axes` ("NAME=1", "NAME=none") say where samples lie in an input, `states` ("OUT=IN") which
    inputs take what an output gave on the sample before.  `preprocess` (a preset, FILE.toml, FILE.py:NAME), the file of
    `classes` and the column of `label` say how data are read; that is recorded, and later commands read theirs so.
    """
    path, table_file = Path(model), Path(csv_file) if csv_file else None
    target = Path(output) if output else path.with_suffix(".calib")
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    files = files_of(graph, path)
    _check_outputs(target, table_file, (*files, Path(data)), force=force)
    begin = time.perf_counter()
    prepare(graph)
    wanted = choose_format(UNSAID, preprocess=preprocess, classes=classes, label=label)
    chosen = Samples(str(data), samples, seed, wanted, path)
    notes = declare_samples(path, graph, chosen, parse_axes(batch_axes), parse_states(states))
    source = chosen.open(input_specs(graph))
    chosen = replace(chosen, format=source.format)
    odd = [*notes, *_check_first_samples(path, graph, source, skip_bad=skip_bad)]
    job = CalibrationJob(
        str(path), hash_model(files), chosen, everything=everything, keep_samples=keep_samples, skip_bad=skip_bad,
        layout=graph.metadata_props.get(sample_layout.KEY, ""),
    )  # fmt: skip
    progress = target.with_name(f"{target.name}.progress")
    if any(spec.state for spec in input_specs(graph)):
        odd, workers, cluster = [*odd, *_warn_of_order(workers, cluster)], 1, None
    with _say_what_is_kept(progress), open_pool(workers, cluster) as team:
        result = collect(team, job, graph, source, progress, batch=batch, max_memory=max_memory, on_step=on_step)
    seconds = time.perf_counter() - begin
    rows = list(list_ranges(result.calibration))
    odd += [*_write(result, rows, target, table_file, force=force), *warn_not_finite(graph.graph, result.calibration)]
    return _report(path, result, rows, seconds, target, odd, beside=output is None and target.parent != Path())


def _check_first_samples(path: Path, graph: ir.Model, source: Source, *, skip_bad: bool) -> list[str]:
    """What is odd about a few samples. Raises FcdeployError where the model cannot run the first."""
    check_on_first(path, graph, source, skip_bad=skip_bad)
    few = take_few(source)
    return [*warn_of_inputs(source, few), *warn_of_readings(path, graph, source, few)]


def _warn_of_order(workers: int | None, cluster: str | None) -> list[str]:
    """Steps of a stream follow each other: a second worker would run through all of them too."""
    return (
        ["states are carried from one sample to the next: one worker takes all, in order"] if workers or cluster else []
    )


def _write(
    result: CollectedCalibration, rows: Sequence[tuple[str, ...]], target: Path, table_file: Path | None, *, force: bool
) -> list[str]:
    """The calibration and its table, and then the progress is no longer needed; a warning where it stays all the same."""
    with replace_files([target, *([table_file] if table_file else [])], force=force) as asides:
        asides[0].write_bytes(to_bytes(result.calibration))
        for beside in asides[1:]:
            with beside.open("w", newline="") as table:
                csv.writer(table).writerows([COLUMNS, *rows])
    try:
        result.progress.unlink(missing_ok=True)
    except OSError as error:  # the outputs stand, so the command has not failed
        return [f"{str(result.progress)!r} is no longer needed, and cannot be deleted: {error.strerror}"]
    return []


def _check_outputs(target: Path, table_file: Path | None, inputs: tuple[Path, ...], *, force: bool) -> None:
    for file in filter(None, (target, table_file)):
        check_output(file, force=force, inputs=inputs)
    if table_file is not None and table_file.resolve() == target.resolve():
        raise FcdeployError(f"{str(target)!r} is both the calibration and its table", "give --csv another name")


@contextmanager
def _say_what_is_kept(progress: Path) -> Iterator[None]:
    """Let an interruption name the file from which the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = f"{progress} holds what was done, and the same command goes on from there"
        raise KeyboardInterrupt(*([kept] if progress.exists() else [])) from stop


def warn_not_finite(graph: ir.Graph, calibration: Calibration) -> Iterator[str]:
    """The tensors that became NaN or infinite, other than those in which NaN is a missing number."""
    missing = {value.name for value in find_missing(graph)}
    for name, record in calibration.tensors.items():
        if record.histogram.nonfinite and name not in missing:
            yield f"tensor {name!r} became NaN or infinite: its layers will stay float"


def list_ranges(calibration: Calibration) -> Iterator[tuple[str, ...]]:
    """Layer, tensor, kind, minimum, maximum, and the fixed point that holds it, one row a tensor."""
    for record in calibration.tensors.values():
        h = record.histogram
        yield (
            record.layer or "-",
            record.name,
            record.kind,
            f"{h.low:.6g}",
            f"{h.high:.6g}",
            describe_fixed_point(h.low, h.high),
        )


def _find_minor(calibration: Calibration) -> frozenset[int]:
    """Rows of a long table that need not be seen: all but inputs, and the activations that reach furthest."""

    def rank(row: tuple[int, TensorRecord]) -> tuple[bool, bool, float]:
        record = row[1]
        reach = max(-record.histogram.low, record.histogram.high)
        return record.kind != "input", record.kind != "activation", -reach

    records = enumerate(calibration.tensors.values())
    return frozenset(index for index, _ in sorted(records, key=rank)[SHOWN:])


def _report(
    model: Path,
    result: CollectedCalibration,
    rows: list[tuple[str, ...]],
    seconds: float,
    output: Path,
    odd: Sequence[str],
    *,
    beside: bool,
) -> Report:
    calibration = result.calibration
    constant = [
        record.name
        for record in calibration.tensors.values()
        if record.kind == "activation" and record.histogram.low == record.histogram.high
    ]
    warnings = (
        *odd,
        *result.warnings,
        *warn_too_few(calibration),
        *_describe_skipped(result.bad),
        *(f"tensor {name!r} was the same value in every sample" for name in constant),
    )
    tensors = [dict(zip(COLUMNS, row, strict=True)) | _numbers(calibration, row[1]) for row in rows]
    values = {
        "tensors": tensors, "samples": calibration.samples, "seconds": round(seconds, 3), "output": str(output),
        "model": calibration.model, "data": calibration.data, "format": to_json(calibration.format),
        "skipped": [{"sample": bad.name, "why": bad.why} for bad in result.bad], "resumed_at": result.resumed_at,
    }  # fmt: skip
    resumed = (f"went on after {result.resumed_at} samples that were done already",) if result.resumed_at else ()
    lines = (
        *resumed,
        *calibration.format.describe(),
        f"{say_count(calibration.samples, 'sample')}, {say_count(len(rows), 'tensor')}, {seconds:.1f} s -> {output}"
        + (", beside the model; -o puts it elsewhere" if beside else ""),
        format_next(
            "quantize", model, "--int8", "--calibration", output, "-o", output.with_name(f"{model.stem}.int8.onnx")
        ),
    )
    return Report(
        "calibrate",
        values,
        (
            Table(
                "dynamic ranges",
                tuple(name.replace("_", " ") for name in COLUMNS),
                tuple(rows),
                _find_minor(calibration),
            ),
        ),
        lines,
        warnings=warnings,
    )


def _describe_skipped(bad: Sequence[BadSample]) -> Iterator[str]:
    """How many samples were left out; the first few by name."""
    if bad:
        count = f"{say_count(len(bad), 'sample')} {'was' if len(bad) == 1 else 'were'}"
        yield f"{count} skipped: " + list_some([f"{one.name}: {one.why}" for one in bad], NAMED, "; ")


def _numbers(calibration: Calibration, name: str) -> dict[str, object]:
    h = calibration.tensors[name].histogram
    return {"min": h.low, "max": h.high, "elements": h.total}
