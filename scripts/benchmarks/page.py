"""docs/benchmarks.md: each benchmark writes its own section and leaves the others as they are."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import fcdeploy
from fcdeploy.commands.doctor import doctor

TITLE = "# Benchmarks\n"


def write_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the section's marks, at the end of the page where it has none yet."""
    start, end = f"<!-- {name}: written by scripts/bench {name} -->", f"<!-- end of {name} -->"
    section = f"{start}\n\n{text.strip()}\n\n{end}\n"
    before = page.read_text() if page.exists() else TITLE
    marked = re.compile(rf"{re.escape(start)}.*?{re.escape(end)}\n", re.DOTALL)
    after = marked.sub(lambda _: section, before) if marked.search(before) else f"{before.rstrip()}\n\n{section}"
    page.write_text(after)


def made_by(command: str) -> str:
    """The command, the CPU and the versions that figures come from."""
    machine = doctor().values
    cpu = f"{machine['cpu']} ({', '.join(k for k, found in machine['instructions'].items() if found)})"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    made = f"Written by `{command}` on {cpu}, with {versions}, fcdeploy {fcdeploy.__version__}."
    return textwrap.fill(made, 120, break_on_hyphens=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; all columns but the first `words` are figures, on the right."""
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def decibels(value: float) -> str:
    return "identical" if value == math.inf else f"{value:.1f} dB"


def interval(median: float, low: float, high: float) -> str:
    """A ratio of times with its 95 % interval."""
    return f"{median:.2f} ({low:.2f} .. {high:.2f})"
