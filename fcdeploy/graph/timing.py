"""Timing several things so that they can be compared on a machine whose speed drifts: in turn, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_ROUNDS = 6  # with fewer, no interval of order statistics reaches 95 %
ROUNDS = 40
WARM_UP = 3


def in_turn(runs: Sequence[Callable[[], object]], seconds: float) -> NDArray[np.float64]:
    """Seconds of one call of each, averaged over a turn: (rounds, runs). Every other round goes the other way round."""
    once = sum(min(_spent(run, 1) for _ in range(WARM_UP)) for run in runs)
    repeats = max(1, int(seconds / ROUNDS / max(once, 1e-9)))
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < FEWEST_ROUNDS or time.perf_counter() - begin < seconds:
        order = list(range(len(runs)))
        spent = {i: _spent(runs[i], repeats) / repeats for i in (order if len(rounds) % 2 == 0 else order[::-1])}
        rounds.append([spent[i] for i in order])
    return np.asarray(rounds)


def _spent(run: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - begin
