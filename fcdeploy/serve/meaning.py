"""What a served model's numbers mean, said by its graph: which scores are probabilities, and whether NaN in an input is known.

It is said once when the model is loaded, so that answers to all samples have the same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from fcdeploy.arrays import Array
from fcdeploy.graph.light_reader import Node, Outline
from fcdeploy.tables.operators import FILL_MISSING

Probabilities = Literal["scores", "softmax", ""]
"""Probabilities of classes are the scores themselves, or their softmax; or nothing says which."""
MOVED = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "QuantizeLinear", "DequantizeLinear"}
SUM_TO_ONE = {"Softmax", "QLinearSoftmax"}
EACH_BY_ITSELF = {"Sigmoid", "HardSigmoid", "QLinearSigmoid"}
LOGITS = {
    "Gemm",
    "MatMul",
    "Conv",
    "Add",
    "LogSoftmax",
    "QLinearAdd",
    "QLinearMatMul",
    "QLinearConv",
    "QGemm",
    "FusedMatMul",
}


def find_probabilities(outline: Outline, output: str, answer: Array | None) -> Probabilities:
    """Of an output; `answer` is what the model once said, which is asked where the graph does not tell."""
    made_by = {name: node for node in outline.nodes for name in node.outputs}
    node = made_by.get(output)
    while node is not None and node.op in MOVED:
        node = made_by.get(node.inputs[0])
    operator = node.op if node is not None else ""
    if operator in SUM_TO_ONE or (node is not None and _divides_by_sum(node, made_by)):
        return "scores"
    if operator in EACH_BY_ITSELF:
        return ""
    if operator in LOGITS:
        return "softmax"
    return _guess(answer) if answer is not None and answer.ndim and answer.dtype.kind == "f" else ""


def _divides_by_sum(node: Node, made_by: Mapping[str, Node]) -> bool:
    """Whether it is a softmax as files for every CPU have it: terms over their sum, of which whole numbers are added first."""
    total = made_by.get(node.inputs[1]) if node.op == "Div" else None
    added = made_by.get(total.inputs[0]) if total is not None and total.op == "Add" else None
    return added is not None and added.op == "ReduceSum"


def _guess(answer: Array) -> Probabilities:
    rows = answer.reshape(max(1, len(answer)), -1)
    if (rows < 0).any() or (rows > 1).any():
        return "softmax"
    return "scores" if (abs(rows.sum(axis=1) - 1) < 1e-2).all() else ""


def fills_missing(outline: Outline) -> bool:
    """Whether something in the model reads NaN as a number that is not known."""
    return any(_fills(node) for node in outline.nodes)


def _fills(node: Node) -> bool:
    replaced = node.attributes.get("replaced_value_float", 0.0)
    return node.op in FILL_MISSING or (node.op == "Imputer" and isinstance(replaced, float) and math.isnan(replaced))
