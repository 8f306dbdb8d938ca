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
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.grids import are_shares
from fcdeploy.evaluate.boxes.read import FoundBoxes, read_boxes, read_column
from fcdeploy.records.box_layout import Detections

CONFIDENT = 0.25  # of the score, where scores are shares: the least that detectors show unless asked otherwise


ROWS_FIRST = ("detection_boxes", "TFLite_Detection_PostProcess")  # TensorFlow's: y before x, "NAME:0" too
NO_CLASS = (
    "background",
    "__background__",
    "bg",
    "???",
    "n/a",
    "none",
    "unlabeled",
)  # the first name, where 0 is no class


def find_detections(outputs: Arrays, selected: Iterable[str]) -> Detections | None:
    """The outputs that are boxes, given the float model's first answers; `selected` are those whose rows depend on values."""
    layouts = [_read_layout(name, outputs) for name in selected if outputs[name].ndim in (2, 3)]
    found = [layout for layout in layouts if layout is not None]
    return max(found, key=lambda one: (_have_area(one, outputs), "box" in one.boxes.lower()), default=None)


def describe_chosen(found: Detections, outputs: Arrays, count: int, names: Sequence[str] = ()) -> Detections | None:
    """The same with what the coordinates and the numbers of classes mean, by the boxes in some answers; None without a box."""
    boxes = [one for one in read_boxes(found, outputs, count, None) if len(one.boxes)]
    if not boxes:
        return None
    shares = are_shares(np.concatenate([one.boxes for one in boxes]))
    if found.form != "corners" or not _is_tensorflow(found, outputs):
        return replace(found, shares=shares, first_class=_find_first_class(boxes, names, 0))
    first = int(found.boxes.startswith(ROWS_FIRST[0]) and (not names or names[0].lower() not in NO_CLASS))
    first = _find_first_class(boxes, names, first)
    return replace(found, form="corners, y first", shares=shares, first_class=first)


def _is_tensorflow(found: Detections, outputs: Arrays) -> bool:
    """By name; else by how many boxes there are, which nobody else writes as floats."""
    if found.boxes.partition(":")[0] in ROWS_FIRST:
        return True
    rows = outputs[found.boxes]
    return rows.ndim == 3 and any(
        array.dtype.kind == "f"
        and name not in found.names
        and array.size == len(rows)
        and bool((array == np.rint(array)).all())
        and 0 <= array.min() <= array.max() <= rows.shape[1]
        for name, array in outputs.items()
    )


def _find_first_class(boxes: Sequence[FoundBoxes], names: Sequence[str], usual: int) -> int:
    """1 where the last class has as its number how many names there are, 0 where a box has that number."""
    classes = np.concatenate([one.classes for one in boxes])
    if classes.min() <= 0:
        return 0
    return 1 if names and classes.max() == len(names) else usual


def _have_area(layout: Detections, outputs: Arrays) -> bool:
    """Whether all rows are boxes or padding: scores of four classes are not."""
    start = 1 if layout.sample is not None else 0
    ends = outputs[layout.boxes][..., start : start + 4].reshape(-1, 4)
    return bool((ends[:, 2:] >= (ends[:, :2] if layout.form == "corners" else 0)).all())


def _read_layout(name: str, outputs: Arrays) -> Detections | None:
    """Where boxes, scores and classes are if the output holds boxes, and from which score on they count."""
    rows = outputs[name]
    layout = _find_columns(name, outputs) if rows.dtype.kind == "f" else None
    if layout is None:
        return None
    start = 1 if layout.sample is not None else 0
    ends = rows[..., start : start + 4].reshape(-1, 4)
    values = np.zeros(0) if layout.scores is None else read_column(outputs, layout.scores, rows)
    values = values[values != -1]  # what some pad with
    shares = values.size > 0 and values.min() >= 0 and CONFIDENT <= values.max() <= 1
    centred = bool((ends[:, 2:] < ends[:, :2]).any())
    return replace(layout, least=CONFIDENT if shares else None, form="centre and size" if centred else "corners")


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
