"""Whether a plan, perhaps edited by hand, fits a model: everything `rewrite` relies on, each breach with a sentence."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.arithmetic.quantization import bias_qparams
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.planning.declines import declined
from fcdeploy.graph.planning.layers import data_inputs, output_axis, weight_of
from fcdeploy.graph.planning.weigh import bias_name
from fcdeploy.records.plan import HINT, Decision, Plan, QParams
from fcdeploy.tables.operators import operator

ROLES = {"int8": ("multiply", "integer"), "moves": ("moves", "clips"), "absorbed": ("clips",)}


def check_plan(graph: ir.Graph, plan: Plan, source: str) -> None:
    """Raise FcdeployError at the first row of the plan that does not fit the prepared model."""
    rows = {decision.node: decision for decision in plan.nodes}
    nodes = {node.name or "": node for node in graph}
    for name, what in ((set(rows) - set(nodes), "which the model has not"), (set(nodes) - set(rows), "of the model")):
        if name:
            verb = "names" if "has not" in what else "lacks"
            raise FcdeployError(f"{source} {verb} node {sorted(name)[0]!r}, {what}", HINT)
    for name, node in nodes.items():
        _check_node(node, rows[name], rows, plan.tensors, f"{source}, node {name!r}")


def _check_node(
    node: ir.Node, decision: Decision, rows: dict[str, Decision], tensors: dict[str, QParams], where: str
) -> None:
    row = operator(node.op_type, node.domain)
    if decision.kind == "float":
        return
    reason = declined(node, row)
    if reason or row.role not in ROLES[decision.kind]:
        why = reason or f"its role is {row.role!r}"
        raise FcdeployError(f"{where} is a {node.op_type} and cannot be {decision.kind!r}: {why}", 'make its kind "float"')
    if decision.kind == "absorbed":
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if producer is None or rows[producer.name or ""].kind not in ("int8", "absorbed"):
            raise FcdeployError(f"{where} is absorbed, but the node before it is not int8", 'make its kind "float"')
        return
    data = data_inputs(node, row)
    missing = [value.name for value in data if value is not weight_of(node) and value.name not in tensors]
    if missing:
        raise FcdeployError(f"{where} reads tensor {missing[0]!r}, which has no scale", HINT)
    if decision.kind == "moves":
        moved = [tensors.get(value.name or "") for value in (data[0], *node.outputs)]
        if any(q is None or _key(q) != _key(moved[0]) for q in moved):
            raise FcdeployError(f"{where} moves bytes between tensors of different scales, expected equal ones", HINT)
    elif weight_of(node) is not None:
        _check_weight(node, tensors, where)


def _check_weight(node: ir.Node, tensors: dict[str, QParams], where: str) -> None:
    weight = weight_of(node)
    assert weight is not None and weight.shape is not None
    axis = output_axis(node)
    q = tensors.get(weight.name or "")
    channels = int(weight.shape[axis])  # type: ignore[arg-type]
    if q is None or (q.dtype, q.axis, q.zero_point, len(q.scale)) != ("int8", axis, 0, channels):
        raise FcdeployError(
            f"{where}: weight {weight.name!r} needs int8, axis {axis}, zero_point 0 and {channels} scales", HINT
        )
    bias = tensors.get(bias_name(node))
    if operator(node.op_type).bias is None:
        return
    product = bias_qparams(tensors[node.inputs[0].name or ""].scale[0], q.scale)  # type: ignore[union-attr]
    if bias is None or (bias.dtype, bias.scale) != ("int32", product.scale):
        raise FcdeployError(
            f"{where}: the scale of bias {bias_name(node)!r} is not input scale x weight scale", "leave it out of the edit"
        )


def _key(q: QParams | None) -> tuple[object, ...] | None:
    return None if q is None else (q.dtype, q.scale, q.zero_point)
