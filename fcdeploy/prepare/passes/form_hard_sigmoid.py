"""Hard-sigmoid and hard-swish in all their spellings, as the one operator that computes the gate.

    HardSigmoid(x)  =  clip(alpha x + beta, 0, 1)

 1. (clip(a x + b, l, h) - l) / (h - l)      ->  HardSigmoid(x),  alpha = a / (h - l),  beta = (b - l) / (h - l)
 2. c x clip(a x + b, 0, h) / d              ->  Mul(x, HardSigmoid(x))  where  c h / d = 1, with alpha = a / h, beta = b / h
 3. HardSwish(x)                             ->  Mul(x, HardSigmoid(x)),  alpha = 1 / 6, beta = 1 / 2

a, b, c and d stand for any chain of Add, Sub, Mul and Div by one number, in any order, and may be left out.  In float
the two nodes take 0.62 of the time of Add, Clip, Mul and Div; as integers both are byte operators.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from fcdeploy.graph.affine import ARITHMETIC, Affine, affine_step
from fcdeploy.graph.edit import Changes, Edits, remove_dead
from fcdeploy.graph.nodes import (
    clip_bounds,
    is_constant,
    is_op,
    name_of,
    tensor_of,
)

TOLERANCE = 1e-6  # of constants that should be equal: exporters round 1 / 6 to float32, some to six digits


def form_hard_sigmoid(model: ir.Model) -> Changes:
    """Bring every hard-sigmoid and hard-swish into HardSigmoid, the latter times its input."""
    edits = Edits(model, "form_hard_sigmoid")
    for node in edits.nodes("HardSwish"):
        value = node.inputs[0]
        assert value is not None
        _write_swish(edits, node, value, 1 / 6, 0.5)
    for node in edits.nodes(*ARITHMETIC):
        _swish(edits, node)
    for node in edits.nodes(*ARITHMETIC, "Clip"):
        _sigmoid(edits, node)
    if edits.count:
        remove_dead(model.graph)  # what is left of the spellings would count as readers
    return edits.changes()


def _follow_back(edits: Edits, value: ir.Value) -> Affine:
    """`value` as gain and offset of the tensor that a chain of arithmetic with single numbers starts from.

    Every tensor of the chain but the first is read by the next node alone, so that the chain can go.
    """
    gain, offset = 1.0, 0.0
    while True:
        producer = value.producer()
        step = None if producer is None or producer.graph is not edits.graph else affine_step(producer)
        if step is None or not all(map(math.isfinite, (gain * step.gain, gain * step.offset + offset))):
            return Affine(value, gain, offset)
        gain, offset, before = gain * step.gain, gain * step.offset + offset, step.value
        if edits.only_reader(before) is not producer:
            return Affine(before, gain, offset)
        value = before


def _sigmoid(edits: Edits, node: ir.Node) -> None:
    """Case 1, where `node` ends the chain: what comes behind it is other arithmetic."""
    output = node.outputs[0]
    last = Affine(output) if is_op(node, "Clip") else _follow_back(edits, output)
    if last.value is not output and edits.only_reader(last.value) is None:
        return
    gate = _gate(edits, last.value)
    if gate is None:
        return
    clip, before = gate
    low, high = _bounds(clip)
    lowest, highest = last.gain * low + last.offset, last.gain * high + last.offset
    alpha, beta = before.gain * last.gain, before.offset * last.gain + last.offset
    whole = last.gain > 0 and abs(lowest) <= TOLERANCE and abs(highest - 1.0) <= TOLERANCE
    if whole and alpha > 0 and (alpha, beta) != (1.0, 0.0):  # which is a Clip at 0 and 1
        edits.replace(node, "HardSigmoid", [before.value], {"alpha": alpha, "beta": beta})
        edits.count += 1


def _swish(edits: Edits, node: ir.Node) -> None:
    """Case 2, where `node` is the product or the last step that scales it: what comes behind is other arithmetic."""
    last = _follow_back(edits, node.outputs[0])
    product = last.value.producer() if last.offset == 0 else None
    if product is None or not is_op(product, "Mul") or product.graph is not edits.graph:
        return
    if product is not node and edits.only_reader(last.value) is None:
        return
    for side in (0, 1):
        factors = _read_factors(edits, product, side)
        if factors is None:
            continue
        clip, before, gain = factors
        low, high = _bounds(clip)
        whole = gain * last.gain * high
        if low == 0 and high > 0 and abs(whole - 1.0) <= TOLERANCE and before.gain > 0:
            _write_swish(edits, node, before.value, before.gain / high, before.offset / high)
            return


def _read_factors(edits: Edits, product: ir.Node, side: int) -> tuple[ir.Node, Affine, float] | None:
    """The Clip on one side of a product, what it clips, and how many times the same value the other side is."""
    clipped, other = product.inputs[side], product.inputs[1 - side]
    if clipped is None or other is None or is_constant(clipped) or is_constant(other):
        return None
    gate = _gate(edits, clipped) if edits.only_reader(clipped) is product else None
    if gate is None:
        return None
    clip, before = gate
    scaled = Affine(other) if other is before.value else _follow_back(edits, other)
    return (clip, before, scaled.gain) if scaled.value is before.value and scaled.offset == 0 else None


def _gate(edits: Edits, value: ir.Value) -> tuple[ir.Node, Affine] | None:
    """The Clip with two finite bounds that writes `value`, and what it clips."""
    node = value.producer()
    if node is None or not is_op(node, "Clip") or node.graph is not edits.graph or node.inputs[0] is None:
        return None
    low, high = _bounds(node)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    read = node.inputs[0]
    return node, _follow_back(edits, read) if edits.only_reader(read) is node else Affine(read)


def _bounds(node: ir.Node) -> tuple[float, float]:
    """Where a Clip clips; not a number where that is computed at run time."""
    tensors = [tensor_of(value) for value in node.inputs[1:] if value is not None]
    known = all(tensor is not None and tensor.size == 1 for tensor in tensors)
    return clip_bounds(node) if known else (math.nan, math.nan)


def _write_swish(edits: Edits, node: ir.Node, value: ir.Value, alpha: float, beta: float) -> None:
    gate = edits.insert(
        node, "HardSigmoid", [value], {"alpha": alpha, "beta": beta}, output=f"{name_of(node.outputs[0])}.gate"
    )
    gate.type, gate.shape = value.type, value.shape
    edits.replace(node, "Mul", [value, gate])
    edits.count += 1
