"""Kernels of native code, compiled once for all tests, and called with any numbers: what a program's own C would do.

Structs are read from the kernels' headers, so that a field in the wrong place cannot hide.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcdeploy.errors import FcdeployError
from fcdeploy.native.build import Built
from fcdeploy.native.calls.call import Address, KernelCall, Struct, WeightAddress
from fcdeploy.native.program.interpret import read_value
from fcdeploy.native.toolchain import STRICT, Compiler, compile_c, find_compiler
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.native_library import aligned
from fcdeploy.tables.native import MACHINES, Level

Array = np.ndarray[Any, Any]
KERNELS = Path(__file__).parents[2] / "fcdeploy" / "native" / "kernels"
SANITIZERS = (
    "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O0",
)  # fmt: skip
SANITIZE = os.environ.get("NATIVE_SANITIZE", "")
"""A level: kernels of that one alone, compiled by gcc with SANITIZERS; Python must run with gcc's libasan preloaded."""

EXAMPLES, LARGEST = (
    int(os.environ.get(f"NATIVE_{name}", usual)) for name, usual in (("EXAMPLES", 40), ("LARGEST", 20))
)
"""How many shapes are drawn for each property, and how long an axis may be; scripts/sanitize asks for more."""

SMALL = Level("small", ("-DFC_PLAIN", "-DFC_SMALL", "-DFC_SOFT"), "0")
"""What microcontrollers without a floating-point unit are given, for this CPU."""

SHARED = {
    "cpu.h",
    "library.h",
    "soft.h",
    "order.h",
    "layer_beside.h",
    "layer_block.h",
    "layer_dsp.h",
    "layer_mve.h",
    "layer_small.h",
    "layer_tiles.h",
    "layer_together.h",
    "interleave_sse.h",
    "layer_alone.h",
    "layer_avx512.h",
    "layer_lanes.h",
    "layer_narrow.h",
    "layer_neon.h",
    "layer_short.h",
    "depthwise_dsp.h",
    "depthwise_mve.h",
    "depthwise_neon.h",
    "depthwise_rows.h",
    "pool_neon.h",
    "recurrent_neon.h",
}  # no kernels, and no structs of calls
OTHERS = {"cmsis_nn.h"}  # kernels that call what is no part of this
BEHIND = bytes([0xA5] * 64)  # what lies behind each output, and stays
FIELD = re.compile(r"(const uint8_t \*|const int32_t \*|int32_t|float|struct fc_\w+)\s*([^;]+);")
POINTERS = dict.fromkeys(("const uint8_t *", "const int32_t *"), ctypes.c_void_p)
SIMPLE = {"int32_t": ctypes.c_int32, "float": ctypes.c_float, **POINTERS}


def compiler() -> Compiler:
    """The compiler here; a test that asks for one is skipped where there is none."""
    try:
        return find_compiler()
    except FcdeployError as error:
        pytest.skip(error.message)


def levels() -> list[Level]:
    """What this CPU can run, best first, and SMALL; under sanitizers the one that is asked for."""
    own = [level for level in (*MACHINES["x86_64"].levels, SMALL) if set(level.cpu) <= read_cpu_flags()]
    return [level for level in own if SANITIZE in ("", level.name)]


def headers() -> list[str]:
    """Of the kernels, what others include first."""
    found = sorted(path.name for path in KERNELS.glob("*.h") if path.name not in SHARED and "vectors_" not in path.name)
    return ["common.h", *(name for name in found if name != "common.h")]


def source() -> str:
    """One C file with every kernel in it, none of them private."""
    includes = "".join(f'#include "{name}"\n' for name in headers() if name not in {"common.h", "vectors.h"} | OTHERS)
    return f'#include "common.h"\n#undef FC_KERNEL\n#define FC_KERNEL\n{includes}'


@cache
def library(level: str, flags: tuple[str, ...] = (), build: Compiler | None = None) -> ctypes.CDLL:
    """All kernels at one level, compiled with more flags."""
    made = build or (Compiler(("gcc",), "gcc", False) if SANITIZE else compiler())
    flags = (*flags, *SANITIZERS) if SANITIZE else flags
    row = next((each for each in (*MACHINES["x86_64"].levels, SMALL) if each.name == level), None)
    own = row.flags if row else ()
    name = hashlib.sha256(repr((level, flags, made.command)).encode()).hexdigest()[:8]
    folder = Path(os.environ.get("SHARED_BY_WORKERS") or tempfile.mkdtemp(prefix="kernels-")) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:  # another worker of pytest may be compiling it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            (folder / "kernels.c").write_text(source())
            how = [*STRICT, *own, *flags, "-shared", "-fPIC", f"-I{KERNELS}", "kernels.c", "-o", "kernels.so"]
            compile_c(made, how, folder)
            (folder / "done").touch()
    return ctypes.CDLL(str(folder / "kernels.so"))


@cache
def structs() -> dict[str, type[ctypes.Structure]]:
    """`struct fc_...` of the headers as ctypes has them."""
    found: dict[str, type[ctypes.Structure]] = {}
    text = "".join(re.sub(r"/\*.*?\*/", "", (KERNELS / name).read_text(), flags=re.DOTALL) for name in headers())
    for name, body in re.findall(r"struct (fc_\w+) \{(.*?)\n\};", text, re.DOTALL):
        if name in ("fc_written", "fc_again", "fc_scaling", "fc_packed"):  # never arguments of a call
            continue
        fields: list[tuple[str, Any]] = []
        for kind, names in FIELD.findall(body):
            base = SIMPLE.get(kind) or found[f"struct {kind.removeprefix('struct ').split()[0]}"]
            for each in names.split(","):
                word, length = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", each).groups()  # type: ignore[union-attr]
                fields.append((word, base * int(length) if length else base))
        found[f"struct {name}"] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


def guarded(nbytes: int) -> Array:
    """Bytes between two pages that nothing may touch: who reads or writes beyond them is ended at once.

    They begin at a multiple of 8, so that up to 7 may be read behind them.
    """
    page = mmap.PAGESIZE
    inner = max(1, -(-nbytes // page)) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, page + inner):
        assert libc.mprotect(ctypes.c_void_p(whole.ctypes.data + at), ctypes.c_size_t(page), 0) == 0, ctypes.get_errno()
    begin = page + (inner - nbytes) // 8 * 8
    return whole[begin : begin + nbytes]


class Machine:
    """Calls run one by one, in an arena of their own, which ends where memory does."""

    def __init__(self, built: Built, kernels: ctypes.CDLL, *, fill: int = 0) -> None:
        self.built, self.kernels = built, kernels
        self.arena = guarded(built.arena_bytes)
        self.arena[:] = fill
        self.weights = aligned(len(built.weights))
        self.weights[:] = np.frombuffer(built.weights, np.uint8)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for one sample."""
        program = self.built.program
        inputs = [np.ascontiguousarray(feeds[tensor.name], tensor.dtype) for tensor in program.inputs]
        memory = [np.full(tensor.nbytes + len(BEHIND), BEHIND[0], np.uint8) for tensor in program.outputs]
        outputs = [
            each[: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
            for each, tensor in zip(memory, program.outputs, strict=True)
        ]
        for call in self.built.calls:
            self.call(call, inputs, outputs)
        for each, tensor in zip(memory, program.outputs, strict=True):
            assert bytes(each[tensor.nbytes :]) == BEHIND, f"what lies behind {tensor.name} was written"
        return {tensor.name: output for tensor, output in zip(program.outputs, outputs, strict=True)}

    def call(self, call: KernelCall, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        kept, given = [], []
        for argument in call.arguments:
            value = self._argument(argument, inputs, outputs)
            kept.append(value)
            given.append(ctypes.byref(value) if isinstance(value, ctypes.Structure) else value)
        function = getattr(self.kernels, call.kernel)
        function.restype = None
        function(*given)

    def _argument(self, argument: Any, inputs: Sequence[Array], outputs: Sequence[Array]) -> Any:
        if argument is None:
            return ctypes.c_void_p(0)
        if isinstance(argument, WeightAddress):
            return ctypes.c_void_p(self.weights.ctypes.data + argument.offset)
        if isinstance(argument, Address):
            where, number = argument.buffer.where, argument.buffer.number
            if where == "arena":
                return ctypes.c_void_p(self.arena.ctypes.data + self.built.offsets[number] + argument.offset)
            return ctypes.c_void_p((inputs if where == "input" else outputs)[number].ctypes.data + argument.offset)
        if isinstance(argument, Struct):
            return self._struct(structs()[argument.ctype], argument.fields)
        return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int32(int(argument))

    def _struct(self, kind: type[ctypes.Structure], fields: Mapping[str, Any]) -> ctypes.Structure:
        made = kind()
        types = dict(kind._fields_)  # type: ignore[arg-type]
        for name, value in fields.items():
            if isinstance(value, Mapping):
                setattr(made, name, self._struct(types[name], value))
            elif isinstance(value, WeightAddress):
                setattr(made, name, self.weights.ctypes.data + value.offset)
            elif isinstance(value, list):
                setattr(made, name, types[name](*value))
            elif value is not None:
                setattr(made, name, float(value) if types[name] is ctypes.c_float else int(value))
        return made


def assert_same(
    built: Built, feeds: Mapping[str, Array], expected: Mapping[str, Array], names: Sequence[str] = ()
) -> None:
    """Every level here gives these outputs: bytes equal, floats within 1e-5, and levels the same bits."""
    results = [
        Machine(built, library(name), fill=fill).run(feeds)
        for fill, name in enumerate(names or [level.name for level in levels()])
    ]
    for tensor in built.program.outputs:
        wanted = read_value(tensor, expected)
        for result in results:
            bits, others = (np.atleast_1d(each[tensor.name]).view(np.uint8) for each in (result, results[0]))
            np.testing.assert_array_equal(bits, others)
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(
                results[0][tensor.name],
                wanted,
                rtol=1e-5,
                atol=1e-5 * float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-6)),
            )
        else:
            np.testing.assert_array_equal(results[0][tensor.name], wanted)
