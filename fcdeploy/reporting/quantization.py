"""What quantizing came to, for programs and for readers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.graph.edit import Changes
from fcdeploy.graph.opset import describe_requirements, oldest_runtime
from fcdeploy.int8.timing.costs import CostBasis
from fcdeploy.prepare.cost_model import DATA_AND_WEIGHT, weight_bytes
from fcdeploy.records import plan as plans
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.records.report import NAMES, Report, Table, find_repeats, merge_alike
from fcdeploy.reporting.times import add_figures, describe_times, list_ratios
from fcdeploy.runtime.caveats import list_caveats
from fcdeploy.runtime.kernels import Kernel
from fcdeploy.tables.devices import Device
from fcdeploy.tables.types import TYPES
from fcdeploy.wording import say_count

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LSTM")
ALIKE = 3  # rows of one operator and one reason that are shown
COUNTED = (
    "Conv", "Gemm", "MatMul", "LSTM", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "ConvTranspose",
)  # fmt: skip


@dataclass(frozen=True)
class QuantizationOutcome:
    """What was decided, by which costs, the kernels it led to, the multiplications of each node, and bytes on disk.

    `tried` says between what effort `best` chose; `purpose` what the file is for, and `following` which command comes next.
    `timed`: the times of `basis` are those of what was written.
    """

    plan: Plan
    basis: CostBasis
    kernels: tuple[Kernel, ...]
    macs: Mapping[str, int]
    bytes_float: int
    bytes_int8: int
    tried: str
    purpose: str
    following: str
    timed: bool
    shapes_only: Collection[str]

    @property
    def share(self) -> float | None:
        """Of the multiplications, how many are done by integer kernels; None where some depend on an axis of any length."""
        if any(kernel.op in DATA_AND_WEIGHT and kernel.node not in self.macs for kernel in self.kernels):
            return None
        integer = sum(self.macs.get(kernel.node, 0) for kernel in self.kernels if kernel.integer)
        return integer / max(sum(self.macs.values()), 1)


def build_report(
    out: Path, int8: ir.Model, result: QuantizationOutcome, begin: float, warnings: Sequence[str]
) -> Report:
    """What was written, and which kernel runs each node."""
    plan, basis = result.plan, result.basis
    left = _list_float_nodes(result)
    rows = tuple((node["node"], node["op"], node["why"]) for node in left)
    repeats = find_repeats(((op, NAMES.sub("", why)) for _, op, why in rows), ALIKE)
    minor = repeats | {index for index, node in enumerate(left) if node["node"] in result.shapes_only}
    tables = (Table("left in float", ("node", "operator", "why"), rows, minor),) if left else ()
    seconds = time.perf_counter() - begin
    ratio = result.bytes_int8 / result.bytes_float
    lines = (
        *(describe_times(basis) if result.timed else ()),
        *([result.tried] if result.tried else []),
        *_describe_image_inputs(plan),
        f"{_count_integer_kernels(result)} in integer kernels, {_format_share(result.share)}",
        *list_caveats(int8),
        f"{result.bytes_float:,} bytes -> {result.bytes_int8:,} bytes ({ratio:.2f} of float), {result.purpose}, "
        f"{seconds:.1f} s",
        describe_requirements(int8.opset_imports[""], int8.ir_version, oldest_runtime(int8)),
        result.following,
    )
    costs = basis.costs
    final = costs.confirmed[-1] if costs and costs.confirmed else None
    values = {
        "nodes_int8": [{"node": k.node, "op": k.op, "kernel": k.kernel} for k in result.kernels if k.integer],
        "nodes_float": left, "bytes_float": result.bytes_float, "bytes_int8": result.bytes_int8,
        "weight_bytes": weight_bytes(int8),
        "seconds": round(seconds, 3), "output": str(out), "target": plan.target,
        "weights": plan.weights, "activations": plan.activations,
        "costs": None if costs is None else {"source": costs.source, "hash": costs.hash, "measured_before": basis.before},
        "integer_share": result.share, "opset": int8.opset_imports[""], "ir_version": int8.ir_version,
        **list_ratios(final),
    }  # fmt: skip
    return Report("quantize", values, tables, lines, warnings=(*warnings, *_warn_missed_kernels(result)))


def describe_purpose(plan: Plan, *, native: bool, device: Device | None) -> str:
    """What a file is for."""
    if device is not None:
        return f"for native code on {device.name}"
    return "for native code" if native else f"target {plan.target}"


def _list_float_nodes(result: QuantizationOutcome) -> list[dict[str, str]]:
    """Nodes that a reader expects in integers and that run in float: layers, and what lies between integer kernels."""
    decisions = {decision.node: decision for decision in result.plan.nodes}
    between = TYPES[result.plan.weights, result.plan.activations].between
    in_float = [(decisions[k.node], k.kernel) for k in result.kernels if not k.integer and k.node in decisions]
    return [
        {"node": decision.node, "op": decision.op, "why": add_figures(result.basis.costs, decision)}
        for decision, kernel in in_float
        if decision.op in LAYERS or (between and kernel != "-")  # all others stay float by request
    ]


def _warn_missed_kernels(result: QuantizationOutcome) -> list[str]:
    """What was planned as int8 and does not run so here, which on the CPU of the target it may; or that nothing was."""
    plan = result.plan
    if not plan.tensors:
        return ["nothing was quantized: every node stays as it was in float"]
    missed = [k for k in result.kernels if not k.integer and plan.kinds.get(k.node) == "int8"]
    return [f"{k.op} {k.node!r} was planned as int8, but onnxruntime runs it as {k.kernel}" for k in missed]


def _count_integer_kernels(result: QuantizationOutcome) -> str:
    """How many nodes of each counted operator integer kernels run, by the operators of the float model."""
    operators = {decision.node: decision.op for decision in result.plan.nodes}
    counts = []
    for op in COUNTED:
        kernels = [k for k in result.kernels if operators.get(k.node, k.op) == op and (k.kernel != "-" or op in LAYERS)]
        if kernels:
            counts.append(f"{sum(k.integer for k in kernels)} of {len(kernels)} {op}")
    return ", ".join(counts) or "no layer"


def _describe_image_inputs(decided: Plan) -> list[str]:
    names = [repr(name) for name, q in decided.tensors.items() if q.pixels]
    return [f"input {', '.join(names)} holds pictures: their bytes are read as they are"] if names else []


def _format_share(share: float | None) -> str:
    if share is None:
        return "how many of the multiplications is unknown: they depend on an axis of any length"
    return f"{100 * share:.0f} % of the multiplications"


def _format_scales(q: QParams) -> str:
    if q.block:
        return f"in blocks of {q.block}"
    return f"{min(q.scale):.4g}" + (f" .. {max(q.scale):.4g}" if q.axis is not None else "")


def build_dry_run_report(
    changes: Sequence[Changes],
    decided: Plan,
    basis: CostBasis,
    shapes_only: Collection[str],
    seconds: float,
    *,
    timed: bool,
) -> Report:
    """What preparing did and declined, and the plan itself; rows of nodes that are `shapes_only` are of less interest.

    `timed`: the times of `basis` are those of this plan.
    """
    passes = [change for change in changes if change.count or change.declined]
    nodes = tuple((d.node, d.op, d.kind, d.why) for d in decided.nodes)
    tensors = tuple((name, q.dtype, _format_scales(q), str(q.zero_point), q.why) for name, q in decided.tensors.items())
    minor = frozenset(index for index, decision in enumerate(decided.nodes) if decision.node in shapes_only)
    tables = (
        Table(
            "prepared",
            ("pass", "changes", "declined"),
            tuple((change.name, str(change.count), "; ".join(merge_alike(change.declined))) for change in passes),
        ),
        Table("nodes", ("node", "operator", "becomes", "why"), nodes, minor),
        Table("tensors", ("tensor", "type", "scale", "zero point", "why"), tensors),
    )
    integer = sum(d.kind != "float" for d in decided.nodes)
    line = f"{integer} of {say_count(len(nodes), 'node')} on integers for target {decided.target}; nothing was written"
    prepared = [{"pass": c.name, "changes": c.count, "declined": list(c.declined)} for c in passes]
    values = {"plan": plans.to_json(decided), "prepared": prepared, "seconds": round(seconds, 3), "output": None}
    return Report(
        "quantize", values, tables, (*(describe_times(basis) if timed else ()), line), warnings=basis.warnings
    )
