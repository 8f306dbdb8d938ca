"""The user's own copy of CMSIS-NN: found, told to the compiler, compiled for this machine to be proven."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.native.toolchain import STRICT, Compiler, compile_c, compile_together

KERNELS = "cmsis-nn"
FLAGS = ("-DCMSIS_NN_USE_SINGLE_ROUNDING", "-DFC_REFUSED()=(void)0")
"""How it rounds; and what a copy refuses is left as it was, which the proof sees, where a trap would end this process."""

HEADER = Path("Include", "arm_nnfunctions.h")
SOURCES = ("ConvolutionFunctions", "NNSupportFunctions")
FLOATS = re.compile(r"_f(16|32)(_|$)")
LENIENT = tuple(flag for flag in STRICT if not flag.startswith("-W"))


def find_copy(kernels: str) -> Path | None:
    """The folder of `--kernels cmsis-nn=FOLDER`; None of "own". Raises FcdeployError where it is not CMSIS-NN."""
    if kernels == "own":
        return None
    name, _, given = kernels.partition("=")
    if name != KERNELS or not given:
        raise FcdeployError(
            f"--kernels {kernels!r} is unknown, expected own, or {KERNELS}=FOLDER with your copy of CMSIS-NN",
            "--kernels own",
        )
    folder = Path(given)
    missing = [each for each in (HEADER, *(Path("Source", name) for name in SOURCES)) if not (folder / each).exists()]
    if missing:
        raise FcdeployError(
            f"--kernels: {given!r} has no {missing[0]}, expected the folder of CMSIS-NN",
            f"--kernels {KERNELS}=FOLDER, the folder that Include and Source are in",
        )
    return folder.resolve()


def add_copy(compiler: Compiler, folder: Path) -> Compiler:
    """The compiler, told where the copy's headers are and how it rounds."""
    return replace(compiler, command=(*compiler.command, f"-I{folder / 'Include'}", *FLAGS))


def compile_copy(compiler: Compiler, folder: Path, target: Sequence[str], aside: Path) -> list[Path]:
    """Objects of its convolutions, and of what they share, in `aside`; `compiler` knows the copy."""
    found = sorted(path for name in SOURCES for path in (folder / "Source" / name).glob("*.c"))
    sources = [path for path in found if not FLOATS.search(path.stem)]
    common = [*target, *LENIENT, "-w", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-c"]
    objects = [aside / f"cmsis_nn_{path.stem}.o" for path in sources]
    jobs = [[*common, path, "-o", made] for path, made in zip(sources, objects, strict=True)]
    with compile_together() as pool:
        list(pool.map(lambda job: compile_c(compiler, job, aside), jobs))
    return objects
