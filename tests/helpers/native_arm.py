"""Native code for aarch64 under qemu: each level as a static program that reads inputs and writes outputs, on several CPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.native.build import Built, compile_library, compile_objects
from fcdeploy.native.toolchain import STRICT, compile_c, find_compiler
from fcdeploy.runtime.cpu import this_machine
from fcdeploy.runtime.native_library import load_native
from fcdeploy.tables.native import MACHINES, PLAIN, Level

Array = np.ndarray[Any, Any]
CPUS = {
    "cortex-a53": ("neon", "plain"),
    "cortex-a72": ("neon", "plain"),
    "neoverse-n1": ("dotprod", "neon", "plain"),
    "max": ("i8mm", "dotprod", "neon", "plain"),
}
"""qemu's name of a CPU (Raspberry Pi 3, 4, 5, and all that qemu knows) -> the levels that it has, best first."""

SECONDS = 1800
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "library.h"
/* Bytes that end, but for up to 7, where no memory is any more. */
static void *guarded(size_t bytes)
{
    const size_t page = 65536, inner = (bytes + page - 1) / page * page;
    char *all = mmap(0, inner + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + inner, page, PROT_NONE))
        exit(5);
    return all + (inner - bytes) / 8 * 8;
}
static const size_t in_bytes[] = {@IN@, 0}, out_bytes[] = {@OUT@, 0};
int main(int count, char **arguments)
{
    const struct fcdeploy_native *table = fcdeploy_native(count > 1 && *arguments[1] ? arguments[1] : 0);
    if (!table)
        return 3;
    const void *inputs[sizeof in_bytes / sizeof *in_bytes] = {0};
    void *outputs[sizeof out_bytes / sizeof *out_bytes] = {0};
    void *given[sizeof in_bytes / sizeof *in_bytes] = {0};
    for (int i = 0; in_bytes[i]; i++)
        inputs[i] = given[i] = aligned_alloc(64, (in_bytes[i] + 127) / 64 * 64);
    for (int i = 0; out_bytes[i]; i++)
        outputs[i] = aligned_alloc(64, (out_bytes[i] + 127) / 64 * 64);
    void *arena = guarded(table->arena_bytes);
    for (int sample = 0;; sample++) {
        for (int i = 0; in_bytes[i]; i++)
            if (fread(given[i], in_bytes[i], 1, stdin) != 1) {
                fprintf(stderr, "%s", table->level);
                return i || !sample ? 4 : 0;
            }
        for (int run = count > 2 ? atoi(arguments[2]) : 1; run > 0; run--) {
            getppid(); /* a plugin of qemu may count from one to the next */
            table->run(&(struct fcdeploy_run){inputs, outputs, arena, 1});
        }
        getppid();
        for (int i = 0; out_bytes[i]; i++)
            fwrite(outputs[i], out_bytes[i], 1, stdout);
    }
}
"""


def find_qemu() -> str | None:
    """qemu-aarch64 of Debian's qemu-user, or what QEMU_AARCH64 names."""
    return os.environ.get("QEMU_AARCH64") or shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


def run_here(built: Built, feeds: Mapping[str, Array], levels: Sequence[Level] = (PLAIN,)) -> dict[str, Array]:
    """What the best of these levels gives on this machine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compile_library(built, MACHINES[this_machine()], find_compiler(), folder, folder / "here.so", list(levels))
        return load_native(folder / "here.so").run(feeds)


def build_program(built: Built, folder: Path) -> Path:
    """All levels for aarch64 in one program without a shared library."""
    machine, compiler = replace(MACHINES["aarch64"], triple="aarch64-linux-musl"), find_compiler()
    objects = compile_objects(built, machine, compiler, folder)
    sizes = [", ".join(str(t.nbytes) for t in each) for each in (built.program.inputs, built.program.outputs)]
    (folder / "main.c").write_text(MAIN.replace("@IN@", sizes[0]).replace("@OUT@", sizes[1]))
    compile_c(
        compiler, ["-target", machine.triple, *STRICT, "-static", "main.c", *objects, "-o", "program"], folder
    )  # fmt: skip
    return folder / "program"


def run_on(program: Path, built: Built, feeds: Mapping[str, Array], cpu: str, level: str = "") -> tuple[str, Any]:
    """The level that ran and its outputs, of samples along the first axis; ("", {}) where the CPU has no such level."""
    count = min(len(feeds[t.name]) // max(1, t.shape[0]) for t in built.program.inputs)
    each = [np.ascontiguousarray(feeds[t.name], t.dtype).reshape(count, -1) for t in built.program.inputs]
    given = b"".join(values[i].tobytes() for i in range(count) for values in each)
    qemu = find_qemu()
    assert qemu is not None
    done = subprocess.run(
        [qemu, "-cpu", cpu, program, level], input=given, capture_output=True, check=False, timeout=SECONDS
    )
    if done.returncode == 3:
        return "", {}
    assert done.returncode == 0, f"{cpu} {level}: {done.returncode} {done.stderr.decode()}"
    outputs, at = {}, 0
    rows = np.frombuffer(done.stdout, np.uint8).reshape(count, -1)
    for tensor in built.program.outputs:
        part = np.ascontiguousarray(rows[:, at : at + tensor.nbytes])
        outputs[tensor.name] = part.view(tensor.dtype).reshape(count * tensor.shape[0], *tensor.shape[1:])
        at += tensor.nbytes
    return done.stderr.decode(), outputs


def unequal(
    built: Built, feeds: Mapping[str, Array], expected: Mapping[str, Array], cpus: Mapping[str, tuple[str, ...]],
    *, best: bool = False,
) -> list[str]:  # fmt: skip
    """What is wrong, in words: outputs that are not `expected`, bit for bit, and levels that a CPU should have or not.

    With `best` only what the best level of each CPU gives.
    """
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        program = build_program(built, Path(folder))
        for cpu, levels in cpus.items():
            for level in ("", *(level.name for level in MACHINES["aarch64"].levels if not best)):
                ran, outputs = run_on(program, built, feeds, cpu, level)
                wanted = levels[0] if not level else level if level in levels else ""
                if ran != wanted:
                    wrong.append(f"{cpu} ran {ran!r}, expected {wanted!r}")
                wrong += [
                    f"{cpu} {ran}: {name}" for name, value in outputs.items()
                    if value.tobytes() != np.ascontiguousarray(expected[name]).tobytes()
                ]  # fmt: skip
    return wrong
