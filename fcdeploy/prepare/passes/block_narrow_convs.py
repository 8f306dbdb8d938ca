"""A convolution of few outputs and a long kernel computes neighbouring positions at once.

With b positions along an axis, stride 1 and a kernel of k there, the same weights stand b times, each one step further:

    y[c, b j + i]  =  sum_t w[c, t] x[b j + i + t]  =  sum_t w'[c b + i, t] x[b j + t],   w'[c b + i, t] = w[c, t - i]

    Conv(x, w), k, stride 1, c outputs  ->  Conv(x, w'), k + b - 1, stride b, c b outputs, then positions put in their order

These are the same products, and b - 1 zeros for every k of them.  The kernels of a runtime compute 8 or 16 outputs at a time
from values that they gather once for all: of 8 outputs with 3 x 39 weights the float kernel then takes 0.61 of its time and the
byte kernel 0.37 (AVX2, onnxruntime 1.32).  A shorter kernel than 5 gains in bytes and loses in float, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Changes, Edits, remove_dead
from fcdeploy.graph.nodes import array_of, attribute_of, bias_of, is_op, name_of, weight_of
from fcdeploy.graph.windows import read_window

OUTPUTS = 16  # at once: with more the kernels are as fast as they get
MOST_OUTPUTS = 8  # of a convolution that gains
LONG = 5  # kernel along the axis
PRODUCTS = 64  # an output's; with fewer, putting positions in order costs what is gained
ZEROS = 0.75  # products with zeros, at most, for each that counts
BLOCKED = ".blocked"  # behind the name of such weights: one axis is enough


@dataclass(frozen=True)
class Block:
    """`count` positions along a spatial axis, of the lengths of the output; at most one of these is free, and None.

    `window` is that of the convolution as it was.
    """

    axis: int
    count: int
    lengths: tuple[int | None, ...]
    window: Window


def block_narrow_convs(model: ir.Model) -> Changes:
    """Give every convolution of few outputs and a long kernel as many more outputs as pay."""
    edits = Edits(model, "block_narrow_convs")
    for node in edits.nodes("Conv"):
        stored = weight_of(node)
        weight = None if stored is None or name_of(stored).endswith(BLOCKED) else array_of(stored)
        block = None if weight is None else _choose_block(node, weight)
        if block is not None and weight is not None:
            _write(edits, node, weight, block)
            edits.count += 1
    if edits.count:
        remove_dead(model.graph)
    return edits.changes()


def _choose_block(node: ir.Node, weight: Array) -> Block | None:
    """The axis and how many positions; None where nothing is gained, or lengths are not known."""
    value, output, spatial = node.inputs[0], node.outputs[0], weight.ndim - 2
    few = weight.shape[0] <= MOST_OUTPUTS and weight[0].size >= PRODUCTS and attribute_of(node, "group", 1) == 1
    if not few or spatial not in (1, 2) or output.shape is None or len(output.shape) != spatial + 2:
        return None
    if value is None or value.is_graph_input():  # pictures are read as bytes by the layer as it is
        return None
    window = read_window(node, (1,) * spatial, weight.shape[2:])
    same = attribute_of(node, "auto_pad", "NOTSET").startswith("SAME")
    if same and {*window.strides, *window.dilations} != {1}:
        return None  # else the pads are those of any length
    lengths = tuple(length if isinstance(length, int) else None for length in output.shape[2:])
    return _choose_axis(weight, window, lengths) if lengths.count(None) <= 1 else None


def _choose_axis(weight: Array, window: Window, lengths: tuple[int | None, ...]) -> Block | None:
    """The axis with the longest kernel along which positions can be computed together, and how many."""
    best = None
    for axis in np.argsort(weight.shape[2:], kind="stable"):  # the longest last
        length, kernel = lengths[axis], weight.shape[2 + axis]
        if length is None or kernel < LONG or window.strides[axis] != 1 or window.dilations[axis] != 1:
            continue
        counts = [
            b for b in (2, 4, 8) if length % b == 0 and b * weight.shape[0] <= OUTPUTS and b - 1 <= ZEROS * kernel
        ]
        best = Block(int(axis), counts[-1], lengths, window) if counts else best
    return best


def repeat_weight(weight: Array, at: int, b: int) -> Array:
    """w': (c, in, ...) to (c b, in, ...), longer by b - 1 along axis `at`."""
    shape = list(weight.shape)
    shape[0], shape[at] = shape[0] * b, shape[at] + b - 1
    repeated = np.zeros(shape, weight.dtype)
    for i in range(b):
        places = tuple(slice(i, i + weight.shape[at]) if axis == at else slice(None) for axis in range(1, weight.ndim))
        repeated[(slice(i, None, b), *places)] = weight
    return repeated


def _write(edits: Edits, node: ir.Node, weight: Array, block: Block) -> None:
    """Convolution, the clip behind it if there is one, and positions in their order."""
    b, axis, name = block.count, block.axis, name_of(node)
    clip = edits.only_reader(node.outputs[0])
    last = clip if clip is not None and is_op(clip, "Relu", "Clip") else node
    bias = array_of(bias_of(node))
    inputs = [
        node.inputs[0],
        edits.constant(f"{name_of(weight_of(node))}{BLOCKED}", repeat_weight(weight, 2 + axis, b)),
    ]
    if bias is not None:
        inputs.append(edits.constant(f"{name_of(bias_of(node))}{BLOCKED}", np.repeat(bias, b)))
    window = block.window
    strides = [b if at == axis else stride for at, stride in enumerate(window.strides)]
    value = _insert(edits, last, "Conv", inputs, strides=strides, pads=window.pads, dilations=window.dilations)
    made = value.producer()
    assert made is not None
    if last is not node:
        rest = {key: attribute.value for key, attribute in last.attributes.items()}
        value = _insert(edits, last, last.op_type, [value, *last.inputs[1:]], **rest)
    lengths = [-1 if length is None else length for length in block.lengths]
    apart = [0, weight.shape[0], b, *(length // b if at == axis else length for at, length in enumerate(lengths))]
    together = [0, weight.shape[0], *lengths]
    order = [0, 1, *(each for at in range(len(lengths)) for each in ((3 + at, 2) if at == axis else (3 + at,)))]
    value = _insert(edits, last, "Reshape", [value, edits.constant("apart", np.asarray(apart, np.int64))])
    value = _insert(edits, last, "Transpose", [value], perm=order)
    end = edits.replace(last, "Reshape", [value, edits.constant("together", np.asarray(together, np.int64))])
    if last is node:
        end.name = edits.free_name("ordered")
    else:
        edits.graph.remove(node, safe=True)
    made.name = name


def _insert(edits: Edits, before: ir.Node, op_type: str, inputs: list[ir.Value | None], **attributes: Any) -> ir.Value:
    """As `Edits.insert`, under short names: those of some exporters have 100 letters, and a file says each three times."""
    value = edits.insert(before, op_type, inputs, attributes, output="blocked")
    node = value.producer()
    assert node is not None
    node.name = name_of(value)
    return value
