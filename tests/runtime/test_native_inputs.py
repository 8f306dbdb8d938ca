"""Inputs of a compiled network: copied where they are small, read where they lie where they are large."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernels import compiler

from fcdeploy.native.build import build, compile_library
from fcdeploy.native.machines import find_machine
from fcdeploy.native.program.steps import Program, Quantize
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.runtime.native_library import LARGE, NativeModel, time_steps

SMALL_LENGTH, LARGE_LENGTH = 24, LARGE // 4


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeModel:
    """Two inputs that become bytes, one of them large."""
    folder = tmp_path_factory.mktemp("native")
    coding = Coding(np.float32(0.5), 100)
    inputs = tuple(Tensor(name, (1, n), "float32") for name, n in (("few", SMALL_LENGTH), ("many", LARGE_LENGTH)))
    outputs = tuple(Tensor(f"{x.name}_bytes", x.shape, "uint8", coding) for x in inputs)
    steps = tuple(Quantize(node=x.name, inputs=(x,), outputs=(y,)) for x, y in zip(inputs, outputs, strict=True))
    machine = find_machine("host")
    program = Program("net", inputs, outputs, steps)
    compile_library(build(program), machine, compiler(), folder, folder / "net.so", machine.levels[-1:])
    return NativeModel(folder / "net.so")


def test_any_array_gives_the_same_as_a_copy_of_it(native: NativeModel) -> None:
    random = np.random.default_rng(0)
    few = random.normal(size=(1, SMALL_LENGTH)).astype(np.float32) * 30
    many = random.normal(size=(1, LARGE_LENGTH)).astype(np.float32) * 30
    frozen = many.copy()
    frozen.flags.writeable = False
    spread = np.repeat(many, 2, axis=1)[:, ::2]  # every second element of another array
    expected = np.clip(np.rint(many / np.float32(0.5)) + 100, 0, 255).astype(np.uint8)
    for given in (many, frozen, spread, many[::-1], many.astype(np.float64)):
        np.testing.assert_array_equal(native.run({"few": few, "many": given})["many_bytes"], expected)


@pytest.mark.parametrize("apart", [1, 2, 4])
def test_numbers_at_odd_addresses_are_copied(native: NativeModel, apart: int) -> None:
    """Of one sample and of several: C reads an array where it lies only if its numbers lie where numbers of their size do."""
    for samples in (1, 2):
        size = 4 * samples * LARGE_LENGTH
        many = np.zeros(size + 64, np.uint8)[apart : apart + size].view(np.float32).reshape(samples, -1)
        many[...] = np.arange(LARGE_LENGTH, dtype=np.float32) / 50
        few = np.zeros((samples, SMALL_LENGTH), np.float32)
        expected = np.clip(np.rint(many / np.float32(0.5)) + 100, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(native.run({"few": few, "many": many})["many_bytes"], expected)
        assert many.flags.aligned == (apart == 4)
        given = native._places._given[1] % 4 if samples == 1 else native._take("many", {"many": many}).ctypes.data % 4
        assert given == 0


def test_timed_steps_read_what_they_are_given(native: NativeModel) -> None:
    """Also where samples are of another type, or several: they came into no place of their own, and may be gone by then."""
    native.run({"few": np.zeros((1, SMALL_LENGTH), np.float32), "many": np.zeros((1, LARGE_LENGTH), np.float32)})
    lent = native._places._given[1]
    time_steps(native, {"few": np.full((2, SMALL_LENGTH), 3.0), "many": np.full((2, LARGE_LENGTH), 5.0)}, 1)
    places = native._places
    assert places._given[1] != lent
    assert [array[0, 0] for _, array in places.outputs] == [106, 110]


def test_no_run_sees_the_array_of_an_earlier_one(native: NativeModel) -> None:
    few = np.zeros((1, SMALL_LENGTH), np.float32)
    lent = np.full((1, LARGE_LENGTH), 7, np.float32)
    frozen = np.full((1, LARGE_LENGTH), 9, np.float32)
    frozen.flags.writeable = False
    first = native.run({"few": few, "many": lent})["many_bytes"]
    second = native.run({"few": few, "many": frozen})["many_bytes"]
    lent[...] = 11
    third = native.run({"few": few, "many": lent})["many_bytes"]
    assert [int(each[0, 0]) for each in (first, second, third)] == [114, 118, 122]
    assert native.run({"few": few, "many": np.zeros((1, LARGE_LENGTH), np.float32)})["many_bytes"].max() == 100
