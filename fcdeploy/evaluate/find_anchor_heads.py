"""Which outputs of a network that reads pictures are boxes and scores of anchors: by the graph, the shapes and a few answers.

No shape alone makes a detector.  There are as many anchors as places on maps of several strides; scores are shares, or logits of
such, and at most anchors small; and the numbers of boxes do what only boxes do: their centres lie on the grid of places, or
in the order of one, with sides that fit the picture; or the graph puts them beside scores that a Sigmoid or Softmax makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.anchor_grids import (
    ALL_STRIDES,
    IN_PLACE,
    MOST_A_PLACE,
    NEAR_PLACE,
    Grid,
    are_shares,
    find_background,
    find_form,
    find_order,
    lie_on_grids,
    list_grids,
    make_grid,
)
from fcdeploy.evaluate.anchor_heads import FORMS, SWAPPED, AnchorHead, Coding, Columns, Layout, Level, line_up, squash
from fcdeploy.evaluate.box_layouts import FEW, OVERLAPS, find_pair
from fcdeploy.evaluate.decision import AnchorScores
from fcdeploy.evaluate.detections import CONFIDENT
from fcdeploy.evaluate.output_ends import BOX, OutputEnd
from fcdeploy.evaluate.standing_out import stands_out

NO_SCORES = OutputEnd("other")
WITH_OBJECTNESS, WITHOUT = OVERLAPS["anchors first"], OVERLAPS["anchors last"]
LARGE = 6.0  # of a logarithm of a side in strides, or a shift in tenths of a side, over ten: 400 strides, 6 sides
SHARE_OF_NONE = 0.5  # of the queries: more of them see no object
ALL_QUIET = 0.9  # of the anchors: in a head that is not decoded as many score next to nothing
QUIET = 0.1  # the score of such an anchor; a map of features has one half there
BINS = 16  # of each side in YOLOv8's maps
FEWEST_BINS, MOST_BINS = 6, 33  # PicoDet has 8, GFL 17, D-FINE 33
SMOOTH_BINS = 0.75  # of the steps between numbers in no order: 0.26 in YOLOv8, 0.47 to 0.55 in PicoDet
AFTER_BOX = BOX + 1


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
    return _find_offsets(floats, ends, size) or _find_levels(floats, size)


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
        if scores is None or scores.start != BOX or not _are_quiet(_multiply(rows, scores)):
            continue
        coding = _find_decoded(rows[..., :BOX], grids, size)
        single = [each for each in grids if each[0].anchors == 1]
        if not coding and known is not None and end.fixed and single and _are_offsets(rows[..., :BOX], LARGE):
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


def _are_offsets(boxes: Array, largest: float) -> bool:
    """Whether boxes (n, anchors, 4) may be shifts by a few places, and logarithms of sides."""
    shifts, sides = np.abs(boxes[..., :2]).max(axis=2), np.abs(boxes[..., 2:]).max(axis=2)
    return bool(((shifts <= NEAR_PLACE) & (sides <= largest)).mean() >= IN_PLACE)


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
    if not (ordered or queries) or not _are_quiet(_leave_out(scores, background)):
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
        if not grids or not _are_offsets(boxes / 10, LARGE / 10):
            continue
        for other, scores in outputs.items():
            end = ends.get(other, NO_SCORES)
            if end.kind not in ("softmax", "sigmoid") or scores.ndim != 3 or scores.shape[:2] != boxes.shape[:2]:
                continue
            background = find_background(scores) if end.kind == "softmax" else None
            if (end.kind == "softmax" and background is None) or not _are_quiet(_leave_out(scores, background)):
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


@dataclass(frozen=True)
class _MapFound:
    """An output with numbers for each place of a map of some stride."""

    name: str
    layout: Layout
    anchors: int
    numbers: int


def _find_levels(outputs: Arrays, size: tuple[int, int]) -> AnchorHead | None:
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
        if anchors == 1 and boxes.min() < 0 and _are_offsets(boxes[None], LARGE):
            yield BOX, "offsets", False
        elif anchors > 1 and 0 <= boxes.min() <= boxes.max() <= 1 and not _are_quiet(boxes[None]):
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
    numbers = [level.boxes.read(outputs) for level in levels]
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
    if not _are_quiet(product) or (logits and float((product.max(axis=2) <= QUIET).mean()) < ALL_QUIET):
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


def _are_quiet(scores: Array) -> bool:
    """Whether scores (n, anchors, classes) are shares, and no class is high at most anchors, as an angle may be."""
    if not scores.size or scores.min() < 0 or scores.max() > 1:
        return False
    return bool((np.median(scores, axis=(0, 1)) <= CONFIDENT).all())


def _leave_out(scores: Array, background: int | None) -> Array:
    return scores if background is None else np.delete(scores, background, axis=2)


def _find_logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _says_whether(scores: Array) -> bool:
    """Whether the first of some shares (n, anchors, k) is of an object, whatever it is: where it is large another is as well.

    Classes exclude each other.
    """
    if scores.shape[-1] < 2:
        return False
    there = scores[scores[..., 0] > 0.5][..., 1:]
    return len(there) > 0 and bool(np.median(there.max(axis=-1)) > 0.5)
