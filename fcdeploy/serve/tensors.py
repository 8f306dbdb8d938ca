"""Bodies of `infer` to arrays and back: JSON, and the binary tensor extension.

A JSON tensor is an object with name, shape, datatype and data, flat or nested in row-major order.  In the extension the
body is a JSON header and then the bytes of the tensors whose parameters say `binary_data_size`, in order, little-endian.
simdjson reads numbers straight into a buffer: a third of the time of building Python floats.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import simdjson

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import quote_names
from fcdeploy.records.signature import TensorSpec, format_axes
from fcdeploy.serve.models import PIECE, Model
from fcdeploy.serve.refusal import RefusedError, explain_json_error
from fcdeploy.serve.request import (
    OF_DTYPE,
    READ,
    Wanted,
    check_input,
    narrow,
    pack_texts,
    read_binary_size,
    read_numbers,
    read_wanted,
    unpack_texts,
)

MEMO = 256  # JSON headers of binary requests that are remembered; a client's differ by their id at most
MEMO_BYTES = 2048
LARGE = (
    1 << 18
)  # bytes of a text whose parser is not kept: it holds ten times as much; of a tensor that is sent from its place

ALONE = 1 << 62  # samples, where the number is not known: more than any that share a run
PARSED = 14  # bytes that simdjson takes for each of a text, at most


@dataclass(frozen=True, slots=True)
class BinaryLayout:
    """Where the inputs of a binary request lie behind its header: (name, dtype, shape, start, bytes).

    `rows` is the number of samples, as `InferenceRequest` counts them, `ALONE` where inputs do not agree on it.
    """

    parts: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int, int], ...]
    size: int
    rows: int
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class JsonFrame:
    """A JSON request whose numbers are one flat list: all that is said around them."""

    spec: TensorSpec
    count: int
    shape: tuple[int, ...]
    wanted: Wanted


_parser = simdjson.Parser()


def decode(
    model: Model,
    body: bytes | bytearray,
    header_length: int | None,
    reserve: Callable[[int], None] = lambda _: None,
) -> tuple[Arrays, Wanted]:
    """The inputs and what is wanted. Raises RefusedError 400, which names the input, what came and what was expected.

    `reserve` is asked, and may refuse, before a parser takes many bytes.
    """
    if header_length is None:
        return _decode_text(model, bytes(body), reserve)
    if header_length > len(body):
        raise RefusedError(
            400, f"Inference-Header-Content-Length is {header_length}, more than the {len(body)} bytes of the body"
        )
    header = body[:header_length] if type(body) is bytes else bytes(memoryview(body)[:header_length])
    layout = model.layouts.get(header)
    if layout is not None:
        return slice_inputs(layout, body, header_length), layout.wanted
    if len(header) > LARGE:
        reserve(PARSED * len(header))
    return _decode_json(model, header, memoryview(body)[header_length:])


def encode(model: Model, outputs: Sequence[Array], wanted: Wanted) -> tuple[list[bytes | memoryview], int | None]:
    """The parts of a body, and the length of its JSON header where tensors follow it."""
    chosen = [(outputs[index], binary) for index, binary in wanted.outputs]
    header = _make_header(model, chosen, wanted)
    tensors = [pack(array) for array, binary in chosen if binary]
    return [header, *tensors], len(header) if tensors else None


def _make_header(model: Model, chosen: Sequence[tuple[Array, bool]], wanted: Wanted) -> bytes:
    """The JSON of an answer, with the data of what is not wanted in binary."""
    names = list(model.outputs)
    tensors: list[dict[str, Any]] = []
    for (array, binary), (index, _) in zip(chosen, wanted.outputs, strict=True):
        tensor: dict[str, Any] = {"name": names[index], "datatype": OF_DTYPE[array.dtype], "shape": array.shape}
        if binary:
            tensor["parameters"] = {"binary_data_size": array.nbytes if array.dtype.kind != "O" else len(pack(array))}
        else:
            tensor["data"] = (
                np.ascontiguousarray(array).reshape(-1) if array.dtype.kind != "O" else array.reshape(-1).tolist()
            )
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": tensors}
    if wanted.id is not None:
        answer["id"] = wanted.id
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def slice_inputs(layout: BinaryLayout, body: bytes | bytearray, start: int) -> Arrays:
    """The tensors behind a header that ends at `start`. Raises RefusedError 400 where there are more bytes, or fewer."""
    if start + layout.size != len(body):
        raise RefusedError(
            400, f"{len(body) - start} bytes follow the header, expected {layout.size}: the sum of binary_data_size"
        )
    feeds = {}
    for name, dtype, shape, offset, size in layout.parts:
        at = start + offset
        if at % dtype.itemsize and size <= PIECE:
            array: Array = np.ndarray(shape, dtype, body[at : at + size])  # bytes themselves begin at a multiple of 16
        else:
            array = np.ndarray(shape, dtype, body, at)
        if dtype.kind == "b":
            array = array.view(np.uint8) != 0
        elif sys.byteorder != "little":
            array = array.byteswap()
        feeds[name] = array
    return feeds


def pack(array: Array) -> bytes | memoryview:
    """The bytes of a tensor; those of a large one where they lie."""
    if array.dtype.kind == "O":
        return pack_texts(array)
    array = to_little_endian(array)
    if array.nbytes <= LARGE:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_little_endian(array: Array) -> Array:
    """The same numbers as protocols write them."""
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("<"))


def _parse(text: bytes) -> Any:
    """The caller deletes it when done. Raises ValueError, or RuntimeError for integers of more than 64 bits."""
    global _parser
    if len(text) > LARGE:
        return simdjson.Parser().parse(text)
    try:
        return _parser.parse(text)
    except RuntimeError:  # something of the last document is alive, in a traceback for example
        _parser = simdjson.Parser()
        return _parser.parse(text)


def _decode_text(model: Model, text: bytes, reserve: Callable[[int], None]) -> tuple[Arrays, Wanted]:
    """A request without binary inputs.

    A client that sends one input says the same around its numbers every time.  Where that was read before, only the list
    is: equal bytes in front leave a JSON reader in an equal state, so what follows is a value in the same place.  A long
    list is read piece by piece, since a parser takes many times its text.
    """
    start = text.find(b"[", text.find(b'"data"'))
    end = text.find(b"]", start) + 1
    key = text[: start if start <= MEMO_BYTES else 0], text[end if len(text) - end <= MEMO_BYTES else len(text) :]
    flat = all(key) and text[start + 1 : start + 2] not in b"["
    large = len(text) > LARGE
    around = model.layouts.get(key)
    if around is None and large and flat:
        around = _read_frame(model, *key)
    if around is not None:
        try:
            array = _read_pieces(text, start, end, around) if large else _read_list(text[start:end], around)
            return {around.spec.name: array}, around.wanted
        except (ValueError, RuntimeError):  # the whole is read for what to say about it
            pass
    if large:
        reserve(PARSED * len(text))
    feeds, wanted = _decode_json(model, text, None)
    if around is None and len(feeds) == 1 and flat and wanted.id is None and _is_data_between(*key):
        ((name, array),) = feeds.items()
        _remember(model, key, JsonFrame(model.inputs[name], array.size, array.shape, wanted))
    return feeds, wanted


def _read_list(text: bytes, frame: JsonFrame) -> Array:
    """Raises ValueError or RuntimeError where it is no list, RefusedError where it is another one than it should be."""
    numbers = _parse(text)
    try:
        return read_numbers(numbers, frame.spec, frame.count, frame.shape)
    finally:
        del numbers


def _read_pieces(text: bytes, start: int, end: int, frame: JsonFrame) -> Array:
    """The same of a long flat list, parsed in pieces that end at commas. Raises ValueError where anything is unusual."""
    if frame.count > len(text):  # a claim, before memory is spent on it
        raise ValueError
    array = np.empty(frame.count, frame.spec.dtype)
    at, stop, filled = start + 1, end - 1, 0
    while at <= stop:
        cut = stop if stop - at <= LARGE // 2 else text.rfind(b",", at, at + LARGE // 2)
        piece = text[at : max(cut, at)]
        numbers = _parse(b"[%b]" % piece) if piece.strip() else None
        if numbers is None or filled + len(numbers) > frame.count:
            raise ValueError
        read, wide = READ[frame.spec.dtype.kind]
        try:
            values = narrow(np.frombuffer(numbers.as_buffer(of_type=read), wide), frame.spec)
        except (TypeError, RefusedError):
            raise ValueError from None
        finally:
            del numbers
        array[filled : filled + len(values)] = values
        filled, at = filled + len(values), cut + 1
    if filled != frame.count:
        raise ValueError
    return array.reshape(frame.shape)


def _read_frame(model: Model, front: bytes, back: bytes) -> JsonFrame | None:
    """What is said around the numbers of a request of one input; None where it is unusual, or wrong."""
    if not _is_data_between(front, back):
        return None
    document = _parse(front + b"null" + back)
    try:
        keys, inputs = set(document), document["inputs"]
        if len(inputs) != 1 or "parameters" in set(inputs[0]):
            return None
        spec, shape = check_input(model, inputs[0], {}, ())
        if len(model.inputs) != 1 or spec.dtype.kind not in READ:
            return None
        return JsonFrame(spec, math.prod(shape), shape, read_wanted(model, document, keys))
    except (RefusedError, TypeError, KeyError):
        return None
    finally:
        del document


def _is_data_between(front: bytes, back: bytes) -> bool:
    """What stands between these is the data of the first input: with null there, that is what it is."""
    try:
        document = _parse(front + b"null" + back)
    except (ValueError, RuntimeError):
        return False
    match document.as_dict():
        case {"inputs": [{"data": None}, *_]}:
            return True
    return False


def _remember(model: Model, key: Any, value: BinaryLayout | JsonFrame) -> None:
    if len(model.layouts) >= MEMO:
        model.layouts.clear()
    model.layouts[key] = value


def _decode_json(model: Model, text: bytes, rest: memoryview | None) -> tuple[Arrays, Wanted]:
    try:
        document = _parse(text)
    except (ValueError, RuntimeError) as error:  # RuntimeError also for integers of more than 64 bits
        what = "the body" if rest is None else "the header of the body"
        raise RefusedError(400, f"{what} {explain_json_error(error)}, expected a JSON object with 'inputs'") from None
    try:
        return _read_request(model, document, text, rest)
    finally:
        del document


def _read_request(model: Model, document: Any, text: bytes, rest: memoryview | None) -> tuple[Arrays, Wanted]:
    if not isinstance(document, simdjson.Object):
        raise RefusedError(400, "the body is not a JSON object with 'inputs'")
    keys = set(document)  # asking simdjson for what is not there takes longer than all keys
    inputs = document["inputs"] if "inputs" in keys else None
    if not isinstance(inputs, simdjson.Array):
        raise RefusedError(400, "the request has no list 'inputs'")
    feeds: Arrays = {}
    parts: list[tuple[str, np.dtype[Any], tuple[int, ...], int, int]] = []
    offset = 0
    tensor: Any
    for tensor in inputs:
        spec, shape = check_input(model, tensor, feeds, parts)
        count = math.prod(shape)
        size = read_binary_size(tensor["parameters"], spec.name) if "parameters" in set(tensor) else None
        if size is None:
            feeds[spec.name] = read_numbers(tensor.get("data"), spec, count, shape)
            continue
        if rest is None:
            raise RefusedError(
                400, f"input {spec.name!r}: binary_data_size without the header Inference-Header-Content-Length"
            )
        if spec.dtype.kind == "O":
            feeds[spec.name] = unpack_texts(bytes(rest[offset : offset + max(size, 0)]), spec.name, count, shape)
            offset += size
            continue
        if size != count * spec.dtype.itemsize:
            raise RefusedError(
                400,
                f"input {spec.name!r}: binary_data_size {size}, "
                f"expected {count * spec.dtype.itemsize} for {format_axes(shape)} of {OF_DTYPE[spec.dtype]}",
            )
        parts.append((spec.name, spec.dtype, shape, offset, size))
        offset += size
    missing = [name for name in model.inputs if name not in feeds and all(name != part[0] for part in parts)]
    if missing:
        raise RefusedError(400, f"input {missing[0]!r} is missing, expected {quote_names(model.inputs)}")
    wanted = read_wanted(model, document, keys)
    if rest is not None:
        lengths = {shape[0] if shape else 0 for _, _, shape, _, _ in parts}
        rows = max(*lengths, 1) if len(lengths) == 1 else ALONE
        layout = BinaryLayout(tuple(parts), offset, rows, wanted)
        whole = rest.obj
        assert isinstance(whole, bytes | bytearray)
        feeds |= slice_inputs(layout, whole, len(text))
        if len(parts) == len(model.inputs) and len(text) <= MEMO_BYTES:
            _remember(model, text, layout)
    return feeds, wanted
