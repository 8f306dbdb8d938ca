"""Bias correction against means computed anew, and the walk against running the whole model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Array, Line, Net, quantize_net, random_data
from onnx import TensorProto, helper

from fcdeploy.int8.planning.weights import find_int8_layers
from fcdeploy.int8.refining.activations import ActivationWalk
from fcdeploy.int8.refining.correct_layers import correct_layers
from fcdeploy.runtime.session import Session
from fcdeploy.tables.operators import operator
from fcdeploy.tables.targets import TARGETS

PORTABLE = TARGETS["portable"]


def resnet(net: Net) -> Net:
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8, name="first"))
    y = net.conv(net.op("Relu", net.conv(x, 8, 8, name="second", bias=False)), 8, 8, group=8, name="third")
    y = net.op("Relu", net.op("Add", y, x))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.output(net.dense(net.op("Relu", net.dense(y, 8, 12, name="dense")), 12, 5, name="last"))


def sequence(net: Net) -> Net:
    """Rows of all samples one under another, so that the leading axis counts no samples, and back."""
    x = net.input("x", 5, 6)
    rows = net.op("Reshape", x, net.constant([-1, 6], np.int64))
    rows = net.op("Relu", net.dense(rows, 6, 8, name="first"))
    back = net.op("Reshape", rows, net.constant([-1, 5, 8], np.int64))
    turned = net.op("Transpose", back, perm=[1, 0, 2])
    y = net.op("Reshape", net.op("Transpose", turned, perm=[1, 2, 0]), net.constant([-1, 40], np.int64))
    return net.output(net.dense(y, 40, 4, name="last"))


def branching(net: Net) -> Net:
    """A layer behind a choice whose branches read from outside."""
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8, name="first"))
    flag = net.op("Greater", net.op("ReduceMax", x, keepdims=0), net.constant(0.0))
    bodies = {}
    for kind in ("Tanh", "Abs"):
        out = helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)
        bodies[kind] = helper.make_graph([helper.make_node(kind, [x], [f"{kind}_out"], kind)], kind, [], [out])
    y = net.op("If", flag, then_branch=bodies["Tanh"], else_branch=bodies["Abs"])
    return net.output(net.conv(y, 8, 4, name="last"))


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "resnet": (resnet, (4, 8, 8)), "sequence": (sequence, (5, 6)), "branching": (branching, (4, 8, 8)),
}  # fmt: skip


def corrected(name: str, n: int, *, correct: bool = True) -> Line:
    build, shape = NETS[name]
    net = Net(0)
    build(net)
    return quantize_net(net, random_data(0, n, x=shape), correct=correct)


def exposed(model: ir.Model, names: list[str], data: dict[str, Array]) -> list[Array]:
    proto = ir.to_proto(model)
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    return Session(proto.SerializeToString(), threads=1, optimize=False).run(data, names)


@pytest.mark.parametrize("n", [24, 77])
@pytest.mark.parametrize("name", NETS)
def test_mean_outputs_are_those_of_the_float_model_within_a_step(name: str, n: int) -> None:
    line = corrected(name, n)
    weighted = [node for node, _ in find_int8_layers(line.prepared.graph, line.plan)]
    layers = [node for node in weighted if operator(node.op_type).bias is not None]
    assert len(layers) >= 2
    by_name = {node.name: node for node in line.int8.graph}
    before = exposed(line.prepared, [node.outputs[0].name or "" for node in layers], line.data)
    after = exposed(line.int8, [by_name[node.name].outputs[0].name or "" for node in layers], line.data)
    for node, f, q in zip(layers, before, after, strict=True):
        axes = tuple(i for i in range(f.ndim) if i != 1)
        bias = by_name[node.name].inputs[2]
        assert bias is not None
        step = bias.producer().inputs[1].const_value.numpy()  # type: ignore[union-attr]
        off = np.abs(f.astype(np.float64).mean(axes) - q.astype(np.float64).mean(axes))
        assert (off <= 0.5 * step + 2e-6).all(), node.name


def test_it_brings_outputs_closer() -> None:
    assert corrected("resnet", 77).sqnr() > corrected("resnet", 77, correct=False).sqnr()


def test_a_layer_without_bias_gets_one() -> None:
    line = corrected("resnet", 24)
    second = next(node for node in line.int8.graph if node.name == "second")
    assert len(second.inputs) == 3
    assert second.inputs[2] is not None
    assert next(node for node in line.prepared.graph if node.name == "second").inputs[2:] in ((), (None,))


@pytest.mark.parametrize("name", NETS)
def test_a_walk_reads_what_the_whole_model_computes(name: str) -> None:
    line = corrected(name, 77, correct=False)
    walk = ActivationWalk(line.int8, line.data)
    for node in [node for node in line.int8.graph if node.op_type in ("Conv", "Gemm", "Add")]:
        target = node.outputs[0]
        found = walk.read(target)
        at = 0
        for part in found:
            size = 32 if at + 32 <= 77 else 77 - at
            piece = {key: value[at : at + size] for key, value in line.data.items()}
            (whole,) = exposed(line.int8, [target.name or ""], piece)
            np.testing.assert_allclose(part, whole, rtol=0, atol=2e-5)
            at += size
        assert at == 77


def test_a_fixed_batch_leaves_the_remainder_out() -> None:
    net = resnet(Net(0))
    model = net.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    for value in (*model.graph.output, *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    line = quantize_net(model, random_data(0, 10, x=(4, 8, 8)), edit=lambda plan: plan)
    some = {"x": random_data(1, 13, x=(4, 8, 8))["x"]}
    for node in line.int8.graph:
        if node.name == "second":
            assert len(node.inputs) == 2
    assert correct_layers(line.prepared, line.int8, line.plan, {"x": some["x"][:3]}, target=PORTABLE) == 0
    with_bias = quantize_net(model, random_data(0, 10, x=(4, 8, 8)), correct=True)
    assert correct_layers(with_bias.prepared, with_bias.int8, with_bias.plan, some, target=PORTABLE) == 5


def test_a_walk_keeps_no_memory_of_a_session() -> None:
    """An array that onnxruntime returns keeps everything that its session allocated, weights too."""
    line = corrected("resnet", 40)
    walk = ActivationWalk(line.int8, line.data)
    layers = [node for node in line.int8.graph if node.op_type in ("Conv", "Gemm")]
    found = [array for layer in layers for array in walk.read(layer.outputs[0])]
    remembered = [array for known in walk.known for name, array in known.items() if name not in line.data]
    assert len(remembered) > len(layers)
    assert all(array.flags.owndata for array in (*found, *remembered))


@pytest.mark.parametrize("make", [resnet, branching])
def test_results_that_pass_are_those_computed_anew_and_are_forgotten(make: Any) -> None:
    """A layer's results with its corrected bias go on to the next stretch: the layer runs once, and memory stays small."""
    net = make(Net(3))
    data = random_data(3, 24, x=[d.dim_value for d in net.model().graph.input[0].type.tensor_type.shape.dim][1:])
    line = quantize_net(net, data)
    walk, anew = (ActivationWalk(line.int8, data) for _ in range(2))
    layers = [node for node in line.int8.graph if node.op_type in ("Conv", "Gemm")]
    for layer in layers:
        found = walk.read(layer.outputs[0])
        for ours, expected in zip(found, anew.read(layer.outputs[0]), strict=True):
            np.testing.assert_array_equal(ours, expected)
        walk.provide(layer.outputs[0], found, passing=True)
    held = {name for name in walk.known[0] if name in {layer.outputs[0].name for layer in layers}}
    assert held == walk.passing
    assert len(held) < len(layers)
