"""Detection of this machine: instruction sets, cores, memory, and its row of the targets table."""

from __future__ import annotations

import math
import os
import platform
import sys
from functools import cache
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.tables.targets import TARGETS, Target


@cache
def read_cpu_flags() -> frozenset[str]:
    """The instruction sets of this CPU, as Linux names them; what the platform name implies elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset({"neon", "asimd"} if platform.machine().lower() in ("arm64", "aarch64") else {"avx2"})


def detect_target() -> Target:
    """The row of this CPU: the first whose flags it has. The portable row where none fits."""
    flags = read_cpu_flags()
    fitting = [target for target in TARGETS.values() if flags & set(target.cpu)]
    return fitting[0] if fitting else TARGETS["portable"]


def find_target(name: str) -> Target:
    """The row for `--target NAME`.

    `host` is the row of this CPU, but for VNNI: there the row of x86 CPUs without it is taken, because a file that uses
    all 8 bits of every weight gains a decibel at most here and collapses on the next machine it is copied to.
    """
    if name == "host":
        target = detect_target()
        return TARGETS["x86-avx2"] if target.name == "x86-vnni" else target
    if name not in TARGETS:
        raise FcdeployError(f"--target {name!r} is unknown, expected host, {', '.join(TARGETS)}", "fcdeploy doctor")
    return TARGETS[name]


def read_cpu_name() -> str:
    """The CPU's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def count_usable_cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may keep busy: those it may run on, or fewer where a container's quota (cgroup 1, 2) is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_quota(groups)
    return max(1, cores if quota is None else min(cores, quota))


@cache  # every session asks, and opening these files takes longer than the rest of the question
def _read_quota(groups: Path) -> int | None:
    """CPUs that a container allows."""
    quota = _read_words(groups / "cpu.max") or [
        *_read_words(groups / "cpu/cpu.cfs_quota_us"), *_read_words(groups / "cpu/cpu.cfs_period_us"),
    ]  # fmt: skip
    if len(quota) == 2 and all(word.isdigit() for word in quota) and int(quota[1]):
        return math.ceil(int(quota[0]) / int(quota[1]))
    return None


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def read_memory_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of memory this process may use: the machine's, or less where a container (cgroup 1, 2) limits it."""
    words = _read_words(groups / "memory.max") or _read_words(groups / "memory/memory.limit_in_bytes")
    limit = [int(word) for word in words if word.isdigit()]
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    if sys.platform != "win32" and all(name in os.sysconf_names for name in names):
        limit.append(os.sysconf(names[0]) * os.sysconf(names[1]))
    return min(limit, default=None)


def this_machine() -> str:
    """What Linux calls this kind of CPU: x86_64, aarch64."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)
