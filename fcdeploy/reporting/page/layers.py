"""A row for every node that computes: what its kernel, costs, plan and reports say of it, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.graph.nodes import array_of, input_of, name_of
from fcdeploy.prepare.cost_model import LayerCost
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import LIMITS
from fcdeploy.reporting.page.subject import Subject

HIDDEN = ("QuantizeLinear", "DequantizeLinear", "Identity", "Constant")


@dataclass(frozen=True)
class LayerRow:
    """One node of the int8 model. Times are in microseconds, ends in the output's unit; None where it is not known.

    `inputs` are the nodes that it reads from, through Q/DQ pairs.
    """

    node: str
    op: str
    kernel: str
    integer: bool
    why: str
    inputs: tuple[str, ...]
    macs: int | None
    weight_bytes: int
    activation_bytes: int | None
    histogram: Histogram | None
    ends: tuple[float, float] | None
    sqnr_db: float | None
    fall_db: float | None
    float_us: float | None
    int8_us: float | None


def list_layers(subject: Subject) -> list[LayerRow]:
    """In the order of the file."""
    costs: dict[str, LayerCost] = {row.node: row for row in subject.costs}
    kernels = {row.node: row for row in subject.kernels}
    reasons = _collect_reasons(subject)
    errors = {row["node"]: row for row in subject.reports.get("validate", {}).get("layers", [])}
    per_node = subject.reports.get("bench", {}).get("per_node") or {}
    timed = {row["node"]: row for row in per_node.get("matched", [])}
    alone = {row["node"]: row for row in per_node.get("int8_only", [])}
    seen = subject.calibration.tensors if subject.calibration else {}

    rows = []
    for node in subject.model.graph:
        name = name_of(node)
        kernel, cost = kernels.get(name), costs.get(name)
        if node.op_type in HIDDEN or kernel is None or (cost is not None and cost.shapes_only):
            continue
        error, time, record = errors.get(name, {}), timed.get(name, {}), seen.get(name_of(node.outputs[0]))
        rows.append(
            LayerRow(
                name, node.op_type, kernel.kernel, kernel.integer, reasons.get(name, "") or kernel.note,
                tuple(_find_sources(node)), cost.macs if cost else None, cost.weight_bytes if cost else 0,
                cost.activation_bytes if cost else None, record.histogram if record else None, find_ends(node.outputs[0]),
                error.get("sqnr_db"), error.get("fall_db"), time.get("float_us"),
                time.get("int8_us", alone.get(name, {}).get("us")),
            )
        )  # fmt: skip
    return rows


def _collect_reasons(subject: Subject) -> dict[str, str]:
    """Node -> why it computes as it does: in the plan's words, else in those of the report of `quantize`."""
    reasons = {row["node"]: row["why"] for row in subject.reports.get("quantize", {}).get("nodes_float", [])}
    return reasons | ({row.node: row.why for row in subject.plan.nodes} if subject.plan else {})


def find_ends(value: ir.Value) -> tuple[float, float] | None:
    """The least and the largest number that the integers of a quantized tensor can say; of several scales the widest."""
    for node in value.consumers():
        if node.op_type == "QuantizeLinear":
            scale, zero = array_of(input_of(node, 1)), array_of(input_of(node, 2))
            if scale is None or zero is None or str(zero.dtype) not in LIMITS:
                return None
            low, high = LIMITS[str(zero.dtype)]
            widest, first = float(scale.max()), int(zero.ravel()[0])
            return widest * (low - first), widest * (high - first)
    return None


def _find_sources(node: ir.Node) -> list[str]:
    """The nodes that compute its inputs, Q/DQ pairs left out; inputs of the graph by their names."""
    sources = []
    for value in node.inputs:
        while value is not None and (producer := value.producer()) is not None and producer.op_type in HIDDEN:
            value = input_of(producer, 0)
        if value is None or value.const_value is not None:
            continue
        producer = value.producer()
        sources.append(name_of(producer) if producer is not None else name_of(value))
    return list(dict.fromkeys(sources))
