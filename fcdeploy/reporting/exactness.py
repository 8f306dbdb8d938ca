"""Whether kernels compute what exact arithmetic does, as tables and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcdeploy.proof.exact import Exactness, LayerExactness
from fcdeploy.records.report import Report, Section, Table
from fcdeploy.wording import say_count


def report_exactness(exactness: Exactness) -> Section:
    """For programs a row a layer; for readers the tables and what follows."""
    values = {
        "exact": [_describe_layer(row) for row in exactness.rows],
        "exact_floats": [_describe_layer(row) for row in exactness.floats],
        "exact_passed": exactness.passed,
    }
    return Section(values, tuple(_make_tables(exactness)), (describe_exactness(exactness),))


def add_ties(report: Report, exactness: Exactness | None) -> Report:
    """Add to a report what of a model differs from exact arithmetic, where that was counted."""
    if exactness is None:
        return report.extend(values={"ties": None})
    said = describe_exactness(exactness)
    return report.extend(values={"ties": exactness.total}, lines=[said], warnings=[] if exactness.passed else [said])


def describe_exactness(result: Exactness) -> str:
    """Describe the result in one line."""
    total, bad, away = result.total, *([row for row in rows if not row.passed] for rows in (result.rows, result.floats))
    of, layers = sum(row.of for row in result.rows), say_count(len(result.rows), "layer")
    elements = f"{total['elements']:,} elements" + ("" if total["elements"] == of else f", drawn from {of:,},")
    if not result.undisturbed:
        return "not proven: looking at the integers changed the model's outputs on this runtime"
    if bad:
        worst = bad[0]
        by = f"{worst.levels:.3g} levels on {100 * worst.share:.3g} % of its elements"
        return f"not exact: {len(bad)} of {layers} differ from 32-bit sums, {worst.op} {worst.node!r} by up to {by}"
    if away:
        by = f"{away[0].levels:.3g} levels on {100 * away[0].share:.3g} % of its elements"
        return f"not exact: float {away[0].op} {away[0].node!r} differs between paths through the runtime, by {by}"
    if not result.rows:
        return f"not proven: none of {say_count(len(result.skipped), 'node')} on bytes was compared" if result.skipped else (
            "no layer computes on bytes"
        )  # fmt: skip
    and_floats = f"; {say_count(len(result.floats), 'float result')} the same on every path" if result.floats else ""
    if not total["differ"]:
        return f"exact: all {elements} in {layers} are those of exact arithmetic{and_floats}"
    halves = f", {total['halves']:,} of them exactly half-way" if total["halves"] else ""
    ties = f"{total['differ']:,} of {elements} in {layers} differ, by one level at most: rounding ties{halves}"
    return f"exact: {ties}{and_floats}"


def _describe_layer(row: LayerExactness) -> dict[str, Any]:
    return {
        "node": row.node,
        "op": row.op,
        "elements": row.elements,
        "of": row.of,
        "differ": row.differ,
        "share": row.share,
        "levels": row.levels,
        "halves": row.halves,
    }


def _make_cells(rows: Sequence[LayerExactness]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            row.node,
            row.op,
            f"{row.elements:,}" if row.elements == row.of else f"{row.elements:,} of {row.of:,}, drawn",
            f"{row.differ:,}",
            f"{100 * row.share:.3g} %",
            f"{row.levels:.3g}",
            "not exact" if not row.passed else "ties" if row.differ else "within 1e-5" if row.floats else "exact",
        )
        for row in rows
    )


def _make_tables(exactness: Exactness) -> list[Table]:
    columns = ("layer", "op", "compared", "differ", "share", "levels", "")
    tables = [Table("What the kernels write here, against exact arithmetic", columns, _make_cells(exactness.rows))]
    if exactness.floats:
        title = "Float nodes from the same integers, on every path through the runtime"
        tables.append(Table(title, columns, _make_cells(exactness.floats)))
    if exactness.skipped:
        why = tuple((row.node, row.op, row.why) for row in exactness.skipped)
        tables.append(Table("Not compared", ("layer", "op", "why"), why))
    return tables
