"""Normalizations in pieces: LayerNorm, RMSNorm, InstanceNorm and division by a norm, as exporters spell them.

    c = x - mean(x)             or c = x
    s = sqrt(mean(c^2) + e)     or a sum, or the L2 norm of c, or the variance as mean(x^2) - mean(x)^2
    y = g c / s + b             or c (1 / s), or x k + (b - mean(x) k) with k = g / s

The mean and the sum of squares of many numbers need more than 8 bits.  onnxruntime makes one float kernel of these eight or
ten nodes, if none of them is something else.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from fcdeploy.graph.nodes import array_of, is_constant, is_op, producer_of, walk_back

MEANS = ("ReduceMean", "ReduceSum", "GlobalAveragePool")
NORMS = ("ReduceL2", "ReduceSumSquare")
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max")
ELEMENTWISE = (*BINARY, "Sqrt", "Reciprocal", "Neg", "Clip", "Relu", "Expand", "Cast")
MOST_NODES = 96  # behind x that are looked at
MOST_AFFINE = 3  # constants behind: a gain, an offset, and one of the two in pieces


def find_normalizations(graph: ir.Graph) -> list[list[ir.Node]]:
    """The nodes of each normalization, in the graph's order."""
    found = []
    for node in graph:
        x = _find_normalized(node)
        nodes = [] if x is None else _collect(graph, x, node)
        if nodes:
            found.append(nodes)
    return found


def _find_normalized(root: ir.Node) -> ir.Value | None:
    """x, where `root` computes s or 1 / s."""
    if is_op(root, "ReduceL2"):
        return _without_mean(root.inputs[0])
    exponent = array_of(root.inputs[1]) if is_op(root, "Pow") else None
    if not is_op(root, "Sqrt") and (exponent is None or exponent.size != 1 or abs(float(exponent.reshape(()))) != 0.5):
        return None

    node = producer_of(root.inputs[0])
    while node is not None and is_op(node, *ELEMENTWISE) and not is_op(node, "Pow") and _find_squared(node) is None:
        node = producer_of(next((v for v in node.inputs if v is not None and not is_constant(v)), None))
    if node is not None and is_op(node, "ReduceSumSquare"):
        return _without_mean(node.inputs[0])
    square = producer_of(node.inputs[0]) if node is not None and is_op(node, *MEANS) else None
    return None if square is None else _without_mean(_find_squared(square))


def _find_squared(node: ir.Node) -> ir.Value | None:
    """What a node squares."""
    if is_op(node, "Mul") and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    exponent = array_of(node.inputs[1]) if is_op(node, "Pow") else None
    return node.inputs[0] if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2 else None


def _without_mean(value: ir.Value | None) -> ir.Value | None:
    """x, where the value is x less its mean; else the value."""
    node = producer_of(value)
    mean = producer_of(node.inputs[1]) if node is not None and is_op(node, "Sub") else None
    if node is not None and mean is not None and is_op(mean, *MEANS) and mean.inputs[0] is node.inputs[0]:
        return node.inputs[0]
    return value


def _collect(graph: ir.Graph, x: ir.Value, root: ir.Node) -> list[ir.Node]:
    """What is computed from x alone, as far as it leads to the statistic or is made of it; none where nothing is divided.

    Behind the node where x and the statistic meet only a gain and an offset count: a Mul and an Add by constants.
    """
    known, nodes = {x}, list[ir.Node]()
    for node in _list_behind(graph, x):
        if is_op(node, *ELEMENTWISE, *MEANS, *NORMS) and all(v in known for v in _list_operands(node)):
            known.update(node.outputs)
            nodes.append(node)
    if root not in nodes:
        return []

    statistic, made, affine, meet = _list_before(root, nodes), {root}, 0, False
    for node in nodes[nodes.index(root) + 1 :]:
        read = _list_operands(node)
        behind = [v for v in read if v.producer() in made]
        if not behind:
            continue
        if meet and len(read) == 1:
            affine += 1
            if affine > MOST_AFFINE or not is_op(node, "Mul", "Add", "Sub"):
                continue
        made.add(node)
        meet = meet or len(behind) < len(read)
    return [node for node in nodes if node in statistic or node in made] if meet else []


def _list_operands(node: ir.Node) -> list[ir.Value]:
    """The numbers that a node computes with and that are no constants."""
    values = node.inputs if is_op(node, *BINARY) else node.inputs[:1]
    return [value for value in values if value is not None and not is_constant(value)]


def _list_behind(graph: ir.Graph, x: ir.Value) -> list[ir.Node]:
    """The nodes that x leads to in a few steps, in the graph's order."""
    seen: set[ir.Node] = set()
    ends = [x]
    while ends and len(seen) < MOST_NODES:
        readers = [node for node in ends.pop(0).consumers() if node.graph is graph and node not in seen]
        seen.update(readers)
        ends += [v for node in readers if is_op(node, *ELEMENTWISE, *MEANS, *NORMS) for v in node.outputs]
    return [node for node in graph if node in seen]


def _list_before(root: ir.Node, nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """Those of `nodes` that `root` depends on."""
    among = set(nodes)
    return {root} | among.intersection(walk_back(root.inputs, lambda node: node.inputs if node in among else ()))
