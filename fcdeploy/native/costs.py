"""What nodes cost as native code, in float and as integers: timed step by step on this CPU, or counted for a device.

The same network is made twice: with every integer kernel there is, and in float.  Their steps bear the names of nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.atomic_files import replace_file, temporary_folder
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.nodes import vanishes
from fcdeploy.int8.planning.weights import find_int8_products
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.choose_kernels import ESTIMATED, plan_choice
from fcdeploy.int8.timing.costs import MEASURE, NONE, TABLE, CostBasis, plan_by_costs, read_costs
from fcdeploy.int8.timing.partition import cost_of, find_slow_nodes
from fcdeploy.native.build import Built, compile_library
from fcdeploy.native.device_limits import DeviceLimits, build_model
from fcdeploy.native.estimate import estimate
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.records import costs as costing
from fcdeploy.records.costs import Choice, Costs, Rates, TimeTrial
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import read_cpu_name
from fcdeploy.runtime.native_library import SHORTEST_US, NativeModel, time_steps
from fcdeploy.runtime.paired_timing import compute_ratio, time_in_turns
from fcdeploy.samples.kept_samples import take_run

ENGINE = "native"
RUNS, AGAIN = 20, 3  # of all steps: of so many medians the least counts
SECONDS = 2.0  # for the whole networks in turn
QUANTIZE = "fc_quantize"
StepCost = tuple[str, str, float]
"""The node and the kernel of a step, and microseconds."""


def check_native_costs(costs: str | Path | None, device: str | None) -> None:
    """Raise FcdeployError at costs that there are not for native code."""
    if device is None and costs == TABLE:
        raise FcdeployError(
            "there is no table of what native code costs on this CPU, expected measure, none or a file for --costs",
            "--costs measure times each step in float and as integers; without --costs every integer kernel is taken",
        )
    if device is not None and costs not in (None, NONE, TABLE):
        raise FcdeployError(
            f"--costs {str(costs)!r} wants times, and nothing is timed on {device}, expected table or none",
            "--costs table counts instructions; without --costs every integer kernel is taken",
        )


def plan_native(
    problem: Problem, asked: str | Path | None, limits: DeviceLimits | None, on_step: OnStep | None
) -> tuple[Plan, CostBasis]:
    """The plan that costs least time as native code, and the costs it rests on, none unless they are asked for."""
    everything = problem.plan()
    if asked in (None, NONE) or not any(decision.kind == "int8" for decision in everything.nodes):
        return everything, CostBasis()
    model = problem.calibration.model
    if asked == TABLE:
        assert limits is not None
        basis = CostBasis(_count_costs(problem, everything, limits))
    elif asked != MEASURE and Path(str(asked)).exists():
        basis = CostBasis(read_costs(Path(str(asked)), model, ENGINE))
    else:
        basis = CostBasis(_measure_costs(problem, everything, on_step))
        if asked != MEASURE and basis.costs is not None:
            with replace_file(Path(str(asked))) as aside:
                aside.write_text(costing.to_text(basis.costs))
    return plan_by_costs(problem, everything, basis.costs), basis


def time_against_float(problem: Problem, int8: ir.Model, feeds: Arrays, on_step: OnStep) -> TimeTrial | None:
    """The time of an int8 model over that of the float one, both as native code; None where the latter has no kernels."""
    shapes = {name: array.shape for name, array in feeds.items()}
    try:
        in_float, as_integers = (build_model(model, shapes, None) for model in (problem.model, int8))
    except FcdeployError:
        return None
    with temporary_folder() as folder:
        models = [_load(in_float, folder / "float"), _load(as_integers, folder / "int8")]
        return _time_in_turns([Choice()], models, feeds, on_step)[0]


def _time_in_turns(
    choices: Sequence[Choice], models: Sequence[NativeModel], feeds: Arrays, on_step: OnStep
) -> list[TimeTrial]:
    """The choices, whose models come after the float one, against that."""
    runs = [partial(model.run, feeds) for model in models]
    reference, *others = time_in_turns(runs, SECONDS, on_step, label="timing native code")
    ratios = [compute_ratio(each, reference) for each in others]
    return [
        TimeTrial(choice, round(ratio.median, 4), round(ratio.low, 4), round(ratio.high, 4))
        for choice, ratio in zip(choices, ratios, strict=True)
    ]


def _build_both(
    problem: Problem, int8: ir.Model, shapes: Mapping[str, tuple[int, ...]], limits: DeviceLimits | None = None
) -> tuple[Built, Built]:
    """Native code of the float model and of the int8 one. Raises FcdeployError where the former has no kernels."""
    device = None if limits is None else limits.device
    try:
        in_float = build_model(problem.model, shapes, device)
    except FcdeployError as error:
        raise FcdeployError(
            f"what the model costs in float is not known: {error.message}", "leave --costs out"
        ) from error
    return in_float, build_model(int8, shapes, device)


def _count_costs(problem: Problem, everything: Plan, limits: DeviceLimits) -> Costs:
    """Microseconds at one cycle for an instruction, from the table of instructions of each kernel."""
    shapes, device = {name: array.shape for name, array in _take_one(problem).items()}, limits.device
    built = _build_both(problem, problem.build(everything), shapes, limits)
    in_float, as_integers = (
        [(call.node, call.kernel, call.instructions / device.mhz) for call in estimate(each, device).calls]
        for each in built
    )
    source = f"table of instructions on {device.name}, counted under qemu"
    return _make_costs(problem, everything, in_float, as_integers, source)


def _measure_costs(problem: Problem, everything: Plan, on_step: OnStep | None) -> Costs:
    """Every step timed both ways on this CPU, and the split that they suggest beside integers everywhere, each run whole."""
    if not problem.samples:
        raise FcdeployError(f"times cannot be measured: {problem.why_not_run}", "--data, or leave --costs out")
    step: OnStep = on_step or (lambda *_: None)
    feeds = _take_one(problem)
    shapes = {name: array.shape for name, array in feeds.items()}
    with temporary_folder() as folder:
        step("timing steps of native code", 0, 2)
        built = _build_both(problem, problem.build(everything), shapes)
        models, timed = [], []
        for number, (name, each) in enumerate(zip(("float", "int8"), built, strict=True), start=1):
            models.append(_load(each, folder / name))
            tries = [time_steps(models[-1], feeds, RUNS)[1] for _ in range(AGAIN)]
            timed.append(
                [(same[0].node, same[0].kernel, min(one.us for one in same)) for same in zip(*tries, strict=True)]
            )
            step("timing steps of native code", number, 2)
        costs = _make_costs(
            problem, everything, timed[0], timed[1], f"{read_cpu_name()}, native code {list_levels_here()[0].name}"
        )

        choices = [Choice(), *_list_splits(problem, everything, costs)]
        for number, choice in enumerate(choices[1:]):
            split = problem.build(plan_choice(problem, everything, choice))
            models.append(_load(build_model(split, shapes, None), folder / f"split{number}"))
        trials = _time_in_turns(choices, models, feeds, step)
    return replace(costs, trials=tuple(sorted(trials, key=lambda trial: trial.ratio)))


def _take_one(problem: Problem) -> Arrays:
    return take_run(problem.model, problem.samples)


def _list_splits(problem: Problem, everything: Plan, costs: Costs) -> list[Choice]:
    """The cheapest split where it is likely to save what is worth having."""
    graph, calibration = problem.model.graph, problem.calibration
    slow = tuple(sorted(find_slow_nodes(graph, everything, calibration, costs)))
    if not slow:
        return []
    whole, split = (cost_of(graph, everything, calibration, costs, each) for each in ((), slow))
    return [Choice(slow)] if split < (1 - ESTIMATED) * whole else []


def _make_costs(
    problem: Problem, everything: Plan, in_float: Sequence[StepCost], as_integers: Sequence[StepCost], source: str
) -> Costs:
    """What both ways take by node; a clip that is part of a kernel counts with the node before it."""
    summed = [defaultdict[str, float](float), defaultdict[str, float](float)]
    for us, steps in zip(summed, (in_float, as_integers), strict=True):
        for name, _, each in steps:
            us[name] += each
    nodes: dict[str, tuple[float, float]] = {}
    for node in problem.model.graph:
        names = [name_of(node)]
        if vanishes(node.outputs[0]):
            names.append(name_of(node.outputs[0].consumers()[0]))
        float_us, int8_us = (round(sum(us[each] for each in names), 3) for us in summed)
        nodes.setdefault(names[0], (float_us, int8_us))
        nodes |= dict.fromkeys(names[1:], (0.0, 0.0))
    layers = tuple(sorted(map(name_of, find_int8_products(problem.model.graph, everything))))
    rates = _rate(as_integers, sum(array.size for array in _take_one(problem).values()))
    return Costs(problem.calibration.model, source, rates, nodes, layers, engine=ENGINE)


def _rate(steps: Sequence[StepCost], numbers: int) -> Rates:
    """What converting takes for each number, as that of the inputs does; nothing moves channels about for it."""
    us = sum(each for _, kernel, each in steps if kernel.startswith(QUANTIZE))
    each = round(1e3 * us / max(numbers, 1), 4)
    return Rates(each, each, 0.0, SHORTEST_US)


def _load(built: Built, folder: Path) -> NativeModel:
    """Compiled for this CPU's best level alone."""
    folder.mkdir()
    compile_library(built, find_machine("host"), find_compiler(), folder, folder / "net.so", list_levels_here()[:1])
    return NativeModel(folder / "net.so")
