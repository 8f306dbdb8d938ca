"""How an output becomes decisions: along which axis its scores lie, above which threshold it says yes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcdeploy.arithmetic.set_metrics import collapse_steps, count_equal_rows
from fcdeploy.arrays import Array

READ_AT = (0.3, 0.4, 0.5, 0.6, 0.7)  # thresholds of things in a map, or of scores: who reads them has one of his own


@dataclass(frozen=True)
class AnchorScores:
    """Where an output has the scores of anchors, beside other numbers: channels `start` to before `stop` of `axis`.

    With `objectness` the first of them says how likely an object is there, the others which it is: a score is a product of both.
    """

    axis: int
    start: int
    stop: int
    objectness: bool = False

    def read(self, output: Array) -> Array:
        """The scores (n, anchors, classes) of an output (n, anchors, channels) or (n, channels, anchors)."""
        scores = np.moveaxis(output, self.axis, -1)[..., self.start : self.stop]
        return scores[..., :1] * scores[..., 1:] if self.objectness else scores


@dataclass(frozen=True)
class Decision:
    """How an output decides.

    `axis` holds the scores of `classes`; None: one score a class 1 above `threshold`, or integers that are decisions.
    `text`: the arg max along steps, repeats and the class `blank` left out, is one answer.  `sparse`: only positions
    above the threshold in one of two models count, or with `background`, the class of positions where nothing is, those
    of another class.  `rows`: a set of rows of integers, whose order is chance.  `anchors`: the scores are channels among
    others, and a decision is of how many thresholds one is above.
    """

    axis: int | None
    classes: int | None
    threshold: float | None = None
    blank: int | None = None
    sparse: bool = False
    rows: bool = False
    background: int | None = None
    anchors: AnchorScores | None = None

    def __call__(self, output: Array) -> Array:
        output = self.read_scores(output)
        if self.axis is not None:
            return np.asarray(output.argmax(axis=self.axis))
        if self.anchors is not None:  # who reads them has a threshold of his own
            return np.searchsorted(READ_AT, output)
        return output if self.threshold is None else (output > self.threshold).astype(np.int64)

    def read_scores(self, output: Array) -> Array:
        """The numbers of an output that decide."""
        return output if self.anchors is None else self.anchors.read(output)

    def __str__(self) -> str:
        if self.anchors is not None:
            return f"overlap of anchors that score above {READ_AT[0]:g} to {READ_AT[-1]:g}"
        if self.blank is not None:
            return f"the text of arg max over axis {self.axis}, class {self.blank} between letters"
        if self.background is not None:
            return f"arg max over axis {self.axis}, where it is not class {self.background}"
        if self.axis is not None:
            return f"arg max over axis {self.axis}"
        if self.threshold is None:
            return "its own rows, in any order" if self.rows else "its own values"
        return f"overlap of what is above {self.threshold:g}" if self.sparse else f"above {self.threshold:g}"

    @property
    def counted(self) -> str:
        """What a share of equal ones is a share of."""
        if self.blank is not None:
            return "equal texts"
        if self.anchors is not None:
            return "of anchors found by both"
        if self.background is not None:
            return "of positions found by both"
        if self.sparse:
            return "of boxes found by both" if self.rows else "overlap"
        return "equal rows" if self.rows else "equal decisions"

    def count_equal(self, one: Array, other: Array) -> tuple[Array, Array]:
        """Equal decisions and all that count, by sample (n,), of two arrays of decisions (n, ...).

        Of a decoder that stops by itself one may have more steps: those that the other lacks are not equal.
        """
        if self.blank is not None:
            same = [one == other for one, other in zip(self.texts(one), self.texts(other), strict=True)]
            return np.array(same, np.float64), np.ones(len(one))
        if self.rows:
            parts = [count_equal_rows(one, other)] + [(0, 0)] * (len(one) - 1)  # rows are not a sample's each
            return np.array([equal for equal, _ in parts], float), np.array([count for _, count in parts], float)
        if one.shape != other.shape:
            common = tuple(slice(min(lengths)) for lengths in zip(one.shape, other.shape, strict=True))
            equal = (one[common] == other[common]).reshape(len(one), -1).sum(axis=1)
            return np.asarray(equal, np.float64), np.full(len(one), float(max(one[0].size, other[0].size)))
        rows, others = one.reshape(len(one), -1), other.reshape(len(other), -1)
        if self.background is not None:
            found, also = rows != self.background, others != self.background
            both = found & (rows == others)
            return 2.0 * both.sum(axis=1), np.asarray(found.sum(axis=1) + also.sum(axis=1), np.float64)
        if self.sparse:  # F1: twice what both have, over what either has
            both = np.minimum(rows, others)  # of how many thresholds a score is above, all those count
            return 2.0 * both.sum(axis=1), np.asarray((rows + others).sum(axis=1), np.float64)
        return np.asarray((rows == others).sum(axis=1), np.float64), np.full(len(one), float(rows.shape[1]))

    def has_steps(self, one: Array, other: Array) -> bool:
        """Whether two outputs (n, ...) may differ in shape by how many steps they have: their classes are as many."""
        if self.axis is None or one.ndim != other.ndim or len(one) != len(other):
            return False
        one, other = squeeze(one), squeeze(other)
        return one.ndim == other.ndim == 3 and one.shape[self.axis] == other.shape[self.axis]

    def texts(self, steps: Array) -> list[list[int]]:
        """What each row of decisions (n, steps) says: letters of a text by CTC, else the classes as they are."""
        return [row.tolist() if self.blank is None else collapse_steps(row, self.blank) for row in steps]


def infer_decision(output: Array, probability: bool, labelled: bool) -> Decision | None:
    """How an output decides by its shape alone: an axis of scores, integers, one probability, or not at all."""
    output = squeeze(output)
    if output.dtype.kind in "biu":
        return Decision(None, None)
    if output.dtype.kind in "OSU":
        return None
    if output.ndim < 2:
        return Decision(None, 2, 0.5 if probability else 0.0) if probability or labelled else None
    axis = 1 if output.ndim != 3 else 2
    return Decision(axis, output.shape[axis]) if output.shape[axis] > 1 else None


def decide(decision: Decision, output: Array) -> Array:
    """The decisions (n, ...) that an output makes."""
    return np.asarray(decision(squeeze(output)))


def squeeze(array: Array) -> Array:
    """Without axes of length 1 at the end, but for the samples' own: (n, 10, 1, 1) and (n, 1) as (n, 10) and (n,)."""
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
