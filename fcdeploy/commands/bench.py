"""Latency, throughput, memory and size of a model, and of its float original timed in turn with it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.signatures import check_same_signature
from fcdeploy.graph.model import TensorSpec, files_of, hash_model, input_specs, is_quantized, measure_size, read_model
from fcdeploy.native.engine_file import open_engine_file
from fcdeploy.native.peak import measure_peak
from fcdeploy.proof.sample_axes import check_batch, share_layout
from fcdeploy.records.origin import read_shapes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.reporting.bench import NAMES, BatchResult, LoadedModel, NodeTimes, build_bench_report
from fcdeploy.reporting.node_times import sum_steps
from fcdeploy.runtime import feeds
from fcdeploy.runtime.caveats import warn_of_other_cpu
from fcdeploy.runtime.cpu import read_memory_bytes
from fcdeploy.runtime.footprint import Footprint, measure_footprint
from fcdeploy.runtime.native_library import load_native, time_steps
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.paired_timing import time_reloaded
from fcdeploy.runtime.profile import profile_models
from fcdeploy.wording import quote_path

MOST = {"threads": 1024, "seconds": 86_400, "max-ratio": 1e6, "interval": 1e6}
PROFILED = range(20, 201)  # runs for the time of each node


def bench(
    model: Path | str,
    *,
    against: Path | str | None = None,
    threads: int = 1,
    batch: int | Sequence[int] | None = None,
    seconds: float = 5.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    max_ratio: float | None = None,
    interval: float = 10.0,
    per_node: bool = False,
    engine: str = "onnxruntime",
    on_step: OnStep | None = None,
) -> Report:
    """Time a model in onnxruntime, or in code compiled from it (`engine` "native"), and with `against` both in turn.

    `against` is its float original, in onnxruntime.  `batch` is the length of free leading axes, 1 by default, or several;
    `shapes` gives whole shapes by input name; without it free lengths are those of the commonest samples that an int8 model was
    made with.
    `seconds` is for timing alone, at each batch size; it is exceeded where the fewest rounds take longer, and up to
    four times where the 95 % interval of the ratio is wider than `interval` percent of it.  Where it stays wider the
    report does not conclude.  `max_ratio` is the largest time relative to `against` that passes, at every batch size;
    an interval that lies on one side of it decides, however wide.
    `per_node` adds the time of each node at the first batch size, of native code that of each step and its share of
    this CPU's peak.  Inputs are random, since time hardly depends on
    values.  Raises FcdeployError.
    """
    _check_arguments({"threads": threads, "seconds": seconds, "max-ratio": max_ratio, "interval": interval}, against)
    wanted = _list_batches(batch)
    step: OnStep = on_step or (lambda *_: None)

    paths = [Path(model), *([Path(against)] if against is not None else [])]
    models = _read_models(paths, wanted)
    seen = read_shapes(models[0].metadata_props, str(model))
    specs = [[feeds.fix_shapes(input_specs(graph), one, shapes, recorded=seen) for graph in models] for one in wanted]
    _check_batches(wanted, specs)
    _check_memory([one for each in specs for one in each])

    # every input was checked above, so that no batch size fails after minutes of timing others
    sizes = [measure_size(files_of(graph, path)) for graph, path in zip(models, paths, strict=True)]
    with open_engine_file(engine, paths[0], models[0], {spec.name: spec.shape for spec in specs[0][0]}) as file:
        runs = [file.path, *paths[1:]]
        loading = [_measure_load_ms(path, threads) for path in runs]
        rows = []
        for each in specs:
            loaded = [
                LoadedModel(path, run, threads, feeds.draw_feeds(spec), spec, load_ms, size)
                for path, run, load_ms, spec, size in zip(paths, runs, loading, each, sizes, strict=True)
            ]
            timed = time_reloaded([one.load for one in loaded], seconds, step, interval / 100)
            rows.append(BatchResult(loaded, timed, [_measure_footprint(one, threads, step) for one in loaded]))
        nodes = _time_nodes(rows[0], threads, seconds, step) if per_node else None

    report = build_bench_report(rows, nodes, threads, max_ratio, interval, seconds)
    report = replace(report, warnings=(*file.notes, *warn_of_other_cpu(models[0]), *report.warnings))
    hashes = {
        name: hash_model(files_of(*pair)) for name, pair in zip(NAMES, zip(models, paths, strict=True), strict=False)
    }
    return report.extend(values={"hashes": hashes})


def _read_models(paths: Sequence[Path], batches: Sequence[int | None]) -> list[ir.Model]:
    """Raises FcdeployError where they do not fit each other, or a batch."""
    models = [read_model(path) for path in paths]
    if len(models) == 2:
        _check_order(models, paths)
        share_layout(models)
    for one in batches:
        check_batch(models[0], one, str(paths[0]))
    return models


def _list_batches(batch: int | Sequence[int] | None) -> list[int | None]:
    """The batch sizes to time; None is whatever the model insists on."""
    wanted: list[int | None] = list(batch) if isinstance(batch, Sequence) else [batch]
    if not wanted or any(one is not None and one < 1 for one in wanted):
        raise FcdeployError(f"batch {', '.join(map(str, wanted)) or 'of nothing'} is not positive", "--batch 1")
    return wanted


def _check_order(models: Sequence[ir.Model], paths: Sequence[Path]) -> None:
    """Raise FcdeployError unless the two read and write the same, and the float one is the second."""
    check_same_signature(models[0], models[1], paths[0].name, paths[1].name, dtypes=False)
    if is_quantized(models[1]) and not is_quantized(models[0]):
        raise FcdeployError(
            f"{paths[1].name!r} is quantized and {paths[0].name!r} is not, expected it the other way round",
            f"fcdeploy bench {quote_path(paths[1])} --against {quote_path(paths[0])}",
        )


def _check_arguments(options: Mapping[str, float | None], against: object) -> None:
    """Raise FcdeployError unless those that are given are positive and not beyond `MOST`."""
    if options["max-ratio"] is not None and against is None:
        raise FcdeployError("a largest ratio needs a model to compare with", "--against FLOAT.onnx")
    for name, value in options.items():
        if value is not None and not value > 0:
            raise FcdeployError(f"{name} {value} is not positive", f"--{name} 1")
        if value is not None and value > MOST[name]:
            raise FcdeployError(f"{name} {value:g} is more than {MOST[name]:g}", f"--{name} {MOST[name]:g}")


def _check_batches(wanted: Sequence[int | None], specs: Sequence[Sequence[Sequence[TensorSpec]]]) -> None:
    for index, one in enumerate(specs):
        same = specs.index(one)
        if same < index:
            raise FcdeployError(
                f"batches {wanted[same]} and {wanted[index]} give the model the same inputs, "
                f"{', '.join(map(str, one[0]))}",
                f"--batch {wanted[same]}",
            )


def _check_memory(specs: Sequence[Sequence[TensorSpec]]) -> None:
    """Refuse inputs that leave the machine no memory for anything else."""
    memory = read_memory_bytes()
    for one in specs:
        needed = sum(math.prod(n or 0 for n in spec.shape) * spec.dtype.itemsize for spec in one)
        if memory is not None and needed > memory / 4:
            raise FcdeployError(
                f"{', '.join(map(str, one))} takes {needed / 1e9:,.1f} GB, a quarter of this machine's memory is "
                f"{memory / 4e9:.1f} GB",
                "--batch 1",
            )


def _measure_load_ms(path: Path, threads: int) -> float:
    begin = time.perf_counter()
    open_engine(path, threads=threads)
    return 1e3 * (time.perf_counter() - begin)


def _measure_footprint(one: LoadedModel, threads: int, on_step: OnStep) -> Footprint | None:
    on_step("memory", 0, None)
    return measure_footprint(one.runs, one.specs, threads)


def _time_nodes(row: BatchResult, threads: int, seconds: float, on_step: OnStep) -> NodeTimes:
    """By onnxruntime's profiler; of native code step by step."""
    on_step("nodes", 0, None)
    once = sum(float(np.median(timed.runs)) for timed in row.timed) / 1e3
    runs = min(max(int(seconds / once / 2), PROFILED[0]), PROFILED[-1])
    native, onnx = (
        [one for one in row.loaded if one.runs != one.path],
        [one for one in row.loaded if one.runs == one.path],
    )
    profiles = profile_models([(one.path, one.inputs) for one in onnx], runs=runs, threads=threads)
    if not native:
        return NodeTimes(profiles)
    latency, steps = time_steps(load_native(native[0].runs), native[0].inputs, runs)
    return NodeTimes([sum_steps(latency, steps), *profiles], steps, measure_peak())
