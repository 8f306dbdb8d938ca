"""Heads that end in logits of classes and offsets to several anchors at a place, as convolutions make them.

Numbers alone do not tell them from features: the graph has to end in convolutions whose maps have, stride by stride, four
channels for each anchor in one output, and as many as there are classes in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.decode import line_up, squash, take_shares
from fcdeploy.evaluate.boxes.find_maps import ALL_QUIET, LARGE, QUIET, WITH_OBJECTNESS, are_offsets
from fcdeploy.evaluate.boxes.find_pairs import NO_SCORES, read_grids
from fcdeploy.evaluate.boxes.find_tables import FEW
from fcdeploy.evaluate.boxes.grids import ALL_STRIDES, MOST_A_PLACE, find_background, make_grid
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import BOX, AnchorHead, Coding, Columns, Left, Level


def find_raw_pair(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """Offsets (n, anchors, 4) beside logits (n, anchors, classes), put together from maps of the same places and anchors."""
    tables = {name: array for name, array in outputs.items() if array.ndim == 3 and array.shape[1] > FEW}
    for name, boxes in tables.items():
        grids = read_grids(ends.get(name, NO_SCORES), boxes.shape[1], size) if boxes.shape[2] == BOX else ()
        for other, scores in tables.items() if grids else ():
            end = ends.get(other, NO_SCORES)
            alike = other != name and scores.shape[1] == boxes.shape[1]
            if not alike or read_grids(end, scores.shape[1], size, scores.shape[2]) != grids:
                continue
            meaning = _read_logits(scores, boxes)
            if meaning is not None:
                level = Level(Columns(name, "anchors first"), Columns(other, "anchors first"), None, grids)
                return meaning.make_head((level,))
    return None


def find_raw_maps(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """The same as two maps for each stride."""
    maps = [
        (name, array)
        for name, array in outputs.items()
        if array.ndim == 4 and ends.get(name, NO_SCORES).kind == "convolution" and ends[name].axis == 1
    ]
    by_stride = dict[int, list[tuple[str, Array]]]()
    for stride in ALL_STRIDES:
        grid = make_grid(*size, stride)
        if found := [each for each in maps if each[1].shape[2:] == (grid.rows, grid.columns)]:
            by_stride[stride] = found
    if len(by_stride) < 2 or any(len(found) != 2 for found in by_stride.values()):
        return None
    heads = [_join(by_stride, size, at) for at in (0, 1)]
    read = [head for head in heads if head is not None]
    return read[0] if len(read) == 1 else None


def _join(by_stride: Mapping[int, list[tuple[str, Array]]], size: tuple[int, int], at: int) -> AnchorHead | None:
    """Maps of which the one `at` is boxes; in the order of strides they may stand either way round."""
    levels, boxes, scores, classes = list[Level](), list[Array](), list[Array](), set[int]()
    first = [sorted(found, key=lambda each: each[1].shape[1]) for found in by_stride.values()]
    for stride, pair in zip(by_stride, first, strict=True):
        (name, box), (other, kinds) = pair[at], pair[1 - at]
        anchors = box.shape[1] // BOX
        if box.shape[1] % BOX or not 1 < anchors <= MOST_A_PLACE or kinds.shape[1] % anchors:
            return None
        classes.add(kinds.shape[1] // anchors)
        columns = [Columns(each, "map", anchors=anchors) for each in (name, other)]
        levels.append(Level(columns[0], columns[1], None, (make_grid(*size, stride, anchors),)))
        boxes.append(line_up(box, "map", anchors))
        scores.append(line_up(kinds, "map", anchors))
    if len(classes) > 1:
        return None
    meaning = _read_logits(np.concatenate(scores, axis=1), np.concatenate(boxes, axis=1))
    return None if meaning is None else meaning.make_head(tuple(levels))


@dataclass(frozen=True)
class _Logits:
    """What is left to do with logits, and how the boxes beside them are coded."""

    coding: Coding
    left: Left
    background: int | None = None

    def make_head(self, levels: tuple[Level, ...]) -> AnchorHead:
        return AnchorHead(levels, self.coding, WITH_OBJECTNESS, self.background, self.left)


def _read_logits(scores: Array, boxes: Array) -> _Logits | None:
    """Of (n, anchors, classes) and (n, anchors, 4): at most anchors nothing is, and boxes are near their anchors.

    Who learns with a Sigmoid for each class, as RetinaNet, takes offsets as they are; with a background, as SSD, in tenths.
    """
    if float((squash(scores).max(axis=2) <= QUIET).mean()) >= ALL_QUIET:
        return _Logits("deltas", "sigmoid") if are_offsets(boxes, LARGE) else None
    background = find_background(scores) if scores.shape[2] > 1 else None
    if background not in (0, scores.shape[2] - 1) or background is None:
        return None
    rest = np.delete(take_shares(np.asarray(scores, np.float64)), background, axis=2).max(axis=2)
    quiet = float((rest <= QUIET).mean()) >= ALL_QUIET
    return _Logits("priors", "softmax", background) if quiet and are_offsets(boxes / 10, LARGE / 10) else None
