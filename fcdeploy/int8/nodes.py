"""What the byte kernels make of a node: weights only stored, tensors never written, channels of zeros that pay."""

from __future__ import annotations

import math

import onnx_ir as ir

from fcdeploy.graph.affine import Affine, affine_step, gate_of
from fcdeploy.graph.nodes import (
    attribute_of,
    has_depthwise_weight,
    input_of,
    is_constant,
    operator_of,
    output_axis,
    rank_of,
    shape_of,
    weight_of,
)

WEIGHT_ONLY_LEAST = 512  # weights: below, the two nodes that read bytes back are larger than the bytes they save


def weight_only_inputs(node: ir.Node) -> list[tuple[int, ir.Value, int]]:
    """Input index, value and channel axis of each constant that a float node may keep as bytes."""
    weights = []
    for index in operator_of(node).weight_only:
        value = input_of(node, index)
        if value is None or not is_constant(value) or value.dtype != ir.DataType.FLOAT or value.shape is None:
            continue
        if len(value.uses()) == 1 and len(value.shape) >= 2 and math.prod(value.shape.numpy()) >= WEIGHT_ONLY_LEAST:
            weights.append((index, value, _scaled_axis(node, len(value.shape))))
    return weights


def _scaled_axis(node: ir.Node, rank: int) -> int:
    """The axis of a float node's weight with a scale for each channel.

    ConvTranspose (in, out, ...) and recurrent weights (directions, gates x hidden, in) count outputs in axis 1.  Of a table each
    entry that is looked up has its own: no sample need have read it, so that no judge would see what a common scale loses.
    """
    if node.op_type == "Gather":
        return int(attribute_of(node, "axis", 0)) % rank
    return output_axis(node) if node.op_type in ("Conv", "Gemm", "MatMul") else 1


def affine_of(node: ir.Node) -> Affine | None:
    """What a node computes that the bytes it reads can say by another scale and zero point; a HardSigmoid clips them too.

    None for nodes that compute something else, and where the gain is negative, which would turn the bytes around.
    """
    step = affine_step(node) or gate_of(node)
    return step if step is not None and step.gain > 0 else None


def vanishes(value: ir.Value) -> bool:
    """Whether an integer kernel never writes this tensor, because the clip that alone reads it is part of the kernel."""
    producer, readers = value.producer(), value.consumers()
    return (
        producer is not None
        and operator_of(producer).role in ("multiply", "integer")
        and affine_of(producer) is None
        and len(readers) == 1
        and readers[0].graph is producer.graph
        and readers[0].inputs[0] is value
        and operator_of(readers[0]).role == "clips"
        and not value.is_graph_output()
    )


def is_depthwise(node: ir.Node) -> bool:
    """A convolution that is depthwise to onnxruntime: its kernels add in 32 bits."""
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or weight.shape is None:
        return False
    return has_depthwise_weight(node, shape_of(weight))


def missing_channels(node: ir.Node) -> int:
    """How many input channels of zeros make an integer convolution faster.

    onnxruntime's byte kernels read channels four at a time; with fewer they gather bytes one by one.  Measured: 0.6 of
    the time for 3 channels, 0.7 for 1 under a 3x3 kernel, more than before under a larger one or for few outputs.
    """
    weight = weight_of(node)
    if node.op_type != "Conv" or weight is None or rank_of(weight) != 4:
        return 0
    outputs, inputs, height, width = shape_of(weight)
    whole = attribute_of(node, "group", 1) == 1 and outputs >= 8
    pays = inputs in (2, 3) or (inputs == 1 and height * width <= 9 and outputs >= 16)
    return 4 - inputs if whole and pays else 0


def may_read_pixels(node: ir.Node) -> bool:
    """Whether a layer could read the bytes of a picture: it alone reads this input, and has room for one channel more."""
    value = input_of(node, 0)
    return (
        value is not None
        and missing_channels(node) > 0
        and value.is_graph_input()
        and not value.is_graph_output()
        and len(value.uses()) == 1
    )
