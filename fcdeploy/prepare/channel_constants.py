"""Nodes with a constant for each channel, and what becomes of it when their channels are divided by factors.

Min, Max, Add, Sub      f(x / s, u / s) = f(x, u) / s       the factors of x go on to y, u follows
Mul                     (x / r) (v r / s) = (x v) / s       v can take any factors of y, and those of x back
normalizations          n(x) (g / s) + b / s = y / s        scale and bias of a layer or instance normalization, too
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Float64
from fcdeploy.graph.edit import Edits
from fcdeploy.graph.nodes import array_of, attribute_of, constant_tensor, is_constant, is_op, name_of, rank_of
from fcdeploy.prepare.linear_layers import channels_of, expand_per_channel

FOLLOWING = ("Min", "Max", "Add", "Sub")
STARTING = ("Mul", "LayerNormalization", "InstanceNormalization")


def find_vectors(node: ir.Node) -> dict[int, Float64]:
    """Input index -> the constant there, (channels,), of a node of FOLLOWING or STARTING; empty where it is no such node."""
    channels, rank = channels_of(node.outputs[0]), rank_of(node.outputs[0])
    if channels is None or rank is None or not is_op(node, *FOLLOWING, *STARTING):
        return {}
    if is_op(node, "LayerNormalization", "InstanceNormalization"):
        return _read_normalization(node, channels, rank)
    constants = [at for at in (0, 1) if is_constant(node.inputs[at])] if len(node.inputs) == 2 else []
    if len(constants) != 1 or rank_of(node.inputs[1 - constants[0]]) != rank:
        return {}
    row = _read_row(array_of(node.inputs[constants[0]]), channels, rank)
    return {} if row is None else {constants[0]: row}


def _read_normalization(node: ir.Node, channels: int, rank: int) -> dict[int, Float64]:
    """Scale and bias, where each channel has its own."""
    by_channel = is_op(node, "InstanceNormalization") or (rank == 2 and attribute_of(node, "axis", -1) in (1, -1))
    rows = {at: array_of(value) for at, value in enumerate(node.inputs) if at and value is not None}
    fits = by_channel and all(row is not None and row.shape == (channels,) for row in rows.values())
    return {at: row.astype(np.float64) for at, row in rows.items() if row is not None} if fits else {}


def divide_constants(edits: Edits, node: ir.Node, s: Float64) -> None:
    """Divide the constants of a node by s (channels,)."""
    for at, row in find_vectors(node).items():
        before = node.inputs[at]
        divided = (row / s).astype(np.float32).reshape(constant_tensor(before).shape.numpy())
        node.replace_input_with(at, edits.constant(f"{name_of(before)}.folded", divided))


def largest_constants(node: ir.Node) -> Float64:
    """The largest constant of each channel."""
    return np.asarray(np.max([np.abs(row) for row in find_vectors(node).values()], axis=0))


def _read_row(array: Array | None, channels: int, rank: int) -> Float64 | None:
    if array is None or array.dtype != np.float32 or array.size != channels:
        return None
    row = expand_per_channel(array, channels, rank)
    return None if row is None or np.isnan(row).any() else row
