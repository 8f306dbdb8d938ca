"""The forms of files, the versions and other runtimes that take them, and planning that keeps to what these take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, random_data

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.form_details import SEVERAL_ROWS
from fcdeploy.graph.forms import list_forms
from fcdeploy.graph.opset import oldest_runtime
from fcdeploy.reporting.runtimes import NOT_RUN
from fcdeploy.runtime.other_runtimes import find_runtimes
from fcdeploy.runtime.probes.kernels import PATTERNS, operator_probes
from fcdeploy.runtime.probes.qdq_graph import Probe, QdqGraph
from fcdeploy.runtime.session import Session
from fcdeploy.tables.observations import VERSIONS
from fcdeploy.tables.oldest import OLDEST
from fcdeploy.tables.other_runtimes import TITLES, UNTAKEN

PROBES = {**operator_probes(), **PATTERNS}


def forms(probe: Probe) -> dict[str, list[str]]:
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(probe.model))
    return list_forms(ir.from_proto(inferred))


@pytest.mark.parametrize(
    ("probe", "form"),
    [
        ("Slice, on uint8", "Slice, on uint8"),
        ("Gemm", "Gemm, bytes to bytes"),
        ("Conv, 16 bits", "com.microsoft QuantizeLinear"),
        ("MatMul, two activations", "MatMul, bytes to bytes"),
    ],
)
def test_forms_are_how_operators_stand_among_bytes(probe: str, form: str) -> None:
    assert form in forms(PROBES[probe]())
    assert form not in forms(PROBES["Conv"]())
    assert form not in forms(PROBES["Gemm, to float"]())


@pytest.mark.parametrize("quantized", [True, False])
def test_what_a_recurrent_layer_reads_may_have_been_bytes(quantized: bool) -> None:
    g = QdqGraph()
    x = g.input(5, 1, 3)
    x = g.op("Mul", g.pair(x) if quantized else x, g.constant(2))
    cell = g.op("LSTM", x, g.constant(np.ones((1, 8, 3))), g.constant(np.ones((1, 8, 2))), hidden_size=2)
    assert ("LSTM, behind bytes" in forms(g.probe(cell))) is quantized


def details(op: str, shape: tuple[int, ...], *weights: tuple[int, ...], opset: int = 17, **told: Any) -> set[str]:
    """The forms of an operator, without its name and the operator set."""
    g = QdqGraph(opset=opset)
    x = g.input(*shape)
    written = g.op(op, x, *(g.constant(np.ones(each)) for each in weights), **told)
    return {*forms(g.probe(written))} - {op, f"operator set {opset}"}


POOL, LOWER = {"kernel_shape": [2, 2]}, {"auto_pad": "SAME_LOWER"}
LSTM = ((1, 8, 3), (1, 8, 2))


@pytest.mark.parametrize(
    ("with_it", "without", "form"),
    [
        (("MaxPool", (1, 2, 6, 6), {**POOL, **LOWER}), {"auto_pad": "SAME_UPPER"}, "MaxPool, padded by SAME_LOWER"),
        (("MaxPool", (1, 2, 6, 6), {**POOL, "dilations": [2, 1]}), {"dilations": [1, 1]}, "MaxPool, dilated"),
        (("Softmax", (1, 2, 6), {"axis": 1, "opset": 11}), {"axis": 2}, "Softmax, over several axes"),
        (("Softmax", (1, 2, 6), {"axis": 1, "opset": 12}), {"opset": 13}, "Softmax, over several axes"),
        (("Cast", (1, 6), {"to": onnx.TensorProto.INT32}), {"to": onnx.TensorProto.DOUBLE}, "Cast, to integers"),
        (("Cast", (1, 6), {"to": onnx.TensorProto.BOOL}), {"to": onnx.TensorProto.FLOAT}, "Cast, to bool"),
    ],
)  # fmt: skip
def test_details_are_said_where_they_change_answers(
    with_it: tuple[str, tuple[int, ...], dict[str, Any]], without: dict[str, Any], form: str
) -> None:
    op, shape, told = with_it
    assert details(op, shape, **told) == {form}
    assert details(op, shape, **{**told, **without}) == set()


def test_details_of_layers() -> None:
    told: dict[str, Any] = {"hidden_size": 2}
    usual = {"activations": ["Sigmoid", "Tanh", "Tanh"], "clip": 0.0}
    assert details("LSTM", (4, 1, 3), *LSTM, **told, **usual) == {"LSTM, weights in float"}
    assert "LSTM, clipped" in details("LSTM", (4, 1, 3), *LSTM, **told, clip=1.0)
    other = {"activations": ["Sigmoid", "Relu", "Tanh"]}
    assert "LSTM, other activations" in details("LSTM", (4, 1, 3), *LSTM, **told, **other)

    transposed = ("ConvTranspose", (1, 2, 5, 5), (2, 2, 3, 3))
    assert details(*transposed, pads=[1, 1, 1, 1]) == set()
    assert details(*transposed, auto_pad="SAME_LOWER") == {"ConvTranspose, its lengths by auto_pad"}
    assert details(*transposed, output_shape=[6, 6]) == {"ConvTranspose, its lengths by output_shape"}
    assert details(*transposed, dilations=[2, 2]) == {"ConvTranspose, dilated"}


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(3, 9),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_windows_in_the_padding_are_those_that_onnxruntime_leaves_out(
    size: int, kernel: int, stride: int, pads: tuple[int, int]
) -> None:
    """Of as many as the plain formula of ceil_mode counts."""
    told = {"kernel_shape": [kernel], "strides": [stride], "pads": [*pads], "ceil_mode": 1}
    counted = -(-(size + sum(pads) - kernel) // stride) + 1
    g = QdqGraph()
    probe = g.probe(g.op("MaxPool", g.input(1, 1, size), **told))
    (written,) = Session(probe.model, threads=1).run(probe.feeds)
    assert ("MaxPool, windows behind the input" in details("MaxPool", (1, 1, size), **told)) == (
        written.shape[2] < counted
    )


@pytest.mark.parametrize("to_bytes", [True, False])
@pytest.mark.parametrize(("rows", "bias", "said"), [(3, True, True), (1, True, False), (3, False, False)])
def test_a_bias_for_several_rows(rows: int, bias: bool, said: bool, to_bytes: bool) -> None:
    g = QdqGraph()
    inputs = [g.pair(g.input(rows, 6)), g.weight(g.bytes(6, 4), np.full(4, 0.01), 1)]
    if bias:
        inputs.append(g.bias(np.arange(4), np.full(4, 0.0005)))
    written = g.op("Gemm", *inputs)
    assert (SEVERAL_ROWS in forms(g.probe(g.pair(written) if to_bytes else written))) is said


def test_conversions_without_a_type() -> None:
    g = QdqGraph()
    x = g.op("QuantizeLinear", g.input(1, 6), g.constant(0.1))
    assert "QuantizeLinear without a zero point" in forms(g.probe(g.op("DequantizeLinear", x, g.constant(0.1))))
    assert "QuantizeLinear without a zero point" not in forms(PROBES["Conv"]())
    for dtype, number, said in (("int8", -5, True), ("int8", 5, False), ("uint8", 200, False)):
        g = QdqGraph(dtype, number)
        x = g.op("Pad", g.quantize(g.input(1, 6)), g.constant([0, 1, 0, 1], np.int64), g.constant(number, dtype))
        assert ("Pad, on int8, with a negative number" in forms(g.probe(g.dequantize(x)))) is said


def test_every_detail_that_a_runtime_reads_otherwise_has_a_row() -> None:
    """Those of the tables that name a detail are forms that a file can have."""
    rows = {form for table in UNTAKEN.values() for form in table if "nearest by" in form}
    told = [form.removeprefix("Resize, nearest by ").split(", ") for form in rows]
    assert rows
    for nearest, places in told:
        g = QdqGraph()
        how = {"mode": "nearest", "nearest_mode": nearest, "coordinate_transformation_mode": places}
        probe = g.probe(g.op("Resize", g.input(1, 1, 4), "", g.constant([1, 1, 2]), **how))
        assert f"Resize, nearest by {nearest}, {places}" in forms(probe)


def test_int8_files_have_no_padding_that_others_read_otherwise(tmp_path: Path) -> None:
    """Rules for pads are written out: the file is taken where the model that it was made from is not."""
    net = Net(5, opset=13)
    x = net.op("Relu", net.conv(net.input("x", 4, 9, 9), 4, 8, (2, 2), name="a", pad=False, auto_pad="SAME_LOWER"))
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    model = net.output(net.conv(x, 8, 8, name="b")).model()
    for axis in (2, 3):  # onnx counts the windows that onnxruntime and torch leave out
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = 5
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 24, x=(4, 9, 9)))
    rules = {"Conv, padded by SAME_LOWER", "MaxPool, windows behind the input"}
    assert rules <= {row["form"] for row in inspect(tmp_path / "m.onnx", runtimes=True).values["runtimes"]}
    quantize(
        tmp_path / "m.onnx", data=tmp_path / "data.npz", output=tmp_path / "o.onnx", costs="none", effort="fast",
        floor="none", runtimes="openvino,opencv,tract",
    )  # fmt: skip
    assert not inspect(tmp_path / "o.onnx", runtimes=True).values["runtimes"]
    said = {value.name: value.type.tensor_type.shape for value in onnx.load(tmp_path / "o.onnx").graph.value_info}
    assert [dim.dim_value for dim in said["pool_out/q"].dim[2:]] == [5, 5]
    samples = random_data(1, 2, x=(4, 9, 9))
    plain, int8 = (Session(tmp_path / f"{name}.onnx", threads=1).run(samples)[0] for name in ("m", "o"))
    assert plain.shape == int8.shape
    assert measure_fidelity(plain, int8).sqnr_db > 25


def test_a_softmax_that_a_runtime_gets_wrong_on_bytes_stays_float(tmp_path: Path) -> None:
    net = Net(6, opset=13)
    x = net.input("x", 8, 8)
    a, b = (net.op("MatMul", x, net.constant(net.normal(8, 8, size=0.4)), name=name) for name in "ab")
    shares = net.op(
        "Softmax", net.op("MatMul", a, net.op("Transpose", b, perm=[0, 2, 1]), name="c"), axis=-1, name="shares"
    )
    onnx.save(net.output(net.op("MatMul", shares, x, name="d")).model(), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 24, x=(8, 8)))
    kinds = {}
    for runtimes in (None, "tract"):
        report = quantize(
            tmp_path / "m.onnx", data=tmp_path / "data.npz", output=tmp_path / "o.onnx", costs="none", effort="fast",
            floor="none", runtimes=runtimes, force=True,
        )  # fmt: skip
        kinds[runtimes] = {row["node"]: row["why"] for row in report.values["nodes_float"]}
    assert "shares" not in kinds[None]
    assert "tract" in kinds["tract"]["shares"]
    assert "Softmax, bytes to bytes" in kinds["tract"]["shares"]


def sliced() -> Net:
    """A shortcut as ResNets of CIFAR-10 have it: every second pixel of bytes, and a dense layer that writes bytes."""
    net = Net(3, opset=13)
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 8, name="a"))
    short = net.op("Slice", x, *(net.constant(v, np.int64) for v in ([0, 0], [8, 8], [2, 3], [2, 2])), name="slice")
    y = net.op("Add", net.conv(short, 8, 8, name="b"), short, name="add")
    z = net.op("Relu", net.dense(net.op("Flatten", y), 128, 16, name="c"))
    return net.output(net.dense(z, 16, 3, name="d"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The network and its samples."""
    folder = tmp_path_factory.mktemp("forms")
    onnx.save(sliced().model(), folder / "net.onnx")
    np.savez(folder / "data.npz", **random_data(0, 24, x=(4, 8, 8)))
    return folder / "net.onnx", folder / "data.npz"


def test_files_keep_to_what_the_named_runtimes_take(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    free, kept = tmp_path / "free.onnx", tmp_path / "kept.onnx"
    quantize(model, data=data, output=free, costs="none", effort="fast", floor="none")
    seen = {(row["runtime"], row["form"]) for row in inspect(free, runtimes=True).values["runtimes"]}
    assert {("opencv4", "Slice, on uint8"), ("opencv5", "Gemm, bytes to bytes")} <= seen

    report = quantize(
        model, data=data, output=kept, costs="none", effort="fast", floor="none", runtimes="opencv,tract,web"
    )
    assert report.lines[-2].startswith("kept to what OpenCV 4") and "tract" in report.lines[-2]
    seen = {row["runtime"] for row in inspect(kept, runtimes=True).values["runtimes"]}
    assert seen.isdisjoint({"opencv4", "opencv5", "tract", "web"})
    assert "QLinearConv" in {node["kernel"] for node in report.values["nodes_int8"]}  # what they do take, they get
    reasons = {node["node"]: node["why"] for node in report.values["nodes_float"]}
    assert "Gemm, on bytes that are read back" in reasons["c"]


def test_what_staying_in_float_does_not_change_is_refused(tmp_path: Path) -> None:
    net = Net(4, opset=13)
    x = net.input("x", 5, 3)
    weights = [net.constant(net.normal(*shape)) for shape in ((1, 12, 3), (1, 12, 4))]
    y = net.op("GRU", net.op("Transpose", x, perm=[1, 0, 2]), *weights, hidden_size=4, name="gru")
    onnx.save(net.output(y).model(), tmp_path / "gru.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 20, x=(5, 3)))
    model, data, out = tmp_path / "gru.onnx", tmp_path / "data.npz", tmp_path / "o.onnx"
    with fails(f"OpenCV 4.14.0.94 {UNTAKEN['opencv4']['GRU']}: GRU at 'gru'", "leave --for out"):
        quantize(model, data=data, output=out, runtimes="opencv")
    with fails(f"{UNTAKEN['opencv4']['GRU']}: GRU at 'gru'", "--for web,tract"):
        quantize(model, data=data, output=out, runtimes="opencv,web,tract")
    with fails("runtime 'nothing' is unknown, expected node, opencv"):
        quantize(model, data=data, output=out, runtimes="nothing")
    assert not out.exists()


def test_an_operator_that_was_never_run_elsewhere_is_said_to_be_unknown(tmp_path: Path) -> None:
    net = Net(4, opset=13)
    x = net.input("x", 6)
    held = net.op("Celu", x, name="celu")
    onnx.save(net.output(net.dense(held, 6, 3, name="a")).model(), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 24, x=(6,)))
    report = quantize(
        tmp_path / "m.onnx", data=tmp_path / "data.npz", output=tmp_path / "o.onnx", costs="none", floor="none",
        runtimes="openvino",
    )  # fmt: skip
    assert "is not known: never tried with Celu" in report.lines[-2]
    seen = inspect(tmp_path / "o.onnx", runtimes=True)
    rows = {row[0]: row[1:] for row in next(t for t in seen.tables if t.title == "Other runtimes").rows}
    assert rows[TITLES["openvino"]] == ("never tried", "Celu", "celu", NOT_RUN)
    assert seen.values["never_tried"] == ["Celu"]
    assert any("never tried in the others with Celu" in line for line in seen.lines)


def test_names_stand_for_all_versions() -> None:
    assert find_runtimes("opencv, tract") == ("opencv4", "opencv5", "tract")
    assert find_runtimes(None) == ()
    for nothing in ("", ",", "openvino,,web"):
        with fails(f"--for {nothing!r} names nothing in one place", "--for openvino,web,tract"):
            find_runtimes(nothing)
    assert {*UNTAKEN} == {*TITLES}


def test_the_oldest_runtime_is_that_of_the_newest_form() -> None:
    """A file asks for the latest of its forms; those that never ran are taken to come with their operator set."""
    newest = max(OLDEST.values(), key=lambda version: [*map(int, version.split("."))])
    assert any(version.removesuffix(".0") == newest for version in VERSIONS)
    model = ir.from_proto(
        onnx.shape_inference.infer_shapes(onnx.load_from_string(PROBES["DepthToSpace, on int8"]().model))
    )
    model.opset_imports[""] = 13
    assert oldest_runtime(model) == OLDEST["DepthToSpace, on int8"]
    plain = ir.from_proto(sliced().model())
    assert oldest_runtime(plain) == "1.7"
    plain.opset_imports[""] = 16  # not in the table: by release notes
    assert oldest_runtime(plain) == "1.11"
