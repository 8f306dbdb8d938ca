"""Softmax and Exp of files for every CPU, which have them as look-ups and products, by their names again.

What `int8/writing/exact_functions.py` writes is found by its shape: a product of a look-up for each digit behind one Clip, and
in a softmax the sums of whole numbers that it is divided by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from fcdeploy.arithmetic.function_tables import DIGITS, LOWEST
from fcdeploy.graph.edit import Names, add_initializer, set_operator
from fcdeploy.graph.nodes import array_of, producer_of


@dataclass(frozen=True)
class Function:
    """An Exp of what the file clips, or a Softmax along `axis`, of floats; or one of bytes whose e(d) is `terms`."""

    x: ir.Value
    axis: int | None = None
    terms: np.ndarray[tuple[int], np.dtype[np.float32]] | None = None


def restore_functions(model: ir.Model) -> ir.Model:
    """The model with plain operators in the place of look-ups; itself without any."""
    if not any(_find_function(node) for node in model.graph):
        return model
    model = model.clone()
    names = Names(model.graph)
    for op in ("Div", "Reshape"):  # a softmax holds what an Exp is
        for node in [node for node in model.graph if node.op_type == op]:
            found = _find_function(node)
            if found is not None:
                _restore(model.graph, node, found, names)
        passes.RemoveUnusedNodesPass()(model)
    return model


def _restore(graph: ir.Graph, node: ir.Node, found: Function, names: Names) -> None:
    x = found.x
    if found.terms is not None:  # where zero lies is all the same to a softmax
        logarithms = np.log(found.terms[found.terms > 0].astype(np.float64))
        last = len(logarithms) - 1
        step = (logarithms[0] - logarithms[last]) / last if last else -LOWEST  # one byte lower is nothing already
        scale = add_initializer(graph, names.take(f"{node.name}.scale"), np.array(step, np.float32))
        real = ir.Node("", "DequantizeLinear", [x, scale], name=names.take(f"{node.name}.real"))
        real.outputs[0].name = names.take(f"{node.name}.real")
        graph.insert_before(node, real)
        x = real.outputs[0]
    axis = [] if found.axis is None else [ir.AttrInt64("axis", found.axis)]
    set_operator(node, "Exp" if found.axis is None else "Softmax", "", [x], axis)


def _find_function(node: ir.Node) -> Function | None:
    if node.op_type == "Reshape":
        x = _find_power(node)
        return None if x is None else Function(x)
    terms, total = (node.inputs[0], _follow(node.inputs[1], ("Add", 0))) if node.op_type == "Div" else (None, None)
    added = producer_of(total, "ReduceSum")
    if added is None or len(added.inputs) < 2 or terms is None or _follow(added.inputs[0], ("Floor", 0)) is not terms:
        return None
    axes = array_of(added.inputs[1])
    if axes is None or axes.size != 1:
        return None
    axis, below = int(axes.reshape(-1)[0]), _find_power(terms.producer())
    x = _follow(
        below, ("Clip", 0), ("Sub", 0)
    )  # what the Clip takes off is nothing beside the largest, whose share is 1
    if x is not None:
        return Function(x, axis)
    looked_up = _follow(terms, ("Reshape", 0))
    integers, table = (
        _follow(looked_up, ("Gather", 1), ("Sub", 1), ("Cast", 0)),
        array_of(_follow(looked_up, ("Gather", 0))),
    )
    return None if integers is None or table is None else Function(integers, axis, table)


def _find_power(node: ir.Node | None) -> ir.Value | None:
    """What the digits are those of, as a Clip leaves it; None for another product."""
    node = producer_of(node.inputs[0]) if node is not None and node.op_type == "Reshape" else None
    for _ in DIGITS:
        if node is None or node.op_type != "Mul" or producer_of(node.inputs[1], "Gather") is None:
            return None
        node = producer_of(node.inputs[0], "Mul", "Gather")
    if node is None:
        return None
    clipped = _follow(node.outputs[0], ("Gather", 1), ("Cast", 0), ("Sub", 0), ("Floor", 0))
    return None if producer_of(clipped, "Clip") is None else clipped


def _follow(value: ir.Value | None, *path: tuple[str, int]) -> ir.Value | None:
    """Back through nodes, each of this operator, by this input; None where there is another."""
    for op, index in path:
        node = producer_of(value, op)
        value = None if node is None else node.inputs[index]
    return value
