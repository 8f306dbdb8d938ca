"""Compile shipped networks to C, run them on emulated Cortex-M boards, and compare with the library of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from scripts.checkout import list_families
from scripts.shipped import make_model

NETWORKS = ("dense", "lenet5", "resnet", "anomalies", "keywords", "persons")
SAMPLES = 2
SECONDS = 300
RAM = 512 << 10

LINK = """
MEMORY { FLASH (rx) : ORIGIN = 0, LENGTH = 4M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 512K }
ENTRY(start)
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
  .ARM.exidx : { *(.ARM.exidx*) } > FLASH
  _flash_end = .;
  .samples : { KEEP(*(.samples)) } > FLASH
  .bss (NOLOAD) : { _bss = .; *(.data*) *(.bss*) *(COMMON) . = ALIGN(8); _bss_end = .; } > RAM
  _top = ORIGIN(RAM) + LENGTH(RAM);
}
"""
STRING = """
#pragma once
#include <stddef.h>
void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memset(void *to, int byte, size_t count);
"""
MEMORY = """void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}
void *memset(void *to, int byte, size_t count) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)to)[i] = (uint8_t)byte;
  return to;
}
"""
"""All that generated code wants of a C library, for programs that have none."""

RUNTIME = (
    """
#include "string.h"
#include "@NAME@.h"

extern uint8_t _bss[], _bss_end[], _top[], _flash_end[];
#define SYSTICK ((volatile uint32_t *)0xE000E010)
enum { WRITE_TEXT = 4, EXIT = 0x18, PAINT = 0xC5 };

"""
    + MEMORY
    + """
/* ARM's semihosting: the debugger, here qemu, writes text and ends the program. */
static void ask(int what, const void *with) {
  register int r0 __asm__("r0") = what;
  register const void *r1 __asm__("r1") = with;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
static void write_word(uint32_t word) {
  char text[10];
  for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[word >> (28 - 4 * i) & 15];
  text[8] = '\\n', text[9] = 0;
  ask(WRITE_TEXT, text);
}

static void body(void);

__attribute__((used, noreturn)) void begin(void) {
  uint8_t *here = __builtin_frame_address(0);
  memset(_bss, 0, (size_t)(_bss_end - _bss));
  for (uint8_t *p = _bss_end; p < here - 256; p++) *p = PAINT;
  SYSTICK[1] = 0xFFFFFF; /* counts down from here, at the board's clock; an instruction of qemu with -icount shift=0 is 1 ns */
  SYSTICK[2] = 0;
  SYSTICK[0] = 5;
  body();
  const uint8_t *deepest = _bss_end;
  while (*deepest == PAINT) deepest++;
  write_word((uint32_t)(_top - deepest));
  write_word((uint32_t)_flash_end);
  ask(EXIT, (const void *)0x20026);
  for (;;) {}
}
__attribute__((naked, used)) void start(void) {
#if __ARM_FP /* its unit and Helium are off after reset, and a compiler may use them anywhere */
  __asm__ volatile("movw r0, #0xed88\\n movt r0, #0xe000\\n ldr r1, [r0]\\n orr r1, r1, #0xf00000\\n str r1, [r0]\\n dsb\\n isb");
#endif
  __asm__ volatile("bl begin");
}
__attribute__((section(".vectors"), used)) void *const vectors[16] = {_top, (void *)start};
"""
)
"""A program on a board: it runs body(), then writes how deep the stack was and how much flash it takes."""

MAIN = (
    RUNTIME
    + """
__attribute__((section(".samples"))) static const float samples[@SAMPLES@][@IN@] = @DATA@;
static float answer[@OUT@];
static uint8_t arena[@ARENA@] __attribute__((aligned(64)));

__attribute__((noinline)) static void run(const float *sample) { @CALL@; }

static void body(void) {
  uint32_t ticks = 0;
  for (int i = 0; i < @SAMPLES@; i++) {
    const uint32_t before = SYSTICK[2];
    run(samples[i]);
    ticks = (before - SYSTICK[2]) & 0xFFFFFF;
    for (int k = 0; k < @OUT@; k++) { uint32_t word; memcpy(&word, &answer[k], 4); write_word(word); }
  }
  write_word(ticks);
}
"""
)


@dataclass(frozen=True)
class Board:
    """A core and its floating-point unit as zig names them, and qemu's machine that runs its instructions.

    `device` is one of `tables/devices.py` that has this core; `mhz` the machine's clock, which its timer counts.
    """

    core: str
    machine: str
    unit: str = ""
    device: str = ""
    mhz: int = 25

    @property
    def flags(self) -> tuple[str, ...]:
        """Of zig's clang, which takes a core alone for one without a floating-point unit."""
        return "-target", f"thumb-freestanding-eabi{'hf' if self.unit else ''}", f"-mcpu={self.core}{self.unit}"


BOARDS = (
    Board("cortex_m0", "mps2-an385", device="rp2040"), Board("cortex_m3", "mps2-an385"),
    Board("cortex_m4", "mps2-an386", "+vfp4d16sp", "stm32f4"), Board("cortex_m7", "mps2-an500", "+fp_armv8d16sp", "stm32h7"),
    Board("cortex_m55", "mps3-an547", "+mve_fp", "stm32n6", mhz=32),
)  # fmt: skip
"""A Cortex-M0 is a Cortex-M3 that is given no instruction beyond its own."""


def main(names: list[str]) -> int:
    """Print a row a network and board; 1 where a byte differs."""
    qemu = find_qemu()
    if qemu is None:
        click.echo("error: qemu-system-arm is not installed", err=True)
        click.echo("hint: apt-get install qemu-system-arm, or QEMU_SYSTEM_ARM=/path/to/it", err=True)
        return 2
    click.echo(
        f"{'network':<10} {'core':<11} {'bytes':<10} {'flash':>9} {'weights':>9} {'arena':>8} {'stack':>7} "
        f"{'instructions':>12} {'a MAC':>6}  inspect --device says"
    )
    equal = True
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as temporary:
            equal &= try_network(name, Path(temporary), qemu)
    return 0 if equal else 1


def try_network(name: str, folder: Path, qemu: str) -> bool:
    """One network on every board."""
    int8, _ = make_model(name, list_families(), folder)
    with np.load(folder / "data.npz") as stored:
        (inputs,) = (stored[key][:SAMPLES].astype(np.float32) for key in stored.files)
    macs = fcdeploy.compile(int8, output=folder / "net.so", name="net").values["macs"]
    fcdeploy.compile(int8, output=folder / "c", emit="c", target="cortex-m4", name="net")  # one C for all of them
    native = fcdeploy.load_native(folder / "net.so")
    (key,) = native.inputs
    answers = np.concatenate([next(iter(native.run({key: x[None]}).values())).reshape(-1) for x in inputs])
    expected = answers.astype(np.float32).view(np.uint32).tolist()
    write_program(folder / "c", inputs, len(expected) // len(inputs))

    equal = True
    header = (folder / "c" / "net.h").read_text()
    for board in BOARDS:
        words = link_and_run(board.flags, board.machine, folder / "c", qemu)
        same = words[:-3] == expected
        equal &= same
        sizes = (words[-1], read_size(header, "WEIGHT_BYTES"), read_size(header, "ARENA_BYTES"), words[-2])
        instructions = words[-3] * 1000 // board.mhz
        flash, weights, arena, stack = (f"{size:,}" for size in sizes)
        click.echo(
            f"{name:<10} {board.core:<11} {'equal' if same else 'DIFFERENT':<10} {flash:>9} {weights:>9} {arena:>8} {stack:>7} "
            f"{instructions:>12,} {instructions / macs:>6.2f}  {compare_estimate(int8, board.device, words[-1], instructions)}"
        )
    return equal


def compare_estimate(int8: Path, device: str, flash: int, instructions: int) -> str:
    """What `inspect --device` says without compiling, as shares of what was counted."""
    if not device:
        return ""
    said = fcdeploy.inspect(int8, device=device).device
    assert said is not None
    return f"{said.flash / flash:.2f} of the flash, {said.instructions / instructions:.2f} of the instructions"


def write_program(folder: Path, inputs: np.ndarray[Any, Any], outputs: int) -> None:
    """The program beside the network's C files."""
    rows = ",".join("{" + ",".join(f"{x:.9g}f" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else f"{x:.9g}.0f"
                                   for x in row.reshape(-1).tolist()) + "}" for row in inputs)  # fmt: skip
    said = {
        "NAME": "net", "SAMPLES": len(inputs), "IN": inputs[0].size, "OUT": outputs, "DATA": "{" + rows + "}",
        "ARENA": "NET_ARENA_BYTES", "CALL": "net_run(sample, answer, arena)",
    }  # fmt: skip
    text = MAIN
    for key, value in said.items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "main.c").write_text(text)
    (folder / "string.h").write_text(STRING)
    (folder / "link.ld").write_text(LINK)


def find_qemu() -> str | None:
    """qemu-system-arm of Debian, or what QEMU_SYSTEM_ARM names."""
    return os.environ.get("QEMU_SYSTEM_ARM") or shutil.which("qemu-system-arm")


def link_and_run(flags: Sequence[str], machine: str, folder: Path, qemu: str) -> list[int]:
    """Build the C files of a folder for a board and run them: the words that they write."""
    found = (*folder.glob("*.c"), *folder.glob("*.S"))
    sources = sorted(path.name for path in found if path.name != "example.c")  # a board has no printf
    command = [
        sys.executable, "-m", "ziglang", "cc", *flags, "-std=c11", "-Os", "-g1",
        "-ffreestanding", "-ffp-contract=off", "-fno-builtin", "-nostdlib", "-lcompiler_rt", "-I.",
        "-Wl,-e,start", "-Wl,-T,link.ld",
        "-Wl,--gc-sections", "-ffunction-sections", *sources, "-o", "net.elf",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        [qemu, "-machine", machine, "-icount", "shift=0", "-nographic", "-monitor", "none", "-serial", "none",
         "-semihosting-config", "enable=on,target=native", "-kernel", "net.elf"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return [int(word, 16) for word in (done.stdout + done.stderr).split()]


def read_size(header: str, name: str) -> int:
    """A macro's number."""
    line = next(line for line in header.splitlines() if f"_{name} " in line)
    return int(line.split()[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
