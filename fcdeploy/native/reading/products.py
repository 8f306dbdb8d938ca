"""MatMul of two tensors that are computed at run time, on bytes or on floats."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import name_of
from fcdeploy.native.program.layers import Product
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.reader import Reader, name_output, read_shape

AXES = 4  # of a product: two of matrices, and two in front
LONGEST = 2**31 // 255**2  # products of two differences of bytes in a sum that cannot leave 32 bits


def product(reader: Reader, node: ir.Node) -> None:
    """In integers where both operands are bytes with one scale each."""
    operands = [reader.read(value) for value in node.inputs]
    a, b = (read_shape(operand) for operand in operands)
    if min(len(a), len(b)) < 2 or max(len(a), len(b)) > AXES:
        raise reader.refuse(node, f"its inputs have {len(a)} and {len(b)} axes, expected 2 to {AXES}")
    shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    own = [
        reader.get_bytes(node, index) or reader.get_constant_bytes(operand) for index, operand in enumerate(operands)
    ]
    codings = [tensor.coding for tensor in own if tensor is not None and tensor.coding is not None]
    if len(codings) < 2:
        floats = tuple(reader.make_floats(operand) for operand in operands)
        to = Tensor(name_output(node), shape, "float32")
        reader.set(node.outputs[0], reader.add(Product(node=name_of(node), inputs=floats, outputs=(to,))))
        return
    if a[-1] > LONGEST:
        raise reader.refuse(node, f"its sums of {a[-1]} products can leave 32 bits")
    sink = reader.find_sink(node)
    factor = np.float32(codings[0].scale * codings[1].scale)
    to = Tensor(name_output(node), shape, "float32" if sink is None else "uint8", None if sink is None else sink.coding)
    reader.add(
        Product(
            node=name_of(node), inputs=tuple(tensor for tensor in own if tensor is not None), outputs=(to,),
            factor=factor if sink is None else np.float32(factor / sink.coding.scale),
            low=0 if sink is None else sink.low, high=255 if sink is None else sink.high,
        )
    )  # fmt: skip
    reader.write(node, to)
