"""CIFAR-10's binary batches: records of one label byte and 3 x 32 x 32 bytes of pixels, nothing else in the file.

The format is that of https://www.cs.toronto.edu/~kriz/cifar.html.  A folder stands for its `data_batch_*.bin`, in the
order of their names: the training samples; `test_batch.bin` is taken when there is nothing else, or by its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.apply import preprocess_pixels
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.samples import arrays, checks, listing
from fcdeploy.samples.source import Load, Source

RECORD = np.dtype([("label", "u1"), ("pixels", "u1", (3, 32, 32))])
CLASSES = 10
TRAINING, TEST = re.compile(r"data_batch_\d+\.bin$"), "test_batch.bin"


def is_cifar(path: Path) -> bool:
    """A file of whole records of which the first has a class, or a file or folder with CIFAR-10's names."""
    if not path.is_file():
        return path.is_dir() and bool(_list_batches(path))
    if TRAINING.match(path.name) or path.name == TEST:
        return True
    if path.suffix != ".bin" or path.stat().st_size % RECORD.itemsize:
        return False
    with path.open("rb") as file:
        first = file.read(1)
    return first != b"" and first[0] < CLASSES


def open_cifar(path: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """Check that the files hold whole records; pictures are read one at a time."""
    files = _list_batches(path) if path.is_dir() else [path]
    spec = checks.get_only_input(inputs, f"{path.name}: pictures")
    counts = [_count_records(file) for file in files]
    how = read_preprocessing(format.preprocess, spec, stored=(32, 32, 3))

    def read() -> Iterator[tuple[str, Load]]:
        index = -1
        for file, count in zip(files, counts, strict=True):
            with ExitStack() as stack:
                with arrays.report_damage(path.name, repr(file.name)):
                    handle = stack.enter_context(file.open("rb"))
                for record, index in enumerate(range(index + 1, index + 1 + count)):  # noqa: B020 - counts on
                    place = f"sample {index} ({file.name})" if path.is_dir() else f"sample {index}"
                    yield place, partial(_load_arrays, handle, record, place, how, spec, path.name)

    return Source(
        path.name, (spec,), read, sum(counts), labelled=True, files=tuple(files), format=replace(format, preprocess=how)
    )


def _load_arrays(file: IO[bytes], record: int, place: str, how: Preprocessing, spec: TensorSpec, source: str) -> Arrays:
    with arrays.report_damage(source, place):
        file.seek(record * RECORD.itemsize)
        data = file.read(RECORD.itemsize)
        if len(data) < RECORD.itemsize:
            raise arrays.make_truncated_error(f"{source}, {place},")
    label, pixels = np.frombuffer(data, RECORD)[0]
    if label >= CLASSES:
        raise FcdeployError(
            f"{source}: {place} has label {label}, expected 0 to {CLASSES - 1}", "copy or download the file again"
        )
    return {spec.name: preprocess_pixels(pixels.transpose(1, 2, 0), how, spec), "label": np.asarray(label, np.int64)}


def _count_records(file: Path) -> int:
    size = file.stat().st_size
    if not size or size % RECORD.itemsize:
        raise FcdeployError(
            f"{file.name!r} has {size} bytes, expected whole records of {RECORD.itemsize}: a label and 3 x 32 x 32 pixels",
            "copy or download the file again, whole",
        )
    return size // RECORD.itemsize


def _list_batches(folder: Path) -> list[Path]:
    """The training batches of a folder, else its test batch."""
    with listing.scan_folder(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".bin") and entry.is_file()]
    training = [name for name in names if TRAINING.match(name)]
    return [folder / name for name in sorted(training or [name for name in names if name == TEST])]
