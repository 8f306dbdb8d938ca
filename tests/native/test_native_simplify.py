"""Smaller programs with the same outputs: the channels of zeros that onnxruntime wants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_layers import bytes_like, layer_of
from drawn_programs import drawn
from native_kernels import assert_same

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.build import build
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import Layer
from fcdeploy.native.program.simplify import simplify
from fcdeploy.native.program.steps import Ends, Lookup, LookupTable, Move, Pool, Program, Step
from fcdeploy.native.program.tensors import Coding, Tensor


@pytest.mark.parametrize(
    ("channels", "outs", "small", "pairs", "left"),
    [
        (1, 16, False, True, 1),  # whatever its pairs are
        (1, 8, True, True, 1),
        (3, 16, True, True, 3),
        (3, 16, False, True, 4),  # pairs of three channels would leave 16 bits
        (3, 8, True, True, 4),  # positions have to be four bytes apart
        (3, 8, True, False, 3),
        (2, 16, False, False, 2),
    ],
)
def test_channels_of_zeros_are_left_out(channels: int, outs: int, small: bool, pairs: bool, left: int) -> None:
    random = np.random.default_rng(0)
    x = Tensor("x", (1, channels, 9, 17), "uint8", Coding(np.float32(0.02), 100))
    wide = replace(x, name="wide", shape=(1, 4, 9, 17))
    more = (0, 4 - channels, 0, 0)
    pad = Move(node="pad", inputs=(x,), outputs=(wide,), kind="pad", arguments=((0, 0, 0, 0), more), fill=100)
    layer = layer_of(random, wide, outs, Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 1, extreme=False, real=False)
    weight = np.full_like(layer.weight, 10 if small else 100)
    weight[:, channels:] = 0
    sums = weight.astype(np.int64).reshape(outs, -1).sum(axis=1)
    layer = replace(layer, weight=weight, bias=(-100 * sums).astype(np.int32))
    program = Program("net", (x,), layer.outputs, (pad, layer))

    smaller = simplify(program, pairs=pairs)
    (found,) = [step for step in smaller.steps if isinstance(step, Layer)]
    assert (found.weight.shape[1], len(smaller.steps)) == (left, 2 if left == 4 else 1)
    feeds = {"x": bytes_like(random, x.shape)}
    expected = run(program, feeds)
    np.testing.assert_array_equal(run(smaller, feeds)[layer.output.name], expected[layer.output.name])
    assert_same(build(smaller), feeds, expected)


def test_a_clip_into_another_coding_leaves_the_bytes_as_they_are() -> None:
    """A table that gives its bytes another scale is a clip of what was written in the old one, by every kind of step."""
    program, feeds = drawn(3, 30)
    steps: list[Step] = []
    for step in program.steps:
        steps.append(step)
        if isinstance(step, Ends) and step.output.dtype == "uint8":
            assert step.output.coding is not None
            other = Coding(np.float32(0.37), step.output.coding.zero_point)
            clipped = Tensor(f"{step.output.name}.clipped", step.output.shape, "uint8", other)
            real = Tensor(f"{step.output.name}.real", step.output.shape, "float32")
            table = np.clip(np.arange(256), 20, 230).astype(np.uint8)
            steps += [
                LookupTable(node="n", inputs=(step.output,), outputs=(clipped,), table=table),
                Lookup(node="n", inputs=(clipped,), outputs=(real,), table=other.values),
            ]
    outputs = tuple(step.output for step in steps if isinstance(step, Lookup))
    whole = Program("net", program.inputs, outputs, tuple(steps))

    smaller = simplify(whole, pairs=True)
    assert not any(isinstance(step, LookupTable) for step in smaller.steps)
    assert any(isinstance(step, Pool) and step.kind == "max" for step in smaller.steps)
    assert {type(step).__name__ for step in smaller.steps} >= {
        "Combine",
        "Quantize",
        "Pool",
        "GlobalAverage",
        "Softmax",
    }
    expected = run(whole, feeds)
    found = run(smaller, feeds)
    for tensor in outputs:
        np.testing.assert_array_equal(found[tensor.name], expected[tensor.name], err_msg=tensor.name)
    assert_same(build(smaller), feeds, expected)


def test_a_border_is_of_the_zero_point_that_is_read() -> None:
    """Bytes that another zero point is given stay a table's: a convolution pads them with the new one."""
    random = np.random.default_rng(1)
    x = Tensor("x", (1, 4, 9, 7), "uint8", Coding(np.float32(0.02), 100))
    inner = layer_of(random, x, 5, Window((1, 1), (1, 1), (0, 0), (0, 0), (1, 1)), 1, extreme=False, real=False)
    inner = replace(inner, outputs=(replace(inner.output, name="inner", coding=Coding(np.float32(0.05), 30)),))
    moved = replace(inner.output, name="moved", coding=Coding(np.float32(0.05), 200))
    table = LookupTable(node="n", inputs=inner.outputs, outputs=(moved,), table=np.arange(256, dtype=np.uint8))
    layer = layer_of(random, moved, 6, Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 1, extreme=False, real=False)
    program = Program("net", (x,), layer.outputs, (inner, table, layer))

    smaller, feeds = simplify(program, pairs=True), {"x": bytes_like(random, x.shape)}
    expected = run(program, feeds)
    np.testing.assert_array_equal(run(smaller, feeds)[layer.output.name], expected[layer.output.name])
    assert_same(build(smaller), feeds, expected)
