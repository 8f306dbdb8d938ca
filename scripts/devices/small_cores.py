"""Native code on cores that are no Cortex-M: 32-bit RISC-V, an 8-bit AVR, whose int has 16 bits, and Xtensa.

Drawn kernels and shipped networks are compiled freestanding, without a warning, run under emulation, and compared with plain C
on this CPU, bit for bit; for Xtensa they are only compiled. RISC-V is compiled by zig's clang; the others by avr-gcc and
xtensa-lx106-elf-gcc (Debian: gcc-avr, avr-libc, gcc-xtensa-lx106), or what AVR_GCC and XTENSA_GCC name, in as many words as it
takes. They run in qemu-riscv32 (qemu-user) and simavr, or what QEMU_RISCV32 and SIMAVR name. (qemu-system-avr 7.2 and 10.0 never
leave the routine of libgcc that multiplies an unsigned by a signed number of 16 bits.)
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from drawn_programs import drawn
from native_kernels import Machine, library

from fcdeploy.graph.model import read_model
from fcdeploy.native.build import Built, build, write_sources
from fcdeploy.native.program.steps import Program
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.tables.native import CORES
from scripts.checkout import list_families
from scripts.devices.arm_counts import make_model
from scripts.devices.cortex_m import MEMORY, STRING

Array = np.ndarray[Any, Any]
SEED = 1
LAYERS = 40
SECONDS = 120
DIGITS, COLOUR = re.compile(r"^([0-9a-f]+)\.*$", re.MULTILINE), re.compile(r"\x1b\[[0-9;]*m")
FLAGS = ("-std=c11", "-Os", "-ffreestanding", "-ffp-contract=off", "-I.")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SOURCES = ("net.c", "net_weights.c")
EQUAL, BUILT, LARGE = "equal", "only compiled", "with more weights than it can address"

RISCV = (
    """
static long ask(long what, long a, long b, long c) {
  register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a7 __asm__("a7") = what;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
  return a0;
}
static void put(char c) { ask(64, 1, (long)&c, 1); }
"""
    + MEMORY
    + """int main(void);
__attribute__((naked, used)) void _start(void) {
  __asm__ volatile(".option push\\n.option norelax\\nla gp, __global_pointer$\\n.option pop\\ncall begin");
}
__attribute__((used)) void begin(void) { main(); ask(93, 0, 0, 0); }
"""
)
"""Linux's calls, which qemu answers for a program that is alone otherwise."""

AVR = """
#define STATUS (*(volatile uint8_t *)0xC0)
#define CONTROL (*(volatile uint8_t *)0xC1)
#define DATA (*(volatile uint8_t *)0xC6)
static void put(char c) { CONTROL = 8; while (!(STATUS & 0x20)) {} DATA = (uint8_t)c; }
"""
"""The first serial port of an ATmega2560."""

MAIN = """
#include <string.h>
#include <stdint.h>
@START@
#include "@NAME@.h"
void @NAME@_steps(int32_t first, int32_t last, const void *const *inputs, void *const *outputs, void *arena);
@MEMORY@
static uint8_t arena[@ARENA@] __attribute__((aligned(64)));
static const void *const inputs[] = {@INPUTS@};
static void *const outputs[] = {@OUTPUTS@};
static const uint16_t lengths[] = {@LENGTHS@};

int main(void) {
  @NAME@_steps(0, @STEPS@, inputs, outputs, arena);
  for (unsigned n = 0; n < sizeof lengths / sizeof *lengths; n++)
    for (uint16_t i = 0; i < lengths[n]; i++) {
      const uint8_t byte = ((const uint8_t *)outputs[n])[i];
      put("0123456789abcdef"[byte >> 4]);
      put("0123456789abcdef"[byte & 15]);
      if (i % 32 == 31 || i + 1 == lengths[n]) put('\\n');
    }
  @STOP@
}
"""


@dataclass(frozen=True)
class Emulated:
    """A core: how it is compiled for and run, what its programs begin and end with, and how many bytes of memory they may take.

    Without an `emulator` it is compiled for alone; `largest` is how long an array may be.
    """

    name: str
    compiler: tuple[str, ...]
    linked: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    start: str = ""
    stop: str = "return 0;"
    memory: int = 1 << 22
    largest: int = 1 << 31
    own_string: bool = False  # whether its C library has a string.h


def find_cores() -> Iterator[Emulated]:
    """Those whose compiler and emulator are here; the others are named."""
    rows = [
        Emulated(
            "riscv32", (*find_compiler().command, *CORES["riscv32"].flags), ("-nostdlib", "-lcompiler_rt"),
            (os.environ.get("QEMU_RISCV32", "qemu-riscv32"), "net.elf"), RISCV,
        ),
        Emulated(
            "avr", (*shlex.split(os.environ.get("AVR_GCC", "avr-gcc")), "-mmcu=atmega2560"), (),
            (os.environ.get("SIMAVR", "simavr"), "-m", "atmega2560", "-f", "16000000", "net.elf"), AVR,
            '*(volatile uint8_t *)0x53 = 1; __asm__ volatile("cli\\n sleep"); return 0;', 6000, (1 << 15) - 1, own_string=True,
        ),
        Emulated("xtensa", (*shlex.split(os.environ.get("XTENSA_GCC", "xtensa-lx106-elf-gcc")), "-mlongcalls")),
    ]  # fmt: skip
    for row in rows:
        missing = [each for each in (row.compiler[0], *row.emulator[:1]) if shutil.which(each) is None]
        if missing:
            click.echo(f"{row.name:<8} not run: {' and '.join(missing)} not here")
        else:
            yield row


def main(names: list[str]) -> int:
    """Print a row a core; 1 where a byte differs, 2 where no core can be run."""
    cores = list(find_cores())
    if not cores:
        click.echo("error: none of the emulators and compilers is here", err=True)
        click.echo("hint: apt-get install qemu-user simavr gcc-avr avr-libc gcc-xtensa-lx106", err=True)
        return 2
    programs = list(draw_steps(SEED))
    networks = {name: make_network(name) for name in names or ["tiny_dense", "even_odd", "dense"]}
    failed = 0
    for core in cores:
        failed += show(core, "drawn kernels", [try_program(core, *each) for each in programs])
        for name, (built, feeds) in networks.items():
            failed += show(core, name, [try_program(core, built, feeds)])
    return 1 if failed else 0


def show(core: Emulated, what: str, answers: Sequence[str]) -> int:
    """One row, and how many were wrong."""
    wrong = [each for each in answers if each not in (EQUAL, BUILT, LARGE)]
    said = [f"{answers.count(each)} {each}" for each in (EQUAL, BUILT, LARGE) if each in answers]
    click.echo(f"{core.name:<8} {what:<20} {'; '.join([*said, *wrong[:5]])}")
    return len(wrong)


def draw_steps(seed: int) -> Iterator[tuple[Built, dict[str, Array]]]:
    """A program for each drawn kernel that reads nothing of another."""
    program, feeds = drawn(seed, LAYERS)
    given = {tensor.name for tensor in program.inputs}
    for step in program.steps:
        if {tensor.name for tensor in step.inputs} <= given:
            own = Program("net", step.inputs, step.outputs, (step,))
            yield build(own), {tensor.name: feeds[tensor.name] for tensor in step.inputs}


def make_network(name: str) -> tuple[Built, dict[str, Array]]:
    """A shipped network and a sample."""
    with tempfile.TemporaryDirectory() as temporary:
        model, feeds = make_model(name, list_families(), Path(temporary))
        shapes = {key: value.shape for key, value in feeds.items()}
        return build(read_program(read_model(model), "net", shapes)), feeds


def try_program(core: Emulated, built: Built, feeds: Mapping[str, Array]) -> str:
    """What was seen: EQUAL, BUILT, LARGE, or which program differs."""
    program = built.program
    if len(built.weights) > core.largest:
        return LARGE
    tensors = sum(t.nbytes + 8 for t in (*program.inputs, *program.outputs))
    runs = bool(core.emulator) and tensors + built.arena_bytes + len(built.weights) <= core.memory
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sources(built, folder)
        compile_network(core, folder)
        if not runs:
            return BUILT
        write_program(core, built, feeds, folder)
        said = run_program(core, folder)
    expected = Machine(built, library("plain")).run(dict(feeds))
    wanted = "".join(np.ascontiguousarray(expected[t.name]).tobytes().hex() for t in program.outputs)
    return EQUAL if said == wanted else f"{program.steps[0].what()} DIFFERENT"


def compile_network(core: Emulated, folder: Path) -> None:
    """Without a warning."""
    if not core.own_string:
        (folder / "string.h").write_text(STRING)
    for name in SOURCES:
        subprocess.run([*core.compiler, *FLAGS, *WARNINGS, "-c", name, "-o", f"{name}.o"], cwd=folder, check=True)


def write_program(core: Emulated, built: Built, feeds: Mapping[str, Array], folder: Path) -> None:
    """A main() that has the inputs in it and writes the bytes of the outputs, linked with the network."""
    memory, program = [], built.program
    for number, tensor in enumerate(program.inputs):
        data = np.ascontiguousarray(feeds[tensor.name], tensor.dtype).tobytes()
        memory.append(f"_Alignas(8) static const uint8_t in_{number}[] = {{{','.join(map(str, data))}}};")
    for number, tensor in enumerate(program.outputs):
        memory.append(f"_Alignas(8) static uint8_t out_{number}[{tensor.nbytes}];")
    said = {
        "START": core.start, "NAME": "net", "MEMORY": "\n".join(memory), "ARENA": str(built.arena_bytes),
        "INPUTS": ", ".join(f"in_{n}" for n in range(len(program.inputs))),
        "OUTPUTS": ", ".join(f"out_{n}" for n in range(len(program.outputs))),
        "LENGTHS": ", ".join(str(tensor.nbytes) for tensor in program.outputs), "STEPS": str(len(built.calls)),
        "STOP": core.stop,
    }  # fmt: skip
    text = MAIN
    for key, value in said.items():
        text = text.replace(f"@{key}@", value)
    (folder / "main.c").write_text(text)
    objects = [f"{name}.o" for name in SOURCES]
    subprocess.run([*core.compiler, *FLAGS, "main.c", *objects, *core.linked, "-o", "net.elf"], cwd=folder, check=True)


def run_program(core: Emulated, folder: Path) -> str:
    """The digits that it writes; simavr colours them, puts a full stop behind each line, and says what it does in others."""
    done = subprocess.run(
        core.emulator,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return "".join(DIGITS.findall(COLOUR.sub("", done.stdout + done.stderr)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
