"""The face: reports on stdout, talk on stderr. stdout carries data and nothing else, so it can be piped.

Text is plain wherever it does not go to a terminal, or where NO_COLOR is set.  rich is imported only when a table or
a bar is drawn.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any, Literal

import click

from fcdeploy.errors import FcdeployError
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table, merge_alike
from fcdeploy.wording import shorten_name

PATIENCE = 1.0  # seconds of work before a bar appears; a bar that flashes by tells nobody anything
ENDLESS = 100_000  # columns of something that is no terminal: cells are never wrapped or cut there
GAP = 3  # between two columns
LONGEST = (16, 12)  # letters of a word that is not broken, the second where that keeps a table together
NAME = 48  # letters of a name in a table; a longer one is shortened in the middle
NUMBER = re.compile(r"[-+−±~<>≤≥]?\s?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\s?(%|x|\w{0,3}(/\w{1,3})?)")
UNIT = re.compile(r"(?<=\d) (?=(?:%|dB|points?|ms|us|s|min|[kMG]?B|bytes)(?![\w.]))")
GLUE = "\ue000"  # stands for a space at which no line is broken; of the private use area, so in no text
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NO_NUMBER = {"", "-", "–", "?", "nan", "inf", "-inf"}


def show(report: Report, *, as_json: bool, everything: bool = False) -> None:
    """Print a report: advice, tables and then lines, or exactly one JSON object. Warnings go to stderr, one of a kind.

    `everything` prints the minor rows of tables too, and long names whole.

    Ends the command with exit code 1 when the report says that the answer is no: a command calls this last.
    """
    for warning in report.warnings if everything else merge_alike(report.warnings):
        _talk("warning", warning, "yellow")
    try:
        if as_json:
            text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False, default=_encode_number)
            print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
        else:
            _show_text(report, everything=everything)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; the exit code still counts
        quiet_stdout()
    if not report.passed:
        raise click.exceptions.Exit(1)


def format_report(report: Report) -> str:
    """What `show` prints on stdout for a reader, as text."""
    with redirect_stdout(io.StringIO()) as text:
        _show_text(report, everything=True)
    return text.getvalue().rstrip("\n")


def show_error(problem: FcdeployError) -> None:
    """One `error:` line with what is wrong, one `hint:` line with what to do."""
    _talk("error", problem.message, "red")
    if problem.hint:
        _talk("hint", problem.hint, "cyan")


def say(line: str) -> None:
    """A line of talk from a command that goes on."""
    print(show_control(line), file=sys.stderr, flush=True)


def show_control(text: str) -> str:
    """The text with control characters written out, as in `\\x1b`: names in files of strangers may hold any."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@contextmanager
def progress() -> Iterator[OnStep]:
    """Give a callback `(label, done, total)` that draws a bar on stderr, once the work has taken a second.

    A `total` of None draws a count without an end.  A step that is under way when the second is over is drawn then, by a
    timer, however long it takes.  Where stderr is no terminal nothing is drawn.
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
    early: list[tuple[str, int, int | None]] = []  # the latest step of the first second
    lock = threading.Lock()

    def draw(label: str, done: int, total: int | None, rest: str) -> None:
        early.clear()
        if label not in tasks:
            for finished in tasks.values():
                bar.update(finished, visible=False)
            bar.start()
            tasks[label] = bar.add_task(label, total=total, completed=done, rest=rest)
        bar.update(tasks[label], completed=done, total=total, visible=True, rest=rest)

    def on_step(label: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        start, already = first.setdefault(label, (now, done))
        rest = _describe_progress(done, total, (done - already) / (now - start) if now > start else 0.0)
        with lock:
            if now - begun >= PATIENCE:
                draw(label, done, total, rest)
            else:
                early[:] = [(label, done, total)]

    def catch_up() -> None:
        with lock:
            for label, done, total in tuple(early):
                draw(label, done, total, _describe_progress(done, total, 0.0))

    timer = threading.Timer(PATIENCE, catch_up)
    timer.daemon = True
    timer.start()
    try:
        yield on_step
    finally:
        timer.cancel()
        with lock:
            early.clear()
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


def _show_text(report: Report, *, everything: bool) -> None:
    if report.advice:
        print(show_control(report.advice))
        print()
    blocks = [table for table in report.tables if table.rows]
    for index, table in enumerate(map(_show_control_in, blocks)):
        if index:
            print()
        _show_table(table if everything else _shorten_names(_leave_out_minor(table)))
        if table.minor and not everything:
            print(f"and {len(table.minor)} more rows, of less interest: --all")
    if blocks and report.lines:
        print()
    for line in report.lines:
        for part in _wrap(show_control(line)):
            print(part)


def _wrap(line: str) -> list[str]:
    """On a terminal, lines that end between words and never between a number and its unit; commands stay whole."""
    if not _is_terminal(sys.stdout) or "fcdeploy " in line:
        return [line]
    width = shutil.get_terminal_size().columns
    parts = textwrap.wrap(UNIT.sub(GLUE, line), width, break_long_words=False, break_on_hyphens=False)
    return [part.replace(GLUE, " ") for part in parts] or [line]


def _leave_out_minor(table: Table) -> Table:
    rows = tuple(row for index, row in enumerate(table.rows) if index not in table.minor)
    return Table(table.title, table.columns, rows)


def _show_control_in(table: Table) -> Table:
    rows = tuple(tuple(map(show_control, row)) for row in table.rows)
    return Table(show_control(table.title), table.columns, rows, table.minor)


def _shorten_names(table: Table) -> Table:
    """Long names are shortened in the middle, those of a column so that different ones stay different."""
    columns = [_shorten_column(cells) for cells in zip(*table.rows, strict=True)]
    return Table(table.title, table.columns, tuple(zip(*columns, strict=True)))


def _shorten_column(cells: Sequence[str]) -> list[str]:
    words = {word for cell in cells for word in cell.split() if len(word) > NAME}  # bars of a histogram are none
    words = {word for word in words if any(map(str.isalnum, word))}
    letters = NAME
    while len({shorten_name(word, letters) for word in words}) < len(words):
        letters += 8
    shown = {word: shorten_name(word, letters) for word in words}
    return (
        [re.sub(r"\S+", lambda match: shown.get(match[0], match[0]), cell) for cell in cells] if words else list(cells)
    )


def _show_table(table: Table) -> None:
    """Title, column names, cells; no lines. On a narrow terminal cells are folded, never cut, nor words broken.

    Where not even the words fit side by side, a row is a block of lines.
    """
    from rich.table import Table as Grid
    from rich.text import Text

    console, styled = _make_console(sys.stdout), _is_styled(sys.stdout)
    rows = tuple(tuple(UNIT.sub(GLUE, cell) for cell in row) for row in table.rows)
    table = Table(table.title, table.columns, rows)
    widths = _fit_columns(console, table)
    grid = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim" if styled else "")
    grid.show_header = any(table.columns)
    free: list[int | None] = [None] * len(table.columns)
    for width, name, *cells in zip(widths or free, table.columns, *table.rows, strict=True):
        side: Literal["left", "right"] = "right" if _is_numeric(cells) else "left"
        grid.add_column(Text(name), justify=side, overflow="fold", width=width)
    for row in table.rows:
        grid.add_row(*map(Text, row))
    blocks = [grid] if widths else [block for row in table.rows for block in _make_block(table.columns, row)]

    with console.capture() as captured:  # so that it is print that meets a closed pipe: rich would exit by itself
        if table.title:
            console.print(Text(table.title, style="bold" if styled else ""), soft_wrap=True)
        for block in blocks:
            console.print(block)
    for line in captured.get().replace(GLUE, " ").splitlines():
        print(line.rstrip())


def _fit_columns(console: Any, table: Table) -> list[int] | None:
    """Each column's width: its longest word's, and a share of what is left, as far as its cells want more.

    A word longer than LONGEST is a name or a path, which may be folded.  None where the words alone need more: rich by
    itself would break them.
    """
    from rich.measure import Measurement
    from rich.text import Text

    columns = [Text("\n".join(cells)) for cells in zip(table.columns, *table.rows, strict=True)]
    sizes = [Measurement.get(console, console.options, column) for column in columns]
    for longest in LONGEST:
        words = [min(size.minimum, longest) for size in sizes]
        wanted = [size.maximum - word for size, word in zip(sizes, words, strict=True)]
        left = min(console.width - GAP * (len(sizes) - 1) - sum(words), sum(wanted))
        if left >= 0:
            return [word + left * more // max(sum(wanted), 1) for word, more in zip(words, wanted, strict=True)]
    return None


def _make_block(columns: Sequence[str], row: Sequence[str]) -> tuple[Any, Any]:
    """A row's first cell, and below it the others, each behind its column's name."""
    from rich.padding import Padding
    from rich.table import Table as Grid
    from rich.text import Text

    rest = Grid.grid(padding=(0, GAP, 0, 0))
    rest.add_column(min_width=max(map(len, columns)), no_wrap=True)
    rest.add_column(overflow="fold")
    for name, cell in zip(columns[1:], row[1:], strict=True):
        if cell:
            rest.add_row(Text(name), Text(cell))
    return Text(row[0], overflow="fold"), Padding(rest, (0, 0, 0, 2))


def _make_console(file: IO[str]) -> Any:
    from rich.console import Console

    class PipeConsole(Console):
        """Rich ends the process with 1 where nobody reads any more; here that is for the caller to say."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    terminal = _is_terminal(file)
    return PipeConsole(
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
    return bool(numbers) and all(NUMBER.fullmatch(cell.strip().replace(GLUE, " ")) for cell in numbers)


def _talk(kind: str, text: str, colour: str) -> None:
    """One line on stderr; what comes from elsewhere may hold line breaks, and stays one line."""
    head = click.style(f"{kind}:", fg=colour, bold=True) if _is_styled(sys.stderr) else f"{kind}:"
    with suppress(BrokenPipeError):
        print(head, show_control(" ".join(text.split())), file=sys.stderr, flush=True)


def _is_terminal(file: IO[str]) -> bool:
    return file.isatty() and os.environ.get("TERM") != "dumb"


def _is_styled(file: IO[str]) -> bool:
    return _is_terminal(file) and not os.environ.get("NO_COLOR")


def _encode_number(value: Any) -> Any:
    """NumPy's numbers and arrays, which json does not know."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
