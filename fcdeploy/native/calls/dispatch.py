"""Which function makes the call of each kind of work.

Field names are those of the structs in kernels/*.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fcdeploy.native.calls import choices, cmsis_nn, combined, layers, others, sequences
from fcdeploy.native.calls.call import KernelCall, Weights
from fcdeploy.native.placing.work import Copy, Fill, Placed, Work
from fcdeploy.native.program import steps
from fcdeploy.native.program.layers import CombinedLayer, FloatLayer, IntegerLayer, Layer, Product, Recurrent

CALLS: dict[type[steps.Step], Callable[[Any, Placed, Weights], KernelCall]] = {
    Layer: layers.call_layer,
    CombinedLayer: combined.call_combined_layer,
    IntegerLayer: cmsis_nn.call_integer_layer,
    FloatLayer: layers.call_float_layer,
    Product: others.call_product,
    steps.Combine: others.call_combine,
    steps.LookupTable: others.call_table,
    steps.Lookup: others.call_table,
    steps.Quantize: others.call_quantize,
    steps.Pool: others.call_pool,
    steps.GlobalAverage: others.call_global_average,
    steps.Softmax: others.call_softmax,
    steps.Move: others.call_take,
    steps.Pointwise: others.call_pointwise,
    steps.Reduce: others.call_reduce,
    steps.Select: choices.call_select,
    steps.Place: choices.call_place,
    steps.Convert: choices.call_convert,
    steps.Order: choices.call_order,
    Recurrent: sequences.call_recurrent,
    steps.Normalize: sequences.call_normalize,
    steps.Interpolate: sequences.call_interpolate,
}
"""Kind of step -> the function that makes its call."""


def choose_call(work: Work, weights: Weights) -> KernelCall:
    """The call that does a piece of work."""
    if isinstance(work, Copy):
        return others.call_copy(work, weights)
    if isinstance(work, Fill):
        return others.call_fill(work)
    return CALLS[type(work.step)](work.step, work, weights)
