"""Running a float model over samples: what every tensor looked like, recorded so that records add."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.histogram import HistogramBuilder
from fcdeploy.arrays import Float32
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import input_of, name_of, operator_of, tensor_of
from fcdeploy.graph.weights import is_large, read_blocks
from fcdeploy.int8.calibrating.instrument import (
    channel_axis,
    expose_tensors,
    is_dense,
    lower_bound,
    outputs_of,
    pooled_step,
)
from fcdeploy.int8.calibrating.merge import merge
from fcdeploy.int8.calibrating.schedule import Passes, move_samples_first, plan_passes
from fcdeploy.int8.nodes import vanishes
from fcdeploy.prepare.shape_inference import is_tensor
from fcdeploy.records.calibration import Calibration, TensorRecord
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.session import LoadOptions, Session, read_versions
from fcdeploy.samples.kept_samples import SmallestSamples, hash_sample
from fcdeploy.samples.missing_numbers import check_filled
from fcdeploy.samples.source import BadSample, Batch, Source, make_batches
from fcdeploy.samples.stretches import StretchCollector

PART_SECONDS = 3.0  # of work in a part at least
PART_SHARE = 0.01  # of the time may go into making parts and adding them up


@dataclass(frozen=True)
class CalibrationPart:
    """What was seen since the part before: the tensors of one pass, without weights; and how many samples were taken.

    `taken` counts those that could not be used, `bad`, too; `stamp` is the sum of the stamps of their files.
    """

    calibration: Calibration
    taken: int
    bad: tuple[BadSample, ...]
    stamp: int


def observe(
    model: ir.Model,
    source: Source,
    *,
    model_hash: str,
    batch: int | None = None,
    everything: bool = False,
    keep_samples: bool = True,
    max_memory: int | None = None,
    on_step: OnStep | None = None,
) -> Calibration:
    """Record every float tensor of a prepared model over every sample of `source`, in this process.

    `everything` adds the tensors that an integer kernel never writes because its clip is part of it.  `batch` and
    `max_memory` are a matter of speed and memory only: the record is the same bit for bit.
    """
    values = observable_tensors(model.graph, everything=everything)
    passes = plan_passes(model, values, source, batch=batch, max_memory=max_memory)
    by_pass = []
    for index in range(len(passes.groups)):
        done, total = 0, None
        for step in observe_pass(model, source, passes, index, model_hash=model_hash, keep_samples=keep_samples):
            if isinstance(step, CalibrationPart):
                total = step.calibration if total is None else merge(total, step.calibration)
            else:
                done += step
                if on_step:
                    on_step(pass_label(index, passes), done, source.count)
        assert total is not None
        by_pass.append(total)
    return assemble(model, by_pass)


def pass_label(index: int, passes: Passes) -> str:
    """What to call a pass while it runs."""
    return "calibrating" if len(passes.groups) == 1 else f"calibrating, pass {index + 1} of {len(passes.groups)}"


def observe_pass(
    model: ir.Model,
    source: Source,
    passes: Passes,
    index: int,
    *,
    model_hash: str,
    keep_samples: bool = True,
    threads: int | None = None,
) -> Iterator[int | CalibrationPart]:
    """One pass over the samples: yields how many it took in a run, and now and then, and at the end, what it saw.

    With `source.on_bad` set, samples that cannot be used are left out and told in the parts.
    """
    wanted, observable = set(passes.groups[index]), observable_tensors(model.graph, everything=True)
    every = {name_of(value): value for value in observable if value.name in passes.axes}
    values = {name: value for name, value in every.items() if name in wanted}
    pooled = _find_pooled(values, passes)

    # laid out for its kernels a large model would be in memory twice for a while
    options = LoadOptions(prepack=not is_large(model), in_order=True)
    running = Session(expose_tensors(model, every, wanted, pooled), threads=threads, load=options)
    seen = _UnsentPart(
        model_hash,
        {name: start_recorder(value, passes.axes[name]) for name, value in values.items()},
        keeps=keep_samples and index == 0,
        stretch=StretchCollector() if any(spec.state for spec in source.inputs) else None,
    )
    filled = check_filled(Session(model), source.inputs) if any(spec.missing for spec in source.inputs) else None
    source = replace(source, on_stamp=seen.stamps.append, check=filled)
    if source.on_bad is not None:
        source = replace(source, on_bad=seen.bad.append)

    begun, work = time.monotonic(), PART_SECONDS
    try:
        for batch in make_batches(source, passes.batch):
            if time.monotonic() - begun > work and seen.may_end_before(batch):
                begun_part = time.monotonic()
                yield seen.send()
                begun = time.monotonic()
                work = max(PART_SECONDS, (begun - begun_part) / PART_SHARE)
            while odd := _record_batch(batch, _run(running, batch, values, pooled), seen.recorders, pooled):
                pooled = {name: k for name, k in pooled.items() if name not in odd}
                del running  # before there is a second one of it
                running = Session(expose_tensors(model, every, wanted, pooled), threads=threads, load=options)
            yield seen.add(batch)
    except FcdeployError:
        if seen.stretch is None:
            yield seen.send()  # what came before a bad sample need not be seen again
        raise
    seen.settled = len(seen.bad)
    yield seen.send()


@dataclass
class _UnsentPart:
    """What was seen since the part before.

    Of the `bad` samples the first `settled` came before the last run; others were read ahead of the next one.
    `stretch` is there for streams; a part of these ends where a stretch does, since a run that goes on from it would
    keep other stretches else.
    """

    model_hash: str
    recorders: Mapping[str, TensorRecorder]
    keeps: bool
    stretch: StretchCollector | None
    hashes: list[int] = field(default_factory=list)
    smallest: SmallestSamples = field(default_factory=SmallestSamples)
    bad: list[BadSample] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    settled: int = 0

    def may_end_before(self, batch: Batch) -> bool:
        over = self.stretch is None or self.stretch.ends_before(batch.names[0], batch.sample(0))
        return over and bool(self.hashes)

    def add(self, batch: Batch) -> int:
        """Count the samples of a run that are recorded, and keep those with the smallest hashes; how many are new."""
        before = len(self.hashes) + self.settled
        for i in range(len(batch)):
            inputs = batch.sample(i)
            self.hashes.append(hash_sample(inputs))
            if self.keeps and self.stretch is not None:
                self.smallest.offer_all(self.stretch.add(batch.names[i], inputs))
            elif self.keeps:
                self.smallest.offer(self.hashes[-1], inputs)
        self.settled = len(self.bad)
        return len(self.hashes) + self.settled - before

    def send(self) -> CalibrationPart:
        """The part; nothing is left behind."""
        tensors = {name: one.record() for name, one in self.recorders.items() if one.shapes}
        taken = len(self.hashes) + self.settled
        stamp = sum(self.stamps[:taken])
        self.smallest.offer_all(self.stretch.finish() if self.stretch else [])
        seen = make_calibration(self.model_hash, tensors, self.hashes, self.smallest)
        part = CalibrationPart(seen, taken, (*self.bad[: self.settled],), stamp)
        for one in self.recorders.values():
            one.clear()
        del self.stamps[:taken], self.bad[: self.settled]
        self.hashes, self.smallest, self.settled = [], SmallestSamples(), 0
        return part


def _find_pooled(values: Mapping[str, ir.Value], passes: Passes) -> dict[str, int]:
    """Of images of which not every row and column is looked at, every how-manieth is."""
    steps = {name: pooled_step(value, passes.axes[name]) for name, value in values.items()}
    return {name: step for name, step in steps.items() if step > 1}


def make_calibration(
    model_hash: str, tensors: dict[str, TensorRecord], hashes: Sequence[int], smallest: SmallestSamples
) -> Calibration:
    """What was seen: statistics of tensors, hashes of all samples, and those that are kept."""
    kept, *more = smallest.groups() or ({},)
    made_by = {"cpu": detect_target().name, "onnxruntime": read_versions()["onnxruntime"]}
    return Calibration(model_hash, tensors, np.sort(np.array(hashes, np.uint64)), kept, made_by, tuple(more))


def assemble(model: ir.Model, by_pass: Sequence[Calibration]) -> Calibration:
    """The calibration from what the passes saw: all tensors in the order of the graph, and the weights.

    Raises FcdeployError when the passes did not see the same samples.
    """
    first = by_pass[0]
    if any(len(other.seen) != len(first.seen) or (other.seen != first.seen).any() for other in by_pass[1:]):
        raise FcdeployError(
            "the data gave other samples when they were read again, and this model needs several passes",
            "let the data be the same each time, or give room for one pass with --max-memory",
        )
    records = {name: record for one in by_pass for name, record in one.tensors.items()}
    return replace(first, tensors={record.name: record for record in _order_records(model.graph, records)})


def observable_tensors(graph: ir.Graph, *, everything: bool = False) -> list[ir.Value]:
    """The float tensors that a plan can use: inputs and results of nodes, but not what a fused clip hides."""
    results = [value for node in graph for value in node.outputs if value.name]
    if not everything:
        results = [value for value in results if not vanishes(value)]
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    return [value for value in (*inputs, *results) if is_tensor(value) and value.dtype == ir.DataType.FLOAT]


def meets_weights(value: ir.Value) -> bool:
    """Whether weights are multiplied with it: what its channels hold then says how much an error in a weight counts."""
    return any(
        (row.weight is not None or set(row.weight_only) - {use.idx}) and use.idx in (row.data or (0,))
        for use in value.uses()
        if (row := operator_of(use.node))
    )


def _run(
    session: Session, batch: Batch, values: Mapping[str, ir.Value], pooled: Mapping[str, int]
) -> dict[str, Float32]:
    names = [
        name for one, value in values.items() if value.producer() is not None for name in outputs_of(one, pooled)
    ]  # fmt: skip
    return {**batch.inputs, **dict(zip(names, session.run(batch.inputs, names) if names else [], strict=True))}


def _record_batch(
    batch: Batch, outputs: Mapping[str, Float32], watched: Mapping[str, TensorRecorder], pooled: Mapping[str, int]
) -> list[str]:
    """Record the batch, unless pooled tensors have to be seen whole for it: then their names."""
    small = {name: tuple(outputs[output] for output in outputs_of(name, pooled)) for name in pooled}
    odd = [name for name, (few, _, means) in small.items() if not watched[name].pooled_suffices(few, means)]
    if odd:
        return odd
    for name, one in watched.items():
        if name in small:
            few, largest, _ = small[name]
            one.add_pooled(few, largest)
        elif outputs[name].dtype == np.float32:
            one.add(outputs[name], len(batch))
    return []


def start_recorder(value: ir.Value, axis: int | None) -> TensorRecorder:
    """The record of a tensor whose samples lie along `axis`, with nothing in it yet."""
    return TensorRecorder(value, axis, HistogramBuilder(lower_bound(value), meets_weights(value)), is_dense(value))


@dataclass
class TensorRecorder:
    """A tensor's record under way."""

    value: ir.Value
    axis: int | None
    tally: HistogramBuilder
    dense: bool
    shapes: set[tuple[int, ...]] = field(default_factory=set)

    def clear(self) -> None:
        """Forget what was seen."""
        self.tally.clear()
        self.shapes = set()

    def add(self, x: Float32, count: int) -> None:
        """Count a batch of so many samples. A tensor whose channels vary in number, or that was empty, has no moments."""
        x, axis = move_samples_first(x, count, self.axis, channel_axis(x.ndim, dense=self.dense))
        self.shapes.add(x.shape[1:])
        if axis is None or not x.size:
            self.tally.drop_moments()
        self.tally.add(x, axis or 1)

    def pooled_suffices(self, few: Float32, means: Float32) -> bool:
        """Whether a pooled batch says all: every element is finite, and the smallest known."""
        tally = self.tally
        return bool(np.isfinite(means).all()) and (tally.low == tally.floor or few.min() == tally.floor)

    def add_pooled(self, few: Float32, largest: Float32) -> None:
        """Count a batch that `pooled_suffices`."""
        assert self.value.shape is not None
        self.shapes.add(tuple(n for n in self.value.shape[1:] if isinstance(n, int)))
        self.tally.add_subsample(self.tally.floor, float(largest.max()), few)

    def record(self) -> TensorRecord:
        """What was seen; an axis whose length varied is None."""
        producer = self.value.producer()
        same_rank = len({len(shape) for shape in self.shapes}) == 1
        lengths = zip(*self.shapes, strict=True) if same_rank else ()
        shape = (None, *(n[0] if len(set(n)) == 1 else None for n in lengths))
        name, op = (name_of(producer), producer.op_type) if producer else ("", "")
        kind = "activation" if producer else "input"
        return TensorRecord(
            name_of(self.value), kind, name, op, shape, self.tally.histogram(), self.tally.moments()
        )  # fmt: skip


def _order_records(graph: ir.Graph, records: Mapping[str, TensorRecord]) -> Iterator[TensorRecord]:
    """Inputs, then layer by layer weight, bias and results."""
    yield from (records[name_of(value)] for value in graph.inputs if value.name in records)
    for node in graph:
        row = operator_of(node)
        others = [(index, "weight") for index in row.weight_only if index != row.weight]
        for index, kind in ((row.weight, "weight"), (row.bias, "bias"), *others):
            constant = None if index is None else input_of(node, index)
            tensor = tensor_of(constant)
            if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
                name, layer, tally = name_of(constant), name_of(node), HistogramBuilder()
                for _, part in read_blocks(tensor):
                    tally.add(part.reshape(-1, 1))
                shape, histogram = tuple(int(n) for n in tensor.shape.numpy()), tally.histogram()
                if histogram.nonfinite:
                    raise FcdeployError(
                        f"{kind} {name!r} of node {layer!r} holds NaN or infinity in {histogram.nonfinite} places",
                        "train the network again: its answers mean nothing",
                    )
                yield TensorRecord(name, kind, layer, node.op_type, shape, histogram)
        yield from (records[name_of(result)] for result in node.outputs if result.name in records)
