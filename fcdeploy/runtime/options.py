"""Session options that travel with a model, in its metadata under `fcdeploy.session`: a JSON object of config entries.

Some models are right only under an option of onnxruntime's, which a file of its own could not say.  Only entries that
change how accurate or how large a session is may travel; paths, libraries and providers may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fcdeploy.errors import FcdeployError
from fcdeploy.tables.targets import TARGETS

if TYPE_CHECKING:  # serving reads models without onnx, which takes 30 MB and half a second
    import onnx_ir as ir

KEY = "fcdeploy.session"
ACCURACY_LEVEL = "session.qdq_matmulnbits_accuracy_level"
PRECISION = "session.x64quantprecision"
"""Signed byte weights are made unsigned, whose products are added in 32 bits. A file whose pairs can overflow carries it:
on x86 CPUs without VNNI it is then slow instead of wrong. It would be slow on all x86 CPUs (1.04 of the float time instead
of 0.43, resnet20 on AVX512-VNNI), so it is left out where kernels add in 32 bits anyway.
"""

ALLOWED = {
    ACCURACY_LEVEL: {"0", "1", "2", "3", "4"},
    PRECISION: {"0", "1"},
    "session.disable_prepacking": {"0", "1"},
}
"""Config entry -> the values it may have."""

METADATA_PROPS = 14  # field number in onnx.proto's ModelProto
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf wire types


def read_options(model: str | Path | bytes | ir.Model) -> dict[str, str]:
    """The config entries that the model asks for. Raises FcdeployError for one that may not travel."""
    return parse_options(read_metadata(model).get(KEY))


def select_for_cpu(entries: Mapping[str, str], flags: Set[str]) -> dict[str, str]:
    """Drop the entries that a CPU with these flags does not need."""
    exact = any(flags & set(row.cpu) for row in TARGETS.values() if row.pair_limit is None)
    return {name: value for name, value in entries.items() if name != PRECISION or not exact}


def parse_options(text: str | None) -> dict[str, str]:
    """Entries from the metadata's JSON, checked; {} from None."""
    if text is None:
        return {}
    hint = f"entries that may travel: {', '.join(ALLOWED)}"
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FcdeployError(f"metadata {KEY!r} is not JSON: {text[:60]!r}", hint) from error
    return check_options(entries, f"metadata {KEY!r}")


def check_options(entries: object, source: str) -> dict[str, str]:
    """The entries, when all of them may travel; `source` is what to call them in the error that is raised otherwise."""
    hint = f"entries that may travel: {', '.join(ALLOWED)}"
    if not isinstance(entries, dict):
        raise FcdeployError(f"{source} is {str(entries)[:60]!r}, expected a JSON object of config entries", hint)
    for name, value in entries.items():
        if name not in ALLOWED:
            raise FcdeployError(f"{source} sets {name!r}, which a model may not set", hint)
        if not isinstance(value, str) or value not in ALLOWED[name]:
            raise FcdeployError(
                f"{source} sets {name!r} to {value!r}, expected {_format_values(ALLOWED[name])}",
                f'"{name}": "{min(ALLOWED[name])}"',
            )
    return dict(entries)


def write_options(model: ir.Model, entries: Mapping[str, str]) -> None:
    """Add these entries to those the model carries already."""
    model.metadata_props[KEY] = json.dumps(
        read_options(model) | parse_options(json.dumps(dict(entries))), sort_keys=True
    )


def drop_option(model: ir.Model, name: str) -> None:
    """Take an entry off those the model carries."""
    left = {key: value for key, value in read_options(model).items() if key != name}
    model.metadata_props.pop(KEY, None)
    if left:
        write_options(model, left)


def _format_values(values: set[str]) -> str:
    return " or ".join(f'"{value}"' for value in sorted(values))


def read_metadata(model: str | Path | bytes | ir.Model) -> dict[str, str]:
    """The metadata of a model, without reading the rest of its file; {} where there is none."""
    if not isinstance(model, str | Path | bytes):
        return dict(model.metadata_props)
    if isinstance(model, bytes):
        return _read_entries(BytesIO(model))
    if not Path(model).is_file():
        return {}
    with Path(model).open("rb") as file:
        return _read_entries(file)


def _read_entries(file: BinaryIO) -> dict[str, str]:
    """The metadata of a serialized model; {} where it is no protobuf: whoever loads it says so."""
    entries = {}
    for part in _iterate_fields(file, METADATA_PROPS):
        key, value = (next(_iterate_fields(BytesIO(part), number), b"") for number in (1, 2))  # StringStringEntryProto
        entries[key.decode(errors="replace")] = value.decode(errors="replace")
    return entries


def _iterate_fields(file: BinaryIO, wanted: int) -> Iterator[bytes]:
    """The bytes fields of that number at a message's top level; the others are stepped over without being read.

    A model of gigabytes is not touched for a line of metadata; a length beyond the file's end ends the search.
    """
    end = file.seek(0, SEEK_END)
    file.seek(0)
    while (tag := _read_varint(file)) is not None:
        number, wire = tag >> 3, tag & 7
        if wire == BYTES:
            length = _read_varint(file) or 0
            if length > end - file.tell():
                return
            if number == wanted:
                yield file.read(length)
            else:
                file.seek(length, 1)
        elif wire == VARINT:
            _read_varint(file)
        elif wire in (FIXED64, FIXED32):
            file.seek(8 if wire == FIXED64 else 4, 1)
        else:
            return


def _read_varint(file: BinaryIO) -> int | None:
    """Protobuf's variable-length integer; None at the end of the file."""
    result = shift = 0
    while byte := file.read(1):
        result |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return result
        if shift > 63:
            return None
    return None
