"""The search as it runs: plans made, models built, evaluated and timed, until the bound is held or time is up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.costs import CostBasis
from fcdeploy.records.costs import TimeTrial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.source import get_fixed_batch
from fcdeploy.search import ladder
from fcdeploy.search.builder import Builder, begin_building
from fcdeploy.search.by_price import leave_by_price
from fcdeploy.search.evaluator import (
    Evaluation,
    EvaluationResult,
    check_calibrated,
    evaluate_float,
    evaluate_model,
    measure_error,
)
from fcdeploy.search.goal import AccuracyGoal
from fcdeploy.search.groups import ALL
from fcdeploy.search.ladder import Forms, NodeGroup, Objective, PathStep, Score
from fcdeploy.search.stopwatch import ONNXRUNTIME, Stopwatch
from fcdeploy.search.verdict import standard_error

FEW = 64  # samples on which roundings are ranked: sums over many values
ONE_SIDED = 1.645  # standard errors: beyond them a drop is above the bound with 95 % certainty
TIMED = 8  # steps of the way that are run against the float model, besides the first and the last


@dataclass(frozen=True)
class MeasuredStep:
    """A step of the path: what was changed, the metric there, and the time against the float model where it was taken."""

    moved: tuple[tuple[str, str], ...]
    result: EvaluationResult
    time: TimeTrial | None = None


@dataclass(frozen=True)
class SearchResult:
    """The plan that was found, the path to it, and the steps of it that none other beats in time and drop.

    `held` is whether the drop of the last result is within the bound.  `warning` is about samples seen in calibration;
    `known` is False where nobody can tell which those are.  `left_out` are the nodes that the search took out of int8.
    `in_time` is False where the time was up before the search was.  `timed_against` says what times are ratios of.
    """

    plan: Plan
    path: tuple[MeasuredStep, ...]
    front: tuple[int, ...]
    goal: AccuracyGoal
    basis: CostBasis
    evaluation: Evaluation
    held: bool
    left_out: tuple[str, ...]
    in_time: bool
    seconds: float
    warning: str | None
    known: bool
    timed_against: str

    @property
    def result(self) -> EvaluationResult:
        """Of the plan: the path ends there."""
        return self.path[-1].result


@dataclass
class SearchRun:
    """What is measured of one model's forms, each once; `deadline` is on the clock of time.perf_counter."""

    builder: Builder
    evaluation: Evaluation
    bound: float
    deadline: float
    on_step: OnStep
    stopwatch: Stopwatch
    results: dict[tuple[tuple[str, str], ...], EvaluationResult] = field(default_factory=dict)

    def result(self, forms: Forms) -> EvaluationResult:
        """The metric and the error of these forms."""
        key = tuple(sorted(forms.items()))
        if key not in self.results:
            self.results[key] = evaluate_model(self.evaluation, self.builder.model(forms))
            self.on_step("trying plans", len(self.results), None)
        return self.results[key]

    def score(self, forms: Forms) -> Score:
        measured = self.result(forms)
        unsure = ONE_SIDED * standard_error(measured.loss)
        return Score(measured.loss.drop, measured.error, self.builder.cost(forms), unsure)

    def rank(self, forms: Forms, groups: Sequence[NodeGroup]) -> Mapping[str, float]:
        """The share of the error that goes with each group's roundings, on the first samples."""

        def measure(model: ir.Model) -> float:
            return measure_error(self.evaluation, model, FEW)

        return self.builder.rank(forms, groups, measure, self.stop, self.on_step)

    def stop(self) -> bool:
        return time.perf_counter() > self.deadline


def run_search(
    problem: Problem,
    basis: CostBasis,
    goal: AccuracyGoal,
    on_step: OnStep | None = None,
    *,
    stopwatch: Stopwatch = ONNXRUNTIME,
) -> SearchResult:
    """The fastest plan found whose drop is within the bound; `basis` are the costs that it starts from.

    What holds the bound is not improved further, and what climbing cannot hold is tried by price.  Where nothing does, or
    time is up, the step of the path with the least
    drop is taken.  The costs decide what is fast; the steps of the path are timed for the reader.  Raises FcdeployError where
    the model is too large to be run, or samples, labels and metric do not fit.
    """
    begin, bound, step = time.perf_counter(), goal.max_drop, on_step or (lambda *_: None)

    if problem.large:
        raise FcdeployError(f"--max-drop runs the model again and again: {problem.why_not_run}", "leave --max-drop out")
    source = goal.samples.open(input_specs(problem.model))
    seen = check_calibrated(problem, str(problem.file), allowed=goal.same_data)
    evaluation = evaluate_float(problem, source, goal.metric, seen, step)

    run = SearchRun(begin_building(problem, basis.costs), evaluation, bound, begin + 60 * goal.minutes, step, stopwatch)
    objective = Objective(bound, run.rank, run.score, run.builder.cost, run.stop)
    path = ladder.climb_ladder(run.builder.groups, objective)
    if ladder.meets_bound(path[-1].score, bound):
        path += ladder.take_back(run.builder.groups, path, objective)
    best = ladder.choose_best([path[-1], *path], _list_measured(run), bound)
    if best.forms != path[-1].forms:
        path.append(best)
    path += _try_all_in_float(run, best) if ladder.meets_bound(best.score, bound) else _leave_by_price(run)
    best, in_time = path[-1], not run.stop()

    stops = _time_steps(run, path)
    points = {i: (stop.time.ratio, stop.result.loss.drop) for i, stop in enumerate(stops) if stop.time}

    out = {node for node, rung in best.forms.items() if rung not in ("int8", "rounded")}
    last = {name: rung for step in path for name, rung in step.moved}
    moved = {name for name, rung in last.items() if rung not in ("int8", "rounded")}
    return SearchResult(
        plan=run.builder.plan(best.forms, moved),
        path=tuple(stops),
        front=tuple(ladder.find_front(points)),
        goal=goal,
        basis=basis,
        evaluation=evaluation,
        held=ladder.meets_bound(best.score, bound),
        left_out=tuple(name_of(node) for node in problem.model.graph if node.name in out),
        in_time=in_time,
        seconds=time.perf_counter() - begin,
        warning=seen.warning,
        known=seen.known is not None,
        timed_against=stopwatch.against,
    )


def _try_all_in_float(run: SearchRun, best: PathStep) -> list[PathStep]:
    """Everything in float with its weights in 8 bits, where the costs have that faster than what was found and it holds."""
    if run.builder.costs is None:
        return []
    forms = dict.fromkeys(run.builder.costs.layers, "bytes")
    if run.builder.cost(forms) >= best.score.cost or run.stop():
        return []
    step = PathStep(((ALL, "bytes"),), forms, run.score(forms))
    return [step] if ladder.choose_best([best], [step], run.bound) is step else []


def _leave_by_price(run: SearchRun) -> list[PathStep]:
    """What holds the bound in least time, where climbing ended without: each group alone may have been within chance."""
    if run.stop():
        return []

    def measure(forms: Forms) -> Score:
        score = run.score(forms)
        return Score(max(score.drop - run.bound, 0.0), score.error, score.cost)

    def noise(model: ir.Model) -> float:
        return measure_error(run.evaluation, model, FEW)

    steps = leave_by_price(run.builder, measure, noise, run.on_step, run.stop)
    held = [step for step in steps if ladder.meets_bound(step.score, 0.0)]
    if not held:
        return []
    best = min(held, key=lambda step: step.score.cost)
    return [PathStep(best.moved or ((ALL, "bytes"),), best.forms, run.score(best.forms))]


def _list_measured(run: SearchRun) -> list[PathStep]:
    """Everything that was measured, as steps without a name."""
    return [PathStep((), dict(key), run.score(dict(key))) for key in run.results]


def _time_steps(run: SearchRun, path: Sequence[PathStep]) -> list[MeasuredStep]:
    """The steps of the path with their times: the last and the first for certain, others while there is time."""
    feeds = _take_one_batch(run)
    first_and_last = {0, len(path) - 1}
    steps = []
    for number, step in enumerate(path):
        timed = number in first_and_last or (number <= TIMED and not run.stop())
        trial = (
            run.stopwatch.time(run.builder.problem, run.builder.model(step.forms), feeds, run.on_step)
            if timed
            else None
        )
        steps.append(MeasuredStep(step.moved, run.result(step.forms), trial))
    return steps


def _take_one_batch(run: SearchRun) -> Arrays:
    """A batch of one, or as many as the model insists on."""
    batch = next(iter(run.evaluation.read()))
    return batch.first(get_fixed_batch(batch.specs) or 1)
