"""Small networks around each operator, and which kernels planning gives their nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from networks import Array, Arrays, Net
from onnx import TensorProto, helper

IMAGE = {"x": (8, 6, 6)}


@dataclass(frozen=True)
class Case:
    """A network around one operator: the kinds its nodes get, the least SQNR, the shapes of a sample's inputs."""

    build: Callable[[Net], object]
    expect: dict[str, list[str]]
    sqnr: float = 26.0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(IMAGE))
    opset: int = 17
    more: Callable[[np.random.Generator], Arrays] | None = None


def between(
    make: Callable[[Net, str], str], *, shape: tuple[int, ...] = (8, 6, 6), write: int = 8, after: bool = True
) -> Callable[[Net], object]:
    """Conv -> the operator -> Conv, on images, sequences or volumes."""
    rank = len(shape) - 1

    def build(net: Net) -> object:
        kernel = (3,) * rank
        x = net.conv(net.input("x", *shape), shape[0], 8, kernel, name="first")
        y = make(net, x)
        return net.output(net.conv(y, write, 8, kernel, name="last") if after else y)

    return build


def flat(make: Callable[[Net, str], str], *, write: int = 12) -> Callable[[Net], object]:
    """Gemm -> the operator -> Gemm."""

    def build(net: Net) -> object:
        x = net.dense(net.input("x", 10), 10, 12, name="first")
        return net.output(net.dense(make(net, x), write, 5, name="last"))

    return build


FLAT = {"x": (10,)}


def act(kind: str, **attributes: Any) -> Callable[[Net, str], str]:
    return lambda net, x: net.op(kind, x, **attributes)


def clip(low: float, high: float) -> Callable[[Net, str], str]:
    return lambda net, x: net.op("Clip", x, net.constant(low), net.constant(high))


def gelu(net: Net, x: str) -> str:
    whole = net.op("Add", net.op("Erf", net.op("Div", x, net.constant(np.sqrt(2)))), net.constant(1.0))
    return net.op("Mul", net.op("Mul", x, whole), net.constant(0.5))


def numbers(net: Net, x: str) -> str:
    """Arithmetic that is folded into no layer, for a Sigmoid is before it."""
    x = net.op("Mul", net.op("Sigmoid", x), net.constant([3.0]))
    x = net.op("Sub", net.op("Add", x, net.constant(0.5)), net.constant([[1.0]]))
    return net.op("Div", x, net.constant(0.7))


def by_channel(net: Net, x: str) -> str:
    return net.op("Div", net.op("Sigmoid", x), net.constant(np.linspace(0.5, 2, 8).reshape(8, 1, 1)))


def silu(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x))


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def matmul(net: Net) -> object:
    x = net.input("x", 5, 10)
    w = [net.constant(net.normal(a, b, size=0.4)) for a, b in ((10, 12), (12, 7))]
    h = net.op("Relu", net.op("MatMul", x, w[0]))
    return net.output(net.op("MatMul", h, w[1]))


def matmul_2d(net: Net) -> object:
    x = net.input("x", 10)
    w = [net.constant(net.normal(a, b, size=0.4)) for a, b in ((10, 12), (12, 7))]
    return net.output(net.op("MatMul", net.op("Relu", net.op("MatMul", x, w[0])), w[1]))


def attention(net: Net) -> object:
    """Two products of activations, a softmax between them."""
    x = net.input("x", 6, 8)
    q, k, v = (net.op("MatMul", x, net.constant(net.normal(8, 8, size=0.5))) for _ in range(3))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return net.output(net.op("MatMul", scores, v))


def concat(scale: float) -> Callable[[Net, str], str]:
    def make(net: Net, x: str) -> str:
        other = net.conv(x, 8, 4)
        if scale != 1:
            other = net.conv(net.op("Mul", other, net.constant(scale)), 4, 4)
        return net.op("Concat", x, other, axis=1)

    return make


def concat_clipped(net: Net, x: str) -> str:
    """Both branches are clipped, one further out: a scale that they share must not undo the other's clip."""
    return net.op("Concat", clip(0.0, 0.75)(net, net.conv(x, 8, 8)), clip(-0.25, 0.75)(net, net.conv(x, 8, 8)), axis=1)


def padded(mode: str, value: float | None = None) -> Callable[[Net, str], str]:
    def make(net: Net, x: str) -> str:
        pads = net.constant(ints(0, 0, 1, 1, 0, 0, 1, 2), np.int64)
        fill = [] if value is None else [net.constant(value)]
        return net.op("Pad", net.op("Relu", x), pads, *fill, mode=mode)

    return make


def resize(mode: str) -> Callable[[Net, str], str]:
    def make(net: Net, x: str) -> str:
        extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
        where = {"coordinate_transformation_mode": "asymmetric"} if mode == "nearest" else {}
        scales = net.constant([1, 1, 2, 2])
        return net.op("Resize", x, "", scales, mode=mode, **extra, **where)

    return make


def split(net: Net, x: str) -> str:
    a, b = net.ops("Split", x, net.constant(ints(3, 5), np.int64), outputs=2, axis=1)
    return net.op("Concat", b, a, axis=1)


def sliced(net: Net, x: str) -> str:
    begin, end, axes = (net.constant(ints(*v), np.int64) for v in ((1, 0), (5, 100), (2, 3)))
    return net.op("Slice", x, begin, end, axes)


def squeezed(net: Net, x: str) -> str:
    axes = net.constant(ints(2), np.int64)
    return net.op("Squeeze", net.op("Relu", net.op("Unsqueeze", x, axes)), axes)


def reshaped(net: Net, x: str) -> str:
    return net.op("Reshape", net.op("Relu", x), net.constant(ints(0, 8, 4, 9), np.int64))


def where(net: Net, x: str) -> str:
    mask = net.constant(net.random.random((1, 8, 6, 6)) > 0.5, np.bool_)
    return net.op("Where", mask, net.conv(x, 8, 8), x)


def residual(net: Net, x: str) -> str:
    r = net.op("Relu", x)
    return net.op("Relu", net.op("Add", net.conv(net.op("Relu", net.conv(r, 8, 8)), 8, 8), r))


def read_with_its_input(net: Net, x: str) -> str:
    return net.op("Add", net.op("Relu", x), net.conv(x, 8, 8))


def clip_read_with_its_input(net: Net, x: str) -> str:
    return net.op("Add", clip(-0.5, 0.5)(net, x), net.conv(x, 8, 8))


def constant_operands(net: Net, x: str) -> str:
    """The scale varies by position, so that no pass can fold it into a convolution."""
    y = net.op("Mul", x, net.constant(net.random.uniform(0.5, 2, (1, 8, 6, 6))))
    return net.op("Add", y, net.constant(net.normal(1, 8, 6, 6)))


def recurrent(kind: str) -> Callable[[Net], object]:
    gates = {"LSTM": 4, "GRU": 3}[kind]

    def build(net: Net) -> object:
        x = net.conv(net.input("x", 4, 9), 4, 6, (3,))
        x = net.op("Transpose", net.op("Relu", x), perm=[2, 0, 1])
        w, r, b = net.normal(1, gates * 5, 6), net.normal(1, gates * 5, 5), net.normal(1, gates * 10)
        y = net.ops(kind, x, *(net.constant(v * 0.5) for v in (w, r, b)), outputs=1, hidden_size=5)[0]
        y = net.op("Squeeze", y, net.constant(ints(1), np.int64))
        return net.output(net.op("MatMul", y, net.constant(net.normal(5, 3))))

    return build


def branch(kind: str, x: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(kind, [x], [f"{kind}_out"], f"in_{kind}")], kind, [], [out])


def conditional(net: Net, x: str) -> str:
    """Both branches read a tensor of the graph around them, which exists only as bytes."""
    flag = net.op("Greater", net.op("ReduceMax", x, keepdims=0), net.constant(0.0))
    return net.op("If", flag, then_branch=branch("Tanh", x), else_branch=branch("Abs", x))


def middle_output(net: Net) -> object:
    x = net.op("Relu", net.conv(net.input("x", 8, 6, 6), 8, 8, name="first"))
    y = net.conv(x, 8, 8)
    return net.output(y, x, net.op("MaxPool", y, kernel_shape=[2, 2]))


def many(net: Net) -> object:
    a, b = net.input("a", 4, 6, 6), net.input("b", 4, 6, 6)
    both = net.op("Add", net.conv(a, 4, 8), net.conv(b, 4, 8))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", both))
    return net.output(net.dense(pooled, 8, 3), net.conv(both, 8, 2), net.op("ArgMax", pooled, axis=1))


def embedding(net: Net) -> object:
    index = net.input("index", 7, dtype=TensorProto.INT64)
    table = net.constant(net.normal(11, 8))
    x = net.op("Transpose", net.op("Gather", table, index), perm=[0, 2, 1])
    return net.output(net.conv(net.op("Relu", net.conv(x, 8, 8, (3,))), 8, 4, (3,)))


def layer_norm(net: Net, x: str) -> str:
    return net.op("LayerNormalization", x, net.constant(np.ones(12)), net.constant(np.zeros(12)), axis=-1)


def stay_float(op: str) -> dict[str, list[str]]:
    return {op: ["float"], "Conv": ["int8", "int8"]}


CASES = {
    "conv 1-d": Case(between(act("Relu"), shape=(6, 11)), {"Conv": ["int8"] * 2, "Relu": ["fused"]}, shapes={"x": (6, 11)}),
    "conv 2-d": Case(between(act("Relu")), {"Conv": ["int8"] * 2, "Relu": ["fused"]}, opset=13),
    "conv 3-d": Case(between(act("Relu"), shape=(3, 4, 5, 4)), {"Conv": ["int8"] * 2}, shapes={"x": (3, 4, 5, 4)}),
    "conv grouped": Case(between(lambda n, x: n.conv(x, 8, 8, group=2)), {"Conv": ["int8"] * 3}, opset=21),
    "conv depthwise": Case(between(lambda n, x: n.conv(x, 8, 8, group=8)), {"Conv": ["int8"] * 3}),
    "conv depthwise, two outputs a channel": Case(
        between(lambda n, x: n.conv(x, 8, 16, group=8), write=16), {"Conv": ["int8"] * 3}
    ),
    "conv without bias": Case(between(lambda n, x: n.conv(x, 8, 8, bias=False)), {"Conv": ["int8"] * 3}),
    "conv strided and dilated": Case(
        between(lambda n, x: n.conv(x, 8, 8, strides=[2, 1], dilations=[1, 2], pad=False)), {"Conv": ["int8"] * 3}
    ),
    "conv transpose": Case(
        between(lambda n, x: n.op("ConvTranspose", x, n.constant(n.normal(8, 8, 2, 2, size=0.3)), strides=[2, 2])),
        stay_float("ConvTranspose"),
    ),
    "gemm": Case(flat(act("Relu")), {"Gemm": ["int8"] * 2, "Relu": ["fused"]}, shapes=FLAT, opset=13),
    "gemm transposed": Case(flat(lambda n, x: n.dense(x, 12, 12, transB=1)), {"Gemm": ["int8"] * 3}, shapes=FLAT),
    "gemm without bias": Case(flat(lambda n, x: n.dense(x, 12, 12, bias=False)), {"Gemm": ["int8"] * 3}, shapes=FLAT),
    "matmul 2-D": Case(matmul_2d, {"Gemm": ["int8"] * 2}, shapes=FLAT),
    "matmul 3-D": Case(matmul, {"MatMul": ["int8"] * 2}, shapes={"x": (5, 10)}, opset=21),
    "attention": Case(attention, {"MatMul": ["int8"] * 5, "Softmax": ["int8"], "Transpose": ["passthrough"]}, 22, {"x": (6, 8)}),
    "add": Case(between(lambda n, x: n.op("Add", x, n.conv(x, 8, 8))), {"Add": ["int8"]}),
    "mul": Case(between(lambda n, x: n.op("Mul", x, n.conv(x, 8, 8))), {"Mul": ["int8"]}),
    "constant operands": Case(between(constant_operands), {"Add": ["int8"], "Mul": ["int8"]}),
    "concat, one scale": Case(between(concat(1), write=12), {"Concat": ["int8"]}),
    "concat, own scales": Case(between(concat(0.01), write=12), {"Concat": ["int8"]}),
    "concat of clips": Case(between(concat_clipped, write=16), {"Concat": ["int8"], "Clip": ["passthrough", "fused"]}),
    "average pool": Case(
        between(act("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)), {"AveragePool": ["int8"]}
    ),
    "max pool": Case(between(act("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])), {"MaxPool": ["passthrough"]}, opset=13),
    "global average pool": Case(between(act("GlobalAveragePool"), after=False), {"GlobalAveragePool": ["int8"]}),
    "relu": Case(between(act("Relu"), after=False), {"Relu": ["fused"]}, opset=21),
    "relu read with its input": Case(between(read_with_its_input), {"Relu": ["passthrough"], "Add": ["int8"]}),
    "relu6": Case(between(clip(0.0, 0.8)), {"Clip": ["fused"]}, opset=13),
    "clip to both sides": Case(between(clip(-0.4, 0.5)), {"Clip": ["fused"]}),
    "clip above zero": Case(between(clip(0.3, 0.9)), {"Clip": ["passthrough"]}),
    "clip below zero": Case(between(clip(-0.9, -0.3)), {"Clip": ["passthrough"]}),
    "clip read with its input": Case(between(clip_read_with_its_input), {"Clip": ["passthrough"], "Add": ["int8"]}),
    "leaky relu": Case(between(act("LeakyRelu", alpha=0.1)), {"LeakyRelu": ["int8"]}),
    "sigmoid": Case(between(act("Sigmoid")), {"Sigmoid": ["int8"]}),
    "silu": Case(between(silu), {"Sigmoid": ["int8"], "Mul": ["int8"]}),
    "hard sigmoid": Case(between(act("HardSigmoid")), {"Clip": ["fused"], "Conv": ["int8"] * 2}),
    "hard swish": Case(between(act("HardSwish")), {"HardSigmoid": ["reinterpreted"], "Mul": ["int8"]}),
    "gelu": Case(
        between(gelu),
        {"Div": ["reinterpreted"], "Erf": ["int8"], "Add": ["reinterpreted"], "Mul": ["int8", "reinterpreted"]},
    ),
    "arithmetic with numbers": Case(
        between(numbers), {op: ["reinterpreted"] for op in ("Mul", "Add", "Sub", "Div")}
    ),
    "minus": Case(between(lambda net, x: net.op("Sub", net.constant(1.0), net.op("Sigmoid", x))), stay_float("Sub")),
    "division by channel": Case(between(by_channel), stay_float("Div")),
    "tanh": Case(between(act("Tanh")), {"Tanh": ["int8"]}, opset=13),
    "softmax": Case(between(act("Softmax", axis=1)), {"Softmax": ["int8"]}, 24),
    "layer normalization": Case(
        flat(layer_norm), {"LayerNormalization": ["float"], "Gemm": ["int8"] * 2}, shapes=FLAT
    ),
    "resize nearest": Case(between(resize("nearest")), {"Resize": ["passthrough"]}),
    "resize linear": Case(between(resize("linear")), stay_float("Resize")),
    "pad with zeros": Case(
        between(lambda n, x: n.op("LeakyRelu", padded("constant")(n, x))), {"Pad": ["passthrough"], "LeakyRelu": ["int8"]}
    ),
    "pad with a value": Case(between(padded("constant", 0.7)), {"Pad": ["passthrough"]}, opset=18),
    "pad with a value out of range": Case(between(padded("constant", -0.5)), {"Pad": ["passthrough"]}),
    "pad with a value far out": Case(between(padded("constant", -1e4)), {"Pad": ["float"]}),
    "pad with minus infinity": Case(
        between(lambda n, x: n.op("MaxPool", padded("constant", -np.inf)(n, x), kernel_shape=[3, 3])), {"Pad": ["float"]}
    ),
    "pad by reflection": Case(between(padded("reflect")), {"Pad": ["passthrough"]}),
    "split": Case(between(split), {"Split": ["passthrough"], "Concat": ["int8"]}, opset=18),
    "slice": Case(between(sliced), {"Slice": ["passthrough"]}),
    "gather": Case(
        between(lambda n, x: n.op("Gather", x, n.constant(ints(3, 1, 0), np.int64), axis=1), write=3), {"Gather": ["passthrough"]}
    ),
    "reshape": Case(between(reshaped), {"Reshape": ["passthrough"]}),
    "transpose": Case(between(act("Transpose", perm=[0, 1, 3, 2])), {"Transpose": ["passthrough"]}),
    "flatten": Case(
        lambda n: n.output(n.dense(n.op("Flatten", n.conv(n.input("x", 8, 6, 6), 8, 4)), 144, 5)), {"Flatten": ["passthrough"]}
    ),
    "squeeze and unsqueeze": Case(between(squeezed), {"Squeeze": ["passthrough"], "Unsqueeze": ["passthrough"]}),
    "depth to space": Case(between(act("DepthToSpace", blocksize=2), write=2), {"DepthToSpace": ["passthrough"]}),
    "space to depth": Case(between(act("SpaceToDepth", blocksize=2), write=32), {"SpaceToDepth": ["passthrough"]}),
    "reduce max": Case(
        between(lambda n, x: n.op("ReduceMax", x, n.constant(ints(2), np.int64), keepdims=1)),
        {"ReduceMax": ["passthrough"]}, opset=18,
    ),
    "tile": Case(between(lambda n, x: n.op("Tile", x, n.constant(ints(1, 1, 2, 1), np.int64))), {"Tile": ["passthrough"]}),
    "expand": Case(
        between(lambda n, x: n.op("Expand", n.op("GlobalAveragePool", x), n.constant(ints(1, 8, 3, 3), np.int64))),
        {"Expand": ["passthrough"]},
    ),
    "where": Case(between(where), {"Where": ["int8"]}),
    "lstm": Case(recurrent("LSTM"), {"LSTM": ["float"], "MatMul": ["int8"], "Conv": ["int8"]}, shapes={"x": (4, 9)}),
    "gru": Case(recurrent("GRU"), {"GRU": ["float"], "MatMul": ["int8"], "Conv": ["int8"]}, shapes={"x": (4, 9)}),
    "if": Case(between(conditional), {"If": ["float"], "Conv": ["int8", "int8"]}, opset=13),
    "residual": Case(between(residual), {"Add": ["int8"], "Conv": ["int8"] * 4, "Relu": ["fused"] * 3}),
    "output in the middle": Case(middle_output, {"Conv": ["int8"] * 2, "MaxPool": ["passthrough"]}),
    "several inputs and outputs": Case(
        many, {"Conv": ["int8"] * 3, "Gemm": ["int8"], "ArgMax": ["float"]}, shapes={"a": (4, 6, 6), "b": (4, 6, 6)}
    ),
    "embedding": Case(
        embedding, {"Gather": ["float"], "Conv": ["int8"] * 2}, shapes={},
        more=lambda random: {"index": random.integers(0, 11, (24, 7))},
    ),
}  # fmt: skip
