"""Program to smaller program with the same outputs, bit for bit: steps that others can do on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np

from fcdeploy.native.program.layers import Layer
from fcdeploy.native.program.pairs import stays_in_16_bits
from fcdeploy.native.program.steps import Ends, Lookup, LookupTable, Move, Pool, Program, Step
from fcdeploy.native.program.tensors import CODES, Bytes, Tensor

IN_LANES = 8  # outputs of a layer up to which positions lie side by side in vectors (kernels/layer_lanes.h)


def simplify(program: Program, *, pairs: bool) -> Program:
    """Every rewrite, until none applies; `pairs` where it may run on a CPU that adds pairs of products in 16 bits."""
    while True:
        steps = clip_where_it_is_written(program)
        if steps == program.steps:
            steps = join_tables(program)
        if steps == program.steps:
            steps = leave_out_channels_of_zeros(program, pairs=pairs)
        if steps == program.steps:
            return program
        program = replace(program, steps=steps)


def clip_where_it_is_written(program: Program) -> tuple[Step, ...]:
    """A table that only clips becomes the ends of the step before it, whose bytes nothing else reads."""
    readers = Counter(tensor.name for step in program.steps for tensor in step.inputs)
    readers.update(tensor.name for tensor in program.outputs)
    steps = list(program.steps)
    makers = {step.output.name: number for number, step in enumerate(steps)}
    for number, step in enumerate(steps):
        ends = find_clip(step.table) if isinstance(step, LookupTable) and step.output.dtype == "uint8" else None
        before = makers.get(step.inputs[0].name)
        if ends is None or before is None or readers[step.inputs[0].name] > 1:
            continue
        maker = steps[before]
        # the largest byte is as it is, not rounded between ends; and a border is made of the zero point that bytes are made with
        chosen = isinstance(maker, Pool) and maker.kind == "max"
        moved = _find_zero_point(maker.output) != _find_zero_point(step.output)
        if isinstance(maker, Ends) and maker.output.dtype == "uint8" and not chosen and not moved:
            low, high = (int(np.clip(end, *ends)) for end in (maker.low, maker.high))
            # bytes are made in the coding that they had: what reads them has their new one, as equal bytes of other numbers
            written = replace(step.output, coding=maker.output.coding)
            steps[before] = replace(maker, outputs=(written,), low=low, high=high)
            del steps[number]
            return tuple(steps)
    return program.steps


def _find_zero_point(tensor: Tensor) -> int | None:
    return None if tensor.coding is None else tensor.coding.zero_point


def join_tables(program: Program) -> tuple[Step, ...]:
    """A table of what another table wrote, which nothing else reads, is one table."""
    readers = Counter(tensor.name for step in program.steps for tensor in step.inputs)
    readers.update(tensor.name for tensor in program.outputs)
    makers = {step.output.name: step for step in program.steps if isinstance(step, LookupTable)}
    for number, step in enumerate(program.steps):
        first = makers.get(step.inputs[0].name) if isinstance(step, LookupTable | Lookup) else None
        if not isinstance(step, LookupTable | Lookup) or first is None or readers[first.output.name] > 1:
            continue
        if {first.inputs[0].dtype, first.output.dtype} != {"uint8"} or (first.table.ndim > 1 and step.table.ndim > 1):
            continue
        both = step.table[..., first.table]  # of the one that has a table for each channel, if either does
        steps = list(program.steps)
        steps[number] = replace(step, inputs=first.inputs, table=both)  # type: ignore[arg-type]
        steps.remove(first)
        return tuple(steps)
    return program.steps


def leave_out_channels_of_zeros(program: Program, *, pairs: bool) -> tuple[Step, ...]:
    """A convolution whose weights are zero in the channels that a padding adds reads the image without them.

    onnxruntime wants four channels where a picture has three; native code does not.  Its weights were bound in the pairs of
    four channels: with `pairs` they stay where those of three would leave 16 bits, which takes longer than a channel more,
    and where positions have to be four bytes apart. Of one channel a third of the products is left, whatever the pairs are.
    """
    readers = Counter(tensor.name for step in program.steps for tensor in step.inputs)
    readers.update(tensor.name for tensor in program.outputs)
    makers = {step.output.name: step for step in program.steps}
    for number, step in enumerate(program.steps):
        pad = makers.get(step.inputs[0].name)
        if not isinstance(step, Layer) or step.window is None or step.groups != 1 or not isinstance(pad, Move):
            continue
        image = pad.inputs[0]
        channels = image.shape[1] if len(image.shape) > 1 else 0
        only_channels = pad.kind == "pad" and pad.output.shape == (
            image.shape[0],
            step.weight.shape[1],
            *image.shape[2:],
        )
        if (
            not only_channels
            or any(pad.arguments[0])
            or readers[pad.output.name] > 1
            or step.weight[:, channels:].any()
        ):
            continue
        weight = step.weight[:, :channels]
        rows = np.moveaxis(weight, 1, -1).reshape(len(weight), prod(step.window.kernel[:-1]), -1)
        slower = channels > 1 and (not stays_in_16_bits(rows) or len(weight) <= IN_LANES)
        if pairs and slower:
            continue
        steps = list(program.steps)
        steps[number] = replace(step, inputs=(image,), weight=weight)
        steps.remove(pad)
        return tuple(steps)
    return program.steps


def find_clip(table: Bytes) -> tuple[int, int] | None:
    """The ends of a table that leaves every byte between them as it is; None for any other."""
    if table.ndim != 1:
        return None
    low, high = int(table[0]), int(table[-1])
    return (low, high) if np.array_equal(table, np.clip(np.arange(CODES), low, high)) else None
