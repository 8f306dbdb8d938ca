"""Calls of recurrent layers, normalization and interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcdeploy.native.calls import pack
from fcdeploy.native.calls.call import (
    Argument,
    KernelCall,
    Struct,
    Weights,
    make_address,
    make_call,
    make_code,
    make_image,
)
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.layers import Recurrent
from fcdeploy.native.program.steps import Interpolate, Line, Normalize


def call_recurrent(step: Recurrent, work: Placed, weights: Weights) -> KernelCall:
    units = step.weight.shape[1]
    times, batch = step.output.shape[:2]
    bias = weights.add(pack.pack_gates(step.bias, units), "float")
    if step.scale is None:
        packed: list[Argument] = [
            weights.add(pack.pack_gates(step.weight, units), "float"),
            None,
            None,
            None,
            bias,
            None,
            None,
        ]
    else:
        assert work.scratch is not None
        weight, shift = pack.pack_recurrent_weights(step.weight)
        scale = (step.scale.astype(np.float64) / pack.STATE_STEPS).astype(np.float32)
        packed = [
            None, weights.add(weight, "int8_t"), weights.add(shift, "int32_t"),
            weights.add(pack.pack_gates(scale, units), "float"), bias,
            weights.add(pack.order_fours(weight), "uint8_t"), make_address(work.scratch, weights, "uint8_t"),
        ]  # fmt: skip
    starts = [make_address(view, weights) for view in work.inputs[1:]]
    count = 2 if step.kind == "lstm" else 1
    fields = {
        "times": times, "batch": batch, "units": units, "backwards": int(step.backwards),
        "reset_last": int(step.reset_last),
    }  # fmt: skip
    written = [make_address(view, weights) for view in work.outputs]
    return make_call(
        work, "recurrent.h", f"fc_{step.kind}", *written, make_address(work.inputs[0], weights), *starts,
        *[None] * (count - len(starts)), *packed,
        Struct("struct fc_recurrent", fields),
    )  # fmt: skip


def call_normalize(step: Normalize, work: Placed, weights: Weights) -> KernelCall:
    rows = step.output.size // step.length
    both = make_address(work.outputs[0], weights), make_address(work.inputs[0], weights)
    factors = weights.add(step.gain, "float"), weights.add(step.shift, "float")
    return make_call(work, "normalize.h", "fc_normalize", *both, *factors, rows, step.length, float(step.epsilon))


def call_interpolate(step: Interpolate, work: Placed, weights: Weights) -> KernelCall:
    x, y = work.inputs[0], work.outputs[0]
    source, target = make_image(x), make_image(y)
    still = Line(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32))
    rows, columns = (still, *step.lines)[-2:]
    tables: list[Argument] = []
    for line, stride in ((rows, source.row), (columns, source.column)):
        tables += [weights.add((each * stride).astype(np.int32), "int32_t") for each in (line.first, line.second)]
        tables.append(weights.add(line.part, "float"))
    fields: dict[str, Any] = {
        "images": target.images, "rows": target.rows, "columns": target.columns, "channels": target.channels,
        "x_image": source.image, "x_channel": x.strides[1], "y_image": target.image, "y_row": target.row,
        "y_column": target.column, "y_channel": y.strides[1],
    }  # fmt: skip
    coding, to = step.inputs[0].coding, step.output.coding
    if coding is not None and to is not None:
        more = {"zero": float(coding.zero_point), "scale": coding.scale, "y_scale": to.scale}
        fields |= more | {"code": make_code(step, to.zero_point)}
    kernel = f"fc_interpolate_{'reals' if to is None else 'bytes'}"
    both = make_address(y, weights), make_address(x, weights)
    return make_call(work, "interpolate.h", kernel, *both, *tables, Struct("struct fc_interpolate", fields))
