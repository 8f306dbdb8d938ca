"""Layers that compute y = W x + b, and folding a per-channel y' = s y + t or x' = s x + t into W and b.

    s (W x + b) + t      =  (s W) x + (s b + t)
    W (s x + t) + b      =  (W s) x + (b + W t)

The second line holds for a convolution only where it reads no padding, or where t is 0: the padding is zeros after the
affine, not before it.  Products are formed in float64 and rounded to float32 once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Edits, set_input
from fcdeploy.graph.nodes import array_of, attribute_of, describe, input_of, is_constant, is_op, other_readers, rank_of

ARITHMETIC = ("Mul", "Div", "Add", "Sub")
LAYER_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EVEN = 2.0  # largest factor of an input's channels over the smallest that costs at most one of their eight bits


@dataclass(frozen=True)
class LinearLayer:
    """A layer with constant weights. `bias` is float64 (out,), zeros when the node has none."""

    node: ir.Node
    weight: Array
    bias: Array
    groups: int

    @property
    def outputs(self) -> int:
        return len(self.bias)

    @property
    def inputs(self) -> int:
        if self.node.op_type == "Conv":
            return int(self.weight.shape[1]) * self.groups
        return int(self.weight.shape[1 if attribute_of(self.node, "transB", 0) else 0])


def read_layer(node: ir.Node) -> LinearLayer | str:
    """The layer behind a node of LAYER_OPS, or the reason why nothing can be folded into it."""
    weight = array_of(input_of(node, 1))
    if weight is None:
        return f"the weight of {describe(node)} is computed at run time"
    if weight.dtype != np.float32:
        return f"the weight of {describe(node)} is {weight.dtype}, not float32"
    if node.op_type in ("Gemm", "MatMul"):
        if weight.ndim != 2 or rank_of(node.inputs[0]) != 2:
            return f"{describe(node)} is no product of two matrices"
        if (
            attribute_of(node, "alpha", 1.0) != 1.0
            or attribute_of(node, "beta", 1.0) != 1.0
            or attribute_of(node, "transA", 0)
        ):
            return f"{describe(node)} has alpha, beta or transA"
    elif weight.ndim < 3:
        return f"the weight of {describe(node)} has {weight.ndim} axes, too few for a convolution"

    groups = int(attribute_of(node, "group", 1))
    outputs = _count_outputs(node, weight, groups)
    bias_value = input_of(node, 2)
    bias = np.zeros(outputs) if bias_value is None else _read_bias(array_of(bias_value), outputs)
    if bias is None:
        return f"the bias of {describe(node)} is no constant with one number per output channel"
    return LinearLayer(node, weight, bias, groups)


def scale_outputs(layer: LinearLayer, s: Array, t: Array) -> tuple[Array, Array]:
    """Weight and bias of s y + t; s and t are float64 (out,). The weight is the layer's own array when s is 1."""
    W, op = layer.weight, layer.node.op_type  # noqa: N806
    if np.all(s == 1.0):
        return W, layer.bias * s + t
    if op == "ConvTranspose":  # (in, out / groups, *kernel): the groups lie along the inputs
        grouped = W.reshape(layer.groups, W.shape[0] // layer.groups, *W.shape[1:])
        factor = s.reshape(layer.groups, 1, -1, *[1] * (W.ndim - 2))
        return _multiply(grouped, factor).reshape(W.shape), layer.bias * s + t
    axis = 0 if op == "Conv" or attribute_of(layer.node, "transB", 0) else 1
    return _multiply(W, _reshape_along(s, axis, W.ndim)), layer.bias * s + t


def scale_inputs(layer: LinearLayer, s: Array, t: Array) -> tuple[Array, Array] | str:
    """Weight and bias of W (s x + t) + b, s and t float64 (in,); or why they do not exist."""
    W, node = layer.weight, layer.node  # noqa: N806
    if node.op_type in ("Gemm", "MatMul"):
        axis = 1 if attribute_of(node, "transB", 0) else 0
        return _multiply(W, _reshape_along(s, axis, 2)), layer.bias + _multiply_vector(np.moveaxis(W, axis, -1), t)
    if np.any(t) and (node.op_type == "ConvTranspose" or reads_padding(node)):
        return f"{describe(node)} reads padding, which the shift would change"
    if node.op_type == "ConvTranspose":
        return _multiply(W, _reshape_along(s, 0, W.ndim)), layer.bias
    grouped = W.reshape(layer.groups, W.shape[0] // layer.groups, *W.shape[1:])  # (group, out, in, *kernel)
    factor = s.reshape(layer.groups, 1, -1, *[1] * (W.ndim - 2))
    summed = grouped.sum(axis=tuple(range(3, grouped.ndim)), dtype=np.float64)  # (group, out, in)
    shift = np.einsum("goi,gi->go", summed, t.reshape(layer.groups, -1)).reshape(-1)
    return _multiply(grouped, factor).reshape(W.shape), layer.bias + shift


def reads_padding(node: ir.Node) -> bool:
    """Whether a convolution can read positions outside its input."""
    auto = attribute_of(node, "auto_pad", "NOTSET")
    return auto not in ("NOTSET", "VALID") or (auto == "NOTSET" and any(attribute_of(node, "pads", ())))


def write_layer(edits: Edits, layer: LinearLayer, weight: Array, bias: Array) -> str | None:
    """Store folded parameters as new initializers of this node; return a reason when float32 cannot hold them."""
    node, reason = layer.node, why_unrepresentable(layer, weight, bias)
    if reason is not None:
        return reason
    rounded = bias.astype(np.float32)
    had_bias = input_of(node, 2) is not None
    stem = node.inputs[1].name if node.inputs[1] is not None else node.name
    if node.op_type == "MatMul" and rounded.any():
        node = edits.replace(node, "Gemm", [node.inputs[0], node.inputs[1]])
    if weight is not layer.weight:
        node.replace_input_with(1, edits.constant(f"{stem}.folded", weight))
    if had_bias or rounded.any():
        set_input(node, 2, edits.constant(f"{stem}.bias", rounded))
    return None


def why_unrepresentable(layer: LinearLayer, weight: Array, bias: Array) -> str | None:
    """The reason why float32 cannot hold folded parameters, None when it can."""
    largest = np.finfo(np.float32).max
    if (weight is layer.weight or np.isfinite(weight).all()) and (np.abs(bias) <= largest).all():  # false for NaN too
        return None
    return f"the folded parameters of {describe(layer.node)} are not finite in float32"


def expand_per_channel(array: Array | None, channels: int, rank: int) -> Array | None:
    """float64 (channels,) when `array` broadcasts along axis 1 of a rank-`rank` tensor only, else None.

    The array must not add axes or lengthen any: (C, 1, 1), (1, C, 1, 1), (1,) and () for rank 4; (C,) for rank 2.
    """
    if array is None or array.ndim > rank or array.dtype.kind != "f":
        return None
    full = (1,) * (rank - array.ndim) + array.shape
    if any(length != 1 for axis, length in enumerate(full) if axis != 1) or full[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def channels_of(value: ir.Value) -> int | None:
    """Length of axis 1 when it is known."""
    shape = value.shape
    length = shape[1] if shape is not None and len(shape) > 1 else None
    return length if isinstance(length, int) else None


def fold_into_producer(edits: Edits, node: ir.Node, s: Array, t: Array) -> str | None:
    """Fold s x + t into the layer that computes x = node.inputs[0] and drop the node; or return why not."""
    value = node.inputs[0]
    assert value is not None
    producer = value.producer()
    if not is_layer(producer):
        return f"its input {value.name!r} comes from {describe(producer) if producer else 'outside'}"
    assert producer is not None
    if edits.only_reader(value) is not node:
        return f"its input {value.name!r} is also read by {other_readers(value, node)}"
    layer = read_layer(producer)
    if isinstance(layer, str):
        return layer
    if len(s) != layer.outputs:
        return f"it has {len(s)} channels, {describe(producer)} has {layer.outputs}"
    reason = write_layer(edits, layer, *scale_outputs(layer, s, t))
    if reason is None:
        folded = node.inputs[0]
        assert folded is not None
        name = node.outputs[0].name
        dropped = edits.bypass(node, folded)
        assert dropped, "the value has one reader, so it is no graph output, and a layer computes it"
        folded.name = name  # a name means what it meant: ranges that were measured elsewhere are found by it
        edits.count += 1
    return reason


def fold_into_readers(edits: Edits, node: ir.Node, s: Array, t: Array) -> str | None:
    """Fold s x + t into every layer that reads the node's output and drop the node; or return why not."""
    output, source = node.outputs[0], node.inputs[0]
    assert source is not None
    readers = output.consumers()
    stranger = next((user for user in readers if not is_layer(user) or user.graph is not edits.graph), None)
    if not readers or output.is_graph_output():
        return f"its output {output.name!r} is an output of the graph"
    if stranger is not None:
        return f"its output {output.name!r} is read by {describe(stranger)}"

    # every reader before any: one that cannot take it leaves all as they are
    folded = []
    for reader in readers:
        layer = read_layer(reader)
        if isinstance(layer, str):
            return layer
        if sum(value is output for value in reader.inputs) != 1 or reader.inputs[0] is not output:
            return f"its output {output.name!r} is a parameter of {describe(reader)}"
        if len(s) != layer.inputs:
            return f"it has {len(s)} channels, {describe(reader)} reads {layer.inputs}"
        parameters = scale_inputs(layer, s, t)
        if isinstance(parameters, str):
            return parameters
        reason = why_unrepresentable(layer, *parameters)
        if reason is not None:
            return reason
        folded.append((layer, parameters))
    uneven = _why_uneven(source, s)
    if uneven is not None:
        return uneven
    output.replace_all_uses_with(source)
    for layer, parameters in folded:
        write_layer(edits, layer, *parameters)
    edits.graph.remove(node, safe=True)
    edits.count += 1
    return None


def _why_uneven(value: ir.Value, s: Array) -> str | None:
    """The reason to scale the channels of a network's input apart from the layer that reads them, None when there is none.

    Folded, the layer would read what comes in, columns of years beside columns of rates, in bytes of one scale, and weights as
    far apart as they.
    """
    if not comes_from_input(value):
        return None
    least, most = np.abs(s).min(), np.abs(s).max()
    if most <= EVEN * least:
        return None
    return (
        f"the channels of {value.name!r} are scaled by {least:.3g} to {most:.3g}: bytes of one scale would not fit all"
    )


def constant_side(node: ir.Node) -> int | None:
    """Which of two inputs is constant, when exactly one is."""
    constants = [is_constant(value) for value in node.inputs]
    return constants.index(True) if len(constants) == 2 and sum(constants) == 1 else None


def comes_from_input(value: ir.Value) -> bool:
    """A graph input, or one after a Cast, a Transpose and arithmetic with constants."""
    producer = value.producer()
    while producer is not None:
        side = constant_side(producer) if is_op(producer, *ARITHMETIC) else None
        if side is None and not is_op(producer, "Cast", "Transpose"):
            return False
        before = producer.inputs[0 if side is None else 1 - side]
        if before is None:
            return False
        value, producer = before, before.producer()
    return value.is_graph_input()


def is_layer(node: ir.Node | None) -> bool:
    return is_op(node, *LAYER_OPS)


def _count_outputs(node: ir.Node, weight: Array, groups: int) -> int:
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * groups
    return int(weight.shape[0 if attribute_of(node, "transB", 0) else 1])


def _read_bias(array: Array | None, outputs: int) -> Array | None:
    """A bias as float64 (out,): from (out,), (1, out), or one number for all."""
    if array is None or array.size not in (1, outputs) or math.prod(array.shape[:-1]) != 1:
        return None
    return np.array(np.broadcast_to(array.reshape(-1).astype(np.float64), (outputs,)))


def _reshape_along(vector: Array, axis: int, rank: int) -> Array:
    return vector.reshape([-1 if position == axis else 1 for position in range(rank)])


def _multiply(W: Array, factor: Array) -> Array:  # noqa: N803
    """W * factor, formed in float64 and rounded once to float32, without a float64 copy of W."""
    out = np.empty(W.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(W, factor, out=out, dtype=np.float64, casting="unsafe")
    return out


def _multiply_vector(W: Array, t: Array) -> Array:  # noqa: N803
    """W t in float64, a block of rows at a time, in one order: BLAS has another for each number of threads."""
    if not np.any(t):
        return np.zeros(len(W))
    return np.concatenate([(W[at : at + 256] * t).sum(axis=1) for at in range(0, len(W), 256)])
