"""What a command found, as a value: numbers for machines, tables and lines for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fcdeploy.wording import quote_path

NAMES = re.compile(r"'[^']*'|\b\d[\d,.]*")
"""What differs between sentences of one kind: quoted names and numbers."""


@dataclass(frozen=True)
class Table:
    """A titled grid; cells are text, ready to be shown. Rows of `minor`, by index, are left out where space is short."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    minor: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Report:
    """The result of one command.

    `values` is the JSON object that other programs rely on; `tables` and then `lines` are the same for a reader,
    the last line being the one that matters.  `passed` is False when the command ran and the answer is no.  `advice`,
    one sentence on what to do, is read before anything else.
    """

    command: str
    values: dict[str, Any]
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()
    passed: bool = True
    warnings: tuple[str, ...] = field(default=())
    advice: str = ""

    def extend(
        self, *, values: Mapping[str, Any] | None = None, lines: Sequence[str] = (), warnings: Sequence[str] = ()
    ) -> Report:
        """The report with more of each: values, lines in front of the last one, and warnings."""
        return replace(
            self,
            values={**self.values, **(values or {})},
            lines=(*self.lines[:-1], *lines, *self.lines[-1:]),
            warnings=(*self.warnings, *warnings),
        )

    def to_json(self) -> dict[str, Any]:
        """One JSON object; its first key is the schema. Infinities and NaN become null, which JSON can say."""
        cleaned = {key: to_plain(value) for key, value in self.values.items()}
        return {"schema": f"fcdeploy.{self.command}/1", **cleaned, "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Section:
    """A part of a report: one question that was asked of a model, and the answer."""

    values: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def join_sections(command: str, sections: Sequence[Section]) -> Report:
    """The report that has the parts one behind the other, each kind by itself."""
    return Report(
        command,
        {key: value for section in sections for key, value in section.values.items()},
        tuple(table for section in sections for table in section.tables),
        tuple(line for section in sections for line in section.lines),
        warnings=tuple(warning for section in sections for warning in section.warnings),
    )


def merge_alike(sentences: Iterable[str]) -> Iterator[str]:
    """One sentence of each kind, the first, with how many more there are that differ in quoted names and numbers alone."""
    kinds: dict[str, list[str]] = {}
    for sentence in sentences:
        kinds.setdefault(NAMES.sub("", sentence), []).append(sentence)
    for first, *others in kinds.values():
        yield f"{first} (and {len(others)} more like it)" if others else first


def find_repeats(kinds: Iterable[Any], shown: int) -> frozenset[int]:
    """Indices of what came `shown` times before it."""
    counts: dict[Any, int] = {}
    repeats = set()
    for index, kind in enumerate(kinds):
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] > shown:
            repeats.add(index)
    return frozenset(repeats)


def to_plain(value: Any) -> Any:
    """As JSON can say it: infinities and NaN are null, keys text, tuples lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def format_next(*words: str | Path) -> str:
    """The line that names the next command, to be pasted into a shell: paths are quoted where they must be."""
    return " ".join(["next: fcdeploy", *(quote_path(word) if isinstance(word, Path) else word for word in words)])
