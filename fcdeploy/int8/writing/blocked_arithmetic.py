"""Arithmetic with one number between float convolutions, as a convolution that stays in their layout.

onnxruntime computes float convolutions on blocks of channels.  A Mul or Add by a number behind one has no kernel for that, so
two conversions of the layout go with it; a convolution of 1x1 with one weight and one bias for each channel has one:

    a x + b   ->   Conv(x, w, b'), one channel a group, w = a and b' = b for every channel

The pieces of a GELU are left as they are: onnxruntime computes them as a whole.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.affine import Affine, affine_step
from fcdeploy.graph.edit import Names, add_initializer, set_operator
from fcdeploy.graph.nodes import is_op, name_of, producer_of, rank_of
from fcdeploy.int8.planning.elementwise import find_gelus

BLOCK = 16  # channels, on CPUs with AVX512; 8 with AVX2
ACTIVATIONS = (
    "Relu",
    "Clip",
    "HardSigmoid",
    "HardSwish",
    "Sigmoid",
    "Tanh",
    "LeakyRelu",
)  # that fuse into the convolution


def keep_layout(graph: ir.Graph) -> int:
    """Write gains and offsets behind float convolutions as convolutions of one channel each; return how many."""
    names, count = Names(graph), 0
    gelus = {node for _, nodes in find_gelus(graph) for node in nodes}
    for node in list(graph):
        step = affine_step(node) if node.graph is graph else None
        channels = None if step is None else _count_channels(step.value)
        if step is None or channels is None or node in gelus:
            continue
        value, last = step.value, node
        after = _find_next(node)
        if after is not None and after[1] not in gelus:
            step, last = after
        ones = (1,) * ((rank_of(value) or 0) - 2)
        rows = {
            "gain": np.full((channels, 1, *ones), step.gain, np.float32),
            "offset": np.full(channels, step.offset, np.float32),
        }
        constants = [add_initializer(graph, names.take(f"{name_of(last)}.{key}"), row) for key, row in rows.items()]
        set_operator(last, "Conv", "", [value, *constants], [ir.AttrInt64("group", channels)])
        if last is not node:
            graph.remove(node, safe=True)
        count += 1
    return count


def _find_next(node: ir.Node) -> tuple[Affine, ir.Node] | None:
    """Both steps as one, and the second, where the one reader of this node is another such step."""
    first, readers = affine_step(node), node.outputs[0].consumers()
    if len(readers) != 1 or node.outputs[0].is_graph_output() or readers[0].graph is not node.graph:
        return None
    second = affine_step(readers[0])
    if first is None or second is None:
        return None
    gain, offset = second.gain * first.gain, second.gain * first.offset + second.offset
    return Affine(first.value, gain, offset), readers[0]


def _count_channels(value: ir.Value) -> int | None:
    """Of a float convolution of which this is a function, number by number; None where it is of none, or of unfit ones."""
    seen: set[ir.Node] = set()
    waiting: list[ir.Value | None] = [value]
    layers: set[ir.Node] = set()
    while waiting:
        node = producer_of(waiting.pop())
        if node is None:
            return None
        if node in seen:
            continue
        seen.add(node)
        if is_op(node, "Conv"):
            layers.add(node)
        elif is_op(node, *ACTIVATIONS) or (is_op(node, "Mul") and len(set(node.inputs)) == 2):
            waiting += node.inputs[: 2 if node.op_type == "Mul" else 1]
        else:
            return None
    if len(layers) != 1:
        return None
    (layer,) = layers
    shape, in_float = value.shape, producer_of(layer.inputs[1], "DequantizeLinear") is None
    channels = shape[1] if shape is not None and len(shape) > 2 else None
    return channels if in_float and isinstance(channels, int) and channels % BLOCK == 0 else None
