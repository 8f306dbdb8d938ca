"""One streaming pass of a float model over the data: what every tensor looked like, recorded so that records add."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.histogram import Tally, merge_moments, moments
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.weights import blocks, is_large
from fcdeploy.int8.kept import Smallest, sample_hash
from fcdeploy.int8.planning.layers import is_constant, vanishes
from fcdeploy.records.calibration import Calibration, Moments, TensorRecord
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import detect
from fcdeploy.runtime.session import Session, versions
from fcdeploy.samples import Source, batch_size, batches
from fcdeploy.tables.operators import operator

BATCH_BYTES = 32 << 20  # of observed activations held at once: large enough for the kernels, small enough for any box


def observe(
    model: ir.Model,
    source: Source,
    *,
    model_hash: str,
    batch: int | None = None,
    everything: bool = False,
    keep_samples: bool = True,
    on_step: OnStep | None = None,
) -> Calibration:
    """Record every float tensor of a prepared model over every sample of `source`.

    `everything` adds the tensors that an integer kernel never writes because its clip is part of it.  `batch` is a
    matter of speed and memory only: the record is the same bit for bit.
    """
    values = {value.name or "": value for value in observed(model.graph, everything=everything)}
    results = [name for name, value in values.items() if value.producer() is not None]
    # laid out for its kernels a large model would be in memory twice for a while
    session = Session(_exposing(model, list(values.values())), prepack=not is_large(model))
    size = batch or max(1, min(64, BATCH_BYTES // max(_bytes_a_sample(list(values.values())), 1)))
    watched: dict[str, Watched] = {}
    smallest, hashes = Smallest(), []
    for part in batches(source, batch_size(input_specs(model), size)):
        computed = session.run(part.inputs, results) if results else []
        arrays = {**part.inputs, **dict(zip(results, computed, strict=True))}
        for name, value in values.items():
            if arrays[name].dtype == np.float32:
                watched.setdefault(name, Watched(value)).add(arrays[name])
        for i in range(len(part)):
            inputs = {name: value[i] for name, value in part.inputs.items()}
            hashes.append(sample_hash(inputs))
            if keep_samples:
                smallest.offer(hashes[-1], inputs)
        if on_step:
            on_step("calibrating", len(hashes), source.count)
    tensors = {
        record.name: record for record in _in_order(model.graph, {name: w.record() for name, w in watched.items()})
    }
    made_by = {"cpu": detect().name, "onnxruntime": versions()["onnxruntime"]}
    kept, *more = smallest.groups() or ({},)
    return Calibration(model_hash, tensors, np.sort(np.array(hashes, np.uint64)), kept, made_by, tuple(more))


def observed(graph: ir.Graph, *, everything: bool = False) -> list[ir.Value]:
    """The float tensors that a plan can use: inputs and results of nodes, but not what a fused clip hides."""
    results = [value for node in graph for value in node.outputs if value.name]
    if not everything:
        results = [value for value in results if not vanishes(value)]
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    return [value for value in (*inputs, *results) if value.dtype in (None, ir.DataType.FLOAT)]


def channel_axis(value: ir.Value, rank: int) -> int | None:
    """The axis that counts channels: the second of an image or sequence, the last of what a MatMul reads or writes."""
    if rank < 2:
        return None
    producer = value.producer()
    dense = (producer is not None and producer.op_type == "MatMul") or any(
        user.op_type == "MatMul" and user.inputs[0] is value for user in value.consumers()
    )
    return rank - 1 if dense else 1


def _exposing(model: ir.Model, values: list[ir.Value]) -> ir.Model:
    """A copy of the model whose outputs are all results among `values`."""
    copy = model.clone()
    by_name = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(by_name[value.name] for value in values if value.name in by_name)
    return copy


@dataclass
class Watched:
    """A tensor's record under way."""

    value: ir.Value
    tally: Tally = field(default_factory=Tally)
    moments: Moments | None = None
    shapes: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, x: NDArray[np.float32]) -> None:
        """Count a batch. A tensor whose channels vary in number has no moments."""
        x = x.reshape(1) if x.ndim == 0 else x
        first = not self.shapes
        self.shapes.add(x.shape[1:])
        self.tally.add(x)
        axis = channel_axis(self.value, x.ndim)
        if axis is None or not x.size or len({shape[axis - 1] for shape in self.shapes}) > 1:
            self.moments = None
        elif first or self.moments is not None:
            part = moments(x, axis)
            self.moments = part if self.moments is None else merge_moments(self.moments, part)

    def record(self) -> TensorRecord:
        """What was seen; an axis whose length varied is None."""
        producer = self.value.producer()
        same_rank = len({len(shape) for shape in self.shapes}) == 1
        lengths = zip(*self.shapes, strict=True) if same_rank else ()
        shape = (None, *(n[0] if len(set(n)) == 1 else None for n in lengths))
        name, op = (producer.name or "", producer.op_type) if producer else ("", "")
        kind = "activation" if producer else "input"
        return TensorRecord(self.value.name or "", kind, name, op, shape, self.tally.histogram(), self.moments)


def _in_order(graph: ir.Graph, records: Mapping[str, TensorRecord]) -> Iterator[TensorRecord]:
    """Inputs, then layer by layer weight, bias and results."""
    yield from (records[value.name or ""] for value in graph.inputs if value.name in records)
    for node in graph:
        row = operator(node.op_type, node.domain)
        others = [(index, "weight") for index in row.stored if index != row.weight]
        for index, kind in ((row.weight, "weight"), (row.bias, "bias"), *others):
            constant = node.inputs[index] if index is not None and index < len(node.inputs) else None
            if constant is not None and is_constant(constant) and constant.dtype == ir.DataType.FLOAT:
                tensor = constant.const_value
                assert tensor is not None
                name, layer, tally = constant.name or "", node.name or "", Tally()
                for _, part in blocks(tensor):
                    tally.add(part.reshape(-1, 1))
                shape = tuple(int(n) for n in tensor.shape.numpy())
                yield TensorRecord(name, kind, layer, node.op_type, shape, tally.histogram())
        yield from (records[result.name or ""] for result in node.outputs if result.name in records)


def _bytes_a_sample(values: list[ir.Value]) -> int:
    """Bytes of all observed tensors for one sample, free axes counted as 1."""
    shapes = [value.shape for value in values if value.shape is not None]
    return sum(4 * math.prod(n for n in list(shape)[1:] if isinstance(n, int)) for shape in shapes)
