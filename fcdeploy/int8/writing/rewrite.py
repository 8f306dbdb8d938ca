"""Graph and plan to the int8 model. It decides nothing: every node's kind and every scale stand in the plan.

A tensor x that becomes integers keeps its name on the float side of its QuantizeLinear; the integers are `x/q` and what
is read back from them `x/dq`.  Nodes that move bytes work on the integers themselves: no runtime has to recognise a
pattern first, and the answer is the same with graph optimization off.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import LIMITS, quantize
from fcdeploy.arithmetic.sigmoid_forms import SIGMOID_FORMS, TABLE
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import set_operator
from fcdeploy.graph.nodes import constant_array, data_inputs, is_constant, name_of, operator_of, subgraphs_of, weight_of
from fcdeploy.graph.scratch import Scratch
from fcdeploy.int8.nodes import affine_of, missing_channels
from fcdeploy.int8.planning.same_floats import find_length, find_same_floats
from fcdeploy.int8.planning.scale_groups import follow
from fcdeploy.int8.planning.types import PackedWeights
from fcdeploy.int8.planning.weights import RoundedLayer
from fcdeploy.int8.writing.block_fusion import block_unwanted_fusions, keep_gelus
from fcdeploy.int8.writing.blocked_arithmetic import keep_layout
from fcdeploy.int8.writing.constants import quantize_constants, write_layer, write_weight_only
from fcdeploy.int8.writing.contrib_ops import DOMAIN, replace_with_contrib_op
from fcdeploy.int8.writing.conversions import Conversions, choose_integer_type, producer
from fcdeploy.int8.writing.exact_functions import ExactFunctions
from fcdeploy.int8.writing.shared_constants import share_constants
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.tables.targets import TARGETS

FLOATS = ("float", "weight_only")  # kinds of nodes that compute in float


def rewrite(
    model: ir.Model, plan: Plan, layers: Mapping[str, RoundedLayer | PackedWeights], *, scratch: Scratch | None = None
) -> None:
    """Rewrite a prepared model in place; weights that float nodes store as bytes go into `scratch`, if there is one.

    Raises FcdeployError when the plan asks for integers of a tensor for which it has no scale.
    """
    kinds = plan.kinds
    for node in list(model.graph):
        if kinds[name_of(node)] == "fused":
            _fuse_clip(model.graph, node)

    one_answer = plan.target in TARGETS and TARGETS[plan.target].one_answer
    functions = find_same_floats(model.graph, plan).functions if one_answer else frozenset()
    writer = Writer(model.graph, plan.tensors, one_answer=one_answer)
    for node in list(model.graph):
        kind, layer = kinds[name_of(node)], layers.get(name_of(node))
        if kind in ("int8", "int16"):
            assert not isinstance(layer, PackedWeights)
            writer.write_integer(node, layer)
        elif kind == "passthrough":
            writer.write_passthrough(node)
        elif kind == "reinterpreted":
            writer.write_reinterpreted(node)
        else:
            if kind == "weight_only":
                write_weight_only(node, plan.tensors, writer.conversions, scratch)
            if node in functions:
                writer.write_function(node)
            else:
                writer.write_float(node)
            if isinstance(layer, PackedWeights):
                writer.write_packed(node, layer)

    writer.restore_outputs()
    writer.remove_finished()

    if not writer.one_answer:  # such a convolution rounds once where a Mul and an Add round twice
        keep_layout(model.graph)
        keep_gelus(model.graph)
    block_unwanted_fusions(model.graph, {name for name, kind in kinds.items() if kind in FLOATS})
    for name in [n for n, v in model.graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
        del model.graph.initializers[name]
    share_constants(model.graph)
    if any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports[DOMAIN] = 1


def _fuse_clip(graph: ir.Graph, clip: ir.Node) -> None:
    """Drop a clip; the tensor before it takes the name, because that is what its saturated bytes say."""
    before, after = clip.inputs[0], clip.outputs[0]
    assert before is not None
    name = after.name
    after.name = f"{name}/fused"
    after.replace_all_uses_with(before, replace_graph_outputs=True)
    graph.remove(clip, safe=True)
    before.name = name


class Writer:
    """The integer side of the graph as it grows: which tensor has integers, and which has been read back from them."""

    def __init__(self, graph: ir.Graph, tensors: Mapping[str, QParams], *, one_answer: bool) -> None:
        self.graph = graph
        self.one_answer = one_answer
        self.tensors = tensors
        self.names = {value: name_of(value) for node in graph for value in node.outputs}
        self.conversions = Conversions(graph)
        self.integers: dict[ir.Value, ir.Value] = {}
        self.read_back: dict[ir.Value, ir.Value] = {}
        self.integer_only: set[ir.Value] = set()  # tensors whose only truth is their integers
        self.finished: list[ir.Node] = []  # nodes that a second way of reading bytes has made superfluous
        self.steps = {node: affine_of(node) for node in graph}  # seen while what nodes read are floats

    def write_integer(self, node: ir.Node, layer: RoundedLayer | None) -> None:
        """A node with an integer kernel: it reads through DequantizeLinear, and QuantizeLinear reads it."""
        data = data_inputs(node)
        if node.op_type == "Concat" and len({_key(self.qparams(v)) for v in (*data, *node.outputs)}) == 1:
            self.write_passthrough(node)
            return
        if node.op_type in SIGMOID_FORMS and self.qparams(node.outputs[0]).dtype != "int16":
            self.write_sigmoid(node)
            return
        self.write_between_qdq(node, layer)

    def write_between_qdq(self, node: ir.Node, layer: RoundedLayer | None) -> None:
        """A node that reads through DequantizeLinear, and QuantizeLinear reads it."""
        data = data_inputs(node)
        weight = weight_of(node)
        more = missing_channels(node) if layer is not None and layer.padded else 0
        for index, value in enumerate(node.inputs):
            if value in data and value is not weight:
                read = self._with_channels(value, more, node) if more else self.read_dequantized(value, node)
                node.replace_input_with(index, read)
        if weight is not None and layer is not None:
            write_layer(node, weight, layer, self.tensors, self.conversions)
        for output in node.outputs:
            if self.names[output] in self.tensors:
                self.integers[output] = self._quantize_linear(output, after=node)
                self.integer_only.add(output)

    def write_passthrough(self, node: ir.Node) -> None:
        """A node that moves bytes: the same node, on the integers."""
        data = data_inputs(node)
        q = self.qparams(data[0])
        if q.dtype == "int16":  # few kernels move 16 bits
            self.write_between_qdq(node, None)
            return
        for index, value in enumerate(node.inputs):
            if value in data:
                node.replace_input_with(index, self.read_quantized(value, node))
        quantize_constants(node, q, self.conversions)
        for output in node.outputs:
            output.name = self.conversions.free_name(f"{output.name}/q")
            output.type = choose_integer_type(q)
            self.integers[output] = output
            self.integer_only.add(output)

    def write_reinterpreted(self, node: ir.Node) -> None:
        """Arithmetic with one number: what reads its result reads the bytes of its input. A HardSigmoid clips them first."""
        step, output = self.steps[node], node.outputs[0]
        assert step is not None, "only such nodes are reinterpreted"
        integers, q = self.read_quantized(step.value, node), self.qparams(output)
        if node.op_type == "HardSigmoid":
            integers = self._clip(integers, q, 0.0, 1.0, node)
        self.integers[output] = integers
        self.integer_only.add(output)
        self.finished.append(node)

    def write_sigmoid(self, node: ir.Node) -> None:
        """A function that is a table of sigmoids, by the kernel that looks them up (arithmetic/sigmoid_forms.py)."""
        form, output = SIGMOID_FORMS[node.op_type], node.outputs[0]
        value, name = node.inputs[0], self.names[output]
        assert value is not None
        read, q = self.qparams(value), self.qparams(output)
        inner = follow(read, form.inner, 0.0)
        real = self.conversions.dequantize(self.read_quantized(value, node), inner, f"{name}/i")
        self.graph.insert_before(node, producer(real))
        set_operator(node, "Sigmoid", "", [real])
        output.name = self.conversions.free_name(f"{name}{TABLE}")  # `name` is what the bytes are read back as
        # outer (sigmoid - 1/2) = s (q - z)
        table = follow(q, 1 / form.outer, 0.5)
        integers = self.conversions.quantize(output, table, f"{name}/q")
        self.graph.insert_after(node, producer(integers))
        self.integers[output] = self._clip(integers, q, -1.0, 1.0, producer(integers), after=True)
        self.integer_only.add(output)

    def _clip(
        self, integers: ir.Value, q: QParams, low: float, high: float, node: ir.Node, *, after: bool = False
    ) -> ir.Value:
        """Bytes clipped where they stand for numbers outside [low, high], if there are such bytes."""
        ends = quantize(np.array([low, high], np.float32), q)
        if tuple(ends.tolist()) == LIMITS[q.dtype]:
            return integers
        bounds = [
            None if end == limit else self.conversions.one_number(end)
            for end, limit in zip(ends, LIMITS[q.dtype], strict=True)
        ]  # fmt: skip
        name = self.conversions.free_name(f"{integers.name}/c")
        result = ir.Value(name=name, shape=integers.shape, type=choose_integer_type(q))
        inputs = [integers, *bounds] if bounds[1] is not None else [integers, bounds[0]]
        # what stands for a node has its name, by which its time is found
        clip = ir.Node("", "Clip", inputs, outputs=[result], name=name if after else name_of(node))
        if after:
            self.graph.insert_after(node, clip)
        else:
            self.graph.insert_before(node, clip)
        return result

    def remove_finished(self) -> None:
        """Take out the nodes that nothing reads any more."""
        for node in reversed(self.finished):
            self.graph.remove(node, safe=True)

    def write_float(self, node: ir.Node) -> None:
        """A float node: what exists only as integers is read back for it, or for the bodies it holds."""
        row = operator_of(node)
        for index, value in enumerate(node.inputs):
            if value in self.integer_only:
                replacement = self.integers[value] if row.role == "shape" else self.read_dequantized(value, node)
                node.replace_input_with(index, replacement)
        for body in subgraphs_of(node):
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value in self.integer_only:
                        inner.replace_input_with(index, self.read_dequantized(value, node))

    def write_function(self, node: ir.Node) -> None:
        """A float node that is to give the same bits on every CPU."""
        value, write, length = node.inputs[0], ExactFunctions(self.graph, self.conversions), find_length(node)
        assert value is not None and length is not None
        if value in self.integer_only and self.qparams(value).dtype == "uint8":
            write.of_bytes(node, self.integers[value], self.qparams(value), length)
        else:
            real = self.read_dequantized(value, node) if value in self.integer_only else value
            write.of_floats(node, real, length)

    def write_packed(self, node: ir.Node, layer: PackedWeights) -> None:
        """A layer on float activations, as the operator of onnxruntime's own that it becomes."""
        replace_with_contrib_op(
            node,
            layer,
            self.tensors[name_of(weight)] if (weight := node.inputs[1]) else None,
            self.conversions.add_constant,
            in_float=self.one_answer,
        )

    def restore_outputs(self) -> None:
        """Graph outputs keep their names and stay float."""
        for index, value in enumerate(list(self.graph.outputs)):
            if value not in self.integer_only:
                continue
            name = self.names[value]
            if value.name == name:
                value.name = self.conversions.free_name(f"{name}/f")
            if value in self.read_back:
                real = self.read_back[value]
            else:
                real = self.conversions.dequantize(self.integers[value], self.qparams(value), name)
                self.graph.append(producer(real))
                self.read_back[value] = real
            real.name = name
            real.shape, real.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs[index] = real

    def qparams(self, value: ir.Value) -> QParams:
        """The scale of a tensor, by the name it had in the float model."""
        name = self.names.get(value, name_of(value))
        if name not in self.tensors:
            raise FcdeployError(
                f"the plan makes integers of tensor {name!r}, but has no scale for it",
                "add its scale to the plan's tensors, or make the nodes that read it float",
            )
        return self.tensors[name]

    def read_quantized(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """The integers of a tensor, conversions in front of its first reader when it has none yet."""
        if value not in self.integers:
            if is_constant(value):
                integers = quantize(constant_array(value), self.qparams(value))
                self.integers[value] = self.conversions.add_constant(integers, f"{value.name}/q")
            else:
                self.integers[value] = self._quantize_linear(value, before=reader)
        return self.integers[value]

    def read_dequantized(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """What is read back from the integers of a tensor."""
        if value not in self.read_back:
            name = self.names.get(value, name_of(value))
            real = self.conversions.dequantize(self.read_quantized(value, reader), self.qparams(value), f"{name}/dq")
            self.graph.insert_before(reader, producer(real))
            self.read_back[value] = real
        return self.read_back[value]

    def _quantize_linear(
        self, value: ir.Value, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        q, name = self.qparams(value), self.names.get(value, value.name)
        if q.pixels and before is not None:
            value = self.conversions.normalize_pixels(value, q, f"{name}/b")
            self.graph.insert_before(before, producer(value))
        result = self.conversions.quantize(value, q, f"{name}/q")
        if after is not None:
            self.graph.insert_after(after, producer(result))
        elif before is not None:
            self.graph.insert_before(before, producer(result))
        return result

    def _with_channels(self, value: ir.Value, more: int, node: ir.Node) -> ir.Value:
        """The image that a convolution reads with `more` channels of zeros behind its own, or of 255 where it is bytes."""
        q, integers = self.qparams(value), self.read_quantized(value, node)
        fill = self.conversions.find_highest(q) if q.pixels else self.conversions.zero_point(q)
        name = f"{self.names.get(value, value.name)}/{node.name}"
        pads = self.conversions.add_constant(np.array([0, 0, 0, 0, 0, more, 0, 0]), f"{name}/p")
        wide = self.conversions.free_name(f"{name}/w")
        wider = ir.Value(name=wide, type=choose_integer_type(q))
        pad = ir.Node("", "Pad", [integers, pads, fill], outputs=[wider], name=wide)
        real = self.conversions.dequantize(wider, q, f"{name}/dq")
        self.graph.insert_before(node, [pad, producer(real)])
        return real


def _key(q: QParams) -> tuple[str, tuple[float, ...], int]:
    return q.dtype, q.scale, q.zero_point
