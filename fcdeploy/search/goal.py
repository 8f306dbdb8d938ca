"""The accuracy goal (--max-drop), checked as far as possible without reading samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.loss import check_max_drop
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.kinds import Samples
from fcdeploy.tables.types import INT8, Types

MINUTES = 10.0


@dataclass(frozen=True)
class AccuracyGoal:
    """The largest drop in the metric's unit, the samples it is measured on, and how long to search.

    `same_data` allows samples that were calibrated on.
    """

    max_drop: float
    samples: Samples
    metric: str | None = None
    minutes: float = MINUTES
    same_data: bool = False


def make_goal(
    max_drop: float | None,
    data: str | Path | None,
    metric: str | None,
    minutes: float | None,
    *,
    same_data: bool,
    format: DataFormat,
    model: Path,
) -> AccuracyGoal | None:
    """The goal, None without a drop. Raises FcdeployError where there are no samples to measure it on."""
    if max_drop is None:
        return None
    if data is None:
        raise FcdeployError(
            f"--max-drop {max_drop:g} needs samples to measure the drop on: --eval was not given", "--eval EVALUATION"
        )
    samples = Samples(data, format=format, model=model)
    return AccuracyGoal(max_drop, samples, metric, MINUTES if minutes is None else minutes, same_data)


def check_goal(goal: AccuracyGoal, types: Types) -> None:
    """Raise FcdeployError where a goal cannot be met."""
    check_max_drop(goal.max_drop)
    if not 0 < goal.minutes < math.inf:
        raise FcdeployError(f"--minutes {goal.minutes} is not more than 0", f"--minutes {MINUTES:g}")
    if types != INT8:
        raise FcdeployError(
            f"--max-drop chooses between integer kernels and float, and --weights {types.weights} --activations "
            f"{types.activations} has no such kernels for all layers",
            "--int8 --max-drop 1, or leave --max-drop out",
        )
