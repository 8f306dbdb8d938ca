"""What each source of error (error_sources.py) costs: the int8 model compared with one in which that source is not rounded.

Leave-one-out measures a source in its place, with all other errors there.  Costs need not add up: errors that cancel each
other make the sum larger than the whole, errors that hide behind each other make it smaller, and a cost may be negative.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.significance import Z
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.compare import Answers, Choose, add_batch
from fcdeploy.evaluate.loss import Loss, compute_loss
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.evaluate.rounding_error import RoundingError
from fcdeploy.evaluate.run_models import run_model
from fcdeploy.graph.model import input_specs
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.sensitivity.ablation import leave_unrounded
from fcdeploy.sensitivity.error_sources import ErrorSource, find_sources
from fcdeploy.sensitivity.local_errors import measure_tensor_errors, measure_weight_errors

Errors = list[Float64]
"""Of each floating-point output, (n, elements)."""
GUESSED_ON = 8  # samples for the first guess unless told otherwise: their tensors are all in memory at once
CENTRED = 0.05  # of the error power is its mean, at most, where biases were corrected: 0.01 to 0.02 measured
FEWEST = 8  # samples that have a mean worth taking off
UNKNOWN_DB = -math.inf  # guessed to be the worst: nothing is known of it


@dataclass(frozen=True)
class SourceCost:
    """What one source costs.

    `share` of the outputs' error power goes with it, `low` to `high` the 95 % interval over samples (normal, for a ratio of
    paired sums).  `loss` compares the metric without it to the metric as it is: `drop` is what the source takes from
    it, in the metric's unit, with its paired interval; None without a metric.
    """

    source: ErrorSource
    share: float
    low: float
    high: float
    loss: Loss | None

    @property
    def takes(self) -> float:
        """The drop, where it is more than chance explains, else 0."""
        return self.loss.drop if self.loss is not None and self.loss.low is not None and self.loss.low > 0 else 0.0

    @property
    def real(self) -> bool:
        """Whether it costs more than chance explains, in the metric or in the error of the outputs."""
        return self.takes > 0 or self.low > 0


@dataclass(frozen=True)
class Ranking:
    """Costs, the dearest first; sources for which the float model has no weights; sources for which the time was up.

    `guesses` hold what each source does on the spot, where the float model knows its values.
    """

    costs: tuple[SourceCost, ...]
    unknown: tuple[ErrorSource, ...]
    left: tuple[ErrorSource, ...]
    guesses: Mapping[ErrorSource, RoundingError]
    samples: int


def rank_sources(
    int8: ir.Model,
    floats: Sequence[ir.Model],
    data: Iterable[Batch],
    choose: Choose | None = None,
    *,
    seconds: float = math.inf,
    guessed_on: int = GUESSED_ON,
    on_step: OnStep | None = None,
) -> Ranking:
    """Leave out one source after the other on the same samples, those with the largest local error first.

    `floats` are models that may hold the constants as they were, the first the reference.  `choose` picks a metric from the
    first answers; with none, errors of
    the outputs alone are ranked.  With a metric, drops that are no chance come first, by size, then the error power ranks.
    `guessed_on` samples tell which comes first.  Samples and the float outputs are in
    memory.  When `seconds` have passed no further source is tried, and at least one is.  Raises FcdeployError where a model
    cannot be run.
    """
    begin = time.perf_counter()
    batches = list(data)

    every = find_sources(int8)
    guesses = {
        **measure_weight_errors(int8, floats, every),
        **measure_tensor_errors(int8, floats, every, _take_few(int8, batches[0], guessed_on)),
    }
    every.sort(key=lambda source: guesses[source].sqnr_db if source in guesses else UNKNOWN_DB)

    exact = _run_outputs(Session(floats[0]), batches)
    chosen = (None, OutputsRead()) if choose is None else choose(exact[0], batches[0].labels)
    base, errors = _run_answers(Session(int8), batches, exact, Answers(*chosen))

    costs: list[SourceCost] = []
    unknown: list[ErrorSource] = []
    for done, source in enumerate(every):
        if costs and time.perf_counter() - begin > seconds:
            break
        try:
            model = leave_unrounded(int8, floats, source)
        except FcdeployError:
            unknown.append(source)
            continue
        answers, fewer = _run_answers(Session(model), batches, exact, Answers(*chosen))
        costs.append(SourceCost(source, *compute_share(errors, fewer), compute_gain(answers, base)))
        if on_step:
            on_step("leaving out", done + 1, len(every))

    tried = {cost.source for cost in costs} | set(unknown)
    left = tuple(source for source in every if source not in tried)
    costs.sort(key=lambda cost: (-cost.takes, -cost.share))
    return Ranking(tuple(costs), tuple(unknown), left, guesses, sum(map(len, batches)))


def compute_errors(f: Arrays, q: Arrays, n: int) -> Errors:
    """Errors of the floating-point outputs (n, elements) each; an output without an axis of samples is one row for all."""
    errors = []
    for name, value in f.items():
        if value.dtype.kind == "f" and value.shape != q[name].shape:  # rows that depend on values have no counterparts
            errors.append(np.zeros((n, 1)))
        elif value.dtype.kind == "f":
            e = np.asarray(q[name] - value, np.float64)
            errors.append(
                e.reshape(n, -1) if value.shape[:1] == (n,) else np.repeat(e.reshape(1, -1), n, 0) / math.sqrt(n)
            )
    return errors or [np.zeros((n, 1))]


def compute_share(before: Sequence[Errors], after: Sequence[Errors]) -> tuple[float, float, float]:
    """1 - after / before of the error power, all outputs counting the same, with a 95 % interval over samples.

    Both are errors of the same samples, batch by batch.  Where `before` has hardly any mean error, since biases were
    corrected, the mean of both is taken off: corrections of an error that is gone are made anew when one quantizes again.
    The interval is that of a ratio of paired sums, linearized.
    """
    columns = [_compute_powers(*pair) for pair in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)]
    live = [(one / one.sum(), other / one.sum()) for one, other in columns if one.sum() > 0]
    if not live:
        return 0.0, 0.0, 0.0
    e = np.mean([one for one, _ in live], axis=0)  # sums to 1
    d = e - np.mean([other for _, other in live], axis=0)
    share, n = float(d.sum()), len(e)
    half = Z * math.sqrt(n / (n - 1) * float(((d - share * e) ** 2).sum())) if n > 1 else math.inf
    return share, share - half, share + half


def _compute_powers(before: Sequence[Array], after: Sequence[Array]) -> tuple[Array, Array]:
    """Squared errors of one output, sample by sample."""
    if len({part.shape[1] for part in before}) > 1:  # shapes vary: there is no mean
        one, other = (np.concatenate([(part**2).sum(axis=1) for part in each]) for each in (before, after))
        return one, other
    e, d = np.concatenate(before), np.concatenate(after)
    mean = e.mean(axis=0)
    if len(e) >= FEWEST and len(e) * float(mean @ mean) < CENTRED * float((e**2).sum()):
        e, d = e - mean, d - d.mean(axis=0)
    return (e**2).sum(axis=1), (d**2).sum(axis=1)


def compute_gain(answers: Answers, base: Answers) -> Loss | None:
    """The metric of a model that rounds less, beside that of the int8 model as it is; None without a metric."""
    if answers.metric is None:
        return None
    both = Answers(answers.metric, answers.read)
    both.float_figures, both.int8_figures = answers.int8_figures, base.int8_figures
    return compute_loss(both)


def _take_few(model: ir.Model, batch: Batch, most: int) -> Arrays:
    return batch.first(min(get_fixed_batch(input_specs(model)) or most, len(batch)))


def _run_outputs(session: Session, batches: Sequence[Batch]) -> list[Arrays]:
    return [run_model(session, batch, "float") for batch in batches]


def _run_answers(
    session: Session, batches: Sequence[Batch], exact: Sequence[Arrays], answers: Answers
) -> tuple[Answers, list[Errors]]:
    """What a model answers, and its errors, batch by batch."""
    errors = []
    for batch, f in zip(batches, exact, strict=True):
        q = run_model(session, batch, "int8")
        add_batch(answers, f, q, batch)
        errors.append(compute_errors(f, q, len(batch)))
    return answers, errors
