"""Ways to quantize one network, the models they became, and how these did: what holding a floor chooses from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import add_constant, set_constant
from fcdeploy.graph.nodes import bias_of, constant_array, name_of, operator_of, output_axis
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.judge import Judge
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.int8.planning.weights import bias_name, find_int8_layers, round_layers
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.reconstruct import find_schedule
from fcdeploy.int8.refining.refine import is_refined, refine_built, take_learnable
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep

STEADY_DB = 3.0  # by which corrections must be better for models to be repaired with them
PLAIN = "no corrections on samples"
ROUNDED = "weights rounded by what their layers read"
RECONSTRUCTED = "weights and biases of all layers learnt together"
WORTH_LEARNING = 0.5  # dB on the judged samples: for less nobody needs weights that another CPU would learn otherwise
OF_WEIGHTS = 0.2  # of the error, that comes of weights alone: of less, better rounding cannot take off 1 dB
MOST_CORRECTED = 2e10  # of the samples that corrections run on: more take as long as ten trials
RANKED = 8  # samples on which roundings are compared


@dataclass(frozen=True)
class Candidate:
    """One way to quantize, the model it became, and how that did.

    `start` says what is special about what the plan starts from, `on_samples` about what was done on samples.
    """

    start: str
    problem: Problem
    plan: Plan
    int8: ir.Model
    judgement: Judgement
    on_samples: str = ""

    @property
    def name(self) -> str:
        """What is special about it; empty where nothing is."""
        return join_names(self.start, self.on_samples)


def build_both(
    problem: Problem, plan: Plan, start: str, judge: Judge, on_step: OnStep | None, floor: Floor | None = None
) -> Iterator[Candidate]:
    """A plan as it is, and without corrections on samples if it has any.

    Of a network that takes long to correct, without them alone where that is far below the `floor`.
    """
    if not is_refined(problem, plan):
        int8 = problem.build(plan)
        yield Candidate(start, problem, plan, int8, judge.measure(int8))
        return
    if floor is not None and _takes_long_to_correct(problem):
        plain = _build_plain(problem, plan, start, judge)
        if plain.judgement.is_far_below(floor):
            yield plain
            return
    int8 = problem.build(plan, correctable=True)
    refine_built(problem, plan, int8, on_step)
    yield Candidate(start, problem, plan, int8, judge.measure(int8))
    if "blockwise" in plan.kinds.values():
        return  # rounded one by one they are worse by 10 dB and more: nothing to find out
    yield _build_plain(problem, plan, start, judge)


def _build_plain(problem: Problem, plan: Plan, start: str, judge: Judge) -> Candidate:
    nearest = [replace(d, rounding="nearest") if d.rounding == "gptq" else d for d in plan.nodes]
    simpler = replace(plan, effort="fast", nodes=tuple(nearest))
    int8 = problem.build(simpler)
    return Candidate(start, replace(problem, effort="fast"), simpler, int8, judge.measure(int8), PLAIN)


def is_of_weights(best: Candidate, judge: Judge) -> bool:
    """Whether rounded weights make a notable part of a candidate's error: what they do alone, in the float model."""
    problem, plan = best.problem, best.plan
    model = problem.model.clone()
    rounded = round_layers(model, plan, problem.calibration, problem.target.pair_limit)
    for node, weight in find_int8_layers(model.graph, plan):
        if plan.tensors[name_of(node.inputs[0])].pixels:  # its integers are of other weights
            continue
        layer, shape = rounded[name_of(node)], constant_array(weight).shape
        integers = layer.weight.numpy()[tuple(map(slice, shape))]  # without channels of zeros
        along = [-1 if axis == output_axis(node) else 1 for axis in range(len(shape))]
        scale = np.asarray(plan.tensors[name_of(weight)].scale).reshape(along)
        bias, index = bias_of(node), operator_of(node).bias
        if bias is not None and layer.bias is not None and index is not None:
            real = layer.bias * np.asarray(plan.tensors[bias_name(node)].scale)
            shape = constant_array(bias).shape
            node.replace_input_with(
                index, add_constant(model.graph, f"{node.name}/b", real.reshape(shape).astype(np.float32))
            )
        set_constant(weight, (integers * scale).astype(np.float32))
    return judge.measure_errors(model, RANKED).noise >= OF_WEIGHTS * judge.measure_errors(best.int8, RANKED).noise


def round_by_inputs(problem: Problem, best: Candidate, judge: Judge, on_step: OnStep | None) -> list[Candidate]:
    """A candidate with all weights rounded by what their layers read, which costs time here and none when it runs."""
    layers = {node.name for node, _ in find_int8_layers(problem.model.graph, best.plan)}
    if problem.large or not layers or not problem.samples or best.plan.gptq_nodes:
        return []
    nodes = [replace(d, rounding="gptq") if d.node in layers else d for d in best.plan.nodes]
    plan = replace(best.plan, effort=problem.effort, nodes=tuple(nodes))
    int8 = problem.build(plan, correctable=True)
    refine_built(problem, plan, int8, on_step)
    return [Candidate(best.start, problem, plan, int8, judge.measure(int8), ROUNDED)]


def reconstruct(problem: Problem, best: Candidate, judge: Judge, on_step: OnStep | None) -> list[Candidate]:
    """A candidate with its weights and biases learnt together, where that can be and all judged samples say that it is better.

    `problem` is what its plan starts from, with the effort that was asked for.
    """
    if problem.large or find_schedule(problem.model, take_learnable(problem))[0] is None:
        return []
    plan = replace(best.plan, effort=problem.effort, reconstructed=True)
    int8 = problem.build(plan, correctable=True)
    refine_built(problem, plan, int8, on_step)
    made = Candidate(best.start, problem, plan, int8, judge.measure(int8), RECONSTRUCTED)
    gain = made.judgement.decisive_db - best.judgement.decisive_db
    return [made] if gain >= WORTH_LEARNING and made.judgement.changed <= best.judgement.changed else []


def join_names(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def start_alike(one: Problem, other: Problem) -> bool:
    return (one.ranges, one.own_ranges, one.rescaled) == (other.ranges, other.own_ranges, other.rescaled)


def choose(tried: Sequence[Candidate], worth_db: float) -> Candidate:
    """The first unless another is better by `worth_db`, or changes fewer decisions by more than one sample's."""
    best = tried[0]
    for other in tried[1:]:
        fewer = other.judgement.changed - best.judgement.changed
        gain = other.judgement.decisive_db - best.judgement.decisive_db
        if fewer < -1 or (gain > worth_db and fewer <= 1):
            best = other
    return best


def choose_steady(best: Candidate, plain: Sequence[Candidate]) -> Candidate:
    """What is repaired: a `plain` candidate unless corrections give more than they move from one model to the next.

    Where they take long they are left out whatever they give: each model that is tried would be corrected anew.
    """
    steady = max(plain, key=lambda candidate: candidate.judgement.decisive_db, default=best)
    gain = best.judgement.decisive_db - steady.judgement.decisive_db
    return best if gain >= STEADY_DB and not (plain and _takes_long_to_correct(best.problem)) else steady


def _takes_long_to_correct(problem: Problem) -> bool:
    return count_macs(problem) * len(next(iter(problem.samples.values()), ())) > MOST_CORRECTED


def count_macs(problem: Problem) -> int:
    return sum(count_macs_by_node(problem.model).values())
