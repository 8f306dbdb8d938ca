"""Count what each kernel of native code takes on cores of devices, under qemu, and print the table for `scripts/device-costs`.

Each kernel is called in programs of its own, with drawn shapes. Instructions are fitted to what `count_amounts` says of a
call; code and stack are those of programs of one call and of many.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
from drawn_layers import bytes_like, coding, layer_of
from native_arm import find_qemu as find_qemu_user

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.amounts import Amounts, count_amounts
from fcdeploy.native.build import Built, build, compile_objects, write_sources
from fcdeploy.native.program.layers import FloatLayer, Product, Recurrent
from fcdeploy.native.program.steps import (
    Combine,
    GlobalAverage,
    Lookup,
    LookupTable,
    Move,
    Pointwise,
    Pool,
    Program,
    Quantize,
    Reduce,
    Softmax,
    Step,
)
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.native.toolchain import STRICT, compile_c, find_compiler
from fcdeploy.tables.native import MACHINES, Widths
from scripts.devices.cortex_m import LINK, RUNTIME, STRING, find_qemu, link_and_run

HEAD = '''"""Instructions, code and stack of native kernels, written by scripts/device-costs: do not edit.

Counted under qemu, of drawn shapes; behind each row, between which shares of what was counted its numbers come out.
Code and stack of 64-bit ARM are not counted.
"""

# fmt: off
from fcdeploy.tables.native import Cost, Costs, Widths

COSTS = {'''

BOARD_MAIN = (
    RUNTIME
    + """
static uint8_t bytes[65536] __attribute__((aligned(64))), written[131072] __attribute__((aligned(64)));
static float reals[16384] __attribute__((aligned(64)));
static uint8_t arena[NET_ARENA_BYTES] __attribute__((aligned(64)));
static const void *const inputs[] = {@INPUTS@};
static void *const outputs[] = {@OUTPUTS@};
void net_steps(int32_t first, int32_t last, const void *const *inputs, void *const *outputs, void *arena);

static void body(void) {
  uint32_t seed = 1;
  for (unsigned i = 0; i < 65536; i++) { seed = seed * 1664525u + 1013904223u; bytes[i] = (uint8_t)(seed >> 24); }
  for (unsigned i = 0; i < 16384; i++) { seed = seed * 1664525u + 1013904223u; reals[i] = (float)(int32_t)seed * 1e-9f; }
  for (int32_t i = 0; i < @STEPS@; i++) {
    uint8_t *here = __builtin_frame_address(0), *deepest = here - 8192;
    for (uint8_t *p = deepest; p < here - 128; p++) *p = PAINT;
    const uint32_t before = SYSTICK[2];
    net_steps(i, i + 1, inputs, outputs, arena);
    write_word((before - SYSTICK[2]) & 0xFFFFFF);
    while (*deepest == PAINT) deepest++;
    write_word((uint32_t)(here - deepest));
  }
}
"""
)

USER_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "library.h"
static uint8_t bytes[65536] __attribute__((aligned(64))), written[262144] __attribute__((aligned(64)));
static float reals[16384] __attribute__((aligned(64)));
int main(void)
{
    const struct fcdeploy_native *table = fcdeploy_native(0);
    const void *inputs[] = {@INPUTS@};
    void *outputs[] = {@OUTPUTS@};
    void *arena = aligned_alloc(64, (table->arena_bytes + 63) / 64 * 64);
    for (int i = 0; i < 65536; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    for (int i = 0; i < 16384; i++)
        reals[i] = (float)(int32_t)(i * 2654435761u) * 1e-9f;
    for (uint32_t i = 0; i < table->steps; i++) {
        getppid();
        table->some(i, i + 1, inputs, outputs, arena);
    }
    getppid();
    return 0;
}
"""

ALIKE = 0.02  # of a number: between two compilations of the same C, less is chance


@dataclass(frozen=True)
class Core:
    """`flags` of clang; qemu's `machine`, empty where programs run under qemu-aarch64 as `level` of native code, its clock in
    MHz and where its large memory begins; `shapes` are drawn for each kernel, as many as its code memory holds; `widths` is
    what its kernels compute at once.

    Of a core that is `like` another the table holds the rows that differ by more than ALIKE.
    """

    name: str
    flags: tuple[str, ...] = ()
    machine: str = ""
    level: str = ""
    cpu: str = ""
    like: str = ""
    mhz: int = 25
    ram: int = 0x20000000
    shapes: int = 10
    widths: Widths | None = None


ALONE = Widths(1, 4, 4, 4, 1)  # kernels/layer_small.h: each position by itself, four channels
CORES = (
    Core("m0", ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"), "mps2-an385", widths=ALONE),
    Core("plain", ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp", "-DFC_PLAIN"), "mps2-an386",
         widths=ALONE),
    Core("dsp", ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"), "mps2-an386", like="plain",
         widths=Widths(3, 2, 4, 4, 4, again=True)),
    Core("mve", ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve_fp"), "mps3-an547", like="plain",
         mhz=32, ram=0x21000000, shapes=6,
         widths=Widths(3, 2, 4, 16, 8)),
    Core("neon", level="neon", cpu="cortex-a72"),
    Core("dotprod", level="dotprod", cpu="neoverse-n1", like="neon"),
)  # fmt: skip


# --- programs of one kernel ---


def bytes_of(random: np.random.Generator, *shape: int) -> Tensor:
    return Tensor("x", shape, "uint8", coding(random))


def same(kernel: int, stride: int = 1) -> Window:
    pad = kernel // 2
    return Window((kernel, kernel), (stride, stride), (pad, pad), (pad, pad), (1, 1))


def image(random: np.random.Generator) -> tuple[int, int, int, int]:
    return 1, int(random.integers(2, 33)), int(random.integers(3, 13)), int(random.integers(3, 13))


def convolution(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    window = same(int(random.choice([1, 3, 3, 5])), int(random.choice([1, 1, 2])))
    return layer_of(random, x, int(random.integers(4, 49)), window, 1, extreme=False, real=False)


def first(random: np.random.Generator) -> Step:
    """A layer that reads pictures, of few channels."""
    rows, columns = (int(each) for each in random.integers(6, 25, 2))
    x = bytes_of(random, 1, int(random.integers(1, 4)), rows, columns)
    window = same(int(random.choice([3, 5, 7])), int(random.choice([1, 2])))
    return layer_of(random, x, int(random.integers(4, 33)), window, 1, extreme=False, real=False)


def dense(random: np.random.Generator) -> Step:
    return layer_of(random, bytes_of(random, 1, int(random.integers(16, 500))), int(random.integers(4, 90)), None, 1,
                    extreme=False, real=False)  # fmt: skip


def dense_to_floats(random: np.random.Generator) -> Step:
    return layer_of(random, bytes_of(random, 1, int(random.integers(16, 500))), int(random.integers(4, 90)), None, 1,
                    extreme=False, real=True)  # fmt: skip


def depthwise(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    window = same(int(random.choice([3, 3, 5])), int(random.choice([1, 1, 2])))
    return layer_of(random, x, x.shape[1], window, x.shape[1], extreme=False, real=False)


def combine(kind: str) -> Callable[[np.random.Generator], Step]:
    def make(random: np.random.Generator) -> Step:
        shape = image(random)
        to = Tensor("y", shape, "uint8", coding(random))
        both = bytes_of(random, *shape), bytes_of(random, *(shape if random.integers(2) else (1, shape[1], 1, 1)))
        return Combine(node="c", inputs=both, outputs=(to,), kind=kind)  # type: ignore[arg-type]

    return make


def product(random: np.random.Generator) -> Step:
    batch, rows, length, columns = (int(each) for each in random.integers((1, 2, 4, 4), (4, 20, 60, 60)))
    a, b = bytes_of(random, 1, batch, rows, length), bytes_of(random, 1, batch, length, columns)
    to = Tensor("y", (1, batch, rows, columns), "uint8", coding(random))
    return Product(node="p", inputs=(a, b), outputs=(to,), factor=np.float32(0.002))


def quantize(random: np.random.Generator) -> Step:
    shape = image(random)
    given = Tensor("x", shape, "float32")
    return Quantize(node="q", inputs=(given,), outputs=(Tensor("y", shape, "uint8", coding(random)),))


def table(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    return LookupTable(node="t", inputs=(x,), outputs=(replace(x, name="y"),), table=bytes_like(random, (256,)))


def lookup(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    values = random.normal(size=256).astype(np.float32)
    return Lookup(node="t", inputs=(x,), outputs=(Tensor("y", x.shape, "float32"),), table=values)


def pool(kind: str) -> Callable[[np.random.Generator], Step]:
    def make(random: np.random.Generator) -> Step:
        x = bytes_of(random, *image(random))
        window = same(int(random.choice([2, 3, 5])), int(random.choice([1, 2])))
        to = Tensor("y", (*x.shape[:2], *window.outputs(x.shape[2:])), "uint8", x.coding)
        return Pool(node="p", inputs=(x,), outputs=(to,), kind=kind, window=window)  # type: ignore[arg-type]

    return make


def halve(random: np.random.Generator) -> Step:
    """The pool behind most layers."""
    x = bytes_of(random, 1, *(int(each) for each in random.integers((2, 4, 4), (33, 17, 17))))
    window = Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
    to = Tensor("y", (*x.shape[:2], *window.outputs(x.shape[2:])), "uint8", x.coding)
    return Pool(node="p", inputs=(x,), outputs=(to,), kind="max", window=window)


def mean(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    to = Tensor("y", (*x.shape[:2], 1, 1), "uint8", coding(random))
    return GlobalAverage(node="g", inputs=(x,), outputs=(to,), factor=np.float32(0.03))


def softmax(random: np.random.Generator) -> Step:
    x = bytes_of(random, 1, int(random.integers(2, 200)))
    to = Tensor("y", x.shape, "uint8", Coding(np.float32(1 / 255), 0))
    values = np.exp(-np.arange(256) * 0.05).astype(np.float32)
    return Softmax(node="s", inputs=(x,), outputs=(to,), axis=1, table=values)


def shuffle(random: np.random.Generator) -> Step:
    x = bytes_of(random, *image(random))
    order = random.permutation(x.shape[1])
    return Move(node="m", inputs=(x,), outputs=(replace(x, name="y"),), kind="take", arguments=((1,),), index=order)


def float_layer(random: np.random.Generator) -> Step:
    x, window = Tensor("x", image(random), "float32"), same(3)
    outs = int(random.integers(4, 33))
    weight = random.normal(size=(outs, x.shape[1], 3, 3)).astype(np.float32)
    to = Tensor("y", (1, outs, *x.shape[2:]), "float32")
    bias = np.ones(outs, np.float32)
    return FloatLayer(node="f", inputs=(x,), outputs=(to,), weight=weight, bias=bias, window=window)


def pointwise(kind: str, count: int) -> Callable[[np.random.Generator], Step]:
    def make(random: np.random.Generator) -> Step:
        shape = image(random)
        inputs = tuple(Tensor("x", shape, "float32") for _ in range(count))
        return Pointwise(node="n", inputs=inputs, outputs=(Tensor("y", shape, "float32"),), kind=kind)

    return make


def reduce(random: np.random.Generator) -> Step:
    x = Tensor("x", image(random), "float32")
    to = Tensor("y", (*x.shape[:2], 1, 1), "float32")
    return Reduce(node="r", inputs=(x,), outputs=(to,), kind="mean", axes=(2, 3))


def recurrent(kind: str) -> Callable[[np.random.Generator], Step]:
    gates, states = {"lstm": (4, 2), "gru": (3, 1)}[kind]

    def make(random: np.random.Generator) -> Step:
        times, units = int(random.integers(2, 9)), int(random.integers(4, 33))
        x = Tensor("x", (times, 1, gates * units), "float32")
        last = [Tensor(f"s{i}", (1, units), "float32") for i in range(states)]
        weight = random.integers(-127, 128, (gates * units, units)).astype(np.int8)
        scale = random.uniform(0.001, 0.01, gates * units).astype(np.float32)
        bias = np.zeros(gates * units * (2 if kind == "gru" else 1), np.float32)[: gates * units]
        return Recurrent(node="r", inputs=(x,), outputs=(Tensor("y", (times, 1, units), "float32"), *last), kind=kind,
                         weight=weight, scale=scale, bias=bias)  # type: ignore[arg-type]  # fmt: skip

    return make


MAKERS = (
    convolution, convolution, first, dense, dense_to_floats, depthwise, depthwise, combine("add"), combine("mul"), product,
    quantize, table, lookup, halve, pool("max"), pool("average"), mean, softmax, shuffle, float_layer, pointwise("Exp", 1),
    pointwise("Sigmoid", 1), pointwise("Add", 2), pointwise("Div", 2), reduce, recurrent("lstm"), recurrent("gru"),
)  # fmt: skip


def draw_program(makers: Sequence[Callable[[np.random.Generator], Step]]) -> Program:
    """A program of steps that do not read each other."""
    random = np.random.default_rng(0)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    steps: list[Step] = []
    for number, maker in enumerate(makers):
        step = maker(random)
        read = tuple(replace(each, name=f"x{number}_{i}") for i, each in enumerate(step.inputs))
        written = tuple(replace(each, name=f"y{number}_{i}") for i, each in enumerate(step.outputs))
        if isinstance(step, Recurrent):  # gates are overwritten: never an input of the program
            gates = replace(read[0], name=f"g{number}")
            steps.append(Pointwise(node="n", inputs=read, outputs=(gates,), kind="Neg"))
            inputs += read
            read = (gates,)
        else:
            inputs += read
        outputs += written
        steps.append(replace(step, inputs=read, outputs=written))
    return Program("net", tuple(inputs), tuple(outputs), tuple(steps))


# --- what they take ---


def count_steps(built: Built, core: Core, folder: Path) -> tuple[list[int], list[int]]:
    """Instructions of each call, and its stack in bytes, 0 where that does not matter."""
    return _on_board(built, core, folder) if core.machine else _under_linux(built, core, folder)


def _fill(text: str, built: Built) -> str:
    inputs = ", ".join("bytes" if t.dtype == "uint8" else "reals" for t in built.program.inputs)
    outputs = ", ".join("written" for _ in built.program.outputs)
    said = {"INPUTS": inputs, "OUTPUTS": outputs, "STEPS": str(len(built.calls)), "NAME": "net"}
    for key, value in said.items():
        text = text.replace(f"@{key}@", value)
    return text


def _on_board(built: Built, core: Core, folder: Path) -> tuple[list[int], list[int]]:
    write_sources(built, folder)
    (folder / "main.c").write_text(_fill(BOARD_MAIN, built))
    (folder / "string.h").write_text(STRING)
    (folder / "link.ld").write_text(LINK.replace("512K", "2M").replace("0x20000000", hex(core.ram)))
    words = link_and_run(core.flags, core.machine, folder, find_qemu() or "")[:-2]
    return [each * 1000 // core.mhz for each in words[::2]], words[1::2]


def _under_linux(built: Built, core: Core, folder: Path) -> tuple[list[int], list[int]]:
    machine, compiler = replace(MACHINES["aarch64"], triple="aarch64-linux-musl"), find_compiler()
    levels = [level for level in machine.levels if level.name == core.level]
    objects = compile_objects(built, machine, compiler, folder, levels)
    (folder / "main.c").write_text(_fill(USER_MAIN, built))
    compile_c(compiler, ["-target", machine.triple, *STRICT, "-static", "main.c", *objects, "-o", "program"], folder)
    qemu = find_qemu_user()
    assert qemu is not None
    command = [qemu, "-plugin", os.environ["QEMU_ICOUNT"], "-cpu", core.cpu, "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    marks = [int(each) for each in re.findall(r"@(\d+)", done.stderr)]
    return np.diff(marks).tolist(), [0] * (len(marks) - 1)


def read_symbols(elf: bytes) -> dict[str, int]:
    """Names in a 32-bit program, and their bytes of flash."""
    (at,), (size, count) = struct.unpack_from("<I", elf, 32), struct.unpack_from("<HH", elf, 46)
    sections = [struct.unpack_from("<10I", elf, at + i * size) for i in range(count)]
    found: dict[str, int] = {}
    for _, kind, _, _, begin, length, link, *_ in sections:
        for entry in range(begin, begin + length, 16) if kind == 2 else ():  # SHT_SYMTAB
            name, value, bytes_ = struct.unpack_from("<III", elf, entry)
            start = sections[link][4] + name
            label = elf[start : elf.index(b"\0", start)].decode()
            if bytes_ and value < 1 << 29:  # not in RAM
                found[label] = found.get(label, 0) + bytes_
    return found


def sum_code(built: Built, symbols: Mapping[str, int]) -> tuple[dict[str, int], int, int]:
    """Bytes of each kernel, of a call with its tables, and of what all programs need: the compiler's own routines."""
    functions = {name: size for name, size in symbols.items() if name.startswith("fc_")}
    kernels = {kernel: functions.pop(kernel, 0) for kernel in sorted({call.kernel for call in built.calls})}
    headers = {call.kernel: call.header.removesuffix(".h") for call in built.calls}
    for name, size in functions.items():  # helpers, by the first kernel whose header has their name
        owner = next((k for k, header in headers.items() if name.startswith(f"fc_{header}")), None)
        if owner is not None:
            kernels[owner] += size
    tables = sum(size for name, size in symbols.items() if re.fullmatch(r"(step|\w+)_\d+", name))
    routines = sum(size for name, size in symbols.items() if name.startswith("__"))
    return kernels, tables // len(built.calls) + 4, routines


def fit(amounts: list[Amounts], counted: list[int]) -> tuple[np.ndarray[Any, Any], tuple[float, float]]:
    """Instructions for each of the amounts and for a call, and the ends of what they come to as shares of the counts.

    As few of them as come nearly as close as any, none below 0, by least relative error.
    """
    rows = np.array([[*each, 1.0] for each in amounts]) / np.array(counted)[:, None]
    found: list[tuple[float, np.ndarray[Any, Any], tuple[float, float]]] = []
    for count in range(1, rows.shape[1] + 1):
        for used in combinations(range(rows.shape[1]), count):
            part, *_ = np.linalg.lstsq(rows[:, used], np.ones(len(rows)), rcond=None)
            if part.min() <= 0:
                continue
            costs = np.zeros(rows.shape[1])
            costs[[*used]] = part
            shares = rows @ costs
            if shares.min() == 0:  # of what has none of these
                continue
            found.append((float(np.abs(np.log(shares)).max()), costs, (float(shares.min()), float(shares.max()))))
    best = min(error for error, *_ in found)
    return next(rest for error, *rest in found if error <= 1.2 * best + 0.02)  # type: ignore[return-value]


def measure(core: Core) -> tuple[str, dict[str, str]]:
    """The first three numbers of a core, and its kernels' costs with the shares of what was counted that they come to."""
    built = build(draw_program([maker for maker in MAKERS for _ in range(core.shapes)]))
    with tempfile.TemporaryDirectory() as temporary:
        instructions, stacks = count_steps(built, core, Path(temporary))
        elf = Path(temporary) / "net.elf"
        code, each, routines = sum_code(built, read_symbols(elf.read_bytes())) if elf.exists() else ({}, 0, 0)
    rows = {}
    for kernel in sorted({call.kernel for call in built.calls}):
        own = [i for i, call in enumerate(built.calls) if call.kernel == kernel]
        amounts, counted = (
            [count_amounts(built.calls[i], core.widths) for i in own],
            [max(1, instructions[i]) for i in own],
        )
        costs, (low, high) = fit(amounts, counted)
        numbers = ", ".join(f"{value:.4g}" if value < 1000 else f"{value:.0f}" for value in costs)
        rows[kernel] = (
            f"Cost({numbers}, {code.get(kernel, 0)}, {max(stacks[i] for i in own)}),  # {low:.2f} to {high:.2f}"
        )
    return f"{core.widths}, {each}, {routines}", rows


def write_table(measured: Mapping[str, tuple[str, dict[str, str]]]) -> Iterator[str]:
    """The lines of the table, by the names of CORES."""
    yield HEAD
    for core in (each for each in CORES if not each.like):
        head, rows = measured[core.name]
        yield f'    "{core.name}": Costs({head}, {{'
        yield from (f'        "{kernel}": {row}' for kernel, row in rows.items())
        yield "    }),"
    yield "}"
    for core in (each for each in CORES if each.like):
        (head, rows), same = measured[core.name], measured[core.like][1]
        yield f'COSTS["{core.name}"] = Costs({head}, {{\n    **COSTS["{core.like}"].kernels,'
        yield from (
            f'    "{kernel}": {row}' for kernel, row in rows.items() if not _are_alike(row, same.get(kernel, ""))
        )
        yield "})"


def _are_alike(one: str, other: str) -> bool:
    """Whether two rows hold the same numbers but for ALIKE of each."""
    numbers = [[float(n) for n in re.findall(r"[\d.]+", row.partition("#")[0])] for row in (one, other)]
    pairs = zip(*numbers, strict=False)
    return len(set(map(len, numbers))) == 1 and all(abs(a - b) <= ALIKE * max(a, b) for a, b in pairs)


def main() -> int:
    """Print the table, all cores in it; 2 where qemu or its plugin is not here."""
    if find_qemu() is None or find_qemu_user() is None or "QEMU_ICOUNT" not in os.environ:
        click.echo("error: qemu-system-arm, qemu-aarch64 and a plugin that counts instructions are needed", err=True)
        click.echo("hint: apt-get install qemu-system-arm qemu-user, and QEMU_ICOUNT=/path/to/plugin.so", err=True)
        return 2
    for line in write_table({core.name: measure(core) for core in CORES}):
        click.echo(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
