"""Graph and plan to the int8 model. It decides nothing: every node's kind and every scale stand in the plan.

A tensor x that becomes integers keeps its name on the float side of its QuantizeLinear; the integers are `x/q` and what
is read back from them `x/dq`.  Nodes that move bytes work on the integers themselves: no runtime has to recognise a
pattern first, and the answer is the same with graph optimization off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.weights import blocks
from fcdeploy.int8.nodes import data_inputs, is_constant, missing_channels, stored_weights, weight_of
from fcdeploy.int8.planning.types import Packed
from fcdeploy.int8.planning.weigh import Layer, bias_name
from fcdeploy.int8.writing.pack import DOMAIN, pack
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.tables.operators import operator

LAZY_FROM = 1 << 26  # bytes of a weight


def rewrite(model: ir.Model, plan: Plan, layers: Mapping[str, Layer | Packed]) -> None:
    """Rewrite a prepared model in place.

    Raises FcdeployError when the plan asks for integers of a tensor for which it has no scale.
    """
    kinds = plan.kinds
    for node in list(model.graph):
        if kinds[node.name or ""] == "absorbed":
            _absorb(model.graph, node)
    writer = Writer(model.graph, plan.tensors)
    for node in list(model.graph):
        kind, layer = kinds[node.name or ""], layers.get(node.name or "")
        if kind in ("int8", "int16"):
            assert not isinstance(layer, Packed)
            writer.integer(node, layer)
        elif kind == "moves":
            writer.move(node)
        else:
            if kind == "stored":
                writer.store(node)
            writer.leave(node)
            if isinstance(layer, Packed):
                writer.pack(node, layer)
    writer.outputs()
    for node in list(model.graph):
        if would_be_rounded(node):
            hold(model.graph, node)
    for name in [n for n, v in model.graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
        del model.graph.initializers[name]
    if any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports[DOMAIN] = 1


def _absorb(graph: ir.Graph, clip: ir.Node) -> None:
    """Drop a clip; the tensor before it takes the name, because that is what its saturated bytes say."""
    before, after = clip.inputs[0], clip.outputs[0]
    assert before is not None
    name = after.name
    after.name = f"{name}/absorbed"
    after.replace_all_uses_with(before, replace_graph_outputs=True)
    graph.remove(clip, safe=True)
    before.name = name


class Writer:
    """The integer side of the graph as it grows: which tensor has integers, and which has been read back from them."""

    def __init__(self, graph: ir.Graph, tensors: Mapping[str, QParams]) -> None:
        self.graph = graph
        self.tensors = tensors
        self.names = {value: value.name or "" for node in graph for value in node.outputs}
        self.taken = {value.name for node in graph for value in node.outputs} | {node.name for node in graph}
        self.taken |= {*graph.initializers, *(value.name for value in graph.inputs)}
        self.integers: dict[ir.Value, ir.Value] = {}
        self.read_back: dict[ir.Value, ir.Value] = {}
        self.behind: set[ir.Value] = set()  # tensors whose only truth is their integers
        self.shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def integer(self, node: ir.Node, layer: Layer | None) -> None:
        """A node with an integer kernel: it reads through DequantizeLinear, and QuantizeLinear reads it."""
        data = data_inputs(node, operator(node.op_type, node.domain))
        if node.op_type == "Concat" and len({_key(self.qparams(v)) for v in (*data, *node.outputs)}) == 1:
            self.move(node)
            return
        self.between(node, layer)

    def between(self, node: ir.Node, layer: Layer | None) -> None:
        """A node that reads through DequantizeLinear, and QuantizeLinear reads it."""
        data = data_inputs(node, operator(node.op_type, node.domain))
        weight = weight_of(node)
        for index, value in enumerate(node.inputs):
            if value in data and value is not weight:
                node.replace_input_with(index, self.dequantized(value, node))
        if weight is not None and layer is not None:
            if layer.padded:
                node.replace_input_with(0, self._with_channels(data[0], missing_channels(node), node))
            self._constants(node, weight, layer)
        for output in node.outputs:
            if self.names[output] in self.tensors:
                self.integers[output] = self._quantize_linear(output, after=node)
                self.behind.add(output)

    def move(self, node: ir.Node) -> None:
        """A node that moves bytes: the same node, on the integers."""
        data = data_inputs(node, operator(node.op_type, node.domain))
        q = self.qparams(data[0])
        if q.dtype == "int16":  # few kernels move 16 bits
            self.between(node, None)
            return
        for index, value in enumerate(node.inputs):
            if value in data:
                node.replace_input_with(index, self.quantized(value, node))
        _byte_constants(node, q, self._initializer)
        for output in node.outputs:
            output.name = self._free(f"{output.name}/q")
            output.type = _tensor_type(q)
            self.integers[output] = output
            self.behind.add(output)

    def leave(self, node: ir.Node) -> None:
        """A float node: what exists only as integers is read back for it, or for the bodies it holds."""
        row = operator(node.op_type, node.domain)
        for index, value in enumerate(node.inputs):
            if value in self.behind:
                replacement = self.integers[value] if row.role == "shape" else self.dequantized(value, node)
                node.replace_input_with(index, replacement)
        for body in (graph for attribute in node.attributes.values() for graph in _graphs(attribute)):
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value in self.behind:
                        inner.replace_input_with(index, self.dequantized(value, node))

    def store(self, node: ir.Node) -> None:
        """Weights of a float node as bytes that the runtime turns back into floats once, when it loads the model.

        A DequantizeLinear would be run at every inference, and keep the weight from being laid out for the fast kernels.
        """
        for index, value, axis in stored_weights(node):
            q = self.tensors[value.name or ""]
            tensor = value.const_value
            assert tensor is not None
            integers = self._initializer(_stored(tensor, q, axis), f"{value.name}/q")
            shape = [-1 if i == axis else 1 for i in range(len(tensor.shape))]
            scale = self._initializer(np.asarray(q.scale, np.float32).reshape(shape), f"{value.name}/s")
            names = self._free(f"{value.name}/c"), self._free(f"{value.name}/r")
            cast = ir.node("Cast", [integers], {"to": ir.DataType.FLOAT}, name=names[0])
            real = ir.node("Mul", [cast.outputs[0], scale], name=names[1])
            cast.outputs[0].name, real.outputs[0].name = names
            for result in (cast.outputs[0], real.outputs[0]):
                result.type = ir.TensorType(ir.DataType.FLOAT)
            self.graph.insert_before(node, [cast, real])
            node.replace_input_with(index, real.outputs[0])

    def pack(self, node: ir.Node, layer: Packed) -> None:
        """A layer on float activations, as the operator of onnxruntime's own that it becomes."""
        pack(node, layer, self.tensors[weight.name or ""] if (weight := node.inputs[1]) else None, self._initializer)

    def outputs(self) -> None:
        """Graph outputs keep their names and stay float."""
        for index, value in enumerate(list(self.graph.outputs)):
            if value not in self.behind:
                continue
            name = self.names[value]
            if value.name == name:
                value.name = self._free(f"{name}/f")
            if value in self.read_back:
                real = self.read_back[value]
            else:
                real = self._dequantize_linear(self.integers[value], self.qparams(value), name)
                self.graph.append(_producer(real))
                self.read_back[value] = real
            real.name = name
            real.shape, real.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs[index] = real

    def qparams(self, value: ir.Value) -> QParams:
        """The scale of a tensor, by the name it had in the float model."""
        name = self.names.get(value, value.name or "")
        if name not in self.tensors:
            raise FcdeployError(
                f"the plan makes integers of tensor {name!r}, but has no scale for it",
                "add its scale to the plan's tensors, or make the nodes that read it float",
            )
        return self.tensors[name]

    def quantized(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The integers of a tensor, made in front of its first reader when it has none yet."""
        if value not in self.integers:
            if is_constant(value):
                integers = quantize(value.const_value.numpy(), self.qparams(value))  # type: ignore[union-attr]
                self.integers[value] = self._initializer(integers, f"{value.name}/q")
            else:
                self.integers[value] = self._quantize_linear(value, before=reader)
        return self.integers[value]

    def dequantized(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """What is read back from the integers of a tensor."""
        if value not in self.read_back:
            name = self.names.get(value, value.name or "")
            real = self._dequantize_linear(self.quantized(value, reader), self.qparams(value), f"{name}/dq")
            self.graph.insert_before(reader, _producer(real))
            self.read_back[value] = real
        return self.read_back[value]

    def _quantize_linear(
        self, value: ir.Value, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        q = self.qparams(value)
        scale, zero_point = self._scale(q), self._zero_point(q)
        name = self._free(f"{self.names.get(value, value.name)}/q")
        result = ir.Value(name=name, shape=value.shape, type=_tensor_type(q))
        node = ir.Node(_domain(q), "QuantizeLinear", [value, scale, zero_point], outputs=[result], name=name)
        if after is not None:
            self.graph.insert_after(after, node)
        elif before is not None:
            self.graph.insert_before(before, node)
        return result

    def _dequantize_linear(self, integers: ir.Value, q: QParams, name: str, zeros: str = "shared") -> ir.Value:
        """A DequantizeLinear that is not in the graph yet; its zero point is "shared", its "own", or "none", being 0."""
        name = self._free(name)
        real = ir.Value(name=name, shape=integers.shape, type=ir.TensorType(ir.DataType.FLOAT))
        inputs, axis = [integers, self._scale(q)], {}
        if q.axis is not None:
            axis = {"axis": ir.AttrInt64("axis", q.axis)}
        if zeros == "shared":
            inputs.append(self._zero_point(q))
        elif zeros == "own":
            every = np.zeros(() if q.axis is None else len(q.scale), q.dtype)
            inputs.append(self._initializer(every, f"{integers.name}z"))
        ir.Node(_domain(q), "DequantizeLinear", inputs, axis, outputs=[real], name=name)
        return real

    def _with_channels(self, value: ir.Value, more: int, node: ir.Node) -> ir.Value:
        """The image that a convolution reads with `more` channels of zeros behind its own."""
        q, integers = self.qparams(value), self.quantized(value, node)
        name = f"{self.names.get(value, value.name)}/{node.name}"
        pads = self._initializer(np.array([0, 0, 0, 0, 0, more, 0, 0]), f"{name}/p")
        wide = self._free(f"{name}/w")
        wider = ir.Value(name=wide, type=_tensor_type(q))
        pad = ir.Node("", "Pad", [integers, pads, self._zero_point(q)], outputs=[wider], name=wide)
        real = self._dequantize_linear(wider, q, f"{name}/dq")
        self.graph.insert_before(node, [pad, _producer(real)])
        return real

    def _constants(self, node: ir.Node, weight: ir.Value, layer: Layer) -> None:
        """Weight and bias of a layer as integers behind DequantizeLinear."""
        named: list[tuple[str, NDArray[Any] | ir.LazyTensor, int | None]] = [
            (weight.name or "", layer.weight, operator(node.op_type).weight)
        ]
        if layer.bias is not None:
            named.append((bias_name(node), layer.bias, operator(node.op_type).bias))
        for name, integers, index in named:
            assert index is not None
            stored = self._initializer(integers, f"{name}/q")
            # QGemm fuses only where a weight's zero points are given, and shared ones keep onnxruntime from loading the
            # model under session.x64quantprecision, which gives 8-bit weights that fuse with nothing one of its own, for
            # all channels, and then cannot run; QLinearConv does without
            given = name == weight.name and (node.op_type != "Conv" or not layer.fuses)
            zeros = "own" if given and self.tensors[name].dtype == "int8" else "none"
            real = self._dequantize_linear(stored, self.tensors[name], f"{name}/dq", zeros)
            self.graph.insert_before(node, _producer(real))
            if index >= len(node.inputs):
                node.resize_inputs(index + 1)
            node.replace_input_with(index, real)

    def _free(self, name: str) -> str:
        """The name, or one like it that no node or tensor of the graph has: both kinds must be unique to load."""
        while name in self.taken:
            name += "'"
        self.taken.add(name)
        return name

    def _scale(self, q: QParams) -> ir.Value:
        values = np.asarray(q.scale, np.float32)
        return self._shared(values[0] if q.axis is None else values, "s")

    def _zero_point(self, q: QParams) -> ir.Value:
        return self._shared(np.array(q.zero_point, q.dtype), "z")

    def _shared(self, array: Any, prefix: str) -> ir.Value:
        """A small constant that many nodes read, stored once."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.shared:
            self.shared[key] = self._initializer(array, f"{prefix}{len(self.shared)}")
        return self.shared[key]

    def _initializer(self, made: NDArray[Any] | ir.LazyTensor, name: str) -> ir.Value:
        name = self._free(name)
        tensor = made if isinstance(made, ir.LazyTensor) else ir.tensor(made)
        tensor.name = name
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value


def _stored(tensor: ir.TensorProtocol, q: QParams, axis: int) -> NDArray[Any] | ir.LazyTensor:
    """The integers of a weight, some channels at a time; those of a large one are made when they are written."""

    def make() -> NDArray[Any]:
        result = np.empty(tensor.shape.numpy(), q.dtype)
        for part, array in blocks(tensor, axis):
            result[(slice(None),) * axis + (part,)] = quantize(array, replace(q, scale=q.scale[part]))
        return result

    lazy = ir.LazyTensor(lambda: ir.Tensor(make()), ir.DataType[q.dtype.upper()], ir.Shape(tensor.shape.numpy()))
    return lazy if tensor.nbytes >= LAZY_FROM else make()


def would_be_rounded(node: ir.Node) -> bool:
    """Whether onnxruntime would take a float layer for an integer one whose weights nobody has quantized yet.

    It does between a DequantizeLinear and a QuantizeLinear, quantizing them with one scale for all channels.  A clip in
    front of the QuantizeLinear does not keep it from that: it is removed first.
    """
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return False
    source, weight = (value.producer() if value is not None else None for value in node.inputs[:2])
    if weight is not None and weight.op_type == "DequantizeLinear":
        return False
    readers = node.outputs[0].consumers()
    while len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = readers[0].outputs[0].consumers()
    written = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
    return source is not None and source.op_type == "DequantizeLinear" and written


def hold(graph: ir.Graph, node: ir.Node) -> None:
    """Put a LeakyRelu of slope 1, which changes nothing, behind a node; it fuses into the float kernel."""
    value = node.outputs[0]
    result = ir.Value(name=value.name, shape=value.shape, type=value.type)
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    value.name = f"{result.name}/held"
    slope = {"alpha": ir.AttrFloat32("alpha", 1.0)}
    graph.insert_after(node, ir.Node("", "LeakyRelu", [value], slope, outputs=[result], name=f"{node.name}/held"))


def _byte_constants(node: ir.Node, q: QParams, initializer: Any) -> None:
    """Fill value of a Pad and bounds of a Clip, in the integers they now stand among; a Relu becomes such a Clip."""
    if node.op_type == "Relu":
        node.op_type = "Clip"
        node.resize_inputs(2)
        node.replace_input_with(1, initializer(np.array(q.zero_point, q.dtype), f"{node.outputs[0].name}/low"))
        return
    if node.op_type not in ("Pad", "Clip"):
        return
    indices = [2] if node.op_type == "Pad" else [1, 2]
    mode = node.attributes.get("mode")
    if node.op_type == "Pad" and mode is not None and mode.as_string() != "constant":
        return
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None and node.op_type == "Clip":
            continue
        real = np.zeros((), np.float32) if value is None else value.const_value.numpy().reshape(())  # type: ignore[union-attr]
        integers = quantize(real, q)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, initializer(np.asarray(integers), f"{node.outputs[0].name}/{index}"))


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _tensor_type(q: QParams) -> ir.TensorType:
    return ir.TensorType(ir.DataType[q.dtype.upper()])


def _domain(q: QParams) -> str:
    """Whose Q/DQ it is: ONNX's own takes 16 bits from opset 21 on only, onnxruntime's in any."""
    return DOMAIN if q.dtype == "int16" else ""


def _key(q: QParams) -> tuple[str, tuple[float, ...], int]:
    return q.dtype, q.scale, q.zero_point
