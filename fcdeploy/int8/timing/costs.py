"""Time as an input of the plan: where the costs come from, the plan they lead to, and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import replacing
from fcdeploy.int8.problem import Given
from fcdeploy.int8.timing import cost_cache
from fcdeploy.int8.timing.choose_kernels import JUDGED, SLOWER, best_trial, chosen, measured, planned
from fcdeploy.int8.timing.rate_table import costs_from_table
from fcdeploy.records import costs as costing
from fcdeploy.records.costs import Costs, Trial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import cpu_name, detect
from fcdeploy.runtime.session import versions

CACHED, MEASURE, TABLE, NONE = "cached", "measure", "table", "none"


@dataclass(frozen=True)
class Spent:
    """The costs a plan rests on, if any, whether they were measured at another time, and warnings."""

    costs: Costs | None = None
    before: bool = False
    warnings: tuple[str, ...] = ()


def costs_asked(given: Given, costs: str | Path | None, target: str) -> str | Path:
    """Where costs come from: what was asked, else measured where the target, by that name, is this CPU, else the table."""
    types = given.types
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
    here = target in ("host", "portable") or given.row.name == detect().name
    return CACHED if given.effort != "fast" and here else TABLE


def fastest_plan(given: Given, asked: str | Path, on_step: OnStep | None) -> tuple[Plan, Spent]:
    """The plan that costs least time, and the costs it rests on. Raises FcdeployError."""
    everything = given.plan({})
    spent = _spent(given, everything, asked, on_step)
    if spent.costs is None:
        return everything, spent
    choice = chosen(given.graph, everything, given.recorded, spent.costs)
    return replace(planned(given, everything, spent.costs, choice), costs=spent.costs.hash), spent


def _spent(given: Given, everything: Plan, asked: str | Path, on_step: OnStep | None) -> Spent:
    """The costs asked for; a file that does not exist is measured and written."""
    model = given.recorded.model
    if asked == NONE or not any(decision.kind in ("int8", "dynamic") for decision in everything.nodes):
        return Spent()
    if asked == TABLE:
        return Spent(costs_from_table(given.graph, model, given.row.name))
    file = Path(asked)
    named = asked not in (CACHED, MEASURE)
    if named and file.exists():
        return Spent(_from_file(file, model))
    if not given.samples:
        why = f"times were not measured: {given.why_not_run}"
        return Spent(costs_from_table(given.graph, model, given.row.name), warnings=(why,))
    spent = _measured(given, everything, anew=asked == MEASURE, on_step=on_step)
    if named and spent.costs:
        with replacing(file) as aside:
            aside.write_text(costing.to_text(spent.costs))
    return spent


def _from_file(file: Path, model: str) -> Costs:
    found = costing.from_text(file.read_text(errors="replace"), f"costs {str(file)!r}")
    if found.model != model:
        raise FcdeployError(f"costs {str(file)!r} are those of another model", "give a new file name to measure")
    return found


def _measured(given: Given, everything: Plan, *, anew: bool, on_step: OnStep | None) -> Spent:
    """The costs on this CPU: as they were measured before, unless there are none, or `anew`."""
    model = given.recorded.model
    kept = cost_cache.file_of(model, everything, {name: array[:1] for name, array in given.samples.items()})
    found, warning = (None, "") if anew else cost_cache.read(kept, model)
    if found is not None:
        return Spent(found, before=True)
    source = f"{cpu_name()}, onnxruntime {versions()['onnxruntime']}"
    found = measured(given, everything, source=source, on_step=on_step)
    warnings = (warning, cost_cache.write(kept, found))
    return Spent(found, warnings=tuple(filter(None, warnings)))


def time_lines(spent: Spent) -> Iterator[str]:
    """What was found about time, and whether integers are worth having."""
    costs = spent.costs
    if costs is None:
        return
    if not costs.trials and not costs.confirmed:
        yield f"times are estimates from the {costs.source}: measure on the CPU itself to be sure"
        return
    tried = (*costs.trials, *costs.confirmed)
    everywhere = min(tried, key=lambda trial: (bool(trial.choice.one_scale), len(trial.choice.slow)))
    taken = costs.confirmed[-1] if costs.confirmed else best_trial(costs.trials)
    if taken.choice.slow and set(taken.choice.slow) >= set(costs.layers):
        yield from _float_is_best(costs, taken, everywhere)
    else:
        yield _integers_pay(taken, everywhere)
    if taken.choice.one_scale and taken.sqnr_db is not None:
        layers = len(taken.choice.one_scale)
        yield (
            f"{layers} dense layer{'s have' if layers > 1 else ' has'} one weight scale for all channels, which is faster: "
            f"{taken.sqnr_db:.1f} dB on {JUDGED} samples before bias correction, where integers everywhere with a scale "
            f"for each channel reach {costs.sqnr_db:.1f} dB"
        )
    if spent.before:
        yield "times are those measured before on this CPU; --costs measure takes them anew"


def _integers_pay(taken: Trial, everywhere: Trial) -> str:
    text = f"{_interval(taken)} of the float time"
    if not taken.choice.slow:
        return f"{text} with every integer kernel there is"
    count = len(taken.choice.slow)
    stay = "1 layer stays" if count == 1 else f"{count} layers stay"
    return f"{text}; integers everywhere would take {everywhere.ratio:.2f}, so {stay} float"


def _float_is_best(costs: Costs, taken: Trial, everywhere: Trial) -> Iterator[str]:
    lost = costs.confirmed[:-1]
    if lost:
        yield f"what looked fastest took {_interval(lost[-1])} of the float time when it was run again"
    yield f"float is fastest here: integers everywhere take {everywhere.ratio:.2f} of its time; only weights are bytes"
    if taken.low > SLOWER:
        yield f"even so the file takes {_interval(taken)} of the float model's time: keep the float model for speed"


def _interval(trial: Trial) -> str:
    return f"{trial.ratio:.2f} ({trial.low:.2f} to {trial.high:.2f})"
