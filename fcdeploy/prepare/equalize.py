"""Channels of very unequal magnitude in one tensor get about the same one: one scale for all of them then serves each.

    f(y / s) = f(y) / s   for Relu, pooling, sums, ...   so   W2 f(W1 x + b)  =  (W2 S) f(S^-1 W1 x + S^-1 b)

with S diagonal, S > 0.  The factors (arithmetic/weights/equalize.py) are powers of two, and no output changes by a bit.
Tensors that are added share their channels, and with them the factors: everything that writes one of them is divided,
everything that reads one is multiplied.  A graph input or output, and whatever is not homogeneous (a Clip at 6, a
Sigmoid, a bias added to a sum), pins its tensors: they keep their scale.  A tensor with a new scale gets a new name, so
that a range measured under the old one is not taken for its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.equalize import exponents
from fcdeploy.prepare.changes import Changes, Edits, attribute, is_constant, is_op
from fcdeploy.prepare.layers import (
    Layer,
    channels_of,
    is_layer,
    read_layer,
    scaled_inputs,
    scaled_outputs,
    unrepresentable,
    write_layer,
)

HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
JOINING = ("Add", "Sub", "Max", "Min", "Sum")
LARGEST = 2**23  # weights of a layer: larger ones may lie in a file that is never to be read whole
RESCALED = ".rescaled"
ROUNDS = 20  # neighbouring tensors share the depthwise layers between them, and settle in a few


@dataclass
class Channels:
    """Tensors whose channels, axis 1, have one scale, and the layers at both ends."""

    count: int | None
    pinned: bool = False
    tensors: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)

    def free(self) -> bool:
        return not self.pinned and self.count is not None and bool(self.writers) and bool(self.readers)


def equalize(model: ir.Model) -> Changes:
    """Rescale the channels of tensors in which some are at least eight times out of proportion."""
    edits = Edits(model, "equalize")
    free = [group for group in _channel_groups(edits) if group.free() and not _too_large(edits, group)]
    for _ in range(ROUNDS):
        if not sum(_rescale(edits, group) for group in free):
            break
    return edits.changes()


def _too_large(edits: Edits, group: Channels) -> bool:
    """Whether a layer is left alone for its size; that goes on record."""
    for node in (*group.writers, *group.readers):
        weight = node.inputs[1]
        if weight is not None and weight.const_value is not None and weight.const_value.size > LARGEST:
            edits.decline(node, f"keeps the scale of its channels: it has more than {LARGEST:,} weights")
            return True
    return False


def _rescale(edits: Edits, group: Channels) -> int:
    """1 when the group's layers were rescaled."""
    before = {node: read_layer(node) for node in (*group.writers, *group.readers)}
    now = {node: layer for node, layer in before.items() if isinstance(layer, Layer)}
    if len(now) < len(before):
        return 0
    if any(now[node].outputs != group.count for node in group.writers):
        return 0
    if any(now[node].inputs != group.count for node in group.readers):
        return 0
    written = np.max([_written(now[node]) for node in group.writers], axis=0)
    read = np.max([_read(now[node]) for node in group.readers], axis=0)
    s = 2.0 ** exponents(written, read)
    if np.all(s == 1.0):
        return 0
    zero = np.zeros_like(s)
    for node in group.writers:
        weight, bias = scaled_outputs(now[node], 1 / s, zero)
        now[node] = replace(now[node], weight=weight, bias=bias)
    for node in group.readers:
        scaled = scaled_inputs(now[node], s, zero)
        assert not isinstance(scaled, str), "without a shift there is nothing that padding could be in the way of"
        now[node] = replace(now[node], weight=scaled[0], bias=scaled[1])
    if any(unrepresentable(layer, layer.weight, layer.bias) for layer in now.values()):
        return 0
    for node, layer in now.items():
        write_layer(edits, before[node], layer.weight, layer.bias)  # type: ignore[arg-type]
    for value in group.tensors:
        value.name = f"{(value.name or '').removesuffix(RESCALED)}{RESCALED}"
    edits.count += 1
    return 1


def _written(layer: Layer) -> NDArray[np.float64]:
    """Largest parameter of each output channel; the bias counts, for it sets the range where weights are small."""
    W, op = layer.weight, layer.node.op_type  # noqa: N806
    if op == "ConvTranspose":  # (in, out / groups, *kernel)
        W = np.moveaxis(W.reshape(layer.groups, -1, *W.shape[1:]), 2, 1).reshape(layer.outputs, -1)  # noqa: N806
    elif op != "Conv" and not attribute(layer.node, "transB", 0):
        W = W.T  # noqa: N806
    return np.asarray(np.maximum(_largest(W.reshape(layer.outputs, -1)), np.abs(layer.bias)))


def _read(layer: Layer) -> NDArray[np.float64]:
    """Largest weight of each input channel."""
    W, op = layer.weight, layer.node.op_type  # noqa: N806
    if op == "Conv":  # (out, in / groups, *kernel)
        W = np.moveaxis(W.reshape(layer.groups, -1, *W.shape[1:]), 2, 1)  # noqa: N806
    elif op != "ConvTranspose" and attribute(layer.node, "transB", 0):
        W = W.T  # noqa: N806
    return _largest(W.reshape(layer.inputs, -1))


def _largest(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Largest magnitude of each row, without a copy of them."""
    return np.asarray(np.maximum(rows.max(axis=1), -rows.min(axis=1)), np.float64)


def _channel_groups(edits: Edits) -> list[Channels]:
    """All activations of the main graph, by the scale that their channels have in common."""
    join: dict[ir.Value, ir.Value] = {}

    def root(value: ir.Value) -> ir.Value:
        while join.setdefault(value, value) is not value:
            value = join[value]
        return value

    pinned = {*edits.graph.inputs, *edits.graph.outputs}
    for node in edits.graph:
        data = [value for value in node.inputs if value is not None and not is_constant(value)]
        if is_layer(node):
            pinned.update(data[1:])
        elif data and _keeps_channels(node, data):
            for value in data:
                join[root(value)] = root(node.outputs[0])
            pinned.update(node.outputs[1:])
        else:
            pinned.update(data, node.outputs)
    inner = {value for graph in edits.graph.subgraphs() for node in graph for value in node.inputs if value is not None}
    groups: dict[ir.Value, Channels] = {}
    for value in [*edits.graph.inputs, *(value for node in edits.graph for value in node.outputs)]:
        group = groups.setdefault(root(value), Channels(channels_of(value)))
        group.pinned |= value in pinned or value in inner or channels_of(value) != group.count
        group.tensors.append(value)
        producer = value.producer()
        if is_layer(producer):
            group.writers.append(producer)  # type: ignore[arg-type]
        group.readers += [user for user in value.consumers() if is_layer(user) and user.inputs[0] is value]
    return list(groups.values())


def _keeps_channels(node: ir.Node, data: list[ir.Value]) -> bool:
    """Whether y / s in, channel by channel, gives f(y) / s out."""
    if is_op(node, *HOMOGENEOUS):
        return True
    if is_op(node, *JOINING):  # operands that are not constant and have all channels
        count = channels_of(node.outputs[0])
        ranks = {len(value.shape) if value.shape is not None else None for value in (*data, *node.outputs)}
        return len(data) == len(node.inputs) and len(ranks) == 1 and all(channels_of(v) == count for v in data)
    if is_op(node, "Flatten", "Reshape", "Squeeze"):  # (N, C, 1, 1) to (N, C)
        before, after = data[0].shape, node.outputs[0].shape
        if len(data) > 1 or before is None or after is None or len(before) < 2 or len(after) != 2:
            return False
        return before[1] == after[1] and isinstance(after[1], int) and all(n == 1 for n in before[2:])
    return False
