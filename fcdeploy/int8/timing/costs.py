"""Time as an input of the plan: where the costs come from, the plan they lead to, and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_small_file
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing import cost_cache
from fcdeploy.int8.timing.choose_kernels import (
    JUDGED,
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
from fcdeploy.wording import say_count

WIDEST = 0.2  # of a ratio: an interval that is wider is no result
CACHED, MEASURE, TABLE, NONE = "cached", "measure", "table", "none"


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
                "leave out --costs",
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
    if named and file.exists():
        return CostBasis(_read_costs(file, model))
    if not problem.samples:
        why = f"times were not measured: {problem.why_not_run}"
        return CostBasis(estimate_costs(problem.model, model, problem.target.name), warnings=(why,))
    basis = _measure_or_reuse(problem, everything, asked, on_step)
    if named and basis.costs:
        with replace_file(file) as aside:
            aside.write_text(costing.to_text(basis.costs))
    return basis


def _read_costs(file: Path, model: str) -> Costs:
    costs = costing.from_text(
        read_small_file(file, "costs", "give a new file name to measure").decode(errors="replace"),
        f"costs {str(file)!r}",
    )
    if costs.model != model:
        raise FcdeployError(f"costs {str(file)!r} are those of another model", "give a new file name to measure")
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


def describe_times(basis: CostBasis) -> Iterator[str]:
    """What was found about time, and whether integers are worth having."""
    costs = basis.costs
    if costs is None:
        return
    if costs.estimated:
        yield f"times are estimates from the {costs.source}: measure on the CPU itself to be sure"
        return
    tried = (*costs.trials, *costs.confirmed)
    everywhere = min(tried, key=lambda trial: len(trial.choice.slow))
    taken = find_taken(costs)
    if taken.choice.slow and set(taken.choice.slow) >= set(costs.layers):
        yield from _describe_float(costs, taken, everywhere)
    else:
        yield _describe_integers(taken, everywhere)
    if taken.choice.one_scale and taken.sqnr_db is not None:
        layers = len(taken.choice.one_scale)
        yield (
            f"{say_count(layers, 'dense layer')} {'has' if layers == 1 else 'have'} one weight scale for all channels, "
            "which is faster: "
            f"{taken.sqnr_db:.1f} dB on {JUDGED} samples before bias correction, where integers everywhere with a scale "
            f"for each channel reach {costs.sqnr_db:.1f} dB"
        )
    if is_uneven(taken):
        yield (
            f"this machine was too noisy to time it well: {format_interval(taken)}; layers stay integers where float did not "
            "clearly save time; fcdeploy bench measures longer, and --costs measure decides again"
        )
    if basis.before:
        yield "times are those measured before on this CPU; --costs measure takes them anew"


def list_ratios(trial: TimeTrial | None) -> dict[str, float | None]:
    """A time relative to that of float and its interval, as reports name them."""
    ends = (None, None, None) if trial is None else (trial.ratio, trial.low, trial.high)
    return dict(zip(("ratio", "ratio_low", "ratio_high"), ends, strict=True))


def _describe_integers(taken: TimeTrial, everywhere: TimeTrial) -> str:
    text = f"{format_interval(taken)} of the float time"
    if not taken.choice.slow:
        return f"{text}: no layer is faster in float"
    count = len(taken.choice.slow)
    stay = f"{say_count(count, 'layer')} {'stays' if count == 1 else 'stay'}"
    return f"{text}; integers everywhere would take {_format_ratio(everywhere)}, so {stay} float"


def _describe_float(costs: Costs, taken: TimeTrial, everywhere: TimeTrial) -> Iterator[str]:
    lost = costs.confirmed[:-1]
    if lost:
        yield f"what looked fastest took {format_interval(lost[-1])} of the float time when it was run again"
    yield f"float is fastest here: integers everywhere take {_format_ratio(everywhere)} of its time; only weights are bytes"
    if taken.low > SLOWER:
        yield f"even so the file takes {format_interval(taken)} of the float model's time: keep the float model for speed"


def format_interval(trial: TimeTrial) -> str:
    """A ratio with its interval, or the ends of that where it is too wide for a result."""
    text = _format_ratio(trial)
    return text if text.startswith("between") else f"{text} ({trial.low:.2f} to {trial.high:.2f})"


def _format_ratio(trial: TimeTrial) -> str:
    """The ratio, or the ends of its interval where that is too wide for a result."""
    return f"between {trial.low:.2f} and {trial.high:.2f}" if is_uneven(trial) else f"{trial.ratio:.2f}"
