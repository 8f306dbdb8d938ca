"""Rows of a table to inputs: columns are matched to inputs by name, or are the features of the one input in their order.

A model of one input takes the columns as its features; 784 of them fill 1 x 28 x 28.  A model whose inputs are named as
columns are, one column each, as scikit-learn pipelines become, takes them by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf, prod
from typing import Any

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names, suggest_name
from fcdeploy.records.signature import TensorSpec, format_shape

SEPARATORS = ",;\t"


def find_separator(header: str) -> str:
    """What separates the names in the header row of a CSV; what stands in quotes separates nothing."""
    return max(SEPARATORS, key="".join(header.split('"')[::2]).count)


@dataclass(frozen=True)
class TableLayout:
    """Where an input's numbers are in a row: input -> positions of its columns, and the shape that they take."""

    columns: tuple[str, ...]
    inputs: tuple[tuple[TensorSpec, tuple[int, ...], tuple[int, ...]], ...]
    labels: tuple[tuple[str, int], ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are read, in the order of the inputs."""
        return tuple(self.columns[at] for _, places, _ in self.inputs for at in places)


def arrange_columns(
    columns: Sequence[str], specs: Sequence[TensorSpec], source: str, *, known: Sequence[str] = (), label: str = "label"
) -> TableLayout:
    """Find each input's columns. `known` are the features, in order, that the model was calibrated with.

    The column `label`, and columns label.OUTPUT, are labels.  Raises FcdeployError.
    """
    if len(set(columns)) < len(columns):
        twice = Counter(columns).most_common(1)[0][0]
        raise FcdeployError(f"{source}: column {twice[:60]!r} is there twice", "rename one of them")
    labels = tuple(
        ("label" if name == label else name, at)
        for at, name in enumerate(columns)
        if name == label or name.startswith("label.")
    )
    marked = {place for _, place in labels}
    features = {name: at for at, name in enumerate(columns) if at not in marked}
    if len(specs) > 1 or (len(columns) > 1 and specs and specs[0].name in features):
        return TableLayout(tuple(columns), _match_inputs(features, specs, source), labels)
    (spec,) = specs
    places = _find_places(features, known, source)
    return TableLayout(tuple(columns), ((spec, places, _fit_shape(spec, len(places), source)),), labels)


def _find_places(features: Mapping[str, int], known: Sequence[str], source: str) -> tuple[int, ...]:
    """Where the `known` features are, in their order; where none is there, the columns have other names for the same."""
    if not set(known) & set(features):
        return tuple(features.values())
    for name in known:
        if name not in features:
            raise _make_missing_error(name, features, source)
    return tuple(features[name] for name in known)


def _match_inputs(
    features: Mapping[str, int], specs: Sequence[TensorSpec], source: str
) -> tuple[tuple[TensorSpec, tuple[int, ...], tuple[int, ...]], ...]:
    """One column for each input, or NAME.0, NAME.1, ... for one of several features."""
    rows = []
    used: set[str] = set()
    for spec in specs:
        count = prod(n or 1 for n in spec.shape[1:])
        names = [spec.name] if count == 1 else [f"{spec.name}.{at}" for at in range(count)]
        for name in names:
            if name not in features:
                raise _make_missing_error(name, features, source)
        used.update(names)
        shape = tuple(n or 1 for n in spec.shape[1:])
        rows.append((spec, tuple(features[name] for name in names), shape))
    return tuple(rows)


def _make_missing_error(name: str, features: Mapping[str, int], source: str) -> FcdeployError:
    return FcdeployError(
        f"{source}: column {name!r} is missing, it has {quote_names(features) or 'none'}",
        suggest_name(name, features, "fcdeploy inspect MODEL shows inputs and columns"),
    )


def _fit_shape(spec: TensorSpec, features: int, source: str) -> tuple[int, ...]:
    """The input's shape without its leading axis; at most one free axis, which takes what is left."""
    if not spec.shape:
        return (features,)
    wanted = spec.shape[1:]
    known = prod(n for n in wanted if n is not None)
    free = wanted.count(None)
    if not features or free > 1 or (features % known if free else features != known):
        raise FcdeployError(
            f"{source} has {features} feature columns, input {spec.name!r} wants "
            f"{format_shape(wanted) if free else known}",
            "one column is too many: --label COLUMN says which holds labels"
            if features == known + 1 and not free
            else "one column per feature, a header row first; --label COLUMN names the one of labels",
        )
    return tuple(features // known if n is None else n for n in wanted)


def convert_row(layout: TableLayout, cells: Sequence[Any], where: str) -> Arrays:
    """The inputs and labels of a row of text or numbers, without a leading axis. Raises FcdeployError."""
    if len(cells) != len(layout.columns):
        raise FcdeployError(
            f"{where} has {len(cells)} cells, the header has {len(layout.columns)}", "complete the line, or remove it"
        )
    arrays: Arrays = {}
    for spec, places, shape in layout.inputs:
        parse: Callable[[Any], Any] = str if spec.dtype.kind in "OU" else int if spec.dtype.kind in "iub" else float
        row = [
            float("nan")
            if spec.missing and cells[at] in ("", None)
            else _parse(cells[at], layout.columns[at], parse, where)
            for at in places
        ]
        # Python's integers and floats become int64 and float64; what reads them narrows them to the model's dtype
        dtype: Any = object if parse is str else np.int64 if parse is int else np.float64
        arrays[spec.name] = np.asarray(row, dtype).reshape(shape)
    for name, at in layout.labels:
        arrays[name] = np.asarray(_parse(cells[at], layout.columns[at], _parse_int_or_float, where))
    return arrays


def _parse(cell: Any, column: str, parse: Callable[[Any], Any], where: str) -> Any:
    try:
        if cell is None or isinstance(cell, list | dict):  # str would take them
            raise TypeError
        if parse is int and isinstance(cell, float) and not cell.is_integer():
            raise ValueError
        if parse is not str and isinstance(cell, str) and ("_" in cell or not cell.isascii()):
            raise ValueError  # a number in a program's source, or of other digits: rather a mistake in a table
        number = parse(cell)
        if parse is int:
            np.int64(number)
        if isinstance(cell, str) and isinstance(number, float) and isinf(number):
            raise OverflowError
        return number
    except (ValueError, OverflowError, TypeError):
        kind = "text" if parse is str else "a whole number of 64 bits" if parse is int else "a number"
        raise FcdeployError(
            f"{where}, column {column!r} is {cell!r}, expected {kind}", "correct the cell, or remove the row"
        ) from None


def _parse_int_or_float(cell: Any) -> int | float:
    try:
        return int(cell) if not isinstance(cell, float) or cell.is_integer() else cell
    except ValueError:
        return float(cell)


def stack_rows(rows: Sequence[Mapping[str, Array]], specs: Sequence[TensorSpec]) -> Arrays:
    """Rows in the model's dtypes, along a leading axis."""
    return {spec.name: np.stack([row[spec.name] for row in rows]).astype(spec.dtype) for spec in specs}
