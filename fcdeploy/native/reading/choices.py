"""Where, ArgMax and ArgMin: which of several numbers, or the place of one. Comparisons are numbers, 1 and 0, from here on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.steps import LookupTable, Order, Place, Quantize, Select
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.native.reading.operands import Coded, Fixed, Operand, Sink, is_identity
from fcdeploy.native.reading.pointwise import align_with_channels
from fcdeploy.native.reading.reader import Reader, name_output, read_shape

TRUTH = Coding(np.float32(1), 0)
PLACES: dict[str, Literal["max", "min"]] = {"ArgMax": "max", "ArgMin": "min"}


def where(reader: Reader, node: ir.Node) -> None:
    """A table where all three are functions of one tensor of bytes; bytes where bytes follow; else floats."""
    condition, *both = operands = [reader.read(value) for value in node.inputs]
    if _make_table(reader, node, operands):
        return
    shape = np.broadcast_shapes(*(read_shape(each) for each in operands))
    chosen = make_truth(reader, condition, name_of(node))
    name = name_of(node)
    sink = reader.find_sink(node) if all(isinstance(each, Coded | Fixed) for each in both) else None
    if sink is None:
        parts = [reader.make_floats(each) for each in both]
        to = Tensor(name_output(node), shape, parts[0].dtype)
        reader.set(node.outputs[0], reader.add(Select(node=name, inputs=(chosen, *parts), outputs=(to,))))
        return
    parts = [_encode(reader, node, each, sink) for each in both]
    to = Tensor(name_output(node), shape, "uint8", sink.coding)
    reader.add(Select(node=name, inputs=(chosen, *parts), outputs=(to,)))
    reader.write(node, to)


def _make_table(reader: Reader, node: ir.Node, operands: list[Operand]) -> bool:
    coded = [each for each in operands if isinstance(each, Coded)]
    if not coded or len({each.tensor.name for each in coded}) > 1:
        return False
    values = []
    for each in operands:
        own = each.values if isinstance(each, Coded) else None
        own = align_with_channels(each, coded[0].tensor) if isinstance(each, Fixed) else own
        if own is None:
            return False
        values.append(own)
    chosen = np.where(values[0] != 0, values[1], values[2]).astype(np.float32)
    reader.set(node.outputs[0], Coded(coded[0].tensor, np.broadcast_to(chosen, (*chosen.shape[:-1], 256))))
    return True


def make_truth(reader: Reader, operand: Operand, node: str) -> Tensor:
    """The operand as bytes, 1 where it holds and 0 where it does not."""
    name = reader.make_name(f"{node}.truth")
    if isinstance(operand, Fixed):
        held = operand.array.astype(np.uint8)
        return Tensor(name, held.shape, "uint8", TRUTH, held)
    if isinstance(operand, Coded):
        return reader.recode(operand, TRUTH, node, name)
    if operand.dtype == "bool":
        return operand
    to = Tensor(name, operand.shape, "uint8", TRUTH)
    return reader.add(Quantize(node=node, inputs=(operand,), outputs=(to,)))


def _encode(reader: Reader, node: ir.Node, operand: Operand, to: Sink) -> Tensor:
    """One of the two as the bytes that are written for it."""
    name = reader.make_name(f"{name_output(node)}.part")
    if isinstance(operand, Fixed):
        held = np.clip(to.coding.encode(operand.array), to.low, to.high)
        return Tensor(name, held.shape, "uint8", to.coding, held)
    assert isinstance(operand, Coded)
    table = np.clip(to.coding.encode(operand.values), to.low, to.high)
    if is_identity(table):
        return operand.tensor
    tensor = Tensor(name, operand.tensor.shape, "uint8", to.coding)
    return reader.add(LookupTable(node=name_of(node), inputs=(operand.tensor,), outputs=(tensor,), table=table))


def place(reader: Reader, node: ir.Node) -> None:
    """ArgMax and ArgMin, on bytes where each stands for a larger number than the one below it."""
    x = reader.read(node.inputs[0])
    shape = read_shape(x)
    axis = attribute_of(node, "axis", 0) % len(shape)
    kept = attribute_of(node, "keepdims", 1)
    on_bytes = isinstance(x, Coded) and x.values.ndim == 1 and bool((np.diff(x.values) > 0).all())
    source = x.tensor if on_bytes and isinstance(x, Coded) else reader.make_floats(x)
    if source.dtype not in ("uint8", "float32"):
        raise reader.refuse(node, f"its input is {source.dtype}")
    to = Tensor(
        name_output(node), tuple(1 if i == axis else n for i, n in enumerate(shape) if kept or i != axis), "int64"
    )
    reader.add(
        Place(
            node=name_of(node), inputs=(source,), outputs=(to,), kind=PLACES[node.op_type], axis=axis,
            last=bool(attribute_of(node, "select_last_index", 0)),
        )
    )  # fmt: skip
    reader.set(node.outputs[0], to)


def order(reader: Reader, node: ir.Node) -> None:
    """TopK, on bytes where each stands for a larger number than the one below it; of one element that itself."""
    x = reader.read(node.inputs[0])
    shape = read_shape(x)
    axis = attribute_of(node, "axis", -1) % len(shape)
    kept = reader.get_integers(node, "k", 1)
    count = kept[0] if kept else 0
    if not 0 < count <= shape[axis]:
        raise reader.refuse(node, f"it takes {count} of {shape[axis]} elements")
    if shape[axis] == 1:
        reader.set(node.outputs[0], x)
        reader.set(node.outputs[1], Fixed(np.zeros(shape, np.int64)))
        return
    on_bytes = isinstance(x, Coded) and x.values.ndim == 1 and bool((np.diff(x.values) > 0).all())
    source = x.tensor if on_bytes and isinstance(x, Coded) else reader.make_floats(x)
    out = tuple(count if i == axis else n for i, n in enumerate(shape))
    values = Tensor(name_output(node), out, source.dtype, source.coding)
    places = Tensor(name_output(node, 1), out, "int64")
    kind: Literal["largest", "smallest"] = "largest" if attribute_of(node, "largest", 1) else "smallest"
    reader.add(Order(node=name_of(node), inputs=(source,), outputs=(values, places), kind=kind, axis=axis))
    reader.set(node.outputs[0], Coded(values, x.values) if on_bytes and isinstance(x, Coded) else values)
    reader.set(node.outputs[1], places)
