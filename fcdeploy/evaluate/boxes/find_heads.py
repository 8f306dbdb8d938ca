"""Which outputs of a network that reads pictures are boxes and scores of anchors: by the graph, the shapes and a few answers.

No shape alone makes a detector.  There are as many anchors as places on maps of several strides; scores are shares, or logits of
such, and at most anchors small; and the numbers of boxes do what only boxes do: their centres lie on the grid of places, or
in the order of one, with sides that fit the picture; or the graph puts them beside scores that a Sigmoid or Softmax makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.find_maps import (
    AFTER_BOX,
    LARGE,
    WITH_OBJECTNESS,
    WITHOUT,
    are_offsets,
    are_quiet,
    find_levels,
)
from fcdeploy.evaluate.boxes.grids import (
    Grid,
    are_shares,
    find_background,
    find_form,
    find_order,
    lie_on_grids,
    list_grids,
)
from fcdeploy.evaluate.boxes.heads import FORMS, SWAPPED, AnchorHead, Coding, Columns, Layout, Level, line_up
from fcdeploy.evaluate.boxes.layouts import FEW, find_pair
from fcdeploy.evaluate.decision import AnchorScores
from fcdeploy.evaluate.output_ends import BOX, OutputEnd

NO_SCORES = OutputEnd("other")
SHARE_OF_NONE = 0.5  # of the queries: more of them see no object


def find_scores(output: Array, end: OutputEnd) -> AnchorScores | None:
    """Where shares stand beside other numbers: of one channel before others, or the first behind a box, that an object is there.

    YOLOv5, v7 and YOLOX have it, YOLOv8 and DETR have not; where one channel says it is seen in its numbers.
    """
    if end.kind != "parts" or end.axis is None or not 0 < end.axis < output.ndim:
        return None
    first = next(at for at, part in enumerate(end.parts) if part.kind == "sigmoid")
    parts = [end.parts[first], *takewhile(lambda part: part.kind == "sigmoid", end.parts[first + 1 :])]
    start, stop = parts[0].start, parts[-1].stop
    alone = parts[0].stop - start == 1 and len(parts) > 1
    anchors = AnchorScores(end.axis, start, stop)
    if alone or (start == BOX and end.axis == output.ndim - 1 and _says_whether(anchors.read(output))):
        return AnchorScores(end.axis, start, stop, objectness=True)
    return anchors


def find_anchor_head(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int] | None) -> AnchorHead | None:
    """The boxes and scores of anchors among the first answers to pictures of a size (height, width); None without such."""
    head = _find_head(outputs, ends, size)
    return head and head.show_more(outputs, len(outputs[head.boxes]))


def _find_head(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int] | None) -> AnchorHead | None:
    floats = {
        name: array
        for name, array in outputs.items()
        if array.dtype.kind == "f" and array.ndim in (3, 4, 5) and array.size and np.isfinite(array).all()
    }
    if size is None or not floats:
        return None
    for name, array in floats.items():
        head = _find_table(name, array, ends.get(name, NO_SCORES), size) if array.ndim == 3 else None
        if head is not None:
            return head
    fixed = all(ends.get(name, NO_SCORES).fixed for name in floats)
    decoded = _find_decoded_pair(floats, ends, size) or _find_queries(floats, ends)
    if decoded is not None or not fixed:  # what is not decoded has to be told by one size
        return decoded
    return _find_offsets(floats, ends, size) or find_levels(floats, size)


def _find_table(name: str, array: Array, end: OutputEnd, size: tuple[int, int]) -> AnchorHead | None:
    """Boxes beside scores in one output (n, anchors, numbers), or (n, numbers, anchors)."""
    layouts: tuple[tuple[Layout, int], ...] = (("anchors first", 2), ("anchors last", 1))
    for layout, axis in layouts:
        rows = line_up(array, layout)
        grids = list(list_grids(rows.shape[1], *size))
        if not AFTER_BOX <= rows.shape[2] < rows.shape[1] or rows.shape[1] <= FEW or not grids:
            continue
        known = find_scores(array, end) if end.axis == axis else None
        scores = known or _find_shares(rows, three_a_place=grids[0][0].anchors == 3)
        if scores is None or scores.start != BOX or not are_quiet(_multiply(rows, scores)):
            continue
        coding = _find_decoded(rows[..., :BOX], grids, size)
        single = [each for each in grids if each[0].anchors == 1]
        if not coding and known is not None and end.fixed and single and are_offsets(rows[..., :BOX], LARGE):
            coding = "offsets"
        if coding:
            start = BOX + scores.objectness
            level = Level(
                Columns(name, layout, 0, BOX),
                Columns(name, layout, start, scores.stop),
                Columns(name, layout, BOX, AFTER_BOX) if scores.objectness else None,
                single[0] if coding == "offsets" else (),
                Columns(name, layout, scores.stop) if scores.stop < rows.shape[2] else None,
            )
            return AnchorHead((level,), coding, WITH_OBJECTNESS if scores.objectness else WITHOUT)
    return None


def _find_shares(rows: Array, *, three_a_place: bool) -> AnchorScores | None:
    """The numbers behind a box that are shares, by their values, up to the first that is none.

    Of `three_a_place` as many anchors as places, as YOLOv5 has them, the first says that an object is there.
    """
    shares = (rows.min(axis=(0, 1)) >= 0) & (rows.max(axis=(0, 1)) <= 1)
    stop = BOX + int(np.argmin(np.append(shares[BOX:], False)))
    if stop == BOX:
        return None
    several = stop > AFTER_BOX
    return AnchorScores(2, BOX, stop, several and (three_a_place or _says_whether(rows[..., BOX:stop])))


def _multiply(rows: Array, scores: AnchorScores) -> Array:
    """The scores of (n, anchors, numbers)."""
    each = rows[..., scores.start : scores.stop]
    return each[..., :1] * each[..., 1:] if scores.objectness else each


def _find_decoded(boxes: Array, grids: list[tuple[Grid, ...]], size: tuple[int, int]) -> Coding | None:
    """How boxes (n, anchors, 4) are written that lie on a grid of places; None for those that do not."""
    form = find_form(boxes, *size)
    if not form:
        return None
    numbers = boxes.astype(np.float64)
    if form == "corners, y first":
        numbers = numbers[..., SWAPPED]
    if are_shares(boxes):
        numbers = numbers * np.array([size[1], size[0]] * 2)
    centres = numbers[..., :2] if form == "centre and size" else (numbers[..., :2] + numbers[..., 2:]) / 2
    return FORMS[form] if any(lie_on_grids(centres, each) for each in grids) else None


def _find_decoded_pair(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """Boxes that are decoded in one output, scores in another: in the order of a grid, or of queries that a Sigmoid ends."""
    pair = find_pair(outputs, *size)
    if pair is None or not isinstance(pair.scores, str):
        return None
    boxes, scores = (line_up(outputs[name], "anchors first") for name in (pair.boxes, pair.scores))
    centres = boxes[..., :2] if pair.form == "centre and size" else boxes[..., :2] + boxes[..., 2:]
    background = pair.classes if isinstance(pair.classes, int) else None
    sigmoids = all(ends.get(name, NO_SCORES).kind == "sigmoid" for name in (pair.boxes, pair.scores))
    queries = sigmoids and "box" in pair.boxes.lower()  # four shares may be anything
    ordered = find_order(centres) != "none"
    if not (ordered or queries) or not are_quiet(_leave_out(scores, background)):
        return None
    level = Level(Columns(pair.boxes, "anchors first"), Columns(pair.scores, "anchors first"))
    return AnchorHead((level,), FORMS[pair.form], WITH_OBJECTNESS if ordered else 1.0, background)


def _find_queries(outputs: Arrays, ends: Mapping[str, OutputEnd]) -> AnchorHead | None:
    """Boxes of a DETR's queries, which a Sigmoid makes shares of the picture, beside logits of classes: no two are of one object.

    Where most queries have the last class, it is that of no object, and a Softmax is left to do; else a Sigmoid.
    """
    for name, boxes in outputs.items():
        called = ends.get(name, NO_SCORES).kind == "sigmoid" and "box" in name.lower()  # four shares may be anything
        shares = called and boxes.ndim == 3 and boxes.shape[2] == BOX
        for other, scores in outputs.items() if shares else ():
            if ends.get(other, NO_SCORES).kind != "dense" or scores.ndim != 3 or scores.shape[:2] != boxes.shape[:2]:
                continue
            last = scores.shape[2] - 1
            softmax = last > 0 and find_background(scores) == last
            quiet = float((scores.max(axis=2) <= 0).mean()) > SHARE_OF_NONE  # of each class less than one half
            level = Level(Columns(name, "anchors first"), Columns(other, "anchors first"))
            if softmax:
                return AnchorHead((level,), "centre and size", 1.0, last, "softmax")
            if quiet:
                return AnchorHead((level,), "centre and size", 1.0, left="sigmoid")
    return None


def _find_offsets(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """Offsets to prior boxes (n, anchors, 4) beside scores (n, anchors, classes) that the graph makes shares of."""
    for name, boxes in outputs.items():
        if (
            boxes.ndim != 3
            or boxes.shape[2] != BOX
            or boxes.shape[1] <= FEW
            or ends.get(name, NO_SCORES).kind != "other"
        ):
            continue
        grids = _read_grids(ends.get(name, NO_SCORES), boxes.shape[1], size) or next(
            list_grids(boxes.shape[1], *size), ()
        )
        if not grids or not are_offsets(boxes / 10, LARGE / 10):
            continue
        for other, scores in outputs.items():
            end = ends.get(other, NO_SCORES)
            if end.kind not in ("softmax", "sigmoid") or scores.ndim != 3 or scores.shape[:2] != boxes.shape[:2]:
                continue
            background = find_background(scores) if end.kind == "softmax" else None
            if (end.kind == "softmax" and background is None) or not are_quiet(_leave_out(scores, background)):
                continue
            level = Level(Columns(name, "anchors first"), Columns(other, "anchors first"), None, grids)
            return AnchorHead((level,), "priors", WITH_OBJECTNESS, background)
    return None


def _read_grids(end: OutputEnd, anchors: int, size: tuple[int, int]) -> tuple[Grid, ...]:
    """Those of maps that the graph puts together, with four numbers for each anchor; () where they do not fit."""
    grids = tuple(
        Grid(rows, columns, round(max(size[0] / rows, size[1] / columns)), channels // BOX)  # edges may be padded
        for channels, rows, columns in end.maps
        if channels % BOX == 0
    )
    fits = len(grids) == len(end.maps) and sum(grid.rows * grid.columns * grid.anchors for grid in grids) == anchors
    return grids if fits else ()


def _leave_out(scores: Array, background: int | None) -> Array:
    return scores if background is None else np.delete(scores, background, axis=2)


def _says_whether(scores: Array) -> bool:
    """Whether the first of some shares (n, anchors, k) is of an object, whatever it is: where it is large another is as well.

    Classes exclude each other.
    """
    if scores.shape[-1] < 2:
        return False
    there = scores[scores[..., 0] > 0.5][..., 1:]
    return len(there) > 0 and bool(np.median(there.max(axis=-1)) > 0.5)
