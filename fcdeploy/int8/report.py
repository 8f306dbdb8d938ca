"""What quantizing came to, for programs and for readers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.graph.edit import Changes
from fcdeploy.graph.opset import described, oldest_of_own
from fcdeploy.int8.timing.costs import CostBasis, describe_times
from fcdeploy.prepare.cost_model import DATA_AND_WEIGHT
from fcdeploy.records import plan as plans
from fcdeploy.records.plan import Decision, Plan, QParams
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.caveats import list_caveats
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.kernels import Kernel
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import TYPES

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", "LSTM")
COUNTED = (
    "Conv",
    "Gemm",
    "MatMul",
    "LSTM",
    "Add",
    "Mul",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "ConvTranspose",
)


@dataclass(frozen=True)
class QuantizeResult:
    """What was decided, by which costs, the kernels it led to, the multiplications of each node, and bytes on disk.

    `tried` says between what effort `best` chose.
    """

    plan: Plan
    spent: CostBasis
    kernels: tuple[Kernel, ...]
    macs: Mapping[str, int]
    bytes_float: int
    bytes_int8: int
    tried: str = ""

    @property
    def share(self) -> float | None:
        """Of the multiplications, how many are done by integer kernels; None where some depend on an axis of any length."""
        if any(kernel.op in DATA_AND_WEIGHT and kernel.node not in self.macs for kernel in self.kernels):
            return None
        integer = sum(self.macs.get(kernel.node, 0) for kernel in self.kernels if kernel.integer)
        return integer / max(sum(self.macs.values()), 1)


def build_report(
    path: Path, out: Path, int8: ir.Model, outcome: QuantizeResult, begin: float, warnings: list[str]
) -> Report:
    """What was written, and which kernel runs each node."""
    decided, spent, kernels = outcome.plan, outcome.spent, outcome.kernels
    costs = spent.costs
    final = costs.confirmed[-1] if costs and costs.confirmed else None
    planned = {d.node: d for d in decided.nodes}
    between = TYPES[decided.weights, decided.activations].between
    float_nodes = [
        {"node": k.node, "op": planned[k.node].op, "why": planned[k.node].why}
        for k in kernels
        if not k.integer
        and k.node in planned
        and (planned[k.node].op in LAYERS or (between and k.kernel != "-"))  # all others stay float by request
    ]
    missed = [k for k in kernels if not k.integer and k.node in planned and planned[k.node].kind == "int8"]
    if missed and TARGETS[decided.target].activations != detect_target().activations:
        warnings.append(
            f"kernels were read back on this CPU, which runs {detect_target().activations}; {decided.target} differs"
        )
    else:
        warnings += [f"{k.op} {k.node!r} was planned as int8, but onnxruntime runs it as {k.kernel}" for k in missed]
    bytes_float, size = outcome.bytes_float, outcome.bytes_int8
    seconds = time.perf_counter() - begin
    int8_nodes = [{"node": k.node, "op": k.op, "kernel": k.kernel} for k in kernels if k.integer]
    counts = []
    for op in COUNTED:
        all_of = [k for k in kernels if _planned_op(k, planned) == op and (k.kernel != "-" or op in LAYERS)]
        if all_of:
            counts.append(f"{sum(k.integer for k in all_of)} of {len(all_of)} {op}")
    table = Table(
        "left in float", ("node", "operator", "why"), tuple((n["node"], n["op"], n["why"]) for n in float_nodes)
    )
    lines = (
        *describe_times(spent),
        *([outcome.tried] if outcome.tried else []),
        *_describe_image_inputs(decided),
        f"{', '.join(counts) or 'no layer'} in integer kernels, {_format_share(outcome.share)}",
        *list_caveats(int8),
        f"{bytes_float:,} bytes -> {size:,} bytes ({size / bytes_float:.2f} of float), target {decided.target}, {seconds:.1f} s",
        described(int8.opset_imports[""], int8.ir_version, oldest_of_own(int8)),
        f"next: fcdeploy validate {out} --against {path} --data EVALUATION",
    )
    values = {
        "nodes_int8": int8_nodes, "nodes_float": float_nodes, "bytes_float": bytes_float, "bytes_int8": size,
        "seconds": round(seconds, 3), "output": str(out), "target": decided.target,
        "weights": decided.weights, "activations": decided.activations,
        "costs": None if costs is None else {"source": costs.source, "hash": costs.hash, "measured_before": spent.before},
        "integer_share": outcome.share, "opset": int8.opset_imports[""], "ir_version": int8.ir_version,
        "ratio": final and final.ratio, "ratio_low": final and final.low, "ratio_high": final and final.high,
    }  # fmt: skip
    return Report("quantize", values, (table,) if float_nodes else (), lines, warnings=tuple(warnings))


def _describe_image_inputs(decided: Plan) -> list[str]:
    found = [repr(name) for name, q in decided.tensors.items() if q.pixels]
    return [f"input {', '.join(found)} holds pictures: their bytes are read as they are"] if found else []


def _format_share(share: float | None) -> str:
    if share is None:
        return "how many of the multiplications is unknown: they depend on an axis of any length"
    return f"{100 * share:.0f} % of the multiplications"


def _format_scales(q: QParams) -> str:
    if q.block:
        return f"in blocks of {q.block}"
    return f"{min(q.scale):.4g}" + (f" .. {max(q.scale):.4g}" if q.axis is not None else "")


def _planned_op(kernel: Kernel, planned: Mapping[str, Decision]) -> str:
    """The operator of the float model that a node stands for."""
    return planned[kernel.node].op if kernel.node in planned else kernel.op


def build_dry_run_report(changes: Sequence[Changes], decided: Plan, spent: CostBasis, seconds: float) -> Report:
    """What preparing did and declined, and the plan itself."""
    passes = [change for change in changes if change.count or change.declined]
    nodes = tuple((d.node, d.op, d.kind, d.why) for d in decided.nodes)
    tensors = tuple((name, q.dtype, _format_scales(q), str(q.zero_point), q.why) for name, q in decided.tensors.items())
    tables = (
        Table(
            "prepared",
            ("pass", "changes", "declined"),
            tuple((change.name, str(change.count), "; ".join(change.declined)) for change in passes),
        ),
        Table("nodes", ("node", "operator", "becomes", "why"), nodes),
        Table("tensors", ("tensor", "type", "scale", "zero point", "why"), tensors),
    )
    integer = sum(d.kind != "float" for d in decided.nodes)
    line = f"{integer} of {len(nodes)} nodes on integers for target {decided.target}; nothing was written"
    prepared = [{"pass": c.name, "changes": c.count, "declined": list(c.declined)} for c in passes]
    values = {"plan": plans.to_json(decided), "prepared": prepared, "seconds": round(seconds, 3), "output": None}
    return Report("quantize", values, tables, (*describe_times(spent), line), warnings=spent.warnings)
