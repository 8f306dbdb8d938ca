"""An .npz: input name -> array with a leading sample axis, streamed sample by sample out of the zip file.

`numpy.load` would unpack a whole array to give its first row; here members are decompressed as they are read, several
inputs in step, so a data set of any size takes the memory of one sample.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from fcdeploy.errors import FcdeployError
from fcdeploy.files import refuse_unread
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.signature import format_shape
from fcdeploy.samples import arrays, checks
from fcdeploy.samples.source import Load, Source


def open_npz(path: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Check names, counts, shapes and dtypes from the headers alone; reading starts with iteration."""
    headers = {}
    with _open_archive(path) as archive:
        members = {_to_array_name(info.filename): info for info in archive.infolist() if not info.is_dir()}
        checks.check_names(members, inputs, path.name)
        for name, info in members.items():
            what = f"{path.name}: array {name!r}"
            _check_claimed_size(info, path, what)
            with arrays.report_damage(path.name, f"array {name!r}"), archive.open(info) as file:
                headers[name] = arrays.read_header(file, info.file_size, what)
    count = check_headers(headers, inputs, path.name)

    def read() -> Iterator[tuple[str, Load]]:
        with ExitStack() as stack:
            archive = stack.enter_context(_open_archive(path))
            with arrays.report_damage(path.name, "its directory"):
                files: dict[str, IO[bytes]] = {n: stack.enter_context(archive.open(i)) for n, i in members.items()}
            yield from read_rows_in_step(files, headers, count, path.name)

    return Source(path.name, tuple(inputs), read, count, any(map(checks.is_label, headers)))


def check_headers(headers: dict[str, arrays.Header], inputs: Sequence[TensorSpec], source: str) -> int:
    """The number of samples; every array has a sample axis, and every input the shape and dtype the model wants."""
    specs = {spec.name: spec for spec in inputs}
    for name, header in headers.items():
        spec = specs.get(name)
        wanted = spec.sample_shape if spec else ()
        if not header.shape or (spec and spec.shape and len(header.shape) == len(wanted)):
            raise FcdeployError(
                f"{source}: array {name!r} has shape {format_shape(header.shape)}, "
                f"expected {_format_with_samples(wanted)}: a sample axis first",
                f"numpy.stack the samples of {name!r} along axis 0",
            )
    count = checks.check_counts({name: header.shape[0] for name, header in headers.items()}, source)
    for name, spec in specs.items():
        checks.check_shape(spec, headers[name].shape[1:], "sample 0", source)
        checks.check_dtype(spec, headers[name].dtype, "sample 0", source)
    return count


def _format_with_samples(shape: Sequence[int | None]) -> str:
    return "(samples, " + (format_shape(shape).removeprefix("(").removesuffix(",)").removesuffix(")") or "...") + ")"


def read_rows_in_step(
    files: dict[str, IO[bytes]], headers: dict[str, arrays.Header], count: int, source: str
) -> Iterator[tuple[str, Load]]:
    """Row i of every array, for each i. The files are open, stand at their beginning, and are read to the end.

    Rows that nobody asks for are read all the same: a compressed stream has no other way, and a checksum no meaning.
    """
    streams = {}
    for name, file in files.items():
        file.read(headers[name].offset)
        streams[name] = arrays.read_rows(file, headers[name], f"{source}: array {name!r}")
    for index in range(count):
        with arrays.report_damage(source, f"sample {index}"):
            row = {name: next(stream) for name, stream in streams.items()}
        yield f"sample {index}", partial(dict, row)


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        refuse_unread(str(path), error)
        raise FcdeployError(f"{str(path)!r} is not an .npz, or is damaged: {error}", arrays.SAVE_AGAIN) from error
    with archive:
        yield archive


def _to_array_name(member: str) -> str:
    return member.removesuffix(".npy")


def _check_claimed_size(info: zipfile.ZipInfo, path: Path, what: str) -> None:
    """The zip directory, too, only claims a size: no more than deflate can make of the bytes that are in the file."""
    if info.flag_bits & 1:
        raise FcdeployError(f"{what} is encrypted, expected plain data", arrays.SAVE_AGAIN)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FcdeployError(f"{what} is compressed by method {info.compress_type}, expected deflate", arrays.SAVE_AGAIN)
    room = min(info.compress_size, path.stat().st_size)
    if info.file_size > room * (arrays.MAX_DEFLATE if info.compress_type == zipfile.ZIP_DEFLATED else 1):
        raise FcdeployError(f"{what} claims {info.file_size} bytes in {room}, more than it can hold", arrays.SAVE_AGAIN)
