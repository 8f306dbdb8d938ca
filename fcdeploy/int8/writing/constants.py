"""What is constant, as integers: weights and biases of layers, weights that float nodes only store, bounds and fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import quantize
from fcdeploy.arrays import Array
from fcdeploy.graph.edit import set_input
from fcdeploy.graph.nodes import attribute_of, constant_array, constant_tensor, input_of, name_of, operator_of
from fcdeploy.graph.scratch import Scratch, keep_tensors
from fcdeploy.graph.weights import read_blocks
from fcdeploy.int8.nodes import weight_only_inputs
from fcdeploy.int8.planning.weights import RoundedLayer, bias_name
from fcdeploy.int8.writing.conversions import Conversions, producer
from fcdeploy.records.plan import QParams

Tensors = Mapping[str, QParams]


def write_layer(
    node: ir.Node, weight: ir.Value, layer: RoundedLayer, tensors: Tensors, conversions: Conversions
) -> None:
    """Weight and bias of a layer as integers behind DequantizeLinear."""
    named: list[tuple[str, Array | ir.TensorProtocol, int | None]] = [
        (name_of(weight), layer.weight, operator_of(node).weight)
    ]
    if layer.bias is not None:
        named.append((bias_name(node), layer.bias, operator_of(node).bias))
    for name, integers, index in named:
        assert index is not None
        stored = conversions.add_constant(integers, f"{name}/q")
        # QGemm fuses only where a weight's zero points are given, and shared ones keep onnxruntime from loading the
        # model under session.x64quantprecision, which gives 8-bit weights that fuse with nothing one of its own, for
        # all channels, and then cannot run; QLinearConv does without, and int8 activations need not fuse on x86
        bare = node.op_type == "Conv" and layer.fuses and not _reads_int8(node)
        given = name == weight.name and not bare
        zeros = "own" if given and tensors[name].dtype == "int8" else "none"
        real = conversions.dequantize(stored, tensors[name], f"{name}/dq", zeros)
        conversions.graph.insert_before(node, producer(real))
        set_input(node, index, real)


def _reads_int8(node: ir.Node) -> bool:
    """Whether it reads int8 through a DequantizeLinear."""
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    integers = before.inputs[0] if before is not None and before.op_type == "DequantizeLinear" else None
    return integers is not None and integers.dtype == ir.DataType.INT8


def write_weight_only(node: ir.Node, tensors: Tensors, conversions: Conversions, scratch: Scratch | None) -> None:
    """Weights of a float node as bytes that the runtime turns back into floats once, when it loads the model.

    A DequantizeLinear would be run at every inference, and keep the weight from being laid out for the fast kernels.
    """
    for index, value, axis in weight_only_inputs(node):
        q, tensor = tensors[name_of(value)], constant_tensor(value)
        key = ("weight_only", q.dtype, q.zero_point, np.asarray(q.scale))
        (stored,) = keep_tensors(scratch, tensor, key, partial(_quantize_by_channel, tensor, q, axis))
        integers = conversions.add_constant(stored, f"{value.name}/q")
        shape = [-1 if i == axis else 1 for i in range(len(tensor.shape))]
        scale = conversions.add_constant(np.asarray(q.scale, np.float32).reshape(shape), f"{value.name}/s")
        names = conversions.free_name(f"{value.name}/c"), conversions.free_name(f"{value.name}/r")
        cast = ir.node("Cast", [integers], {"to": ir.DataType.FLOAT}, name=names[0])
        real = ir.node("Mul", [cast.outputs[0], scale], name=names[1])
        cast.outputs[0].name, real.outputs[0].name = names
        for result in (cast.outputs[0], real.outputs[0]):
            result.type = ir.TensorType(ir.DataType.FLOAT)
        conversions.graph.insert_before(node, [cast, real])
        node.replace_input_with(index, real.outputs[0])


def _quantize_by_channel(tensor: ir.TensorProtocol, q: QParams, axis: int) -> tuple[Array]:
    """The integers of a weight, some channels at a time."""
    result = np.empty(tensor.shape.numpy(), q.dtype)
    for part, array in read_blocks(tensor, axis):
        result[(slice(None),) * axis + (part,)] = quantize(array, replace(q, scale=q.scale[part]))
    return (result,)


def quantize_constants(node: ir.Node, q: QParams, conversions: Conversions) -> None:
    """Fill value of a Pad and bounds of a Clip, in the integers they now stand among; a Relu becomes such a Clip."""
    if node.op_type == "Relu":
        node.op_type = "Clip"
        set_input(node, 1, conversions.add_constant(np.array(q.zero_point, q.dtype), f"{node.outputs[0].name}/low"))
        return
    if node.op_type not in ("Pad", "Clip"):
        return
    indices = [2] if node.op_type == "Pad" else [1, 2]
    if node.op_type == "Pad" and attribute_of(node, "mode", "constant") != "constant":
        return
    for index in indices:
        value = input_of(node, index)
        if value is None and node.op_type == "Clip":
            continue
        real = np.zeros((), np.float32) if value is None else constant_array(value).reshape(())
        integers = quantize(real, q).reshape(())  # a scalar, as ONNX says: others refuse one of shape [1]
        set_input(node, index, conversions.add_constant(np.asarray(integers), f"{node.outputs[0].name}/{index}"))
