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
from fcdeploy.atomic_files import temporary_folder
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate import layers
from fcdeploy.evaluate.decision import DecisionRule, decide
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.rounding_error import RoundingError, measure_rounding
from fcdeploy.graph.model import read_model
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.layout import lead_with_samples
from fcdeploy.samples.source import Batch

OTHER_MODEL = "give the float model that the int8 model was made from"
Choose = Callable[[Arrays, Arrays], tuple[Metric | None, DecisionRule | None]]
"""From the float outputs and the labels of the first batch to the metric, and to how decisions are compared."""


@dataclass
class Answers:
    """What two models answered: sums per output, figures per sample. `float_figures` and `int8_figures` are paired."""

    metric: Metric | None
    decision: DecisionRule | None
    other_labels: tuple[str, ...] = ()
    fidelity: dict[str, Fidelity] = field(default_factory=dict)
    samples: int = 0
    float_figures: list[Float64] = field(default_factory=list)
    int8_figures: list[Float64] = field(default_factory=list)
    equal: list[Float64] = field(default_factory=list)  # (n, 2): equal decisions, decisions
    classes: list[NDArray[np.int64]] = field(default_factory=list)  # (n, 3): label, float's answer, int8's answer
    spread: Spread | None = None

    def extend(self, later: Answers) -> None:
        """Append the answers to the samples that follow."""
        self.samples += later.samples
        for name, sums in later.fidelity.items():
            self.fidelity[name] = self.fidelity.get(name, Fidelity()) + sums
        self.float_figures += later.float_figures
        self.int8_figures += later.int8_figures
        self.equal += later.equal
        self.classes += later.classes
        self.spread = _merge_spread(self.spread, later.spread)


def start_answers(choose: Choose, outputs: Arrays, labels: Arrays) -> Answers:
    """Choose the metric by the float outputs and labels of the first batch; no answers yet."""
    metric, decision = choose(outputs, labels)
    read = metric.label if metric else None
    return Answers(metric, decision, tuple(name for name in labels if read and name != read))


def run_both(reference: Engine, other: Engine, batch: Batch) -> tuple[Arrays, Arrays]:
    """Run both models on a batch. Outputs must be finite and of equal shapes, or FcdeployError names the sample."""
    f, q = run_model(reference, batch, "float"), run_model(other, batch, "int8")
    check_shapes({name: value.shape for name, value in f.items()}, q)
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
                if f[name].dtype.kind == "f":
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
        sessions[index] = _open_session(floats[index])
    usual, exposed = Session(int8), _open_session(model)
    sums: dict[str, Fidelity] = {}
    ranges: dict[str, RoundingError] = {}
    undisturbed, done = True, 0
    for batch in data:
        f = {index: {**batch.inputs, **_run_all(session, batch)} for index, session in sessions.items()}
        q = _run_all(exposed, batch)
        if done == 0:
            before = _run_all(usual, batch)
            undisturbed = all(np.array_equal(before[name], q[name]) for name in before)
        for tensor in quantized:
            if tensor.integers in where:
                index, name = where[tensor.integers]
                difference = measure_fidelity(f[index][name], tensor.dequantize(q[tensor.integers]))
                sums[tensor.integers] = sums.get(tensor.integers, Fidelity()) + difference
                if q[tensor.integers].dtype.kind in "iu":
                    new = measure_rounding(tensor, f[index][name])
                    ranges[tensor.integers] = ranges[tensor.integers] + new if tensor.integers in ranges else new
        done += len(batch)
        on_step("layers", done, total)
    unmatched = [tensor.names[0] for tensor in quantized if tensor.integers not in where]
    return LayerSums(quantized, tensors, sums, unmatched, undisturbed, ranges)


def add_batch(answers: Answers, f: Arrays, q: Arrays, batch: Batch) -> None:
    """Add both models' outputs on a batch to the answers."""
    for name in f:
        if f[name].dtype.kind == "f":
            answers.fidelity[name] = _add_sums(answers.fidelity.get(name), f[name], q[name], len(batch))
    answers.samples += len(batch)

    # decisions of both models, whose agreement is known without labels
    metric, decision, n = answers.metric, answers.decision, len(batch)
    one = other = None
    if decision is not None:
        output = metric.output if metric else next(iter(f))
        one, other = decide(decision, f[output]), decide(decision, q[output])
        answers.equal.append(metrics.count_agreement(one, other))
    if metric is None:
        return

    # the metric's own figures: agreement has none, it is between the two
    if metric.name == "agreement":
        equal = answers.equal[-1]
        answers.int8_figures.append(equal)
        answers.float_figures.append(np.repeat(equal[:, 1:], 2, axis=1))
        return
    assert metric.figures is not None
    answers.float_figures.append(metric.figures(f, batch.labels, batch.names))
    answers.int8_figures.append(metric.figures(q, batch.labels, batch.names))
    if metric.name in ("top1", "top5") and metric.label and one is not None and other is not None:
        label = batch.labels[metric.label].reshape(n)
        answers.classes.append(np.stack([label, one, other], axis=1).astype(np.int64))
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
            first = batch.names[int(per_sample.argmin()) % len(batch)]
            raise FcdeployError(
                f"output {name!r} of the {which} model holds NaN or infinity for {first}, expected finite numbers",
                "look at the sample, or at the layer that overflows: fcdeploy inspect MODEL",
            )
    return outputs


def _run_all(session: Engine, batch: Batch) -> Arrays:
    outputs = (lead_with_samples(np.asarray(output), alone=batch.alone) for output in session.run(batch.inputs))
    return dict(zip(session.outputs, outputs, strict=True))


def check_shapes(shapes: Mapping[str, tuple[int, ...]], q: Arrays, hint: str = OTHER_MODEL) -> None:
    """Raise FcdeployError where an int8 output has another shape than the float one."""
    for name, shape in shapes.items():
        if shape != q[name].shape:
            raise FcdeployError(
                f"output {name!r} has shape {shape} in the float model and {q[name].shape} in the int8 model", hint
            )


def _open_session(model: ir.Model) -> Session:
    """A session for a model in memory; weights kept outside its file are written beside a copy, which may be large."""
    if not any(isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()):
        return Session(model)
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return Session(path)
