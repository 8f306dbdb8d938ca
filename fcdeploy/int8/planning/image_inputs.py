"""Inputs that are pictures: their bytes are read as they are (arithmetic/pixels.py)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from fcdeploy.arithmetic.pixels import HIGHEST, NEAR, Pixels, find_pixel_grids
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.nodes import may_read_pixels
from fcdeploy.records.calibration import Calibration, Histogram
from fcdeploy.records.plan import LIMITS, NodeDecision, QParams


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
        grid = find_pixel_grids(kept[name]) if name in kept else ()
        if grid and _covers(grid, calibration.tensors[name].histogram):
            dtype = scales[name].dtype
            why = f"pictures: each channel is its lowest value and 0 to {HIGHEST} of its steps, read as these bytes"
            scales[name] = QParams(dtype, (1.0,), LIMITS[dtype][0], why=why, pixels=grid)
    return scales


def _covers(grid: Pixels, seen: Histogram) -> bool:
    """Whether the grids of all channels together reach from end to end of what was seen."""
    lowest = min(low - NEAR * step for step, low in grid)
    highest = max(low + (HIGHEST + NEAR) * step for step, low in grid)
    return lowest <= seen.low and seen.high <= highest
