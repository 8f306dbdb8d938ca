"""The default holds the outputs, or says no.

What a plan became is judged on samples that no tool has seen (int8/judging/), and so is what simpler settings make of the
same plan: each tool that can do harm is kept only where it helps.

1. The plan as effort asks for it, and without the corrections on samples, which costs one run more.
2. Unless the outputs are good, channels that share a scale are brought nearer to each other (refining/smooth.py).  Then
   other methods for the ranges on a few samples, without corrections; the two that do most better than the usual one on
   all samples, with and without corrections.  Below the floor also other methods for a few tensors alone (by_tensor.py).
3. With effort `best`, weights and biases learnt together, where judged samples say that it is better (refining/reconstruct.py).
4. Where they are below the floor and rounded weights have a part in that, all weights are rounded by what their layers
   read: no slower, and now and then enough.
5. Where that is not, nodes leave int8 by the price of the errors that they cause (by_price.py).  Of large networks, and
   where that saves little of the time in float, all nodes before a place, or all behind one (by_place.py).  The usual setting
   is repaired, too, where another is better in integers; the cheapest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.judge import FIRST, Judge
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.recalibrate import recalibrate
from fcdeploy.int8.refining.refine import add_refinements
from fcdeploy.int8.refining.smooth import compute_smoothing
from fcdeploy.int8.timing.costs import CostBasis, plan_by_costs
from fcdeploy.int8.timing.final_times import is_slower
from fcdeploy.prepare.channels import UnfitChannelsError
from fcdeploy.records.origin import JudgedBy
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.search import ladder
from fcdeploy.search.builder import Builder, begin_building
from fcdeploy.search.by_place import CHEAP, leave_all, leave_by_place
from fcdeploy.search.by_price import leave_by_price
from fcdeploy.search.by_tensor import choose_by_tensor
from fcdeploy.search.candidates import (
    RANKED,
    Candidate,
    build_both,
    choose,
    choose_steady,
    count_macs,
    is_of_weights,
    join_names,
    reconstruct,
    round_by_inputs,
    start_alike,
)
from fcdeploy.search.judged import describe_judging
from fcdeploy.search.ladder import Forms, PathStep, Score
from fcdeploy.wording import list_some, say_count, shorten_name

GOOD_DB = 50.0  # of the worst output: from there on other methods for the ranges are not tried
PERFECT_DB = 80.0  # from there on nothing is compared: what is left of the error is the judged samples' chance
OTHER_METHODS = ("minmax", "percentile", "percentile-99.9", "mse-unweighted", "mse")
TRIED = 16  # samples on which methods are compared
FOLLOWED = 2  # methods that are carried out in full
WORTH_DB = 1.0  # by which another method must be better, or the usual one stands: less is the samples' chance
SURE = 24  # judged samples by which that is enough
CLEAR_DB = 0.1  # by which a candidate that took longer must be better, or the one before it stands
EQUAL_DB = 0.0  # corrections on samples stay only where they are nearer to float than the plan without them
FEW = 1024  # samples of DATA at most for channels to be rescaled, which reads all of them again, above the floor
FLOATS = {"float", "weight_only"}  # kinds of nodes that compute in float
UNEQUAL = 2.0  # largest factor of a tensor's channels over the smallest: below it there is nothing to win
RESCALED = "channels rescaled by what they are on samples"
GOAL = "to hold the floor"
MOST_WORK = 3e11  # multiplications of a ranking: what takes more is repaired by place alone
NEARLY = 0.9  # of the time in float, by costs: where errors have no price that saves more, places are tried too
WORTH_MIXING = 0.05  # of the time in float, by costs: for less no accuracy is given up
NAMED_RANGES = 2  # tensors with a range of another method that are named
MOST_LOOKED = 2e10  # multiplications of a look at one of several methods: 16 samples of most networks


@dataclass(frozen=True)
class Remedies:
    """What may be tried: the plan without corrections, other methods for the ranges of all tensors or a few, rescaled channels,
    weights learnt together, float nodes."""

    compare: bool
    choose_ranges: bool
    fit_ranges: bool
    rescale: bool
    reconstruct: bool
    repair: bool


@dataclass(frozen=True)
class FloorResult:
    """The candidate that was taken, what else was tried, the nodes that left int8 for the floor, and what is still missed.

    The first of `tried` is what was asked for; `judged` says by what they were judged.
    """

    chosen: Candidate
    tried: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    misses: tuple[str, ...]
    floor: Floor
    judged: JudgedBy


def hold_floor(
    problem: Problem,
    plan: Plan,
    basis: CostBasis,
    judge: Judge,
    floor: Floor,
    allowed: Remedies,
    *,
    on_step: OnStep | None,
) -> FloorResult:
    """The plan carried out, with what helps and nothing that harms, and with as little float as the floor asks for.

    The same samples and costs give the same plan.
    """
    both = build_both(problem, plan, "", judge, on_step, floor if allowed.repair else None)
    tried = [next(both)]
    if allowed.compare and tried[0].judgement.decisive_db < PERFECT_DB:
        tried += both
    best = choose(tried, EQUAL_DB)

    def carry_out(starts: Iterable[tuple[str, Problem]]) -> None:
        nonlocal best
        for name, start in starts:
            made = add_refinements(start, _plan(start, basis))
            others = tuple(build_both(start, made, name, judge, on_step, floor))
            best = choose((best, choose(others, EQUAL_DB)), _find_worth(best, judge, floor))
            tried.extend(others)

    if allowed.rescale and best.judgement.decisive_db < GOOD_DB:
        carry_out(_rescale_channels(problem, tried[-1].int8, best.judgement.shortfall(floor) > 0, basis, judge))
    if allowed.choose_ranges and best.judgement.decisive_db < GOOD_DB:
        usual = [candidate for candidate in tried if start_alike(candidate.problem, best.problem)][-1]
        start = replace(best.problem, effort=problem.effort)
        carry_out(_find_better_ranges(start, usual, basis, judge))

    if allowed.fit_ranges and best.judgement.shortfall(floor) > 0:
        carry_out(_fit_ranges(replace(best.problem, effort=problem.effort), best.start, basis, judge, on_step))

    if allowed.reconstruct:
        learnt = reconstruct(replace(best.problem, effort=problem.effort), best, judge, on_step)
        tried += learnt
        best = learnt[0] if learnt else best

    left_out: tuple[str, ...] = ()
    if allowed.repair and best.judgement.shortfall(floor) > 0 and is_of_weights(best, judge):
        rounded = round_by_inputs(replace(best.problem, effort=problem.effort), best, judge, on_step)
        best = choose((best, *rounded), CLEAR_DB)
        tried += rounded
    if allowed.repair and best.judgement.shortfall(floor) > 0:
        # among the models to come, each of which they would walk through, corrections move the result up and down
        plain = [candidate for candidate in tried if candidate.problem.effort == "fast"]
        steady = choose_steady(best, plain)
        starts = [steady, *(each for each in plain[:1] if not start_alike(each.problem, steady.problem))]
        best, left_out = _leave_int8(starts, basis, judge, floor, on_step)
        if left_out and is_slower(best.problem, best.int8, basis):
            best, left_out = _compute_in_float(tried[0], basis, judge, floor) or (best, left_out)
    elif allowed.repair and best.judgement.shortfall_by_chance(floor) > 0 and set(best.plan.kinds.values()) <= FLOATS:
        best, _ = _compute_in_float(best, basis, judge, floor) or (best, ())  # whose weights may have more bits
    return _say_what_is_missed(best, tried, left_out, judge, floor)


def _say_what_is_missed(
    best: Candidate, tried: Sequence[Candidate], left_out: tuple[str, ...], judge: Judge, floor: Floor
) -> FloorResult:
    judged = describe_judging(judge, best.judgement.decisions)
    misses = tuple(miss.text for miss in best.judgement.misses(floor, searched=bool(left_out)))
    return FloorResult(best, tuple(tried), left_out, misses, floor, judged)


def _find_worth(best: Candidate, judge: Judge, floor: Floor) -> float:
    """By how much another method or other channels must be better: above the floor by more the fewer samples say so.

    What cuts tails looks better on every sample without one.
    """
    return WORTH_DB if best.judgement.shortfall(floor) > 0 else WORTH_DB * max(1.0, SURE / judge.samples)


def _rescale_channels(
    problem: Problem, usual: ir.Model, missed: bool, basis: CostBasis, judge: Judge
) -> list[tuple[str, Problem]]:
    """The network with channels brought nearer to each other, where that does clearly better on a few samples.

    It is calibrated again, which takes as long as it took: of many samples only where the floor is `missed`.  There the judged
    samples decide alone; above it nothing is worth a range that rare samples leave.
    """
    many = problem.source is not None and (problem.source.count is None or problem.source.count > FEW)
    if problem.large or not problem.samples or (many and not missed):
        return []
    factors = compute_smoothing(problem.model, problem.samples)
    if all(max(row) < UNEQUAL * min(row) for row in factors.values()):
        return []
    try:
        other = recalibrate(problem, factors, {}, tails=not missed)
    except UnfitChannelsError:  # float32 cannot hold such weights
        return []
    few = _count_looked(problem)
    least = judge.measure_errors(usual, few).decisive_db + WORTH_DB
    better = judge.measure_errors(other.build(_plan(other, basis)), few).decisive_db >= least
    return [(RESCALED, other)] if better else []


def _find_better_ranges(
    problem: Problem, usual: Candidate, basis: CostBasis, judge: Judge
) -> list[tuple[str, Problem]]:
    """Methods for the ranges that do clearly better than the usual one on a few samples, best first.

    All are compared as they come, without corrections on samples: what those add is found out for the best ones.
    """
    few = _count_looked(problem)
    least = judge.measure_errors(usual.int8, few).decisive_db + WORTH_DB
    found = []
    for method in OTHER_METHODS:
        other = replace(problem, ranges=method)
        if method != problem.ranges:
            db = judge.measure_errors(other.build(_plan(other, basis)), few).decisive_db
            found.append((db, method, other))
    better = sorted((row for row in found if row[0] >= least), key=lambda row: -row[0])
    return [(join_names(usual.start, f"{method} ranges"), other) for _, method, other in better[:FOLLOWED]]


def _fit_ranges(
    problem: Problem, start: str, basis: CostBasis, judge: Judge, on_step: OnStep | None
) -> list[tuple[str, Problem]]:
    """A problem with methods of their own for a few tensors, where that does clearly better on a few samples."""
    work = max(count_macs(problem), 1) * len(problem.calibration.tensors)  # of a sample
    if problem.large or work * RANKED > MOST_WORK:
        return []
    few = max(RANKED, int(MOST_LOOKED / work))  # of a small network all: what is rare shows on many alone

    def measure(other: Problem) -> float:
        model = other.build(_plan(other, basis))
        return judge.measure_errors(model, max(few, _count_looked(problem))).decisive_db

    chosen = choose_by_tensor(
        problem, basis, lambda model: judge.measure_errors(model, few).noise, measure, on_step or (lambda *_: None)
    )
    if chosen is None or chosen[0] < measure(problem) + WORTH_DB:
        return []
    own = chosen[1].own_ranges
    named = list_some([f"{method} for {shorten_name(name)!r}" for name, method in own.items()], NAMED_RANGES)
    return [(join_names(start, f"ranges of {say_count(len(own), 'tensor')} by other methods ({named})"), chosen[1])]


def _count_looked(problem: Problem) -> int:
    """Samples of one look at a method: fewer of large pictures, each of which tells more."""
    return min(TRIED, max(FIRST, int(MOST_LOOKED / max(count_macs(problem), 1))))


def _plan(problem: Problem, basis: CostBasis) -> Plan:
    """The fastest plan by costs that are known."""
    return plan_by_costs(problem, problem.plan(), basis.costs)


def _leave_int8(
    starts: Sequence[Candidate], basis: CostBasis, judge: Judge, floor: Floor, on_step: OnStep | None
) -> tuple[Candidate, tuple[str, ...]]:
    """One of the candidates with nodes in float until the floor is held, or nothing more helps; and those nodes.

    The best in integers need not be the one to repair: rescaled channels and cut ends spread over all tensors what would
    otherwise be the error of a few.  So the next is tried unless the one before holds the floor in little more time.
    """
    found = list[tuple[Candidate, Builder, PathStep]]()
    for start in starts:
        builder = begin_building(start.problem, basis.costs, GOAL)
        step = _find_cheapest(builder, judge, floor, on_step)
        found.append((start, builder, step))
        if ladder.meets_bound(step.score, 0.0) and step.score.cost <= CHEAP * builder.cost({}):
            break
    last = ladder.choose_best([step for _, _, step in found], (), 0.0)
    start, builder, step = next(each for each in found if each[2] is last)
    return _carry_out(start, builder, step, judge, floor)


def _find_cheapest(builder: Builder, judge: Judge, floor: Floor, on_step: OnStep | None) -> PathStep:
    """Of what was tried, the cheapest that holds the floor, else what comes nearest to it."""
    step: OnStep = on_step or (lambda *_: None)
    moves = list[tuple[float, float]]()

    known: dict[frozenset[tuple[str, str]], Judgement] = {}

    def measure(forms: Forms) -> Score:
        key = frozenset(forms.items())  # some are tried by price and by place
        if key not in known:
            step("models judged to hold the floor", len(known) + 1, None)
            known[key] = judge.measure(builder.model(forms), least=floor)
        judgement = known[key]
        score = _score(judgement, floor, builder.cost(forms))
        if (changed := judgement.changed_finds) is None:
            return score
        moves.append((judgement.noise, changed))
        return replace(
            score, drop=max(score.drop, 100 * (expect_changes(moves, judgement.noise) - (1 - floor.decisions)))
        )

    tensors = sum(group.kind == "tensor" for group in builder.groups)
    tried = list[PathStep]()
    if sum(builder.macs.values()) * tensors * RANKED <= MOST_WORK:
        tried = leave_by_price(builder, measure, lambda model: judge.measure_errors(model, RANKED).noise, step)
    integer = builder.list_integer()
    in_float = builder.cost(dict.fromkeys(integer, "float"))
    if not any(ladder.meets_bound(each.score, 0.0) and each.score.cost < NEARLY * in_float for each in tried):
        by_place = leave_by_place(builder, measure)
        tried += [PathStep((), {}, measure({})) if by_place is None else by_place]
    return choose_worthwhile(tried, integer)


def choose_worthwhile(tried: Sequence[PathStep], integer: Sequence[str]) -> PathStep:
    """The cheapest that holds the floor; where it saves little, the one with all `integer` nodes in float, if that does."""
    last = ladder.choose_best(tried, (), 0.0)
    for step in tried:
        whole = set(integer) <= set(step.forms) and ladder.meets_bound(step.score, 0.0)
        if whole and last.score.cost > (1 - WORTH_MIXING) * step.score.cost:
            return step
    return last


def _compute_in_float(
    usual: Candidate, basis: CostBasis, judge: Judge, floor: Floor
) -> tuple[Candidate, tuple[str, ...]] | None:
    """The usual candidate, whose channels were not rescaled for integers, all in float; None where that misses the floor."""
    builder = begin_building(usual.problem, basis.costs, GOAL)

    def measure(forms: Forms) -> Score:
        return _score(judge.measure(builder.model(forms), least=floor), floor, builder.cost(forms))

    step = leave_all(builder, measure)
    return None if step is None else _carry_out(usual, builder, step, judge, floor)


def _score(judgement: Judgement, floor: Floor, cost: float) -> Score:
    """How far a model is below the floor; `unsure` is how far one that holds it does so only for want of samples."""
    drop = judgement.shortfall(floor, searched=True)
    return Score(drop, judgement.noise, cost, 0.0 if drop else judgement.shortfall_by_chance(floor))


def expect_changes(moves: Sequence[tuple[float, float]], noise: float) -> float:
    """The share of changed decisions to expect at a noise, by the noise and the changed share of all models that were tried.

    Few decisions lie near a threshold, and how many of them cross it grows as errors do: in proportion to their size.  Of a
    few samples one model's own count is mostly chance; a cheap model of many that are tried would be taken for its luck.
    """
    sizes = sum(math.sqrt(each) for each, _ in moves)
    return math.sqrt(noise) * sum(changed for _, changed in moves) / sizes if sizes else 0.0


def _carry_out(
    best: Candidate, builder: Builder, step: PathStep, judge: Judge, floor: Floor
) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate after a step, and the nodes that left int8; others rounded as they were unless that misses the floor."""
    forms = step.forms
    again: Forms = {**dict.fromkeys(best.plan.gptq_nodes, "rounded"), **forms}
    whole = builder.model(again)
    told = judge.measure(whole)
    if again != forms and told.shortfall(floor, searched=True) > 0:  # models were tried without
        again, whole = forms, builder.model(forms)
        told = judge.measure(whole)
    forms = again
    plan = builder.plan(forms, [name for name, _ in step.moved])
    kinds = best.plan.kinds  # what was float before, a front end, does not leave int8 by getting other weights
    out = {node for node, rung in forms.items() if rung not in ("int8", "rounded")}
    out = {node for node in out if kinds.get(node) not in ("float", "weight_only")} or out
    left = tuple(name_of(node) for node in best.problem.model.graph if node.name in out)
    return replace(best, plan=plan, int8=whole, judgement=told), left
