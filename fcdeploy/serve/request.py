"""What a request says, part by part: it is what the model takes, or it is refused, naming what came and what was expected."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import simdjson

from fcdeploy.arrays import Array, make_texts
from fcdeploy.errors import quote_names
from fcdeploy.records.signature import TensorSpec, format_axes
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError

DATATYPES = {
    "object": "BYTES", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""NumPy dtype -> the protocol's name of it."""

OF_DTYPE = {np.dtype(name): datatype for name, datatype in DATATYPES.items()}  # asking a dtype for its name takes 2 µs

READ: dict[str, tuple[Literal["d", "i", "u"], type[np.generic]]] = {
    "f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64),
}  # fmt: skip
"""Kind of a dtype -> how simdjson reads numbers for it."""

END = object()
MOST_AXES = 64  # of a shape: more than any array has


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


def check_input(
    model: Model, tensor: Any, feeds: Mapping[str, Array], parts: Sequence[tuple[Any, ...]]
) -> tuple[TensorSpec, tuple[int, ...]]:
    """The input that an element of `inputs` is for, and its shape, both checked."""
    if not isinstance(tensor, simdjson.Object):
        raise RefusedError(400, "an element of 'inputs' is not an object with name, shape, datatype and data")

    name = tensor.get("name")
    if not isinstance(name, str):
        raise RefusedError(400, f"an input has no name, expected {quote_names(model.inputs)}")
    spec = model.inputs.get(name)
    if spec is None:
        raise RefusedError(400, f"input {name[:100]!r} is unknown, expected {quote_names(model.inputs)}")
    if name in feeds or any(name == part[0] for part in parts):
        raise RefusedError(400, f"input {name!r} is given twice, expected once")

    datatype, expected = tensor.get("datatype"), OF_DTYPE[spec.dtype]
    if datatype != expected:
        got = datatype[:20] if isinstance(datatype, str) else "none"
        raise RefusedError(400, f"input {name!r}: datatype {got}, expected {expected}")
    said = tensor.get("shape")
    shape: list[Any] | None = list(said) if isinstance(said, simdjson.Array) and len(said) <= MOST_AXES else None
    if shape is None or not all(type(n) is int for n in shape):
        raise RefusedError(400, f"input {name!r}: no shape, expected a list of integers: {format_axes(spec.shape)}")
    if not spec.accepts(shape):
        raise RefusedError(400, f"input {name!r}: shape {_shorten(shape)}, expected {format_axes(spec.shape)}")
    check_texts(model, spec, shape)
    return spec, tuple(shape)


def check_texts(model: Model, spec: TensorSpec, shape: Sequence[int]) -> None:
    """Raises RefusedError 413 for more than are read while others wait."""
    if spec.dtype.kind == "O" and prod(shape) > model.most_texts:
        raise RefusedError(
            413,
            f"input {spec.name!r}: {prod(shape)} texts, expected at most {model.most_texts}: send fewer in a request",
        )


def read_binary_size(parameters: Any, name: str) -> int | None:
    if not isinstance(parameters, simdjson.Object):
        return None
    if "shared_memory_region" in parameters:
        raise RefusedError(400, f"input {name!r}: shared memory is not served, expected data")
    size = parameters.get("binary_data_size")
    if size is not None and type(size) is not int:
        raise RefusedError(400, f"input {name!r}: binary_data_size is not an integer, expected a number of bytes")
    return size


def read_numbers(data: Any, spec: TensorSpec, count: int, shape: Sequence[int]) -> Array:
    """`data` as an array of the input's dtype. Numbers that it cannot hold are refused, not wrapped."""
    if not isinstance(data, simdjson.Array):
        raise RefusedError(400, f"input {spec.name!r}: no data, expected a list of {count} values")
    array = _read_flat(data, spec, count)
    if array.size != count:
        raise RefusedError(
            400, f"input {spec.name!r}: {array.size} values, expected {count} for shape {_shorten(shape)}"
        )
    return narrow(array, spec).reshape(shape)


def _read_flat(data: Any, spec: TensorSpec, count: int) -> Array:
    """All values of a list, nested or not, as simdjson reads them."""
    name, kind = spec.name, spec.dtype.kind
    if kind == "O":
        return make_texts(_read_elements(data, name, count, str, "text for BYTES"), (-1,))
    if kind == "b":
        return np.array(_read_elements(data, name, count, bool, "true and false for BOOL"), np.bool_)
    read, wide = READ[kind]
    try:
        return np.frombuffer(data.as_buffer(of_type=read), wide)
    except (TypeError, ValueError):
        raise RefusedError(
            400, f"input {name!r}: data holds something else, expected numbers for {OF_DTYPE[spec.dtype]}"
        ) from None


def narrow(array: Array, spec: TensorSpec) -> Array:
    """In the input's dtype. Raises RefusedError 400 for numbers that it cannot hold."""
    name, datatype = spec.name, OF_DTYPE[spec.dtype]
    if spec.dtype.kind in "iu" and array.dtype != spec.dtype:
        limits: Any = np.iinfo(spec.dtype.name)
        if array.min() < limits.min or array.max() > limits.max:
            raise RefusedError(
                400, f"input {name!r}: a value outside {datatype}, expected {limits.min} to {limits.max}"
            )
    try:
        with np.errstate(over="raise"):
            return array.astype(spec.dtype)
    except FloatingPointError:
        raise RefusedError(
            400, f"input {name!r}: a value too large for {datatype}, expected what it can hold"
        ) from None


def _read_elements(data: Any, name: str, count: int, kind: type, expected: str) -> list[Any]:
    """One more than `count` at most: a list of millions would take a hundred times its text as Python's lists."""
    flat: list[Any] = []
    lists = [iter(data)]
    while lists and len(flat) <= count:
        element = next(lists[-1], END)
        if element is END:
            lists.pop()
        elif type(element) is kind:
            flat.append(element)
        elif isinstance(element, simdjson.Array) and len(element):
            lists.append(iter(element))
        else:
            raise RefusedError(400, f"input {name!r}: data holds something else, expected {expected}")
    return flat


def encode_texts(array: Array) -> list[bytes]:
    """Texts in UTF-8; what it cannot say of them is a question mark."""
    return [str(text).encode(errors="replace") for text in array.reshape(-1)]


def pack_texts(array: Array) -> bytes:
    """As the protocol writes BYTES: each in UTF-8 behind its length, 4 bytes little-endian."""
    coded = encode_texts(array)
    return b"".join(len(text).to_bytes(4, "little") + text for text in coded)


def unpack_texts(content: bytes, name: str, count: int, shape: Sequence[int]) -> Array:
    """What `pack_texts` wrote. Raises RefusedError 400."""
    coded, at = list[bytes](), 0
    while at + 4 <= len(content) and len(coded) <= count:
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        coded.append(content[at + 4 : end])
        at = end
    if at != len(content) or len(coded) != count:
        raise RefusedError(400, f"input {name!r}: {len(content)} bytes are no {count} texts, each behind its length")
    return decode_texts(coded, name, shape)


def decode_texts(coded: Sequence[bytes], name: str, shape: Sequence[int]) -> Array:
    """Raises RefusedError 400 for what is no UTF-8."""
    try:
        return make_texts([text.decode() for text in coded], shape)
    except UnicodeDecodeError:
        raise RefusedError(400, f"input {name!r}: a text is no UTF-8, expected that") from None


def read_wanted(model: Model, document: Any, keys: set[str]) -> Wanted:
    """`outputs`, `id` and `parameters` of the request."""
    if keys == {"inputs"}:
        return Wanted(tuple((i, False) for i in range(len(model.outputs))), None, None)
    parameters = document.get("parameters")
    of_all = parameters if isinstance(parameters, simdjson.Object) else {}
    binary = of_all.get("binary_data_output") is True
    timeout = of_all.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        given = _shorten(timeout) if isinstance(timeout, int | float | str) else "no number"
        raise RefusedError(400, f"parameter 'timeout' is {given}, expected whole microseconds, 0 or more")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RefusedError(400, "'id' is not text, expected a string")
    names = list(model.outputs)
    said = document.get("outputs")
    if said is None or (isinstance(said, simdjson.Array) and not len(said)):
        outputs = tuple((i, binary) for i in range(len(names)))
    elif isinstance(said, simdjson.Array):
        if len(said) > len(names):
            raise RefusedError(400, f"{len(said)} outputs, expected each of {quote_names(model.outputs)} once at most")
        outputs = tuple(_read_output(model, names, output, binary) for output in said)
        if len({index for index, _ in outputs}) < len(outputs):
            raise RefusedError(400, "an output is asked for twice, expected once")
    else:
        raise RefusedError(400, "'outputs' is not a list of objects with a name")
    return Wanted(outputs, identity, timeout / 1e6 if timeout else None)


def _read_output(model: Model, names: list[str], output: Any, binary: bool) -> tuple[int, bool]:
    name = output.get("name") if isinstance(output, simdjson.Object) else None
    if not isinstance(name, str) or name not in model.outputs:
        given = None if isinstance(name, simdjson.Object | simdjson.Array) else name
        raise RefusedError(400, f"output {_shorten(given)} is unknown, expected {quote_names(model.outputs)}")
    parameters = output.get("parameters")
    parameters = parameters if isinstance(parameters, simdjson.Object) else {}
    for refused in ("classification", "shared_memory_region"):
        if parameters.get(refused):
            raise RefusedError(400, f"output {name!r}: {refused} is not served, expected binary_data or nothing")
    return names.index(name), bool(parameters.get("binary_data", binary))


def _shorten(value: object) -> str:
    """At most 100 characters of what came."""
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
