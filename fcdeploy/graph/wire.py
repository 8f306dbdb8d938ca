"""Protobuf's wire format, field by field, without parsing a message; and how many parts of a model a file may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, overload

from fcdeploy.errors import FcdeployError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MOST_PARTS = 1_000_000
"""Fields of a model's message: a network of 50,000 nodes has as many. A part of two bytes takes 600 when it is read."""
MOST_AXES = 64  # of a tensor
DEEPEST = 101  # messages in one another: a parser reads a hundred in the outermost
DIMS, INITIALIZER = 1, 5  # numbers of fields: of a tensor, of a graph
FLOATS, INTEGERS, TEXTS = 7, 8, 9  # and of an attribute, which lists them one by one or packed: trees have millions
WHOLE = 8
SHARES = {FLOATS: 1, INTEGERS: 1, TEXTS: 2}
"""What an element of a list counts, in eighths of a part: read, a number takes up to 64 bytes, a short text 136."""
TENSOR: dict[int, Any] = {13: {}}
TYPE: dict[int, Any] = {1: {2: {1: {}}}}
TYPE |= {number: {1: TYPE} for number in (4, 9)} | {8: {1: TYPE}}  # sequences, optionals, sparse tensors
NODE: dict[int, Any] = {}
GRAPH: dict[int, Any] = {
    1: NODE,
    INITIALIZER: TENSOR,
    **{number: {2: TYPE} for number in (11, 12, 13)},
    14: {2: {}},
    15: {1: TENSOR, 2: TENSOR},
}
ATTRIBUTE: dict[int, Any] = {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE}
NODE |= {5: ATTRIBUTE, 9: {}}
MODEL: dict[int, Any] = {7: GRAPH, 8: {}, 14: {}, 20: {1: GRAPH, 2: GRAPH}, 25: {7: NODE, 11: ATTRIBUTE, 12: {2: TYPE}}}
"""Of onnx.proto's ModelProto, the fields that are messages, and those of theirs."""

KINDS = {
    id(GRAPH): "nodes, weights and values",
    id(NODE): "names and attributes of nodes",
    id(ATTRIBUTE): "in attributes (a number in a list is an eighth, a text a quarter)",
    id(TENSOR): "in weights",
    0: "types, axes, functions and metadata",
}


class FileBytes:
    """The bytes of a file, read as they are asked for, some ahead. Raises IndexError behind its end, as bytes do."""

    AHEAD = 1 << 14

    def __init__(self, file: BinaryIO) -> None:
        self._file = file.fileno()
        self._size = os.fstat(self._file).st_size
        self._start, self._window = 0, b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice[int, int, None]) -> bytes: ...
    def __getitem__(self, at: int | slice[int, int, None]) -> int | bytes:
        if isinstance(at, slice):
            return os.pread(self._file, at.stop - at.start, at.start)
        offset = at - self._start
        if not 0 <= offset < len(self._window):
            self._start, self._window, offset = at, os.pread(self._file, self.AHEAD, at), 0
        return self._window[offset]


Data = FileBytes | bytes
Span = tuple[int, int]
Value = int | Span
"""What a field holds: a number as it is written, or where its bytes begin and end."""


def iterate_fields(data: Data, span: Span) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of the message that lies there."""
    at, end = span
    while at < end:
        tag, at = read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field {number}")
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if length > end - at:
            raise ValueError("a field is longer than what holds it")
        yield number, (at, at + length) if wire == BYTES else int.from_bytes(data[at : at + length], "little")
        at += length


def read_varint(data: Data, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def walk_fields(data: Data, span: Span, inside: dict[int, Any]) -> Iterator[tuple[dict[int, Any], int, Value]]:
    """Each field of a message and of those in it: the table of the message that has it, its number and its value.

    A table has the numbers of the fields that are messages, and their tables.  Raises ValueError or IndexError where the bytes
    are no such message, or hold a group, which a parser may read although it is in no message of ours.
    """
    open_messages = [(inside, iterate_fields(data, span))]
    while open_messages:
        inside, fields = open_messages[-1]
        for number, value in fields:
            yield inside, number, value
            if number in inside and isinstance(value, tuple):
                if len(open_messages) == DEEPEST:
                    raise ValueError(f"messages in messages, more than {DEEPEST} deep")
                open_messages.append((inside[number], iterate_fields(data, value)))
                break
        else:
            open_messages.pop()


def check_parts(data: Data, name: str) -> None:
    """Raise FcdeployError where a model has more than MOST_PARTS parts, or a tensor more axes than there are.

    ValueError or IndexError where it is no message.
    """
    counts = dict.fromkeys(KINDS, 0)  # in eighths
    total = axes = 0
    for inside, number, value in walk_fields(data, (0, len(data)), MODEL):
        size = value[1] - value[0] if isinstance(value, tuple) else 1  # packed, or one by one
        share = WHOLE
        if inside is ATTRIBUTE and number in SHARES:
            share = SHARES[number]
            if isinstance(value, tuple) and number != TEXTS:
                share *= size // (4 if number == FLOATS else 1) + 1
        total += share
        kind = id(inside) if id(inside) in counts else 0
        counts[kind] += share
        if total > WHOLE * MOST_PARTS:
            most = max(counts, key=lambda kind: counts[kind])
            raise FcdeployError(
                f"model {name!r} has more than {MOST_PARTS:,} nodes, names, attributes and other parts, "
                f"{counts[most] // WHOLE:,} of them {KINDS[most]}",
                "fcdeploy is for networks of up to 50,000 nodes",
            )
        if inside is TENSOR and number == DIMS:
            axes += size
            if axes > 10 * MOST_AXES or (size == 1 and axes > MOST_AXES):
                raise FcdeployError(
                    f"model {name!r}: a tensor has more than {MOST_AXES} axes", "write it again where it came from"
                )
        elif inside.get(number) is TENSOR:
            axes = 0
