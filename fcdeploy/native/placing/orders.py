"""Which tensors lie channels last, and how wide a border lies around each."""

from __future__ import annotations

from collections import Counter

from fcdeploy.native.placing.views import NO_BORDER, Border
from fcdeploy.native.program.layers import CombinedLayer, FloatLayer, IntegerLayer, Layer
from fcdeploy.native.program.steps import (
    Combine,
    Convert,
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
from fcdeploy.native.program.tensors import Tensor

ALIKE = (
    Combine,
    LookupTable,
    Lookup,
    Quantize,
    Pointwise,
    Select,
    Softmax,
    Interpolate,
    Convert,
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
    if not isinstance(step, (*ALIKE, CombinedLayer)) and not (isinstance(step, Move) and step.kind in STAY):
        return set()
    rank = len(step.output.shape)
    if rank < 3:
        return set()
    alike = (*list_elementwise(step), step.output) if isinstance(step, CombinedLayer) else (*step.inputs, step.output)
    return {tensor.name for tensor in alike if len(tensor.shape) == rank and tensor.held is None}


def list_elementwise(step: Step) -> tuple[Tensor, ...]:
    """The inputs each element of which is read before its result is written, and for that alone."""
    if isinstance(step, CombinedLayer):
        return step.inputs[1:]
    return step.inputs if isinstance(step, Combine | LookupTable | Pointwise) else ()


def find_borders(program: Program) -> dict[str, Border]:
    """What convolutions read around each tensor of bytes; padding of 1-d ones lies left and right."""
    widest: dict[str, Border] = {}
    for step in program.steps:
        if isinstance(step, Layer) and step.window is not None:
            name = step.inputs[0].name
            both = zip(widest.get(name, NO_BORDER), find_needed_border(step), strict=True)
            widest[name] = tuple(max(a, b) for a, b in both)  # type: ignore[assignment]
    return {name: border for name, border in widest.items() if border != NO_BORDER}


def widen_borders(program: Program, needed: dict[str, Border]) -> dict[str, Border]:
    """Borders that leave room around what a table or a sum reads for what lies around its result, which can take its place."""
    widest, readers = dict(needed), Counter(tensor.name for step in program.steps for tensor in step.inputs)
    for step in reversed(program.steps):
        border = widest.get(step.output.name, NO_BORDER)
        if not isinstance(step, Combine | LookupTable) or border == NO_BORDER:
            continue
        alike = [tensor for tensor in step.inputs if tensor.held is None and tensor.shape == step.output.shape]
        alone = [tensor.name for tensor in alike if readers[tensor.name] == 1]
        if alone and not any(tensor.name in widest for tensor in alike):
            widest[alone[0]] = border
    return widest


def find_needed_border(step: Step) -> Border:
    """What a convolution on bytes reads around its input; padding of 1-d ones lies left and right."""
    if not isinstance(step, Layer) or step.window is None or isinstance(step, IntegerLayer):
        return NO_BORDER  # CMSIS-NN fills up windows itself
    begins, ends = step.window.begins, step.window.ends
    return (begins[0], ends[0], begins[1], ends[1]) if len(begins) == 2 else (0, 0, begins[0], ends[0])
