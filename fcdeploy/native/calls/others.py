"""Calls of everything else: element by element, pools, moves, copies."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.native.calls.call import (
    Address,
    KernelCall,
    Struct,
    Weights,
    make_address,
    make_call,
    make_code,
    make_image,
    make_loop,
    make_positions,
    make_taps,
    make_two_axes,
)
from fcdeploy.native.calls.divisions import find_scales
from fcdeploy.native.placing.views import LOOPS, View, nest_loops
from fcdeploy.native.placing.work import Copy, Fill, Placed
from fcdeploy.native.program.functions import BINARY
from fcdeploy.native.program.layers import Product
from fcdeploy.native.program.steps import (
    KERNELS_HINT,
    Combine,
    GlobalAverage,
    Lookup,
    LookupTable,
    Move,
    Pointwise,
    Pool,
    Quantize,
    Reduce,
    Softmax,
)


def call_copy(work: Copy, weights: Weights) -> KernelCall:
    target, source = work.target, work.source
    itemsize = target.array.itemsize
    table, _ = make_loop(target, source, node=work.node)
    to, from_ = (make_address(view, weights, "void") for view in (target, source))
    return KernelCall(
        work.node, f"copy {list(target.array.shape)}", "move.h", f"fc_copy_{itemsize}", (to, from_, table)
    )


def call_fill(work: Fill) -> KernelCall:
    view = work.target
    if work.border:
        memory = view.buffer.memory
        images, rows, columns, channels = memory.shape
        top, bottom, left, right = view.border
        fields = {
            "images": images, "image": rows * columns * channels, "rows": rows - top - bottom,
            "row": columns * channels, "top": top, "bottom": bottom, "left": left * channels, "right": right * channels,
            "value": int(work.value),
        }  # fmt: skip
        where = Address(view.buffer, 0, "uint8_t")
        return KernelCall(work.node, "border", "move.h", "fc_fill_border", (where, Struct("struct fc_border", fields)))
    size = view.buffer.memory.size
    bytes_ = view.array.itemsize == 1
    where = Address(view.buffer, 0, "uint8_t" if bytes_ else "float")
    value: int | float = int(work.value) if bytes_ else float(work.value)
    return KernelCall(work.node, "padding", "move.h", "fc_fill_1" if bytes_ else "fc_fill_4", (where, value, size))


def call_combine(step: Combine, work: Placed, weights: Weights) -> KernelCall:
    a, b = work.inputs
    table, _ = make_loop(work.outputs[0], a, b, node=step.node)
    addresses = [make_address(view, weights) for view in (work.outputs[0], a, b)]
    return make_call(work, "bytes.h", f"fc_{step.kind}_bytes", *addresses, make_combination(step, table))


def make_combination(step: Combine, table: Struct, *, swapped: bool = False) -> Struct:
    """`struct fc_combine`; `swapped`: the loops' first operand is the step's second."""
    left, right, to = (tensor.coding for tensor in (*step.inputs, step.output))
    assert left is not None and right is not None and to is not None
    a_scale, b_scale, scale = find_scales(step)
    operands = [(float(left.zero_point), a_scale), (float(right.zero_point), b_scale)]
    (a_zero, a_scale), (b_zero, b_scale) = reversed(operands) if swapped else operands
    fields = {
        "loop": table.fields, "a_zero": a_zero, "b_zero": b_zero, "a_scale": a_scale, "b_scale": b_scale, "scale": scale,
        "code": make_code(step, to.zero_point),
    }  # fmt: skip
    return Struct("struct fc_combine", fields)


def call_product(step: Product, work: Placed, weights: Weights) -> KernelCall:
    views, to = (*work.inputs, work.outputs[0]), step.output.coding
    zeros = [0 if tensor.coding is None else tensor.coding.zero_point for tensor in step.inputs]
    fields: dict[str, Any] = {"count": [1] * (LOOPS - len(step.output.shape)) + list(step.output.shape)}
    for name, view in zip(("a", "b", "y"), views, strict=True):
        fields[name] = [0] * (LOOPS - len(view.strides)) + list(view.strides)
    fields |= {
        "length": step.inputs[0].shape[-1], "a_zero": zeros[0], "b_zero": zeros[1], "factor": step.factor,
        "code": make_code(step, 0 if to is None else to.zero_point),
    }  # fmt: skip
    kind = "floats" if step.inputs[0].dtype == "float32" else "reals" if to is None else "bytes"
    addresses = [make_address(view, weights) for view in (work.outputs[0], *work.inputs)]
    return make_call(work, "product.h", f"fc_product_{kind}", *addresses, Struct("struct fc_product", fields))


def call_table(step: LookupTable | Lookup, work: Placed, weights: Weights) -> KernelCall:
    kind, ctype = ("bytes", "uint8_t") if isinstance(step, LookupTable) else ("reals", "float")
    y, x = work.outputs[0], work.inputs[0]
    to, from_ = make_address(y, weights, ctype), make_address(x, weights, "uint8_t")
    values = weights.add(step.table, ctype)
    if step.table.ndim == 1:
        table, _ = make_loop(y, x, node=step.node)
        return make_call(work, "bytes.h", f"fc_table_{kind}", to, from_, values, table)
    table, along = make_loop(y, x, node=step.node, keep=1)
    return make_call(work, "bytes.h", f"fc_tables_{kind}", to, from_, values, along, table)


def call_quantize(step: Quantize, work: Placed, weights: Weights) -> KernelCall:
    to = step.output.coding
    assert to is not None
    y, x = work.outputs[0], work.inputs[0]
    codes = Struct("struct fc_code", make_code(step, to.zero_point))
    addresses = make_address(y, weights), make_address(x, weights)
    table, along = make_loop_of_channels(y, x, step.node)
    if step.gain is None or step.shift is None:
        return make_call(work, "bytes.h", "fc_quantize", *addresses, float(to.scale), codes, table)
    affine = weights.add(step.gain, "float"), weights.add(step.shift, "float")
    return make_call(work, "bytes.h", "fc_quantize_channels", *addresses, *affine, float(to.scale), along, codes, table)


def make_loop_of_channels(y: View, x: View, node: str) -> tuple[Struct, int]:
    """`struct fc_loop` in the order in which the floats of x lie, and which of its loops is channels: 1 wherever that can be.

    Kernels read floats side by side, and lay up to four planes of a picture side by side, which they look for in the loop 1.
    """
    channels = x.array.shape[1] if x.array.ndim > 1 else 1
    table, along = make_loop(x, y, node=node, keep=1 if channels > 1 else None)
    if channels == 1 and table.fields["count"][1] != 1:  # another axis is there: one is kept for the only channel
        table, along = make_loop(x, y, node=node, keep=1)
    elif channels == 1:
        along = 1
    loop = {"count": table.fields["count"], "y": table.fields["a"], "a": table.fields["y"]}
    if along == 2 and loop["count"][0] == 1:  # rows of pixels are one loop: what stands before it moves up
        loop = {key: [*loops[1:3], 1 if key == "count" else 0, loops[3]] for key, loops in loop.items()}
        along = 1
    return Struct(table.ctype, loop), along


def call_pool(step: Pool, work: Placed, weights: Weights) -> KernelCall:
    window, source, target = make_two_axes(step.window), make_image(work.inputs[0]), make_image(work.outputs[0])
    x, y = step.inputs[0].coding, step.output.coding
    fields: dict[str, Any] = make_positions(source, target, window) | make_taps(source, window) | {
        "x_row": source.row, "x_column": source.column, "channels": target.channels,
        "counted": prod(window.kernel) if step.padded else 0,
        "behind": int(work.inputs[0].buffer.where == "arena"),
    }  # fmt: skip
    if step.kind == "average" and x is not None and y is not None:
        fields |= {
            "zero": float(x.zero_point),
            "scale": x.scale,
            "y_scale": y.scale,
            "code": make_code(step, y.zero_point),
        }
    kind = "bytes" if step.output.dtype == "uint8" else "reals"
    addresses = make_address(work.outputs[0], weights), make_address(work.inputs[0], weights)
    return make_call(work, "pool.h", f"fc_{step.kind}_pool_{kind}", *addresses, Struct("struct fc_pool", fields))


def call_global_average(step: GlobalAverage, work: Placed, weights: Weights) -> KernelCall:
    source, (x, to) = make_image(work.inputs[0]), (step.inputs[0].coding, step.output.coding)
    assert x is not None and to is not None
    fields = {
        "images": source.images, "rows": source.rows, "columns": source.columns, "channels": source.channels,
        "x_image": source.image, "x_row": source.row, "x_column": source.column, "y_image": work.outputs[0].strides[0],
        "offset": -x.zero_point * source.rows * source.columns, "factor": step.factor, "code": make_code(step, to.zero_point),
    }  # fmt: skip
    addresses = make_address(work.outputs[0], weights), make_address(work.inputs[0], weights)
    return make_call(work, "pool.h", "fc_global_average", *addresses, Struct("struct fc_global", fields))


def call_softmax(step: Softmax, work: Placed, weights: Weights) -> KernelCall:
    y, x, to = work.outputs[0], work.inputs[0], step.output.coding
    lengths, (y_steps, a_steps), along = nest_loops([y, x], keep=step.axis)
    rest = [i for i in range(len(lengths)) if i != along]
    if len(rest) > 2:
        raise FcdeployError(f"node {step.node!r}: softmax over scattered axes has no kernel", KERNELS_HINT)
    rest = [*[-1] * (2 - len(rest)), *rest]
    counts, y_each, a_each = (
        [[*each, 1 if each is lengths else 0][i] for i in rest] for each in (lengths, y_steps, a_steps)
    )
    fields = {
        "outer": counts[0], "inner": counts[1], "count": lengths[along], "a_outer": a_each[0], "a_inner": a_each[1],
        "a_step": a_steps[along], "y_outer": y_each[0], "y_inner": y_each[1], "y_step": y_steps[along],
        "scale": np.float32(1) if to is None else to.scale, "code": make_code(step, 0 if to is None else to.zero_point),
    }  # fmt: skip
    written = make_address(y, weights)
    both = (None, written) if to is None else (written, None)
    more = () if step.table is None else (weights.add(step.table, "float"),)
    kernel = "fc_softmax_reals" if step.table is None else "fc_softmax_bytes"
    return make_call(
        work, "softmax.h", kernel, *both, make_address(x, weights), *more, Struct("struct fc_softmax", fields)
    )


def call_take(step: Move, work: Placed, weights: Weights) -> KernelCall:
    assert step.kind == "take", step.kind
    y, x = work.outputs[0], work.inputs[0]
    to, from_ = make_address(y, weights, "void"), make_address(x, weights, "void")
    if step.index is None:
        index = make_address(work.inputs[1], weights)
        count, row = work.inputs[1].array.size, x.array.nbytes // max(1, len(x.array))
        kernel = f"fc_take_rows_{work.inputs[1].array.itemsize}"
        return make_call(work, "move.h", kernel, to, from_, index, count, len(x.array), row)
    axis = step.arguments[0][0]
    if step.index.ndim != 1:
        raise FcdeployError(f"node {step.node!r}: constant indices of several axes have no kernel", KERNELS_HINT)
    first = x.array[tuple(slice(0, 1) if i == axis else slice(None) for i in range(x.array.ndim))]
    table, along = make_loop(y, x.reshape_view(np.broadcast_to(first, y.array.shape)), node=step.node, keep=axis)
    offsets = weights.add((step.index * x.strides[axis]).astype(np.int32), "int32_t")
    return make_call(work, "move.h", f"fc_take_{x.array.itemsize}", to, from_, offsets, along, table)


def call_pointwise(step: Pointwise, work: Placed, weights: Weights) -> KernelCall:
    y = work.outputs[0]
    table, _ = make_loop(y, *work.inputs, node=step.node)
    addresses = [make_address(view, weights) for view in (y, *work.inputs)]
    if step.kind in BINARY:
        return make_call(work, "floats.h", f"fc_binary_{step.kind}", *addresses, table)
    limits = np.finfo(np.float32)
    given = np.array((*step.numbers, 0.0, 0.0)[:2], np.float64)  # kernels read two
    numbers = np.clip(given, limits.min, limits.max).astype(np.float32)
    return make_call(work, "floats.h", f"fc_unary_{step.kind}", *addresses, weights.add(numbers, "float"), table)


def call_reduce(step: Reduce, work: Placed, weights: Weights) -> KernelCall:
    y, x = work.outputs[0], work.inputs[0]
    kept = tuple(1 if i in step.axes else n for i, n in enumerate(x.array.shape))
    target = y.reshape_view(np.broadcast_to(y.array.reshape(kept), x.array.shape))
    lengths, strides, _ = nest_loops([x, target])
    if len(lengths) > LOOPS:
        raise FcdeployError(f"node {step.node!r}: a reduction over scattered axes has no kernel", KERNELS_HINT)
    missing = [0] * (LOOPS - len(lengths))
    fields = {"count": [1] * len(missing) + lengths, "a": missing + strides[0], "y": missing + strides[1]}
    count = float(prod(x.array.shape[axis] for axis in step.axes))
    return make_call(
        work, "floats.h", f"fc_reduce_{step.kind}", make_address(y, weights), y.array.size, make_address(x, weights), count,
        Struct("struct fc_loop", fields),
    )  # fmt: skip
