"""Where every tensor of a program lies: the one place that decides orders, borders, and what need not be moved at all.

Images lie channels last, with the border that the convolutions behind them read; a Reshape, Transpose, Slice or Concat is
no work where its result can be seen in place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from math import prod

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.placing.draft import Draft
from fcdeploy.native.placing.epilogue import find_turned_axis
from fcdeploy.native.placing.orders import (
    find_borders,
    find_channels_last,
    find_needed_border,
    list_elementwise,
    widen_borders,
)
from fcdeploy.native.placing.parts import find_parts, index_parts
from fcdeploy.native.placing.strips import ROWS, Pair, count_rows, cut_turns, find_last_reads
from fcdeploy.native.placing.views import (
    NO_BORDER,
    View,
    cut_rows,
    has_even_rows,
    is_whole,
    lies_in_one_piece,
)
from fcdeploy.native.placing.work import Copy, Fill, Layout, Placed
from fcdeploy.native.program.layers import CombinedLayer, FloatLayer, IntegerLayer, Layer, Product, Recurrent
from fcdeploy.native.program.steps import (
    Combine,
    GlobalAverage,
    Move,
    Normalize,
    Pointwise,
    Pool,
    Program,
    Reduce,
    Select,
    Step,
)
from fcdeploy.native.program.tensors import Tensor


def place(program: Program, *, in_place: bool = True, pairs: Iterable[Pair] = ()) -> Layout:
    """Decide where everything lies. With `in_place` parts of a Concat are written where they belong.

    The steps of `pairs` take turns (strips.py).
    """
    return _Placement(program, in_place=in_place, pairs=pairs).run()


class _Placement:
    """A program while it is placed, step after step: where each tensor lies so far, and who reads it."""

    def __init__(self, program: Program, *, in_place: bool, pairs: Iterable[Pair]) -> None:
        self.program = program
        self.last = find_channels_last(program)
        filled = find_borders(program)
        self.borders = widen_borders(program, filled)
        self.pairs = {pair.then.output.name: pair for pair in pairs}
        firsts = {pair.between.name for pair in self.pairs.values()}
        self.steps = [step for step in program.steps if step.output.name not in firsts]
        self.reads = find_last_reads(self.steps, program, self.pairs)
        self.at = 0
        self.readers: dict[str, list[Step]] = {}
        for step in program.steps:
            for tensor in step.inputs:
                self.readers.setdefault(tensor.name, []).append(step)
        self.draft = Draft(filled)
        self.views: dict[str, View] = {}
        self.orders: dict[str, Array] = {}
        self.parts = find_parts(program, self.last, self.borders) if in_place else {}

    def run(self) -> Layout:
        for number, tensor in enumerate(self.program.inputs):
            self.views[tensor.name] = self.draft.make_view(tensor, "input", number=number)
        for at, step in enumerate(self.steps):
            self.at = at
            if isinstance(step, Move):
                self._place_move(step)
            elif step.output.name in self.pairs:
                self._place_turns(self.pairs[step.output.name])
            else:
                self._place_step(step)
        written = {id(view.buffer) for view in self.views.values() if view.buffer.where == "output"}
        for number, tensor in enumerate(self.program.outputs):
            view = self.views[tensor.name]
            if not (id(view.buffer) in written and view.buffer.number == number and view.offset == 0):
                target = self.draft.make_view(tensor, "output", number=number)
                self.draft.add(Copy(tensor.name, view, target))
        return self.draft.layout

    # --- where a tensor lies ---

    def _find_place(self, tensor: Tensor) -> View:
        """Where a step writes a tensor: into a Concat, the caller's memory, or a buffer of its own with its border."""
        if tensor.name in self.parts:
            step, index = self.parts[tensor.name]
            whole = self._find_whole(step)
            return View(whole.buffer, whole.array[index])
        last = tensor.name in self.last
        names = [each.name for each in self.program.outputs]
        if tensor.name in names and (not last or len(tensor.shape) < 3):
            return self.draft.make_view(tensor, "output", number=names.index(tensor.name))
        return self.draft.make_view(tensor, "arena", last=last, border=self.borders.get(tensor.name, NO_BORDER))

    def _find_in_place(self, step: Step, inputs: Iterable[View], windows: Collection[View] = ()) -> View | None:
        """The place of an operand that nothing reads behind this step, where it is element by element, nor in `windows` now."""
        to = step.output
        if to.name in self.parts or self.reads.get(to.name) == len(self.steps):
            return None
        if isinstance(step, CombinedLayer) and step.window is None:  # what are its rows is not known here
            return None
        border = self.borders.get(to.name, NO_BORDER)
        for tensor in list_elementwise(step):
            view = self.views.get(tensor.name)
            if view is None or (tensor.shape, tensor.dtype) != (to.shape, to.dtype):
                continue
            if any(each.buffer is view.buffer for each in windows):
                continue
            fits = all(a >= b for a, b in zip(view.border, border, strict=True))
            alike = (tensor.name in self.last) == (to.name in self.last)
            if fits and alike and view.buffer.where == "arena" and self._is_free(view, inputs):
                zero = 0 if to.coding is None else to.coding.zero_point
                return View(view.buffer, view.array, NO_BORDER if border == NO_BORDER else view.border, zero)
        return None

    def _is_free(self, view: View, inputs: Iterable[View]) -> bool:
        """Whether nothing in its buffer is read later, nor now in other places than `view` has them."""
        place = view.offset, view.strides
        now = [each for each in inputs if each.buffer is view.buffer and (each.offset, each.strides) != place]
        names = [name for name, each in self.views.items() if each.buffer is view.buffer]
        expanded = any(stride == 0 for n, stride in zip(view.array.shape, view.strides, strict=True) if n > 1)
        return not now and not expanded and all(self.reads.get(name, -1) <= self.at for name in names)

    def _find_whole(self, step: Move) -> View:
        """The buffer of a Concat or Pad, made when its first part is written."""
        name = step.output.name
        if name not in self.views:
            if step.output.name in self.parts:
                view = self._find_place(step.output)
            else:
                border = self.borders.get(name, NO_BORDER)
                view = self.draft.make_view(step.output, "arena", last=name in self.last, border=border)
            if step.kind == "pad":
                self.draft.add(Fill(step.node, view, step.fill))
            self.draft.fill_border(step.node, view, name)
            self.views[name] = view
        return self.views[name]

    # --- what is done ---

    def _place_step(self, step: Step) -> None:
        if isinstance(step, IntegerLayer):
            self._place_integer_layer(step)
            return
        inputs = tuple(self._read(step, i) for i in range(len(step.inputs)))
        windows = inputs[:1] if isinstance(step, CombinedLayer) else ()
        outputs = [self._find_in_place(step, inputs, windows) or self._find_place(step.output)]
        outputs += [self._find_place(tensor) for tensor in step.outputs[1:]]
        for tensor, view in zip(step.outputs, outputs, strict=True):
            self.views.setdefault(tensor.name, view)
            self.draft.fill_border(step.node, view, tensor.name)
        order = self.orders.get(step.inputs[0].name) if isinstance(step, Layer | FloatLayer) else None
        places = [view if _can_write(step, view) else self._make_aside(step, tensor)
                  for tensor, view in zip(step.outputs, outputs, strict=True)]  # fmt: skip
        scratch = self._make_scratch(step)
        if isinstance(step, CombinedLayer):
            scratch = self._make_own_rows(step, inputs[1], places[0])
        self.draft.add(Placed(step, inputs, tuple(places), order, scratch))
        for place, view in zip(places, outputs, strict=True):
            if place is not view:
                self.draft.add(Copy(step.node, place, view))

    def _make_aside(self, step: Step, tensor: Tensor) -> View:
        """A place in one piece, from which what the step wrote is copied to where it belongs."""
        return self.draft.make_view(tensor, "arena", last=isinstance(step, Reduce) and tensor.name in self.last)

    def _place_turns(self, pair: Pair) -> None:
        """Both steps of a pair by turns; the rows between them lie in the same memory in every turn."""
        first, then, tensor = pair.first, pair.then, pair.between
        source = self._read(first, 0)
        given = {n: self._read(then, n) for n, each in enumerate(then.inputs) if each.name != tensor.name}
        target = self._find_in_place(then, given.values()) or self._find_place(then.output)
        self.views.setdefault(then.output.name, target)
        self.draft.fill_border(then.node, target, then.output.name)

        turns = list(cut_turns(pair))
        most = max(turn.between.stop - turn.between.start for turn in turns)
        shape = (*tensor.shape[:ROWS], most, *tensor.shape[ROWS + 1 :])
        rows = self.draft.make_view(replace(tensor, shape=shape), "arena", last=tensor.name in self.last)
        longest = turns[0].then
        own = self._make_own_rows(longest, given[1], target) if isinstance(longest, CombinedLayer) else None
        for turn in turns:
            between = cut_rows(rows, slice(0, turn.between.stop - turn.between.start))
            parts = {first.inputs[0].name: (source.array.shape, turn.read)}
            self.draft.add(Placed(turn.first, (cut_rows(source, turn.read),), (between,), parts=parts))
            inputs = [cut_rows(given[n], turn.written) if n in given else between for n in range(len(then.inputs))]
            parts = {then.inputs[n].name: (view.array.shape, turn.written) for n, view in given.items()}
            parts[then.output.name] = (target.array.shape, turn.written)
            self.draft.add(
                Placed(turn.then, tuple(inputs), (cut_rows(target, turn.written),), scratch=own, parts=parts)
            )

    def _make_own_rows(self, step: CombinedLayer, beside: View, target: View) -> View | None:
        """Some rows of the layer's own bytes, where its result takes the place of what is beside them; else they lie there."""
        if target.buffer is not beside.buffer:
            return None
        shape = list(step.output.shape)
        axis = find_turned_axis(step)
        shape[axis] = min(shape[axis], count_rows(shape[axis], prod(shape[2:]) / shape[axis]))
        return self.draft.make_view(replace(step.between, shape=tuple(shape)), "arena", last=True)

    def _make_scratch(self, step: Step) -> View | None:
        if not step.scratch_bytes:
            return None
        memory = np.empty(-(-step.scratch_bytes // 8), np.int64)  # kernels keep any numbers there
        return View(self.draft.make_buffer("arena", memory, 0), memory)

    def _place_integer_layer(self, step: IntegerLayer) -> None:
        """CMSIS-NN reads and writes tensors in one piece, and its bytes are signed for as long as it runs."""
        tensor, window = step.inputs[0], step.window is not None
        source = self.views[tensor.name]
        if source.buffer.where != "arena" or not is_whole(source, last=window):
            source = self.draft.copy(step.node, tensor, source, last=window)
        target = self._find_place(step.output)
        self.views.setdefault(step.output.name, target)
        whole = target if is_whole(target, last=window) else self.draft.make_view(step.output, "arena", last=window)
        self.draft.add(Placed(step, (source,), (whole,), self.orders.get(tensor.name), self._make_scratch(step)))
        if whole is not target:
            self.draft.fill_border(step.node, target, step.output.name)
            self.draft.add(Copy(step.node, whole, target))

    def _read(self, step: Step, index: int) -> View:
        """The view of an input as the step's kernel can read it; copied where it lies otherwise."""
        tensor = step.inputs[index]
        view = self._place_constant(step, tensor) if tensor.held is not None else self.views[tensor.name]
        if isinstance(step, CombinedLayer) and index == 1:
            return view
        if isinstance(step, Combine | Pointwise | Select):
            extra = max(0, view.array.ndim - len(step.output.shape))  # axes of 1 in front
            return view.reshape_view(np.broadcast_to(view.array.reshape(view.array.shape[extra:]), step.output.shape))
        if isinstance(step, Product):
            shape = (*step.output.shape[:-2], *tensor.shape[-2:])
            return view.reshape_view(np.broadcast_to(view.array, shape))
        if isinstance(step, Normalize | Recurrent) and not view.array.flags.c_contiguous:
            return self.draft.copy(step.node, tensor, view, last=False)
        if isinstance(step, Layer | FloatLayer | Pool | GlobalAverage):
            windowed = not isinstance(step, Layer | FloatLayer) or step.window is not None
            if windowed and len(tensor.shape) > 2:
                border = find_needed_border(step)
                fits = view.strides[1] in (0, 1) and all(a >= b for a, b in zip(view.border, border, strict=True))
                fits = fits and not (isinstance(step, Layer) and _reads_across_gaps(step, view))
                if not fits or (isinstance(step, Layer) and view.buffer.where != "arena"):
                    return self.draft.copy(step.node, tensor, view, last=True, border=border)
                return view
            if not has_even_rows(view) or (isinstance(step, Layer) and view.buffer.where != "arena"):
                return self.draft.copy(step.node, tensor, view, last=False)
        return view

    def _place_constant(self, step: Step, tensor: Tensor) -> View:
        """A constant operand, in the order of what it is combined with."""
        assert tensor.held is not None
        last = step.output.name in self.last and len(tensor.shape) == len(step.output.shape)
        return self.draft.hold(tensor.held, last=last)

    # --- moves ---

    def _place_move(self, step: Move) -> None:
        if step.kind in ("concat", "pad"):
            self._put_together(step)
        elif step.kind == "take":
            self._take(step)
        else:
            self.views[step.output.name] = self._reshape(step)

    def _reshape(self, step: Move) -> View:
        """The input under another shape; a copy where NumPy could not do without one."""
        (tensor,), shape = step.inputs, step.output.shape
        view = self.views[tensor.name]
        array = view.array
        if step.kind == "transpose":
            return view.reshape_view(array.transpose(step.arguments[0]))
        if step.kind == "slice":
            begin, by = step.arguments
            ends = [b + n * s for b, n, s in zip(begin, shape, by, strict=True)]
            index = tuple(slice(b, e if e >= 0 else None, s) for b, e, s in zip(begin, ends, by, strict=True))
            return view.reshape_view(array[index])
        if step.kind == "expand":
            return view.reshape_view(np.broadcast_to(array, shape))
        try:
            return view.reshape_view(np.reshape(array, shape, copy=False))
        except ValueError:
            order = self._flatten(step, view)
            if order is not None:
                self.orders[step.output.name] = order
                at = view.offset // array.itemsize
                return view.reshape_view(view.buffer.memory.reshape(-1)[at : at + array.size].reshape(shape))
            target = self._find_place(step.output)
            try:  # written where it belongs, seen under the shape of the input
                split = np.reshape(target.array, tensor.shape, copy=False)
            except ValueError:
                plain = self.draft.copy(step.node, tensor, view, last=False)
                return plain.reshape_view(plain.array.reshape(shape))
            self.draft.fill_border(step.node, target, step.output.name)
            self.draft.add(Copy(step.node, view, target.reshape_view(split)))
            return target

    def _flatten(self, step: Move, view: View) -> Array | None:
        """The order of the elements in memory, where only dense layers read them: they take their weights in that order."""
        readers = self.readers.get(step.output.name, [])
        dense = readers and all(isinstance(each, Layer | FloatLayer) and each.window is None for each in readers)
        order = sorted(range(view.array.ndim), key=lambda axis: -view.array.strides[axis])
        shown = view.array.transpose(order)
        whole = shown.flags.c_contiguous and view.array.shape[0] == 1
        outputs = {tensor.name for tensor in self.program.outputs}
        if not dense or not whole or step.output.shape != (1, view.array.size) or step.output.name in outputs:
            return None
        return np.arange(view.array.size).reshape(view.array.shape).transpose(order).reshape(-1)

    def _put_together(self, step: Move) -> None:
        """The parts of a Concat or Pad that do not lie there already."""
        outputs = [tensor.name for tensor in self.program.outputs]
        last = step.output.name in self.last and len(step.output.shape) > 2
        if step.output.name in outputs and not last:
            whole = self.draft.make_view(step.output, "output", number=outputs.index(step.output.name))
            if step.kind == "pad":
                self.draft.add(Fill(step.node, whole, step.fill))
            self.views[step.output.name] = whole
        whole = self._find_whole(step)
        for tensor, index in zip(step.inputs, index_parts(step), strict=True):
            if self.parts.get(tensor.name, (None,))[0] is not step:
                view = self._place_constant(step, tensor) if tensor.held is not None else self.views[tensor.name]
                self.draft.add(Copy(step.node, view, View(whole.buffer, whole.array[index])))

    def _take(self, step: Move) -> None:
        tensor = step.inputs[0]
        view = self._place_constant(step, tensor) if tensor.held is not None else self.views[tensor.name]
        target = self._find_place(step.output)
        inputs = [view]
        if step.index is None:
            inputs.append(self.views[step.inputs[1].name])
            if not view.array.flags.c_contiguous:
                inputs[0] = self.draft.copy(step.node, tensor, view, last=False)
        self.views[step.output.name] = target
        self.draft.fill_border(step.node, target, step.output.name)
        self.draft.add(Placed(step, tuple(inputs), (target,)))


def _can_write(step: Step, view: View) -> bool:
    """Whether a step's kernel writes there: some write in one piece, dense layers row after row."""
    if isinstance(step, Reduce):  # its sums lie side by side until they are whole
        return lies_in_one_piece(view)
    if isinstance(step, Normalize | Recurrent):
        return view.array.flags.c_contiguous
    return not isinstance(step, Layer | FloatLayer) or step.window is not None or has_even_rows(view)


def _reads_across_gaps(step: Layer, view: View) -> bool:
    """Whether weights of more than 8 bits, whose rows are read once for each part, meet pixels with others' bytes between."""
    wide = step.window is not None and step.window.kernel[-1] > 1 and step.weight.dtype != np.int8
    return wide and view.array.strides[-1] != view.array.shape[1] * view.array.itemsize
