"""What `bench` says: times, memory and sizes by batch size, their ratio with its interval, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.node_times import collect_node_values, collect_step_values, make_node_tables, make_step_table
from fcdeploy.reporting.units import format_size
from fcdeploy.runtime.footprint import Footprint
from fcdeploy.runtime.native_library import StepTime
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.paired_timing import PATIENCE, Ratio, Run, Timing, compute_ratio
from fcdeploy.runtime.profile import Profile
from fcdeploy.wording import say_count

NAMES = ("int8", "float")  # the model, and what it is compared with


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be timed; `path` is the model's, `runs` that of what runs."""

    path: Path
    runs: Path
    threads: int
    inputs: Arrays
    specs: list[TensorSpec]
    load_ms: float
    bytes: int

    def load(self) -> Run:
        """Load it anew; the call that runs it on its inputs."""
        engine = open_engine(self.runs, threads=self.threads)
        return lambda: engine.run(self.inputs)


@dataclass(frozen=True)
class BatchResult:
    """What was measured at one batch size; a list has one entry, or two with the float model."""

    loaded: list[LoadedModel]
    timed: list[Timing]
    memory: list[Footprint | None]

    @property
    def batch(self) -> int | None:
        first = self.loaded[0].specs
        return first[0].shape[0] if first and first[0].shape else None

    @property
    def ratio(self) -> Ratio | None:
        return compute_ratio(*self.timed) if len(self.timed) == 2 else None


@dataclass(frozen=True)
class NodeTimes:
    """A profile of each model; of native code also its steps, and this CPU's most multiply-accumulates a second."""

    profiles: list[Profile]
    steps: Sequence[StepTime] = ()
    peak: float = 0.0

    @property
    def values(self) -> dict[str, Any]:
        return collect_node_values(self.profiles, NAMES) | (
            collect_step_values(self.steps, self.peak) if self.steps else {}
        )

    @property
    def tables(self) -> list[Table]:
        if not self.steps:
            return list(make_node_tables(self.profiles, NAMES))
        own = make_step_table(self.profiles[0].latency_us, self.steps, self.peak)
        return [own, *(make_node_tables(self.profiles, NAMES) if len(self.profiles) == 2 else ())]


def build_bench_report(
    rows: list[BatchResult],
    nodes: NodeTimes | None,
    threads: int,
    max_ratio: float | None,
    interval: float,
    seconds: float,
) -> Report:
    """What was measured, a row a batch size, and whether it passes `max_ratio` by intervals no wider than `interval` percent."""
    by_batch = [_collect_values(row, max_ratio, interval) for row in rows]
    passed = all(values["passed"] for values in by_batch)
    values = {
        **by_batch[0],
        "threads": threads,
        "max_ratio": max_ratio,
        "interval": interval,
        "passed": passed,
        "batches": by_batch,
        "per_node": nodes.values if nodes else None,
    }

    tables = [_make_table(row, threads) for row in rows]
    tables += nodes.tables if nodes else []
    lines = [
        f"batch {each['batch']}: {line}" if len(rows) > 1 else line
        for each in by_batch
        for line in _conclude(each, max_ratio, interval, PATIENCE * seconds)
    ]
    if len(rows) > 1 and max_ratio is not None:
        failed = [str(each["batch"]) for each in by_batch if not each["passed"]]
        lines.append(f"failed: batch {', '.join(failed)}" if failed else f"passed: all {len(rows)} batch sizes")
    warnings = [text for each in by_batch for text in _warn(each, max_ratio)]
    return Report("bench", values, tuple(tables), tuple(lines), passed, tuple(warnings))


def _collect_values(row: BatchResult, max_ratio: float | None, interval: float) -> dict[str, Any]:
    """The JSON keys that tell of one batch size."""
    ratio, batch = row.ratio, row.batch
    values: dict[str, Any] = {
        "ratio": ratio.median if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "conclusive": ratio.width <= interval / 100 if ratio else None,
    }

    for index, name in enumerate(NAMES):
        known = index < len(row.timed)
        p50, p99 = np.percentile(row.timed[index].runs, [50, 99]) if known else (None, None)
        use = row.memory[index] if known else None
        values |= {
            f"{name}_ms": None if p50 is None else float(p50),
            f"{name}_p99_ms": None if p99 is None else float(p99),
            f"{name}_per_second": None if p50 is None or batch is None else 1e3 * batch / float(p50),
            f"{name}_load_ms": row.loaded[index].load_ms if known else None,
            f"{name}_rss_mb": use.peak_mb if use else None,
            f"{name}_model_mb": use.peak_mb - use.before_mb if use else None,
            f"bytes_{name}": row.loaded[index].bytes if known else None,
        }

    values["rss_mb"] = values.pop("int8_rss_mb")
    values["model_mb"] = values.pop("int8_model_mb")
    return values | {
        "batch": batch,
        "inputs": {spec.name: list(spec.shape) for spec in row.loaded[0].specs},
        "rounds": len(row.timed[0].turns),
        "runs": len(row.timed[0].runs),
        "passed": max_ratio is None or _holds(values, max_ratio),
    }


def _holds(values: Mapping[str, Any], max_ratio: float) -> bool:
    """Whether a ratio is small enough: one that is too wide to state may still lie below the limit as a whole."""
    return bool(values["ratio_high"] <= max_ratio or (values["conclusive"] and values["ratio"] <= max_ratio))


def _make_table(row: BatchResult, threads: int) -> Table:
    cells = []
    for one, times, use in zip(row.loaded, row.timed, row.memory, strict=True):
        p50, p99 = np.percentile(times.runs, [50, 99])
        rate = "" if row.batch is None else f"{1e3 * row.batch / p50:.0f}/s"
        used = ("", "") if use is None else (f"{use.peak_mb:.0f} MB", f"{use.peak_mb - use.before_mb:.0f} MB")
        cells.append(
            (
                one.path.name,
                f"{p50:.3f} ms",
                f"{p99:.3f} ms",
                rate,
                *used,
                f"{one.load_ms:.0f} ms",
                format_size(one.bytes),
            )
        )
    shape = "; ".join(f"{spec.name} {','.join(map(str, spec.shape))}" for spec in row.loaded[0].specs)
    count = f"{say_count(len(row.timed[0].runs), 'run')} in {say_count(len(row.timed[0].turns), 'round')}"
    title = f"{shape or 'no inputs'}; {say_count(threads, 'thread')}, {count}"
    return Table(
        title, ("model", "median", "p99", "samples", "peak memory", "model memory", "load", "file"), tuple(cells)
    )


def _format_ratio(values: Mapping[str, Any]) -> str:
    ratio, low, high = values["ratio"], values["ratio_low"], values["ratio_high"]
    return f"{ratio:.3f} of the float time, 95 % interval {low:.3f} to {high:.3f}"


def explain_noise(values: Mapping[str, Any], max_ratio: float | None, interval: float) -> str:
    """Why a ratio cannot be told; empty where its interval is as narrow as asked, or lies on one side of the limit."""
    ratio, low, high = values["ratio"], values["ratio_low"], values["ratio_high"]
    if values["conclusive"] or (max_ratio is not None and not low <= max_ratio <= high):
        return ""
    width = 100 * (high - low) / ratio
    return (
        f"the machine is too noisy to tell: {_format_ratio(values)}, {width:.1f} % wide and not {interval:g} % as asked"
    )


def _conclude(values: Mapping[str, Any], max_ratio: float | None, interval: float, patience: float) -> Iterator[str]:
    ratio, low, high = values["ratio"], values["ratio_low"], values["ratio_high"]
    if ratio is None:
        yield f"{values['int8_ms']:.3f} ms a run"
        return
    text = _format_ratio(values)
    if noise := explain_noise(values, max_ratio, interval):
        yield (
            f"{'' if max_ratio is None else 'failed: '}{noise}, after {patience:g} s; "
            "free the machine, or try --seconds 30 or --interval 20"
        )
    elif max_ratio is not None:
        yield f"{'passed' if values['passed'] else 'failed'}: {text}, allowed {max_ratio:g}"
    elif low <= 1 <= high:
        yield f"{text}: no difference that this run could tell"
    else:
        yield f"{text}: {'faster' if ratio < 1 else 'slower'}"


def _warn(values: Mapping[str, Any], limit: float | None) -> Iterator[str]:
    if limit is not None and values["conclusive"] and values["ratio_low"] <= limit <= values["ratio_high"]:
        yield f"the allowed ratio {limit:g} lies inside the interval: another run may answer otherwise"
