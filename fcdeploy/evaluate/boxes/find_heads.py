"""Which outputs of a network that reads pictures are boxes and scores of anchors: by the graph, the shapes and a few answers.

No shape alone makes a detector.  There are as many anchors as places on maps of several strides; scores are shares, or logits of
such, and at most anchors small; and the numbers of boxes do what only boxes do: their centres lie on the grid of places, or
in the order of one, with sides that fit the picture; or the graph puts them beside scores that a Sigmoid or Softmax makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.evaluate.boxes.compare import show_more
from fcdeploy.evaluate.boxes.find_detections import describe_chosen, find_detections
from fcdeploy.evaluate.boxes.find_families import find_mediapipe, find_yolo2
from fcdeploy.evaluate.boxes.find_maps import find_levels
from fcdeploy.evaluate.boxes.find_pairs import NO_SCORES, find_decoded_pair, find_offsets, find_queries
from fcdeploy.evaluate.boxes.find_raw import find_raw_maps, find_raw_pair
from fcdeploy.evaluate.boxes.find_tables import find_named_queries, find_table
from fcdeploy.evaluate.boxes.grids import Size
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.records.box_layout import AnchorHead, BoxLayout


def find_boxes(
    outputs: Arrays, ends: Mapping[str, OutputEnd], size: Size, names: Sequence[str] = ()
) -> BoxLayout | None:
    """Where the first answers to pictures of a size (height, width) hold boxes; None where they hold none.

    What was found by other samples, and recorded, is so; then what the graph chose; then boxes and scores of every anchor.
    `names` of classes tell heads of the same shape apart.
    """
    recorded = next((end.boxes for end in ends.values() if end.boxes is not None), None)
    if recorded is not None:
        return recorded
    found = find_detections(outputs, [name for name in outputs if name in ends and ends[name].selected])
    if found is not None:
        return describe_chosen(found, outputs, len(outputs[found.boxes]), names) or found
    head = find_anchor_head(outputs, ends, size, names)
    return head and show_more(head, outputs, len(outputs[head.boxes]), size)


def find_anchor_head(
    outputs: Arrays, ends: Mapping[str, OutputEnd], size: Size, names: Sequence[str] = ()
) -> AnchorHead | None:
    """The boxes and scores of anchors, shown from usual scores."""
    floats = {
        name: array
        for name, array in outputs.items()
        if array.dtype.kind == "f" and array.ndim in (3, 4, 5) and array.size and np.isfinite(array).all()
    }
    if size is None or not floats:
        return None
    tables = {name: array for name, array in floats.items() if array.ndim == 3}
    for name, array in tables.items():
        head = find_table(name, array, ends.get(name, NO_SCORES), size, names)
        if head is not None:
            return head
    decoded = find_decoded_pair(floats, ends, size, names) or find_queries(floats, ends)
    if decoded is not None:
        return decoded
    queries = (find_named_queries(name, array, names) for name, array in tables.items())
    return (
        next(filter(None, queries), None)
        or find_offsets(floats, ends, size)
        or find_raw_pair(floats, ends, size)
        or find_mediapipe(floats, size)
        or find_raw_maps(floats, ends, size)
        or find_yolo2(floats, ends, size)
        or find_levels(floats, size)
    )
