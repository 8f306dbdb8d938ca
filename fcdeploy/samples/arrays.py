"""NumPy's array format, read one row at a time from any binary file. Nothing is unpickled.

The header is a claim: the number of bytes it declares is compared with the bytes that are there before anything is
allocated, and rows are read in pieces, so that memory follows the data and not the claim.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread

PIECE = 1 << 20
MAX_DEFLATE = 1032  # zlib's documented limit of how much one byte can expand to
SAVE_AGAIN = "copy the file again, or write it again: numpy.save, numpy.savez and numpy.savez_compressed do"


@dataclass(frozen=True)
class Header:
    """What an array's header declares, and at which byte its data start."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_major: bool
    offset: int


def read_header(file: IO[bytes], held: int, what: str) -> Header:
    """Parse the header at the start of a file of `held` bytes; `what` names the array in errors."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, column_major, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format version {version[0]}.{version[1]} is for records, expected 1.0 or 2.0")
    except FcdeployError:
        raise
    except Exception as error:  # the header is a Python literal: a damaged one raises anything that parsing can
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FcdeployError(f"{what} is not a NumPy array, or is damaged: {first}", SAVE_AGAIN) from error
    if dtype.hasobject:
        raise FcdeployError(
            f"{what} holds Python objects (dtype object), which are never unpickled, expected numbers",
            "make every sample the same shape, or use a generator: --data FILE.py:FUNCTION; text is saved as array.astype(str)",
        )
    if not dtype.itemsize:  # as many as it says, in no bytes
        raise FcdeployError(f"{what} holds {dtype.str}, texts of no letters, expected numbers or text", SAVE_AGAIN)
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise FcdeployError(f"{what} declares the shape {shape}, expected lengths of 0 or more", SAVE_AGAIN)
    offset = file.tell()
    declared = prod(shape) * dtype.itemsize
    if declared > held - offset:
        raise FcdeployError(
            f"{what} declares {shape} {dtype}, which is {declared} bytes, but holds {max(held - offset, 0)}", SAVE_AGAIN
        )
    return Header(shape, dtype, column_major, offset)


def read_rows(file: IO[bytes], header: Header, what: str) -> Iterator[Array]:
    """Rows along the first axis, one at a time. The file stands at the first byte of the data."""
    if header.column_major and len(header.shape) > 1:
        yield from _read_column_major_rows(file, header, what)
        return
    row = header.shape[1:]
    size = prod(row) * header.dtype.itemsize
    for _ in range(header.shape[0]):
        yield np.frombuffer(_read_exactly(file, size, what), header.dtype).reshape(row)


def read_row(file: IO[bytes], header: Header, index: int, what: str) -> Array:
    """One row along the first axis, of a file that can be read anywhere and an array that is not column-major."""
    row = header.shape[1:]
    size = prod(row) * header.dtype.itemsize
    file.seek(header.offset + index * size)
    return np.frombuffer(_read_exactly(file, size, what), header.dtype).reshape(row)


def read_whole(file: IO[bytes], header: Header, what: str) -> Array:
    """The whole array."""
    data = _read_exactly(file, prod(header.shape) * header.dtype.itemsize, what)
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.column_major else "C")


@contextmanager
def report_damage(source: str, place: str) -> Iterator[None]:
    """Turn whatever a damaged archive or disk raises into one error that names the place."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        refuse_unread(source, error)
        why = " ".join(str(error).split())
        raise FcdeployError(f"{source} is damaged at {place}: {why}", SAVE_AGAIN) from error


def _read_column_major_rows(file: IO[bytes], header: Header, what: str) -> Iterator[Array]:
    """A row of a column-major array lies scattered over all of it: unpack it to disk once, then map it."""
    if not prod(header.shape):
        yield from np.zeros(header.shape, header.dtype)
        return
    with tempfile.TemporaryFile() as aside:
        shutil.copyfileobj(file, aside, PIECE)
        aside.flush()
        if aside.tell() < prod(header.shape) * header.dtype.itemsize:
            raise make_truncated_error(what)
        mapped: Array = np.memmap(aside, header.dtype, "r", shape=header.shape, order="F")
        for row in mapped:
            yield np.array(row)


def _read_exactly(file: IO[bytes], size: int, what: str) -> bytes:
    pieces = []
    while size:
        piece = file.read(min(size, PIECE))
        if not piece:
            raise make_truncated_error(what)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def make_truncated_error(what: str) -> FcdeployError:
    return FcdeployError(f"{what} ends before the samples it declares", SAVE_AGAIN)
