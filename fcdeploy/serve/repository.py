"""Which models lie where: a file, a bundle, a folder of both, or a Triton repository (NAME/VERSION/model.onnx)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fcdeploy.bundles.read import open_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.records.manifest import MANIFEST, NAME, VERSION, is_plain_path
from fcdeploy.wording import quote_path

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, time of change in ns, bytes and inode of every file that a place reads."""


@dataclass(frozen=True)
class ModelFile:
    """A version of a model and its file or bundle. Requests name models; only what was found here can be named."""

    name: str
    version: str
    path: Path
    bundle: bool = False


def find_models(source: Path, broken: dict[Path, Exception] | None = None) -> list[ModelFile]:
    """Everything that SOURCE holds, sorted. Raises FcdeployError where that is nothing, or not servable by its name.

    With `broken`, what cannot be read or named is put there with its error, and the others are found all the same.
    """
    if not source.exists():
        raise FcdeployError(f"{str(source)!r} does not exist", "give an .onnx file, a bundle, or a folder of them")
    places = sorted(_list_models(source, broken), key=lambda place: (place.name, int(place.version)))
    if not places and not broken:
        raise FcdeployError(
            f"folder {str(source)!r} holds no models, expected NAME.onnx, bundles or NAME/VERSION/model.onnx",
            f"ls {quote_path(source)}",
        )
    named = Counter((place.name, place.version) for place in places)
    kept = []
    for place in places:
        if not NAME.fullmatch(place.name):
            error = FcdeployError(
                f"model {str(place.path)!r}: the name {place.name!r} cannot stand in an address",
                "rename it: letters, digits, '.', '_' and '-'",
            )
        elif named[place.name, place.version] > 1:
            error = FcdeployError(
                f"model {place.name!r} version {place.version} is there twice", f"ls {quote_path(source)}"
            )
        else:
            kept.append(place)
            continue
        if broken is None:
            raise error
        broken[place.path] = error
    return kept


def _list_models(source: Path, broken: dict[Path, Exception] | None) -> Iterator[ModelFile]:
    if place := _identify(source):
        yield place
        return
    if source.is_file():
        yield ModelFile(source.stem, "1", source)
        return
    for child in sorted(source.iterdir()):
        if child.name.startswith("."):
            continue
        try:
            yield from _list_versions(child)
        except (FcdeployError, OSError) as error:
            if broken is None:
                raise
            broken[child] = error


def _list_versions(child: Path) -> list[ModelFile]:
    """The model or bundle that this is, or the versions that it holds."""
    if place := _identify(child):
        return [place]
    versions = sorted(child.iterdir()) if child.is_dir() else []
    return [
        ModelFile(child.name, version.name, version / "model.onnx")
        for version in versions
        if VERSION.fullmatch(version.name) and (version / "model.onnx").is_file()
    ]


def _identify(path: Path) -> ModelFile | None:
    """A model file or a bundle; None for anything else."""
    if path.is_file() and path.suffix == ".onnx":
        return ModelFile(path.stem, "1", path)
    if (path / MANIFEST).is_file() or (path.is_file() and path.suffix in (".zip", ".fcd")):
        manifest = open_bundle(path).manifest
        return ModelFile(manifest.name, manifest.version, path, bundle=True)
    return None


def take_stamp(place: ModelFile) -> Stamp:
    """Changes whenever a file of the model does; cheap enough to ask every second. () when it is gone."""
    path = place.path
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else _list_files(place, path.stat())
        known = [(str(file), file.stat()) for file in dict.fromkeys(files) if file.is_file()]
        return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in known)
    except OSError:
        return ()


def _list_files(place: ModelFile, stat: os.stat_result) -> list[Path]:
    """A file, what lies beside it under its name, and its weights under any."""
    path = place.path
    weights = () if place.bundle else _list_weights(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return [path, *sorted(path.parent.glob(f"{path.name}*")), *(path.parent / name for name in weights)]


@lru_cache(256)
def _list_weights(path: Path, *_: int) -> tuple[str, ...]:
    """Names of files of weights, read once for each state of the file, which time, size and inode tell."""
    try:
        constants = read_outline(path).constants.values()
    except FcdeployError:  # said when it is loaded
        return ()
    return tuple(sorted({each.location for each in constants if each.location and is_plain_path(each.location)}))


def hash_content(place: ModelFile) -> str:
    """sha256 over the same files, which tells a change from a copy of the same."""
    total = hashlib.sha256()
    for name, *_ in take_stamp(place):
        with Path(name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
