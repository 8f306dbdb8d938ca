"""Scan of operator set 8, which ran over the samples of a batch one after the other, as a Scan within a Scan.

Its inputs were (batch, sequence, ...), its states (batch, ...).  Since operator set 9 a Scan knows no batch: the outer one
goes over the samples, and the inner one is what the old one did with each.

    Scan8(s, x) = Scan over samples of (s[b], x[b]) -> Scan(s[b], x[b])
"""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import set_inputs
from fcdeploy.graph.nodes import attribute_of, describe, name_of


def nest_batched_scan(node: ir.Node) -> None:
    """Rewrite one node in place. Raises FcdeployError where lengths of its own are given for every sample."""
    if node.inputs[0] is not None:
        raise FcdeployError(
            f"{describe(node)} of operator set 8 is given a length for every sample, which no newer Scan takes",
            "export the model again with operator set 9 or above",
        )
    body, inputs = node.attributes["body"], list(node.inputs[1:])
    scanned = attribute_of(node, "num_scan_inputs", 1)
    directions = attribute_of(node, "directions", (0,) * scanned)
    inner_inputs = [_one_sample(value, node) for value in inputs]
    inner_outputs = [ir.Value(name=f"{value.name}/sample", type=value.type) for value in node.outputs]
    inner = ir.Node(
        "", "Scan", inner_inputs,
        [body, ir.AttrInt64("num_scan_inputs", scanned), ir.AttrInt64s("scan_input_directions", list(directions))],
        outputs=inner_outputs, name=f"{node.name}/sample",
    )  # fmt: skip
    samples = ir.Graph(inner_inputs, inner_outputs, nodes=[inner], name=f"{node.name}/samples")
    node.attributes.clear()
    node.attributes.add(ir.AttrGraph("body", samples))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(inputs)))
    set_inputs(node, inputs)


def _one_sample(value: ir.Value | None, node: ir.Node) -> ir.Value:
    assert value is not None, f"{describe(node)} lacks an input"
    shape = ir.Shape(value.shape[1:]) if value.shape is not None else None
    return ir.Value(name=f"{name_of(value)}/sample of {name_of(node)}", type=value.type, shape=shape)
