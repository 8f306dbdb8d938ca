"""What native code is compiled for: instruction sets of each machine, best first, and how compilers are told. No logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """One instruction set: `flags` of clang and gcc, the constant of kernels/cpu.h that says a CPU has it, and what Linux calls
    what it needs of the `cpu`.
    """

    name: str
    flags: tuple[str, ...]
    constant: str
    cpu: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A kind of CPU: the triple zig is told, and its levels, best first; the last one runs everywhere.

    `paired`: one of them reads an order of steps that no other machine does (kernels/layer_pairs.h).
    """

    name: str
    triple: str
    levels: tuple[Level, ...]
    paired: bool = False


V3 = ("-mavx2", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe")  # x86-64-v3 but for FMA, which nothing here may use
AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
PLAIN = Level("plain", ("-DFC_PLAIN",), "0")

MACHINES = {
    row.name: row
    for row in (
        Machine(
            "x86_64",
            "x86_64-linux-gnu.2.17",
            (
                Level(
                    "avx512vnni",
                    (*V3, *(f"-m{each}" for each in AVX512), "-mavx512vnni"),
                    "FC_AVX512VNNI",
                    (*AVX512, "avx512_vnni"),
                ),
                Level("avxvnni", (*V3, "-mavxvnni"), "FC_AVXVNNI", ("avx2", "avx_vnni")),
                Level("avx2", V3, "FC_AVX2", ("avx2",)),
                PLAIN,
            ),
            paired=True,
        ),
        Machine(
            "aarch64",
            "aarch64-linux-gnu.2.17",
            (
                Level("i8mm", ("-mcpu=generic+dotprod+i8mm",), "FC_I8MM", ("asimddp", "i8mm")),
                Level("dotprod", ("-mcpu=generic+dotprod",), "FC_DOTPROD", ("asimddp",)),
                Level("neon", (), "0"),
                PLAIN,
            ),
        ),
    )
}


@dataclass(frozen=True)
class Core:
    """A microcontroller's core: the triple and the processor that zig is told, its floating-point unit and vectors with it.

    `gcc` names the compiler of a core that zig has no code for, in place of both.
    """

    name: str
    triple: str
    cpu: str = ""
    gcc: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """Of zig's clang, or of its own gcc; small before fast, as flash is."""
        own = ("-mlongcalls",) if self.gcc else ("-target", self.triple, f"-mcpu={self.cpu}")
        return *own, "-Os", "-ffreestanding"


CORES = {
    row.name: row
    for row in (
        Core("cortex-m0", "thumb-freestanding-eabi", "cortex_m0"),
        Core("cortex-m3", "thumb-freestanding-eabi", "cortex_m3"),
        Core("cortex-m4", "thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp"),
        Core("cortex-m7", "thumb-freestanding-eabihf", "cortex_m7+fp_armv8d16sp"),
        Core("cortex-m33", "thumb-freestanding-eabihf", "cortex_m33+dsp+fp_armv8d16sp"),
        Core("cortex-m55", "thumb-freestanding-eabihf", "cortex_m55+mve_fp"),
        Core("riscv32", "riscv32-freestanding-none", "generic_rv32+m+c"),
        Core("esp32c3", "riscv32-freestanding-none", "generic_rv32+m+c+zicsr+zifencei"),
        Core("esp32", "xtensa-esp32-elf", gcc="xtensa-esp32-elf-gcc"),
        Core("esp32s3", "xtensa-esp32s3-elf", gcc="xtensa-esp32s3-elf-gcc"),
    )
}


@dataclass(frozen=True)
class Widths:
    """What a core's kernels for bytes compute at once, whether there is so much or not.

    Of a layer `positions`, with `channels` at a time, or `alone` so many channels at a single position, and `bytes` of a window;
    positions that are left over are computed as `positions`, some again, where `again`, else one by one.  `depthwise` channels
    of a depthwise layer.
    """

    positions: int
    channels: int
    alone: int
    bytes: int
    depthwise: int
    again: bool = False


@dataclass(frozen=True)
class Cost:
    """Instructions of a kernel for each product, element written, run of its inner loop, window and call; bytes of code, stack.

    What these are of each kernel is said in native/amounts.py.
    """

    product: float
    element: float
    run: float
    window: float
    once: float
    code: int
    stack: int


@dataclass(frozen=True)
class Costs:
    """Kernels by name on one kind of core; bytes of code for each call of one, and of the compiler's own routines.

    `widths` are None where layers are computed by tiles of whole vectors (calls/pack.py).
    """

    widths: Widths | None
    call: int
    routines: int
    kernels: Mapping[str, Cost]
