"""C for small cores: without a warning where an int has 16 bits, and with the bytes of this CPU on emulated RISC-V."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from native_kernels import compiler

from fcdeploy.native.build import build, write_sources
from fcdeploy.native.program.steps import Program
from fcdeploy.native.toolchain import compile_c
from fcdeploy.tables.native import CORES
from scripts.devices.cortex_m import STRING
from scripts.devices.small_cores import EQUAL, FLAGS, WARNINGS, draw_steps, find_cores, try_program

AVR = ("-target", "avr-freestanding", "-mcpu=atmega2560", "-Wno-avr-rtlib-linking-quirks")


@pytest.mark.parametrize("flags", [AVR, CORES["riscv32"].flags, CORES["esp32c3"].flags, CORES["cortex-m0"].flags])
def test_no_compiler_warns(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Every kernel that is drawn, in one program whose weights have places of 16 bits."""
    if not compiler().cross:
        pytest.skip("the compiler makes code for this machine alone")
    small = (built for built, _ in draw_steps(1) if len(built.weights) < 4000)
    steps = {built.calls[-1].kernel: built.program.steps[0] for built in small}
    steps = {key: replace(step, outputs=(replace(step.output, name=key),)) for key, step in steps.items()}
    inputs = {tensor.name: tensor for step in steps.values() for tensor in step.inputs}
    outputs = tuple(step.output for step in steps.values())
    built = build(Program("drawn", tuple(inputs.values()), outputs, tuple(steps.values())))
    assert len(steps) > 8 and len(built.weights) < 1 << 15
    write_sources(built, tmp_path)
    (tmp_path / "string.h").write_text(STRING)
    compile_c(compiler(), [*flags, *FLAGS, *WARNINGS, "-c", "drawn.c", "-o", "drawn.o"], tmp_path)


def test_riscv_gives_the_same_bytes() -> None:
    if shutil.which("qemu-riscv32") is None or not compiler().cross:
        pytest.skip("qemu-riscv32 is not here")
    core = next(each for each in find_cores() if each.name == "riscv32")
    steps = [each for each in draw_steps(2) if each[0].calls[-1].macs][:4]
    assert [try_program(core, *each) for each in steps] == [EQUAL] * 4
