"""Missing numbers: NaN in an input that an imputer, IsNaN or trees read as a number that is not known.

Arithmetic and moves carry NaN as far as what fills it in.  No byte on that way could say it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import STANDARD, array_of, attribute_of, is_op, name_of, walk_back
from fcdeploy.tables.operators import FILL_MISSING

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
KEEPS_ALL = {
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Cos", "DepthToSpace", "Div", "Elu", "Erf", "Exp", "Expand",
    "FeatureVectorizer", "Flatten", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max",
    "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "Relu", "Reshape", "Round", "Scaler", "Selu",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip
KEEPS_SOME = {
    "ArrayFeatureExtractor", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Slice", "Split", "Where",
}  # fmt: skip
FORGETS = {"Equal", "Greater", "GreaterOrEqual", "IsInf", "Less", "LessOrEqual", "Shape", "Size"}
BETWEEN_MASKS = ("Not", "And", "Or", "Cast", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Equal")


def find_missing(graph: ir.Graph) -> set[ir.Value]:
    """The tensors in which NaN may stand for a number that is not known: from where it comes in to what fills it in.

    An input is one of them unless each of its elements reaches something that makes NaN of NaN; of an input in parts, some
    of which nothing fills in, running the model tells.
    """
    nodes = list(graph.all_nodes())
    leads, spreads = set[ir.Value](), set(graph.outputs)
    for node in reversed(nodes):
        if _fills(node):
            leads.update(value for value in node.inputs if value is not None)
            continue
        carried = _carried_by(node)
        if not leads.isdisjoint(node.outputs):
            leads.update(carried)
        if not carried and not is_op(node, *FORGETS) and not _masked(node):
            spreads.update(value for value in node.inputs if value is not None)
        elif node.op_type not in KEEPS_SOME and not spreads.isdisjoint(node.outputs):
            spreads.update(carried)

    holds = {value for value in graph.inputs if value in leads and value not in spreads}
    for node in nodes:
        if any(value in holds or _is_nan(value) for value in _carried_by(node)):
            holds.update(node.outputs)
    return holds & leads


def explain_missing(graph: ir.Graph) -> dict[str, str]:
    """Nodes that read or write such a tensor, with the reason why they stay in float."""
    missing, reasons = find_missing(graph), dict[str, str]()
    for node in graph:
        value = next((value for value in (*node.inputs, *node.outputs) if value in missing), None)
        if value is not None and not is_op(node, *FORGETS):
            reasons[name_of(node)] = f"NaN in {name_of(value)!r} may stand for a missing number, which no byte can say"
    return reasons


def _fills(node: ir.Node) -> bool:
    if node.op_type == "Imputer":
        return math.isnan(attribute_of(node, "replaced_value_float", 0.0))
    return node.op_type in FILL_MISSING


def _carried_by(node: ir.Node) -> Iterable[ir.Value]:
    """The inputs whose NaN a node passes on."""
    if node.op_type not in KEEPS_ALL | KEEPS_SOME or node.domain not in (*STANDARD, "ai.onnx.ml") or _masked(node):
        return ()
    return [value for value in node.inputs if value is not None and value.dtype in (*FLOATS, None)]


def _masked(node: ir.Node) -> bool:
    """Whether it is a Where whose condition says where NaN is."""
    if not is_op(node, "Where"):
        return False
    before = walk_back([node.inputs[0]], lambda each: each.inputs if is_op(each, *BETWEEN_MASKS) else ())
    return any(is_op(each, "IsNaN") for each in before)


def _is_nan(value: ir.Value) -> bool:
    """Whether it is a constant of a single number, which is NaN."""
    if value.const_value is None or value.const_value.size != 1:
        return False
    array = array_of(value)
    return array is not None and array.dtype.kind == "f" and bool(np.isnan(array).all())
