"""A plan to the finished int8 model: written, then corrected on samples as far as effort and samples go."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.int8.given import Given
from fcdeploy.int8.refining.compensate import MANY, MANY_BYTES, compensate_blocks
from fcdeploy.int8.refining.correct import correct_layers
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept import keep_smallest


def refined(given: Given, plan: Plan, on_step: OnStep | None) -> ir.Model:
    """The int8 model of a plan, its biases corrected and its weights rounded by what their layers read."""
    if given.effort == "fast" or not given.samples:
        return given.build(plan)
    int8 = given.build(plan, correctable=True)
    if "blocks" in plan.kinds.values():
        many = given.samples if given.source is None else keep_smallest(given.source, most=MANY, room=MANY_BYTES)
        compensate_blocks(given.graph, int8, plan, many, on_step=on_step)
    reround_to = given.row if given.effort == "best" else None
    correct_layers(given.graph, int8, plan, given.samples, reround_to=reround_to, on_step=on_step)
    return int8


def left_out(given: Given, plan: Plan) -> list[str]:
    """Warnings of the tools that had nothing to run the model on."""
    if given.samples:
        return []
    tools = {"int8": "bias correction left out", "blocks": "weights in blocks were rounded one by one"}
    found = [text for kind, text in tools.items() if kind in plan.kinds.values() and given.effort != "fast"]
    looks = ["exactness was not looked at"] if given.row.name == "portable" and given.large else []
    return [f"{tool}: {given.why_not_run}" for tool in (*found, *looks)]
