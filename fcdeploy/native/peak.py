"""The most products of bytes a second that one core can do with the instructions that native code takes on it, measured."""

from __future__ import annotations

import ctypes
import time

import numpy as np

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.native.build import KERNELS
from fcdeploy.native.machines import list_levels_here
from fcdeploy.native.toolchain import STRICT, compile_c, find_compiler

SOURCE = '#include "common.h"\n#undef FC_KERNEL\n#define FC_KERNEL\n#include "peak.h"\n'
ROUNDS, TRIES = 20_000, 200  # of 12 dot products, half a millisecond or less; the fastest of all tries counts


def measure_peak(name: str | None = None) -> float:
    """Multiply-accumulates a second of a level, by default the best that this CPU has.

    Raises FcdeployError where there is no compiler.
    """
    best = next(level for level in list_levels_here() if name in (None, level.name))
    with temporary_folder() as folder:
        (folder / "peak.c").write_text(SOURCE)
        flags = [*STRICT, *best.flags, f"-I{KERNELS}", "-shared", "-fPIC"]
        compile_c(find_compiler(), [*flags, "peak.c", "-o", "peak.so"], folder)
        run = ctypes.CDLL(str(folder / "peak.so")).fc_peak
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
    y, x, weights = np.zeros(1024, np.uint8), np.full(64, 3, np.uint8), np.ones(64, np.int8)
    fastest, products = float("inf"), 0
    for _ in range(TRIES):
        begin = time.perf_counter()
        products = run(y.ctypes.data, x.ctypes.data, weights.ctypes.data, ROUNDS)
        fastest = min(fastest, time.perf_counter() - begin)
    return float(ROUNDS * products / fastest)
