"""A CSV with a header row: one sample a line, its columns in order are the features of the model's one input.

Columns named `label` or `label.<output>` are labels.  The features take the shape that the input declares, so 784
columns feed an input of 1 x 28 x 28.  Lines are read as they are needed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples import checks
from fcdeploy.samples.source import Load, Source


def open_csv(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check the header row against the model's input."""
    spec = checks.get_only_input(inputs, f"{path.name}: the columns of a CSV")
    with _open_lines(path) as lines:
        columns = next(lines, [])
    features = [column for column in columns if not checks.is_label(column)]
    shape = compute_sample_shape(spec, len(features), path.name)
    parse = int if spec.dtype.kind in "iub" else float

    def read() -> Iterator[tuple[str, Load]]:
        with _open_lines(path) as lines:
            next(lines)
            for index, cells in enumerate(row for row in lines if row):
                where = f"{path.name}, sample {index}"
                yield f"sample {index}", partial(_parse_arrays, cells, columns, spec, shape, parse, where)

    return Source(path.name, (spec,), read, None, len(features) < len(columns), format=format)


def compute_sample_shape(spec: TensorSpec, features: int, source: str) -> tuple[int, ...]:
    """The input's shape without its leading axis; at most one free axis, which takes what is left."""
    if not spec.shape:
        return (features,)
    wanted = spec.shape[1:]
    known = prod(n for n in wanted if n is not None)
    free = wanted.count(None)
    if not features or free > 1 or (features % known if free else features != known):
        raise FcdeployError(
            f"{source} has {features} feature columns, input {spec.name!r} wants "
            f"{checks.format_shape(wanted) if free else known}",
            "one column per feature, a header row first, columns separated by commas",
        )
    return tuple(features // known if n is None else n for n in wanted)


def _parse_arrays(
    cells: list[str],
    columns: list[str],
    spec: TensorSpec,
    shape: tuple[int, ...],
    parse: Callable[[str], Any],
    where: str,
) -> Arrays:
    if len(cells) != len(columns):
        raise FcdeployError(
            f"{where} has {len(cells)} cells, the header has {len(columns)}", "complete the line, or remove it"
        )
    features, labels = [], {}
    for column, cell in zip(columns, cells, strict=True):
        if checks.is_label(column):
            labels[column] = np.asarray(_parse_number(cell, column, _parse_int_or_float, where))
        else:
            features.append(_parse_number(cell, column, parse, where))
    # Python's integers and floats become int64 and float64; the checks narrow them to the model's dtype.
    dtype = np.int64 if parse is int else np.float64
    return {spec.name: np.asarray(features, dtype).reshape(shape), **labels}


def _parse_number(cell: str, column: str, parse: Callable[[str], Any], where: str) -> Any:
    try:
        number = parse(cell)
        if parse is int:
            np.int64(number)
        return number
    except (ValueError, OverflowError):
        kind = "a whole number of 64 bits" if parse is int else "a number"
        raise FcdeployError(
            f"{where}, column {column!r} is {cell!r}, expected {kind}", "correct the cell, or remove the line"
        ) from None


def _parse_int_or_float(cell: str) -> int | float:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


@contextmanager
def _open_lines(path: Path) -> Iterator[Iterator[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FcdeployError(f"{path.name} is not a readable CSV: {error}", "save it as CSV in UTF-8") from error
