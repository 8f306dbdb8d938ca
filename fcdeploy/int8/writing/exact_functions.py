"""Float functions as look-ups and whole numbers, which all CPUs compute alike (arithmetic/function_tables.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.function_tables import (
    BITS,
    DIGITS,
    HIGHEST,
    LOWEST,
    tabulate,
    tabulate_powers,
    tabulate_terms,
)
from fcdeploy.graph.edit import set_operator
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.int8.writing.conversions import Conversions
from fcdeploy.records.plan import QParams

AXES_ARE_INPUTS = 18  # the operator set from which ReduceMax reads its axes
INT32, INT64, FLOAT = ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT


class ExactFunctions:
    """A node is replaced, and keeps its name and what it writes; new nodes stand in front of it."""

    def __init__(self, graph: ir.Graph, conversions: Conversions) -> None:
        self.graph = graph
        self.conversions = conversions

    def of_bytes(self, node: ir.Node, integers: ir.Value, q: QParams) -> None:
        """A function of the tensor that stands in bytes."""
        whole = self._cast(node, integers, INT32)
        if node.op_type == "Softmax":
            below = self._add(node, "Sub", [self._reduce(node, "ReduceMax", whole), whole], INT32)
            self._divide(node, self._look_up(node, tabulate_terms(q), below))
        else:
            set_operator(node, "Gather", "", [self._table(node, tabulate(node.op_type, q)), whole])

    def of_floats(self, node: ir.Node, x: ir.Value) -> None:
        """An Exp or a Softmax of a finite float tensor."""
        if node.op_type == "Softmax":
            below = self._add(node, "Sub", [x, self._reduce(node, "ReduceMax", x)], FLOAT)
            self._divide(node, self._add(node, "Mul", self._powers(node, below, 0, BITS), FLOAT))
        else:
            set_operator(node, "Mul", "", self._powers(node, x, HIGHEST, 0))

    def _powers(self, node: ir.Node, x: ir.Value, highest: int, bits: int) -> list[ir.Value]:
        """Two factors of exp(x) 2^bits."""
        first, *tables = tabulate_powers(highest, bits)
        rest = self._add(node, "Clip", [x, self._number(float(LOWEST)), self._number(float(highest))], FLOAT)
        whole = self._add(node, "Floor", [rest], FLOAT)
        index = self._add(node, "Sub", [whole, self._number(float(LOWEST))], FLOAT)
        product = self._look_up(node, first, self._cast(node, index, INT32))
        for table, count in zip(tables, DIGITS, strict=True):
            rest = self._add(node, "Sub", [rest, whole], FLOAT)
            rest = self._add(node, "Mul", [rest, self._number(float(count))], FLOAT)
            whole = self._add(node, "Round" if table is tables[-1] else "Floor", [rest], FLOAT)
            factor = self._look_up(node, table, self._cast(node, whole, INT32))
            if table is not tables[-1]:
                product = self._add(node, "Mul", [product, factor], FLOAT)
        return [product, factor]

    def _divide(self, node: ir.Node, terms: ir.Value) -> None:
        """The node becomes the shares of terms in their sum."""
        total = self._reduce(node, "ReduceSum", self._cast(node, terms, INT64))
        set_operator(node, "Div", "", [terms, self._cast(node, total, FLOAT)])

    def _reduce(self, node: ir.Node, op: str, value: ir.Value) -> ir.Value:
        """Along the node's axis, which stays with length 1."""
        axis, keep = attribute_of(node, "axis", -1), [ir.AttrInt64("keepdims", 1)]
        assert value.dtype is not None
        if op == "ReduceMax" and self.graph.opset_imports.get("", 0) < AXES_ARE_INPUTS:
            return self._add(node, op, [value], value.dtype, [*keep, ir.AttrInt64s("axes", [axis])])
        return self._add(node, op, [value, self._table(node, np.array([axis]))], value.dtype, keep)

    def _look_up(self, node: ir.Node, table: Any, index: ir.Value) -> ir.Value:
        return self._add(node, "Gather", [self._table(node, table), index], FLOAT)

    def _cast(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self._add(node, "Cast", [value], dtype, [ir.AttrInt64("to", dtype)])

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
