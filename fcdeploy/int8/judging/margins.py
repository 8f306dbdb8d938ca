"""How likely decisions stay the same, by how far they are from others and how far rounding moved them.

Counted, a model in which one decision in fifty will differ looks like one in five hundred on the samples that there are.
Margins tell them apart: near another decision there are many more samples than those that changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Float64
from fcdeploy.evaluate.decision import Decision, squeeze

ALIKE = 16  # samples with a margin like it, by whose moves a sample may move
SIZE_TO_SPREAD = math.sqrt(math.pi / 2)  # standard deviation of errors as Gauss has them over their mean size
ODD = 1e-6  # probabilities nearer to 0 or 1 are taken to be so near
LEAST_NEAR = 16  # numbers near a threshold, from which it is told how far rounding moves them
LEAST_SHARE = 1e-12  # of a class, below which its logarithm says nothing
WHOLE = 1e-3  # by which shares of classes may miss 1
SPREAD = 1 - 1 / math.sqrt(2)  # E[p^2] / E[p] of the chance p to change, of errors as Gauss has them and even margins


@dataclass(frozen=True)
class Margins:
    """Margins (m,) of `samples` decisions, and of which each is: a text has as many as steps that decide it."""

    values: Float64
    sample: NDArray[np.intp]
    samples: int

    def expect_equal(self, moves: Float64) -> Float64:
        """How likely each sample's decision is to stay the same, (samples,): all of its margins outlast their moves."""
        alike = np.ones(self.samples)
        np.multiply.at(alike, self.sample, expect_equal(moves, self.values))
        return alike


def list_class_margins(scores: Array, axis: int) -> Margins:
    """One for each sample."""
    margins = measure_class_margins(scores, axis)
    return Margins(margins, np.arange(len(margins)), len(margins))


def list_text_margins(scores: Array, blank: int) -> Margins:
    """Those of the steps that decide each text, of scores (n, steps, classes)."""
    rows = np.asarray(squeeze(scores), np.float64)
    steps = TextSteps.of(rows, blank)
    return Margins(steps.margins, steps.where[0], len(rows))


def join_margins(parts: list[Margins]) -> Margins:
    """Those of all parts, whose samples are others each."""
    before = np.cumsum([0, *(part.samples for part in parts)])
    sample = [part.sample + first for part, first in zip(parts, before, strict=False)]
    return Margins(np.concatenate([part.values for part in parts]), np.concatenate(sample), int(before[-1]))


@dataclass(frozen=True)
class TextSteps:
    """The steps that decide the texts of a float model's answer: where they are, their two classes in front, and the margins.

    Most steps near a tie lie where one letter begins or ends, and the text is the same either way: they are left out.
    """

    where: tuple[NDArray[np.intp], NDArray[np.intp]]
    classes: NDArray[np.intp]
    margins: Float64

    @classmethod
    def of(cls, rows: Float64, blank: int) -> TextSteps:
        """Those of scores (n, steps, classes)."""
        order = _find_first_two(rows)
        where = np.nonzero(_decides_text(order, blank))
        return cls((where[0], where[1]), order[where], _measure_gaps(rows, order)[where])

    def measure_moves(self, other: Array) -> Float64:
        """The margins, and by how much they moved in another model's scores, (m, 2)."""
        first, second = self.take(other).T
        return np.stack([self.margins, np.abs((first - second) - self.margins)], axis=1)

    def take(self, scores: Array) -> Float64:
        """What another model's scores say of the two classes in front, (m, 2)."""
        return np.asarray(scores[(*(axis[:, None] for axis in self.where), self.classes)], np.float64)


@dataclass(frozen=True)
class TextAnswer:
    """A float model's answer that says texts, read once for all that it is compared with: as it is, and as logarithms."""

    steps: TextSteps
    logits: TextSteps

    @classmethod
    def of(cls, scores: Array, blank: int) -> TextAnswer:
        """That of scores (n, steps, classes)."""
        rows = np.asarray(squeeze(scores), np.float64)
        return cls(TextSteps.of(rows, blank), TextSteps.of(_read_logits(rows), blank))

    def measure_moves(self, other: Array) -> Float64:
        """The margin of each step that decides a text, and by how much it moved, (m, 2)."""
        return self.steps.measure_moves(squeeze(other))

    def measure_noise(self, other: Array) -> Float64:
        """How far the margin of each step that decides a text moved, squared and relative to it, (m,): 1 where it is gone.

        Of shares in logarithms, where all steps tell how large an error is, and not those near a tie alone.
        """
        scores = squeeze(other)
        (first, second), margins = self.logits.take(scores).T, self.logits.margins
        if _are_shares(scores):
            first, second = (np.log(np.maximum(shares, LEAST_SHARE)) for shares in (first, second))
        moved = np.abs((first - second) - margins)
        return np.asarray(np.minimum(moved / np.maximum(margins, 1e-300), 1.0) ** 2)


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
    if not len(moves):
        return np.ones(len(margins))
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


def _read_logits(scores: Float64) -> Float64:
    """Logarithms of shares that add up to 1; other scores as they are."""
    return np.log(np.maximum(scores, LEAST_SHARE)) if _are_shares(scores) else scores


def _are_shares(scores: Array) -> bool:
    sums = scores.sum(axis=-1, dtype=np.float64)
    return bool(scores.min(initial=0.0) >= 0 and np.abs(sums - 1).max(initial=0.0) < WHOLE)


def _find_first_two(rows: Float64) -> NDArray[np.intp]:
    """The classes of the largest score and the next one, (n, steps, 2)."""
    two = np.argpartition(rows, -2, axis=-1)[..., -2:]
    descending = np.argsort(-np.take_along_axis(rows, two, -1), axis=-1)
    return np.take_along_axis(two, descending, -1)


def _measure_gaps(rows: Float64, order: NDArray[np.intp]) -> Float64:
    """By how much the first class of `order` is above the second, (n, steps)."""
    first, second = np.moveaxis(np.take_along_axis(rows, order, -1), -1, 0)
    return np.asarray(first - second)


def _decides_text(order: NDArray[np.intp], blank: int) -> NDArray[np.bool_]:
    """Whether the text is another with a step's second class in place of its first, by CTC, (n, steps)."""
    ends = np.full((len(order), 1), blank)
    path = order[..., 0]
    before, behind = np.hstack([ends, path[:, :-1]]), np.hstack([path[:, 1:], ends])

    def spell(step: NDArray[np.intp]) -> NDArray[np.intp]:
        """The letters that a step and the next one add, as one number: blank for none."""
        own = np.where(step != before, step, blank)
        later = np.where(behind != step, behind, blank)
        # a single letter is the same wherever of the two it comes from
        alone = np.where(own == blank, later, own)
        both = (own != blank) & (later != blank)
        return np.asarray(np.where(both, (own + 1) * (order.max(initial=0) + 2) + later + 1, -alone - 1))

    return np.asarray(spell(path) != spell(order[..., 1]))


def _line_up(scores: Array, axis: int) -> Float64:
    """Samples by classes, (n, classes)."""
    return np.moveaxis(np.asarray(squeeze(scores), np.float64), axis, -1)


def _stay(margin: float, spreads: list[float]) -> float:
    """The probability that a margin outlasts moves of these sizes, on average."""
    changed = [0.5 * math.erfc(margin / spread / math.sqrt(2)) if spread > 0 else 0.0 for spread in spreads]
    return 1 - sum(changed) / len(changed)
