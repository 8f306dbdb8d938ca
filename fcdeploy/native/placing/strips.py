"""Two steps by turns, some rows at a time: what lies between them is never in memory as a whole.

A layer writes the rows that the step behind it reads next, that step reads them, and the same memory takes the rows after
them.  Each turn is two calls of the kernels that there are; no row is computed twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.program.layers import CombinedLayer, Layer
from fcdeploy.native.program.steps import Combine, LookupTable, Pool, Program, Step
from fcdeploy.native.program.tensors import Tensor

TURNS = 8  # at most: each takes two calls, and the rows between them an eighth of the whole
POSITIONS = 64  # of a layer in a turn, at least: so many read its weights once (FC_GROUP of kernels/layer_sums.h)
ROWS = 2  # the axis that is cut


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer and the step behind it, which alone reads what the layer writes."""

    first: Layer
    then: Step

    @property
    def between(self) -> Tensor:
        return self.first.output


@dataclass(frozen=True, eq=False)
class Turn:
    """Both steps for some rows: `read` of the layer's input, `between` of them, and `written` of the output."""

    first: Layer
    then: Step
    read: slice
    between: slice
    written: slice


def find_pairs(program: Program) -> list[Pair]:
    """Every pair whose rows between them are each read in one turn alone, and that take more than one."""
    readers = Counter(tensor.name for step in program.steps for tensor in step.inputs)
    readers.update(tensor.name for tensor in program.outputs)
    layers = {step.output.name: step for step in program.steps if type(step) is Layer and step.window is not None}
    pairs = []
    for step in program.steps:
        for tensor in step.inputs:
            first = layers.get(tensor.name)
            if (
                first is not None
                and readers[tensor.name] == 1
                and tensor.dtype == "uint8"
                and _reads_once(step, tensor)
            ):
                pairs.append(Pair(first, step))
    return [pair for pair in pairs if len(list(cut_turns(pair))) > 1]


def _reads_once(step: Step, tensor: Tensor) -> bool:
    """Whether each row of a tensor goes into one row of the output, or into none."""
    if isinstance(step, Combine | LookupTable):
        return tensor.shape == step.output.shape
    read_in_windows = type(step) in (Layer, CombinedLayer) and tensor.name == step.inputs[0].name
    window = step.window if read_in_windows or isinstance(step, Pool) else None  # type: ignore[attr-defined]
    if window is None or window.reach[0] > window.strides[0]:
        return False
    return isinstance(step, Pool) or not any(window.pads)


def cut_turns(pair: Pair) -> Iterator[Turn]:
    """The turns, each of as many rows but for the last; none where a window would see nothing but padding."""
    first, then = pair.first, pair.then
    length, total = pair.between.shape[ROWS], then.output.shape[ROWS]
    beside = pair.between.size // (pair.between.shape[0] * pair.between.shape[1] * length)
    step = length / total  # rows of the layer for each of the output
    rows = count_rows(total, beside * step)
    turns = []
    for begin in range(0, total, rows):
        written = slice(begin, min(total, begin + rows))
        between, window = crop_window(getattr(then, "window", None), written, length)
        read, own = crop_window(first.window, between, first.inputs[0].shape[ROWS])
        if between.stop <= between.start or read.stop <= read.start:
            return
        turns.append(Turn(_cut(first, between, own), _cut(then, written, window), read, between, written))
    yield from turns


def count_rows(total: int, positions: float) -> int:
    """How many rows of `total` a turn takes, with so many positions of the layer in each."""
    return max(-(-total // TURNS), ceil(POSITIONS / positions))


def crop_window(window: Window | None, written: slice, length: int) -> tuple[slice, Window | None]:
    """Rows of an input of `length` rows that are read for these rows of the output, and the window that moves over them."""
    if window is None:
        return written, None
    low = written.start * window.strides[0] - window.begins[0]
    high = (written.stop - 1) * window.strides[0] + window.reach[0] - window.begins[0]
    begins, ends = max(0, -low), max(0, high - length)
    cropped = replace(window, begins=(begins, *window.begins[1:]), ends=(ends, *window.ends[1:]))
    return slice(max(0, low), min(length, high)), cropped


def _cut(step: Any, written: slice, window: Window | None) -> Any:
    """The step for some rows of its output."""
    shape = list(step.output.shape)
    shape[ROWS] = written.stop - written.start
    changed: dict[str, Any] = {} if window is None else {"window": window}
    return replace(step, outputs=(replace(step.output, shape=tuple(shape)),), **changed)


def find_last_reads(steps: Sequence[Step], program: Program, pairs: Mapping[str, Pair]) -> dict[str, float]:
    """The number of the last step that reads each tensor; the first of a pair reads until the pair is done.

    `pairs` go by the name of what they write, and `steps` are without the first of each.
    """
    reads: dict[str, float] = {}
    for number, step in enumerate(steps):
        reads |= {tensor.name: number for tensor in step.inputs}
        if step.output.name in pairs:
            reads |= {tensor.name: number + 0.5 for tensor in pairs[step.output.name].first.inputs}
    return reads | {tensor.name: len(steps) for tensor in program.outputs}
