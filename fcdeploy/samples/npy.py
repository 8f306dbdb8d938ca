"""A folder of .npy files, in one of two forms.

1. One file per input, named after it (`x.npy`, `mask.npy`), each with a leading sample axis, and optionally
   `label.npy`.  A `/` in an input's name is written `_` in the file's.
2. For a model with one input: one file per sample, in the order of their names, without a sample axis, and optionally
   `label.npy` with a label for each.

A single .npy file is the first form for a model with one input.  Files are read sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import arrays, checks
from fcdeploy.samples.npz import check_headers, damage_named, rows_in_step
from fcdeploy.samples.source import Arrays, Source


def open_npy(path: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Open a folder of .npy files, or one .npy file."""
    if path.is_file():
        if len(inputs) != 1:
            wants = checks.listed(spec.name for spec in inputs)
            raise FcdeployError(
                f"{path.name} is one array, the model wants {len(inputs)} inputs: {wants}",
                "give an .npz or a folder with one .npy per input",
            )
        return _per_input({inputs[0].name: path}, path.name, inputs)
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    names = {_file_stem(spec.name): spec.name for spec in inputs}
    if len(inputs) == 1 and not names.keys() & files.keys():
        return _per_sample(files, path.name, inputs[0])
    return _per_input({names.get(stem, stem): file for stem, file in files.items()}, path.name, inputs)


def _per_input(files: dict[str, Path], source: str, inputs: Sequence[TensorSpec]) -> Source:
    checks.check_names(files, inputs, source)
    headers = {name: _header(file, source) for name, file in files.items()}
    count = check_headers(headers, inputs, source)

    def read() -> Iterator[tuple[str, Arrays]]:
        with ExitStack() as stack:
            handles: dict[str, Any] = {name: stack.enter_context(file.open("rb")) for name, file in files.items()}
            yield from rows_in_step(handles, headers, count, source)

    return Source(source, tuple(inputs), read, count, any(map(checks.is_label, files)))


def _per_sample(files: dict[str, Path], source: str, spec: TensorSpec) -> Source:
    label_files = {name: file for name, file in files.items() if checks.is_label(name)}
    sample_files = [file for name, file in files.items() if name not in label_files]
    headers = {name: _header(file, source) for name, file in label_files.items()}
    count = check_headers({spec.name: _counted(sample_files, spec, source), **headers}, [spec], source)

    def read() -> Iterator[tuple[str, Arrays]]:
        with ExitStack() as stack:
            handles: dict[str, Any] = {name: stack.enter_context(f.open("rb")) for name, f in label_files.items()}
            labels = rows_in_step(handles, headers, count, source)
            for index, (file, (_, row)) in enumerate(zip(sample_files, labels, strict=True)):
                place = f"sample {index} ({file.name})"
                yield place, {spec.name: _load(file, source, place), **row}

    return Source(source, (spec,), read, count, bool(label_files))


def _counted(files: list[Path], spec: TensorSpec, source: str) -> arrays.Header:
    """The header that the files would have as one array, from the first of them."""
    if not files:
        raise checks.no_samples(source)
    first = _header(files[0], source)
    checks.check_shape(spec, first.shape, f"sample 0 ({files[0].name})", source)
    return arrays.Header((len(files), *first.shape), first.dtype, False, first.offset)


def _header(file: Path, source: str) -> arrays.Header:
    with damage_named(source, repr(file.name)), file.open("rb") as handle:
        return arrays.read_header(handle, file.stat().st_size, f"{source}: {file.name!r}")


def _load(file: Path, source: str, place: str) -> np.ndarray[Any, Any]:
    what = f"{source}: {file.name!r}"
    with damage_named(source, place), file.open("rb") as handle:
        return arrays.read_whole(handle, arrays.read_header(handle, file.stat().st_size, what), what)


def _file_stem(name: str) -> str:
    return name.replace("/", "_")
