"""Whether outputs of some shapes can be read as a layout of boxes says: asked of what a model declares, and of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from fcdeploy.errors import FcdeployError
from fcdeploy.records.box_layout import BOX, FORMS, AnchorHead, BoxLayout, Columns, Detections, Level
from fcdeploy.records.signature import TensorSpec, format_axes

Shape = tuple[int | None, ...] | None
"""None where nothing is known of it, or of an axis."""
MAPS = {"map": (1, (2, 3)), "map, channels last": (3, (1, 2))}
"""The axis of channels, and those of places."""
FEWEST_BINS = 2


def check_outputs(layout: BoxLayout, outputs: Sequence[TensorSpec], source: str, hint: str) -> None:
    """Raise FcdeployError where a layout names an output, numbers or a class that the model has not."""
    texts = {spec.name for spec in outputs if spec.dtype.kind not in "fiub"} & set(layout.names)
    misfit = f"output {min(texts)[:60]!r} holds no numbers" if texts else ""
    misfit = misfit or explain_misfit(layout, {spec.name: spec.shape or None for spec in outputs})
    if misfit:
        raise FcdeployError(f"{source}: 'boxes' does not fit the model: {misfit}", hint)


def explain_misfit(layout: BoxLayout, shapes: Mapping[str, Shape]) -> str:
    """What a layout reads that outputs of these shapes have not; "" where nothing is known to be wrong."""
    missing = sorted(set(layout.names) - shapes.keys())
    if missing:
        return f"it names the output {missing[0][:60]!r}, which the model has not"
    if isinstance(layout, Detections):
        return _explain_chosen(layout, shapes)
    whys = (_explain_level(layout, level, shapes) for level in layout.levels)
    return next(filter(None, whys), "") or _explain_unlike(layout, shapes)


def _explain_level(head: AnchorHead, level: Level, shapes: Mapping[str, Shape]) -> str:
    parts = [part for part in (level.boxes, level.scores, level.objectness, level.rest) if part is not None]
    for part in parts:
        if why := _explain_axes(part, shapes[part.output]):
            return why
    anchors = [_count_anchors(part, shapes[part.output]) for part in parts]
    if _differ(anchors):
        return f"boxes and scores have different numbers of anchors: {anchors}"
    if head.coding not in FORMS and not _have_grids(level):
        return f"{head.coding} of output {level.boxes.output!r} need the grid of their places"
    boxes, scores = (_count_numbers(part, shapes[part.output]) for part in (level.boxes, level.scores))
    if boxes is not None and not (boxes == BOX or (head.coding == "bins" and _are_bins(boxes))):
        return f"it reads {boxes} numbers of a box in output {level.boxes.output!r}, expected {BOX}, or bins of each"
    if boxes == BOX and head.coding == "bins":
        return f"it reads one bin of each side in output {level.boxes.output!r}, expected several"
    left_out = 0 if head.background is None else 1
    if scores is not None and ((head.background or 0) >= scores or scores <= left_out):
        return f"it names class {head.background} of {scores} in output {level.scores.output!r} as the background, or no other"
    there = None if level.objectness is None else _count_numbers(level.objectness, shapes[level.objectness.output])
    return f"it reads {there} shares of being an object, expected one" if there not in (None, 1) else ""


def _explain_unlike(head: AnchorHead, shapes: Mapping[str, Shape]) -> str:
    """Levels and samples have to be alike."""
    for what in ("scores", "rest"):
        parts = [part for level in head.levels if (part := getattr(level, what)) is not None]
        counts = [_count_numbers(part, shapes[part.output]) for part in parts]
        if _differ(counts):
            return f"its maps have different numbers of {what}: {counts}"
    samples = {name: None if shape is None else shape[0] for name in head.names for shape in [shapes[name]]}
    return f"outputs have different numbers of samples: {samples}" if _differ(samples.values()) else ""


def _explain_chosen(layout: Detections, shapes: Mapping[str, Shape]) -> str:
    rows = shapes[layout.boxes]
    if rows is None:
        return ""
    if len(rows) not in (2, 3):
        return f"output {layout.boxes!r} is {format_axes(rows)}, expected rows of boxes"
    columns = [at for at in (layout.scores, layout.classes, layout.sample) if isinstance(at, int)]
    wanted = max([BOX + (layout.sample is not None), *(at + 1 for at in columns)])
    if rows[-1] is not None and rows[-1] < wanted:
        return f"output {layout.boxes!r} has {rows[-1]} columns, expected {wanted} or more"
    for name in (layout.scores, layout.classes):
        beside = shapes[name] if isinstance(name, str) else None
        counts = [_multiply(rows[:-1]), None if beside is None else _multiply(beside)]
        if beside is not None and _differ(counts):
            return f"output {name!r} is {format_axes(beside)}, expected a number for each row of {format_axes(rows)}"
    return ""


def _explain_axes(part: Columns, shape: Shape) -> str:
    """Why an output of this shape is not laid out as a part of it is read; "" where it may be."""
    if shape is None:
        return ""
    rank = {"anchors last": 3, "map": 4, "map, channels last": 4, "maps of anchors": 5}.get(part.layout)
    if len(shape) != rank and (rank is not None or len(shape) < 2):
        return f"output {part.output!r} is {format_axes(shape)}, which is no {part.layout!r}"
    channels = shape[MAPS[part.layout][0]] if part.layout in MAPS else 0
    apart = shape[1] if part.layout == "maps of anchors" else part.anchors
    if (channels is not None and channels % part.anchors) or apart not in (None, part.anchors):
        return f"output {part.output!r} is {format_axes(shape)}, which is not of {part.anchors} anchors at a place"
    return ""


def _count_anchors(part: Columns, shape: Shape) -> int | None:
    if shape is None:
        return None
    if part.layout in MAPS:
        return _multiply([part.anchors, *(shape[axis] for axis in MAPS[part.layout][1])])
    if part.layout == "maps of anchors":
        return _multiply(shape[1:4])
    return shape[2] if part.layout == "anchors last" else shape[1]


def _count_numbers(part: Columns, shape: Shape) -> int | None:
    """How many numbers of each anchor are read."""
    if shape is None:
        return None
    if part.layout in MAPS:
        channels = shape[MAPS[part.layout][0]]
        numbers = None if channels is None else channels // part.anchors
    elif part.layout == "anchors first":
        numbers = _multiply(shape[2:])
    else:
        numbers = shape[1] if part.layout == "anchors last" else shape[4]
    return None if numbers is None else len(range(numbers)[part.start : part.stop])


def _have_grids(level: Level) -> bool:
    """Whether the places of anchors are known: of an output that is a map, of that one."""
    if level.boxes.layout in (*MAPS, "maps of anchors"):
        return len(level.grids) == 1 and level.grids[0].anchors == level.boxes.anchors
    return bool(level.grids)


def _are_bins(numbers: int) -> bool:
    return numbers % BOX == 0 and numbers // BOX >= FEWEST_BINS


def _multiply(lengths: Sequence[int | None]) -> int | None:
    return None if None in lengths else prod(length or 0 for length in lengths)


def _differ(numbers: Iterable[int | None]) -> bool:
    return len({number for number in numbers if number is not None}) > 1
