"""How much memory a group of rows of a Parquet file takes, from the heads of its pages: its metadata may say less.

Heads are PageHeader of parquet.thrift in Thrift's compact protocol, of which as much is read here as finds their ends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

from fcdeploy.graph.wire import FileBytes, read_varint

STOP, TRUE, FALSE, BYTE, DOUBLE, TEXT, LIST, SET, MAP, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12  # compact types
UNPACKED, PACKED = 2, 3  # fields of a page's head: bytes
DATA, DICTIONARY, DATA_V2 = 5, 7, 8  # those that begin with a number of values
LENGTH = 4  # bytes that pyarrow takes for each value of a page, at most, besides those of the page
DEEPEST = 8  # structs in one another


def check_extent(file: BinaryIO, metadata: Any) -> None:
    """Raises ValueError where columns together are longer than the file: pages that many share would be read for each."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    total = sum(group.column(at).total_compressed_size for group in groups for at in range(group.num_columns))
    if total > (length := len(FileBytes(file))):
        raise ValueError(f"its columns say that they have {total:,} bytes, the file has {length:,}")


def measure_group(file: BinaryIO, group: Any, names: Collection[str]) -> int:
    """Bytes of the pages of these columns, unpacked, or of the lengths of values in their largest pages, if that is more.

    `group` is pyarrow's metadata of it.  Raises ValueError or IndexError where the file is damaged.
    """
    data = FileBytes(file)
    pages = lengths = 0
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema not in names or not column.num_values:  # of which nothing is read
            continue
        at = column.data_page_offset
        if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
            at = column.dictionary_page_offset
        end, most = at + column.total_compressed_size, 0
        if not 0 <= at <= end <= len(data):
            raise ValueError(f"column {column.path_in_schema[:100]!r} is not in the file")
        while at < end:
            size, values, packed, at = _read_head(data, at)
            pages += max(size, packed)
            most = max(most, values)
            at += packed
        lengths += LENGTH * most
    return max(pages, lengths)


def _read_head(data: FileBytes, at: int) -> tuple[int, int, int, int]:
    """Bytes of a page unpacked, its values, its bytes as they lie in the file, and where they begin."""
    found: dict[tuple[int, ...], int] = {}
    at = _read_struct(data, at, (), found)
    size, packed = found.get((UNPACKED,), -1), found.get((PACKED,), -1)
    values = max(found.get((kind, 1), 0) for kind in (DATA, DICTIONARY, DATA_V2))
    if size < 0 or packed < 0:
        raise ValueError("a page without its size")
    return size, values, packed, at


def _read_struct(data: FileBytes, at: int, path: tuple[int, ...], found: dict[tuple[int, ...], int]) -> int:
    """The end of a struct; its integers, and those of structs in it, are put in `found`."""
    if len(path) > DEEPEST:
        raise ValueError("a page's head has structs in structs without end")
    field = 0
    while (head := data[at]) != STOP:
        at, kind = at + 1, head & 15
        if head >> 4:
            field += head >> 4
        else:
            field, at = _read_integer(data, at)
        if kind in (TRUE, FALSE):
            continue
        if BYTE < kind < DOUBLE:
            found[*path, field], at = _read_integer(data, at)
        elif kind == STRUCT:
            at = _read_struct(data, at, (*path, field), found)
        elif kind == TEXT:
            length, at = read_varint(data, at)
            at += length
        elif kind in (BYTE, DOUBLE):
            at += 1 if kind == BYTE else 8
        else:  # no head of a page has lists, sets or maps
            raise ValueError("a page's head is none")
    return at + 1


def _read_integer(data: FileBytes, at: int) -> tuple[int, int]:
    """Signs lie in the lowest bit."""
    number, at = read_varint(data, at)
    return number >> 1 ^ -(number & 1), at
