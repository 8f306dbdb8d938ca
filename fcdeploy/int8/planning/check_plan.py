"""Whether a plan, perhaps edited by hand, fits a model: everything `rewrite` relies on, each breach with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.arithmetic.quantization import choose_bias_qparams
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.missing_numbers import explain_missing
from fcdeploy.graph.nodes import data_inputs, name_of, operator_of, output_axis, producer_of, shape_of, weight_of
from fcdeploy.int8.nodes import affine_of, may_read_pixels, vanishes, weight_only_inputs
from fcdeploy.int8.planning.clip_fusion import saturates_alike
from fcdeploy.int8.planning.eligibility import why_ineligible
from fcdeploy.int8.planning.scale_groups import follow
from fcdeploy.int8.planning.types import packed_weights, why_not_packed
from fcdeploy.int8.planning.weights import bias_name
from fcdeploy.records.plan import HINT, LIMITS, Kind, NodeDecision, Plan, QParams

MAKE_FLOAT = 'make its kind "float"'
ON_FLOATS = ("float", "weight_only", "blockwise", "dynamic")  # kinds of nodes that write floats
ROLES: dict[str, tuple[str, ...]] = {
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
    for name, why in explain_missing(graph).items():
        if rows[name].kind not in ON_FLOATS:
            raise FcdeployError(f"{source}, node {name!r} cannot be {rows[name].kind!r}: {why}", MAKE_FLOAT)
    for name, node in nodes.items():
        row = ExpectedNode(node, rows[name], rows, plan.tensors, f"{source}, node {name!r}")
        for check in (_check_operator, _check_rounding, *CHECKS[row.kind]):
            check(row)


@dataclass(frozen=True)
class ExpectedNode:
    """A node of the model with its row of the plan, the other rows, and what to call it in an error."""

    node: ir.Node
    decision: NodeDecision
    rows: Mapping[str, NodeDecision]
    tensors: Mapping[str, QParams]
    where: str

    @property
    def kind(self) -> Kind:
        return self.decision.kind

    def qparams(self, value: ir.Value | None) -> QParams | None:
        """The row of a tensor, if it has one."""
        return self.tensors.get(name_of(value))

    def breach(self, what: str, hint: str = HINT) -> FcdeployError:
        """The error that says what is wrong with the row."""
        return FcdeployError(f"{self.where}{what}", hint)


def _check_operator(row: ExpectedNode) -> None:
    if row.decision.op != row.node.op_type:
        raise row.breach(f" is a {row.decision.op!r} in the plan and a {row.node.op_type!r} in the model")


def _check_rounding(row: ExpectedNode) -> None:
    if row.decision.rounding != "nearest" and (row.kind != "int8" or weight_of(row.node) is None):
        raise row.breach(f" has rounding {row.decision.rounding!r}, and no int8 weights", "leave its rounding out")


def _check_role(row: ExpectedNode) -> None:
    """An operator of which there is such a kernel, and nothing about this node that rules it out."""
    operator = operator_of(row.node)
    why = why_ineligible(row.node, operator)
    if why or operator.role not in ROLES[row.kind]:
        why = why or f"its role is {operator.role!r}"
        raise row.breach(f" is a {row.node.op_type} and cannot be {row.kind!r}: {why}", MAKE_FLOAT)


def _check_scales(row: ExpectedNode) -> None:
    """One scale, of a type that the kernel reads, for everything but the weight."""
    weight, read = weight_of(row.node), data_inputs(row.node)
    missing = [value.name for value in read if value is not weight and value.name not in row.tensors]
    if missing:
        raise row.breach(f" reads tensor {missing[0]!r}, which has no scale")
    for value in (*read, *row.node.outputs):
        q = row.qparams(value)
        if value is not weight and q is not None and (q.axis is not None or q.dtype not in TYPES[row.kind]):
            either = " or ".join(TYPES[row.kind])
            raise row.breach(f": tensor {value.name!r} needs {either} and one scale, axis null")


def _check_fused(row: ExpectedNode) -> None:
    """The bytes that the node before the clip writes saturate where the clip would clip, and nobody else reads them."""
    before, after = row.node.inputs[0], row.node.outputs[0]
    producer = producer_of(before)
    if before is None or producer is None or row.rows[name_of(producer)].kind not in ("int8", "int16"):
        raise row.breach(" is fused, but the node before it is not int8", MAKE_FLOAT)
    if not vanishes(before):
        raise row.breach(f" is fused, but others read {before.name!r} too", MAKE_FLOAT)
    q = row.qparams(after)
    if q is None or not saturates_alike(row.node, q):
        raise row.breach(f" is fused, but the scale of {after.name!r} does not end where it clips", MAKE_FLOAT)


def _check_reinterpreted(row: ExpectedNode) -> None:
    """Arithmetic with one number on bytes, whose result has the scale and zero point that follow from theirs."""
    step = affine_of(row.node)
    if step is None:
        raise row.breach(f" is a {row.node.op_type} and no arithmetic with one number, of positive gain", MAKE_FLOAT)
    before, after = row.qparams(step.value), row.qparams(row.node.outputs[0])
    producer = step.value.producer()
    if before is None or producer is None or row.rows[name_of(producer)].kind in ON_FLOATS or before.dtype == "int16":
        raise row.breach(f" is reinterpreted, but {step.value.name!r} does not exist as bytes", MAKE_FLOAT)
    wanted = follow(before, step.gain, step.offset)
    if after is None or _key(after) != _key(wanted):
        raise row.breach(
            f": tensor {row.node.outputs[0].name!r} needs scale {wanted.scale[0]:.9g} and zero_point "
            f"{wanted.zero_point}, which follow from those of {step.value.name!r}",
            "leave it out of the edit",
        )


def _check_weight_only(row: ExpectedNode) -> None:
    weights = weight_only_inputs(row.node)
    if not weights:
        raise row.breach(" has no weights worth storing as bytes", MAKE_FLOAT)
    for _, value, axis in weights:
        _check_channels(row, value, axis, ("int8", "int16"))


def _check_packed(row: ExpectedNode) -> None:
    """A layer on float activations: an operator that has such a kernel."""
    if reason := why_not_packed(row.node, row.kind):
        raise row.breach(f" is a {row.node.op_type} and cannot be {row.kind!r}: {reason}", MAKE_FLOAT)


def _check_blocks(row: ExpectedNode) -> None:
    for value, _ in packed_weights(row.node):
        q = row.qparams(value)
        if q is None or q.dtype not in ("int4", "int8") or not q.block:
            raise row.breach(f": weight {value.name!r} needs int4 or int8 and a block")


def _check_dynamic(row: ExpectedNode) -> None:
    for value, axis in packed_weights(row.node):
        _check_channels(row, value, axis, ("int8",))


def _check_channels(row: ExpectedNode, value: ir.Value, axis: int, dtypes: tuple[str, ...]) -> None:
    channels, q = shape_of(value)[axis], row.qparams(value)
    fits = q is not None and (q.axis, q.zero_point, len(q.scale)) == (axis, 0, channels) and q.dtype in dtypes
    if not fits:
        either = " or ".join(dtypes)
        raise row.breach(f": weight {value.name!r} needs {either}, axis {axis}, zero_point 0 and {channels} scales")


def _check_pixels(row: ExpectedNode) -> None:
    q, weight = row.qparams(data_inputs(row.node)[0]), weight_of(row.node)
    if q is None or not q.pixels:
        return
    if row.kind != "int8" or weight is None or not may_read_pixels(row.node):
        raise row.breach(
            " cannot read the bytes of a picture: that takes a convolution of at most 3 channels which alone "
            "reads an input of the model",
            "leave pixels out, and give the tensor its scale",
        )
    channels, lowest = shape_of(weight)[1], LIMITS[q.dtype][0]
    if (q.scale, q.zero_point, len(q.pixels)) != ((1.0,), lowest, channels):
        raise row.breach(f" reads pixels, which need scale 1, zero_point {lowest} and {channels} rows")


def _check_equal_scales(row: ExpectedNode) -> None:
    moved = [row.qparams(value) for value in (data_inputs(row.node)[0], *row.node.outputs)]
    if any(q is None or _key(q) != _key(moved[0]) for q in moved):
        raise row.breach(" moves bytes between tensors of different scales, expected equal ones")


def _check_wide_weight(row: ExpectedNode) -> None:
    if (weight := weight_of(row.node)) is not None:
        _check_channels(row, weight, output_axis(row.node), ("int8", "int16"))


def _check_weight(row: ExpectedNode) -> None:
    """A scale per output channel or one for all, and a bias that has the scale of the products."""
    weight, axis = weight_of(row.node), output_axis(row.node)
    if weight is None:
        return
    channels, q = shape_of(weight)[axis], row.qparams(weight)
    scales = ((axis, channels), (None, 1))
    if q is None or (q.dtype, q.zero_point) != ("int8", 0) or (q.axis, len(q.scale)) not in scales:
        raise row.breach(
            f": weight {weight.name!r} needs int8, zero_point 0 and axis {axis} with {channels} scales, "
            "or axis null with one"
        )
    if operator_of(row.node).bias is None:
        return
    product = choose_bias_qparams(row.tensors[name_of(row.node.inputs[0])].scale[0], q)
    bias = row.tensors.get(bias_name(row.node))
    if bias is None or (bias.dtype, bias.scale) != ("int32", product.scale):
        raise row.breach(
            f": the scale of bias {bias_name(row.node)!r} is not input scale x weight scale", "leave it out of the edit"
        )


CHECKS: dict[Kind, tuple[Callable[[ExpectedNode], None], ...]] = {
    "float": (),
    "weight_only": (_check_weight_only,),
    "blockwise": (_check_packed, _check_blocks),
    "dynamic": (_check_packed, _check_dynamic),
    "fused": (_check_role, _check_fused),
    "reinterpreted": (_check_reinterpreted,),
    "passthrough": (_check_role, _check_scales, _check_pixels, _check_equal_scales),
    "int8": (_check_role, _check_scales, _check_pixels, _check_weight),
    "int16": (_check_role, _check_scales, _check_pixels, _check_wide_weight),
}


def _key(q: QParams | None) -> tuple[object, ...] | None:
    return None if q is None else (q.dtype, q.scale, q.zero_point)
