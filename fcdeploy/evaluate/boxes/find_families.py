"""Heads of families of networks whose shapes nothing else has: MediaPipe's, and YOLOv2's single map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.decode import decode_boxes, line_up, squash
from fcdeploy.evaluate.boxes.find_maps import ALL_QUIET, QUIET, WITH_OBJECTNESS
from fcdeploy.evaluate.boxes.grids import IN_PLACE, SLACK, make_grid
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import BOX, AnchorHead, Columns, Grid, Left, Level

MEDIAPIPE = (
    ((8, 2), (16, 6)), ((16, 2), (32, 6)), ((8, 2), (16, 2), (32, 6)), ((4, 1),),
)  # fmt: skip
"""Strides and anchors at a place: BlazeFace and palms; BlazeFace of the back camera; poses; BlazeFace of the full range."""
FEWEST_POINTS = 2  # of a body behind a box, x and y each
WIDE = 0.3  # of the network's overlap: MediaPipe weighs boxes that overlap by so much, and leaves one
AROUND = 0.5  # of a box's sides, by which points may lie outside it
FOUND = 0.5  # the share from which on an anchor is taken to have an object
YOLO2_STRIDE, YOLO2_ANCHORS, YOLO2_CLASSES = 32, 5, (20, 80)  # VOC and COCO
NO_END = OutputEnd("other")


def find_mediapipe(outputs: Arrays, size: tuple[int, int]) -> AnchorHead | None:
    """Boxes and points (n, anchors, 4 + 2 k) beside a score (n, anchors, 1), or a logit of it; where something is found."""
    for name, array in outputs.items():
        points = array.shape[2] - BOX if array.ndim == 3 else 0
        if points < 2 * FEWEST_POINTS or points % 2:
            continue
        for grids in _list_mediapipe_grids(size, array.shape[1]):
            for other, scores in outputs.items():
                if scores.ndim != 3 or scores.shape != (*array.shape[:2], 1):
                    continue
                left = _read_score(scores)
                shares = squash(scores) if left == "sigmoid" else scores
                if left is None or not _are_around_points(array, shares[..., 0] >= FOUND, grids, size):
                    continue
                rest = Columns(name, "anchors first", BOX)
                level = Level(
                    Columns(name, "anchors first", 0, BOX), Columns(other, "anchors first"), None, grids, rest
                )
                return AnchorHead((level,), "pixels", WIDE, left=left)
    return None


def _list_mediapipe_grids(size: tuple[int, int], anchors: int) -> Iterator[tuple[Grid, ...]]:
    for pattern in MEDIAPIPE:
        grids = tuple(make_grid(*size, stride, count) for stride, count in pattern)
        if sum(grid.count for grid in grids) == anchors:
            yield grids


def _read_score(scores: Array) -> Left | None:
    """What is left to do with scores of an object, of which there is none at most anchors; None where they are no such."""
    shares = bool(scores.min() >= 0 and scores.max() <= 1)
    quiet = float(((scores if shares else squash(scores)) <= QUIET).mean()) >= ALL_QUIET
    return None if not quiet else "" if shares else "sigmoid"


def _are_around_points(numbers: Array, found: Array, grids: tuple[Grid, ...], size: tuple[int, int]) -> bool:
    """Whether anchors (n, anchors) with an object have boxes in the picture, and points in these; none where nothing is found."""
    if not found.any():
        return False
    corners = decode_boxes(numbers[..., :BOX], "pixels", grids)[found]
    places = decode_boxes(np.zeros((*numbers.shape[:2], BOX)), "pixels", grids)[found][:, :2]
    points = numbers[..., BOX:][found].reshape(len(corners), -1, 2) + places[:, None]
    sides = (corners[:, 2:] - corners[:, :2])[:, None]
    inside = (points >= corners[:, None, :2] - AROUND * sides) & (points <= corners[:, None, 2:] + AROUND * sides)
    whole = np.array([size[1], size[0]])
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    placed = (
        (centres >= -SLACK * whole) & (centres <= (1 + SLACK) * whole) & (sides[:, 0] > 0) & (sides[:, 0] <= 2 * whole)
    )
    return bool(inside.mean() >= IN_PLACE and placed.mean() >= IN_PLACE)


def find_yolo2(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """One map (n, 5 * (5 + classes), rows, columns) that a convolution ends in, with an object at few places."""
    grid = make_grid(*size, YOLO2_STRIDE, YOLO2_ANCHORS)
    for name, array in outputs.items():
        each = array.shape[1] // YOLO2_ANCHORS if array.ndim == 4 else 0
        shape = (YOLO2_ANCHORS * each, grid.rows, grid.columns)
        convolved = ends.get(name, NO_END).kind == "convolution"
        if len(outputs) > 1 or not convolved or array.shape[1:] != shape or each - BOX - 1 not in YOLO2_CLASSES:
            continue
        rows = line_up(array, "map", YOLO2_ANCHORS)
        there, shifts = squash(rows[..., BOX]), squash(rows[..., :2])
        if (
            float((there <= QUIET).mean()) < ALL_QUIET
            or not (there >= FOUND).any()
            or (shifts <= QUIET).mean() > 1 - ALL_QUIET
        ):
            continue
        parts = [
            Columns(name, "map", start, stop, YOLO2_ANCHORS)
            for start, stop in ((0, BOX), (BOX + 1, None), (BOX, BOX + 1))
        ]
        return AnchorHead((Level(parts[0], parts[1], parts[2], (grid,)),), "cells", WITH_OBJECTNESS, left="softmax")
    return None
