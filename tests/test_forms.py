"""The forms of files, the versions and other runtimes that take them, and planning that keeps to what these take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, random_data

from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.forms import list_forms
from fcdeploy.graph.opset import oldest_runtime
from fcdeploy.reporting.runtimes import NOT_RUN
from fcdeploy.runtime.other_runtimes import find_runtimes
from fcdeploy.runtime.probes.kernels import PATTERNS, operator_probes
from fcdeploy.runtime.probes.qdq_graph import Probe, QdqGraph
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
    assert "Gemm, bytes to bytes" in reasons["c"]


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
