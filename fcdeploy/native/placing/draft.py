"""A layout while it grows: buffers, views of tensors into them, and what is done, in order."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.placing.views import LOOPS, NO_BORDER, Border, Buffer, View, Where, nest_loops
from fcdeploy.native.placing.work import Copy, Fill, Layout, Placed, Work
from fcdeploy.native.program.tensors import Tensor


class Draft:
    """Buffers know from which work to which they live; borders of the tensors `filled` are written before they are read."""

    def __init__(self, filled: Collection[str]) -> None:
        self.filled = filled
        self.layout = Layout()

    def make_view(
        self, tensor: Tensor, where: Where, *, number: int = 0, last: bool = False, border: Border = NO_BORDER
    ) -> View:
        """A new buffer for the tensor."""
        rank = len(tensor.shape)
        dtype = np.dtype(tensor.dtype)
        if not last or rank < 3:
            memory = np.empty(max(1, tensor.size), dtype)
            return View(self.make_buffer(where, memory, number), memory[: tensor.size].reshape(tensor.shape))
        space = [1, *tensor.shape[2:]] if rank == 3 else list(tensor.shape[2:])
        if len(space) != 2:
            memory = np.empty((tensor.shape[0], *space, tensor.shape[1]), dtype)
            return View(self.make_buffer(where, memory, number), np.moveaxis(memory, -1, 1))
        top, bottom, left, right = border
        memory = np.empty((tensor.shape[0], space[0] + top + bottom, space[1] + left + right, tensor.shape[1]), dtype)
        inner = memory[:, top : top + space[0], left : left + space[1], :]
        seen = np.moveaxis(inner, -1, 1)
        zero = 0 if tensor.coding is None else tensor.coding.zero_point
        return View(self.make_buffer(where, memory, number), seen[:, :, 0] if rank == 3 else seen, border, zero)

    def make_buffer(self, where: Where, memory: Array, number: int) -> Buffer:
        if where == "arena":
            number = sum(each.where == "arena" for each in self.layout.buffers)
        buffer = Buffer(where, memory, number)
        self.layout.buffers.append(buffer)
        return buffer

    def add(self, work: Work) -> None:
        if isinstance(work, Copy) and len(nest_loops([work.target, work.source])[0]) > LOOPS:
            shape = work.source.array.shape
            axis = min((i for i, n in enumerate(shape) if n > 1), key=lambda i: shape[i])
            for n in range(shape[axis]):  # the shortest axis piece by piece
                part = tuple(slice(n, n + 1) if i == axis else slice(None) for i in range(len(shape)))
                source, target = (view.reshape_view(view.array[part]) for view in (work.source, work.target))
                self.add(Copy(work.node, source, target))
            return
        self.layout.work.append(work)
        at = len(self.layout.work) - 1
        views = (
            (*work.inputs, *work.outputs, *([work.scratch] if work.scratch else [])) if isinstance(work, Placed)
            else (work.source, work.target) if isinstance(work, Copy) else (work.target,)
        )  # fmt: skip
        for view in views:
            buffer = view.buffer
            buffer.first = at if buffer.first < 0 else buffer.first
            buffer.last = at

    def fill_border(self, node: str, view: View, name: str) -> None:
        if view.border != NO_BORDER and name in self.filled:
            self.add(Fill(node, view, view.zero, border=True))

    def copy(self, node: str, tensor: Tensor, view: View, *, last: bool, border: Border = NO_BORDER) -> View:
        target = self.make_view(tensor, "arena", last=last, border=border)
        self.fill_border(node, target, tensor.name)
        self.add(Copy(node, view, target))
        return target

    def hold(self, held: Array, *, last: bool) -> View:
        """A constant in one piece, with `last` channels last."""
        data = np.ascontiguousarray(np.moveaxis(held, 1, -1) if last else held)
        memory = np.empty(data.shape, data.dtype)
        buffer = self.make_buffer("constant", memory, 0)
        buffer.data = data
        return View(buffer, np.moveaxis(memory, -1, 1) if last else memory)
