"""The int8 model beside the float one, tensor by tensor."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import Net, quantize_net, random_data
from onnx import TensorProto, helper, numpy_helper
from small_models import quantized, residual, samples, save

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate import quantized_tensors
from fcdeploy.evaluate.rounding_error import measure_rounding
from fcdeploy.graph.model import files_of, measure_size, read_model
from fcdeploy.runtime.session import LoadOptions, Session


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual(tmp_path_factory.mktemp("layers") / "float.onnx")


@pytest.fixture(scope="module")
def int8_model(float_model: Path) -> Path:
    return quantized(float_model, samples(64, 3, 8, 8), float_model.parent / "int8.onnx")


@pytest.fixture(scope="module")
def data(float_model: Path) -> Path:
    np.savez(float_model.parent / "eval.npz", x=samples(96, 3, 8, 8, seed=1))
    return float_model.parent / "eval.npz"


def kernels(model: ir.Model, folder: Path) -> Counter[str]:
    Session(model, load=LoadOptions(dump=folder / "optimized.onnx"))
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize(
    ("kind", "declared"), [(np.int8, False), (np.int8, True), (np.uint16, False), (np.int16, True)]
)
def test_the_error_of_a_rounding_is_that_of_its_type(kind: type, declared: bool) -> None:
    """Of a zero point, or of `output_dtype` where there is none."""
    zero = [] if declared else ["z"]
    more = {"output_dtype": helper.np_dtype_to_tensor_dtype(np.dtype(kind))} if declared else {}
    nodes = [
        helper.make_node("Identity", ["x"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "s", *zero], ["q"], "q", **more),
        helper.make_node("DequantizeLinear", ["q", "s", *zero], ["y"], "dq"),
    ]
    held = [numpy_helper.from_array(np.float32(0.01), "s"), numpy_helper.from_array(kind(0), "z")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    (tensor,) = quantized_tensors.find_quantized_tensors(model)
    low = 0 if np.dtype(kind).kind == "u" else -100
    found = measure_rounding(tensor, np.arange(low, 100, dtype=np.float32) / 100)
    assert found.clipped == 0
    assert found.levels == np.iinfo(kind).max - np.iinfo(kind).min
    assert found.sqnr_db > 100


def test_looking_does_not_change_what_runs(int8_model: Path, tmp_path: Path) -> None:
    x = samples(16, 3, 8, 8)
    plain, exposed = read_model(int8_model), read_model(int8_model)
    taps = quantized_tensors.find_quantized_tensors(exposed)
    quantized_tensors.expose_tensors(exposed, [tap.integers for tap in taps])
    (expected,) = Session(plain).run({"x": x})
    found = dict(zip((session := Session(exposed)).outputs, session.run({"x": x}), strict=True))
    assert np.array_equal(found["logits"], expected)
    assert len(found) == len(taps) + 1
    assert {found[tap.integers].dtype for tap in taps} == {np.dtype(np.uint8)}
    before, after = kernels(plain, tmp_path), kernels(exposed, tmp_path)
    assert before["QLinearConv"] == after["QLinearConv"] == 3
    assert before["QLinearAdd"] == after["QLinearAdd"] == 1
    assert "Conv" not in after


def test_sqnr_is_that_of_the_tensors(float_model: Path, int8_model: Path, data: Path) -> None:
    """Against plain onnxruntime: tensors as outputs of the float file, and dequantized by a DequantizeLinear."""
    report = validate(int8_model, against=float_model, data=data, layers=True)
    rows = {row["tensor"]: row for row in report.values["layers"]}
    assert not [warning for warning in report.warnings if "no tensor named" in warning]
    assert {"x", "r1", "r2", "r3", "c2", "g", "logits"} <= set(rows)
    assert [row["sqnr_db"] for row in rows.values()] == sorted(row["sqnr_db"] for row in rows.values())
    x = np.load(data)["x"]
    model, int8 = onnx.load(float_model), onnx.load(int8_model)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("r1", "r2"))
    written = {node.input[0]: node for node in int8.graph.node if node.op_type == "QuantizeLinear"}
    for float_name, int8_name in (("r1", "c1"), ("r2", "a")):  # the tool drops Relus and keeps their input's name
        quantize = written.get(float_name) or written[int8_name]
        int8.graph.node.append(
            helper.make_node("DequantizeLinear", [quantize.output[0], *quantize.input[1:]], [f"seen_{float_name}"])
        )
        int8.graph.output.append(helper.make_tensor_value_info(f"seen_{float_name}", TensorProto.FLOAT, None))
    f = ort.InferenceSession(model.SerializeToString()).run(["r1", "r2"], {"x": x})
    q = ort.InferenceSession(int8.SerializeToString()).run(["seen_r1", "seen_r2"], {"x": x})
    for name, one, other in zip(("r1", "r2"), f, q, strict=True):
        expected = 10 * math.log10((one.astype(float) ** 2).sum() / ((one.astype(float) - other) ** 2).sum())
        assert rows[name]["sqnr_db"] == pytest.approx(expected, abs=0.05)


def test_rows_name_nodes_and_falls(float_model: Path, int8_model: Path, data: Path) -> None:
    rows = {
        row["tensor"]: row for row in validate(int8_model, against=float_model, data=data, layers=True).values["layers"]
    }
    assert (rows["r1"]["node"], rows["r1"]["op"]) == ("conv1", "Conv")
    assert (rows["r2"]["node"], rows["r2"]["op"]) == ("add", "Add")
    assert (rows["x"]["op"], rows["x"]["fall_db"]) == ("input", None)
    worst = min(rows["c2"]["sqnr_db"], rows["r1"]["sqnr_db"])
    assert rows["r2"]["source_db"] == pytest.approx(worst)
    assert rows["r2"]["fall_db"] == pytest.approx(worst - rows["r2"]["sqnr_db"])


@pytest.mark.parametrize(("tensor", "node"), [("c2", "conv2"), ("c3", "conv3"), ("c1", "conv1")])
def test_the_culprit_is_the_node_that_was_spoilt(
    float_model: Path, int8_model: Path, data: Path, tmp_path: Path, tensor: str, node: str
) -> None:
    """Eight times the scale of one output: three bits are lost there, and everything after it is worse as well."""
    model = onnx.load(int8_model)
    written = next(
        n for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] in (tensor, tensor.replace("c", "r"))
    )  # fmt: skip
    (scale,) = (item for item in model.graph.initializer if item.name == written.input[1])
    spoilt = numpy_helper.to_array(scale) * np.float32(8)
    scale.CopyFrom(numpy_helper.from_array(np.asarray(spoilt), scale.name))
    onnx.save(model, tmp_path / "spoilt.onnx")
    report = validate(tmp_path / "spoilt.onnx", against=float_model, data=data, layers=True)
    assert report.values["culprit"]["node"] == report.values["groups"][0]["nodes"][0] == node
    assert report.values["culprit"]["nodes"] == report.values["groups"][0]["nodes"]
    assert f": fcdeploy quantize ... --keep-float {node}" in report.advice


def test_tensors_without_a_float_counterpart_are_named(
    float_model: Path, int8_model: Path, data: Path, tmp_path: Path
) -> None:
    model = onnx.load(int8_model)
    for node in model.graph.node:
        node.input[:] = ["renamed" if name == "c2" else name for name in node.input]
        node.output[:] = ["renamed" if name == "c2" else name for name in node.output]
    onnx.save(model, tmp_path / "renamed.onnx")
    report = validate(tmp_path / "renamed.onnx", against=float_model, data=data, layers=True)
    assert any("the float model has no tensor named 'renamed'" in warning for warning in report.warnings)
    assert "c2" not in {row["tensor"] for row in report.values["layers"]}


def test_weights_beside_the_file(float_model: Path, int8_model: Path, data: Path, tmp_path: Path) -> None:
    for path in (float_model, int8_model):
        ir.save(ir.load(path), tmp_path / path.name, external_data=f"{path.stem}.data")
    beside = validate(tmp_path / "int8.onnx", against=tmp_path / "float.onnx", data=data, layers=True).values
    inside = validate(int8_model, against=float_model, data=data, layers=True).values
    for values in (beside, inside):  # but for what is timed
        values["groups"] = [{key: row[key] for key in row if "time" not in key} for row in values["groups"]]
        values["advice"] = None
    assert {**beside, "hashes": None} == {**inside, "hashes": None}
    assert beside["hashes"]["int8"] != inside["hashes"]["int8"]  # other files
    size = measure_size(files_of(read_model(tmp_path / "float.onnx"), tmp_path / "float.onnx"))
    assert size == sum((tmp_path / name).stat().st_size for name in ("float.onnx", "float.data"))


def test_signed_integers_and_axes_dequantize_as_the_runtime_does(tmp_path: Path) -> None:
    x = samples(4, 3, 5)
    scale, zero_point = np.array([0.02, 0.1, 0.03], np.float32), np.array([3, -7, 0], np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize", axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize", axis=1),
    ]
    path = save(tmp_path / "q.onnx", nodes, {"x": ["n", 3, 5]}, {"y": ["n", 3, 5]}, {"s": scale, "z": zero_point})
    model = read_model(path)
    (tap,) = quantized_tensors.find_quantized_tensors(model)
    quantized_tensors.expose_tensors(model, [tap.integers])
    y, q = Session(model).run({"x": x})
    assert q.dtype == np.int8
    assert tap.dequantize(q) == pytest.approx(y.astype(float), abs=1e-6)


def test_a_last_layer_that_writes_floating_point_is_a_row_too(
    float_model: Path, int8_model: Path, data: Path, tmp_path: Path
) -> None:
    """Without the last QuantizeLinear: the runtime's integer kernel writes the logits themselves."""
    model = onnx.load(int8_model)
    (last,) = (node for node in model.graph.node if "logits" in node.output)
    (quantize,) = (node for node in model.graph.node if last.input[0] in node.output)
    (dense,) = (node for node in model.graph.node if quantize.input[0] in node.output)
    dense.output[:] = ["logits"]
    model.graph.node.remove(last)
    model.graph.node.remove(quantize)
    onnx.save(model, tmp_path / "ends.onnx")
    found = validate(tmp_path / "ends.onnx", against=float_model, data=data, layers=True).values
    (row,) = (row for row in found["layers"] if row["tensor"] == "logits")
    assert (row["node"], row["op"]) == ("dense", "Gemm")
    assert row["sqnr_db"] == pytest.approx(found["sqnr_db"], abs=1e-4)  # 96 samples: both are about all of them
    assert row["source_db"] is not None


def test_weights_are_no_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["wq"], "weight"),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"], "weight_back"),
        helper.make_node("MatMul", ["x", "wd"], ["y"], "dense"),
    ]
    weights = {"w": samples(3, 2), "s": np.float32(0.1), "z": np.int8(0)}
    path = save(tmp_path / "w.onnx", nodes, {"x": ["n", 3]}, {"y": ["n", 2]}, weights)
    assert quantized_tensors.find_quantized_tensors(read_model(path)) == []


@pytest.mark.parametrize("op", ["Tanh", "Erf"])
def test_what_a_table_of_sigmoids_stands_for_is_compared_with_it(op: str) -> None:
    """Its bytes are written as a sigmoid's, 0 to 1, and read back as those of a function from -1 to 1, clipped there."""
    net, data = Net(1), random_data(1, 32, x=(4, 8, 8))
    x = net.op(op, net.conv(net.input("x", 4, 8, 8), 4, 8, name="first"), name="function")
    line = quantize_net(net.output(net.conv(x, 8, 4, name="last")), data)
    assert line.kinds["function"] == "int8"
    taps = quantized_tensors.find_quantized_tensors(line.int8)
    where = quantized_tensors.match_tensors(taps, line.int8, [line.prepared])
    (tap,) = (tap for tap in taps if where.get(tap.integers) == (0, "function_out"))

    for model, name in ((line.prepared, "function_out"), (line.int8, tap.integers)):
        quantized_tensors.expose_tensors(model, [name])
    (f,), (q,) = (Session(m).run(data, [n]) for m, n in ((line.prepared, "function_out"), (line.int8, tap.integers)))
    assert np.abs(f).max() > 0.99  # where the table alone goes on beyond 1
    assert np.abs(tap.dequantize(q)).max() <= 1
    assert measure_fidelity(f, tap.dequantize(q)).sqnr_db > 30
    assert measure_rounding(tap, f).clipped == 0


@pytest.mark.parametrize("op", ["LeakyRelu", "Sigmoid"])
def test_a_tensor_of_any_name_is_compared_with_itself(op: str) -> None:
    """A name that ends as ours of a table do, beside one that it would be without the end."""
    net, data = Net(1), random_data(1, 32, x=(4, 8, 8))
    x = net.conv(net.input("x", 4, 8, 8), 4, 8, name="first")
    y = net.conv(net.op(op, x), 8, 4, name="last")
    model = net.output(y).model()
    names = {x: "emb", model.graph.node[1].output[0]: "emb/table"}
    for node in model.graph.node:
        for part in (node.input, node.output):
            part[:] = [names.get(name, name) for name in part]
    line = quantize_net(model, data)
    taps = quantized_tensors.find_quantized_tensors(line.int8)
    where = quantized_tensors.match_tensors(taps, line.int8, [line.prepared])
    made = [(tap.op, where[tap.integers][1]) for tap in taps if tap.integers in where]
    assert {("Conv", "emb"), (op, "emb/table")} <= set(made)
