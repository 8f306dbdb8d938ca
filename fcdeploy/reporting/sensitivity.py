"""Which roundings cost most, and what leaving them brings back: for programs and for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fcdeploy.evaluate.metric import SHARE, Metric
from fcdeploy.evaluate.rounding_error import RoundingError
from fcdeploy.proof.saturation import SaturationProof
from fcdeploy.records.report import Table
from fcdeploy.reporting.units import format_decibels
from fcdeploy.sensitivity.advice import describe_source, format_percent
from fcdeploy.sensitivity.error_sources import ErrorSource
from fcdeploy.sensitivity.groups import Remedy
from fcdeploy.sensitivity.rank import Ranking, SourceCost
from fcdeploy.wording import say_count

SHOWN = 6
WIDEST = 25  # characters of a name, so that a row fits in 80 columns


def make_group_values(
    ranking: Ranking,
    rows: Sequence[Remedy],
    ranges: Mapping[ErrorSource, RoundingError],
    proofs: Mapping[str, SaturationProof],
) -> list[dict[str, Any]]:
    """A row per source of error, in the order of what the groups bring back, then of what the sources cost."""
    measured = {row.group.cost.source: row for row in rows}
    rest = [cost for cost in ranking.costs if cost.source not in measured]
    result = []
    for cost in (*(row.group.cost for row in rows), *rest):
        source, row = cost.source, measured.get(cost.source)
        seen = ranges.get(source) or ranking.guesses.get(source)
        loss, time = (row.loss, row.time) if row else (None, None)
        result.append(
            {
                "nodes": list(source.group), "source": source.name, "kind": source.kind, "macs": source.share,
                "error": cost.share, "error_low": cost.low, "error_high": cost.high,
                **_read_fields(row, back="share", back_low="low", back_high="high"),
                **_read_fields(loss, drop="drop", drop_low="low", drop_high="high", p_value="p_value"),
                **_read_fields(time, time="median", time_low="low", time_high="high"),
                **_read_fields(seen, sqnr_db="sqnr_db", clipped="clipped", range_used="used"),
                "pair_margin": _find_margin(source, proofs),
            }
        )  # fmt: skip
    return result


def make_culprit(cost: SourceCost | None) -> dict[str, Any] | None:
    """The rounding that the advice names, and the nodes that undo it in float."""
    if cost is None:
        return None
    source = cost.source
    return {
        "node": source.node, "op": source.op, "kind": source.kind, "tensor": source.name, "nodes": list(source.group),
        "error": cost.share, "error_low": cost.low, "error_high": cost.high,
    }  # fmt: skip


def _read_fields(value: object, **fields: str) -> dict[str, Any]:
    """Key -> the field of that name; None for all of them where there is no value."""
    return {key: None if value is None else getattr(value, field) for key, field in fields.items()}


def make_sensitivity_tables(
    ranking: Ranking,
    rows: Sequence[Remedy],
    metric: Metric | None,
    ranges: Mapping[ErrorSource, RoundingError],
    proofs: Mapping[str, SaturationProof],
) -> Iterator[Table]:
    """The dearest sources, then what the groups bring back."""

    # what each rounding costs, and how it looks on the spot
    body = []
    for cost in ranking.costs[:SHOWN]:
        seen = ranges.get(cost.source) or ranking.guesses.get(cost.source)
        margin = _find_margin(cost.source, proofs)
        body.append(
            (
                _describe_shortly(cost.source),
                _format_span(100 * cost.share, 100 * cost.low, 100 * cost.high, ".0f", " %"),
                "" if seen is None else format_decibels(seen.sqnr_db, same="exact", digits=0),
                "" if seen is None or seen.clipped is None else _format_small(seen.clipped),
                "" if seen is None or seen.used is None else format_percent(seen.used),
                "" if margin is None else f"{margin:.0f} %",
            )
        )
    if body:
        title = (
            f"share of the error: each left unrounded in turn, {say_count(ranking.samples, 'sample')}; need not add up"
        )
        yield Table(title, ("", "error (95 %)", "tensor", "clipped", "range", "pairs"), tuple(body))

    # what comes back with nodes in float, and for how much time
    if rows:
        points = metric is not None and metric.unit == SHARE
        by_metric = metric is not None and rows[0].loss is not None
        names = ("nodes in float", f"{metric.name} back" if metric and by_metric else "error gone", "int8 time")
        yield Table(
            "what leaving them in float brings, measured here (95 %)",
            names,
            tuple(_format_row(row, points) for row in rows),
        )


def make_sensitivity_lines(ranking: Ranking) -> Iterator[str]:
    """Say what was not looked at."""
    if ranking.left:
        every = say_count(len(ranking.left) + len(ranking.costs), "source")
        yield f"time was up before {len(ranking.left)} of {every} were tried"


def shorten(text: str, most: int = WIDEST) -> str:
    """Shorten to at most so many characters, keeping the end, where names differ."""
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def _format_row(row: Remedy, points: bool) -> tuple[str, str, str]:
    nodes = row.group.nodes
    more = f" +{len(nodes) - 1}" if len(nodes) > 1 else ""
    name = (
        shorten(", ".join(nodes)) if len(", ".join(nodes)) <= WIDEST else shorten(nodes[0], WIDEST - len(more)) + more
    )
    if row.loss is not None and row.loss.low is not None and row.loss.high is not None:
        back = _format_span(row.loss.drop, row.loss.low, row.loss.high, ".2f" if points else ".3g", "")
    else:
        back = _format_span(100 * row.share, 100 * row.low, 100 * row.high, ".0f", " %")
    time = "" if row.time is None else _format_span(row.time.median, row.time.low, row.time.high, ".2f", "")
    return name, back, time


def _format_span(value: float, low: float, high: float, digits: str, unit: str) -> str:
    return f"{value:{digits}}{unit} ({low:{digits}} .. {high:{digits}})"


def _find_margin(source: ErrorSource, proofs: Mapping[str, SaturationProof]) -> float | None:
    """How far the worst pair sum of the group's layers is from overflowing, in percent of the limit."""
    margins = [proofs[node].margin for node in source.group if node in proofs]
    return min((margin for margin in margins if margin is not None), default=None)


def _describe_shortly(source: ErrorSource) -> str:
    text = describe_source(source)
    name = source.node or source.name
    head = text.removesuffix(name)
    return head + shorten(name, WIDEST - len(head))


def _format_small(share: float) -> str:
    return "0 %" if share == 0 else "<0.01 %" if share < 1e-4 else f"{100 * share:.2f} %"
