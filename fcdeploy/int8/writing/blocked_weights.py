"""Weights of convolutions that compute neighbouring positions at once (prepare/passes/block_narrow_convs.py), stored once.

The file of a layer in float holds the weights as they were; nodes that the runtime folds when it loads the model repeat them:
a Pad for each position, a Concat along the inputs, and a Reshape that makes outputs of what lies side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Names, add_initializer
from fcdeploy.graph.nodes import array_of, is_op, name_of
from fcdeploy.prepare.passes.block_narrow_convs import BLOCKED, repeat_weight

NODE_BYTES = 200  # of a node more and its constants


def store_unblocked(graph: ir.Graph) -> int:
    """Store the weights of blocked layers that compute in float without repetitions; return how many."""
    names, count = Names(graph), 0
    for value in list(graph.initializers.values()):
        weight = array_of(value)
        if weight is None or value.is_graph_input() or not name_of(value).removesuffix("/q").endswith(BLOCKED):
            continue
        scale = _find_scale(value)
        floats = value if scale is None else scale.consumers()[0].outputs[0]
        readers = floats.consumers()
        small = _take_first_position(weight, array_of(scale))
        if small is None or not readers or not all(is_op(node, "Conv") and node.graph is graph for node in readers):
            continue  # a reader in the body of an If has no place among these nodes
        if scale is not None:
            _exchange(graph, scale, np.asarray(array_of(scale))[:: len(weight) // len(small)], names)
            floats.shape = ir.Shape(small.shape)
        stored = _exchange(graph, value, small, names)
        _repeat(graph, stored if scale is None else floats, readers, (small.shape, weight.shape), names)
        count += 1
    return count


def _find_scale(value: ir.Value) -> ir.Value | None:
    """The scales of bytes that a Cast and a Mul make floats of, both for this alone; None where the value is floats."""
    cast = value.consumers()[0] if len(value.uses()) == 1 else None
    if cast is None or not is_op(cast, "Cast") or len(cast.outputs[0].uses()) != 1:
        return None
    (mul,) = cast.outputs[0].consumers()
    scale = mul.inputs[1] if is_op(mul, "Mul") else None
    return scale if scale is not None and array_of(scale) is not None and len(scale.uses()) == 1 else None


def _take_first_position(weight: Array, scale: Array | None) -> Array | None:
    """Of the weights of b positions, (c b, in, ...), those of one, (c, in, ...); None where they repeat nothing."""
    for b in (8, 4, 2):
        if len(weight) % b or (scale is not None and (scale != np.repeat(scale[::b], b, axis=0)).any()):
            continue
        for axis in range(2, weight.ndim):
            small = weight[::b].take(range(weight.shape[axis] - b + 1), axis)
            saves = weight.nbytes - small.nbytes > NODE_BYTES * (b + 2)
            if saves and np.array_equal(repeat_weight(small, axis, b), weight):
                return small
    return None


def _exchange(graph: ir.Graph, value: ir.Value, array: Array, names: Names) -> ir.Value:
    """Another initializer in the place of one."""
    made = add_initializer(graph, names.take(name_of(value).replace(BLOCKED, "")), np.ascontiguousarray(array))
    value.replace_all_uses_with(made)
    del graph.initializers[name_of(value)]
    return made


def _repeat(
    graph: ir.Graph, value: ir.Value, readers: Sequence[ir.Node], shapes: tuple[tuple[int, ...], ...], names: Names
) -> None:
    """Let convolutions read weights of the first shape repeated to the second."""
    small, large = shapes
    b = large[0] // small[0]
    axis = next(at for at in range(2, len(small)) if small[at] != large[at])
    position = {node: at for at, node in enumerate(graph)}
    first = min(readers, key=lambda node: position[node])

    def insert(op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        result = ir.Value(name=names.take("repeated"), type=ir.TensorType(ir.DataType.FLOAT))
        graph.insert_before(first, ir.node(op_type, inputs, attributes, outputs=[result], name=name_of(result)))
        return result

    def constant(numbers: Array) -> ir.Value:
        return add_initializer(graph, names.take("places"), numbers)

    shifted = []
    for i in range(b):
        pads = np.zeros((2, len(small)), np.int64)
        pads[:, axis] = i, b - 1 - i
        shifted.append(insert("Pad", [value, constant(pads.reshape(-1))]))
    beside = insert("Concat", shifted, axis=1)
    repeated = insert("Reshape", [beside, constant(np.array(large, np.int64))])
    for node in readers:
        node.replace_input_with(1, repeated)
