"""Boxes that a model found: how many there are depends on values, and their order on rounding, so they are matched.

| outputs | as written by |
|---|---|
| boxes (k, 4), scores (k), classes (k) | torchvision, and any NonMaxSuppression in the graph |
| the same behind an axis of samples, rows without area as padding | TensorFlow's detection models |
| (k, 5) of box and score, classes (k) | MMDetection |
| (k, 6): box, score, class, or box, class, score | end-to-end detectors without a suppression |
| (k, 7): sample, box, class, score | YOLOv7 |

Boxes are corners; where a box of the float model ends before it begins, a centre with width and height.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.set_metrics import MATCH_IOU, match_boxes
from fcdeploy.arrays import Array, Arrays, Float64

CONFIDENT = 0.25  # of the score, where scores are shares: the least that detectors show unless asked otherwise


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes of one sample: corners (k, 4), scores and classes (k,)."""

    boxes: Array
    scores: Array
    classes: Array


@dataclass(frozen=True)
class Detections:
    """Which outputs hold boxes, scores and classes, or in which columns of `boxes` they are; `least` is the score that counts."""

    boxes: str
    scores: str | int | None
    classes: str | int | None
    sample: int | None = None
    least: float | None = None
    centred: bool = False

    def __str__(self) -> str:
        counted = "" if self.least is None else f" of a score of {self.least:g} or more"
        return f"boxes{counted} of the same class that overlap by {MATCH_IOU:g} or more"

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that are compared as boxes."""
        return tuple(name for name in (self.boxes, self.scores, self.classes) if isinstance(name, str))

    def read(self, outputs: Mapping[str, Array], count: int) -> list[FoundBoxes]:
        """The boxes that count, sample by sample."""
        rows = outputs[self.boxes]
        start = 1 if self.sample is not None else 0
        boxes = rows[..., start : start + 4]
        scores, classes = (self._column(outputs, name, rows) for name in (self.scores, self.classes))
        if self.sample is not None:
            of = rows[..., self.sample].reshape(-1)
            split = [(of == i) for i in range(count)]
            parts = [(boxes.reshape(-1, 4)[own], scores.reshape(-1)[own], classes.reshape(-1)[own]) for own in split]
        elif boxes.ndim == 2:
            parts = [(boxes, scores.reshape(-1), classes.reshape(-1))]
        else:
            parts = list(zip(boxes, scores.reshape(boxes.shape[:2]), classes.reshape(boxes.shape[:2]), strict=True))
        return [self._counted(*part) for part in parts]

    def compare(self, one: Iterable[FoundBoxes], other: Iterable[FoundBoxes]) -> Float64:
        """Per sample (n, 2): boxes of either that the other has too, and boxes of either."""
        return np.array([
            (2.0 * len(self._match(f, q)[0]), float(len(f.boxes) + len(q.boxes)))
            for f, q in zip(one, other, strict=True)
        ]).reshape(-1, 2)  # fmt: skip

    def describe(self, name: str) -> str:
        """What one of the outputs is."""
        return "boxes found" if name == self.boxes else "of boxes found"

    def measure(self, f: Mapping[str, Array], q: Mapping[str, Array], count: int) -> dict[str, Fidelity]:
        """How near matched boxes and their scores are, by output."""
        sums = {name: Fidelity() for name in (self.boxes, self.scores) if isinstance(name, str)}
        for one, other in zip(self.read(f, count), self.read(q, count), strict=True):
            left, right = self._match(one, other)
            sums[self.boxes] += measure_fidelity(one.boxes[left], other.boxes[right])
            if isinstance(self.scores, str):
                sums[self.scores] += measure_fidelity(one.scores[left], other.scores[right])
        return sums

    def _match(self, f: FoundBoxes, q: FoundBoxes) -> tuple[Array, Array]:
        return match_boxes(f.boxes, q.boxes, f.classes, q.classes)

    def _column(self, outputs: Mapping[str, Array], name: str | int | None, rows: Array) -> Array:
        if isinstance(name, str):
            return outputs[name]
        return np.zeros(rows.shape[:-1]) if name is None else rows[..., name]

    def _counted(self, boxes: Array, scores: Array, classes: Array) -> FoundBoxes:
        corners = boxes.astype(np.float64)
        if self.centred:
            middle, half = corners[:, :2], corners[:, 2:] / 2
            corners = np.concatenate([middle - half, middle + half], axis=1)
        counts = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (classes >= 0)  # padding has no area, or no class
        if self.least is not None:
            counts &= scores >= self.least
        return FoundBoxes(corners[counts], scores[counts].astype(np.float64), classes[counts].astype(np.int64))


def find_detections(outputs: Arrays, selected: Iterable[str]) -> Detections | None:
    """The outputs that are boxes, given the float model's first answers; `selected` are those whose rows depend on values."""
    layouts = [_read_layout(name, outputs) for name in selected if outputs[name].ndim in (2, 3)]
    found = [layout for layout in layouts if layout is not None]
    return max(found, key=lambda one: (_have_area(one, outputs), "box" in one.boxes.lower()), default=None)


def _have_area(layout: Detections, outputs: Arrays) -> bool:
    """Whether all rows are boxes or padding: scores of four classes are not."""
    start = 1 if layout.sample is not None else 0
    ends = outputs[layout.boxes][..., start : start + 4].reshape(-1, 4)
    return bool((ends[:, 2:] >= (0 if layout.centred else ends[:, :2])).all())


def _read_layout(name: str, outputs: Arrays) -> Detections | None:
    """Where boxes, scores and classes are if the output holds boxes, and from which score on they count."""
    rows = outputs[name]
    layout = _find_columns(name, outputs) if rows.dtype.kind == "f" else None
    if layout is None:
        return None
    start = 1 if layout.sample is not None else 0
    ends = rows[..., start : start + 4].reshape(-1, 4)
    values = np.zeros(0) if layout.scores is None else layout._column(outputs, layout.scores, rows)
    values = values[values != -1]  # what some pad with
    shares = values.size > 0 and values.min() >= 0 and CONFIDENT <= values.max() <= 1
    return replace(layout, least=CONFIDENT if shares else None, centred=bool((ends[:, 2:] < ends[:, :2]).any()))


def _find_columns(name: str, outputs: Arrays) -> Detections | None:
    """The layout by the width of rows, and by which columns and outputs beside hold whole numbers."""
    rows = outputs[name]
    scores, classes = _find_beside(name, outputs)
    width = rows.shape[-1]
    if width == 4 and (scores or classes):
        return Detections(name, scores, classes)
    if width == 5 and classes:
        return Detections(name, 4, classes)
    if width == 6 and _is_whole(rows[..., 5]):
        return Detections(name, 4, 5)
    if width == 6 and _is_whole(rows[..., 4]):
        return Detections(name, 5, 4)
    if width == 7 and rows.ndim == 2 and _is_whole(rows[..., 0]) and _is_whole(rows[..., 5]):
        return Detections(name, 6, 5, sample=0)
    return None


def _find_beside(name: str, outputs: Arrays) -> tuple[str | None, str | None]:
    """The outputs with a score and a class for each row: classes are integers, or the first floats that are whole."""
    rows = outputs[name]
    beside = {
        other: value for other, value in outputs.items()
        if other != name and value.shape in (rows.shape[:-1], (*rows.shape[:-1], 1))
    }  # fmt: skip
    whole = [other for other, value in beside.items() if value.dtype.kind in "iu"]
    floats = [other for other, value in beside.items() if value.dtype.kind == "f"]
    whole = whole or [other for other in floats if len(floats) > 1 and _is_whole(beside[other])]
    classes = min(whole, key=lambda other: not re.search("class|label", other.lower()), default=None)
    floats = [other for other in floats if other != classes]
    scores = min(floats, key=lambda other: (not re.search("score|conf", other.lower()), other in whole), default=None)
    return scores, classes


def _is_whole(values: Array) -> bool:
    return bool((values == np.rint(values)).all())
