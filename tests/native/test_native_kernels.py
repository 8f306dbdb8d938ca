"""Kernels on drawn shapes and numbers against int64 arithmetic, at every level that this CPU has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_layers import FEW, SEEDS, bytes_like, coding, early_layer, layer_of, window_of
from hypothesis import given
from hypothesis import strategies as st
from native_kernels import LARGEST, Machine, assert_same, levels, library

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.build import build
from fcdeploy.native.calls.call import Struct
from fcdeploy.native.calls.divisions import find_scales
from fcdeploy.native.program.functions import BINARY, UNARY
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import FloatLayer, Layer, Product
from fcdeploy.native.program.steps import (
    Combine,
    GlobalAverage,
    LookupTable,
    Move,
    Normalize,
    Pointwise,
    Pool,
    Program,
    Quantize,
    Reduce,
    Softmax,
    Step,
)
from fcdeploy.native.program.tensors import Coding, Tensor


def check(steps: list[Step], inputs: list[Tensor], random: np.random.Generator, *, extreme: bool = False) -> None:
    """Native code of these steps on drawn inputs; all that the last one writes are outputs."""
    program = Program("drawn", tuple(inputs), steps[-1].outputs, tuple(steps))
    feeds = {
        t.name: random.normal(size=t.shape).astype(np.float32) * 4
        if t.dtype == "float32"
        else bytes_like(random, t.shape, extreme=extreme)
        for t in inputs
    }
    assert_same(build(program, paired=True), feeds, run(program, feeds))


@FEW
@given(seed=SEEDS, extreme=st.booleans(), rank=st.integers(1, 2))
def test_convolutions(seed: int, extreme: bool, rank: int) -> None:
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(1, LARGEST, rank))
    window = window_of(random, space)
    groups = int(random.choice([1, 1, 2, 3]))
    x = Tensor("x", (1, groups * int(random.integers(1, 20)), *space), "uint8", coding(random))
    outs = groups * int(random.integers(1, 40))
    check(
        [layer_of(random, x, outs, window, groups, extreme=extreme, real=seed % 4 == 0)], [x], random, extreme=extreme
    )


@pytest.mark.parametrize("outs", [16, 32, 48])
def test_images_one_column_wide(outs: int) -> None:
    """Of two rows of two images the last lies where the fourth column of a row would; those between do not."""
    random = np.random.default_rng(outs)
    x = Tensor("x", (16, 8, 5, 1), "uint8", coding(random))
    window = Window(kernel=(4, 1), strides=(1, 2), begins=(0, 0), ends=(0, 0), dilations=(1, 1))
    check([layer_of(random, x, outs, window, 1, extreme=False, real=False)], [x], random)


@FEW
@given(seed=SEEDS)
def test_rows_that_begin_a_byte_earlier(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = Tensor(
        "x",
        (1, int(random.choice([1, 3])), int(random.integers(3, 9)), int(random.integers(5, 40))),
        "uint8",
        coding(random),
    )
    layer = early_layer(random, x, int(random.integers(1, 20)))
    (call,) = (
        each
        for each in build(Program("net", (x,), layer.outputs, (layer,))).calls
        if each.kernel.startswith("fc_layer")
    )
    fields = next(each.fields for each in call.arguments if isinstance(each, Struct))
    assert fields.get("early", 0) == int(layer.weight[0, 0, 0].size * x.shape[1] > 1)
    check([layer], [x], random)


@FEW
@given(seed=SEEDS, extreme=st.booleans(), rank=st.integers(1, 2))
def test_depthwise_convolutions(seed: int, extreme: bool, rank: int) -> None:
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(1, LARGEST, rank))
    window = window_of(random, space)
    channels = int(random.integers(2, 70))
    x = Tensor("x", (1, channels, *space), "uint8", coding(random))
    check(
        [layer_of(random, x, channels, window, channels, extreme=extreme, real=seed % 4 == 0)],
        [x],
        random,
        extreme=extreme,
    )


@FEW
@given(
    seed=SEEDS, channels=st.sampled_from([8, 16, 24, 32, 64, 96, 128, 192]), stride=st.integers(1, 2),
    weights=st.sampled_from(["small", "any", "extreme"]),
)  # fmt: skip
def test_depthwise_windows_of_three_rows(seed: int, channels: int, stride: int, weights: str) -> None:
    """Channels that fill vectors, a part of one, or neither; rows of whole vectors and others; one row left or none."""
    random = np.random.default_rng(seed)
    rows, columns = (int(n) for n in random.integers(1, 9, 2))
    window = Window((3, 3), (stride, stride), (1, 1), (1, 1), (1, 1))
    x = Tensor("x", (1, channels, rows, columns), "uint8", coding(random))
    layer = layer_of(random, x, channels, window, channels, extreme=weights == "extreme", real=False)
    if weights == "small":
        layer = replace(layer, weight=layer.weight // 2)
    check([layer], [x], random, extreme=weights == "extreme")


@FEW
@given(
    seed=SEEDS, extreme=st.booleans(), beside=st.booleans(), outs=st.integers(4, 9),
    form=st.sampled_from([(1, 1), (2, 2), (4, 1), (2, 4), (4, 2), (8, 1), (3, 1)]),
)  # fmt: skip
def test_few_channels_at_neighbouring_positions(
    seed: int, extreme: bool, beside: bool, outs: int, form: tuple[int, int]
) -> None:
    """Windows 1, 4, 8 and other bytes apart; rows of 8 positions, of 16 and of more; alone, or as a part of a Concat."""
    random = np.random.default_rng(seed)
    channels, stride = form
    window = Window((int(random.integers(1, 6)), int(random.integers(1, 6))), (1, stride), (1, 2), (1, 2), (1, 1))
    x = Tensor(
        "x", (1, channels, int(random.integers(5, 8)), stride * int(random.integers(6, 40))), "uint8", coding(random)
    )
    layer = layer_of(random, x, outs, window, 1, extreme=extreme, real=False)
    if not beside:
        check([layer], [x], random, extreme=extreme)
        return
    parts = [replace(layer, outputs=(replace(layer.output, name=f"part{n}"),)) for n in range(2)]
    shape = (1, 2 * outs, *layer.output.shape[2:])
    to, read = replace(layer.output, name="y", shape=shape), tuple(part.output for part in parts)
    both = Move(node="c", inputs=read, outputs=(to,), kind="concat", arguments=((1,),))
    check([*parts, both], [x], random, extreme=extreme)


@FEW
@given(seed=SEEDS, extreme=st.booleans())
def test_dense_layers(seed: int, extreme: bool) -> None:
    random = np.random.default_rng(seed)
    lead = (1, int(random.integers(1, 9))) if random.random() < 0.3 else (1,)
    x = Tensor("x", (*lead, int(random.integers(1, 300))), "uint8", coding(random))
    layer = layer_of(random, x, int(random.integers(1, 70)), None, 1, extreme=extreme, real=seed % 2 == 0)
    if seed % 3 == 0:  # weights less a zero point of their own
        layer = replace(layer, weight=random.integers(-256, 256, layer.weight.shape, np.int16))
    check([layer], [x], random, extreme=extreme)


@FEW
@given(seed=SEEDS)
def test_sums_are_scaled_as_float32_does_it(seed: int) -> None:
    """Every size of sum, results that lie halfway between two bytes or one bit beside it, factors of all sizes."""
    random = np.random.default_rng(seed)
    count = 400
    sums = random.integers(-(2**31), 2**31, count) >> random.integers(0, 31, count)
    halves = (random.integers(-300, 300, count) + 0.5) / np.where(sums == 0, 1, sums)
    factor = np.abs(np.where(random.random(count) < 0.5, halves, halves * random.uniform(0, 2, count))).astype(
        np.float32
    )
    factor = np.nextafter(factor, np.float32(random.choice([0, 1])), dtype=np.float32) if seed % 3 == 0 else factor
    whole = 2 * random.integers(-128, 128, count // 4) + 1  # halfway, to the last bit
    sums[: count // 4], factor[: count // 4] = whole << 7, 2.0**-8
    factor[-4:] = 1e-45, 1e-38, 1e28, 0
    x, to = Tensor("x", (1, 1), "uint8", coding(random)), Tensor("y", (1, count), "uint8", coding(random))
    check([Layer(node="scale", inputs=(x,), outputs=(to,), weight=np.zeros((count, 1), np.int8),
                 bias=sums.astype(np.int32), factor=factor)], [x], random)  # fmt: skip


@FEW
@given(seed=SEEDS)
def test_a_convolution_behind_a_convolution(seed: int) -> None:
    """The second one's border is written around what the first one writes; then a flatten and a dense layer."""
    random = np.random.default_rng(seed)
    x = Tensor("x", (1, *(int(n) for n in random.integers(1, (9, 9, 17)))), "uint8", coding(random))
    same = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    first = layer_of(random, x, int(random.integers(1, 20)), same, 1, extreme=False, real=False)
    middle = Tensor("middle", first.output.shape, "uint8", first.output.coding)
    one = Layer(**{**vars(first), "outputs": (middle,)})
    two = layer_of(random, middle, 5, same, 1, extreme=False, real=False)
    maps = Tensor("maps", two.output.shape, "uint8", two.output.coding)
    flat = Tensor("flat", (1, maps.size), "uint8", maps.coding)
    steps: list[Step] = [one, Layer(**{**vars(two), "outputs": (maps,)})]
    steps.append(Move(node="flatten", inputs=(maps,), outputs=(flat,), kind="reshape"))
    steps.append(layer_of(random, flat, 9, None, 1, extreme=False, real=True))
    check(steps, [x], random)


@FEW
@given(seed=SEEDS, extreme=st.booleans())
def test_windows_whose_steps_go_in_pairs(seed: int, extreme: bool) -> None:
    """Partners lie in any rows of a window, and windows can be longer than an order in one piece."""
    random = np.random.default_rng(seed)
    kernel, dilations = ((int(random.integers(1, 6)), int(random.integers(1, 6))) for _ in range(2))
    window = Window(kernel, (1, int(random.integers(1, 3))), (1, 1), (2, 1), dilations)
    channels, outs = int(random.integers(1, 70)), int(random.integers(1, 30))
    space = (1 + dilations[0] * kernel[0], 12 + dilations[1] * kernel[1])
    x = Tensor("x", (1, channels, *space), "uint8", coding(random))
    layer = layer_of(random, x, outs, window, 1, extreme=False, real=seed % 4 == 0)
    weight = layer.weight.astype(np.int8) // 2  # four of them stay in 16 bits
    bias = -x.coding.zero_point * weight.astype(np.int32).reshape(outs, -1).sum(axis=1) if x.coding else layer.bias
    program = Program("drawn", (x,), layer.outputs, (replace(layer, weight=weight, bias=bias.astype(np.int32)),))
    built = build(program, paired=True)
    numbers = next(call.arguments[-1] for call in built.calls if call.header == "layer.h")
    assert isinstance(numbers, Struct)
    steps = numbers.fields["runs_y"] * numbers.fields["runs_x"] * numbers.fields["steps"]
    assert steps < 4 or numbers.fields["order"] is not None
    feeds = {"x": bytes_like(random, x.shape, extreme=extreme)}
    assert_same(built, feeds, run(program, feeds))


@FEW
@given(seed=SEEDS, extreme=st.booleans(), positions=st.sampled_from([1, 1, 9]))
def test_layers_of_which_few_products_leave_16_bits(seed: int, extreme: bool, positions: int) -> None:
    """The other steps go in pairs, of a dense layer too."""
    random = np.random.default_rng(seed)
    x = Tensor("x", (positions, int(random.integers(30, 1100))), "uint8", coding(random))
    layer = layer_of(random, x, int(random.integers(1, 60)), None, 1, extreme=False, real=seed % 4 == 0)
    weight = layer.weight // 3
    for _ in range(3):
        first = int(random.integers(0, x.shape[1] // 2)) * 2
        weight[int(random.integers(0, len(weight))), first : first + 2] = int(random.choice([-128, 127]))
    assert x.coding is not None
    bias = (-x.coding.zero_point * weight.astype(np.int64).sum(axis=1)).astype(np.int32)
    program = Program("drawn", (x,), layer.outputs, (replace(layer, weight=weight, bias=bias),))
    built = build(program, paired=True)
    numbers = next(call.arguments[-1] for call in built.calls if call.header == "layer.h")
    assert isinstance(numbers, Struct) and numbers.fields["order"] is not None
    feeds = {"x": bytes_like(random, x.shape, extreme=extreme)}
    assert_same(built, feeds, run(program, feeds))


@FEW
@given(seed=SEEDS, extreme=st.booleans(), stride=st.integers(1, 2))
def test_a_convolution_behind_a_depthwise_one(seed: int, extreme: bool, stride: int) -> None:
    """3x3, as most are: rows two by two, columns some at a time, and nothing is written beyond them."""
    random = np.random.default_rng(seed)
    channels, rows, columns = (int(n) for n in random.integers(1, (40, 9, 11)))
    x = Tensor("x", (1, channels, rows, columns), "uint8", coding(random))
    same = Window((3, 3), (stride, stride), (1, 1), (1, 1), (1, 1))
    first = layer_of(random, x, channels, same, channels, extreme=extreme, real=False)
    middle = Tensor("middle", first.output.shape, "uint8", first.output.coding)
    one = Layer(**{**vars(first), "outputs": (middle,)})
    two = layer_of(random, middle, 5, Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 1, extreme=False, real=False)
    check([one, two], [x], random, extreme=extreme)


@FEW
@given(seed=SEEDS, channels=st.integers(1, 5), affine=st.booleans(), scale=st.sampled_from([0.25, 0.1, 1e-37, 1e35]))
def test_floats_of_planes_become_bytes_side_by_side(seed: int, channels: int, affine: bool, scale: float) -> None:
    """Quotients near a half, and at scales of all sizes, round as float32 does."""
    random = np.random.default_rng(seed)
    shape = (1, channels, int(random.integers(1, 5)), int(random.integers(1, 50)))
    x, y = Tensor("x", shape, "float32"), Tensor("y", shape, "uint8", Coding(np.float32(scale), 7))
    vectors = random.normal(size=(2, channels)).astype(np.float32)
    step = Quantize(
        node="q",
        inputs=(x,),
        outputs=(y,),
        **({"gain": vectors[0], "shift": vectors[1] * np.float32(scale)} if affine else {}),
    )
    program = Program("drawn", (x,), (y,), (step,))
    values = random.integers(-20, 300, shape) + np.where(
        random.random(shape) < 0.3, 0.5, random.normal(size=shape) * 1e-4
    )
    feeds = {"x": values.astype(np.float32) * np.float32(scale)}
    assert_same(build(program, paired=True), feeds, run(program, feeds))


@FEW
@given(seed=SEEDS, kind=st.sampled_from(["add", "mul"]))
def test_sums_and_products_of_bytes(seed: int, kind: Any) -> None:
    random = np.random.default_rng(seed)
    shape = (1, int(random.integers(1, 40)), 5, 4)
    a, b = Tensor("a", shape, "uint8", coding(random)), Tensor("b", shape, "uint8", coding(random))
    if random.random() < 0.4:
        b = Tensor("b", (1, shape[1], 1, 1), "uint8", b.coding)
    to = Tensor("y", shape, "uint8", coding(random))
    check([Combine(node="sum", inputs=(a, b), outputs=(to,), kind=kind, low=3, high=250)], [a, b], random)


@FEW
@given(seed=SEEDS, largest=st.sampled_from([1.0, 2.0, 1e4, 1e9, 1e30]), depthwise=st.booleans())
def test_scaled_sums_beyond_32_bits_saturate(seed: int, largest: float, depthwise: bool) -> None:
    """Factors of one and more, in some tiles or in all: positive sums become the highest byte, negative ones the lowest."""
    random = np.random.default_rng(seed)
    channels, window = int(random.integers(1, 50)), Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    x = Tensor("x", (1, channels, 6, int(random.integers(1, 20))), "uint8", coding(random))
    groups, outs = (channels, channels) if depthwise else (1, int(random.integers(1, 50)))
    step = layer_of(random, x, outs, window, groups, extreme=True, real=False)
    factor = np.where(random.random(outs) < random.random(), np.float32(largest), step.factor)
    check([replace(step, factor=factor.astype(np.float32))], [x], random, extreme=bool(seed % 2))


@FEW
@given(
    seed=SEEDS,
    scale=st.sampled_from([None, None, 1.0, 0.0078125, 1e-37, 1e-20, 1e-17, 1e17, 1e20, 1e36]),
    zero=st.integers(0, 255),
)
def test_quotients_of_floats_round_as_a_division(seed: int, scale: float | None, zero: int) -> None:
    """Floats around all borders between two bytes, of every mantissa's scale, and those that are far away or no numbers."""
    random = np.random.default_rng(seed)
    by = np.float32(random.uniform(1, 2) * 2.0 ** random.integers(-30, 30) if scale is None else scale)
    with np.errstate(all="ignore"):
        borders = (np.arange(-260, 261, dtype=np.float32) + np.float32(0.5)) * by
        bits = borders.view(np.int32)[:, None] + np.arange(-5, 6, dtype=np.int32)
        extremes = [0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, -1e-45, 1e-38]
        x = np.concatenate([bits.view(np.float32).ravel(), np.float32(extremes), np.float32(extremes) * by])
        quotient = np.rint(x / by).astype(np.float64)
    expected = np.clip(np.where(np.isnan(quotient), -np.inf, quotient) + zero, 0, 255).astype(np.uint8)
    given_, to = Tensor("x", (1, len(x)), "float32"), Tensor("y", (1, len(x)), "uint8", Coding(by, zero))
    program = Program("drawn", (given_,), (to,), (Quantize(node="q", inputs=(given_,), outputs=(to,)),))
    assert_same(build(program), {"x": x[None]}, {"y": expected[None]})


@FEW
@given(
    seed=SEEDS,
    kind=st.sampled_from(["add", "mul"]),
    ratio=st.sampled_from([None, 1.0, 2.0, 0.5, 1e-3, 1e3, 1e30, 1e-30]),
)
def test_sums_and_products_of_all_pairs_of_bytes(seed: int, kind: Any, ratio: float | None) -> None:
    """What computes without a division gives the byte of the division for each pair; of scales alike many lie at halves."""
    step = draw_combination(np.random.default_rng(seed), kind, ratio)
    (a, b), to = step.inputs, step.output
    assert a.coding is not None and b.coding is not None and to.coding is not None
    p, q = np.mgrid[:256, :256].astype(np.uint8)[:, None, None]
    left, right = ((np.float32(x) - np.float32(c.zero_point)) * c.scale for x, c in ((p, a.coding), (q, b.coding)))
    with np.errstate(all="ignore"):
        quotient = np.rint((left + right if kind == "add" else left * right) / to.coding.scale).astype(np.float64)
    expected = np.clip(quotient + to.coding.zero_point, step.low, step.high).astype(np.uint8)
    assert_same(build(Program("drawn", (a, b), (to,), (step,))), {"a": p, "b": q}, {"y": expected})


def draw_combination(random: np.random.Generator, kind: Any, ratio: float | None) -> Combine:
    """Two tensors of bytes of any scales; `ratio` of the result's to what comes naturally, drawn unless given."""
    a, b = (Tensor(name, (1, 1, 256, 256), "uint8", coding(random)) for name in ("a", "b"))
    assert a.coding is not None and b.coding is not None
    natural = 1.0 if kind == "add" else 128 * float(b.coding.scale)
    scale = np.float32(float(a.coding.scale) * natural * (random.uniform(0.3, 3) if ratio is None else ratio))
    zero, low, high = int(random.integers(0, 256)), int(random.integers(0, 9)), int(random.integers(240, 256))
    to = Tensor("y", a.shape, "uint8", Coding(scale, zero))
    return Combine(node="c", inputs=(a, b), outputs=(to,), kind=kind, low=low, high=high)


@pytest.mark.parametrize("kind", ["add", "mul"])
def test_few_sums_and_products_divide(kind: str) -> None:
    drawn = (draw_combination(np.random.default_rng(seed), kind, None) for seed in range(30))
    assert sum(find_scales(step)[2] == 1 for step in drawn) >= 28


@FEW
@given(seed=SEEDS, kind=st.sampled_from(["average", "max"]), floats=st.booleans())
def test_pools(seed: int, kind: Any, floats: bool) -> None:
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(2, LARGEST, random.integers(1, 3)))
    window = window_of(random, space, pool=True)
    shape = (1, int(random.integers(1, 40)), *space)
    x = Tensor("x", shape, "float32") if floats else Tensor("x", shape, "uint8", coding(random))
    to_coding = None if floats else x.coding if kind == "max" else coding(random)
    to = Tensor("y", (*shape[:2], *window.outputs(space)), x.dtype, to_coding)
    padded = bool(random.random() < 0.5) and kind == "average"
    check([Pool(node="pool", inputs=(x,), outputs=(to,), kind=kind, window=window, padded=padded)], [x], random)


@FEW
@given(seed=SEEDS)
def test_pools_of_long_rows(seed: int) -> None:
    """Rows of more bytes than are looked at together, of few channels and of many."""
    random = np.random.default_rng(seed)
    x = Tensor(
        "x",
        (1, int(random.choice([1, 6, 16, 70])), int(random.integers(4, 9)), int(random.integers(20, 300))),
        "uint8",
        coding(random),
    )
    kernel, strides, dilations = (tuple(int(n) for n in random.integers(1, most, 2)) for most in (4, 4, 3))
    window = Window(kernel, strides, (0, 0), (0, 0), dilations)
    if min(window.outputs(x.shape[2:])) < 1:
        window = Window((2, 2), (2, 2), (0, 0), (0, 0), (1, 1))
    to = Tensor("y", (1, x.shape[1], *window.outputs(x.shape[2:])), "uint8", x.coding)
    check([Pool(node="pool", inputs=(x,), outputs=(to,), kind="max", window=window)], [x], random)


@FEW
@given(seed=SEEDS)
def test_global_averages(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = Tensor("x", (1, int(random.integers(1, 40)), 7, 5), "uint8", coding(random))
    to = Tensor("y", (1, x.shape[1], 1, 1), "uint8", coding(random))
    factor = np.float32(x.coding.scale / np.float32(to.coding.scale * np.float32(35)))  # type: ignore[union-attr]
    check([GlobalAverage(node="mean", inputs=(x,), outputs=(to,), factor=factor)], [x], random)


@FEW
@given(seed=SEEDS, floats=st.booleans(), written=st.booleans())
def test_softmax(seed: int, floats: bool, written: bool) -> None:
    """Of more elements than vectors have lanes, neighbours and others."""
    random = np.random.default_rng(seed)
    shape = (1, int(random.integers(1, 70)), *((3, 4) if seed % 2 else ()))
    x = Tensor("x", shape, "float32") if floats else Tensor("x", shape, "uint8", coding(random))
    table = None if floats else np.exp(-np.arange(256) * np.float64(x.coding.scale)).astype(np.float32)  # type: ignore[union-attr]
    to = Tensor("y", shape, "uint8", Coding(np.float32(1 / 255), 0)) if written else Tensor("y", shape, "float32")
    step = Softmax(
        node="softmax", inputs=(x,), outputs=(to,), axis=int(random.choice([1, len(shape) - 1])), table=table
    )
    program = Program("drawn", (x,), (to,), (step,))
    feeds = {"x": random.normal(size=shape).astype(np.float32) * 9 if floats else bytes_like(random, shape)}
    expected = run(program, feeds)
    if not (floats and written):
        assert_same(build(program), feeds, expected)
        return
    # an exponential is a few units in the last place off, and so is what it is rounded from
    found = [Machine(build(program), library(level.name)).run(feeds)["y"] for level in levels()]
    assert all(np.array_equal(each, found[0]) for each in found)
    assert np.abs(found[0].astype(int) - expected["y"]).max() <= 1


@FEW
@given(seed=SEEDS)
def test_sums_of_a_softmax_have_sixteen_parts(seed: int) -> None:
    """As written out element by element: the definition, of which `interpret` is one reading and the kernel another."""
    random = np.random.default_rng(seed)
    length = int(random.integers(1, 100))
    x = Tensor("x", (1, length), "uint8", coding(random))
    table = np.exp(-np.arange(256) * 0.03).astype(np.float32)
    step = Softmax(node="s", inputs=(x,), outputs=(Tensor("y", (1, length), "float32"),), axis=1, table=table)
    program, feeds = Program("drawn", (x,), step.outputs, (step,)), {"x": bytes_like(random, (1, length))}
    each = table[feeds["x"].max().astype(int) - feeds["x"][0]]
    parts = [np.float32(0)] * 16
    for i, value in enumerate(each):
        parts[i % 16] = parts[i % 16] + value
    for half in (8, 4, 2, 1):
        parts = [parts[k] + parts[k + half] for k in range(half)]
    assert_same(build(program), feeds, {"y": (each / parts[0])[None]})
    np.testing.assert_array_equal(run(program, feeds)["y"][0], each / parts[0])


@FEW
@given(seed=SEEDS)
def test_normalizations_and_reductions(seed: int) -> None:
    """Rows of any length, and sums along what lies innermost or does not."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, (5, 7, 70)))
    x, to = (Tensor(name, shape, "float32") for name in ("x", "y"))
    gain, shift = (random.normal(size=shape[-1]).astype(np.float32) for _ in range(2))
    factors: dict[str, Any] = {"gain": gain, "shift": shift, "epsilon": np.float32(1e-5), "length": shape[-1]}
    steps: list[Step] = [Normalize(node="n", inputs=(x,), outputs=(to,), **factors)]
    for kind in ("mean", "sum", "max", "min"):
        axes = tuple(sorted(int(n) for n in random.choice(3, random.integers(1, 4), replace=False)))
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        steps.append(Reduce(node=kind, kind=kind, axes=axes, inputs=(x,), outputs=(Tensor(kind, kept, "float32"),)))  # type: ignore[arg-type]
    program = Program("drawn", (x,), tuple(step.output for step in steps), tuple(steps))
    feeds = {"x": random.uniform(1, 3, shape).astype(np.float32)}
    assert_same(build(program), feeds, run(program, feeds))


def test_roots_are_those_of_numpy() -> None:
    """By an instruction and by integers: every exponent, the smallest numbers too, and those that lie between two roots."""
    random = np.random.default_rng(3)
    bits = random.integers(0, 1 << 23, (254, 24)).astype(np.uint32) + (np.arange(254, dtype=np.uint32) << 23)[:, None]
    bits[:, 0], bits[:, 1] = bits[:, 0] & 0x7F800000, bits[:, 1] | 0x7FFFFF
    values = np.concatenate([bits.view(np.float32).reshape(1, -1), np.float32([[0.0, -0.0, -1.0, np.inf]])], axis=1)
    x, y = (Tensor(name, values.shape, "float32") for name in ("x", "y"))
    built = build(Program("roots", (x,), (y,), (Pointwise(node="n", kind="Sqrt", inputs=(x,), outputs=(y,)),)))
    with np.errstate(invalid="ignore"):
        expected = np.sqrt(values)
    for level in levels():
        np.testing.assert_array_equal(Machine(built, library(level.name)).run({"x": values})["y"], expected)


@FEW
@given(seed=SEEDS, extreme=st.booleans(), real=st.booleans())
def test_products_of_many_rows(seed: int, extreme: bool, real: bool) -> None:
    """Lengths around what is packed at once, few rows and many, either factor as it lies or turned around."""
    random = np.random.default_rng(seed)
    m, n = (int(each) for each in random.integers(1, 40, 2))
    k = int(random.choice([random.integers(1, 9), random.integers(9, 70), random.integers(1021, 1029)]))
    front = int(random.integers(1, 4))
    inputs, factors, steps = [], [], []
    for name, shape in (("a", (m, k)), ("b", (k, n))):
        factor = Tensor(f"{name}t", (1, front, *shape), "uint8", coding(random))
        turned = random.random() < 0.5
        x = Tensor(name, (1, front, *(shape[::-1] if turned else shape)), "uint8", factor.coding)
        kind: Any = "transpose" if turned else "reshape"
        move = Move(node="m", inputs=(x,), outputs=(factor,), kind=kind, arguments=((0, 1, 3, 2),) if turned else ())
        inputs, factors, steps = [*inputs, x], [*factors, factor], [*steps, move]
    to = Tensor("y", (1, front, m, n), "float32") if real else Tensor("y", (1, front, m, n), "uint8", coding(random))
    product = Product(node="p", inputs=tuple(factors), outputs=(to,), factor=np.float32(random.uniform(1e-4, 1e-2)))
    check([*steps, product], inputs, random, extreme=extreme)


@FEW
@given(seed=SEEDS)
def test_tables_and_rounding(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (1, int(random.integers(1, 20)), 3, 5)
    x = Tensor("x", shape, "float32")
    q = Tensor("q", shape, "uint8", coding(random))
    y = Tensor("y", shape, "uint8", coding(random))
    channels = random.random() < 0.5
    table = bytes_like(random, (shape[1], 256) if channels else (256,))
    gain, shift = (random.normal(size=shape[1]).astype(np.float32) for _ in range(2))
    affine: dict[str, Any] = {"gain": gain, "shift": shift} if random.random() < 0.5 else {}
    steps: list[Step] = [Quantize(node="q", inputs=(x,), outputs=(q,), **affine)]
    check([*steps, LookupTable(node="t", inputs=(q,), outputs=(y,), table=table)], [x], random)


def test_nan_becomes_the_lowest_byte() -> None:
    """In vectors and in what is left over; infinities become the ends."""
    x, y = Tensor("x", (1, 19), "float32"), Tensor("y", (1, 19), "uint8", Coding(np.float32(0.1), 128))
    program = Program("nan", (x,), (y,), (Quantize(node="q", inputs=(x,), outputs=(y,), low=3, high=250),))
    feeds = {"x": np.array([[*[np.nan, np.inf, -np.inf, 0.0] * 4, np.nan, np.inf, 0.1]], np.float32)}
    expected = [[*[3, 250, 3, 128] * 4, 3, 250, 129]]
    assert_same(build(program), feeds, {"y": np.array(expected, np.uint8)})
    np.testing.assert_array_equal(run(program, feeds)["y"], expected)


NUMBERS = {"Celu": (0.5,), "Clip": (-1.0, 2.0), "Elu": (0.5,), "HardSigmoid": (0.2, 0.5), "LeakyRelu": (0.1,),
           "Selu": (1.7, 1.1), "Swish": (1.0,), "ThresholdedRelu": (0.5,)}  # fmt: skip


def test_what_is_no_number_stays_none() -> None:
    """NaN and infinities through every function of one or two tensors, as NumPy has them."""
    ends = np.array([np.nan, np.inf, -np.inf, 0.0, -1.5, 2.0], np.float32)
    x, z = Tensor("x", (1, 36), "float32"), Tensor("z", (1, 36), "float32")
    steps: list[Step] = []
    for kind in (*UNARY, *(kind for kind in BINARY if kind != "PRelu")):
        inputs, numbers = ((x,) if kind in UNARY else (x, z)), NUMBERS.get(kind, ())
        to = Tensor(kind, (1, 36), "float32")
        steps.append(Pointwise(node=kind, kind=kind, inputs=inputs, outputs=(to,), numbers=numbers))
    program = Program("ends", (x, z), tuple(step.output for step in steps), tuple(steps))
    feeds = {"x": np.repeat(ends, 6)[None], "z": np.tile(ends, 6)[None]}
    expected, built = run(program, feeds), build(program)
    for level in levels():
        found = Machine(built, library(level.name)).run(feeds)
        for kind in found:
            np.testing.assert_allclose(
                found[kind], expected[kind], rtol=1e-5, atol=1e-6, err_msg=f"{kind}, {level.name}"
            )


@FEW
@given(seed=SEEDS)
def test_layers_on_floats(seed: int) -> None:
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(1, 12, random.integers(1, 3)))
    window = window_of(random, space)
    groups = int(random.choice([1, 1, 2, 3]))
    x = Tensor("x", (1, groups * int(random.integers(1, 9)), *space), "float32")
    outs = groups * int(random.integers(1, 20))
    weight = random.normal(size=(outs, x.shape[1] // groups, *window.kernel)).astype(np.float32)
    bias = random.normal(size=outs).astype(np.float32)
    to = Tensor("y", (1, outs, *window.outputs(space)), "float32")
    step = FloatLayer(node="c", inputs=(x,), outputs=(to,), weight=weight, bias=bias, window=window, groups=groups)
    check([step], [x], random)


@FEW
@given(seed=SEEDS)
def test_filters_of_floats_with_one_output(seed: int) -> None:
    """Of long rows of one channel or two, as audio has them, in one piece or in groups."""
    random = np.random.default_rng(seed)
    space = (int(random.integers(1, 5)), int(random.integers(30, 150)))[random.integers(2) :]
    kernel = tuple(int(n) for n in random.integers(1, [4, 12][-len(space) :]))
    some = tuple(int(n) for n in random.integers(1, 3, len(space)))
    window = Window(kernel, some, tuple(n // 2 for n in kernel), tuple(n - 1 for n in kernel), some[::-1])
    if min(window.outputs(space)) < 1:
        window = Window((1,) * len(space), some, (0,) * len(space), (0,) * len(space), (1,) * len(space))
    groups, each = ((1, 1), (1, 2), (2, 1), (3, 2))[seed % 4]
    x = Tensor("x", (1, groups * each, *space), "float32")
    to = Tensor("y", (1, groups, *window.outputs(space)), "float32")
    weight, bias = (random.normal(size=n).astype(np.float32) for n in ((groups, each, *window.kernel), groups))
    step = FloatLayer(node="c", inputs=(x,), outputs=(to,), weight=weight, bias=bias, window=window, groups=groups)
    check([step], [x], random)


@FEW
@given(seed=SEEDS)
def test_moves(seed: int) -> None:
    """Slices, a transpose, a concatenation and a pad of bytes, in one chain."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(2, 7, 4))
    x = Tensor("x", shape, "uint8", coding(random))
    begins = tuple(int(random.integers(0, n)) for n in shape)
    cut = tuple(n - b for n, b in zip(shape, begins, strict=True))
    part = Tensor("part", cut, "uint8", x.coding)
    perm = tuple(int(n) for n in random.permutation(4))
    turned = Tensor("turned", tuple(cut[i] for i in perm), "uint8", x.coding)
    axis = int(random.integers(0, 4))
    joined = Tensor("joined", tuple(2 * n if i == axis else n for i, n in enumerate(turned.shape)), "uint8", x.coding)
    pads = tuple(tuple(int(n) for n in random.integers(0, 3, 4)) for _ in range(2))
    around = tuple(n + b + e for n, b, e in zip(joined.shape, *pads, strict=True))
    y = Tensor("y", around, "uint8", x.coding)
    steps: list[Step] = [
        Move(node="slice", inputs=(x,), outputs=(part,), kind="slice", arguments=(begins, (1,) * 4)),
        Move(node="transpose", inputs=(part,), outputs=(turned,), kind="transpose", arguments=(perm,)),
        Move(node="concat", inputs=(turned, turned), outputs=(joined,), kind="concat", arguments=((axis,),)),
        Move(node="pad", inputs=(joined,), outputs=(y,), kind="pad", arguments=pads, fill=7),
    ]
    check(steps, [x], random)
