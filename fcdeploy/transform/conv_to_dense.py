"""Convolutions that are dense layers, written as such.

    Conv(x, W (K, C, H, W)) on x (N, C, H, W)   =>   Gemm(Flatten(x), W as (K, C H W))

where the kernel covers the whole input without padding, a kernel of 1x1 on a map of 1x1 included.  What is behind it by
channel goes along; a graph output (N, K, 1, 1) becomes (N, K).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, input_of
from fcdeploy.prepare.linear_layers import read_layer, reads_padding
from fcdeploy.prepare.passes.drop_identities import drop_identities
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.transform.dense_to_conv import FLATTENS, sample_shape
from fcdeploy.transform.forms import (
    CHANNELS,
    ELEMENTWISE,
    Form,
    Rule,
    Walk,
    convert_by_channel,
    convert_concat,
    convert_elementwise,
    convert_node,
    finish_walk,
)


def conv_to_dense(model: ir.Model) -> Changes:
    """Turn every convolution that covers its whole input; shapes are inferred, with fixed axes but for the batch.

    Every other convolution is declined with the reason.
    """
    edits = Edits(model, "conv_to_dense")
    walk = Walk(edits)
    for node in list(edits.graph):
        if node.op_type == "Conv":
            _start_at(walk, node)
        elif any(value in walk.forms for value in node.inputs if value is not None):
            convert_node(walk, node, RULES)
    edits.count = sum(node.op_type == "Conv" for node in walk.replaced)
    edits.declined = [(op, why) for op, why in edits.declined if op == "Conv"]  # others read the old shape: fine
    if edits.count:
        finish_walk(walk, _bridge_to_map, maps=False)
        drop_identities(model)
        remove_unused(model)
    return edits.changes()


def _start_at(walk: Walk, node: ir.Node) -> None:
    """Turn a convolution; its input is flattened for it unless that was turned already."""
    source = node.inputs[0]
    assert source is not None
    reason = _why_not_dense(node)
    if reason is not None:
        walk.edits.decline(node, reason)
        return
    if source not in walk.forms:
        shape = sample_shape(source)
        assert shape is not None
        flat = walk.edits.insert(node, "Flatten", [source], {"axis": 1}, output=f"{source.name}.flat")
        walk.forms[source] = Form(flat, shape)
    convert_node(walk, node, {"Conv": _convert_conv})


def _why_not_dense(node: ir.Node) -> str | None:
    """Why a convolution is no dense layer, None when it is one."""
    source = node.inputs[0]
    shape = sample_shape(source) if source is not None else None
    if shape is None:
        return f"has an input {source.name if source else ''!r} whose size is unknown"
    layer = read_layer(node)
    if isinstance(layer, str):
        return f"stays: {layer}"
    kernel = tuple(layer.weight.shape[2:])
    if layer.groups != 1:
        return f"has {layer.groups} groups"
    if kernel != shape[1:]:
        return f"covers {_join_lengths(kernel)} of an input of {_join_lengths(shape[1:])}"
    if reads_padding(node) or any(n != 1 for n in attribute_of(node, "dilations", ())):
        return "reads padding, or has gaps in its kernel"
    return None


def _convert_conv(walk: Walk, node: ir.Node) -> Form | str:
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weight is not None
    layer = read_layer(node)
    assert not isinstance(layer, str)
    rows = layer.weight.reshape(len(layer.weight), -1)  # (K, C H W)
    inputs: list[ir.Value | None] = [walk.forms[source].value, walk.edits.constant(f"{weight.name}.rows", rows)]
    if input_of(node, 2) is not None:
        inputs.append(walk.edits.constant(f"{weight.name}.bias", layer.bias.astype(np.float32)))
    made = walk.edits.insert(node, "Gemm", inputs, {"transB": 1}, output=f"{node.outputs[0].name}.turned")
    return Form(made, (len(rows), *[1] * (layer.weight.ndim - 2)))


def _convert_flatten(walk: Walk, node: ir.Node) -> Form | str:
    """A flattened vector is what the new form is."""
    value = node.inputs[0]
    form = walk.forms.get(value) if value is not None else None
    shape = sample_shape(node.outputs[0])
    if form is None or shape != (math.prod(form.shape),):
        return "makes another shape"
    return Form(walk.edits.insert(node, "Identity", [form.value], output=f"{node.outputs[0].name}.turned"), form.shape)


def _convert_by_channel(walk: Walk, node: ir.Node) -> Form | str:
    return convert_by_channel(walk, node, spatial=0)


def _bridge_to_map(edits: Edits, node: ir.Node, form: Form) -> ir.Value:
    """The form that readers of a kind that was not turned want: a map, or the vector it was."""
    if len(node.outputs[0].shape or ()) == 2:
        return form.value
    shape = edits.constant(f"{node.outputs[0].name}.shape", np.asarray([0, *form.shape], np.int64))
    return edits.insert(node, "Reshape", [form.value, shape], output=f"{node.outputs[0].name}.map")


def _join_lengths(lengths: tuple[int, ...]) -> str:
    return "x".join(map(str, lengths))


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, convert_elementwise),
    **dict.fromkeys(CHANNELS, _convert_by_channel),
    **dict.fromkeys(FLATTENS, _convert_flatten),
    "Concat": convert_concat,
}
