"""Latency, throughput, memory and size of a model, and of its float original timed in turn with it.

A machine's speed drifts, by more than the differences of interest.  So both models run in short turns, one after the
other, each round gives one ratio, and what counts is the median of the ratios with an interval from their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.intervals import median_interval
from fcdeploy.errors import FcdeployError
from fcdeploy.graph import feeds
from fcdeploy.graph.footprint import Footprint, footprint
from fcdeploy.graph.model import TensorSpec, input_specs, read_model
from fcdeploy.graph.pair import check_same_ends, size_on_disk
from fcdeploy.graph.runtime import Session
from fcdeploy.records.report import Report, Table

OnStep = Callable[[str, int, int | None], None]
Array = np.ndarray[Any, Any]
WARM_UP = 5  # runs; the first ones allocate
ROUNDS = 60  # wanted: enough for a narrow interval, and each turn is still long against the clock's own noise
FEWEST_ROUNDS = 6  # with fewer, no interval of order statistics reaches 95 %
WIDE = 0.1  # an interval wider than a tenth of the ratio is worth a word
MEBI = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """A model ready to be timed."""

    path: Path
    session: Session
    inputs: dict[str, Array]
    specs: list[TensorSpec]
    load_ms: float
    bytes: int


@dataclass(frozen=True)
class Timed:
    """Milliseconds of every single run, and their mean in each turn."""

    runs: NDArray[np.float64]
    turns: NDArray[np.float64]


def bench(
    model: Path | str,
    *,
    against: Path | str | None = None,
    threads: int = 1,
    batch: int | None = None,
    seconds: float = 5.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    max_ratio: float | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Time a model in onnxruntime, and with `against` (its float original) both in turn.

    `batch` is the length of free leading axes, 1 by default; `shapes` gives whole shapes by input name.  `seconds` is
    for timing alone, and exceeded only where the fewest rounds take longer.  `max_ratio` is the largest time relative
    to `against` that passes.  Inputs are random, since time hardly depends on values.  Raises FcdeployError.
    """
    if max_ratio is not None and against is None:
        raise FcdeployError("a largest ratio needs a model to compare with", "--against FLOAT.onnx")
    for name, value in (("threads", threads), ("batch", batch), ("seconds", seconds), ("max-ratio", max_ratio)):
        if value is not None and not value > 0:
            raise FcdeployError(f"{name} {value} is not positive", f"--{name} 1")
    step: OnStep = on_step or (lambda *_: None)
    paths = [Path(model), *([Path(against)] if against is not None else [])]
    models = [read_model(path) for path in paths]
    if len(models) == 2:
        check_same_ends(models[0], models[1], paths[0].name, paths[1].name, dtypes=False)
    loaded = []
    for path, graph in zip(paths, models, strict=True):
        specs = feeds.fixed(input_specs(graph), batch, shapes)
        loaded.append(_load(path, specs, threads, size_on_disk(graph, path)))
    timed = measure(loaded, seconds, step)
    memory = []
    for index, one in enumerate(loaded):
        step("memory", index, len(loaded))
        memory.append(footprint(one.path, one.specs, threads))
    return _report(loaded, timed, memory, threads, max_ratio)


def measure(loaded: Sequence[Loaded], seconds: float, on_step: OnStep) -> list[Timed]:
    """Run the models in turn; every other round the other way round, so that neither always comes first."""
    once = sum(_warm_up(one) for one in loaded)
    repeats = max(1, int(seconds / ROUNDS / once))
    rounds: list[list[list[float]]] = []
    begin = time.perf_counter()
    while len(rounds) < FEWEST_ROUNDS or time.perf_counter() - begin < seconds:
        order = list(enumerate(loaded))
        turns = {index: _turn(one, repeats) for index, one in (order if len(rounds) % 2 == 0 else order[::-1])}
        rounds.append([turns[index] for index in range(len(loaded))])
        expected = max(FEWEST_ROUNDS, round(seconds / (once * repeats)))
        on_step("timing", min(len(rounds), expected), expected)
    runs = 1e3 * np.asarray(rounds)  # (rounds, models, repeats)
    return [Timed(runs[:, index].ravel(), runs[:, index].mean(axis=1)) for index in range(len(loaded))]


def _load(path: Path, specs: list[TensorSpec], threads: int, size: int) -> Loaded:
    inputs = feeds.draw(specs)
    begin = time.perf_counter()
    session = Session(path, threads=threads)
    return Loaded(path, session, inputs, specs, 1e3 * (time.perf_counter() - begin), size)


def _warm_up(one: Loaded) -> float:
    """Seconds of a run, once warm."""
    return min(_turn(one, WARM_UP))


def _turn(one: Loaded, repeats: int) -> list[float]:
    """Seconds of each of so many runs."""
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        one.session.run(one.inputs)
        spent.append(time.perf_counter() - begin)
    return spent


def _report(
    loaded: list[Loaded], timed: list[Timed], memory: list[Footprint | None], threads: int, max_ratio: float | None
) -> Report:
    names = ("int8", "float")
    first = loaded[0].specs
    batch = first[0].shape[0] if first and first[0].shape else None
    values: dict[str, Any] = {"ratio": None, "ratio_low": None, "ratio_high": None}
    if len(timed) == 2:
        ratios = timed[0].turns / timed[1].turns
        low, high = median_interval(ratios)
        values |= {"ratio": float(np.median(ratios)), "ratio_low": low, "ratio_high": high}
    for index, name in enumerate(names):
        known = index < len(timed)
        p50, p99 = np.percentile(timed[index].runs, [50, 99]) if known else (None, None)
        use = memory[index] if known else None
        values |= {
            f"{name}_ms": None if p50 is None else float(p50),
            f"{name}_p99_ms": None if p99 is None else float(p99),
            f"{name}_per_second": None if p50 is None or batch is None else 1e3 * batch / float(p50),
            f"{name}_load_ms": loaded[index].load_ms if known else None,
            f"{name}_rss_mb": use.peak_mb if use else None,
            f"{name}_model_mb": use.peak_mb - use.before_mb if use else None,
            f"bytes_{name}": loaded[index].bytes if known else None,
        }
    values["rss_mb"] = values.pop("int8_rss_mb")
    values["model_mb"] = values.pop("int8_model_mb")
    passed = max_ratio is None or values["ratio"] <= max_ratio
    values |= {
        "threads": threads,
        "batch": batch,
        "inputs": {spec.name: list(spec.shape) for spec in first},
        "rounds": len(timed[0].turns),
        "runs": len(timed[0].runs),
        "max_ratio": max_ratio,
        "passed": passed,
    }
    return Report(
        command="bench",
        values=values,
        tables=(_table(loaded, timed, memory, batch, threads),),
        lines=tuple(_lines(values)),
        passed=passed,
        warnings=tuple(_warnings(values)),
    )


def _table(
    loaded: list[Loaded], timed: list[Timed], memory: list[Footprint | None], batch: int | None, threads: int
) -> Table:
    rows = []
    for one, times, use in zip(loaded, timed, memory, strict=True):
        p50, p99 = np.percentile(times.runs, [50, 99])
        rate = "" if batch is None else f"{1e3 * batch / p50:.0f}/s"
        used = ("", "") if use is None else (f"{use.peak_mb:.0f} MB", f"{use.peak_mb - use.before_mb:.0f} MB")
        size = f"{one.bytes / MEBI:.2f} MB"
        rows.append((one.path.name, f"{p50:.3f} ms", f"{p99:.3f} ms", rate, *used, f"{one.load_ms:.0f} ms", size))
    shape = "; ".join(f"{spec.name} {','.join(map(str, spec.shape))}" for spec in loaded[0].specs)
    count = f"{len(timed[0].runs)} runs in {len(timed[0].turns)} rounds"
    title = f"{shape}; {threads} thread{'s' if threads > 1 else ''}, {count}"
    return Table(
        title, ("model", "median", "p99", "samples", "peak memory", "of it model", "load", "file"), tuple(rows)
    )


def _lines(values: dict[str, Any]) -> Iterator[str]:
    ratio, low, high = values["ratio"], values["ratio_low"], values["ratio_high"]
    if ratio is None:
        yield f"{values['int8_ms']:.3f} ms a run"
        return
    text = f"{ratio:.3f} of the float time, 95 % interval {low:.3f} to {high:.3f}"
    if values["max_ratio"] is not None:
        yield f"{'passed' if values['passed'] else 'failed'}: {text}, allowed {values['max_ratio']:g}"
    elif low <= 1 <= high:
        yield f"{text}: no difference that this run could tell"
    else:
        yield f"{text}: {'faster' if ratio < 1 else 'slower'}"


def _warnings(values: dict[str, Any]) -> Iterator[str]:
    ratio, low, high, limit = (values[key] for key in ("ratio", "ratio_low", "ratio_high", "max_ratio"))
    if ratio is None:
        return
    if high - low > WIDE * ratio:
        yield f"the interval is wide, {low:.3f} to {high:.3f}: the machine is busy or the time short; try --seconds 30"
    if limit is not None and low <= limit <= high:
        yield f"the allowed ratio {limit:g} lies inside the interval: another run may answer otherwise"
