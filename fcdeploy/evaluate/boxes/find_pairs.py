"""Boxes of anchors in one output, decoded or offsets, beside scores in another: in the order of a grid, or of queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.decode import line_up
from fcdeploy.evaluate.boxes.find_maps import LARGE, WITH_OBJECTNESS, are_offsets, are_quiet
from fcdeploy.evaluate.boxes.find_tables import FEW
from fcdeploy.evaluate.boxes.grids import are_shares, find_background, find_form, find_order, list_grids
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import BOX, AnchorHead, Columns, Form, Grid, Level

NO_SCORES = OutputEnd("other")
SHARE_OF_NONE = 0.5  # of the queries: more of them see no object
WHOLE = 1e-2  # by which shares of a whole may miss 1


@dataclass(frozen=True)
class Pair:
    """Outputs of boxes and of shares of classes at as many anchors, of which one may be of none, the background."""

    boxes: str
    scores: str
    form: Form
    background: int | None
    shares: bool


def find_pair(outputs: Arrays, height: int, width: int) -> Pair | None:
    """Boxes (n, anchors, 4) in one output, and shares of classes (n, anchors, classes) in another.

    Where either could be the boxes, scores that sum up to 1 and boxes that are corners decide; None where they do not.
    """
    ranked = list(_list_pairs(outputs, height, width))
    best = [pair for rank, pair in ranked if rank == max(rank for rank, _ in ranked)]
    return best[0] if len(best) == 1 else None


def _list_pairs(outputs: Arrays, height: int, width: int) -> Iterator[tuple[int, Pair]]:
    """All that may be such a pair, and how likely it is one."""
    floats = {
        name: array.reshape(array.shape[0], array.shape[1], -1) for name, array in outputs.items()
        if array.ndim in (3, 4) and array.dtype.kind == "f" and array.size and 1 in (4 - array.ndim, *array.shape[2:3])
    }  # fmt: skip
    for name, boxes in floats.items():
        form = find_form(boxes, height, width) if boxes.shape[2] == BOX and boxes.shape[1] > FEW else None
        for other, scores in floats.items() if form else ():
            fits = other != name and scores.shape[:2] == boxes.shape[:2] and scores.min() >= 0 and scores.max() <= 1
            if not fits or form is None:
                continue
            softmax = _add_up(scores)
            background = find_background(scores) if softmax else None
            if softmax and background is None:
                continue
            yield (
                2 * softmax + form.startswith("corners"),
                Pair(name, other, form, background, are_shares(boxes)),
            )


def find_decoded_pair(
    outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int], names: Sequence[str]
) -> AnchorHead | None:
    """Boxes that are decoded in one output, scores in another.

    They are in the order of a grid, or of queries that a Sigmoid ends; in no order, there are as many scores as names of classes,
    or they add up with that of a background, which is a single-shot detector's.
    """
    pair = find_pair(outputs, *size)
    if pair is None:
        return None
    boxes, scores = (line_up(outputs[name], "anchors first") for name in (pair.boxes, pair.scores))
    if not are_quiet(_leave_out(scores, pair.background)):
        return None
    centres = boxes[..., :2] if pair.form == "centre and size" else boxes[..., :2] + boxes[..., 2:]
    sigmoids = all(ends.get(name, NO_SCORES).kind == "sigmoid" for name in (pair.boxes, pair.scores))
    queries = sigmoids and "box" in pair.boxes.lower()  # four shares may be anything
    ordered = find_order(centres) != "none"
    told = scores.shape[2] - (pair.background is not None) == len(names) > 0
    told |= pair.background is not None and ends.get(pair.boxes, NO_SCORES).kind != "softmax" and not _add_up(boxes)
    if not (ordered or queries or told):
        return None
    level = Level(Columns(pair.boxes, "anchors first"), Columns(pair.scores, "anchors first"))
    overlap = 1.0 if queries and not ordered else WITH_OBJECTNESS
    return AnchorHead((level,), pair.form, overlap, pair.background, shares=pair.shares)


def _add_up(scores: Array) -> bool:
    """Whether each row of (n, anchors, classes) is shares of a whole."""
    return scores.shape[2] > 1 and bool((abs(scores.sum(axis=2) - 1) < WHOLE).all())


def find_queries(outputs: Arrays, ends: Mapping[str, OutputEnd]) -> AnchorHead | None:
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
                return AnchorHead((level,), "centre and size", 1.0, last, "softmax", shares=True)
            if quiet:
                return AnchorHead((level,), "centre and size", 1.0, left="sigmoid", shares=True)
    return None


def find_offsets(outputs: Arrays, ends: Mapping[str, OutputEnd], size: tuple[int, int]) -> AnchorHead | None:
    """Offsets to prior boxes (n, anchors, 4) beside scores (n, anchors, classes) that the graph makes shares of."""
    for name, boxes in outputs.items():
        if (
            boxes.ndim != 3
            or boxes.shape[2] != BOX
            or boxes.shape[1] <= FEW
            or ends.get(name, NO_SCORES).kind != "other"
        ):
            continue
        grids = read_grids(ends.get(name, NO_SCORES), boxes.shape[1], size) or next(
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


def read_grids(end: OutputEnd, anchors: int, size: tuple[int, int], numbers: int = BOX) -> tuple[Grid, ...]:
    """Those of maps that the graph puts together, with so many numbers for each anchor; () where they do not fit."""
    grids = tuple(
        Grid(rows, columns, round(max(size[0] / rows, size[1] / columns)), channels // numbers)  # edges may be padded
        for channels, rows, columns in end.maps
        if channels % numbers == 0
    )
    fits = len(grids) == len(end.maps) and sum(grid.count for grid in grids) == anchors
    return grids if fits else ()


def _leave_out(scores: Array, background: int | None) -> Array:
    return scores if background is None else np.delete(scores, background, axis=2)
