"""What the search found, added to the report of what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fcdeploy.evaluate import scores
from fcdeploy.int8.timing.choose_kernels import SLOWER
from fcdeploy.int8.timing.costs import describe_times
from fcdeploy.records.report import Report, Table
from fcdeploy.search.search import Found, Stop
from fcdeploy.search.verdict import samples_needed, verdict

BECOMES = {
    "int8": "int8 again",
    "rounded": "rounded better",
    "bytes": "float, 8-bit weights",
    "wide": "float, 16-bit weights",
    "float": "float",
}

NOT_KNOWN = "the calibration does not say which samples it was made on: whether these are among them is not known"


def with_search(report: Report, found: Found, macs: Mapping[str, int]) -> Report:
    """The report with the road, the front and the verdict; the answer is no where the bound is not held."""
    exam, bound = found.exam, found.goal.max_drop
    loss, unit = found.result.loss, exam.metric.unit
    decided = verdict(loss, bound)
    needed = None
    if decided == "too few samples":
        needed = samples_needed(loss, bound, exam.samples, found.result.changed)
    total = max(sum(macs.values()), 1)
    out = [{"node": node, "macs_share": macs.get(node, 0) / total} for node in found.left_out]
    share = sum(row["macs_share"] for row in out)  # type: ignore[misc]
    road = [_row(number, stop) for number, stop in enumerate(found.road)]
    values: dict[str, Any] = {
        "metric": exam.metric.name, "samples": exam.samples, "max_drop": bound, "drop_unit": unit,
        "float": loss.float_value, "int8": loss.int8_value,
        "drop": loss.drop, "drop_low": loss.low, "drop_high": loss.high, "p_value": loss.p_value,
        "held": found.held, "verdict": decided, "samples_needed": needed,
        "road": road, "front": [road[number] for number in found.front],
        "left_out": {"nodes": out, "macs_share": share},
        **_ratio(found.road[-1]), "search_seconds": round(found.seconds, 3), "in_time": found.in_time,
    }  # fmt: skip
    tables = (_road(found, unit), *([_front(found, unit)] if len(found.front) > 1 else []))
    before = set(describe_times(found.spent))  # of the plan that the search began with
    lines = (
        *_time_lines(found), *(line for line in report.lines if line not in before), *_lines(found, share),
        _verdict(found, decided, needed, written=report.values["output"] is not None),
    )  # fmt: skip
    return replace(
        report,
        values={**report.values, **values},
        tables=(*tables, *report.tables),
        lines=lines,
        passed=report.passed and found.held,
        warnings=(*report.warnings, *([found.warning] if found.warning else [])),
    )


def _row(number: int, stop: Stop) -> dict[str, Any]:
    loss = stop.result.loss
    return {
        "step": number,
        "changed": [{"group": name, "to": rung} for name, rung in stop.moved],
        "drop": loss.drop, "drop_low": loss.low, "drop_high": loss.high, "p_value": loss.p_value,
        "output_error": stop.result.error,
        **_ratio(stop),
    }  # fmt: skip


def _ratio(stop: Stop) -> dict[str, float | None]:
    """Its time relative to that of float, measured."""
    time = stop.time
    ends = (None, None, None) if time is None else (time.ratio, time.low, time.high)
    return dict(zip(("ratio", "ratio_low", "ratio_high"), ends, strict=True))


def _road(found: Found, unit: str) -> Table:
    rows = (
        (str(number), _changed(number, stop), _drop(stop, unit), _time(stop)) for number, stop in enumerate(found.road)
    )
    return Table("road", ("step", "changed", f"drop, {unit} (95 %)", "time / float"), tuple(rows))


def _front(found: Found, unit: str) -> Table:
    """Steps that no other beats in both time and drop, fastest first."""
    rows = ((_time(found.road[number]), _drop(found.road[number], unit), str(number)) for number in found.front)
    return Table("front: steps that none beats in both", ("time / float", "drop", "step"), tuple(rows))


def _changed(number: int, stop: Stop) -> str:
    if not stop.moved:
        return "back to the best so far" if number else "int8 as planned"
    return "; ".join(f"{name}: {BECOMES[rung]}" for name, rung in stop.moved)


def _drop(stop: Stop, unit: str) -> str:
    loss = stop.result.loss
    digits = ".2f" if unit == scores.SHARE else ".4g"
    between = "" if loss.low is None or loss.high is None else f" ({loss.low:{digits}} .. {loss.high:{digits}})"
    return f"{loss.drop:{digits}}{between}"


def _time(stop: Stop) -> str:
    return "-" if stop.time is None else f"{stop.time.ratio:.2f} ({stop.time.low:.2f} .. {stop.time.high:.2f})"


def _time_lines(found: Found) -> Iterator[str]:
    time = found.road[-1].time
    if time is not None:
        yield f"{time.ratio:.2f} ({time.low:.2f} to {time.high:.2f}) of the float time, measured on this CPU"
        if time.low > SLOWER:
            yield "that is slower than float: keep the float model for speed"


def _lines(found: Found, share: float) -> Iterator[str]:
    if found.left_out:
        count = len(found.left_out)
        yield (
            f"left out of int8 for accuracy: {count} node{'s' if count > 1 else ''}, "
            f"{100 * share:.1f} % of the multiplications: {', '.join(found.left_out)}"
        )
    elif found.held and len(found.road) > 1:
        yield "nothing had to leave int8"
    if not found.in_time:
        yield f"stopped after {found.seconds / 60:.1f} minutes with the best so far; --minutes gives it longer"
    if not found.known:
        yield NOT_KNOWN


def _verdict(found: Found, decided: str, needed: int | None, *, written: bool) -> str:
    exam, loss = found.exam, found.result.loss
    unit, samples = exam.metric.unit, exam.samples
    digits = ".2f" if unit == scores.SHARE else ".4g"
    figures = (
        f"{exam.metric.name} drop {loss.drop:{digits}}, allowed {found.goal.max_drop:g} {unit}, on {samples} samples"
    )
    best = "; the best is written all the same" if written else ""
    if decided == "held":
        chosen = ", on the samples it was chosen by" if len(found.road) > 1 else ""
        return f"held (95 % interval {loss.low:{digits}} to {loss.high:{digits}}{chosen}): {figures}"
    if decided == "not held":
        return f"not held: {figures}{best}"
    more = f"{needed:,} samples like these would tell" if needed else "no number of samples like these would tell"
    if found.held:
        return f"held here: {figures}; too few to be certain: {more}"
    return f"not held here: {figures}; too few to be certain: {more}{best}"
