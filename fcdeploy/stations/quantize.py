"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import (
    check_output,
    files_of,
    input_specs,
    model_hash,
    read_model,
    refuse_unsupported,
    replacing_model,
    size_on_disk,
    write_model,
)
from fcdeploy.graph.opset import lower_opset, lowest_ir_version, lowest_opset
from fcdeploy.graph.outside import beside
from fcdeploy.graph.weights import is_large
from fcdeploy.int8.given import Given
from fcdeploy.int8.outcome import Outcome, dry_run_report, report_of
from fcdeploy.int8.plan_file import plan_from_file, write_plan
from fcdeploy.int8.planning.types import types_named
from fcdeploy.int8.recording.observe import observe
from fcdeploy.int8.refining.best import best
from fcdeploy.int8.refining.compensate import MANY, MANY_BYTES, compensate_blocks
from fcdeploy.int8.refining.correct import correct_layers
from fcdeploy.int8.timing.costs import Spent, costs_asked, fastest_plan
from fcdeploy.int8.writing.lean import slim
from fcdeploy.prepare import prepare
from fcdeploy.prepare.work import multiplications_of
from fcdeploy.proof.exact import with_ties
from fcdeploy.proof.saturation import prove
from fcdeploy.records import calibration as calibrations
from fcdeploy.records import plan as plans
from fcdeploy.records import sketch
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.runtime import options
from fcdeploy.runtime.cpu import target_named
from fcdeploy.runtime.kernels import kernels_of
from fcdeploy.runtime.session import Session
from fcdeploy.samples import Source, open_source
from fcdeploy.samples.kept import keep_smallest
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import INT8

METHOD = "mse"  # unless asked for another
EFFORTS = ("fast", "balanced", "best")


def quantize(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    weights: str = "int8",
    activations: str = "int8",
    target: str = "host",
    ranges: str | None = None,
    effort: str = "balanced",
    keep_float: Sequence[str] = (),
    plan: str | Path | None = None,
    save_plan: str | Path | None = None,
    costs: str | Path | None = None,
    dry_run: bool = False,
    samples: int | None = None,
    seed: int | None = None,
    preprocess: Path | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the quantized form of a float ONNX model and read back which kernels run it.

    `weights` and `activations` are a row of tables/types.py.  Statistics come from `calibration`, or, with `data` alone,
    from calibrating first; types that scale no activations beforehand can do without.  Bias correction and compensating
    rounding (effort `balanced`) run on samples of `data`, else on those the calibration carries.  Nodes that would be
    slower as integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table",
    "measure", or "none" to take every integer kernel there is; unless given they are measured once and kept in the cache
    folder, but for effort `fast` and targets that are not this CPU.
    `dry_run` only plans; `save_plan` is a file for the plan that was carried out.  Raises FcdeployError.
    """
    begin = time.perf_counter()
    path = Path(model)
    row, types = target_named(target), types_named(weights, activations)
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    _check_arguments(output, data or calibration or not types.between, ranges, effort, dry_run)
    _check_used({"--ranges": ranges, "--costs": costs}, plan is None, "--plan decides already")
    _check_used(
        {"--samples": samples, "--seed": seed, "--preprocess": preprocess}, data is not None, "there is no --data"
    )
    _check_used({"--save-plan": save_plan}, not dry_run, "--dry-run writes nothing, and --json prints the plan")
    own = files_of(graph, path)
    if output and not dry_run:
        files = (*own, *(Path(file) for file in (data, calibration, plan, costs) if file))
        more = [*([beside(Path(output))] if is_large(graph) else []), *([Path(save_plan)] if save_plan else [])]
        for written in (Path(output), *more):
            check_output(written, force=force, inputs=files)
    changes = prepare(graph)
    source = None
    if data is not None:
        source = open_source(data, input_specs(graph), limit=samples, seed=seed, preprocess=preprocess)
    recorded, kept = _statistics(graph, own, source, calibration, on_step)
    start = Given(
        path, graph, recorded, {} if is_large(graph) else kept, row, ranges or METHOD, tuple(keep_float), types
    )
    tried = ""
    if effort == "best" and plan is None and start.samples and types.other == "int8":
        start, tried = best(start, source, choose_ranges=ranges is None, on_step=on_step)
    if plan is not None:
        decided, spent = plan_from_file(start, plan), Spent()
    else:
        decided, spent = fastest_plan(start, costs_asked(costs, effort, target, row, types), on_step)
    macs = multiplications_of(graph)
    if dry_run:
        return dry_run_report(changes, decided, spent, time.perf_counter() - begin)
    int8 = _int8(start, decided, effort, source, on_step)
    warnings = [*_left_out(start, decided, effort), *spent.warnings]
    out = Path(output or "")
    with replacing_model(out, force=force) as aside:  # a file that the runtime would not load is never put in place
        size = write_model(int8, aside)
        Session(aside, threads=1, prepack=not start.large)
        kernels = kernels_of(aside)
    if save_plan is not None:
        write_plan(Path(save_plan), decided, force=force)
    outcome = Outcome(decided, spent, kernels, macs, size_on_disk(own), size, tried)
    report = report_of(path, out, int8, outcome, begin, warnings)
    return with_ties(report, out, start.samples) if row.name == "portable" and "int8" in _kinds(decided) else report


def _int8(given: Given, decided: Plan, effort: str, source: Source | None, on_step: OnStep | None) -> ir.Model:
    """The finished model.  `source` holds more samples than `given` does, for tools that want many."""
    refining = effort != "fast" and bool(given.samples)
    int8 = given.build(decided, correctable=refining)
    if refining and "blocks" in _kinds(decided):
        many = given.samples if source is None else keep_smallest(source, most=MANY, room=MANY_BYTES)
        compensate_blocks(given.graph, int8, decided, many, on_step=on_step)
    if refining:
        reround_to = given.row if effort == "best" else None
        correct_layers(given.graph, int8, decided, given.samples, reround_to=reround_to, on_step=on_step)
    _sign(int8, given.recorded, decided, effort)
    return int8


def _left_out(given: Given, decided: Plan, effort: str) -> list[str]:
    """Warnings of the tools that had nothing to run the model on."""
    if given.samples:
        return []
    tools = {"int8": "bias correction left out", "blocks": "weights in blocks were rounded one by one"}
    found = [text for kind, text in tools.items() if kind in _kinds(decided) and effort != "fast"]
    looks = ["exactness was not looked at"] if given.row.name == "portable" and given.large else []
    return [f"{tool}: {given.why_not_run}" for tool in (*found, *looks)]


def _kinds(decided: Plan) -> set[str]:
    return {decision.kind for decision in decided.nodes}


def _check_arguments(output: str | Path | None, known: object, ranges: str | None, effort: str, dry_run: bool) -> None:
    if not known:
        raise FcdeployError(
            "there is nothing to take ranges from: neither --data nor --calibration was given",
            "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx",
        )
    if output is None and not dry_run:
        raise FcdeployError("there is no output: -o was not given", "-o int8.onnx, or --dry-run to see the plan")
    for option, value, known in (("--ranges", ranges, METHODS), ("--effort", effort, EFFORTS)):
        if value is not None and value not in known:
            raise FcdeployError(
                f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {next(iter(known))}"
            )


def _check_used(given: Mapping[str, object], used: bool, why: str) -> None:
    """Raise FcdeployError at an option that was given and would be ignored."""
    ignored = [option for option, value in given.items() if value is not None and not used]
    if ignored:
        raise FcdeployError(f"{ignored[0]} would be ignored: {why}", f"leave {ignored[0]} out")


def _statistics(
    graph: ir.Model,
    files: tuple[Path, ...],
    source: Source | None,
    file: str | Path | None,
    on_step: OnStep | None,
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration, and the samples on which tools may run the model."""
    path, content = files[0], model_hash(files)
    if file is None and source is None:
        return Calibration(content, {}, np.zeros(0, np.uint64), {}, {}), {}
    if file is None:
        assert source is not None
        recorded = observe(graph, source, model_hash=content, on_step=on_step)
        return recorded, recorded.kept
    recorded = calibrations.read(Path(file))
    if recorded.model != content:
        raise FcdeployError(
            f"calibration {str(file)!r} was made from another model than {str(path)!r}",
            f"fcdeploy calibrate {path} --data DATA -o {file} --force",
        )
    return recorded, recorded.kept if source is None else keep_smallest(source)


def _sign(int8: ir.Model, recorded: Calibration, decided: Plan, effort: str) -> None:
    """Say in the file what it was made from, in the lowest opset and IR version that can say it."""
    opset, _ = lowest_opset(int8)
    lower_opset(int8, opset)
    int8.ir_version = lowest_ir_version(int8)
    int8.producer_name, int8.producer_version = "fcdeploy", __version__
    made = {
        "float": recorded.model,
        "data": recorded.data,
        "target": decided.target,
        "effort": effort,
        "costs": decided.costs,
        "plan": plans.digest(decided),
    }
    if (decided.weights, decided.activations) != (INT8.weights, INT8.activations):
        made |= {"weights": decided.weights, "activations": decided.activations}
    int8.metadata_props["fcdeploy"] = json.dumps(made, separators=(",", ":"))
    weights = sum(value.const_value.nbytes for value in int8.graph.initializers.values() if value.const_value)
    if recorded.samples:  # ranges that were measured elsewhere come without
        int8.metadata_props[sketch.KEY] = sketch.to_text(recorded.seen, weights)
    if TARGETS[decided.target].pair_limit is None and not all(proof.safe for proof in prove(int8)):
        options.write(int8, {options.PRECISION: "1"})
    slim(int8)
