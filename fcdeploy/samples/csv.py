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
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.source import Source
from fcdeploy.samples.table import open_table

SEPARATORS = ",;\t"
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


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
    """The rows, split at what separates the columns of the header."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            yield csv.reader(file, delimiter=max(SEPARATORS, key=header.count))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise FcdeployError(f"{path.name} is not a readable CSV: {error}", "save it as CSV in UTF-8") from error
