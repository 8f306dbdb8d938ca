"""Every operator family, from a small random network to integers: what is planned, what the runtime does, how close."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Array, Arrays, Line, Net, quantize_net, random_data
from onnx import TensorProto, helper, numpy_helper
from planning_cases import CASES, FLAT, IMAGE, Case, clip, ints

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.quantization import dequantize, quantize
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.tables.operators import OPERATORS


def line_of(case: Case, seed: int = 0) -> Line:
    net = Net(seed, case.opset)
    case.build(net)
    data = random_data(seed, 24, **case.shapes)
    return quantize_net(net, data | (case.more(np.random.default_rng(seed)) if case.more else {}))


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    line = line_of(case)
    for op, kinds in case.expect.items():
        assert line.kinds_of(op) == kinds, op
    assert line.sqnr() > case.sqnr
    assert line.kernel_sqnr() > 36
    for decision in line.plan.nodes:
        assert decision.why
        assert decision.op in OPERATORS or decision.op in ("ArgMax", "Greater")
    check_kernels(line, tmp_path)
    check_moves(line)


def check_kernels(line: Line, folder: Path) -> None:
    """The runtime computes with bytes where the plan says so, and nowhere else."""
    path = folder / "int8.onnx"
    ir.save(line.int8, path)
    for kernel in find_kernels(path):
        kind = line.kinds.get(kernel.node, "")
        if kind == "int8":
            assert kernel.integer, kernel
        elif kind in ("float", "weight_only") and kernel.op not in ("ArgMax", "Shape", "Greater"):
            assert not kernel.integer, kernel


def check_moves(line: Line) -> None:
    """A node that moves bytes writes what the float operator would, rounded: bit for bit."""
    nodes = {node.name: node for node in line.int8.graph if line.kinds.get(node.name or "") == "passthrough"}
    floats = {node.name: node for node in line.prepared.graph}
    for name, node in nodes.items():
        before, after = node.inputs[0], node.outputs[0]
        original = floats[name]
        q = line.plan.tensors[original.outputs[0].name or ""]
        integers, moved = exposed(line.int8, [before.name or "", after.name or ""], line.data)
        alone = alone_model(original, dequantize(integers, q))
        (expected,) = Session(alone.SerializeToString(), threads=1).run({"data": dequantize(integers, q)}, ["result"])
        np.testing.assert_array_equal(moved, quantize(expected, q))


def exposed(model: ir.Model, names: list[str], data: Arrays) -> list[Array]:
    proto = ir.to_proto(model)
    for name in names:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    return Session(proto.SerializeToString(), threads=1, optimize=False).run(data, names)


def alone_model(node: ir.Node, data: Array) -> onnx.ModelProto:
    """One float node as a model of its own: its first input is fed."""
    proto = ir.to_proto(node)
    weights = []
    for value in node.inputs[1:]:
        if value is not None:
            assert value.const_value is not None
            weights.append(numpy_helper.from_array(value.const_value.numpy(), value.name))
    proto.input[0] = "data"
    proto.output[0] = "result"
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, data.shape)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in proto.output]
    graph = helper.make_graph([proto], "alone", inputs, outputs, weights)
    opset = node.graph.opset_imports[""] if node.graph is not None else 17
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


STEPS = ("conv", "depthwise", "relu", "clip", "leaky", "sigmoid", "tanh", "pool", "average", "transpose", "constant", "add",
         "mul", "concat")  # fmt: skip


def grow(net: Net, known: list[str], step: str, at: int) -> str:
    """One more node on tensors of shape (n, 8, 6, 6)."""
    x, y = known[at % len(known)], known[at // 7 % len(known)]
    unary = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    if step in unary:
        return net.op(unary[step], x)
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    make = {
        "conv": lambda: net.conv(x, 8, 8),
        "depthwise": lambda: net.conv(x, 8, 8, group=8),
        "clip": lambda: clip(-0.5 + at % 3 / 2, 1.5)(net, x),
        "leaky": lambda: net.op("LeakyRelu", x, alpha=0.2),
        "pool": lambda: net.op("MaxPool", x, **pool),
        "average": lambda: net.op("AveragePool", x, **pool),
        "transpose": lambda: net.op("Transpose", x, perm=[0, 1, 3, 2]),
        "constant": lambda: net.op("Add", x, net.constant(net.normal(1, 8, 6, 6))),
        "add": lambda: net.op("Add", x, y),
        "mul": lambda: net.op("Mul", x, net.op("Sigmoid", y)),
        "concat": lambda: net.conv(net.op("Concat", x, y, axis=1), 16, 8),
    }
    return make[step]()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 48)), min_size=3, max_size=9), st.integers(0, 99))
def test_random_networks_stay_close(steps: list[tuple[str, int]], seed: int) -> None:
    net = Net(seed)
    known = [net.conv(net.input("x", 8, 6, 6), 8, 8)]
    for step, at in steps:
        known.append(grow(net, known, step, at))
    line = quantize_net(net.output(net.conv(known[-1], 8, 4), known[len(known) // 2]), random_data(seed, 16, **IMAGE))
    assert line.sqnr() > 16
    assert line.kernel_sqnr() > 30
    check_moves(line)


@pytest.mark.parametrize("target", ["x86-avx2", "x86-vnni", "arm64"])
@pytest.mark.parametrize("ranges", ["minmax", "percentile", "entropy"])
def test_targets_and_ranges(target: str, ranges: str) -> None:
    net = Net(3)
    CASES["residual"].build(net)
    line = quantize_net(net, random_data(3, 24, **IMAGE), target=target, ranges=ranges)
    activations = {q.dtype for q in line.plan.tensors.values() if q.axis is None}
    assert activations == {"uint8"}
    # taken literally: on this CPU, bytes made for another one may saturate
    f, q = line.outputs(float_model=True)[0], line.outputs(optimize=False)[0]
    assert measure_fidelity(f, q).sqnr_db > (20 if ranges == "entropy" else 26)


@pytest.mark.parametrize("clipped", [False, True])
def test_a_convolution_kept_float_computes_in_float(clipped: bool, tmp_path: Path) -> None:
    """onnxruntime would quantize its weights on its own, with one scale, if nothing stood behind it."""
    net = Net(1)
    x = net.conv(net.conv(net.input("x", 8, 6, 6), 8, 8, name="first"), 8, 8, name="middle")
    net.output(net.conv(net.op("Relu", x) if clipped else x, 8, 8, name="last"))
    line = quantize_net(net, random_data(1, 24, **IMAGE), keep_float=["middle"])
    assert line.kinds["middle"] == "float"
    check_kernels(line, tmp_path)
    assert line.kernel_sqnr() > 60


@pytest.mark.parametrize("before", ["conv", "add", "gemm"])
def test_a_clip_kept_float_keeps_the_node_before_it_float(before: str) -> None:
    net = Net(2)
    if before == "gemm":
        x = net.dense(net.input("x", 10), 10, 12)
        net.output(net.dense(net.op("Relu", x, name="clip"), 12, 5))
    else:
        x = net.conv(net.input("x", 8, 6, 6), 8, 8)
        x = net.op("Add", x, net.conv(x, 8, 8)) if before == "add" else x
        net.output(net.conv(net.op("Relu", x, name="clip"), 8, 8))
    shapes = FLAT if before == "gemm" else IMAGE
    line = quantize_net(net, random_data(2, 24, **shapes), keep_float=["clip"])
    assert line.kinds["clip"] == "float"
    stays = next(d for d in line.plan.nodes if "its clip 'clip' stays float" in d.why)
    assert stays.kind in ("float", "weight_only")
    assert stays.op == before.title()
    assert line.sqnr() > 26


def test_keep_float_takes_names_globs_and_operators() -> None:
    net = Net(4)
    CASES["residual"].build(net)
    data = random_data(4, 8, **IMAGE)
    line = quantize_net(net, data, keep_float=["op:Add", "fir*"])
    reasons = {d.node: d.why for d in line.plan.nodes}
    assert line.kinds["first"] == "float"
    assert "--keep-float fir*" in reasons["first"]
    assert line.kinds_of("Add") == ["float"]
    with fails("--keep-float 'op:Nothing' fits no node of the model", "fcdeploy inspect"):
        quantize_net(net, data, keep_float=["op:Nothing"])


def test_a_layer_with_a_weight_made_at_run_time_stays_float() -> None:
    net = Net(5)
    x = net.input("x", 8, 6, 6)
    weight = net.op(
        "ReduceMean", net.op("Reshape", x, net.constant(ints(-1, 4, 8, 3, 3), np.int64)), axes=[0], keepdims=0
    )
    net.output(net.conv(net.op("Conv", net.conv(x, 8, 8), weight, name="dynamic"), 4, 3))
    line = quantize_net(net, random_data(5, 8, **IMAGE))
    dynamic = next(d for d in line.plan.nodes if d.node == "dynamic")
    assert (dynamic.kind, dynamic.why) == ("float", f"weight {weight!r} is computed at run time")


def test_a_tensor_that_becomes_infinite_keeps_its_layers_float() -> None:
    net = Net(6)
    x = net.conv(net.input("x", 8, 6, 6), 8, 8)
    y = net.op("Exp", net.op("Mul", x, net.constant(net.normal(1, 8, 6, 6, size=1e4))), name="blown")
    net.output(net.conv(y, 8, 8, name="reads"))
    with np.errstate(all="ignore"):
        line = quantize_net(net, random_data(6, 8, **IMAGE))
    reads = next(d for d in line.plan.nodes if d.node == "reads")
    assert reads.kind in ("float", "weight_only")
    assert "tensor 'blown_out' is not a float tensor with finite values" in reads.why


def test_every_row_of_the_table_names_an_operator_of_onnx() -> None:
    newest = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert set(OPERATORS) <= newest
    assert all(row.why for row in OPERATORS.values())
