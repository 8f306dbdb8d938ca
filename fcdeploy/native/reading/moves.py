"""Operators that only move elements: on bytes as they are, whatever the bytes stand for."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.compute_moves import move_elements
from fcdeploy.native.program.steps import LookupTable, Move
from fcdeploy.native.program.tensors import CODES, Floats, Tensor
from fcdeploy.native.reading.operands import Coded, Fixed, Operand, Sink, is_identity
from fcdeploy.native.reading.reader import Reader, name_output, read_shape, sort_axes

Kind = Literal["reshape", "transpose", "slice", "concat", "pad", "take", "expand"]
Arguments = tuple[tuple[int, ...], ...]


def move(
    reader: Reader, node: ir.Node, kind: Kind, shape: tuple[int, ...], arguments: Arguments = (), *, output: int = 0,
    index: Array | None = None,
) -> None:  # fmt: skip
    """One input to one output: of a constant at once, of anything else as a step."""
    x = reader.read(node.inputs[0])
    if isinstance(x, Fixed):
        reader.set(node.outputs[output], _move_constant(x, kind, shape, arguments, index))
        return
    source, values = find_movable(reader, x)
    to = Tensor(name_output(node, output), shape, source.dtype, source.coding)
    step = Move(
        node=name_of(node), inputs=(source,), outputs=(to,), kind=kind, arguments=arguments, index=index,
    )  # fmt: skip
    reader.add(step)
    reader.set(node.outputs[output], to if values is None else Coded(to, values))


def find_movable(reader: Reader, x: Operand) -> tuple[Tensor, Floats | None]:
    """The operand as elements that mean the same wherever they are, and what they mean where they are bytes.

    Bytes that mean something else in each channel become floats.
    """
    if isinstance(x, Coded) and x.values.ndim == 1:
        return x.tensor, x.values
    return reader.make_floats(x), None


def _move_constant(x: Fixed, kind: Kind, shape: tuple[int, ...], arguments: Arguments, index: Array | None) -> Fixed:
    """A constant moved; the integers behind it too where they have one scale, or are transposed."""
    array = move_elements(kind, [x.array], shape, arguments, index=index)
    split = kind == "reshape" and x.axis == 0 and shape[:1] == x.array.shape[:1]  # behind the axis of the scales
    if x.integers is None or not (x.axis is None or kind == "transpose" or split):
        return Fixed(array)
    axis = x.axis if x.axis is None or split else arguments[0].index(x.axis)
    return Fixed(array, move_elements(kind, [x.integers], shape, arguments, index=index), x.scale, x.zero, axis)


def reshape(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    wanted = reader.get_integers(node, "shape", 1)
    if wanted is None:
        raise reader.refuse(node, "its shape is computed at run time")
    keep = not attribute_of(node, "allowzero", 0)
    sizes = [shape[i] if n == 0 and keep else n for i, n in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = prod(shape) // max(1, prod(n for n in sizes if n != -1))
    if prod(sizes) != prod(shape):
        raise reader.refuse(node, f"it makes {sizes} of {list(shape)}")
    move(reader, node, "reshape", tuple(sizes))


def flatten(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    axis = attribute_of(node, "axis", 1) % (len(shape) + 1)
    move(reader, node, "reshape", (prod(shape[:axis]), prod(shape[axis:])))


def squeeze(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    given = reader.get_integers(node, "axes", 1)
    axes = sort_axes(given, len(shape)) if given is not None else tuple(i for i, n in enumerate(shape) if n == 1)
    if any(shape[axis] != 1 for axis in axes):
        raise reader.refuse(node, f"it leaves out axes {list(axes)} of {list(shape)}, expected lengths of 1 there")
    move(reader, node, "reshape", tuple(n for i, n in enumerate(shape) if i not in axes))


def unsqueeze(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    given = reader.get_integers(node, "axes", 1) or ()
    axes, rest = sort_axes(given, len(shape) + len(given)), iter(shape)
    move(reader, node, "reshape", tuple(1 if i in axes else next(rest) for i in range(len(shape) + len(axes))))


def transpose(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    perm = attribute_of(node, "perm", tuple(reversed(range(len(shape)))))
    move(reader, node, "transpose", tuple(shape[i] for i in perm), (perm,))


def slice_(reader: Reader, node: ir.Node) -> None:
    operand = reader.read(node.inputs[0])
    shape = read_shape(operand)
    starts, ends = reader.get_integers(node, "starts", 1) or (), reader.get_integers(node, "ends", 2) or ()
    axes, steps = reader.get_integers(node, "axes", 3), reader.get_integers(node, "steps", 4)
    begin, step, sizes = [0] * len(shape), [1] * len(shape), list(shape)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[i] if axes else i) % len(shape)
        chosen = range(shape[axis])[slice(start, end, steps[i] if steps else 1)]
        begin[axis], step[axis], sizes[axis] = chosen.start, chosen.step, len(chosen)
    if 0 in sizes and not isinstance(operand, Fixed):
        output = node.outputs[0]
        if output.is_graph_output() or any(use.node.op_type != "Concat" for use in output.uses()):
            raise reader.refuse(node, "it leaves no elements")
        reader.set(output, Fixed(np.zeros(sizes, np.float32)))
        return
    move(reader, node, "slice", tuple(sizes), (tuple(begin), tuple(step)))


def split(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    axis = attribute_of(node, "axis", 0) % len(shape)
    sizes = reader.get_integers(node, "split", 1)
    if sizes is None:
        each = -(-shape[axis] // len(node.outputs))
        sizes = tuple(min(each, shape[axis] - i * each) for i in range(len(node.outputs)))
    for i in range(len(node.outputs)):
        begin = tuple(sum(sizes[:i]) if j == axis else 0 for j in range(len(shape)))
        part = tuple(sizes[i] if j == axis else n for j, n in enumerate(shape))
        move(reader, node, "slice", part, (begin, (1,) * len(shape)), output=i)


def concat(reader: Reader, node: ir.Node) -> None:
    operands = [reader.read(value) for value in node.inputs if value is not None]
    axis = attribute_of(node, "axis", 0) % len(read_shape(operands[0]))
    operands = [each for each in operands if read_shape(each)[axis]] or operands[:1]
    shapes = [read_shape(each) for each in operands]
    shape = tuple(sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))
    if all(isinstance(each, Fixed) for each in operands):
        reader.set(node.outputs[0], Fixed(np.concatenate([each.array for each in operands], axis)))  # type: ignore[union-attr]
        return
    codes = [each for each in operands if isinstance(each, Coded)]
    coded = len(codes) == len(operands)
    parts = _make_alike(reader, node, codes) if coded else []
    if parts:
        to = Tensor(name_output(node), shape, "uint8", parts[0].coding)
        reader.add(Move(node=name_of(node), inputs=tuple(parts), outputs=(to,), kind="concat", arguments=((axis,),)))
        reader.set(node.outputs[0], Coded(to, next(each.values for each in codes if _is_distinct(each))))
        return
    _join(reader, node, operands, codes if coded else [], shape, axis)


def _join(
    reader: Reader, node: ir.Node, operands: list[Operand], codes: list[Coded], shape: tuple[int, ...], axis: int
) -> None:
    """Parts whose bytes mean different numbers: recoded to what the output's bytes mean, or joined as floats."""
    sink = reader.find_sink(node) if codes else None
    to = Tensor(name_output(node), shape, "uint8", sink.coding) if sink else Tensor(name_output(node), shape, "float32")
    parts = _recode_parts(reader, node, codes, sink) if sink else [reader.make_floats(each) for each in operands]
    reader.add(Move(node=name_of(node), inputs=tuple(parts), outputs=(to,), kind="concat", arguments=((axis,),)))
    reader.write(node, to)


def _recode_parts(reader: Reader, node: ir.Node, codes: list[Coded], sink: Sink) -> list[Tensor]:
    """The operands as bytes that mean what the output's mean."""
    return [
        reader.recode(each, sink.coding, name_of(node), reader.make_name(f"{name_output(node)}.part")) for each in codes
    ]


def _is_distinct(x: Coded) -> bool:
    """Whether every byte stands for another number, the larger the larger."""
    return x.values.ndim == 1 and bool(np.all(np.diff(x.values) > 0))


def _make_alike(reader: Reader, node: ir.Node, codes: list[Coded]) -> list[Tensor]:
    """The tensors as bytes that stand for the same numbers, some through a table; none where that cannot be."""
    whole = next((each for each in codes if _is_distinct(each)), None)
    if whole is None:
        return []
    places = [np.minimum(np.searchsorted(whole.values, each.values), CODES - 1) for each in codes]
    if any(not np.array_equal(whole.values[at], each.values) for at, each in zip(places, codes, strict=True)):
        return []
    tensors = []
    for at, each in zip(places, codes, strict=True):
        table = at.astype(np.uint8)
        tensor = each.tensor
        if not is_identity(table):
            tensor = Tensor(reader.make_name(f"{name_output(node)}.part"), tensor.shape, "uint8", whole.tensor.coding)
            reader.add(LookupTable(node=name_of(node), inputs=(each.tensor,), outputs=(tensor,), table=table))
        tensors.append(tensor)
    return tensors


def pad(reader: Reader, node: ir.Node) -> None:
    x = reader.read(node.inputs[0])
    shape, mode = read_shape(x), attribute_of(node, "mode", "constant")
    pads = reader.get_integers(node, "pads", 1)
    value = reader.get_constant(node, 2)
    if value is None and reader.get_input(node, 2) is not None:
        raise reader.refuse(node, "what it fills with is computed at run time")
    fill = float(value.reshape(())) if value is not None else attribute_of(node, "value", 0.0)
    axes = reader.get_integers(node, "axes", 3)
    if pads is None:
        raise reader.refuse(node, "its pads are computed at run time")
    begin, end = [0] * len(shape), [0] * len(shape)
    for i, axis in enumerate(axes or range(len(shape))):
        begin[axis % len(shape)], end[axis % len(shape)] = pads[i], pads[len(pads) // 2 + i]
    if min(pads) < 0:  # what they take away
        x, shape = _cut(reader, node, x, begin, end)
        begin, end = ([max(n, 0) for n in each] for each in (begin, end))
    if mode != "constant":
        _pad_repeating(reader, node, x, mode, begin, end)
        return
    out = tuple(n + b + e for n, b, e in zip(shape, begin, end, strict=True))
    more = {"kind": "pad", "arguments": (tuple(begin), tuple(end))}
    if isinstance(x, Coded) and x.values.ndim == 1:
        codes = np.flatnonzero(x.values == np.float32(fill))
        if codes.size:
            to = Tensor(name_output(node), out, "uint8", x.tensor.coding)
            reader.add(Move(node=name_of(node), inputs=(x.tensor,), outputs=(to,), fill=int(codes[0]), **more))  # type: ignore[arg-type]
            reader.set(node.outputs[0], Coded(to, x.values))
            return
    to = Tensor(name_output(node), out, "float32")
    reader.add(Move(node=name_of(node), inputs=(reader.make_floats(x),), outputs=(to,), fill=fill, **more))  # type: ignore[arg-type]
    reader.set(node.outputs[0], to)


def expand(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    wanted = reader.get_integers(node, "shape", 1)
    if wanted is None:
        raise reader.refuse(node, "its shape is computed at run time")
    move(reader, node, "expand", np.broadcast_shapes(shape, wanted))


NUMPY_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _cut(
    reader: Reader, node: ir.Node, x: Operand, begin: list[int], end: list[int]
) -> tuple[Operand, tuple[int, ...]]:
    """The operand without what negative pads take from its ends, and its shape."""
    for axis, (before, after) in enumerate(zip(begin, end, strict=True)):
        length = read_shape(x)[axis]
        if before < 0 or after < 0:
            kept = np.arange(max(-before, 0), length - max(-after, 0))
            if not kept.size:
                raise reader.refuse(node, "its pads leave no elements")
            x = take_elements(reader, node, x, axis, kept)
    return x, read_shape(x)


def tile(reader: Reader, node: ir.Node) -> None:
    """Each axis by an index that begins again."""
    value, repeats = reader.read(node.inputs[0]), reader.get_integers(node, "repeats", 1)
    if repeats is None or min(repeats, default=1) < 1:
        raise reader.refuse(node, "its repeats are computed at run time, or leave no elements")
    for axis, times in enumerate(repeats):
        if times > 1:
            value = take_elements(reader, node, value, axis, np.tile(np.arange(read_shape(value)[axis]), times))
    reader.set(node.outputs[0], value)


def _pad_repeating(reader: Reader, node: ir.Node, value: Operand, mode: str, begin: list[int], end: list[int]) -> None:
    """Padding by elements of the input: each axis by an index."""
    if mode not in NUMPY_MODES:
        raise reader.refuse(node, f"its mode is {mode!r}")
    for axis, (before, after) in enumerate(zip(begin, end, strict=True)):
        if before or after:
            index = np.pad(np.arange(read_shape(value)[axis]), (before, after), mode=NUMPY_MODES[mode])  # type: ignore[call-overload]
            value = take_elements(reader, node, value, axis, index)
    reader.set(node.outputs[0], value)


def take_elements(reader: Reader, node: ir.Node, value: Operand, axis: int, at: Array) -> Operand:
    """Elements along an axis by constant indices."""
    if isinstance(value, Fixed):
        return Fixed(value.array.take(at, axis))
    tensor = value.tensor if isinstance(value, Coded) else value
    shape = tuple(len(at) if i == axis else n for i, n in enumerate(tensor.shape))
    to = Tensor(reader.make_name(name_output(node)), shape, tensor.dtype, tensor.coding)
    reader.add(Move(node=name_of(node), inputs=(tensor,), outputs=(to,), kind="take", arguments=((axis,),), index=at))
    if not isinstance(value, Coded):
        return to
    return Coded(to, value.values[at] if value.values.ndim > 1 and axis == 1 else value.values)


def move_tensor(
    reader: Reader, node: ir.Node, tensor: Tensor, kind: Kind, shape: tuple[int, ...], *arguments: tuple[int, ...]
) -> Tensor:
    """A tensor of its own that is moved, under a made-up name."""
    to = Tensor(reader.make_name(name_output(node)), shape, tensor.dtype, tensor.coding)
    return reader.add(Move(node=name_of(node), inputs=(tensor,), outputs=(to,), kind=kind, arguments=arguments))


def spread_out(reader: Reader, node: ir.Node, tensor: Tensor, strides: tuple[int, ...], groups: int = 1) -> Tensor:
    """Channels (groups, *strides, rest) laid out side by side in space: (N, groups x rest, lengths x strides)."""
    rank, space = len(strides), tensor.shape[2:]
    rest = tensor.shape[1] // (groups * prod(strides))
    lead = (groups,) if groups > 1 else ()
    first = 1 + len(lead)  # of the strides
    apart = move_tensor(reader, node, tensor, "reshape", (tensor.shape[0], *lead, *strides, rest, *space))
    perm = [*range(first), first + rank]
    for axis in range(rank):
        perm += [first + rank + 1 + axis, first + axis]
    turned = move_tensor(reader, node, apart, "transpose", tuple(apart.shape[i] for i in perm), tuple(perm))
    out = tuple(n * s for n, s in zip(space, strides, strict=True))
    return move_tensor(reader, node, turned, "reshape", (tensor.shape[0], groups * rest, *out))


def take_part(reader: Reader, node: ir.Node, tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The first elements of every axis, under that name."""
    to = Tensor(name, shape, tensor.dtype, tensor.coding)
    kind: Kind = "slice" if shape != tensor.shape else "reshape"
    arguments = ((0,) * len(shape), (1,) * len(shape)) if shape != tensor.shape else ()
    return reader.add(Move(node=name_of(node), inputs=(tensor,), outputs=(to,), kind=kind, arguments=arguments))


def depth_to_space(reader: Reader, node: ir.Node) -> None:
    size = attribute_of(node, "blocksize", 1)
    source, values = find_movable(reader, reader.read(node.inputs[0]))
    if attribute_of(node, "mode", "DCR") == "DCR":
        whole = spread_out(reader, node, source, (size, size))
    else:  # channels first, then the block
        n, c, h, w = source.shape
        rest = c // size**2
        apart = move_tensor(reader, node, source, "reshape", (n, rest, size, size, h, w))
        turned = move_tensor(reader, node, apart, "transpose", (n, rest, h, size, w, size), (0, 1, 4, 2, 5, 3))
        whole = move_tensor(reader, node, turned, "reshape", (n, rest, h * size, w * size))
    reader.set(node.outputs[0], whole if values is None else Coded(whole, values))


def space_to_depth(reader: Reader, node: ir.Node) -> None:
    size = attribute_of(node, "blocksize", 1)
    source, values = find_movable(reader, reader.read(node.inputs[0]))
    n, c, h, w = source.shape
    apart = move_tensor(reader, node, source, "reshape", (n, c, h // size, size, w // size, size))
    turned = move_tensor(reader, node, apart, "transpose", (n, size, size, c, h // size, w // size), (0, 3, 5, 1, 2, 4))
    whole = move_tensor(reader, node, turned, "reshape", (n, c * size**2, h // size, w // size))
    reader.set(node.outputs[0], whole if values is None else Coded(whole, values))
