"""Groups of nodes that could leave int8: the accuracy recovered and the time it costs, both measured.

A group is what must leave int8 to undo a source of error (error_sources.py).  Leaving it takes with it every other source whose
nodes are all in the group, as `--keep-float` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.evaluate.compare import Answers, Choose, add_batch
from fcdeploy.evaluate.loss import Loss
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.evaluate.run_models import run_model
from fcdeploy.graph.model import input_specs
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.paired_timing import Ratio, compute_ratio, time_in_turns
from fcdeploy.runtime.session import Session
from fcdeploy.samples.layout import take_first
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.sensitivity.ablation import leave_unrounded
from fcdeploy.sensitivity.error_sources import ErrorSource
from fcdeploy.sensitivity.rank import Errors, Ranking, SourceCost, compute_errors, compute_gain, compute_share

TURNS = 0.8  # seconds of timing for each group
ERROR_BYTES = 256 << 20  # of errors of all models: enough samples to tell shares


@dataclass(frozen=True)
class FloatGroup:
    """Nodes, in the graph's order, with the dearest source that leaving int8 undoes, and all that it undoes.

    `macs` is their share of the multiplications.
    """

    nodes: tuple[str, ...]
    macs: float
    cost: SourceCost
    undone: tuple[ErrorSource, ...]


@dataclass(frozen=True)
class Remedy:
    """What is recovered when a group computes in float, all else unchanged.

    `share` of the outputs' error power, with its 95 % interval; `loss` the metric in float beside the metric as it is,
    its `drop` being what comes back, None without a metric.  `time` is that of the model with the group in float,
    relative to the int8 model: one thread, one sample, in paired turns on this CPU; None where it was not measured.
    """

    group: FloatGroup
    share: float
    low: float
    high: float
    loss: Loss | None
    time: Ratio | None

    @property
    def returns(self) -> float:
        """Of the metric, where it is more than chance explains, else 0."""
        return self.loss.drop if self.loss is not None and self.loss.low is not None and self.loss.low > 0 else 0.0


def choose_groups(ranking: Ranking, every: Sequence[ErrorSource], most: int) -> list[FloatGroup]:
    """The groups of the dearest sources, each once, at most `most`; a source that costs nothing has none.

    `every` are all sources of the model, any of which may be undone on the way.
    """
    result: dict[frozenset[str], FloatGroup] = {}
    for cost in ranking.costs:
        nodes = frozenset(cost.source.group)
        if len(result) < most and nodes not in result and (cost.takes > 0 or cost.share > 0):
            undone = tuple(s for s in every if nodes.issuperset(s.group) and s not in ranking.unknown)
            result[nodes] = FloatGroup(cost.source.group, cost.source.share, cost, undone)
    return list(result.values())


def measure_remedies(
    int8: ir.Model,
    floats: Sequence[ir.Model],
    wanted: Sequence[FloatGroup],
    data: Iterable[Batch],
    choose: Choose | None = None,
    *,
    timed: bool = True,
    on_step: OnStep | None = None,
    total: int | None = None,
) -> list[Remedy]:
    """Every group measured on the samples, the one that brings back most first; one batch is in memory, and errors of the first.

    `floats`, `choose` and the order as for `rank_sources`.
    """
    if not wanted:
        return []

    models = [leave_unrounded(int8, floats, *group.undone) for group in wanted]
    reference, sessions = Session(floats[0]), [Session(model) for model in (int8, *models)]
    answers: list[Answers] = []
    errors: list[list[Errors]] = [[] for _ in sessions]
    held = 0
    first: Arrays = {}

    for batch in data:
        f = run_model(reference, batch, "float")
        if not answers:
            chosen = (None, OutputsRead()) if choose is None else choose(f, batch.labels)
            answers = [Answers(*chosen) for _ in sessions]
            first = batch.inputs
        for one, session, parts in zip(answers, sessions, errors, strict=True):
            q = run_model(session, batch, "int8")
            add_batch(one, f, q, batch)
            if held < ERROR_BYTES:
                parts.append(compute_errors(f, q, len(batch)))
        held += 8 * sum(value.size for value in f.values()) * len(sessions)
        if on_step:
            on_step("groups in float", answers[0].samples, total)

    result = []
    for group, model, own, fewer in zip(wanted, models, answers[1:], errors[1:], strict=True):
        time = _time_model(int8, model, first) if timed else None
        result.append(Remedy(group, *compute_share(errors[0], fewer), compute_gain(own, answers[0]), time))
    return sorted(result, key=lambda row: (-row.returns, -row.share))


def _time_model(int8: ir.Model, model: ir.Model, inputs: Arrays) -> Ratio:
    """Time of a model relative to the int8 one, with a 95 % interval."""

    specs = input_specs(int8)
    feeds = take_first(inputs, specs, get_fixed_batch(specs) or 1)
    one, other = (Session(each, threads=1) for each in (model, int8))
    timed = time_in_turns([lambda: one.run(feeds), lambda: other.run(feeds)], TURNS)
    return compute_ratio(*timed)
