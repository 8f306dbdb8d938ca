"""Names of outputs, refused before any long work; and hashes of files."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from fcdeploy.errors import MORE_FILES, TOO_MANY, FcdeployError
from fcdeploy.wording import quote_path

DATA_SUFFIXES = {
    ".npy", ".npz", ".csv", ".bin", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
HALVES = ("first", "second")  # as `transform split` ends the names of its files
NOT_READ = (*TOO_MANY, errno.EIO, errno.EACCES, errno.EPERM, errno.EINTR, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
"""What the system says where it does not give the bytes of a file; other numbers stand for what is wrong with them, too."""
MOST_BYTES = 256 << 20  # of a file that is read as a whole and is no model, weights or samples


def name_model(path: Path) -> str:
    """What a model is called by its file: the name up to its first dot, of half a model with which half it is."""
    stem, _, rest = path.name.partition(".")
    half = rest.partition(".")[0]
    return f"{stem}-{half}" if half in HALVES else stem


def check_file(path: Path, what: str) -> None:
    """Refuse a device or a pipe, which may never answer or never end. Raises OSError where there is nothing."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise FcdeployError(f"{what} {str(path)!r} is a device or a pipe, expected a file", f"ls -l {quote_path(path)}")


def refuse_unread(name: str, error: BaseException) -> None:
    """Raise FcdeployError where the system did not give the bytes of a file: that says nothing of what is in it."""
    if isinstance(error, OSError) and error.errno in NOT_READ:
        hint = MORE_FILES if error.errno in TOO_MANY else f"ls -l {quote_path(name)}, and try it again"
        raise FcdeployError(f"{name!r} cannot be read: {error.strerror}", hint) from error


def read_small_file(path: Path, what: str, hint: str) -> bytes:
    """The bytes of a file of someone: a regular one, of MOST_BYTES at most. Raises FcdeployError, or OSError."""
    check_file(path, what)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise FcdeployError(f"{what} {str(path)!r} has {size} bytes, expected {MOST_BYTES} at most", hint)
    return path.read_bytes()


def read_json(path: Path, what: str, hint: str) -> Any:
    """What a JSON file of someone holds. Raises FcdeployError."""
    try:
        return json.loads(read_small_file(path, what, hint))
    except (OSError, ValueError, RecursionError) as error:
        raise FcdeployError(f"{what} {str(path)!r} cannot be read as JSON: {error}", hint) from error


def check_output(path: Path, *, force: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output that exists, is one of the inputs, or lies in no folder. Called before any long work.

    An input may be a folder of samples, or FILE.py:FUNCTION.
    """
    # what is there already: nothing, a file, or what can be no output at all
    name = str(path) if len(str(path)) < 100 else f"{str(path)[:97]}..."
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = None
    except OSError as error:
        raise FcdeployError(f"output {name!r}: {error.strerror}", "give another name with -o") from error
    if kind is not None and stat.S_ISDIR(kind):
        raise FcdeployError(f"output {name!r} is a folder, expected a file name", "give another name with -o")
    if kind is not None and not stat.S_ISREG(kind):
        raise FcdeployError(f"output {name!r} is a device or a pipe, expected a file", "give another name with -o")

    # an input would be lost while it is read, and so would a sample in a folder of them
    for other in map(_strip_function, inputs):
        if path.resolve() == other.resolve() or (kind is not None and other.exists() and path.samefile(other)):
            raise FcdeployError(f"output {name!r} is also an input", "give another name with -o")
        within = kind is not None and path.suffix.lower() in DATA_SUFFIXES and other.is_dir()
        if within and path.resolve().is_relative_to(other.resolve()):
            raise FcdeployError(f"output {name!r} is one of the samples in {str(other)!r}", "give another name with -o")

    if not path.parent.is_dir():
        raise FcdeployError(
            f"folder {str(path.parent)!r} of the output does not exist", f"mkdir -p {quote_path(path.parent)}"
        )
    if kind is not None and not force:
        raise FcdeployError(f"output {name!r} exists", "add --force to replace it, or give another name with -o")


def _strip_function(given: Path) -> Path:
    """The file that was given, FILE.py of FILE.py:FUNCTION."""
    file, colon, _ = str(given).rpartition(":")
    return Path(file) if colon and file.endswith(".py") else given


def hash_file(path: Path | str) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
