"""Every integer tensor of an int8 model against its float tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arrays import Array
from fcdeploy.evaluate import quantized_tensors
from fcdeploy.evaluate.rounding_error import RoundingError, measure_rounding
from fcdeploy.evaluate.run_models import run_all
from fcdeploy.graph.model import read_model
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import Batch


@dataclass(frozen=True)
class LayerSums:
    """What `compute_layer_errors` needs: the quantized tensors, their float counterparts, sums; and what was not compared.

    `undisturbed`: the int8 model's outputs were the same with its integer tensors exposed as without.  `ranges` is what
    rounding alone does to the float tensors.
    """

    quantized: list[quantized_tensors.QuantizedTensor]
    tensors: dict[str, str]
    sums: dict[str, Fidelity]
    unmatched: list[str]
    undisturbed: bool
    ranges: dict[str, RoundingError]


def compare_layers(
    int8: Path, floats: Sequence[ir.Model], data: Iterable[Batch], on_step: OnStep, total: int | None
) -> LayerSums:
    """Compare every integer tensor of the int8 file with its float tensor, taken from the first of `floats` to know it.

    `floats` are changed in place.
    """
    model = read_model(int8)
    quantized = quantized_tensors.find_quantized_tensors(model)
    where = quantized_tensors.match_tensors(quantized, model, floats)
    tensors = {integers: name for integers, (_, name) in where.items()}
    quantized_tensors.expose_tensors(model, where)
    sessions: dict[int, Session] = {}
    for index in sorted({index for index, _ in where.values()}):
        quantized_tensors.expose_tensors(floats[index], [name for which, name in where.values() if which == index])
        sessions[index] = Session(floats[index])
    usual, exposed = Session(int8), Session(model)
    sums: dict[str, Fidelity] = {}
    ranges: dict[str, RoundingError] = {}
    undisturbed, done = True, 0
    matched = [tensor for tensor in quantized if tensor.integers in where]
    for batch in data:
        f = {index: {**batch.inputs, **run_all(session, batch)} for index, session in sessions.items()}
        q = run_all(exposed, batch)
        if done == 0:
            before = run_all(usual, batch)
            undisturbed = all(np.array_equal(before[name], q[name]) for name in before)
        for tensor in matched:
            index, name = where[tensor.integers]
            if f[index][name].shape == q[tensor.integers].shape:  # rows that depend on values have no counterparts
                _add_tensor(sums, ranges, tensor, f[index][name], q[tensor.integers])
        done += len(batch)
        on_step("layers", done, total)
    unmatched = [tensor.names[0] for tensor in quantized if tensor.integers not in where]
    return LayerSums(quantized, tensors, sums, unmatched, undisturbed, ranges)


def _add_tensor(
    sums: dict[str, Fidelity],
    ranges: dict[str, RoundingError],
    tensor: quantized_tensors.QuantizedTensor,
    f: Array,
    q: Array,
) -> None:
    """Add how far a batch's integers are from float's tensor, and what rounding it alone would do."""
    key = tensor.integers
    sums[key] = sums.get(key, Fidelity()) + measure_fidelity(f, tensor.dequantize(q))
    if q.dtype.kind in "iu":
        new = measure_rounding(tensor, f)
        ranges[key] = ranges[key] + new if key in ranges else new
