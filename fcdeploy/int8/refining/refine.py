"""A plan to the finished int8 model: written, then corrected on samples as far as effort and samples go."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from fcdeploy.int8.given import Given
from fcdeploy.int8.planning.weigh import int8_layers
from fcdeploy.int8.refining.compensate import MANY, MANY_BYTES, compensate_blocks
from fcdeploy.int8.refining.correct import correct_layers
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept import keep_smallest


def with_tools(given: Given, plan: Plan) -> Plan:
    """The plan with what is done on samples, by effort, and with what was done to the network it starts from."""
    layers = {node.name for node, _ in int8_layers(given.graph.graph, plan)} if given.effort == "best" else set()
    nodes = [replace(d, rounding="compensated") if d.node in layers else d for d in plan.nodes]
    return replace(plan, nodes=tuple(nodes), effort=given.effort, rescaled=dict(given.rescaled))


def refined(given: Given, plan: Plan, on_step: OnStep | None) -> ir.Model:
    """The int8 model of a plan, its biases corrected and its weights rounded by what their layers read."""
    if plan.effort == "fast" or not given.samples:
        return given.build(plan)
    int8 = given.build(plan, correctable=True)
    if "blocks" in plan.kinds.values():
        many = given.samples if given.source is None else keep_smallest(given.source, most=MANY, room=MANY_BYTES)
        compensate_blocks(given.graph, int8, plan, many, on_step=on_step)
    correct_layers(given.graph, int8, plan, given.samples, target=given.row, on_step=on_step)
    return int8


def left_out(given: Given, plan: Plan) -> list[str]:
    """Warnings of the tools that had nothing to run the model on."""
    if given.samples:
        return []
    tools = {"int8": "bias correction left out", "blocks": "weights in blocks were rounded one by one"}
    found = [text for kind, text in tools.items() if kind in plan.kinds.values() and plan.effort != "fast"]
    looks = ["exactness was not looked at"] if given.row.name == "portable" and given.large else []
    return [f"{tool}: {given.why_not_run}" for tool in (*found, *looks)]
