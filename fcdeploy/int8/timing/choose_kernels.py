"""Choosing kernels by time: which nodes stay in float because integers would be slower, and which weights have one scale.

What nodes cost suggests choices, whole models of them are run, and the best is run once more, against float alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.judging.fidelity import EXACT_DB, measure_sqnr
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.planning.weights import find_int8_products
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.measure import choose_reference, confirm, measure_costs, try_choices
from fcdeploy.int8.timing.partition import cost_of, find_slow_nodes, sum_layer_costs
from fcdeploy.int8.timing.per_tensor_weights import find_one_scale_layers
from fcdeploy.int8.timing.rate_table import estimate_costs
from fcdeploy.int8.writing.blocked_arithmetic import keep_layout
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.costs import Choice, Costs, TimeTrial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept_samples import take_run

CONVERSIONS = (1.0, 2.0, 0.5)  # of the estimate of converting: it is the coarsest, so choices for these are run
CLEAR = 0.03  # integers everywhere stay unless a choice saves this of their time: less is noise or whim
CLEAR_OF_FAST = 0.15  # the same where these are faster than float beyond doubt: one kind of arithmetic travels
ESTIMATED = 0.06  # what it must save where nothing was run
WORTH_ONE = 0.05  # of the time of all integer layers, by the table: less is not worth the accuracy that one scale costs
ALIKE = 0.03  # of choices this close, the one with most integer nodes is taken
LONG_US = 10_000.0  # a network of that many microseconds takes long to build and run in several forms
SURE = 0.7  # of the float time, by what nodes cost: below it integers are faster beyond doubt
SLOWER = 1.02  # of the float time: beyond it integers are not worth having for speed
MOST_LOSS_DB = 1.0  # of signal over error of the network, that one scale for all channels may cost it
JUDGED = 16  # samples on which two forms of a network are compared


def measure_choices(problem: Problem, everything: Plan, *, source: str, on_step: OnStep | None = None) -> Costs:
    """Time every node both ways, run the choices that suggests, and confirm the best; `everything` is all integer."""
    feeds = take_run(problem.model, problem.samples)
    step: OnStep = on_step or (lambda *_: None)
    step("timing nodes", 0, None)
    integers = problem.build(everything)
    apart, model = problem.scratch is not None, problem.calibration.model
    in_float = problem.model
    if not problem.target.one_answer:  # as float layers are written
        in_float = problem.model.clone()
        keep_layout(in_float.graph)
    costs = measure_costs(problem.model, in_float, integers, feeds, model_hash=model, source=source, apart=apart)
    dynamic = [decision.node for decision in everything.nodes if decision.kind == "dynamic"]
    products = map(name_of, find_int8_products(problem.model.graph, everything))
    layers = tuple(sorted([*dynamic, *products]))
    costs = replace(costs, layers=layers)

    def build(choice: Choice) -> ir.Model:
        return integers if choice == Choice() else problem.build(plan_choice(problem, everything, choice))

    ones, one_db, every_db = _choose_one_scale(problem, everything, build)
    by_table = _choose_by_table(problem, everything, ones)
    choices = _list_choices(problem.model, everything, problem.calibration, costs, ones, by_table)
    choices = vary_dynamic(choices, dynamic)
    reference = choose_reference(problem.load_original(), problem.model, feeds)
    if len(choices) > 1:
        trials = try_choices(reference, choices, build, feeds, apart=apart, on_step=step)
        trials = tuple(replace(trial, sqnr_db=one_db if trial.choice.one_scale else None) for trial in trials)
        costs = replace(costs, trials=trials, sqnr_db=every_db)
    plain = _find_plain(costs, Choice((), tuple(sorted(ones))))
    best = plain
    if others := list_contenders(costs.trials, plain, by_table):

        def time(one: Choice, other: Choice) -> TimeTrial:
            return confirm(build(one), build(other), other, feeds, on_step=step)

        best = _take_surely_faster(plain, others, time)
    for choice in dict.fromkeys((best, Choice(layers))):
        confirmed = confirm(reference, build(choice), choice, feeds, on_step=step)
        confirmed = replace(confirmed, sqnr_db=one_db if choice.one_scale else None)
        costs = replace(costs, confirmed=(*costs.confirmed, confirmed))
        if confirmed.ratio <= SLOWER:
            break
    return costs


def confirm_again(problem: Problem, everything: Plan, costs: Costs, on_step: OnStep | None) -> Costs | None:
    """The costs with the choice that was taken timed once more: it stands, the figure may have been of a busy moment.

    None where the choice turns out slower than float beyond doubt: then it was wrong.
    """
    feeds, before = take_run(problem.model, problem.samples), costs.confirmed[-1]
    int8 = problem.build(plan_choice(problem, everything, before.choice))
    reference = choose_reference(problem.load_original(), problem.model, feeds)
    again = confirm(reference, int8, before.choice, feeds, on_step=on_step)
    if again.low > SLOWER and not set(before.choice.slow) >= set(costs.layers):
        return None
    if again.high - again.low >= before.high - before.low:
        return costs
    return replace(costs, confirmed=(*costs.confirmed[:-1], replace(again, sqnr_db=before.sqnr_db)))


def _find_plain(costs: Costs, integers: Choice) -> Choice:
    """What is taken unless another choice is faster beyond doubt: `integers` everywhere, or float where these are slower."""
    everywhere = next((trial for trial in costs.trials if trial.choice == integers), None)
    return integers if everywhere is None or everywhere.ratio <= SLOWER else Choice(costs.layers)


def _choose_by_table(problem: Problem, everything: Plan, ones: Mapping[str, float]) -> Choice:
    """The split that the table of rates suggests: the same in every run."""
    table = estimate_costs(problem.model, problem.calibration.model, problem.target.name)
    slow = find_slow_nodes(problem.model.graph, everything, problem.calibration, table)
    return Choice(tuple(sorted(slow)), tuple(sorted(set(ones).difference(slow))))


def list_contenders(trials: tuple[TimeTrial, ...], plain: Choice, by_table: Choice) -> list[Choice]:
    """What may be faster than `plain`, to be timed against it alone: the table's choice first, then the trials' best.

    On a busy machine the intervals of trials are too wide to tell choices apart.  What looks faster by what it must save is
    looked at once more, or integers everywhere would stand for want of a measurement, and be told of as nowhere slower.
    """
    if not trials:
        return []
    best, everywhere = best_trial(trials).choice, next((trial for trial in trials if trial.choice == plain), None)
    if best != plain:
        return [by_table, best]
    if everywhere is None:
        return []
    least = (1 - _find_saving(everywhere.ratio)) * everywhere.ratio
    looking = [trial.choice for trial in trials if trial.ratio < least]  # fastest first
    return [choice for choice in dict.fromkeys((by_table, *looking[:1])) if choice in looking]


def _take_surely_faster(plain: Choice, others: Iterable[Choice], time: Callable[[Choice, Choice], TimeTrial]) -> Choice:
    """The last of the choices, in their order, that is faster beyond doubt than the one taken before.

    What the table suggests comes before what measured times do: these suggest another split in every run, and of splits that
    take as long as each other the file should hold the same one.
    """
    taken = plain
    for other in dict.fromkeys(others):
        if other != taken and _is_surely_faster(time(taken, other)):
            taken = other
    return taken


def _is_surely_faster(against_plain: TimeTrial) -> bool:
    """Whether a choice saves what is worth having, and the whole interval of its time says so.

    Of choices that were timed together the fastest owes part of that to its run, and small networks are faster or slower for as
    long as they are loaded: without a second look, one in three runs of quantize took another choice for a gain of 4 %.
    """
    return against_plain.high < 1 - CLEAR


def plan_choice(problem: Problem, everything: Plan, choice: Choice) -> Plan:
    """The plan of a choice, each node it leaves in float with the reason."""
    if choice == Choice():
        return everything
    return problem.plan(Overrides(one_scale=choice.one_scale, slow=choice.slow))


def choose(model: ir.Model, plan: Plan, calibration: Calibration, costs: Costs) -> Choice:
    """What to take: what was confirmed last, else the best trial, else by estimate.

    Estimates are rough: only a split that saves ESTIMATED of the time is taken, be it against integers or float everywhere.
    """
    if costs.confirmed:
        return costs.confirmed[-1].choice
    if costs.trials:
        return best_trial(costs.trials).choice
    layers = tuple(sorted(name_of(node) for node in find_int8_products(model.graph, plan)))
    splits = ((), tuple(find_slow_nodes(model.graph, plan, calibration, costs)), layers)
    whole, split, in_float = (cost_of(model.graph, plan, calibration, costs, slow) for slow in splits)
    if split < (1 - ESTIMATED) * whole or whole > in_float:
        return Choice(splits[1] if split < (1 - ESTIMATED) * in_float else layers)
    return Choice()


def best_trial(trials: tuple[TimeTrial, ...]) -> TimeTrial:
    """Integers everywhere unless another is clearly faster, float where integers are slower."""
    everywhere = min(trials, key=lambda trial: len(trial.choice.slow))
    fastest = min(trials, key=lambda trial: trial.ratio)
    if everywhere.ratio <= SLOWER and not _is_clearly_faster(fastest, everywhere, _find_saving(everywhere.ratio)):
        return everywhere
    if fastest.ratio > SLOWER:
        return max(trials, key=lambda trial: len(trial.choice.slow))
    close = [trial for trial in trials if trial.ratio <= fastest.ratio * (1 + ALIKE)]
    return min(close, key=lambda trial: len(trial.choice.slow))


def _find_saving(ratio: float) -> float:
    """What a choice must save of the time of integers everywhere, the more, the faster these are.

    It has no step: a network at a step took another choice as often as noise moved it across.
    """
    return CLEAR + (CLEAR_OF_FAST - CLEAR) * min(max((1 - ratio) / (1 - SURE), 0.0), 1.0)


def _is_clearly_faster(faster: TimeTrial, than: TimeTrial, saving: float) -> bool:
    """Faster by `saving`, and outside the other's interval.

    Of an interval the lower end counts: what disturbs a run makes it longer, so upper ends are loose.
    """
    return faster.ratio < (1 - saving) * than.ratio and faster.ratio < than.low


def _list_choices(
    model: ir.Model, plan: Plan, calibration: Calibration, costs: Costs, ones: Mapping[str, float], by_table: Choice
) -> list[Choice]:
    """Integers everywhere, float everywhere, the cheapest splits, and that of the table.

    `ones` are layers that have one scale where they are integers, and the microseconds that it saves.
    Of a large network in which integers everywhere are faster beyond doubt, only what may be faster still is tried.
    """
    cheaper = {name: (f, max(i - ones.get(name, 0.0), 0.0)) for name, (f, i) in costs.nodes.items()}
    costs = replace(costs, nodes=cheaper)
    splits = [find_slow_nodes(model.graph, plan, calibration, costs, conversions=factor) for factor in CONVERSIONS]
    slow = [set[str](), set(costs.layers), *map(set, splits)]
    choices = [*(Choice(tuple(sorted(each)), tuple(sorted(set(ones) - each))) for each in slow), by_table]
    whole, in_float = (cost_of(model.graph, plan, calibration, costs, slow) for slow in ((), costs.layers))
    if in_float > LONG_US and whole < SURE * in_float:
        least = (1 - ESTIMATED) * whole
        choices = [c for c in choices if not c.slow or cost_of(model.graph, plan, calibration, costs, c.slow) < least]
    return list(dict.fromkeys(choices))


def vary_dynamic(choices: list[Choice], dynamic: Collection[str]) -> list[Choice]:
    """Every choice with the layers of dynamic activations (LSTM) as such, and with them in float."""
    varied = []
    for choice in choices:
        rest = set(choice.slow) - set(dynamic)
        varied += [replace(choice, slow=tuple(sorted(slow))) for slow in (rest, {*rest, *dynamic})]
    return list(dict.fromkeys(varied))


def _choose_one_scale(
    problem: Problem, everything: Plan, build: Callable[[Choice], ir.Model]
) -> tuple[dict[str, float], float | None, float | None]:
    """Layers that have one scale for all channels, with the microseconds it saves; the network's SQNR with and without that.

    All that may, or, where that costs too much accuracy, those that gain most; none where little of the whole is saved.  The
    table of rates decides what is little: one scale is never slower, and by measured times a small network had it in one run
    and not in the next.
    """
    saved = find_one_scale_layers(problem.model.graph, everything, problem.calibration, problem.target.pair_limit)
    table = estimate_costs(problem.model, problem.calibration.model, problem.target.name)
    if not saved or sum(saved.values()) < WORTH_ONE * sum_layer_costs(table, everything, {}):
        return {}, None, None
    few = {name: array[:JUDGED] for name, array in problem.samples.items()}

    def judge(ones: Collection[str]) -> float:
        return round(min(measure_sqnr(problem.model, build(Choice((), tuple(sorted(ones)))), few), default=EXACT_DB), 2)

    least = judge(())
    most = {name: us for name, us in saved.items() if us >= max(saved.values()) / 2}
    for ones in (saved, most):
        if (db := judge(ones)) >= least - MOST_LOSS_DB:
            return ones, db, least
    return {}, None, least
