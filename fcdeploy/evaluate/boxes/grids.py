"""Where anchors lie in a picture, and what their numbers say of boxes: strides, grids, corners or sizes, which coordinate is y.

Anchors are written row by row, so that the centres of neighbours lie beside each other, and x changes faster than y.  It tells
boxes from offsets, and boxes with y first from those with x first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.records.box_layout import Form, Grid

ALL_STRIDES = (4, 8, 16, 32, 64, 128)
STRIDES = [ALL_STRIDES[at:end] for at in range(5) for end in range(at + 2, 7)]
"""Of heads: two maps at least, each half as wide as the one before. Small pictures have heads without the coarse ones."""
COARSEST = 64  # stride of heads that are told by how many places there are alone; RetinaNet's go to 128
MOST_A_PLACE = 9  # anchors: RetinaNet's three sizes in three shapes
IN_PLACE = 0.95  # of the anchors' boxes: some of those without an object come out anywhere
SLACK = 0.05  # of a side, by which the centre of a box may miss the input
SHARES = 2.0  # boxes whose ends are all smaller are shares of the input: in pixels they would be specks
SMOOTH = 0.5  # of the steps that centres in no order take: 0.05 to 0.3 across a grid of 8 x 8 and larger ones
FASTER = 1.5  # times y, if a coordinate is x
NEAR_PLACE = 4.0  # strides between a box's centre and its anchor's place: 1.8 for 99 of 100 in YOLOv8, 1.5 in YOLOv5
CHANNELS = (1, 3, 4)  # of a picture


Size = tuple[int, int] | None
"""Height and width of pictures; None where the inputs are none."""


def list_places(grid: Grid) -> Float64:
    """The centre of each anchor's place in strides, x and y, and the stride, (anchors, 3): those of a place side by side."""
    y, x = np.meshgrid(np.arange(grid.rows) + 0.5, np.arange(grid.columns) + 0.5, indexing="ij")
    places = np.stack([x, y, np.full_like(x, grid.stride)], axis=-1).reshape(-1, 3)
    return np.repeat(places, grid.anchors, axis=0)


def find_picture_size(inputs: Arrays) -> Size:
    """Height and width of the only input that is a batch of pictures; None where none is, or several."""
    pictures = [array for array in inputs.values() if array.ndim == 4]
    if len(pictures) != 1:
        return None
    shape = pictures[0].shape
    if shape[1] in CHANNELS:
        return shape[2], shape[3]
    return (shape[1], shape[2]) if shape[3] in CHANNELS else None


def make_grid(height: int, width: int, stride: int, anchors: int = 1, *, whole: bool = False) -> Grid:
    """A map of a network that pads: it has a place for what is left at the edges; or with `whole` places only."""
    up = 0 if whole else stride - 1
    return Grid((height + up) // stride, (width + up) // stride, stride, anchors)


def list_grids(anchors: int, height: int, width: int) -> Iterator[tuple[Grid, ...]]:
    """The grids of several strides that have so many anchors together, as many at each place; fewest a place first."""
    for whole in (False, True):
        for each, strides in product(range(1, MOST_A_PLACE + 1), STRIDES):
            grids = tuple(make_grid(height, width, stride, each, whole=whole) for stride in strides)
            if sum(grid.count for grid in grids) == anchors:
                yield grids


def fit_grids(grids: tuple[Grid, ...], anchors: int, size: Size) -> tuple[Grid, ...]:
    """The same maps in a picture of another size that has so many anchors; () where they cannot have."""
    known = grids if sum(grid.count for grid in grids) == anchors else ()
    if size is None:
        return known
    for whole in (False, True):
        fitted = tuple(make_grid(*size, grid.stride, grid.anchors, whole=whole) for grid in grids)
        if sum(grid.count for grid in fitted) == anchors:
            return fitted
    return known


def count_places(height: int, width: int) -> set[int]:
    """How many places the maps of any strides have together, at the edges only whole ones."""
    return {
        sum((height // stride) * (width // stride) for stride in strides)
        for strides in STRIDES
        if strides[-1] <= COARSEST
    }


def find_form(boxes: Array, height: int, width: int) -> Form | None:
    """As what the boxes (n, anchors, 4) have a size and lie in the input: corners, or centre and size; None for neither."""
    shares = are_shares(boxes)
    start, end = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64)
    forms: tuple[tuple[Form, Float64, Float64], ...] = (
        ("corners", (start + end) / 2, end - start),
        ("centre and size", start, end),
    )
    for form, centre, size in forms:
        rows_first = form == "corners" and find_order(centre) == "y first"
        sides = np.array([1.0, 1.0] if shares else [height, width] if rows_first else [width, height])
        inside = (centre >= -SLACK * sides) & (centre <= (1 + SLACK) * sides) & (size > 0) & (size <= 2 * sides)
        if inside.all(axis=2).mean() >= IN_PLACE:
            return "corners, y first" if rows_first else form
    return None


def find_order(centres: Array) -> str:
    """Which of two coordinates (n, anchors, 2) is y, which changes once a row: "x first", "y first", or "none"."""
    each = centres.astype(np.float64)
    steps = np.abs(np.diff(each, axis=1)).mean(axis=(0, 1))
    random = np.maximum(
        each.std(axis=(0, 1)) * 2 / np.sqrt(np.pi), 1e-30
    )  # the mean difference of two drawn from a normal one
    first, second = steps / random
    if not min(first, second) <= SMOOTH:
        return "none"
    return "y first" if second > FASTER * first else "x first"


def lie_on_grids(centres: Array, grids: tuple[Grid, ...]) -> bool:
    """Whether the centres (n, anchors, 2) in pixels, x first, are near the places of their anchors, which no others are.

    Several anchors of a place are side by side, or a whole map of the first comes before one of the second.
    """
    for inner in {True, grids[0].anchors == 1}:
        parts = []
        for grid in grids:
            once = list_places(Grid(grid.rows, grid.columns, grid.stride))
            parts.append(list_places(grid) if inner else np.tile(once, (grid.anchors, 1)))
        places = np.concatenate(parts)
        away = np.abs(centres / places[:, 2:] - places[:, :2]).max(axis=2)
        if float((away <= NEAR_PLACE).mean()) >= IN_PLACE:
            return True
    return False


def find_background(scores: Array) -> int | None:
    """The class that most anchors have, since most see no object; None where no class has more than half of them."""
    counts = np.bincount(scores.argmax(axis=2).reshape(-1))
    return int(counts.argmax()) if 2 * counts.max() > counts.sum() else None


def are_shares(boxes: Array) -> bool:
    """Whether all numbers are as small as shares of a picture's sides."""
    return bool(np.abs(boxes).max(initial=0.0) <= SHARES)
