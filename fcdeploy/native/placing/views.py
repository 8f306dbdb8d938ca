"""Tensors in memory: buffers, views into them, and loops over several views at once.

A view is kept as a NumPy array over memory that nobody touches: NumPy then knows which reshape needs a copy, what a
slice's strides are, and how views broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from fcdeploy.arrays import Array

Where = Literal["arena", "input", "output", "constant"]
Border = tuple[int, int, int, int]
"""Rows above and below, columns left and right."""

LOOPS = 4  # nested ones of a kernel
NO_BORDER: Border = (0, 0, 0, 0)


@dataclass(eq=False)
class Buffer:
    """A piece of memory; `memory` has its size and is never written. Steps from `first` to `last` need it."""

    where: Where
    memory: Array
    number: int = 0
    first: int = -1
    last: int = -1
    data: Array | None = None

    @property
    def nbytes(self) -> int:
        return int(self.memory.nbytes)


@dataclass(frozen=True, eq=False)
class View:
    """A tensor in a buffer; `array` has the tensor's shape. `border` is what lies around it, filled with `zero`."""

    buffer: Buffer
    array: Array
    border: Border = NO_BORDER
    zero: int = 0

    @property
    def offset(self) -> int:
        """Bytes from the buffer's beginning."""
        return self.array.__array_interface__["data"][0] - self.buffer.memory.__array_interface__["data"][0]  # type: ignore[no-any-return]

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index of an axis to the next; 0 along axes of length 1."""
        size = self.array.itemsize
        return tuple(0 if n == 1 else s // size for n, s in zip(self.array.shape, self.array.strides, strict=True))

    def reshape_view(self, array: Array) -> View:
        """The same memory under another shape; the border is no longer around it."""
        return View(self.buffer, array)


def nest_loops(views: Sequence[View], keep: int | None = None) -> tuple[list[int], list[list[int]], int]:
    """Lengths of nested loops over views of one shape, each view's strides in elements, and the loop of axis `keep`.

    Axes are walked in the order in which they lie in the first view, innermost last, and joined where all views allow
    it; `keep` stays a loop of its own.
    """
    shape, strides = views[0].array.shape, [view.strides for view in views]
    axes = [axis for axis in range(len(shape)) if shape[axis] > 1 or axis == keep]
    axes.sort(key=lambda axis: -abs(strides[0][axis]))
    lengths: list[int] = []
    steps: list[list[int]] = [[] for _ in views]
    kept = last = -1
    for axis in axes:
        own = [stride[axis] for stride in strides]
        pairs = list(zip(steps, own, strict=True))
        if lengths and keep not in (axis, last) and all(each[-1] == stride * shape[axis] for each, stride in pairs):
            lengths[-1] *= shape[axis]
            for each, stride in pairs:
                each[-1] = stride
        else:
            lengths.append(shape[axis])
            for each, stride in pairs:
                each.append(stride)
        kept, last = (len(lengths) - 1 if axis == keep else kept), axis
    return lengths or [1], [each or [0] for each in steps], kept


def lies_in_one_piece(view: View) -> bool:
    """Whether a tensor fills its part of memory, in whichever order."""
    axes = sorted(range(view.array.ndim), key=lambda axis: -view.strides[axis])
    return bool(view.array.transpose(axes).flags.c_contiguous)


def has_even_rows(view: View) -> bool:
    """Whether elements of the last axis lie side by side, and rows of them at even distances in the order of their indices."""
    *axes, (_, inner) = zip(view.array.shape, view.strides, strict=True)
    outer = [(length, stride) for length, stride in axes if length > 1]
    return inner in (0, 1) and all(stride == length * each for (_, stride), (length, each) in pairwise(outer))


def is_whole(view: View, *, last: bool) -> bool:
    """Whether a tensor lies in one piece, with its channels `last` where a window moves over it."""
    array = np.moveaxis(view.array, 1, -1) if last and view.array.ndim > 2 else view.array
    return bool(array.flags.c_contiguous)


def cut_rows(view: View, rows: slice) -> View:
    """Some rows of an image."""
    return view.reshape_view(view.array[:, :, rows])
