"""Boxes of a detector's answers, in pixels of the pictures that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.evaluate.boxes.detections import Detections, FoundBoxes
from fcdeploy.evaluate.boxes.heads import FORMS, SWAPPED, choose_boxes, decode_boxes
from fcdeploy.preprocessing.placement import ImageSize, map_to_input
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.records.preprocessing import Preprocessing

ROWS_FIRST = "corners, y first"


def describe_boxes(
    layout: BoxLayout,
    how: Preprocessing,
    outputs: Mapping[str, Array],
    sizes: Sequence[ImageSize],
    names: Sequence[str],
    top: int,
) -> list[dict[str, Any]]:
    """Of each picture its size and its boxes: number and name of the class, score, and left, top, right, bottom."""
    pictures = []
    for size, found in zip(sizes, read_boxes(layout, outputs, len(sizes)), strict=True):
        best = _place_in_picture(_keep_best(found, top), layout, how, size)
        boxes = [_describe(best, at, names, layout.first_class) for at in range(len(best.boxes))]
        pictures.append({"boxes": boxes, "width": size.width, "height": size.height})
    return pictures


def read_boxes(layout: BoxLayout, outputs: Mapping[str, Array], count: int) -> list[FoundBoxes]:
    """The boxes that count of each of `count` samples, as corners in what the layout counts in."""
    if layout.head:
        return [_read_anchors(*_split_anchors(layout, outputs, at), layout) for at in range(count)]
    centred = layout.form == "centre and size"
    reader = Detections(layout.boxes, layout.scores, layout.classes, layout.sample, layout.least, centred)
    found = reader.read(outputs, count)
    if layout.form != ROWS_FIRST:
        return found
    return [FoundBoxes(one.boxes[:, SWAPPED], one.scores, one.classes) for one in found]


def _split_anchors(layout: BoxLayout, outputs: Mapping[str, Array], at: int) -> tuple[Array, Array]:
    """Of sample `at` what each anchor says of its box (anchors, 4), and its score of each class (anchors, classes)."""
    rows = np.asarray(outputs[layout.boxes][at], np.float64)
    if layout.head == "anchors apart":
        scores = np.asarray(outputs[str(layout.scores)][at], np.float64)
        scores = scores.reshape(len(scores), -1)
        return rows.reshape(-1, 4), scores if layout.classes is None else np.delete(scores, int(layout.classes), axis=1)
    rows = rows.T if layout.head == "anchors last" else rows
    start = 5 if layout.head == "anchors first" else 4
    classes = rows[:, start:][:, : layout.class_count]
    return rows[:, :4], classes * rows[:, 4:5] if layout.head == "anchors first" else classes


def _read_anchors(rows: Array, scores: Array, layout: BoxLayout) -> FoundBoxes:
    """Each anchor's best class, where its score counts; of boxes of a class that overlap, the best."""
    overlap = 1.0 if layout.overlap is None else layout.overlap
    return choose_boxes(decode_boxes(rows, FORMS[layout.form]), scores, layout.least or 0.0, overlap)


def _keep_best(found: FoundBoxes, top: int) -> FoundBoxes:
    order = np.argsort(-found.scores, kind="stable")[:top]
    return FoundBoxes(found.boxes[order], found.scores[order], found.classes[order])


def _place_in_picture(found: FoundBoxes, layout: BoxLayout, how: Preprocessing, size: ImageSize) -> FoundBoxes:
    """Corners in pixels of the picture, within it."""
    where, whole = map_to_input(how, size)
    corners = found.boxes * ([whole.width, whole.height] * 2 if layout.shares else 1.0)
    across, down = (corners[:, ::2] - where.shift_x) / where.scale_x, (corners[:, 1::2] - where.shift_y) / where.scale_y
    limits = np.clip(across, 0, size.width), np.clip(down, 0, size.height)
    return FoundBoxes(np.stack(limits, axis=2).reshape(-1, 4), found.scores, found.classes)


def _describe(found: FoundBoxes, at: int, names: Sequence[str], first: int) -> dict[str, Any]:
    number = int(found.classes[at])
    return {
        "class": number,
        **({"name": names[number - first]} if 0 <= number - first < len(names) else {}),
        "score": float(found.scores[at]),
        "box": [round(float(end), 2) for end in found.boxes[at]],
    }
