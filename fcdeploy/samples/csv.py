"""A CSV with a header row: one sample a line; commas, semicolons or tabs between cells, plain or gzipped.

Lines are read as they are needed.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.tables import find_separator
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.source import Source
from fcdeploy.samples.table import open_table

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
MOST_LETTERS = 1 << 24  # of a row: ten times what a picture of 3 x 224 x 224 has as text


def is_csv(path: Path) -> bool:
    """By its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def open_csv(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check the header row against the model's inputs."""
    with _open_lines(path) as lines:
        columns = next(lines, [])
    return open_table(path, columns, partial(_open_rows, path), inputs, format)


@contextmanager
def _open_rows(path: Path) -> Iterator[Iterator[list[str]]]:
    with _open_lines(path) as lines:
        next(lines)
        yield (cells for cells in lines if cells)


@contextmanager
def _open_lines(path: Path) -> Iterator[Iterator[list[str]]]:
    """The rows, split at what separates the columns of the header. Raises FcdeployError, and where one is endless."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            yield _read_rows(_BoundedLines(file, path.name))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        refuse_unread(str(path), error)
        raise FcdeployError(f"{path.name} is not a readable CSV: {error}", "save it as CSV in UTF-8") from error


class _BoundedLines:
    """The lines of a file; those of one row, which quotes may hold together, have at most so many letters."""

    def __init__(self, file: io.TextIOWrapper, name: str) -> None:
        self.file = file
        self.name = name
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        while line := self.file.readline(MOST_LETTERS + 1 - self.taken):
            self.taken += len(line)
            if self.taken > MOST_LETTERS:
                raise FcdeployError(
                    f"{self.name} has a row of more than {MOST_LETTERS:,} letters, expected a sample a line",
                    "write a line per sample; an .npz holds wide samples in less space",
                )
            yield line


def _read_rows(lines: _BoundedLines) -> Iterator[list[str]]:
    """The cells of each row."""
    rest = iter(lines)
    first = next(rest, "")
    for cells in csv.reader(chain([first], rest), delimiter=find_separator(first)):
        lines.taken = 0
        yield cells
