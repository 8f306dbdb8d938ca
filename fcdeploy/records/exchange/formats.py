"""Ranges in the files of other tools: which formats there are, and which of them a file has, by its content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_small_file
from fcdeploy.records.exchange import onnxruntime_json, onnxruntime_table, tensorrt
from fcdeploy.records.exchange.ranges import Ranges
from fcdeploy.wording import quote_path

PICKLE = (b"\x80", b"(dp", b"cnumpy")


class Format(NamedTuple):
    """A format that is read: its name, whether a file has it, its reader."""

    name: str
    fits: Callable[[bytes], bool]
    read: Callable[[bytes], Ranges]


FORMATS = (  # the first that fits
    Format("TensorRT's calibration cache", tensorrt.is_cache, tensorrt.read_cache),
    Format("onnxruntime's calibration JSON", onnxruntime_json.is_json, onnxruntime_json.read_json),
    Format("onnxruntime's calibration.cache", onnxruntime_table.is_text, onnxruntime_table.read_text),
    Format(
        "onnxruntime's calibration.flatbuffers", onnxruntime_table.is_flatbuffers, onnxruntime_table.read_flatbuffers
    ),
)
KNOWN = "ranges are read from " + ", ".join(row.name for row in FORMATS)


def read_ranges(path: Path) -> tuple[Ranges, str]:
    """The ranges in a file, and the name of its format. Raises FcdeployError; nothing is ever unpickled."""
    what = f"{str(path)!r}"
    if not path.is_file():
        raise FcdeployError(f"file {what} does not exist", KNOWN)
    try:
        data = read_small_file(path, "file", KNOWN)
    except OSError as error:
        raise FcdeployError(f"{what} cannot be read: {error.strerror}", f"ls -l {quote_path(path)}") from error
    if data.startswith(PICKLE):
        raise FcdeployError(f"{what} is a Python pickle, which may run any code and is never read", KNOWN)
    row = next((row for row in FORMATS if row.fits(data)), None)
    if row is None:
        raise FcdeployError(f"{what} is no calibration of a format that can be read", KNOWN)
    try:
        return row.read(data), row.name
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise FcdeployError(f"{row.name} {what} is damaged: {reason}", "write or copy the file again") from error


def is_calibration(path: Path) -> bool:
    """Is it a calibration file of fcdeploy's, by its first bytes: the length of a JSON object, and its brace?"""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32
