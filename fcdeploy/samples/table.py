"""A table with a name for each column: one sample a row, whatever file it is in.

Columns are matched to inputs by name, or are the features of the model's one input in their order: 784 of them fill an input
of 1 x 28 x 28.  A column `label`, or the one that `--label` names, and columns `label.OUTPUT` are labels; labels that are words
become the numbers of classes, in the order of the classes' names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.tables import TableLayout, arrange_columns, convert_row
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.class_labels import collect_classes, find_class, is_numeral
from fcdeploy.samples.source import Load, Source

OpenRows = Callable[[], AbstractContextManager[Iterator[Sequence[Any]]]]
"""Opens the rows, each a cell for every column: text, or numbers as Python has them, None where nothing is known."""


def open_table(
    path: Path, columns: Sequence[str], open_rows: OpenRows, inputs: Sequence[TensorSpec], format: DataFormat
) -> Source:
    """Check the columns against the model's inputs. Raises FcdeployError."""
    if format.label != "label" and format.label not in columns:
        raise FcdeployError(
            f"{path.name}: there is no column {format.label!r} of labels, it has {quote_names(columns)}",
            "--label COLUMN",
        )
    layout = arrange_columns(columns, inputs, path.name, known=format.columns, label=format.label)
    classes = format.classes or _find_classes(path, layout, open_rows)
    known = replace(format, columns=layout.features, classes=classes)

    def read() -> Iterator[tuple[str, Load]]:
        with open_rows() as rows:
            for index, cells in enumerate(rows):
                where = f"{path.name}, sample {index}"
                yield f"sample {index}", partial(_convert, layout, classes, cells, where)

    return Source(path.name, tuple(inputs), read, None, bool(layout.labels), format=known, files=(path,))


def _convert(layout: TableLayout, classes: Sequence[str], cells: Sequence[Any], where: str) -> Arrays:
    """A row whose label may be the name of a class. Raises FcdeployError where it is empty."""
    at = dict(layout.labels).get("label")
    if at is not None and len(cells) == len(layout.columns):
        if _is_empty(cells[at]):
            raise FcdeployError(
                f"{where}, column {layout.columns[at]!r}: label is empty",
                "fill it in, or remove the row; fcdeploy calibrate --skip-bad leaves such rows out",
            )
        if classes and isinstance(cells[at], str) and (cells[at] in classes or not is_numeral(cells[at])):
            number = find_class(cells[at], classes, f"{where}, column {layout.columns[at]!r}")
            cells = [*cells[:at], str(number), *cells[at + 1 :]]
    return convert_row(layout, cells, where)


def _find_classes(path: Path, layout: TableLayout, open_rows: OpenRows) -> tuple[str, ...]:
    """The words in the column of labels, sorted; none where they are numbers. An empty cell is no class."""
    at = dict(layout.labels).get("label")
    if at is None:
        return ()
    with open_rows() as rows:
        cells = (row[at] for row in rows if len(row) > at and not _is_empty(row[at]))
        first = next(cells, None)
        if not isinstance(first, str):
            return ()
        return collect_classes(map(str, chain([first], cells)), f"{path.name}: column {layout.columns[at]!r}")


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())
