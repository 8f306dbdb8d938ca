"""Boxes of a detector's answers, in pixels of the pictures that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes.read import FoundBoxes, read_boxes
from fcdeploy.preprocessing.placement import ImageSize, map_to_input
from fcdeploy.records.box_layout import BoxLayout, Detections
from fcdeploy.records.preprocessing import Preprocessing


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
    whole = map_to_input(how, sizes[0])[1]  # all pictures of a request have become inputs of one size
    first = layout.first_class if isinstance(layout, Detections) else 0
    all_found = read_boxes(layout, outputs, len(sizes), (whole.height, whole.width))
    if len(all_found) != len(sizes):
        raise FcdeployError(f"boxes of {len(sizes)} pictures cannot be told apart", "send one")
    for size, found in zip(sizes, all_found, strict=True):
        best = _place_in_picture(_keep_best(found, top), layout, how, size)
        boxes = [_describe(best, at, names, first) for at in range(len(best.boxes))]
        pictures.append({"boxes": boxes, "width": size.width, "height": size.height})
    return pictures


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
