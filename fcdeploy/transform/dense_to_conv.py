"""A dense head as convolutions.

The dense layer behind a flattened map is the convolution whose kernel is as large as the map; those behind it are
convolutions of 1x1:

    Flatten(x) (N, C H W), W (K, C H W)   =>   Conv(x, W as (K, C, H, W))     (N, K, 1, 1)
    v (N, K), W (M, K)                    =>   Conv(v, W as (M, K, 1, 1))     (N, M, 1, 1)

On a larger x it answers for every window (Sermanet et al., "OverFeat", arXiv:1312.6229, section 3.5).  A pooling over the
whole map becomes one over a window of the map's size, for the same reason.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, input_of, is_op
from fcdeploy.prepare.linear_layers import read_layer
from fcdeploy.prepare.passes.remove_unused import remove_unused
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
    describe_source,
    finish_walk,
)

FLATTENS = ("Flatten", "Reshape", "Squeeze")
DENSE = ("Gemm", "MatMul")
POOLS = {"GlobalAveragePool": "AveragePool", "GlobalMaxPool": "MaxPool"}


def dense_to_conv(model: ir.Model) -> Changes:
    """Turn the dense layers behind every flattened map; shapes are inferred, with fixed axes but for the batch.

    Outputs that are turned become maps (N, K, h, w).  Every layer that stays is declined with the reason.
    """
    edits = Edits(model, "dense_to_conv")
    walk = Walk(edits)
    for node in list(edits.graph):
        form = _read_flattened(node)
        if form is not None and node.outputs[0] not in walk.forms and not _reads_converted(walk, node):
            walk.forms[node.outputs[0]] = form
        elif _reads_converted(walk, node):
            convert_node(walk, node, RULES)
        elif node.op_type in DENSE:
            edits.decline(node, f"{describe_source(node)}, no flattened map")
    edits.count = sum(node.op_type in DENSE for node in walk.replaced)
    heads = [form for value, form in walk.forms.items() if value.producer() not in walk.replaced]
    pools = [node for node in edits.nodes(*POOLS) if any(form.value is node.outputs[0] for form in heads)]
    if edits.count:
        finish_walk(walk, _bridge_to_vector, maps=True)
        remove_unused(model)
        for node in pools:
            _pool_in_window(edits, node)
    return edits.changes()


def _reads_converted(walk: Walk, node: ir.Node) -> bool:
    return any(value in walk.forms for value in node.inputs if value is not None)


def _read_flattened(node: ir.Node) -> Form | None:
    """The map that a node flattens, all but the batch; a Transpose before it is part of it."""
    source, result = input_of(node, 0), sample_shape(node.outputs[0])
    if not is_op(node, *FLATTENS) or source is None or result is None or len(result) != 1:
        return None
    shape = sample_shape(source)
    if shape is None or len(shape) < 2 or np.prod(shape) != result[0]:
        return None
    before = source.producer()
    if before is None or not is_op(before, "Transpose"):
        return Form(source, shape)
    perm = attribute_of(before, "perm", ())
    inner = before.inputs[0]
    own = sample_shape(inner) if inner is not None else None
    if inner is None or own is None or not perm or perm[0] != 0:
        return Form(source, shape)
    return Form(inner, own, tuple(axis - 1 for axis in perm[1:]))


def sample_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The lengths behind the leading axis, when all are known."""
    shape = value.shape
    if shape is None or not len(shape):
        return None
    rest = tuple(axis for axis in list(shape)[1:] if isinstance(axis, int))
    return rest if len(rest) == len(shape) - 1 else None


def _convert_dense(walk: Walk, node: ir.Node) -> Form | str:
    value = node.inputs[0]
    form = walk.forms.get(value) if value is not None else None
    if form is None:
        return "has a weight that is computed at run time"
    layer = read_layer(node)
    if isinstance(layer, str):
        return f"stays: {layer}"
    rows = layer.weight if attribute_of(node, "transB", 0) else layer.weight.T  # (out, in)
    order = form.order or tuple(range(len(form.shape)))
    flat = rows.reshape(len(rows), *(form.shape[axis] for axis in order))
    kernel = flat.transpose(0, *(1 + order.index(axis) for axis in range(len(order))))  # (out, C, H, W)
    stem = node.inputs[1].name if node.inputs[1] is not None else node.name
    inputs: list[ir.Value | None] = [form.value, walk.edits.constant(f"{stem}.kernel", kernel)]
    if input_of(node, 2) is not None:
        inputs.append(walk.edits.constant(f"{stem}.bias", layer.bias.astype(np.float32)))
    attributes = {"kernel_shape": list(form.shape[1:])}
    made = walk.edits.insert(node, "Conv", inputs, attributes, output=f"{node.outputs[0].name}.turned")
    return Form(made, (len(rows), *[1] * (len(form.shape) - 1)))


def _convert_by_channel(walk: Walk, node: ir.Node) -> Form | str:
    ranks = [len(walk.forms[value].shape) for value in node.inputs if value is not None and value in walk.forms]
    return convert_by_channel(walk, node, spatial=ranks[0] - 1)


def _bridge_to_vector(edits: Edits, node: ir.Node, form: Form) -> ir.Value:
    """The vector that readers of a kind that was not turned want."""
    return edits.insert(node, "Flatten", [form.value], {"axis": 1}, output=f"{node.outputs[0].name}.flat")


def _pool_in_window(edits: Edits, node: ir.Node) -> None:
    """Pool a window of the map's size instead of the whole of a map, which would be one answer for a larger one."""
    value = node.inputs[0]
    shape = sample_shape(value) if value is not None else None
    if shape is not None:
        edits.replace(node, POOLS[node.op_type], [value], {"kernel_shape": list(shape[1:])})


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, convert_elementwise),
    **dict.fromkeys(CHANNELS, _convert_by_channel),
    **dict.fromkeys(DENSE, _convert_dense),
    "Concat": convert_concat,
}
