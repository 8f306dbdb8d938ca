"""Drawn layers, with weights and bytes at their ends among them, on emulated Cortex-M boards: the sums of plain C here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from drawn_layers import coding, early_layer, layer_of
from native_kernels import Machine, library

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.build import Built, build, write_sources
from fcdeploy.native.program.steps import Program, Step
from fcdeploy.native.program.tensors import Tensor
from scripts.devices.cortex_m import BOARDS, LINK, RUNTIME, STRING, find_qemu, link_and_run

EACH = 6  # of every kind: 48 layers in a program
SEEDS = (1, 2, 3)
ALIGNED = 64

MAIN = (
    RUNTIME
    + """
static uint8_t bytes[65536] __attribute__((aligned(64))), written[@WRITTEN@] __attribute__((aligned(64)));
static uint8_t arena[NET_ARENA_BYTES] __attribute__((aligned(64)));
static const void *const inputs[] = {@INPUTS@};
static void *const outputs[] = {@OUTPUTS@};
static const uint32_t lengths[] = {@LENGTHS@};
void net_steps(int32_t first, int32_t last, const void *const *inputs, void *const *outputs, void *arena);

static void body(void) {
  uint32_t seed = 1;
  for (unsigned i = 0; i < sizeof bytes; i++) { seed = seed * 1664525u + 1013904223u; bytes[i] = (uint8_t)(seed >> 24); }
  net_steps(0, @STEPS@, inputs, outputs, arena);
  for (unsigned n = 0; n < sizeof lengths / 4; n++) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < lengths[n]; i++) sum += ((const uint8_t *)outputs[n])[i] * (i + 1);
    write_word(sum);
  }
}
"""
)
"""Writes a sum of each output's bytes, each times where it lies."""

Maker = Callable[[np.random.Generator], Step]


def convolution(random: np.random.Generator, *, extreme: bool) -> Step:
    groups = int(random.choice([1, 1, 2]))
    x = image(random, groups * int(random.integers(1, 20)))
    kernel = int(random.choice([1, 2, 3, 5])), int(random.integers(1, 4))
    outs = groups * int(random.integers(1, 48))
    return layer_of(random, x, outs, window(random, kernel), groups, extreme=extreme, real=random.random() < 0.3)


def depthwise(random: np.random.Generator, *, extreme: bool) -> Step:
    x = image(random, int(random.integers(2, 40)))
    kernel = int(random.integers(1, 6)), int(random.integers(1, 6))
    return layer_of(
        random, x, x.shape[1], window(random, kernel), x.shape[1], extreme=extreme, real=random.random() < 0.3
    )


def dense(random: np.random.Generator, *, extreme: bool) -> Step:
    x = Tensor("x", (int(random.integers(1, 7)), int(random.integers(1, 500))), "uint8", coding(random))
    return layer_of(random, x, int(random.integers(1, 90)), None, 1, extreme=extreme, real=random.random() < 0.3)


def early(random: np.random.Generator, *, extreme: bool) -> Step:
    return early_layer(random, image(random, 3 if extreme else 1), int(random.integers(1, 40)))


def image(random: np.random.Generator, channels: int) -> Tensor:
    return Tensor("x", (1, channels, int(random.integers(3, 9)), int(random.integers(3, 9))), "uint8", coding(random))


def window(random: np.random.Generator, kernel: tuple[int, int]) -> Window:
    before = kernel[0] // 2, kernel[1] // 2
    return Window(kernel, (int(random.integers(1, 3)), int(random.integers(1, 3))), before, before, (1, 1))


def draw_program(seed: int) -> Program:
    """Layers that do not read each other."""
    random = np.random.default_rng(seed)
    kinds: Sequence[Maker] = [
        partial(kind, extreme=e) for e in (False, True) for kind in (convolution, depthwise, dense, early)
    ]
    drawn = [kind(random) for kind in kinds for _ in range(EACH)]
    steps = [
        replace(step, inputs=(replace(step.inputs[0], name=f"x{n}"),), outputs=(replace(step.output, name=f"y{n}"),))
        for n, step in enumerate(drawn)
    ]
    return Program("net", tuple(s.inputs[0] for s in steps), tuple(s.output for s in steps), tuple(steps))


def expect_sums(built: Built) -> list[int]:
    """What the board should write: plain C on this CPU, which the tests hold to 64-bit integers."""
    seed, given = 1, np.empty(65536, np.uint8)
    for at in range(len(given)):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        given[at] = seed >> 24
    feeds = {tensor.name: given[: tensor.size].reshape(tensor.shape) for tensor in built.program.inputs}
    answers = Machine(built, library("plain")).run(feeds)
    sums = []
    for tensor in built.program.outputs:
        own = np.frombuffer(answers[tensor.name].tobytes(), np.uint8).astype(np.uint64)
        sums.append(int((own * np.arange(1, len(own) + 1, dtype=np.uint64)).sum() & 0xFFFFFFFF))
    return sums


def write_program(built: Built, folder: Path) -> None:
    write_sources(built, folder)
    places, at = [], 0
    for tensor in built.program.outputs:
        places.append(f"written + {at}")
        at += -(-tensor.nbytes // ALIGNED) * ALIGNED + ALIGNED
    said = {
        "WRITTEN": str(at), "INPUTS": ", ".join("bytes" for _ in built.program.inputs), "OUTPUTS": ", ".join(places),
        "LENGTHS": ", ".join(str(tensor.nbytes) for tensor in built.program.outputs), "STEPS": str(len(built.calls)),
        "NAME": "net",
    }  # fmt: skip
    text = MAIN
    for key, value in said.items():
        text = text.replace(f"@{key}@", value)
    (folder / "main.c").write_text(text)
    (folder / "string.h").write_text(STRING)
    (folder / "link.ld").write_text(LINK)


def main() -> int:
    """Print a row for each board; 1 where an output differs."""
    qemu = find_qemu()
    if qemu is None:
        click.echo("error: qemu-system-arm is not installed", err=True)
        click.echo("hint: apt-get install qemu-system-arm, or QEMU_SYSTEM_ARM=/path/to/it", err=True)
        return 2
    programs = [build(draw_program(seed)) for seed in SEEDS]
    expected = [expect_sums(built) for built in programs]
    equal = True
    for board in BOARDS:
        different = 0
        for built, wanted in zip(programs, expected, strict=True):
            with tempfile.TemporaryDirectory() as temporary:
                write_program(built, Path(temporary))
                found = link_and_run(board.flags, board.machine, Path(temporary), qemu)[:-2]
            different += sum(a != b for a, b in zip(found, wanted, strict=True))
        layers = sum(map(len, expected))
        click.echo(f"{layers} drawn layers  {board.core:<11} {'equal' if not different else f'{different} DIFFERENT'}")
        equal &= not different
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
