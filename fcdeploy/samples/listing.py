"""The files of a folder in the order of their names. It may hold a million: only their names are kept, packed.

The order must be the same everywhere, and a folder lists its files in none, so the names have to be together in memory
once to be sorted: as one NumPy array of bytes, as wide as the longest of them.  A class folder's are gone before the
next one's are read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcdeploy.errors import FcdeployError
from fcdeploy.wording import quote_path

UNPACKED = 4096  # names at once


@contextmanager
def scan_folder(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What the folder holds, in no order, one at a time. Raises FcdeployError where it cannot be read."""
    try:
        with os.scandir(folder) as scanned:
            yield scanned
    except OSError as error:
        raise FcdeployError(
            f"folder {str(folder)!r} cannot be read: {error.strerror}", f"ls {quote_path(folder)}"
        ) from error


def list_folders(folder: Path) -> list[str]:
    """The names of its sub-folders, sorted; hidden ones are passed over."""
    with scan_folder(folder) as scanned:
        return sorted(entry.name for entry in scanned if entry.name[0] != "." and entry.is_dir())


def has_files(folder: Path, suffixes: Collection[str]) -> bool:
    """Is there any file with one of these suffixes?"""
    return next(_iterate_names(folder, suffixes), None) is not None


def count_files(folder: Path, suffixes: Collection[str]) -> int:
    """The number of its files with these suffixes, in no more memory than one name takes."""
    return sum(1 for _ in _iterate_names(folder, suffixes))


def list_names(folder: Path, suffixes: Collection[str]) -> NDArray[np.bytes_]:
    """The names of its files with these suffixes, sorted by their bytes; hidden ones are passed over."""
    longest = max((len(name) for name in _iterate_names(folder, suffixes)), default=1)
    packed = np.fromiter(_iterate_names(folder, suffixes), f"S{longest}")
    packed.sort()
    return packed


def decode_names(packed: NDArray[np.bytes_]) -> Iterator[str]:
    """Each of these names, unpacked as it is asked for."""
    for at in range(0, len(packed), UNPACKED):
        yield from map(os.fsdecode, packed[at : at + UNPACKED].tolist())


def _iterate_names(folder: Path, suffixes: Collection[str]) -> Iterator[bytes]:
    with scan_folder(folder) as scanned:
        for entry in scanned:
            _, dot, suffix = entry.name.rpartition(".")
            if entry.name[0] != "." and (dot + suffix).lower() in suffixes and entry.is_file():
                yield os.fsencode(entry.name)
