"""Changing a graph: constants under free names, nodes replaced, passed by and removed; what a pass did, and why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import describe, is_op, make_unique, name_of, opset_of


class Names:
    """The names that are taken in a graph and the bodies in it, of values and of nodes: both must be unique to load."""

    def __init__(self, graph: ir.Graph) -> None:
        self.taken: set[str] = set()
        for each in (graph, *graph.subgraphs()):
            self.taken.update(name_of(value) for value in (*each.inputs, *each.initializers.values()))
        for node in graph.all_nodes():
            self.taken.update((name_of(node), *map(name_of, node.outputs)))

    def take(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken; it is taken from now on."""
        name = make_unique(wanted, self.taken)
        self.taken.add(name)
        return name


def add_initializer(graph: ir.Graph, name: str, content: Array | ir.TensorProtocol) -> ir.Value:
    """A new initializer of a graph; its name must be free, see `Names`."""
    tensor = ir.tensor(np.asarray(content, order="C")) if isinstance(content, np.ndarray | np.generic) else content
    tensor.name = name
    shape = ir.Shape([int(length) for length in tensor.shape.numpy()])
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def add_constant(graph: ir.Graph, wanted: str, content: Array | ir.TensorProtocol) -> ir.Value:
    """As `add_initializer`, under `wanted` or a name like it that is free; each call looks at all names of the graph."""
    return add_initializer(graph, Names(graph).take(wanted), content)


def set_constant(value: ir.Value, content: Array | ir.TensorProtocol) -> None:
    """Give an initializer other numbers, of the same shape."""
    value.const_value = content if not isinstance(content, np.ndarray) else ir.tensor(content)
    value.const_value.name = name_of(value)
    value.type = ir.TensorType(value.const_value.dtype)


def rewrite_operators(
    model: ir.Model, operators: Collection[str], rewrite: Callable[[ir.Graph, ir.Node, Names], None]
) -> ir.Model:
    """A copy of the model in which `rewrite` has put something in the place of each such node; the model itself without any."""
    if not any(node.op_type in operators for node in model.graph):
        return model
    model = model.clone()
    names = Names(model.graph)
    for node in [node for node in model.graph if node.op_type in operators]:
        rewrite(model.graph, node, names)
    return model


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Let `value` be input `index`, whether the node has so many inputs or not."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Let these be all inputs of a node."""
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def set_attributes(node: ir.Node, **values: Any) -> None:
    """Set attributes, of the ONNX type that is plain from each value."""
    for attribute in ir.convenience.convert_attributes(values):
        node.attributes.add(attribute)


def set_operator(
    node: ir.Node, op_type: str, domain: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()
) -> None:
    """Make another operator of a node, with these attributes alone; its name and what it writes stay."""
    node.op_type, node.domain, node.version = op_type, domain, None
    node.attributes.clear()
    for attribute in attributes:
        node.attributes.add(attribute)
    set_inputs(node, inputs)


def block_fusion(graph: ir.Graph, node: ir.Node) -> None:
    """Put a LeakyRelu of slope 1, which changes nothing, behind a node; it fuses into a float layer's kernel."""
    value = node.outputs[0]
    result = ir.Value(name=value.name, shape=value.shape, type=value.type)
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    value.name = f"{result.name}/held"
    slope = {"alpha": ir.AttrFloat32("alpha", 1.0)}
    graph.insert_after(node, ir.Node("", "LeakyRelu", [value], slope, outputs=[result], name=f"{node.name}/held"))


def read_through_one(graph: ir.Graph, value: ir.Value, readers: Collection[ir.Node], name: str) -> None:
    """Have some readers of what a node writes read it behind a Clip at the least float, which changes nothing.

    It takes two thirds of the time of a LeakyRelu of slope 1.
    """
    result, producer = ir.Value(name=f"{value.name}/held", shape=value.shape, type=value.type), value.producer()
    assert producer is not None
    for node, index in list(value.uses()):
        if node in readers:
            node.replace_input_with(index, result)
    lowest = add_constant(graph, f"{name}/min", np.array(np.finfo(np.float32).min))
    graph.insert_after(producer, ir.Node("", "Clip", [value, lowest], outputs=[result], name=name))


def remove_dead(graph: ir.Graph) -> int:
    """Remove nodes whose outputs nobody reads, then initializers that nobody reads; return how many.

    Inputs of the graph stay, those that are initializers too.
    """
    nodes = 0
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
            nodes += 1
    dead = [
        name
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_output() or value.is_graph_input())
    ]
    for name in dead:
        del graph.initializers[name]
    return nodes + len(dead)


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
        self.opset = opset_of(model)
        self.name = name
        self.count = 0
        self.declined: list[tuple[str, str]] = []  # operator, sentence
        self._names: Names | None = None  # made when the first is wanted: most passes want none

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """Standard nodes of these types, in graph order, that are still in the graph when their turn comes."""
        for node in list(self.graph):
            if is_op(node, *op_types) and node.graph is self.graph:
                yield node

    def decline(self, node: ir.Node, why: str) -> None:
        """Note a rewrite that was not made."""
        self.declined.append((node.op_type, f"{describe(node)} {why}"))

    def changes(self) -> Changes:
        """What was done so far."""
        return Changes(self.name, self.count, tuple(sentence for _, sentence in self.declined))

    def free_name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where the graph has that name already."""
        if self._names is None:
            self._names = Names(self.graph)
        return self._names.take(wanted)

    def constant(self, wanted: str, content: Array | ir.TensorProtocol) -> ir.Value:
        """A new initializer under a name that is free."""
        return add_initializer(self.graph, self.free_name(wanted), content)

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
        value = ir.Value(name=self.free_name(output))
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
