"""Timing on this CPU: what each node costs in float and as integers, and how fast choices of kernels are when run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.external_data import list_tensors
from fcdeploy.graph.nodes import name_of
from fcdeploy.graph.protobuf import proto_of
from fcdeploy.int8.nodes import vanishes
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.costs import Choice, Costs, Rates, TimeTrial
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.paired_timing import Load, compute_ratio, time_in_turns, time_reloaded
from fcdeploy.runtime.profile import profile_models
from fcdeploy.runtime.session import Session

Model = Path | bytes | ir.Model
NODE_US = 1.0  # of a node that runs, whatever it does
PROFILED_RUNS = range(5, 41)
PROFILED_SECONDS = 2.0  # of all runs for the profile: two models, each with the profiler and without
FLOAT_NS = 0.03  # for a multiply-accumulate, about
SECONDS = 0.5  # for each choice that is run
CONFIRMED_SECONDS = 2.0
NARROW = 0.1  # of the ratio: a wider interval is narrowed for longer
SHAPE = (1, 32, 64, 64)  # what the rates of conversions are measured on: an image of the middle of a network


def measure_costs(
    model: ir.Model,
    in_float: ir.Model,
    int8: ir.Model,
    feeds: Arrays,
    *,
    model_hash: str,
    source: str,
    apart: bool = False,
) -> Costs:
    """Microseconds of every node of the prepared float model, as float nodes are written, and of the same node in its int8 form.

    `apart` loads one after the other.
    """
    once = 1e-9 * FLOAT_NS * sum(count_macs_by_node(model).values())
    runs = min(max(int(PROFILED_SECONDS / 4 / max(once, 1e-9)), PROFILED_RUNS[0]), PROFILED_RUNS[-1])
    both = [(_serialize(each), feeds) for each in (in_float, int8)]
    as_floats, as_integers = (profile.nodes for profile in profile_models(both, runs=runs, threads=1, apart=apart))
    nodes: dict[str, tuple[float, float]] = {}
    for node in model.graph:
        names = [name_of(node)]
        if vanishes(node.outputs[0]):  # the clip is part of the kernel, and the runtime may call the kernel by its name
            names.append(name_of(node.outputs[0].consumers()[0]))
        us = [sum(times[name].us for name in names if name in times) for times in (as_floats, as_integers)]
        nodes.setdefault(names[0], (round(us[0], 1), round(us[1], 1)))
        nodes |= dict.fromkeys(names[1:], (0.0, 0.0))
    return Costs(model_hash, source, conversion_rates(), nodes)


def conversion_rates() -> Rates:
    """What quantizing, reading back and changing the layout cost on this CPU, measured on one image-like tensor."""
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    q = (x * 20 + 128).clip(0, 255).astype(np.uint8)
    small, little = x[:, :1, :1, :1], q[:, :1, :1, :1]
    timed: list[tuple[str, Arrays]] = [
        ("QuantizeLinear", {"x": x}), ("DequantizeLinear", {"x": q}), ("Transpose", {"x": q}),
        ("QuantizeLinear", {"x": small}), ("Transpose", {"x": little}),
    ]  # fmt: skip
    runs = [_make_loader(_make_one_node_model(op, feeds["x"].dtype), feeds)() for op, feeds in timed]
    timed_ms = [float(np.median(timed.turns)) for timed in time_in_turns(runs, 0.2)]
    call = min(timed_ms[3:])  # what calling the runtime costs
    q_ns, dq_ns, t_ns = (round(max(ms - call, 0.0) * 1e6 / x.size, 3) for ms in timed_ms[:3])
    return Rates(q_ns, dq_ns, t_ns, NODE_US)


def try_choices(
    reference: Model,
    choices: Sequence[Choice],
    build: Callable[[Choice], ir.Model],
    feeds: Arrays,
    *,
    apart: bool = False,
    on_step: OnStep | None = None,
) -> tuple[TimeTrial, ...]:
    """Run int8 models against the float one, all in turn and loaded several times; fastest first.

    `apart` gives each its turns with the float one alone, so that no more than two models are loaded.
    """
    in_float, label = _make_loader(reference, feeds), "timing choices of kernels"
    trials, loads = [], [in_float]
    for done, choice in enumerate(choices, start=1):
        one = _make_loader(_serialize(build(choice)), feeds)
        if apart:
            trials.append(_time_against(in_float, one, choice, 2 * SECONDS))
        else:
            loads.append(one)
        if on_step:
            on_step(label if apart else "building choices of kernels", done, len(choices))
    if not apart:
        first, *timed = time_reloaded(loads, SECONDS * len(loads), on_step, label=label)
        trials = [_make_trial(choice, compute_ratio(one, first)) for choice, one in zip(choices, timed, strict=True)]
    return tuple(sorted(trials, key=lambda trial: trial.ratio))


def confirm(
    reference: Model, int8: ir.Model, choice: Choice, feeds: Arrays, *, on_step: OnStep | None = None
) -> TimeTrial:
    """One choice against float alone, on new loads of both.

    The fastest of several that were tried looks faster than it is: the luck of its run is part of why it was taken.
    """
    return _time_against(
        _make_loader(reference, feeds), _make_loader(_serialize(int8), feeds), choice, CONFIRMED_SECONDS, on_step
    )


def _time_against(
    in_float: Load, int8: Load, choice: Choice, seconds: float, on_step: OnStep | None = None
) -> TimeTrial:
    """The integers are loaded first: weights that are stored as bytes are in memory twice while they become floats."""
    one, other = time_reloaded([int8, in_float], seconds, on_step, NARROW, label="confirming the choice")
    return _make_trial(choice, compute_ratio(one, other))


def choose_reference(original: Model, prepared: ir.Model, feeds: Arrays) -> Model:
    """The float model to compare with: as it is, or as prepared where onnxruntime cannot run that on a CPU."""
    try:
        Session(original, threads=1).run(feeds)
    except FcdeployError:
        return _serialize(prepared)
    return original


def _make_trial(choice: Choice, ratio: Any) -> TimeTrial:
    return TimeTrial(choice, round(ratio.median, 4), round(ratio.low, 4), round(ratio.high, 4))


def _make_loader(model: Model, feeds: Arrays) -> Load:
    def load() -> Callable[[], object]:
        session = Session(model, threads=1)
        return lambda: session.run(feeds)

    return load


def _serialize(model: ir.Model) -> Model:
    """What is loaded again and again: serialized once, or, where weights lie in files, as it is."""
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in list_tensors(model)):
        return model
    return bytes(proto_of(model).SerializeToString())


def _make_one_node_model(op: str, dtype: np.dtype[Any]) -> ir.Model:
    """A model of one conversion, or of one change of layout."""
    kind = ir.DataType.from_numpy(dtype)
    x = ir.val("x", kind, [1, None, None, None])
    if op == "Transpose":
        node = ir.node(op, [x], {"perm": [0, 2, 3, 1]})
        constants: list[ir.Value] = []
    else:
        constants = [
            ir.val("s", const_value=ir.tensor(np.float32(0.05), name="s")),
            ir.val("z", const_value=ir.tensor(np.uint8(128), name="z")),
        ]
        node = ir.node(op, [x, *constants])
    y = node.outputs[0]
    y.name = "y"
    y.dtype = {"QuantizeLinear": ir.DataType.UINT8, "DequantizeLinear": ir.DataType.FLOAT}.get(op, kind)
    graph = ir.Graph([x], [y], nodes=[node], initializers=constants, opset_imports={"": 13}, name=op)
    return ir.Model(graph, ir_version=8)
