"""A walk over a graph that gives values another form, map or vector, and leaves a bridge where a reader wants the old.

Let x be a map (N, C, H, W), or (N, C, T), and v = Flatten(x) the vector (N, C H W).  A walk keeps, for every value that
it turned, the value in the new form and the shape (C, H, W) that one sample has as a map.  A node is turned when a rule
makes another of it that reads and writes the new form; else its rule says why not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Edits
from fcdeploy.graph.nodes import array_of, attribute_of, describe, input_of, producer_of
from fcdeploy.prepare.linear_layers import expand_per_channel

ELEMENTWISE = {
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh",
    "ThresholdedRelu",
}  # fmt: skip
"""Operators to which the shape of their first input means nothing."""

CHANNELS = {"Add", "Sub", "Mul", "Div", "PRelu", "BatchNormalization", "Softmax", "LogSoftmax"}
"""Operators that know channels and nothing else: turned where a map has one position."""


@dataclass(frozen=True)
class Form:
    """A value in its new form, and (C, H, W) of one sample.

    `order` are those axes as the vector has them: (1, 2, 0) for one that was made from (N, H, W, C).
    """

    value: ir.Value
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        return math.prod(self.shape[1:])


@dataclass
class Walk:
    """A walk on its way: what was turned, the nodes that others replace, and those that stay though they read them."""

    edits: Edits
    forms: dict[ir.Value, Form] = field(default_factory=dict)
    replaced: list[ir.Node] = field(default_factory=list)
    stays: list[ir.Node] = field(default_factory=list)


Rule = Callable[[Walk, ir.Node], Form | str]


def convert_node(walk: Walk, node: ir.Node, rules: Mapping[str, Rule]) -> None:
    """Turn a node that reads a turned value, or note why it stays."""
    rule = rules.get(node.op_type)
    made = rule(walk, node) if rule else "has no form without the old shape"
    if isinstance(made, str):
        walk.edits.decline(node, made)
        walk.stays.append(node)
    else:
        walk.forms[node.outputs[0]] = made
        walk.replaced.append(node)


def finish_walk(walk: Walk, bridge: Callable[[Edits, ir.Node, Form], ir.Value], *, maps: bool) -> None:
    """Let turned outputs of the graph take the old ones' places, bridge the others, and remove what was replaced.

    The new form is that of `maps`, else of vectors.
    """
    graph, gone = walk.edits.graph, set(walk.replaced)

    for node in walk.replaced:
        old = node.outputs[0]
        form = walk.forms[old]
        left = [use for use in old.uses() if use.node not in gone]
        if left:
            value = bridge(walk.edits, node, form)
            for use in left:
                use.node.replace_input_with(use.idx, value)
        if old.is_graph_output():
            form.value.type = old.type
            form.value.shape = (
                None
                if old.shape is None
                else ir.Shape([old.shape[0], *(form.shape if maps else [math.prod(form.shape)])])
            )
            old.replace_all_uses_with(form.value, replace_graph_outputs=True)

    names = [(walk.forms[node.outputs[0]].value, node.outputs[0].name, node.name) for node in walk.replaced]
    for node in reversed(walk.replaced):
        graph.remove(node, safe=True)
    for value, name, of_node in names:
        value.name = name  # a name means what it meant: the same numbers in another shape
        producer = value.producer()
        assert producer is not None
        producer.name = of_node


def convert_elementwise(walk: Walk, node: ir.Node) -> Form | str:
    """The same node on the new form."""
    form = walk.forms.get(_first_input(node))
    if form is None:
        return "takes what was turned as a parameter"
    inputs = [form.value, *node.inputs[1:]]
    return Form(copy_node(walk.edits, node, inputs), form.shape, form.order)


def convert_by_channel(walk: Walk, node: ir.Node, *, spatial: int) -> Form | str:
    """The same node on maps with `spatial` axes of length 1 behind the channels, or on vectors for 0."""
    forms = [walk.forms[value] for value in node.inputs if value is not None and value in walk.forms]
    if any(form.positions != 1 for form in forms):
        return f"is by channel, and {forms[0].shape} has several positions"
    count, rank = forms[0].shape[0], len(node.outputs[0].shape or ())
    if any(form.shape != forms[0].shape for form in forms):
        return f"broadcasts {forms[-1].shape} with {forms[0].shape}"
    if node.op_type in ("Softmax", "LogSoftmax"):
        axis = attribute_of(node, "axis", -1)
        if axis % max(rank, 1) != 1:
            return f"runs along axis {axis}, not the channels"
        return Form(copy_node(walk.edits, node, [forms[0].value], axis=1), forms[0].shape)

    # constants become one number a channel, on the axis where the new form has them
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        turned = walk.forms.get(value) if value is not None else None
        if turned is not None:
            inputs.append(turned.value)
        elif node.op_type == "BatchNormalization":
            inputs.append(value)
        else:
            row = expand_per_channel(array_of(value), count, rank)
            if row is None:
                name = value.name if value is not None else ""
                return f"its input {name!r} is no constant with one number per channel"
            array = row.astype(np.float32).reshape(count, *[1] * spatial)
            inputs.append(walk.edits.constant(f"{node.name}.channels", array))
    return Form(copy_node(walk.edits, node, inputs), forms[0].shape)


def convert_concat(walk: Walk, node: ir.Node) -> Form | str:
    """Channels of maps of one position side by side, or of vectors."""
    forms = [walk.forms.get(value) if value is not None else None for value in node.inputs]
    joined = [form for form in forms if form is not None and form.positions == 1]
    rank = len(node.outputs[0].shape or ())
    if len(joined) != len(forms) or attribute_of(node, "axis", 0) % max(rank, 1) != 1:
        return "joins other things than channels of one position"
    made = copy_node(walk.edits, node, [form.value for form in joined], axis=1)
    return Form(made, (sum(form.shape[0] for form in joined), *joined[0].shape[1:]))


def copy_node(edits: Edits, node: ir.Node, inputs: list[ir.Value | None], **changed: int) -> ir.Value:
    """A node of the same operator and attributes in front of `node`, on other inputs."""
    attributes = {name: item.value for name, item in node.attributes.items()} | changed
    return edits.insert(node, node.op_type, inputs, attributes, output=f"{node.outputs[0].name}.turned")


def describe_source(node: ir.Node) -> str:
    """The reason why nothing was done to a node that reads no turned value."""
    value = input_of(node, 0)
    producer = producer_of(value)
    return f"reads {describe(producer)}" if producer is not None else "reads an input of the graph"


def _first_input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
