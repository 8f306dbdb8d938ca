"""What torch writes around an LSTM or GRU, said plainly.

Two things in the exporter's graph are computed at run time from the shape of the input, and one of them is wrong when
the length is free (a Reshape to the length of the example).  Both have a form without any shape in it:

1. An initial state of zeros is what the operator takes when it is given none.
2. Y (length, directions, batch, size), transposed to (length, batch, directions, size), joins its last two axes.
   That is Reshape to (0, 0, -1), where 0 keeps an axis.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Names, add_initializer
from fcdeploy.graph.nodes import array_of, attribute_of, rank_of

RECURRENT = {"LSTM", "GRU", "RNN"}
STATES = (5, 6)  # initial_h, initial_c
KEEP_KEEP_JOIN = [0, 0, -1]
PASSES_ZEROS = {"Slice", "Expand", "Identity", "Squeeze", "Unsqueeze"}


def simplify_recurrent(graph: ir.Graph) -> int:
    """Rewrite both forms in place; return the number of rewrites."""
    recurrent = [node for node in graph.all_nodes() if node.op_type in RECURRENT and not node.domain]
    names = Names(graph)
    return sum(_drop_zero_states(node) + _join_directions(graph, names, node) for node in recurrent)


def _drop_zero_states(node: ir.Node) -> int:
    zero = [index for index in STATES if index < len(node.inputs) and _is_zero(node.inputs[index])]
    for index in zero:
        node.replace_input_with(index, None)
    while node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    return len(zero)


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is zero everywhere, whatever its shape turns out to be."""
    while value is not None:
        array = array_of(value)
        if array is not None:
            return bool(np.all(array == 0))
        producer = value.producer()
        if producer is None or producer.op_type not in PASSES_ZEROS:
            return False
        value = producer.inputs[0]
    return False


def _join_directions(graph: ir.Graph, names: Names, node: ir.Node) -> int:
    users = [user for user in node.outputs[0].consumers() if user.op_type == "Transpose"]
    swapped = [user for user in users if attribute_of(user, "perm", ()) == (0, 2, 1, 3)]
    reshapes = [after for user in swapped for after in user.outputs[0].consumers() if _joins(after)]
    for reshape in reshapes:
        keep = names.take(f"{reshape.outputs[0].name}.shape")
        reshape.replace_input_with(1, add_initializer(graph, keep, np.array(KEEP_KEEP_JOIN, np.int64)))
        reshape.attributes.pop("allowzero", None)
    return len(reshapes)


def _joins(node: ir.Node) -> bool:
    """Whether it is a Reshape to three axes that is not yet in the plain form."""
    if node.op_type != "Reshape" or rank_of(node.outputs[0]) != 3:
        return False
    target = array_of(node.inputs[1])
    return target is None or target.tolist() != KEEP_KEEP_JOIN or "allowzero" in node.attributes
