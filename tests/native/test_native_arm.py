"""Native code on emulated ARM CPUs gives the bytes of NumPy's 64-bit integers, at every level; skipped where qemu is not."""

from __future__ import annotations

import pytest
from drawn_programs import drawn
from native_arm import CPUS, find_qemu, unequal
from native_kernels import Machine, assert_same, compiler, library

from fcdeploy.native.build import build
from fcdeploy.native.program.interpret import run


def test_every_level_gives_the_same_bytes() -> None:
    if find_qemu() is None:
        pytest.skip("qemu-aarch64 is not here")
    if not compiler().cross:
        pytest.skip("the compiler makes code for this machine alone")
    program, feeds = drawn(0, 12)
    built = build(program)
    expected = Machine(built, library("plain")).run(feeds)
    assert_same(built, feeds, run(program, feeds), ["plain"])
    assert not unequal(built, feeds, expected, CPUS)
