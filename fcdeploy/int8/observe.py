"""One streaming pass of a float model over the data: what every tensor looked like, recorded so that records add."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.histogram import Tally, histogram, merge_moments, moments
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.planning.layers import is_constant, vanishes
from fcdeploy.records.calibration import Calibration, Moments, TensorRecord
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import detect
from fcdeploy.runtime.session import Session, versions
from fcdeploy.samples import Source, batch_size, batches
from fcdeploy.tables.operators import operator

BATCH_BYTES = 32 << 20  # of observed activations held at once: large enough for the kernels, small enough for any box
KEPT_BYTES, KEPT_LEAST, KEPT_MOST = 8 << 20, 16, 256


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
    session = Session(_exposing(model, list(values.values())))
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
    return Calibration(model_hash, tensors, np.sort(np.array(hashes, np.uint64)), smallest.arrays(), made_by)


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
                array = constant.const_value.numpy()  # type: ignore[union-attr]
                name, layer = constant.name or "", node.name or ""
                yield TensorRecord(name, kind, layer, node.op_type, array.shape, histogram(array))
        yield from (records[result.name or ""] for result in node.outputs if result.name in records)


def _bytes_a_sample(values: list[ir.Value]) -> int:
    """Bytes of all observed tensors for one sample, free axes counted as 1."""
    shapes = [value.shape for value in values if value.shape is not None]
    return sum(4 * math.prod(n for n in list(shape)[1:] if isinstance(n, int)) for shape in shapes)


def sample_hash(inputs: Mapping[str, NDArray[Any]]) -> int:
    """64 bits of a sample's content: names, dtypes, shapes and bytes of its inputs."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(inputs):
        digest.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        digest.update(np.ascontiguousarray(inputs[name]).tobytes())
    return int.from_bytes(digest.digest(), "big")


@dataclass
class Smallest:
    """The samples with the smallest hashes: a choice that depends on neither order nor batch."""

    heap: list[tuple[int, dict[str, NDArray[Any]]]] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    size: int = 0
    limit: int = 1 << 64  # no number from here on can be among the smallest any more

    def offer(self, number: int, inputs: dict[str, NDArray[Any]]) -> None:
        """Keep the sample if its hash is among the smallest so far, as many as a few megabytes hold.

        A sample that is there already is not kept twice.  What is kept is always the longest row of smallest hashes that
        fits, so that no order of samples can change it.
        """
        if number in self.numbers or number >= self.limit:
            return
        # heapq keeps its smallest first, so numbers are negated
        heapq.heappush(self.heap, (-number, {name: value.copy() for name, value in inputs.items()}))
        self.numbers.add(number)
        self.size += _bytes_of(inputs)
        while len(self.heap) > KEPT_MOST or (len(self.heap) > KEPT_LEAST and self.size > KEPT_BYTES):
            largest, dropped = heapq.heappop(self.heap)
            self.limit = -largest
            self.numbers.discard(-largest)
            self.size -= _bytes_of(dropped)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Input name -> (samples, ...), by ascending hash; of samples of several shapes, those like the first."""
        ordered = [inputs for *_, inputs in sorted(self.heap, key=lambda entry: -entry[0])]
        if not ordered:
            return {}
        shapes = {name: value.shape for name, value in ordered[0].items()}
        alike = [inputs for inputs in ordered if {name: value.shape for name, value in inputs.items()} == shapes]
        return {name: np.stack([inputs[name] for inputs in alike]) for name in shapes}


def _bytes_of(inputs: Mapping[str, NDArray[Any]]) -> int:
    return sum(value.nbytes for value in inputs.values())


def keep_smallest(source: Source) -> dict[str, NDArray[Any]]:
    """The samples of a source that a calibration would have kept."""
    smallest = Smallest()
    for sample in source:
        smallest.offer(sample_hash(sample.inputs), sample.inputs)
    return smallest.arrays()
