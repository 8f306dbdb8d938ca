"""Time as an input of the plan: where the costs come from, the plan they lead to, and what to say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import replacing
from fcdeploy.int8.fastest import best_trial, measured, slow_by
from fcdeploy.int8.given import Given
from fcdeploy.int8.planning.table import costs_from_table
from fcdeploy.records import costs as costing
from fcdeploy.records.costs import Costs
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import cpu_name, detect, target_named
from fcdeploy.runtime.session import versions
from fcdeploy.tables.targets import Target

MEASURE = "measure"


def costs_asked(costs: str | Path | None, effort: str, target: str, row: Target) -> str | Path:
    """Where costs come from: what was asked, else measured where the target is this CPU, else the table."""
    if costs is not None:
        return costs
    here = target in ("host", "portable") or row.name in (detect().name, target_named("host").name)
    return MEASURE if effort != "fast" and here else "table"


def fastest_plan(given: Given, asked: str | Path, on_step: OnStep | None) -> tuple[Plan, Costs | None]:
    """The plan that costs least time, and the costs it rests on. Raises FcdeployError."""
    everything = given.plan({})
    spent = _costs(given, everything, asked, on_step)
    if spent is None:
        return everything, None
    slow = slow_by(given.graph, everything, given.recorded, spent)
    return replace(given.plan(slow) if slow else everything, costs=spent.hash), spent


def _costs(given: Given, plan: Plan, asked: str | Path, on_step: OnStep | None) -> Costs | None:
    """The costs asked for; a file that does not exist is measured and written."""
    model = given.recorded.model
    if asked == "none":
        return None
    if asked == "table":
        return costs_from_table(given.graph, model)
    file = Path(asked)
    if asked != MEASURE and file.exists():
        found = costing.from_text(file.read_text(errors="replace"), f"costs {str(file)!r}")
        if found.model != model:
            raise FcdeployError(f"costs {str(file)!r} are those of another model", "give a new file name to measure")
        return found
    if not given.samples:
        return costs_from_table(given.graph, model)
    feeds = {name: array[:1] for name, array in given.samples.items()}
    source = f"{cpu_name()}, onnxruntime {versions()['onnxruntime']}"
    found = measured(
        given.graph,
        plan,
        given.recorded,
        lambda slow: given.build(given.plan(slow)),
        feeds,
        source=source,
        on_step=on_step,
    )
    if asked != MEASURE:
        with replacing(file) as aside:
            aside.write_text(costing.to_text(found))
    return found


def time_lines(spent: Costs | None) -> tuple[str, ...]:
    """What was found about time, and whether integers are worth having."""
    if spent is None or not spent.trials:
        return () if spent is None else ("times are estimates from a table: measure on the CPU itself to be sure",)
    everywhere = min(spent.trials, key=lambda trial: len(trial.slow))
    nowhere = max(spent.trials, key=lambda trial: len(trial.slow))
    chosen = best_trial(spent.trials)
    text = f"{chosen.ratio:.2f} of the float time ({chosen.low:.2f} to {chosen.high:.2f})"
    if chosen is nowhere and chosen is not everywhere:
        return (
            f"float is fastest here: integers everywhere take {everywhere.ratio:.2f} of its time; only weights are bytes",
        )
    if chosen is everywhere:
        return (f"{text} with every integer kernel there is",)
    return (f"{text}; integers everywhere would take {everywhere.ratio:.2f}, so {len(chosen.slow)} layers stay float",)
