"""Inputs that are pictures: their bytes are read as they are (arithmetic/pixels.py)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from fcdeploy.arithmetic.pixels import HIGHEST, pixels
from fcdeploy.int8.nodes import may_read_pixels
from fcdeploy.records.plan import LIMITS, Decision, QParams
from fcdeploy.samples.kept import Arrays


def read_pictures(
    graph: ir.Graph, decisions: Mapping[str, Decision], tensors: Mapping[str, QParams], kept: Arrays
) -> dict[str, QParams]:
    """The scales, in which an input that a single convolution reads has one grid a channel, where all samples lie on them."""
    found = dict(tensors)
    for node in graph:
        if decisions[node.name or ""].kind != "int8" or not may_read_pixels(node):
            continue
        name = node.inputs[0].name or ""  # type: ignore[union-attr]
        grid = pixels(kept[name]) if name in kept else ()
        if grid:
            dtype = found[name].dtype
            why = f"pictures: each channel is its lowest value and 0 to {HIGHEST} of its steps, read as these bytes"
            found[name] = QParams(dtype, (1.0,), LIMITS[dtype][0], why=why, pixels=grid)
    return found
