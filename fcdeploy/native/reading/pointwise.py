"""Operators that work element by element: on bytes they are tables, sums and products of two; else floats."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.functions import BINARY, TABLED, UNARY
from fcdeploy.native.program.steps import Combine, LookupTable, Move, Place, Pointwise, Quantize
from fcdeploy.native.program.tensors import CODES, Coding, Tensor
from fcdeploy.native.reading.casts import convert
from fcdeploy.native.reading.operands import Coded, Fixed, Operand, is_identity, make_channel_reals, make_real
from fcdeploy.native.reading.reader import Reader, name_output, read_shape

COMBINED: dict[str, Literal["add", "mul"]] = {"Add": "add", "Sub": "add", "Mul": "mul"}
"""Operators on two tensors that have a kernel on bytes; a difference is a sum with the bytes turned around."""
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
NARROW = {"int2": np.int8, "int4": np.int8, "uint2": np.uint8, "uint4": np.uint8}
"""Constants of fewer bits, and what holds them."""
WHOLE = 1 << 24  # whole numbers below it are floats, and none above it is rounded to one of them
LARGEST = 1 << 16  # bytes of tables, one a channel, that take the place of float operations


def quantize(reader: Reader, node: ir.Node) -> None:
    x, coding = reader.read(node.inputs[0]), reader.read_coding(node)
    if coding is None:
        _quantize_channels(reader, node, x)
        return
    if isinstance(x, Coded):
        reader.write_codes(node, reader.recode(x, coding, name_of(node), name_output(node)))
        return
    to = Tensor(name_output(node), read_shape(x), "uint8", coding)
    reader.add(Quantize(node=name_of(node), inputs=(reader.make_floats(x),), outputs=(to,)))
    reader.write_codes(node, to)


def _quantize_channels(reader: Reader, node: ir.Node, x: Operand) -> None:
    """With a scale for each channel: a table for each, or a division before the rounding."""
    of_channels, shape = reader.read_channel_coding(node), read_shape(x)
    if of_channels is None or len(shape) < 2 or len(of_channels[1]) != shape[1]:
        raise reader.refuse_coding(node)
    coding, scales = of_channels
    to = Tensor(name_output(node), shape, "uint8", coding)
    if isinstance(x, Coded):
        table = coding.encode(np.atleast_2d(x.values) / scales[:, None])
        reader.add(LookupTable(node=name_of(node), inputs=(x.tensor,), outputs=(to,), table=table))
    else:
        divided = Tensor(reader.make_name(name_output(node)), shape, "float32")
        by = reader.make_floats(Fixed(scales.reshape(-1, *[1] * (len(shape) - 2))))
        reader.add(_pointwise(node, "Div", (reader.make_floats(x), by), divided))
        reader.add(Quantize(node=name_of(node), inputs=(divided,), outputs=(to,)))
    reader.write_codes(node, to)


def dequantize(reader: Reader, node: ir.Node) -> None:
    x = reader.read(node.inputs[0])
    if isinstance(x, Fixed):
        reader.set(node.outputs[0], _compute_constant(reader, node, x))
        return
    coding, scales = reader.read_coding(node), None
    if coding is None and (of_channels := reader.read_channel_coding(node)) is not None:
        coding, scales = of_channels
    fits = scales is None or (len(read_shape(x)) > 1 and len(scales) == read_shape(x)[1])
    if coding is None or not isinstance(x, Coded) or x.values.ndim > 1 or not fits:
        raise reader.refuse_coding(node)
    codes = np.clip(np.rint(x.values) + reader.find_raise(node), 0, CODES - 1).astype(np.uint8)
    tensor = Tensor(x.tensor.name, x.tensor.shape, "uint8", coding)
    if not is_identity(codes):
        tensor = Tensor(reader.make_name(name_output(node)), x.tensor.shape, "uint8", coding)
        reader.add(LookupTable(node=name_of(node), inputs=(x.tensor,), outputs=(tensor,), table=codes))
    reader.set(node.outputs[0], make_real(tensor) if scales is None else make_channel_reals(tensor, scales))


def _compute_constant(reader: Reader, node: ir.Node, x: Fixed) -> Fixed:
    scale, zero = reader.get_constant(node, 1), reader.get_constant(node, 2)
    if scale is None:
        raise reader.refuse(node, "its scale is computed at run time")
    zero = np.zeros(scale.shape, x.array.dtype) if zero is None else zero
    axis = attribute_of(node, "axis", 1) % max(1, x.array.ndim) if scale.size > 1 else None
    block = attribute_of(node, "block_size", 0)
    wide: Array = scale.astype(np.float32)
    point: Array = zero.astype(np.int32)
    if block and axis is not None:
        length = x.array.shape[axis]
        wide, point = (np.repeat(each, block, axis=axis).take(range(length), axis) for each in (wide, point))
    elif axis is not None:
        shape = [-1 if i == axis else 1 for i in range(x.array.ndim)]
        wide, point = wide.reshape(shape), np.broadcast_to(point.reshape(-1), scale.size).reshape(shape)
    else:
        wide, point = wide.reshape(()), point.reshape(())
    array = (x.array.astype(np.int32) - point).astype(np.float32) * wide
    if block:
        return Fixed(array)
    narrow = NARROW.get(x.array.dtype.name)
    integers, zero = (each if narrow is None else each.astype(narrow) for each in (x.array, zero))
    return Fixed(array, integers, scale.reshape(-1).astype(np.float32), zero.reshape(-1), axis)


def relu_or_clip(reader: Reader, node: ir.Node) -> None:
    bounds = reader.read_bounds(node)
    if bounds is None:
        raise reader.refuse(node, "its bounds are computed at run time")
    _unary(reader, node, "Clip", bounds)


NUMBERS: dict[str, tuple[tuple[str, float], ...]] = {
    "LeakyRelu": (("alpha", 0.01),),
    "Elu": (("alpha", 1.0),),
    "Celu": (("alpha", 1.0),),
    "Selu": (("alpha", 1.6732632423543772), ("gamma", 1.0507009873554805)),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
    "Shrink": (("lambd", 0.5), ("bias", 0.0)),
    "ThresholdedRelu": (("alpha", 1.0),),
    "Swish": (("alpha", 1.0),),
}
"""Attributes of operators on one tensor, and what they are by default."""


def unary(reader: Reader, node: ir.Node) -> None:
    op = node.op_type
    if op == "Gelu" and attribute_of(node, "approximate", "none") == "tanh":
        op = "GeluTanh"
    numbers = tuple(attribute_of(node, name, default) for name, default in NUMBERS.get(op, ()))
    _unary(reader, node, op, numbers)


def _unary(reader: Reader, node: ir.Node, op: str, numbers: tuple[float, ...]) -> None:
    x, function = reader.read(node.inputs[0]), (UNARY | TABLED)[op]
    if isinstance(x, Coded):
        reader.set(node.outputs[0], Coded(x.tensor, function(x.values, *numbers)))
    elif isinstance(x, Fixed):
        reader.set(node.outputs[0], Fixed(function(x.array.astype(np.float32), *numbers)))
    elif op in TABLED:
        raise reader.refuse(node, "it has a kernel on bytes alone, and its input is floats")
    else:
        to = Tensor(name_output(node), x.shape, "float32")
        reader.set(node.outputs[0], reader.add(_pointwise(node, op, (x,), to, numbers)))


def binary(reader: Reader, node: ir.Node) -> None:
    op = node.op_type
    a, b = reader.read(node.inputs[0]), reader.read(node.inputs[1])
    function = BINARY[op]
    if isinstance(a, Fixed) and isinstance(b, Fixed):
        reader.set(node.outputs[0], Fixed(np.asarray(function(a.array, b.array))))
        return
    tables = _find_same_bytes(a, b)
    if tables is not None:
        tensor, left, right = tables
        reader.set(node.outputs[0], Coded(tensor, np.asarray(function(left, right), np.float32)))
    elif not (op in COMBINED and _combine(reader, node, op, a, b)):
        x, y = (_make_floats(reader, node, each, other) for each, other in ((a, b), (b, a)))
        if {x.dtype, y.dtype} != {"float32"}:
            raise reader.refuse(node, f"its inputs are {x.dtype} and {y.dtype}")
        to = Tensor(name_output(node), np.broadcast_shapes(x.shape, y.shape), "float32")
        reader.set(node.outputs[0], reader.add(_pointwise(node, op, (x, y), to)))


def _make_floats(reader: Reader, node: ir.Node, operand: Operand, other: Operand) -> Tensor:
    """The operand as floats, or whatever numbers it has: places that are compared, and what they are compared with, as floats."""
    if node.op_type not in COMPARISONS:
        return reader.make_floats(operand)
    if isinstance(operand, Fixed):
        return reader.make_floats(Fixed(operand.array.astype(np.float32)))
    place = next((step for step in reader.steps if isinstance(step, Place) and step.output is operand), None)
    if place is None:
        tensor = reader.make_floats(operand)
        exact = isinstance(other, Fixed) and bool((np.abs(other.array.astype(np.float64)) < WHOLE).all())
        return convert(reader, name_of(node), tensor, "float32") if exact or tensor.dtype == "bool" else tensor
    numbers = reader.make_floats(Fixed(np.arange(place.inputs[0].shape[place.axis], dtype=np.float32)))
    to = Tensor(reader.make_name(f"{place.output.name}.real"), place.output.shape, "float32")
    return reader.add(
        Move(node=name_of(node), inputs=(numbers, place.output), outputs=(to,), kind="take", arguments=((0,),))
    )


def combine_several(reader: Reader, node: ir.Node) -> None:
    """Max, Min, Sum and Mean of any number of tensors: one after the other, more than two on floats."""
    operands = [reader.read(value) for value in node.inputs]
    op = {"Sum": "Add", "Mean": "Add"}.get(node.op_type, node.op_type)
    if len(operands) == 1:
        reader.set(node.outputs[0], operands[0])
        return
    if len(operands) == 2 and op == node.op_type:
        binary(reader, node)
        return
    if len(operands) == 2 and node.op_type == "Sum" and _combine(reader, node, op, *operands):
        return

    steps = [(op, each) for each in operands[1:]]
    if node.op_type == "Mean":
        steps.append(("Div", Fixed(np.array(len(operands), np.float32))))
    result = reader.make_floats(operands[0])
    for number, (kind, operand) in enumerate(steps):
        other = reader.make_floats(operand)
        name = name_output(node) if number == len(steps) - 1 else reader.make_name(name_output(node))
        to = Tensor(name, np.broadcast_shapes(result.shape, other.shape), "float32")
        result = reader.add(_pointwise(node, kind, (result, other), to))
    reader.set(node.outputs[0], result)


def _find_same_bytes(a: Operand, b: Operand) -> tuple[Tensor, Array, Array] | None:
    """The bytes that both operands are functions of, constants included, and the numbers of each byte in both."""
    if isinstance(a, Coded) and isinstance(b, Coded):
        return (a.tensor, a.values, b.values) if a.tensor.name == b.tensor.name else None
    if isinstance(a, Coded) and isinstance(b, Fixed):
        other = align_with_channels(b, a.tensor)
        return None if other is None else (a.tensor, a.values, other)
    if isinstance(a, Fixed) and isinstance(b, Coded):
        other = align_with_channels(a, b.tensor)
        return None if other is None else (b.tensor, other, b.values)
    return None


def align_with_channels(held: Fixed, tensor: Tensor) -> Array | None:
    """A constant beside the numbers of each byte: one, or (channels, 1); None where it differs along other axes."""
    array = held.array.astype(np.float32)
    if array.size == 1 and array.ndim <= len(tensor.shape):
        return array.reshape(())
    if array.ndim > len(tensor.shape) or len(tensor.shape) < 2 or array.size * 256 > LARGEST:
        return None
    full = array.reshape(*[1] * (len(tensor.shape) - array.ndim), *array.shape)
    return full.reshape(-1, 1) if full.shape[1] == full.size == tensor.shape[1] else None


def _combine(reader: Reader, node: ir.Node, op: str, a: Operand, b: Operand) -> bool:
    """Two tensors of bytes to one, where a QuantizeLinear follows; False where there is no such kernel."""
    pair = [
        each.tensor if isinstance(each, Coded) and each.linear else reader.get_constant_bytes(each) for each in (a, b)
    ]
    first, second = pair
    if first is None or second is None or (first.held is not None and second.held is not None):
        return False
    sink = reader.find_sink(node)
    if sink is None:
        return False
    if op == "Sub":
        second = _negate(reader, node, second)
    to = Tensor(name_output(node), np.broadcast_shapes(first.shape, second.shape), "uint8", sink.coding)
    ends = {"low": sink.low, "high": sink.high}
    reader.add(Combine(node=name_of(node), inputs=(first, second), outputs=(to,), kind=COMBINED[op], **ends))
    reader.write(node, to)
    return True


def _negate(reader: Reader, node: ir.Node, tensor: Tensor) -> Tensor:
    """The same bytes counted from the other end, which stand for the numbers with the other sign, exactly."""
    assert tensor.coding is not None
    coding = Coding(tensor.coding.scale, CODES - 1 - tensor.coding.zero_point)
    name = reader.make_name(f"{tensor.name}.negative")
    if tensor.held is not None:
        return Tensor(name, tensor.shape, "uint8", coding, CODES - 1 - tensor.held)
    to, table = Tensor(name, tensor.shape, "uint8", coding), np.arange(CODES, dtype=np.uint8)[::-1].copy()
    return reader.add(LookupTable(node=name_of(node), inputs=(tensor,), outputs=(to,), table=table))


def _pointwise(
    node: ir.Node, op: str, inputs: tuple[Tensor, ...], to: Tensor, numbers: tuple[float, ...] = ()
) -> Pointwise:
    return Pointwise(node=name_of(node), inputs=inputs, outputs=(to,), kind=op, numbers=numbers)


def batch_normalization(reader: Reader, node: ir.Node) -> None:
    """x * gain + shift in each channel; part of the QuantizeLinear behind it where there is one."""
    scale, bias, mean, variance = (reader.get_constant(node, i) for i in range(1, 5))
    x = reader.read(node.inputs[0])
    if scale is None or bias is None or mean is None or variance is None or len(read_shape(x)) < 2:
        raise reader.refuse(node, "its factors are computed at run time")
    gain = (scale / np.sqrt(variance + np.float32(attribute_of(node, "epsilon", 1e-5)))).astype(np.float32)
    shift = (bias - mean * gain).astype(np.float32)
    name, source = name_of(node), reader.make_floats(x)
    sink = reader.find_sink(node)
    if sink is not None:
        to = Tensor(name_output(node), source.shape, "uint8", sink.coding)
        reader.add(
            Quantize(node=name, inputs=(source,), outputs=(to,), gain=gain, shift=shift, low=sink.low, high=sink.high)
        )
        reader.write(node, to)
        return
    held = [reader.make_floats(Fixed(each.reshape(-1, *[1] * (len(source.shape) - 2)))) for each in (gain, shift)]
    scaled = Tensor(reader.make_name(name_output(node)), source.shape, "float32")
    reader.add(_pointwise(node, "Mul", (source, held[0]), scaled))
    to = Tensor(name_output(node), source.shape, "float32")
    reader.set(node.outputs[0], reader.add(_pointwise(node, "Add", (scaled, held[1]), to)))


def identity(reader: Reader, node: ir.Node) -> None:
    reader.set(node.outputs[0], reader.read(node.inputs[0]))
