"""onnxruntime's tables for its TensorRT provider, `calibration.cache` and `calibration.flatbuffers`: read, not written.

`write_calibration_table` (quant_utils.py) writes the same in both: for each tensor its name and one number as text, a
line `NAME NUMBER` in the one, in the other a FlatBuffer of the schema

    table KeyValue { key: string; value: string; }      table TrtTable { dict: [KeyValue]; }      root_type TrtTable;

The number is the larger of the two ends (1.31.1), so what lies further below zero than above is lost.  It is read as
a symmetric range, with a doubt.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from fcdeploy.records.exchange.ranges import Ranges, check_ranges

ONE_END = (
    "the table keeps the larger end of each range: ranges are read as symmetric, and a tensor that reaches further below "
    "zero than above is clipped; calibration.json beside it has both ends"
)


def is_flatbuffers(data: bytes) -> bool:
    """Does its root point to a table of few fields?"""
    try:
        table = _unpack("I", data, 0)
        return 4 <= _unpack("H", data, table - _unpack("i", data, table)) <= 64
    except (struct.error, IndexError):
        return False


def read_flatbuffers(data: bytes) -> Ranges:
    """Raises ValueError with the reason; every offset is checked against the length of the file."""
    try:
        pairs = list(_read_pairs(data))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no FlatBuffer of calibration values: {error}") from error
    return _to_ranges(pairs)


def is_text(data: bytes) -> bool:
    """Is its first line a name, a space and a number?"""
    try:
        _parse_pair(data[: 1 << 16].decode(errors="replace").splitlines()[0])
    except (ValueError, IndexError):
        return False
    return True


def read_text(data: bytes) -> Ranges:
    """Raises ValueError with the reason."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    return _to_ranges(_parse_pair(line) for line in lines if line.strip())


def _to_ranges(pairs: Iterable[tuple[str, float]]) -> Ranges:
    ends = check_ranges((name, -abs(value), abs(value)) for name, value in pairs)
    return Ranges(ends, "onnxruntime table", (ONE_END,))


def _parse_pair(line: str) -> tuple[str, float]:
    name, _, number = line.rstrip().rpartition(" ")
    try:
        return name.strip() or _refuse_empty_name(), float(number)
    except ValueError:
        raise ValueError(f"line {line[:60]!r} is not a name and a number") from None


def _refuse_empty_name() -> str:
    raise ValueError


def _read_pairs(data: bytes) -> Iterator[tuple[str, float]]:
    """Of a FlatBuffer (https://flatbuffers.dev/internals): offsets are little-endian, from where they stand."""
    table = _unpack("I", data, 0)
    rows = _find_field(data, table, 0)
    if rows is None:
        return
    count = _unpack("I", data, rows)
    if count * 4 > len(data):
        raise IndexError(f"{count} entries in {len(data)} bytes")
    for index in range(count):
        at = rows + 4 + 4 * index
        row = at + _unpack("I", data, at)
        key, value = (_read_text(data, _find_field(data, row, field)) for field in (0, 1))
        yield _parse_pair(f"{key} {value}")


def _find_field(data: bytes, table: int, index: int) -> int | None:
    """Where the index-th field of a table, an offset, points; None where it is left out."""
    vtable = table - _unpack("i", data, table)
    if 4 + 2 * index + 2 > _unpack("H", data, vtable):
        return None
    offset = _unpack("H", data, vtable + 4 + 2 * index)
    return table + offset + _unpack("I", data, table + offset) if offset else None


def _read_text(data: bytes, at: int | None) -> str:
    if at is None:
        raise IndexError("an entry has no key or no value")
    length = _unpack("I", data, at)
    if at + 4 + length > len(data):
        raise IndexError(f"a string of {length} bytes at {at} of {len(data)}")
    return data[at + 4 : at + 4 + length].decode()


def _unpack(kind: str, data: bytes, at: int) -> int:
    if at < 0:
        raise IndexError(f"an offset before the beginning, {at}")
    value: int = struct.unpack_from("<" + kind, data, at)[0]
    return value
