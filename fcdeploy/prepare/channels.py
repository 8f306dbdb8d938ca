"""Which channels have one scale: through a network, a factor on one must appear on all of them, and cancels in the layers.

    W2 f(W1 x + b)  =  (W2 S) f(S^-1 W1 x + S^-1 b)      S diagonal, S > 0, where f(y / s) = f(y) / s channel by channel

Every channel (index of axis 1) of every activation gets an identity.  What keeps channels apart and is homogeneous (Relu,
PRelu, pooling, Slice and Pad, Concat, Min or Add with a constant for each channel) passes identities on, sums make those
of their operands one, and what is multiplied by constants starts new ones: a layer, a Mul by a constant for each channel,
the scale of a normalization.  What a gate lets through (squeeze-excitation) keeps its channels, and the gate its scale.  A
channel of the graph's inputs and outputs, or one that anything else reads or writes (a Clip at 6, a Sigmoid), is pinned:
its scale must stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Float64
from fcdeploy.graph.edit import Edits
from fcdeploy.graph.nodes import array_of, attribute_of, input_of, ints_of, is_constant, is_op, rank_of, tensor_of
from fcdeploy.prepare.channel_constants import FOLLOWING, STARTING, divide_constants, find_vectors
from fcdeploy.prepare.linear_layers import (
    LinearLayer,
    channels_of,
    is_layer,
    read_layer,
    scale_inputs,
    scale_outputs,
    why_unrepresentable,
    write_layer,
)

Ids = NDArray[np.intp]
HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
JOINING = ("Add", "Sub", "Max", "Min", "Sum")
MOST_CHANNELS = 1 << 20  # of a value: files can claim any number
LARGEST = 2**23  # weights of a layer: larger ones may lie in a file that is never to be read whole


class UnfitChannelsError(Exception):
    """Channels cannot have the factors, or the shifts, that they were to have: a sentence that says why."""


@dataclass(frozen=True)
class Channels:
    """The scales that a network is free to choose: 0 .. count - 1.

    `writers` and `readers` are layers with the scale of each of their output or input channels, -1 where it is pinned;
    `following` and `starting` are nodes with a constant for each channel (channel_constants.py), likewise, `scaled` are those
    of `starting` that multiply, with the scales of the channels that they read, and `tensors` are activations.  `meets`
    (count,) is the same number for scales that meet in one tensor, directly or by way of others.
    """

    writers: tuple[tuple[ir.Node, Ids], ...]
    readers: tuple[tuple[ir.Node, Ids], ...]
    tensors: tuple[tuple[ir.Value, Ids], ...]
    following: tuple[tuple[ir.Node, Ids], ...]
    starting: tuple[tuple[ir.Node, Ids], ...]
    scaled: tuple[tuple[ir.Node, Ids], ...]
    meets: Ids

    def factors_by_tensor(self, s: Float64) -> dict[str, tuple[float, ...]]:
        """The factors s (count,) as they are written down: of the tensors that get them, one factor a channel."""
        s = np.append(s, 1.0)
        factors = {str(node.outputs[0].name): s[ids] for node, ids in (*self.writers, *self.starting)}
        return {name: tuple(factor.tolist()) for name, factor in factors.items() if np.any(factor != 1.0)}

    def from_tensors(self, factors: Mapping[str, Sequence[float]]) -> Float64:
        """The inverse. Raises UnfitChannelsError where these channels cannot have such factors."""
        s = np.ones(len(self.meets) + 1)
        largest_by_output = {str(node.outputs[0].name): ids for node, ids in (*self.writers, *self.starting)}
        for name, factor in factors.items():
            ids = largest_by_output.get(name)
            if ids is None:
                raise UnfitChannelsError(f"tensor {name!r} is not one that starts with scales of its own")
            if len(factor) != len(ids):
                raise UnfitChannelsError(f"tensor {name!r} has {len(ids)} channels, not {len(factor)}")
            s[ids] = factor
            s[-1] = 1.0
        for name, ids in largest_by_output.items():
            wanted = np.asarray(factors.get(name, np.ones(len(ids))))
            if differ := np.flatnonzero(s[ids] != wanted).tolist():
                why = (
                    "has to keep its scale"
                    if ids[differ[0]] < 0
                    else "shares its scale with another, of another factor"
                )
                raise UnfitChannelsError(f"channel {differ[0]} of tensor {name!r} {why}")
        return s[:-1]

    def rescale(self, edits: Edits, s: Float64, suffix: str) -> bool:
        """Divide every channel by its s (count,) where it is written, multiply where it is read.

        Tensors that are not what they were get `suffix` behind their names.  Nothing, and False, when float32 cannot hold
        the result.
        """
        # first all layers as they would be: a layer may be written and read, and none is touched if one cannot be
        layers: dict[ir.Node, LinearLayer] = {}
        s = np.append(s, 1.0)  # at -1
        for ends, inverse in ((self.writers, True), (self.readers, False)):
            for node, ids in ends:
                factor = s[ids]
                if np.all(factor == 1.0):
                    continue
                layer = layers.get(node) or read_layer(node)
                assert isinstance(layer, LinearLayer), "others were pinned"
                zero = np.zeros_like(factor)
                changed = scale_outputs(layer, 1 / factor, zero) if inverse else scale_inputs(layer, factor, zero)
                assert not isinstance(changed, str), (
                    "without a shift there is nothing that padding could be in the way of"
                )
                layers[node] = replace(layer, weight=changed[0], bias=changed[1])
        if any(why_unrepresentable(layer, layer.weight, layer.bias) for layer in layers.values()):
            return False
        constants = [(node, s[ids]) for node, ids in (*self.following, *self.starting)]
        constants += [(node, 1 / s[ids]) for node, ids in self.scaled]

        for node, layer in layers.items():
            before = read_layer(node)
            assert isinstance(before, LinearLayer)
            write_layer(edits, before, layer.weight, layer.bias)
        constants = [(node, factor) for node, factor in constants if np.any(factor != 1.0)]
        for node, factor in constants:
            divide_constants(edits, node, factor)
        for value, ids in self.tensors:
            if np.any(s[ids] != 1.0):
                value.name = f"{(value.name or '').removesuffix(suffix)}{suffix}"
        return bool(layers or constants)


def largest_by_output(layer: LinearLayer) -> Float64:
    """Largest parameter of each output channel; the bias counts, for it sets the range where weights are small."""
    W, op = layer.weight, layer.node.op_type  # noqa: N806
    if op == "ConvTranspose":  # (in, out / groups, *kernel)
        W = np.moveaxis(W.reshape(layer.groups, -1, *W.shape[1:]), 2, 1)  # noqa: N806
    elif op != "Conv" and not attribute_of(layer.node, "transB", 0):
        W = W.T  # noqa: N806
    return np.asarray(np.maximum(_largest_of_rows(W.reshape(layer.outputs, -1)), np.abs(layer.bias)))


def largest_by_input(layer: LinearLayer) -> Float64:
    """Largest weight of each input channel."""
    W, op = layer.weight, layer.node.op_type  # noqa: N806
    if op == "Conv":  # (out, in / groups, *kernel)
        W = np.moveaxis(W.reshape(layer.groups, -1, *W.shape[1:]), 2, 1)  # noqa: N806
    elif op != "ConvTranspose" and attribute_of(layer.node, "transB", 0):
        W = W.T  # noqa: N806
    return _largest_of_rows(W.reshape(layer.inputs, -1))


def find_free_channels(edits: Edits) -> Channels:
    """The scales of the channels of the main graph's activations; a layer that stays out says why in `edits`."""
    groups = _ChannelGroups(edits)
    for node in edits.graph:
        groups.visit(node)
    for graph in edits.graph.subgraphs():
        groups.pin(value for node in graph for value in node.inputs if value is not None)
    groups.pin(edits.graph.outputs)
    return groups.number()


class _ChannelGroups:
    """Identities of channels while a graph is walked: a union-find over numbers, and the values that have them."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self.parent: list[int] = []
        self.of: dict[ir.Value, Ids] = {}
        self.pinned: list[Ids] = []
        self.writers: list[tuple[ir.Node, Ids]] = []
        self.readers: list[tuple[ir.Node, Ids]] = []
        self.following: list[tuple[ir.Node, Ids]] = []
        self.starting: list[tuple[ir.Node, Ids]] = []
        self.scaled: list[tuple[ir.Node, Ids]] = []
        for value in edits.graph.inputs:
            self.add(value)
        self.pin(edits.graph.inputs)

    def add(self, value: ir.Value) -> None:
        """New identities for all channels of a value, none when their number is not known, or beyond belief."""
        count = channels_of(value) or 0
        self.of[value] = self._new(count if count <= MOST_CHANNELS else 0)

    def _new(self, count: int) -> Ids:
        ids = np.arange(len(self.parent), len(self.parent) + count)
        self.parent.extend(ids.tolist())
        return ids

    def pin(self, values: Iterable[ir.Value]) -> None:
        self.pinned += [self.of[value] for value in values if value in self.of]

    def find_root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number

    def join(self, one: Ids, other: Ids) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self.parent[self.find_root(a)] = self.find_root(b)

    def visit(self, node: ir.Node) -> None:
        """Give the outputs of a node their identities."""
        data = [value for value in node.inputs if value is not None and not is_constant(value)]
        if is_layer(node):
            self._visit_layer(node, data)
            return
        if is_op(node, *STARTING) and find_vectors(node) and len(node.outputs) == 1:
            self.add(node.outputs[0])
            self.starting.append((node, self.of[node.outputs[0]]))
            if is_op(node, "Mul") and len(self.of.get(data[0], ())) == len(self.of[node.outputs[0]]):
                self.scaled.append((node, self.of[data[0]]))
            else:
                self.pin(data)
            return
        ids = self._carry(node, data) if data and all(value in self.of for value in data) else None
        if ids is not None and len(ids) == (channels_of(node.outputs[0]) or 0):
            self.of[node.outputs[0]] = ids
            rest = list(node.outputs[1:])
        else:
            self.pin(data)
            rest = list(node.outputs)
        for value in rest:
            self.add(value)
        self.pin(rest)

    def _visit_layer(self, node: ir.Node, data: list[ir.Value]) -> None:
        output = node.outputs[0]
        self.add(output)
        weight = input_of(node, 1)
        small = (tensor := tensor_of(weight)) is not None and tensor.size <= LARGEST
        layer = read_layer(node) if small else f"it has more than {LARGEST:,} weights"
        if isinstance(layer, str):
            if is_constant(weight):
                self.edits.decline(node, f"keeps the scale of its channels: {layer}")
            self.pin([*data, output])
        elif not data or len(self.of.get(data[0], ())) != layer.inputs or len(self.of[output]) != layer.outputs:
            self.pin([*data, output])
        else:
            self.readers.append((node, self.of[data[0]]))
            self.writers.append((node, self.of[output]))

    def _carry(self, node: ir.Node, data: list[ir.Value]) -> Ids | None:
        """The identities of the first output's channels where f(y / s) = f(y) / s, else None."""
        first = self.of[data[0]]
        if is_op(node, *HOMOGENEOUS):
            self.pin(data[1:])  # a slope that is computed keeps its scale
            return first if data[0] is node.inputs[0] else None
        if is_op(node, *FOLLOWING) and find_vectors(node) and len(first) == channels_of(node.outputs[0]):
            self.following.append((node, first))
            return first
        computed = len(data) == len(node.inputs)  # none of them is a constant
        if is_op(node, *JOINING) and computed:
            return self._join_inputs(node, data)
        if is_op(node, "Mul") and computed:
            return self._carry_gated(data)
        if is_op(node, "Concat") and computed and attribute_of(node, "axis", 0) == 1:
            return np.concatenate([self.of[value] for value in data])
        if is_op(node, "Pad"):
            return self._carry_through_pad(node, first)
        whole = is_op(node, "Slice") and _slices_positions(node, data[0])
        return first if whole or _drops_positions(node, data[0]) else None

    def _carry_gated(self, data: list[ir.Value]) -> Ids | None:
        """What a gate of one number a channel lets through has the channels it had; the gate keeps its scale."""
        gates = [value for value in data if _is_number_a_channel(value)]
        if len(data) != 2 or len(gates) != 1:
            return None
        self.pin(gates)
        return self.of[data[0] if gates[0] is data[1] else data[1]]

    def _join_inputs(self, node: ir.Node, data: list[ir.Value]) -> Ids | None:
        """One scale for what is added or compared channel by channel."""
        first = self.of[data[0]]
        same = len({rank_of(value) for value in (*data, node.outputs[0])}) == 1
        if not same or any(len(self.of[value]) != len(first) for value in data):
            return None
        for value in data[1:]:
            self.join(first, self.of[value])
        return first

    def _carry_through_pad(self, node: ir.Node, first: Ids) -> Ids | None:
        """Channels of zeros have identities that nothing writes."""
        pads, fill = ints_of(node, "pads", 1), array_of(input_of(node, 2))
        rank = rank_of(node.inputs[0])
        zeros = attribute_of(node, "mode", "constant") == "constant" and not np.any(0 if fill is None else fill)
        zeros = zeros and not attribute_of(node, "value", 0.0) and input_of(node, 3) is None
        if not zeros or not pads or rank is None or len(pads) != 2 * rank or min(pads[1], pads[1 + rank]) < 0:
            return None
        return np.concatenate([self._new(pads[1]), first, self._new(pads[1 + rank])])

    def number(self) -> Channels:
        """The free identities that some layer or Mul writes and some reads, numbered from 0."""
        roots = np.array([self.find_root(number) for number in range(len(self.parent))], np.intp)
        written_read = [np.zeros(len(roots), bool) for _ in range(2)]
        for end, ends in enumerate(([*self.writers, *self.starting], [*self.readers, *self.scaled])):
            for _, ids in ends:
                written_read[end][roots[ids]] = True
        free = written_read[0] & written_read[1]
        for ids in self.pinned:
            free[roots[ids]] = False
        number = np.full(len(roots) + 1, -1, np.intp)
        number[np.flatnonzero(free)] = np.arange(int(free.sum()))
        writers = tuple((node, number[roots[ids]]) for node, ids in self.writers)
        readers = tuple((node, number[roots[ids]]) for node, ids in self.readers)
        tensors = tuple((value, number[roots[ids]]) for value, ids in self.of.items())
        following = tuple((node, number[roots[ids]]) for node, ids in self.following)
        starting = tuple((node, number[roots[ids]]) for node, ids in self.starting)
        scaled = tuple((node, number[roots[ids]]) for node, ids in self.scaled)
        meets = _find_meeting([ids for _, ids in (*writers, *starting, *readers, *scaled)], int(free.sum()))
        return Channels(writers, readers, tensors, following, starting, scaled, meets)


def _slices_positions(node: ir.Node, data: ir.Value) -> bool:
    """Whether a Slice leaves all channels."""
    axes = ints_of(node, "axes", 3)
    return bool(axes) and all(axis not in (1, 1 - (rank_of(data) or 0)) for axis in axes or ())


def _drops_positions(node: ir.Node, data: ir.Value) -> bool:
    """Whether a reshape is (N, C, 1, 1) to (N, C)."""
    before, after = data.shape, node.outputs[0].shape
    if not is_op(node, "Flatten", "Reshape", "Squeeze") or before is None or after is None:
        return False
    return len(before) > 2 and len(after) == 2 and all(n == 1 for n in before[2:])


def _is_number_a_channel(value: ir.Value) -> bool:
    """(N, C, 1, 1), as squeeze-excitation makes it."""
    return value.shape is not None and len(value.shape) > 2 and all(n == 1 for n in value.shape[2:])


def _find_meeting(tensors: list[Ids], count: int) -> Ids:
    """For each scale a number that it shares with every scale it meets in a tensor."""
    meets = np.arange(count)
    changed = True
    while changed:
        changed = False
        for ids in tensors:
            some = ids[ids >= 0]
            if len(some) and meets[some].min() != meets[some].max():
                meets[some] = meets[some].min()
                changed = True
    return meets


def _largest_of_rows(rows: Array) -> Float64:
    """Largest magnitude of each row, without a copy of them."""
    return np.asarray(np.maximum(rows.max(axis=1), -rows.min(axis=1)), np.float64)
