"""Timing on this CPU: what each node costs in float and as integers, and which split of the graph is fastest when run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.int8.planning.layers import vanishes
from fcdeploy.records.costs import Costs, Rates, Trial
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.profile import node_times
from fcdeploy.runtime.session import Session
from fcdeploy.runtime.turns import measure, ratio_of

Arrays = dict[str, NDArray[Any]]
NODE_US = 1.0  # of a node that runs, whatever it does
PROFILED_RUNS = 40
SECONDS = 0.7  # for each split that is run
SHAPE = (1, 32, 64, 64)  # what the rates of conversions are measured on: an image of the middle of a network
CONVERSIONS = (
    1.0,
    2.0,
    0.5,
)  # the estimate of converting is the coarsest, so splits for half and twice of it are run too


def measure_costs(model: ir.Model, int8: ir.Model, feeds: Arrays, *, model_hash: str, source: str) -> Costs:
    """Microseconds of every node of the prepared float model, and of the same node in its int8 form."""
    in_float = node_times(_bytes(model), feeds, runs=PROFILED_RUNS, threads=1)
    as_integers = node_times(_bytes(int8), feeds, runs=PROFILED_RUNS, threads=1)
    nodes: dict[str, tuple[float, float]] = {}
    for node in model.graph:
        names = [node.name or ""]
        if vanishes(node.outputs[0]):  # the clip is part of the kernel, and the runtime may call the kernel by its name
            names.append(node.outputs[0].consumers()[0].name or "")
        spent = [sum(times[name].us for name in names if name in times) for times in (in_float, as_integers)]
        nodes.setdefault(names[0], (round(spent[0], 1), round(spent[1], 1)))
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
    sessions = [(Session(_one_node(op, feeds["x"].dtype), threads=1), feeds) for op, feeds in timed]
    timed_ms = [float(np.median(timed.turns)) for timed in measure([_runner(*each) for each in sessions], 0.2)]
    call = min(timed_ms[3:])  # what calling the runtime costs
    q_ns, dq_ns, t_ns = (round(max(ms - call, 0.0) * 1e6 / x.size, 3) for ms in timed_ms[:3])
    return Rates(q_ns, dq_ns, t_ns, NODE_US)


def try_splits(
    model: ir.Model,
    costs: Costs,
    splits: Sequence[Mapping[str, str]],
    build: Callable[[Mapping[str, str]], ir.Model],
    feeds: Arrays,
    *,
    on_step: OnStep | None = None,
) -> Costs:
    """Run each split against the float model in turn; the costs with the trials, fastest first.

    A split is the nodes left in float, `build` makes its int8 model.
    """
    unique = {tuple(sorted(split)): split for split in splits}
    runs = [_runner(Session(_bytes(model), threads=1), feeds)]
    for done, split in enumerate(unique.values(), start=1):
        runs.append(_runner(Session(_bytes(build(split)), threads=1), feeds))
        if on_step:
            on_step("building splits", done, len(unique))
    in_float, *timed = measure(runs, SECONDS * len(unique))
    ratios = [(slow, ratio_of(one, in_float)) for slow, one in zip(unique, timed, strict=True)]
    trials = [Trial(slow, round(r.median, 4), round(r.low, 4), round(r.high, 4)) for slow, r in ratios]
    return replace(costs, trials=tuple(sorted(trials, key=lambda trial: trial.ratio)))


def _runner(session: Session, feeds: Arrays) -> Callable[[], object]:
    return lambda: session.run(feeds)


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def _one_node(op: str, dtype: np.dtype[Any]) -> ir.Model:
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
