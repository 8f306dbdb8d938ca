"""A folder of .npy files, in one of two forms.

1. One file per input, named after it (`x.npy`, `mask.npy`), each with a leading sample axis, and optionally
   `label.npy`.  A `/` in an input's name is written `_` in the file's.
2. For a model with one input: one file per sample, in the order of their names, without a sample axis, and optionally
   `label.npy` with a label for each.

A single .npy file is the first form for a model with one input.  Files are read sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import arrays, checks, listing
from fcdeploy.samples.npz import check_headers, read_rows_in_step
from fcdeploy.samples.source import FromFile, Load, Source


def open_npy(path: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Open a folder of .npy files, or one .npy file."""
    if path.is_file():
        if len(inputs) != 1:
            wants = quote_names(spec.name for spec in inputs)
            raise FcdeployError(
                f"{path.name} is one array, the model wants {len(inputs)} inputs: {wants}",
                "give an .npz or a folder with one .npy per input",
            )
        return _open_per_input({inputs[0].name: path}, path.name, inputs)
    files = listing.list_names(path, {".npy"})
    if len(inputs) == 1 and not (path / f"{_to_file_stem(inputs[0].name)}.npy").exists():
        return _open_per_sample(path, files, inputs[0])
    names = name_files([spec.name for spec in inputs])
    return _open_per_input(
        {names.get(f.stem, f.stem): f for f in map(path.joinpath, listing.decode_names(files))}, path.name, inputs
    )


def _open_per_input(files: dict[str, Path], source: str, inputs: Sequence[TensorSpec]) -> Source:
    checks.check_names(files, inputs, source)
    headers = {name: _read_header(file, source) for name, file in files.items()}
    count = check_headers(headers, inputs, source)
    anywhere = not any(header.column_major and len(header.shape) > 1 for header in headers.values())

    def read() -> Iterator[tuple[str, Load]]:
        with ExitStack() as stack:
            handles: dict[str, IO[bytes]] = {name: stack.enter_context(file.open("rb")) for name, file in files.items()}
            if not anywhere:
                yield from read_rows_in_step(handles, headers, count, source)
                return
            for index in range(count):
                yield f"sample {index}", partial(_read_rows, handles, headers, index, source)

    return Source(source, tuple(inputs), read, count, any(map(checks.is_label, files)), files=tuple(files.values()))


def _read_rows(files: dict[str, IO[bytes]], headers: dict[str, arrays.Header], index: int, source: str) -> Arrays:
    with arrays.report_damage(source, f"sample {index}"):
        return {
            name: arrays.read_row(file, headers[name], index, f"{source}: array {name!r}")
            for name, file in files.items()
        }


def _open_per_sample(folder: Path, files: NDArray[np.bytes_], spec: TensorSpec) -> Source:
    source = folder.name
    labels = np.char.startswith(files, b"label.")  # label.npy, or label.OUTPUT.npy
    label_files = {file.stem: file for file in map(folder.joinpath, listing.decode_names(files[labels]))}
    sample_files = files[~labels]
    headers = {name: _read_header(file, source) for name, file in label_files.items()}
    count = len(sample_files)
    if not count:
        raise checks.make_no_samples_error(source)
    if headers:
        checks.check_counts({spec.name: count, next(iter(headers)): check_headers(headers, [], source)}, source)

    def read() -> Iterator[tuple[str, Load]]:
        with ExitStack() as stack:
            handles: dict[str, IO[bytes]] = {name: stack.enter_context(f.open("rb")) for name, f in label_files.items()}
            label_rows = read_rows_in_step(handles, headers, count, source)
            for index, (file, (_, row)) in enumerate(zip(listing.decode_names(sample_files), label_rows, strict=True)):
                place = f"sample {index} ({file})"
                load = partial(_load_with_label, folder, file, row, spec, source, place)
                yield place, FromFile(folder / file, load)

    return Source(source, (spec,), read, count, bool(label_files), files=tuple(label_files.values()))


def _load_with_label(folder: Path, file: str, label: Load, spec: TensorSpec, source: str, place: str) -> Arrays:
    return {spec.name: _load(folder / file, source, place), **label()}


def _read_header(file: Path, source: str) -> arrays.Header:
    with arrays.report_damage(source, repr(file.name)), file.open("rb") as handle:
        return arrays.read_header(handle, file.stat().st_size, f"{source}: {file.name!r}")


def _load(file: Path, source: str, place: str) -> Array:
    what = f"{source}: {file.name!r}"
    with arrays.report_damage(source, place), file.open("rb") as handle:
        return arrays.read_whole(handle, arrays.read_header(handle, file.stat().st_size, what), what)


def name_files(names: Iterable[str]) -> dict[str, str]:
    """The stem of each array's file, and the array. Raises FcdeployError where two would be in one."""
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(_to_file_stem(name), name)
        if other != name:
            raise FcdeployError(
                f"{other!r} and {name!r} would both be in {_to_file_stem(name)}.npy, expected a file for each",
                "give an .npz, or samples one by one: --data FILE.py:FUNCTION",
            )
    return stems


def _to_file_stem(name: str) -> str:
    return name.replace("/", "_")
