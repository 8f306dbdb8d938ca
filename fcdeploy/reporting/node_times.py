"""The time of each node of one model or two, and of each step of native code: JSON keys and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fcdeploy.records.report import Table
from fcdeploy.runtime.native_library import SHORTEST_US, StepTime
from fcdeploy.runtime.profile import NodeTime, Profile, match_layers


def sum_steps(latency_us: float, steps: Sequence[StepTime]) -> Profile:
    """Steps of native code by the node that they belong to, as `kernel` the one that takes longest."""
    nodes: dict[str, NodeTime] = {}
    longest: dict[str, float] = {}
    for step in steps:
        known = nodes.get(step.node)
        kernel = step.kernel if known is None or step.us > longest[step.node] else known.op
        longest[step.node] = max(step.us, longest.get(step.node, 0.0))
        nodes[step.node] = NodeTime(step.node, kernel, step.us + (known.us if known else 0.0), inserted=False)
    return Profile(latency_us, nodes)


def collect_step_values(steps: Sequence[StepTime], peak: float) -> dict[str, Any]:
    """The JSON keys that tell of native code; `peak` is multiply-accumulates a second."""
    return {
        "peak_macs_per_second": peak,
        "steps": [
            {
                "node": step.node, "what": step.what, "kernel": step.kernel, "macs": step.macs, "us": step.us,
                "share_of_peak": _find_share(step.macs, step.us, peak),
            }
            for step in steps
        ],
    }  # fmt: skip


def make_step_table(latency_us: float, steps: Sequence[StepTime], peak: float) -> Table:
    """Where the time goes, and what part of it multiplying at this CPU's best would take."""
    rows = [
        (
            step.what, step.kernel, f"{step.macs:,}" if step.macs else "", _format_us(step.us),
            f"{100 * step.us / latency_us:.1f} %" if min(step.us, latency_us) >= SHORTEST_US else "",
            _show_share(step.macs, step.us, peak), step.node,
        )
        for step in steps
    ]  # fmt: skip
    macs = sum(step.macs for step in steps)
    rows.append(("all", "", f"{macs:,}", _format_us(latency_us), "", _show_share(macs, latency_us, peak), ""))
    title = f"Steps of native code; this CPU multiplies {peak / 1e9:.0f} G bytes a second at most"
    return Table(title, ("step", "kernel", "MACs", "median", "time", "of the peak", "node"), tuple(rows))


def _find_share(macs: int, us: float, peak: float) -> float | None:
    """What part of the time multiplying takes at best; None where nothing is multiplied or the time is too short to tell."""
    return macs / (us * 1e-6) / peak if macs and us >= SHORTEST_US else None


def _show_share(macs: int, us: float, peak: float) -> str:
    share = _find_share(macs, us, peak)
    return "" if share is None else f"{100 * share:.0f} %"


def _format_us(us: float) -> str:
    return f"{us:.2f} us" if us >= SHORTEST_US else f"< {SHORTEST_US} us"


def collect_node_values(nodes: Sequence[Profile], names: Sequence[str]) -> dict[str, Any]:
    """The JSON keys that tell of them."""
    pairs = match_layers(nodes[1].nodes, nodes[0].nodes) if len(nodes) == 2 else []
    both = [{one.node for one, _ in pairs}, {other.node for _, other in pairs}][::-1]
    values: dict[str, Any] = {
        "matched": [
            {
                "node": one.node,
                "float_kernel": one.op,
                "int8_kernel": other.op,
                "float_us": one.us,
                "int8_us": other.us,
                "ratio": _divide(other.us, one.us),
            }
            for one, other in pairs
        ]
    }
    for index, name in enumerate(names):
        alone = [node for node in nodes[index].nodes.values() if node.node not in both[index]] if nodes[index:] else []
        values[f"{name}_only"] = [
            {"node": node.node, "kernel": node.op, "us": node.us, "inserted": node.inserted} for node in alone
        ]
        values[f"{name}_us"] = nodes[index].latency_us if nodes[index:] else None
    return values


def make_node_tables(nodes: Sequence[Profile], names: Sequence[str]) -> Iterator[Table]:
    """Matched layers side by side, and what one of the models alone has; of a single model its nodes."""
    if len(nodes) == 1:
        cells = [
            (node.node, node.op, f"{node.us:.1f} us", _format_share(node.us, nodes[0]))
            for node in nodes[0].nodes.values()
        ]
        yield Table("Time of each node", ("node", "kernel", "median", "share"), tuple(cells))
        return
    pairs = match_layers(nodes[1].nodes, nodes[0].nodes)
    rows = [
        (one.node, one.op, other.op, f"{one.us:.1f} us", f"{other.us:.1f} us", f"{_divide(other.us, one.us):.2f}")
        for one, other in pairs
    ]
    ours, theirs = sum(other.us for _, other in pairs), sum(one.us for one, _ in pairs)
    rows.append(("together", "", "", f"{theirs:.1f} us", f"{ours:.1f} us", f"{_divide(ours, theirs):.2f}"))
    columns = ("node", "float kernel", "int8 kernel", "float", "int8", "int8 / float")
    yield Table("Nodes that both models have", columns, tuple(rows))
    taken = {other.node for _, other in pairs}, {one.node for one, _ in pairs}
    alone = [
        (name, kernel, str(count), f"{us:.1f} us", _format_share(us, nodes[index]))
        for index, name in enumerate(names)
        for kernel, count, us in _sum_by_kernel([n for n in nodes[index].nodes.values() if n.node not in taken[index]])
    ]
    yield Table("Nodes that one of them has", ("model", "kernel", "nodes", "together", "share"), tuple(alone))


def _sum_by_kernel(nodes: Sequence[NodeTime]) -> list[tuple[str, int, float]]:
    """(Kernel, how many, microseconds together), the longest first."""
    count = Counter(node.op for node in nodes)
    us = {op: sum(node.us for node in nodes if node.op == op) for op in count}
    return sorted(((op, count[op], us[op]) for op in count), key=lambda row: -row[2])


def _format_share(us: float, whole: Profile) -> str:
    return f"{100 * us / whole.latency_us:.1f} %"


def _divide(one: float, other: float) -> float:
    return one / other if other else float("nan")
