"""What native code is compiled for: instruction sets of each machine, best first, and how compilers are told. No logic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """One instruction set: `flags` of clang and gcc, and the constant of kernels/cpu.h that says a CPU has it.

    `products` are multiply-accumulates of bytes that one instruction of its dot product does; `cpu` what Linux calls what
    it needs.
    """

    name: str
    flags: tuple[str, ...]
    constant: str
    cpu: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A kind of CPU: the triple zig is told, and its levels, best first; the last one runs everywhere."""

    name: str
    triple: str
    levels: tuple[Level, ...]


V3 = ("-mavx2", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe")  # x86-64-v3 but for FMA, which nothing here may use

MACHINES = {
    row.name: row
    for row in (
        Machine(
            "x86_64",
            "x86_64-linux-gnu.2.17",
            (
                Level("avx2", V3, "FC_AVX2", ("avx2",)),
                Level("plain", ("-DFC_PLAIN",), "0"),
            ),
        ),
    )
}
