"""The arena: pieces that live together do not overlap, and none is wasted; how far kernels read beyond a piece."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_kernels import guarded
from networks import Net, quantize_net, random_data

from fcdeploy.native.build import build
from fcdeploy.native.placing.memory import Life, plan_memory
from fcdeploy.native.reading.operators import read_program


@st.composite
def draw_life(draw: st.DrawFn) -> Life:
    nbytes, first = draw(st.integers(0, 400)), draw(st.integers(0, 8))
    alignment = draw(st.sampled_from([1, 4, 16, 64]))
    return Life(nbytes, first, first + draw(st.integers(0, 4)), alignment, draw(st.sampled_from([0, nbytes + 15])))


@given(st.lists(draw_life(), max_size=12))
def test_pieces_that_live_together_lie_apart(lives: list[Life]) -> None:
    memory = plan_memory(lives)
    for at, life in zip(memory.offsets, lives, strict=True):
        assert at % life.alignment == 0
        assert at + max(life.nbytes, life.end) <= memory.nbytes
    for step in range(13):  # each byte is one piece's
        taken = np.zeros(memory.nbytes, int)
        for at, life in zip(memory.offsets, lives, strict=True):
            if life.first <= step <= life.last:
                taken[at : at + life.nbytes] += 1
        assert taken.max(initial=0) <= 1
        assert taken.sum() <= memory.bound <= memory.nbytes


@pytest.mark.parametrize("sizes", [(6, 8, 3), (64, 128, 32, 10), (640, 128, 8, 640), (784, 300, 10)])
def test_networks_of_dense_layers_need_what_their_largest_step_does(sizes: tuple[int, ...]) -> None:
    net = Net()
    x = net.input("x", sizes[0])
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        x = net.op("Relu", net.dense(x, inputs, outputs, name=f"fc{number}"))
    net.output(x)
    program = read_program(quantize_net(net, random_data(0, 8, x=(sizes[0],))).int8, "net")
    built = build(program)
    least = max(sum(tensor.size for tensor in (step.inputs[0], step.output)) for step in program.steps[1:-1])
    assert least <= built.memory.bound <= built.arena_bytes <= 1.1 * built.memory.bound


def test_what_is_read_behind_the_last_piece_is_part_of_the_arena() -> None:
    net = Net()
    x = net.input("x", 19, 5, 5)
    net.output(net.conv(net.op("Relu", net.conv(x, 19, 19, name="first")), 19, 19, group=19, name="channels"))
    built = build(read_program(quantize_net(net, random_data(0, 8, x=(19, 5, 5))).int8, "net"))
    (depthwise,) = (call for call in built.calls if call.header == "depthwise.h")
    source = depthwise.arguments[1].buffer  # type: ignore[union-attr]
    assert built.offsets[source.number] + source.nbytes + 32 - 19 <= built.arena_bytes


def test_guarded_memory_is_as_long_as_was_asked_for() -> None:
    for nbytes in (1, 8, 4095, 4096, 5000):
        memory = guarded(nbytes)
        memory[:] = 7
        assert len(memory) == nbytes and memory.ctypes.data % 8 == 0
