"""What an int8 file leaves out follows from the rest: the same answers bit for bit, the same shapes when inferred."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from networks import Net, quantize_net, random_data

from fcdeploy.int8.writing.strip import strip
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.kernels import match_kernels, optimize_graph
from fcdeploy.runtime.session import Session

DATA = random_data(0, 4, x=(3, 9, 9))


def network() -> Net:
    net = Net(5)
    x = net.op("Relu", net.conv(net.input("x", 3, 9, 9), 3, 16, name="a", strides=[1, 1], dilations=[1, 1]))
    y = net.conv(x, 16, 16, group=16, name="b", strides=[2, 2], dilations=[1, 1])
    y = net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[1, 1], name="pool")
    y = net.op("Flatten", y)
    return net.output(net.dense(y, 16 * 4 * 4, 5, name="c"))


def test_it_is_the_same_model_in_fewer_bytes() -> None:
    line = quantize_net(network(), DATA)
    lean = line.int8.clone()
    strip(lean)
    whole, less = ir.to_proto(line.int8), ir.to_proto(lean)
    onnx.checker.check_model(less, full_check=True)
    assert less.ByteSize() < whole.ByteSize() - 500
    for how in ({}, {"optimize": False}, {"precise": True}):
        before, after = (Session(model, threads=1, **how).run(DATA)[0] for model in (line.int8, lean))
        assert np.array_equal(before, after)
    shapes = [shapes_of(onnx.shape_inference.infer_shapes(model)) for model in (whole, less)]
    assert shapes[0] == shapes[1]
    kernels = [match_kernels(model.graph, optimize_graph(model)) for model in (line.int8, lean)]
    assert kernels[0] == kernels[1]
    assert sum(kernel.integer for kernel in kernels[1]) >= 4


def test_what_says_something_stays() -> None:
    line = quantize_net(network(), DATA)
    strip(line.int8)
    nodes = {node.name: node for node in line.int8.graph if node.name}
    assert {"strides", "dilations", "group"}.isdisjoint(nodes["a"].attributes)
    assert tuple(nodes["b"].attributes["strides"].as_ints()) == (2, 2)
    assert nodes["b"].attributes["group"].as_int() == 16
    assert "dilations" not in nodes["b"].attributes
    assert nodes["pool"].outputs[0].dtype == ir.DataType.UINT8  # moved bytes say what they are
    assert not [node for node in line.int8.graph if node.op_type == "DequantizeLinear" and node.name]
    assert all(output.shape is not None and output.dtype is not None for output in line.int8.graph.outputs)


def test_other_runtimes_find_neither_a_length_nor_a_name_twice() -> None:
    """tract takes a named length for another one than it is given, and calls a node without a name as what it writes."""
    net = Net(7)
    x = net.op("Relu", net.conv(net.input("x", 3, 9, 9), 3, 8, name="a"))
    net.conv(net.op("MaxPool", x, kernel_shape=[2, 2], name="pool"), 8, 8, name="last")
    net.nodes[-1].output[0] = "last"  # as exporters do: the last layer and the answer have one name
    net.output("last")
    model = quantize_net(net, DATA).int8
    strip(model)
    inner = [value for node in model.graph for value in node.outputs if not value.is_graph_output() and value.shape]
    assert inner and not [value for value in inner for size in value.shape if not isinstance(size, int) and size.value]
    written = [value.name for node in model.graph if not node.name for value in node.outputs]
    assert not {node.name for node in model.graph} & set(written)
    assert model.graph.inputs[0].shape is not None and model.graph.inputs[0].shape[0] == "n"


def test_shapes_that_follow_are_left_out_and_others_stay() -> None:
    """A float tensor says its shape only where ONNX would not find the same: here behind an operator that it does not know."""
    net = Net(6, opset=13)
    x = net.op("Relu", net.op("Transpose", net.input("x", 3, "free", 9), perm=[0, 2, 1, 3]))
    model = ir.from_proto(net.output(net.op("Neg", net.op("Exp", x), name="last")).model())
    infer_shapes(model)
    unknown = model.graph.node("last").inputs[0]
    assert unknown is not None
    model.graph.node(2).domain, model.opset_imports["made.up"] = "made.up", 1
    strip(model)
    said = {value.name for node in model.graph for value in node.outputs if value.shape is not None}
    assert said == {unknown.name, model.graph.outputs[0].name}


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, str]]:
    """Of what nodes write."""
    written = {name for node in model.graph.node for name in node.output}
    return {
        v.name: (v.type.tensor_type.elem_type, str(v.type.tensor_type.shape))
        for v in [*model.graph.value_info, *model.graph.output]
        if v.name in written
    }
