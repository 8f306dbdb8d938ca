"""MNIST's idx files, plain or gzipped: `train-images-idx3-ubyte` and the labels beside it, `train-labels-idx1-ubyte`.

The format, as Yann LeCun's MNIST page gave it: two zero bytes, one for the type (8: unsigned bytes), one for the number
of axes, then each length as a big-endian 32-bit integer, then the elements, last axis fastest.  A header is a claim:
it is compared with the bytes that are there before anything is allocated.

Of a folder that holds training and test pictures the training ones are taken; the others by the name of their file.
"""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.apply import preprocess_pixels
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.samples import arrays, checks, listing
from fcdeploy.samples.source import Load, Source

PICTURES = re.compile(r"(.*)images([-.])idx3-ubyte(\.gz)?$")
UNSIGNED_BYTES = 8

Row = Callable[[], Array]


def is_idx(path: Path) -> bool:
    """Does the file begin as an idx file does, or is there a file of pictures in the folder by MNIST's names?"""
    if not path.is_file():
        return path.is_dir() and bool(_list_pictures(path))
    try:
        with _open(path) as file:
            zeros, kind, axes = struct.unpack(">HBB", file.read(4))
    except (OSError, EOFError, struct.error):
        return False
    return bool(zeros == 0 and 8 <= kind <= 14 and 1 <= axes <= 4)


def open_idx(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check both files' headers against their sizes; pictures are read one at a time."""
    pictures = _choose_pictures(path) if path.is_dir() else path
    spec = checks.get_only_input(inputs, f"{pictures.name}: pictures")
    header = _read_header(pictures, 3, "pictures")
    beside = _find_labels(pictures)
    labels = None if beside is None else (beside, _read_header(beside, 1, "labels"))
    counts = {pictures.name: header.shape[0], **({labels[0].name: labels[1].shape[0]} if labels else {})}
    count = checks.check_counts(counts, path.name)
    how = read_preprocessing(format.preprocess, spec, stored=(header.shape[1], header.shape[2], 1))

    def read() -> Iterator[tuple[str, Load]]:
        with ExitStack() as stack:
            rows = _iterate_rows(stack.enter_context(_open(pictures)), header, pictures)
            marks = _iterate_rows(stack.enter_context(_open(labels[0])), labels[1], labels[0]) if labels else None
            for index in range(count):
                with arrays.report_damage(pictures.name, f"sample {index}"):
                    row, mark = next(rows), next(marks) if marks else None
                yield f"sample {index}", partial(_load_arrays, row, mark, how, spec)

    files = (pictures, *([labels[0]] if labels else []))
    return Source(
        pictures.name, (spec,), read, count, labels is not None, files=files, format=replace(format, preprocess=how)
    )


def _load_arrays(row: Row, label: Row | None, how: Preprocessing, spec: TensorSpec) -> Arrays:
    picture = {spec.name: preprocess_pixels(row()[:, :, None], how, spec)}
    return picture if label is None else {**picture, "label": label().astype(np.int64)}


def _iterate_rows(file: IO[bytes], header: arrays.Header, path: Path) -> Iterator[Row]:
    """Every row as a function that reads it; a compressed file has only one way, from the beginning to the end."""
    if not _is_gzip(path):
        yield from (partial(arrays.read_row, file, header, i, repr(path.name)) for i in range(header.shape[0]))
        return
    file.read(header.offset)
    for row in arrays.read_rows(file, header, repr(path.name)):
        yield partial(np.asarray, row)


def _read_header(path: Path, axes: int, what: str) -> arrays.Header:
    """The header of a file of unsigned bytes with so many axes, and as many bytes in the file as it declares."""
    name = f"{path.name!r}"
    with arrays.report_damage(path.name, "its header"), _open(path) as file:
        start = file.read(4 + 4 * axes)
    if start[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise FcdeployError(
            f"{name} begins with {start[:4].hex(' ') or 'nothing'}, expected 00 00 08 {axes:02x}: "
            f"{what} as unsigned bytes with {axes} {'axis' if axes == 1 else 'axes'}",
            "give the file of pictures, train-images-idx3-ubyte; labels are found beside it",
        )
    if len(start) < 4 + 4 * axes:
        raise FcdeployError(f"{name} ends within its header", "copy or download the file again, whole")
    shape = struct.unpack(f">{axes}I", start[4:])
    declared, held = 4 + 4 * axes + prod(shape), path.stat().st_size
    room = held * arrays.MAX_DEFLATE if _is_gzip(path) else held
    if declared > room or (declared != room and not _is_gzip(path)):
        raise FcdeployError(
            f"{name} declares {' x '.join(map(str, shape))} bytes after its header, {declared} in all, but has {held}",
            "copy or download the file again, whole",
        )
    return arrays.Header(shape, np.dtype(np.uint8), False, len(start))


def _list_pictures(folder: Path) -> list[Path]:
    """Files of pictures by MNIST's names, sorted."""
    with listing.scan_folder(folder) as entries:
        return sorted(folder / entry.name for entry in entries if PICTURES.match(entry.name) and entry.is_file())


def _choose_pictures(folder: Path) -> Path:
    """The file of pictures of a folder: the only one, or the only one of training samples."""
    pictures = _list_pictures(folder)
    training = [path for path in pictures if "train" in path.name]
    for files in (pictures, training):
        if len(files) == 1:
            return files[0]
    raise FcdeployError(
        f"folder {str(folder)!r} holds {len(pictures)} files of pictures: {quote_names(path.name for path in pictures)}",
        f"give one of them: --data {pictures[0]}",
    )


def _find_labels(pictures: Path) -> Path | None:
    """The file of labels that belongs to a file of pictures, compressed or not."""
    match = PICTURES.match(pictures.name)
    if match is None:
        return None
    name = f"{match[1]}labels{match[2]}idx1-ubyte"
    endings = ("", ".gz") if match[3] is None else (".gz", "")
    return next((path for end in endings if (path := pictures.with_name(name + end)).is_file()), None)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _is_gzip(path: Path) -> bool:
    """Whether a file is gzipped, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
