"""What each source of error (sources.py) does on the spot (evaluate/rounding_error.py), where a float model knows its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arrays import Array
from fcdeploy.evaluate import layers
from fcdeploy.evaluate.rounding_error import Local, behind_bytes
from fcdeploy.runtime.session import Session
from fcdeploy.sensitivity.error_sources import Source, rounded_inputs
from fcdeploy.sensitivity.stored_constants import held, integers_of, original


def local_weights(int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source]) -> dict[Source, Local]:
    """A row per source of weights whose floats are known."""
    nodes = {node.name: node for node in int8.graph}
    result = {}
    for source in found:
        if source.kind == "tensor":
            continue
        for value in rounded_inputs(nodes[source.node]):
            stored = integers_of(value)
            if stored is not None and stored.name == source.integers[0]:
                real = original(nodes[source.node], value, floats)
                if real is not None:
                    result[source] = Local(measure_fidelity(real.weight, held(value)))
    return result


def local_tensors(
    int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source], inputs: Mapping[str, Array]
) -> dict[Source, Local]:
    """A row per tensor that a float model knows, as it is there on these `inputs` (n, ...), all in memory at once."""
    wanted = {source.integers[0]: source for source in found if source.kind == "tensor"}
    taps = [tap for tap in layers.taps(int8) if tap.integers in wanted]
    where = layers.match(taps, int8, floats)
    values: dict[tuple[int, str], Array] = {}
    for index in sorted({index for index, _ in where.values()}):
        names = list(dict.fromkeys(name for which, name in where.values() if which == index))
        copy = floats[index].clone()
        layers.expose(copy, names)
        computed = [name for name in names if name not in inputs]
        values |= {(index, name): inputs[name] for name in names if name in inputs}
        found_there = Session(copy).run(inputs, computed) if computed else []  # no names would mean all outputs
        values |= {(index, name): x for name, x in zip(computed, found_there, strict=True)}
    return {
        wanted[tap.integers]: behind_bytes(tap, values[where[tap.integers]]) for tap in taps if tap.integers in where
    }
