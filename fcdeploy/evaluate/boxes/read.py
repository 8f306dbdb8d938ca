"""The boxes of answers: those that the graph chose, or the best of anchors' that overlap, chosen as a detector's users do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fcdeploy.arithmetic.set_metrics import suppress_boxes
from fcdeploy.arrays import Array, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes.decode import decode_boxes, read_columns, read_corners, squash, take_shares
from fcdeploy.evaluate.boxes.grids import Size, fit_grids
from fcdeploy.records.box_layout import FORMS, AnchorHead, BoxLayout, Detections, Grid, Level
from fcdeploy.records.box_layout_fit import explain_misfit

MOST_CANDIDATES, MOST_BOXES = 1000, 300  # of a sample, before and after overlapping ones are left out: that takes time


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes of one sample: corners (k, 4), x first, scores and classes (k,)."""

    boxes: Array
    scores: Array
    classes: Array


def read_boxes(layout: BoxLayout, outputs: Mapping[str, Array], count: int, size: Size) -> list[FoundBoxes]:
    """The boxes of each of `count` pictures of a size (height, width) that are shown at the lowest score.

    Raises FcdeployError where outputs are not of the shapes that the layout reads.
    """
    if isinstance(layout, Detections):
        return _read_chosen(layout, outputs, count)
    boxes, scores = read_anchors(layout, outputs, size)
    if len(boxes) < count:
        raise FcdeployError(f"output {layout.boxes!r} has {len(boxes)} samples, expected {count}", "give one picture")
    return [choose_boxes(boxes[at], scores[at], layout.shown_from[0], layout.overlap) for at in range(count)]


def read_anchors(head: AnchorHead, outputs: Mapping[str, Array], size: Size) -> tuple[Float64, Array]:
    """Corners (n, anchors, 4) and scores (n, anchors, classes) of all levels."""
    _check_shapes(head, outputs)
    boxes = [_read_level(head, level, outputs, size) for level in head.levels]
    scores = [_read_scores(head, level, outputs) for level in head.levels]
    return np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)


def _check_shapes(layout: BoxLayout, outputs: Mapping[str, Array]) -> None:
    misfit = explain_misfit(layout, {name: np.shape(array) for name, array in outputs.items()})
    if misfit:
        raise FcdeployError(f"boxes cannot be read: {misfit}", "fcdeploy quantize, or bundle, finds them again")


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


def read_column(outputs: Mapping[str, Array], name: str | int | None, rows: Array) -> Array:
    """An output, or a column of `rows`; zeros where there is neither."""
    if isinstance(name, str):
        return outputs[name]
    return np.zeros(rows.shape[:-1]) if name is None else rows[..., name]


def _read_chosen(layout: Detections, outputs: Mapping[str, Array], count: int) -> list[FoundBoxes]:
    _check_shapes(layout, outputs)
    rows = outputs[layout.boxes]
    start = 1 if layout.sample is not None else 0
    boxes = rows[..., start : start + 4]
    scores, classes = (read_column(outputs, name, rows) for name in (layout.scores, layout.classes))
    if layout.sample is not None:
        of = rows[..., layout.sample].reshape(-1)
        split = [(of == i) for i in range(count)]
        parts = [(boxes.reshape(-1, 4)[own], scores.reshape(-1)[own], classes.reshape(-1)[own]) for own in split]
    elif boxes.ndim == 2:
        parts = [(boxes, scores.reshape(-1), classes.reshape(-1))]
    else:
        parts = list(zip(boxes, scores.reshape(boxes.shape[:2]), classes.reshape(boxes.shape[:2]), strict=True))
    return [_leave_out_padding(layout, *part) for part in parts]


def _leave_out_padding(layout: Detections, boxes: Array, scores: Array, classes: Array) -> FoundBoxes:
    corners = read_corners(boxes.astype(np.float64), layout.form)
    counts = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (classes >= 0)  # padding has no area, or no class
    if layout.least is not None:
        counts &= scores >= layout.least
    return FoundBoxes(corners[counts], scores[counts].astype(np.float64), classes[counts].astype(np.int64))


def _read_level(head: AnchorHead, level: Level, outputs: Mapping[str, Array], size: Size) -> Float64:
    numbers = read_columns(level.boxes, outputs)
    if head.coding in FORMS:
        return decode_boxes(numbers, head.coding)
    return decode_boxes(numbers, head.coding, _find_grids(level, outputs[level.boxes.output], numbers.shape[1], size))


def _find_grids(level: Level, array: Array, anchors: int, size: Size) -> tuple[Grid, ...]:
    """Those of the level's maps in a picture of this size; of an output that is a map, as it is. Raises FcdeployError."""
    where = {"map": (2, 3), "maps of anchors": (2, 3), "map, channels last": (1, 2)}.get(level.boxes.layout)
    if where is not None:
        rows, columns = (array.shape[axis] for axis in where)
        return tuple(Grid(rows, columns, grid.stride, grid.anchors) for grid in level.grids)
    grids = fit_grids(level.grids, anchors, size)
    if not grids:
        strides = ", ".join(str(grid.stride) for grid in level.grids)
        raise FcdeployError(
            f"output {level.boxes.output!r} has {anchors} anchors, expected those of strides {strides} in pictures of {size}",
            "give pictures whose sides are multiples of the largest stride",
        )
    return grids


def _read_scores(head: AnchorHead, level: Level, outputs: Mapping[str, Array]) -> Array:
    scores = _finish(head, read_columns(level.scores, outputs))
    if head.background is not None:
        scores = np.delete(scores, head.background, axis=2)
    if level.objectness is None:
        return scores
    there = read_columns(level.objectness, outputs)  # one share, also where those of classes add up to 1
    return scores * _finish(replace(head, left="sigmoid") if head.left == "softmax" else head, there)


def _finish(head: AnchorHead, scores: Array) -> Array:
    """Shares, of what the network ends in; none of what an int8 model has lost."""
    scores = scores if np.isfinite(scores).all() else np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    if head.left == "softmax":
        return take_shares(np.asarray(scores, np.float64))
    return squash(scores) if head.left else scores
