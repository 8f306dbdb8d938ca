"""Heads whose boxes are not decoded, as the maps that a network ends in: an output, or a few, for each of several strides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.decode import line_up, read_columns, squash
from fcdeploy.evaluate.boxes.find_detections import CONFIDENT
from fcdeploy.evaluate.boxes.grids import ALL_STRIDES, IN_PLACE, MOST_A_PLACE, NEAR_PLACE, make_grid
from fcdeploy.evaluate.standing_out import stands_out
from fcdeploy.records.box_layout import BOX, AnchorHead, Coding, Columns, Grid, Layout, Level

WITH_OBJECTNESS, WITHOUT = 0.45, 0.7
"""Overlap from where on the weaker of two boxes is left out, as YOLOv5's detect and the SSD of W. Liu et al. (2016) take it by
default, and Ultralytics' predict."""
LARGE = 6.0  # of a logarithm of a side in strides, or a shift in tenths of a side, over ten: 400 strides, 6 sides
ALL_QUIET = 0.9  # of the anchors: in a head that is not decoded as many score next to nothing
QUIET = 0.1  # the score of such an anchor; a map of features has one half there
BINS = 16  # of each side in YOLOv8's maps
FEWEST_BINS, MOST_BINS = 6, 33  # PicoDet has 8, GFL 17, D-FINE 33
SMOOTH_BINS = 0.75  # of the steps between numbers in no order: 0.26 in YOLOv8, 0.47 to 0.55 in PicoDet
AFTER_BOX = BOX + 1


@dataclass(frozen=True)
class _MapFound:
    """An output with numbers for each place of a map of some stride."""

    name: str
    layout: Layout
    anchors: int
    numbers: int


def find_levels(outputs: Arrays, size: tuple[int, int]) -> AnchorHead | None:
    """An output, or a few, of alike numbers for each map of two strides and more."""
    for anchors in range(1, MOST_A_PLACE + 1):
        by_stride = dict[int, list[_MapFound]]()
        for stride in ALL_STRIDES:
            grid = make_grid(*size, stride)
            each = [_read_map(name, array, grid, anchors) for name, array in outputs.items()]
            if found := [one for one in each if one is not None]:
                by_stride[stride] = found
        if len(by_stride) < 2 or len({_list_numbers(maps) for maps in by_stride.values()}) > 1:
            continue
        if anchors > 1 and _leave_some_out(outputs, size, by_stride):
            continue
        makers = (_join_maps,) if len(next(iter(by_stride.values()))) > 1 else (_split_maps,)
        for make in makers:
            head = make(outputs, size, by_stride)
            if head is not None:
                return head
    return None


def _list_numbers(maps: list[_MapFound]) -> tuple[int, ...]:
    return tuple(sorted(one.numbers for one in maps))


def _leave_some_out(outputs: Arrays, size: tuple[int, int], by_stride: Mapping[int, list[_MapFound]]) -> bool:
    """Whether a stride has other maps than those whose numbers are of so many anchors at a place: then it is of fewer."""
    return any(
        _read_map(name, array, make_grid(*size, stride), 1) is not None and name not in {one.name for one in maps}
        for stride, maps in by_stride.items()
        for name, array in outputs.items()
        if array.ndim == 4
    )


def _read_map(name: str, array: Array, grid: Grid, anchors: int) -> _MapFound | None:
    """An output as a map of `anchors` at each place of a grid; None where it is none."""
    rows_columns = (grid.rows, grid.columns)
    if array.ndim == 5 and array.shape[2:4] == rows_columns and array.shape[1] == anchors:
        return _MapFound(name, "maps of anchors", anchors, array.shape[4])
    if array.ndim == 4 and array.shape[2:] == rows_columns and array.shape[1] % anchors == 0:
        return _MapFound(name, "map", anchors, array.shape[1] // anchors)
    if array.ndim == 4 and array.shape[1:3] == rows_columns and array.shape[3] % anchors == 0:
        return _MapFound(name, "map, channels last", anchors, array.shape[3] // anchors)
    if array.ndim == 3 and array.shape[1] == grid.rows * grid.columns * anchors:
        return _MapFound(name, "anchors first", anchors, array.shape[2])
    if array.ndim == 3 and array.shape[2] == grid.rows * grid.columns * anchors:
        return _MapFound(name, "anchors last", anchors, array.shape[1])
    return None


def _split_maps(outputs: Arrays, size: tuple[int, int], by_stride: Mapping[int, list[_MapFound]]) -> AnchorHead | None:
    """One output a stride, in which numbers of boxes stand beside scores."""
    maps = {stride: found[0] for stride, found in by_stride.items()}
    rows = [line_up(outputs[one.name], one.layout, one.anchors) for one in maps.values()]
    numbers, anchors = next(iter(maps.values())).numbers, next(iter(maps.values())).anchors
    if any(stands_out(each.reshape(len(each), -1, numbers * anchors), 2) for each in rows):
        return None  # logits of classes, at several sizes
    joined = np.concatenate([each.reshape(-1, numbers) for each in rows])
    for start, coding, logits in _list_splits(joined, anchors):
        objectness = coding != "bins"
        levels = [
            Level(
                Columns(one.name, one.layout, 0, start, one.anchors),
                Columns(one.name, one.layout, start + (objectness and numbers > start + 1), None, one.anchors),
                Columns(one.name, one.layout, start, start + 1, one.anchors)
                if objectness and numbers > start + 1
                else None,
                (make_grid(*size, stride, one.anchors),),
            )
            for stride, one in maps.items()
        ]
        return AnchorHead(
            tuple(levels), coding, WITH_OBJECTNESS if objectness else WITHOUT, None, "sigmoid" if logits else ""
        )
    return None


def _list_splits(rows: Array, anchors: int) -> Iterator[tuple[int, Coding, bool]]:
    """Where scores begin in (rows, numbers), how boxes are coded in front of them, and whether scores are logits."""
    if rows.shape[1] < AFTER_BOX:
        return
    behind, boxes = rows[:, BOX:], rows[:, :BOX]
    shares = bool(behind.min() >= 0 and behind.max() <= 1)
    if shares and float((behind[:, 0] <= QUIET).mean()) >= ALL_QUIET:
        if anchors == 1 and boxes.min() < 0 and are_offsets(boxes[None], LARGE):
            yield BOX, "offsets", False
        elif anchors > 1 and 0 <= boxes.min() <= boxes.max() <= 1 and not are_quiet(boxes[None]):
            yield BOX, "shares", False
    elif not shares and anchors > 1 and float((behind[:, 0] <= _find_logit(QUIET)).mean()) >= ALL_QUIET:
        yield BOX, "logits", True
    elif anchors == 1 and rows.shape[1] > BOX * BINS:
        if not _are_bins(boxes := rows[:, : BOX * BINS], BINS):
            return
        scores = rows[:, BOX * BINS :]
        if scores.min() < 0 and float((scores.max(axis=1) <= _find_logit(QUIET)).mean()) >= ALL_QUIET:
            yield BOX * BINS, "bins", True
        elif scores.min() >= 0 and float((scores.max(axis=1) <= QUIET).mean()) >= ALL_QUIET and scores.max() <= 1:
            yield BOX * BINS, "bins", False


def _join_maps(outputs: Arrays, size: tuple[int, int], by_stride: Mapping[int, list[_MapFound]]) -> AnchorHead | None:
    """Several outputs a stride: scores, boxes, and perhaps shares of being an object."""
    return _join_as(outputs, size, by_stride, logits=False) or _join_as(outputs, size, by_stride, logits=True)


def _join_as(
    outputs: Arrays, size: tuple[int, int], by_stride: Mapping[int, list[_MapFound]], *, logits: bool
) -> AnchorHead | None:
    levels = list[Level]()
    for stride, maps in by_stride.items():
        level = _sort_maps(outputs, maps, make_grid(*size, stride, maps[0].anchors), logits=logits)
        if level is None:
            return None
        levels.append(level)
    numbers = [read_columns(level.boxes, outputs) for level in levels]
    coding = _find_coding(np.concatenate([each.reshape(-1, each.shape[2]) for each in numbers]), levels[0])
    if coding is None:
        return None
    return AnchorHead(tuple(levels), coding, WITH_OBJECTNESS, left="sigmoid" if logits else "")


def _find_coding(numbers: Array, level: Level) -> Coding | None:
    """What the numbers of all boxes (rows, 4 and more) may be."""
    if numbers.shape[1] > BOX:
        return "bins" if _are_bins(numbers, numbers.shape[1] // BOX) else None
    if float((numbers >= 0).mean()) >= IN_PLACE:
        return "distances"
    return "offsets" if level.objectness is not None and level.boxes.anchors == 1 else "priors"


def _sort_maps(outputs: Arrays, maps: list[_MapFound], grid: Grid, *, logits: bool) -> Level | None:
    """The outputs of one stride that are boxes, scores and shares of being an object; None where they are none of a head.

    Where scores are `logits`, what is not four numbers of a box has still to go through a Sigmoid.
    Channels of a map that could be those of several boxes could be anything.
    """
    if maps[0].anchors > 1 and any(one.layout.startswith("map,") or one.layout == "map" for one in maps):
        return None
    arrays = {one.name: line_up(outputs[one.name], one.layout, one.anchors) for one in maps}
    if logits:
        arrays = {name: each if each.shape[2] == BOX else squash(each) for name, each in arrays.items()}
    shares = [one for one in maps if arrays[one.name].min() >= 0 and arrays[one.name].max() <= 1]
    others = [one for one in maps if one not in shares and one.numbers % BOX == 0]
    there = [one for one in shares if one.numbers == 1][-1:] if len(shares) == 2 else []
    kinds = [one for one in shares if one not in there]
    if len(kinds) != 1 or not others:
        return None
    product = arrays[kinds[0].name] * (arrays[there[0].name] if there else 1.0)
    if not are_quiet(product) or (logits and float((product.max(axis=2) <= QUIET).mean()) < ALL_QUIET):
        return None
    boxes = min(others, key=lambda one: (one.numbers != BOX, one.numbers))
    columns = [Columns(one.name, one.layout, anchors=one.anchors) for one in (boxes, *kinds, *there)]
    return Level(columns[0], columns[1], columns[2] if there else None, (grid,))


def _are_bins(numbers: Array, bins: int) -> bool:
    """Whether numbers are logits of distances, several bins for each: those of bins side by side are near each other."""
    if not FEWEST_BINS <= bins <= MOST_BINS:
        return False
    rows = np.asarray(numbers, np.float64).reshape(-1, bins)
    random = rows.std(axis=1).mean() * 2 / np.sqrt(np.pi)  # the mean difference of two drawn from a normal one
    return bool(np.abs(np.diff(rows, axis=1)).mean() <= SMOOTH_BINS * random)


def are_offsets(boxes: Array, largest: float) -> bool:
    """Whether boxes (n, anchors, 4) may be shifts by a few places, and logarithms of sides."""
    shifts, sides = np.abs(boxes[..., :2]).max(axis=2), np.abs(boxes[..., 2:]).max(axis=2)
    return bool(((shifts <= NEAR_PLACE) & (sides <= largest)).mean() >= IN_PLACE)


def are_quiet(scores: Array) -> bool:
    """Whether scores (n, anchors, classes) are shares, and no class is high at most anchors, as an angle may be."""
    if not scores.size or scores.min() < 0 or scores.max() > 1:
        return False
    return bool((np.median(scores, axis=(0, 1)) <= CONFIDENT).all())


def _find_logit(share: float) -> float:
    return float(np.log(share / (1 - share)))
