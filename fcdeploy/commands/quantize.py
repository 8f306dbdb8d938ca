"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.external_data import beside
from fcdeploy.graph.model import (
    check_output,
    files_of,
    input_specs,
    read_model,
    refuse_unsupported,
    replacing_model,
    size_on_disk,
    write_model,
)
from fcdeploy.graph.scratch import scratch_for
from fcdeploy.graph.weights import is_large
from fcdeploy.int8.calibrating.statistics import load_or_observe, warn_too_few
from fcdeploy.int8.plan_file import load_plan, write_plan
from fcdeploy.int8.planning.types import find_types
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.best import choose_best
from fcdeploy.int8.refining.refine import add_refinements, refine, warn_left_out
from fcdeploy.int8.report import QuantizeResult, build_dry_run_report, build_report
from fcdeploy.int8.timing.costs import CostBasis, choose_cost_source, plan_fastest
from fcdeploy.int8.writing.metadata import write_metadata
from fcdeploy.prepare import prepare
from fcdeploy.prepare.cost_model import multiplications_of
from fcdeploy.proof.exact import with_ties
from fcdeploy.records.plan import EFFORTS, Effort
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.kernels import Kernel, find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.samples import open_source
from fcdeploy.search.goal import wish_of
from fcdeploy.search.report import with_search
from fcdeploy.search.search import search
from fcdeploy.sensitivity.analysis import with_advice

METHOD = "mse"  # unless asked for another
EFFORT: Effort = "balanced"


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
    effort: Effort | None = None,
    keep_float: Sequence[str] = (),
    plan: str | Path | None = None,
    save_plan: str | Path | None = None,
    costs: str | Path | None = None,
    dry_run: bool = False,
    max_drop: float | None = None,
    eval: str | Path | None = None,
    metric: str | None = None,
    minutes: float | None = None,
    same_data: bool = False,
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
    `dry_run` only plans; `save_plan` is a file for the plan that was carried out.

    With `max_drop` layers leave int8 until the drop on the samples of `eval` is no larger, in the unit of `metric` (as
    `validate` has them), for at most `minutes` (10 unless given); samples that were calibrated on are refused, but for
    `same_data`.  Raises FcdeployError.
    """
    begin = time.perf_counter()
    path, out = Path(model), Path(output or "")
    row, types = find_target(target), find_types(weights, activations)
    wish = wish_of(max_drop, eval, metric, minutes, same_data=same_data, preprocess=preprocess, types=types)
    graph = read_model(path)
    refuse_unsupported(graph, str(path))
    _check_present(output or dry_run, data or calibration or not types.between)
    _check_words(ranges, effort)
    _refuse_ignored(
        ("--plan decides already", plan is None, {"--ranges": ranges, "--costs": costs, "--max-drop": max_drop}),
        ("there is no --data", data is not None, {"--samples": samples, "--seed": seed}),
        ("there is no --data", data is not None or wish is not None, {"--preprocess": preprocess}),
        (
            "there is no --max-drop",
            wish is not None,
            {"--eval": eval, "--metric": metric, "--minutes": minutes, "--same-data": same_data or None},
        ),
        ("--dry-run writes nothing, and --json prints the plan", not dry_run, {"--save-plan": save_plan}),
    )
    own = files_of(graph, path)
    if not dry_run:
        inputs = (*own, *(Path(file) for file in (data, calibration, plan, costs, eval) if file))
        _check_outputs(graph, out, save_plan, inputs, force)
    changes = prepare(graph)
    source = None
    if data is not None:
        source = open_source(data, input_specs(graph), limit=samples, seed=seed, preprocess=preprocess)
    scratch = scratch_for(graph, None if dry_run else out.parent)
    recorded, kept = load_or_observe(graph, own, source, calibration, on_step)
    how = (row, ranges or METHOD, tuple(keep_float), types, effort or EFFORT)
    problem = Problem(path, graph, recorded, kept, *how, source, scratch=scratch)
    tried = ""
    if plan is not None:
        problem, decided, plan_warnings = load_plan(problem, plan, effort)
        spent = CostBasis(warnings=plan_warnings)
    else:
        if effort == "best":
            problem, tried = choose_best(problem, choose_ranges=ranges is None, on_step=on_step)
        decided, spent = plan_fastest(problem, choose_cost_source(problem, costs, target), on_step)
        decided = add_refinements(problem, decided)
    found = None if wish is None else search(problem, spent, wish, on_step)
    decided = decided if found is None else found.plan
    if dry_run:
        planned = build_dry_run_report(changes, decided, spent, time.perf_counter() - begin)
        return planned if found is None else with_search(planned, found, multiplications_of(graph))
    int8 = refine(problem, decided, on_step)
    write_metadata(int8, problem.calibration, decided)
    size, kernels = _write_and_read_back(int8, out, problem.large, force)
    if save_plan is not None:
        write_plan(Path(save_plan), decided, force=force)
    outcome = QuantizeResult(decided, spent, kernels, multiplications_of(graph), size_on_disk(own), size, tried)
    warnings = [*warn_too_few(recorded), *warn_left_out(problem, decided), *spent.warnings]
    report = build_report(path, out, int8, outcome, begin, warnings)
    if found is not None:
        report = with_search(report, found, outcome.macs)
    elif problem.effort != "fast":
        report = with_advice(report, int8, problem.model, problem.samples, problem.effort)
    ties = row.name == "portable" and "int8" in decided.kinds.values()
    return with_ties(report, out, problem.samples) if ties else report


def _write_and_read_back(int8: ir.Model, out: Path, large: bool, force: bool) -> tuple[int, tuple[Kernel, ...]]:
    """Bytes of what was written, and the kernels that run it. A file that the runtime would not load is not put in place."""
    with replacing_model(out, force=force) as aside:
        size = write_model(int8, aside)
        Session(aside, threads=1, prepack=not large)
        return size, find_kernels(aside)


def _check_words(ranges: str | None, effort: str | None) -> None:
    for option, value, known in (("--ranges", ranges, METHODS), ("--effort", effort, EFFORTS[1:])):
        if value is not None and value not in known:
            raise FcdeployError(
                f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {next(iter(known))}"
            )


def _check_present(output: object, ranges: object) -> None:
    """Raise FcdeployError where there is nothing to write to, or nothing to take ranges from."""
    if not ranges:
        raise FcdeployError(
            "there is nothing to take ranges from: neither --data nor --calibration was given",
            "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx",
        )
    if not output:
        raise FcdeployError("there is no output: -o was not given", "-o int8.onnx, or --dry-run to see the plan")


def _refuse_ignored(*rows: tuple[str, bool, Mapping[str, object]]) -> None:
    """Raise FcdeployError at an option that was given and would be ignored: rows of why, whether used, and options."""
    for why, used, options in rows:
        ignored = [option for option, value in options.items() if value is not None and not used]
        if ignored:
            raise FcdeployError(f"{ignored[0]} would be ignored: {why}", f"leave {ignored[0]} out")


def _check_outputs(
    graph: ir.Model, out: Path, save_plan: str | Path | None, inputs: tuple[Path, ...], force: bool
) -> None:
    more = [*([beside(out)] if is_large(graph) else []), *([Path(save_plan)] if save_plan else [])]
    for written in (out, *more):
        check_output(written, force=force, inputs=inputs)
