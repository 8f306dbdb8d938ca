"""Whether kernels compute what exact arithmetic does, as tables and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcdeploy.proof.exact import Exactness, LayerExactness, describe_exactness
from fcdeploy.records.report import Section, Table


def report_exactness(exactness: Exactness) -> Section:
    """For programs a row a layer; for readers the tables and what follows."""
    values = {
        "exact": [_describe_layer(row) for row in exactness.rows],
        "exact_floats": [_describe_layer(row) for row in exactness.floats],
        "exact_passed": exactness.passed,
    }
    return Section(values, tuple(_make_tables(exactness)), (describe_exactness(exactness),))


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
