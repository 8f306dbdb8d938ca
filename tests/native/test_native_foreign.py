"""Files as other tools write them: scales of channels for activations, weights of 2, 4 and 9 bits, codes that are gathered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import EXAMPLES, assert_same
from networks import IR_VERSIONS, Net
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.cli import main
from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import FloatLayer, Layer
from fcdeploy.native.program.steps import Program
from fcdeploy.native.reading.operators import OPERATORS, read_program
from fcdeploy.runtime.session import Session

FEW = settings(max_examples=EXAMPLES // 3, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
Array = np.ndarray[Any, Any]


def read(net: Net | onnx.ModelProto) -> tuple[Program, ir.Model]:
    model = ir.from_proto(net.model() if isinstance(net, Net) else net)
    name_everything(model.graph)
    return read_program(model, "net"), model


def check(net: Net | onnx.ModelProto, feeds: dict[str, Array], *, apart: float = 0.0) -> Program:
    """The program gives what onnxruntime's plain kernels do but for one in a hundred that is `apart`; native code its bits."""
    program, model = read(net)
    found = run(program, feeds)
    assert_same(build(program), feeds, found)
    for tensor, wanted in zip(program.outputs, Session(model, threads=1, optimize=False).run(feeds), strict=True):
        got = found[tensor.name]
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 + apart)
        assert np.count_nonzero(~np.isclose(got, wanted, rtol=1e-4, atol=1e-5)) <= got.size // 100
    return program


def as_bytes(net: Net, real: str, scale: Any, zero: Any, dtype: Any = np.uint8, axis: int = 1) -> str:
    """Through a QuantizeLinear and a DequantizeLinear; `scale` and `zero` may be lists, one each a channel."""
    pair, more = (net.constant(scale), net.constant(zero, dtype)), {"axis": axis} if np.ndim(scale) else {}
    return net.op("DequantizeLinear", net.op("QuantizeLinear", real, *pair, **more), *pair, **more)


def draw(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


# --- activations with a scale for each channel, as NNCF writes them in front of depthwise layers ---


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 0), (np.uint8, 255), (np.int8, -128), (np.int8, 3)])
def test_scales_of_channels_around_depthwise_layers(dtype: Any, zero: int) -> None:
    """They become a part of the layers' factors: no step computes in float."""
    net = Net()
    scales = [np.array([0.011, 0.023, 0.037, 0.05], np.float32) * k for k in (1.0, 1.7)]
    zeros = [zero] * 4
    x = as_bytes(net, net.input("x", 3, 7, 6), 0.02, 128)
    taps = [net.constant(net.random.integers(-127, 128, shape), np.int8) for shape in ((4, 3, 1, 1), (8, 1, 3, 3))]
    weights = [net.op("DequantizeLinear", each, net.constant(np.linspace(0.002, 0.004, n)), axis=0)
               for each, n in zip(taps, (4, 8), strict=True)]  # fmt: skip
    first = net.op("Conv", x, weights[0], net.constant(net.normal(4)))
    if zero != 255:
        first = net.op("Relu", first)
    coded = as_bytes(net, first, scales[0], zeros, dtype)
    second = net.op("Conv", coded, weights[1], net.constant(net.normal(8)), group=4, pads=[1] * 4, strides=[2, 1])
    net.output(as_bytes(net, second, np.repeat(scales[1], 2), [zero] * 8, dtype))
    program = check(net, {"x": draw((3, 7, 6))}, apart=0.1)
    assert not list_float_steps(program) and sum(isinstance(step, Layer) for step in program.steps) == 2


def test_scales_of_channels_elsewhere() -> None:
    """Of floats, of bytes, in front of a layer that mixes channels, behind a clip that ends elsewhere in each, and moved."""
    scales = np.array([0.011, 0.023, 0.037], np.float32)
    net = Net()
    x = net.input("x", 3, 5, 4)
    coded = as_bytes(net, x, scales, [7, 7, 7])
    again = as_bytes(net, net.op("Sigmoid", coded), scales / 8, [0, 0, 0])
    mixed = net.op("Conv", again, net.constant(net.normal(2, 3, 1, 1)))
    clipped = net.op("Clip", net.conv(x, 3, 3), net.constant(0.0), net.constant(2.0))
    moved = net.op(
        "Transpose", net.op("Slice", coded, *(net.constant([n], np.int64) for n in (1, 3, 1))), perm=[0, 2, 3, 1]
    )
    picked = net.op("Gather", coded, net.constant([2, 0], np.int64), axis=1)
    net.output(mixed, as_bytes(net, clipped, scales, [0, 0, 0]), moved, picked)
    check(net, {"x": draw((3, 5, 4))}, apart=0.04)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("coded", [False, True])
def test_a_bias_of_integers_in_units_of_its_own(op: str, coded: bool) -> None:
    """Its scale is what the file says, be it the product of the others or not."""
    net, outs = Net(), 6
    real = net.input("x", 5) if op == "Gemm" else net.input("x", 5, 4, 3)
    x = as_bytes(net, real, 0.02, 100)
    shape = {"Conv": (outs, 5, 3, 3), "ConvTranspose": (5, outs, 3, 3), "Gemm": (5, outs)}[op]
    weight = net.op(
        "DequantizeLinear", net.constant(net.random.integers(-127, 128, shape), np.int8), net.constant(0.004)
    )
    integers = net.constant(net.random.integers(-900, 900, outs), np.int32)
    scales = net.constant(np.linspace(0.0005, 0.003, outs), np.float32)
    bias = net.op("DequantizeLinear", integers, scales, axis=0)
    y = net.op(op, x, weight, bias, **({} if op == "Gemm" else {"strides": [2, 2], "pads": [1] * 4}))
    net.output(as_bytes(net, y, 0.05, 90) if coded else y)
    program = check(net, {"x": draw((5,) if op == "Gemm" else (5, 4, 3))}, apart=0.06 if coded else 0.0)
    assert not list_float_steps(program)


@pytest.mark.parametrize("alive", [False, True])
def test_a_dead_channel_has_a_bias_of_32_bits(alive: bool) -> None:
    """As onnxruntime's quantizer writes one, with a scale of next to nothing; with weights its sums would leave 32 bits."""
    net = Net()
    x, taps = as_bytes(net, net.input("x", 3, 5, 4), 0.02, 100), net.random.integers(-127, 128, (4, 3, 3, 3))
    taps[2] = alive
    bias = np.array([500, -30, int(0.9999 * 2**31) if not alive else 2**31 - 1, 0])
    scales = np.array([0.004, 0.003, 1e-8, 0.002], np.float32)
    weight = net.op("DequantizeLinear", net.constant(taps, np.int8), net.constant(scales), axis=0)
    unit = net.constant(np.float32(0.02) * scales)
    y = net.op("Conv", x, weight, net.op("DequantizeLinear", net.constant(bias, np.int32), unit, axis=0))
    net.output(as_bytes(net, y, 0.05, 90))
    if alive:
        with fails("its sums of 27 products and the bias can leave 32 bits"):
            read(net)
    else:
        check(net, {"x": draw((3, 5, 4))}, apart=0.06)


@pytest.mark.parametrize(
    ("scale", "zero", "dtype", "axis", "why"),
    [
        (
            [0.1, 0.2],
            [1, 2],
            np.uint8,
            1,
            "it has 2 scales of activations that are not those of channels with one zero point",
        ),
        (
            [0.1, 0.2],
            [1, 1],
            np.uint8,
            2,
            "it has 2 scales of activations that are not those of channels with one zero point",
        ),
        (0.1, 0, np.int16, 1, "it makes int16 of activations, expected uint8 or int8"),
    ],
)
def test_codings_without_kernels(scale: Any, zero: Any, dtype: Any, axis: int, why: str) -> None:
    net = Net(opset=21)
    net.output(as_bytes(net, net.input("x", 2, 2), scale, zero, dtype, axis))
    with fails(f"node 'quantizelinear0' is a QuantizeLinear that cannot be compiled: {why}"):
        read(net)


# --- weights ---


@FEW
@given(seed=SEEDS, rank=st.integers(1, 2))
def test_weights_of_nine_bits_in_windows_whose_pixels_are_apart(seed: int, rank: int) -> None:
    """Bytes less a zero point, depthwise, in groups or dilated: the sums are those of torch in float64."""
    random = np.random.default_rng(seed)
    groups, each, times = (int(n) for n in (random.integers(1, 5), random.integers(1, 3), random.integers(1, 3)))
    kernel, space, strides, dilations = (
        tuple(int(n) for n in random.integers(low, high, rank)) for low, high in ((1, 4), (7, 11), (1, 3), (1, 3))
    )
    pads = tuple(int(n) for n in random.integers(0, 2, rank))
    taps = random.integers(0, 256, (groups * times, each, *kernel))
    zero = int(random.choice([0, 100, 255]))
    net = Net()
    x = net.input("x", groups * each, *space)
    one = net.constant(0.02), net.constant(99, np.uint8)
    real = net.op("DequantizeLinear", net.op("QuantizeLinear", x, *one), *one)
    weight = net.op("DequantizeLinear", net.constant(taps, np.uint8), net.constant(0.01), net.constant(zero, np.uint8))
    more = {"group": groups, "strides": strides, "dilations": dilations, "pads": (*pads, *pads)}
    net.output(net.op("Conv", real, weight, **more))
    program, _ = read(net)
    assert not any(isinstance(step, FloatLayer) for step in program.steps)
    feeds = {"x": draw((groups * each, *space), seed)}
    found = run(program, feeds)
    assert_same(build(program), feeds, found)

    codes = np.clip(np.rint(feeds["x"] / np.float32(0.02)) + 99, 0, 255) - 99
    function: Any = torch.nn.functional.conv1d if rank == 1 else torch.nn.functional.conv2d
    sums = function(*(torch.tensor(n, dtype=torch.float64) for n in (codes, taps - zero)), stride=strides, padding=pads,
                    dilation=dilations, groups=groups).numpy()  # fmt: skip
    unit = np.float32(np.float32(0.02) * np.float32(0.01))
    np.testing.assert_array_equal(found[program.outputs[0].name], sums.astype(np.float32) * unit)


@pytest.mark.parametrize(
    "part", [{"starts": [1], "ends": [4], "axes": [1]}, {"starts": [8], "ends": [-10], "axes": [3], "steps": [-2]}]
)
def test_weights_of_nine_bits_on_pixels_that_are_seen_in_a_larger_image(part: dict[str, list[int]]) -> None:
    """A Slice is no work: behind it pixels do not lie side by side."""
    net = Net()
    whole = as_bytes(net, net.conv(as_bytes(net, net.input("x", 6, 9, 9), 0.03, 128), 6, 6), 0.03, 128)
    seen = net.op("Slice", whole, *(net.constant(numbers, np.int64) for numbers in part.values()))
    channels = 3 if part["axes"] == [1] else 6
    taps = net.constant(net.random.integers(0, 256, (4, channels, 3, 3)), np.uint8)
    net.output(net.op("Conv", seen, net.op("DequantizeLinear", taps, net.constant(0.004), net.constant(3, np.uint8))))
    check(net, {"x": draw((6, 9, 9))}, apart=0.1)


def pack(rows: Array, bits: int) -> Array:
    """Numbers of a row side by side in bytes, the lowest bits first."""
    packed = np.zeros((*rows.shape[:-1], -(-rows.shape[-1] * bits // 8)), np.uint8)
    for i in range(rows.shape[-1]):
        packed[..., i * bits // 8] |= (rows[..., i] << (i * bits % 8)).astype(np.uint8)
    return packed


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "floats"])
def test_weights_in_blocks(bits: int, zeros: str) -> None:
    """MatMulNBits, against the numbers that its blocks stand for; the last block is not full."""
    random, outs, length, size = np.random.default_rng(0), 5, 40, 16
    blocks = -(-length // size)
    rows = random.integers(0, 1 << bits, (outs, blocks * size), np.uint8)
    scale = random.uniform(0.01, 0.02, (outs, blocks)).astype(np.float32)
    zero: Array = {
        "none": np.full((outs, blocks), 1 << (bits - 1)), "packed": random.integers(0, 1 << bits, (outs, blocks)),
        "floats": random.normal(size=(outs, blocks)).astype(np.float32),
    }[zeros]  # fmt: skip
    stored = {"none": [], "packed": [pack(zero.astype(np.uint8), bits).reshape(-1)], "floats": [zero]}[zeros]
    bias = random.normal(size=outs).astype(np.float32)
    held = [pack(rows.reshape(outs, blocks, size), bits), scale.reshape(-1), *stored]
    names = [f"w{n}" for n in range(len(held))]
    tensors = [numpy_helper.from_array(array, name) for name, array in zip(names, held, strict=True)]
    given_names = ["x", *names, *[""] * (5 - 1 - len(names)), "bias"]
    node = helper.make_node(
        "MatMulNBits",
        given_names,
        ["y"],
        "packed",
        domain="com.microsoft",
        N=outs,
        K=length,
        bits=bits,
        block_size=size,
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, n]) for name, n in (("x", length), ("y", outs))
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [*tensors, numpy_helper.from_array(bias, "bias")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    program, _ = read(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[17]))
    feeds = {"x": draw((3, length))}
    found = run(program, feeds)
    assert_same(build(program), feeds, found)
    real = (rows.reshape(outs, blocks, size) - zero[..., None]) * scale[..., None].astype(np.float64)
    wanted = feeds["x"] @ real.reshape(outs, -1)[:, :length].T + bias
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ((8, 4, 8, 4, -1), "its weights are computed at run time"),
        ((9, 4, 8, 4, 32), "its weights, scales or zero points are not those of 4 outputs in 2 blocks"),
        ((8, 4, 8, 2, 32), "its weights, scales or zero points are not those of 4 outputs in 2 blocks"),
        ((8, 4, 8, 4, 20), "its weights, scales or zero points are not those of 4 outputs in 2 blocks"),
    ],
)
def test_weights_in_blocks_that_do_not_fit(sizes: tuple[int, ...], why: str) -> None:
    """Bytes of a block, outputs, scales, bytes of zero points and how many inputs have a block named, -1 for an input."""
    (*lengths, named), net = sizes, Net()
    x = net.input("x", 32)
    shapes = ((lengths[1], 2, lengths[0]), lengths[2:3], lengths[3:4])
    held = [net.constant(np.ones(n), kind) for n, kind in zip(shapes, (np.uint8, np.float32, np.uint8), strict=True)]
    groups = net.input("groups", dtype=TensorProto.INT32) if named < 0 else net.constant(np.zeros(named), np.int32)
    node = helper.make_node(
        "MatMulNBits", [x, *held, groups], ["y"], "p", domain="com.microsoft", N=4, K=32, bits=4, block_size=16
    )
    ends = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([node], "g", net.inputs, [ends], net.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    with fails(f"node 'p' is a MatMulNBits that cannot be compiled: {why}"):
        read(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[17]))


def test_one_block_for_each_output_is_integers() -> None:
    """Of activations that are bytes."""
    net = Net()
    real = as_bytes(net, net.input("x", 32), 0.02, 128)
    held = (
        net.constant(net.random.integers(0, 256, (5, 1, 16)), np.uint8),
        net.constant(net.random.uniform(0.01, 0.02, 5)),
    )
    net.nodes.append(
        helper.make_node(
            "MatMulNBits", [real, *held], ["y"], "p", domain="com.microsoft", N=5, K=32, bits=4, block_size=32
        )
    )
    ends = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(net.nodes, "g", net.inputs, [ends], net.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    program, _ = read(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[17]))
    assert any(isinstance(step, Layer) for step in program.steps) and not list_float_steps(program)


@pytest.mark.parametrize("block", [0, 8])
def test_weights_of_four_bits(block: int) -> None:
    """Stored as such, with a scale for each output or each block, and without zero points."""
    net = Net(opset=21)
    real = as_bytes(net, net.input("x", 16), 0.02, 128)
    integers = net.random.integers(-8, 8, (16, 6))
    packed = helper.make_tensor("w", TensorProto.INT4, integers.shape, integers.reshape(-1).tolist())
    net.weights.append(packed)
    scale = net.constant(net.random.uniform(0.01, 0.02, (2, 6) if block else 6))
    more = {"axis": 0, "block_size": block} if block else {"axis": 1}
    net.output(net.op("MatMul", real, net.op("DequantizeLinear", "w", scale, **more)))
    program = check(net, {"x": draw((16,))})
    assert any(isinstance(step, Layer) for step in program.steps) == (not block)


# --- moves ---


def test_constant_indices_of_any_shape() -> None:
    """One, none, several axes; of floats, of bytes, along any axis, from the end."""
    net = Net()
    x = net.input("x", 4, 5)
    coded = as_bytes(net, x, 0.02, 128)
    indices = [np.int64(2), np.int64(-1), np.array([[0, 3], [-2, 1]]), np.array([1])]
    parts = [net.op("Gather", each, net.constant(index, np.int64), axis=axis)
             for each in (x, coded) for index in indices for axis in (1, -1)]  # fmt: skip
    net.output(*parts)
    check(net, {"x": draw((4, 5))})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_rows_of_codes(dtype: Any) -> None:
    """An embedding in bytes that is gathered first and dequantized behind, as onnxruntime's quantizer leaves it."""
    net = Net()
    rows = net.random.integers(*(-128, 128) if dtype == np.int8 else (0, 256), (7, 3))
    taken = net.op("Gather", net.constant(rows, dtype), net.input("tokens", 5, dtype=TensorProto.INT64))
    real = net.op(
        "DequantizeLinear", net.op("Transpose", taken, perm=[1, 0, 2]), net.constant(0.03), net.constant(9, dtype)
    )
    net.output(net.op("MatMul", real, net.constant(net.normal(3, 2))))
    check(net, {"tokens": np.array([[6, 0, -1, 3, 3]], np.int64)})


def read_one(op: str, constant: Any, dtype: Any, domain: str = "") -> Program:
    """An operator of an input (1, 4, 5) and a constant, which no checker has seen."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5]), helper.make_empty_tensor_value_info("y")]
    node = helper.make_node(op, ["x", "k"], ["y"], "n", domain=domain)
    held = numpy_helper.from_array(np.array(constant, dtype), "k")
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:], [held]), opset_imports=opsets, ir_version=8
    )
    return read_program(ir.from_proto(model), "net")


@pytest.mark.parametrize(
    ("op", "constant", "dtype", "why"),
    [
        (
            "Add",
            np.ones((4, 3)),
            np.float32,
            "its inputs have the shapes [1, 4, 5], [4, 3]: onnxruntime",
        ),
        ("Squeeze", [1], np.int64, "it leaves out axes [1] of [1, 4, 5], expected lengths of 1 there"),
        ("Gather", [7], np.int64, "its index 7 is out of range, expected 0 to 0"),
    ],
)
def test_shapes_that_do_not_fit(op: str, constant: Any, dtype: Any, why: str) -> None:
    with fails(f"node 'n' is a {op} that cannot be compiled: {why}"):
        read_one(op, constant, dtype)


@pytest.mark.parametrize("wrong", [ValueError("could not be broadcast"), IndexError("too many"), TypeError("no array")])
def test_a_defect_of_a_reader_is_no_limit_of_the_model(
    wrong: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What onnxruntime runs is not said to be impossible: the mistake is told as any other of ours."""

    def read_wrongly(*_: Any) -> None:
        raise wrong

    net = Net()
    coded = as_bytes(net, net.input("x", 4, 5), 0.02, 128)
    net.output(net.op("Concat", coded, as_bytes(net, net.op("Relu", coded), 0.02, 128), axis=1))
    for op in ("Relu", "Concat", "DequantizeLinear"):
        with monkeypatch.context() as patch:
            patch.setitem(OPERATORS, op, read_wrongly)
            with pytest.raises(type(wrong), match=str(wrong)):
                read(net)
            assert main(["compile", str(net.save(tmp_path / "net.onnx")), "--dry-run"]) == 2
        error, hint = capsys.readouterr().err.strip().splitlines()
        assert error == f"error: internal {type(wrong).__name__}: {wrong}"
        assert "please report it" in hint


def test_an_operator_of_another_domain_is_named_with_it() -> None:
    with fails("'n' is a Reorder that cannot be compiled: there is no kernel for this operator of com.microsoft.nchwc"):
        read_one("Reorder", [1], np.float32, "com.microsoft.nchwc")
