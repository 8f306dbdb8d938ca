"""An ONNX file read without onnx: its nodes, shapes and small integer constants; weights are stepped over.

A server must know what a model computes and cannot afford the 30 MB and half a second that importing onnx takes.  Field
numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, ValueInfoProto).  Weights
of gigabytes are never touched.  The file is not mapped: one that is cut short meanwhile would end the process by a signal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread
from fcdeploy.graph.wire import Data, FileBytes, Span, Value, check_parts, iterate_fields, read_varint
from fcdeploy.wording import quote_path

INT32, INT64 = 6, 7  # TensorProto.DataType
SMALL = 64  # elements of an integer constant that is read: shapes, axes, pads
Dims = tuple[int | str | None, ...]
"""An axis is a number, a name, or None where the file says nothing."""


@dataclass(frozen=True)
class LightConstant:
    """A tensor in the file: its shape, its values where it is a short list of integers, its file where it lies outside."""

    dims: tuple[int, ...]
    values: tuple[int, ...] | None = None
    location: str = ""


@dataclass(frozen=True)
class Node:
    """One operator. Attributes that are numbers, lists of integers, text or one tensor; `subgraphs` counts the rest."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int | float | str | tuple[int, ...] | LightConstant] = field(default_factory=dict)
    subgraphs: int = 0


@dataclass(frozen=True)
class Outline:
    """What the file says of its main graph. `inputs` are those that a caller feeds; `unranked` ends have no shape."""

    nodes: tuple[Node, ...]
    inputs: dict[str, Dims]
    outputs: dict[str, Dims]
    constants: dict[str, LightConstant]
    opset: int
    unranked: frozenset[str] = frozenset()


def read_outline(model: Path | str | bytes) -> Outline:
    """Of a file, or of its bytes. Raises FcdeployError when it is no ONNX model, or is damaged."""
    path = Path("model" if isinstance(model, bytes) else model)
    try:
        if isinstance(model, bytes):
            check_parts(model, "model")
            return _read_model(model)
        with path.open("rb") as file:
            check_parts(FileBytes(file), str(path))
            return _read_model(FileBytes(file))
    except (OSError, ValueError, IndexError, struct.error, RecursionError) as error:
        refuse_unread(str(path), error)
        raise FcdeployError(
            f"{str(path)!r} is not an ONNX model, or is damaged", f"fcdeploy inspect {quote_path(path)}"
        ) from error


def _read_model(data: Data) -> Outline:
    """ModelProto: 7 graph, 8 opset_import (1 domain, 2 version); GraphProto: 1 node, 5 initializer, 11 input, 12 output."""
    graph: Span | None = None
    opset = 1
    for number, value in iterate_fields(data, (0, len(data))):
        if number == 7 and isinstance(value, tuple):
            graph = value
        elif number == 8 and isinstance(value, tuple):
            domain, version = "", 1
            for part, content in iterate_fields(data, value):
                if part == 1:
                    domain = _read_text(data, content)
                elif part == 2 and isinstance(content, int):
                    version = content
            if domain in ("", "ai.onnx"):
                opset = version
    if graph is None:
        raise ValueError("no graph")

    nodes: list[Node] = []
    inputs: dict[str, Dims] = {}
    outputs: dict[str, Dims] = {}
    constants: dict[str, LightConstant] = {}
    unranked: set[str] = set()
    for number, value in iterate_fields(data, graph):
        if number == 1:
            nodes.append(_read_node(data, _expect_message(value)))
        elif number == 5:
            name, constant = _read_tensor(data, _expect_message(value))
            constants[name] = constant
        elif number in (11, 12):
            name, dims = _read_value_info(data, _expect_message(value))
            (inputs if number == 11 else outputs)[name] = dims or ()
            unranked |= {name} if dims is None else set()

    # weights that are listed as inputs are not fed
    fed = {name: dims for name, dims in inputs.items() if name not in constants}
    return Outline(tuple(nodes), fed, outputs, constants, opset, frozenset(unranked))


def _read_node(data: Data, span: Span) -> Node:
    """NodeProto: 1 input, 2 output, 3 name, 4 op_type, 5 attribute, 7 domain."""
    inputs, outputs, attributes, texts, subgraphs = [], [], {}, {3: "", 4: "", 7: ""}, 0
    for number, value in iterate_fields(data, span):
        if number == 1:
            inputs.append(_read_text(data, value))
        elif number == 2:
            outputs.append(_read_text(data, value))
        elif number in texts:
            texts[number] = _read_text(data, value)
        elif number == 5:
            name, attribute = _read_attribute(data, _expect_message(value))
            if attribute is None:
                subgraphs += 1
            else:
                attributes[name] = attribute
    return Node(texts[4], texts[7], texts[3], tuple(inputs), tuple(outputs), attributes, subgraphs)


def _read_attribute(data: Data, span: Span) -> tuple[str, int | float | str | tuple[int, ...] | LightConstant | None]:
    """Its name, and its value; None for graphs and for lists of anything but integers."""
    name, content = "", None
    integers: list[int] = []
    listed = False
    for number, value in iterate_fields(data, span):
        if number == 1:
            name = _read_text(data, value)
        elif number == 2 and isinstance(value, int):
            content = struct.unpack("<f", value.to_bytes(4, "little"))[0]
        elif number == 3 and isinstance(value, int):
            content = _to_signed(value)
        elif number == 4:
            content = _read_text(data, value)
        elif number == 5:
            content = _read_tensor(data, _expect_message(value))[1]
        elif number == 8:
            listed = True
            integers += _read_integers(data, value)
        elif number == 20:  # the type; an empty list of integers has nothing else
            listed = listed or value == 7
    return name, tuple(integers) if listed else content


def _read_tensor(data: Data, span: Span) -> tuple[str, LightConstant]:
    """TensorProto: 1 dims, 2 data_type, 5 int32_data, 7 int64_data, 8 name, 9 raw_data, 13 external_data (key, value)."""
    name, location, dims, kind, raw = "", "", [], 0, None
    integers: list[int] = []
    for number, value in iterate_fields(data, span):
        if number == 1:
            dims += _read_integers(data, value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (5, 7) and (isinstance(value, int) or value[1] - value[0] <= 10 * SMALL):
            integers += _read_integers(data, value)
        elif number == 8:
            name = _read_text(data, value)
        elif number == 9:
            raw = _expect_message(value)
        elif number == 13:
            pair = {part: _read_text(data, content) for part, content in iterate_fields(data, _expect_message(value))}
            if pair.get(1) == "location":
                location = pair.get(2, "")

    # short lists of integers alone, raw or one by one
    values = None
    if kind in (INT32, INT64):
        width = 4 if kind == INT32 else 8
        if raw is not None and raw[1] - raw[0] <= width * SMALL:
            count = (raw[1] - raw[0]) // width
            values = struct.unpack(f"<{count}{'i' if width == 4 else 'q'}", data[raw[0] : raw[1]])
        elif raw is None and len(integers) <= SMALL:
            values = tuple(integers)
    return name, LightConstant(tuple(dims), values, location)


def _read_value_info(data: Data, span: Span) -> tuple[str, Dims | None]:
    """ValueInfoProto.type.tensor_type.shape.dim; None where there is no shape."""
    name, dims = "", None
    for number, value in iterate_fields(data, span):
        if number == 1:
            name = _read_text(data, value)
        elif number == 2:
            for shape in _find_messages(data, _expect_message(value), 1, 2):
                dims = tuple(_read_axis(data, dim) for dim in _find_messages(data, shape, 1))
    return name, dims


def _read_axis(data: Data, span: Span) -> int | str | None:
    for number, value in iterate_fields(data, span):
        if number == 1 and isinstance(value, int):
            length = _to_signed(value)
            return length if length >= 0 else None  # -1, which some exporters store for any length
        if number == 2:
            return _read_text(data, value) or None
    return None


def _find_messages(data: Data, span: Span, *path: int) -> Iterator[Span]:
    """The messages at this path of field numbers below a message."""
    for number, value in iterate_fields(data, span):
        if number == path[0] and isinstance(value, tuple):
            if len(path) == 1:
                yield value
            else:
                yield from _find_messages(data, value, *path[1:])


def _read_integers(data: Data, value: Value) -> list[int]:
    """A repeated integer field: one number, or many packed."""
    if isinstance(value, int):
        return [_to_signed(value)]
    at, end = value
    numbers = []
    while at < end:
        number, at = read_varint(data, at)
        numbers.append(_to_signed(number))
    return numbers


def _to_signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _expect_message(value: Value) -> Span:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _read_text(data: Data, value: Value) -> str:
    start, end = _expect_message(value)
    return data[start:end].decode(errors="replace")
