"""Parts of a Concat or Pad: which of it each input is, and which are written there at once."""

from __future__ import annotations

from collections.abc import Collection

from fcdeploy.native.program.steps import Move, Program


def find_parts(
    program: Program, last: Collection[str], borders: Collection[str]
) -> dict[str, tuple[Move, tuple[slice, ...]]]:
    """Tensors that are written straight into a Concat or Pad, and which part of it they are."""
    parts: dict[str, tuple[Move, tuple[slice, ...]]] = {}
    makers = {tensor.name: step for step in program.steps for tensor in step.outputs}
    outputs = {tensor.name for tensor in program.outputs}
    for step in program.steps:
        if not (isinstance(step, Move) and step.kind in ("concat", "pad")) or step.output.name in outputs:
            continue
        for tensor, index in zip(step.inputs, index_parts(step), strict=True):
            maker = makers.get(tensor.name)
            alone = sum(other.name == tensor.name for other in step.inputs) == 1
            if (
                maker is not None and not isinstance(maker, Move) and alone
                and tensor.name not in parts and tensor.name not in borders and tensor.name not in outputs
                and (tensor.name in last) == (step.output.name in last)
            ):  # fmt: skip
                parts[tensor.name] = (step, index)
    return parts


def index_parts(step: Move) -> list[tuple[slice, ...]]:
    """Which part of a Concat or Pad each input is."""
    if step.kind == "pad":
        shape = step.inputs[0].shape
        return [tuple(slice(b, b + n) for b, n in zip(step.arguments[0], shape, strict=True))]
    axis, indices, start = step.arguments[0][0], [], 0
    for tensor in step.inputs:
        part = slice(start, start + tensor.shape[axis])
        indices.append(tuple(part if i == axis else slice(None) for i in range(len(tensor.shape))))
        start += tensor.shape[axis]
    return indices
