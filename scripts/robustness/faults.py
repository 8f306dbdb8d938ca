"""Fault injection at every file operation of every command that writes: see scripts/faults.

A child is forked for each case, and a library that was preloaded (faults.c) counts its operations on files below a folder
and lets one of them fail.  What must hold is in `judge`: no output is lost, half or mixed, exit code 2 leaves everything
as it was, and the same command run again ends with the outputs of an undisturbed run and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import importlib
import io
import os
import pkgutil
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fcdeploy
from scripts.checkout import ROOT
from scripts.robustness.faults_commands import Command, list_commands, make_inputs, run_main

HERE = Path(__file__).resolve().parent
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "EINTR": errno.EINTR, "KILL": 0}
Tree = dict[str, str]
"""Path below the folder of outputs -> hash of the file."""
DRAWN = re.compile(r"(?<=[./-])(?:[0-9a-f]{8}|tmp[a-z0-9_]{8})(?=[./]|$)")
"""The part of a temporary name that is drawn anew in every run."""


@dataclass(frozen=True)
class Case:
    """A command, the number of the operation that fails (0 for none), how, and whether outputs are there already."""

    command: Command
    operation: int
    fault: str
    replacing: bool = True

    def __str__(self) -> str:
        return f"{self.command.name}:{self.operation}:{self.fault}{'' if self.replacing else ':new'}"


@dataclass(frozen=True)
class Outcome:
    """Exit code, negative for a signal, what was printed, operations, and the outputs afterwards.

    `names` are those of the operations, where none was to fail: the call and its path.
    """

    code: int
    printed: str
    operations: int
    names: tuple[str, ...]
    tree: Tree


class Laboratory:
    """A folder in which commands are run with faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("in", "out", "tmp", "known"):
            (folder / name).mkdir()
        os.chdir(folder)
        tempfile.tempdir = str(folder / "tmp")
        os.environ.update(TMPDIR=str(folder / "tmp"), FCDEPLOY_CACHE=str(folder / "cache"))
        self._library = ctypes.CDLL(None)
        self._library.faults_names.restype = ctypes.c_char_p
        for module in pkgutil.walk_packages(fcdeploy.__path__, "fcdeploy."):  # once, and not in every child
            if not re.search(r"pytorch|serve|ray", module.name):
                importlib.import_module(module.name)
        for name in ("models", "calib_data"):  # of fcdeploy demo
            (folder / name).symlink_to(ROOT / name)
        make_inputs(folder / "in")
        self._known: dict[str, tuple[Tree, Tree, dict[bool, tuple[str, ...]]]] = {}

    def learn(self, command: Command) -> tuple[Tree, Tree, dict[bool, tuple[str, ...]]]:
        """Outputs before and after, and operations of an undisturbed run, by whether outputs were there."""
        if command.name not in self._known:
            self._clear()
            old = self._fork(command.old, command.measured)
            shutil.copytree("out", self.folder / "known" / command.name)
            names = {}
            for replacing in (True, False):
                self._prepare(command, replacing=replacing)
                new = self._fork(command.arguments, command.measured)
                assert old.code in (0, 1), old.printed
                assert new.code in (0, 1), new.printed
                names[replacing] = new.names
            self._known[command.name] = old.tree, new.tree, names
        return self._known[command.name]

    def try_case(self, case: Case, *, show: bool = False) -> list[str]:
        """What is wrong with what became of it."""
        self.learn(case.command)
        self._prepare(case.command, replacing=case.replacing)
        arguments, measured = case.command.arguments, case.command.measured
        before = self._read_state(measured)
        outcome = self._fork(arguments, measured, case.operation, case.fault)
        now, new = self._read_state(measured), self._known[case.command.name][1]
        if not show and now in (before, (new, *before[1:])):  # as before, or as it was to become: such runs are known
            return self._judge(case, outcome, None)
        again = self._fork(arguments, measured)
        if show:
            print(f"exit code {outcome.code}, {outcome.operations} operations\n{outcome.printed}", end="")
            print(f"then exit code {again.code}\n{again.printed}", end="")
        return self._judge(case, outcome, again)

    def _judge(self, case: Case, outcome: Outcome, again: Outcome | None) -> list[str]:
        old, new, _ = self._known[case.command.name]
        old = old if case.replacing else {}
        faults = []
        visible = {name: digest for name, digest in outcome.tree.items() if not _is_hidden(name)}
        if case.fault == "KILL" and outcome.code == -signal.SIGKILL:
            judge = _judge_stations if case.command.stations else _judge_killed
            faults += judge(case.command.outputs, visible, old, new)
        elif outcome.code == 2 and case.command.stations:
            faults += _judge_stations(case.command.outputs, visible, old, new)
            faults += ["no line 'error:'"] if "error: " not in outcome.printed else []
        elif outcome.code == 2:
            faults += ["exit code 2, and outputs are not as they were"] if outcome.tree != old else []
            faults += ["no line 'error:'"] if "error: " not in outcome.printed else []
        elif outcome.code in (0, 1):
            faults += ["it ended well, and outputs are not the new ones"] if visible != new else []
        else:
            faults.append(f"exit code {outcome.code}")
        if "internal" in outcome.printed or "Traceback" in outcome.printed:
            faults.append("a defect was reported")
        if again is None:
            return faults
        if again.code not in (0, 1):
            said = next((line for line in again.printed.splitlines() if line.startswith("error: ")), "")
            faults.append(f"the next run ends with {again.code}: {said}")
        if again.tree != new:
            faults.append(f"the next run leaves {sorted(set(again.tree.items()) ^ set(new.items()))[:3]}")
        if left := [
            path for path in Path("tmp").iterdir() if not path.name.startswith("torchinductor")
        ]:  # torch's cache
            faults.append(f"the next run leaves {left} in TMPDIR")
        return faults

    def _read_state(self, measured: Sequence[str]) -> tuple[Tree, tuple[Path, ...], Tree]:
        """All that the next run finds: outputs, what lies in TMPDIR, and the cache."""
        cache = {
            str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in sorted((self.folder / "cache").rglob("*"))
            if path.is_file()
        }
        return _read_tree(Path("out"), measured), tuple(sorted(Path("tmp").iterdir())), cache

    def _clear(self) -> None:
        for name in ("out", "tmp"):
            shutil.rmtree(name)
            Path(name).mkdir()

    def _prepare(self, command: Command, *, replacing: bool) -> None:
        self._clear()
        if replacing:
            shutil.copytree(self.folder / "known" / command.name, "out", dirs_exist_ok=True)

    def _fork(
        self, arguments: Sequence[str], measured: Sequence[str], operation: int = 0, fault: str = "EIO"
    ) -> Outcome:
        ours, theirs = os.pipe()
        log = self.folder.parent / "log"
        child = os.fork()
        if child == 0:
            self._run_child(arguments, operation, fault, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            counted = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        printed = log.read_text(errors="replace") if log.exists() else ""
        count, _, names = counted.decode(errors="replace").partition("\n")
        named = tuple(DRAWN.sub("*", name) for name in names.splitlines())
        return Outcome(code, printed, int(count or 0), named, _read_tree(Path("out"), measured))

    def _run_child(self, arguments: Sequence[str], operation: int, fault: str, tell: int) -> None:
        code = 3
        try:
            log = os.open(str(self.folder.parent / "log"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._library.faults_arm(ctypes.c_long(operation), FAULTS[fault], int(fault == "ENOSPC"))
            try:
                code = run_main(arguments)
            except BaseException as error:  # functions that are run without the command line
                self._library.faults_disarm()
                code = 2 if type(error).__name__ == "FcdeployError" else 3
                print(f"error: {error}" if code == 2 else f"internal {error!r}")
            self._library.faults_disarm()
            with os.fdopen(tell, "wb") as pipe:
                pipe.write(b"%d\n%b" % (self._library.faults_count(), self._library.faults_names()))
            sys.stdout.flush()
        finally:
            os._exit(code)


def _judge_stations(outputs: Sequence[str], tree: Tree, old: Tree, new: Tree) -> list[str]:
    """Each output is whole, of this run or of the one before."""
    return [fault for output in outputs for fault in _judge_killed([output], tree, old, new)]


def _judge_killed(outputs: Sequence[str], tree: Tree, old: Tree, new: Tree) -> list[str]:
    """Each output is whole, the first is there if it was, and no other is of another run than the first."""
    possible = [{"old", "new"}]
    faults = []
    for output in outputs:
        parts = [
            {n: d for n, d in each.items() if n == output or n.startswith(f"{output}/")} for each in (tree, old, new)
        ]
        states = {state for state, part in zip(("old", "new"), parts[1:], strict=True) if part == parts[0]}
        if parts[0]:
            possible.append(states)
            faults += [] if states else [f"{output} is half"]
        elif old and output == outputs[0]:
            faults.append(f"{output} is lost")
    if not faults and not set.intersection(*possible):
        faults.append("outputs are mixed")
    return faults


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _read_tree(folder: Path, measured: Sequence[str]) -> Tree:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    tree = {
        name: "whole" if name in measured and path.stat().st_size else hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
    }
    empty = [path for path in folder.rglob(".*") if path.is_dir() and not any(path.iterdir())]
    return tree | {path.relative_to(folder).as_posix(): "empty" for path in empty}


def list_cases(laboratory: Laboratory, commands: Sequence[Command], *, ends: bool) -> list[Case]:
    """Every operation of every command, with every fault; with `ends` of those alike in a row the first and the last."""
    cases = []
    for command in commands:
        for replacing, names in laboratory.learn(command)[2].items():
            faults = FAULTS if replacing else ("EIO", "KILL")
            places = find_ends(names) if ends else range(1, len(names) + 1)
            cases += [Case(command, at, fault, replacing) for at in places for fault in faults]
    return cases


def find_ends(names: Sequence[str]) -> list[int]:
    """Numbers, from 1, of those that are the first or the last of a row of equal ones."""
    return [
        at for at, name in enumerate(names, 1) if at in (1, len(names)) or names[at - 2] != name or names[at] != name
    ]


def preload(arguments: Sequence[str]) -> int:
    """Build the library and run this script again with it."""
    from fcdeploy.native.toolchain import find_compiler

    memory = "/dev/shm"  # a disk takes longer to flush than commands to run
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        folder = Path(name).resolve()
        library = folder / "faults.so"
        subprocess.run(
            [*find_compiler().command, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True
        )
        (folder / "laboratory").mkdir()
        (folder / "compiled").mkdir()
        environment = {**os.environ, "LD_PRELOAD": str(library), "FAULTS_ROOT": str(folder / "laboratory")}
        kept = [sys.executable, "-P", HERE / "kept_compiler.py", folder / "compiled", "ziglang", "cc"]
        environment |= {"OMP_NUM_THREADS": "1", "CC": shlex.join(map(str, kept))}
        command = [sys.executable, "-m", "scripts.robustness.faults", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--seed", type=int, default=0, help="the order of cases")
    parser.add_argument("--command", action="append", help="these commands alone")
    parser.add_argument("--ends", action="store_true", help="of equal operations in a row the first and the last alone")
    parser.add_argument("--replay", help="one case, COMMAND:OPERATION:FAULT[:new]")
    options = parser.parse_args()
    if "FAULTS_ROOT" not in os.environ:
        return preload(sys.argv[1:])

    begin = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        laboratory = Laboratory(Path(os.environ["FAULTS_ROOT"]))
    commands = [command for command in list_commands() if not options.command or command.name in options.command]
    if any(command.name in ("export", "demo") for command in commands) and not options.replay:
        import torch  # noqa: F401  (else each child imports it anew, for seconds)
    if options.replay:
        name, operation, fault, *rest = options.replay.split(":")
        chosen = next(command for command in commands if command.name == name)
        faults = laboratory.try_case(Case(chosen, int(operation), fault, not rest), show=True)
        print("\n".join(faults) or "nothing wrong")
        return int(bool(faults))

    cases = list_cases(laboratory, commands, ends=options.ends)
    random.Random(options.seed).shuffle(cases)
    done: Counter[str] = Counter()
    wrong = 0
    for case in cases:
        if time.monotonic() - begin > options.seconds:
            break
        faults = laboratory.try_case(case)
        done[case.command.name] += 1
        wrong += bool(faults)
        for fault in faults:
            print(f"{case}: {fault}", flush=True)
    rows = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
    print(f"{sum(done.values())} of {len(cases)} faults, seed {options.seed}, {wrong} wrong: {rows}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
