"""Choosing which nodes stay in float because integers would be slower: from costs, and from splits that were run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.int8.planning.split import reason, slow_nodes, total
from fcdeploy.int8.planning.weigh import int8_layers
from fcdeploy.int8.trial import CONVERSIONS, measure_costs, try_splits
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.costs import Costs, Trial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep

Arrays = dict[str, NDArray[Any]]
CLEAR = (
    0.1  # integers everywhere stay unless a split saves a tenth of their time, intervals apart: less is noise or whim
)
ALIKE = 0.03  # of splits this close, the one with most integer nodes is taken
SLOWER = 1.02  # of the float time: beyond it integers are not worth having for speed


def measured(
    model: ir.Model,
    plan: Plan,
    recorded: Calibration,
    build: Callable[[Mapping[str, str]], ir.Model],
    feeds: Arrays,
    *,
    source: str,
    on_step: OnStep | None = None,
) -> Costs:
    """Time every node both ways, split the graph by that, and run the splits, all-integer and all-float among them.

    `plan` has every integer kernel there is; `build` makes the int8 model that leaves the given nodes in float.
    """
    costs = measure_costs(model, build({}), feeds, model_hash=recorded.model, source=source)
    everything = {node.name or "": "" for node, _ in int8_layers(model.graph, plan)}
    splits = [slow_nodes(model.graph, plan, recorded, costs, conversions=factor) for factor in CONVERSIONS]
    return try_splits(model, costs, [{}, everything, *splits], build, feeds, on_step=on_step)


def slow_by(model: ir.Model, plan: Plan, recorded: Calibration, costs: Costs) -> dict[str, str]:
    """The nodes to leave in float, with reasons: the best trial where splits were run, else the cheapest split."""
    if costs.trials:
        chosen = best_trial(costs.trials)
        return {name: reason(costs, name) for name in chosen.slow}
    split = slow_nodes(model.graph, plan, recorded, costs)
    whole, saved = total(costs, plan, {}), total(costs, plan, split)
    return split if saved < (1 - CLEAR) * whole else {}


def best_trial(trials: tuple[Trial, ...]) -> Trial:
    """The trial to take: integers everywhere unless another is clearly faster, float where integers are slower."""
    everywhere = min(trials, key=lambda trial: len(trial.slow))
    nowhere = max(trials, key=lambda trial: len(trial.slow))
    fastest = min(trials, key=lambda trial: trial.ratio)
    clearly = fastest.ratio < (1 - CLEAR) * everywhere.ratio and fastest.high < everywhere.low
    if everywhere.ratio <= SLOWER and not clearly:
        return everywhere
    if fastest.ratio > SLOWER:
        return nowhere
    close = [trial for trial in trials if trial.ratio <= fastest.ratio * (1 + ALIKE)]
    return min(close, key=lambda trial: len(trial.slow))
