"""Float nodes between integer kernels: the same on every path through the runtime, or named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net, quantize_net, random_data
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.commands.inspect import inspect
from fcdeploy.proof.exact import check_exactness
from fcdeploy.proof.float_paths import cut_float_regions, find_byte_tensors, find_float_ends
from fcdeploy.reporting.exactness import describe_exactness
from fcdeploy.runtime.session import Session

DATA = random_data(3, 4, x=(8, 9, 9))


def mixed() -> Net:
    """Convolutions as integers around a Softplus; then layers kept in float, a soft maximum, and an output in between."""
    net = Net(3)
    x = net.op("Relu", net.conv(net.input("x", 8, 9, 9), 8, 16, name="first"))
    y = net.op("Softplus", net.conv(x, 16, 16, name="second"), name="softplus")
    z = net.op("Relu", net.conv(y, 16, 16, name="third"))
    z = net.op("Sqrt", net.op("Relu", net.conv(z, 16, 8, name="kept")), name="root")
    flat = net.op("Flatten", net.op("GlobalAveragePool", z, name="pool"))
    return net.output(net.op("Softmax", net.dense(flat, 8, 5, name="last"), name="soft"), y)


def test_ends_are_named_and_agree() -> None:
    line = quantize_net(mixed(), DATA, keep_float=["kept", "soft"])
    found = check_exactness(line.int8, [DATA])
    assert found.passed, describe_exactness(found)
    ends = {row.node: row for row in found.floats}
    assert set(ends) == {"softplus", "pool", "soft"}
    assert ends["soft"].floats
    assert ends["soft"].elements == 4 * 5
    assert "on every path" in describe_exactness(found)


def test_what_the_cut_model_computes_is_what_the_whole_one_did() -> None:
    """From the same integers, without optimization, it is the unoptimized model bit for bit."""
    model = quantize_net(mixed(), DATA, keep_float=["kept", "soft"]).int8
    ends, starts = find_float_ends(model, {"first", "second", "third", "last"}), find_byte_tensors(model)
    exposed = model.clone()
    values = {value.name: value for node in exposed.graph for value in node.outputs}
    for name in starts:
        values[name].type = ir.TensorType(ir.DataType.UINT8)
        exposed.graph.outputs.append(values[name])
    session = Session(exposed, optimize=False)
    plain = dict(zip(session.outputs, session.run(DATA), strict=True))
    for node in model.graph:  # what an exporter left of another batch changes nothing
        for value in node.outputs:
            if value.name in starts:
                value.shape = ir.Shape([9, *plain[value.name].shape[1:]])
    again = cut_float_regions(model, starts, ends, plain).run(DATA, plain)[0]
    assert ends
    for end, value in zip(ends, again, strict=True):
        np.testing.assert_array_equal(value, plain[end.tensor])


def weight_only() -> ir.Model:
    """Integer layer, then a dense layer whose weight alone is quantized: MatMulNBits rounds its activations."""
    random = np.random.default_rng(0)
    weights = {
        "s": np.float32(0.05), "z": np.uint8(128), "w": random.integers(-60, 60, (64, 64)).astype(np.int8),
        "ws": np.float32(0.01), "wz": np.int8(0), "v": random.integers(-60, 60, (64, 16)).astype(np.int8),
        "vs": np.full(16, 0.01, np.float32),
    }  # fmt: skip
    nodes = [
        oh.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]), oh.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        oh.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]), oh.make_node("MatMul", ["xd", "wd"], ["a"], "first"),
        oh.make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]), oh.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"]),
        oh.make_node("Tanh", ["ad"], ["t"], "tanh"), oh.make_node("DequantizeLinear", ["v", "vs"], ["vd"], axis=1),
        oh.make_node("MatMul", ["t", "vd"], ["y"], "second"),
    ]  # fmt: skip
    ends = [oh.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 64), ("y", 16))]
    tensors = [nh.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = oh.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8))


@pytest.mark.filterwarnings("ignore")
def test_a_float_node_that_another_path_computes_otherwise_is_named(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    found = check_exactness(weight_only(), [{"x": x}])
    assert not found.passed
    assert all(row.passed for row in found.rows)
    (row,) = found.floats
    assert (row.node, row.passed) == ("second", False)
    assert describe_exactness(found).startswith("not exact: float MatMul 'second' differs between paths")
    ir.save(weight_only(), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=x)
    report = inspect(tmp_path / "m.onnx", exact=True, data=tmp_path / "x.npz")
    assert not report.passed
    assert report.values["exact_floats"][0]["node"] == "second"
    assert [table.title for table in report.tables if table.title.startswith("Float nodes")]
