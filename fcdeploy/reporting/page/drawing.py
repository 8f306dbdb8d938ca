"""Numbers to the coordinates of small SVG pictures, which the template draws; nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fcdeploy.arithmetic.histogram_summary import count_in_cells
from fcdeploy.records.calibration import Histogram

CELLS, WIDTH, HEIGHT = 48, 240, 60
MEMORY = (600, 80)
NODE = (176, 40, 30, 14)  # width and height of a node, gaps beside and below it


@dataclass(frozen=True)
class HistogramPicture:
    """Outlines of the float tensor and of what the chosen ends keep of it, and where the ends are, in pixels."""

    float_path: str
    int8_path: str
    ends: tuple[float, float]
    low: float
    high: float


def draw_histogram(h: Histogram, ends: tuple[float, float] | None) -> HistogramPicture | None:
    """Heights are square roots of counts, so that tails are seen; None where there is nothing to draw."""
    if h.ends_only or not h.total or h.low == h.high:
        return None
    low, high = min(h.low, *(ends or (h.low,))), max(h.high, *(ends or (h.high,)))
    width = (h.high - h.low) / CELLS
    counts = count_in_cells(h, CELLS)
    x = h.low + width * np.arange(CELLS)
    kept = counts.copy()
    if ends is not None:  # what lies beyond an end is said as the end
        for outside, at in ((x + width <= ends[0], ends[0]), (x >= ends[1], ends[1])):
            cell = int(np.clip((at - h.low) / width, 0, CELLS - 1))
            kept[cell] += counts[outside].sum()
            kept[outside & (np.arange(CELLS) != cell)] = 0
    top = float(max(counts.max(), kept.max())) ** 0.5

    def to_x(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 1)

    def outline(heights: Sequence[float]) -> str:
        points = [f"M{to_x(h.low)} {HEIGHT}"]
        for start, count in zip(x, heights, strict=True):
            level = round(HEIGHT - HEIGHT * count**0.5 / top, 1)
            points.append(f"L{to_x(start)} {level}H{to_x(start + width)}")
        return "".join([*points, f"V{HEIGHT}Z"])

    marks = (to_x(ends[0]), to_x(ends[1])) if ends else (0.0, float(WIDTH))
    return HistogramPicture(outline(counts.tolist()), outline(kept.tolist()), marks, low, high)


@dataclass(frozen=True)
class GraphPicture:
    """Places of nodes and lines between them, in pixels."""

    nodes: tuple[tuple[str, float, float], ...]
    lines: tuple[str, ...]
    width: float
    height: float


def draw_graph(nodes: Mapping[str, Sequence[str]]) -> GraphPicture:
    """A graph from node -> the nodes it reads: each right of all that it reads, one below the other in the file's order."""
    depth: dict[str, int] = {}
    for name, inputs in nodes.items():
        depth[name] = 1 + max((depth.get(one, 0) for one in inputs), default=0)
    outside = {one for inputs in nodes.values() for one in inputs if one not in nodes}
    depth |= dict.fromkeys(outside, 0)
    wide, high, beside, below = NODE
    used: dict[int, int] = {}
    places = {}
    for name in [*sorted(outside), *nodes]:
        column = used.get(depth[name], 0)
        used[depth[name]] = column + 1
        places[name] = (depth[name] * (wide + beside), column * (high + below))
    lines = [
        f"M{places[source][0] + wide} {places[source][1] + high / 2}"
        f"C{places[source][0] + wide + beside} {places[source][1] + high / 2} "
        f"{places[name][0] - beside} {places[name][1] + high / 2} {places[name][0]} {places[name][1] + high / 2}"
        for name, inputs in nodes.items()
        for source in inputs
    ]
    rows = tuple((name, x, y) for name, (x, y) in places.items())
    width = max((x for _, x, _ in rows), default=0) + wide
    return GraphPicture(rows, tuple(lines), width, max((y for _, _, y in rows), default=0) + high)


def draw_memory(steps: Sequence[int]) -> str:
    """The outline of bytes over time, a step a node, in a box of MEMORY; empty without any."""
    if not steps or not max(steps):
        return ""
    wide, high = MEMORY
    each, most = wide / len(steps), max(steps)
    tops = (f"V{high - 0.95 * high * count / most:.1f}H{each * (at + 1):.1f}" for at, count in enumerate(steps))
    return f"M0 {high}{''.join(tops)}V{high}Z"


@dataclass(frozen=True)
class IntervalPicture:
    """An interval, its middle and zero as shares of a line's length."""

    low: float
    middle: float
    high: float
    zero: float
    limit: float | None


def draw_interval(low: float, middle: float, high: float, limit: float | None) -> IntervalPicture:
    """Scaled so that all of it and zero are inside."""
    values = [low, middle, high, 0.0, *([limit] if limit is not None else [])]
    least, most = min(values), max(values)
    room = (most - least) or 1.0
    least, room = least - 0.08 * room, 1.16 * room
    low, middle, high, zero = ((value - least) / room for value in (low, middle, high, 0.0))
    return IntervalPicture(low, middle, high, zero, None if limit is None else (limit - least) / room)


def draw_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(x, y) as shares of a square's sides, y upwards from the bottom, with a margin."""
    array = np.asarray(points, float).reshape(-1, 2)
    least, most = array.min(axis=0), array.max(axis=0)
    room = np.where(most > least, most - least, 1.0)
    return [(float(x), float(1 - y)) for x, y in 0.08 + 0.84 * (array - least) / room]
