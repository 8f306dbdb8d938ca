"""Steps that take turns, and results in the place of what they were computed from: the same bytes, and less memory."""

from __future__ import annotations

from collections.abc import Sequence
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
from fcdeploy.native.build import build, build_layout, compile_library
from fcdeploy.native.machines import find_machine
from fcdeploy.native.placing import turns
from fcdeploy.native.placing.layout import place
from fcdeploy.native.placing.strips import Pair, crop_window, cut_turns, find_pairs
from fcdeploy.native.placing.turns import place_by_turns
from fcdeploy.native.placing.work import Layout, Placed, list_arena
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.steps import Combine, LookupTable, Move, Pool, Program, Step
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.prove import prove
from fcdeploy.runtime.native_library import NativeModel


def follow(random: np.random.Generator, kind: str, given: Tensor, other: Tensor) -> Step:
    """A step of each kind that can take turns with the layer that writes `given`."""
    y = Tensor("z", given.shape, "uint8", coding(random))
    if kind in ("add", "mul"):
        pair = (given, other) if random.random() < 0.5 else (other, given)
        return Combine(node="then", inputs=pair, outputs=(y,), kind=kind)  # type: ignore[arg-type]
    if kind == "table":
        return LookupTable(node="then", inputs=(given,), outputs=(y,), table=bytes_like(random, (256,)))
    space = given.shape[2:]
    kernel = tuple(int(random.integers(1, min(4, n) + 1)) for n in space)
    if kind == "layer":
        none, one = (0,) * len(space), (1,) * len(space)
        window = Window(one, tuple(int(n) for n in random.integers(1, 3, len(space))), none, none, one)
        made = layer_of(random, given, int(random.integers(1, 40)), window, 1, extreme=False, real=False)
        return replace(made, node="then", outputs=(replace(made.output, name="z"),))
    strides = tuple(k + int(random.integers(0, 2)) for k in kernel)
    begins = tuple(int(random.integers(0, k // 2 + 1)) for k in kernel)
    window = Window(kernel, strides, begins, begins, (1,) * len(space))
    same = y.coding if kind == "average" else given.coding
    to = replace(y, shape=(*given.shape[:2], *window.outputs(space)), coding=same)
    return Pool(node="then", inputs=(given,), outputs=(to,), kind=kind, window=window)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["add", "mul", "table", "layer", "max", "average"])
@FEW
@given(seed=SEEDS, rank=st.integers(1, 2), depthwise=st.booleans())
def test_steps_that_take_turns_write_the_same_bytes(kind: str, seed: int, rank: int, depthwise: bool) -> None:
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(10, 10 + 2 * LARGEST, rank))
    channels = int(random.integers(2, 40))
    groups, outs = (channels, channels) if depthwise else (1, int(random.integers(1, 40)))
    x = Tensor("x", (1, channels, *space), "uint8", coding(random))
    first = layer_of(random, x, outs, window_of(random, space), groups, extreme=False, real=False)
    other = Tensor("other", first.output.shape, "uint8", coding(random))
    then = follow(random, kind, first.output, other)
    program = Program("drawn", tuple({t.name: t for t in (x, other)}.values()), then.outputs, (first, then))
    pairs = find_pairs(program)
    layout = place(program, pairs=pairs)
    assert len([work for work in layout.work if isinstance(work, Placed)]) > 2 or not pairs
    feeds = {tensor.name: bytes_like(random, tensor.shape) for tensor in program.inputs}
    for share in (True, False):
        assert_same(build_layout(program, layout, share=share), feeds, run(program, feeds))


@given(seed=SEEDS)
def test_each_turn_reads_what_its_windows_see(seed: int) -> None:
    random = np.random.default_rng(seed)
    length = int(random.integers(1, 40))
    window = window_of(random, (length,))
    total = window.outputs((length,))[0]
    begin = int(random.integers(0, total))
    written = slice(begin, int(random.integers(begin + 1, total + 1)))
    read, cropped = crop_window(window, written, length)
    taps = [tap * window.dilations[0] - window.begins[0] for tap in range(window.kernel[0])]
    seen = [row * window.strides[0] + tap for row in range(written.start, written.stop) for tap in taps]
    inside = {row for row in seen if 0 <= row < length}
    assert inside <= set(range(read.start, read.stop))
    if inside:
        assert cropped is not None
        assert cropped.outputs((read.stop - read.start,))[0] == written.stop - written.start
        assert read.start - cropped.begins[0] == min(seen)


def test_windows_that_share_rows_and_results_that_are_read_twice_take_no_turns() -> None:
    random = np.random.default_rng(0)
    x = Tensor("x", (1, 8, 20, 20), "uint8", coding(random))
    ones = (1, 1)
    first = layer_of(random, x, 8, Window((3, 3), ones, ones, ones, ones), 1, extreme=False, real=False)
    for kernel, stride, taken in ((2, 2, 1), (3, 2, 0), (3, 3, 1)):
        window = Window((kernel, kernel), (stride, stride), (0, 0), (0, 0), ones)
        to = replace(first.output, name="z", shape=(1, 8, *window.outputs((20, 20))))
        pool = Pool(node="pool", inputs=first.outputs, outputs=(to,), kind="max", window=window)
        assert len(find_pairs(Program("net", (x,), pool.outputs, (first, pool)))) == taken
        assert not find_pairs(Program("net", (x,), (*pool.outputs, *first.outputs), (first, pool)))
        if taken:
            (pair,) = find_pairs(Program("net", (x,), pool.outputs, (first, pool)))
            rows = [row for turn in cut_turns(pair) for row in range(turn.between.start, turn.between.stop)]
            assert sorted(set(rows)) == rows and len(list(cut_turns(pair))) <= 8


@FEW
@given(seed=SEEDS)
def test_results_in_the_place_of_their_operands(seed: int) -> None:
    """Drawn tables, sums and moves of a few tensors: nothing is overwritten that something else still reads."""
    random = np.random.default_rng(seed)
    x = Tensor("x", (1, 6, 8, 8), "uint8", coding(random))
    ones, start = (1, 1), Tensor("t0", x.shape, "uint8", coding(random))

    def layer(given: Tensor, to: Tensor, kernel: int) -> Step:
        pads = (kernel // 2, kernel // 2)
        window = Window((kernel, kernel), ones, pads, pads, ones)
        return replace(layer_of(random, given, 6, window, 1, extreme=False, real=False), outputs=(to,))

    steps, known = [layer(x, start, 1)], [start]
    for number in range(1, 9):
        a, b = (known[int(random.integers(max(0, len(known) - 3), len(known)))] for _ in range(2))
        to = Tensor(f"t{number}", x.shape, "uint8", coding(random))
        kind = str(random.choice(["table", "add", "mul", "flip", "layer"]))
        if kind == "table":
            steps.append(LookupTable(node="n", inputs=(a,), outputs=(to,), table=bytes_like(random, (256,))))
        elif kind == "flip":
            to, upwards = replace(to, coding=a.coding), ((0, 0, 7, 0), (1, 1, -1, 1))
            steps.append(Move(node="n", inputs=(a,), outputs=(to,), kind="slice", arguments=upwards))
        elif kind == "layer":
            steps.append(layer(a, to, 3))
        else:
            steps.append(Combine(node="n", inputs=(a, b), outputs=(to,), kind=kind))  # type: ignore[arg-type]
        known.append(to)
    outputs = (known[int(random.integers(len(known) - 1))], known[-1])
    program = Program("drawn", (x,), outputs, tuple(steps))
    feeds = {"x": bytes_like(random, x.shape)}
    expected = run(program, feeds)
    for pairs in ([], find_pairs(program)):
        assert_same(build_layout(program, place(program, pairs=pairs)), feeds, expected)


THREE = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
HALVED = Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))


def check(steps: list[Step], random: np.random.Generator) -> int:
    """The same bytes at every level; the most that one step needs."""
    (x,) = steps[0].inputs
    program = Program("net", (x,), steps[-1].outputs, tuple(steps))
    feeds = {"x": bytes_like(random, x.shape)}
    built = build(program)
    assert_same(built, feeds, run(program, feeds))
    return built.memory.bound


def add_layer(steps: list[Step], random: np.random.Generator, x: Tensor, outs: int) -> Tensor:
    made = layer_of(random, x, outs, THREE, 1, extreme=False, real=False)
    steps.append(replace(made, outputs=(replace(made.output, name=f"t{len(steps)}"),)))
    return steps[-1].output


def test_residual_blocks_need_two_tensors_and_some_rows() -> None:
    random, steps = np.random.default_rng(0), list[Step]()
    x = add_layer(steps, random, Tensor("x", (1, 4, 32, 32), "uint8", coding(random)), 8)
    for _ in range(3):
        inner = add_layer(steps, random, add_layer(steps, random, x, 8), 8)
        to = Tensor(f"t{len(steps)}", x.shape, "uint8", coding(random))
        steps.append(Combine(node="add", inputs=(inner, x), outputs=(to,), kind="add"))
        x = to
    add_layer(steps, random, x, 1)
    assert check(steps, random) <= 8 * (2 * 34 * 34 + 32 * 32 // 8)


def draw_blocks(random: np.random.Generator, count: int) -> Program:
    """Layers and sums of equal or of drawn sizes, one behind the other."""
    steps, size = list[Step](), int(random.integers(16, 33))
    x = add_layer(steps, random, Tensor("x", (1, 4, size, size), "uint8", coding(random)), 8)
    for _ in range(count):
        kind = str(random.choice(["add", "layer", "pool"])) if count < 10 else "add"
        inner = add_layer(steps, random, x, 8 if kind == "add" else int(random.choice([8, 8, 16])))
        if kind == "add" and (count > 10 or random.random() < 0.5):
            inner = add_layer(steps, random, inner, 8)
        to = Tensor(f"t{len(steps)}", inner.shape, "uint8", coding(random))
        if kind == "add" and inner.shape == x.shape:
            steps.append(Combine(node="add", inputs=(inner, x), outputs=(to,), kind="add"))
            x = to
        elif kind == "pool" and min(inner.shape[2:]) > 8:
            to = replace(inner, name=to.name, shape=(*inner.shape[:2], *HALVED.outputs(inner.shape[2:])))
            steps.append(Pool(node="pool", inputs=(inner,), outputs=(to,), kind="max", window=HALVED))
            x = to
        else:
            x = inner
    add_layer(steps, random, x, 1)
    return Program("net", steps[0].inputs, steps[-1].outputs, tuple(steps))


def place_one_by_one(program: Program) -> Layout:
    """Turns chosen with a whole layout for each pair: as long as one is where most is needed, it takes turns if that is less."""

    def add_up(layout: Layout) -> Any:
        live = np.zeros(len(layout.work), np.int64)
        for buffer in list_arena(layout.buffers):
            live[buffer.first : buffer.last + 1] += buffer.nbytes
        return live

    def most(layout: Layout, pair: Pair) -> int:
        names = {pair.between.name, pair.then.output.name}
        own = [n for n, work in enumerate(layout.work) if isinstance(work, Placed) and work.step.output.name in names]
        return int(add_up(layout)[own].max())

    layout, taken, left = place(program), list[Pair](), find_pairs(program)
    while found := [pair for pair in left if most(layout, pair) == add_up(layout).max()]:
        left.remove(found[0])
        if all(one not in (each.first, each.then) for each in taken for one in (found[0].first, found[0].then)):
            tried = place(program, pairs=[*taken, found[0]])
            if most(tried, found[0]) < add_up(layout).max() >= add_up(tried).max():
                layout, taken = tried, [*taken, found[0]]
    return layout if add_up(layout).max() < add_up(place(program)).max() else place(program)


def list_views(work: Any) -> tuple[str, list[tuple[int, ...]]]:
    """What a piece of work is, and the shapes that it writes."""
    return type(work).__name__, [view.array.shape for view in work.outputs] if isinstance(work, Placed) else []


@FEW
@given(seed=SEEDS)
def test_pairs_that_are_tried_together_are_those_tried_one_by_one(seed: int) -> None:
    program = draw_blocks(np.random.default_rng(seed), 6)
    expected, found = place_one_by_one(program), place_by_turns(program)
    assert [list_views(each) for each in found.work] == [list_views(each) for each in expected.work]
    assert [each.nbytes for each in found.buffers] == [each.nbytes for each in expected.buffers]


def test_many_equal_layers_are_placed_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = list[int]()

    def count(program: Program, *, in_place: bool = True, pairs: Sequence[Pair] = ()) -> Layout:
        placed.append(len(pairs))
        return place(program, in_place=in_place, pairs=pairs)

    monkeypatch.setattr(turns, "place", count)
    place_by_turns(draw_blocks(np.random.default_rng(0), 30))
    assert max(placed) == 30
    assert len(placed) < 6


def test_a_pooled_picture_is_never_there_as_a_whole() -> None:
    random, steps = np.random.default_rng(0), list[Step]()
    wide = add_layer(steps, random, Tensor("x", (1, 4, 32, 32), "uint8", coding(random)), 32)
    to = replace(wide, name="pooled", shape=(1, 32, 16, 16))
    steps.append(Pool(node="pool", inputs=(wide,), outputs=(to,), kind="max", window=HALVED))
    add_layer(steps, random, to, 4)
    assert check(steps, random) < wide.nbytes


def test_the_proof_follows_rows(tmp_path: Path) -> None:
    """Each turn is held to exact arithmetic, and reads the rows that were written."""
    random, steps = np.random.default_rng(0), list[Step]()
    x = add_layer(steps, random, Tensor("x", (1, 4, 32, 32), "uint8", coding(random)), 8)
    inner = add_layer(steps, random, add_layer(steps, random, x, 8), 8)
    total = Tensor("total", x.shape, "uint8", coding(random))
    steps.append(Combine(node="add", inputs=(inner, x), outputs=(total,), kind="add"))
    to = replace(total, name="pooled", shape=(1, 24, 16, 16))
    steps.append(
        Pool(node="pool", inputs=(add_layer(steps, random, total, 24),), outputs=(to,), kind="max", window=HALVED)
    )
    program = Program("net", steps[0].inputs, (to,), tuple(steps))
    built = build(program, share=False)
    assert len(built.calls) > len(steps) + 8

    machine = find_machine("host")
    compile_library(built, machine, compiler(), tmp_path, tmp_path / "net.so", [machine.levels[-1]])
    samples = [{"x": bytes_like(random, (1, 4, 32, 32))} for _ in range(2)]
    proof = prove(built, [NativeModel(tmp_path / "net.so")], samples, {})
    written = sum(step.output.size for step in built.program.steps)
    assert proof.exact and sum(step.elements for step in proof.steps) == 2 * written
