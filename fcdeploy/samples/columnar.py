"""Parquet and Arrow files (Feather too): a table by columns, read a few rows at a time through pyarrow.

Rows are decoded in pieces of ROWS, so memory follows what the file's writer put into one group of rows, of which more than
MOST_BYTES, as the heads of its pages have it, are refused.  Words that repeat are kept once, and columns that hold neither
numbers nor words are not read.  The index that pandas stores beside the columns is none of the features.
"""

from __future__ import annotations

import decimal
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.arrow_sizes import check_batches
from fcdeploy.samples.parquet_sizes import check_extent, measure_group
from fcdeploy.samples.source import Source
from fcdeploy.samples.table import open_table

SUFFIXES = (".parquet", ".arrow", ".feather", ".arrows")
MAGIC, FILE = {b"PAR1": "Parquet", b"ARROW1": "Arrow"}, 6  # and how many bytes to look at
ROWS = 1024
MOST_BYTES = 1 << 30  # of a group of rows, unpacked
MOST_LETTERS = 10_000  # of a word


class _Unread:
    """A cell that is neither a number nor a word; errors call it what it is."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return self._what


UNREAD = _Unread("neither a number nor a word")


def is_columnar(path: Path) -> bool:
    """By its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def open_columnar(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check the columns against the model's inputs."""
    with _open_batches(path) as (schema, _):
        columns = _name_columns(schema)
    return open_table(path, columns, partial(_open_rows, path, columns), inputs, format)


@contextmanager
def _open_rows(path: Path, columns: Sequence[str]) -> Iterator[Iterator[tuple[Any, ...]]]:
    with _open_batches(path) as (_, batches):
        yield _list_cells(batches, columns)


def _list_cells(batches: Iterator[Any], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            yield from _list_rows(batch.slice(start, ROWS), columns)
        del batch  # before the next is unpacked


def _list_rows(batch: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    batch.validate(full=True)  # offsets in a file of someone else's may point anywhere
    read = set(batch.schema.names)
    unread = [UNREAD] * batch.num_rows
    return zip(*(_list_column(batch.column(name)) if name in read else unread for name in columns), strict=True)


def _list_column(column: Any) -> list[Any]:
    """Of a dictionary, each word once."""
    import pyarrow as arrow

    if arrow.types.is_dictionary(column.type):
        places = column.indices.to_pylist()
        words = {place: _simplify(column.dictionary[place].as_py()) for place in {*places} - {None}}
        return [words.get(place) for place in places]
    if not _is_plain(column.type):
        return [UNREAD] * len(column)
    if arrow.types.is_string_view(column.type):  # one text may stand behind every cell
        return [_simplify(cell.as_py()) for cell in column]
    return [_simplify(cell) for cell in column.to_pylist()]


def _simplify(cell: Any) -> Any:
    """Decimals as floats, which are checked as numbers are; no text that is too long for a word."""
    if isinstance(cell, str) and len(cell) > MOST_LETTERS:
        return _Unread(f"a text of {len(cell):,} letters")
    return float(cell) if isinstance(cell, decimal.Decimal) else cell


def _is_text(type: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(type) or types.is_large_string(type) or types.is_string_view(type))


def _is_plain(type: Any) -> bool:
    """Of numbers or words, so that a cell is no larger than it is in the file."""
    from pyarrow import types

    if types.is_dictionary(type):
        return _is_plain(type.value_type) and not types.is_dictionary(type.value_type)
    return bool(types.is_primitive(type) or types.is_decimal(type) or types.is_null(type) or _is_text(type))


def _name_columns(schema: Any) -> list[str]:
    """Without the index of a pandas frame."""
    try:
        said = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        index = {name for name in said if isinstance(name, str)}
    except (ValueError, AttributeError, TypeError, RecursionError):
        index = set()
    return [name for name in schema.names if name not in index]


@contextmanager
def _open_batches(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema, and the rows in batches. Raises FcdeployError for a file that is damaged, or none of these."""
    try:
        import pyarrow as arrow
    except ImportError as error:
        raise FcdeployError(
            f"reading {path.name} needs pyarrow, which is not installed", "pip install 'fcdeploy[tables]'"
        ) from error
    try:
        with path.open("rb") as file:
            start = file.read(FILE)
        kind = next((name for magic, name in MAGIC.items() if start.startswith(magic)), "")
        if kind != "Parquet":
            with path.open("rb") as file:
                count = check_batches(file, path.name, MOST_BYTES, is_stream=not kind)
        with arrow.OSFile(str(path)) as file:  # mapped, a file that is cut would end the process by a signal
            if kind == "Parquet":
                yield _open_parquet(file, path)
            elif kind == "Arrow":
                reader = arrow.ipc.open_file(file)
                yield reader.schema, (reader.get_batch(at) for at in range(reader.num_record_batches))
            else:
                stream = arrow.ipc.open_stream(file)
                yield stream.schema, _take(stream, count)
    except (arrow.ArrowException, OSError, ValueError, IndexError, MemoryError, OverflowError, struct.error) as error:
        refuse_unread(str(path), error)
        why = " ".join(str(error).split())[:200]
        raise FcdeployError(
            f"{path.name} is not a readable Parquet or Arrow file: {why}", "write it again: DataFrame.to_parquet does"
        ) from error


def _take(stream: Any, count: int) -> Iterator[Any]:
    """So many batches: where the file has become shorter since they were counted, a stream only ends."""
    for at in range(count):
        batch = next(stream, None)
        if batch is None:
            raise ValueError(f"it ends after {at} of {count} batches")
        yield batch
        del batch


def _open_parquet(file: Any, path: Path) -> tuple[Any, Iterator[Any]]:
    from pyarrow import parquet

    limits = {"pre_buffer": False, "thrift_container_size_limit": 1 << 20}
    opened = parquet.ParquetFile(file, **limits)
    schema = opened.schema_arrow
    plain = [field.name for field in schema if _is_plain(field.type)]
    with path.open("rb") as again:
        check_extent(again, opened.metadata)
        for at in range(opened.num_row_groups):
            size = measure_group(again, opened.metadata.row_group(at), set(plain))
            if size > MOST_BYTES:
                raise FcdeployError(
                    f"{path.name}: row group {at} is {size:,} bytes unpacked, expected at most {MOST_BYTES:,}",
                    "write it with fewer rows a group: to_parquet(row_group_size=100_000)",
                )
    words = [field.name for field in schema if _is_text(field.type)]  # as dictionaries: the same one may fill every row
    opened = parquet.ParquetFile(file, metadata=opened.metadata, read_dictionary=words, **limits)
    return schema, opened.iter_batches(batch_size=ROWS, columns=plain, use_threads=False)
