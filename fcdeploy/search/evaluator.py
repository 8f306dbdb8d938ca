"""A model on the evaluation samples, against what the float model answered there once.

Of the float model's answers figures are kept, not outputs: those of the metric, the decisions where their agreement is
the metric, and a sketch of each output, by which the error of another model's output is told without the output itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.data import BATCH_BYTES, MOST_BATCH
from fcdeploy.evaluate.leakage import LeakageCheck
from fcdeploy.evaluate.loss import Loss, compute_loss, is_yes_or_no, require_decisions, require_metric
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.output_ends import OutputEnd, find_ends, mark_boxes
from fcdeploy.evaluate.run_models import check_shapes, run_model
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.measure import choose_reference
from fcdeploy.records.fingerprints import SHIFT, Sketch
from fcdeploy.records.progress import OnStep
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import hash_sample
from fcdeploy.samples.source import Batch, Source, choose_batch_size, make_batches
from fcdeploy.samples.states import carry_states
from fcdeploy.search.judged import find_judged

Figures = Float64
HELD_BYTES = 64 << 20  # samples that take no more are read once
SKETCH = 32  # numbers that are kept of each output of a sample, however large it is


@dataclass(frozen=True)
class ReferenceBatch:
    """What is kept of the float model's answers to one batch: figures (n, k) or what is compared, sketches and shapes by output.

    Of outputs whose rows depend on values there are no sketches.
    """

    figures: Figures | None
    kept: Any
    sketches: dict[str, Figures]
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation samples, the metric, and the float model's answers, batch by batch."""

    read: Callable[[], Iterable[Batch]]
    metric: Metric
    parts: tuple[ReferenceBatch, ...]
    samples: int
    inputs: Sequence[TensorSpec] = ()

    @property
    def in_float(self) -> bool:
        """Whether any output is in floating point."""
        return bool(self.parts[0].sketches)


@dataclass(frozen=True)
class EvaluationResult:
    """A model's metric loss against float, and the error of its outputs relative to their power.

    Where no output is in floating point, the error is the drop.
    `changed` are the samples that only the float model and only this one has right, where answers are right or wrong; of
    decisions that agree or not, those that do not, and None.
    """

    loss: Loss
    error: float
    changed: tuple[int, int | None] | None


def evaluate_float(
    problem: Problem, source: Source, metric: str | None, seen: LeakageCheck, on_step: OnStep
) -> Evaluation:
    """Run the float model over all samples, once.

    Raises FcdeployError where there is no metric, an output is not finite, or a sample is one of the calibration; later
    where samples that are too large to keep are others when they are read again.
    """
    metric_used: Metric | None = None
    parts: list[ReferenceBatch] = []
    held: list[Batch] | None = []
    hashes: list[int] = []
    done, size, wanted = 0, 0, _choose_batch(source)
    for part in make_batches(source, wanted):
        batch = seen.take(part)
        if batch is None:
            continue
        if not parts:
            session = Session(choose_reference(problem.file, problem.model, batch.inputs))
        outputs = run_model(session, batch, "float")
        if metric_used is None:
            ends = _find_ends(problem, labelled=bool(batch.labels))
            rows = {name for name, end in ends.items() if end.selected}
            metric_used = require_metric(choose_metric(metric, outputs, batch.labels, ends, batch.inputs)[0])
        parts.append(_make_reference(metric_used, outputs, batch, rows))
        hashes.append(_hash_batch(batch))
        done += len(batch)
        size += sum(array.nbytes for array in chain(batch.inputs.values(), batch.labels.values()))
        held = None if held is None or size > HELD_BYTES else [*held, batch]
        on_step("float model", done, source.count)
    if metric_used is None:  # a source without samples is an error of its own
        raise seen.make_error()
    figures = [_compare_with_itself(metric_used, part) for part in parts]
    require_decisions(metric_used, found=metric_used.count(np.concatenate(figures)) > 0)
    kept = held
    read: Callable[[], Iterable[Batch]] = (
        (lambda: _read_again(source, wanted, hashes, seen)) if kept is None else (lambda: iter(kept))
    )
    return Evaluation(read, metric_used, tuple(parts), done, source.inputs)


def _find_ends(problem: Problem, *, labelled: bool) -> dict[str, OutputEnd]:
    """What makes each output; without labels also where boxes are, by the samples by which the file will say it."""
    ends = find_ends(problem.model)
    judged = None if labelled else find_judged(problem)
    return ends if judged is None or judged.boxes is None else mark_boxes(ends, judged.boxes)


def check_calibrated(problem: Problem, name: str, *, allowed: bool) -> LeakageCheck:
    """The check of evaluation samples against those the model was calibrated on, which are `allowed` or not."""
    numbers = problem.calibration.seen
    upper = frozenset((numbers >> np.uint64(SHIFT)).tolist())
    return LeakageCheck(Sketch(len(upper), upper) if upper else None, name, allowed, "--eval")


def evaluate_model(evaluation: Evaluation, model: ir.Model) -> EvaluationResult:
    """Evaluate a model on all samples: the metric's loss, and the error of its outputs."""
    session, answers = carry_states(Session(model), evaluation.inputs), Answers(evaluation.metric)
    errors, power = np.zeros(1), np.zeros(1)
    for part, batch in zip(evaluation.parts, evaluation.read(), strict=True):
        outputs = _run_outputs(session, part, batch)
        one, other = _compute_figures(evaluation.metric, part, outputs, batch)
        answers.float_figures.append(one)
        answers.int8_figures.append(other)
        errors, power = errors + _sum_errors(part, outputs, len(batch)), power + _sum_power(part)
    answers.samples = evaluation.samples
    loss = compute_loss(answers)
    assert loss is not None
    distance = float(np.sum(errors / np.maximum(power, 1e-300))) if evaluation.in_float else max(loss.drop, 0.0)
    return EvaluationResult(loss, distance, _count_changed(answers))


def measure_error(evaluation: Evaluation, model: ir.Model, most: int) -> float:
    """The error of a model's outputs relative to their power, on the first `most` samples at least.

    Where it is the drop, which moves in steps of whole samples, on all of them.
    """
    if not evaluation.in_float:
        return evaluate_model(evaluation, model).error
    session, errors, power, done = carry_states(Session(model), evaluation.inputs), np.zeros(1), np.zeros(1), 0
    for part, batch in zip(evaluation.parts, evaluation.read(), strict=False):
        errors, power = (
            errors + _sum_errors(part, _run_outputs(session, part, batch), len(batch)),
            power + _sum_power(part),
        )
        done += len(batch)
        if done >= most:
            break
    return float(np.sum(errors / np.maximum(power, 1e-300)))


def sketch_output(output: Array, samples: int) -> Figures:
    """At most SKETCH numbers (n, k) for each sample of an output (n, ...), the same linear map for outputs of one size.

    An output without an axis of so many samples is one row.

    Elements get a random sign and are summed in groups: the squares of a sketch sum up to those of what was sketched, in
    expectation (M. Charikar, K. Chen, M. Farach-Colton, "Finding Frequent Items in Data Streams", 2002).  So the sketches
    of two outputs tell the size of their difference, the better the more samples there are.
    """
    rows = np.asarray(output, np.float64).reshape(samples if output.shape[:1] == (samples,) else 1, -1)
    count = rows.shape[1]
    if count <= SKETCH:
        return rows
    random = np.random.default_rng(count)
    order, signs = random.permutation(count), random.integers(0, 2, count) * 2.0 - 1.0
    ends = np.linspace(0, count, SKETCH, endpoint=False).astype(np.intp)
    return np.asarray(np.add.reduceat((rows * signs)[:, order], ends, axis=1))


def _make_reference(metric: Metric, outputs: Arrays, batch: Batch, rows: Set[str]) -> ReferenceBatch:
    fixed = {name: value for name, value in outputs.items() if name not in rows}
    sketches = {name: sketch_output(value, len(batch)) for name, value in fixed.items() if value.dtype.kind == "f"}
    shapes = {name: value.shape for name, value in fixed.items()}
    if metric.between is not None:
        return ReferenceBatch(None, metric.between.keep(outputs, batch), sketches, shapes)
    assert metric.figures is not None
    return ReferenceBatch(metric.figures(outputs, batch.labels, batch.names), None, sketches, shapes)


def _compute_figures(metric: Metric, part: ReferenceBatch, outputs: Arrays, batch: Batch) -> tuple[Figures, Figures]:
    """The metric's figures of both models: some are between the two."""
    own = _compare_with_itself(metric, part)
    if metric.between is not None:
        return own, metric.between.compare(part.kept, metric.between.keep(outputs, batch))
    assert metric.figures is not None
    return own, metric.figures(outputs, batch.labels, batch.names)


def _compare_with_itself(metric: Metric, part: ReferenceBatch) -> Figures:
    """The metric's figures of the float model."""
    if metric.between is not None:
        return metric.between.compare(part.kept, part.kept)
    assert part.figures is not None
    return part.figures


def _count_changed(answers: Answers) -> tuple[int, int | None] | None:
    one, other = np.concatenate(answers.float_figures), np.concatenate(answers.int8_figures)
    assert answers.metric is not None
    if answers.metric.name == "agreement" and (one == 1).all():
        return int((other[:, 0] == 0).sum()), None
    return (int((one > other).sum()), int((one < other).sum())) if is_yes_or_no(answers.metric, one, other) else None


def _sum_errors(part: ReferenceBatch, outputs: Arrays, samples: int) -> Figures:
    """The squared error of each output."""
    return np.array(
        [np.square(own - sketch_output(outputs[name], samples)).sum() for name, own in part.sketches.items()]
    )


def _sum_power(part: ReferenceBatch) -> Figures:
    return np.array([np.square(own).sum() for own in part.sketches.values()])


def _choose_batch(source: Source) -> int:
    sample = next(iter(source))
    size = sum(value.nbytes for value in sample.inputs.values())
    return choose_batch_size(source.inputs, max(1, min(MOST_BATCH, BATCH_BYTES // max(size, 1))))


def _run_outputs(session: Engine, part: ReferenceBatch, batch: Batch) -> Arrays:
    outputs = run_model(session, batch, "int8")
    check_shapes(part.shapes, outputs, "leave --max-drop out: shapes that depend on values cannot be compared")
    return outputs


def _read_again(source: Source, wanted: int, hashes: Sequence[int], seen: LeakageCheck) -> Iterator[Batch]:
    """The batches once more. Raises FcdeployError where they are not those that had these hashes."""
    number = 0
    taken = (batch for part in make_batches(source, wanted) if (batch := seen.keep(part)) is not None)
    for number, batch in enumerate(taken, start=1):
        if number > len(hashes) or _hash_batch(batch) != hashes[number - 1]:
            raise _make_differs_error(source, f"{batch.names[0]} or one soon after it differs")
        yield batch
    if number < len(hashes):
        raise _make_differs_error(source, "there are fewer samples")


def _make_differs_error(source: Source, how: str) -> FcdeployError:
    return FcdeployError(
        f"{source.name!r} was read again, and {how}, expected the same samples each time",
        "give the function's random numbers a fixed seed, or write the samples to an .npz file",
    )


def _hash_batch(batch: Batch) -> int:
    """A hash of all inputs and labels of a batch."""
    kinds = (("input", batch.inputs), ("label", batch.labels))
    return hash_sample({f"{kind} {name}": array for kind, arrays in kinds for name, array in arrays.items()})
