"""Inputs that are pictures: their bytes are read as they are (arithmetic/pixels.py).

What the bytes stand for, a recorded preprocessing says exactly; else the samples that were kept show it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.pixels import HIGHEST, NEAR, Pixels, find_pixel_grids, lies_on, share_scale
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.nodes import may_read_pixels
from fcdeploy.preprocessing.apply import compute_levels
from fcdeploy.records.calibration import Calibration, Histogram
from fcdeploy.records.plan import LIMITS, NodeDecision, QParams, Range

STORED = {ir.DataType.UINT8: Range(0.0, 255.0), ir.DataType.INT8: Range(-128.0, 127.0)}
"""Types whose values are bytes already, with a step of 1."""


def plan_image_inputs(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], tensors: Mapping[str, QParams], calibration: Calibration
) -> dict[str, QParams]:
    """The scales, in which an input that a single convolution reads has one grid a channel.

    The samples that were kept must lie on the grids, and all others between their ends.
    """
    scales, kept = dict(tensors), next(iter(calibration.sample_groups), {})
    for node in graph:
        if decisions[name_of(node)].kind != "int8" or not may_read_pixels(node):
            continue
        name = name_of(node.inputs[0])
        grid = read_recorded_grids(name, calibration) or (find_pixel_grids(kept[name]) if name in kept else ())
        if grid and not share_scale(grid) and _covers(grid, calibration.tensors[name].histogram):
            dtype = scales[name].dtype
            why = f"pictures: each channel is its lowest value and 0 to {HIGHEST} of its steps, read as these bytes"
            scales[name] = QParams(dtype, (1.0,), LIMITS[dtype][0], why=why, pixels=grid)
    return scales


def find_byte_range(value: ir.Value, calibration: Calibration) -> Range | None:
    """The range in which every integer of 8 bits is one of the bytes that a tensor was made from; None where there is none.

    It reaches as far as bytes do, whatever was seen, and costs nothing: finer steps would tell nothing more apart.
    """
    producer = value.producer()
    if producer is not None:
        source = producer.inputs[0] if producer.op_type == "Cast" else None
        return None if source is None or source.dtype is None else STORED.get(source.dtype)
    grid = read_recorded_grids(name_of(value), calibration) if value.is_graph_input() else ()
    if not grid or not share_scale(grid):
        return None
    step, lowest = grid[0]
    return Range(lowest, lowest + HIGHEST * step) if lowest <= 0 <= lowest + HIGHEST * step else None


def read_recorded_grids(name: str, calibration: Calibration) -> Pixels:
    """The grid of each channel of an input by the preprocessing that was recorded.

    Empty where none was, and where what was seen does not lie on it, such as zeros around pictures that are filled up.
    """
    how = calibration.format.preprocessing
    if how is None:
        return ()
    levels = compute_levels(how).astype(np.float64)
    steps = np.ptp(levels, axis=1) / HIGHEST
    if not np.isfinite(levels).all() or not steps.all():
        return ()
    rows = tuple(zip(steps.tolist(), levels[:, 0].tolist(), strict=True))
    grid = rows if len(rows) == how.channels else rows * how.channels
    kept = [group[name] for group in calibration.sample_groups if name in group]
    alike = grid[:1] if share_scale(grid) else grid  # then it does not matter which axis is that of channels
    if len(alike) > 1 and (how.layout != "NCHW" or any(x.ndim != 4 for x in kept)):
        return ()
    fits = _covers(grid, calibration.tensors[name].histogram) and all(lies_on(x, alike) for x in kept)
    return grid if fits else ()


def _covers(grid: Pixels, seen: Histogram) -> bool:
    """Whether the grids of all channels together reach from end to end of what was seen."""
    lowest = min(low - NEAR * step for step, low in grid)
    highest = max(low + (HIGHEST + NEAR) * step for step, low in grid)
    return lowest <= seen.low and seen.high <= highest
