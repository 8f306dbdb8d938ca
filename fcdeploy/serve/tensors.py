"""Bodies of `infer` to arrays and back: JSON, and the binary tensor extension.

A JSON tensor is an object with name, shape, datatype and data, flat or nested in row-major order.  In the extension the
body is a JSON header and then the bytes of the tensors whose parameters say `binary_data_size`, in order, little-endian.
simdjson reads numbers straight into a buffer: a third of the time of building Python floats.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import orjson
import simdjson

from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.feeds import shown
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError

Array = np.ndarray[Any, Any]
DATATYPES = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""NumPy dtype -> the protocol's name of it."""

OF_DTYPE = {np.dtype(name): datatype for name, datatype in DATATYPES.items()}  # asking a dtype for its name takes 2 µs

MEMO = 256  # JSON headers of binary requests that are remembered; a client's differ by their id at most
MEMO_BYTES = 2048
READ: dict[str, tuple[Literal["d", "i", "u"], type[np.generic]]] = {
    "f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64),
}  # fmt: skip
"""Kind of a dtype -> how simdjson reads numbers for it."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for besides its inputs: `outputs` by index with whether in binary; its id; seconds it has.

    `heads` remembers what stands before binary outputs, by their shapes.
    """

    outputs: tuple[tuple[int, bool], ...]
    id: str | None
    timeout: float | None
    heads: dict[tuple[Any, ...], bytes] = field(default_factory=dict)

    @cached_property
    def binary(self) -> bool:
        """All outputs are wanted in binary, so that what stands before them depends on their shapes alone."""
        return sys.byteorder == "little" and all(binary for _, binary in self.outputs)


@dataclass(frozen=True)
class Layout:
    """Where the inputs of a binary request lie behind its header: (name, dtype, shape, start, count)."""

    parts: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int, int], ...]
    size: int
    wanted: Wanted


@dataclass(frozen=True)
class Around:
    """A JSON request whose numbers are one flat list: all that is said around them."""

    spec: TensorSpec
    count: int
    shape: tuple[int, ...]
    wanted: Wanted


_parser = simdjson.Parser()


def decode(model: Model, body: bytes | bytearray, header_length: int | None) -> tuple[dict[str, Array], Wanted]:
    """The inputs and what is wanted. Raises RefusedError 400, which names the input, what came and what was expected."""
    if header_length is None:
        return _from_text(model, bytes(body))
    if header_length > len(body):
        raise RefusedError(
            400, f"Inference-Header-Content-Length is {header_length}, more than the {len(body)} bytes of the body"
        )
    header = body[:header_length] if type(body) is bytes else bytes(memoryview(body)[:header_length])
    layout = model.layouts.get(header)
    if layout is not None:
        return _sliced(layout, body, header_length), layout.wanted
    return _from_json(model, header, memoryview(body)[header_length:])


def encode(model: Model, outputs: Sequence[Array], wanted: Wanted) -> tuple[list[bytes], int | None]:
    """The parts of a body, and the length of its JSON header where tensors follow it."""
    chosen = [(outputs[index], binary) for index, binary in wanted.outputs]
    header = _header(model, chosen, wanted)
    tensors = [_little(array).tobytes() for array, binary in chosen if binary]
    return [header, *tensors], len(header) if tensors else None


def _header(model: Model, chosen: Sequence[tuple[Array, bool]], wanted: Wanted) -> bytes:
    """The JSON of an answer, with the data of what is not wanted in binary."""
    names = list(model.outputs)
    tensors: list[dict[str, Any]] = []
    for (array, binary), (index, _) in zip(chosen, wanted.outputs, strict=True):
        tensor: dict[str, Any] = {"name": names[index], "datatype": OF_DTYPE[array.dtype], "shape": array.shape}
        if binary:
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = np.ascontiguousarray(array).reshape(-1)
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": tensors}
    if wanted.id is not None:
        answer["id"] = wanted.id
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def describe(spec: TensorSpec) -> dict[str, Any]:
    """The protocol's metadata of an input or output; -1 is an axis of any length."""
    shape = [-1 if n is None else n for n in spec.shape]
    return {"name": spec.name, "datatype": OF_DTYPE[spec.dtype], "shape": shape}


def _sliced(layout: Layout, body: bytes | bytearray, start: int) -> dict[str, Array]:
    if start + layout.size != len(body):
        raise RefusedError(
            400, f"{len(body) - start} bytes follow the header, expected {layout.size}: the sum of binary_data_size"
        )
    feeds = {}
    for name, dtype, shape, offset, count in layout.parts:
        array = np.frombuffer(body, dtype, count, start + offset).reshape(shape)
        if dtype.kind == "b":
            array = array.view(np.uint8) != 0
        elif sys.byteorder != "little":
            array = array.astype(dtype.newbyteorder("="))
        feeds[name] = array
    return feeds


def _little(array: Array) -> Array:
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("<"))


def _parsed(text: bytes) -> Any:
    """The caller deletes it when done. Raises ValueError, or RuntimeError for integers of more than 64 bits."""
    global _parser
    try:
        return _parser.parse(text)
    except RuntimeError:  # something of the last document is alive, in a traceback for example
        _parser = simdjson.Parser()
        return _parser.parse(text)


def _from_text(model: Model, text: bytes) -> tuple[dict[str, Array], Wanted]:
    """A request without binary inputs.

    A client that sends one input says the same around its numbers every time.  Where that was read before, only the list
    is: equal bytes in front leave a JSON reader in an equal state, so what follows is a value in the same place.
    """
    start = text.find(b"[", text.find(b'"data"'))
    end = text.find(b"]", start) + 1
    key = text[: start if start <= MEMO_BYTES else 0], text[end if len(text) - end <= MEMO_BYTES else len(text) :]
    around = model.layouts.get(key)
    if around is not None:
        try:
            numbers = _parsed(text[start:end])
        except (ValueError, RuntimeError):  # the whole is read for what to say about it
            return _from_json(model, text, None)
        try:
            return {around.spec.name: _numbers(numbers, around.spec, around.count, around.shape)}, around.wanted
        finally:
            del numbers
    feeds, wanted = _from_json(model, text, None)
    if (
        len(feeds) == 1
        and all(key)
        and wanted.id is None
        and text[start + 1 : start + 2] not in b"["
        and _lies_between(*key)
    ):
        ((name, array),) = feeds.items()
        _remember(model, key, Around(model.inputs[name], array.size, array.shape, wanted))
    return feeds, wanted


def _lies_between(front: bytes, back: bytes) -> bool:
    """What stands between these is the data of the first input: with null there, that is what it is."""
    try:
        document = _parsed(front + b"null" + back)
    except (ValueError, RuntimeError):
        return False
    match document.as_dict():
        case {"inputs": [{"data": None}, *_]}:
            return True
    return False


def _remember(model: Model, key: Any, value: Layout | Around) -> None:
    if len(model.layouts) >= MEMO:
        model.layouts.clear()
    model.layouts[key] = value


def _from_json(model: Model, text: bytes, rest: memoryview | None) -> tuple[dict[str, Array], Wanted]:
    try:
        document = _parsed(text)
    except (ValueError, RuntimeError) as error:  # RuntimeError also for integers of more than 64 bits
        what = "the body" if rest is None else "the header of the body"
        raise RefusedError(400, f"{what} is not JSON: {' '.join(str(error).split())[:200]}") from None
    try:
        return _request(model, document, text, rest)
    finally:
        del document


def _request(model: Model, document: Any, text: bytes, rest: memoryview | None) -> tuple[dict[str, Array], Wanted]:
    if not isinstance(document, simdjson.Object):
        raise RefusedError(400, "the body is not a JSON object with 'inputs'")
    keys = set(document)  # asking simdjson for what is not there takes longer than all keys
    inputs = document["inputs"] if "inputs" in keys else None
    if not isinstance(inputs, simdjson.Array):
        raise RefusedError(400, "the request has no list 'inputs'")
    feeds: dict[str, Array] = {}
    parts: list[tuple[str, np.dtype[Any], tuple[int, ...], int, int]] = []
    offset = 0
    tensor: Any
    for tensor in inputs:
        spec, shape = _described(model, tensor, feeds, parts)
        count = math.prod(shape)
        size = _binary_size(tensor["parameters"], spec.name) if "parameters" in set(tensor) else None
        if size is None:
            feeds[spec.name] = _numbers(tensor.get("data"), spec, count, shape)
            continue
        if rest is None:
            raise RefusedError(
                400, f"input {spec.name!r}: binary_data_size without the header Inference-Header-Content-Length"
            )
        if size != count * spec.dtype.itemsize:
            raise RefusedError(
                400,
                f"input {spec.name!r}: binary_data_size {size}, "
                f"expected {count * spec.dtype.itemsize} for {shown(shape)} of {OF_DTYPE[spec.dtype]}",
            )
        parts.append((spec.name, spec.dtype.newbyteorder("<"), shape, offset, count))
        offset += size
    missing = [name for name in model.inputs if name not in feeds and all(name != part[0] for part in parts)]
    if missing:
        raise RefusedError(400, f"input {missing[0]!r} is missing, expected {_all(model.inputs)}")
    wanted = _wanted(model, document, keys)
    if rest is not None:
        layout = Layout(tuple(parts), offset, wanted)
        whole = rest.obj
        assert isinstance(whole, bytes | bytearray)
        feeds |= _sliced(layout, whole, len(text))
        if len(parts) == len(model.inputs) and len(text) <= MEMO_BYTES:
            _remember(model, text, layout)
    return feeds, wanted


def _described(
    model: Model, tensor: Any, feeds: Mapping[str, Array], parts: Sequence[tuple[Any, ...]]
) -> tuple[TensorSpec, tuple[int, ...]]:
    """The input that an element of `inputs` is for, and its shape, both checked."""
    if not isinstance(tensor, simdjson.Object):
        raise RefusedError(400, "an element of 'inputs' is not an object with name, shape, datatype and data")
    name = tensor.get("name")
    if not isinstance(name, str):
        raise RefusedError(400, f"an input has no name, expected {_all(model.inputs)}")
    spec = model.inputs.get(name)
    if spec is None:
        raise RefusedError(400, f"input {name[:100]!r} is unknown, expected {_all(model.inputs)}")
    if name in feeds or any(name == part[0] for part in parts):
        raise RefusedError(400, f"input {name!r} is given twice, expected once")
    datatype, expected = tensor.get("datatype"), OF_DTYPE[spec.dtype]
    if datatype != expected:
        got = datatype[:20] if isinstance(datatype, str) else "none"
        raise RefusedError(400, f"input {name!r}: datatype {got}, expected {expected}")
    listed = tensor.get("shape")
    shape: list[Any] | None = listed.as_list() if isinstance(listed, simdjson.Array) else None
    if shape is None or not all(type(n) is int for n in shape):
        raise RefusedError(400, f"input {name!r}: no shape, expected a list of integers: {shown(spec.shape)}")
    fits = len(shape) == len(spec.shape) and all(n in (None, m) for n, m in zip(spec.shape, shape, strict=True))
    if not fits or any(n < 1 for n in shape):
        raise RefusedError(400, f"input {name!r}: shape {_short(shape)}, expected {shown(spec.shape)}")
    return spec, tuple(shape)


def _binary_size(parameters: Any, name: str) -> int | None:
    if not isinstance(parameters, simdjson.Object):
        return None
    if "shared_memory_region" in parameters:
        raise RefusedError(400, f"input {name!r}: shared memory is not served, expected data")
    size = parameters.get("binary_data_size")
    if size is not None and type(size) is not int:
        raise RefusedError(400, f"input {name!r}: binary_data_size is not an integer, expected a number of bytes")
    return size


def _numbers(data: Any, spec: TensorSpec, count: int, shape: Sequence[int]) -> Array:
    """`data` as an array of the input's dtype. Numbers that it cannot hold are refused, not wrapped."""
    name, kind = spec.name, spec.dtype.kind
    datatype = OF_DTYPE[spec.dtype]
    if not isinstance(data, simdjson.Array):
        raise RefusedError(400, f"input {name!r}: no data, expected a list of {count} values")
    if kind == "b":
        array = _truths(data, name)
    else:
        read, wide = READ[kind]
        try:
            array = np.frombuffer(data.as_buffer(of_type=read), wide)
        except (TypeError, ValueError):
            raise RefusedError(
                400, f"input {name!r}: data holds something else, expected numbers for {datatype}"
            ) from None
    if array.size != count:
        raise RefusedError(400, f"input {name!r}: {array.size} values, expected {count} for shape {_short(shape)}")
    if kind in "iu" and array.dtype != spec.dtype:
        limits: Any = np.iinfo(spec.dtype.name)
        if array.min() < limits.min or array.max() > limits.max:
            raise RefusedError(
                400, f"input {name!r}: a value outside {datatype}, expected {limits.min} to {limits.max}"
            )
    try:
        with np.errstate(over="raise"):
            return array.astype(spec.dtype).reshape(shape)
    except FloatingPointError:
        raise RefusedError(
            400, f"input {name!r}: a value too large for {datatype}, expected what it can hold"
        ) from None


def _truths(data: Any, name: str) -> Array:
    try:
        flat = np.array(data.as_list(), object).reshape(-1)
    except ValueError:  # lists of different lengths
        flat = np.array([None])
    if not all(type(element) is bool for element in flat):
        raise RefusedError(400, f"input {name!r}: data holds something else, expected true and false for BOOL")
    return flat.astype(np.bool_)


def _wanted(model: Model, document: Any, keys: set[str]) -> Wanted:
    """`outputs`, `id` and `parameters` of the request."""
    if keys == {"inputs"}:
        return Wanted(tuple((i, False) for i in range(len(model.outputs))), None, None)
    parameters = document.get("parameters")
    of_all = parameters.as_dict() if isinstance(parameters, simdjson.Object) else {}
    binary = of_all.get("binary_data_output") is True
    timeout = of_all.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise RefusedError(400, "parameter 'timeout' is not a number of microseconds, expected an integer")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RefusedError(400, "'id' is not text, expected a string")
    names = list(model.outputs)
    listed = document.get("outputs")
    if listed is None or (isinstance(listed, simdjson.Array) and not len(listed)):
        outputs = tuple((i, binary) for i in range(len(names)))
    elif isinstance(listed, simdjson.Array):
        outputs = tuple(_output(model, names, output, binary) for output in listed.as_list())
    else:
        raise RefusedError(400, "'outputs' is not a list of objects with a name")
    return Wanted(outputs, identity, timeout / 1e6 if timeout else None)


def _output(model: Model, names: list[str], output: Any, binary: bool) -> tuple[int, bool]:
    name = output.get("name") if isinstance(output, dict) else None
    if not isinstance(name, str) or name not in model.outputs:
        raise RefusedError(400, f"output {_short(name)} is unknown, expected {_all(model.outputs)}")
    parameters = output.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    for refused in ("classification", "shared_memory_region"):
        if parameters.get(refused):
            raise RefusedError(400, f"output {name!r}: {refused} is not served, expected binary_data or nothing")
    return names.index(name), bool(parameters.get("binary_data", binary))


def _all(ends: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(repr, ends))


def _short(value: object) -> str:
    """At most 100 characters of what came."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
