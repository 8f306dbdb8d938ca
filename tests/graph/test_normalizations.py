"""Normalizations in pieces are found in every spelling, and compute in float as one stretch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net, quantize_net, random_data

from fcdeploy.graph.normalizations import find_normalizations
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.kernels import match_kernels, optimize_graph

WIDTH = 24
DATA = random_data(0, 8, x=(6, WIDTH))


def mean(net: Net, x: str) -> str:
    return net.op("ReduceMean", x, axes=[-1], keepdims=1)


def affine(net: Net, y: str) -> str:
    return net.op("Add", net.op("Mul", y, net.constant(net.normal(WIDTH))), net.constant(net.normal(WIDTH)))


def layer_norm(net: Net, x: str) -> str:
    c = net.op("Sub", x, mean(net, x))
    variance = mean(net, net.op("Pow", c, net.constant(2.0)))
    return affine(net, net.op("Div", c, net.op("Sqrt", net.op("Add", variance, net.constant(1e-5)))))


def layer_norm_by_squares(net: Net, x: str) -> str:
    """As TensorFlow has it: x k + (b - mean k), k = g / s, and the variance from the mean of squares."""
    m = mean(net, x)
    variance = net.op("Sub", mean(net, net.op("Mul", x, x)), net.op("Mul", m, m))
    s = net.op("Sqrt", net.op("Add", net.op("Max", variance, net.constant(0.0)), net.constant(1e-3)))
    k = net.op("Mul", net.op("Reciprocal", s), net.constant(net.normal(WIDTH)))
    shift = net.op("Sub", net.constant(net.normal(WIDTH)), net.op("Mul", m, k))
    return net.op("Add", net.op("Mul", x, k), shift)


def rms_norm(net: Net, x: str) -> str:
    square = net.op("Add", mean(net, net.op("Mul", x, x)), net.constant(1e-6))
    scaled = net.op("Mul", x, net.op("Pow", square, net.constant(-0.5)))
    return net.op("Mul", scaled, net.constant(net.normal(WIDTH)))


def division_by_a_norm(net: Net, x: str) -> str:
    norm = net.op("ReduceL2", x, axes=[-1], keepdims=1)
    return net.op("Div", x, net.op("Clip", norm, net.constant(1e-12), ""))


SPELLINGS = {
    layer_norm: 9,
    layer_norm_by_squares: 14,
    rms_norm: 6,
    division_by_a_norm: 3,
}


def network(normalize: Callable[[Net, str], str]) -> Net:
    """A dense layer, a normalization, a dense layer, and the sum of both layers."""
    net = Net(2)
    x = net.op("MatMul", net.input("x", 6, WIDTH), net.constant(net.normal(WIDTH, WIDTH, size=0.3)), name="before")
    y = net.op("MatMul", normalize(net, x), net.constant(net.normal(WIDTH, WIDTH, size=0.3)), name="behind")
    return net.output(net.op("MatMul", net.op("Add", x, y), net.constant(net.normal(WIDTH, 5)), name="last"))


@pytest.mark.parametrize("normalize", SPELLINGS, ids=lambda f: f.__name__)
def test_a_normalization_is_found_whole_and_stays_float(normalize: Callable[[Net, str], str]) -> None:
    net = network(normalize)
    model = ir.from_proto(net.model())
    prepare(model)
    (nodes,) = find_normalizations(model.graph)
    assert len(nodes) == SPELLINGS[normalize]
    assert "GlobalAveragePool" not in {node.op_type for node in model.graph}  # the last axis of three is no picture's
    line = quantize_net(net, DATA)
    assert {line.plan.kinds[node.name] for node in nodes if node.name} == {"float"}
    integer = {kernel.node for kernel in match_kernels(line.int8.graph, optimize_graph(line.int8)) if kernel.integer}
    assert {"before", "behind", "last"} <= integer
    assert integer.isdisjoint(node.name for node in nodes)
    assert line.sqnr() > 25


def test_a_root_of_other_squares_is_none() -> None:
    """The magnitude of a spectrum: no mean over many numbers, and nothing is divided by it."""
    net = Net(3)
    x = net.input("x", 6, WIDTH)
    power = net.op("Add", net.op("Mul", x, x), net.constant(1e-5))
    spread = net.op("Sqrt", mean(net, net.op("Mul", x, x)))  # a result of its own
    model = ir.from_proto(net.output(net.op("Sqrt", power), net.op("Neg", spread)).model())
    prepare(model)
    assert find_normalizations(model.graph) == []


def test_a_mean_over_a_picture_s_axes_with_channels_last_is_a_pool() -> None:
    for keepdims in (0, 1):
        net = Net(4)
        x = net.op("Transpose", net.conv(net.input("x", 6, 8, 8), 6, 8), perm=[0, 2, 3, 1])
        y = net.op("ReduceMean", x, axes=[1, 2], keepdims=keepdims)
        model = ir.from_proto(net.output(net.op("Mul", y, net.constant(np.float32(3)))).model())
        prepare(model)
        kinds = [node.op_type for node in model.graph]
        assert "ReduceMean" not in kinds
        assert kinds[:2] == ["Conv", "GlobalAveragePool"]
