"""Where the time of a run goes, node by node, from onnxruntime's profiler."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, median_grouped
from typing import Any

import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import make_no_room_error, temporary_folder
from fcdeploy.graph.nodes import make_unique, name_of
from fcdeploy.graph.protobuf import load_model
from fcdeploy.runtime.kernels import may_run, name_nodes, trace_origins
from fcdeploy.runtime.session import LoadOptions, Session

Feeds = Mapping[str, Array]
Model = Path | bytes | ir.Model
WARM_UP = 3  # runs that are not counted; the first ones allocate
KERNEL = "_kernel_time"  # what a node's event has behind the node's name
CONTROL_FLOW = {"If", "Loop", "Scan"}  # the nodes inside them have events of their own, within theirs


@dataclass(frozen=True)
class NodeTime:
    """The median time of a node that runs: microseconds in one run of the model.

    `node` is the node of the file that it runs, or the runtime's own name for one that it put in (`inserted`: layout
    changes, conversions); `op` is the kernel's operator.  `outputs` are the tensors it writes in the file.
    """

    node: str
    op: str
    us: float
    inserted: bool
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """The nodes of a model in the order they ran, and the median latency without the profiler, in microseconds."""

    latency_us: float
    nodes: dict[str, NodeTime]


def profile_models(
    models: Sequence[tuple[Model, Feeds]], *, runs: int, threads: int, apart: bool = False
) -> list[Profile]:
    """Run models `runs` times with the profiler and as often without, all in turn, since a machine's speed drifts.

    The profiler's own work is inside the times it tells: some microseconds a node, as much as a small node takes.  So
    the excess of their sum over the latency without the profiler is taken off again, the same from every node.
    `apart` takes one model after the other, each in a single session, which holds a large one once instead of twice.
    """
    with temporary_folder() as folder:
        if apart:
            places = [folder / str(n) for n in range(len(models))]
            return [_profile_alone(*each, threads, runs, place) for each, place in zip(models, places, strict=True)]
        traced = [_trace_model(model, feeds, threads, folder / str(n)) for n, (model, feeds) in enumerate(models)]
        for _ in range(WARM_UP + runs):
            for one in traced:
                one.traced.run(one.feeds)
                one.us.append(_time_run(one.plain, one.feeds))
        return [_read_trace(one, one.traced.end_profiling()) for one in traced]


def match_layers(
    float_nodes: Mapping[str, NodeTime], int8_nodes: Mapping[str, NodeTime]
) -> list[tuple[NodeTime, NodeTime]]:
    """Match the layers of two models, by the name of the node, or else by a tensor that both write."""
    by_output = {output: node for node in int8_nodes.values() for output in node.outputs}
    pairs, taken = [], set()
    for node in float_nodes.values():
        candidates = [int8_nodes.get(node.node), *(by_output.get(output) for output in node.outputs)]
        for other in candidates:
            if (
                other
                and not (node.inserted or other.inserted)
                and may_run(other.op, node.op)
                and other.node not in taken
            ):
                pairs.append((node, other))
                taken.add(other.node)
                break
    return pairs


@dataclass
class _TracedModel:
    """A model in two sessions, one of them with the profiler, and the microseconds of each run of the other.

    Apart from others they are one and the same.
    """

    source: ir.Graph
    feeds: Feeds
    dump: Path
    traced: Session
    plain: Session
    us: list[float]


def _trace_model(model: Model, feeds: Feeds, threads: int, folder: Path, *, apart: bool = False) -> _TracedModel:
    folder.mkdir()
    named, dump = name_nodes(model), folder / "optimized.onnx"
    source = (named if isinstance(named, ir.Model) else load_model(named)).graph
    traced = Session(named, threads=threads, load=LoadOptions(dump=dump, profile=folder / "profile"))
    return _TracedModel(source, feeds, dump, traced, traced if apart else Session(named, threads=threads), [])


def _profile_alone(model: Model, feeds: Feeds, threads: int, runs: int, folder: Path) -> Profile:
    """The profiler first: a session runs without it once it has ended."""
    one = _trace_model(model, feeds, threads, folder, apart=True)
    for _ in range(WARM_UP + runs):
        one.traced.run(feeds)
    trace = one.traced.end_profiling()
    one.us.extend(_time_run(one.plain, feeds) for _ in range(WARM_UP + runs))
    return _read_trace(one, trace)


def _time_run(session: Session, feeds: Feeds) -> float:
    """Microseconds of a run."""
    begin = time.perf_counter()
    session.run(feeds)
    return 1e6 * (time.perf_counter() - begin)


def _read_trace(one: _TracedModel, trace: Path) -> Profile:
    try:
        times = read_durations(json.loads(trace.read_text()))
    except json.JSONDecodeError as error:  # the profiler says nothing of a full disk
        raise make_no_room_error() from error
    latency = median(one.us[WARM_UP:])
    excess = _compute_excess(list(times.values()), latency)
    optimized = load_model(one.dump).graph
    origins = trace_origins(one.source, optimized)
    running: dict[str, list[ir.Node]] = {}
    for node in optimized:
        running.setdefault(name_of(node), []).append(node)
    nodes: dict[str, NodeTime] = {}
    for (name, op), us in times.items():
        same = [node for node in running.get(name, []) if node.op_type == op]
        origin = origins[same[0]] if same else None
        outputs = tuple(name_of(value) for value in origin.outputs) if origin else ()
        key = make_unique(origin.name if origin and origin.name else name, nodes)
        nodes[key] = NodeTime(key, op, max(0.0, us - excess), origin is None, outputs)
    return Profile(latency, nodes)


def read_durations(events: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """(Name, operator) of each node that ran -> median microseconds, from the profiler's events, warm-up left out.

    The profiler cuts durations to whole microseconds: the median is that of grouped data, half a microsecond later.
    A node of a loop's body is left out, its time being the loop's.
    """
    us_by_node: dict[tuple[str, str, str], list[int]] = {}
    inside_until = -1
    for event in sorted((e for e in events if e.get("cat") == "Node"), key=lambda e: (e["ts"], -e["dur"])):
        name, end, detail = str(event["name"]), event["ts"] + event["dur"], event["args"]
        if not name.endswith(KERNEL) or (event["ts"] <= inside_until and end <= inside_until):
            continue
        if detail["op_name"] in CONTROL_FLOW:
            inside_until = end
        key = (name.removesuffix(KERNEL), detail["op_name"], str(detail.get("node_index")))
        us_by_node.setdefault(key, []).append(event["dur"])
    result: dict[tuple[str, str], float] = {}
    for (name, op, _), us in us_by_node.items():
        name = make_unique(name, {other for other, of in result if of == op})
        result[name, op] = median_grouped(us[WARM_UP:] or us) + 0.5
    return result


def _compute_excess(times: list[float], latency: float) -> float:
    """The overhead to subtract from every time, none going below zero, so that their sum is at most the latency."""
    low, high = 0.0, max(times, default=0.0)
    if sum(times) <= latency:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(max(0.0, us - middle) for us in times) > latency else (low, middle)
    return high
