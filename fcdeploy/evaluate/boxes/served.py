"""Which boxes a server can tell: as `find_boxes` finds them in a few answers, or the reason why they cannot be read.

What is judged as boxes is served as such, where the numbers alone say what they are: the sizes of prior boxes are in code behind
the network, and of a share in front of others names of classes tell whether it is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.decode import line_up, read_columns
from fcdeploy.evaluate.boxes.find_detections import CONFIDENT
from fcdeploy.evaluate.boxes.find_heads import find_boxes
from fcdeploy.evaluate.boxes.find_tables import FEW, may_hold_points
from fcdeploy.evaluate.boxes.grids import count_places, find_order
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import BOX, SHOWN_FROM, AnchorHead, BoxLayout, Detections

LOGITS = "they are no shares of 1: put a Sigmoid behind them"
NO_BOX = "no box was found in the golden samples: --data with pictures that show something"


def find_served_boxes(
    ends: Mapping[str, OutputEnd],
    layout: str,
    runs: Sequence[tuple[Arrays, Arrays]],
    names: Sequence[str] = (),
    recorded: BoxLayout | None = None,
) -> BoxLayout | str:
    """Where answers to pictures in `layout` (NCHW or NHWC) hold boxes, with these names of classes; `recorded` is what judged.

    Else why the boxes of what looks like a detector cannot be read; "" for other models.
    """
    why = ""
    for feeds, outputs in runs:
        (picture,) = feeds.values()
        if picture.ndim != 4:
            continue
        height, width = picture.shape[2:] if layout == "NCHW" else picture.shape[1:3]
        if isinstance(recorded, AnchorHead) and not recorded.guessed and _has_names(recorded, outputs, names):
            return recorded.why_not_served or recorded
        found = find_boxes(outputs, ends, (height, width), names)
        if found is None:
            why = why or explain_unread(outputs, (len(picture), height, width), names)
        elif reason := _explain_unserved(found, outputs, len(picture)):
            why = reason
        else:
            return _show_from(found, outputs, len(picture), recorded)
    return why


def _has_names(head: AnchorHead, outputs: Arrays, names: Sequence[str]) -> bool:
    """Whether a head has a score for each name of a class, where there are names."""
    if not names:
        return True
    count: int = read_columns(head.levels[0].scores, outputs).shape[2]
    return count - (head.background is not None) == len(names)


def _explain_unserved(found: BoxLayout, outputs: Arrays, count: int) -> str:
    """Why boxes that were found cannot be told to anyone; "" where they can."""
    if isinstance(found, Detections):
        return "" if any(len(one.boxes) for one in read_boxes(found, outputs, count, None)) else NO_BOX
    if not found.guessed:
        return found.why_not_served
    first = found.levels[0].boxes
    return _explain_ambiguous(line_up(outputs[first.output], first.layout, first.anchors).shape[2])


def _explain_ambiguous(columns: int) -> str:
    either = f"{columns - 4} classes, or {columns - 5} behind a share of being an object"
    return f"{columns} columns are {either}: --classes FILE tells"


def _show_from(found: BoxLayout, outputs: Arrays, count: int, recorded: BoxLayout | None) -> BoxLayout:
    """With the scores from which boxes were judged; of what was not judged the usual ones."""
    if isinstance(found, AnchorHead):
        return replace(found, shown_from=recorded.shown_from if isinstance(recorded, AnchorHead) else SHOWN_FROM)
    if isinstance(recorded, Detections):
        return replace(found, least=recorded.least)
    scores = np.concatenate([one.scores for one in read_boxes(replace(found, least=None), outputs, count, None)])
    shares = found.scores is not None and scores.min() >= 0 and scores.max() <= 1
    return replace(found, least=CONFIDENT if shares else None)


def explain_unread(outputs: Arrays, pictures: tuple[int, int, int], names: Sequence[str]) -> str:
    """Why no boxes are read of what looks like a detector; "" for what does not. `pictures` are how many, height and width."""
    count, height, width = pictures
    places = count_places(height, width)
    for name, array in outputs.items():
        if array.ndim != 3 or array.dtype.kind != "f" or not array.size:
            continue
        if array.shape[2] in places and array.shape[1] > BOX:
            return _explain_table(name, line_up(array, "anchors last"), 0, names)
        thrice = array.shape[1] in {3 * count for count in places}
        if array.shape[2] > BOX and (thrice or array.shape[1] in places):
            objectness = thrice or array.shape[2] == BOX + 1 + len(names)
            return _explain_table(name, array, int(objectness), names)
    return _find_bare_table(outputs, count, places) or _suspect(outputs, height, width, names)


def _explain_table(name: str, table: Array, objectness: int, names: Sequence[str]) -> str:
    """What is odd of (n, anchors, columns), where a box, perhaps a share of being an object, and classes are expected."""
    start = BOX + objectness
    count = table.shape[2] - start
    if names and len(names) < count and may_hold_points(table[..., start + len(names) :]):
        count = len(names)
    if names and len(names) != count:
        return f"{name!r} has {count} columns behind the box for {len(names)} classes"
    shares = table[..., BOX : start + count]
    if not (shares.min() >= 0 and shares.max() <= 1):
        return f"scores in {name!r} go from {shares.min():.3g} to {shares.max():.3g}: {LOGITS}"
    classes = table[..., start : start + count] * (table[..., BOX : BOX + 1] if objectness else 1.0)
    if (np.median(classes, axis=(0, 1)) > CONFIDENT).any():
        return f"{name!r} has a column that is high at most anchors, as the angle of a turned box: no class is"
    if not names and not objectness and find_order(table[..., :2]) != "none":
        return _explain_ambiguous(table.shape[2])
    return f"boxes in {name!r} do not follow the grid of anchors: they may be offsets to it"


def _find_bare_table(outputs: Arrays, count: int, places: set[int]) -> str:
    """What is odd of a table of anchors that has no axis of samples; a row for each sample is a classifier's."""
    for name, array in outputs.items():
        if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] <= BOX:
            continue
        if FEW < len(array) != count and len(array) in {times * n for times in (1, 3) for n in places}:
            return f"{name!r} has no axis of samples: put a Reshape to (1, anchors, columns) behind it"
    return ""


def _suspect(outputs: Arrays, height: int, width: int, names: Sequence[str]) -> str:
    """Why boxes of what looks like a detector are not read."""
    shapes = {name: array.shape for name, array in outputs.items() if array.dtype.kind == "f"}
    for name, shape in shapes.items():
        columns, anchors = sorted(shape[1:]) if len(shape) == 3 else (0, 0)
        if names and columns in (4 + len(names), 5 + len(names)) and anchors > FEW:
            return (
                f"{name!r} has {columns} columns, as boxes of {len(names)} classes have, "
                f"but no head has {anchors} anchors in a picture of {height} x {width}"
            )
    maps = [
        shape
        for shape in shapes.values()
        if len(shape) in (4, 5) and (height // 32) in shape and (width // 32) in shape
    ]
    rows = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4 and shape[1] > FEW]
    if len(shapes) > 1 and rows:
        return f"{rows[0]!r} has four numbers a row, but no other output scores of its rows from 0 to 1, or they are offsets"
    if len(maps) and len(shapes) >= 3:
        return "outputs are maps of a head that is not decoded: export it with its own decoding"
    return ""
