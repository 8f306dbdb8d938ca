"""Which steps of a program compute in float, and which only make bytes of what comes in."""

from __future__ import annotations

from collections.abc import Sequence

from fcdeploy.native.program.steps import Move, Pointwise, Program, Quantize, Step
from fcdeploy.wording import say_count

SCALING = ("Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Clip")
"""Pointwise operations that float32 rounds once, to the same number on every CPU."""


def list_float_steps(program: Program) -> list[str]:
    """Steps that compute in float, in words.

    What scales and shifts an input by constants until it is bytes is a part of that quantization and not among them: a
    program between bytes has to begin with it, and it gives the same bytes everywhere.
    """
    ours = _find_input_scaling(program)
    return [
        f"{step.node!r}: {step.what()}"
        for step in program.steps
        if step.computes_in_float and step.output.name not in ours
    ]


def warn_of_float_steps(steps: Sequence[str]) -> tuple[str, ...]:
    """The warning that steps compute in float, none without any."""
    verb = "computes" if len(steps) == 1 else "compute"
    return (f"{say_count(len(steps), 'step')} {verb} in float: {', '.join(steps[:3])}",) if steps else ()


def _find_input_scaling(program: Program) -> set[str]:
    """What steps write that only scale, shift and move inputs on their way to a quantization."""
    scaled = {tensor.name for tensor in program.inputs if tensor.dtype == "float32"}
    outputs = {tensor.name for tensor in program.outputs}
    found: list[Step] = []
    for step in program.steps:
        computed = [tensor.name for tensor in step.inputs if tensor.held is None]
        if len(computed) == 1 and computed[0] in scaled and _scales(step):
            found.append(step)
            if not isinstance(step, Quantize):
                scaled.add(step.output.name)
    kept: set[str] = set()
    for step in reversed(found):
        name = step.output.name
        readers = [each for each in program.steps if any(tensor.name == name for tensor in each.inputs)]
        ends = all(each.output.name in kept for each in readers)
        if isinstance(step, Quantize) or (ends and readers and name not in outputs):
            kept.add(name)
    return kept


def _scales(step: Step) -> bool:
    return isinstance(step, Quantize | Move) or (isinstance(step, Pointwise) and step.kind in SCALING)
