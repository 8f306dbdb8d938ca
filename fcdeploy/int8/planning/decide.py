"""Which nodes become integer kernels: one walk back (what would be read as bytes?), one walk forward (who can write it?)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.graph.nodes import data_inputs, is_constant, name_of, operator_of
from fcdeploy.int8.nodes import affine_of, vanishes, weight_only_inputs
from fcdeploy.int8.planning.eligibility import why_fill_too_far, why_ineligible, why_zero_too_far
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Kind, NodeDecision
from fcdeploy.tables.operators import NO_KERNEL, Operator, Role

FUSED_WITH_GEMM = {
    "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu",
}  # fmt: skip
FLOAT_OUTPUT = {"Gemm", "MatMul"}  # their integer kernels can write float: a last layer is not rounded again


def find_wanted(graph: ir.Graph, kept: Mapping[str, str]) -> set[ir.Value]:
    """The tensors that some layer would read as bytes, directly or through nodes that keep bytes bytes."""
    wants: set[ir.Value] = set()
    for node in reversed(graph):
        row = operator_of(node)
        passes_on = row.role in ("integer", "affine", "passthrough", "clips") and any(
            value in wants for value in node.outputs
        )
        if node.name not in kept and not why_ineligible(node, row) and (row.role == "multiply" or passes_on):
            wants.update(value for value in data_inputs(node) if not is_constant(value))
    return wants


def decide(
    graph: ir.Graph,
    wants: set[ir.Value],
    kept: Mapping[str, str],
    calibration: Calibration,
    exact: Collection[str] = (),
    elsewhere: str = "int8",
    wide: Collection[str] = (),
    *,
    on_bytes: bool = True,
) -> dict[str, NodeDecision]:
    """One decision a node, in the graph's order.

    `kept` are the nodes that stay float, with the reason; of those, the ones in `exact` keep their weights float too.
    The others' weights are kept in the file as `elsewhere`, those of `wide` in 16 bits.
    Integers are bytes, unless `on_bytes` is false: others are not read with a second scale.
    """
    decisions: dict[str, NodeDecision] = {}
    as_bytes: set[ir.Value] = set()  # tensors that exist as bytes
    for node in graph:
        row = operator_of(node)
        inputs = tuple(value for value in data_inputs(node) if not is_constant(value))
        from_bytes, leads_on = not as_bytes.isdisjoint(inputs), not wants.isdisjoint(node.outputs)
        context = NodeContext(node, row, inputs, from_bytes, leads_on, wants, kept, calibration)
        kind, why = (_reinterpret(context) if on_bytes else None) or _decide_node(context)
        if kind == "float" and node.name not in exact and weight_only_inputs(node):
            kept_as = "bytes" if elsewhere == "int8" and node.name not in wide else "16-bit integers"
            kind, why = "weight_only", f"{why}; its weights are kept as {kept_as} in the file"
        decisions[name_of(node)] = NodeDecision(name_of(node), node.op_type, kind, why)
        if (kind == "int8" and writes_bytes(node, wants)) or kind in ("passthrough", "fused", "reinterpreted"):
            as_bytes.update(node.outputs)
    return decisions


def writes_bytes(node: ir.Node, wants: set[ir.Value]) -> bool:
    """Whether an integer kernel's result is rounded to bytes: always, but for dense layers that nothing reads as bytes."""
    return node.op_type not in FLOAT_OUTPUT or node.outputs[0] in wants or _fuses_in_float(node)


def final_value(node: ir.Node, decisions: Mapping[str, NodeDecision]) -> ir.Value:
    """The tensor that an integer kernel writes: behind the clip that its saturation does, if there is one."""
    value = node.outputs[0]
    while True:
        after = [
            user for user in value.consumers() if user.graph is node.graph and decisions[name_of(user)].kind == "fused"
        ]
        if not after:
            return value
        value = after[0].outputs[0]


def _fuses_in_float(node: ir.Node) -> bool:
    """Whether onnxruntime would fuse a Gemm without a QuantizeLinear into one float node with the activation behind it.

    It does so before it looks for integer kernels, unless the activation writes a graph output.
    """
    readers = node.outputs[0].consumers()
    alone = node.op_type == "Gemm" and len(readers) == 1 and readers[0].op_type in FUSED_WITH_GEMM
    return alone and not node.outputs[0].is_graph_output() and not readers[0].outputs[0].is_graph_output()


@dataclass(frozen=True)
class NodeContext:
    """A node, and what of its surroundings decides its kind.

    `inputs` are those that are computed; `from_bytes` says whether one of them exists as bytes, `leads_on` whether a
    result is wanted as bytes.
    """

    node: ir.Node
    row: Operator
    inputs: tuple[ir.Value, ...]
    from_bytes: bool
    leads_on: bool
    wants: set[ir.Value]
    kept: Mapping[str, str]
    calibration: Calibration


def _decide_node(context: NodeContext) -> tuple[Kind, str]:
    """The kind and the reason of one node: the first reason for float, else what its role makes of it."""
    kept = context.kept.get(name_of(context.node))
    if kept is not None:
        return "float", kept
    for why in WHY_FLOAT:
        if reason := why(context):
            return "float", reason
    return BY_ROLE[context.row.role](context)


def _reinterpret(context: NodeContext) -> tuple[Kind, str] | None:
    """Kind and reason of arithmetic with one number on bytes, which is another scale and zero point of theirs."""
    step = affine_of(context.node)
    if step is None or not context.from_bytes or name_of(context.node) in context.kept:
        return None
    if not _has_range(step.value, context.calibration):
        return None
    seen = context.calibration.tensors[name_of(step.value)].histogram
    if why_zero_too_far(step.zero, seen.low, seen.high):
        return None
    return "reinterpreted", "the same bytes, read with another scale and zero point"


def _why_without_kernel(context: NodeContext) -> str:
    return why_ineligible(context.node, context.row)


def _why_without_range(context: NodeContext) -> str:
    seen = [*context.inputs, *context.node.outputs] if context.row.role != "shape" else []
    unseen = [value.name for value in seen if not vanishes(value) and not _has_range(value, context.calibration)]
    return f"tensor {unseen[0]!r} {NO_RANGE}" if unseen else ""


def _why_its_clip_is_float(context: NodeContext) -> str:
    """A kernel's bytes saturate where its clip would clip: where the clip has to stay float, so has the kernel."""
    if context.row.role not in ("multiply", "integer") or not vanishes(context.node.outputs[0]):
        return ""
    clip = context.node.outputs[0].consumers()[0]
    behind = clip.outputs[0]
    unseen = not vanishes(behind) and not _has_range(behind, context.calibration)
    reason = (
        context.kept.get(name_of(clip))
        or why_ineligible(clip, operator_of(clip))
        or (f"what it writes {NO_RANGE}" if unseen else "")
    )
    return f"its clip {clip.name!r} stays float, and bytes would clip already: {reason}" if reason else ""


def _why_its_fill_is_far(context: NodeContext) -> str:
    if context.node.op_type != "Pad" or not context.inputs:
        return ""
    seen = context.calibration.tensors[name_of(context.inputs[0])].histogram
    return why_fill_too_far(context.node, seen.low, seen.high)


WHY_FLOAT = (_why_without_kernel, _why_without_range, _why_its_clip_is_float, _why_its_fill_is_far)


def _decide_multiply(context: NodeContext) -> tuple[Kind, str]:
    if not context.inputs:
        return "float", "all its inputs are constant"
    why = context.row.why
    return "int8", why if writes_bytes(context.node, context.wants) else f"{why}, written as float"


def _decide_integer(context: NodeContext) -> tuple[Kind, str]:
    """Pays between integer kernels only; pools already where their input is bytes, because they write less."""
    if context.from_bytes and (context.row.reduces or context.leads_on):
        return "int8", context.row.why
    what = "its results go only to float nodes and outputs" if context.from_bytes else "its inputs are float already"
    return "float", f"{what}: an integer kernel here would round once more and save nothing"


def _decide_passthrough(context: NodeContext) -> tuple[Kind, str]:
    if context.from_bytes:
        return "passthrough", context.row.why
    if context.inputs and context.leads_on and _all_wanted(context.node, context.wants):
        return "passthrough", f"{context.row.why} that the next layer reads"
    return "float", FLOAT_ALREADY if context.inputs else LOOKED_UP


def _decide_clip(context: NodeContext) -> tuple[Kind, str]:
    """A clip of bytes: fused into the node before it, or, where others read that tensor too, done on the bytes."""
    if not context.from_bytes:
        leads_on = context.inputs and context.leads_on and _all_wanted(context.node, context.wants)
        return "float", "clips floats" if leads_on else FLOAT_ALREADY
    before = context.node.inputs[0]
    assert before is not None
    producer = before.producer()
    if producer is not None and vanishes(before):
        return "fused", f"the saturation of {producer.name!r} does it"
    return "passthrough", "clips bytes"


def _decide_affine(context: NodeContext) -> tuple[Kind, str]:
    """Arithmetic with one number that was not reinterpreted."""
    step = affine_of(context.node)
    if step is None or not context.from_bytes:
        return "float", FLOAT_ALREADY
    seen = context.calibration.tensors[name_of(step.value)].histogram
    return "float", why_zero_too_far(step.zero, seen.low, seen.high) or NO_KERNEL


def _decide_shape(context: NodeContext) -> tuple[Kind, str]:
    return "float", context.row.why


NO_RANGE = "is not a float tensor with finite values in calibration"
FLOAT_ALREADY = "its input is float already"
LOOKED_UP = "reads floats from a constant"
BY_ROLE: dict[Role, Callable[[NodeContext], tuple[Kind, str]]] = {
    "multiply": _decide_multiply,
    "integer": _decide_integer,
    "affine": _decide_affine,
    "passthrough": _decide_passthrough,
    "clips": _decide_clip,
    "shape": _decide_shape,
}


def _all_wanted(node: ir.Node, wants: set[ir.Value]) -> bool:
    return all(value in wants and not value.is_graph_output() for value in node.outputs)


def _has_range(value: ir.Value, calibration: Calibration) -> bool:
    record = calibration.tensors.get(name_of(value))
    if record is None:
        return False
    return record.histogram.ends_only or record.histogram.total > record.histogram.nonfinite == 0
