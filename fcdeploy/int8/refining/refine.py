"""A plan to the finished int8 model: written, then corrected on samples as far as effort and samples go."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.judging.samples_apart import split_samples
from fcdeploy.int8.planning.decide import final_value
from fcdeploy.int8.planning.weights import find_int8_layers
from fcdeploy.int8.problem import NO_SAMPLES, Problem
from fcdeploy.int8.refining.correct_layers import correct_layers
from fcdeploy.int8.refining.gptq_blocks import MANY, MANY_BYTES, gptq_round_blocks
from fcdeploy.int8.refining.reconstruct import NEEDS, is_installed, reconstruct_layers
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept_samples import KEPT_LEAST, hash_sample, hash_samples, iterate_samples, keep_smallest
from fcdeploy.samples.source import get_fixed_batch

# Biases corrected on 256 samples come within 0.1 dB of those on 128, in twice the time (resnet, cnn, keywords, anomalies)
CORRECTED = 128
ROOM = 64 << 20  # bytes of float results of layers that are run one after the other


def add_refinements(problem: Problem, plan: Plan) -> Plan:
    """The plan with what is done on samples, by effort, and with what was done to the network it starts from."""
    gptq = problem.effort == "best" and not problem.large
    layers = {node.name for node, _ in find_int8_layers(problem.model.graph, plan)} if gptq else set()
    nodes = [replace(d, rounding="gptq") if d.node in layers else d for d in plan.nodes]
    rescaled, absorbed = dict(problem.rescaled), dict(problem.absorbed)
    return replace(plan, nodes=tuple(nodes), effort=problem.effort, rescaled=rescaled, absorbed=absorbed)


def refine(problem: Problem, plan: Plan, on_step: OnStep | None) -> ir.Model:
    """The int8 model of a plan, its biases corrected and its weights rounded by what their layers read."""
    if not is_refined(problem, plan):
        return problem.build(plan)
    int8 = problem.build(plan, correctable=True)
    refine_built(problem, plan, int8, on_step)
    return int8


def is_refined(problem: Problem, plan: Plan) -> bool:
    """Whether anything is done on samples: by effort, and if there are any."""
    return plan.effort != "fast" and bool(problem.samples or select_layerwise_samples(problem, plan))


def refine_built(problem: Problem, plan: Plan, int8: ir.Model, on_step: OnStep | None) -> None:
    """Correct the int8 model that was built of a plan, in place."""
    few = select_layerwise_samples(problem, plan)
    if few:
        correct_layers(problem.model, int8, plan, few, target=problem.target, alone=True, on_step=on_step)
        return
    if "blockwise" in plan.kinds.values():
        gptq_round_blocks(problem.model, int8, plan, take_learnable(problem), on_step=on_step)
    some = problem.samples if plan.gptq_nodes else select_correction_samples(problem)
    correct_layers(problem.model, int8, plan, some, target=problem.target, on_step=on_step)
    if plan.reconstructed:
        limit = problem.target.pair_limit
        reconstruct_layers(problem.model, int8, plan, take_learnable(problem), pair_limit=limit, on_step=on_step)


def take_learnable(problem: Problem) -> Arrays:
    """The samples that weights may be learnt on: many of DATA, if there is any, and none that is judged."""
    if problem.source is None or problem.calibration.states:
        return problem.samples
    many = keep_smallest(problem.source, most=MANY, room=MANY_BYTES).arrays()
    if not problem.unseen:  # so few that they serve for both, which is said
        return many
    judged = hash_samples(problem.judged)
    kept = [at for at, sample in enumerate(iterate_samples([many])) if hash_sample(sample) not in judged]
    return {name: array[kept] for name, array in many.items()}


def select_correction_samples(problem: Problem) -> Arrays:
    """The samples that biases are corrected on: CORRECTED, or one batch of a model that takes more at once."""
    most = max(CORRECTED, get_fixed_batch(input_specs(problem.model)) or 0)
    return {name: array[:most] for name, array in problem.samples.items()}


def select_layerwise_samples(problem: Problem, plan: Plan) -> Arrays:
    """The samples that layers of a large model may be run on one after the other: as many as their results fit ROOM.

    None where that would be fewer than a calibration keeps at least, or where a length is not known, and of others none.
    """
    if not problem.large:
        return {}
    decisions = {decision.node: decision for decision in plan.nodes}
    layers = [node for node, _ in find_int8_layers(problem.model.graph, plan)]
    written = [name_of(final_value(node, decisions)) for node in layers]  # what a clip takes in is not recorded
    shapes = [problem.calibration.tensors[name].shape[1:] for name in written if name in problem.calibration.tensors]
    if not written or len(shapes) < len(written) or any(None in shape for shape in shapes):
        return {}
    most = ROOM // (4 * sum(math.prod(n or 1 for n in shape) for shape in shapes))
    streams = bool(problem.calibration.states)
    # the others are kept apart, as those of smaller models are
    tools, _, _ = split_samples(problem.calibration.groups, streams=streams)
    return {} if most < KEPT_LEAST else {name: array[:most] for name, array in tools.items()}


def warn_left_out(problem: Problem, plan: Plan) -> list[str]:
    """Warnings of the tools that had nothing to run the model on."""
    warnings = []
    if plan.effort == "best" and problem.samples and not is_installed():
        warnings.append(f"weights were not learnt together: {NEEDS}")
    if problem.samples:
        return warnings
    kinds = set(plan.kinds.values()) if plan.effort != "fast" else set()
    if "int8" in kinds and not select_layerwise_samples(problem, plan):
        warnings.append(f"bias correction left out: {_why_not_layerwise(problem)}")
    if "blockwise" in kinds:
        warnings.append(f"weights in blocks were rounded one by one: {problem.why_not_run}")
    if problem.large and problem.target.one_answer:
        warnings.append(f"exactness was not looked at: {problem.why_not_run}")
    return warnings


def _why_not_layerwise(problem: Problem) -> str:
    if not problem.calibration.kept:
        return NO_SAMPLES
    return f"results of its layers for {KEPT_LEAST} samples take more than {ROOM >> 20} MB"
