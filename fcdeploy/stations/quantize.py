"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.correct import correct_biases
from fcdeploy.graph.cpu import target_named
from fcdeploy.graph.kernels import Kernel, kernels_of
from fcdeploy.graph.model import check_output, file_hash, input_specs, read_model, refuse_unsupported, write_model
from fcdeploy.graph.observe import keep_smallest, observe
from fcdeploy.graph.planning import plan_graph
from fcdeploy.graph.planning.check import check_plan
from fcdeploy.graph.planning.weigh import round_layers
from fcdeploy.graph.prepare import prepare
from fcdeploy.graph.rewrite import rewrite
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import plan as plans
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.records.report import Report, Table
from fcdeploy.samples import open_source
from fcdeploy.tables.targets import Target

OnStep = Callable[[str, int, int | None], None]
EFFORTS = ("fast", "balanced")
COUNTED = ("Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "ConvTranspose")


def quantize(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    target: str = "host",
    ranges: str = "mse",
    effort: str = "balanced",
    keep_float: Sequence[str] = (),
    plan: str | Path | None = None,
    dry_run: bool = False,
    samples: int | None = None,
    preprocess: Path | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the int8 form of a float ONNX model and read back which kernels run it.

    Statistics come from `calibration`, or, with `data` alone, from calibrating first.  Bias correction (effort
    `balanced`) runs on samples of `data`, else on those the calibration carries.  `dry_run` only plans.
    Raises FcdeployError.
    """
    begin = time.perf_counter()
    path = Path(model)
    row = target_named(target)
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    _check_arguments(output, data, calibration, ranges, effort, dry_run)
    if output and not dry_run:
        given = [path, *(Path(file) for file in (data, calibration, plan) if file)]
        check_output(Path(output), force=force, inputs=tuple(given))
    prepare(graph)
    recorded, kept = _statistics(graph, path, data, calibration, samples, preprocess, on_step)
    decided = _plan(graph, recorded, row, ranges, keep_float, plan)
    if dry_run:
        return _dry_run(decided, time.perf_counter() - begin)
    warnings = []
    correcting = effort != "fast" and bool(kept)
    if effort != "fast" and not kept:
        warnings.append("bias correction left out: the calibration carries no samples, and there is no --data")
    layers = round_layers(graph, decided, recorded, row.pair_limit, correctable=correcting)
    int8 = graph.clone()
    rewrite(int8, decided, layers)
    if correcting:
        correct_biases(graph, int8, decided, kept, on_step=on_step)
    _sign(int8, recorded, decided, effort)
    out = Path(output or "")
    size = write_model(int8, out, force=force)
    kernels = kernels_of(out)
    return _report(path, out, size, decided, kernels, time.perf_counter() - begin, warnings)


def _check_arguments(
    output: str | Path | None, data: object, calibration: object, ranges: str, effort: str, dry_run: bool
) -> None:
    if data is None and calibration is None:
        raise FcdeployError(
            "there is nothing to take ranges from: neither --data nor --calibration was given",
            "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx",
        )
    if output is None and not dry_run:
        raise FcdeployError("there is no output: -o was not given", "-o int8.onnx, or --dry-run to see the plan")
    for option, value, known in (("--ranges", ranges, METHODS), ("--effort", effort, EFFORTS)):
        if value not in known:
            raise FcdeployError(f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {next(iter(known))}")


def _statistics(
    graph: ir.Model,
    path: Path,
    data: str | Path | None,
    file: str | Path | None,
    samples: int | None,
    preprocess: Path | None,
    on_step: OnStep | None,
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration, and the samples on which tools may run the model."""
    source = None if data is None else open_source(data, input_specs(graph), limit=samples, preprocess=preprocess)
    if file is None:
        assert source is not None
        recorded = observe(graph, source, model_hash=file_hash(path), on_step=on_step)
        return recorded, recorded.kept
    recorded = calibrations.read(Path(file))
    if recorded.model != file_hash(path):
        raise FcdeployError(
            f"calibration {str(file)!r} was made from another model than {str(path)!r}",
            f"fcdeploy calibrate {path} --data DATA -o {file} --force",
        )
    return recorded, recorded.kept if source is None else keep_smallest(source)


def _plan(
    graph: ir.Model,
    recorded: Calibration,
    row: Target,
    ranges: str,
    keep_float: Sequence[str],
    file: str | Path | None,
) -> Plan:
    """The plan as made, or as it stands in a file."""
    if file is None:
        return plan_graph(graph, recorded, row, ranges=ranges, keep_float=keep_float)
    source = f"plan {str(file)!r}"
    if keep_float:
        raise FcdeployError("--keep-float and --plan were both given", 'change "kind" to "float" in the plan instead')
    try:
        data = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise FcdeployError(f"{source} cannot be read as JSON: {error}", plans.HINT) from error
    decided = plans.from_json(data, source)
    if decided.target != row.name:
        raise FcdeployError(f"{source} is for target {decided.target!r}, not {row.name!r}", f"--target {decided.target}")
    check_plan(graph.graph, decided, source)
    return decided


def _sign(int8: ir.Model, recorded: Calibration, decided: Plan, effort: str) -> None:
    """Say in the file what it was made from."""
    int8.producer_name, int8.producer_version = "fcdeploy", __version__
    made = {"float": recorded.model, "data": recorded.data, "target": decided.target, "effort": effort}
    int8.metadata_props["fcdeploy"] = json.dumps(made, separators=(",", ":"))
    for node in int8.graph:
        node.metadata_props.clear()
        node.doc_string = None


def _dry_run(decided: Plan, seconds: float) -> Report:
    """The plan itself."""
    nodes = tuple((d.node, d.op, d.kind, d.why) for d in decided.nodes)
    tensors = tuple(
        (name, q.dtype, f"{min(q.scale):.4g}" + (f" .. {max(q.scale):.4g}" if q.axis is not None else ""),
         str(q.zero_point), q.why)
        for name, q in decided.tensors.items()
    )  # fmt: skip
    tables = (
        Table("nodes", ("node", "operator", "becomes", "why"), nodes),
        Table("tensors", ("tensor", "type", "scale", "zero point", "why"), tensors),
    )
    integer = sum(d.kind != "float" for d in decided.nodes)
    line = f"{integer} of {len(nodes)} nodes on integers for target {decided.target}; nothing was written"
    values = {"plan": plans.to_json(decided), "seconds": round(seconds, 3), "output": None}
    return Report("quantize", values, tables, (line,))


def _report(
    path: Path, out: Path, size: int, decided: Plan, kernels: tuple[Kernel, ...], seconds: float, warnings: list[str]
) -> Report:
    """What was written, and which kernel runs each node."""
    planned = {d.node: d for d in decided.nodes}
    float_nodes = [
        {"node": k.node, "op": k.op, "why": planned[k.node].why if k.node in planned else k.note or "not in the plan"}
        for k in kernels
        if not k.integer and k.note == ""
    ]
    for k in kernels:
        if not k.integer and k.node in planned and planned[k.node].kind == "int8":
            warnings.append(f"{k.op} {k.node!r} was planned as int8, but onnxruntime runs it as {k.kernel}")
    bytes_float = path.stat().st_size
    int8_nodes = [{"node": k.node, "op": k.op, "kernel": k.kernel} for k in kernels if k.integer]
    counts = []
    for op in COUNTED:
        all_of = [k for k in kernels if k.op == op]
        if all_of:
            counts.append(f"{sum(k.integer for k in all_of)} of {len(all_of)} {op}")
    table = Table("left in float", ("node", "operator", "why"), tuple((n["node"], n["op"], n["why"]) for n in float_nodes))
    lines = (
        f"{', '.join(counts) or 'no layer'} in integer kernels",
        f"{bytes_float:,} bytes -> {size:,} bytes ({size / bytes_float:.2f} of float), target {decided.target}, {seconds:.1f} s",
        f"next: fcdeploy validate {out} --against {path} --data EVALUATION",
    )
    values = {
        "nodes_int8": int8_nodes, "nodes_float": float_nodes, "bytes_float": bytes_float, "bytes_int8": size,
        "seconds": round(seconds, 3), "output": str(out), "target": decided.target,
    }  # fmt: skip
    return Report("quantize", values, (table,) if float_nodes else (), lines, warnings=tuple(warnings))
