"""Calls of CMSIS-NN: dimensions, weights in its order, and multipliers in place of factors."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.calls.call import (
    KernelCall,
    Struct,
    Weights,
    make_address,
    make_call,
    make_image,
    make_taps,
    make_two_axes,
)
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.layers import IntegerLayer
from fcdeploy.native.program.multipliers import fold_zero_point

HEADER = "cmsis_nn.h"
SIGN = 128  # what its signed bytes are less than the program's


def call_integer_layer(step: IntegerLayer, work: Placed, weights: Weights) -> KernelCall:
    """Filters (outputs, rows, columns, inputs), of a depthwise layer (rows, columns, channels)."""
    x, y = work.inputs[0], work.outputs[0]
    source, to = step.inputs[0].coding, step.output.coding
    assert source is not None and to is not None and work.scratch is not None
    if step.window is None:  # a convolution of 1 x 1 over all positions
        packed = step.weight if work.order is None else step.weight[:, work.order]
        positions, channels = prod(x.array.shape[:-1]), x.array.shape[-1]
        fields: dict[str, Any] = {"images": 1, "x_rows": 1, "x_columns": positions, "x_channels": channels}
        fields |= {"rows": 1, "columns": positions}
        taps = {"taps_y": 1, "taps_x": 1, "step_y": 1, "step_x": 1, "gap_y": 1, "gap_x": 1}
    else:
        window, (given, made) = make_two_axes(step.window), (make_image(x), make_image(y))
        packed = _pack(step, window)
        fields = {
            "images": given.images, "x_rows": given.rows, "x_columns": given.columns, "x_channels": given.channels,
            "rows": made.rows, "columns": made.columns,
        }  # fmt: skip
        taps = {name: value for name, value in make_taps(given, window).items() if name not in ("x_rows", "x_columns")}
    fields |= {
        "depthwise": step.depthwise, "channels": len(step.weight), **taps,
        "x_zero": source.zero_point - SIGN, "y_zero": to.zero_point - SIGN, "low": step.low - SIGN, "high": step.high - SIGN,
        "scratch": step.scratch_bytes,
    }  # fmt: skip
    return make_call(
        work, HEADER, "fc_cmsis_nn", make_address(y, weights), make_address(x, weights), weights.add(packed, "int8_t"),
        weights.add(fold_zero_point(step).astype(np.int32), "int32_t"), weights.add(step.multiplier, "int32_t"),
        weights.add(step.shift, "int32_t"), make_address(work.scratch, weights, "uint8_t"), Struct("struct fc_cmsis_nn", fields),
    )  # fmt: skip


def _pack(step: IntegerLayer, window: Window) -> np.ndarray[Any, Any]:
    weight = step.weight.reshape(len(step.weight), step.weight.shape[1], *window.kernel)
    return np.moveaxis(weight[:, 0], 0, -1) if step.depthwise else np.moveaxis(weight, 1, -1)
