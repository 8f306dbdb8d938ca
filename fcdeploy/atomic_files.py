"""Outputs that are written aside and put in place whole, together, or not at all, whatever ends the process.

An output is written into a hidden folder beside it, `.NAME.xxxxxxxx.new`, which is locked as long as the process lives.
When all outputs of a command are there and on the disk, a file `ready` says so, and they are moved into place.  A folder
that nobody has locked is what a killed process left: the next one that writes the same output finishes the move where it
was `ready`, and deletes it where it was not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output

READY = "ready"  # holds the inode of the first output, which tells whether it was exchanged already
OLD = "old"  # what stood in the places of the others
LONGEST = 60  # characters of a name that go into the folder's, which may have 255 bytes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
HERE = -100  # AT_FDCWD


@dataclass(frozen=True)
class Staged:
    """An output, and the folder in which it is written under its own name; further files there belong beside it."""

    target: Path
    folder: Path

    @property
    def aside(self) -> Path:
        return self.folder / "files" / self.target.name

    def others(self, first: Staged) -> list[Path]:
        """The files in it, but for that of the `first` output."""
        folder = self.aside.parent
        there = sorted(folder.iterdir()) if folder.is_dir() else []  # deleted already, where a process was killed
        return [file for file in there if self != first or file != self.aside]


@contextmanager
def replace_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a path aside; move what is there into the place of `path` when the block ends well, else delete it.

    Other files that the block writes into the same folder (the weights of a model) go beside `path`.
    """
    with replace_files([path], force=force) as (aside,):
        yield aside


@contextmanager
def replace_files(paths: Sequence[Path], *, force: bool = False) -> Iterator[list[Path]]:
    """As `replace_file`, for files that belong together, the most important one first.

    At no time does a new one stand beside an old one: the others are taken away before the first is exchanged.
    """
    for path in paths:
        check_output(path, force=force)
    with _stage(paths) as staged:
        yield [each.aside for each in staged]
        for each in staged:
            for file in each.aside.parent.iterdir():
                check_output(each.target.parent / file.name, force=force)
        _finish(staged)


@contextmanager
def replace_folder(path: Path, *also: Path) -> Iterator[list[Path]]:
    """As `replace_files` with force, for a folder, which is made, and files that go with it."""
    with _stage((path, *also)) as staged:
        staged[0].aside.mkdir()
        yield [each.aside for each in staged]
        _finish(staged)


def clear_abandoned(path: Path) -> None:
    """What a killed process has left of an output that is read this time, and not written: finished or deleted."""
    with suppress(OSError), _one_at_a_time(path.parent):
        _finish_abandoned([path])


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder below TMPDIR for as long as the block runs.

    It lies inside the one that is locked: an output that is put in place there locks its own folder, and would wait for ever.
    """
    with ExitStack() as stack:
        folder = make_temporary_folder(None, "fcdeploy-", stack) / "files"
        folder.mkdir()
        try:
            yield folder
        except OSError as error:
            named = error.filename and Path(os.fsdecode(error.filename))
            if error.errno in NO_ROOM and (not named or named.is_relative_to(folder)):
                raise make_no_room_error() from error
            raise


def make_no_room_error() -> FcdeployError:
    """What to say where a file for the time of a command cannot be written."""
    folder = tempfile.gettempdir()
    return FcdeployError(
        f"cannot write to the temporary folder {folder!r}: {shutil.disk_usage(folder).free:,} bytes are free there",
        "TMPDIR=FOLDER, one with room",
    )


def make_temporary_folder(parent: Path | None, prefix: str, stack: ExitStack) -> Path:
    """A folder in `parent`, below TMPDIR without one, until the stack is closed; those of killed processes are deleted."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    with ExitStack() as others:
        for left, _ in _find_abandoned(parent, prefix, "", others):
            shutil.rmtree(left, ignore_errors=True)
    return _make_locked(parent, prefix, "", stack).resolve()


def flush(path: Path) -> None:
    """A file, or a folder with all that is in it, onto the disk: a rename must not be there before what it names."""
    for inside in sorted(path.iterdir()) if path.is_dir() else ():
        flush(inside)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # a file system that cannot, for folders
            raise
    finally:
        os.close(handle)


@contextmanager
def _stage(paths: Sequence[Path]) -> Iterator[list[Staged]]:
    """The outputs, each with its locked folder; the folders are deleted when the block ends."""
    try:
        with ExitStack() as stack:
            with _one_at_a_time(paths[0].parent):
                _finish_abandoned(paths)
            key = ""
            staged = []
            for path in paths:
                folder = _make_locked(path.parent, _prefix_of(path), ".new", stack, key)
                key = folder.name[-12:-4]  # one for all of them
                staged.append(Staged(path, folder))
                staged[-1].aside.parent.mkdir()
            yield staged
    except OSError as error:
        reason = error.strerror or str(error)
        raise FcdeployError(f"cannot write {str(paths[0])!r}: {reason}", "give a folder with room, -o OUT") from error


def _prefix_of(path: Path) -> str:
    return f".{path.name[:LONGEST]}."


def _make_locked(parent: Path, prefix: str, suffix: str, stack: ExitStack, key: str = "") -> Path:
    """A new folder, locked until the stack is closed, which deletes it; `key` is drawn unless given.

    Until it is locked another process may take it for an abandoned one and delete it: then there is another try.
    """
    while True:
        folder = parent / f"{prefix}{key or secrets.token_hex(4)}{suffix}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        with ExitStack() as one, suppress(FileNotFoundError, BlockingIOError):
            one.callback(_remove_empty, folder)
            handle = os.open(folder, os.O_RDONLY)
            one.callback(os.close, handle)
            _lock(handle)
            if os.fstat(handle).st_nlink:
                stack.push(one.pop_all())
                stack.callback(shutil.rmtree, folder, ignore_errors=True)  # before the lock goes
                return folder


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _lock(handle: int) -> None:
    """Raises BlockingIOError where another process has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
            raise


def _find_abandoned(parent: Path, prefix: str, suffix: str, stack: ExitStack) -> Iterator[tuple[Path, str]]:
    """Folders of this user that no process has locked, and their keys; until the stack is closed this one has."""
    form = re.compile(f"{re.escape(prefix)}([0-9a-f]{{8}}){re.escape(suffix)}")
    for entry in os.scandir(parent):
        match = form.fullmatch(entry.name)
        if not match or not entry.is_dir(follow_symlinks=False):
            continue
        with suppress(OSError):
            handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = os.fstat(handle)
            if known.st_uid == os.getuid() and known.st_nlink:  # else it has been deleted meanwhile
                yield Path(entry.path), match[1]


def _finish_abandoned(paths: Sequence[Path]) -> None:
    """What killed processes have left of these outputs: moved into place where all of it was ready, else deleted."""
    with ExitStack() as stack:
        for path in paths:
            for left, key in _find_abandoned(path.parent, _prefix_of(path), ".new", stack):
                if path == paths[0]:
                    staged = [Staged(each, each.parent / f"{_prefix_of(each)}{key}.new") for each in paths]
                    _move_rest([each for each in staged if each.folder.is_dir()])
                shutil.rmtree(left, ignore_errors=True)


def _move_rest(staged: Sequence[Staged]) -> None:
    """The end of `_finish` for a process that was killed in it; nothing where it had not begun."""
    first = staged[0]
    try:
        new = int((first.folder / READY).read_text())
    except (OSError, ValueError):
        return
    if first.aside.exists() and first.aside.stat().st_ino == new:
        _put(first.aside, first.target, ExitStack())
    for each in staged:
        for file in each.others(first):
            file.replace(each.target.parent / file.name)
        _flush_one(each.target.parent)


def _finish(staged: Sequence[Staged]) -> None:
    """Everything onto the disk, then into place; when that fails half way, back to where it was."""
    for each in staged:
        flush(each.aside.parent)
    first = staged[0]
    ready = first.folder / f"{READY}.new"
    ready.write_text(str(first.aside.stat().st_ino))
    flush(first.folder)
    ready.rename(ready.with_name(READY))
    _flush_one(first.folder)

    with _one_at_a_time(first.target.parent), ExitStack() as undo:
        others = [(file, each) for each in staged for file in each.others(first)]
        for file, each in others:
            place = each.target.parent / file.name
            if os.path.lexists(place):
                (each.folder / OLD).mkdir(exist_ok=True)
                _move(place, each.folder / OLD / file.name, undo)
        _put(first.aside, first.target, undo)
        for file, each in others:
            _move(file, each.target.parent / file.name, undo)
        for parent in {each.target.parent for each in staged}:
            _flush_one(parent)
        undo.pop_all()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """No two processes move outputs into one folder at the same moment; that takes a moment alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _put(new: Path, place: Path, undo: ExitStack) -> None:
    """`new` where `place` is; what was there is where `new` was, or beside it."""
    if os.path.lexists(place):
        if _exchange(new, place):
            undo.callback(_exchange, new, place)
            return
        old = new.parent.parent / OLD
        old.mkdir(exist_ok=True)
        _move(place, old / place.name, undo)
    _move(new, place, undo)


def _move(path: Path, to: Path, undo: ExitStack) -> None:
    path.rename(to)
    undo.callback(to.rename, path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    if rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))
