"""How long what came out takes beside float: again where it is not the plan that was timed, and at the largest samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.costs import CostBasis
from fcdeploy.int8.timing.measure import choose_reference, confirm
from fcdeploy.records.costs import Choice, TimeTrial
from fcdeploy.samples.kept_samples import take_run


@dataclass(frozen=True)
class FinalTimes:
    """The time of a result: at the commonest shapes where it is another than the plan that was timed, and at the largest.

    `shapes` are those of a run of the largest samples.
    """

    usual: TimeTrial | None = None
    largest: TimeTrial | None = None
    shapes: str = ""


def time_result(problem: Problem, int8: ir.Model, basis: CostBasis, *, changed: bool) -> FinalTimes:
    """Time a result whose plan rests on measured times; nothing where it does not, or where all is known already.

    `changed` says that it is another model than the one that was timed.
    """
    if not _can_time(problem, basis):
        return FinalTimes()
    usual = take_run(problem.model, problem.samples)
    largest = max((usual, *(take_run(problem.model, group) for group in problem.judged)), key=_count_elements)
    larger = _count_elements(largest) > _count_elements(usual)

    def run(feeds: Arrays) -> TimeTrial:
        return _time(problem, int8, feeds)

    shapes = ", ".join(f"{name} {','.join(map(str, array.shape))}" for name, array in largest.items())
    return FinalTimes(run(usual) if changed else None, run(largest) if larger else None, shapes if larger else "")


def is_slower(problem: Problem, int8: ir.Model, basis: CostBasis) -> bool:
    """Whether a model whose plan rests on measured times takes longer than float beyond doubt."""
    return _can_time(problem, basis) and _time(problem, int8, take_run(problem.model, problem.samples)).low > 1


def _can_time(problem: Problem, basis: CostBasis) -> bool:
    costs = basis.costs
    measured = costs is not None and costs.engine == "onnxruntime" and bool(costs.trials or costs.confirmed)
    return measured and bool(problem.samples) and not problem.large and not problem.calibration.states


def _time(problem: Problem, int8: ir.Model, feeds: Arrays) -> TimeTrial:
    return confirm(choose_reference(problem.load_original(), problem.model, feeds), int8, Choice(), feeds)


def _count_elements(feeds: Arrays) -> int:
    return sum(math.prod(array.shape) for array in feeds.values())
