"""What the search found, added to the report of what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fcdeploy.evaluate.loss import digits_of
from fcdeploy.int8.timing.choose_kernels import SLOWER
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.times import list_ratios
from fcdeploy.search.search import MeasuredStep, SearchResult
from fcdeploy.search.verdict import count_samples_needed, judge_drop
from fcdeploy.wording import list_some, say_count

BECOMES = {
    "int8": "int8 again",
    "rounded": "rounded better",
    "bytes": "float, 8-bit weights",
    "wide": "float, 16-bit weights",
    "float": "float",
}

SHOWN = 3  # groups that a step names
NAMED = 8  # nodes that left int8; all are in the JSON

NOT_KNOWN = "the calibration does not say which samples it was made on: whether these are among them is not known"


def add_search(report: Report, result: SearchResult, macs: Mapping[str, int]) -> Report:
    """The report with the path, the front and the verdict; where the bound is not held the answer is no, in the first line."""
    evaluation, bound = result.evaluation, result.goal.max_drop
    loss, unit = result.result.loss, evaluation.metric.unit
    decided = judge_drop(loss, bound)
    needed = None
    if decided == "too few samples":
        needed = count_samples_needed(loss, bound, evaluation.samples, result.result.changed)
    total = max(sum(macs.values()), 1)
    out = [{"node": node, "macs_share": macs.get(node, 0) / total} for node in result.left_out]
    share = sum(row["macs_share"] for row in out)  # type: ignore[misc]
    path = [_make_row(number, stop) for number, stop in enumerate(result.path)]
    values: dict[str, Any] = {
        "metric": evaluation.metric.name, "samples": evaluation.samples, "max_drop": bound, "drop_unit": unit,
        "float": loss.float_value, "int8": loss.int8_value,
        "drop": loss.drop, "drop_low": loss.low, "drop_high": loss.high, "p_value": loss.p_value,
        "held": result.held, "verdict": decided, "samples_needed": needed,
        "path": path, "front": [path[number] for number in result.front],
        "left_out": {"nodes": out, "macs_share": share},
        **list_ratios(result.path[-1].time), "search_seconds": round(result.seconds, 3), "in_time": result.in_time,
    }  # fmt: skip
    tables = (_make_path_table(result, unit), *([_make_front_table(result, unit)] if len(result.front) > 1 else []))
    verdict = _format_verdict(result, decided, needed, written=report.values["output"] is not None)
    *about, following = report.lines
    lines = (
        *_make_time_lines(result),
        *about,
        *_make_lines(result, share),
        following,
        *([verdict] if result.held else []),
    )
    return replace(
        report,
        values={**report.values, **values},
        tables=(*tables, *report.tables),
        lines=lines,
        passed=report.passed and result.held,
        advice=report.advice if result.held else verdict,
        warnings=(*report.warnings, *([result.warning] if result.warning else [])),
    )


def _make_row(number: int, stop: MeasuredStep) -> dict[str, Any]:
    loss = stop.result.loss
    return {
        "step": number,
        "changed": [{"group": name, "to": rung} for name, rung in stop.moved],
        "drop": loss.drop, "drop_low": loss.low, "drop_high": loss.high, "p_value": loss.p_value,
        "output_error": stop.result.error,
        **list_ratios(stop.time),
    }  # fmt: skip


def _make_path_table(result: SearchResult, unit: str) -> Table:
    rows = (
        (str(number), _format_changed(number, stop), _format_drop(stop, unit), _format_time(stop))
        for number, stop in enumerate(result.path)
    )
    return Table("path", ("step", "changed", f"drop, {unit} (95 %)", "time / float"), tuple(rows))


def _make_front_table(result: SearchResult, unit: str) -> Table:
    """Steps that no other beats in both time and drop, fastest first."""
    rows = (
        (_format_time(result.path[number]), _format_drop(result.path[number], unit), str(number))
        for number in result.front
    )
    return Table("front: steps that none beats in both", ("time / float", "drop", "step"), tuple(rows))


def _format_changed(number: int, stop: MeasuredStep) -> str:
    if not stop.moved:
        return "back to the best so far" if number else "int8 as planned"
    alike: dict[tuple[str, str], list[str]] = {}
    for name, rung in stop.moved:
        alike.setdefault((name.partition(" ")[0], rung), []).append(name)
    return "; ".join(f"{_name_groups(kind, names)}: {BECOMES[rung]}" for (kind, rung), names in alike.items())


def _name_groups(kind: str, names: list[str]) -> str:
    """Groups by their names, or of many how many they are."""
    if len(names) <= SHOWN:
        return ", ".join(names)
    return f"weights of {len(names)} layers" if kind == "weights" else f"{len(names)} tensors"


def _format_drop(stop: MeasuredStep, unit: str) -> str:
    loss = stop.result.loss
    digits = digits_of(unit)
    between = "" if loss.low is None or loss.high is None else f" ({loss.low:{digits}} .. {loss.high:{digits}})"
    return f"{loss.drop:{digits}}{between}"


def _format_time(stop: MeasuredStep) -> str:
    return "-" if stop.time is None else f"{stop.time.ratio:.2f} ({stop.time.low:.2f} .. {stop.time.high:.2f})"


def _make_time_lines(result: SearchResult) -> Iterator[str]:
    time = result.path[-1].time
    if time is not None:
        yield f"{time.ratio:.2f} ({time.low:.2f} to {time.high:.2f}) of {result.timed_against}"
        if time.low > SLOWER:
            yield "that is slower than float: keep the float model for speed"


def _make_lines(result: SearchResult, share: float) -> Iterator[str]:
    if result.left_out:
        yield (
            f"left out of int8 for accuracy: {say_count(len(result.left_out), 'node')}, "
            f"{100 * share:.1f} % of the multiplications: {list_some(result.left_out, NAMED)}"
        )
    elif result.held and len(result.path) > 1:
        yield "nothing had to leave int8"
    if not result.in_time:
        yield f"stopped after {result.seconds / 60:.1f} minutes with the best so far; --minutes gives it longer"
    if not result.known:
        yield NOT_KNOWN


def _format_verdict(result: SearchResult, decided: str, needed: int | None, *, written: bool) -> str:
    evaluation, loss = result.evaluation, result.result.loss
    unit, samples = evaluation.metric.unit, evaluation.samples
    digits = digits_of(unit)
    allowed = f"allowed {result.goal.max_drop:g} {unit}, on {say_count(samples, 'sample')}"
    figures = f"{evaluation.metric.name} drop {loss.drop:{digits}}, {allowed}"
    best = "; the best is written all the same" if written else ""
    if decided == "held":
        chosen = ", on the samples it was chosen by" if len(result.path) > 1 else ""
        return f"held (95 % interval {loss.low:{digits}} to {loss.high:{digits}}{chosen}): {figures}"
    if decided == "not held":
        return f"not held: {figures}{best}"
    more = (
        f"{say_count(needed, 'sample')} like these would tell"
        if needed
        else "no number of samples like these would tell"
    )
    if result.held:
        return f"held here: {figures}; too few to be certain: {more}"
    return f"not held here: {figures}; too few to be certain: {more}{best}"
