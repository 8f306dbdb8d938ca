"""Operators run by torch compute what ONNX's reference evaluator computes, and gradients go through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from networks import Net
from onnx.reference import ReferenceEvaluator

from fcdeploy.graph.nodes import name_of
from fcdeploy.pytorch.graph_run import OPERATORS, read_inputs, run_node, why_not_run
from fcdeploy.pytorch.reconstruction import run_float

LENGTHS = np.int64
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Relu", [], {}), ("Neg", [], {}), ("Tanh", [], {}), ("Sigmoid", [], {}), ("Erf", [], {}), ("Identity", [], {}),
    ("Exp", [], {}), ("LeakyRelu", [], {"alpha": 0.2}), ("HardSigmoid", [], {"alpha": 0.25, "beta": 0.4}),
    ("HardSwish", [], {}), ("Softmax", [], {"axis": 1}), ("Clip", [np.float32(-0.5), np.float32(0.7)], {}),
    ("GlobalAveragePool", [], {}), ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Flatten", [], {}),
    ("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "dilations": [2, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 0]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 0], "count_include_pad": 1}),
    ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}), ("ReduceMean", [], {"axes": [-1]}),
    ("Reshape", [np.array([0, -1, 7], LENGTHS)], {}), ("Unsqueeze", [np.array([1, -1], LENGTHS)], {}),
    ("Slice", [np.array([1, -3], LENGTHS), np.array([4, 2**62], LENGTHS), np.array([1, 3], LENGTHS)], {}),
    ("Slice", [np.array([5], LENGTHS), np.array([-(2**62)], LENGTHS), np.array([2], LENGTHS), np.array([-2], LENGTHS)], {}),
    ("Pad", [np.array([0, 0, 1, 2, 0, 1, 0, 3], LENGTHS), np.float32(0.5)], {}),
    ("Add", [np.arange(7, dtype=np.float32)], {}), ("Sub", [np.float32(2)], {}), ("Mul", [np.float32(3)], {}),
    ("Div", [np.float32(3)], {}), ("Pow", [np.float32(2)], {}),
    ("Abs", [], {}), ("Max", [np.float32(0.2)], {}), ("Min", [np.float32(0.2)], {}),
    ("ReduceSum", [np.array([1, 3], LENGTHS)], {"keepdims": 0}), ("Gather", [np.array([[0, -1], [2, 3]], LENGTHS)], {"axis": 2}),
    ("Gather", [np.array(2, LENGTHS)], {"axis": 1}),
    ("MatMul", [np.linspace(-1, 1, 21, dtype=np.float32).reshape(7, 3)], {}),
    ("BatchNormalization", [np.linspace(1, 2, 4, dtype=np.float32)] * 4, {"epsilon": 0.1}),
    ("LayerNormalization", [np.linspace(1, 2, 7, dtype=np.float32)] * 2, {"epsilon": 0.1}),
    ("Conv", [np.linspace(-1, 1, 72, dtype=np.float32).reshape(6, 2, 3, 2), np.arange(6, dtype=np.float32)],
     {"group": 2, "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 0, 2], "kernel_shape": [3, 2]}),
]  # fmt: skip


def one_node(kind: str, constants: list[Any], attributes: dict[str, Any], *shape: int) -> onnx.ModelProto:
    net = Net(0)
    x = net.input("x", *shape)
    names = [net.constant(value, np.asarray(value).dtype) for value in constants]
    return net.output(net.op(kind, x, *names, **attributes)).model()


@pytest.mark.parametrize(("kind", "constants", "attributes"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)])
def test_torch_computes_what_the_reference_does(kind: str, constants: list[Any], attributes: dict[str, Any]) -> None:
    model = one_node(kind, constants, attributes, 4, 6, 7)
    x = np.random.default_rng(1).normal(size=(3, 4, 6, 7)).astype(np.float32)
    graph = ir.from_proto(model).graph
    assert not why_not_run(list(graph))
    (ours,) = run_float(graph, {"x": x})[0].values()
    (truth,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(ours, truth, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("trans", [0, 1])
def test_a_gemm_with_factors(trans: int) -> None:
    weight = np.linspace(-1, 1, 15, dtype=np.float32).reshape((3, 5) if trans else (5, 3))
    attributes = {"transB": trans, "alpha": 0.5, "beta": 2.0}
    model = one_node("Gemm", [weight, np.arange(3, dtype=np.float32)], attributes, 5)
    x = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    (ours,) = run_float(ir.from_proto(model).graph, {"x": x})[0].values()
    np.testing.assert_allclose(ours, ReferenceEvaluator(model).run(None, {"x": x})[0], rtol=1e-5)


def test_a_split_writes_all_its_parts() -> None:
    net = Net(0)
    x = net.input("x", 6, 7)
    net.output(
        *net.ops("Split", x, net.constant([1, 2, 3], np.int64), outputs=3, axis=1),
        *net.ops("Split", x, outputs=3, axis=1),
    )
    given = np.random.default_rng(1).normal(size=(3, 6, 7)).astype(np.float32)
    ours, _ = run_float(ir.from_proto(net.model()).graph, {"x": given})
    truth = ReferenceEvaluator(net.model()).run(None, {"x": given})
    for one, other in zip(ours.values(), truth, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_go_through_a_node() -> None:
    graph = ir.from_proto(one_node("Sigmoid", [], {}, 5)).graph
    (node,) = graph
    x = torch.linspace(-2, 2, 5, requires_grad=True)
    (y,) = run_node(node, read_inputs(node, {name_of(node.inputs[0]): x})).values()
    y.sum().backward()  # type: ignore[no-untyped-call]
    s = torch.sigmoid(x.detach())
    assert x.grad is not None and torch.allclose(x.grad, s * (1 - s))


def test_what_torch_is_not_asked_to_run_is_said() -> None:
    assert "Conv" in OPERATORS
    unknown = ir.from_proto(one_node("Floor", [], {}, 5)).graph
    assert why_not_run(list(unknown)) == "Floor 'floor0' has no gradient here"
    same = one_node("MaxPool", [], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, 4, 6, 7)
    assert "pads by rule" in why_not_run(list(ir.from_proto(same).graph))
