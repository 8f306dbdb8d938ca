"""Parameters, multiplications and memory, against networks counted by hand and against torch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from onnx import TensorProto as Tp
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy import cli
from fcdeploy.commands.inspect import inspect
from fcdeploy.prepare import activation_memory, cost_model
from fcdeploy.reporting.units import format_count, format_size

Dims = tuple[Any, ...]


def weights(**shapes: Any) -> list[onnx.TensorProto]:
    """Zeros of these shapes, or these arrays."""
    arrays = {name: np.zeros(v, np.float32) if isinstance(v, tuple) else v for name, v in shapes.items()}
    return [nh.from_array(array, name) for name, array in arrays.items()]


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    x: Dims,
    y: Dims = (),
    **options: Any,
) -> Path:
    """A model x -> y."""
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", options.get("dtype", Tp.FLOAT), x)],
        [oh.make_tensor_value_info("y", Tp.FLOAT, y or None)],
        initializers,
    )
    opsets = [oh.make_opsetid("", 17), oh.make_opsetid("com.microsoft", 1)]
    path = folder / "model.onnx"
    onnx.save(oh.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hand"), path)
    return path


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return oh.make_node(op, inputs.split(), [output], name=f"{op}_{output}", **attributes)


def counted(path: Path) -> list[tuple[Any, ...]]:
    return [(row["op"], row["shape"], row["parameters"], row["macs"]) for row in inspect(path).values["layers"]]


def test_convolution(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("Conv", "x w b", "y", pads=[1, 1, 1, 1])], weights(w=(48, 32, 3, 3), b=(48,)), ("N", 32, 10, 12)
    )
    report = inspect(path)
    assert counted(path) == [("Conv", [1, 48, 10, 12], 13_872, 10 * 12 * 48 * 32 * 9)]
    values = report.values
    assert (values["parameters"], values["macs"]) == (13_872, 1_658_880)
    assert values["weight_bytes"] == 4 * 13_872
    assert values["bytes"] == path.stat().st_size
    assert values["peak_activation_bytes"] == 4 * 10 * 12 * (32 + 48)
    assert (values["opset"], values["ir_version"], values["producer"]) == (17, 8, "hand")
    assert values["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 32, 10, 12]}]
    assert report.lines[-1] == "13,872 parameters, 1.66 million multiply-accumulates at batch 1"
    assert report.warnings == ()
    assert report.tables[0].rows[0] == ("input", "x", "float32", "N x 32 x 10 x 12")


def test_a_free_axis_is_called_as_the_file_calls_it(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("Identity", "x", "y")], [], ("batch", "seq_len", None, 4), ("batch", "floor(h/2) + 1", -1, 4)
    )
    table = inspect(path).tables[0]
    assert [row[3] for row in table.rows] == ["batch x seq_len x ? x 4", "batch x ? x ? x 4"]


def test_dense(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Gemm", "x w b", "y", transB=1)], weights(w=(4096, 4096), b=(4096,)), (None, 4096))
    assert counted(path) == [("Gemm", [1, 4096], 16_781_312, 16_777_216)]


Convolution = tuple[int, int, int, int, int, int, str]  # out, in per group, kernel, stride, pad, groups, pool after
VGG16: list[Convolution] = [
    (out, read, 3, 1, 1, 1, "2 2" if last else "")
    for stage, before in (((64, 64), 3), ((128, 128), 64), ((256,) * 3, 128), ((512,) * 3, 256), ((512,) * 3, 512))
    for out, read, last in zip(stage, (before, *stage), [*[False] * (len(stage) - 1), True], strict=False)
]
ALEXNET: list[Convolution] = [
    (96, 3, 11, 4, 0, 1, "3 2"), (256, 48, 5, 1, 2, 2, "3 2"), (384, 256, 3, 1, 1, 1, ""), (384, 192, 3, 1, 1, 2, ""),
    (256, 192, 3, 1, 1, 2, "3 2"),
]  # fmt: skip


def of_shapes(convolutions: list[Convolution], dense: list[int], size: int) -> ir.Model:
    """A classifier whose weights have a shape and no memory."""
    nodes, shapes, x = [], {}, "x"
    for i, (out, read, k, stride, pad, groups, pool) in enumerate(convolutions):
        shapes |= {f"w{i}": (out, read, k, k), f"b{i}": (out,)}
        padding = {"strides": [stride] * 2, "pads": [pad] * 4}
        nodes += [node("Conv", f"{x} w{i} b{i}", f"c{i}", group=groups, **padding), node("Relu", f"c{i}", f"r{i}")]
        x = f"r{i}"
        if pool:
            length, step = map(int, pool.split())
            nodes.append(node("MaxPool", x, f"p{i}", kernel_shape=[length] * 2, strides=[step] * 2))
            x = f"p{i}"
    nodes.append(node("Flatten", x, "flat"))
    x = "flat"
    for i, (read, out) in enumerate(itertools.pairwise(dense)):
        shapes |= {f"dw{i}": (out, read), f"db{i}": (out,)}
        nodes += [node("Gemm", f"{x} dw{i} db{i}", f"d{i}", transB=1), node("Relu", f"d{i}", f"dr{i}")]
        x = f"dr{i}"
    inputs = {"x": (None, 3, size, size), **shapes}
    graph = oh.make_graph(
        nodes, "g", [oh.make_tensor_value_info(*item) for item in ((n, Tp.FLOAT, s) for n, s in inputs.items())],
        [oh.make_tensor_value_info(x, Tp.FLOAT, None)],
    )  # fmt: skip
    model = ir.from_proto(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8))
    for value in [value for value in model.graph.inputs if value.name in shapes]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.broadcast_to(np.float32(0), shapes[value.name]), name=value.name)
        model.graph.initializers[value.name] = value
    return model


@pytest.mark.parametrize(
    ("convolutions", "dense", "size", "parameters", "macs", "peak"),
    [
        # Krizhevsky et al. 2012 with its two groups: the first convolution's result and its Relu's, 96 x 55 x 55 each
        (ALEXNET, [9216, 4096, 4096, 1000], 227, 60_965_224, 724_406_816, 2 * 4 * 96 * 55 * 55),
        # Simonyan and Zisserman 2014, D: what the second convolution reads and writes, 64 x 224 x 224 each
        (VGG16, [25088, 4096, 4096, 1000], 224, 138_357_544, 15_470_264_320, 2 * 4 * 64 * 224 * 224),
    ],
    ids=["alexnet", "vgg16"],
)
def test_whole_networks_as_published(
    convolutions: list[Convolution], dense: list[int], size: int, parameters: int, macs: int, peak: int
) -> None:
    model = of_shapes(convolutions, dense, size)
    cost_model.fix_leading_axis(model)
    rows = cost_model.list_layer_costs(model)
    assert sum(row.parameters for row in rows) == parameters
    assert sum(row.macs or 0 for row in rows) == macs
    assert cost_model.weight_bytes(model) == 4 * parameters
    assert activation_memory.measure_peak(model) == peak


def test_the_convolutions_of_alexnet(tmp_path: Path) -> None:
    """Krizhevsky et al. 2012, with the groups of its two GPUs; the counts are those the literature gives."""
    table = [  # channels out, in per group, kernel, stride, pad, groups, pool after, parameters, MACs
        (96, 3, 11, 4, 0, 1, True, 34_944, 105_415_200),
        (256, 48, 5, 1, 2, 2, True, 307_456, 223_948_800),
        (384, 256, 3, 1, 1, 1, False, 885_120, 149_520_384),
        (384, 192, 3, 1, 1, 2, False, 663_936, 112_140_288),
        (256, 192, 3, 1, 1, 2, True, 442_624, 74_760_192),
    ]
    nodes, shapes, name = [], {}, "x"
    for i, (out, per_group, k, stride, pad, groups, pool, *_) in enumerate(table):
        shapes |= {f"w{i}": (out, per_group, k, k), f"b{i}": (out,)}
        nodes.append(
            node(
                "Conv",
                f"{name} w{i} b{i}",
                f"c{i}",
                strides=[stride] * 2,
                pads=[pad] * 4,
                group=groups,
                kernel_shape=[k] * 2,
            )
        )
        nodes.append(node("Relu", f"c{i}", f"r{i}"))
        name = f"r{i}"
        if pool:
            nodes.append(node("MaxPool", name, f"p{i}", kernel_shape=[3, 3], strides=[2, 2]))
            name = f"p{i}"
    nodes[-1].output[0] = "y"
    path = save(tmp_path, nodes, weights(**shapes), ("batch", 3, 227, 227))
    convolutions = [row for row in counted(path) if row[0] == "Conv"]
    assert [row[2:] for row in convolutions] == [row[-2:] for row in table]
    values = inspect(path).values
    assert values["layers"][-1]["shape"] == [1, 256, 6, 6]
    assert values["parameters"] == 2_334_080
    assert values["peak_activation_bytes"] == 2 * 4 * 96 * 55 * 55  # the first convolution's output and its clip


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("Conv1d(6, 8, 5, padding=2)", (1, 6, 20)),
        ("Conv2d(12, 12, 3, groups=12, bias=False)", (1, 12, 9, 9)),
        ("Conv3d(2, 4, 3)", (1, 2, 5, 6, 7)),
        ("ConvTranspose2d(8, 6, 4, stride=2, groups=2)", (1, 8, 5, 5)),
        ("Linear(7, 9)", (1, 3, 7)),
        ("LSTM(10, 12, bidirectional=True, batch_first=True)", (1, 6, 10)),
        ("GRU(10, 12, batch_first=True)", (1, 6, 10)),
        ("BatchNorm2d(5)", (1, 5, 4, 4)),
        ("PReLU(5)", (1, 5, 4, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore")  # the exporter that is quick calls itself legacy
def test_parameters_are_those_torch_counts(layer: str, shape: Dims, tmp_path: Path) -> None:
    """torch counts the parameters, and for the multiplications the FLOPs of its own kernels (two for each)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = eval(f"nn.{layer}", {"nn": torch.nn}).eval()
    path = tmp_path / "m.onnx"
    torch.onnx.export(module, (torch.zeros(shape),), path, dynamo=False, opset_version=17)
    values = inspect(path).values
    assert values["parameters"] == sum(p.numel() for p in module.parameters())
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(shape))
    if not isinstance(module, torch.nn.LSTM | torch.nn.GRU):
        assert values["macs"] == counter.get_total_flops() // 2
    else:
        steps, gates = shape[1], sum(p.numel() for name, p in module.named_parameters() if "weight" in name)
        assert values["macs"] == steps * gates


def test_matmul_bias_and_scalars(tmp_path: Path) -> None:
    """A bias added by an Add is learned; the one number of a Mul, the ends of a Clip and a shape are not."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("Add", "a b", "c"),
        node("Mul", "c half", "d"),
        node("Clip", "d low high", "e"),
        node("Reshape", "e shape", "y"),
    ]
    constants = weights(w=(6, 4), b=(4,), half=np.float32(0.5), low=np.float32(0), high=np.float32(6))
    path = save(tmp_path, nodes, [*constants, *weights(shape=np.array([-1, 2, 2]))], (None, 6))
    assert [row[2:] for row in counted(path)] == [(24, 24), (4, 0), (0, 0), (0, 0), (0, 0)]
    assert counted(path)[-1][1] == [1, 2, 2]


def test_shared_weights_count_once(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "r"), node("MatMul", "r w", "y")]
    path = save(tmp_path, nodes, weights(w=(5, 5)), (None, 5))
    assert [row[2:] for row in counted(path)] == [(25, 25), (0, 0), (0, 25)]


def test_peak_of_a_residual_block(tmp_path: Path) -> None:
    """x stays alive across both convolutions: at the second one three tensors are; reshaping copies nothing."""
    nodes = [
        node("Conv", "x w1", "a", pads=[1] * 4),  # 2 channels -> 6
        node("Conv", "a w2", "b", pads=[1] * 4),  # 6 -> 2
        node("Add", "x b", "c"),
        node("Flatten", "c", "y"),
    ]
    path = save(tmp_path, nodes, weights(w1=(6, 2, 3, 3), w2=(2, 6, 3, 3)), (None, 2, 4, 4))
    assert inspect(path).values["peak_activation_bytes"] == 4 * 16 * (2 + 6 + 2)


def quantized(folder: Path) -> Path:
    """x -> conv -> relu -> flatten -> dense -> y with bytes in between, as `fcdeploy quantize` writes it."""
    bytes_ = {"zero": np.uint8(0), "s": np.float32(0.01), "ws": np.float32(0.02), "bs": np.float32(0.0002)}
    constants = weights(
        **bytes_,
        w=np.ones((8, 2, 3, 3), np.int8),
        b=np.ones(8, np.int32),
        v=np.ones((8 * 16, 5), np.int8),
        wz=np.int8(0),
        bz=np.int32(0),
    )
    nodes = [
        node("QuantizeLinear", "x s zero", "xq"),
        node("DequantizeLinear", "xq s zero", "xd"),
        node("DequantizeLinear", "w ws wz", "wd"),
        node("DequantizeLinear", "b bs bz", "bd"),
        node("Conv", "xd wd bd", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r s zero", "rq"),
        node("DequantizeLinear", "rq s zero", "rd"),
        node("Flatten", "rd", "f"),
        node("QuantizeLinear", "f s zero", "fq"),
        node("DequantizeLinear", "fq s zero", "fd"),
        node("DequantizeLinear", "v ws wz", "vd"),
        node("MatMul", "fd vd", "m"),
        node("QuantizeLinear", "m s zero", "mq"),
        node("DequantizeLinear", "mq s zero", "y"),
    ]
    return save(folder, nodes, constants, (None, 2, 4, 4), (None, 5))


def test_an_int8_model_counts_as_its_float_model(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    rows = inspect(path).values["layers"]
    assert [(row["op"], row["parameters"], row["macs"]) for row in rows] == [
        ("Conv", 8 * 2 * 9 + 8, 16 * 8 * 2 * 9),
        ("Relu", 0, 0),
        ("Flatten", 0, 0),
        ("MatMul", 128 * 5, 128 * 5),
    ]
    assert [row["weight_bytes"] for row in rows] == [8 * 2 * 9 + 4 * 8, 0, 0, 640]
    assert [row["activation_bytes"] for row in rows] == [128, 128, 128, 5]
    # the float input is read while its bytes are written; after that no tensor is larger than 128 bytes
    assert inspect(path).values["peak_activation_bytes"] == 4 * 32 + 32


def test_kernels(tmp_path: Path) -> None:
    report = inspect(quantized(tmp_path), kernels=True)
    found = {row["op"]: row for row in report.values["kernels"]}
    assert found["Conv"]["kernel"] == "QLinearConv"
    assert found["Conv"]["integer"] is True
    assert found["MatMul"]["integer"] is True
    assert "1 of 1 Conv" in report.lines[-2]
    assert report.lines[-2].endswith("in integer kernels")
    assert "kernels" not in inspect(tmp_path / "model.onnx").values
    _, layers = report.tables  # one table has both
    assert layers.columns[4:6] == ("kernel", "in")
    assert {row[0]: row[4:6] for row in layers.rows} == {
        row["node"]: (row["kernel"], "int" if row["integer"] else "float") for row in report.values["kernels"]
    }


def test_packed_weights_and_operators_onnx_does_not_know(tmp_path: Path) -> None:
    """MatMulNBits keeps two weights in a byte, and only a run tells the shapes behind it."""
    packed = weights(w=np.full((6, 1, 16), 0x88, np.uint8), s=np.ones(6, np.float32))
    nodes = [
        node("MatMulNBits", "x w s", "a", domain="com.microsoft", K=32, N=6, bits=4, block_size=32),
        node("Relu", "a", "y"),
    ]
    path = save(tmp_path, nodes, packed, (None, 32))
    assert counted(path) == [("MatMulNBits", [1, 6], 192, 192), ("Relu", [1, 6], 0, 0)]
    assert inspect(path).values["layers"][0]["weight_bytes"] == 96


def test_axes_of_any_length_are_said(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Conv", "x w", "y")], weights(w=(4, 3, 3, 3)), (None, 3, "h", "w"))
    report = inspect(path)
    assert report.values["macs"] is None
    assert report.values["peak_activation_bytes"] is None
    assert report.values["layers"][0]["parameters"] == 108
    assert report.warnings == (
        "sizes of 1 of 1 layer are unknown: input x float32[?, 3, ?, ?] leaves more than its batch open; --shape says at "
        "which to count",
    )
    assert report.lines[-1] == "108 parameters, an unknown number of multiply-accumulates at batch 1"
    report = inspect(path, shapes={"x": (1, 3, 10, 12)})
    assert report.values["macs"] == 8 * 10 * 108
    assert not report.warnings
    with fails("shape 1,4,10,12 for input x float32[?, 3, ?, ?], which does not take it", "--shape x:1,3,1,1"):
        inspect(path, shapes={"x": (1, 4, 10, 12)})


def test_subgraphs_are_not_counted_in_silence(tmp_path: Path) -> None:
    branch = [
        oh.make_graph([node("MatMul", "x w", name)], name, [], [oh.make_tensor_value_info(name, Tp.FLOAT, (1, 3))])
        for name in ("then", "else")
    ]
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "y", then_branch=branch[0], else_branch=branch[1]),
    ]
    report = inspect(save(tmp_path, nodes, weights(w=(3, 3), zero=np.float32(0)), (1, 3)))
    assert report.warnings == ("multiply-accumulates inside the subgraphs of 'If_y' are not counted",)
    assert report.values["parameters"] == 9


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08" * 40, None])
def test_files_that_are_no_model(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "bad.onnx"
    whole = quantized(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    with fails("bad.onnx' "):
        inspect(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda g: g.node.pop(0), "broken: 'xq', an input of node 'DequantizeLinear_xd', comes from nowhere"),
        (lambda g: g.node.pop(), "broken: 'y', an output of the graph, comes from nowhere"),
        (lambda g: g.node[4].output.pop(), "broken: 'c', an input of node 'Relu_r', comes from nowhere"),
        (lambda g: setattr(g.initializer[0], "data_type", 0), "tensor 'zero' has no data type"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_graphs_that_are_broken(tmp_path: Path, edit: Any, message: str) -> None:
    model = onnx.load(quantized(tmp_path))
    edit(model.graph)
    onnx.save(model, tmp_path / "broken.onnx")
    with fails(message):
        inspect(tmp_path / "broken.onnx")


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(quantized(tmp_path))
    assert cli.main(["inspect", path, "--kernels", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert next(iter(values.items())) == ("schema", "fcdeploy.inspect/1")
    assert {"inputs", "outputs", "opset", "ir_version", "parameters", "macs", "bytes", "layers", "kernels"} <= set(
        values
    )
    assert {"node", "op", "kernel"} <= set(values["kernels"][0])
    assert cli.main(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert "Conv_c" in text
    assert "152" in text
    assert text.splitlines()[-1] == "792 parameters, 2,944 multiply-accumulates at batch 1"


def test_numbers_for_people() -> None:
    assert [format_size(n) for n in (0, 999, 17_408, 1_080_000, 2_700_000_000)] == [
        "0 B",
        "999 B",
        "17.4 kB",
        "1.08 MB",
        "2.7 GB",
    ]
    assert [format_count(n) for n in (None, 9_216, 40_551_040, 4 * 10**9)] == [
        "an unknown number of",
        "9,216",
        "40.6 million",
        "4 billion",
    ]
