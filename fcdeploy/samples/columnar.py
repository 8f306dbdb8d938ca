"""Parquet and Arrow files (Feather too): a table by columns, read a few rows at a time through pyarrow.

Rows are decoded in pieces of ROWS, so memory follows what the file's writer put into one group of rows, of which a header that
claims more than MOST_BYTES is refused.  The index that pandas stores beside the columns is none of the features.
"""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.source import Source
from fcdeploy.samples.table import open_table

SUFFIXES = (".parquet", ".arrow", ".feather", ".arrows")
MAGIC, FILE = {b"PAR1": "Parquet", b"ARROW1": "Arrow"}, 6  # and how many bytes to look at
ROWS = 1024
MOST_BYTES = 1 << 30  # of a group of rows, unpacked


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
        yield (
            cells
            for batch in batches
            for start in range(0, batch.num_rows, ROWS)
            for cells in _list_rows(batch.slice(start, ROWS), columns)
        )


def _list_rows(batch: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    batch.validate(full=True)  # offsets in a file of someone else's may point anywhere
    cells = [batch.column(name).to_pylist() for name in columns]
    return zip(*([_simplify(cell) for cell in column] for column in cells), strict=True)


def _simplify(cell: Any) -> Any:
    """Decimals as floats, which are checked as numbers are."""
    return float(cell) if isinstance(cell, decimal.Decimal) else cell


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
        with arrow.memory_map(str(path)) if kind else path.open("rb") as file:
            if kind == "Parquet":
                yield _open_parquet(file, path.name)
            elif kind == "Arrow":
                reader = arrow.ipc.open_file(file)
                yield reader.schema, (reader.get_batch(at) for at in range(reader.num_record_batches))
            else:
                stream = arrow.ipc.open_stream(file)
                yield stream.schema, iter(stream)
    except (arrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        why = " ".join(str(error).split())[:200]
        raise FcdeployError(
            f"{path.name} is not a readable Parquet or Arrow file: {why}", "write it again: DataFrame.to_parquet does"
        ) from error


def _open_parquet(file: Any, name: str) -> tuple[Any, Iterator[Any]]:
    from pyarrow import parquet

    opened = parquet.ParquetFile(file, pre_buffer=False, thrift_container_size_limit=1 << 20)
    for at in range(opened.num_row_groups):
        size = opened.metadata.row_group(at).total_byte_size
        if size > MOST_BYTES:
            raise FcdeployError(
                f"{name}: row group {at} is {size:,} bytes unpacked, expected at most {MOST_BYTES:,}",
                "write it with fewer rows a group: to_parquet(row_group_size=100_000)",
            )
    return opened.schema_arrow, opened.iter_batches(batch_size=ROWS, use_threads=False)
