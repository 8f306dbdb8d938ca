"""What anchors say of boxes, as corners: numbers of outputs lined up, and decoded as `records/box_layout.py` names it.

Where the anchors' own sizes are in code behind the network, usual ones stand for them: both models' boxes are read alike, and
overlaps of centred boxes do not change with a common factor of their sides.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcdeploy.arrays import Array, Float64
from fcdeploy.evaluate.boxes.grids import list_places
from fcdeploy.records.box_layout import Coding, Columns, Form, Grid, Layout

SWAPPED = [1, 0, 3, 2]
NOWHERE = 1e30  # of a box whose numbers an int8 model has lost
LARGEST = 20.0  # of a logarithm of a side: what is larger is infinite in float32 some way further on
VARIANCES = 0.1, 0.2  # of priors, as in the SSD of W. Liu et al. (2016)
PRIOR_SIZES = 2.0, 4.0  # strides of the smallest and the largest of a place: RetinaFace's, and near YOLOv5's


def read_columns(columns: Columns, outputs: Mapping[str, Array]) -> Array:
    """(n, anchors, numbers), those of one place side by side."""
    return line_up(outputs[columns.output], columns.layout, columns.anchors)[..., columns.start : columns.stop]


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


def decode_boxes(boxes: Array, coding: Coding, grids: tuple[Grid, ...] = ()) -> Float64:
    """Corners (n, anchors, 4), x first, of what anchors say of boxes (n, anchors, 4 and more)."""
    numbers = np.nan_to_num(np.asarray(boxes, np.float64), nan=NOWHERE, posinf=NOWHERE, neginf=-NOWHERE)
    if coding in ("corners", "corners, y first", "centre and size"):
        return read_corners(numbers, coding)
    places = np.concatenate([list_places(grid) for grid in grids])
    centres, strides = places[:, :2], places[:, 2:]
    if coding == "offsets":
        corners = _around(centres - 0.5 + numbers[..., :2], _exponential(numbers[..., 2:]))
        return np.asarray(corners * strides)
    if coding == "pixels":
        return _around(centres * strides + numbers[..., :2], numbers[..., 2:4])
    if coding in ("distances", "bins"):
        each = numbers if coding == "distances" else _expect(numbers.reshape(*numbers.shape[:2], 4, -1))
        return np.asarray(np.concatenate([centres - each[..., :2], centres + each[..., 2:]], axis=2) * strides)
    sizes = np.concatenate([_list_prior_sizes(grid) for grid in grids])[:, None]
    if coding in ("logits", "shares"):
        shares = 2 * (squash(numbers) if coding == "logits" else numbers)
        return np.asarray(_around(centres - 1 + shares[..., :2], shares[..., 2:] ** 2 * sizes) * strides)
    if coding == "cells":
        return np.asarray(
            _around(centres - 0.5 + squash(numbers[..., :2]), _exponential(numbers[..., 2:]) * sizes) * strides
        )
    shift, growth = (1.0, 1.0) if coding == "deltas" else VARIANCES
    middle = centres + shift * numbers[..., :2] * sizes
    return np.asarray(_around(middle, _exponential(growth * numbers[..., 2:]) * sizes) * strides)


def read_corners(boxes: Float64, form: Form) -> Float64:
    """Corners (..., 4), x first, of boxes that are decoded."""
    if form == "corners, y first":
        return np.asarray(boxes[..., SWAPPED])
    return _around(boxes[..., :2], boxes[..., 2:]) if form == "centre and size" else boxes


def take_shares(logits: Float64) -> Float64:
    """Those of a Softmax along the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def squash(logits: Array) -> Float64:
    """Shares of logits, by a Sigmoid."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(logits, np.float64), -50, 50))))


def _around(centres: Float64, sides: Float64) -> Float64:
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)


def _list_prior_sizes(grid: Grid) -> Float64:
    """Sides of each anchor's prior box in strides, (anchors,): evenly many times as large from one of a place to the next."""
    least, most = PRIOR_SIZES
    each = np.array([most]) if grid.anchors == 1 else np.geomspace(least, most, grid.anchors)
    return np.tile(each, grid.rows * grid.columns)


def _expect(logits: Float64) -> Float64:
    """What bins (..., bins) of 0, 1, ... are to be expected to be."""
    return np.asarray((take_shares(logits) * np.arange(logits.shape[-1])).sum(axis=-1))


def _exponential(logarithms: Float64) -> Float64:
    return np.exp(np.clip(logarithms, -LARGEST, LARGEST))
