"""Where a model's answers to pictures hold boxes: read from the graph, the shapes and a few answers.

Boxes that a suppression in the graph has left are found as `validate` finds them.  Where every anchor answers, shapes give it
away: on strides of 8, 16 and 32 pixels, 640 x 640 have 8,400 places, with one anchor each in YOLOv8 and later, with three in
YOLOv5 and v7.  Boxes and scores of as many anchors in two outputs are those of a single-shot detector, where the boxes lie in
the input: offsets to anchors do not, and which of two outputs holds the scores is not said by their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.detections import CONFIDENT, Detections, find_detections
from fcdeploy.evaluate.outputs import find_ends
from fcdeploy.records.box_layout import BoxLayout

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
OVERLAPS = {"anchors last": 0.7, "anchors first": 0.45, "anchors apart": 0.45}
"""What Ultralytics' predict, YOLOv5's detect and the SSD of W. Liu et al. (2016) take by default."""
FEW = 64  # rows: what a suppression leaves, rather than anchors
IN_PLACE = 0.95  # of the anchors' boxes: some of those without an object come out anywhere
SLACK = 0.05  # of a side, by which the centre of a box may miss the input
SHARES = 2.0  # boxes whose ends are all smaller are shares of the input: in pixels they would be specks
ROWS_FIRST = "detection_boxes"  # TensorFlow's object detection API: y before x


def find_box_layout(model: ir.Model, layout: str, runs: Sequence[tuple[Arrays, Arrays]]) -> BoxLayout | None:
    """The layout that fits the first run with boxes in it, of inputs in `layout` (NCHW or NHWC); None for other models."""
    selected = [name for name, end in find_ends(model).items() if end.selected]
    for feeds, outputs in runs:
        found = find_detections(outputs, [name for name in selected if outputs[name].size])
        if found is not None:
            return _describe_found(found, outputs)
        (picture,) = feeds.values()
        if picture.ndim == 4:
            height, width = picture.shape[2:] if layout == "NCHW" else picture.shape[1:3]
            if (head := _find_head(outputs, height, width) or _find_pair(outputs, height, width)) is not None:
                return head
    return None


def _describe_found(found: Detections, outputs: Arrays) -> BoxLayout:
    start = 0 if found.sample is None else 1
    form = "centre and size" if found.centred else "corners, y first" if found.boxes == ROWS_FIRST else "corners"
    shares = _are_shares(outputs[found.boxes][..., start : start + 4])
    return BoxLayout(found.boxes, found.scores, found.classes, found.sample, found.least, form, shares)


def _find_head(outputs: Arrays, height: int, width: int) -> BoxLayout | None:
    """An output whose one axis has an anchor for each place, and whose scores are shares."""
    places = {sum((height // stride) * (width // stride) for stride in strides) for strides in STRIDES}
    for name, array in outputs.items():
        if array.ndim != 3 or array.dtype.kind != "f":
            continue
        if array.shape[2] in places and array.shape[1] > 4:
            head, boxes, scores = "anchors last", array[:, :4], array[:, 4:]
        elif array.shape[1] in {3 * count for count in places} and array.shape[2] > 5:
            head, boxes, scores = "anchors first", array[..., :4], array[..., 4:]
        else:
            continue
        if scores.min() >= 0 and scores.max() <= 1:
            return BoxLayout(
                name,
                least=CONFIDENT,
                form="centre and size",
                shares=_are_shares(boxes),
                head=head,
                overlap=OVERLAPS[head],
            )
    return None


def _find_pair(outputs: Arrays, height: int, width: int) -> BoxLayout | None:
    """Boxes (n, anchors, 4) in one output, and shares of classes (n, anchors, classes) in another.

    Where either could be the boxes, scores that sum up to 1 and boxes that are corners decide; None where they do not.
    """
    floats = {
        name: array for name, array in outputs.items() if array.ndim == 3 and array.dtype.kind == "f" and array.size
    }
    found: list[tuple[int, BoxLayout]] = []
    for name, boxes in floats.items():
        form = _find_form(boxes, height, width) if boxes.shape[2] == 4 and boxes.shape[1] > FEW else ""
        for other, scores in floats.items():
            fits = other != name and scores.shape[:2] == boxes.shape[:2] and scores.min() >= 0 and scores.max() <= 1
            if not form or not fits:
                continue
            softmax = scores.shape[2] > 1 and bool((abs(scores.sum(axis=2) - 1) < 1e-2).all())
            background = _find_background(scores) if softmax else None
            if softmax and background is None:
                continue
            layout = BoxLayout(
                name,
                other,
                background,
                None,
                CONFIDENT,
                form,
                _are_shares(boxes),
                "anchors apart",
                OVERLAPS["anchors apart"],
            )
            found.append((2 * softmax + (form == "corners"), layout))
    best = [layout for rank, layout in found if rank == max(found, key=lambda one: one[0])[0]]
    return best[0] if len(best) == 1 else None


def _find_form(boxes: Array, height: int, width: int) -> str:
    """As what the boxes (n, anchors, 4) have a size and lie in the input: corners, or centre and size; "" for neither."""
    sides = np.array([1.0, 1.0] if _are_shares(boxes) else [width, height])
    start, end = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64)
    for form, centre, size in (("corners", (start + end) / 2, end - start), ("centre and size", start, end)):
        inside = (centre >= -SLACK * sides) & (centre <= (1 + SLACK) * sides) & (size > 0) & (size <= 2 * sides)
        if inside.all(axis=2).mean() >= IN_PLACE:
            return form
    return ""


def _find_background(scores: Array) -> int | None:
    """The class that most anchors have, since most see no object; None where no class has more than half of them."""
    counts = np.bincount(scores.argmax(axis=2).reshape(-1))
    return int(counts.argmax()) if 2 * counts.max() > counts.sum() else None


def _are_shares(boxes: Array) -> bool:
    return bool(np.abs(boxes).max(initial=0.0) <= SHARES)
