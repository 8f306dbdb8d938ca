"""Elements by their indices: Gather with constant indices, or with rows that are chosen at run time."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.steps import Move
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.moves import find_movable, move, move_tensor
from fcdeploy.native.reading.operands import Coded, Fixed, Operand, make_codes, make_real
from fcdeploy.native.reading.reader import RAISED, Reader, name_output, read_shape


def gather(reader: Reader, node: ir.Node) -> None:
    """Rows by constant indices, or by those that are computed or given."""
    x, index = reader.read(node.inputs[0]), reader.read(node.inputs[1])
    shape, chosen = read_shape(x), read_shape(index)
    axis = attribute_of(node, "axis", 0) % max(1, len(shape))
    out = (*shape[:axis], *chosen, *shape[axis + 1 :])
    if isinstance(index, Fixed):
        array = index.array.astype(np.int64)
        _take_constant(reader, node, x, axis, np.where(array < 0, array + shape[axis], array))
        return
    if isinstance(index, Coded) and isinstance(x, Fixed) and x.array.ndim == 1 and x.array.size > index.values.max():
        numbers = x.array[index.values.astype(np.int64)]  # a function of each byte
        reader.set(node.outputs[0], Coded(index.tensor, numbers.astype(np.float32)))
        return
    if not isinstance(index, Tensor) or axis != 0:
        raise reader.refuse(node, "indices that are computed have a kernel along the first axis alone")
    if index.dtype not in ("int32", "int64"):
        raise reader.refuse(node, f"its indices are {index.dtype}, expected int32 or int64")
    rows = _read_rows(reader, x)
    source = rows.tensor if isinstance(rows, Coded) else rows
    to = Tensor(name_output(node), out, source.dtype, source.coding)
    reader.add(Move(node=name_of(node), inputs=(source, index), outputs=(to,), kind="take", arguments=((0,),)))
    reader.set(node.outputs[0], Coded(to, rows.values) if isinstance(rows, Coded) else to)


def _take_constant(reader: Reader, node: ir.Node, x: Operand, axis: int, at: Array) -> None:
    """Elements by constant indices of any shape: of one index a slice, of several axes those of one that is then split."""
    shape = read_shape(x)
    if at.size and not 0 <= at.min() <= at.max() < shape[axis]:
        raise reader.refuse(node, f"its index {int(at.max())} is out of range, expected 0 to {shape[axis] - 1}")
    out = (*shape[:axis], *at.shape, *shape[axis + 1 :])
    if isinstance(x, Fixed) or at.ndim == 1:
        move(reader, node, "take", out, ((axis,),), index=at)
        return
    source, values = find_movable(reader, x)
    flat = (*shape[:axis], at.size, *shape[axis + 1 :])
    if at.size == 1:
        begin = tuple(int(at.reshape(())) if i == axis else 0 for i in range(len(shape)))
        taken = move_tensor(reader, node, source, "slice", flat, begin, (1,) * len(shape))
    else:
        to = Tensor(reader.make_name(name_output(node)), flat, source.dtype, source.coding)
        index = at.reshape(-1)
        taken = reader.add(
            Move(node=name_of(node), inputs=(source,), outputs=(to,), kind="take", arguments=((axis,),), index=index)
        )
    taken = move_tensor(reader, node, taken, "reshape", out)
    reader.set(node.outputs[0], taken if values is None else Coded(taken, values))


def _read_rows(reader: Reader, x: Operand) -> Coded | Tensor:
    """What rows are taken from: a constant keeps its bytes where it has one scale, or is codes."""
    held = reader.get_constant_bytes(x)
    if held is not None:
        return make_real(held)
    if isinstance(x, Fixed) and x.array.dtype in (np.int8, np.uint8):
        raised = RAISED if x.array.dtype == np.int8 else 0
        codes = (x.array.astype(np.int16) + raised).astype(np.uint8)
        return make_codes(Tensor(reader.make_name("constant"), codes.shape, "uint8", held=codes), raised)
    return x if isinstance(x, Coded) and x.values.ndim == 1 else reader.make_floats(x)
