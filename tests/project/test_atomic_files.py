"""Outputs in place whole, together or not at all; what killed processes leave is finished or deleted by the next one."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import fails

from fcdeploy import atomic_files
from fcdeploy.atomic_files import clear_abandoned, replace_files, replace_folder, temporary_folder

ROOT = Path(__file__).parents[2]
WRITE = """
import os, signal, sys
from pathlib import Path
from fcdeploy import atomic_files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(atomic_files, sys.argv[1], die)
with atomic_files.replace_files([Path("model"), Path("plan")], force=True) as asides:
    for aside in asides:
        aside.write_text("new")
    asides[0].with_name("model.data").write_text("new")
"""
NAMES = ("model", "model.data", "plan")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() if path.is_file() else "folder" for path in folder.iterdir()}


def write_both(folder: Path, text: str) -> None:
    with replace_files([folder / "model", folder / "plan"], force=True) as asides:
        for aside in asides:
            aside.write_text(text)


@pytest.mark.parametrize("step", ["_finish", "_put", "_flush_one"])
def test_a_killed_process_is_finished_or_forgotten(tmp_path: Path, step: str) -> None:
    """Killed before anything is ready the old files stay; killed among the moves, the next run first ends those."""
    for name in NAMES:
        (tmp_path / name).write_text("old")
    killed = subprocess.run([sys.executable, "-c", WRITE, step], cwd=tmp_path, check=False)
    assert killed.returncode == -9
    left = contents(tmp_path)
    assert "folder" in left.values()
    if step == "_put":  # the others are taken away first: nothing new stands beside anything old
        assert left["model"] == "old"
        assert not {"model.data", "plan"} & set(left)
    else:
        assert {name: left[name] for name in NAMES} == dict.fromkeys(NAMES, "old")
    with (
        fails("no room", "room"),
        replace_files([tmp_path / "model", tmp_path / "plan"], force=True),
    ):
        raise atomic_files.FcdeployError("no room", "room")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "new" if step == "_put" else "old")


@pytest.mark.parametrize("ready", [True, False])
def test_what_a_killed_process_left_of_a_file_that_is_read_is_cleared(tmp_path: Path, ready: bool) -> None:
    """A cache that is there is never written again, so that no later run would clear its folder."""
    left = tmp_path / ".costs.json.0123abcd.new"
    (left / "files").mkdir(parents=True)
    new = left / "files" / "costs.json"
    new.write_text("new")
    if ready:
        (left / "ready").write_text(str(new.stat().st_ino))
    (tmp_path / "costs.json").write_text("old")
    clear_abandoned(tmp_path / "costs.json")
    assert contents(tmp_path) == {"costs.json": "new" if ready else "old"}
    clear_abandoned(tmp_path / "no folder" / "costs.json")


def test_a_move_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(tmp_path, "old")
    moves, rename = [], Path.rename

    def fail_at_third(path: Path, to: Path) -> None:
        moves.append(path)
        if len(moves) == 3:
            raise OSError(5, "Input/output error")
        rename(path, to)

    monkeypatch.setattr(Path, "rename", fail_at_third)
    with fails("model': Input/output error", "room"):
        write_both(tmp_path, "new")
    monkeypatch.undo()
    assert len(moves) > 3  # back
    assert contents(tmp_path) == {"model": "old", "plan": "old"}


@pytest.mark.parametrize("exchange", [True, False])
def test_folders_and_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(atomic_files, "_exchange", lambda *_: False)
    for text in ("old", "new"):
        write_both(tmp_path, text)
        with replace_folder(tmp_path / "bundle", tmp_path / "config") as (folder, config):
            (folder / text).write_text(text)
            config.write_text(text)
    assert contents(tmp_path) == {"model": "new", "plan": "new", "config": "new", "bundle": "folder"}
    assert contents(tmp_path / "bundle") == {"new": "new"}


def test_what_is_being_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time: neither takes the other's folder for an abandoned one."""
    monkeypatch.setattr(atomic_files.tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as other, replace_files([tmp_path / "model"], force=True) as (slow,):
        slow.write_text("slow")
        write_both(tmp_path, "quick")
        with temporary_folder():
            assert other.is_dir()
    assert contents(tmp_path) == {"model": "slow", "plan": "quick"}


def test_a_full_temporary_folder_is_named() -> None:
    with fails(f"cannot write to the temporary folder {tempfile.gettempdir()!r}: ", "TMPDIR"), temporary_folder():
        Path("/dev/full").write_text("text")  # the system does not say which file
    with fails("cannot write to the temporary folder"), temporary_folder() as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "a"))
    with pytest.raises(OSError, match="elsewhere"), temporary_folder():
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")


def test_faults_at_file_operations() -> None:
    """A few of scripts/faults, which says what must hold."""
    options = ["--seconds", "4", "--seed", "3", "--command", "quantize"]
    command = [sys.executable, "-m", "scripts.robustness.faults", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", seed 3, 0 wrong" in done.stdout
