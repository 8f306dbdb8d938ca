"""Sums and products where layers write their bytes: the same bytes as step by step, at every level and in every place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_layers import FEW, SEEDS, bytes_like, coding, layer_of, window_of
from hypothesis import given
from hypothesis import strategies as st
from native_kernels import LARGEST, assert_same, compiler

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.build import Built, build, compile_library
from fcdeploy.native.machines import find_machine
from fcdeploy.native.placing.epilogue import combine_in_layers
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import CombinedLayer, Layer
from fcdeploy.native.program.steps import Combine, LookupTable, Program, Step
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.native.prove import prove
from fcdeploy.runtime.native_library import NativeModel

KINDS = st.sampled_from(["add", "mul"])
PLACES = st.sampled_from(["arena", "arena", "input", "constant", "read later", "output", "with border"])
THREE, ONE = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), Window((1, 1), (1, 1), (0, 0), (0, 0), (1, 1))


def table(random: np.random.Generator, given: Tensor, name: str) -> Step:
    to = replace(given, name=name, coding=coding(random), held=None)
    return LookupTable(node=name, inputs=(given,), outputs=(to,), table=bytes_like(random, (256,)))


def combine(random: np.random.Generator, kind: Any, layer: Layer, beside: Tensor) -> Combine:
    """Both orders of the operands; mostly of scales that need no division."""
    scale = np.float32(random.choice([0.05, 0.1, 1.0, 1e-6, 1e6]))
    to = Tensor("total", beside.shape, "uint8", Coding(scale, int(random.integers(0, 256))))
    both = (layer.output, beside) if random.random() < 0.5 else (beside, layer.output)
    ends = {"low": int(random.integers(0, 100)), "high": 250} if random.random() < 0.5 else {}
    return Combine(node="c", inputs=both, outputs=(to,), kind=kind, **ends)


def surround(random: np.random.Generator, kind: Any, place: str, x: Tensor, layer: Layer) -> Program:
    """A program in which the other operand lies where `place` says: only in the arena can its place be taken."""
    given_ = replace(layer.output, name="given", coding=coding(random))
    inputs, steps = [x, given_], list[Step]()
    beside = given_
    if place == "constant":
        beside = replace(given_, name="held", held=bytes_like(random, given_.shape))
    elif place != "input":
        steps.append(table(random, given_, "beside"))
        beside = steps[0].output
    then = combine(random, kind, layer, beside)
    steps += [layer, then]
    outputs = [then.output]
    if place != "output":
        steps.append(table(random, then.output, "end"))
        outputs = [steps[-1].output]
    if place == "read later":
        steps.append(table(random, beside, "later"))
        outputs.append(steps[-1].output)
    if place == "with border" and len(x.shape) == 4:
        steps[-1] = replace(layer_of(random, then.output, 5, THREE, 1, extreme=False, real=False), node="end")
        steps[-1] = replace(steps[-1], outputs=(replace(steps[-1].output, name="end"),))
        outputs = [steps[-1].output]
    return Program("drawn", tuple(inputs), tuple(outputs), tuple(steps))


def check(program: Program, random: np.random.Generator) -> list[Built]:
    """One call for both steps, and the same bytes as step by step, with memory shared and without."""
    feeds = {tensor.name: bytes_like(random, tensor.shape) for tensor in program.inputs}
    expected = run(program, feeds)
    both = [build(program, share=share, paired=True) for share in (True, False)]
    for built in both:
        assert any(isinstance(step, CombinedLayer) for step in built.program.steps)
        assert_same(built, feeds, expected)
    return both


@FEW
@given(seed=SEEDS, kind=KINDS, place=PLACES, rank=st.sampled_from([2, 2, 2, 1]), full=st.booleans())
def test_convolutions(seed: int, kind: str, place: str, rank: int, full: bool) -> None:
    """Channels in full tiles and in others, rows whose last positions would be computed twice, single positions."""
    random = np.random.default_rng(seed)
    groups = int(random.choice([1, 1, 1, 2, 3]))
    outs = groups * int(random.choice([16, 32, 48, 8, 24]) if full else random.integers(2, 40))
    space = tuple(int(n) for n in random.integers(1, LARGEST, rank))
    channels = groups * int(random.integers(2, 20))
    x = Tensor("x", (1, channels, *space), "uint8", coding(random))
    layer = layer_of(random, x, outs, window_of(random, space), groups, extreme=False, real=False)
    if random.random() < 0.3:  # sums that saturate
        layer = replace(layer, factor=layer.factor * np.float32(random.choice([10, 1e9, 1e30])))
    check(surround(random, kind, place, x, layer), random)


@FEW
@given(seed=SEEDS, kind=KINDS, place=PLACES, columns=st.sampled_from([1, 3, 4, 7, 8, 14, 16, 20]))
def test_vectors_of_rows(seed: int, kind: str, place: str, columns: int) -> None:
    """Full tiles of enough inputs, and rows of all lengths: what has registers at every level, or a reason for none."""
    random = np.random.default_rng(seed)
    x = Tensor("x", (1, int(random.choice([4, 16, 40])), int(random.integers(1, 12)), columns), "uint8", coding(random))
    outs = int(random.choice([16, 32, 48, 64, 8, 40]))
    layer = layer_of(random, x, outs, THREE if random.random() < 0.5 else ONE, 1, extreme=False, real=False)
    check(surround(random, kind, place, x, layer), random)


@FEW
@given(seed=SEEDS, kind=KINDS, place=PLACES)
def test_dense_layers(seed: int, kind: str, place: str) -> None:
    random = np.random.default_rng(seed)
    front = (1, *(int(n) for n in random.integers(1, 12, random.integers(0, 3))))
    x = Tensor("x", (*front, int(random.integers(1, 70))), "uint8", coding(random))
    outs = int(random.choice([16, 32, 64, random.integers(1, 70)]))
    layer = layer_of(random, x, outs, None, 1, extreme=False, real=False)
    place = "arena" if place == "with border" else place
    check(surround(random, kind, place, x, layer), random)


@FEW
@given(seed=SEEDS, kind=KINDS, window=st.sampled_from([ONE, THREE]), channels=st.sampled_from([3, 8, 16, 32]))
def test_a_layer_whose_input_is_beside_its_bytes(seed: int, kind: str, window: Window, channels: int) -> None:
    """What windows still read is not overwritten."""
    random = np.random.default_rng(seed)
    given_ = Tensor(
        "given", (1, channels, int(random.integers(1, 12)), int(random.integers(1, 12))), "uint8", coding(random)
    )
    before = table(random, given_, "x")
    layer = layer_of(random, before.output, channels, window, 1, extreme=False, real=False)
    then = combine(random, kind, layer, before.output)
    last = table(random, then.output, "end")
    check(Program("drawn", (given_,), last.outputs, (before, layer, then, last)), random)


def two_branches(random: np.random.Generator, kernel: Window, other: Window) -> Program:
    """Two convolutions of one picture, one after the other, and their sum."""
    x = Tensor("x", (1, 16, 12, 12), "uint8", coding(random))
    first, second = (layer_of(random, x, 16, window, 1, extreme=False, real=False) for window in (kernel, other))
    second = replace(second, outputs=(replace(second.output, name="other"),))
    then = combine(random, "add", first, second.output)
    return Program("net", (x,), then.outputs, (first, second, then))


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_layers_the_larger_one_is_combined(swapped: bool) -> None:
    random = np.random.default_rng(0)
    program = two_branches(random, *((ONE, THREE) if swapped else (THREE, ONE)))
    first, last = combine_in_layers(program).steps
    assert isinstance(last, CombinedLayer) and last.window == THREE and type(first) is Layer
    assert last.inputs[1].name == first.output.name
    check(program, random)


def test_what_stays_two_steps() -> None:
    """Bytes that something else reads, other shapes, depthwise layers, and operands that are made too late."""
    random = np.random.default_rng(0)
    program = two_branches(random, THREE, ONE)
    first, second, then = program.steps
    assert isinstance(first, Layer) and isinstance(second, Layer) and isinstance(then, Combine)
    (joined,) = [step for step in combine_in_layers(program).steps if isinstance(step, CombinedLayer)]
    assert joined.layer.weight is first.weight and joined.what() == f"{first.what()}, add"

    both = (*first.outputs, *second.outputs)
    assert not count_combined(replace(program, outputs=(*then.outputs, *both)))
    x = program.inputs[0]
    deep = layer_of(random, x, 16, THREE, 16, extreme=False, real=False)
    assert not count_combined(replace(program, outputs=(*then.outputs, *second.outputs), steps=(deep, second, then)))
    row = Tensor("row", (1, 16, 1, 1), "uint8", coding(random))
    narrow = replace(then, inputs=(first.output, row))
    assert not count_combined(Program("net", (x, row), then.outputs, (first, narrow)))
    twice = replace(then, inputs=(first.output, first.output))
    assert not count_combined(Program("net", (x,), then.outputs, (first, twice)))
    late = (table(random, x, "t"), table(random, x, "other"))
    assert not count_combined(Program("net", (x,), then.outputs, (first, *late, then)))
    assert count_combined(Program("net", (x,), then.outputs, (first, late[1], then))) == 1


def count_combined(program: Program) -> int:
    return sum(isinstance(step, CombinedLayer) for step in combine_in_layers(program).steps)


def test_rows_of_a_residual_block_take_the_place_of_its_input(tmp_path: Path) -> None:
    """One call for both, two images and some rows of memory, and a proof that follows."""
    random, steps = np.random.default_rng(0), list[Step]()
    x = Tensor("x", (1, 16, 32, 32), "uint8", coding(random))
    tensors = [x]
    for number in range(6):
        made = layer_of(random, tensors[-1], 16, THREE, 1, extreme=False, real=False)
        steps.append(replace(made, outputs=(replace(made.output, name=f"t{number}"),)))
        tensors.append(steps[-1].output)
        if number % 2 == 0 and number:
            to = Tensor(f"sum{number}", x.shape, "uint8", coding(random))
            steps.append(Combine(node="add", inputs=(tensors[-1], tensors[-3]), outputs=(to,), kind="add"))
            tensors.append(to)
    program = Program("net", (x,), steps[-1].outputs, tuple(steps))
    built = build(program)
    assert [call.kernel for call in built.calls].count("fc_layer_add_bytes") == 2
    assert built.memory.bound <= 16 * (2 * 34 * 34 + 32 * 4)

    apart, machine = build(program, share=False), find_machine("host")
    compile_library(apart, machine, compiler(), tmp_path, tmp_path / "net.so", [machine.levels[-1]])
    samples = [{"x": bytes_like(random, x.shape)} for _ in range(2)]
    proof = prove(apart, [NativeModel(tmp_path / "net.so")], samples, {})
    written = sum(step.output.size for step in apart.program.steps)
    assert proof.exact and sum(step.elements for step in proof.steps) == 2 * written
