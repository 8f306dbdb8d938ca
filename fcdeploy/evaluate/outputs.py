"""What an output means: classes, a text, a map, an embedding, or numbers of no decision; read from the graph, then from data.

| the graph ends in | output | it is | equal decisions are |
|---|---|---|---|
| Softmax, LogSoftmax | any | scores of classes along the axis of the Softmax | equal arg max |
| the same, or a dense layer | (n, steps, classes), one class at most steps | a text by CTC | equal texts |
| the same, beside boxes (n, steps, 4) | as a text | scores of anchors | F1 of anchors that are not background |
| Sigmoid, HardSigmoid | one number a sample | a probability | the same side of one half |
| Sigmoid, HardSigmoid | many | a map of probabilities | overlap of what is above one half |
| a dense layer | (n, classes) | logits of classes | equal arg max |
| a convolution | (n, classes, ...) | logits of classes at every position | equal arg max |
| integers | any | decisions as they are | equal numbers |
| a norm that each row is divided by | (n, k) | an embedding | none |
| anything else | any | numbers | none |

What may be moved about behind these (Reshape, Transpose, ...) is looked through.  Logits are told from other numbers by what
the float model answers: a class stands out (`stands_out`), and it is not always the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.decision import Decision, squeeze
from fcdeploy.evaluate.detections import Detections, find_detections
from fcdeploy.graph.nodes import (  # fmt: skip
    attribute_of,
    input_of,
    ints_of,
    is_constant,
    is_op,
    name_of,
    output_axis,
    producer_of,
    rank_of,
    subgraphs_of,
    weight_of,
)

MOVED = (
    "Identity",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Reshape",
    "Flatten",
    "QuantizeLinear",
    "DequantizeLinear",
)
SELECTS = ("NonMaxSuppression", "TopK", "NonZero", "Compress", "Unique")
UP_TO_ONE = ("Sigmoid", "HardSigmoid")
BETWEEN = ("ReduceMean", "ReduceMax", "ReduceMin", "AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool")
SUM_TO_ONE = ("Softmax", "LogSoftmax")
LAYERS = ("Gemm", "MatMul", "Conv", "ConvTranspose")
Kind = Literal["softmax", "sigmoid", "dense", "convolution", "embedding", "other"]
MANY_CLASSES = 64  # an output of fewer numbers a sample, straight from a dense layer, is taken for logits unseen
STANDS_OUT = 0.5  # standard deviations of a row between its two largest numbers, at least; 0.22 for 512 random ones
MORE_THAN_RANDOM = 1.25  # times what they are of as many random numbers: 0.85 of 4, 0.47 of 10
NEAR = 0.25  # of the usual gap: nearer are 13 to 16 % of rows of random numbers, however many stand in a row
FEW_NEAR = 0.08  # of rows, where a class was learnt: 0 to 6 % of most trained networks
ENOUGH_ROWS = 256  # to tell such shares from each other
BLANK = 0.4  # of the steps of a text by CTC: its most frequent class is the blank between letters
STEPS = 8  # a text by CTC has more steps than letters


@dataclass(frozen=True)
class OutputEnd:
    """What the graph says of an output: the operator that makes its numbers, and the axis of classes if it has one.

    `selected`: which rows it has, and how many, depends on values.
    """

    kind: Kind
    axis: int | None = None
    selected: bool = False


@dataclass(frozen=True)
class OutputsRead:
    """What the outputs of a model are, in words; how they decide, by those that do; which of them are boxes found."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    detections: Detections | None = None

    def decide_as(self, output: str, decision: Decision | None) -> OutputsRead:
        """The same with an output that decides as its labels say."""
        others = {name: each for name, each in self.decisions.items() if name != output}
        return replace(self, decisions=others if decision is None else {output: decision, **others})


def read_outputs(outputs: Arrays, ends: Mapping[str, OutputEnd]) -> OutputsRead:
    """What outputs are, from the graph and the float model's first answers (n, ...)."""
    found = find_detections(outputs, [name for name in outputs if name in ends and ends[name].selected])
    kinds, decisions = dict[str, str](), dict[str, Decision]()
    for name, output in outputs.items():
        if found is not None and name in found.names:
            kinds[name] = "boxes found" if name == found.boxes else "of boxes found"
            continue
        end = ends.get(name, OutputEnd("other"))
        decision = decide_by(output, end)
        if decision is not None and decision.blank is not None and _has_boxes(outputs, output):
            decision = Decision(decision.axis, decision.classes, sparse=True, background=decision.blank)
        kinds[name] = describe_output(output, end, decision)
        if decision is not None:
            decisions[name] = decision
    return OutputsRead(kinds, decisions, found)


def find_ends(model: ir.Model) -> dict[str, OutputEnd]:
    """What makes the numbers of each output."""
    return {name_of(value): replace(_find_end(value), selected=_is_selected(value)) for value in model.graph.outputs}


def decide_by(output: Array, end: OutputEnd) -> Decision | None:
    """How an output (n, ...) of the float model decides; None where it does not."""
    if output.dtype.kind in "biu":
        return Decision(None, None, rows=end.selected and output.ndim > 1)
    if output.dtype.kind != "f" or output.ndim == 0 or output.size == 0:
        return None
    if end.kind == "sigmoid":
        return Decision(None, 2, 0.5, sparse=output.size > len(output))
    squeezed = squeeze(output)
    if squeezed.ndim < 2 or end.axis is None or not 0 < end.axis < squeezed.ndim or squeezed.shape[end.axis] < 2:
        return None
    decision = Decision(end.axis, squeezed.shape[end.axis])
    if end.kind == "softmax" or (end.kind == "dense" and squeezed.ndim == 2 and squeezed.shape[1] < MANY_CLASSES):
        return _as_text(squeezed, decision)
    if end.kind in ("dense", "convolution") and stands_out(squeezed, end.axis):
        return _as_text(squeezed, decision)
    return None


def describe_output(output: Array, end: OutputEnd, decision: Decision | None) -> str:
    """What an output (n, ...) is, in a few words."""
    if decision is None:
        return "embedding" if end.kind == "embedding" else "numbers that decide nothing"
    if decision.blank is not None:
        return f"text by CTC of {(decision.classes or 1) - 1} letters"
    if decision.background is not None:
        return f"scores of {decision.classes} classes, one of them background, at every anchor"
    if decision.axis is None:
        if decision.threshold is None:
            return "integers"
        return "map of probabilities" if decision.sparse else "probability"
    if squeeze(output).ndim == 2:
        return f"scores of {decision.classes} classes"
    return f"{'map' if output.ndim > 3 else 'sequence'} of {decision.classes} classes"


def _has_boxes(outputs: Arrays, scores: Array) -> bool:
    """Whether another output has four numbers for each position of scores (n, positions, classes): a detector's boxes."""
    wanted = (*scores.shape[:2], 4)
    return any(other is not scores and other.dtype.kind == "f" and other.shape == wanted for other in outputs.values())


def stands_out(output: Array, axis: int) -> bool:
    """Whether rows along an axis look like scores of classes: one stands out, and not everywhere the same.

    By how far the first of a row is above the second, and, since of two numbers that tells nothing, by how seldom it is near.
    """
    rows = np.moveaxis(np.asarray(output, np.float64), axis, -1).reshape(-1, output.shape[axis])
    rows = rows[:: max(1, len(rows) // 4096)]
    if len(np.unique(rows.argmax(axis=1))) == 1 and len(rows) > 1:
        return False
    gaps, relative = _measure_gaps(rows)
    random = _measure_gaps(np.random.default_rng(0).normal(size=(512, rows.shape[1])))[1]
    if relative > max(STANDS_OUT, MORE_THAN_RANDOM * random):
        return True
    return len(rows) >= ENOUGH_ROWS and bool(np.mean(gaps < NEAR * np.median(gaps)) < FEW_NEAR)


def _measure_gaps(rows: Float64) -> tuple[Float64, float]:
    """How far the largest number of each row is above the next, and what that is in deviations of a row, by the median."""
    two = np.partition(rows, -2, axis=1)[:, -2:]
    gaps = two[:, 1] - two[:, 0]
    return gaps, float(np.median(gaps / np.maximum(rows.std(axis=1), 1e-30)))


def _as_text(output: Array, decision: Decision) -> Decision:
    """A decision a step, of more steps than one could read without a class for the pauses, is a text by CTC."""
    if output.ndim != 3 or decision.axis != 2 or output.shape[1] < STEPS or decision.classes is None:
        return decision
    counts = np.bincount(decision(output).reshape(-1), minlength=decision.classes)
    blank = int(counts.argmax())
    if counts[blank] < BLANK * counts.sum() or blank not in (0, decision.classes - 1):
        return decision
    return Decision(decision.axis, decision.classes, blank=blank)


def _find_end(value: ir.Value) -> OutputEnd:
    """Walks back over what moves numbers, to what makes them; the axis of classes is followed on the way."""
    moved: list[ir.Node] = []
    node = producer_of(value)
    while node is not None and (is_op(node, *MOVED, *BETWEEN) or _adds_constant(node)):
        moved.append(node)
        node = producer_of(_data_of(node))
    if node is None:
        return OutputEnd("other")
    if is_op(node, "If"):
        return _find_end_in_bodies(node, _data_of(moved[-1]) if moved else value, moved)
    if is_op(node, *UP_TO_ONE):  # a mean of shares is one
        return OutputEnd("other" if any(map(_adds_constant, moved)) else "sigmoid")
    if any(is_op(step, *BETWEEN) for step in moved):
        return OutputEnd("other")
    if _is_normalized(node):
        return OutputEnd("embedding")
    axis, classes = _class_axis(node)
    if axis is None:
        return OutputEnd("other")
    for step in reversed(moved):
        axis = _follow(step, axis, classes)
        if axis is None:
            return OutputEnd("other")
    kind: Kind = "softmax" if is_op(node, *SUM_TO_ONE) else "convolution" if "Conv" in node.op_type else "dense"
    return OutputEnd(kind, axis)


def _find_end_in_bodies(node: ir.Node, output: ir.Value | None, moved: list[ir.Node]) -> OutputEnd:
    """What both bodies of an If say of an output of it, where only its axes stay as they are behind it."""
    at = next(i for i, each in enumerate(node.outputs) if each is output)
    ends = {_find_end(body.outputs[at]) for body in subgraphs_of(node)}
    plain = not any(_adds_constant(step) or is_op(step, "Transpose", "Reshape") for step in moved)
    return ends.pop() if len(ends) == 1 and plain else OutputEnd("other")


def _is_selected(value: ir.Value) -> bool:
    """Whether a node before an output picks rows by their values."""
    todo, seen = [producer_of(value)], set[ir.Node]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if is_op(node, *SELECTS):
            return True
        seen.add(node)
        todo += [producer_of(read) for read in node.inputs]
    return False


def _adds_constant(node: ir.Node) -> bool:
    """An Add of a bias, or a Mul or Div by one positive number, which change no order of scores for the first."""
    return is_op(node, "Add", "Mul", "Div") and any(is_constant(value) for value in node.inputs)


def _data_of(node: ir.Node) -> ir.Value | None:
    """What a node moves or adds a constant to."""
    return next((value for value in node.inputs if not is_constant(value)), None)


def _weight_of(node: ir.Node) -> ir.Value | None:
    """The constant weight of a layer, stored as floats or as integers."""
    stored = producer_of(input_of(node, 1))
    if is_op(stored, "DequantizeLinear"):
        assert stored is not None
        return stored.inputs[0] if is_constant(stored.inputs[0]) else None
    return weight_of(node)


def _class_axis(node: ir.Node) -> tuple[int | None, int | None]:
    """The axis of classes of a node's output, and how many there are if that is known."""
    rank = rank_of(node.outputs[0])
    weight = _weight_of(node)
    if is_op(node, *SUM_TO_ONE):
        axis = attribute_of(node, "axis", -1)
        axis = axis + rank if axis < 0 and rank is not None else axis
        length = None if rank is None or not 0 <= axis < rank else node.outputs[0].shape[axis]  # type: ignore[index]
        return (axis if axis >= 0 else None), length if isinstance(length, int) else None
    if is_op(node, "Conv", "ConvTranspose") and weight is not None and weight.shape is not None:
        length = weight.shape[0 if node.op_type == "Conv" else 1]
        return 1, length if isinstance(length, int) else None
    if is_op(node, "Gemm", "MatMul") and weight is not None and weight.shape is not None:
        length = weight.shape[output_axis(node)]
        read = rank_of(node.inputs[0]) if node.op_type == "MatMul" else 2
        return (None if read is None else read - 1), length if isinstance(length, int) else None
    return None, None


def _follow(node: ir.Node, axis: int, classes: int | None) -> int | None:
    """Where an axis of a node's input is in its output; None where that is not certain."""
    rank = rank_of(node.outputs[0])
    if is_op(node, "Transpose"):
        permutation = attribute_of(node, "perm", ())
        return permutation.index(axis) if axis in permutation else None
    if is_op(node, "Squeeze", "Unsqueeze"):
        axes = ints_of(node, "axes", 1)
        if not axes or rank is None:
            return None
        if is_op(node, "Squeeze"):
            gone = {a % (rank + len(axes)) for a in axes}
            return None if axis in gone else axis - sum(a < axis for a in gone)
        new = {a % rank for a in axes}
        return [a for a in range(rank) if a not in new][axis]
    if is_op(node, "Reshape", "Flatten"):
        shape = node.outputs[0].shape
        places = [at for at, length in enumerate(shape or ()) if at and length == classes]
        return places[0] if classes and len(places) == 1 else None
    return axis


def _is_normalized(node: ir.Node) -> bool:
    """A row divided by its own norm."""
    if is_op(node, "LpNormalization"):
        return True
    below = producer_of(node.inputs[1]) if is_op(node, "Div") and len(node.inputs) == 2 else None
    while is_op(below, "Clip", "Max", "Expand", "Sqrt", "Add", "Unsqueeze"):
        assert below is not None
        below = producer_of(_data_of(below))
    return is_op(below, "ReduceL2", "ReduceSumSquare", "ReduceSum") and not is_constant(node.inputs[1])
