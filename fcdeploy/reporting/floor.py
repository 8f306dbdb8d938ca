"""What holding the floor came to, added to the report of what was written, or instead of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcdeploy.arithmetic.outliers import Outlier, find_outliers
from fcdeploy.int8.calibrating.statistics import PLENTY
from fcdeploy.int8.judging.fidelity import format_noise
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.int8.timing.costs import CostBasis, format_interval, format_ratio
from fcdeploy.int8.timing.final_times import FinalTimes
from fcdeploy.records.costs import TimeTrial
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.times import list_ratios
from fcdeploy.search.candidates import Candidate
from fcdeploy.search.hold_floor import FloorResult
from fcdeploy.sensitivity.advice import NO_CHANGE
from fcdeploy.wording import list_some, quote_path, say_count, shorten_name

NAMED = 3  # tensors with a tail or an outlier channel, the furthest, that are named as likely causes
MUCH = 0.5  # of the multiplications: where more left int8, that is what is said first
NOTABLE_DB = 0.5  # of gain by a simpler setting: below it nobody need know


def add_floor(
    report: Report, held: FloorResult, basis: CostBasis, macs: Mapping[str, int], times: FinalTimes
) -> Report:
    """The report with how the model was judged, what was left out for it, what is still missed, and the `times` it came to."""
    judgement, unseen = held.chosen.judgement, held.chosen.problem.unseen
    lines = [
        f"judged: {judgement.summary()} {_describe_samples(held.chosen)}",
        *_describe_choice(held),
        *_describe_left_out(held, macs),
        *_describe_outliers(held),
    ]
    values = {**report.values, **_values(held, unseen), "sqnr_db": judgement.worst_db}
    if held.left_out and basis.costs is not None:  # what was measured before is of another plan
        values |= list_ratios(times.usual)
        if times.usual is None:
            lines.append("the time was not measured again: fcdeploy bench OUT --against FLOAT does")
    lines += _describe_times(times)
    values |= {"ratio_at_largest": times.largest and times.largest.ratio}
    below = [f"below the floor, and accepted: {text}" for text in held.misses]
    warnings = (*below, *judgement.doubts(held.floor), *report.warnings)
    advice = lead_with_doubt(report.advice, judgement, held.floor)
    advice = lead_with_cost(advice, _share_left_out(held, macs), times.usual)
    if "advice" in values:
        values["advice"] = advice
    return replace(
        report,
        values=values,
        advice=advice,
        lines=(*report.lines[:-1], *lines, *report.lines[-1:]),
        warnings=warnings,
    )


def lead_with_share(report: Report) -> Report:
    """The report, whose first line does not say that all is well where less than half of the multiplications are in integers."""
    share = report.values.get("integer_share")
    if share is None or share >= MUCH or not report.advice.startswith(NO_CHANGE):
        return report
    advice = f"{100 * share:.0f} % of the multiplications are in integers: {report.advice.removeprefix(NO_CHANGE)}"
    return replace(report, advice=advice, values={**report.values, "advice": advice})


def lead_with_doubt(advice: str, judgement: Judgement, floor: Floor) -> str:
    """The first line of a result that is below the floor, accepted or by what may be chance: it needs no change only above."""
    short = judgement.shortfall(floor) > 0 or judgement.shortfall_by_chance(floor) > 0
    return advice.removeprefix(NO_CHANGE) if short else advice


def lead_with_cost(advice: str, share: float, usual: TimeTrial | None) -> str:
    """The first line of a result of which `share` of the multiplications left int8: where that is much, it comes first."""
    if share < MUCH:
        return advice
    time = "" if usual is None else f", at {format_ratio(usual)} of the float time"
    cost = f"{100 * share:.0f} % of the multiplications left int8 to hold the floor{time}"
    return cost if not advice else f"{cost}: {advice.removeprefix(NO_CHANGE)}"


def _share_left_out(held: FloorResult, macs: Mapping[str, int]) -> float:
    return sum(macs.get(node, 0) for node in held.left_out) / max(sum(macs.values()), 1)


def _describe_times(times: FinalTimes) -> Iterator[str]:
    if times.usual is not None:
        yield f"{format_interval(times.usual)} of the float time with what left int8, measured on this CPU"
    if times.largest is not None:
        yield f"{format_interval(times.largest)} of the float time at the largest samples, {times.shapes}"


def build_refusal(model: Path, held: FloorResult, seconds: float) -> Report:
    """The report of a model that was not written."""
    reasons = "; ".join(held.misses)
    rows = tuple(_row(candidate) for candidate in held.tried)
    if held.left_out:
        rows = (*rows, (f"{say_count(len(held.left_out), 'node')} in float", *_row(held.chosen)[1:]))
    table = Table("tried", ("what", "equal decisions", "worst output"), rows)
    return Report(
        "quantize",
        {
            "output": None,
            "seconds": round(seconds, 3),
            **_values(held, None),
            "sqnr_db": held.chosen.judgement.worst_db,
        },
        (table,),
        (
            *_describe_outliers(held),
            _suggest(model, held),
        ),
        passed=False,
        advice=f"not written: {reasons}",
    )


def _suggest(model: Path, held: FloorResult) -> str:
    """What is left to try: weights alone where something computes with integers."""
    said = "to write it all the same: --accept; to ask for less: --floor"
    if set(held.tried[0].plan.kinds.values()) <= {"float", "weight_only"}:
        return said
    return f"{said}; fcdeploy quantize {quote_path(model)} --weights int8 --activations none rounds weights alone"


def _describe_samples(chosen: Candidate) -> str:
    """What is known of the samples that were judged, and what flatters the figures."""
    problem = chosen.problem
    if not problem.unseen:
        return "also used for corrections, since there are no others"
    known = problem.calibration.tensors
    ranged = any(known[name].kind in ("input", "activation") for name in chosen.plan.tensors if name in known)
    if problem.ranges_apart or not ranged or problem.calibration.samples >= PLENTY:
        return "kept apart"
    return f"kept apart from corrections; the ranges of all {problem.calibration.samples} samples flatter them"


def _describe_choice(held: FloorResult) -> list[str]:
    """What the default setting would have come to, where another was clearly better."""
    first, chosen = held.tried[0], held.chosen
    if chosen.name == first.name:
        return []
    gain = chosen.judgement.worst_db - first.judgement.worst_db
    if gain < NOTABLE_DB and not held.left_out:
        return []
    return [f"taken: {chosen.name}; the usual setting comes to {first.judgement.summary()}"]


def _describe_left_out(held: FloorResult, macs: Mapping[str, int]) -> list[str]:
    if not held.left_out:
        return []
    share = _share_left_out(held, macs)
    nodes = ", ".join(repr(shorten_name(name)) for name in held.left_out[:3])
    nodes += ", ..." if len(held.left_out) > 3 else ""
    before = max((candidate.judgement for candidate in held.tried), key=lambda judgement: judgement.worst_db)
    return [
        f"{say_count(len(held.left_out), 'node')} with {100 * share:.0f} % of the multiplications left int8 to hold the floor "
        f"({nodes}); without that: {before.summary()}"
    ]


def _find_outliers(held: FloorResult) -> list[Outlier]:
    """What one scale for a tensor does not fit, of tensors that the plan had in bytes, where the floor took something."""
    problem, planned = held.tried[0].problem, held.tried[0].plan.tensors
    if not (held.left_out or held.misses):
        return []
    return find_outliers(
        record for name, record in problem.calibration.tensors.items() if name in planned and record.kind != "weight"
    )


def _describe_outliers(held: FloorResult) -> list[str]:
    found = _find_outliers(held)
    shown = [replace(outlier, tensor=shorten_name(outlier.tensor)) for outlier in found]
    return [f"one scale does not fit all: {list_some([*map(str, shown)], NAMED, '; ')}"] if found else []


def _values(held: FloorResult, unseen: bool | None) -> dict[str, Any]:
    judgement = held.chosen.judgement
    return {
        "floor": {
            "decisions": held.floor.decisions,
            "sqnr_db": held.floor.sqnr_db,
            "held": not held.misses,
            "misses": list(held.misses),
            "samples": judgement.samples,
            "unseen": unseen,
            "equal_decisions": {name: judgement.share(name) for name in judgement.equal},
            "outputs": [{"name": name, "sqnr_db": db} for name, db in judgement.sqnr_db.items()],
            "left_out": list(held.left_out),
            "outliers": [{"tensor": o.tensor, "channel": o.channel, "times": o.times} for o in _find_outliers(held)],
            "tried": [{"what": c.name or "as planned", **_figures(c.judgement)} for c in held.tried],
        }
    }


def _figures(judgement: Judgement) -> dict[str, float]:
    return {"changed_samples": round(judgement.changed, 3), "sqnr_db": judgement.worst_db}


def _row(candidate: Candidate) -> tuple[str, str, str]:
    judgement = candidate.judgement
    shares = ", ".join(f"{100 * judgement.share(name):.1f} %" for name in judgement.equal) or "-"
    return candidate.name or "as planned", shares, format_noise(judgement.worst_db)
