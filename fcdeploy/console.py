"""The face: reports on stdout, talk on stderr. stdout carries data and nothing else, so it can be piped.

Text is plain wherever it does not go to a terminal, or where NO_COLOR is set.  rich is imported only when a table or
a bar is drawn.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from fcdeploy.errors import FcdeployError
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table

PATIENCE = 1.0  # seconds of work before a bar appears; a bar that flashes by tells nobody anything
ENDLESS = 100_000  # columns of something that is no terminal: cells are never wrapped or cut there
GAP = 3  # between two columns
LONGEST = (16, 12)  # letters of a word that is not broken, the second where that keeps a table together
NUMBER = re.compile(r"[-+−±~<>≤≥]?\s?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\s?(%|x|\w{0,3}(/\w{1,3})?)")
NO_NUMBER = {"", "-", "–", "?", "nan", "inf", "-inf"}


def show(report: Report, *, as_json: bool) -> None:
    """Print a report: advice, tables and then lines, or exactly one JSON object. Warnings go to stderr.

    Ends the command with exit code 1 when the report says that the answer is no: a command calls this last.
    """
    for warning in report.warnings:
        _talk("warning", warning, "yellow")
    try:
        if as_json:
            print(json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False, default=_encode_number))
        else:
            _show_text(report)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; the exit code still counts
        quiet_stdout()
    if not report.passed:
        raise click.exceptions.Exit(1)


def show_error(problem: FcdeployError) -> None:
    """One `error:` line with what is wrong, one `hint:` line with what to do."""
    _talk("error", problem.message, "red")
    if problem.hint:
        _talk("hint", problem.hint, "cyan")


def say(line: str) -> None:
    """A line of talk from a command that goes on."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[OnStep]:
    """Give a callback `(label, done, total)` that draws a bar on stderr, once the work has taken a second.

    A `total` of None draws a count without an end.  Where stderr is no terminal nothing is drawn.
    """
    if not _is_terminal(sys.stderr):
        yield lambda *_: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[rest]}"))
    bar = Progress(*columns, console=_make_console(sys.stderr), transient=True)
    begun = time.monotonic()
    first: dict[str, tuple[float, int]] = {}
    tasks: dict[str, Any] = {}

    def on_step(label: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        start, already = first.setdefault(label, (now, done))
        if now - begun < PATIENCE:
            return
        rest = _describe_progress(done, total, (done - already) / (now - start) if now > start else 0.0)
        if label not in tasks:
            for finished in tasks.values():
                bar.update(finished, visible=False)
            bar.start()
            tasks[label] = bar.add_task(label, total=total, completed=done, rest=rest)
        bar.update(tasks[label], completed=done, total=total, visible=True, rest=rest)

    try:
        yield on_step
    finally:
        bar.stop()


def quiet_stdout() -> None:
    """Nobody reads stdout any more: let what is left in its buffer go nowhere instead of raising at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe_progress(done: int, total: int | None, rate: float) -> str:
    """'96/512  230/s  2 s left'."""
    parts = [str(done) if total is None else f"{done}/{total}"]
    if rate > 0:
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if total is not None and total > done:
            parts.append(f"{_format_duration((total - done) / rate)} left")
    return "  ".join(parts)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _show_text(report: Report) -> None:
    if report.advice:
        print(report.advice)
        print()
    blocks = [table for table in report.tables if table.rows]
    for index, table in enumerate(blocks):
        if index:
            print()
        _show_table(table)
    if blocks and report.lines:
        print()
    for line in report.lines:
        print(line)


def _show_table(table: Table) -> None:
    """Title, column names, cells; no lines. On a narrow terminal cells are folded, never cut, nor words broken.

    Where not even the words fit side by side, a row is a block of lines.
    """
    from rich.table import Table as Grid
    from rich.text import Text

    styled = _is_styled(sys.stdout)
    console = _make_console(sys.stdout)
    widths = _widths(table, console.width)
    if widths is None:
        _show_blocks(table, console.width)
        return
    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim" if styled else "")
    grid.show_header = any(table.columns)
    for index, name in enumerate(table.columns):
        right = _is_numeric([row[index] for row in table.rows])
        grid.add_column(Text(name), justify="right" if right else "left", overflow="fold", width=widths[index])
    for row in table.rows:
        grid.add_row(*map(Text, row))
    with console.capture() as captured:  # so that it is print that meets a closed pipe: rich would exit by itself
        if table.title:
            console.print(Text(table.title, style="bold" if styled else ""), soft_wrap=True)
        console.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _widths(table: Table, room: int) -> list[int] | None:
    """Each column's width: as its cells want, or where that is too much, the words' and what room is left beside them.

    A word longer than LONGEST is a name or a path, which may be folded.  None where the words alone need more.
    """
    return next((found for longest in LONGEST if (found := _fitting(table, room, longest))), None)


def _fitting(table: Table, room: int, longest: int) -> list[int] | None:
    columns = [[name, *cells] for name, *cells in zip(table.columns, *table.rows, strict=True)]
    wanted = [max(map(len, cells)) for cells in columns]
    widths = [max((min(len(word), longest) for cell in cells for word in cell.split()), default=1) for cells in columns]
    left = room - GAP * (len(columns) - 1) - sum(widths)
    if left < 0:
        return None
    for _ in range(min(left, sum(wanted) - sum(widths))):
        short = [want - width for want, width in zip(wanted, widths, strict=True)]
        widths[short.index(max(short))] += 1
    return widths


def _show_blocks(table: Table, room: int) -> None:
    """Each row as its first cell and below it the others, each behind its column's name."""
    if table.title:
        print(table.title)
    names = max(map(len, table.columns))
    for row in table.rows:
        print(textwrap.fill(row[0], room))
        for name, cell in zip(table.columns[1:], row[1:], strict=True):
            if cell:
                start = f"  {name:{names}}{' ' * GAP}"
                print(textwrap.fill(cell, room, initial_indent=start, subsequent_indent=" " * len(start)))


def _make_console(file: IO[str]) -> Any:
    from rich.console import Console

    terminal = _is_terminal(file)
    return Console(
        file=file,
        force_terminal=terminal,
        no_color=not _is_styled(file),
        width=None if terminal else ENDLESS,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _is_numeric(cells: list[str]) -> bool:
    """Right-align a column of numbers, with or without a unit; cells that say there is none do not matter."""
    numbers = [cell for cell in cells if cell.strip().lower() not in NO_NUMBER]
    return bool(numbers) and all(NUMBER.fullmatch(cell.strip()) for cell in numbers)


def _talk(kind: str, text: str, colour: str) -> None:
    """One line on stderr; what comes from elsewhere may hold line breaks, and stays one line."""
    head = click.style(f"{kind}:", fg=colour, bold=True) if _is_styled(sys.stderr) else f"{kind}:"
    with suppress(BrokenPipeError):
        print(head, " ".join(text.split()), file=sys.stderr, flush=True)


def _is_terminal(file: IO[str]) -> bool:
    return file.isatty() and os.environ.get("TERM") != "dumb"


def _is_styled(file: IO[str]) -> bool:
    return _is_terminal(file) and not os.environ.get("NO_COLOR")


def _encode_number(value: Any) -> Any:
    """NumPy's numbers and arrays, which json does not know."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
