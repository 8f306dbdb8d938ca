"""What a node is to the planner: its activations, its weight, the axis of its output channels."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.tables.operators import Operator, operator


def data_inputs(node: ir.Node, row: Operator) -> list[ir.Value]:
    """The inputs that carry activations or constants to be quantized with a single scale."""
    indices = range(len(node.inputs)) if row.data is None else row.data
    values = [node.inputs[i] for i in indices if i < len(node.inputs)]
    return [value for value in values if value is not None]


def is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is not None


def weight_of(node: ir.Node) -> ir.Value | None:
    """The constant weight of a layer that multiplies, None when it is computed at run time."""
    row = operator(node.op_type, node.domain)
    if row.weight is None or row.weight >= len(node.inputs):
        return None
    value = node.inputs[row.weight]
    return value if value is not None and is_constant(value) else None


def output_axis(node: ir.Node) -> int:
    """The axis of the weight that counts output channels, the only one that may have a scale each."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        attribute = node.attributes.get("transB")
        return 0 if attribute is not None and attribute.as_int() else 1
    weight = weight_of(node)
    return len(weight.shape) - 1 if weight is not None and weight.shape is not None else 1


def vanishes(value: ir.Value) -> bool:
    """Whether an integer kernel never writes this tensor, because the clip that alone reads it is part of the kernel."""
    producer, readers = value.producer(), value.consumers()
    return (
        producer is not None
        and operator(producer.op_type, producer.domain).role in ("multiply", "integer")
        and len(readers) == 1
        and readers[0].inputs[0] is value
        and operator(readers[0].op_type, readers[0].domain).role == "clips"
        and not value.is_graph_output()
    )


def is_depthwise(node: ir.Node) -> bool:
    """A convolution whose every output channel reads one input channel of its own: its kernels add in 32 bits."""
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return False
    group = node.attributes.get("group")
    return weight.shape[1] == 1 and group is not None and group.as_int() == weight.shape[0]


def number(node: ir.Node, key: str, default: float) -> float:
    """A numeric attribute, or its default."""
    attribute = node.attributes.get(key)
    return default if attribute is None else float(attribute.value)
