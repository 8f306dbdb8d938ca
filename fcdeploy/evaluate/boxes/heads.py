"""Boxes of detectors of which every anchor answers: decoded, and the best of those that overlap chosen, as their users do.

| coding | numbers of a box | as written by |
|---|---|---|
| corners; corners, y first; centre and size | as they say, in pixels or shares of the picture | YOLOv5 and later, SSD decoded |
| offsets | of the centre to its place, and logarithms of the sides, in strides | YOLOX |
| logits; shares | the same as shares of the way and of the sides, before a Sigmoid or behind it | YOLOv5 before decoding |
| distances | from the place to the four sides, in strides | FCOS, SCRFD |
| bins | logits of distances, as many for each side | GFL, PicoDet, YOLOv8 before decoding |
| priors | offsets to a prior box, in tenths of its sides, and logarithms of the sides, in fifths | SSD, RetinaFace |

Where the anchors' own sizes are in code behind the network, usual ones stand for them: both models' boxes are read alike, and
overlaps of centred boxes do not change with a common factor of their sides.

Who reads boxes has a threshold of his own: they are counted at several, a mean over which tells more than any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.set_metrics import MATCH_IOU, match_boxes, suppress_boxes
from fcdeploy.arrays import Array, Float64
from fcdeploy.evaluate.boxes.detections import FoundBoxes
from fcdeploy.evaluate.boxes.grids import Grid

SHOWN_FROM = (
    0.25,
    0.3,
    0.4,
    0.5,
    0.6,
)  # scores: what Ultralytics and YOLOX show, SSD counts, and who wants to be surer
FEW = 8  # samples: fewer may have no box by chance
MOST_HALVED = 3  # times: below 0.03 there is background
MOST_CANDIDATES, MOST_BOXES = 1000, 300  # of a sample, before and after overlapping ones are left out: that takes time
CANDIDATE = 0.1  # of the score: anchors that may become boxes
ALWAYS = 20  # anchors of a sample with the highest scores are compared, whatever they score
BESIDE = ": behind the scores"  # behind the name of an output whose anchors have other numbers as well
SWAPPED = [1, 0, 3, 2]
NOWHERE = 1e30  # of a box whose numbers an int8 model has lost
LARGEST = 20.0  # of a logarithm of a side: what is larger is infinite in float32 some way further on
VARIANCES = 0.1, 0.2  # of priors, as in the SSD of W. Liu et al. (2016)
PRIOR_SIZES = 2.0, 4.0  # strides of the smallest and the largest of a place: RetinaFace's, and near YOLOv5's
Layout = Literal["anchors first", "anchors last", "map", "map, channels last", "maps of anchors"]
Coding = Literal[
    "corners", "corners, y first", "centre and size", "offsets", "logits", "shares", "distances", "bins", "priors"
]  # fmt: skip


FORMS: dict[str, Coding] = {
    "corners": "corners", "corners, y first": "corners, y first", "centre and size": "centre and size"
}  # fmt: skip
"""Of boxes that are decoded."""


@dataclass(frozen=True)
class Columns:
    """Numbers `start` to before `stop` of each anchor in an output, laid out in one of several ways, `anchors` at a place.

    "map" is (n, anchors * numbers, rows, columns), "maps of anchors" (n, anchors, rows, columns, numbers).
    """

    output: str
    layout: Layout
    start: int = 0
    stop: int | None = None
    anchors: int = 1

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """(n, anchors, numbers), those of one place side by side."""
        return line_up(outputs[self.output], self.layout, self.anchors)[..., self.start : self.stop]


def line_up(array: Array, layout: Layout, anchors: int = 1) -> Array:
    """All numbers of an output as (n, anchors, numbers)."""
    n = len(array)
    if layout == "anchors last":
        return array.transpose(0, 2, 1)
    if layout == "map":
        split = array.reshape(n, anchors, -1, array.shape[2] * array.shape[3])
        array = split.transpose(0, 3, 1, 2)
        return array.reshape(n, -1, split.shape[2])
    if layout == "map, channels last":
        return array.reshape(n, array.shape[1] * array.shape[2] * anchors, -1)
    if layout == "maps of anchors":
        return array.transpose(0, 2, 3, 1, 4).reshape(n, -1, array.shape[4])
    return array.reshape(n, array.shape[1], -1)


@dataclass(frozen=True)
class Level:
    """Anchors of one map, or of all maps: where their boxes, scores and shares of being an object are; `grids` if known.

    `rest` are numbers behind the scores: points of a body, shares of masks.
    """

    boxes: Columns
    scores: Columns
    objectness: Columns | None = None
    grids: tuple[Grid, ...] = ()
    rest: Columns | None = None


@dataclass(frozen=True)
class AnchorHead:
    """Which numbers of which outputs are boxes and scores, how boxes are coded, and what becomes of those that overlap.

    `background` is a class of none, `left` what scores have still to go through.  Boxes are shown from several scores.
    """

    levels: tuple[Level, ...]
    coding: Coding
    overlap: float
    background: int | None = None
    left: Literal["", "sigmoid", "softmax"] = ""
    shown_from: tuple[float, ...] = SHOWN_FROM

    def __str__(self) -> str:
        shown = f"{self.shown_from[0]:g} to {self.shown_from[-1]:g}"
        return (
            f"boxes of scores from {shown} after suppression, of the same class, that overlap by {MATCH_IOU:g} or more"
        )

    @property
    def boxes(self) -> str:
        """The output that stands for all of them."""
        return self.levels[0].boxes.output

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that are compared as boxes."""
        parts = (part for level in self.levels for part in (level.boxes, level.scores, level.objectness))
        return tuple(dict.fromkeys(part.output for part in parts if part is not None))

    def describe(self, name: str) -> str:
        """What one of the outputs is."""
        return "boxes of anchors" if name == self.boxes else "of boxes of anchors"

    def read(self, outputs: Mapping[str, Array], count: int) -> list[FoundBoxes]:
        """The boxes that are shown at the lowest score, sample by sample."""
        boxes, scores = self._read_anchors(outputs)
        return [choose_boxes(boxes[at], scores[at], self.shown_from[0], self.overlap) for at in range(count)]

    def show_more(self, outputs: Mapping[str, Array], count: int) -> AnchorHead:
        """The same head, with boxes shown from lower scores where some answers have less than a box a sample.

        By those few an error would not be seen, and it moves high and low scores by alike shares.
        """
        head = self
        for _ in range(MOST_HALVED if count >= FEW else 0):
            if sum(len(each.boxes) for each in head.read(outputs, count)) >= count:
                break
            head = replace(head, shown_from=tuple(score / 2 for score in head.shown_from))
        return head

    def compare(self, one: Iterable[FoundBoxes], other: Iterable[FoundBoxes]) -> Float64:
        """Per sample (n, 2): boxes of either that the other has too, and boxes of either; means over scores to be shown from."""
        rows = [
            np.mean([_compare_from(least, f, q) for least in self.shown_from], axis=0)
            for f, q in zip(one, other, strict=True)
        ]
        return np.array(rows).reshape(-1, 2)

    def measure(self, f: Mapping[str, Array], q: Mapping[str, Array], count: int) -> dict[str, Fidelity]:
        """How near scores and boxes are of anchors that may become boxes: boxes in shares of their sides.

        What stands behind the scores decides nothing, and is compared apart, where the float model shows a box.
        """
        one, other = self._read_anchors(f), self._read_anchors(q)
        total = Fidelity()
        for at in range(count):
            total += _measure_candidates(*(each[at] for each in one), *(each[at] for each in other))
        return {self.boxes: total, **self._measure_rest(f, q, count)}

    def _measure_rest(self, f: Mapping[str, Array], q: Mapping[str, Array], count: int) -> dict[str, Fidelity]:
        if any(level.rest is None for level in self.levels):
            return {}
        shown = self._read_anchors(f)[1][:count].max(axis=2) >= self.shown_from[0]
        one, other = (
            np.concatenate([level.rest.read(each) for level in self.levels if level.rest is not None], axis=1)[:count][
                shown
            ]
            for each in (f, q)
        )
        return {self.boxes + BESIDE: measure_fidelity(one, other)}

    def _read_anchors(self, outputs: Mapping[str, Array]) -> tuple[Float64, Array]:
        """Corners (n, anchors, 4) and scores (n, anchors, classes) of all levels."""
        boxes = [decode_boxes(level.boxes.read(outputs), self.coding, level.grids) for level in self.levels]
        scores = [self._read_scores(level, outputs) for level in self.levels]
        return np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)

    def _read_scores(self, level: Level, outputs: Mapping[str, Array]) -> Array:
        scores = self._finish(level.scores.read(outputs))
        if self.background is not None:
            scores = np.delete(scores, self.background, axis=2)
        return scores if level.objectness is None else scores * self._finish(level.objectness.read(outputs))

    def _finish(self, scores: Array) -> Array:
        """Shares, of what the network ends in; none of what an int8 model has lost."""
        scores = scores if np.isfinite(scores).all() else np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
        if self.left == "softmax":
            return _take_shares(np.asarray(scores, np.float64))
        return squash(scores) if self.left else scores


def choose_boxes(
    corners: Array, scores: Array, least: float, overlap: float, most: int = MOST_CANDIDATES
) -> FoundBoxes:
    """Of anchors (anchors, 4) and (anchors, classes) each one's best class, where it scores at least so much; the best of those
    of a class that overlap by more than `overlap`."""
    best = scores.max(axis=1)
    shown = np.flatnonzero(best >= least)  # few of thousands
    order = shown[np.argsort(-best[shown], kind="stable")][:most]
    classes = scores[order].argmax(axis=1)
    kept = suppress_boxes(corners[order], classes, overlap, MOST_BOXES)
    return FoundBoxes(corners[order[kept]], np.asarray(best[order[kept]], np.float64), classes[kept])


def decode_boxes(boxes: Array, coding: Coding, grids: tuple[Grid, ...] = ()) -> Float64:
    """Corners (n, anchors, 4), x first, of what anchors say of boxes (n, anchors, 4 and more)."""
    numbers = np.nan_to_num(np.asarray(boxes, np.float64), nan=NOWHERE, posinf=NOWHERE, neginf=-NOWHERE)
    if coding == "corners":
        return numbers
    if coding == "corners, y first":
        return np.asarray(numbers[..., SWAPPED])
    if coding == "centre and size":
        return _around(numbers[..., :2], numbers[..., 2:])
    places = np.concatenate([grid.list_places() for grid in grids])
    centres, strides = places[:, :2], places[:, 2:]
    if coding == "offsets":
        corners = _around(centres - 0.5 + numbers[..., :2], _exponential(numbers[..., 2:]))
        return np.asarray(corners * strides)
    if coding in ("distances", "bins"):
        each = numbers if coding == "distances" else _expect(numbers.reshape(*numbers.shape[:2], 4, -1))
        return np.asarray(np.concatenate([centres - each[..., :2], centres + each[..., 2:]], axis=2) * strides)
    sizes = np.concatenate([_list_prior_sizes(grid) for grid in grids])[:, None]
    if coding in ("logits", "shares"):
        shares = 2 * (squash(numbers) if coding == "logits" else numbers)
        return np.asarray(_around(centres - 1 + shares[..., :2], shares[..., 2:] ** 2 * sizes) * strides)
    shift, growth = VARIANCES
    middle = centres + shift * numbers[..., :2] * sizes
    return np.asarray(_around(middle, _exponential(growth * numbers[..., 2:]) * sizes) * strides)


def _measure_candidates(boxes: Float64, scores: Array, others: Float64, other_scores: Array) -> Fidelity:
    """Of the anchors of a sample (anchors, ...), those that may become boxes in either model."""
    best = scores.max(axis=1)
    at = (best >= CANDIDATE) | (other_scores.max(axis=1) >= CANDIDATE)
    at[np.argsort(-best, kind="stable")[:ALWAYS]] = True
    sides = np.maximum(boxes[at, 2:] - boxes[at, :2], 1e-6)
    centres = (boxes[at, 2:] + boxes[at, :2]) / 2
    one, other = ((each[at] - np.tile(centres, 2)) / np.tile(sides, 2) for each in (boxes, others))
    return measure_fidelity(
        np.concatenate([scores[at], one], axis=1), np.concatenate([other_scores[at], other], axis=1)
    )


def _compare_from(least: float, f: FoundBoxes, q: FoundBoxes) -> tuple[float, float]:
    """What is matched, and all, of the boxes that score so much: those of a lower score had no part in their choice."""
    (boxes, classes), (others, other_classes) = (
        (each.boxes[each.scores >= least], each.classes[each.scores >= least]) for each in (f, q)
    )
    matched, _ = match_boxes(boxes, others, classes, other_classes)
    return 2.0 * len(matched), float(len(boxes) + len(others))


def _around(centres: Float64, sides: Float64) -> Float64:
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)


def _list_prior_sizes(grid: Grid) -> Float64:
    """Sides of each anchor's prior box in strides, (anchors,): evenly many times as large from one of a place to the next."""
    least, most = PRIOR_SIZES
    each = np.array([most]) if grid.anchors == 1 else np.geomspace(least, most, grid.anchors)
    return np.tile(each, grid.rows * grid.columns)


def _expect(logits: Float64) -> Float64:
    """What bins (..., bins) of 0, 1, ... are to be expected to be."""
    return np.asarray((_take_shares(logits) * np.arange(logits.shape[-1])).sum(axis=-1))


def _take_shares(logits: Float64) -> Float64:
    """Those of a Softmax along the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def _exponential(logarithms: Float64) -> Float64:
    return np.exp(np.clip(logarithms, -LARGEST, LARGEST))


def squash(logits: Array) -> Float64:
    """Shares of logits, by a Sigmoid."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(logits, np.float64), -50, 50))))
