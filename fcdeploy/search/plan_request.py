"""From what `quantize` was asked for to a plan: samples set aside, the fastest plan, and what holds an accuracy or the floor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arithmetic.ranges.methods import DEFAULT
from fcdeploy.evaluate.input_checks import take_few, warn_of_inputs
from fcdeploy.evaluate.misread_inputs import warn_of_readings
from fcdeploy.evaluate.prepared import check_on_first, check_prepared
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.scratch import make_scratch
from fcdeploy.int8.calibrating.statistics import declare_as_calibrated, load_or_observe
from fcdeploy.int8.judging.samples_apart import set_apart
from fcdeploy.int8.plan_file import load_plan
from fcdeploy.int8.planning.eligibility import match_keep_float
from fcdeploy.int8.planning.transposed_convs import turn_transposed_convs
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.best import choose_best
from fcdeploy.int8.refining.refine import add_refinements
from fcdeploy.int8.timing.costs import CostBasis, choose_cost_source, plan_fastest
from fcdeploy.native.costs import plan_native
from fcdeploy.native.suits import use_types
from fcdeploy.prepare.cost_model import count_at
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.calibration import describe_inputs
from fcdeploy.records.plan import Effort, Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept_samples import split_into_chunks, take_run
from fcdeploy.search.hold_floor import FloorResult, Remedies, hold_floor
from fcdeploy.search.judged import make_judge
from fcdeploy.search.request import Request
from fcdeploy.search.search import SearchResult, run_search
from fcdeploy.search.stopwatch import NATIVE, ONNXRUNTIME, UNTIMED
from fcdeploy.tables.types import INT8

EFFORT: Effort = "balanced"


@dataclass(frozen=True)
class Planned:
    """What planning came to: the problem, changed where effort `best` did that, the plan, and what it rests on."""

    problem: Problem
    plan: Plan
    basis: CostBasis
    tried: str
    search_result: SearchResult | None


def load_problem(request: Request, model: ir.Model, files: tuple[Path, ...], on_step: OnStep | None) -> Problem:
    """The prepared model with its statistics, and samples to run it on."""
    declare_as_calibrated(
        request.model, model, request.samples, request.calibration, axes=request.batch_axes, states=request.states
    )
    source = None if request.samples is None else request.samples.open(input_specs(model))
    scratch = make_scratch(model, None if request.dry_run else request.output.parent)
    if source is not None:
        check_on_first(request.model, model, source)
    calibration, groups = load_or_observe(model, files, source, request.calibration, on_step)
    # apart whether they are judged or not, so that a plan gives the same bytes again
    apart = set_apart(model, calibration, groups, source if request.calibration is None else None, on_step)
    measured = apart.calibration
    if request.target.one_answer or request.native:
        measured = turn_transposed_convs(model, measured, match_keep_float(model.graph, request.keep_float))
        infer_shapes(model)
    if source is None and apart.tools:
        check_prepared(request.model, model, next(split_into_chunks(model, apart.tools))[1])
    if apart.tools:
        count_at(model, {name: array.shape for name, array in take_run(model, apart.tools).items()})
    return Problem(
        request.model, model, measured, apart.tools, request.target,
        judged=apart.judged, unseen=apart.unseen, ranges_apart=apart.ranges_apart,
        ranges=request.ranges or DEFAULT, keep_float=request.keep_float, types=use_types(request.types, native=request.native),
        effort=request.effort or EFFORT, source=source, scratch=scratch,
    )  # fmt: skip


def look_at_data(request: Request, problem: Problem) -> list[str]:
    """What is odd about the samples that are given here."""
    recorded = describe_inputs(problem.calibration)
    odd: list[str] = []
    if problem.source is not None:
        few = take_few(problem.source)
        odd += warn_of_inputs(problem.source, few, recorded if request.calibration else ())
        odd += warn_of_readings(request.model, problem.model, problem.source, few)
    if request.goal is not None:
        source = request.goal.samples.open(input_specs(problem.model))
        few = take_few(source)
        odd += warn_of_inputs(source, few, recorded)
        odd += warn_of_readings(request.model, problem.model, source, few) if problem.source is None else []
    return odd


def plan_request(request: Request, problem: Problem, on_step: OnStep | None) -> Planned:
    """The plan in a file, or else the fastest; with a goal, one that meets it."""
    tried = ""
    if request.plan is not None:
        problem, plan, warnings = load_plan(problem, request.plan, request.effort)
        basis = CostBasis(warnings=warnings)
    else:
        if request.effort == "best":
            problem, tried = choose_best(problem, choose_ranges=request.ranges is None, on_step=on_step)
        if request.native:
            plan, basis = plan_native(problem, request.costs, request.limits, on_step)
        else:
            source = choose_cost_source(problem, request.costs, request.target_name)
            plan, basis = plan_fastest(problem, source, on_step)
        plan = add_refinements(problem, plan)
    stopwatch = ONNXRUNTIME if not request.native else NATIVE if request.limits is None else UNTIMED
    result = None if request.goal is None else run_search(problem, basis, request.goal, on_step, stopwatch=stopwatch)
    return Planned(problem, plan if result is None else result.plan, basis, tried, result)


def judge_planned(request: Request, planned: Planned, on_step: OnStep | None) -> FloorResult | None:
    """The plan carried out so that the floor is held; None where a metric decides, there is no floor, or nothing to run on."""
    problem = planned.problem
    judge = None if planned.search_result is not None or request.floor is None else make_judge(problem)
    if judge is None or request.floor is None:
        return None
    free = request.plan is None and request.types == INT8 and problem.effort != "fast"
    starts = free and problem.effort != "best"  # which has tried them
    asked = request.ranges is not None
    allowed = Remedies(
        request.plan is None, starts and not asked, free and not asked, rescale=starts,
        reconstruct=request.plan is None and problem.effort == "best", repair=free,
    )  # fmt: skip
    return hold_floor(problem, planned.plan, planned.basis, judge, request.floor, allowed, on_step=on_step)
