"""Calls of what chooses: one of two elements, or the place of the largest or smallest."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.native.calls.call import KernelCall, Struct, Weights, make_address, make_call, make_loop
from fcdeploy.native.placing.views import LOOPS, nest_loops
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.steps import KERNELS_HINT, Convert, Order, Place, Select


def call_select(step: Select, work: Placed, weights: Weights) -> KernelCall:
    y, (condition, a, b) = work.outputs[0], work.inputs
    lengths, (ys, firsts, seconds, chosen), _ = nest_loops([y, a, b, condition])
    if len(lengths) > LOOPS:
        make_loop(y, a, b, node=step.node)  # which says so
        raise FcdeployError(
            f"node {step.node!r} chooses along too many axes that do not lie side by side", KERNELS_HINT
        )
    missing = [0] * (LOOPS - len(lengths))
    loop = {"count": [1] * len(missing) + lengths, "y": missing + ys, "a": missing + firsts, "b": missing + seconds}
    kind = "bytes" if step.output.dtype == "uint8" else "reals"
    addresses = [
        make_address(y, weights),
        make_address(condition, weights, "uint8_t"),
        make_address(a, weights),
        make_address(b, weights),
    ]
    fields = {"loop": loop, "c": missing + chosen}
    return make_call(work, "choose.h", f"fc_select_{kind}", *addresses, Struct("struct fc_select", fields))


def call_place(step: Place, work: Placed, weights: Weights) -> KernelCall:
    y, x = work.outputs[0], work.inputs[0]
    kept = tuple(1 if i == step.axis else n for i, n in enumerate(x.array.shape))
    target = y.reshape_view(np.broadcast_to(y.array.reshape(kept), x.array.shape))
    lengths, (a_steps, y_steps), along = nest_loops([x, target], keep=step.axis)
    rest = [i for i in range(len(lengths)) if i != along]
    if len(rest) > 2:
        raise FcdeployError(f"node {step.node!r}: a search along scattered axes has no kernel", KERNELS_HINT)
    outer, inner = [*[-1] * (2 - len(rest)), *rest]

    def at(values: list[int], index: int, missing: int) -> int:
        return missing if index < 0 else values[index]

    fields = {
        "outer": at(lengths, outer, 1), "inner": at(lengths, inner, 1), "count": lengths[along],
        "a_outer": at(a_steps, outer, 0), "a_inner": at(a_steps, inner, 0), "a_step": a_steps[along],
        "y_outer": at(y_steps, outer, 0), "y_inner": at(y_steps, inner, 0), "last": int(step.last),
    }  # fmt: skip
    kind = "bytes" if step.inputs[0].dtype == "uint8" else "reals"
    addresses = make_address(y, weights), make_address(x, weights)
    return make_call(work, "choose.h", f"fc_place_{step.kind}_{kind}", *addresses, Struct("struct fc_places", fields))


def call_convert(step: Convert, work: Placed, weights: Weights) -> KernelCall:
    y, x = work.outputs[0], work.inputs[0]
    table, _ = make_loop(y, x, node=step.node)
    addresses = make_address(y, weights), make_address(x, weights)
    kernel = f"fc_convert_{step.inputs[0].dtype}_{step.output.dtype}"
    return make_call(work, "convert.h", kernel, *addresses, table)


def call_order(step: Order, work: Placed, weights: Weights) -> KernelCall:
    views = (*work.outputs, work.inputs[0])
    first = tuple(slice(0, 1) if i == step.axis else slice(None) for i in range(len(step.output.shape)))
    lengths, strides, _ = nest_loops([view.reshape_view(view.array[first]) for view in views])
    if len(lengths) > LOOPS:
        raise FcdeployError(f"node {step.node!r}: an order along scattered axes has no kernel", KERNELS_HINT)
    missing = LOOPS - len(lengths)
    fields: dict[str, Any] = {"count": [1] * missing + lengths}
    for name, each, view in zip("yia", strides, views, strict=True):
        own = view.array.strides[step.axis] // view.array.itemsize
        fields |= {name: [0] * missing + each, f"{name}_step": own}
    fields |= {"length": step.inputs[0].shape[step.axis], "kept": step.count}
    kind = "bytes" if step.inputs[0].dtype == "uint8" else "reals"
    addresses = [make_address(view, weights) for view in views]
    return make_call(work, "convert.h", f"fc_{step.kind}_{kind}", *addresses, Struct("struct fc_order", fields))
