"""Sigmoid and SiLU in pieces as the operator, which has a byte kernel where Exp and a division by activations have none.

    sigmoid(x)  =  1 / (1 + exp(-x))

 1. Reciprocal(Exp(-g) + 1),  1 / (Exp(-g) + 1)   ->  Sigmoid(g)
 2. u / (Exp(-g) + 1)                             ->  Mul(u, Sigmoid(g)),  SiLU where u is g
 3. Exp(g) / (Exp(g) + 1)                         ->  Sigmoid(g)
 4. Swish(x), alpha                               ->  Mul(x, Sigmoid(alpha x))

-g is Neg(g), or a Mul by a negative number, of which the sign goes.  Where exp of a finite number overflows both sides are 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.affine import affine_step
from fcdeploy.graph.edit import Changes, Edits, remove_dead
from fcdeploy.graph.nodes import array_of, attribute_of, is_op, name_of, producer_of


def form_sigmoid(model: ir.Model) -> Changes:
    """Bring every sigmoid and SiLU into Sigmoid, the latter times its input."""
    edits = Edits(model, "form_sigmoid")
    for node in edits.nodes("Reciprocal", "Div"):
        _replace_quotient(edits, node)
    for node in edits.nodes("Swish"):
        value = node.inputs[0]
        assert value is not None
        alpha = attribute_of(node, "alpha", 1.0)
        scaled = value if alpha == 1.0 else _scale(edits, node, value, alpha)
        _write(edits, node, value, scaled)
    if edits.count:
        remove_dead(model.graph)  # what is left of the spellings would count as readers
    return edits.changes()


def _replace_quotient(edits: Edits, node: ir.Node) -> None:
    """Cases 1 to 3."""
    below = node.inputs[0] if node.op_type == "Reciprocal" else node.inputs[1]
    above = None if node.op_type == "Reciprocal" else node.inputs[0]
    power = _one_added(below)
    exponential = producer_of(power)
    if power is None or exponential is None or not is_op(exponential, "Exp") or exponential.graph is not edits.graph:
        return
    exponent = exponential.inputs[0]
    assert exponent is not None
    if above is power:
        edits.replace(node, "Sigmoid", [exponent])
        edits.count += 1
        return
    value = _find_negated(edits, node, exponent)
    if value is None:
        return
    if above is None or _is_one(above):
        edits.replace(node, "Sigmoid", [value])
        edits.count += 1
    else:
        _write(edits, node, above, value)


def _one_added(value: ir.Value | None) -> ir.Value | None:
    """What 1 is added to."""
    step = None if (node := producer_of(value)) is None or not is_op(node, "Add") else affine_step(node)
    return step.value if step is not None and step.offset == 1.0 else None


def _is_one(value: ir.Value) -> bool:
    array = array_of(value)
    return array is not None and array.size == 1 and float(array.reshape(())) == 1.0


def _find_negated(edits: Edits, node: ir.Node, exponent: ir.Value) -> ir.Value | None:
    """g, where the exponent is -g."""
    before = producer_of(exponent)
    if before is None or before.graph is not edits.graph:
        return None
    if is_op(before, "Neg"):
        return before.inputs[0]
    step = affine_step(before)
    if step is None or step.offset or step.gain >= 0:
        return None
    return step.value if step.gain == -1.0 else _scale(edits, node, step.value, -step.gain)


def _scale(edits: Edits, node: ir.Node, value: ir.Value, gain: float) -> ir.Value:
    constant = edits.constant(f"{node.name}.gain", np.asarray(gain, np.float32))
    scaled = edits.insert(node, "Mul", [value, constant], output=f"{name_of(node.outputs[0])}.scaled")
    scaled.type, scaled.shape = value.type, value.shape
    return scaled


def _write(edits: Edits, node: ir.Node, value: ir.Value, gated: ir.Value) -> None:
    """value * sigmoid(gated) in the place of a node."""
    gate = edits.insert(node, "Sigmoid", [gated], output=f"{name_of(node.outputs[0])}.gate")
    gate.type, gate.shape = gated.type, gated.shape
    edits.replace(node, "Mul", [value, gate])
    edits.count += 1
