"""Arithmetic with one number: y = gain * x + offset, and HardSigmoid, which clips that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.graph.nodes import array_of, attribute_of, is_constant, is_op, rank_of

ARITHMETIC = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Affine:
    """gain * value + offset."""

    value: ir.Value
    gain: float = 1.0
    offset: float = 0.0

    @property
    def zero(self) -> float:
        """What `value` is where the result is zero."""
        return -self.offset / self.gain


def affine_step(node: ir.Node) -> Affine | None:
    """What an Add, Sub, Mul or Div by one constant number computes; None for any other node.

    The constant must not lengthen the shape, and the gain is finite and not zero.
    """
    operands = _split_operands(node)
    if operands is None:
        return None
    value, c, side = operands

    if node.op_type == "Add":
        return Affine(value, 1.0, c)
    if node.op_type == "Sub":
        return Affine(value, 1.0, -c) if side == 1 else Affine(value, -1.0, c)
    gain = c if node.op_type == "Mul" else 1 / c if c and side == 1 else 0.0
    return Affine(value, gain) if gain and math.isfinite(gain) else None


def _split_operands(node: ir.Node) -> tuple[ir.Value, float, int] | None:
    """The float tensor, the one finite constant number and the side it stands on; None for any other node."""
    if not is_op(node, *ARITHMETIC) or len(node.inputs) != 2:
        return None
    sides = [side for side in (0, 1) if is_constant(node.inputs[side])]
    if len(sides) != 1:
        return None

    (side,) = sides
    value, array = node.inputs[1 - side], array_of(node.inputs[side])
    if value is None or value.dtype != ir.DataType.FLOAT or array is None or array.size != 1:
        return None
    rank, c = rank_of(value), float(array.reshape(-1)[0])
    return (value, c, side) if rank is not None and array.ndim <= rank and math.isfinite(c) else None


def gate_of(node: ir.Node) -> Affine | None:
    """What a HardSigmoid clips at 0 and 1; None for any other node, and where its slope is not positive."""
    value = node.inputs[0] if is_op(node, "HardSigmoid") else None
    if value is None:
        return None
    alpha, beta = attribute_of(node, "alpha", 0.2), attribute_of(node, "beta", 0.5)
    return Affine(value, alpha, beta) if alpha > 0 else None
