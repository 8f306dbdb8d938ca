"""DynamicQuantizeLSTM as LSTM on the weights that it stores, one for each direction.

onnxruntime's node rounds its inputs and states to bytes whose scale is found anew at every step: an answer depends on
whatever else is in the batch. Native code keeps inputs and states as floats, as it does in every LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import Names, add_initializer, rewrite_operators
from fcdeploy.graph.nodes import array_of, attribute_of, name_of
from fcdeploy.native.program.steps import KERNELS_HINT

OP = "DynamicQuantizeLSTM"
SCALES = {1: 8, 2: 10}  # weights of inputs and of states -> their scales, behind which zero points follow
PER_DIRECTION = ("activations", "activation_alpha", "activation_beta")


def list_dynamic_lstms(model: ir.Model) -> list[str]:
    """The names of such nodes."""
    return [name_of(node) for node in model.graph if node.op_type == OP]


def warn_of_dynamic_lstms(nodes: Sequence[str]) -> list[str]:
    """What a user must know of them."""
    return [
        f"{name!r}: onnxruntime rounds its inputs and states anew at every step; native code does not, and is compared with "
        "an LSTM on the weights that the file stores"
        for name in nodes
    ]


def spell_out_lstm(model: ir.Model) -> ir.Model:
    """The model with an LSTM, or two, in the place of each; itself without any."""
    return rewrite_operators(model, (OP,), _replace)


def _replace(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    direction = attribute_of(node, "direction", "forward")
    directions = ["forward", "reverse"] if direction == "bidirectional" else [direction]
    if len(directions) > 1 and any(name in node.attributes for name in PER_DIRECTION):
        raise _refuse(node, "its directions have activations of their own")
    made: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value | None], outputs: int = 1, **attributes: object) -> Sequence[ir.Value]:
        given = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]  # type: ignore[arg-type]
        kept = [each for each in node.attributes.values() if each.name != "direction"] if op == "LSTM" else []
        new = ir.Node("", op, inputs, [*given, *kept], num_outputs=outputs, name=names.take(f"{name_of(node)}.{op}"))
        for value in new.outputs:
            value.name = names.take(f"{name_of(node)}.{op}")
        made.append(new)
        return new.outputs

    def hold(array: Array) -> ir.Value:
        return add_initializer(graph, names.take(f"{name_of(node)}.held"), array)

    parts = []
    for number, each in enumerate(directions):
        weights = [add("DequantizeLinear", list(map(hold, _unpack(node, at, number))), axis=1)[0] for at in SCALES]
        bias = _get(node, 3)
        one = None if bias is None else hold(_read(node, 3)[number : number + 1])
        starts = [_get(node, 5), _get(node, 6)]
        if len(directions) > 1:
            ends = [hold(np.array([n], np.int64)) for n in (number, number + 1, 0)]
            starts = [None if start is None else add("Slice", [start, *ends])[0] for start in starts]
        inputs = [node.inputs[0], *weights, one, _get(node, 4), *starts, _get(node, 7)]
        parts.append(add("LSTM", inputs, outputs=3, direction=each))
    whole = parts[0]
    if len(parts) > 1:
        whole = [add("Concat", pair, axis=1 if at == 0 else 0)[0] for at, pair in enumerate(zip(*parts, strict=True))]
    count = len(node.outputs)
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, list(whole)[:count])


def _unpack(node: ir.Node, at: int, number: int) -> tuple[Array, Array, Array]:
    """Weights (1, 4 hidden, in) of a direction, which lie as (directions, in, 4 hidden); scales and zero points of their rows."""
    integers = _read(node, at)
    scale, zero = (_read(node, SCALES[at] + more).reshape(len(integers), -1)[number] for more in (0, 1))
    rows = np.ascontiguousarray(integers[number : number + 1].transpose(0, 2, 1))
    length = rows.shape[1]
    return rows, np.broadcast_to(scale, length).copy(), np.broadcast_to(zero, length).copy()


def _get(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _read(node: ir.Node, index: int) -> Array:
    value = _get(node, index)
    array = None if value is None else array_of(value)
    if array is None:
        raise _refuse(node, "its weights are computed at run time")
    return array


def _refuse(node: ir.Node, why: str) -> FcdeployError:
    return FcdeployError(f"node {node.name!r} is a {OP} that cannot be compiled: {why}", KERNELS_HINT)
