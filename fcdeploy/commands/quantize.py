"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.atomic_files import replace_files
from fcdeploy.errors import LoadError
from fcdeploy.evaluate.free_axes import add_lengths, try_lengths
from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import files_of, measure_size, read_model, refuse_unsupported, save_model
from fcdeploy.graph.nodes import computes_shapes, name_of
from fcdeploy.int8.calibrating.statistics import warn_too_few
from fcdeploy.int8.cpu_differences import add_sameness, find_differences
from fcdeploy.int8.for_runtimes import describe_runtimes_kept, keep_to_runtimes, refuse_untaken
from fcdeploy.int8.judging.floor import parse_floor
from fcdeploy.int8.loadable import leave_out_unloadable
from fcdeploy.int8.plan_file import format_plan
from fcdeploy.int8.planning.types import find_types
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.read_back import Written, gains_nothing, leave_as_it_was, run_and_read_back, warn_of_size
from fcdeploy.int8.refining.refine import refine, warn_left_out
from fcdeploy.int8.timing.final_times import time_result
from fcdeploy.int8.writing.metadata import finish_model
from fcdeploy.native.device_limits import find_limits
from fcdeploy.native.suits import add_native, build_native, find_lengths, is_native
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.prepare.passes.lift_constants import warn_of_defaults
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.exact import count_ties
from fcdeploy.proof.sample_axes import parse_axes
from fcdeploy.records.calibration import read_format
from fcdeploy.records.data_format import UNSAID, choose_format
from fcdeploy.records.plan import Effort
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, format_next
from fcdeploy.reporting.device import add_device, format_next_compile
from fcdeploy.reporting.exactness import add_ties
from fcdeploy.reporting.floor import add_floor, build_refusal, lead_with_share
from fcdeploy.reporting.quantization import QuantizationOutcome, build_dry_run_report, build_report, describe_purpose
from fcdeploy.reporting.search import add_search
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.other_runtimes import find_runtimes
from fcdeploy.runtime.probes.answers import describe_version
from fcdeploy.samples.kept_samples import take_run
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.states import parse_states
from fcdeploy.search.goal import make_goal
from fcdeploy.search.hold_floor import FloorResult
from fcdeploy.search.judged import find_judged
from fcdeploy.search.plan_request import Planned, judge_planned, load_problem, look_at_data, plan_request
from fcdeploy.search.request import Request, check_outputs, check_request, refuse_ignored
from fcdeploy.sensitivity.analysis import add_advice
from fcdeploy.wording import quote_path

NOT_JUDGED = "nor was the result judged: without --dry-run, what falls below the floor is repaired or not written"


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
    runtimes: str | None = None,
    engine: str = "onnxruntime",
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
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
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    floor: str | float | None = None,
    accept: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the quantized form of a float ONNX model and read back which kernels run it.

    `weights` and `activations` are a row of tables/types.py.  Statistics come from `calibration`, or, with `data` alone,
    from calibrating first; types that scale no activations beforehand can do without.  Bias correction (effort `balanced`)
    and compensating rounding (`best`) run on samples of `data`, else on those the calibration carries.  Nodes that would
    be slower as integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table",
    "measure", or "none" to take every integer kernel there is; unless given they are measured once and kept in the cache
    folder, but for effort `fast` and targets that are not this CPU.
    `runtimes` names others than onnxruntime ("openvino,web"): what one of them refuses as integers stays float.
    `engine` "native" takes every integer kernel, as `costs` "none" does, unless `costs` are "measure" or a file: then steps of
    native code are timed. What native code has no kernel for is refused.
    `device` (as `inspect` has it) means native code on that device: the report passes where it fits into the device's memory
    and flash, or `max_ram` and `max_flash` bytes, and runs in at most `max_ms`; the file is written either way. There `costs`
    "table" counts instructions.
    `batch_axes` ("NAME=1", "NAME=none") say where samples lie in an input.
    `states` ("OUT=IN") name inputs that take what an output gave on the sample before.
    `dry_run` only plans; `save_plan` is a file for the plan that was carried out.

    With `max_drop` layers leave int8 until the drop on the samples of `eval` is no larger, in the unit of `metric` (as
    `validate` has them), for at most `minutes` (10 unless given); samples that were calibrated on are refused, but for
    `same_data`.

    Without it the result is judged on samples that no tool has seen: `floor` is "PERCENT" of equal decisions, or
    "PERCENT,DECIBELS" with those of outputs that decide nothing ("99,20"), or "none".  Tools that harm are left out, and
    layers leave int8 until the floor is held; what cannot hold it is not written, but for `accept`.  Raises FcdeployError.
    """
    recorded = UNSAID if calibration is None else read_format(Path(calibration))
    wanted = choose_format(recorded, preprocess=preprocess, classes=classes, label=label)
    goal = make_goal(max_drop, eval, metric, minutes, same_data=same_data, format=wanted, model=Path(model))
    limits = find_limits(
        device, f"fcdeploy quantize {quote_path(model)} --int8", ram=max_ram, flash=max_flash, ms=max_ms
    )
    engine = "native" if limits is not None else engine
    request = Request(
        Path(model), Path(output or ""), find_target(target), find_types(weights, activations), target,
        samples=None if data is None else Samples(data, samples, seed, wanted, Path(model)), calibration=calibration,
        ranges=ranges, effort=effort, keep_float=tuple(keep_float), runtimes=find_runtimes(runtimes), plan=plan,
        save_plan=save_plan, costs=costs, goal=goal, limits=limits,
        native=is_native(engine, find_types(weights, activations), costs, limits),
        dry_run=dry_run, floor=parse_floor(floor), accept=accept, force=force, batch_axes=parse_axes(batch_axes),
        states=parse_states(states),
    )  # fmt: skip
    check_request(request, output)
    refuse_ignored("there is no --data", data is not None, samples=samples, seed=seed)
    refuse_ignored(
        "there is no --data", data is not None or goal is not None, preprocess=preprocess, classes=classes, label=label
    )
    refuse_ignored(
        "there is no --max-drop", goal is not None,
        eval=eval, metric=metric, minutes=minutes, same_data=same_data or None,
    )  # fmt: skip
    refuse_ignored("--max-drop decides by the metric", goal is None, floor=floor, accept=accept or None)
    return _quantize(request, on_step)


def _quantize(request: Request, on_step: OnStep | None) -> Report:
    """Check, prepare, plan, and, unless the plan is all that was asked for, write."""
    begin = time.perf_counter()
    model = read_model(request.model)
    refuse_unsupported(model, str(request.model))
    files = files_of(model, request.model)
    if not request.dry_run:
        check_outputs(request, model, files)
    fixed = warn_of_defaults(model)
    changes = prepare(model)
    problem = load_problem(request, model, files, on_step)
    odd = look_at_data(request, problem)
    try:
        if request.runtimes and request.plan is None:
            problem = keep_to_runtimes(problem, request.runtimes)
        report = _carry_out(request, problem, changes, files, begin, on_step)
    except LoadError:  # rare, and found only where it happens; nothing is in place yet
        repaired = problem if request.plan is not None else leave_out_unloadable(problem)
        if repaired is problem:
            raise
        report = _carry_out(request, repaired, changes, files, begin, on_step)
    return replace(report, warnings=(*fixed, *odd, *report.warnings))


def _carry_out(
    request: Request,
    problem: Problem,
    changes: tuple[Changes, ...],
    files: tuple[Path, ...],
    begin: float,
    on_step: OnStep | None,
) -> Report:
    """Plan, and, unless the plan is all that was asked for, write."""
    planned = plan_request(request, problem, on_step)
    if request.dry_run:
        report = build_dry_run_report(
            changes, planned.plan, planned.basis, _list_shape_nodes(problem), time.perf_counter() - begin,
            timed=planned.search_result is None,
        )  # fmt: skip
        if planned.search_result is not None:
            return add_search(report, planned.search_result, count_macs_by_node(problem.model))
        return report if request.floor is None else replace(report, lines=(*report.lines, NOT_JUDGED))
    return _write(request, planned, files, begin, on_step)


def _write(request: Request, planned: Planned, files: tuple[Path, ...], begin: float, on_step: OnStep | None) -> Report:
    """The int8 model on disk, and what can be said of it."""
    problem, plan = planned.problem, planned.plan
    held = judge_planned(request, planned, on_step)
    if held is not None:
        plan, int8 = held.chosen.plan, held.chosen.int8
        problem = replace(held.chosen.problem, effort=problem.effort)
        if held.misses and not request.accept:
            return build_refusal(request.model, held, time.perf_counter() - begin)
    else:
        int8 = refine(problem, plan, on_step)
    finish_model(int8, problem.calibration, plan, find_judged(problem) if held is None else held.judged)
    refuse_untaken(problem, int8, request.runtimes)
    plan_file = [] if request.save_plan is None else [Path(request.save_plan)]
    # in place once everything that is said of the file has been found out: no answer, no file
    with replace_files([request.output, *plan_file], force=request.force) as (aside, *beside):
        size, before = save_model(int8, aside), measure_size(files)
        for file in beside:
            file.write_text(format_plan(plan))
        as_it_was = size > before and len(files) == 1 and gains_nothing(int8, plan)
        written = Written(aside, before if as_it_was else size, before)
        report = _describe(request, replace(planned, problem=problem, plan=plan), held, int8, written, begin)
        if as_it_was:
            leave_as_it_was(request.model, int8, aside)
        return report


def _describe(
    request: Request, planned: Planned, held: FloorResult | None, int8: ir.Model, written: Written, begin: float
) -> Report:
    """What can be said of a file; raises FcdeployError for one that does not load, run, or have the kernels planned."""
    problem, plan = planned.problem, planned.plan
    kernels = run_and_read_back(written.file, problem, plan)
    macs = count_macs_by_node(problem.model)
    device = None if request.limits is None else request.limits.device
    built = build_native(int8, problem, request.limits) if request.native else None
    following = format_next_compile(request.output, device, built.program) if built is not None else None
    result = QuantizationOutcome(
        plan, planned.basis, kernels, macs, written.float_bytes, written.bytes, planned.tried,
        describe_purpose(plan, native=request.native, device=device),
        following or format_next("validate", request.output, "--against", request.model, "--data EVALUATION"),
        timed=planned.search_result is None and not (held and held.left_out), shapes_only=_list_shape_nodes(problem),
    )  # fmt: skip
    warnings = [*warn_too_few(problem.calibration), *warn_left_out(problem, plan), *planned.basis.warnings]
    warnings += filter(None, [describe_version(), warn_of_size(written)])
    report = build_report(request.output, int8, result, begin, warnings)
    if planned.search_result is not None:
        report = add_search(report, planned.search_result, macs)
    elif problem.effort != "fast":
        judged_db = None if held is None else held.chosen.judgement.worst_db
        report = add_advice(report, int8, problem.model, problem.unseen_samples, problem.effort, judged_db)
    if request.runtimes:
        report = report.extend(lines=[describe_runtimes_kept(int8, request.runtimes)])
    if held is not None:
        times = time_result(problem, int8, planned.basis, changed=bool(held.left_out))
        report = add_floor(report, held, planned.basis, macs, times)
    report = lead_with_share(report)
    if built is not None:
        report = add_native(report, built)
        if request.limits is not None:
            report = add_device(report, built, int8, find_lengths(int8, problem), request.limits, request.output)
    if problem.samples and not problem.large:
        one = take_run(problem.model, problem.samples)
        report = add_lengths(report, try_lengths(request.model, problem.model, int8, one))
    if not request.target.one_answer:
        return report
    if "int8" in plan.kinds.values():
        report = add_ties(report, count_ties(written.file, problem.samples))
    return add_sameness(report, find_differences(problem.model.graph, plan))


def _list_shape_nodes(problem: Problem) -> set[str]:
    """Nodes that handle lengths and indices alone: of less interest than data."""
    return {name_of(node) for node in problem.model.graph if computes_shapes(node)}
