"""Program to files: placed, planned, called, written down, compiled."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.files import name_model
from fcdeploy.native.calls.byte_entry import ByteEntry, find_byte_entry, list_byte_calls
from fcdeploy.native.calls.call import KernelCall, Weights
from fcdeploy.native.calls.dispatch import choose_call
from fcdeploy.native.calls.layers import arrange_weights
from fcdeploy.native.calls.pack import ORDERS
from fcdeploy.native.calls.reach import find_ends
from fcdeploy.native.placing.epilogue import combine_in_layers
from fcdeploy.native.placing.memory import Life, Memory, plan_memory
from fcdeploy.native.placing.turns import place_by_turns
from fcdeploy.native.placing.views import Buffer
from fcdeploy.native.placing.work import Layout, list_arena
from fcdeploy.native.program.steps import Program
from fcdeploy.native.toolchain import STRICT, Compiler, compile_c, compile_together
from fcdeploy.native.writing.companions import CMSIS_NN, write_cmake, write_example
from fcdeploy.native.writing.emit import ARENA_ALIGNMENT, CSource, read_kernel_files, render_sources
from fcdeploy.native.writing.library import format_library
from fcdeploy.native.writing.text import make_identifier
from fcdeploy.runtime.cpu import this_machine
from fcdeploy.tables.native import Core, Level, Machine

WRITTEN, LOADED = 1, 2  # flags of a section in an ELF file
SMALL = 16  # part of a piece of the arena that may be lost to its alignment
KERNELS = Path(__file__).parent / "kernels"
RESERVED = {"arm_acle", "arm_neon", "example", "immintrin", "math", "stddef", "stdint", "string"}
"""Headers that kernels include, and what lies beside a network."""


@dataclass(frozen=True)
class Built:
    """Everything that was decided of a network: calls in their order, the arena, and all constants."""

    program: Program
    layout: Layout
    calls: tuple[KernelCall, ...]
    memory: Memory
    offsets: Mapping[int, int]
    weights: bytes
    byte_entry: ByteEntry | None

    @property
    def arena_bytes(self) -> int:
        return self.memory.nbytes

    @property
    def source(self) -> CSource:
        """For machines: with weights in the usual order alone."""
        return self.render_sources({})

    def render_sources(self, arranged: Mapping[str, bytes]) -> CSource:
        """All files but the kernels; `arranged` are the constants in the orders of other cores."""
        constants = self.weights, arranged
        return render_sources(self.program, self.calls, self.memory, constants, self.offsets, self.byte_entry)


def build(program: Program, *, share: bool = True, paired: bool = False) -> Built:
    """Decide everything. Without `share` no two buffers overlap, so that every tensor can be looked at after a run.

    `paired`: with constants that only some machines read (tables/native.py).
    """
    program = combine_in_layers(program)
    layouts = [place_by_turns(program, in_place=in_place) for in_place in (True, False)]
    lives = [_list_lives(layout, share=share) for layout in layouts]
    different = lives if lives[0] != lives[1] else lives[:1]
    best = min(range(len(different)), key=lambda i: plan_memory(different[i]).nbytes)
    return build_layout(program, layouts[best], share=share, paired=paired)


def build_layout(program: Program, layout: Layout, *, share: bool = True, paired: bool = False) -> Built:
    """The calls of what was placed, and its memory."""
    weights = Weights(paired=paired)
    calls = tuple(choose_call(work, weights) for work in layout.work)
    byte_entry = find_byte_entry(program, layout, weights)
    ends, buffers = find_ends(calls), list_arena(layout.buffers)
    lives = _list_lives(layout, share=share)
    memory = plan_memory(
        [replace(life, end=ends.get(each.number, 0)) for life, each in zip(lives, buffers, strict=True)]
    )
    offsets = {buffer.number: offset for buffer, offset in zip(buffers, memory.offsets, strict=True)}
    return Built(program, layout, calls, memory, offsets, weights.data, byte_entry)


def _list_lives(layout: Layout, *, share: bool) -> list[Life]:
    return [
        Life(b.nbytes, b.first if share else 0, b.last if share else 1 << 30, _choose_alignment(b))
        for b in list_arena(layout.buffers)
    ]


def _choose_alignment(buffer: Buffer) -> int:
    """Lines of the cache for what fills some of them; small pieces lie closer: no more than a sixteenth of each is lost."""
    own = max(buffer.memory.itemsize, buffer.nbytes // SMALL)
    return int(min(1 << (own.bit_length() - 1), ARENA_ALIGNMENT))


def choose_name(given: str | None, path: Path) -> str:
    """What functions and files of a network are called: `given`, or after the model's file.

    Raises FcdeployError where it is no name of C, or that of a kernel's file or of a header of C.
    """
    name = given or make_identifier(name_model(path))
    if given and given != make_identifier(given):
        raise FcdeployError(f"--name {given!r} is no name in C, expected letters, digits and _", "--name net")
    taken = name.lower() in RESERVED | {file.stem for file in KERNELS.glob("*.h")} or name.lower().startswith("fc_")
    if given and taken:
        raise FcdeployError(
            f"--name {given!r} is what files of kernels or C are called, expected another", "--name net"
        )
    return f"net_{name}" if taken else name


def write_sources(built: Built, folder: Path, orders: Sequence[str] = ORDERS) -> list[str]:
    """The C files of a network and its kernels, with weights also in `orders`; returns their names."""
    called = [*built.calls, *list_byte_calls(built.byte_entry)]
    kernels, own = dict(read_kernel_files(called)), orders if "layer.h" in {c.header for c in built.calls} else ()
    source = built.render_sources({order: arrange_weights(built.weights, built.calls, order) for order in own})
    assert not kernels.keys() & source.files.keys(), source.name
    files: dict[str, str | bytes] = {**kernels, **source.files}
    for name, text in files.items():
        if isinstance(text, bytes):
            (folder / name).write_bytes(text)
        else:
            (folder / name).write_text(text)
    return list(files)


def write_folder(built: Built, folder: Path) -> None:
    """The same files, and what lies beside them for whoever tries them."""
    sources = [name for name in write_sources(built, folder) if name[-2:] in (".c", ".S")]
    cmsis_nn = any(call.header == CMSIS_NN for call in built.calls)
    (folder / "example.c").write_text(write_example(built.source.name, built.program))
    (folder / "CMakeLists.txt").write_text(write_cmake(built.source.name, sources, cmsis_nn=cmsis_nn))


def compile_library(
    built: Built,
    machine: Machine,
    compiler: Compiler,
    folder: Path,
    output: Path,
    levels: Sequence[Level] | None = None,
    more: Sequence[Path] = (),
) -> None:
    """A shared library of all levels, and of `more` objects that they call, through `folder`, where the C files are left."""
    objects = compile_objects(built, machine, compiler, folder, levels)
    how = [*list_target_flags(machine, compiler), "-shared", *(["-Wl,--gc-sections"] if more else [])]
    compile_c(compiler, [*how, *objects, *more, "-o", output.resolve()], folder)


def compile_objects(
    built: Built, machine: Machine, compiler: Compiler, folder: Path, levels: Sequence[Level] | None = None
) -> list[str]:
    """Objects of all levels and of the table that finds the best, in `folder`, as the C files are; returns their names.

    Raises FcdeployError where the compiler makes code for this machine alone and another is asked for.
    """
    if machine.name != this_machine() and not compiler.cross:
        raise FcdeployError(
            f"{compiler.name} makes code for {this_machine()} alone, expected a compiler that knows {machine.triple}",
            "pip install 'fcdeploy[native]', and unset CC",
        )
    chosen = tuple(levels or machine.levels)
    name = built.source.name
    written = write_sources(built, folder, orders=())
    for header in ("cpu.h", "library.h"):
        (folder / header).write_text((KERNELS / header).read_text())
    text = format_library(built.program, built.calls, built.memory, chosen)
    (folder / f"{name}_library.c").write_text(text)
    common = [*list_target_flags(machine, compiler), *STRICT, "-fPIC", "-fvisibility=hidden", "-DFC_LIBRARY", "-c"]
    jobs = [
        [*common, *level.flags, f"-DFC_LEVEL(name)=name##_{level.name}", f"{name}.c", "-o", f"{level.name}.o"]
        for level in chosen
    ]
    jobs += [
        [*common, file, "-o", f"{file}.o"]
        for file in written
        if file.startswith(f"{name}_weights.") and file[-1] in "cS"
    ]
    jobs += [[*common, "-fvisibility=default", f"{name}_library.c", "-o", "library.o"]]
    with compile_together() as pool:
        list(pool.map(lambda job: compile_c(compiler, job, folder), jobs))
    return [job[-1] for job in jobs]


def compile_object(built: Built, core: Core, compiler: Compiler, folder: Path, output: Path) -> tuple[int, int]:
    """One object file for a microcontroller; returns its bytes of flash and of memory that is written before it runs (none)."""
    sources = [name for name in write_sources(built, folder) if name[-2:] in (".c", ".S")]
    common = [flag for flag in STRICT if flag != "-O2"]
    with compile_together() as pool:
        jobs = [[*core.flags, *common, "-c", name, "-o", f"{name}.o"] for name in sources]
        list(pool.map(lambda job: compile_c(compiler, job, folder), jobs))
    parts = [f"{name}.o" for name in sources]
    compile_c(compiler, [*core.flags, "-r", "-nostdlib", *parts, "-o", output.resolve()], folder)
    return measure_sections(output.read_bytes())


def measure_sections(elf: bytes) -> tuple[int, int]:
    """Bytes of a 32-bit object that are only read, and that are written, where it runs."""
    (at,), (size, count) = struct.unpack_from("<I", elf, 32), struct.unpack_from("<HH", elf, 46)
    sections = [struct.unpack_from("<6I", elf, at + number * size) for number in range(count)]
    kept = [(flags & WRITTEN, length) for _, _, flags, _, _, length in sections if flags & LOADED]
    return sum(length for written, length in kept if not written), sum(length for written, length in kept if written)


def list_target_flags(machine: Machine, compiler: Compiler) -> tuple[str, ...]:
    """What the compiler is told of a machine."""
    return ("-target", machine.triple) if compiler.cross else ()
