"""Where a model's answers to pictures hold boxes: read from the graph, the shapes and a few answers.

Boxes that a suppression in the graph has left are found as `validate` finds them.  Where every anchor answers, shapes give it
away: on strides of 8, 16 and 32 pixels, 640 x 640 have 8,400 places, with one anchor each in YOLOv8 and later and in YOLOX, with
three in YOLOv5 and v7.  Boxes and scores of as many anchors in two outputs are those of a single-shot detector, where the boxes
lie in the input: offsets to anchors do not, and which of two outputs holds the scores is not said by their order.

Names of classes tell how many columns are classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.detections import CONFIDENT, Detections, FoundBoxes, find_detections
from fcdeploy.evaluate.boxes.grids import SHARES, are_shares, count_places, find_background, find_form, find_order
from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.records.box_layout import BoxLayout

OVERLAPS = {
    "anchors last": 0.7,
    "anchors first": 0.45,
    "anchors first, classes only": 0.7,
    "anchors apart": 0.45,
}
"""What Ultralytics' predict, YOLOv5's detect and the SSD of W. Liu et al. (2016) take by default."""
FEW = 64  # rows: what a suppression leaves, rather than anchors
ROWS_FIRST = (
    "detection_boxes",
    "TFLite_Detection_PostProcess",
)  # TensorFlow's object detection: y before x, "NAME:0" too
NO_CLASS = (
    "background",
    "__background__",
    "bg",
    "???",
    "n/a",
    "none",
    "unlabeled",
)  # the first name, where 0 is no class
LOGITS = "they are no shares of 1: put a Sigmoid behind them"


class NotReadError(Exception):
    """Outputs that look like a detector's, and why their boxes cannot be read; never leaves this module."""


def find_box_layout(
    model: ir.Model, layout: str, runs: Sequence[tuple[Arrays, Arrays]], names: Sequence[str] = ()
) -> BoxLayout | str:
    """The layout that fits the first run with boxes in it, of inputs in `layout` (NCHW or NHWC), with these names of classes.

    Else why the boxes of what looks like a detector cannot be read; "" for other models.
    """
    selected = [name for name, end in find_ends(model).items() if end.selected]
    why = ""
    for feeds, outputs in runs:
        (picture,) = feeds.values()
        if picture.ndim != 4:
            continue
        height, width = picture.shape[2:] if layout == "NCHW" else picture.shape[1:3]
        found = find_detections(outputs, [name for name in selected if outputs[name].size])
        try:
            if found is not None:
                return _describe_found(found, outputs, len(picture), names)
            head = _find_head(outputs, height, width, names) or find_pair(outputs, height, width)
        except NotReadError as error:
            why = str(error)
            continue
        if head is not None:
            return head
        why = why or _suspect(outputs, height, width, names)
    return why


def _describe_found(found: Detections, outputs: Arrays, count: int, names: Sequence[str]) -> BoxLayout:
    """Of boxes that the graph chose. Raises NotReadError where there is none."""
    boxes = [one for one in found.read(outputs, count) if len(one.boxes)]
    if not boxes:
        raise NotReadError("no box was found in the golden samples: --data with pictures that show something")
    all_boxes = np.concatenate([one.boxes for one in boxes])
    scores = np.concatenate([one.scores for one in boxes])
    least = CONFIDENT if found.scores is not None and scores.min() >= 0 and scores.max() <= 1 else None
    form = "centre and size" if found.centred else "corners"
    first = 0
    if form == "corners" and _is_tensorflow(found, outputs):
        form = "corners, y first"
        first = int(found.boxes.startswith(ROWS_FIRST[0]) and (not names or names[0].lower() not in NO_CLASS))
    first = _find_first_class(boxes, names, first)
    return BoxLayout(
        found.boxes, found.scores, found.classes, found.sample, least, form, are_shares(all_boxes), first_class=first
    )


def _is_tensorflow(found: Detections, outputs: Arrays) -> bool:
    """By name; else by how many boxes there are, which nobody else writes as floats."""
    if found.boxes.partition(":")[0] in ROWS_FIRST:
        return True
    rows = outputs[found.boxes]
    return rows.ndim == 3 and any(
        array.dtype.kind == "f"
        and name not in found.names
        and array.size == len(rows)
        and bool((array == np.rint(array)).all())
        and 0 <= array.min() <= array.max() <= rows.shape[1]
        for name, array in outputs.items()
    )


def _find_first_class(boxes: Sequence[FoundBoxes], names: Sequence[str], usual: int) -> int:
    """1 where the last class has as its number how many names there are, 0 where a box has that number."""
    classes = np.concatenate([one.classes for one in boxes])
    if classes.min() <= 0:
        return 0
    return 1 if names and classes.max() == len(names) else usual


def _find_head(outputs: Arrays, height: int, width: int, names: Sequence[str]) -> BoxLayout | None:
    """An output whose one axis has an anchor for each place, or a query each. Raises NotReadError."""
    places = count_places(height, width)
    masks = {array.shape[1] for array in outputs.values() if array.ndim == 4 and len(outputs) == 2}
    for name, array in outputs.items():
        if array.ndim != 3 or array.dtype.kind != "f" or not array.size:
            continue
        if array.shape[2] in places and array.shape[1] > 4:
            return _read_head(name, array.transpose(0, 2, 1), "anchors last", masks, names, (height, width))
        if array.shape[2] <= 4:
            continue
        thrice = array.shape[1] in {3 * count for count in places}
        if thrice or array.shape[1] in places:
            head = "anchors first" if thrice else _find_objectness(array, names)
            return _read_head(name, array, head, masks, names, (height, width))
        if names and array.shape[2] == 4 + len(names) and array.shape[1] > FEW and 0 <= array.min() <= array.max() <= 1:
            return BoxLayout(
                name, least=CONFIDENT, form="centre and size", shares=True, head="anchors first, classes only"
            )
    return None


def _find_objectness(array: Array, names: Sequence[str]) -> str:
    """Whether (n, anchors, columns) has a share of being an object before the classes. Raises NotReadError."""
    if bool((array[..., 4] == 1).all()) or (names and array.shape[2] == 5 + len(names)):
        return "anchors first"
    if names:
        return "anchors first, classes only"
    columns = array.shape[2]
    raise NotReadError(
        f"{columns} columns are {columns - 4} classes, or {columns - 5} behind a share of being an object: --classes FILE tells"
    )


def _may_hold_points(columns: Array) -> bool:
    """Whether columns may be points of a body in pixels: x and y of each, or x, y and how visible it is."""
    return 0 in (columns.shape[2] % 2, columns.shape[2] % 3) and bool(np.abs(columns).max() > SHARES)


def _read_head(
    name: str, table: Array, head: str, masks: set[int], names: Sequence[str], size: tuple[int, int]
) -> BoxLayout:
    """What (n, anchors, columns) holds. Raises NotReadError."""
    start = 5 if head == "anchors first" else 4
    boxes, rest = table[..., :4], table[..., start:]
    count = rest.shape[2] - next((mask for mask in masks if mask < rest.shape[2]), 0)
    if names and len(names) < count and _may_hold_points(rest[..., len(names) :]):
        count = len(names)
    if names and len(names) != count:
        raise NotReadError(f"{name!r} has {count} columns behind the box for {len(names)} classes")
    shares = table[..., 4 : start + count]
    if not (shares.min() >= 0 and shares.max() <= 1):
        raise NotReadError(f"scores in {name!r} go from {shares.min():.3g} to {shares.max():.3g}: {LOGITS}")
    classes = rest[..., :count] * (table[..., 4:5] if start == 5 else 1.0)
    if (np.median(classes, axis=(0, 1)) > CONFIDENT).any():
        raise NotReadError(
            f"{name!r} has a column that is high at most anchors, as the angle of a turned box: no class is"
        )
    if find_order(boxes[..., :2]) == "none":
        raise NotReadError(f"boxes in {name!r} do not follow the grid of anchors: they may be offsets to it")
    form = "corners" if find_form(boxes, *size) == "corners" else "centre and size"
    whole = count == rest.shape[2]
    return BoxLayout(
        name, None, None, None, CONFIDENT, form, are_shares(boxes), head, OVERLAPS[head], None if whole else count
    )


def find_pair(outputs: Arrays, height: int, width: int) -> BoxLayout | None:
    """Boxes (n, anchors, 4) in one output, and shares of classes (n, anchors, classes) in another.

    Where either could be the boxes, scores that sum up to 1 and boxes that are corners decide; None where they do not.
    """
    floats = {
        name: array.reshape(array.shape[0], array.shape[1], -1) for name, array in outputs.items()
        if array.ndim in (3, 4) and array.dtype.kind == "f" and array.size and 1 in (4 - array.ndim, *array.shape[2:3])
    }  # fmt: skip
    found: list[tuple[int, BoxLayout]] = []
    for name, boxes in floats.items():
        form = find_form(boxes, height, width) if boxes.shape[2] == 4 and boxes.shape[1] > FEW else ""
        for other, scores in floats.items():
            fits = other != name and scores.shape[:2] == boxes.shape[:2] and scores.min() >= 0 and scores.max() <= 1
            if not form or not fits:
                continue
            softmax = scores.shape[2] > 1 and bool((abs(scores.sum(axis=2) - 1) < 1e-2).all())
            background = find_background(scores) if softmax else None
            if softmax and background is None:
                continue
            layout = BoxLayout(
                name,
                other,
                background,
                None,
                CONFIDENT,
                form,
                are_shares(boxes),
                "anchors apart",
                OVERLAPS["anchors apart"],
            )
            found.append((2 * softmax + form.startswith("corners"), layout))
    best = [layout for rank, layout in found if rank == max(found, key=lambda one: one[0])[0]]
    return best[0] if len(best) == 1 else None


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
    places = count_places(height, width)
    flat = [
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and shape[0] in {k * n for k in (1, 3) for n in places}
    ]
    if flat:
        return f"{flat[0]!r} has no axis of samples: put a Reshape to (1, anchors, columns) behind it"
    if len(maps) and len(shapes) >= 3:
        return "outputs are maps of a head that is not decoded: export it with its own decoding"
    return ""
