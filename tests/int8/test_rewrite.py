"""The integers in the file, its borders, and what becomes of a plan that was edited by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from conftest import fails
from networks import Array, Line, Net, quantize_net, random_data
from onnx import numpy_helper

from fcdeploy.graph.model import write_model
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.runtime.kernels import optimize_graph
from fcdeploy.runtime.session import Session


def resnet(net: Net) -> Net:
    """Every kind of layer that has weights, a residual, pools and a dense end."""
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8, name="first"), name="relu1")
    y = net.conv(x, 8, 8, group=8, name="depthwise")
    y = net.conv(y, 8, 8, group=2, name="grouped", bias=False)
    y = net.op("Add", y, x, name="add")
    y = net.op("MaxPool", net.op("Relu", y, name="relu2"), kernel_shape=[2, 2], strides=[2, 2], name="pool")
    y = net.conv(y, 8, 10, (1, 1), name="pointwise")
    y = net.op("Flatten", net.op("GlobalAveragePool", y, name="mean"), name="flat")
    return net.output(net.dense(net.op("Relu", net.dense(y, 10, 12, name="dense"), name="relu3"), 12, 5, name="last"))


DATA = random_data(0, 24, x=(4, 8, 8))
LAYERS = ("first", "depthwise", "grouped", "pointwise", "dense", "last")


def made(target: str = "portable", **options: object) -> Line:
    return quantize_net(resnet(Net(0)), DATA, target=target, **options)  # type: ignore[arg-type]


def constants(line: Line) -> dict[str, Array]:
    proto = ir.to_proto(line.int8)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def stored(line: Line, layer: str) -> tuple[Array, Array | None, ir.Node]:
    """The integers of a layer's weight and bias, read from the file through its DequantizeLinears."""
    proto, values = ir.to_proto(line.int8), constants(line)
    node = next(node for node in proto.graph.node if node.name == layer)
    written = {name: producer for producer in proto.graph.node for name in producer.output}
    weight, *bias = (values[written[name].input[0]] for name in node.input[1:])
    original = next(node for node in line.prepared.graph if node.name == layer)
    return weight, bias[0] if bias else None, original


def axis_of(node: ir.Node) -> int:
    return 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) else 1


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_and_biases_are_the_nearest_integers(layer: str) -> None:
    """Where no pair is limited: round(w / scale) in float64, and a bias of round(b / (input scale * weight scale)).

    Where the means of what layers read were recorded, biases are shifted by what rounded weights add to them.
    """
    line = made("x86-vnni", moments=False)
    weight, bias, node = stored(line, layer)
    real = [value.const_value.numpy().astype(np.float64) for value in node.inputs[1:] if value and value.const_value]
    name, axis = node.inputs[1].name, axis_of(node)  # type: ignore[union-attr]
    scale = np.array(line.plan.tensors[name or ""].scale)
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    np.testing.assert_array_equal(weight, np.clip(np.rint(real[0] / shaped), -127, 127))
    input_scale = np.float32(line.plan.tensors[node.inputs[0].name or ""].scale[0])  # type: ignore[union-attr]
    if len(real) == 2:
        assert bias is not None
        product = (input_scale * scale.astype(np.float32)).astype(np.float64)
        np.testing.assert_array_equal(bias, np.rint(real[1].reshape(-1) / product).astype(np.int64))


def test_the_first_layer_is_int64_arithmetic_on_what_is_in_the_file() -> None:
    line = made()
    weight, bias, _ = stored(line, "first")
    q_in, q_out = line.plan.tensors["x"], line.plan.tensors["relu1_out"]
    integers = np.clip(np.rint(DATA["x"] / np.float32(q_in.scale[0])) + q_in.zero_point, 0, 255).astype(np.int64)
    padded = np.pad(integers - q_in.zero_point, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    assert bias is not None
    sums = np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.int64)) + bias.astype(np.int64)[:, None, None]
    product = q_in.scale[0] * np.array(line.plan.tensors[line_weight(line, "first")].scale)[:, None, None]
    exact = sums * product / q_out.scale[0]
    ties = np.abs(exact - np.floor(exact) - 0.5) < 1e-4
    expected = np.clip(np.rint(exact) + q_out.zero_point, 0, 255)
    proto = ir.to_proto(line.int8)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("relu1_out/q", onnx.TensorProto.UINT8, None))
    (found,) = Session(proto.SerializeToString(), threads=1).run(DATA, ["relu1_out/q"])
    np.testing.assert_array_equal(found[~ties], expected[~ties])
    assert ties.mean() < 0.01


def line_weight(line: Line, layer: str) -> str:
    node = next(node for node in line.prepared.graph if node.name == layer)
    return node.inputs[1].name or ""  # type: ignore[union-attr]


@pytest.mark.parametrize("target", ["portable", "x86-avx2"])
def test_no_pair_of_products_leaves_16_bits(target: str) -> None:
    """Brute force on the integers: each output channel's reduction as the kernel walks it, two by two."""
    net = Net(0)
    resnet(net)
    for tensor in net.weights:  # all of one sign and size: the worst that can be
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(array) + np.float32(array.std()), tensor.name))
    line = quantize_net(net, {"x": np.abs(DATA["x"])}, target=target)
    assert {line.kinds[layer] for layer in LAYERS} == {"int8"}
    for layer in set(LAYERS) - {"depthwise"}:
        weight, _, node = stored(line, layer)
        weight = weight.astype(np.int64)
        channels = weight if axis_of(node) == 0 else weight.T
        for channel in channels:
            walked = [
                channel[(slice(None), *position)] for position in itertools.product(*map(range, channel.shape[1:]))
            ] if channel.ndim > 1 else [channel]  # fmt: skip
            flat = np.concatenate(walked)
            flat = np.append(flat, 0) if len(flat) % 2 else flat
            for first, second in flat.reshape(-1, 2):
                sums = [a * first + b * second for a in (0, 255) for b in (0, 255)]
                assert min(sums) >= -(2**15), (layer, first, second)
                assert max(sums) < 2**15, (layer, first, second)


def test_without_the_limit_pairs_do_leave_16_bits() -> None:
    """The same check finds something where nothing is limited: it can fail."""
    weight, _, _ = stored(made("x86-vnni"), "dense")
    pairs = weight.T.astype(np.int64).reshape(-1, 2)
    assert (np.abs(pairs.sum(axis=1)) > 128).any()


@pytest.mark.parametrize("correct", [False, True])
def test_nothing_is_left_over_and_borders_are_kept(correct: bool) -> None:
    line = made(correct=correct)
    proto = ir.to_proto(line.int8)
    onnx.checker.check_model(proto, full_check=True)
    read = {name for node in proto.graph.node for name in node.input}
    assert {tensor.name for tensor in proto.graph.initializer} <= read
    written = [name for node in proto.graph.node for name in node.output]
    assert len(written) == len(set(written))
    assert set(written) <= read | {value.name for value in proto.graph.output}
    names = [node.name for node in proto.graph.node]
    assert len(names) == len(set(names))
    assert not any(array.dtype == np.float32 and array.ndim > 1 for array in constants(line).values())


def border(model: onnx.ModelProto) -> list[tuple[str, int, list[int | str]]]:
    return [
        (v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*model.graph.input, *model.graph.output)
    ]


def pass_through(net: Net) -> Net:
    """Outputs: inputs themselves, an integer tensor that is read further, moved tensors."""
    x, index = net.input("x", 4, 8, 8), net.input("index", dtype=onnx.TensorProto.INT64)
    y = net.op("Relu", net.conv(x, 4, 8), name="middle")
    moved = net.op("MaxPool", y, kernel_shape=[2, 2], name="moved")
    turned = net.op("Transpose", y, perm=[0, 1, 3, 2], name="turned")
    end = net.conv(moved, 8, 4, name="end")
    return net.output(end, y, moved, net.op("Identity", x, name="input_again"), turned, net.op("Identity", index))


def test_inputs_and_outputs_keep_names_order_and_types() -> None:
    net = pass_through(Net(1))
    data = DATA | {"index": np.arange(24)}
    line = quantize_net(net, data)
    assert border(ir.to_proto(line.int8)) == border(line.float_model)
    assert line.sqnr() > 28
    np.testing.assert_array_equal(line.outputs()[3], DATA["x"])
    np.testing.assert_array_equal(line.outputs()[5], data["index"])
    middle, turned = line.outputs()[1], line.outputs()[4]
    np.testing.assert_array_equal(turned, middle.transpose(0, 1, 3, 2))


def to_float(*nodes: str) -> Callable[[Plan], Plan]:
    def edit(plan: Plan) -> Plan:
        rows = tuple(replace(d, kind="float") if d.node in nodes else d for d in plan.nodes)
        return replace(plan, nodes=rows)

    return edit


@pytest.mark.parametrize("node", ["depthwise", "grouped", "add", "pool", "mean", "flat", "last", "pointwise"])
def test_a_node_turned_to_float_by_hand(node: str) -> None:
    """Everything around it is still right; what was absorbed cannot be, and says so."""
    if node == "add":
        with fails("node 'relu2' is fused, but the node before it is not int8", 'make its kind "float"'):
            made(edit=to_float(node))
        line = made(edit=to_float("add", "relu2"))
    else:
        line = made(edit=to_float(node))
    assert line.kinds[node] == "float"
    assert line.sqnr() > 24
    assert line.kernel_sqnr() > 30


def test_a_clip_turned_to_float_by_hand_is_still_right() -> None:
    """The layer before it has no scale for its result then: slow, and as close as before."""
    line = made(edit=to_float("relu1"))
    assert line.kinds["relu1"] == "float"
    assert line.sqnr() > 24


def change(name: str, **values: object) -> Callable[[Plan], Plan]:
    def edit(plan: Plan) -> Plan:
        return replace(plan, tensors=plan.tensors | {name: replace(plan.tensors[name], **values)})  # type: ignore[arg-type]

    return edit


def without(name: str) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, tensors={key: q for key, q in plan.tensors.items() if key != name})


def kind(node: str, value: str) -> Callable[[Plan], Plan]:
    return lambda plan: replace(
        plan,
        nodes=tuple(replace(d, kind=value) if d.node == node else d for d in plan.nodes),  # type: ignore[arg-type]
    )


BIAS = made().prepared.graph.node("first").inputs[2].name or ""  # type: ignore[union-attr]
WEIGHT = line_weight(made(), "first")
REJECTED = {
    "unknown node": (
        lambda plan: replace(plan, nodes=(*plan.nodes, replace(plan.nodes[0], node="nobody"))),
        "the plan names node 'nobody', which the model has not",
    ),
    "lost node": (lambda plan: replace(plan, nodes=plan.nodes[1:]), "the plan lacks node 'first' of the model"),
    "unknown tensor": (
        lambda plan: replace(plan, tensors=plan.tensors | {"typo": QParams("uint8", (1.0,))}),
        "the plan names tensor 'typo', which the model has not",
    ),
    "wrong kind": (kind("pool", "int8"), "node 'pool' is a MaxPool and cannot be 'int8': its role is 'passthrough'"),
    "layer that moves": (kind("first", "passthrough"), "node 'first' is a Conv and cannot be 'passthrough'"),
    "lost input scale": (without("x"), "node 'first' reads tensor 'x', which has no scale"),
    "unequal scales": (change("pool_out", scale=(0.5,)), "node 'pool' moves bytes between tensors of different scales"),
    "weight axis": (change(WEIGHT, axis=1), f"weight {WEIGHT!r} needs int8, zero_point 0 and axis 0 with 8 scales"),
    "weight zero point": (change(WEIGHT, zero_point=1), f"weight {WEIGHT!r} needs int8, zero_point 0"),
    "weight scales": (change(WEIGHT, scale=(0.1, 0.2)), f"weight {WEIGHT!r} needs int8, zero_point 0"),
    "lost weight scale": (without(WEIGHT), f"weight {WEIGHT!r} needs int8, zero_point 0"),
    "bias scale": (change(BIAS, scale=(0.1,) * 8), f"the scale of bias {BIAS!r} is not input scale x weight scale"),
    "edited input scale": (change("x", scale=(0.5,)), f"the scale of bias {BIAS!r} is not input scale x weight scale"),
    "activation per channel": (change("x", axis=1), "tensor 'x' needs uint8 or int8 and one scale, axis null"),
    "activation of 32 bits": (change("x", dtype="int32"), "tensor 'x' needs uint8 or int8 and one scale"),
    "clip beyond its bytes": (
        change("relu1_out", zero_point=100),
        "node 'relu1' is fused, but the scale of 'relu1_out' does not end where it clips",
    ),
    "clip without bytes": (without("relu3_out"), "node 'relu3' is fused, but the scale of 'relu3_out' does not end"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_plan_that_does_not_fit_is_refused(case: str) -> None:
    edit, message = REJECTED[case]
    with fails(message):
        made(edit=edit)


def test_a_clip_that_others_read_around_cannot_be_absorbed() -> None:
    net = Net(0)
    x = net.conv(net.input("x", 4, 8, 8), 4, 8)
    net.output(net.conv(net.op("Add", net.op("Relu", x, name="clip"), x), 8, 4))
    with fails("node 'clip' is fused, but others read 'conv0_out' too"):
        quantize_net(net, DATA, edit=kind("clip", "fused"))


@pytest.mark.parametrize("name", ["y", "last/q", "s0", "x/q", "x/dq", "conv_out/q"])
def test_names_that_are_taken_are_not_given_again(name: str, tmp_path: Path) -> None:
    """The last layer is called like the output it writes, or like something the rewrite would have made."""
    net = Net(9)
    x = net.conv(net.input("x", 4, 6, 6), 4, 8, name="conv")
    x = net.op("Relu", x, name="relu" if name == "y" else name)
    model = net.output(net.conv(x, 8, 4, name="last")).model()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "y"
    model.graph.node[-1].name = "y" if name == "y" else "last"
    line = quantize_net(model, random_data(4, 6, x=(4, 6, 6)))
    write_model(line.int8, tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["y"]
    assert line.sqnr() > 20


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_nothing_is_written_that_nothing_reads(channels: int) -> None:
    """An image that gets channels of zeros is read back with them, and not without."""
    net = Net(5)
    image = net.input("image", channels, 8, 8)
    x = net.op("Relu", net.conv(image, channels, 16, name="first"), name="relu")
    y = net.op("Tanh", image, name="tanh")
    net.output(net.conv(x, 16, 4, name="last"), y)
    line = quantize_net(net, random_data(5, 4, image=(channels, 8, 8)))
    assert line.kinds["first"] == "int8"
    dead = [node.name for node in line.int8.graph for v in node.outputs if not v.uses() and not v.is_graph_output()]
    assert dead == []
    assert line.sqnr() > 20


def test_a_file_for_arm_runs_with_32_bit_sums_here() -> None:
    """Its weights use 8 bits, which pairs in 16 bits would not hold."""
    line = made("arm64")
    (precise,) = Session(line.int8, threads=1, precise=True).run(DATA)
    (wanted,) = line.outputs(float_model=True)
    np.testing.assert_allclose(precise, wanted, atol=0.1 * np.abs(wanted).max())


@pytest.mark.parametrize("fill", [None, 0.25])
def test_the_fill_of_a_pad_is_a_scalar(fill: float | None) -> None:
    """ONNX says so; onnxruntime takes one of shape [1] too, and other runtimes do not."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8))
    more = [] if fill is None else [net.constant([fill])]
    x = net.op("Pad", x, net.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64), *more, name="pad")
    line = quantize_net(net.output(net.conv(x, 9, 4)), DATA)
    (pad,) = (node for node in line.int8.graph if node.op_type == "Pad")
    value = pad.inputs[2]
    assert value is not None and value.const_value is not None
    assert value.dtype == ir.DataType.UINT8
    assert tuple(value.const_value.shape) == ()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_product_of_fixed_lengths_and_its_bias_are_no_float_layer(swapped: bool) -> None:
    """onnxruntime would make one Gemm of the two, and read the weights back in every run."""
    net, random = Net(0), np.random.default_rng(0)
    weight, bias = random.normal(size=(8, 5)), random.normal(size=5)
    product = net.op("MatMul", net.input("x", 6, 8), net.constant(weight.astype(np.float32)), name="product")
    both = (product, net.constant(bias.astype(np.float32)))
    model = net.output(net.op("Add", *(both[::-1] if swapped else both))).model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    line = quantize_net(model, random_data(0, 1, x=(6, 8)))
    kernels = [node.op_type for node in optimize_graph(line.int8)]
    assert kernels == ["QuantizeLinear", "MatMulIntegerToFloat", "Add"]
    assert line.sqnr() > 30
