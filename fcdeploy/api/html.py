"""A report as HTML for a notebook: the tables and lines of the terminal, in the notebook's own style."""

from __future__ import annotations

from html import escape

from fcdeploy.records.report import Report, Table

FOLDED = 12  # rows of a table that are shown at once


def to_html(report: Report) -> str:
    """Advice, tables (long ones folded), lines and warnings."""
    parts = [f"<p><b>{escape(report.advice)}</b></p>"] if report.advice else []
    parts += [_make_table(table) for table in report.tables if table.rows]
    parts += [f"<p>{'<br>'.join(map(escape, report.lines))}</p>"] if report.lines else []
    parts += [f"<p><em>warning: {escape(text)}</em></p>" for text in report.warnings]
    return f'<div class="fcdeploy">{"".join(parts)}</div>'


def _make_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    title = escape(table.title) or "table"
    if len(table.rows) > FOLDED:
        return f"<details><summary>{title}: {len(table.rows)} rows</summary>{whole}</details>"
    return f"<p>{title}</p>{whole}" if table.title else whole
