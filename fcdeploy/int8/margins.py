"""How likely decisions stay the same, by how far they are from others and how far rounding moved them.

Counted, a model in which one decision in fifty will differ looks like one in five hundred on the samples that there are.
Margins tell them apart: near another decision there are many more samples than those that changed.
"""

from __future__ import annotations

import math

import numpy as np

from fcdeploy.arrays import Array, Float64
from fcdeploy.evaluate.decision import Decision, squeeze

ALIKE = 16  # samples with a margin like it, by whose moves a sample may move
SIZE_TO_SPREAD = math.sqrt(math.pi / 2)  # standard deviation of errors as Gauss has them over their mean size
ODD = 1e-6  # probabilities nearer to 0 or 1 are taken to be so near
LEAST_NEAR = 16  # numbers near a threshold, from which it is told how far rounding moves them
SPREAD = 1 - 1 / math.sqrt(2)  # E[p^2] / E[p] of the chance p to change, of errors as Gauss has them and even margins


def measure_class_margins(scores: Array, axis: int) -> Float64:
    """How far the first class of each sample is above the second, (n,)."""
    rows = np.sort(_line_up(scores, axis), axis=-1)
    with np.errstate(invalid="ignore"):
        margins = rows[:, -1] - rows[:, -2]
    return np.where(np.isnan(margins), 0.0, margins)  # of two infinite scores either may be the class


def measure_class_moves(one: Array, other: Array, axis: int) -> Float64:
    """The margin of each sample's class to the next one, and by how much it moved, (n, 2).

    Where all others are masked, with scores of minus infinity, it is infinite and does not move.
    """
    f, q = (_line_up(scores, axis) for scores in (one, other))
    order = np.argsort(-f, axis=-1)[:, :2]
    (first, second), (same, other_way) = (np.take_along_axis(rows, order, -1).T for rows in (f, q))
    with np.errstate(invalid="ignore"):
        margins, moved = first - second, np.abs((same - other_way) - (first - second))
    return np.stack([margins, np.where(np.isfinite(moved), moved, 0.0)], axis=1)


def expect_equal(moves: Float64, margins: Float64) -> Float64:
    """How likely the class of each of some `margins` (m,) is to stay the same, (m,); `moves` are `measure_class_moves`.

    A margin may move as those of the samples moved that have one like it, so that margins count of many more samples than
    an int8 model was run on.  Each move counts as one of a normal distribution with the same mean size, whatever moves
    are distributed like: where margins lie evenly around zero, only that size decides how many of them change their sign.
    """
    known = moves[np.argsort(moves[:, 0], kind="stable")]
    count = min(ALIKE, len(known))
    begins = np.clip(np.searchsorted(known[:, 0], margins) - count // 2, 0, len(known) - count)
    spreads = SIZE_TO_SPREAD * known[begins[:, None] + np.arange(count), 1]
    return np.array([_stay(m, row) for m, row in zip(margins.tolist(), spreads.tolist(), strict=True)])


def measure_threshold_moves(decision: Decision, one: Array, other: Array) -> Float64:
    """How far each number is above the threshold, and how far the other model moved it, (n, 2): of probabilities as odds."""
    f, q = (np.ravel(np.asarray(array, np.float64)) for array in (one, other))
    least = float(decision.threshold or 0.0)
    if 0.0 < least < 1.0:
        f, q = (np.log(np.clip(p, ODD, 1 - ODD) / np.clip(1 - p, ODD, 1 - ODD)) for p in (f, q))
        least = math.log(least / (1 - least))
    return np.stack([f - least, q - f], axis=1)


def expect_alike(moves: Float64) -> Float64:
    """How likely each decision by a threshold stays the same, by the moves of those that are nearest to it."""
    margin, moved = np.abs(moves[:, 0]), moves[:, 1]
    nearest = np.argsort(margin, kind="stable")[: max(LEAST_NEAR, len(margin) // 4)]
    spread = float(np.sqrt(np.mean(moved[nearest] ** 2)))
    return np.array([_stay(m, [spread]) for m in margin.tolist()])


def estimate_error(share: float, samples: int) -> float:
    """The standard error of the share of decisions that stay the same, of a model with so many of them.

    Not of the samples that were drawn: the few that are near another decision make nearly all of it, and where none was
    drawn, both the changes to expect and their spread look like nothing.
    """
    return math.sqrt((1 - share) * SPREAD / max(samples, 1))


def _line_up(scores: Array, axis: int) -> Float64:
    """Samples by classes, (n, classes)."""
    return np.moveaxis(np.asarray(squeeze(scores), np.float64), axis, -1)


def _stay(margin: float, spreads: list[float]) -> float:
    """The probability that a margin outlasts moves of these sizes, on average."""
    changed = [0.5 * math.erfc(margin / spread / math.sqrt(2)) if spread > 0 else 0.0 for spread in spreads]
    return 1 - sum(changed) / len(changed)
