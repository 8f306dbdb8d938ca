"""What is put into a graph to convert tensors: QuantizeLinear, DequantizeLinear, and the constants that they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Names, add_initializer
from fcdeploy.int8.writing.contrib_ops import DOMAIN
from fcdeploy.records.plan import LIMITS, QParams


class Conversions:
    """New nodes and constants of one graph, under names that are free in it; small constants are stored once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.free_name = Names(graph).take
        self.shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def add_constant(self, made: Array | ir.TensorProtocol, name: str) -> ir.Value:
        """An initializer."""
        return add_initializer(self.graph, self.free_name(name), made)

    def scale(self, q: QParams) -> ir.Value:
        values = np.asarray(q.scale, np.float32)
        return self._once(values[0] if q.axis is None else values, "s")

    def zero_point(self, q: QParams) -> ir.Value:
        return self._once(np.array(q.zero_point, q.dtype), "z")

    def one_number(self, number: Any) -> ir.Value:
        """One number, of its type."""
        return self._once(np.array(number), "h")

    def find_highest(self, q: QParams) -> ir.Value:
        return self._once(np.array(LIMITS[q.dtype][1], q.dtype), "h")

    def normalize_pixels(self, value: ir.Value, q: QParams, name: str) -> ir.Value:
        """The bytes of a picture as floats, which a new node writes that is not in the graph yet.

        (x - lowest) / step, as the one operator that does so channel by channel.
        """
        name, (step, lowest) = self.free_name(name), np.array(q.pixels).T
        rows = {"a": 1 / step, "o": np.zeros(len(step)), "l": lowest, "v": np.ones(len(step))}
        inputs = [value, *(self.add_constant(row.astype(np.float32), f"{name}/{key}") for key, row in rows.items())]
        result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        ir.Node("", "BatchNormalization", inputs, [ir.AttrFloat32("epsilon", 0.0)], outputs=[result], name=name)
        return result

    def quantize(self, value: ir.Value, q: QParams, name: str) -> ir.Value:
        """The integers that a new QuantizeLinear writes, which is not in the graph yet."""
        name = self.free_name(name)
        result = ir.Value(name=name, shape=value.shape, type=choose_integer_type(q))
        inputs = [value, self.scale(q), self.zero_point(q)]
        ir.Node(_domain(q), "QuantizeLinear", inputs, outputs=[result], name=name)
        return result

    def dequantize(self, integers: ir.Value, q: QParams, name: str, zeros: str = "shared") -> ir.Value:
        """What a new DequantizeLinear writes, which is not in the graph yet.

        Its zero point is "shared", its "own", or "none", being 0.
        """
        name = self.free_name(name)
        real = ir.Value(name=name, shape=integers.shape, type=ir.TensorType(ir.DataType.FLOAT))
        inputs, axis = [integers, self.scale(q)], {}
        if q.axis is not None:
            axis = {"axis": ir.AttrInt64("axis", q.axis)}
        if zeros == "shared":
            inputs.append(self.zero_point(q))
        elif zeros == "own":
            every = np.zeros(() if q.axis is None else len(q.scale), q.dtype)
            inputs.append(self.add_constant(every, f"{integers.name}z"))
        ir.Node(_domain(q), "DequantizeLinear", inputs, axis, outputs=[real], name=name)
        return real

    def _once(self, array: Any, prefix: str) -> ir.Value:
        """A small constant that many nodes read, stored once."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.shared:
            self.shared[key] = self.add_constant(array, f"{prefix}{len(self.shared)}")
        return self.shared[key]


def producer(value: ir.Value) -> ir.Node:
    """The node that writes a tensor."""
    node = value.producer()
    assert node is not None
    return node


def choose_integer_type(q: QParams) -> ir.TensorType:
    return ir.TensorType(ir.DataType[q.dtype.upper()])


def _domain(q: QParams) -> str:
    """Whose Q/DQ it is: ONNX's own takes 16 bits from opset 21 on only, onnxruntime's in any."""
    return DOMAIN if q.dtype == "int16" else ""
