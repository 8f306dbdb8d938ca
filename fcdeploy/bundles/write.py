"""Writing a bundle: a folder, or a zip when the name ends in .zip, put in place whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcdeploy.atomic_files import replace_file, replace_folder
from fcdeploy.bundles.golden import make_zip_member
from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output, hash_file
from fcdeploy.records.manifest import MANIFEST, BundleFile, Manifest, to_json
from fcdeploy.records.progress import OnStep

Content = bytes | Path
"""A file of the bundle: its bytes, or where they lie."""


def encode_json(value: Any) -> bytes:
    """JSON for people and for diffs; equal values give equal bytes."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def check_bundle_output(output: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output before any work; with `force` a folder is replaced only when it is a bundle."""
    if not output.is_dir():
        check_output(output, force=force, inputs=inputs)
        return
    if not (output / MANIFEST).is_file():
        raise FcdeployError(f"output {str(output)!r} is a folder that is no bundle", "-o model.fcd")
    if not force:
        raise FcdeployError(f"output {str(output)!r} exists", "add --force to replace it, or give another name with -o")
    if inside := next((path for path in inputs if path.resolve().is_relative_to(output.resolve())), None):
        raise FcdeployError(
            f"output {str(output)!r} would replace the input {str(inside)!r}", "give another name with -o"
        )


def write_bundle(
    output: Path, manifest: Manifest, contents: Mapping[str, Content], *, force: bool, on_step: OnStep | None = None
) -> Manifest:
    """Write the files and the manifest that names them; return it. Equal contents give equal bytes."""
    step: OnStep = on_step or (lambda *_: None)
    files = {}
    for done, (name, content) in enumerate(sorted(contents.items())):
        step(f"hashing {name}", done, len(contents))
        files[name] = _describe_file(content)
    manifest = replace(manifest, files=files)
    everything: dict[str, Content] = {MANIFEST: encode_json(to_json(manifest)), **dict(sorted(contents.items()))}
    if output.suffix == ".zip":
        with replace_file(output, force=force) as aside:
            _write_zip(aside, everything)
    else:
        check_bundle_output(output, force=force)
        with replace_folder(output) as (folder,):
            for name, content in everything.items():
                write_file(folder / name, content)
    return manifest


def _describe_file(content: Content) -> BundleFile:
    if isinstance(content, bytes):
        return BundleFile(len(content), hashlib.sha256(content).hexdigest())
    return BundleFile(content.stat().st_size, hash_file(content))


def _write_zip(path: Path, contents: Mapping[str, Content]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, strict_timestamps=True) as archive:
        for name, content in contents.items():
            info = make_zip_member(name)
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.file_size = content.stat().st_size  # a file beyond 2 GB needs the long form, and this says so
            with content.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def write_file(path: Path, content: Content) -> None:
    """One file, in a folder that is made when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)
