"""Of a few ways to quantize a model, the one that is nearest to float on samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from fcdeploy.arrays import Arrays
from fcdeploy.int8.judging.fidelity import EXACT_DB, measure_sqnr
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.absorb import find_shifts
from fcdeploy.int8.refining.correct_layers import correct_layers
from fcdeploy.int8.refining.recalibrate import recalibrate
from fcdeploy.int8.refining.refine import add_refinements
from fcdeploy.int8.refining.smooth import compute_smoothing
from fcdeploy.prepare.channels import UnfitChannelsError
from fcdeploy.records.progress import OnStep
from fcdeploy.wording import say_count

METHODS = ("mse", "minmax")
WORTH_DB = 1.0  # by which a network with rescaled channels must be better, or the one as trained stands


class _Tried(NamedTuple):
    """A start and the SQNR of the int8 model that comes of it."""

    db: float
    name: str
    start: Problem


def choose_best(problem: Problem, *, choose_ranges: bool, on_step: OnStep | None = None) -> tuple[Problem, str]:
    """The start, among those tried, whose int8 model has the largest SQNR on the samples, and a sentence on them.

    Tried are the model as it is and smoothed, each with the ranges that were asked for, or, with `choose_ranges`, with
    every method of METHODS; then the best of these with what its biases can absorb.  A model that was changed is
    calibrated again, on DATA if there is any, else on the samples.  Weights are rounded again and biases corrected in
    each; of several outputs the worst counts.  Of few samples, where ranges and factors fit those that they were found on and
    no others, the ones kept apart decide.  Without samples, and for types of other kernels, nothing is tried.
    """
    if not problem.samples or problem.types.other != "int8":
        return problem, ""
    step: OnStep = on_step or (lambda *_: None)
    candidates = list(_list_candidates(problem, choose_ranges))
    tried = list[_Tried]()
    for name, start in candidates:
        tried.append(_Tried(_measure_candidate(problem, start), name, start))
        step("trying scales and ranges", len(tried), len(candidates) + 1)
    # factors and shifts fit the samples that they were found on, and a little better there may be worse on others
    unchanged = max((one for one in tried if one.start.rescaled == problem.rescaled), key=lambda one: one.db)
    changed = [one for one in tried if one.db >= unchanged.db + WORTH_DB]
    best = max(changed, key=lambda one: one.db, default=unchanged)
    absorbed = _absorb_into_biases(problem, best.start)
    if absorbed is not None:
        tried.append(_Tried(_measure_candidate(problem, absorbed), f"{best.name}, biases absorbed", absorbed))
        best = tried[-1] if tried[-1].db > best.db else best
    step("trying scales and ranges", len(candidates) + 1, len(candidates) + 1)
    tried.sort(key=lambda one: -one.db)
    count = say_count(len(next(iter(_choose_samples(problem).values()))), "sample")
    return best.start, f"tried on {count}, SQNR in dB: {'; '.join(f'{one.name} {one.db:.1f}' for one in tried)}"


def _choose_samples(problem: Problem) -> Arrays:
    """Those on which starts are compared."""
    return problem.unseen_samples if problem.ranges_apart else problem.samples


def _measure_candidate(problem: Problem, start: Problem) -> float:
    """SQNR on the samples of the int8 model that comes of a start."""
    plan = add_refinements(start, start.plan())
    int8 = start.build(plan, correctable=True)
    correct_layers(start.model, int8, plan, start.samples, target=start.target)
    return min(measure_sqnr(problem.model, int8, _choose_samples(problem)), default=EXACT_DB)


def _list_candidates(problem: Problem, choose_ranges: bool) -> Iterator[tuple[str, Problem]]:
    starts = [("as trained", problem)]
    if factors := compute_smoothing(problem.model, problem.samples):
        with suppress(UnfitChannelsError):  # float32 cannot hold such weights
            starts.append(("smoothed", recalibrate(problem, factors, {})))
    if problem.ranges_apart:  # weights rounded by what few samples make layers read may be worse on others
        starts.append(("rounded to nearest", replace(problem, effort="balanced")))
    for name, start in starts:
        for method in METHODS if choose_ranges else (problem.ranges,):
            yield f"{name}, {method}", replace(start, ranges=method)


def _absorb_into_biases(problem: Problem, start: Problem) -> Problem | None:
    """A start with what its biases can absorb, if that is anything."""
    shifts = find_shifts(start.model, start.samples)
    if not shifts:
        return None
    try:
        return recalibrate(replace(problem, ranges=start.ranges), start.rescaled, shifts)
    except UnfitChannelsError:  # float32 cannot hold such biases
        return None
