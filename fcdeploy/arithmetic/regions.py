"""Connected regions of maps, and how many of them two maps have in common: what a detector by segmentation answers with.

A region is a run of positions next to each other in a row, and all runs below and above that touch it (4-connected).
"""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Array, Float64

LEAST_AREA = 30  # of a region's box in positions: detectors drop what is smaller
SAME = 0.5  # of the union of two boxes, that is their intersection: from there on they are of one thing


def find_boxes(mask: Array) -> Array:
    """Boxes (boxes, 4) as x0, y0, x1, y1, ends exclusive, of the regions of a map (rows, columns) of booleans."""
    framed = np.pad(mask, ((0, 0), (1, 1)))
    # of each row first a start, then an end; a search along one line takes a third of one along rows and columns
    changes, columns = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), mask.shape[1] + 1)
    rows, starts, ends = changes[::2], columns[::2], columns[1::2]
    root = _join(rows, starts, ends, mask.shape[1])
    _, region = np.unique(root, return_inverse=True)
    boxes = np.zeros((region.max(initial=-1) + 1, 4), np.int64)
    boxes[:, :2] = max(mask.shape)
    np.minimum.at(boxes[:, 0], region, starts)
    np.minimum.at(boxes[:, 1], region, rows)
    np.maximum.at(boxes[:, 2], region, ends)
    np.maximum.at(boxes[:, 3], region, rows + 1)
    return boxes[_area(boxes) > LEAST_AREA]


def _join(rows: Array, starts: Array, ends: Array, columns: int) -> Array:
    """The first run of each run's region: runs [start, end) of rows touch those of the next row that they overlap."""
    width = columns + 1
    first, last = rows * width + starts, rows * width + ends  # runs in order, along one line of all rows
    low = np.searchsorted(last, first + width, side="right")  # of the runs below, the first that ends behind our start
    high = np.searchsorted(first, last + width, side="left")  # and the first that starts behind our end
    count = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(rows)), count)
    below = np.repeat(low - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(count.sum())
    root = np.arange(len(rows))
    while True:
        known = root.copy()
        least = np.minimum(root[above], root[below])
        np.minimum.at(root, known[above], least)
        np.minimum.at(root, known[below], least)
        root = root[root]
        if np.array_equal(root, known):
            return root


def count_common(one: Array, other: Array) -> int:
    """How many boxes of one have a box of the other that is the same by SAME."""
    if not (len(one) and len(other)):
        return 0
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    inner = (high - low).clip(0).prod(axis=2)
    union = _area(one)[:, None] + _area(other)[None] - inner
    return int((inner > SAME * union).any(axis=1).sum())


def compare_regions(one: Array, other: Array) -> Float64:
    """Regions in common and all, (n, 2), counted once in each of two stacks of maps (n, channels, rows, columns)."""
    counts = []
    for maps, others in zip(one, other, strict=True):
        boxes = [(find_boxes(a), find_boxes(b)) for a, b in zip(maps, others, strict=True)]
        both = sum(count_common(a, b) + count_common(b, a) for a, b in boxes)
        counts.append((both, sum(len(a) + len(b) for a, b in boxes)))
    return np.array(counts, np.float64).reshape(-1, 2)


def _area(boxes: Array) -> Array:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
