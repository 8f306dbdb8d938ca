"""Cast: numbers of another type, which bytes are by what they stand for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import attribute_of, name_of, producer_of
from fcdeploy.native.program.steps import Convert, Pointwise
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.operands import Coded, Fixed, make_codes
from fcdeploy.native.reading.reader import Reader, name_output

CONVERTED = {
    ("float32", "int64"), ("float32", "int32"), ("float32", "uint8"), ("int64", "float32"), ("int32", "float32"),
    ("bool", "float32"), ("int32", "int64"), ("int64", "int32"),
}  # fmt: skip
"""Types of numbers that a kernel makes of others."""
TRUTHS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf")
"""Operators that write 1 and 0 alone."""


def cast(reader: Reader, node: ir.Node) -> None:
    x = reader.read(node.inputs[0])
    to = ir.DataType(attribute_of(node, "to", 0))
    if isinstance(x, Fixed):
        reader.set(node.outputs[0], Fixed(x.array.astype(to.numpy())))
        return
    if isinstance(x, Coded):
        reader.set(node.outputs[0], _cast_bytes(reader, node, x, to))
        return
    if to == ir.DataType.BOOL:
        reader.set(node.outputs[0], _make_truth(reader, node, x))
        return
    if x.dtype == to.numpy().name or _is_place(node, to):
        reader.set(node.outputs[0], x)
        return
    if (x.dtype, to.numpy().name) not in CONVERTED:
        raise reader.refuse(node, f"there is no kernel that makes {to.name} of {x.dtype}")
    made = convert(reader, name_of(node), x, to.numpy().name, name_output(node))
    reader.set(node.outputs[0], make_codes(made, 0) if made.dtype == "uint8" else made)


def convert(reader: Reader, node: str, x: Tensor, dtype: str, name: str = "") -> Tensor:
    """The numbers as those of another type, where there is a kernel for it; as they are elsewhere."""
    if (x.dtype, dtype) not in CONVERTED:
        return x
    to = Tensor(name or reader.make_name(node), x.shape, dtype)
    return reader.add(Convert(node=node, inputs=(x,), outputs=(to,)))


def _cast_bytes(reader: Reader, node: ir.Node, x: Coded, to: ir.DataType) -> Coded:
    """Other numbers for the same bytes."""
    values = x.values
    if to == ir.DataType.BOOL:
        return Coded(x.tensor, np.asarray(values != 0, np.float32))
    if to == ir.DataType.FLOAT:
        return x
    if not to.is_integer():
        raise reader.refuse(node, f"there is no kernel that makes {to.name} of what is computed")
    whole, ends = np.trunc(values), np.iinfo(to.numpy())
    if whole.min() < ends.min or whole.max() > ends.max:
        raise reader.refuse(node, f"it makes {to.name} of numbers from {whole.min():g} to {whole.max():g}")
    return Coded(x.tensor, whole)


def _make_truth(reader: Reader, node: ir.Node, x: Tensor) -> Tensor:
    """1 for what is not 0, as comparisons write it."""
    source = convert(reader, name_of(node), x, "float32")
    if producer_of(node.inputs[0], *TRUTHS) is not None or x.dtype == "bool":
        return x if x.dtype == "bool" else source
    for last in (False, True):
        to = Tensor(name_output(node) if last else reader.make_name(name_output(node)), x.shape, "float32")
        source = reader.add(Pointwise(node=name_of(node), inputs=(source,), outputs=(to,), kind="Not"))
    return source


def _is_place(node: ir.Node, to: ir.DataType) -> bool:
    """Whether it makes narrower indices of places, which is all the same to the Gathers that read them."""
    behind = [reader.op_type for reader in node.outputs[0].consumers()]
    inside = not node.outputs[0].is_graph_output() and set(behind) == {"Gather"}
    return to == ir.DataType.INT32 and inside and producer_of(node.inputs[0], "ArgMax", "ArgMin") is not None
