"""Weights in the orders of Cortex-M kernels: what is stored where, and that their arithmetic gives sums in 64 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_layers import coding, layer_of
from hypothesis import given
from hypothesis import strategies as st
from native_kernels import compiler

from fcdeploy.native.build import Built, build, compile_object
from fcdeploy.native.calls.layers import arrange_weights
from fcdeploy.native.calls.pack import (
    ORDERS,
    arrange_tiles,
    list_tiles,
    pack_channel_values,
    pack_layer_weights,
    pair_biases,
)
from fcdeploy.native.program.steps import Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.tables.native import CORES


def draw_rows(random: np.random.Generator, groups: int, outs: int, runs: int, length: int) -> np.ndarray:
    ends = random.choice([-128, -127, 127], (groups * outs, runs, length))
    return np.where(random.random(ends.shape) < 0.5, ends, random.integers(-128, 128, ends.shape)).astype(np.int8)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 21),
)  # fmt: skip
def test_sums_of_the_other_orders_are_exact(seed: int, groups: int, outs: int, runs: int, length: int) -> None:
    random = np.random.default_rng(seed)
    rows = draw_rows(random, groups, outs, runs, length)
    steps = runs * -(-length // 4)
    x = random.choice([0, 1, 254, 255], (steps, 4)).astype(np.int64)
    filled = np.zeros((groups * outs, runs, steps // runs * 4), np.int64)
    filled[:, :, :length] = rows
    expected = filled.reshape(groups * outs, -1) @ x.reshape(-1)

    packed, _ = pack_layer_weights(rows, groups)
    widths = [width for _ in range(groups) for _, width in list_tiles(outs)]
    for order in ORDERS:
        arranged = arrange_tiles(packed.view(np.uint8), groups, outs, order)
        assert len(arranged) == len(packed)
        sums, at = [], 0
        for width in widths:
            tile = arranged[at : at + steps * width * 4]
            at += len(tile)
            sums += sum_pairs(tile, steps, x) if order == "pairs" else sum_rows(tile.reshape(width, -1), x)
        real = np.array(sums).reshape(groups, -1)[:, :outs].reshape(-1)
        np.testing.assert_array_equal(real, expected)


def sum_rows(tile: np.ndarray, x: np.ndarray) -> list[int]:
    """VMLADAVA of unsigned bytes, less 128 times the sum of x."""
    return [int(row.astype(np.int64) @ x.reshape(-1) - 128 * x.sum()) for row in tile]


def sum_pairs(tile: np.ndarray, steps: int, x: np.ndarray) -> list[int]:
    """SMLAD with each word, and with its low bytes; sums wrap at 32 bits, parts of up to 64 steps."""
    sums = []
    words = (
        tile.view("<i2").astype(np.int64).reshape(-1, steps, 2, 2, 2)
    )  # four channels, step, two of them, word, half
    for four in words:
        for two in range(2):
            first = second = 0
            for begin in range(0, steps, 64):
                halves = four[begin : begin + 64, two]  # step, word, half
                taps = x[begin : begin + 64].reshape(-1, 2, 2).transpose(0, 2, 1)  # bytes 0 and 2, 1 and 3
                both, low = (int((each * taps).sum()) for each in (halves, halves & 255))
                first += low - 128 * int(taps.sum())
                second += wrap(both - low) >> 8
            sums += [first, second]
    return sums


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 300))
def test_sums_of_one_position_are_exact(seed: int, outs: int, length: int) -> None:
    """Low bytes multiplied in pairs, (x0 + w1)(x1 + w0), with biases that take off what the weights add; all wraps at 32 bits."""
    random = np.random.default_rng(seed)
    rows, steps = draw_rows(random, 1, outs, 1, length), -(-length // 4)
    x = random.choice([0, 1, 254, 255], (steps, 4)).astype(np.int64)
    bias = random.integers(-(2**31), 2**31, outs, dtype=np.int64).astype(np.int32)
    packed, _ = pack_layer_weights(rows, 1)
    arranged = arrange_tiles(packed.view(np.uint8), 1, outs, "pairs")
    paired = pair_biases(pack_channel_values(bias, 1), arranged)

    words = arranged.view("<i2").astype(np.int64).reshape(-1, steps, 2, 2, 2)  # four channels, step, two, word, half
    even, odd = x[:, 0::2], x[:, 1::2]
    sums = []
    for four in words:
        for two in range(2):
            first = second = 0
            for part in (slice(begin, begin + 64) for begin in range(0, steps, 64)):
                e, o = four[part, two, 0], four[part, two, 1]
                less = -128 * int(x[part].sum())
                both = less + int((e * even[part] + o * odd[part]).sum())
                products = (even[part] + (o & 255)) * (odd[part] + (e & 255))
                low = less - int((even[part] * odd[part]).sum()) + int(products.sum())
                first += low
                second += wrap(both - low) >> 8
                assert -(2**31) <= both - low < 2**31
            sums += [first, second]
    real = [wrap(value) for value in np.array(sums) + paired.astype(np.int64)]
    filled = np.zeros((outs, steps * 4), np.int64)
    filled[:, :length] = rows.reshape(outs, length)
    expected = [wrap(value) for value in filled @ x.reshape(-1) + bias.astype(np.int64)]
    assert real[:outs] == expected


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def make_net(outs: int) -> Built:
    random = np.random.default_rng(outs)
    x = Tensor("x", (1, 30), "uint8", coding(random))
    step = layer_of(random, x, outs, None, 1, extreme=True, real=False)
    return build(Program("net", (x,), step.outputs, (step,)))


@pytest.mark.parametrize("text_bytes", [256 << 10, 0])
def test_each_core_is_given_its_own_order(text_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, and as a file that the assembler takes."""
    monkeypatch.setattr("fcdeploy.native.writing.emit.TEXT_BYTES", text_bytes)
    built = make_net(20)
    wanted = {"cortex-m0": built.weights}
    for core, order in (("cortex-m4", "pairs"), ("cortex-m33", "pairs"), ("cortex-m55", "rows")):
        wanted[core] = arrange_weights(built.weights, built.calls, order)
    assert len(set(wanted.values())) == 3 and len({*map(len, wanted.values())}) == 1
    for core, weights in wanted.items():
        folder = tmp_path / core
        folder.mkdir()
        compile_object(built, CORES[core], compiler(), folder, tmp_path / f"{core}.o")
        assert weights in (tmp_path / f"{core}.o").read_bytes()


def test_equal_weights_of_unlike_layers_are_stored_apart() -> None:
    """Zeros of 16 channels of 4 bytes and of 8 of 8 are the same bytes, and other bytes where they are raised in pairs."""
    random = np.random.default_rng(0)
    steps = []
    for number, (outs, length) in enumerate(((16, 4), (8, 8), (16, 4))):
        x = Tensor(f"x{number}", (1, length), "uint8", coding(random))
        step = layer_of(random, x, outs, None, 1, extreme=False, real=False)
        step.weight[:] = 0
        steps.append(replace(step, outputs=(replace(step.output, name=f"y{number}"),)))
    built = build(Program("net", tuple(s.inputs[0] for s in steps), tuple(s.output for s in steps), tuple(steps)))
    first, second, third = (call.arguments[2] for call in built.calls if call.header == "layer.h")
    assert first == third != second
