"""Figures for Prometheus, in its text format 0.0.4: seconds and bytes, counters end in _total.

Labels are names and versions of loaded models and status codes, never anything that a client made up.
"""

from __future__ import annotations

import json
import operator
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fcdeploy.serve.batching import InferenceRequest
from fcdeploy.serve.log import LineWriter
from fcdeploy.serve.models import Model
from fcdeploy.serve.served_models import Observer

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SAMPLES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
HELP = {
    "fcdeploy_requests_total": ("counter", "Requests answered, by status code; no model where the address named none."),
    "fcdeploy_rejected_total": ("counter", "Requests turned away because the queue was full."),
    "fcdeploy_load_failures_total": ("counter", "Times that a changed model could not be loaded."),
    "fcdeploy_loads_total": ("counter", "Times that a model was loaded."),
    "fcdeploy_load_seconds": ("gauge", "Time that the last load took, warm-up included."),
    "fcdeploy_queue_seconds": ("histogram", "Time that a request waited for its run."),
    "fcdeploy_compute_seconds": ("histogram", "Time of a run."),
    "fcdeploy_batch_size": ("histogram", "Samples in a run."),
    "fcdeploy_waiting_requests": ("gauge", "Requests that wait or run."),
    "fcdeploy_log_lines_dropped_total": ("counter", "Lines of logs that could not be written in time."),
    "fcdeploy_ready": ("gauge", "1 when requests are taken."),
    "process_cpu_seconds_total": ("counter", "CPU time, user and system."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
    "process_open_fds": ("gauge", "Open files and sockets."),
    "process_start_time_seconds": ("gauge", "Start, in seconds since 1970."),
}
Key = tuple[str, str, str, str]
"""Metric, model, version, code; '' where a label does not apply."""


class BucketCounts:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ModelFigures:
    """The figures of one version of a model; ('', '') is for requests that named none."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.counters: dict[str, float] = {}
        self.queue, self.compute, self.samples = BucketCounts(SECONDS), BucketCounts(SECONDS), BucketCounts(SAMPLES)

    def add(self, metric: str) -> None:
        self.counters[metric] = self.counters.get(metric, 0) + 1


class Metrics(Observer):
    """Counts. With `share`, a folder, several processes publish theirs there, and each answers for all."""

    def __init__(self, share: Path | None = None, worker: int = 0, writers: Sequence[LineWriter] = ()) -> None:
        self._of: defaultdict[tuple[str, str], ModelFigures] = defaultdict(ModelFigures)
        self._share = share
        self._worker = worker
        self._writers = writers
        self._started = time.time()

    def count(self, key: tuple[str, str], code: int) -> None:
        codes = self._of[key].codes
        codes[code] = codes.get(code, 0) + 1

    def on_run(self, model: Model, batch: Sequence[InferenceRequest], seconds: float) -> None:
        recorder = self._of[model.key]
        rows = 0
        waited, counts = 0.0, recorder.queue.counts
        for request in batch:
            rows += request.rows
            waited += request.queue_seconds
            counts[bisect_left(SECONDS, request.queue_seconds)] += 1
        recorder.queue.total += waited
        recorder.compute.add(seconds)
        recorder.samples.add(rows)

    def on_run_at_once(self, model: Model, rows: int, seconds: float) -> None:
        """A run of one request that waited for nothing and was answered."""
        recorder = self._of[model.key]
        recorder.codes[200] = recorder.codes.get(200, 0) + 1
        recorder.queue.counts[0] += 1
        recorder.compute.add(seconds)
        recorder.samples.add(rows)

    def on_rejection(self, model: Model) -> None:
        self._of[model.key].add("fcdeploy_rejected_total")

    def on_load(self, model: Model) -> None:
        recorder = self._of[model.key]
        recorder.add("fcdeploy_loads_total")
        recorder.counters["fcdeploy_load_seconds"] = model.load_seconds

    def on_load_failure(self, name: str, version: str) -> None:
        self._of[name, version].add("fcdeploy_load_failures_total")

    def format_page(self, *, waiting: int, ready: bool) -> bytes:
        """The page, of all processes that share."""
        own = self._take_snapshot(waiting, ready)
        return _format_page(_merge([own, *self._read_others()])).encode()

    def publish(self, *, waiting: int, ready: bool) -> None:
        """Write this process's figures where the others find them."""
        if self._share is not None:
            aside = self._share / f".{self._worker}"
            aside.write_text(json.dumps(self._take_snapshot(waiting, ready)))
            aside.replace(self._share / f"{self._worker}.json")

    def _read_others(self) -> Iterable[dict[str, Any]]:
        for path in sorted(self._share.glob("*.json")) if self._share is not None else ():
            if path.stem != str(self._worker):
                with suppress(OSError, ValueError):
                    yield json.loads(path.read_text())

    def _take_snapshot(self, waiting: int, ready: bool) -> dict[str, Any]:
        of_process = {
            "fcdeploy_waiting_requests": waiting,
            "fcdeploy_ready": int(ready),
            "fcdeploy_log_lines_dropped_total": sum(writer.dropped for writer in self._writers),
            "process_start_time_seconds": self._started,
            "process_cpu_seconds_total": sum(os.times()[:2]),
            **_measure_process(),
        }
        numbers: list[list[Any]] = [[name, "", "", "", value] for name, value in of_process.items()]
        histograms: list[list[Any]] = []
        for (name, version), recorder in self._of.items():
            numbers += [["fcdeploy_requests_total", name, version, str(k), n] for k, n in recorder.codes.items()]
            numbers += [[metric, name, version, "", value] for metric, value in recorder.counters.items()]
            for metric, histogram in (
                ("fcdeploy_queue_seconds", recorder.queue),
                ("fcdeploy_compute_seconds", recorder.compute),
                ("fcdeploy_batch_size", recorder.samples),
            ):
                if any(histogram.counts):
                    histograms.append([metric, name, version, "", histogram.bounds, histogram.counts, histogram.total])
        return {"numbers": numbers, "histograms": histograms}


def _measure_process() -> dict[str, float]:
    with suppress(OSError, ValueError, IndexError):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {"process_resident_memory_bytes": resident, "process_open_fds": len(os.listdir("/proc/self/fd"))}  # noqa: PTH208
    return {}


def _merge(snapshots: Iterable[dict[str, Any]]) -> dict[Key, Any]:
    """Sums; of load times the longest, of starts the first, ready only when all are."""
    merged: dict[Key, Any] = {}
    choose: dict[str, Callable[[float, float], float]] = {
        "fcdeploy_load_seconds": max,
        "process_start_time_seconds": min,
        "fcdeploy_ready": min,
    }
    for snapshot in snapshots:
        for *labels, value in snapshot["numbers"]:
            key: Key = tuple(labels)
            both: Callable[[float, float], float] = choose.get(key[0], operator.add)
            merged[key] = both(merged[key], value) if key in merged else value
        for *labels, bounds, counts, total in snapshot["histograms"]:
            key = tuple(labels)
            _, before, sums = merged.get(key, (bounds, [0] * len(counts), 0.0))
            merged[key] = (bounds, [a + b for a, b in zip(before, counts, strict=True)], sums + total)
    return merged


def _format_page(values: dict[Key, Any]) -> str:
    lines: list[str] = []
    for metric, (kind, meaning) in HELP.items():
        rows = sorted((key, value) for key, value in values.items() if key[0] == metric)
        if not rows:
            continue
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} {kind}"]
        for (_, name, version, code), value in rows:
            labels = [f'{k}="{v}"' for k, v in (("model", name), ("version", version), ("code", code)) if v]
            if kind != "histogram":
                lines.append(f"{metric}{_format_labels(labels)} {_format_number(value)}")
                continue
            bounds, counts, total = value
            so_far = 0
            for bound, count in zip([*map(_format_number, bounds), "+Inf"], counts, strict=True):
                so_far += count
                le = f'le="{bound}"'
                lines.append(f"{metric}_bucket{_format_labels([*labels, le])} {so_far}")
            lines += [
                f"{metric}_sum{_format_labels(labels)} {_format_number(total)}",
                f"{metric}_count{_format_labels(labels)} {so_far}",
            ]
    return "\n".join(lines) + "\n"


def _format_labels(labels: list[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
