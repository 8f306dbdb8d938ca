"""Which nodes become integer kernels: one walk back (what would be read as bytes?), one walk forward (who can write it?)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from fcdeploy.graph.nodes import data_inputs, is_constant, name_of, operator_of
from fcdeploy.int8.nodes import vanishes, weight_only_inputs
from fcdeploy.int8.planning.eligibility import why_fill_too_far, why_ineligible
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Decision
from fcdeploy.tables.operators import Operator

FUSED_WITH_GEMM = {
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu",
}  # fmt: skip
FLOAT_OUTPUT = {"Gemm", "MatMul"}  # their integer kernels can write float: a last layer is not rounded again


def find_wanted(graph: ir.Graph, kept: Mapping[str, str]) -> set[ir.Value]:
    """The tensors that some layer would read as bytes, directly or through nodes that keep bytes bytes."""
    wants: set[ir.Value] = set()
    for node in reversed(graph):
        row = operator_of(node)
        passes_on = row.role in ("integer", "passthrough", "clips") and any(value in wants for value in node.outputs)
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
) -> dict[str, Decision]:
    """One decision a node, in the graph's order.

    `kept` are the nodes that stay float, with the reason; of those, the ones in `exact` keep their weights float too.
    The others' weights are kept in the file as `elsewhere`, those of `wide` in 16 bits.
    """
    decisions: dict[str, Decision] = {}
    as_bytes: set[ir.Value] = set()  # tensors that exist as bytes
    for node in graph:
        row = operator_of(node)
        kind, why = _decision(node, row, wants, as_bytes, kept, calibration)
        if kind == "float" and node.name not in exact and weight_only_inputs(node):
            kept_as = "bytes" if elsewhere == "int8" and node.name not in wide else "16-bit integers"
            kind, why = "weight_only", f"{why}; its weights are kept as {kept_as} in the file"
        decisions[name_of(node)] = Decision(name_of(node), node.op_type, kind, why)  # type: ignore[arg-type]
        if (kind == "int8" and writes_bytes(node, wants)) or kind in ("passthrough", "fused"):
            as_bytes.update(node.outputs)
    return decisions


def writes_bytes(node: ir.Node, wants: set[ir.Value]) -> bool:
    """Whether an integer kernel's result is rounded to bytes: always, but for dense layers that nothing reads as bytes."""
    return node.op_type not in FLOAT_OUTPUT or node.outputs[0] in wants or _fuses_in_float(node)


def _fuses_in_float(node: ir.Node) -> bool:
    """Whether onnxruntime would fuse a Gemm without a QuantizeLinear into one float node with the activation behind it.

    It does so before it looks for integer kernels, unless the activation writes a graph output.
    """
    readers = node.outputs[0].consumers()
    alone = node.op_type == "Gemm" and len(readers) == 1 and readers[0].op_type in FUSED_WITH_GEMM
    return alone and not node.outputs[0].is_graph_output() and not readers[0].outputs[0].is_graph_output()


def _decision(
    node: ir.Node,
    row: Operator,
    wants: set[ir.Value],
    as_bytes: set[ir.Value],
    kept: Mapping[str, str],
    calibration: Calibration,
) -> tuple[str, str]:
    """The kind and the reason of one node."""
    name = name_of(node)
    if name in kept:
        return "float", kept[name]
    if reason := why_ineligible(node, row):
        return "float", reason
    inputs = [value for value in data_inputs(node) if not is_constant(value)]
    seen = [*inputs, *node.outputs] if row.role != "shape" else []
    if unseen := [value.name for value in seen if not vanishes(value) and not _has_range(value, calibration)]:
        return "float", f"tensor {unseen[0]!r} is not a float tensor with finite values in calibration"
    if row.role in ("multiply", "integer") and vanishes(node.outputs[0]):
        clip = node.outputs[0].consumers()[0]
        if reason := kept.get(name_of(clip)) or why_ineligible(clip, operator_of(clip)):
            return "float", f"its clip {clip.name!r} stays float, and bytes would clip already: {reason}"
    if node.op_type == "Pad" and inputs:
        seen_of = calibration.tensors[name_of(inputs[0])].histogram
        if reason := why_fill_too_far(node, seen_of.low, seen_of.high):
            return "float", reason
    if row.role == "multiply":
        if not inputs:
            return "float", "all its inputs are constant"
        return "int8", row.why if writes_bytes(node, wants) else f"{row.why}, written as float"
    from_bytes = [value for value in inputs if value in as_bytes]
    leads_on = any(value in wants for value in node.outputs)
    if row.role == "integer":
        if from_bytes and (row.reduces or leads_on):
            return "int8", row.why
        what = "its results go only to float nodes and outputs" if from_bytes else "its inputs are float already"
        return "float", f"{what}: an integer kernel here would round once more and save nothing"
    if row.role == "clips" and from_bytes:
        return _decide_clip(node)
    if row.role in ("passthrough", "clips") and not from_bytes and inputs and leads_on and _all_wanted(node, wants):
        return (
            ("passthrough", f"{row.why} that the next layer reads")
            if row.role == "passthrough"
            else ("float", "clips floats")
        )
    if row.role in ("passthrough", "shape") and from_bytes:
        return ("passthrough", row.why) if row.role == "passthrough" else ("float", row.why)
    return "float", "its input is float already" if row.role != "shape" else row.why


def _all_wanted(node: ir.Node, wants: set[ir.Value]) -> bool:
    return all(value in wants and not value.is_graph_output() for value in node.outputs)


def _decide_clip(node: ir.Node) -> tuple[str, str]:
    """A clip of bytes: fused into the node before it, or, where others read that tensor too, done on the bytes."""
    before = node.inputs[0]
    assert before is not None
    producer = before.producer()
    if producer is not None and vanishes(before):
        return "fused", f"the saturation of {producer.name!r} does it"
    return "passthrough", "clips bytes"


def _has_range(value: ir.Value, calibration: Calibration) -> bool:
    record = calibration.tensors.get(name_of(value))
    if record is None:
        return False
    return record.histogram.ends_only or record.histogram.total > record.histogram.nonfinite == 0
