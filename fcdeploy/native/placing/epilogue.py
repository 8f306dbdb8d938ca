"""Sums and products that are computed where a layer writes its bytes: both steps become one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from fcdeploy.native.placing.strips import ROWS
from fcdeploy.native.program.layers import CombinedLayer, Layer
from fcdeploy.native.program.steps import Combine, Program, Step


def combine_in_layers(program: Program) -> Program:
    """The program with each layer whose bytes only a sum or product reads, and that step, as one."""
    readers = Counter(tensor.name for step in program.steps for tensor in step.inputs)
    readers.update(tensor.name for tensor in program.outputs)
    steps = list(program.steps)
    for then in [step for step in program.steps if isinstance(step, Combine)]:
        both = _choose_layer(steps, then, readers)
        if both is not None:
            at, before = both
            steps.insert(max(at, before) + 1, _join(steps[at], then))  # type: ignore[arg-type]
            del steps[at]
            steps.remove(then)
    return replace(program, steps=tuple(steps))


def _choose_layer(steps: Sequence[Step], then: Combine, readers: Mapping[str, int]) -> tuple[int, int] | None:
    """The numbers of the layer whose bytes are combined, and of the step that makes the other operand: -1 where none does.

    The other one has to be there before, or to be what the next step makes, which then runs first.  Of two layers that would
    do, the one that multiplies more: kernels for few inputs have no such form.
    """
    makers = {tensor.name: number for number, step in enumerate(steps) for tensor in step.outputs}
    first, second = (makers.get(tensor.name, -1) for tensor in then.inputs)
    fit = [
        (at, before)
        for tensor, at, before in zip(then.inputs, (first, second), (second, first), strict=True)
        if readers[tensor.name] == 1 and at >= 0 and before <= at + 1 and _takes_part(steps[at], then)
    ]
    return max(fit, key=lambda both: steps[both[0]].macs, default=None)


def _takes_part(step: Step, then: Combine) -> bool:
    """Whether a step is a layer that writes bytes of one sample, as both operands are; depthwise ones have other kernels."""
    if type(step) is not Layer or step.depthwise:
        return False
    kinds = {(tensor.shape, tensor.dtype) for tensor in (step.output, *then.inputs, then.output)}
    return kinds == {(step.output.shape, "uint8")} and step.output.shape[0] == 1


def _join(layer: Layer, then: Combine) -> CombinedLayer:
    own = {each.name: getattr(layer, each.name) for each in fields(Layer)}
    beside = tuple(tensor for tensor in then.inputs if tensor.name != layer.output.name)
    own |= {"inputs": (*layer.inputs, *beside), "outputs": then.outputs}
    return CombinedLayer(**own, between=layer.output, combine=then)


def find_turned_axis(step: CombinedLayer) -> int:
    """The axis whose rows of the layer's own bytes lie in memory some at a time where they are not combined in registers."""
    return ROWS if len(step.output.shape) == ROWS + 1 or step.output.shape[ROWS] > 1 else ROWS + 1
