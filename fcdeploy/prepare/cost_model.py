"""What a network costs, read off its graph: parameters, multiply-accumulates and memory of every layer.

Counted as textbooks count (e.g. Sze et al., "Efficient Processing of Deep Neural Networks", arXiv:1703.09039, table 2):

    convolution             output elements * (input channels / groups) * kernel elements
    transposed convolution  input elements * (output channels / groups) * kernel elements
    dense, matrix product   output elements * length of the summed axis
    LSTM, GRU, RNN          steps * batch * (elements of W + elements of R)

A bias adds no multiplication.  Parameters are what training learns: the running mean and variance of a
BatchNormalization are not among them, nor are scales and zero points; weights that layers share count once.
A free leading axis is taken as 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import attribute_of, input_of, name_of, tensor_of
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import Session

CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}  # share their input's memory
CLIPS = {"Relu", "Clip"}  # before a QuantizeLinear they are part of the integer kernel

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


@dataclass(frozen=True)
class LayerCost:
    """One node that runs. Sizes in bytes; None where the shape depends on an input axis of any length."""

    node: str
    op: str
    shape: Shape | None
    parameters: int
    macs: int | None
    weight_bytes: int
    activation_bytes: int | None


def fix_leading_axis(model: ir.Model) -> None:
    """Give every input a batch of one where its leading axis is free, and infer all shapes from that, in place."""
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *value.shape[1:]])
    # what the file says in symbols of the batch would win over what is inferred for a batch of one
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if _known_shape(value) is None:
                value.shape = None
    infer_shapes(model)
    unknown = [value for node in model.graph for value in node.outputs if value.name and _known_shape(value) is None]
    if unknown:
        _measure_shapes(model, unknown)


def list_layer_costs(model: ir.Model) -> list[LayerCost]:
    """A row per node that computes at run time, in the graph's order; `fix_leading_axis` has run."""
    constant = find_constants(model.graph)
    stored = _find_byte_sizes(model.graph)
    seen: set[ir.Value] = set()
    rows = []
    for node in model.graph:
        if node.op_type in CONVERSIONS or all(value in constant for value in node.outputs):
            continue
        weights = [value for value in _find_parameters(node, constant) if value not in seen]
        seen.update(weights)
        parameters = (
            _count_packed(node) if _is_packed(node) else sum(prod(_known_shape(value) or ()) for value in weights)
        )
        sizes = [_size_of(value, stored) for value in node.outputs if value.name]
        rows.append(
            LayerCost(
                node=name_of(node),
                op=node.op_type,
                shape=_known_shape(node.outputs[0]),
                parameters=parameters,
                macs=count_macs(node),
                weight_bytes=sum(_size_of_constant(value) for value in weights),
                activation_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
            )
        )
    return rows


def count_macs_by_node(model: ir.Model) -> dict[str, int]:
    """Multiply-accumulates of each node that has any, for a batch of one; the model is left as it is."""
    copy = model.clone()
    fix_leading_axis(copy)
    return {layer.node: layer.macs for layer in list_layer_costs(copy) if layer.macs}


def count_macs(node: ir.Node) -> int | None:
    """Multiply-accumulates of one node, by the table on top; 0 for other operators, None where a shape is unknown."""
    if _is_packed(node):
        out = _known_shape(node.outputs[0])
        return None if out is None else prod(out) * attribute_of(node, "K", 0)
    if node.op_type not in DATA_AND_WEIGHT:
        return 0
    data_at, weight_at = DATA_AND_WEIGHT[node.op_type]
    data, weight, out = _shape_of_input(node, data_at), _shape_of_input(node, weight_at), _known_shape(node.outputs[0])
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
        return prod(out) * prod(weight[1:])
    transposed = node.op_type.endswith("Gemm") and attribute_of(node, "transA", 0) == 1
    return prod(out) * data[0 if transposed else -1]


def peak_activation_bytes(model: ir.Model) -> int | None:
    """The most bytes that are alive at once when nodes run in the graph's order.

    A tensor lives from the node that writes it (a graph input from the start) to the last that reads it (a graph
    output to the end).  Reshapes and the like write nothing; a tensor behind a QuantizeLinear is one byte an element.
    """
    graph = model.graph
    constant, root, stored = find_constants(graph), _find_shared_memory(graph), _find_byte_sizes(graph)
    nodes = list(graph)
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in read_by(node):
            last[root.get(value, value)] = index
    last.update({root.get(value, value): len(nodes) for value in graph.outputs})
    alive: dict[ir.Value, int] = {}
    peak = 0
    for index, written in enumerate([list(graph.inputs), *(list(node.outputs) for node in nodes)], start=-1):
        for value in written:
            own = root.get(value, value)
            if value in constant or own in alive or own not in last or value.name in graph.initializers:
                continue
            size = _size_of(own, stored)
            if size is None:
                return None
            alive[own] = size
        peak = max(peak, sum(alive.values()))
        alive = {value: size for value, size in alive.items() if last[value] > index}
    return peak


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all constants as the file stores them, in subgraphs too."""
    total = sum(_size_of_constant(value) for graph in _graphs(model) for value in graph.initializers.values())
    return total + sum(
        _size_of_constant(node.outputs[0]) for node in model.graph.all_nodes() if node.op_type == "Constant"
    )


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield attribute.as_graph()


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
        del model.graph.outputs[len(declared) :]
    for value, result in zip(unknown, results, strict=True):
        if isinstance(result, np.ndarray):
            value.shape = ir.Shape(result.shape)
            value.dtype = value.dtype or ir.DataType.from_numpy(result.dtype)


def find_constants(graph: ir.Graph) -> set[ir.Value]:
    """Values that do not depend on an input: initializers, and what is computed from them alone."""
    found = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Constant" or (inputs and all(value in found for value in inputs)):
            found.update(node.outputs)
    return found


def _find_parameters(node: ir.Node, constant: set[ir.Value]) -> list[ir.Value]:
    """The stored constants that a node's learned inputs come from, and those inside its subgraphs."""
    if node.op_type in ELEMENTWISE:
        used = [value for value in node.inputs if value is not None and prod(_known_shape(value) or ()) > 1]
    else:
        at = PARAMETERS.get(node.op_type, ())
        used = [value for index, value in enumerate(node.inputs) if value is not None and index in at]
    found = [_trace_origin(value) for value in used if value in constant]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            inner = attribute.as_graph()
            known = constant | find_constants(inner)
            found += [value for child in inner for value in _find_parameters(child, known)]
    return list(dict.fromkeys(found))


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


def _find_byte_sizes(graph: ir.Graph) -> dict[ir.Value, int]:
    """Values that the integer kernels keep as bytes, though the file calls them float: bytes per element."""
    sizes: dict[ir.Value, int] = {}
    fixed = {*graph.inputs, *graph.outputs}
    for node in graph:
        source = input_of(node, 0)
        if node.op_type != "QuantizeLinear" or source is None:
            continue
        written = node.outputs[0]
        around = [source, *_inputs_of_clip(source), *(value for user in written.consumers() for value in user.outputs)]
        size = int(written.dtype.itemsize) if written.dtype else 1
        sizes.update({value: size for value in around if value not in fixed})
    return sizes


def _inputs_of_clip(value: ir.Value) -> list[ir.Value]:
    """What a clip takes in, where nobody else reads it: it lives in the integer kernel only."""
    node = value.producer()
    if node is None or node.op_type not in CLIPS or node.inputs[0] is None:
        return []
    source = node.inputs[0]
    alone = len(list(source.consumers())) == 1 and not source.is_graph_input() and not source.is_graph_output()
    return [source] if alone else []


def _find_shared_memory(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Value -> the one whose memory it shares.

    A view shares its input's; a QuantizeLinear or DequantizeLinear is part of the kernel beside it, except where it
    reads a graph input or writes a graph output; a clip before a QuantizeLinear is part of the kernel as well.
    """
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    root: dict[ir.Value, ir.Value] = {}
    for node in graph:
        source = input_of(node, 0)
        if source is None:
            continue
        written = node.outputs[0]
        converts = node.op_type in CONVERSIONS and source not in inputs and written not in outputs
        clips = any(user.op_type == "QuantizeLinear" for user in written.consumers()) and bool(_inputs_of_clip(written))
        if node.op_type in VIEWS or converts or clips:
            root[written] = root.get(source, source)
    return root


def read_by(node: ir.Node) -> list[ir.Value]:
    """What a node reads: its inputs, and what its subgraphs take from around them."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            children = attribute.as_graph().all_nodes()
            values += [value for child in children for value in child.inputs if value is not None]
    return values


def _shape_of_input(node: ir.Node, index: int) -> Shape | None:
    value = input_of(node, index)
    return _known_shape(value) if value is not None else None


def _known_shape(value: ir.Value) -> Shape | None:
    """The shape, when every axis is known."""
    if value.shape is None:
        tensor = value.const_value
        return tuple(tensor.shape.numpy()) if tensor is not None else None
    axes = [axis if isinstance(axis, int) else None for axis in value.shape]
    return None if None in axes else tuple(axis for axis in axes if axis is not None)


def _size_of(value: ir.Value, stored: dict[ir.Value, int]) -> int | None:
    shape = _known_shape(value)
    if shape is None:
        return None
    if value.dtype == ir.DataType.STRING:  # as long as its texts
        return None
    return prod(shape) * int(stored.get(value, value.dtype.itemsize if value.dtype else 4))


def _size_of_constant(value: ir.Value) -> int:
    tensor = tensor_of(value)
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else int(tensor.nbytes)
