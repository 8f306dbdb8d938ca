"""What each source of error (sources.py) costs: the int8 model as it is, beside the one in which that source is not rounded.

Leave-one-out measures a source in its place, with all other errors there.  Costs need not add up: errors that cancel each
other make the sum larger than the whole, errors that hide behind each other make it smaller, and a cost may be negative.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.intervals import Z
from fcdeploy.errors import FcdeployError
from fcdeploy.proof.compare import Answers, Arrays, Choose, add, run
from fcdeploy.proof.local import Local, local
from fcdeploy.proof.loss import Loss, loss_of
from fcdeploy.proof.sources import Source, sources
from fcdeploy.proof.without import without
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples import Batch

Array = np.ndarray[Any, Any]
GUESSED_ON = 8  # samples for the first guess, whose tensors are all in memory at once
UNKNOWN_DB = -math.inf  # guessed to be the worst: nothing is known of it


@dataclass(frozen=True)
class Cost:
    """What one source costs.

    `share` of the outputs' error power goes with it, `low` to `high` the 95 % interval over samples (normal, for a ratio of
    paired sums).  `loss` compares the metric without it to the metric as it is: `drop` is what the source takes from
    it, in the metric's unit, with its paired interval; None without a metric.
    """

    source: Source
    share: float
    low: float
    high: float
    loss: Loss | None

    @property
    def real(self) -> bool:
        """Whether it costs more than chance explains, in the metric or in the error of the outputs."""
        drop = self.loss is not None and self.loss.low is not None and self.loss.low > 0
        return drop or self.low > 0


@dataclass(frozen=True)
class Ranking:
    """Costs, the dearest first; sources for which the float model has no weights; sources for which the time was up.

    `guesses` hold what each source does on the spot, where the float model knows its values.
    """

    costs: tuple[Cost, ...]
    unknown: tuple[Source, ...]
    left: tuple[Source, ...]
    guesses: Mapping[Source, Local]
    samples: int


def rank(
    int8: ir.Model,
    floats: Sequence[ir.Model],
    data: Iterable[Batch],
    choose: Choose | None = None,
    *,
    seconds: float = math.inf,
    only: Sequence[Source] | None = None,
    on_step: OnStep | None = None,
) -> Ranking:
    """Leave out one source after the other on the same samples, those first that are the least exact on the spot.

    `floats` as for `without`; the first is the reference.  `choose` picks a metric as for `compare`; with none, errors of
    the outputs alone are ranked.  With a metric its drop ranks, and where drops are equal the error power.  `only` are
    some of `sources(int8)`.  Samples and the float outputs are in memory.  When `seconds` have passed no further source
    is tried, and at least one is.  Raises FcdeployError where a model cannot be run.
    """
    begin = time.perf_counter()
    batches = list(data)
    found = list(sources(int8) if only is None else only)
    few = {name: array[:GUESSED_ON] for name, array in batches[0].inputs.items()}
    if len(batches[0]) > GUESSED_ON and any(_fixed(model) for model in (int8, floats[0])):
        few = batches[0].inputs
    guesses = local(int8, floats, found, few)
    found.sort(key=lambda source: guesses[source].sqnr_db if source in guesses else UNKNOWN_DB)
    exact = _outputs(Session(floats[0]), batches, "float")
    chosen = (None, None) if choose is None else choose(exact[0], batches[0].labels)
    base, errors = _answers(Session(int8), batches, exact, Answers(*chosen))
    costs: list[Cost] = []
    unknown: list[Source] = []
    for done, source in enumerate(found):
        if costs and time.perf_counter() - begin > seconds:
            break
        try:
            model = without(int8, floats, source)
        except FcdeployError:
            unknown.append(source)
            continue
        answers, fewer = _answers(Session(model), batches, exact, Answers(*chosen))
        costs.append(Cost(source, *_share(errors, fewer), _loss(answers, base)))
        if on_step:
            on_step("leaving out", done + 1, len(found))
    tried = {cost.source for cost in costs} | set(unknown)
    left = tuple(source for source in found if source not in tried)
    costs.sort(key=lambda cost: (-cost.loss.drop if cost.loss else 0.0, -cost.share))
    return Ranking(tuple(costs), tuple(unknown), left, guesses, sum(map(len, batches)))


def _fixed(model: ir.Model) -> bool:
    return any(
        value.shape is not None and len(value.shape) and isinstance(value.shape[0], int) for value in model.graph.inputs
    )


def _outputs(session: Session, batches: Sequence[Batch], which: str) -> list[Arrays]:
    return [run(session, batch, which) for batch in batches]


def _answers(
    session: Session, batches: Sequence[Batch], exact: Sequence[Arrays], answers: Answers
) -> tuple[Answers, NDArray[np.float64]]:
    """What a model answers, and its squared errors (n, outputs), sample by sample."""
    errors = []
    for batch, f in zip(batches, exact, strict=True):
        q = run(session, batch, "int8")
        add(answers, f, q, batch)
        errors.append(_errors(f, q, len(batch)))
    return answers, np.concatenate(errors)


def _errors(f: Arrays, q: Arrays, n: int) -> NDArray[np.float64]:
    """Squared errors of each floating-point output, a row a sample; of an output without an axis of samples their mean."""
    columns = []
    for name, value in f.items():
        if value.dtype.kind == "f":
            e = (value.astype(np.float64) - q[name]) ** 2
            own = e.reshape(n, -1).sum(axis=1) if value.shape[:1] == (n,) else np.full(n, e.sum() / n)
            columns.append(own)
    return np.stack(columns, axis=1) if columns else np.zeros((n, 1))


def _share(errors: NDArray[np.float64], fewer: NDArray[np.float64]) -> tuple[float, float, float]:
    """1 - fewer / errors, all outputs counting the same, with a 95 % interval: the linearized ratio of paired sums."""
    totals = errors.sum(axis=0)
    live = totals > 0
    if not live.any():
        return 0.0, 0.0, 0.0
    e = (errors[:, live] / totals[live]).mean(axis=1)  # sums to 1
    d = e - (fewer[:, live] / totals[live]).mean(axis=1)
    share, n = float(d.sum()), len(e)
    half = Z * math.sqrt(n / (n - 1) * float(((d - share * e) ** 2).sum())) if n > 1 else math.inf
    return share, share - half, share + half


def _loss(answers: Answers, base: Answers) -> Loss | None:
    """The metric without the source, beside the metric as it is."""
    if answers.metric is None:
        return None
    both = Answers(answers.metric, answers.decision)
    both.float_figures, both.int8_figures = answers.int8_figures, base.int8_figures
    return loss_of(both)
