"""An int8 model as its plan means it: every node in float, between what is read back from integers and rounded again.

A node that works on bytes as they are (a Transpose, a MaxPool) becomes the same node on the real numbers they stand for.
With graph optimization off nothing is fused, so that onnxruntime's float kernels compute what the integer ones should.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

BYTES = {TensorProto.UINT8, TensorProto.INT8}
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}


def in_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with no operator on bytes but conversions and casts of stored weights."""
    made = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in (*made.graph.value_info, *made.graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    scales: dict[str, list[str]] = {}  # integers -> the scale and zero point they are in
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            scales[node.output[0]] = list(node.input[1:3])
            types.setdefault(node.output[0], TensorProto.UINT8)
        on_bytes = [name for name in node.input if name in scales]
        if node.op_type in CONVERSIONS or not on_bytes or node.op_type in ("Shape", "Size"):
            nodes.append(node)
            continue
        scale = scales[on_bytes[0]]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name and (name in scales or types.get(name) in BYTES):
                real = f"{name}/real of {node.name or node.output[0]}/{index}"
                nodes.append(helper.make_node("DequantizeLinear", [name, *scales.get(name, scale)], [real]))
                copy.input[index] = real
        for index, name in enumerate(node.output):
            copy.output[index] = f"{name}/real"
            scales[name] = scale
        nodes.append(copy)
        nodes += [helper.make_node("QuantizeLinear", [f"{name}/real", *scale], [name]) for name in node.output]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.value_info[:]
    return made
