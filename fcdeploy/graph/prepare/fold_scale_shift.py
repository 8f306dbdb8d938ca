"""Fold a multiplication or addition of per-channel constants into the layer before it, or into the first layer.

This is BatchNormalization as some exporters write it (Mul, then Add), a bias that is added apart, and an input that is
normalised inside the model (Sub, then Div):

    x * c,  x / c   ->   s = c or 1 / c,  t = 0
    x + c,  x - c   ->   s = 1,           t = c or -c
    c - x           ->   s = -1,          t = c

Into the layer behind, only arithmetic on a graph input goes: elsewhere a Mul or Div is often the last step of an
activation (HardSwish, GELU) that is worth more when it is recognised whole.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.prepare.changes import Array, Changes, Edits, array_of, describe, is_constant, is_op, rank_of
from fcdeploy.graph.prepare.layers import (
    channels_of,
    fold_into_producer,
    fold_into_readers,
    is_layer,
    per_channel,
    read_layer,
)

ARITHMETIC = ("Mul", "Div", "Add", "Sub")


def fold_scale_shift(model: ir.Model) -> Changes:
    """Fold the Mul, Div, Add and Sub by constants that stand next to a layer; the rest is ordinary arithmetic."""
    edits = Edits(model, "fold_scale_shift")
    for node in edits.nodes(*ARITHMETIC):
        side = _constant_side(node)
        if side is None:
            continue
        value = node.inputs[1 - side]
        assert value is not None
        producer = value.producer()
        if is_layer(producer):
            assert producer is not None
            reason = _fold_back(edits, node, side, producer)
        elif _is_input(value) and any(is_layer(user) for user in node.outputs[0].consumers()):
            reason = _fold_ahead(edits, node, side, value)
        else:
            continue
        if reason is not None:
            edits.decline(node, f"keeps: {reason}")
    return edits.changes()


def _fold_back(edits: Edits, node: ir.Node, side: int, producer: ir.Node) -> str | None:
    """Fold the node into the layer before it, or return why not."""
    layer = read_layer(producer)
    if isinstance(layer, str):
        return layer
    affine = _affine(node, side, layer.outputs, layer.weight.ndim)
    if isinstance(affine, str):
        return affine
    if side == 0:
        _put_constant_second(node)
    return fold_into_producer(edits, node, *affine)


def _fold_ahead(edits: Edits, node: ir.Node, side: int, value: ir.Value) -> str | None:
    """Fold the node into the layers after it, or return why not."""
    rank, channels = rank_of(value), channels_of(value)
    if rank is None or channels is None:
        return f"the number of channels of {value.name!r} is not known before it runs"
    affine = _affine(node, side, channels, rank)
    if isinstance(affine, str):
        return affine
    if side == 0:
        _put_constant_second(node)
    return fold_into_readers(edits, node, *affine)


def _affine(node: ir.Node, side: int, channels: int, rank: int) -> tuple[Array, Array] | str:
    """s and t of the node, float64 (channels,), or why it has none."""
    constant = node.inputs[side]
    c = per_channel(array_of(constant), channels, rank)
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


def _constant_side(node: ir.Node) -> int | None:
    """Which of two inputs is constant, when exactly one is."""
    constants = [is_constant(value) for value in node.inputs]
    return constants.index(True) if len(constants) == 2 and sum(constants) == 1 else None


def _is_input(value: ir.Value) -> bool:
    """A graph input, or one after a Cast, a Transpose and arithmetic with constants."""
    producer = value.producer()
    while producer is not None:
        side = _constant_side(producer) if is_op(producer, *ARITHMETIC) else None
        if side is None and not is_op(producer, "Cast", "Transpose"):
            return False
        before = producer.inputs[0 if side is None else 1 - side]
        if before is None:
            return False
        value, producer = before, before.producer()
    return value.is_graph_input()


def _put_constant_second(node: ir.Node) -> None:
    """The folding functions look for the layer behind the first input; the node is on its way out."""
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)
