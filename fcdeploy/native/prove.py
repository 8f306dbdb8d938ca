"""Does native code compute what the program says, and what onnxruntime computes?  Run here, before anything is in place.

Every step is run by itself on what the steps before it wrote, and compared with the same step in NumPy
(`interpret.py`): bytes must be equal, floats within 1e-5 of what `find_scale` says; and what it reads must be what was written,
moved as the program says.  Then whole samples: every level against the
first, bit for bit, and the first against onnxruntime, where rounding ties may differ; where they add up, `stretches.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.bundles.golden import DIFFERENT, OutputDifference, compare
from fcdeploy.native.build import Built
from fcdeploy.native.placing.views import View
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.interpret import compute
from fcdeploy.native.program.layers import FloatLayer, Recurrent
from fcdeploy.native.program.steps import Normalize, Pointwise, Step
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.stretches import StretchProof
from fcdeploy.runtime.native_library import NativeModel

AS_IT_IS, IN_32_BITS, UNOPTIMIZED = "as it is", "adding in 32 bits", "without optimization"
"""Ways to run onnxruntime: what it makes of a file is not always what the file says."""

CLOSE = 1e-5
LEAST = 1e-32  # below it float32 has too few bits left for a relative error
CANCELLING = ("Cos", "Gelu", "GeluTanh", "HardSigmoid", "HardSwish", "Mish", "Pow", "Sin", "Softplus", "Swish")
"""Functions near whose zeros float32 cancels, or keeps fewer bits."""


@dataclass(frozen=True)
class StepProof:
    """One step over all samples: elements, how many differ from the reference, and by how much at most.

    Of bytes the difference is in levels; of floats it is relative (`find_scale`), and those within 1e-5 do not differ.
    """

    node: str
    what: str
    elements: int
    differ: int
    largest: float
    floats: bool


@dataclass(frozen=True)
class Proof:
    """Steps against exact arithmetic, levels against each other, outputs against onnxruntime.

    `unequal` are levels that gave other bits than the first of `levels`.  `runtime`: the way in which onnxruntime came
    closest, of those that it was asked in.  `stretches`: of outputs that differ by more than ties
    of one layer, what the file comes to that is cut at its bytes.
    """

    steps: tuple[StepProof, ...]
    levels: tuple[str, ...]
    unequal: tuple[str, ...]
    outputs: tuple[OutputDifference, ...]
    runtime: str
    samples: int
    stretches: StretchProof | None = None

    @property
    def exact(self) -> bool:
        return not any(step.differ for step in self.steps) and not self.unequal

    @property
    def passed(self) -> bool:
        ties = not self.differs or (self.stretches is not None and self.stretches.passed)
        return self.samples > 0 and self.exact and ties

    @property
    def differs(self) -> bool:
        """Whether an output differs from onnxruntime's by more than ties of the last layers."""
        return any(output.kind == DIFFERENT for output in self.outputs)


def prove(
    built: Built,
    models: Sequence[NativeModel],
    samples: Sequence[Arrays],
    runtimes: Mapping[str, Callable[[Arrays], Arrays]],
) -> Proof:
    """`models` are the levels that this CPU has, best first; `runtimes` are ways to run onnxruntime, as it is first."""
    steps = _merge([row for sample in samples for row in _SampleRun(built, models[0], sample).prove()])
    answers = [models[0].run(sample) for sample in samples]
    unequal = []
    for model in models[1:]:
        same = all(
            np.array_equal(_view_bits(value), _view_bits(answer[name]))
            for sample, answer in zip(samples, answers, strict=True)
            for name, value in model.run(sample).items()
        )
        unequal += [] if same else [model.level]
    closest = ""
    outputs: list[OutputDifference] = []
    for way, runtime in runtimes.items():
        different, differ = _rank(outputs)
        if closest and not (different if way == UNOPTIMIZED else differ):
            continue
        found = compare([(sample, runtime(sample)) for sample in samples], models[0].run)
        if not closest or _rank(found) < (different, differ):
            outputs, closest = found, way
    levels = tuple(model.level for model in models)
    return Proof(tuple(steps), levels, tuple(unequal), tuple(outputs), closest, len(samples))


def _rank(outputs: Sequence[OutputDifference]) -> tuple[int, int]:
    """How many outputs differ by more than ties, and how many elements by anything: less is better."""
    return sum(output.kind == DIFFERENT for output in outputs), sum(output.differ for output in outputs)


Part = tuple[tuple[int, ...], slice]
"""The shape of a tensor, and the rows of it that a step reads or writes."""


class _SampleRun:
    """One sample, run step after step: what lies where now, and what every tensor has to be after what was written so far."""

    def __init__(self, built: Built, model: NativeModel, sample: Arrays) -> None:
        self.built, self.model = built, model
        self.inputs = [np.ascontiguousarray(sample[name]) for name in model.inputs]
        self.outputs = [np.zeros(shape, dtype) for dtype, shape in model.outputs.values()]
        self._values = dict(zip((tensor.name for tensor in built.program.inputs), self.inputs, strict=True))
        self._makers = {tensor.name: step for step in built.program.steps for tensor in step.outputs}

    def prove(self) -> list[StepProof]:
        rows = []
        for number, work in enumerate(self.built.layout.work):
            given = [self._read_view(view) for view in work.inputs] if isinstance(work, Placed) else []
            self.model.run_steps(number, number + 1, self.inputs, self.outputs)
            if isinstance(work, Placed):
                rows += self._prove_step(work, given)
        for tensor, value in zip(self.built.program.outputs, self.outputs, strict=True):
            rows += self._compare_moved("", "the outputs", tensor, value)
        return rows

    def _prove_step(self, work: Placed, given: list[Array]) -> list[StepProof]:
        step = work.step
        if work.order is not None:  # a dense layer that takes its input as it lies
            given[0] = _undo_order(given[0], work.order)
        rows = []
        for tensor, value in zip(step.inputs, given, strict=True):
            rows += self._compare_moved(step.node, step.what(), tensor, value, work.parts.get(tensor.name))
        for tensor, view, expected in zip(step.outputs, work.outputs, compute(step, given), strict=True):
            got = self._read_view(view)
            self._keep(tensor, got, work.parts.get(tensor.name))
            scale = find_scale(step, given, expected)
            rows.append(_make_row(step.node, f"{step.what()} -> {tensor.name}", got, expected, scale))
        return rows

    def _keep(self, tensor: Tensor, got: Array, part: Part | None) -> None:
        """What was written: all of a tensor, or some rows of it.  Of one that is never there as a whole, the last rows."""
        if part is None:
            self._values[tensor.name] = got
        else:
            shape, rows = part
            self._values.setdefault(tensor.name, np.zeros(shape, got.dtype))[:, :, rows] = got

    def _compare_moved(
        self, node: str, what: str, tensor: Tensor, got: Array, part: Part | None = None
    ) -> list[StepProof]:
        """A row where a tensor is not what was written, moved as the program says: copies and places are no steps."""
        shape, rows = part or (got.shape, slice(None))
        whole = np.broadcast_to(self._find_value(tensor), shape)
        expected = whole if part is None else whole[:, :, rows]
        differ = int(np.count_nonzero((got != expected) & ~((got != got) & (expected != expected))))
        said = f"{what} <- {tensor.name}"
        return [StepProof(node, said, got.size, differ, inf, got.dtype.kind == "f")] if differ else []

    def _find_value(self, tensor: Tensor) -> Array:
        if tensor.held is not None:
            return tensor.held
        if tensor.name not in self._values:
            step = self._makers[tensor.name]
            moved = compute(step, [self._find_value(each) for each in step.inputs])
            self._values.update(zip((each.name for each in step.outputs), moved, strict=True))
        return self._values[tensor.name]

    def _read_view(self, view: View) -> Array:
        """What lies in a view now, as a copy."""
        where, number = view.buffer.where, view.buffer.number
        if where == "constant":
            assert view.buffer.data is not None
            memory = view.buffer.data.view(np.uint8).reshape(-1)
        elif where == "arena":
            memory = self.model.arena[self.built.offsets[number] :][: view.buffer.nbytes]
        else:
            memory = (self.inputs if where == "input" else self.outputs)[number].view(np.uint8).reshape(-1)
        array = view.array
        elements = memory.view(array.dtype)[view.offset // array.itemsize :]
        return np.lib.stride_tricks.as_strided(elements, array.shape, array.strides).copy()


def find_scale(step: Step, given: Sequence[Array], expected: Array) -> Array | float:
    """What an error of floats is measured by: the largest of them, or less where an element, or a channel, is smaller.

    A function that keeps its relative accuracy is held to each of its results, a sum of products to what its channel's
    weights can make of the largest input: tiny channels beside large ones are not excused by these. States of an LSTM or
    GRU are held to what gates are.
    """
    if expected.dtype.kind != "f":
        return 1.0
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)) or 1.0
    own: Array | float = largest
    if isinstance(step, Pointwise) and step.kind not in CANCELLING:
        own = np.maximum(np.abs(expected.astype(np.float64)), LEAST)
    elif isinstance(step, FloatLayer):
        weights = np.abs(step.weight.astype(np.float64)).reshape(len(step.weight), -1).sum(axis=1)
        reach = weights * float(np.abs(given[0]).max(initial=0.0)) + np.abs(step.bias) + LEAST
        own = reach if step.window is None else reach.reshape(-1, *[1] * (expected.ndim - 2))
    elif isinstance(step, Recurrent):
        return max(1.0, largest)  # states are made of gates between 0 and 1, however small they are together
    elif isinstance(step, Normalize):
        own = np.abs(step.gain.astype(np.float64)) * np.sqrt(step.length) + np.abs(step.shift) + LEAST
        own = np.broadcast_to(own, (expected.size // step.length, step.length)).reshape(expected.shape)
    return np.minimum(largest, np.where(np.isfinite(own), own, largest))


def _undo_order(x: Array, order: Array) -> Array:
    """The elements of the last axis as the program counts them."""
    plain = np.empty_like(x)
    plain[..., order] = x
    return plain


def _make_row(node: str, what: str, got: Array, expected: Array, scale: Array | float) -> StepProof:
    if got.dtype.kind != "f":
        apart = np.abs(got.astype(np.int64) - expected.astype(np.int64))
        return StepProof(node, what, got.size, int(np.count_nonzero(apart)), float(apart.max(initial=0)), floats=False)
    with np.errstate(invalid="ignore"):
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        away = np.where(same, 0.0, np.abs(got.astype(np.float64) - expected))
    relative = away / scale
    differ, most = int(np.count_nonzero(~(relative <= CLOSE))), float(relative.max(initial=0.0))
    return StepProof(node, what, got.size, differ, most, floats=True)


def _merge(rows: Sequence[StepProof]) -> list[StepProof]:
    """The rows of several samples, one for each step."""
    merged: dict[tuple[str, str], StepProof] = {}
    for row in rows:
        key = row.node, row.what
        before = merged.get(key, StepProof(row.node, row.what, 0, 0, 0.0, row.floats))
        merged[key] = StepProof(
            row.node,
            row.what,
            before.elements + row.elements,
            before.differ + row.differ,
            max(before.largest, row.largest),
            row.floats,
        )
    return list(merged.values())


def _view_bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.uint8)
