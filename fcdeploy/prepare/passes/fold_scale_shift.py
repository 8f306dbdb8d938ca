"""Fold a multiplication or addition of per-channel constants into the layer before it, or into the first layer.

This is BatchNormalization as some exporters write it (Mul, then Add), a bias that is added apart, and an input that is
normalised inside the model (Sub, then Div):

    x * c,  x / c   ->   s = c or 1 / c,  t = 0
    x + c,  x - c   ->   s = 1,           t = c or -c
    c - x           ->   s = -1,          t = c

A Squeeze between them that leaves the channels where they are, as behind one-dimensional convolutions of TensorFlow and JAX,
comes behind the arithmetic first:

    op(Squeeze(y), c)   ->   Squeeze(op(y, c'))

Into the layer behind, only arithmetic on a graph input goes: elsewhere a Mul or Div is often the last step of an
activation (HardSwish, GELU) that is worth more when it is recognised whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, describe, input_of, is_op, producer_of, rank_of
from fcdeploy.prepare.linear_layers import (
    ARITHMETIC,
    channels_of,
    comes_from_input,
    constant_side,
    expand_per_channel,
    fold_into_producer,
    fold_into_readers,
    is_layer,
    read_layer,
)


def fold_scale_shift(model: ir.Model) -> Changes:
    """Fold the Mul, Div, Add and Sub by constants that stand next to a layer; the rest is ordinary arithmetic."""
    edits = Edits(model, "fold_scale_shift")
    for node in edits.nodes(*ARITHMETIC):
        _move_before_squeeze(edits, node)
    for node in edits.nodes(*ARITHMETIC):
        _attempt(edits, node, _fold_back)
    for node in reversed(list(edits.nodes(*ARITHMETIC))):  # the last step first: only then is the one before it next
        _attempt(edits, node, _fold_ahead)
    return edits.changes()


def _move_before_squeeze(edits: Edits, node: ir.Node) -> None:
    """Change places with a Squeeze of what a layer writes, where one number a channel is all that the node adds or multiplies."""
    side = constant_side(node)
    value = None if side is None else node.inputs[1 - side]
    squeeze = producer_of(value)
    if side is None or value is None or squeeze is None or not is_op(squeeze, "Squeeze"):
        return
    if node.op_type == "Div" and side == 0:
        return  # no layer takes it
    written = squeeze.inputs[0]
    alone = written is not None and edits.only_reader(written) is squeeze and edits.only_reader(value) is node
    layer = None if written is None or not alone else written.producer()
    if written is None or layer is None or not is_layer(layer) or isinstance(read_layer(layer), str):
        return
    before, channels, axes = rank_of(written), channels_of(written), array_of(input_of(squeeze, 1))
    rank = rank_of(value)
    if before is None or rank is None or channels is None or axes is None:
        return
    if axes.ndim != 1 or not axes.size or min(axes % before) < 2:  # an empty list stands for all axes of length 1
        return
    c = expand_per_channel(array_of(node.inputs[side]), channels, rank)
    if c is None:
        return
    wide = edits.constant(f"{node.name}.wide", c.astype(np.float32).reshape(-1, *[1] * (before - 2)))
    operands: list[ir.Value | None] = [written, wide] if side == 1 else [wide, written]
    result = edits.insert(node, node.op_type, operands, output=f"{node.outputs[0].name}.wide")
    result.type, result.shape = written.type, written.shape
    edits.replace(node, "Squeeze", [result, squeeze.inputs[1]])
    edits.graph.remove(squeeze, safe=True)
    edits.count += 1


def _attempt(edits: Edits, node: ir.Node, fold: Callable[[Edits, ir.Node, int, ir.Value], str | None]) -> None:
    """Fold a node that has one constant operand; a reason to keep it goes on record."""
    side = constant_side(node)
    value = None if side is None else node.inputs[1 - side]
    if side is None or value is None:
        return
    reason = fold(edits, node, side, value)
    if reason is not None:
        edits.decline(node, f"keeps: {reason}")


def _fold_back(edits: Edits, node: ir.Node, side: int, value: ir.Value) -> str | None:
    """Fold the node into the layer before it, if there is one, or return why not."""
    producer = value.producer()
    if producer is None or not is_layer(producer):
        return None
    layer = read_layer(producer)
    if isinstance(layer, str):
        return layer
    affine = _read_affine(node, side, layer.outputs, layer.weight.ndim)
    if isinstance(affine, str):
        return affine
    if side == 0:
        _put_constant_second(node)
    return fold_into_producer(edits, node, *affine)


def _fold_ahead(edits: Edits, node: ir.Node, side: int, value: ir.Value) -> str | None:
    """Fold arithmetic on the graph's input into the layers after it, if there are any, or return why not."""
    if not comes_from_input(value) or not any(is_layer(user) for user in node.outputs[0].consumers()):
        return None
    rank, channels = rank_of(value), channels_of(value)
    if rank is None or channels is None:
        return f"the number of channels of {value.name!r} is not known before it runs"
    affine = _read_affine(node, side, channels, rank)
    if isinstance(affine, str):
        return affine
    if side == 0:
        _put_constant_second(node)
    return fold_into_readers(edits, node, *affine)


def _read_affine(node: ir.Node, side: int, channels: int, rank: int) -> tuple[Array, Array] | str:
    """s and t of the node, float64 (channels,), or why it has none."""
    constant = node.inputs[side]
    c = expand_per_channel(array_of(constant), channels, rank)
    if c is None or not np.isfinite(c).all():
        return f"its constant {constant.name!r} is not one finite number per channel"  # type: ignore[union-attr]
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return c, zero
    if node.op_type == "Div":
        if side == 0 or not c.all():
            return f"{describe(node)} divides by {'its input' if side == 0 else 'zero'}"
        return 1.0 / c, zero
    if node.op_type == "Add":
        return one, np.array(c)
    return (one, -c) if side == 1 else (-one, np.array(c))


def _put_constant_second(node: ir.Node) -> None:
    """The folding functions look for the layer behind the first input; the node is on its way out."""
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)
