"""Models timed in turn, so that a machine whose speed drifts is slow for all of them alike.

Its speed drifts by more than the differences of interest.  So the models run in short turns, one after the other, each
round gives one ratio, and what counts is the median of the ratios with an interval from their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.intervals import median_interval
from fcdeploy.records.progress import OnStep

Run = Callable[[], object]
WARM_UP = 5  # runs; the first ones allocate
ROUNDS = 60  # wanted: enough for a narrow interval, and each turn is still long against the clock's own noise
FEWEST_ROUNDS = 6  # with fewer, no interval of order statistics reaches 95 %
PATIENCE = 4  # times the time that was asked for, where the interval is not narrow enough by then


@dataclass(frozen=True)
class Timed:
    """Milliseconds of every single call, and their mean in each turn."""

    runs: NDArray[np.float64]
    turns: NDArray[np.float64]


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


def measure(
    runs: Sequence[Run], seconds: float, on_step: OnStep | None = None, interval: float | None = None
) -> list[Timed]:
    """Call the runs in turn; every other round the other way round, so that neither always comes first.

    Takes `seconds`, more only where the fewest rounds do, or, with two runs, where the interval of their ratio is not
    yet narrower than `interval` (relative to the ratio): then up to `PATIENCE` times as long.
    """
    once = sum(min(_turn(run, WARM_UP)) for run in runs)
    repeats = max(1, int(seconds / ROUNDS / once))
    expected = max(FEWEST_ROUNDS, round(seconds / (once * repeats)))
    rounds: list[list[list[float]]] = []
    begin = time.perf_counter()
    while _goes_on(rounds, time.perf_counter() - begin, seconds, interval if len(runs) == 2 else None):
        order = list(enumerate(runs))
        turns = {index: _turn(run, repeats) for index, run in (order if len(rounds) % 2 == 0 else order[::-1])}
        rounds.append([turns[index] for index in range(len(runs))])
        if on_step:
            on_step("timing", min(len(rounds), expected), expected)
    spent = 1e3 * np.asarray(rounds)  # (rounds, runs, repeats)
    return [Timed(spent[:, index].ravel(), spent[:, index].mean(axis=1)) for index in range(len(runs))]


def ratio_of(one: Timed, other: Timed) -> Ratio:
    """The time of `one` relative to that of `other`, round by round."""
    ratios = one.turns / other.turns
    return Ratio(float(np.median(ratios)), *median_interval(ratios))


def _goes_on(rounds: list[list[list[float]]], spent: float, seconds: float, interval: float | None) -> bool:
    if len(rounds) < FEWEST_ROUNDS or spent < seconds:
        return True
    if interval is None or spent >= PATIENCE * seconds:
        return False
    one, other = np.asarray(rounds).mean(axis=2).T
    return ratio_of(Timed(one, one), Timed(other, other)).width > interval


def _turn(run: Run, repeats: int) -> list[float]:
    """Seconds of each of so many calls."""
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begin)
    return spent
