"""The local rounding error of each source (evaluate/rounding_error.py), where a float model has its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arrays import Array
from fcdeploy.evaluate import quantized_tensors
from fcdeploy.evaluate.rounding_error import RoundingError, measure_rounding
from fcdeploy.runtime.session import Session
from fcdeploy.sensitivity.error_sources import ErrorSource, find_rounded_inputs
from fcdeploy.sensitivity.stored_constants import dequantize_constant, find_integers, find_original


def measure_weight_errors(
    int8: ir.Model, floats: Sequence[ir.Model], every: Sequence[ErrorSource]
) -> dict[ErrorSource, RoundingError]:
    """A row per source of weights whose floats are known."""
    nodes = {node.name: node for node in int8.graph}
    result = {}
    for source in every:
        if source.kind == "tensor":
            continue
        for value in find_rounded_inputs(nodes[source.node]):
            stored = find_integers(value)
            if stored is not None and stored.name == source.integers[0]:
                real = find_original(nodes[source.node], value, floats)
                if real is not None:
                    result[source] = RoundingError(measure_fidelity(real.weight, dequantize_constant(value)))
    return result


def measure_tensor_errors(
    int8: ir.Model, floats: Sequence[ir.Model], every: Sequence[ErrorSource], inputs: Mapping[str, Array]
) -> dict[ErrorSource, RoundingError]:
    """A row per tensor that a float model knows, as it is there on these `inputs` (n, ...), all in memory at once."""
    wanted = {source.integers[0]: source for source in every if source.kind == "tensor"}
    quantized = [tensor for tensor in quantized_tensors.find_quantized_tensors(int8) if tensor.integers in wanted]
    where = quantized_tensors.match_tensors(quantized, int8, floats)
    values: dict[tuple[int, str], Array] = {}
    for index in sorted({index for index, _ in where.values()}):
        names = list(dict.fromkeys(name for which, name in where.values() if which == index))
        copy = floats[index].clone()
        quantized_tensors.expose_tensors(copy, names)
        computed = [name for name in names if name not in inputs]
        values |= {(index, name): inputs[name] for name in names if name in inputs}
        arrays = Session(copy).run(inputs, computed) if computed else []  # no names would mean all outputs
        values |= {(index, name): x for name, x in zip(computed, arrays, strict=True)}
    return {
        wanted[tensor.integers]: measure_rounding(tensor, values[where[tensor.integers]])
        for tensor in quantized
        if tensor.integers in where
    }
