"""What becomes of a tensor before it meets another: the function of single numbers that lies behind it.

The input of a hard-swish is read twice, and what both readers make of it meets in one product: f(x) = x clip(x / 6 + 1/2,
0, 1).  Below -3 that is 0 whatever x is, so no byte need stand for such an x; and where f is flat an error costs little.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Float64
from fcdeploy.graph.nodes import array_of, attribute_of, clip_bounds, constant_array, is_constant, is_op, rank_of

Function = Callable[[Float64], Float64]
MOST_NODES = 40  # of a region: GELU has 9, Mish 5
MOST_BEFORE = 8  # tensors from which a GELU's Erf or Tanh may be computed: it has five
GRID = 1025  # points on which flat ends are looked for
FLAT = 1e-6  # of the largest result: less than the steps of float32 between exporters' constants


def _erf(x: Float64) -> Float64:
    """erf to 1.5e-7, less than float32 rounds near 1 what it multiplies in a GELU.

    M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 1964, formula 7.1.26: a fifteenth of the time of math.erf.
    """
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.copysign(1.0 - series * np.exp(-x * x), x)


UNARY: dict[str, Callable[[ir.Node, Float64], Float64]] = {
    "Relu": lambda _, x: np.maximum(x, 0.0),
    "LeakyRelu": lambda node, x: np.where(x < 0, attribute_of(node, "alpha", 0.01) * x, x),
    "Clip": lambda node, x: np.clip(x, *clip_bounds(node)),
    "Sigmoid": lambda _, x: 0.5 * (1.0 + np.tanh(x / 2)),
    "HardSigmoid": lambda node, x: np.clip(attribute_of(node, "alpha", 0.2) * x + attribute_of(node, "beta", 0.5), 0.0, 1.0),
    "Tanh": lambda _, x: np.tanh(x),
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Softplus": lambda _, x: np.logaddexp(x, 0.0),
    "Elu": lambda node, x: np.where(x < 0, attribute_of(node, "alpha", 1.0) * np.expm1(np.minimum(x, 0.0)), x),
    "Neg": lambda _, x: -x,
    "Abs": lambda _, x: np.abs(x),
}  # fmt: skip
BINARY: dict[str, Callable[[Float64, Float64], Float64]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power,
}  # fmt: skip
MOVING = ("Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")


def function_behind(value: ir.Value) -> Function | None:
    """The function of single numbers between a tensor and the one tensor through which all that follows sees it.

    None where others read the tensor itself, or where what is made of it does not meet in one tensor again.
    """
    nodes, exits = _region(value)
    if len(exits) != 1 or value in exits:
        return None
    (last,) = exits

    def function(x: Float64) -> Float64:
        known = {value: np.asarray(x, np.float64)}
        with np.errstate(all="ignore"):
            for node in nodes:
                known[node.outputs[0]] = _compute(node, known)
        return np.nan_to_num(known[last])

    return function


def find_gelus(graph: ir.Graph) -> list[tuple[ir.Value, list[ir.Node]]]:
    """Each GELU that is written in pieces, around an Erf or as tanh of x + c x^3: what it reads, and its nodes in order.

    onnxruntime computes all of them as one in float, where one tensor is what they read.
    """
    found = []
    for inner in graph:
        if not is_op(inner, "Erf", "Tanh"):
            continue
        for value in _list_before(inner):
            nodes, exits = _region(value)
            gates = [node for node in nodes if is_op(node, "Mul") and not any(map(is_constant, node.inputs))]
            # onnxruntime finds the cube of a tanh as a Pow alone, not as products
            whole = is_op(inner, "Erf") or any(is_op(node, "Pow") for node in nodes)
            if gates and whole and inner in nodes and len(exits) == 1:
                found.append((value, nodes))
                break
    return found


def _list_before(node: ir.Node) -> list[ir.Value]:
    """What a function of single numbers is computed from, the nearest first."""
    values = [value for value in node.inputs[:1] if value is not None]
    for value in values:
        producer = value.producer()
        if producer is not None and len(values) < MOST_BEFORE and is_op(producer, *BINARY):
            values += [v for v in producer.inputs if v is not None and v not in values and not is_constant(v)]
    return values


def within_flat_ends(function: Function, low: float, high: float) -> tuple[float, float]:
    """[low, high] without the ends over which a function does not change."""
    x = np.linspace(low, high, GRID)
    y = function(x)
    apart = FLAT * float(np.abs(y).max(initial=0.0))
    moved_low, moved_high = (np.flatnonzero(np.abs(y - end) > apart) for end in (y[0], y[-1]))
    if not len(moved_low):
        return low, high
    return float(x[max(moved_low[0] - 1, 0)]), float(x[min(moved_high[-1] + 1, GRID - 1)])


def _region(value: ir.Value) -> tuple[list[ir.Node], set[ir.Value]]:
    """The nodes that compute with single numbers of `value` alone, in order, and the tensors that others read."""
    known, exits = {value}, set[ir.Value]()
    nodes: list[ir.Node] = []
    waiting = [value]
    producer = value.producer()
    graph = value.graph if producer is None else producer.graph
    seen: set[ir.Node] = set()
    while waiting:
        read = waiting.pop(0)
        if read.is_graph_output():
            exits.add(read)
        for node in read.consumers():
            data = [v for v in node.inputs if v is not None and not is_constant(v)]
            if node.graph is not graph or not _is_elementwise(node) or len(nodes) >= MOST_NODES:
                exits.add(read)
            elif node not in seen and all(v in known for v in data):
                seen.add(node)
                nodes.append(node)
                known.add(node.outputs[0])
                waiting.append(node.outputs[0])
    for node in {reader for v in known for reader in v.consumers()} - seen:  # it reads another tensor as well
        exits.update(v for v in node.inputs if v in known)
    return nodes, exits


def _is_elementwise(node: ir.Node) -> bool:
    """Whether a node of one output computes each number of it from one number, or moves them all."""
    if len(node.outputs) != 1:
        return False
    if is_op(node, *UNARY, *MOVING):
        return all(v is None or is_constant(v) for v in node.inputs[1:])
    if not is_op(node, *BINARY) or len(node.inputs) != 2:
        return False
    constants = [array_of(v) for v in node.inputs if is_constant(v)]
    ranks = {rank_of(v) for v in node.inputs if not is_constant(v)}
    return len(ranks) == 1 and all(array is not None and array.size == 1 for array in constants)


def _compute(node: ir.Node, known: dict[ir.Value, Float64]) -> Float64:
    def operand(value: ir.Value | None) -> Float64:
        return known[value] if value in known else constant_array(value).astype(np.float64).reshape(())

    if is_op(node, *MOVING):
        return operand(node.inputs[0])
    if is_op(node, *UNARY):
        return UNARY[node.op_type](node, operand(node.inputs[0]))
    return BINARY[node.op_type](operand(node.inputs[0]), operand(node.inputs[1]))
