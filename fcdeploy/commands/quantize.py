"""Float model to int8 model: prepare, calibrate, plan, weights, rewrite, and what the runtime made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arithmetic.ranges.methods import DEFAULT, METHODS
from fcdeploy.atomic_files import replace_files
from fcdeploy.errors import FcdeployError, LoadError
from fcdeploy.evaluate.free_axes import add_lengths, try_lengths
from fcdeploy.evaluate.input_checks import take_few, warn_of_inputs
from fcdeploy.evaluate.misread_inputs import warn_of_readings
from fcdeploy.evaluate.prepared import check_on_first, check_prepared
from fcdeploy.files import check_output
from fcdeploy.graph.edit import Changes
from fcdeploy.graph.external_data import weights_path
from fcdeploy.graph.model import files_of, input_specs, measure_size, read_model, refuse_unsupported, save_model
from fcdeploy.graph.nodes import computes_shapes, name_of
from fcdeploy.graph.scratch import make_scratch
from fcdeploy.graph.weights import is_large
from fcdeploy.int8.calibrating.statistics import declare_as_calibrated, load_or_observe, warn_too_few
from fcdeploy.int8.cpu_differences import add_sameness, find_differences
from fcdeploy.int8.floor import Floor, parse_floor
from fcdeploy.int8.for_runtimes import describe_runtimes_kept, keep_to_runtimes, refuse_untaken
from fcdeploy.int8.loadable import leave_out_unloadable
from fcdeploy.int8.plan_file import format_plan, load_plan
from fcdeploy.int8.planning.types import find_types
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.read_back import Written, gains_nothing, leave_as_it_was, run_and_read_back
from fcdeploy.int8.refining.best import choose_best
from fcdeploy.int8.refining.refine import add_refinements, refine, warn_left_out
from fcdeploy.int8.samples_apart import set_apart
from fcdeploy.int8.timing.costs import CostBasis, choose_cost_source, plan_fastest
from fcdeploy.int8.timing.final_times import time_result
from fcdeploy.int8.writing.metadata import write_metadata
from fcdeploy.native.device_limits import DeviceLimits, find_limits
from fcdeploy.native.suits import add_native, build_native, find_lengths, is_native, use_types
from fcdeploy.prepare.cost_model import count_at, count_macs_by_node
from fcdeploy.prepare.passes.lift_constants import warn_of_defaults
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.exact import add_ties
from fcdeploy.proof.sample_axes import parse_axes
from fcdeploy.records.calibration import describe_inputs, read_format
from fcdeploy.records.data_format import UNSAID, choose_format
from fcdeploy.records.plan import EFFORTS, Effort, Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.reporting.device import add_device
from fcdeploy.reporting.floor import add_floor, build_refusal
from fcdeploy.reporting.quantization import QuantizationOutcome, build_dry_run_report, build_report
from fcdeploy.reporting.search import add_search
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.other_runtimes import find_runtimes
from fcdeploy.runtime.probes.answers import describe_version
from fcdeploy.samples.kept_samples import split_into_chunks, take_run
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.states import parse_states
from fcdeploy.search.goal import AccuracyGoal, check_goal, make_goal
from fcdeploy.search.hold_floor import FloorResult, Remedies, hold_floor, make_judge
from fcdeploy.search.search import SearchResult, run_search
from fcdeploy.sensitivity.analysis import add_advice
from fcdeploy.tables.targets import Target
from fcdeploy.tables.types import INT8, Types

EFFORT: Effort = "balanced"
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
    from calibrating first; types that scale no activations beforehand can do without.  Bias correction and compensating
    rounding (effort `balanced`) run on samples of `data`, else on those the calibration carries.  Nodes that would be
    slower as integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table",
    "measure", or "none" to take every integer kernel there is; unless given they are measured once and kept in the cache
    folder, but for effort `fast` and targets that are not this CPU.
    `runtimes` names others than onnxruntime ("openvino,web"): what one of them refuses as integers stays float.
    `engine` "native" takes every integer kernel, as `costs` "none" does, and refuses what native code has no kernel for.
    `device` (as `inspect` has it) means native code on that device: the report passes where it fits into the device's memory
    and flash, or `max_ram` and `max_flash` bytes, and runs in at most `max_ms`; the file is written either way.
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
    limits = find_limits(device, f"fcdeploy quantize {model} --int8", ram=max_ram, flash=max_flash, ms=max_ms)
    engine = "native" if limits is not None else engine
    request = Request(
        Path(model), Path(output or ""), find_target(target), find_types(weights, activations), target,
        samples=None if data is None else Samples(data, samples, seed, wanted, Path(model)), calibration=calibration,
        ranges=ranges, effort=effort, keep_float=tuple(keep_float), runtimes=find_runtimes(runtimes), plan=plan,
        save_plan=save_plan, costs=costs, goal=goal, limits=limits,
        native=is_native(engine, find_types(weights, activations), costs),
        dry_run=dry_run, floor=parse_floor(floor), accept=accept, force=force, batch_axes=parse_axes(batch_axes),
        states=parse_states(states),
    )  # fmt: skip
    _check_request(request, output)
    _refuse_ignored("there is no --data", data is not None, samples=samples, seed=seed)
    _refuse_ignored(
        "there is no --data", data is not None or goal is not None, preprocess=preprocess, classes=classes, label=label
    )
    _refuse_ignored(
        "there is no --max-drop", goal is not None,
        eval=eval, metric=metric, minutes=minutes, same_data=same_data or None,
    )  # fmt: skip
    _refuse_ignored("--max-drop decides by the metric", goal is None, floor=floor, accept=accept or None)
    return _quantize(request, on_step)


@dataclass(frozen=True)
class Request:
    """What `quantize` was asked for. `target_name` is the row's name or "host"; fields that are None were left out."""

    model: Path
    output: Path
    target: Target
    types: Types
    target_name: str
    samples: Samples | None
    calibration: str | Path | None
    ranges: str | None
    effort: Effort | None
    keep_float: tuple[str, ...]
    runtimes: tuple[str, ...]
    plan: str | Path | None
    save_plan: str | Path | None
    costs: str | Path | None
    goal: AccuracyGoal | None
    limits: DeviceLimits | None
    native: bool
    dry_run: bool
    floor: Floor | None
    accept: bool
    force: bool
    batch_axes: Mapping[str, int | None]
    states: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """What planning came to: the problem, changed where effort `best` did that, the plan, and what it rests on."""

    problem: Problem
    plan: Plan
    basis: CostBasis
    tried: str
    search_result: SearchResult | None


def _quantize(request: Request, on_step: OnStep | None) -> Report:
    """Check, prepare, plan, and, unless the plan is all that was asked for, write."""
    begin = time.perf_counter()
    model = read_model(request.model)
    refuse_unsupported(model, str(request.model))
    files = files_of(model, request.model)
    if not request.dry_run:
        _check_outputs(request, model, files)
    fixed = warn_of_defaults(model)
    changes = prepare(model)
    problem = _load_problem(request, model, files, on_step)
    odd = _look_at_data(request, problem)
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


def _look_at_data(request: Request, problem: Problem) -> list[str]:
    """What is odd about the samples that are given here."""
    recorded = describe_inputs(problem.calibration)
    odd: list[str] = []
    if problem.source is not None:
        few = take_few(problem.source)
        odd += warn_of_inputs(problem.source, few, recorded if request.calibration else ())
        odd += warn_of_readings(request.model, problem.model, problem.source, few)
    if request.goal is not None:
        source = request.goal.samples.open(input_specs(problem.model))
        few = take_few(source)
        odd += warn_of_inputs(source, few, recorded)
        odd += warn_of_readings(request.model, problem.model, source, few) if problem.source is None else []
    return odd


def _carry_out(
    request: Request,
    problem: Problem,
    changes: tuple[Changes, ...],
    files: tuple[Path, ...],
    begin: float,
    on_step: OnStep | None,
) -> Report:
    """Plan, and, unless the plan is all that was asked for, write."""
    planned = _plan(request, problem, on_step)
    if request.dry_run:
        shapes_only = {name_of(node) for node in problem.model.graph if computes_shapes(node)}
        report = build_dry_run_report(changes, planned.plan, planned.basis, shapes_only, time.perf_counter() - begin)
        if planned.search_result is not None:
            return add_search(report, planned.search_result, count_macs_by_node(problem.model))
        return report if request.floor is None else replace(report, lines=(*report.lines, NOT_JUDGED))
    return _write(request, planned, files, begin, on_step)


def _load_problem(request: Request, model: ir.Model, files: tuple[Path, ...], on_step: OnStep | None) -> Problem:
    """The prepared model with its statistics, and samples to run it on."""
    declare_as_calibrated(
        request.model, model, request.samples, request.calibration, axes=request.batch_axes, states=request.states
    )
    source = None if request.samples is None else request.samples.open(input_specs(model))
    scratch = make_scratch(model, None if request.dry_run else request.output.parent)
    if source is not None:
        check_on_first(request.model, model, source)
    calibration, groups = load_or_observe(model, files, source, request.calibration, on_step)
    # apart whether they are judged or not, so that a plan gives the same bytes again
    apart = set_apart(model, calibration, groups, source if request.calibration is None else None)
    if source is None and apart.tools:
        check_prepared(request.model, model, next(split_into_chunks(model, apart.tools))[1])
    if apart.tools:
        count_at(model, {name: array.shape for name, array in take_run(model, apart.tools).items()})
    return Problem(
        request.model, model, apart.calibration, apart.tools, request.target,
        judged=apart.judged, unseen=apart.unseen, ranges_apart=apart.ranges_apart,
        ranges=request.ranges or DEFAULT, keep_float=request.keep_float, types=use_types(request.types, native=request.native),
        effort=request.effort or EFFORT, source=source, scratch=scratch,
    )  # fmt: skip


def _plan(request: Request, problem: Problem, on_step: OnStep | None) -> Planned:
    """The plan in a file, or else the fastest; with a goal, one that meets it."""
    tried = ""
    if request.plan is not None:
        problem, plan, warnings = load_plan(problem, request.plan, request.effort)
        basis = CostBasis(warnings=warnings)
    else:
        if request.effort == "best":
            problem, tried = choose_best(problem, choose_ranges=request.ranges is None, on_step=on_step)
        source = choose_cost_source(problem, "none" if request.native else request.costs, request.target_name)
        plan, basis = plan_fastest(problem, source, on_step)
        plan = add_refinements(problem, plan)
    result = None if request.goal is None else run_search(problem, basis, request.goal, on_step)
    return Planned(problem, plan if result is None else result.plan, basis, tried, result)


def _write(request: Request, planned: Planned, files: tuple[Path, ...], begin: float, on_step: OnStep | None) -> Report:
    """The int8 model on disk, and what can be said of it."""
    problem, plan = planned.problem, planned.plan
    held = _judge(request, planned, on_step)
    if held is not None:
        plan, int8 = held.chosen.plan, held.chosen.int8
        problem = replace(held.chosen.problem, effort=problem.effort)
        if held.misses and not request.accept:
            return build_refusal(request.model, held, time.perf_counter() - begin)
    else:
        int8 = refine(problem, plan, on_step)
    write_metadata(int8, problem.calibration, plan)
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
    result = QuantizationOutcome(plan, planned.basis, kernels, macs, written.float_bytes, written.bytes, planned.tried)
    warnings = [*warn_too_few(problem.calibration), *warn_left_out(problem, plan), *planned.basis.warnings]
    warnings += filter(None, [describe_version()])
    report = build_report(request.model, request.output, int8, result, begin, warnings)
    if planned.search_result is not None:
        report = add_search(report, planned.search_result, macs)
    elif problem.effort != "fast":
        report = add_advice(report, int8, problem.model, problem.unseen_samples, problem.effort)
    if request.runtimes:
        report = report.extend(lines=[describe_runtimes_kept(int8, request.runtimes)])
    if held is not None:
        times = time_result(problem, int8, planned.basis, changed=bool(held.left_out))
        report = add_floor(report, held, planned.basis, macs, times)
    if request.native:
        built = build_native(int8, problem)
        report = add_native(report, built)
        if request.limits is not None:
            report = add_device(report, built, int8, find_lengths(int8, problem), request.limits, request.output)
    if problem.samples and not problem.large:
        one = take_run(problem.model, problem.samples)
        report = add_lengths(report, try_lengths(request.model, problem.model, int8, one))
    if not request.target.one_answer:
        return report
    report = add_ties(report, written.file, problem.samples) if "int8" in plan.kinds.values() else report
    return add_sameness(report, find_differences(problem.model.graph, plan))


def _judge(request: Request, planned: Planned, on_step: OnStep | None) -> FloorResult | None:
    """The plan carried out so that the floor is held; None where a metric decides, there is no floor, or nothing to run on."""
    problem = planned.problem
    judge = None if planned.search_result is not None or request.floor is None else make_judge(problem)
    if judge is None or request.floor is None:
        return None
    free = request.plan is None and request.types == INT8 and problem.effort != "fast"
    starts = free and problem.effort != "best"  # which has tried them
    allowed = Remedies(request.plan is None, starts and request.ranges is None, rescale=starts, repair=free)
    return hold_floor(problem, planned.plan, planned.basis, judge, request.floor, allowed, on_step=on_step)


def _check_request(request: Request, output: object) -> None:
    """Raise FcdeployError where something is missing, unknown or of no use."""
    if request.goal is not None:
        check_goal(request.goal, request.types)
    if request.samples is None and not request.calibration and request.types.between:
        raise FcdeployError(
            "there is nothing to take ranges from: neither --data nor --calibration was given",
            "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx",
        )
    if not output and not request.dry_run:
        raise FcdeployError("there is no output: -o was not given", "-o int8.onnx, or --dry-run to see the plan")
    for option, value, known in (("--ranges", request.ranges, METHODS), ("--effort", request.effort, EFFORTS[1:])):
        if value is not None and value not in known:
            raise FcdeployError(
                f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {next(iter(known))}"
            )
    by_plan, max_drop = request.plan is not None, request.goal and request.goal.max_drop
    _refuse_ignored(
        "--plan decides already", not by_plan, ranges=request.ranges, costs=request.costs, max_drop=max_drop
    )
    why = "--dry-run writes nothing, and --json prints the plan"
    _refuse_ignored(why, not request.dry_run, save_plan=request.save_plan, device=request.limits)


def _refuse_ignored(why: str, used: bool, **options: object) -> None:
    """Raise FcdeployError at an option that was given and would be ignored."""
    ignored = [f"--{key.replace('_', '-')}" for key, value in options.items() if value is not None and not used]
    if ignored:
        raise FcdeployError(f"{ignored[0]} would be ignored: {why}", f"leave {ignored[0]} out")


def _check_outputs(request: Request, model: ir.Model, files: tuple[Path, ...]) -> None:
    samples, goal = request.samples, request.goal
    read = (samples and samples.data, request.calibration, request.plan, request.costs, goal and goal.samples.data)
    inputs = (*files, *(Path(file) for file in read if file))
    written = [request.output, *([weights_path(request.output)] if is_large(model) else [])]
    for file in (*written, *([Path(request.save_plan)] if request.save_plan else [])):
        check_output(file, force=request.force, inputs=inputs)
