"""Whether a plan, perhaps edited by hand, fits a model: everything `rewrite` relies on, each breach with a sentence."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.arithmetic.quantization import choose_bias_qparams
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import data_inputs, name_of, operator_of, output_axis, producer_of, shape_of, weight_of
from fcdeploy.int8.nodes import may_read_pixels, vanishes, weight_only_inputs
from fcdeploy.int8.planning.clip_fusion import saturates_alike
from fcdeploy.int8.planning.eligibility import why_ineligible
from fcdeploy.int8.planning.types import packed_weights, why_not_packed
from fcdeploy.int8.planning.weights import bias_name
from fcdeploy.records.plan import HINT, LIMITS, Decision, Plan, QParams

ROLES = {
    "int8": ("multiply", "integer"), "int16": ("multiply", "integer"),
    "passthrough": ("passthrough", "clips"), "fused": ("clips",),
}  # fmt: skip
TYPES = {"int8": ("uint8", "int8"), "int16": ("uint8", "int8", "int16"), "passthrough": ("uint8", "int8", "int16")}


def check_plan(graph: ir.Graph, plan: Plan, source: str) -> None:
    """Raise FcdeployError at the first row of the plan that does not fit the prepared model."""
    rows = {decision.node: decision for decision in plan.nodes}
    nodes = {name_of(node): node for node in graph}
    if len(rows) < len(plan.nodes):
        names = [decision.node for decision in plan.nodes]
        twice = next(name for name in names if names.count(name) > 1)
        raise FcdeployError(f"{source} names node {twice!r} twice", HINT)
    if strange := sorted(set(rows) - set(nodes)):
        raise FcdeployError(f"{source} names node {strange[0]!r}, which the model has not", HINT)
    if lost := sorted(set(nodes) - set(rows)):
        raise FcdeployError(f"{source} lacks node {lost[0]!r} of the model", HINT)
    known = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
    if strangers := sorted(set(plan.tensors) - known - {bias_name(node) for node in graph}):
        raise FcdeployError(f"{source} names tensor {strangers[0]!r}, which the model has not", HINT)
    wide = [name for name, row in rows.items() if row.kind == "int16"]
    if wide and "int16" not in (plan.weights, plan.activations):
        raise FcdeployError(f"{source}, node {wide[0]!r} is 'int16' in a plan without 16 bits", 'make its kind "int8"')
    for name, node in nodes.items():
        _check_node(node, rows[name], rows, plan.tensors, f"{source}, node {name!r}")


def _check_node(
    node: ir.Node, decision: Decision, rows: dict[str, Decision], tensors: dict[str, QParams], where: str
) -> None:
    row = operator_of(node)
    if decision.op != node.op_type:
        raise FcdeployError(f"{where} is a {decision.op!r} in the plan and a {node.op_type!r} in the model", HINT)
    if decision.rounding != "nearest" and (decision.kind != "int8" or weight_of(node) is None):
        raise FcdeployError(
            f"{where} has rounding {decision.rounding!r}, and no int8 weights", "leave its rounding out"
        )
    if decision.kind == "float":
        return
    if decision.kind == "weight_only":
        _check_weight_only(node, tensors, where)
        return
    if decision.kind in ("blockwise", "dynamic"):
        _check_on_floats(node, decision.kind, tensors, where)
        return
    reason = why_ineligible(node, row)
    if reason or row.role not in ROLES[decision.kind]:
        why = reason or f"its role is {row.role!r}"
        raise FcdeployError(
            f"{where} is a {node.op_type} and cannot be {decision.kind!r}: {why}", 'make its kind "float"'
        )
    if decision.kind == "fused":
        _check_fused(node, rows, tensors, where)
        return
    data = data_inputs(node)
    missing = [value.name for value in data if value is not weight_of(node) and value.name not in tensors]
    if missing:
        raise FcdeployError(f"{where} reads tensor {missing[0]!r}, which has no scale", HINT)
    for value in (*data, *node.outputs):
        q = tensors.get(name_of(value))
        if (
            value is not weight_of(node)
            and q is not None
            and (q.axis is not None or q.dtype not in TYPES[decision.kind])
        ):
            either = " or ".join(TYPES[decision.kind])
            raise FcdeployError(f"{where}: tensor {value.name!r} needs {either} and one scale, axis null", HINT)
    if (q := tensors.get(name_of(data[0]))) is not None and q.pixels:
        _check_pixels(node, decision.kind, q, where)
    if decision.kind == "passthrough":
        moved = [tensors.get(name_of(value)) for value in (data[0], *node.outputs)]
        if any(q is None or _key(q) != _key(moved[0]) for q in moved):
            raise FcdeployError(f"{where} moves bytes between tensors of different scales, expected equal ones", HINT)
    elif weight_of(node) is not None:
        _check_weight(node, decision.kind, tensors, where)


def _check_fused(node: ir.Node, rows: dict[str, Decision], tensors: dict[str, QParams], where: str) -> None:
    """The bytes that the node before the clip writes saturate where the clip would clip, and nobody else reads them."""
    before, after = node.inputs[0], name_of(node.outputs[0])
    producer = producer_of(before)
    hint = 'make its kind "float"'
    if before is None or producer is None or rows[name_of(producer)].kind not in ("int8", "int16"):
        raise FcdeployError(f"{where} is fused, but the node before it is not int8", hint)
    if not vanishes(before):
        raise FcdeployError(f"{where} is fused, but others read {before.name!r} too", hint)
    if after not in tensors or not saturates_alike(node, tensors[after]):
        raise FcdeployError(f"{where} is fused, but the scale of {after!r} does not end where it clips", hint)


def _check_weight_only(node: ir.Node, tensors: dict[str, QParams], where: str) -> None:
    weights = weight_only_inputs(node)
    if not weights:
        raise FcdeployError(f"{where} has no weights worth storing as bytes", 'make its kind "float"')
    for _, value, axis in weights:
        _check_channels(value, axis, tensors.get(name_of(value)), ("int8", "int16"), where)


def _check_on_floats(node: ir.Node, kind: str, tensors: dict[str, QParams], where: str) -> None:
    """A layer in blocks or with dynamic activations: an operator that has such a kernel, and weights it can read."""
    hint = 'make its kind "float"'
    reason = why_not_packed(node, kind)
    if reason:
        raise FcdeployError(f"{where} is a {node.op_type} and cannot be {kind!r}: {reason}", hint)
    for value, axis in packed_weights(node):
        q = tensors.get(name_of(value))
        if kind == "blockwise":
            if q is None or q.dtype not in ("int4", "int8") or not q.block:
                raise FcdeployError(f"{where}: weight {value.name!r} needs int4 or int8 and a block", HINT)
        else:
            _check_channels(value, axis, q, ("int8",), where)


def _check_channels(value: ir.Value, axis: int, q: QParams | None, dtypes: tuple[str, ...], where: str) -> None:
    channels = shape_of(value)[axis]
    fits = q is not None and (q.axis, q.zero_point, len(q.scale)) == (axis, 0, channels) and q.dtype in dtypes
    if not fits:
        either = " or ".join(dtypes)
        raise FcdeployError(
            f"{where}: weight {value.name!r} needs {either}, axis {axis}, zero_point 0 and {channels} scales", HINT
        )


def _check_pixels(node: ir.Node, kind: str, q: QParams, where: str) -> None:
    weight = weight_of(node)
    if kind != "int8" or weight is None or not may_read_pixels(node):
        raise FcdeployError(
            f"{where} cannot read the bytes of a picture: that takes a convolution of at most 3 channels which alone "
            "reads an input of the model",
            "leave pixels out, and give the tensor its scale",
        )
    channels = shape_of(weight)[1]
    if (q.scale, q.zero_point, len(q.pixels)) != ((1.0,), LIMITS[q.dtype][0], channels):
        lowest = LIMITS[q.dtype][0]
        raise FcdeployError(f"{where} reads pixels, which need scale 1, zero_point {lowest} and {channels} rows", HINT)


def _check_weight(node: ir.Node, kind: str, tensors: dict[str, QParams], where: str) -> None:
    weight = weight_of(node)
    assert weight is not None
    axis = output_axis(node)
    q = tensors.get(name_of(weight))
    if kind == "int16":
        _check_channels(weight, axis, q, ("int8", "int16"), where)
        return
    channels = shape_of(weight)[axis]
    if (
        q is None
        or (q.dtype, q.zero_point) != ("int8", 0)
        or (q.axis, len(q.scale)) not in ((axis, channels), (None, 1))
    ):
        raise FcdeployError(
            f"{where}: weight {weight.name!r} needs int8, zero_point 0 and axis {axis} with {channels} scales, "
            "or axis null with one",
            HINT,
        )
    bias = tensors.get(bias_name(node))
    if operator_of(node).bias is None:
        return
    product = choose_bias_qparams(tensors[name_of(node.inputs[0])].scale[0], q)
    if bias is None or (bias.dtype, bias.scale) != ("int32", product.scale):
        raise FcdeployError(
            f"{where}: the scale of bias {bias_name(node)!r} is not input scale x weight scale",
            "leave it out of the edit",
        )


def _key(q: QParams | None) -> tuple[object, ...] | None:
    return None if q is None else (q.dtype, q.scale, q.zero_point)
