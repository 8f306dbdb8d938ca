"""What goes to stdout and what to stderr, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import re
import sys
import time

import click
import numpy as np
import pytest

from fcdeploy import console
from fcdeploy.errors import FcdeployError
from fcdeploy.records.report import Report, Table

SHOW_CURSOR = "\x1b[?25h"
LONG = "a_layer_with_a_name_" * 12
TABLE = Table(
    "Layers",
    ("layer", "output", "MACs", "share"),
    (("conv [1]", "1 x 16 x 8 x 8", "1,234,567", "12.5 %"), (LONG, "?", "8", "0.1 %"), ("last", "1 x 10", "-", "nan")),
)
REPORT = Report("inspect", {"macs": np.int64(7), "worst": float("-inf")}, (TABLE,), ("first line", "the last line"))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """stdout and stderr as terminals of 60 columns; called in the test itself, since pytest sets both before it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    return out, err


def test_piped_tables_are_plain_whole_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(REPORT, as_json=False, everything=True)
    text, talk = capsys.readouterr()
    title, header, first, second, third, blank, *lines = text.splitlines()
    assert (title, blank, lines) == ("Layers", "", ["first line", "the last line"])
    assert second.split() == [LONG, "?", "8", "0.1", "%"]
    assert "\x1b" not in text
    assert talk == ""
    # names to the left, numbers to the right, also where a cell says that there is none
    assert first.startswith("conv [1]  ")
    assert len({re.search(end, row).end() for end, row in (("MACs", header), ("567", first), (" 8", second))}) == 1  # type: ignore[union-attr]
    assert third.rstrip().endswith("nan")
    assert len(third) == len(first) == len(second)
    assert all(row == row.rstrip() for row in text.splitlines())


def test_a_narrow_terminal_folds_and_never_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = on_terminal(monkeypatch)
    console.show(REPORT, as_json=False, everything=True)
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert "\x1b[" in out.getvalue()
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text
    assert "".join(line.split(" ")[0] for line in text.splitlines()[3:-4]).count("a_layer_with_a_name_") == 12


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = on_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    console.show(REPORT, as_json=False)
    console.show_error(FcdeployError("bad", "do this"))
    assert "\x1b" not in out.getvalue() + err.getvalue()


WORDS = (
    ("made of", "instructions", "products added", "known"),
    (("AVX512", "vpmaddubsw + vpmaddwd", "pairs in 16 bits: saturates", "run"), ("NEON", "umull, umlal", "", "no")),
)


@pytest.mark.parametrize("columns", range(34, 70, 5))
def test_words_are_never_broken(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is a block of lines where its words do not fit side by side."""
    out, _ = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    console.show(Report("doctor", {}, (Table("Kernels", *WORDS),)), as_json=False)
    text = out.getvalue()
    words = {word for line in WORDS[1] for cell in line for word in cell.split()}
    assert words <= set(text.split())
    assert all(len(line) <= columns for line in text.splitlines())
    assert ("AVX512\n  instructions" in text) is (columns < 41)


def test_errors_are_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = on_terminal(monkeypatch)
    console.show_error(FcdeployError("bad", "do this"))
    assert err.getvalue() == "\x1b[31m\x1b[1merror:\x1b[0m bad\n\x1b[36m\x1b[1mhint:\x1b[0m do this\n"


def test_errors_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(FcdeployError("bad\n  thing", "do\nthis"))
    assert capsys.readouterr() == ("", "error: bad thing\nhint: do this\n")


def test_json_is_exactly_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("bench", {"ratio": np.float32(0.5), "db": float("inf"), "é": [np.arange(2)]}, warnings=("careful",))
    console.show(report, as_json=True)
    text, talk = capsys.readouterr()
    assert json.loads(text) == {
        "schema": "fcdeploy.bench/1",
        "ratio": 0.5,
        "db": None,
        "é": [[0, 1]],
        "warnings": ["careful"],
    }
    assert text.lstrip().startswith('{\n  "schema"')
    assert talk == "warning: careful\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_no_is_exit_code_1_after_the_report(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    with pytest.raises(click.exceptions.Exit) as ended:
        console.show(Report("validate", {"passed": False}, lines=("no",), passed=False), as_json=as_json)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().out


def test_empty_tables_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(
        Report("x", {}, (Table("None", ("a",), ()), Table("", ("", ""), (("k", "v"),))), ("end",)), as_json=False
    )
    assert capsys.readouterr().out == "k   v\n\nend\n"


def work(steps: int, total: int | None = 8) -> None:
    with console.progress() as on_step:
        for done in range(1, steps + 1):
            on_step("calibrate", done, total)


def test_progress_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = on_terminal(monkeypatch)
    ticks = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    work(6)
    text = err.getvalue()
    assert out.getvalue() == ""
    assert "calibrate" in text
    assert re.search(r"[2-6]/8  2\.0/s  \d s left", text)
    assert "1/8" not in text  # the first second goes by in silence


def test_a_first_step_that_takes_long_is_drawn_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = on_terminal(monkeypatch)
    monkeypatch.setattr(console, "PATIENCE", 0.05)
    with console.progress() as on_step:
        on_step("import torch", 0, 4)
        until = time.monotonic() + 20
        while "import torch" not in err.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert "import torch" in err.getvalue()


def test_progress_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = on_terminal(monkeypatch)
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    work(5, None)
    assert re.search(r"calibrate.*5 ", err.getvalue())


def test_short_work_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = on_terminal(monkeypatch)
    work(8)
    assert err.getvalue() == ""


def test_progress_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    work(8)
    assert capsys.readouterr() == ("", "")


def test_progress_ends_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = on_terminal(monkeypatch)
    monkeypatch.setattr(console, "PATIENCE", 0.0)

    def fail() -> None:
        with console.progress() as on_step:
            on_step("load", 1, 2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert SHOW_CURSOR in err.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7321, "122 min 01 s")])
def test_durations(seconds: float, text: str) -> None:
    assert console._format_duration(seconds) == text


def test_long_names_are_shortened_in_the_middle_and_stay_different(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"model/{'block/' * 20}{middle}{'/conv' * 12}" for middle in ("one", "two")]
    table = Table("", ("node",), tuple((name,) for name in (*names, "short")))
    console.show(Report("x", {}, (table,)), as_json=False)
    _, *shown, short = capsys.readouterr().out.splitlines()
    assert short == "short"
    assert len(set(shown)) == 2
    for name, text in zip(names, shown, strict=True):
        first, _, last = text.partition("…")
        assert len(text) < len(name) and name.startswith(first) and name.endswith(last)


def test_minor_rows_and_sentences_of_one_kind_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = tuple(f"Conv 'conv{i}' was planned as int8, but runs as FusedConv" for i in range(5))
    table = Table("", ("node",), (("conv",), ("shape",), ("gather",)), frozenset({1, 2}))
    report = Report("x", {}, (table,), warnings=(*warnings, "another"))
    console.show(report, as_json=False)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["node", "conv", "and 2 more rows, of less interest: --all"]
    assert err.splitlines() == [f"warning: {warnings[0]} (and 4 more like it)", "warning: another"]

    console.show(report, as_json=False, everything=True)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["node", "conv", "shape", "gather"]
    assert len(err.splitlines()) == 6
    assert report.to_json()["warnings"] == list(report.warnings)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_number_is_broken_from_its_unit(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tables and in lines; commands stay whole, so that they can be copied."""
    cell = "a drop of 0.12 points, -0.30 to 0.55 points, 41.5 dB, 1.25 ms, 99.4 %, 3 MB"
    command = "next: fcdeploy validate " + "x" * 90
    report = Report("x", {}, (Table("t", ("a", "b"), ((cell, cell),)),), (cell * 3, command))
    out, _ = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    console.show(report, as_json=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert command in lines
    assert not [line for line in lines if re.match(r"\s*(points|dB|ms|MB)\b|\s*%", line)]
    assert all(len(line) <= columns for line in lines if line != command)
    assert console.GLUE not in out.getvalue()
