"""Spectral front ends: the layers before a logarithm, which are no learned features but a filter bank.

A constant-Q transform or an STFT is a few convolutions or products with fixed sines, squares, a sum and a Log.  The Log
stretches what is small: an error of 40 dB below the loudest band is as large as a quiet band.  Eight bits, of activations
or of weights, are not enough for that, so these layers compute in float, and keep their weights in 16 bits.
"""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import is_op, name_of, walk_back, weight_of

LAYERS = ("Conv", "MatMul", "Gemm")
LINEAR = (
    *LAYERS, "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Pow", "Sqrt", "Max", "Clip", "ReduceSum", "ReduceL2", "ReduceSumSquare",
    "Sum", "Concat", "Slice", "Split", "Gather", "Pad", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity",
    "Cast", "Where",
)  # fmt: skip
WHY = "part of a spectral front end: the logarithm behind it stretches what 8 bits round away"


def find_front_ends(graph: ir.Graph) -> dict[str, str]:
    """The layers between the graph's inputs and a Log with nothing but filters, squares and sums between, with the reason."""
    reasons: dict[str, str] = {}
    for node in graph:
        if is_op(node, "Log"):
            before = _list_linear_before(node)
            reasons |= {name_of(each): WHY for each in before if is_op(each, *LAYERS) and weight_of(each) is not None}
    return reasons


def _list_linear_before(log: ir.Node) -> set[ir.Node]:
    """All nodes that a Log depends on; none where one of them is another operator, an activation that was learned with."""
    before: set[ir.Node] = set()
    for node in walk_back(log.inputs):
        if not is_op(node, *LINEAR):
            return set()
        before.add(node)
    return before
