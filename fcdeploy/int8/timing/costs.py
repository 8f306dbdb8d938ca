"""Time as an input of the plan: where the costs come from, and the plan they lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fcdeploy.atomic_files import clear_abandoned, replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_small_file
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing import cost_cache
from fcdeploy.int8.timing.choose_kernels import (
    SLOWER,
    best_trial,
    choose,
    confirm_again,
    measure_choices,
    plan_choice,
)
from fcdeploy.int8.timing.partition import list_slow
from fcdeploy.int8.timing.rate_table import estimate_costs
from fcdeploy.records import costs as costing
from fcdeploy.records.costs import Costs, TimeTrial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import detect_target, read_cpu_name
from fcdeploy.runtime.session import read_versions
from fcdeploy.samples.kept_samples import take_run

WIDEST = 0.2  # of a ratio: an interval that is wider is no result
CACHED, MEASURE, TABLE, NONE = "cached", "measure", "table", "none"
NAMES = (MEASURE, TABLE, NONE)  # what a caller may say instead of a file


@dataclass(frozen=True)
class CostBasis:
    """The costs a plan rests on, if any, whether they were measured at another time, and warnings."""

    costs: Costs | None = None
    before: bool = False
    warnings: tuple[str, ...] = ()


def choose_cost_source(problem: Problem, costs: str | Path | None, target: str) -> str | Path:
    """Where costs come from: what was asked, else measured where the target, by that name, is this CPU, else the table."""
    types = problem.types
    if types.other != "int8":
        if costs not in (None, NONE):
            raise FcdeployError(
                f"--costs weighs integer kernels, and there are none with --weights {types.weights} "
                f"--activations {types.activations}",
                "leave --costs out",
            )
        return NONE
    if costs is not None:
        return costs
    here = target in ("host", "portable") or problem.target.name == detect_target().name
    return CACHED if problem.effort != "fast" and here else TABLE


def plan_fastest(problem: Problem, asked: str | Path, on_step: OnStep | None) -> tuple[Plan, CostBasis]:
    """The plan that costs least time, and the costs it rests on. Raises FcdeployError."""
    everything = problem.plan()
    basis = _find_costs(problem, everything, asked, on_step)
    return plan_by_costs(problem, everything, basis.costs), basis


def plan_by_costs(problem: Problem, everything: Plan, costs: Costs | None) -> Plan:
    """The plan that costs least time, by costs that are known; `everything` takes every integer kernel."""
    if costs is None:
        return everything
    choice = choose(problem.model, everything, problem.calibration, costs)
    plan = plan_choice(problem, everything, choice)
    return replace(plan, costs=costing.hash_choice(replace(choice, slow=list_slow(plan))))


def _find_costs(problem: Problem, everything: Plan, asked: str | Path, on_step: OnStep | None) -> CostBasis:
    """The costs asked for; a file that does not exist is measured and written."""
    model = problem.calibration.model
    if asked == NONE or not any(decision.kind in ("int8", "dynamic") for decision in everything.nodes):
        return CostBasis()
    if asked == TABLE:
        return CostBasis(estimate_costs(problem.model, model, problem.target.name))
    file = Path(asked)
    named = asked not in (CACHED, MEASURE)
    if named:
        clear_abandoned(file)
    if named and file.exists():
        return CostBasis(read_costs(file, model, "onnxruntime"))
    if not problem.samples:
        why = f"times were not measured: {problem.why_not_run}"
        return CostBasis(estimate_costs(problem.model, model, problem.target.name), warnings=(why,))
    basis = _measure_or_reuse(problem, everything, asked, on_step)
    if named and basis.costs:
        with replace_file(file) as aside:
            aside.write_text(costing.to_text(basis.costs))
    return basis


def read_costs(file: Path, model: str, engine: str) -> Costs:
    """The costs in a file. Raises FcdeployError where they are another model's or engine's."""
    costs = costing.from_text(
        read_small_file(file, "costs", "give a new file name to measure").decode(errors="replace"),
        f"costs {str(file)!r}",
    )
    if costs.model != model:
        raise FcdeployError(f"costs {str(file)!r} are those of another model", "give a new file name to measure")
    if costs.engine != engine:
        raise FcdeployError(
            f"costs {str(file)!r} are those of --engine {costs.engine}, expected {engine}",
            "give a new file name to measure",
        )
    return costs


def _measure_or_reuse(problem: Problem, everything: Plan, asked: str | Path, on_step: OnStep | None) -> CostBasis:
    """The costs on this CPU: as they were measured before, unless there are none, or MEASURE.

    Where times were too uneven to decide by, the table does, unless times were asked for by name.
    """
    model = problem.calibration.model
    kept = cost_cache.file_of(model, everything, take_run(problem.model, problem.samples))
    costs, warning = (None, "") if asked == MEASURE else cost_cache.read(kept, model)
    if costs is not None and costs.confirmed and is_uneven(costs.confirmed[-1]):
        costs = confirm_again(problem, everything, costs, on_step)
        warning = "" if costs is None else cost_cache.write(kept, costs)
    if costs is not None:
        return CostBasis(costs, before=True, warnings=tuple(filter(None, [warning])))
    source = f"{read_cpu_name()}, onnxruntime {read_versions()['onnxruntime']}"
    costs = measure_choices(problem, everything, source=source, on_step=on_step)
    noise = find_noise(costs)
    if noise and asked == CACHED:
        why = f"this machine was busy ({noise}), so the table decided instead of times; --costs measure decides by them"
        table = estimate_costs(problem.model, model, problem.target.name)
        return CostBasis(table, warnings=tuple(filter(None, (warning, why))))
    busy = noise and f"this machine was busy: {noise} is too uneven to decide by, and was asked for"
    warnings = (warning, busy, "" if noise else cost_cache.write(kept, costs))
    return CostBasis(costs, warnings=tuple(filter(None, warnings)))


def find_noise(costs: Costs) -> str:
    """The measurement that is too uneven to decide by, "" where there is none.

    Its interval is wider than a fifth and holds the place where the decision would be another: what is faster than float,
    or slower, for certain may be as uneven as it likes.
    """
    decided_by = (*costs.confirmed, *costs.trials[:1]) if costs.trials else costs.confirmed
    for trial in decided_by:
        if is_uneven(trial) and trial.low <= SLOWER <= trial.high:
            return f"{format_interval(trial)} of the float time"
    return ""


def is_uneven(trial: TimeTrial) -> bool:
    """Whether the interval is too wide for the ratio to be a figure, whatever may be decided by it."""
    return trial.high - trial.low > WIDEST * trial.ratio


def find_taken(costs: Costs) -> TimeTrial:
    """The last that is known of the choice that was taken, of costs that were measured."""
    return costs.confirmed[-1] if costs.confirmed else best_trial(costs.trials)


def format_interval(trial: TimeTrial) -> str:
    """A ratio with its interval, or the ends of that where it is too wide for a result."""
    text = format_ratio(trial)
    return text if text.startswith("between") else f"{text} ({trial.low:.2f} to {trial.high:.2f})"


def format_ratio(trial: TimeTrial) -> str:
    """The ratio, or the ends of its interval where that is too wide for a result."""
    return f"between {trial.low:.2f} and {trial.high:.2f}" if is_uneven(trial) else f"{trial.ratio:.2f}"
