"""MatMul of two tensors that are computed at run time, on bytes or on floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import name_of
from fcdeploy.native.program.layers import Product
from fcdeploy.native.program.steps import Move
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.reader import Reader, name_output, read_shape

AXES = 4  # of a product: two of matrices, and two in front
LONGEST = 2**31 // 255**2  # products of two differences of bytes in a sum that cannot leave 32 bits


def product(reader: Reader, node: ir.Node) -> None:
    """In integers where both operands are bytes with one scale each."""
    operands = [reader.read(value) for value in node.inputs]
    a, b = (read_shape(operand) for operand in operands)
    if min(len(a), len(b)) < 2:
        raise reader.refuse(node, f"its inputs have {len(a)} and {len(b)} axes, expected 2 at least")
    shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    fronts = (a[:-2], b[:-2]) if len(shape) <= AXES else join_axes(a[:-2], b[:-2])
    if max(map(len, fronts)) + 2 > AXES:
        said = f"its inputs {list(a)} and {list(b)} are repeated along more than {AXES - 2} axes apart from each other"
        raise reader.refuse(node, said)
    shapes = (*fronts[0], *a[-2:]), (*fronts[1], *b[-2:])
    matrices = (*np.broadcast_shapes(*fronts), a[-2], b[-1])
    own = [
        reader.get_bytes(node, index) or reader.get_constant_bytes(operand) for index, operand in enumerate(operands)
    ]
    codings = [tensor.coding for tensor in own if tensor is not None and tensor.coding is not None]
    if len(codings) < 2:
        floats = tuple(
            _shape_again(reader, node, reader.make_floats(operand), joined_shape)
            for operand, joined_shape in zip(operands, shapes, strict=True)
        )
        to = Tensor(name_output(node), matrices, "float32")
        made = reader.add(Product(node=name_of(node), inputs=floats, outputs=(to,)))
        reader.set(node.outputs[0], _shape_again(reader, node, made, shape))
        return
    if a[-1] > LONGEST:
        raise reader.refuse(node, f"its sums of {a[-1]} products can leave 32 bits")
    sink = reader.find_sink(node)
    factor = np.float32(codings[0].scale * codings[1].scale)
    to = Tensor(
        name_output(node), matrices, "float32" if sink is None else "uint8", None if sink is None else sink.coding
    )
    inputs = tuple(
        _shape_again(reader, node, tensor, joined_shape)
        for tensor, joined_shape in zip(own, shapes, strict=True)
        if tensor is not None
    )
    reader.add(
        Product(
            node=name_of(node), inputs=inputs, outputs=(to,),
            factor=factor if sink is None else np.float32(factor / sink.coding.scale),
            low=0 if sink is None else sink.low, high=255 if sink is None else sink.high,
        )
    )  # fmt: skip
    reader.write(node, _shape_again(reader, node, to, shape))


def join_axes(a: Sequence[int], b: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes in front of two matrices, those side by side as one along which the same operand, or none, is repeated."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b), strict=True)
    groups: list[tuple[tuple[bool, bool], int, int]] = []
    for own, other in pairs:
        if own == other == 1:
            continue
        repeated = own < other, other < own
        if groups and groups[-1][0] == repeated:
            _, before, after = groups.pop()
            own, other = before * own, after * other
        groups.append((repeated, own, other))
    return tuple(own for _, own, _ in groups), tuple(other for *_, other in groups)


def _shape_again(reader: Reader, node: ir.Node, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape == shape:
        return tensor
    if tensor.held is not None:
        return replace(tensor, name=reader.make_name(tensor.name), shape=shape, held=tensor.held.reshape(shape))
    to = replace(tensor, name=reader.make_name(tensor.name), shape=shape)
    return reader.add(Move(node=name_of(node), inputs=(tensor,), outputs=(to,), kind="reshape"))
