"""Nodes written in the place of one that is put together from others, and what is asked of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.reading.operands import Fixed
from fcdeploy.native.reading.reader import WRITTEN_AS, Reader, read_shape

OPSET = 21  # of what is written


class Spelling:
    """The nodes that are written in the place of one, in their order."""

    def __init__(self, reader: Reader, node: ir.Node) -> None:
        self.reader, self.node = reader, node
        self.nodes: list[ir.Node] = []

    @property
    def x(self) -> ir.Value:
        """What the node reads first."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shape_of(self.x)

    def shape_of(self, value: ir.Value) -> tuple[int, ...]:
        return read_shape(self.reader.read(value))

    def is_constant(self, value: ir.Value) -> bool:
        """Whether the value is one, of those that have been read."""
        return isinstance(self.reader.operands.get(value), Fixed) or ir.convenience.get_const_tensor(value) is not None

    def get(self, name: str, default: Any) -> Any:
        return attribute_of(self.node, name, default)

    def constant(self, index: int, what: str) -> Array:
        """Input `index`, which has to be a constant."""
        array = self.reader.get_constant(self.node, index)
        if array is None:
            raise self.refuse(f"its {what} are computed at run time")
        return array

    def refuse(self, why: str) -> FcdeployError:
        return self.reader.refuse(self.node, why)

    def hold(self, numbers: Any, dtype: Any = np.float32) -> ir.Value:
        """A constant of its own."""
        value = ir.Value(name=self.reader.make_name(name_of(self.node)))
        self.reader.set(value, Fixed(np.asarray(numbers, dtype)))
        return value

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node more, and its first result."""
        own = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        new = ir.Node("", op, list(inputs), own, name=name_of(self.node), version=OPSET)
        new.meta[WRITTEN_AS] = self.node.op_type
        for value in new.outputs:
            value.name = self.reader.make_name(name_of(self.node))
        self.nodes.append(new)
        return new.outputs[0]

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self("Reshape", value, self.hold(shape, np.int64))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        return self("Transpose", value, perm=list(perm))

    def multiply_axis(self, x: ir.Value, axis: int, matrix: Array) -> ir.Value:
        """The product of an axis of x, which has as many as what the node reads, with a constant matrix (length, new length)."""
        rank = len(self.shape)
        if axis == rank - 1:
            return self("MatMul", x, self.hold(matrix))
        perm = [*(i for i in range(rank) if i != axis), axis]
        turned = self("MatMul", self.transpose(x, perm), self.hold(matrix))
        return self.transpose(turned, np.argsort(perm).tolist())


Spell = Callable[[Spelling], ir.Value | tuple[ir.Value, ...]]
"""What writes the nodes, and returns what they compute: of several outputs the first ones."""
