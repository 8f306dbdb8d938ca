"""Models timed in turn, so that a machine whose speed drifts is slow for all of them alike.

Its speed drifts by more than the differences of interest.  So the models run in short turns, one after the other, each
round gives one ratio, and what counts is the median of the ratios with an interval from their order.  Where its weights
come to lie makes a small model up to 10 % faster or slower for as long as it is loaded, which no number of rounds shows:
so models that load quickly are loaded again and again, and each load counts once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.significance import estimate_median_interval
from fcdeploy.arrays import Float64
from fcdeploy.records.progress import OnStep

Run = Callable[[], object]
Load = Callable[[], Run]
"""Loads a model anew and gives what runs it."""
WARM_UP = 5  # runs; the first ones allocate
WARM_SECONDS = 0.5  # and no more of them than fit, but two
ROUNDS = 60  # wanted of one load: enough for a narrow interval, and each turn is still long against the clock's noise
FEWEST_ROUNDS = 6  # with fewer, no interval of order statistics reaches 95 %
LOADS = 9
PATIENCE = 4  # times the time that was asked for, where the interval is not narrow enough by then


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every single call, and their mean in each turn; `loads` says of which load each turn is."""

    runs: Float64
    turns: Float64
    loads: NDArray[np.intp]


@dataclass(frozen=True)
class Ratio:
    """The median of the paired ratios and its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Of the interval, relative to the median."""
        return (self.high - self.low) / self.median


def time_reloaded(
    loads: Sequence[Load],
    seconds: float,
    on_step: OnStep | None = None,
    interval: float | None = None,
    *,
    label: str = "timing",
) -> list[Timing]:
    """Load the models and time them in turn, LOADS times; once where loading takes longer than the timing.

    Takes `seconds` and the time of loading, more only where the fewest rounds do, or, with two models, where the
    interval of their ratio is not yet narrower than `interval` (relative to the ratio): then up to `PATIENCE` times as
    long.
    """
    begin = time.perf_counter()
    runs = _load_all(loads, backwards=False)
    again = LOADS * (time.perf_counter() - begin) <= seconds
    timings: list[list[Timing]] = []
    elapsed = 0.0
    while True:
        if timings and again:
            runs.clear()  # first, so that no model is loaded twice at a time
            runs += _load_all(loads, backwards=len(timings) % 2 == 1)
        begin = time.perf_counter()
        timings.append(
            time_in_turns(runs, seconds / LOADS if again else seconds, None if again else on_step, label=label)
        )
        elapsed += time.perf_counter() - begin
        if on_step and again:
            on_step(label, min(len(timings), LOADS), LOADS)
        timed = [_join(each, again) for each in zip(*timings, strict=True)]
        wide = interval is not None and len(loads) == 2 and compute_ratio(*timed).width > interval
        if (len(timings) >= LOADS or not again) and not (wide and elapsed < PATIENCE * seconds):
            return timed


def _load_all(loads: Sequence[Load], *, backwards: bool) -> list[Run]:
    """Load each model, the last one first where `backwards`; nothing else holds them."""
    if backwards:
        return [load() for load in reversed(loads)][::-1]
    return [load() for load in loads]


def time_in_turns(
    runs: Sequence[Run], seconds: float, on_step: OnStep | None = None, *, label: str = "timing"
) -> list[Timing]:
    """Call the runs in turn; every other round the other way round, so that neither always comes first.

    Takes `seconds`, more only where the fewest rounds do.  The first calls of a turn do not count where it has many:
    they find the caches full of another model.
    """
    once = sum(_warm_up(run) for run in runs)
    calls = max(1, int(seconds / ROUNDS / once))
    cold = calls // 5
    expected = max(FEWEST_ROUNDS, round(seconds / (once * calls)))
    rounds: list[list[list[float]]] = []
    begin = time.perf_counter()
    while len(rounds) < FEWEST_ROUNDS or time.perf_counter() - begin < seconds:
        order = list(enumerate(runs))
        turns = {i: _time_calls(run, calls)[cold:] for i, run in (order if len(rounds) % 2 == 0 else order[::-1])}
        rounds.append([turns[index] for index in range(len(runs))])
        if on_step:
            on_step(label, min(len(rounds), expected), expected)
    ms = 1e3 * np.asarray(rounds)  # (rounds, runs, calls)
    first = np.zeros(len(rounds), np.intp)
    return [Timing(ms[:, index].ravel(), ms[:, index].mean(axis=1), first) for index in range(len(runs))]


def compute_ratio(one: Timing, other: Timing) -> Ratio:
    """The time of `one` relative to that of `other`: the median over the loads, each of which is one over its rounds."""
    ratios = one.turns / other.turns
    if one.loads[-1] > 0:
        ratios = np.array([np.median(ratios[one.loads == load]) for load in range(one.loads[-1] + 1)])
    return Ratio(float(np.median(ratios)), *estimate_median_interval(ratios))


def _join(parts: Sequence[Timing], again: bool) -> Timing:
    """All turns of a model, of one load each, or of the same one."""
    loads = [np.full(len(part.turns), number if again else 0, np.intp) for number, part in enumerate(parts)]
    runs, turns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("runs", "turns"))
    return Timing(runs, turns, np.concatenate(loads))


def _warm_up(run: Run) -> float:
    """Seconds of a call after warm-up, when memory has been allocated."""
    seconds = _time_calls(run, 2)
    while len(seconds) < WARM_UP and sum(seconds) < WARM_SECONDS:
        seconds += _time_calls(run, 1)
    return min(seconds)


def _time_calls(run: Run, calls: int) -> list[float]:
    """Seconds of each of so many calls."""
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return seconds
