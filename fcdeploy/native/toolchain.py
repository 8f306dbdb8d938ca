"""Compilers: the one that $CC names, or zig's clang from PyPI."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event

from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.cache import cache_folder
from fcdeploy.runtime.cpu import this_machine
from fcdeploy.tables.native import Core

STRICT = ("-std=c11", "-O2", "-g0", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra")
RUNNING = set[subprocess.Popen[str]]()  # compilers that run now
INTERRUPTED = Event()
IN_TEXT = re.compile(r"\S+\.[chS]:\d+:")  # where a compiler's complaint about a text begins


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, what it calls itself, and whether it knows zig's `-target`."""

    command: tuple[str, ...]
    name: str
    cross: bool


def find_compiler() -> Compiler:
    """$CC where it is set, else ziglang, else cc. Raises FcdeployError where there is none."""
    given = os.environ.get("CC", "").strip()
    if given:
        try:
            command = tuple(shlex.split(given))
        except ValueError:  # a quotation mark is open
            command = ()
        program = shutil.which(command[0]) if command else None
        if program is None:
            raise FcdeployError(f"CC is {given!r}, which is no program", "unset CC, or give a C compiler")
        zig = Path(command[0]).stem == "zig" or "ziglang" in command[1:]
        return Compiler(
            (str(Path(program).absolute()), *command[1:]), " ".join(command), zig
        )  # it runs in another folder
    if find_spec("ziglang") is not None:
        return Compiler((sys.executable, "-m", "ziglang", "cc"), "ziglang", True)
    if shutil.which("cc") is not None:
        return Compiler(("cc",), "cc", False)
    raise FcdeployError("there is no C compiler", "pip install 'fcdeploy[native]', or CC=gcc")


def find_core_compiler(core: Core) -> Compiler:
    """The one that makes code for a core. Raises FcdeployError where there is none."""
    if core.gcc:
        if shutil.which(core.gcc) is None:
            raise FcdeployError(
                f"there is no {core.gcc}, which makes code for {core.name}",
                "put Espressif's compiler on the PATH (ESP-IDF's export.sh does); or --emit c, and compile that",
            )
        return Compiler((core.gcc,), core.gcc, False)
    compiler = find_compiler()
    if not compiler.cross:
        raise FcdeployError(
            f"{compiler.name} makes code for {this_machine()} alone, expected a compiler that knows {core.triple}",
            "pip install 'fcdeploy[native]', and unset CC; or --emit c, for your own compiler",
        )
    return compiler


@contextmanager
def compile_together() -> Iterator[Executor]:
    """A pool for compilers beside each other; what interrupts the wait for them ends them all, those about to start too."""
    INTERRUPTED.clear()
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except (KeyboardInterrupt, SystemExit):
            INTERRUPTED.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for running in tuple(RUNNING):
                _end(running)
            raise


def _end(running: subprocess.Popen[str]) -> None:
    """End a compiler and what it started: zig runs its clang in a process of its own."""
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)


def compile_c(compiler: Compiler, arguments: Sequence[str | Path], folder: Path) -> None:
    """Run the compiler in `folder`. Raises FcdeployError with its first complaint."""
    command = [*compiler.command, *map(str, arguments)]
    # zig keeps what it builds of its own libraries in ~/.cache unless told otherwise
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"), **os.environ}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as running:
        RUNNING.add(running)
        try:
            if INTERRUPTED.is_set():
                _end(running)
            _, said = running.communicate()
        except BaseException:
            _end(running)
            raise
        finally:
            RUNNING.discard(running)
    if running.returncode:
        complaints = [line for line in said.splitlines() if "error" in line] or said.splitlines()
        raise FcdeployError(
            f"{compiler.name} failed: {(complaints or ['no message'])[0].strip()[:200]}",
            _choose_hint(command, complaints),
        )


def _choose_hint(command: Sequence[str], complaints: Sequence[str]) -> str:
    """Another compiler, where one could do better: not with C that is wrong, nor where it is told of a target as zig is."""
    if os.environ.get("CC"):
        return "unset CC"
    if complaints and IN_TEXT.match(complaints[0]):
        return "please report it with the model: the C that was written for it is wrong"
    if "-target" in command and this_machine() not in command[command.index("-target") + 1]:
        return "pip install --force-reinstall 'fcdeploy[native]', or --emit c, for your own compiler"
    return "CC=gcc takes another compiler"
