"""Operators of native code that came later: against torch, ONNX's reference evaluator, and onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import EXAMPLES, Machine, assert_same, library
from networks import Net
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import FloatLayer, Layer, Recurrent
from fcdeploy.native.program.steps import Interpolate, Pointwise, Program
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.layers import refuse_overflow
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.reading.reader import Reader
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.runtime.session import Session

FEW = settings(max_examples=EXAMPLES // 3, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
Array = np.ndarray[Any, Any]


def program_of(net: Net) -> tuple[Program, ir.Model]:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    return read_program(model, "net"), model


def check_floats(net: Net, feeds: dict[str, Array], *, native: bool = True) -> Program:
    """The program and native code give what ONNX's reference evaluator does."""
    program, _ = program_of(net)
    found = run(program, feeds)
    for tensor, wanted in zip(program.outputs, ReferenceEvaluator(net.model()).run(None, feeds), strict=True):
        size = float(np.abs(wanted).max())
        np.testing.assert_allclose(found[tensor.name], wanted, rtol=1e-4, atol=1e-5 * size)
    if native:
        assert_same(build(program), feeds, found)
    return program


def between_bytes(net: Net, shape: tuple[int, ...], operator: Callable[[str], str], *, scale: float = 0.05) -> None:
    """x, as bytes, through an operator, as bytes again."""
    x = net.input("x", *shape)
    one, zero = net.constant(0.02), net.constant(100, np.uint8)
    real = net.op("DequantizeLinear", net.op("QuantizeLinear", x, one, zero), one, zero)
    to, middle = net.constant(scale), net.constant(128, np.uint8)
    net.output(net.op("DequantizeLinear", net.op("QuantizeLinear", operator(real), to, middle), to, middle))


def check_bytes(net: Net, feeds: dict[str, Array], *, ties: int = 1) -> Program:
    """The program gives what onnxruntime does but for ties, and native code the program's bytes."""
    program, model = program_of(net)
    found = run(program, feeds)
    (wanted,) = Session(model, threads=1).run(feeds)
    assert found[program.outputs[0].name].shape == wanted.shape
    assert np.count_nonzero(found[program.outputs[0].name] != wanted) <= ties
    assert_same(build(program), feeds, found)
    return program


@FEW
@given(seed=SEEDS, rank=st.integers(1, 2))
def test_transposed_convolutions(seed: int, rank: int) -> None:
    """Of drawn strides, pads, dilations and kernels, in integers, as torch computes them from the same bytes."""
    random = np.random.default_rng(seed)
    space = tuple(int(n) for n in random.integers(2, 7, rank))
    kernel, strides = (tuple(int(n) for n in random.integers(1, 5, rank)) for _ in range(2))
    dilations = tuple(int(n) for n in random.integers(1, 3, rank))
    pads = tuple(int(random.integers(0, d * (k - 1) + 1)) for k, d in zip(kernel, dilations, strict=True))
    extra = tuple(int(random.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True))
    out = [s * (n - 1) + e + d * (k - 1) + 1 - 2 * p
           for s, n, e, d, k, p in zip(strides, space, extra, dilations, kernel, pads, strict=True)]  # fmt: skip
    if min(out) < 1:
        return
    groups = int(random.choice([1, 1, 2]))
    inputs, outs = groups * int(random.integers(1, 5)), int(random.integers(1, 15))
    integers = random.integers(-127, 128, (inputs, outs, *kernel))
    scale = random.uniform(0.001, 0.004, outs).astype(np.float32)
    bias = random.normal(size=groups * outs).astype(np.float32)
    net = Net()
    weight = net.op("DequantizeLinear", net.constant(integers, np.int8), net.constant(scale), axis=1)
    more = {
        "strides": strides, "dilations": dilations, "pads": (*pads, *pads), "output_padding": extra, "group": groups,
    }  # fmt: skip
    between_bytes(net, (inputs, *space), lambda x: net.op("ConvTranspose", x, weight, net.constant(bias), **more))
    program, _ = program_of(net)
    kinds = {type(step) for step in program.steps}
    assert Layer in kinds and FloatLayer not in kinds
    feeds = {"x": random.normal(size=(1, inputs, *space)).astype(np.float32)}
    found = run(program, feeds)
    assert_same(build(program), feeds, found)

    real = np.clip(np.rint(feeds["x"] / np.float32(0.02)) + 100, 0, 255) - 100
    function: Any = torch.nn.functional.conv_transpose1d if rank == 1 else torch.nn.functional.conv_transpose2d
    sums = function(*(torch.tensor(each, dtype=torch.float64) for each in (real, integers)), stride=strides, padding=pads,
                    output_padding=extra, groups=groups, dilation=dilations).numpy()  # fmt: skip
    channels = (1, -1, *[1] * rank)
    wanted = sums * 0.02 * np.tile(scale, groups).reshape(channels) + bias.reshape(channels)
    apart = np.abs(np.rint(found[program.outputs[0].name] / 0.05) - np.clip(np.rint(wanted / 0.05), -128, 127))
    assert apart.max() <= 1 and np.count_nonzero(apart) <= max(1, apart.size // 100)


def test_a_transposed_convolution_on_floats() -> None:
    random = np.random.default_rng(0)
    net = Net()
    x = net.input("x", 6, 4, 5)
    net.output(
        net.op("ConvTranspose", x, net.constant(random.normal(size=(6, 4, 3, 2))), strides=[2, 1], pads=[1, 0, 0, 1])
    )
    check_floats(net, {"x": random.normal(size=(1, 6, 4, 5)).astype(np.float32)})


@pytest.mark.parametrize("how", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_linear_resize(how: str) -> None:
    random = np.random.default_rng(0)
    for shape, out in (((3, 5, 4), (1, 3, 10, 7)), ((19, 6), (1, 19, 13)), ((2, 8, 8), (1, 2, 3, 5))):
        net, floats = Net(), Net()

        def resize(net: Net, x: str, out: tuple[int, ...] = out) -> str:
            more = {"mode": "linear", "coordinate_transformation_mode": how}
            return net.op("Resize", x, "", "", net.constant(out, np.int64), **more)

        floats.output(resize(floats, floats.input("x", *shape)))
        feeds = {"x": random.normal(size=(1, *shape)).astype(np.float32)}
        check_floats(floats, feeds)
        between_bytes(net, shape, lambda x, net=net: resize(net, x), scale=0.017)  # type: ignore[misc]
        program = check_bytes(net, feeds, ties=3)
        assert next(s for s in program.steps if isinstance(s, Interpolate)).output.dtype == "uint8"


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers(kind: str, direction: str) -> None:
    """torch's own LSTM and GRU are the reference of the plain direction; onnxruntime is of all."""
    random = np.random.default_rng(1)
    gates, units, inputs, times = (4 if kind == "LSTM" else 3), 21, 5, 6
    directions = 2 if direction == "bidirectional" else 1
    weights = [random.normal(size=(directions, gates * units, n)) * 0.3 for n in (inputs, units)]
    bias = random.normal(size=(directions, 2 * gates * units)) * 0.3
    for start in ("", "h", "c", "hc") if kind == "LSTM" else ("", "h"):  # the states that it starts from
        for last in (0, 1) if kind == "GRU" else (0,):
            net = Net()
            x = net.input("x", inputs)
            sequence = net.op("Reshape", x, net.constant([times, 1, inputs], np.int64))
            states = [
                net.constant(random.normal(size=(directions, 1, units))) if each in start else "" for each in "hc"
            ][: gates - 2]
            more = {"linear_before_reset": last} if kind == "GRU" else {}
            outputs = net.ops(
                kind, sequence, *(net.constant(each) for each in (*weights, bias)), *(["", *states] if start else []),
                outputs=gates - 1, hidden_size=units, direction=direction, **more,
            )  # fmt: skip
            net.output(*outputs)
            net.inputs[0].type.tensor_type.shape.dim[0].dim_value = times
            program, model = program_of(net)
            feeds = {"x": random.normal(size=(times, inputs)).astype(np.float32)}
            found = run(program, feeds)
            for tensor, wanted in zip(program.outputs, Session(model, threads=1).run(feeds), strict=True):
                np.testing.assert_allclose(found[tensor.name], wanted, rtol=1e-4, atol=2e-5)
            assert_same(build(program), feeds, found)


def test_a_recurrent_layer_keeps_weights_that_are_stored_as_bytes() -> None:
    """Its inputs' products are integers; torch computes the same from the real numbers."""
    random = np.random.default_rng(2)
    units, inputs, times = 9, 7, 5
    integers = [random.integers(-127, 128, (1, 4 * units, n)) for n in (inputs, units)]
    net = Net()
    x = net.input("x", inputs)
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = times
    one, zero = net.constant(0.02), net.constant(100, np.uint8)
    real = net.op("DequantizeLinear", net.op("QuantizeLinear", x, one, zero), one, zero)
    sequence = net.op("Reshape", real, net.constant([times, 1, inputs], np.int64))
    scale = random.uniform(0.002, 0.004, (1, 4 * units, 1)).astype(np.float32)
    stored = [
        net.op("Mul", net.op("Cast", net.constant(each, np.int8), to=1), net.constant(scale)) for each in integers
    ]
    net.output(net.ops("LSTM", sequence, *stored, outputs=2, hidden_size=units)[1])
    program, _ = program_of(net)
    step = next(step for step in program.steps if isinstance(step, Recurrent))
    assert step.weight.dtype == np.int8 and any(isinstance(s, Layer) for s in program.steps)
    feeds = {"x": random.normal(size=(times, inputs)).astype(np.float32)}
    found = run(program, feeds)
    assert_same(build(program), feeds, found)

    layer = torch.nn.LSTM(inputs, units, bias=False, dtype=torch.float64)
    order = [0, 2, 3, 1]  # ONNX has i o f c, torch i f c o
    for parameter, each in zip((layer.weight_ih_l0, layer.weight_hh_l0), integers, strict=True):
        rows = (each[0] * scale[0]).reshape(4, units, -1)[order]
        parameter.data = torch.tensor(rows.reshape(4 * units, -1), dtype=torch.float64)
    codes = np.clip(np.rint(feeds["x"] / np.float32(0.02)) + 100, 0, 255)
    with torch.no_grad():
        _, (state, _) = layer(torch.tensor((codes.astype(np.float64) - 100) * 0.02).reshape(times, 1, inputs))
    np.testing.assert_allclose(found[program.outputs[0].name], state.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru, reset last"])
@pytest.mark.parametrize("units", [1, 16, 37, 1030])
def test_a_recurrent_layer_of_bytes(kind: str, units: int) -> None:
    """ONNX's equations in float64: whole tiles of units, parts of one, more than are added in one piece, states beyond 1."""
    random = np.random.default_rng(units)
    gates, times, batch = (4 if kind == "lstm" else 3), 3, 2
    rows = (random.normal(size=(gates * units, units)) * 127 / 4).clip(-128, 127).astype(np.int8)
    rows[0], rows[-1] = -128, 127
    x = Tensor("x", (times, batch, gates * units), "float32")
    own = replace(x, name="own")  # which is overwritten
    starts = [Tensor(f"start{n}", (batch, units), "float32") for n in range(gates - 2)]
    outputs = [
        Tensor(f"y{n}", (times, batch, units) if n == 0 else (batch, units), "float32") for n in range(gates - 1)
    ]
    step = Recurrent(
        node="r", inputs=(own, *starts), outputs=tuple(outputs[: gates - 1]), kind="lstm" if kind == "lstm" else "gru",
        weight=rows, scale=random.uniform(0.5, 1.5, gates * units).astype(np.float32) / np.float32(64 * np.sqrt(units)),
        bias=random.normal(size=gates * units).astype(np.float32), reset_last=kind.endswith("last"),
    )  # fmt: skip
    steps = (Pointwise(node="n", inputs=(x,), outputs=(own,), kind="Neg"), step)
    program = Program("drawn", (x, *starts), step.outputs, steps)
    feeds = {tensor.name: random.normal(size=tensor.shape).astype(np.float32) * 2 for tensor in program.inputs}
    assert_same(build(program), feeds, run(program, feeds))

    feeds[starts[0].name][0, 0] = np.nan  # which no digit is
    result = Machine(build(program), library("plain")).run(feeds)[outputs[0].name]
    assert np.isnan(result[:, 0]).all() and not np.isnan(result[:, 1]).any()


@pytest.mark.parametrize("reset_last", [True, False])
def test_a_first_state_that_is_large_and_left_behind(reset_last: bool) -> None:
    """Of a GRU whose update gates are shut: the states behind it are as exact as if it had never been."""
    random, units, times = np.random.default_rng(0), 24, 4
    own = Tensor("own", (times, 1, 3 * units), "float32")
    start, y = Tensor("start", (1, units), "float32"), Tensor("y", (times, 1, units), "float32")
    rows = random.integers(-100, 100, (3 * units, units)).astype(np.int8)
    rows[:units] = 0
    step = Recurrent(
        node="r", inputs=(own, start), outputs=(y, replace(start, name="last")), kind="gru", weight=rows,
        scale=np.full(3 * units, 2e-3, np.float32), bias=np.zeros(3 * units, np.float32), reset_last=reset_last,
    )  # fmt: skip
    x = replace(own, name="x")
    program = Program("drawn", (x, start), (y,), (Pointwise(node="n", inputs=(x,), outputs=(own,), kind="Neg"), step))
    feeds = {"x": random.normal(size=x.shape).astype(np.float32), "start": np.full((1, units), 1e4, np.float32)}
    feeds["x"][..., :units] = 30
    with np.errstate(over="ignore"):  # its first sums are beyond what exp takes
        expected = run(program, feeds)
    assert_same(build(program), feeds, expected)


def test_layer_normalization_of_any_length() -> None:
    random = np.random.default_rng(3)
    for shape, axis in (((4, 37), -1), ((3, 5, 8), 2), ((6, 11), 1)):
        net = Net()
        x = net.input("x", *shape)
        rows = (1, *shape)[axis:]
        factors = [net.constant(random.normal(size=rows)) for _ in range(2)]
        net.output(net.op("LayerNormalization", x, *factors, axis=axis, epsilon=1e-3))
        check_floats(net, {"x": 3 + random.normal(size=(1, *shape)).astype(np.float32)})


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_padding_by_the_elements_themselves(mode: str) -> None:
    net = Net()
    x = net.input("x", 3, 5, 4)
    net.output(net.op("Pad", x, net.constant([0, 0, 1, 2, 0, 0, 3, 1], np.int64), mode=mode))
    check_floats(net, {"x": np.random.default_rng(4).normal(size=(1, 3, 5, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    ("op", "more"), [("DepthToSpace", {"mode": "DCR"}), ("DepthToSpace", {"mode": "CRD"}), ("SpaceToDepth", {})]
)
def test_depth_and_space(op: str, more: dict[str, Any]) -> None:
    net = Net()
    x = net.input("x", 8, 4, 6)
    net.output(net.op(op, x, blocksize=2, **more))
    check_floats(net, {"x": np.random.default_rng(5).normal(size=(1, 8, 4, 6)).astype(np.float32)})


def test_forms_without_a_kernel_are_named() -> None:
    for mode, why in (
        ("linear", "its mode is 'linear', expected 'nearest' or 'linear' without"),
        ("cubic", "it keeps the ratio of its axes, or has"),
    ):
        net = Net(opset=18)
        x = net.input("x", 3, 5, 4)
        net.output(net.op("Resize", x, "", net.constant([1, 1, 2, 2]), mode=mode, antialias=1, name="smooth"))
        with fails(f"node 'smooth' is a Resize that cannot be compiled: {why} antialias"):
            program_of(net)
    net = Net()
    x = net.input("x", 5)
    weights = [net.constant(np.ones((1, 12, n))) for n in (5, 3)]
    sequence = net.op("Reshape", x, net.constant([1, 1, 5], np.int64))
    net.output(net.op("LSTM", sequence, *weights, hidden_size=3, activations=["Relu", "Tanh", "Tanh"], name="odd"))
    with fails("node 'odd' is a LSTM that cannot be compiled: its activations are not the usual ones, or it clips"):
        program_of(net)


@FEW
@given(seed=SEEDS)
def test_products_of_two_tensors(seed: int) -> None:
    """As attention has them: batched, broadcast, one of them transposed; in integers, and as floats."""
    random = np.random.default_rng(seed)
    m, k, n = (int(each) for each in random.integers(1, 40, 3))
    front = [(int(random.choice([1, each])), each) for each in random.integers(1, 4, int(random.integers(0, 2)))]
    left, right = (tuple(int(each[side]) for each in front) for side in (0, 1))
    for real in (False, True):
        net = Net()
        inputs = net.input("x", *left, m, k), net.input("z", *right, n, k)
        feeds = {"x": random.normal(size=(1, *left, m, k)).astype(np.float32),
                 "z": random.normal(size=(1, *right, n, k)).astype(np.float32)}  # fmt: skip
        one, zero = net.constant(0.03), net.constant(int(random.integers(90, 160)), np.uint8)
        to = net.constant(0.2), net.constant(120, np.uint8)
        a, b = inputs if real else (
            net.op("DequantizeLinear", net.op("QuantizeLinear", each, one, zero), one, zero) for each in inputs
        )  # fmt: skip
        axes = list(range(len(right) + 3))
        b = net.op("Transpose", b, perm=[*axes[:-2], axes[-1], axes[-2]])
        y = net.op("MatMul", a, b)
        if real:
            net.output(y)
            check_floats(net, feeds)
            continue
        net.output(net.op("DequantizeLinear", net.op("QuantizeLinear", y, *to), *to))
        program = check_bytes(net, feeds, ties=1 + m * n // 100)
        assert list_float_steps(program) == []


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_rows_by_indices_of_either_size(dtype: Any) -> None:
    """Also those that count from the end."""
    net = Net()
    ids = net.input("ids", 6, dtype=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    net.output(net.op("Gather", net.constant(net.normal(10, 3)), ids))
    check_floats(net, {"ids": np.array([[0, 9, 3, -1, 3, 7]], dtype)})


def refuse(net: Net) -> str:
    """Why the network cannot be compiled."""
    with pytest.raises(FcdeployError) as caught:
        program_of(net)
    return caught.value.message


def test_constants_are_computed_by_plain_operators_alone() -> None:
    """What is random, has graphs of its own or is another tool's is named as any other operator is; nothing raises."""
    random, branch, failing = Net(), Net(), Net()
    random.output(random.op("Add", random.input("x", 4), random.op("RandomNormal", shape=[1, 4])))
    x = branch.input("x", 4)
    bodies = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, [x], [f"{op}_out"])], name, [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, [1, 4])],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }  # fmt: skip
    branch.output(branch.op("If", branch.constant(True, np.bool_), **bodies))
    wrong = failing.op("Gather", failing.constant(np.ones(3)), failing.constant([7, 7, 7], np.int64), name="rows")
    failing.output(failing.op("Add", failing.input("x", 3), wrong))
    assert "is a RandomNormal that cannot be compiled: there is no kernel" in refuse(random)
    assert "is a If that cannot be compiled: there is no kernel" in refuse(branch)
    assert "'rows' is a Gather that cannot be compiled: it cannot be computed of its constants" in refuse(failing)


def test_constants_are_what_the_file_computes_of_them() -> None:
    """Of a pool with other pads on one axis than on the other, and of a Softmax over all axes from its own on."""
    random = np.random.default_rng(3)
    net = Net(opset=11)
    pooled = net.op("MaxPool", net.constant(random.normal(size=(1, 2, 4, 4))), kernel_shape=[3, 3], pads=[0, 1, 2, 0])
    shares = net.op("Softmax", pooled, axis=1)
    net.output(net.op("Add", net.input("x", 2, 4, 3), shares))
    feeds = {"x": random.normal(size=(1, 2, 4, 3)).astype(np.float32)}
    program, model = program_of(net)
    (wanted,) = Session(model, threads=1).run(feeds)
    np.testing.assert_allclose(run(program, feeds)[program.outputs[0].name], wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT16])
def test_types_without_kernels_are_named(dtype: int) -> None:
    net = Net()
    net.output(net.op("Abs", net.input("x", 4, dtype=dtype)))
    name = helper.tensor_dtype_to_np_dtype(dtype).name
    assert refuse(net) == f"input 'x' is {name}, expected one of uint8, int8, float32, int32, int64, bool"


def test_sums_and_exponentials_of_floats_are_counted_as_float() -> None:
    net = Net()
    x = net.input("x", 3, 4, 4)
    pooled = net.op("AveragePool", net.op("MaxPool", x, kernel_shape=[2, 2]), kernel_shape=[2, 2])
    net.output(net.op("Softmax", net.op("Flatten", pooled)))
    program = check_floats(net, {"x": net.normal(1, 3, 4, 4)}, native=False)
    assert [each.partition("': ")[2] for each in list_float_steps(program)] == ["average of 2x2", "softmax along 1"]


def test_weights_of_nine_bits_are_floats_in_recurrent_layers() -> None:
    """Bytes up to 254 with the zero point 0: as int8 half of them would have another sign."""
    net = Net(opset=21)
    scale, zero = net.constant(0.001), net.constant(0, np.uint8)
    w, r = (
        net.op("DequantizeLinear", net.constant(net.random.integers(0, 255, (1, 16, 4)), np.uint8), scale, zero)
        for _ in range(2)
    )
    net.output(net.op("LSTM", net.input("x", 2, 4), w, r, hidden_size=4))
    program = check_floats(net, {"x": net.normal(1, 2, 4)}, native=False)
    assert [step.scale for step in program.steps if isinstance(step, Recurrent)] == [None]


def test_a_softmax_in_pieces_with_its_axes_as_an_attribute() -> None:
    """As it was written before operator set 13, beside a node that has no inputs."""
    net = Net(opset=11)
    x = net.op("Exp", net.input("x", 4))
    net.output(net.op("Div", x, net.op("ReduceSum", x, axes=[1])))
    check_floats(net, {"x": net.normal(1, 4)}, native=False)


def test_what_is_left_out_is_told_from_what_is_empty_or_computed() -> None:
    net, padded = Net(), Net()
    x = net.input("x", 4)
    net.output(net.op("ReduceSum", net.op("Abs", x), net.constant([], np.int64), noop_with_empty_axes=1))
    check_floats(net, {"x": net.normal(1, 4)}, native=False)
    x = padded.input("x", 4)
    padded.output(padded.op("Pad", x, padded.constant([0, 1, 0, 1], np.int64), padded.op("ReduceMax", x, keepdims=0)))
    assert "what it fills with is computed at run time" in refuse(padded)


def test_sums_of_the_lowest_byte_are_bounded() -> None:
    """abs(-128) in int8 is -128, which bounds nothing."""
    reader, node = Reader(), ir.Node("", "Gemm", [], name="dense")
    longest = 2**31 // (255 * 128)
    refuse_overflow(reader, node, np.full((2, longest), -128, np.int8), np.zeros(2, np.int64))
    with fails("'dense' is a Gemm that cannot be compiled: its sums of 70000 products"):
        refuse_overflow(reader, node, np.full((2, 70_000), -128, np.int8), np.zeros(2, np.int64))


def test_a_compiler_is_found_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder, and zig is told by the program's name, not by that of its folder."""
    (tmp_path / "zigs").mkdir()
    for name in ("gcc", "zig"):
        (tmp_path / "zigs" / name).write_text("#!/bin/sh\n")
        (tmp_path / "zigs" / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for words, cross in (
        ("./zigs/gcc -m64", False),
        ("./zigs/zig cc", True),
        (f"{sys.executable} -m ziglang cc", True),
    ):
        monkeypatch.setenv("CC", words)
        found = find_compiler()
        assert found.cross == cross and Path(found.command[0]).is_absolute()
    monkeypatch.setenv("CC", "gcc 'x")
    with fails('CC is "gcc \'x", which is no program'):
        find_compiler()
