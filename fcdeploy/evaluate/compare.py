"""Compare two models on the same samples, one batch at a time.

Memory holds one batch, running sums, and a few figures per sample.  Sums are taken sample by sample, so that batches
make no difference to a bit of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic import metrics
from fcdeploy.arithmetic.metrics import Fidelity, Spread, measure_fidelity
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.between_models import compare_decisions, measure_more
from fcdeploy.evaluate.boxes.compare import compare_boxes, measure_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.decision import Decision, decide
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.evaluate.run_models import check_shapes
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.samples.source import Batch

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
        one.fidelity = add_sums(one.fidelity, f, q, n)
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


def add_sums(total: Fidelity | None, reference: Array, approximation: Array, count: int) -> Fidelity:
    """Add a batch sample by sample; an output without a sample axis is added whole."""
    if reference.ndim and len(reference) == count:
        return metrics.add_rows(total or Fidelity(), metrics.compute_fidelity_rows(reference, approximation))
    return (total or Fidelity()) + measure_fidelity(reference, approximation)


def _merge_spread(total: Spread | None, new: Spread | None) -> Spread | None:
    """Merge two spreads; labels of varying shape have no columns and so no spread, which is NaN from there on."""
    if total is None or new is None:
        return new or total
    return total + new if total.mean.shape == new.mean.shape else Spread(1, np.full(1, np.nan), np.full(1, np.nan))
