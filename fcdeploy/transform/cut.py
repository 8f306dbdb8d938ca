"""Where a model can be cut in two with one tensor between the halves, what each cut costs, and the halves.

Cut at a tensor t, the first half is what t is computed from.  That works when no other tensor of the first half, no
input and no constant aside, is read outside of it: a shortcut around t would have to cross as well.  Such cuts form a
chain.  Of cuts that differ in nodes that cost nothing (a clip, a reshape, a quantization), the one with the fewest bytes
to send stands for all: in an int8 model that is the integer tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import (
    array_of,
    describe,
    find_constants,
    input_of,
    is_op,
    name_of,
    producer_of,
    static_shape,
    values_read_by,
)
from fcdeploy.prepare import activation_memory, cost_model
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records import fingerprints
from fcdeploy.records.signature import TensorSpec

KEY = "fcdeploy.split"
FREE = activation_memory.CONVERSIONS | activation_memory.CLIPS | activation_memory.VIEWS


@dataclass(frozen=True)
class Cut:
    """A cut behind a node: the tensor that crosses, and what the first half takes, in bytes and for a batch of one."""

    node: str
    op: str
    tensor: str
    dtype: str
    shape: tuple[int, ...] | None
    bytes: int | None
    weights: int
    activations: int | None
    macs: int | None

    @property
    def memory(self) -> int | None:
        return None if self.activations is None else self.weights + self.activations


def fix_shapes(model: ir.Model, sizes: Sequence[TensorSpec]) -> ir.Model:
    """A copy with inputs of these sizes but a batch of one, and all shapes inferred from that; dead nodes are gone."""
    copy = model.clone()
    remove_unused(copy)
    lengths = {spec.name: spec.shape for spec in sizes}
    for value in copy.graph.inputs:
        if value.shape is not None and len(value.shape) and value.name in lengths:
            value.shape = ir.Shape([value.shape[0], *lengths[value.name][1:]])
    cost_model.fix_leading_axis(copy)
    return copy


class Cuts:
    """All cuts of a model whose shapes are fixed, in order, and for every node the reason why it has none."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        graph = model.graph
        self._constant = find_constants(graph)
        self._nodes = [node for node in graph if not all(value in self._constant for value in node.outputs)]
        self._index = {node: index for index, node in enumerate(self._nodes)}
        self._before: list[int] = []  # of each node the set of nodes it is computed from, itself too, as bits
        for index, node in enumerate(self._nodes):
            makers = (value.producer() for value in values_read_by(node))
            earlier = (self._before[self._index[maker]] for maker in makers if maker in self._index)
            self._before.append(_unite(earlier) | 1 << index)
        self._readers: dict[ir.Value, int] = {}  # of each value, as bits
        for index, node in enumerate(self._nodes):
            for value in values_read_by(node):
                self._readers[value] = self._readers.get(value, 0) | 1 << index

        # of cuts with the same layers before them, the one with the fewest bytes to send
        self._layers = _unite(1 << i for i, node in enumerate(self._nodes) if node.op_type not in FREE)
        self._best: dict[int, ir.Value] = {}
        for node in self._nodes:
            layers = self._before[self._index[node]] & self._layers
            if layers in (0, self._layers):
                continue
            for value in node.outputs:
                better = layers not in self._best or _size_of(value) <= _size_of(self._best[layers])
                if better and value.name and self._crosses_alone(value):
                    self._best[layers] = value

    def _crosses_alone(self, value: ir.Value) -> bool:
        """Whether nothing but `value` is read behind it of all that is computed, or given, before."""
        first = self._before[self._place(value)]
        made = [other for i, node in enumerate(self._nodes) if first >> i & 1 for other in node.outputs]
        read = _unite(self._readers.get(other, 0) for other in (*made, *self.model.graph.inputs) if other is not value)
        later = {node for index, node in enumerate(self._nodes) if not first >> index & 1}
        return not read & ~first and all(output.producer() in later for output in self.model.graph.outputs)

    def all(self) -> list[Cut]:
        """Every cut there is, from the input to the output."""
        copy, cuts = self.model.clone(), []
        for value in sorted(
            self._best.values(), key=self._place, reverse=True
        ):  # each first half holds those before it
            _keep_first_half(copy, name_of(value))
            cuts.append(self._describe(value, copy))
        return cuts[::-1]

    def why_none(self) -> str:
        """For a model without any cut, what prevents the first."""
        reasons = ((node.name, self._crosses(node.outputs[0])) for node in self._nodes)
        return next((f"behind {name!r} {reason}" for name, reason in reasons if reason), "it has one layer")

    def at(self, name: str) -> Cut:
        """The cut behind the node of this name, and behind what costs nothing after it. Raises FcdeployError."""
        node = next((node for node in self._nodes if node.name == name), None)
        names = [self._cut_name(value) for value in sorted(self._best.values(), key=self._place)]
        hint = f"cuts there are: {', '.join(map(repr, names)) or 'none'}"
        if node is None:
            raise FcdeployError(f"no node of the model is called {name!r}", hint)
        layers = self._before[self._index[node]] & self._layers
        if layers in self._best:
            value = self._best[layers]
            return self._describe(value, extract_first_half(self.model, name_of(value)))
        if layers == self._layers:
            reason = "everything would be in the first half"
        elif not layers:
            reason = "nothing would be in the first half"
        else:
            reason = self._crosses(node.outputs[0])
        raise FcdeployError(f"the model cannot be cut behind {name!r}: {reason}", hint)

    def _crosses(self, value: ir.Value) -> str:
        """What else would have to cross with `value`; empty when nothing would."""
        producer = value.producer()
        assert producer is not None
        first = self._before[self._index[producer]]
        if value.is_graph_output():
            return f"{value.name!r} is an output of the model itself"
        outside = [node for index, node in enumerate(self._nodes) if not first >> index & 1]
        for node in outside:
            for read in values_read_by(node):
                maker = read.producer()
                inner = maker in self._index and first >> self._index[maker] & 1
                given = read in self.model.graph.inputs  # and not one that a Loop or Scan gives its body
                if read is not value and read not in self._constant and (inner or given):
                    return f"{read.name!r} would have to cross as well, which {describe(node)} reads"
        early = [out.name for out in self.model.graph.outputs if out.producer() not in outside]
        return f"output {early[0]!r} is computed before" if early else ""

    def _place(self, value: ir.Value) -> int:
        producer = value.producer()
        assert producer is not None
        return self._index[producer]

    def _cut_name(self, value: ir.Value) -> str:
        """The last layer before the cut: behind it only what costs nothing."""
        node = value.producer()
        while node is not None and node.op_type in FREE:
            source = node.inputs[0]
            node = producer_of(source)
        assert node is not None
        return name_of(node)

    def _describe(self, value: ir.Value, first: ir.Model) -> Cut:
        name = self._cut_name(value)
        macs = [layer.macs for layer in cost_model.list_layer_costs(first)]
        shape = static_shape(value)
        return Cut(
            node=name,
            op=next(node.op_type for node in self._nodes if node.name == name),
            tensor=name_of(value),
            dtype=str(value.dtype.numpy()) if value.dtype else "float32",
            shape=shape,
            bytes=None if shape is None else _size_of(value),
            weights=cost_model.weight_bytes(first),
            activations=activation_memory.measure_peak(first),
            macs=None if None in macs else sum(one for one in macs if one is not None),
        )


def leave_out_idle(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts whose first half multiplies something; all of them where none does."""
    return [cut for cut in cuts if cut.macs != 0] or list(cuts)


def extract_first_half(model: ir.Model, tensor: str) -> ir.Model:
    """A copy of what `tensor` is computed from, which is its only output."""
    copy = model.clone()
    _keep_first_half(copy, tensor)
    return copy


def _keep_first_half(model: ir.Model, tensor: str) -> None:
    model.graph.outputs[:] = [_find_value(model, tensor)]
    remove_unused(model)


def extract_second_half(model: ir.Model, tensor: str) -> ir.Model:
    """A copy of what is computed from `tensor`, which is its only input."""
    copy = model.clone()
    value = _find_value(copy, tensor)
    value.replace_all_uses_with(given := ir.Value(name=tensor, shape=value.shape, type=value.type))
    remove_unused(copy)
    copy.graph.inputs[:] = [given]
    copy.metadata_props.pop(fingerprints.KEY, None)  # hashes of samples that only the first half sees
    return copy


def split_model(model: ir.Model, cut: Cut, of: str) -> tuple[ir.Model, ir.Model]:
    """Both halves, each with the tensor between them, its scale and zero point, in its metadata; `of` is a hash."""
    first, second = extract_first_half(model, cut.tensor), extract_second_half(model, cut.tensor)
    known = model.clone()
    infer_shapes(known)
    said = _find_value(known, cut.tensor).shape
    lengths: list[Any] = list(said) if said is not None else list(cut.shape or ())
    if lengths and said is None:
        lengths[0] = None  # what was found is for a batch of one
    for value in (first.graph.outputs[0], second.graph.inputs[0]):
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(cut.dtype)))
        value.shape = ir.Shape(lengths) if said is not None or cut.shape is not None else None
    scale, zero = quantization_of(model, cut.tensor)
    for number, half in enumerate((first, second), start=1):
        about = {"half": number, "of": of, "tensor": cut.tensor, "dtype": cut.dtype, "scale": scale, "zero_point": zero}
        half.metadata_props[KEY] = json.dumps(about)
    return first, second


def quantization_of(model: ir.Model, tensor: str) -> tuple[float | None, int | None]:
    """Scale and zero point that a tensor of integers is written or read with; None for floats."""
    value = _find_value(model, tensor)
    maker = value.producer()
    around = [maker] if is_op(maker, "QuantizeLinear") else list(value.consumers())
    for node in around:
        if node is not None and is_op(node, *activation_memory.CONVERSIONS):
            scale, zero = array_of(input_of(node, 1)), array_of(input_of(node, 2))
            if scale is not None and scale.size == 1:
                return float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0])
    return None, None


def _find_value(model: ir.Model, name: str) -> ir.Value:
    return next(value for node in model.graph for value in node.outputs if value.name == name)


def _unite(parts: Iterable[int]) -> int:
    union = 0
    for part in parts:
        union |= part
    return union


def _size_of(value: ir.Value) -> int:
    """Bytes of a tensor; one of unknown shape is larger than all others."""
    shape = static_shape(value)
    return 1 << 62 if shape is None else prod(shape) * int(value.dtype.itemsize if value.dtype else 4)
