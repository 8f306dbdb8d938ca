"""Operators that are others put together, against onnxruntime and ONNX's reference evaluator, and native code of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import EXAMPLES, assert_same
from networks import IR_VERSIONS, Net
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fcdeploy.graph.model import name_everything
from fcdeploy.native.build import build
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import FloatLayer, Layer
from fcdeploy.native.program.steps import Pool, Program
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.session import Session

FEW = settings(max_examples=EXAMPLES // 3, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
Array = np.ndarray[Any, Any]


def check(
    model: onnx.ModelProto, feeds: dict[str, Array], *, reference: bool = False, apart: float = 0.0, close: float = 1e-5
) -> Program:
    """What onnxruntime's plain kernels give, or ONNX's reference evaluator; one in fifty may be `apart`."""
    graph = ir.from_proto(model)
    name_everything(graph.graph)
    before = [node.op_type for node in graph.graph]
    program = read_program(graph, "net")
    assert [node.op_type for node in graph.graph] == before  # the model is left as it was
    found = run(program, feeds)
    wanted = (
        ReferenceEvaluator(model).run(None, feeds)
        if reference
        else Session(graph, threads=1, optimize=False).run(feeds)
    )
    for tensor, each in zip(program.outputs, wanted, strict=True):
        got = found[tensor.name]
        assert got.shape == each.shape
        size = float(np.abs(each[np.isfinite(each)]).max(initial=1e-6))
        np.testing.assert_allclose(got, each, rtol=1e-4, atol=close * size + apart)
        same = np.isclose(got, each, rtol=1e-4, atol=close * size, equal_nan=True)
        assert np.count_nonzero(~same) <= got.size // 50
    assert_same(build(program), feeds, found)
    return program


def as_bytes(net: Net, real: str, scale: float = 0.02, zero: int = 128) -> str:
    pair = net.constant(scale), net.constant(zero, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", real, *pair), *pair)


def draw(shape: Sequence[int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def of_one(
    shape: Sequence[int], write: Callable[[Net, str], str], *, opset: int = 17, on_bytes: bool = False
) -> onnx.ModelProto:
    net = Net(opset=opset)
    x = net.input("x", *shape)
    net.output(as_bytes(net, write(net, as_bytes(net, x)), 0.05) if on_bytes else write(net, x))
    end = helper.make_tensor_value_info(net.outputs[0], TensorProto.FLOAT, None)  # not all have an inference of shapes
    graph = helper.make_graph(net.nodes, "net", net.inputs, [end], net.weights)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS.get(opset, 10))


# --- normalizations and sums ---


@pytest.mark.parametrize("space", [(5,), (4, 3), (3, 2, 4)])
def test_instance_and_group_normalization(space: tuple[int, ...]) -> None:
    """With a QuantizeLinear behind it the factors of channels are a part of that."""

    def instance(net: Net, x: str) -> str:
        return net.op(
            "InstanceNormalization", x, net.constant(net.normal(6)), net.constant(net.normal(6)), epsilon=1e-3
        )

    for on_bytes in (False, True):
        check(of_one((6, *space), instance, on_bytes=on_bytes), {"x": draw((6, *space))}, apart=0.05 * on_bytes)
    for opset, factors in ((18, 3), (21, 6)):

        def group(net: Net, x: str, factors: int = factors) -> str:
            both = [net.constant(net.normal(factors)) for _ in range(2)]
            return net.op("GroupNormalization", x, *both, num_groups=3)

        model = of_one((6, *space), group, opset=opset)
        check(model, {"x": draw((6, *space))}, reference=opset == 18)


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_rms_normalization(axis: int) -> None:
    shape = (4, 3, 5)

    def write(net: Net, x: str) -> str:
        return net.op("RMSNormalization", x, net.constant(net.normal(*(1, *shape)[axis:])), axis=axis, epsilon=1e-4)

    check(of_one(shape, write, opset=23), {"x": draw(shape)}, reference=True)


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("MeanVarianceNormalization", {}), ("MeanVarianceNormalization", {"axes": [1, 3]}),
        ("LpNormalization", {"axis": 1, "p": 1}), ("LpNormalization", {"axis": -1, "p": 2}),
        *(("LRN", {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.5}) for size in (1, 3, 5)),
    ],
)  # fmt: skip
def test_other_normalizations(op: str, more: dict[str, Any]) -> None:
    check(of_one((6, 4, 3), lambda net, x: net.op(op, x, **more)), {"x": draw((6, 4, 3))})


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(op: str, keep: int) -> None:
    for axes in ([1], [-1, 1], *([None] if keep else [])):
        more = {} if axes is None else {"axes": axes}
        x = np.abs(draw((4, 3, 5))) + np.float32(0.1)
        check(of_one((4, 3, 5), lambda net, x, more=more: net.op(op, x, keepdims=keep, **more)), {"x": x})  # type: ignore[misc]
    if op == "ReduceLogSumExp":  # no exponential leaves float32, and rows of infinities are infinite
        large = draw((6, 3)) * np.float32(300)
        large[0, 0], large[0, 1], large[0, 2, 0], large[0, 3, 1] = -np.inf, np.inf, -np.inf, np.inf
        check(of_one((6, 3), lambda net, x: net.op(op, x, axes=[2])), {"x": large})
    none = of_one((4, 3), lambda net, x: net.op(op, x, keepdims=keep, noop_with_empty_axes=1), opset=18)
    check(none, {"x": np.abs(draw((4, 3))) + np.float32(0.1)})


@pytest.mark.parametrize(
    ("op", "more"), [("CumSum", {}), ("Trilu", {}), ("ReduceL1", {}), ("Einsum", {"equation": "bij->bji"})]
)
def test_sums_of_integers_have_no_kernel(op: str, more: dict[str, Any]) -> None:
    """They would come out as floats; of constants they are computed as the file says."""
    net = Net()
    given = [net.constant(1, np.int64)] if op == "CumSum" else []
    net.output(net.op(op, net.input("x", 3, 3, dtype=TensorProto.INT64), *given, **more))
    with fails(f"node '{op.lower()}0' is a {op} that cannot be compiled: it reads int64, expected floats"):
        read_program(ir.from_proto(net.model()), "net")


def test_constants_are_computed_not_put_together() -> None:
    net = Net()
    ones = net.constant(np.ones((3, 3)), np.int64)
    rows = net.op("Sub", net.op("CumSum", ones, net.constant(0, np.int64)), net.op("Trilu", ones))
    net.output(net.op("Gather", net.input("x", 4), rows, axis=1))
    check(net.model(), {"x": draw((4,))})


@pytest.mark.parametrize("axis", [1, -1])
def test_running_sums_and_triangles(axis: int) -> None:
    for more in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        model = of_one((5, 4), lambda net, x, more=more: net.op("CumSum", x, net.constant(axis, np.int64), **more))  # type: ignore[misc]
        check(model, {"x": draw((5, 4))})
        far = draw((5, 4))
        far[0, 1, 0], far[0, 2, 1], far[0, 3, 2], far[0, 1, 3], far[0, 3, 3] = np.inf, -np.inf, np.nan, np.inf, -np.inf
        check(model, {"x": far})  # what lies before an infinity is finite
        far[0, 0, 0], far[0, 4, 1] = np.finfo(np.float32).max, np.finfo(np.float32).max
        check(model, {"x": far})
    for upper in (0, 1):
        for k in (-2, 0, 1):
            write = lambda net, x, k=k, upper=upper: net.op("Trilu", x, net.constant(k, np.int64), upper=upper)  # noqa: E731
            check(of_one((5, 4), write), {"x": draw((5, 4))})  # type: ignore[arg-type]


# --- indices ---


@FEW
@given(seed=SEEDS)
def test_elements_by_constant_indices(seed: int) -> None:
    """GatherElements, GatherND, ScatterElements and ScatterND of drawn shapes, of floats and of bytes."""
    random = np.random.default_rng(seed)
    shape = (1, *(int(n) for n in random.integers(2, 5, 3)))
    axis = int(random.integers(1, 4))
    index = random.integers(-shape[axis], shape[axis], tuple(int(random.integers(1, n + 1)) for n in shape))
    count = int(random.integers(1, 4))
    rows = list(np.ndindex(*shape[:count]))
    picked = [rows[i] for i in random.choice(len(rows), min(len(rows), 3), replace=False)]
    batch = int(random.integers(0, 2))
    tuples = np.array(picked)[None] if batch else np.array(picked)
    in_batch = tuples[..., batch:] if count > batch else np.zeros((1, 2, 1), int)
    once = np.argsort(random.random(shape), axis=axis)  # no place twice
    net = Net(opset=18)
    x = net.input("x", *shape[1:])
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    for each in (x, as_bytes(net, x)):
        other = net.op("Neg", each)
        net.output(
            net.op("GatherElements", each, net.constant(index, np.int64), axis=axis),
            net.op("GatherND", each, net.constant(in_batch, np.int64), batch_dims=batch),
            net.op("ScatterElements", each, net.constant(once, np.int64), other, axis=axis),
            net.op("ScatterND", each, net.constant(np.array(picked), np.int64),
                   net.constant(random.normal(size=(len(picked), *shape[count:])))),
        )  # fmt: skip
    check(net.model(), {"x": draw(shape[1:], seed)})


def test_indices_that_are_computed_are_refused_in_words() -> None:
    net = Net()
    x = net.input("x", 3)
    net.output(net.op("GatherElements", x, net.op("ArgMax", x, axis=1, keepdims=1), axis=1, name="pick"))
    model = ir.from_proto(net.model())
    with fails("node 'pick' is a GatherElements that cannot be compiled: its indices are computed at run time"):
        read_program(model, "net")
    net = Net(opset=18)
    x = net.input("x", 3)
    net.output(
        net.op("ScatterElements", x, net.constant([[0]], np.int64), net.constant([[1.0]]), reduction="add", axis=1)
    )
    with fails("its reduction is 'add', expected 'none'"):
        read_program(ir.from_proto(net.model()), "net")


# --- Einsum ---


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("nij,njk->nik", [(3, 4), (4, 5)]), ("nij,nkj->nik", [(3, 4), (5, 4)]), ("nij,njk->nki", [(3, 4), (4, 5)]),
        ("nihd,njhd->nhij", [(3, 2, 4), (5, 2, 4)]), ("nhij,njhd->nihd", [(2, 3, 5), (5, 2, 4)]),
        ("nij->nji", [(3, 4)]), ("nij->n", [(3, 4)]), ("nij", [(3, 4)]), ("nij,nij->nij", [(3, 4), (3, 4)]),
        ("ni,nj->nij", [(3,), (4,)]), ("nij,nk->nij", [(3, 2), (4,)]), ("nij,njk,nkl->nil", [(2, 3), (3, 4), (4, 2)]),
        ("ni, ni -> n", [(3,), (3,)]),
    ],
)  # fmt: skip
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    net = Net()
    names = [net.input(f"x{n}", *shape) for n, shape in enumerate(shapes)]
    net.output(net.op("Einsum", *names, equation=equation))
    check(net.model(), {name: draw(shape, n) for n, (name, shape) in enumerate(zip(names, shapes, strict=True))})


@pytest.mark.parametrize("equation", ["nij,jk->nik", "jk,nij->nik", "kj,nij->nik"])
def test_einsum_with_weights_is_a_layer(equation: str) -> None:
    """On bytes of integers."""
    first, second = equation.split("->")[0].split(",")
    sizes = {"j": 4, "k": 5}
    term = second if "n" in first else first
    net = Net()
    real = as_bytes(net, net.input("x", 3, 4))
    integers = net.constant(net.random.integers(-127, 128, tuple(sizes[c] for c in term)), np.int8)
    weight = net.op("DequantizeLinear", integers, net.constant(0.01))
    net.output(
        as_bytes(net, net.op("Einsum", *([real, weight] if "n" in first else [weight, real]), equation=equation), 0.05)
    )
    program = check(net.model(), {"x": draw((3, 4))}, apart=0.05)
    assert any(isinstance(step, Layer) for step in program.steps) and not list_float_steps(program)


def test_an_equation_without_kernel() -> None:
    net = Net()
    net.output(net.op("Einsum", net.input("x", 3, 3), equation="nii->ni", name="diagonal"))
    with fails(
        "'diagonal' is a Einsum that cannot be compiled: its equation is 'nii->ni', expected letters, each once in a term"
    ):
        read_program(ir.from_proto(net.model()), "net")


# --- windows over three axes, and pools that round up ---


@FEW
@given(seed=SEEDS, on_bytes=st.booleans())
def test_convolutions_over_three_axes(seed: int, on_bytes: bool) -> None:
    random = np.random.default_rng(seed)
    groups, each, outs = (int(n) for n in random.integers(1, 4, 3))
    kernel, strides, dilations = (tuple(int(n) for n in random.integers(1, high, 3)) for high in (4, 3, 3))
    pads = tuple(int(n) for n in random.integers(0, 2, 6))
    space = tuple(int(n) for n in random.integers(6, 9, 3))
    net = Net()
    x = net.input("x", groups * each, *space)
    shape = (groups * outs, each, *kernel)
    more = {"group": groups, "strides": strides, "dilations": dilations, "pads": pads}
    bias = net.constant(net.normal(groups * outs))
    if on_bytes:
        scale = net.constant(random.uniform(0.001, 0.01, len(range(groups * outs))))
        weight = net.op("DequantizeLinear", net.constant(random.integers(-127, 128, shape), np.int8), scale, axis=0)
        net.output(as_bytes(net, net.op("Conv", as_bytes(net, x), weight, bias, **more), 0.1))
    else:
        net.output(net.op("Conv", x, net.constant(net.normal(*shape)), bias, **more))
    program = check(net.model(), {"x": draw((groups * each, *space), seed)}, apart=0.1 * on_bytes)
    assert any(isinstance(step, Layer) for step in program.steps) == on_bytes
    assert any(isinstance(step, FloatLayer) for step in program.steps) != on_bytes


@pytest.mark.parametrize("on_bytes", [False, True])
@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("MaxPool", {"pads": [1, 0, 1, 0, 1, 1]}), ("MaxPool", {"ceil_mode": 1, "strides": [2, 2, 2]}),
        ("MaxPool", {"dilations": [2, 1, 2]}), ("AveragePool", {"pads": [1, 0, 1, 0, 1, 1]}),
        ("AveragePool", {"pads": [1, 1, 1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 1, 2]}),
        ("AveragePool", {"ceil_mode": 1, "strides": [2, 2, 2]}),
    ],
)  # fmt: skip
def test_pools_over_three_axes(op: str, more: dict[str, Any], on_bytes: bool) -> None:
    write = lambda net, x: net.op(op, x, kernel_shape=[2, 3, 2], **more)  # noqa: E731
    program = check(of_one((3, 5, 6, 7), write, on_bytes=on_bytes), {"x": draw((3, 5, 6, 7))}, apart=0.05 * on_bytes)  # type: ignore[arg-type]
    if op == "MaxPool" and on_bytes:
        assert all(step.output.dtype == "uint8" for step in program.steps if isinstance(step, Pool))


def test_global_average_over_three_axes() -> None:
    for on_bytes in (False, True):
        for op in ("GlobalAveragePool", "GlobalMaxPool"):
            model = of_one((3, 4, 2, 5), lambda net, x, op=op: net.op(op, x), on_bytes=on_bytes)  # type: ignore[misc]
            check(model, {"x": draw((3, 4, 2, 5))}, apart=0.05)


@pytest.mark.parametrize("on_bytes", [False, True])
@pytest.mark.parametrize("space", [(7,), (7, 6), (8, 9)])
def test_average_pools_that_round_up_and_count_their_padding(space: tuple[int, ...], on_bytes: bool) -> None:
    for kernel, stride, pads in ((3, 2, 1), (2, 2, 1), (3, 3, 0), (4, 3, 2)):
        n = len(space)
        more = {"kernel_shape": [kernel] * n, "strides": [stride] * n, "pads": [pads] * 2 * n}
        write = lambda net, x, more=more: net.op("AveragePool", x, ceil_mode=1, count_include_pad=1, **more)  # noqa: E731
        check(of_one((3, *space), write, opset=21, on_bytes=on_bytes), {"x": draw((3, *space))}, apart=0.05 * on_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [1, 2])
def test_norms_of_windows(p: int) -> None:
    """Also where the last windows reach beyond the padding."""
    write = lambda net, x: net.op("LpPool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], p=p)  # noqa: E731
    check(of_one((3, 7, 6), write), {"x": draw((3, 7, 6))})  # type: ignore[arg-type]
    up = lambda net, x: net.op("LpPool", x, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, p=p)  # noqa: E731
    check(of_one((3, 6, 7), up, opset=18), {"x": draw((3, 6, 7))})  # type: ignore[arg-type]


# --- Resize ---


@pytest.mark.parametrize("how", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("more", [{}, {"exclude_outside": 1}, {"cubic_coeff_a": -0.5}])
def test_resize_along_curves(how: str, more: dict[str, Any]) -> None:
    for out in ((1, 3, 9, 4), (1, 3, 5, 13)):
        write = lambda net, x, out=out: net.op("Resize", x, "", "", net.constant(out, np.int64), mode="cubic",  # noqa: E731
                                               coordinate_transformation_mode=how, **more)  # fmt: skip
        check(of_one((3, 6, 7), write), {"x": draw((3, 6, 7))}, close=1e-4)  # type: ignore[arg-type]


def test_resize_along_other_axes() -> None:
    def by_axes(net: Net, x: str) -> str:
        return net.op("Resize", x, "", net.constant([2.0, 1.5]), mode="linear", axes=[3, 1])

    def three(net: Net, x: str) -> str:
        return net.op("Resize", x, "", "", net.constant([1, 2, 6, 3, 8], np.int64), mode="linear")

    check(of_one((4, 3, 5), by_axes, opset=18), {"x": draw((4, 3, 5))}, reference=True)
    check(of_one((2, 3, 4, 5), three), {"x": draw((2, 3, 4, 5))}, close=1e-4)


# --- onnxruntime's own operators ---


def fused(op: str, inputs: Sequence[Array], shape: Sequence[int], **more: Any) -> onnx.ModelProto:
    """A node of com.microsoft on an input and constants."""
    held = [numpy_helper.from_array(array.astype(np.float32), f"k{n}") for n, array in enumerate(inputs)]
    node = helper.make_node(op, ["x", *(each.name for each in held)], ["y"], "n", domain="com.microsoft", **more)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y], held), opset_imports=opsets, ir_version=IR_VERSIONS[17]
    )


@pytest.mark.parametrize(
    ("op", "shapes", "shape", "more"),
    [
        ("Gelu", [], (4, 5), {}), ("BiasGelu", [(5,)], (4, 5), {}), ("FastGelu", [], (4, 5), {}),
        ("FastGelu", [(5,)], (4, 5), {}), ("QuickGelu", [], (4, 5), {"alpha": 1.5}),
        ("FusedMatMul", [(6, 5)], (4, 5), {"transB": 1, "alpha": 0.5}), ("FusedMatMul", [(4, 6)], (4, 5), {"transA": 1}),
        ("FusedConv", [(6, 3, 3, 2), (6,)], (3, 5, 6), {"activation": "Relu", "pads": [1, 0, 1, 0]}),
        ("FusedConv", [(6, 3, 1, 1), (6,), (1, 6, 5, 6)], (3, 5, 6), {}),
        ("FusedConv", [(6, 3, 1, 1)], (3, 5, 6), {"activation": "Clip", "activation_params": [-0.5, 0.75]}),
        ("FusedConv", [(6, 3, 1, 1)], (3, 5, 6), {"activation": "LeakyRelu", "activation_params": [0.3]}),
        ("FusedGemm", [(5, 6), (6,)], (5,), {"activation": "LeakyRelu", "activation_alpha": 0.2}),
        ("SkipLayerNormalization", [(1, 4, 8), (8,), (8,), (8,)], (4, 8), {"epsilon": 1e-5}),
        ("SkipSimplifiedLayerNormalization", [(1, 4, 8), (8,), (8,)], (4, 8), {"epsilon": 1e-5}),
    ],
)  # fmt: skip
def test_operators_that_onnxruntime_puts_together(
    op: str, shapes: list[tuple[int, ...]], shape: tuple[int, ...], more: dict[str, Any]
) -> None:
    random = np.random.default_rng(0)
    check(fused(op, [random.normal(size=each) for each in shapes], shape, **more), {"x": draw(shape)})


# --- RNN ---


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("more", ["", "bias", "start"])
def test_plain_recurrent_layers(direction: str, more: str) -> None:
    random, times, units, inputs = np.random.default_rng(0), 5, 7, 4
    count = 2 if direction == "bidirectional" else 1
    net = Net()
    x = net.input("x", 1, inputs)
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = times
    held = [net.constant(random.normal(size=(count, units, n)) * 0.5) for n in (inputs, units)]
    rest = [] if not more else [net.constant(random.normal(size=(count, 2 * units)))]
    if more == "start":
        rest += ["", net.constant(random.normal(size=(count, 1, units)))]
    names = ["Relu", "Sigmoid"][:count] if more == "bias" else ["Tanh"] * count
    net.output(*net.ops("RNN", x, *held, *rest, outputs=2, hidden_size=units, direction=direction, activations=names))
    check(net.model(), {"x": random.normal(size=(times, 1, inputs)).astype(np.float32)})


def test_recurrent_layers_that_are_refused() -> None:
    for more, why in (
        ({"activations": ["Elu"]}, "its activations are Elu, expected Tanh, Relu, Sigmoid, or it clips"),
        ({"clip": 1.0}, "its activations are Tanh, expected Tanh, Relu, Sigmoid, or it clips"),
    ):
        net = Net()
        x = net.input("x", 1, 4)
        net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 3
        held = [net.constant(net.normal(1, 2, n)) for n in (4, 2)]
        net.output(net.ops("RNN", x, *held, outputs=2, hidden_size=2, name="odd", **more)[0])
        with fails(f"node 'odd' is a RNN that cannot be compiled: {why}"):
            read_program(ir.from_proto(net.model()), "net")
