"""What a network costs, read off its graph: parameters, multiply-accumulates and sizes of every layer.

Counted as textbooks count (e.g. Sze et al., "Efficient Processing of Deep Neural Networks", arXiv:1703.09039, table 2):

    convolution             output elements * (input channels / groups) * kernel elements
    transposed convolution  input elements * (output channels / groups) * kernel elements
    dense, matrix product   output elements * length of the summed axis
    LSTM, GRU, RNN          steps * batch * (elements of W + elements of R)

A bias adds no multiplication.  Parameters are what training learns: the running mean and variance of a
BatchNormalization are not among them, nor are scales and zero points; weights that layers share count once.  Channels of
zeros that a Pad puts in front of a convolution, which byte kernels are faster with, count for nothing.
A free leading axis is taken as 1, other free axes as long as those of a sample, where one was named (`count_at`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import (
    attribute_of,
    computes_shapes,
    find_constants,
    input_of,
    name_of,
    producer_of,
    subgraphs_of,
    tensor_of,
)
from fcdeploy.prepare.activation_memory import CONVERSIONS, find_byte_sizes, find_shape, size_of
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import Session

PARAMETERS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2), "Conv": (1, 2), "ConvInteger": (1,), "ConvTranspose": (1, 2),
    "DynamicQuantizeLSTM": (1, 2, 3), "DynamicQuantizeMatMul": (1, 4), "GRU": (1, 2, 3), "Gather": (0,),
    "Gemm": (0, 1, 2), "GroupNormalization": (1, 2), "InstanceNormalization": (1, 2), "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2), "MatMul": (0, 1), "MatMulInteger": (1,), "MatMulIntegerToFloat": (1,),
    "MatMulNBits": (1, 5), "PRelu": (1,), "QGemm": (3, 6), "QLinearConv": (3, 8), "QLinearMatMul": (3,),
    "RNN": (1, 2, 3),
}  # fmt: skip
"""Operator -> inputs that training learns."""

ELEMENTWISE = {"Add", "Sub", "Mul", "Div"}  # a constant operand is learned (a bias, a scale) unless it is one number

DATA_AND_WEIGHT = {
    "Conv": (0, 1), "ConvInteger": (0, 1), "ConvTranspose": (0, 1), "DynamicQuantizeLSTM": (0, 1),
    "DynamicQuantizeMatMul": (0, 1), "GRU": (0, 1), "Gemm": (0, 1), "LSTM": (0, 1), "MatMul": (0, 1),
    "MatMulInteger": (0, 1), "MatMulIntegerToFloat": (0, 1), "QGemm": (0, 3), "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3), "RNN": (0, 1),
}  # fmt: skip
"""Operator that multiplies -> where its activations and its weights are."""

Shape = tuple[int, ...]
COUNTED_AT = "fcdeploy.counted_at"  # where an input remembers its shape to count at


@dataclass(frozen=True)
class LayerCost:
    """One node that runs. Sizes in bytes; None where the shape depends on an input axis of any length.

    `shapes_only`: it handles lengths and indices, not data.
    """

    node: str
    op: str
    shape: Shape | None
    parameters: int
    macs: int | None
    weight_bytes: int
    activation_bytes: int | None
    shapes_only: bool = False


def count_at(model: ir.Model, shapes: Mapping[str, Sequence[int | None]]) -> None:
    """Have costs of this model, and of copies of it, counted for inputs of these shapes; the file does not say so."""
    for value in model.graph.inputs:
        if name_of(value) in shapes:
            value.meta[COUNTED_AT] = tuple(shapes[name_of(value)])


def fix_leading_axis(model: ir.Model) -> None:
    """Give every input its shape to count at, or a batch of one where its axis of samples is free; infer the rest, in place."""
    at = {spec.name: spec.sample_axis for spec in input_specs(model)}
    carried = {spec.name for spec in input_specs(model) if spec.state}
    for value in model.graph.inputs:
        axis = at.get(name_of(value), 0)
        if COUNTED_AT in value.meta:
            value.shape = ir.Shape(value.meta[COUNTED_AT])
        elif name_of(value) in carried and value.shape is not None:  # a run of a stream takes one sample
            value.shape = ir.Shape([length if isinstance(length, int) else 1 for length in value.shape])
        elif (
            axis is not None
            and value.shape is not None
            and len(value.shape) > axis
            and not isinstance(value.shape[axis], int)
        ):
            value.shape = ir.Shape([*value.shape[:axis], 1, *value.shape[axis + 1 :]])
    # what the file says in symbols of the batch would win over what is inferred for a batch of one
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if find_shape(value) is None:
                value.shape = None
    infer_shapes(model)
    unknown = [value for node in model.graph for value in node.outputs if value.name and find_shape(value) is None]
    if unknown:
        _measure_shapes(model, unknown)


def list_layer_costs(model: ir.Model) -> list[LayerCost]:
    """A row per node that computes at run time, in the graph's order; `fix_leading_axis` has run."""
    constant = find_constants(model.graph)
    stored = find_byte_sizes(model.graph)
    seen: set[ir.Value] = set()
    rows = []
    for node in model.graph:
        if node.op_type in CONVERSIONS or all(value in constant for value in node.outputs):
            continue
        # weights that layers share count where they are read first
        weights = [value for value in _find_parameters(node, constant) if value not in seen]
        seen.update(weights)
        parameters = (
            _count_packed(node) if _is_packed(node) else sum(prod(find_shape(value) or ()) for value in weights)
        )
        filled = _count_filled_channels(node)
        if filled and parameters:
            shape = _shape_of_input(node, DATA_AND_WEIGHT[node.op_type][1]) or (0, 1)
            parameters -= prod(shape) // shape[1] * filled
        sizes = [size_of(value, stored) for value in node.outputs if value.name]
        rows.append(
            LayerCost(
                node=name_of(node),
                op=node.op_type,
                shape=find_shape(node.outputs[0]),
                parameters=parameters,
                macs=count_macs(node),
                weight_bytes=sum(_size_of_constant(value) for value in weights),
                activation_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
                shapes_only=computes_shapes(node),
            )
        )
    return rows


def list_costs_of_a_sample(model: ir.Model) -> list[LayerCost]:
    """The costs of all nodes for a batch of one; the model is left as it is."""
    copy = model.clone()
    fix_leading_axis(copy)
    return list_layer_costs(copy)


def count_macs_by_node(model: ir.Model) -> dict[str, int]:
    """Multiply-accumulates of each node that has any, for a batch of one."""
    return {layer.node: layer.macs for layer in list_costs_of_a_sample(model) if layer.macs}


def count_macs(node: ir.Node) -> int | None:
    """Multiply-accumulates of one node, by the table on top; 0 for other operators, None where a shape is unknown."""
    if _is_packed(node):
        out = find_shape(node.outputs[0])
        return None if out is None else prod(out) * attribute_of(node, "K", 0)
    if node.op_type not in DATA_AND_WEIGHT:
        return 0
    data_at, weight_at = DATA_AND_WEIGHT[node.op_type]
    data, weight, out = _shape_of_input(node, data_at), _shape_of_input(node, weight_at), find_shape(node.outputs[0])
    if node.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        recurrent = _shape_of_input(node, 2)
        if data is None or weight is None or recurrent is None:
            return None
        return prod(data[:2]) * (prod(weight) + prod(recurrent))
    if node.op_type == "ConvTranspose":
        return None if data is None or weight is None else prod(data) * prod(weight[1:])
    if data is None or weight is None or out is None:
        return None
    if node.op_type.endswith("Conv") or node.op_type == "ConvInteger":
        return prod(out) * (weight[1] - _count_filled_channels(node)) * prod(weight[2:])
    transposed = node.op_type.endswith("Gemm") and attribute_of(node, "transA", 0) == 1
    return prod(out) * data[0 if transposed else -1]


def _count_filled_channels(node: ir.Node) -> int:
    """How many of a convolution's input channels a Pad fills with zeros."""
    if node.op_type not in ("Conv", "ConvInteger", "QLinearConv"):
        return 0
    pad = producer_of(input_of(node, 0))
    while pad is not None and pad.op_type in CONVERSIONS:
        pad = producer_of(pad.inputs[0])
    if pad is None or pad.op_type != "Pad" or attribute_of(node, "group", 1) != 1:
        return 0
    before, after = _shape_of_input(pad, 0), find_shape(pad.outputs[0])
    return 0 if before is None or after is None or len(after) < 3 else max(0, after[1] - before[1])


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all constants as the file stores them, in subgraphs too."""
    total = sum(
        _size_of_constant(value)
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
    )
    return total + sum(
        _size_of_constant(node.outputs[0]) for node in model.graph.all_nodes() if node.op_type == "Constant"
    )


def _measure_shapes(model: ir.Model, unknown: list[ir.Value]) -> None:
    """What inference cannot tell (operators of the runtime itself, computed shapes), one run on zeros can."""
    feeds = {}
    for spec in input_specs(model):
        if None in spec.shape:
            return
        feeds[spec.name] = np.zeros([n or 0 for n in spec.shape], spec.dtype)
    declared = list(model.graph.outputs)
    try:
        model.graph.outputs.extend(value for value in unknown if value not in declared)
        results = Session(model, optimize=False).run(feeds, [name_of(value) for value in unknown])
    except Exception:  # zeros need not be a valid input, nor the model: shapes stay unknown, and the report says so
        return
    finally:
        while len(model.graph.outputs) > len(declared):  # a slice that is deleted leaves its values marked as outputs
            model.graph.outputs.pop()
    for value, result in zip(unknown, results, strict=True):
        if isinstance(result, np.ndarray):
            value.shape = ir.Shape(result.shape)
            value.dtype = value.dtype or ir.DataType.from_numpy(result.dtype)


def _find_parameters(node: ir.Node, constant: set[ir.Value]) -> list[ir.Value]:
    """The stored constants that a node's learned inputs come from, and those inside its subgraphs."""
    if node.op_type in ELEMENTWISE:
        used = [value for value in node.inputs if value is not None and prod(find_shape(value) or ()) > 1]
    else:
        at = PARAMETERS.get(node.op_type, ())
        used = [value for index, value in enumerate(node.inputs) if value is not None and index in at]
    learned = [_trace_origin(value) for value in used if value in constant]
    for body in subgraphs_of(node):
        known = constant | find_constants(body)
        learned += [value for child in body for value in _find_parameters(child, known)]
    return list(dict.fromkeys(learned))


def _trace_origin(value: ir.Value) -> ir.Value:
    """The stored constant behind DequantizeLinear, Cast, Mul by scales, Transpose and the like."""
    node = value.producer()
    while node is not None and node.op_type != "Constant" and node.inputs and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _is_packed(node: ir.Node) -> bool:
    return node.op_type == "MatMulNBits"


def _count_packed(node: ir.Node) -> int:
    """Weights of a MatMulNBits, several of which share a byte, and its bias."""
    columns = attribute_of(node, "N", 0)
    has_bias = len(node.inputs) > 5 and node.inputs[5] is not None
    return columns * attribute_of(node, "K", 0) + columns * has_bias


def _shape_of_input(node: ir.Node, index: int) -> Shape | None:
    value = input_of(node, index)
    return find_shape(value) if value is not None else None


def _size_of_constant(value: ir.Value) -> int:
    tensor = tensor_of(value)
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else int(tensor.nbytes)
