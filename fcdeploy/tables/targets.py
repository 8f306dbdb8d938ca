"""What the integer kernels of a CPU family do: one row each. Facts about onnxruntime's CPU provider, no logic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A CPU family as onnxruntime's byte kernels see it.

    Activations are uint8, which become integer kernels on all of them.  `pair_limit` bounds |w1| + |w2| for two weights of
    one sign that the kernel multiplies as neighbours: `vpmaddubsw` adds the two products in 16 bits, and
    255 * 128 = 32,640 is the last multiple of 255 below 32,767.  None: products are added in 32 bits.
    `cpu` lists the flags (as Linux prints them) of which one is needed.  `kernels` are those that exist, and the
    instructions they are made of.  Of ARM the kinds were run under emulation: their rows are alike, since uint8
    activations and weights within -127 .. 127 are exact on all of them (arithmetic/kernels/neon.py), and as fast.
    `verified`: the row was run, and is not only read in onnxruntime's source.  `one_answer`: files are
    to give the same bytes with the kernels of every family, so nothing is left to the last bit of a float.
    `apart_from_halves`: no sum or product of activations lies so near a half that one family rounds it up and another down.
    """

    name: str
    pair_limit: int | None
    cpu: tuple[str, ...]
    why: str
    kernels: str
    verified: bool
    one_answer: bool = False
    apart_from_halves: bool = False


PAIR_LIMIT = 128
LAYERS = "QLinearConv, QGemm, QLinearMatMul"

TARGETS = {
    row.name: row
    for row in (
        Target(
            "portable", PAIR_LIMIT, (),
            "no pair of products leaves 16 bits and no sum of activations lies near a half: the same integers everywhere",
            f"{LAYERS}: whatever the CPU has", True, one_answer=True, apart_from_halves=True,
        ),
        Target(
            "x86-vnni", None, ("avx512_vnni", "avx_vnni"),
            "VNNI adds byte products in 32 bits: weights may use all 8 bits; on a CPU without VNNI the file saturates",
            f"{LAYERS}: vpdpbusd; with AMX tdpbusd (from source)", True,
        ),
        Target(
            "x86-avx2", PAIR_LIMIT, ("avx2",),
            "vpmaddubsw adds two byte products in 16 bits and saturates: neighbouring weights are kept small enough",
            f"{LAYERS}: vpmaddubsw + vpmaddwd; depthwise: products in 32 bits", True,
        ),
        *(
            Target(
                name, None, flags,
                f"{why}: weights may use all 8 bits but for -128, and activations are bytes without sign",
                f"{LAYERS}: {kernels}; depthwise: smull, smlal", True, apart_from_halves=True,
            )
            for name, flags, why, kernels in (
                ("arm64-i8mm", ("i8mm",), "i8mm adds byte products in 32 bits", "smmla, ummla"),
                ("arm64-dotprod", ("asimddp",), "dot products are added in 32 bits", "sdot, udot"),
                ("arm64", ("asimd", "neon"), "two products of -128 wrap around in 16 bits", "smull, smlal2 + sadalp"),
            )
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Instructions:
    """An instruction set that byte kernels are made of: its flags as Linux names them, and what adds the products.

    `saturates`: two products of bytes are added in 16 bits, which saturates on x86 and wraps around on ARM, there for two
    products of -128 alone.  `verified` as for a target.
    """

    name: str
    flags: tuple[str, ...]
    kernel: str
    saturates: bool
    target: str
    verified: bool


INSTRUCTIONS = {
    row.name: row
    for row in (
        Instructions("AVX2", ("avx2",), "vpmaddubsw + vpmaddwd", True, "x86-avx2", True),
        Instructions("AVX512", ("avx512f",), "vpmaddubsw + vpmaddwd, 512 bits", True, "x86-avx2", True),
        Instructions("AVX-VNNI", ("avx_vnni",), "vpdpbusd, 256 bits", False, "x86-vnni", False),
        Instructions("AVX512-VNNI", ("avx512_vnni",), "vpdpbusd, 512 bits", False, "x86-vnni", True),
        Instructions("AMX", ("amx_int8",), "tdpbusd", False, "x86-vnni", False),
        Instructions("NEON", ("asimd", "neon"), "smull, smlal2 + sadalp", True, "arm64", True),
        Instructions("dotprod", ("asimddp",), "sdot, udot", False, "arm64-dotprod", True),
        Instructions("i8mm", ("i8mm",), "smmla, ummla", False, "arm64-i8mm", True),
    )
}
"""The rows for AVX2 and AVX512 were run on a CPU whose VNNI, or AVX-512 as well, was hidden from onnxruntime; those
for ARM under emulation of a Cortex-A53, a Neoverse N1 and qemu's `max`."""
