"""Compare two models on the same samples, one batch at a time.

Memory holds one batch, running sums, and a few figures per sample.  Sums are taken sample by sample, so that batches
make no difference to a bit of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic import metrics
from fcdeploy.arithmetic.metrics import Fidelity, Spread, measure_fidelity
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate import layers
from fcdeploy.evaluate.between_models import compare_decisions, measure_more
from fcdeploy.evaluate.boxes.compare import compare_boxes, measure_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.decision import Decision, decide
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.evaluate.rounding_error import RoundingError, measure_rounding
from fcdeploy.graph.model import read_model
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.layout import lead_with_samples
from fcdeploy.samples.missing_numbers import check_filled
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.samples.states import StreamingSession

OTHER_MODEL = "give the float model that the int8 model was made from"
Choose = Callable[[Arrays, Arrays], tuple[Metric | None, OutputsRead]]
"""From the float outputs and the labels of the first batch to the metric, and to what the outputs are."""
MOST_EMBEDDINGS = 1024  # of which nearest ones are looked for, in every pair


@dataclass
class OutputAnswers:
    """What two models answered on one output: sums, figures (n, k) by sample, and rows of embeddings.

    `equal`: (n, 2), equal decisions and all; `measured`: what else is asked of such an output, `measure` of it.
    `unequal`: samples on which the two outputs had different shapes.
    """

    fidelity: Fidelity | None = None
    equal: list[Float64] = field(default_factory=list)
    measured: list[Float64] = field(default_factory=list)
    rows: list[tuple[Array, Array]] = field(default_factory=list)
    samples: int = 0
    unequal: int = 0

    def extend(self, later: OutputAnswers) -> None:
        """Append the answers to the samples that follow."""
        if later.fidelity is not None:
            self.fidelity = (self.fidelity or Fidelity()) + later.fidelity
        self.equal += later.equal
        self.measured += later.measured
        self.rows += later.rows if sum(len(f) for f, _ in self.rows) < MOST_EMBEDDINGS else []
        self.samples += later.samples
        self.unequal += later.unequal


@dataclass
class Answers:
    """What two models answered: sums per output, figures per sample. `float_figures` and `int8_figures` are paired."""

    metric: Metric | None
    read: OutputsRead = field(default_factory=OutputsRead)
    other_labels: tuple[str, ...] = ()
    outputs: dict[str, OutputAnswers] = field(default_factory=dict)
    samples: int = 0
    float_figures: list[Float64] = field(default_factory=list)
    int8_figures: list[Float64] = field(default_factory=list)
    classes: list[NDArray[np.int64]] = field(default_factory=list)  # (n, 3): label, float's answer, int8's answer
    spread: Spread | None = None

    @property
    def fidelity(self) -> dict[str, Fidelity]:
        """How near floating-point outputs are, of those that were compared number by number."""
        return {name: one.fidelity for name, one in self.outputs.items() if one.fidelity is not None}

    @property
    def decisive(self) -> str | None:
        """The output whose decisions are the agreement: the metric's, or the first that decides."""
        decided = [name for name, one in self.outputs.items() if one.equal]
        if self.metric is not None and (self.metric.output in decided or self.metric.name in ("regression", "iou")):
            return self.metric.output if self.metric.output in decided else None
        return decided[0] if decided else None

    @property
    def decision(self) -> Decision | None:
        """How that output decides."""
        return self.read.decisions.get(self.decisive) if self.decisive is not None else None

    def extend(self, later: Answers) -> None:
        """Append the answers to the samples that follow."""
        self.samples += later.samples
        for name, answers in later.outputs.items():
            self.outputs.setdefault(name, OutputAnswers()).extend(answers)
        self.float_figures += later.float_figures
        self.int8_figures += later.int8_figures
        self.classes += later.classes
        self.spread = _merge_spread(self.spread, later.spread)


def start_answers(choose: Choose, outputs: Arrays, labels: Arrays) -> Answers:
    """Choose the metric by the float outputs and labels of the first batch; no answers yet."""
    metric, read = choose(outputs, labels)
    label = metric.label if metric else None
    return Answers(metric, read, tuple(name for name in labels if label and name != label))


def run_both(reference: Engine, other: Engine, batch: Batch) -> tuple[Arrays, Arrays]:
    """Run both models on a batch. Outputs must be finite and of equal ranks, or FcdeployError names the sample."""
    f, q = run_model(reference, batch, "float"), run_model(other, batch, "int8")
    check_shapes({name: value.shape for name, value in f.items() if value.ndim != q[name].ndim}, q)
    return f, q


def compare_kernels(
    int8: Path, data: Iterable[Batch], on_step: OnStep, total: int | None, runs: Path | None = None
) -> tuple[dict[str, Fidelity], str]:
    """Measure what integer kernels change: the same file without optimization, and with exact byte products,
    against its defaults, or against `runs`, code that was made from it.  The worse of both per output; outputs that are not
    floating point are left out.

    With it why exact byte products are not among them, where onnxruntime cannot run the file so; else an empty text.
    """
    usual, plain = open_engine(runs or int8), Session(int8, optimize=False)
    precise, why_not = _open_precise(int8)
    sums: list[dict[str, Fidelity]] = [{}, {}]
    done = 0
    for batch in data:
        q = run_model(usual, batch, "int8")
        if precise is not None and done == 0:
            try:
                precise.run(batch.inputs)
            except FcdeployError as error:
                precise, why_not = None, error.message
        for index, session in enumerate((plain, precise)):
            f = {} if session is None else run_model(session, batch, "int8")
            for name in f:
                if f[name].dtype.kind == "f" and f[name].shape == q[name].shape:
                    sums[index][name] = _add_sums(sums[index].get(name), f[name], q[name], len(batch))
        done += len(batch)
        on_step("kernels", done, total)
    seen = {name: [each[name] for each in sums if name in each] for name in sums[0]}
    return {name: min(differences, key=lambda one: one.sqnr_db) for name, differences in seen.items()}, why_not


def _open_precise(int8: Path) -> tuple[Session | None, str]:
    """A session that adds byte products in 32 bits; None and the reason where there is none: some files do not load so."""
    try:
        return Session(int8, precise=True), ""
    except FcdeployError as error:
        return None, error.message


@dataclass(frozen=True)
class LayerSums:
    """What `compute_layer_errors` needs: the quantized tensors, their float counterparts, sums; and what was not compared.

    `undisturbed`: the int8 model's outputs were the same with its integer tensors exposed as without.  `ranges` is what
    rounding alone does to the float tensors.
    """

    quantized: list[layers.QuantizedTensor]
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
    quantized = layers.find_quantized_tensors(model)
    where = layers.match_tensors(quantized, model, floats)
    tensors = {integers: name for integers, (_, name) in where.items()}
    layers.expose_tensors(model, where)
    sessions: dict[int, Session] = {}
    for index in sorted({index for index, _ in where.values()}):
        layers.expose_tensors(floats[index], [name for which, name in where.values() if which == index])
        sessions[index] = Session(floats[index])
    usual, exposed = Session(int8), Session(model)
    sums: dict[str, Fidelity] = {}
    ranges: dict[str, RoundingError] = {}
    undisturbed, done = True, 0
    matched = [tensor for tensor in quantized if tensor.integers in where]
    for batch in data:
        f = {index: {**batch.inputs, **_run_all(session, batch)} for index, session in sessions.items()}
        q = _run_all(exposed, batch)
        if done == 0:
            before = _run_all(usual, batch)
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
    sums: dict[str, Fidelity], ranges: dict[str, RoundingError], tensor: layers.QuantizedTensor, f: Array, q: Array
) -> None:
    """Add how far a batch's integers are from float's tensor, and what rounding it alone would do."""
    key = tensor.integers
    sums[key] = sums.get(key, Fidelity()) + measure_fidelity(f, tensor.dequantize(q))
    if q.dtype.kind in "iu":
        new = measure_rounding(tensor, f)
        ranges[key] = ranges[key] + new if key in ranges else new


def add_batch(answers: Answers, f: Arrays, q: Arrays, batch: Batch) -> None:
    """Add both models' outputs on a batch to the answers."""
    n = len(batch)
    found = answers.read.detections
    for name in f:
        one = answers.outputs.setdefault(name, OutputAnswers())
        one.samples += n
        if found is None or name not in found.names:
            _add_output(one, answers.read, name, f[name], q[name], batch)
    if found is not None:
        _add_boxes(answers.outputs, found, f, q, batch)
    answers.samples += n
    if answers.metric is not None:
        _add_figures(answers, answers.metric, f, q, batch)


def _add_output(one: OutputAnswers, read: OutputsRead, name: str, f: Array, q: Array, batch: Batch) -> None:
    decision, n = read.decisions.get(name), len(batch)
    if f.shape != q.shape and not (decision and decision.rows):
        one.unequal += n
        if decision is not None and decision.has_steps(f, q):
            one.equal.append(_compare_decisions(name, decision, f, q, batch))
        return
    if f.dtype.kind == "f":
        one.fidelity = _add_sums(one.fidelity, f, q, n)
    if decision is not None:
        one.equal.append(_compare_decisions(name, decision, f, q, batch))
    more = measure_more(name, read)
    if more is not None:
        one.measured.append(more[1].compare(more[1].keep({name: f}, batch), more[1].keep({name: q}, batch)))
    if read.kinds.get(name) == "embedding":
        one.rows.append((f.reshape(n, -1).astype(np.float32), q.reshape(n, -1).astype(np.float32)))


def _compare_decisions(name: str, decision: Decision, f: Array, q: Array, batch: Batch) -> Float64:
    how = compare_decisions(name, decision)
    return how.compare(how.keep({name: f}, batch), how.keep({name: q}, batch))


def _add_boxes(outputs: dict[str, OutputAnswers], layout: BoxLayout, f: Arrays, q: Arrays, batch: Batch) -> None:
    """Boxes have no order: their outputs are compared where both models have them."""
    n, size = len(batch), find_picture_size(batch.inputs)
    one, other = read_boxes(layout, f, n, size), read_boxes(layout, q, n, size)
    outputs[layout.boxes].equal.append(compare_boxes(layout, one, other))
    for name, sums in measure_boxes(layout, f, q, n, size).items():
        one_output = outputs.setdefault(name, OutputAnswers())
        one_output.fidelity = (one_output.fidelity or Fidelity()) + sums


def _add_figures(answers: Answers, metric: Metric, f: Arrays, q: Arrays, batch: Batch) -> None:
    output, decision = metric.output, metric.decision
    in_steps = metric.between is not None and decision is not None and decision.has_steps(f[output], q[output])
    if not metric.takes_any_shape and not in_steps:
        check_shapes({metric.output: f[metric.output].shape}, q)
    if metric.between is not None:
        kept, other = metric.between.keep(f, batch), metric.between.keep(q, batch)
        answers.int8_figures.append(metric.between.compare(kept, other))
        answers.float_figures.append(metric.between.compare(kept, kept))
        return
    assert metric.figures is not None
    answers.float_figures.append(metric.figures(f, batch.labels, batch.names))
    answers.int8_figures.append(metric.figures(q, batch.labels, batch.names))
    decision = answers.read.decisions.get(metric.output)
    if metric.name in ("top1", "top5") and metric.label and decision is not None:
        label = batch.labels[metric.label].reshape(len(batch))
        both = [decide(decision, outputs[metric.output]) for outputs in (f, q)]
        answers.classes.append(np.stack([label, *both], axis=1).astype(np.int64))
    if metric.name == "regression" and metric.label:
        for label in batch.labels[metric.label]:
            answers.spread = _merge_spread(answers.spread, metrics.compute_spread(label[None]))


def _add_sums(total: Fidelity | None, reference: Array, approximation: Array, count: int) -> Fidelity:
    """Add a batch sample by sample; an output without a sample axis is added whole."""
    if reference.ndim and len(reference) == count:
        return metrics.add_rows(total or Fidelity(), metrics.compute_fidelity_rows(reference, approximation))
    return (total or Fidelity()) + measure_fidelity(reference, approximation)


def _merge_spread(total: Spread | None, new: Spread | None) -> Spread | None:
    """Merge two spreads; labels of varying shape have no columns and so no spread, which is NaN from there on."""
    if total is None or new is None:
        return new or total
    return total + new if total.mean.shape == new.mean.shape else Spread(1, np.full(1, np.nan), np.full(1, np.nan))


def run_model(session: Engine, batch: Batch, which: str) -> Arrays:
    """Run one model on a batch. Its outputs must be finite, or FcdeployError names the sample."""
    outputs = _run_all(session, batch)
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            rows = np.isfinite(np.atleast_1d(value))
            per_sample = rows.reshape(len(rows), -1).all(axis=1)
            index = int(per_sample.argmin()) % len(batch)
            first = batch.names[index]
            if (check := check_filled(session, batch.specs)) is not None:
                source, _, place = first.rpartition(", ")
                check(batch.sample(index), place, source)
            raise FcdeployError(
                f"output {name!r} of the {which} model holds NaN or infinity for {first}, expected finite numbers",
                "look at the sample, or at the layer that overflows: fcdeploy inspect MODEL",
            )
    return outputs


def _run_all(session: Engine, batch: Batch) -> Arrays:
    run = session.run_batch(batch) if isinstance(session, StreamingSession) else session.run(batch.inputs)
    outputs = dict(zip(session.outputs, map(np.asarray, run), strict=True))

    def run_first() -> Arrays:
        return dict(zip(session.outputs, session.run(batch.first(1)), strict=True))

    fixed = get_fixed_batch(batch.specs) is not None
    return lead_with_samples(outputs, len(batch), alone=batch.alone, run_first=None if fixed else run_first)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], q: Arrays, hint: str = OTHER_MODEL) -> None:
    """Raise FcdeployError where an int8 output has another shape than the float one."""
    for name, shape in shapes.items():
        if shape != q[name].shape:
            raise FcdeployError(
                f"output {name!r} has shape {shape} in the float model and {q[name].shape} in the int8 model", hint
            )
