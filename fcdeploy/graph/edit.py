"""What a pass did, and the few graph edits that all passes share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, np.dtype[Any]]
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Changes:
    """The result of one pass: how many rewrites it made, and one sentence for each it declined."""

    name: str
    count: int
    declined: tuple[str, ...] = ()


class Edits:
    """A main graph being edited: hands out names that are free, counts rewrites and keeps the reasons of declines.

    Only nodes of the main graph are offered; the bodies of If, Loop and Scan are never changed, and a value that one of
    them reads counts as read by a node that no pass may touch.
    """

    def __init__(self, model: ir.Model, name: str) -> None:
        self.graph = model.graph
        self.opset = opset(model)
        self.name = name
        self.count = 0
        self.declined: list[str] = []
        self._taken: set[str] | None = None

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """Standard nodes of these types, in graph order, that are still in the graph when their turn comes."""
        for node in list(self.graph):
            if node.op_type in op_types and node.domain in STANDARD and node.graph is self.graph:
                yield node

    def decline(self, node: ir.Node, why: str) -> None:
        self.declined.append(f"{describe(node)} {why}")

    def changes(self) -> Changes:
        return Changes(self.name, self.count, tuple(self.declined))

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number behind it when a value of any graph has that name already."""
        if self._taken is None:
            self._taken = _value_names(self.graph)
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def constant(self, wanted: str, array: Array) -> ir.Value:
        """A new initializer holding `array`."""
        name = self.fresh(wanted)
        return self.tensor(ir.Tensor(np.asarray(array, order="C"), name=name))

    def tensor(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initializer holding `tensor`, whose name must come from `fresh`."""
        value = ir.Value(name=tensor.name, shape=shape_of(tensor), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        output: str,
    ) -> ir.Value:
        """A new node in front of `before`; returns its only output, named after `output`."""
        value = ir.Value(name=self.fresh(output))
        node = ir.node(op_type, inputs, dict(attributes or {}), outputs=[value], name=f"{before.name}.{op_type}")
        self.graph.insert_before(before, node)
        return value

    def replace(
        self, old: ir.Node, op_type: str, inputs: list[ir.Value | None], attributes: Mapping[str, Any] | None = None
    ) -> ir.Node:
        """Put a new node with the same name and the same first output in the place of `old`."""
        value = old.outputs[0]
        result = ir.Value(name=value.name, shape=value.shape, type=value.type)
        node = ir.node(op_type, inputs, dict(attributes or {}), outputs=[result], name=old.name)
        self.graph.insert_before(old, node)
        value.replace_all_uses_with(result, replace_graph_outputs=True)
        self.graph.remove(old, safe=True)
        return node

    def bypass(self, node: ir.Node, value: ir.Value) -> bool:
        """Let `value` stand for the first output of `node`, and remove the node.

        A graph output keeps its name: the value that takes its place is renamed.  Not possible, and False, when that
        value is an input, an initializer or another output of the graph, or lives in another graph.
        """
        output = node.outputs[0]
        if output.is_graph_output():
            producer = value.producer()
            if producer is None or producer.graph is not self.graph or value.is_graph_output():
                return False
            if output not in list(self.graph.outputs):
                return False
            value.type, value.shape = output.type, output.shape
        name = output.name
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        if value.is_graph_output():
            value.name = name
        self.graph.remove(node, safe=True)
        return True

    def only_reader(self, value: ir.Value) -> ir.Node | None:
        """The node of the main graph that alone reads `value`, which is then no graph output; else None."""
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output():
            return None
        (use,) = uses
        return use.node if use.node.graph is self.graph else None


def opset(model: ir.Model) -> int:
    """Version of the standard operators that the model is written in."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def describe(node: ir.Node) -> str:
    return f"{node.op_type} {node.name!r}"


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    return node is not None and node.op_type in op_types and node.domain in STANDARD


def array_of(value: ir.Value | None) -> Array | None:
    """The array behind a constant: an initializer that no caller can override, or None."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether `array_of` gives an array; touches no data."""
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index`, None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value, with tuples for lists and text for strings; `default` when it is not given."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return tuple(found.value) if isinstance(found.value, list | tuple) else found.value


def ints_of(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """A list that older operator sets give as attribute `name` and newer ones as constant input `index`.

    Empty when neither is there; None when the input is computed at run time.
    """
    if name in node.attributes:
        return tuple(int(item) for item in attribute(node, name, ()))
    value = input_of(node, index)
    if value is None:
        return ()
    array = array_of(value)
    return None if array is None else tuple(int(item) for item in array.reshape(-1))


def rank_of(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape([int(length) for length in tensor.shape.numpy()])


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape when every axis has a known length, else None."""
    if value is None or value.shape is None:
        return None
    lengths = tuple(axis for axis in value.shape if isinstance(axis, int))
    return lengths if len(lengths) == len(value.shape) else None


def other_readers(value: ir.Value, besides: ir.Node) -> str:
    """Who else reads `value`, in words: "'add3'", "'add3' and 2 more", "the graph's output"."""
    names = [node.name or node.op_type for node in value.consumers() if node is not besides]
    if not names:
        return "the graph's output" if value.is_graph_output() else ""
    return f"{names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _value_names(graph: ir.Graph) -> set[str]:
    taken = {value.name or "" for value in [*graph.inputs, *graph.initializers.values()]}
    for subgraph in graph.subgraphs():
        taken.update(value.name or "" for value in [*subgraph.inputs, *subgraph.initializers.values()])
    for node in graph.all_nodes():
        taken.update(value.name or "" for value in node.outputs)
    return taken
