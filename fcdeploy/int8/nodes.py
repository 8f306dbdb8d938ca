"""What a node is to the tools of this folder: its activations, its weight, the axis of its output channels."""

from __future__ import annotations

import math

import onnx_ir as ir

from fcdeploy.graph.nodes import is_constant, operator_of, output_axis, weight_of

STORED_LEAST = 512  # weights: below, the two nodes that read bytes back are larger than the bytes they save


def stored_weights(node: ir.Node) -> list[tuple[int, ir.Value, int]]:
    """Input index, value and channel axis of each constant that a float node may keep as bytes."""
    found = []
    for index in operator_of(node).stored:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or not is_constant(value) or value.dtype != ir.DataType.FLOAT or value.shape is None:
            continue
        if len(value.uses()) == 1 and len(value.shape) >= 2 and math.prod(value.shape.numpy()) >= STORED_LEAST:
            # ConvTranspose (in, out, ...) and recurrent weights (directions, gates x hidden, in) count outputs in axis 1
            axis = output_axis(node) if node.op_type in ("Conv", "Gemm", "MatMul") else 1
            found.append((index, value, axis))
    return found


def vanishes(value: ir.Value) -> bool:
    """Whether an integer kernel never writes this tensor, because the clip that alone reads it is part of the kernel."""
    producer, readers = value.producer(), value.consumers()
    return (
        producer is not None
        and operator_of(producer).role in ("multiply", "integer")
        and len(readers) == 1
        and readers[0].graph is producer.graph
        and readers[0].inputs[0] is value
        and operator_of(readers[0]).role == "clips"
        and not value.is_graph_output()
    )


def is_depthwise(node: ir.Node) -> bool:
    """A convolution whose every output channel reads one input channel of its own: its kernels add in 32 bits."""
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return False
    group = node.attributes.get("group")
    return weight.shape[1] == 1 and group is not None and group.as_int() == weight.shape[0]


def fill_value(node: ir.Node) -> float:
    """What a Pad writes into the border; 0 for other nodes, and for a Pad that repeats its input there."""
    mode = node.attributes.get("mode")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type != "Pad" or value is None or value.const_value is None or (mode and mode.as_string() != "constant"):
        return 0.0
    return float(value.const_value.numpy().reshape(()))


def missing_channels(node: ir.Node) -> int:
    """How many input channels of zeros make an integer convolution faster.

    onnxruntime's byte kernels read channels four at a time; with fewer they gather bytes one by one.  Measured: 0.6 of
    the time for 3 channels, 0.7 for 1 under a 3x3 kernel, more than before under a larger one or for few outputs.
    """
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or weight.shape is None or len(weight.shape) != 4:
        return 0
    outputs, inputs, height, width = (int(n) for n in weight.shape)  # type: ignore[arg-type]
    whole = number(node, "group", 1) == 1 and outputs >= 8
    pays = inputs in (2, 3) or (inputs == 1 and height * width <= 9 and outputs >= 16)
    return 4 - inputs if whole and pays else 0


def may_read_pixels(node: ir.Node) -> bool:
    """Whether a layer could read the bytes of a picture: it alone reads this input, and has room for one channel more."""
    value = node.inputs[0] if node.inputs else None
    return (
        value is not None
        and missing_channels(node) > 0
        and value.is_graph_input()
        and not value.is_graph_output()
        and len(value.uses()) == 1
    )


def number(node: ir.Node, key: str, default: float) -> float:
    """A numeric attribute, or its default."""
    attribute = node.attributes.get(key)
    return default if attribute is None else float(attribute.value)
