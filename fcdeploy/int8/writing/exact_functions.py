"""Float functions as look-ups and whole numbers, which all CPUs compute alike (arithmetic/function_tables.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.function_tables import (
    DIGITS,
    HIGHEST,
    LOWEST,
    split_bits,
    tabulate,
    tabulate_powers,
    tabulate_terms,
)
from fcdeploy.graph.edit import set_operator
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.int8.writing.conversions import Conversions
from fcdeploy.records.plan import QParams

AXES_ARE_INPUTS = 18  # the operator set from which ReduceMax reads its axes
INT32, FLOAT = ir.DataType.INT32, ir.DataType.FLOAT


class ExactFunctions:
    """A node is replaced, and keeps its name and what it writes; new nodes stand in front of it."""

    def __init__(self, graph: ir.Graph, conversions: Conversions) -> None:
        self.graph = graph
        self.conversions = conversions

    def of_bytes(self, node: ir.Node, integers: ir.Value, q: QParams, length: int) -> None:
        """A function of the tensor that stands in bytes; a softmax is of `length` numbers."""
        whole = self._cast(node, integers)
        if node.op_type == "Softmax":
            below = self._add(node, "Sub", [self._reduce(node, "ReduceMax", whole), whole], INT32)
            terms = self._look_up(node, tabulate_terms(q, split_bits(length)[0]), below)
            self._divide(node, terms, length)
        else:
            self._end(node, self._look_up(node, tabulate(node.op_type, q), whole))

    def of_floats(self, node: ir.Node, x: ir.Value, length: int) -> None:
        """An Exp of a finite float tensor, or a Softmax of `length` numbers."""
        if node.op_type == "Softmax":
            below = self._add(node, "Sub", [x, self._reduce(node, "ReduceMax", x)], FLOAT)
            self._divide(node, self._power(node, below, 0, split_bits(length)[0]), length)
        else:
            self._end(node, self._power(node, x, HIGHEST, 0))

    def _power(self, node: ir.Node, x: ir.Value, highest: int, bits: int) -> ir.Value:
        """exp(x) 2^bits."""
        first, *tables = tabulate_powers(highest, bits)
        rest = self._add(node, "Clip", [x, self._number(float(LOWEST)), self._number(float(highest))], FLOAT)
        whole = self._add(node, "Floor", [rest], FLOAT)
        index = self._add(node, "Sub", [whole, self._number(float(LOWEST))], FLOAT)
        product = self._look_up(node, first, self._cast(node, index))
        for table, count in zip(tables, DIGITS, strict=True):
            rest = self._add(node, "Sub", [rest, whole], FLOAT)
            rest = self._add(node, "Mul", [rest, self._number(float(count))], FLOAT)
            whole = self._add(node, "Round" if table is tables[-1] else "Floor", [rest], FLOAT)
            factor = self._look_up(node, table, self._cast(node, whole))
            product = self._add(node, "Mul", [product, factor], FLOAT)
        return product

    def _end(self, node: ir.Node, result: ir.Value) -> None:
        """The node hands on what others compute, in the shape that it has already, but not in every runtime (`_shape`)."""
        set_operator(node, "Reshape", "", [result, self._shape(node)])

    def _shape(self, node: ir.Node) -> ir.Value:
        """All axes as they are: OpenCV 4 adds one behind them where a vector is looked up in."""
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        assert shape is not None
        return self._table(node, np.zeros(len(shape), np.int64))

    def _divide(self, node: ir.Node, terms: ir.Value, length: int) -> None:
        """The node becomes the shares of terms in their sum, which is taken some bits at a time."""
        bits, times = split_bits(length)
        terms = self._add(node, "Reshape", [terms, self._shape(node)], FLOAT)
        sums, rest = list[ir.Value](), terms
        for _ in range(times):
            whole = self._add(node, "Floor", [rest], FLOAT)
            sums.append(self._reduce(node, "ReduceSum", whole))
            if len(sums) < times:
                rest = self._add(node, "Sub", [rest, whole], FLOAT)
                rest = self._add(node, "Mul", [rest, self._number(2.0**bits)], FLOAT)
        total = sums.pop()
        while sums:
            total = self._add(node, "Mul", [total, self._number(2.0**-bits)], FLOAT)
            total = self._add(node, "Add", [sums.pop(), total], FLOAT)
        set_operator(node, "Div", "", [terms, total])

    def _reduce(self, node: ir.Node, op: str, value: ir.Value) -> ir.Value:
        """Along the node's axis, which stays with length 1."""
        axis, keep = attribute_of(node, "axis", -1), [ir.AttrInt64("keepdims", 1)]
        assert value.dtype is not None
        if op == "ReduceMax" and self.graph.opset_imports.get("", 0) < AXES_ARE_INPUTS:
            return self._add(node, op, [value], value.dtype, [*keep, ir.AttrInt64s("axes", [axis])])
        return self._add(node, op, [value, self._table(node, np.array([axis]))], value.dtype, keep)

    def _look_up(self, node: ir.Node, table: Any, index: ir.Value) -> ir.Value:
        return self._add(node, "Gather", [self._table(node, table), index], FLOAT)

    def _cast(self, node: ir.Node, value: ir.Value) -> ir.Value:
        return self._add(node, "Cast", [value], INT32, [ir.AttrInt64("to", INT32)])

    def _number(self, number: float) -> ir.Value:
        return self.conversions.one_number(np.array(number, np.float32))

    def _table(self, node: ir.Node, table: Any) -> ir.Value:
        return self.conversions.add_constant(table, f"{name_of(node)}/t")

    def _add(
        self,
        node: ir.Node,
        op: str,
        inputs: list[ir.Value],
        dtype: ir.DataType,
        attributes: list[ir.Attr] | None = None,
    ) -> ir.Value:
        """The result of a new node in front of `node`."""
        name = self.conversions.free_name(f"{name_of(node)}/{op}")
        result = ir.Value(name=name, type=ir.TensorType(dtype))
        self.graph.insert_before(node, ir.Node("", op, inputs, attributes or [], outputs=[result], name=name))
        return result
