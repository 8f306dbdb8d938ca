"""How much memory an Arrow file's batches take, from their metadata, before pyarrow decompresses them as they say.

Fields and positions are those of the Arrow columnar format, "Serialization and Interprocess Communication", and its
File.fbs and Message.fbs.  What pyarrow itself refuses (it verifies the metadata) may be measured wrongly here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from fcdeploy.errors import FcdeployError

TAIL = 10  # bytes: the footer's length, and ARROW1
DICTIONARY, BATCH = 2, 3  # kinds of messages
BLOCK, BUFFER = struct.Struct("<qi4xq"), struct.Struct("<qq")
EXPERIMENTAL = b"ARROW:experimental_compression"  # before there was a field for it


def check_batches(file: BinaryIO, name: str, most: int, *, is_stream: bool) -> int:
    """How many batches there are.

    Raises FcdeployError where a batch and the dictionaries that it needs take more than `most` bytes,
    ValueError or struct.error where the file is damaged.
    """
    sizes: dict[tuple[int, int] | None, int] = {}  # of the last batch, and of each dictionary and what was added to it
    count = 0
    size = os.fstat(file.fileno()).st_size
    for number, (at, body) in enumerate(_list_messages(file, size) if is_stream else _list_blocks(file, size)):
        data = _read(file, at, body - at)
        table = _follow(data, 0)
        kind, length = _read_number(data, table, 1, "B"), _read_number(data, table, 3, "q")
        if not 0 <= length <= size - body:
            raise ValueError(f"message {number} is of {length:,} bytes, the file has {max(0, size - body):,} more")
        batch = _find(data, table, 2)
        if kind not in (DICTIONARY, BATCH) or not batch:
            continue
        batch = _follow(data, batch)
        key = None
        count += kind == BATCH
        if kind == DICTIONARY:
            key = (_read_number(data, batch, 0, "q"), number * _read_number(data, batch, 2, "B"))  # a delta is added
            batch = _follow(data, _find(data, batch, 1))
        if _find(data, batch, 3) or EXPERIMENTAL in data:
            length = max(length, _add_buffers(file, data, _find(data, batch, 2), body))
        sizes[key] = length
        if sum(sizes.values()) > most:
            raise FcdeployError(
                f"{name}: a batch of rows is {sum(sizes.values()):,} bytes unpacked, expected at most {most:,}",
                "write it with fewer rows a batch: write_feather(table, path, chunksize=100_000)",
            )
    return count


def _add_buffers(file: BinaryIO, data: bytes, buffers: int, body: int) -> int:
    """Unpacked bytes of a compressed batch: each buffer begins with its own, or with -1 where it is not compressed."""
    if not buffers:
        return 0
    vector = _follow(data, buffers)
    (count,) = struct.unpack_from("<I", data, vector)
    total = 0
    for at in range(count):
        offset, length = BUFFER.unpack_from(data, vector + 4 + at * BUFFER.size)
        if length:
            (unpacked,) = struct.unpack("<q", _read(file, body + offset, 8))
            total += max(length, unpacked)
    return total


def _list_messages(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Where the metadata of each message of a stream begins, and where its body does."""
    at = 0
    while at < size:
        start, length = _skip_prefix(file, at)
        if not length:
            return
        yield start, start + length
        data = _read(file, start, length)
        at = start + length + _read_number(data, _follow(data, 0), 3, "q")


def _list_blocks(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """The same of a file, whose footer lists dictionaries and batches."""
    (length,) = struct.unpack("<i", _read(file, size - TAIL, 4))
    footer = _read(file, size - TAIL - length, length)
    table = _follow(footer, 0)
    for field in (2, 3):
        found = _find(footer, table, field)
        if found:
            vector = _follow(footer, found)
            (count,) = struct.unpack_from("<I", footer, vector)
            for number in range(count):
                at, length, _ = BLOCK.unpack_from(footer, vector + 4 + number * BLOCK.size)
                yield _skip_prefix(file, at)[0], at + length


def _skip_prefix(file: BinaryIO, at: int) -> tuple[int, int]:
    """Where a message's metadata begins, and its length, which four bytes of ones precede since version 0.15."""
    (length,) = struct.unpack("<i", _read(file, at, 4))
    if length != -1:
        return at + 4, length
    return at + 8, struct.unpack("<i", _read(file, at + 4, 4))[0]


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    if at < 0 or length < 0 or at + length > os.fstat(file.fileno()).st_size:
        raise ValueError("what it says of its parts is not in the file")
    return os.pread(file.fileno(), length, at)


def _follow(data: bytes, at: int) -> int:
    """Where an offset leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _find(data: bytes, table: int, field: int) -> int:
    """Where a table of a flatbuffer has a field; 0 where it has none."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * field
    if place >= struct.unpack_from("<H", data, layout)[0]:
        return 0
    (offset,) = struct.unpack_from("<H", data, layout + place)
    return table + offset if offset else 0


def _read_number(data: bytes, table: int, field: int, kind: str) -> int:
    at = _find(data, table, field)
    return int(struct.unpack_from("<" + kind, data, at)[0]) if at else 0
