"""A bundle as it lies on disk, a folder or a zip: names, sizes and hashes are checked before anything is used.

The members of the zip are stored, not compressed.  So a small file cannot become a large one, no size is believed
that the file does not have, and the same bundle has the same bytes wherever it is written.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_file, refuse_unread
from fcdeploy.records.manifest import AGAIN, MANIFEST, Manifest, from_json, is_plain_path
from fcdeploy.records.progress import OnStep

MOST_MANIFEST = 16 << 20  # bytes; a row a file and a tensor, and a model has thousands at most
ENCRYPTED = 1  # flag bit of a zip member
Open = Callable[[str], IO[bytes]]
Read = TypeVar("Read")


@dataclass(frozen=True)
class OpenedBundle:
    """An opened bundle: every file of the manifest is there in its size. `open` gives one, by its name there."""

    path: Path
    manifest: Manifest
    open: Open
    zipped: bool

    def read(self, name: str) -> bytes:
        """A whole file. Raises FcdeployError when it is not the one that the manifest names."""
        size = self.manifest.files[name].size
        content = _explain_failure(self.path, name, lambda: _read_exactly(self.open, name, size))
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name].sha256:
            raise make_altered_error(self.path, name)
        return content

    def find_altered(self, on_step: OnStep | None = None) -> list[str]:
        """Files whose bytes are not those of the manifest, in order; a pass over all of them, streamed."""
        files = self.manifest.files
        altered = []
        for done, (name, file) in enumerate(files.items()):
            if on_step:
                on_step(f"hashing {name}", done, len(files))
            if self._hash(name) != file.sha256:
                altered.append(name)
        return altered

    def _hash(self, name: str) -> str:
        def digest() -> str:
            with suppress(zipfile.BadZipFile), self.open(name) as file:  # the zip's own checksum is one more witness
                return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            return ""

        return _explain_failure(self.path, name, digest)


def open_bundle(path: Path | str) -> OpenedBundle:
    """Open a folder or a zip and check what can be checked without reading the files themselves.

    Raises FcdeployError when it is no bundle: `docs/bundle.md` lists every way in which one can be wrong.
    """
    path = Path(path)
    if not path.exists():
        raise FcdeployError(f"bundle {str(path)!r} does not exist", "fcdeploy bundle INT8 -o model.fcd writes one")
    check_file(path, "bundle")
    sizes, opener = _list_folder(path) if path.is_dir() else _list_zip(path)
    source = f"bundle {str(path)!r}"

    if MANIFEST not in sizes:
        raise FcdeployError(f"{source} has no {MANIFEST}", "fcdeploy bundle INT8 -o model.fcd writes one")
    if sizes[MANIFEST] > MOST_MANIFEST:
        raise FcdeployError(f"{source}: {MANIFEST} has {sizes[MANIFEST]} bytes, {MOST_MANIFEST} at most", AGAIN)
    text = _explain_failure(path, MANIFEST, lambda: _read_exactly(opener, MANIFEST, sizes[MANIFEST]))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FcdeployError(f"{source}: {MANIFEST} is not JSON", AGAIN) from error
    manifest = from_json(data, f"{source}: {MANIFEST}")

    for name, file in manifest.files.items():
        if name not in sizes:
            raise FcdeployError(f"{source}: file {name!r} is missing", "copy the bundle again, whole")
        if sizes[name] != file.size:
            raise FcdeployError(
                f"{source}: file {name!r} has {sizes[name]} bytes, the manifest says {file.size}",
                "copy the bundle again, whole",
            )
    for name in sorted(sizes.keys() - manifest.files.keys() - {MANIFEST}):
        raise FcdeployError(f"{source}: file {name!r} is not in the manifest", f"take {name!r} out")
    return OpenedBundle(path, manifest, opener, not path.is_dir())


def make_altered_error(path: Path, name: str) -> FcdeployError:
    """What to say of a file whose bytes are not those the bundle was made with."""
    return FcdeployError(
        f"bundle {str(path)!r}: file {name!r} is not the one that was bundled: its sha256 differs",
        "copy the bundle again, whole",
    )


def _list_folder(path: Path) -> tuple[dict[str, int], Open]:
    """Sizes of the files in a folder. Hidden ones are not of the bundle; a link must not lead out of it."""
    home = path.resolve()
    sizes = {}
    for file in _walk_files(path):
        name = file.relative_to(path).as_posix()
        if not file.resolve().is_relative_to(home):
            raise FcdeployError(f"bundle {str(path)!r}: {name!r} is a link that leads out of the folder", AGAIN)
        sizes[name] = file.stat().st_size
    return sizes, lambda name: (path / name).open("rb")


def _walk_files(folder: Path) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir() and not child.is_symlink():
            yield from _walk_files(child)
        elif child.is_file():
            yield child


def _list_zip(path: Path) -> tuple[dict[str, int], Open]:
    """Sizes of the members of a zip: stored, plain, each there once, together no larger than the file."""
    source = f"bundle {str(path)!r}"
    hint = "zip -0 -r model.zip . in the bundle's folder, or fcdeploy bundle INT8 -o model.zip"
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        refuse_unread(str(path), error)
        raise FcdeployError(f"{source} is neither a folder nor a zip, or is damaged", hint) from error
    sizes: dict[str, int] = {}
    space = path.stat().st_size
    for info in archive.infolist():
        name = info.filename
        if info.is_dir():
            continue
        if info.flag_bits & ENCRYPTED or info.compress_type != zipfile.ZIP_STORED:
            raise FcdeployError(f"{source}: {name[:60]!r} is compressed or encrypted, expected stored bytes", hint)
        if name != MANIFEST and not is_plain_path(name):
            raise FcdeployError(f"{source}: {name[:60]!r} is no plain relative path", hint)
        if name in sizes:
            raise FcdeployError(f"{source}: {name!r} is there twice", hint)
        sizes[name] = info.file_size
        space -= info.file_size
        if info.file_size != info.compress_size or space < 0:
            raise FcdeployError(f"{source}: {name!r} claims more bytes than the file has", hint)
    return sizes, lambda name: archive.open(name)


def _read_exactly(opener: Open, name: str, size: int) -> bytes:
    with opener(name) as file:
        return file.read(size)


def _explain_failure(path: Path, name: str, read: Callable[[], Read]) -> Read:
    """What a disk or a damaged zip raises while a file is read, as one error that names the file."""
    try:
        return read()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:120]
        raise FcdeployError(f"bundle {str(path)!r}: file {name!r} cannot be read: {why}", AGAIN) from error
