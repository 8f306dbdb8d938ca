"""Reading a graph: names, operators, attributes, constants and shapes, with the types that onnx-ir leaves open.

A constant is what stands in the file: an initializer, or what a Constant node writes.  An initializer that is also
listed as a graph input counts: IR version 3 lists all weights there, and no command of fcdeploy ever feeds one
(`graph.model.input_specs` leaves them out, the pass `lift_constants` takes them off the list).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.tables.operators import Operator, operator
from fcdeploy.wording import list_some

STANDARD = ("", "ai.onnx")
KINDS = {
    int: ir.AttributeType.INT,
    float: ir.AttributeType.FLOAT,
    str: ir.AttributeType.STRING,
    tuple: ir.AttributeType.INTS,
}
COUNTS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
NUMBERS = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
Given = TypeVar("Given", int, float, str, tuple[int, ...])


def name_of(item: ir.Node | ir.Value | None) -> str:
    """Its name, empty where it has none."""
    return "" if item is None else item.name or ""


def make_unique(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or with a number behind it where that is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def describe(node: ir.Node) -> str:
    """A node in a sentence: operator and name."""
    return f"{node.op_type} {node.name!r}"


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether it is a standard operator, one of these."""
    return node is not None and node.op_type in op_types and node.domain in STANDARD


def operator_of(node: ir.Node) -> Operator:
    """The row of tables/operators.py for a node."""
    return operator(node.op_type, node.domain)


def opset_of(model: ir.Model) -> int:
    """Version of the standard operators that the model is written in."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def attribute_of(node: ir.Node, name: str, default: Given) -> Given:
    """An attribute of the type of `default`: an int, float, text or tuple of ints; `default` where it is not given.

    Raises FcdeployError when the file gives another type.
    """
    given = _read_attribute(node, name, KINDS[type(default)])
    if given is None:
        return default
    value: Given = tuple(given) if isinstance(default, tuple) else given
    return value


def floats_of(node: ir.Node, name: str) -> tuple[float, ...]:
    """A list of floats, empty where it is not given. Raises FcdeployError when the file gives another type."""
    return tuple(_read_attribute(node, name, ir.AttributeType.FLOATS) or ())


def texts_of(node: ir.Node, name: str) -> tuple[str, ...]:
    """A list of texts, empty where it is not given. Raises FcdeployError when the file gives another type."""
    return tuple(_read_attribute(node, name, ir.AttributeType.STRINGS) or ())


def _read_attribute(node: ir.Node, name: str, wanted: ir.AttributeType) -> Any:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.value is None:
        return None
    if attribute.type != wanted:
        raise FcdeployError(
            f"{describe(node)}: attribute {name!r} is {attribute.type.name}, expected {wanted.name}",
            "export the model again with standard ONNX operators",
        )
    return attribute.value


def ints_of(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """A list that older operator sets give as attribute `name` and newer ones as constant input `index`.

    Empty when neither is there; None when the input is computed at run time.
    """
    if name in node.attributes:
        return attribute_of(node, name, ())
    value = input_of(node, index)
    if value is None:
        return ()
    array = array_of(value)
    return None if array is None else tuple(int(item) for item in array.reshape(-1))


def computes_shapes(node: ir.Node) -> bool:
    """Whether it only handles lengths and indices: it makes whole numbers of a shape, or of other such numbers."""
    if is_op(node, "Shape", "Size", "Constant", "ConstantOfShape", "Range"):
        return True
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return bool(node.inputs) and all(value.dtype in COUNTS for value in values)


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies of an If, Loop or Scan; of none below them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def values_read_by(node: ir.Node) -> list[ir.Value]:
    """Its inputs, and what the bodies inside it read, from around them or of their own."""
    inner = [value for body in subgraphs_of(node) for child in body.all_nodes() for value in child.inputs]
    return [value for value in (*node.inputs, *inner) if value is not None]


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that writes a value, if it is one of these operators, of any domain; any node when none are named."""
    node = None if value is None else value.producer()
    return None if node is None or (op_types and node.op_type not in op_types) else node


def tensors_of(graph: ir.Graph | ir.GraphView) -> Iterator[ir.Value]:
    """The graph's inputs, and what its nodes write, in their order."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def walk_back(
    ends: Iterable[ir.Value | None], beyond: Callable[[ir.Node], Iterable[ir.Value | None]] = lambda node: node.inputs
) -> Iterator[ir.Node]:
    """The nodes that some values are computed by, each once, last branch first.

    `beyond` says with which of a node's inputs the walk goes on: all, unless told otherwise.
    """
    waiting, seen = list(ends), set[ir.Node]()
    while waiting:
        node = producer_of(waiting.pop())
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += beyond(node)


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that carry activations, or constants among them, by the table of operators."""
    indices = operator_of(node).data
    values = node.inputs if indices is None else [input_of(node, index) for index in indices]
    return [value for value in values if value is not None]


def weight_of(node: ir.Node) -> ir.Value | None:
    """The constant weight of a layer that multiplies; None where it is computed, and for any other node."""
    index = operator_of(node).weight
    value = None if index is None else input_of(node, index)
    return value if is_constant(value) else None


def has_depthwise_weight(node: ir.Node, shape: Sequence[int]) -> bool:
    """Whether a convolution with weights of this `shape` reads one input channel of its own for every output channel.

    Of one channel each it does without a written `group`, too.
    """
    return len(shape) > 1 and shape[1] == 1 and shape[0] == attribute_of(node, "group", 1)


def bias_of(node: ir.Node) -> ir.Value | None:
    """The bias of a layer that multiplies, computed or constant; None where it has none."""
    index = operator_of(node).bias
    return None if index is None else input_of(node, index)


def output_axis(node: ir.Node) -> int:
    """The axis of a Conv's, Gemm's or MatMul's weight that counts output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute_of(node, "transB", 0) else 1
    weight = weight_of(node)
    return len(weight.shape) - 1 if weight is not None and weight.shape is not None else 1


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """Where a Clip or Relu clips; -inf and inf for an end that is not given, or computed at run time."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    ends = []
    for index, name, unbounded in ((1, "min", -math.inf), (2, "max", math.inf)):  # attributes until opset 11
        array = array_of(input_of(node, index))
        ends.append(attribute_of(node, name, unbounded) if array is None else float(array.reshape(-1)[0]))
    return ends[0], ends[1]


def integer_type_of(node: ir.Node) -> ir.DataType | None:
    """What a QuantizeLinear writes, or a DequantizeLinear reads: by its zero point, else by what is declared."""
    point = input_of(node, 2)
    if point is not None and point.dtype is not None:
        return point.dtype
    if node.op_type == "QuantizeLinear":
        declared = attribute_of(node, "output_dtype", 0)
        return ir.DataType(declared) if declared else ir.DataType.UINT8
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    if before is not None and before.op_type == "QuantizeLinear":
        return integer_type_of(before)
    return None if value is None else value.dtype


def zero_point_of(node: ir.Node) -> Array | None:
    """The zero points of a QuantizeLinear or DequantizeLinear: 0 where they are left out, None where they are computed."""
    given = input_of(node, 2)
    kind = integer_type_of(node)
    return array_of(given) if given is not None else np.zeros((), kind.numpy() if kind is not None else np.uint8)


def fill_value(node: ir.Node) -> float:
    """What a Pad writes into the border; 0 for other nodes, and for a Pad that repeats its input there."""
    if node.op_type != "Pad" or attribute_of(node, "mode", "constant") != "constant":
        return 0.0
    array = array_of(input_of(node, 2))
    return attribute_of(node, "value", 0.0) if array is None else float(array.reshape(()))


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant of numbers, None for anything else; reads no data."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if not is_op(node, "Constant") or node is None:
        return None
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype != ir.DataType.STRING:
            return attribute.as_tensor()
        if attribute.name in NUMBERS and attribute.value is not None:
            return ir.tensor(np.array(attribute.value, NUMBERS[attribute.name]), name=value.name)
    return None


def is_constant(value: ir.Value | None) -> bool:
    """Whether `array_of` gives an array; reads no data."""
    return tensor_of(value) is not None


def array_of(value: ir.Value | None) -> Array | None:
    """The array of a constant; None where the value is computed, fed or left out."""
    tensor = tensor_of(value)
    return None if tensor is None else tensor.numpy()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol:
    """The tensor of a value that is known to be constant."""
    tensor = tensor_of(value)
    assert tensor is not None, f"{name_of(value)!r} is no constant"
    return tensor


def constant_array(value: ir.Value | None) -> Array:
    """The array of a value that is known to be constant."""
    return constant_tensor(value).numpy()


def find_constants(graph: ir.Graph) -> set[ir.Value]:
    """Values that do not depend on an input: initializers, and what is computed from them alone."""
    constant = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Constant" or (inputs and all(value in constant for value in inputs)):
            constant.update(node.outputs)
    return constant


def rank_of(value: ir.Value | None) -> int | None:
    """The number of axes, None where it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every axis has a known length, else None."""
    if value is None or value.shape is None:
        return None
    lengths = tuple(axis for axis in value.shape if isinstance(axis, int))
    return lengths if len(lengths) == len(value.shape) else None


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value whose axes are known to have known lengths, as those of a constant."""
    shape = static_shape(value)
    assert shape is not None, f"{name_of(value)!r} has the shape {value.shape}"
    return shape


def other_readers(value: ir.Value, besides: ir.Node) -> str:
    """Who else reads `value`, in words: "'add3'", "'add3' and 2 more", "the graph's output"."""
    names = [repr(node.name or node.op_type) for node in value.consumers() if node is not besides]
    return list_some(names, 1) or ("the graph's output" if value.is_graph_output() else "")
