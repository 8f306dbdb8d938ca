"""The machine that `--target` names, and the best instructions that this one has."""

from __future__ import annotations

from fcdeploy.errors import FcdeployError
from fcdeploy.runtime.cpu import read_cpu_flags, this_machine
from fcdeploy.tables.native import CORES, MACHINES, Level, Machine


def find_machine(target: str) -> Machine:
    """The row of `--target`; `host` is this machine. Raises FcdeployError at one that is unknown."""
    name = this_machine() if target == "host" else target
    if name not in MACHINES:
        raise FcdeployError(
            f"--target {target!r} is unknown, expected host, {', '.join((*MACHINES, *CORES))}",
            f"--target {next(iter(MACHINES))}",
        )
    return MACHINES[name]


def list_levels_here() -> list[Level]:
    """The levels that this CPU runs, best first."""
    return [level for level in find_machine("host").levels if set(level.cpu) <= read_cpu_flags()]
