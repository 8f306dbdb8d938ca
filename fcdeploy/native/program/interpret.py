"""The program run in NumPy: integers in 64 bits, floats in float32 operation by operation. What native code is held to.

It shares nothing with the code it checks: no packed weight, no layout, no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fcdeploy.arrays import Array
from fcdeploy.native.program.compute_bytes import (
    compute_combine,
    compute_global_average,
    compute_interpolate,
    compute_lookup,
    compute_lookup_table,
    compute_pool,
    compute_quantize,
    compute_softmax,
)
from fcdeploy.native.program.compute_floats import (
    compute_normalize,
    compute_pointwise,
    compute_recurrent,
    compute_reduce,
)
from fcdeploy.native.program.compute_layers import (
    compute_combined_layer,
    compute_float_layer,
    compute_integer_layer,
    compute_layer,
    compute_product,
)
from fcdeploy.native.program.compute_moves import (
    compute_convert,
    compute_move,
    compute_order,
    compute_place,
    compute_select,
)
from fcdeploy.native.program.layers import CombinedLayer, FloatLayer, IntegerLayer, Layer, Product, Recurrent
from fcdeploy.native.program.steps import (
    Combine,
    Convert,
    GlobalAverage,
    Interpolate,
    Lookup,
    LookupTable,
    Move,
    Normalize,
    Order,
    Place,
    Pointwise,
    Pool,
    Program,
    Quantize,
    Reduce,
    Select,
    Softmax,
    Step,
)
from fcdeploy.native.program.tensors import Tensor

COMPUTE: dict[type[Step], Callable[[Any, Sequence[Array]], tuple[Array, ...]]] = {
    Layer: compute_layer,
    CombinedLayer: compute_combined_layer,
    IntegerLayer: compute_integer_layer,
    FloatLayer: compute_float_layer,
    Product: compute_product,
    Combine: compute_combine,
    LookupTable: compute_lookup_table,
    Lookup: compute_lookup,
    Quantize: compute_quantize,
    Pool: compute_pool,
    GlobalAverage: compute_global_average,
    Softmax: compute_softmax,
    Interpolate: compute_interpolate,
    Move: compute_move,
    Select: compute_select,
    Place: compute_place,
    Convert: compute_convert,
    Order: compute_order,
    Pointwise: compute_pointwise,
    Reduce: compute_reduce,
    Normalize: compute_normalize,
    Recurrent: compute_recurrent,
}
"""Step -> what it writes, given its inputs."""


def run(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the program, for one sample."""
    values = dict(feeds)
    for step in program.steps:
        given = [read_value(tensor, values) for tensor in step.inputs]
        for tensor, value in zip(step.outputs, compute(step, given), strict=True):
            assert value.shape == tensor.shape, f"{step.node}: {value.shape}, expected {tensor.shape}"
            values[tensor.name] = value
    return values


def read_value(tensor: Tensor, values: Mapping[str, Array]) -> Array:
    return values[tensor.name] if tensor.held is None else tensor.held


def compute(step: Step, given: Sequence[Array]) -> tuple[Array, ...]:
    """What a step writes, given its inputs."""
    return COMPUTE[type(step)](step, given)
