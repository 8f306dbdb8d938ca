"""Boxes beside scores of every anchor in one output: (n, anchors, numbers), or (n, numbers, anchors).

Behind a box stands a share that an object is there, and shares of classes, or these alone: the graph says which, or how many
names of classes there are, or three anchors at a place, as YOLOv5 has them; else numbers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.evaluate.boxes.decode import line_up, read_corners
from fcdeploy.evaluate.boxes.find_maps import AFTER_BOX, LARGE, WITH_OBJECTNESS, WITHOUT, are_offsets, are_quiet
from fcdeploy.evaluate.boxes.grids import SHARES, are_shares, find_form, find_order, lie_on_grids, list_grids
from fcdeploy.evaluate.decision import AnchorScores
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import BOX, AnchorHead, Coding, Columns, Form, Grid, Layout, Level

FEW = 64  # rows: what a suppression leaves, rather than anchors
LAYOUTS: tuple[tuple[Layout, int], ...] = (("anchors first", 2), ("anchors last", 1))
"""And the axis of numbers."""


@dataclass(frozen=True)
class _Scores:
    """Numbers behind a box to before `stop`: with `objectness` the first says that an object is there, which may be `guessed`."""

    stop: int
    objectness: bool
    guessed: bool = False

    named: bool = False

    @property
    def sure(self) -> bool:
        """Whether more than shapes says what they are."""
        return self.named or (self.objectness and not self.guessed)

    @property
    def start(self) -> int:
        return BOX + self.objectness

    def read(self, rows: Array) -> Array:
        """The scores of (n, anchors, numbers)."""
        classes = rows[..., self.start : self.stop]
        return rows[..., BOX:AFTER_BOX] * classes if self.objectness else classes


def find_scores(output: Array, end: OutputEnd) -> AnchorScores | None:
    """Where shares stand beside other numbers: of one channel before others, or the first behind a box, that an object is there.

    YOLOv5, v7 and YOLOX have it, YOLOv8 and DETR have not; where one channel says it is seen in its numbers.
    """
    if end.kind != "parts" or end.axis is None or not 0 < end.axis < output.ndim:
        return None
    first = next(at for at, part in enumerate(end.parts) if part.kind == "sigmoid")
    parts = [end.parts[first], *takewhile(lambda part: part.kind == "sigmoid", end.parts[first + 1 :])]
    start, stop = parts[0].start, parts[-1].stop
    anchors = AnchorScores(end.axis, start, stop)
    guess = start == BOX and end.axis == output.ndim - 1
    if _stands_alone(end) or (guess and _says_whether(anchors.read(output))):
        return AnchorScores(end.axis, start, stop, objectness=True)
    return anchors


def _stands_alone(end: OutputEnd) -> bool:
    """Whether the graph puts one share in front of others, which is that an object is there."""
    shares = [part for part in end.parts if part.kind == "sigmoid"]
    return len(shares) > 1 and shares[0].stop - shares[0].start == 1 and shares[0].stop == shares[1].start


def find_table(
    name: str, array: Array, end: OutputEnd, size: tuple[int, int], names: Sequence[str]
) -> AnchorHead | None:
    """The head that an output is alone, of classes of these names where they are known."""
    for layout, axis in LAYOUTS:
        rows = line_up(array, layout)
        grids = list(list_grids(rows.shape[1], *size))
        if not AFTER_BOX <= rows.shape[2] < rows.shape[1] or rows.shape[1] <= FEW or not grids:
            continue
        known = find_scores(array, end) if end.axis == axis else None
        if known is not None and known.start != BOX:
            continue
        scores = _find_shares(rows, layout, None if known is None else (known, end), names, grids[0][0].anchors)
        if scores is None or not are_quiet(scores.read(rows)):
            continue
        coding: Coding | None = _find_decoded(rows[..., :BOX], grids, size, sure=scores.sure)
        single = [each for each in grids if each[0].anchors == 1]
        if not coding and known is not None and single and are_offsets(rows[..., :BOX], LARGE):
            coding = "offsets"
        if coding:
            level = Level(
                Columns(name, layout, 0, BOX),
                Columns(name, layout, scores.start, scores.stop),
                Columns(name, layout, BOX, AFTER_BOX) if scores.objectness else None,
                single[0] if coding == "offsets" else (),
                Columns(name, layout, scores.stop) if scores.stop < rows.shape[2] else None,
            )
            overlap = WITH_OBJECTNESS if scores.objectness else WITHOUT
            shares = coding != "offsets" and are_shares(rows[..., :BOX])
            return AnchorHead((level,), coding, overlap, shares=shares, guessed=scores.guessed)
    return None


def find_named_queries(name: str, array: Array, names: Sequence[str]) -> AnchorHead | None:
    """Boxes of queries beside shares of classes, as RT-DETR has them, where names of classes tell: no two are of one object."""
    if not names or array.shape[2] != BOX + len(names) or array.shape[1] <= FEW:
        return None
    boxes, scores = array[..., :BOX], array[..., BOX:]
    if not are_shares(boxes) or are_quiet(boxes) or not are_quiet(scores) or array.min() < 0:
        return None
    level = Level(Columns(name, "anchors first", 0, BOX), Columns(name, "anchors first", BOX))
    return AnchorHead((level,), "centre and size", 1.0, shares=True)


def _find_shares(
    rows: Array, layout: Layout, known: tuple[AnchorScores, OutputEnd] | None, names: Sequence[str], a_place: int
) -> _Scores | None:
    """The shares behind a box in (n, anchors, numbers); None where there are none, or not as many as names."""
    if known is None:
        shares = (rows.min(axis=(0, 1)) >= 0) & (rows.max(axis=(0, 1)) <= 1)
        stop = BOX + int(np.argmin(np.append(shares[BOX:], False)))
    else:
        stop = known[0].stop
    if stop == BOX:
        return None
    objectness, guessed = _find_objectness(rows[..., BOX:stop], layout, known, len(names), a_place)
    if not names:
        return _Scores(stop, objectness, guessed)
    named = BOX + objectness + len(names)
    whole = stop == named or (stop > named and may_hold_points(rows[..., named:]))
    return _Scores(named, objectness, named=True) if whole else None


def _find_objectness(
    shares: Array, layout: Layout, known: tuple[AnchorScores, OutputEnd] | None, names: int, a_place: int
) -> tuple[bool, bool]:
    """Whether the first of shares (n, anchors, k) says that an object is there, and whether that is a guess."""
    if shares.shape[2] == 1:
        return False, False
    if known is not None and _stands_alone(known[1]):
        return True, False
    if layout == "anchors last":  # as Ultralytics' YOLOv8 and later
        return False, False
    if a_place == 3 or bool((shares[..., 0] == 1).all()):  # YOLOv5 and v7; YOLOv6
        return True, False
    if names:
        return shares.shape[2] == 1 + names, False
    return _says_whether(shares), True


def may_hold_points(columns: Array) -> bool:
    """Whether columns may be points of a body in pixels: x and y of each, or x, y and how visible it is."""
    return 0 in (columns.shape[2] % 2, columns.shape[2] % 3) and bool(np.abs(columns).max() > SHARES)


def _find_decoded(boxes: Array, grids: list[tuple[Grid, ...]], size: tuple[int, int], *, sure: bool) -> Form | None:
    """How boxes (n, anchors, 4) are written that lie on a grid of places, or beside `sure` scores in the order of one."""
    form = find_form(boxes, *size)
    if form is None:
        return None
    scale = np.array([size[1], size[0]] * 2) if are_shares(boxes) else 1.0
    corners = read_corners(boxes.astype(np.float64), form) * scale
    centres = (corners[..., :2] + corners[..., 2:]) / 2
    ordered = sure and not are_quiet(boxes) and find_order(centres) != "none"
    return form if ordered or any(lie_on_grids(centres, each) for each in grids) else None


def _says_whether(scores: Array) -> bool:
    """Whether the first of some shares (n, anchors, k) is of an object, whatever it is: where it is large another is as well.

    Classes exclude each other.
    """
    if scores.shape[-1] < 2:
        return False
    there = scores[scores[..., 0] > 0.5][..., 1:]
    return len(there) > 0 and bool(np.median(there.max(axis=-1)) > 0.5)
