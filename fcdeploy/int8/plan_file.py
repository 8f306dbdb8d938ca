"""A plan that was written to a file, edited or not, and fits the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_json
from fcdeploy.int8.planning.check_plan import check_plan
from fcdeploy.int8.planning.scales import update_reinterpreted_scales
from fcdeploy.int8.planning.weights import update_bias_scales
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.recalibrate import recalibrate
from fcdeploy.int8.refining.reconstruct import find_schedule
from fcdeploy.int8.refining.refine import take_learnable
from fcdeploy.prepare.channels import UnfitChannelsError
from fcdeploy.records import plan as plans
from fcdeploy.records.plan import NodeDecision, Plan


def load_plan(problem: Problem, file: str | Path, effort: str | None = None) -> tuple[Problem, Plan, tuple[str, ...]]:
    """What a plan in a file starts from, the plan as it stands there, and warnings; scales that follow from others do.

    `effort` is the one that was asked for.  Raises FcdeployError where the plan does not fit.
    """
    source = f"plan {str(file)!r}"
    if problem.keep_float:
        raise FcdeployError("--keep-float and --plan were both given", 'change "kind" to "float" in the plan instead')
    read, warnings = _read(file, source)
    if read.target != problem.target.name:
        raise FcdeployError(
            f"{source} is for target {read.target!r}, not {problem.target.name!r}", f"--target {read.target}"
        )
    asked = (problem.types.weights, problem.types.activations)
    if (read.weights, read.activations) != asked:
        raise FcdeployError(
            f"{source} is for weights {read.weights!r} and activations {read.activations!r}, not "
            f"{asked[0]!r} and {asked[1]!r}",
            f"--weights {read.weights} --activations {read.activations}",
        )
    if read.effort and effort not in (None, read.effort):
        raise FcdeployError(f"{source} is for effort {read.effort!r}, not {effort!r}", "leave --effort out")
    problem = replace(problem, effort=read.effort or problem.effort)
    problem = _apply_channel_changes(problem, read, source)
    decided = update_reinterpreted_scales(problem.model.graph, replace(read, effort=problem.effort))
    decided = update_bias_scales(problem.model, decided)
    check_plan(problem.model.graph, decided, source)
    if read.reconstructed:
        _refuse_unlearnable(problem, source)
    return problem, refresh_reasons(decided, problem.plan()), warnings


def _read(file: str | Path, source: str) -> tuple[Plan, tuple[str, ...]]:
    if not Path(file).is_file():
        raise FcdeployError(f"{source} does not exist", plans.HINT)
    data = read_json(Path(file), "plan", plans.HINT)
    said = f"{source} is of version 1, read in the words of version 2; --save-plan FILE writes it so"
    return plans.from_json(data, source), (said,) if plans.is_version_1(data) else ()


def _apply_channel_changes(problem: Problem, plan: Plan, source: str) -> Problem:
    """The network with the plan's factors on its channels, and its shifts in biases."""
    if not plan.rescaled and not plan.absorbed:
        return problem
    if not problem.samples:
        raise FcdeployError(
            f"{source} rescales or shifts channels, and there is nothing to calibrate them on again: {problem.why_not_run}",
            "--data DATA, the samples that the plan was made with",
        )
    try:
        return recalibrate(problem, plan.rescaled, plan.absorbed)
    except UnfitChannelsError as error:
        raise FcdeployError(f"{source} does not fit: {error}", plans.HINT) from error


def _refuse_unlearnable(problem: Problem, source: str) -> None:
    """Raises FcdeployError where the plan's weights cannot be learnt again."""
    schedule, why = find_schedule(problem.model, take_learnable(problem))
    if schedule is None:
        raise FcdeployError(
            f"{source} has weights that were learnt together, which cannot be done again: {why}",
            'the samples that the plan was made with, and torch; or leave "reconstructed" out of the plan',
        )


def format_plan(plan: Plan) -> str:
    """The plan as `load_plan` reads it."""
    return json.dumps(plans.to_json(plan), indent=1, ensure_ascii=False) + "\n"


def refresh_reasons(edited: Plan, made: Plan) -> Plan:
    """The edited plan, in which a node that became something else no longer gives the old reason."""
    before = {decision.node: decision for decision in made.nodes}

    def is_stale(now: NodeDecision) -> bool:
        made_float = now.cause == "time"  # by measured times, which `made` knows nothing of
        was = before[now.node]
        return now.kind not in ("float", "weight_only") if made_float else now.kind != was.kind and now.why == was.why

    return replace(
        edited,
        nodes=tuple(replace(d, why=f"{d.kind} by the plan", cause="") if is_stale(d) else d for d in edited.nodes),
    )
