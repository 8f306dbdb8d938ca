"""A CSV with a header row: one sample a line; commas, semicolons or tabs between cells, plain or gzipped.

Columns are matched to inputs by name, or are the features of the model's one input in their order: 784 of them fill an input
of 1 x 28 x 28.  A column `label`, or the one that `--label` names, and columns `label.OUTPUT` are labels; labels that are words
become the numbers of classes, in the order of the classes' names.  Lines are read as they are needed.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.tables import TableLayout, arrange_columns, convert_row
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.source import Load, Source

SEPARATORS = ",;\t"
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
MOST_CLASSES = 10_000  # of labels that are words


def is_csv(path: Path) -> bool:
    """By its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def open_csv(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check the header row against the model's inputs."""
    with _open_lines(path) as lines:
        columns = next(lines, [])
    if format.label != "label" and format.label not in columns:
        has = ", ".join(map(repr, columns[:8]))
        raise FcdeployError(
            f"{path.name}: there is no column {format.label!r} of labels, it has {has}", "--label COLUMN"
        )
    layout = arrange_columns(columns, inputs, path.name, known=format.columns, label=format.label)
    classes = format.classes or _find_classes(path, layout)
    known = replace(format, columns=layout.features, classes=classes)

    def read() -> Iterator[tuple[str, Load]]:
        with _open_lines(path) as lines:
            next(lines)
            for index, cells in enumerate(row for row in lines if row):
                where = f"{path.name}, sample {index}"
                yield f"sample {index}", partial(_convert, layout, classes, cells, where)

    return Source(path.name, tuple(inputs), read, None, bool(layout.labels), format=known, files=(path,))


def _convert(layout: TableLayout, classes: Sequence[str], cells: list[str], where: str) -> Arrays:
    """A row whose label may be the name of a class."""
    at = dict(layout.labels).get("label")
    if classes and at is not None and len(cells) == len(layout.columns) and cells[at] in classes:
        cells = [*cells[:at], str(classes.index(cells[at])), *cells[at + 1 :]]
    return convert_row(layout, cells, where)


def _find_classes(path: Path, layout: TableLayout) -> tuple[str, ...]:
    """The words in the column of labels, sorted; none where they are numbers."""
    at = dict(layout.labels).get("label")
    if at is None:
        return ()
    words: set[str] = set()
    with _open_lines(path) as lines:
        next(lines)
        for cells in lines:
            if not cells or len(cells) <= at:
                continue
            if not words and _is_number(cells[at]):
                return ()
            words.add(cells[at])
            if len(words) > MOST_CLASSES:
                raise FcdeployError(
                    f"{path.name}: column {layout.columns[at]!r} has more than {MOST_CLASSES} different words, expected classes",
                    "--label COLUMN names the column of labels",
                )
    return tuple(sorted(words))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


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
