"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import (
    check_output,
    file_hash,
    input_specs,
    read_model,
    refuse_unsupported,
    replacing,
    write_model,
)
from fcdeploy.graph.opset import described, lower_opset, lowest_ir_version, lowest_opset
from fcdeploy.int8.correct import correct_biases
from fcdeploy.int8.fastest import best_trial, measured, slow_by
from fcdeploy.int8.observe import keep_smallest, observe
from fcdeploy.int8.planning import plan_graph
from fcdeploy.int8.planning.check import check_plan
from fcdeploy.int8.planning.table import costs_from_table
from fcdeploy.int8.planning.weigh import round_layers, with_bias_scales
from fcdeploy.int8.rewrite import rewrite
from fcdeploy.prepare import prepare
from fcdeploy.prepare.changes import Changes
from fcdeploy.prepare.work import multiplications_of
from fcdeploy.proof.exact import with_ties
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import costs as costing
from fcdeploy.records import plan as plans
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.costs import Costs
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.cpu import cpu_name, detect, target_named
from fcdeploy.runtime.kernels import Kernel, kernels_of
from fcdeploy.runtime.session import Session, versions
from fcdeploy.samples import open_source
from fcdeploy.tables.targets import TARGETS, Target

EFFORTS = ("fast", "balanced")
MEASURE = "measure"
LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
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
    costs: str | Path | None = None,
    dry_run: bool = False,
    samples: int | None = None,
    preprocess: Path | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the int8 form of a float ONNX model and read back which kernels run it.

    Statistics come from `calibration`, or, with `data` alone, from calibrating first.  Bias correction (effort
    `balanced`) runs on samples of `data`, else on those the calibration carries.  Nodes that would be slower as
    integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table", or "none" to
    take every integer kernel there is; measured unless given, but for effort `fast` and targets that are not this CPU.
    `dry_run` only plans.  Raises FcdeployError.
    """
    begin = time.perf_counter()
    path = Path(model)
    row = target_named(target)
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    _check_arguments(output, data, calibration, ranges, effort, dry_run)
    if output and not dry_run:
        files = [path, *(Path(file) for file in (data, calibration, plan, costs) if file)]
        check_output(Path(output), force=force, inputs=tuple(files))
    changes = prepare(graph)
    recorded, kept = _statistics(graph, path, data, calibration, samples, preprocess, on_step)
    start = Given(graph, recorded, kept, row, ranges, tuple(keep_float))
    decided, spent = _plan(start, plan, _costs_asked(costs, effort, target, row), on_step)
    macs = multiplications_of(graph)
    if dry_run:
        return _dry_run(changes, decided, spent, time.perf_counter() - begin)
    int8, warnings = _int8(start, decided, effort, on_step)
    out = Path(output or "")
    with replacing(out, force=force) as aside:  # a file that the runtime would not load is never put in place
        write_model(int8, aside, force=True)
        Session(aside, threads=1)
        kernels = kernels_of(aside)
    report = _report(path, out, int8, Outcome(decided, spent, kernels, macs), begin, warnings)
    return with_ties(report, out, kept) if row.name == "portable" else report


@dataclass(frozen=True)
class Given:
    """What planning starts from: the prepared model, its statistics, and what the user asked for."""

    graph: ir.Model
    recorded: Calibration
    samples: dict[str, Any]
    row: Target
    ranges: str
    keep_float: tuple[str, ...]

    def plan(self, slow: Mapping[str, str]) -> Plan:
        """The plan that leaves the nodes of `slow` in float."""
        return plan_graph(
            self.graph, self.recorded, self.row, ranges=self.ranges, keep_float=self.keep_float, slow=slow
        )

    def build(self, plan: Plan, *, correctable: bool = False) -> ir.Model:
        """The int8 model of a plan, biases not corrected."""
        layers = round_layers(self.graph, plan, self.recorded, self.row.pair_limit, correctable=correctable)
        int8 = self.graph.clone()
        rewrite(int8, plan, layers)
        return int8


def _int8(given: Given, decided: Plan, effort: str, on_step: OnStep | None) -> tuple[ir.Model, list[str]]:
    """The finished int8 model, and warnings."""
    warnings = []
    correcting = effort != "fast" and bool(given.samples)
    if effort != "fast" and not given.samples:
        warnings.append("bias correction left out: the calibration carries no samples, and there is no --data")
    int8 = given.build(decided, correctable=correcting)
    if correcting:
        correct_biases(given.graph, int8, decided, given.samples, on_step=on_step)
    _sign(int8, given.recorded, decided, effort)
    return int8, warnings


def _costs_asked(costs: str | Path | None, effort: str, target: str, row: Target) -> str | Path:
    """Where costs come from: what was asked, else measured where the target is this CPU, else the table."""
    if costs is not None:
        return costs
    here = target in ("host", "portable") or row.name in (detect().name, target_named("host").name)
    return MEASURE if effort != "fast" and here else "table"


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
            raise FcdeployError(
                f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {next(iter(known))}"
            )


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
    given: Given, file: str | Path | None, costs: str | Path, on_step: OnStep | None
) -> tuple[Plan, Costs | None]:
    """The plan as made, with the costs it rests on, or as it stands in a file."""
    if file is None:
        everything = given.plan({})
        spent = _costs(given, everything, costs, on_step)
        if spent is None:
            return everything, None
        slow = slow_by(given.graph, everything, given.recorded, spent)
        return replace(given.plan(slow) if slow else everything, costs=spent.hash), spent
    source = f"plan {str(file)!r}"
    if given.keep_float:
        raise FcdeployError("--keep-float and --plan were both given", 'change "kind" to "float" in the plan instead')
    if not Path(file).is_file():
        raise FcdeployError(f"{source} does not exist", plans.HINT)
    try:
        data = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise FcdeployError(f"{source} cannot be read as JSON: {error}", plans.HINT) from error
    decided = with_bias_scales(given.graph, plans.from_json(data, source))
    if decided.target != given.row.name:
        raise FcdeployError(
            f"{source} is for target {decided.target!r}, not {given.row.name!r}", f"--target {decided.target}"
        )
    check_plan(given.graph.graph, decided, source)
    return _with_reasons(decided, given.plan({})), None


def _with_reasons(edited: Plan, made: Plan) -> Plan:
    """The edited plan, in which a node that became something else no longer gives the old reason."""
    before = {decision.node: decision for decision in made.nodes}
    nodes = [
        replace(d, why=f"{d.kind} by the plan") if d.kind != before[d.node].kind and d.why == before[d.node].why else d
        for d in edited.nodes
    ]
    return replace(edited, nodes=tuple(nodes))


def _costs(given: Given, plan: Plan, asked: str | Path, on_step: OnStep | None) -> Costs | None:
    """The costs asked for; a file that does not exist is measured and written."""
    model = given.recorded.model
    if asked == "none":
        return None
    if asked == "table":
        return costs_from_table(given.graph, model)
    file = Path(asked)
    if asked != MEASURE and file.exists():
        found = costing.from_text(file.read_text(errors="replace"), f"costs {str(file)!r}")
        if found.model != model:
            raise FcdeployError(f"costs {str(file)!r} are those of another model", "give a new file name to measure")
        return found
    if not given.samples:
        return costs_from_table(given.graph, model)
    feeds = {name: array[:1] for name, array in given.samples.items()}
    source = f"{cpu_name()}, onnxruntime {versions()['onnxruntime']}"
    found = measured(
        given.graph,
        plan,
        given.recorded,
        lambda slow: given.build(given.plan(slow)),
        feeds,
        source=source,
        on_step=on_step,
    )
    if asked != MEASURE:
        with replacing(file) as aside:
            aside.write_text(costing.to_text(found))
    return found


def _sign(int8: ir.Model, recorded: Calibration, decided: Plan, effort: str) -> None:
    """Say in the file what it was made from, in the lowest opset and IR version that can say it."""
    opset, _ = lowest_opset(int8)
    lower_opset(int8, opset)
    int8.ir_version = lowest_ir_version(int8)
    int8.producer_name, int8.producer_version = "fcdeploy", __version__
    made = {"float": recorded.model, "data": recorded.data, "target": decided.target, "effort": effort}
    int8.metadata_props["fcdeploy"] = json.dumps(made, separators=(",", ":"))
    for node in int8.graph:
        node.metadata_props.clear()
        node.doc_string = None


def _dry_run(changes: Sequence[Changes], decided: Plan, spent: Costs | None, seconds: float) -> Report:
    """What preparing did and declined, and the plan itself."""
    passes = [change for change in changes if change.count or change.declined]
    nodes = tuple((d.node, d.op, d.kind, d.why) for d in decided.nodes)
    tensors = tuple(
        (name, q.dtype, f"{min(q.scale):.4g}" + (f" .. {max(q.scale):.4g}" if q.axis is not None else ""),
         str(q.zero_point), q.why)
        for name, q in decided.tensors.items()
    )  # fmt: skip
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
    return Report("quantize", values, tables, (*_time_lines(spent), line))


@dataclass(frozen=True)
class Outcome:
    """What was decided, by which costs, the kernels it led to, and the multiplications of each node."""

    plan: Plan
    costs: Costs | None
    kernels: tuple[Kernel, ...]
    macs: Mapping[str, int]

    @property
    def share(self) -> float:
        """Of the multiplications, how many are done by integer kernels."""
        integer = sum(self.macs.get(kernel.node, 0) for kernel in self.kernels if kernel.integer)
        return integer / max(sum(self.macs.values()), 1)


def _report(path: Path, out: Path, int8: ir.Model, outcome: Outcome, begin: float, warnings: list[str]) -> Report:
    """What was written, and which kernel runs each node."""
    decided, spent, kernels = outcome.plan, outcome.costs, outcome.kernels
    planned = {d.node: d for d in decided.nodes}
    float_nodes = [
        {"node": k.node, "op": k.op, "why": planned[k.node].why}
        for k in kernels
        if not k.integer and k.node in planned and (k.kernel != "-" or planned[k.node].op in LAYERS)
    ]
    missed = [k for k in kernels if not k.integer and k.node in planned and planned[k.node].kind == "int8"]
    if missed and TARGETS[decided.target].activations != detect().activations:
        warnings.append(
            f"kernels were read back on this CPU, which runs {detect().activations}; {decided.target} differs"
        )
    else:
        warnings += [f"{k.op} {k.node!r} was planned as int8, but onnxruntime runs it as {k.kernel}" for k in missed]
    bytes_float, size = path.stat().st_size, out.stat().st_size
    seconds = time.perf_counter() - begin
    int8_nodes = [{"node": k.node, "op": k.op, "kernel": k.kernel} for k in kernels if k.integer]
    counts = []
    for op in COUNTED:
        all_of = [k for k in kernels if k.op == op and (k.kernel != "-" or op in LAYERS)]
        if all_of:
            counts.append(f"{sum(k.integer for k in all_of)} of {len(all_of)} {op}")
    table = Table(
        "left in float", ("node", "operator", "why"), tuple((n["node"], n["op"], n["why"]) for n in float_nodes)
    )
    lines = (
        *_time_lines(spent),
        f"{', '.join(counts) or 'no layer'} in integer kernels, {100 * outcome.share:.0f} % of the multiplications",
        f"{bytes_float:,} bytes -> {size:,} bytes ({size / bytes_float:.2f} of float), target {decided.target}, {seconds:.1f} s",
        described(int8.opset_imports[""], int8.ir_version),
        f"next: fcdeploy validate {out} --against {path} --data EVALUATION",
    )
    values = {
        "nodes_int8": int8_nodes, "nodes_float": float_nodes, "bytes_float": bytes_float, "bytes_int8": size,
        "seconds": round(seconds, 3), "output": str(out), "target": decided.target,
        "costs": None if spent is None else {"source": spent.source, "hash": spent.hash},
        "integer_share": outcome.share, "opset": int8.opset_imports[""], "ir_version": int8.ir_version,
        "ratio": best_trial(spent.trials).ratio if spent and spent.trials else None,
    }  # fmt: skip
    return Report("quantize", values, (table,) if float_nodes else (), lines, warnings=tuple(warnings))


def _time_lines(spent: Costs | None) -> tuple[str, ...]:
    """What was found about time, and whether integers are worth having."""
    if spent is None or not spent.trials:
        return () if spent is None else ("times are estimates from a table: measure on the CPU itself to be sure",)
    everywhere = min(spent.trials, key=lambda trial: len(trial.slow))
    nowhere = max(spent.trials, key=lambda trial: len(trial.slow))
    chosen = best_trial(spent.trials)
    text = f"{chosen.ratio:.2f} of the float time ({chosen.low:.2f} to {chosen.high:.2f})"
    if chosen is nowhere and chosen is not everywhere:
        return (
            f"float is fastest here: integers everywhere take {everywhere.ratio:.2f} of its time; only weights are bytes",
        )
    if chosen is everywhere:
        return (f"{text} with every integer kernel there is",)
    return (f"{text}; integers everywhere would take {everywhere.ratio:.2f}, so {len(chosen.slow)} layers stay float",)
