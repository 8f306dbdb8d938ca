"""Which tensors lie channels last, and how wide a border lies around each."""

from __future__ import annotations

from fcdeploy.native.placing.views import NO_BORDER, Border
from fcdeploy.native.program.layers import FloatLayer, IntegerLayer, Layer
from fcdeploy.native.program.steps import (
    Combine,
    GlobalAverage,
    Interpolate,
    Lookup,
    LookupTable,
    Move,
    Pointwise,
    Pool,
    Program,
    Quantize,
    Select,
    Softmax,
    Step,
)

ALIKE = (
    Combine,
    LookupTable,
    Lookup,
    Quantize,
    Pointwise,
    Select,
    Softmax,
    Interpolate,
)  # every input lies as the output does
STAY = ("slice", "concat", "pad", "take", "expand")  # moves that keep the order of the axes


def find_channels_last(program: Program) -> frozenset[str]:
    """Names of tensors whose second axis lies innermost: those that windows slide over, and all that go along."""
    fixed = {tensor.name for tensor in program.inputs}
    last: set[str] = set()
    for step in program.steps:
        if isinstance(step, Pool | GlobalAverage) or (isinstance(step, Layer | FloatLayer) and step.window is not None):
            last.update(tensor.name for tensor in (*step.inputs[:1], *step.outputs) if len(tensor.shape) > 2)
    links = [_list_laid_alike(step) for step in program.steps]
    grows = True
    while grows:
        grows = False
        for names in links:
            if names & last and not names <= last:
                last |= names
                grows = True
    return frozenset(last - fixed)


def _list_laid_alike(step: Step) -> set[str]:
    """Tensors of a step that best lie in the same order."""
    if not isinstance(step, ALIKE) and not (isinstance(step, Move) and step.kind in STAY):
        return set()
    rank = len(step.output.shape)
    if rank < 3:
        return set()
    return {tensor.name for tensor in (*step.inputs, step.output) if len(tensor.shape) == rank and tensor.held is None}


def find_borders(program: Program) -> dict[str, Border]:
    """What convolutions read around each tensor of bytes; padding of 1-d ones lies left and right."""
    widest: dict[str, Border] = {}
    for step in program.steps:
        if isinstance(step, Layer) and step.window is not None:
            name = step.inputs[0].name
            both = zip(widest.get(name, NO_BORDER), find_needed_border(step), strict=True)
            widest[name] = tuple(max(a, b) for a, b in both)  # type: ignore[assignment]
    return {name: border for name, border in widest.items() if border != NO_BORDER}


def find_needed_border(step: Step) -> Border:
    """What a convolution on bytes reads around its input; padding of 1-d ones lies left and right."""
    if not isinstance(step, Layer) or step.window is None or isinstance(step, IntegerLayer):
        return NO_BORDER  # CMSIS-NN fills up windows itself
    begins, ends = step.window.begins, step.window.ends
    return (begins[0], ends[0], begins[1], ends[1]) if len(begins) == 2 else (0, 0, begins[0], ends[0])
