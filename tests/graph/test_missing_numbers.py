"""Missing numbers: no byte stands between an input and what fills NaN in, whatever data calibrated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import fails
from onnx import TensorProto, helper, numpy_helper

import fcdeploy
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.checks import fit_sample

FLOAT = TensorProto.FLOAT
RANDOM = np.random.default_rng(5)
N = helper.make_node
MASK = [N("IsNaN", ["v"], ["mask"]), N("Where", ["mask", "zero", "v"], ["a"])]
IMPUTER = N("Imputer", ["v"], ["a"], domain="ai.onnx.ml", imputed_value_floats=[0.1], replaced_value_float=np.nan)
FEEDS_LAYER = [
    N("Gemm", ["a", "w1", "b1"], ["c"]), N("Relu", ["c"], ["d"]), N("Gemm", ["d", "w2"], ["y"]),
]  # fmt: skip
CASES = {  # x (n, 2, 4) to a (n, 8)
    "flatten": [N("Flatten", ["x"], ["v"]), *MASK],
    "reshape": [N("Reshape", ["x", "rows"], ["v"]), *MASK],
    "transpose": [N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("Flatten", ["t"], ["v"]), IMPUTER],
    "arithmetic": [N("Flatten", ["x"], ["f"]), N("Sub", ["f", "half"], ["s"]), N("Mul", ["s", "half"], ["v"]), IMPUTER],
    "pointwise": [N("Flatten", ["x"], ["f"]), N("LeakyRelu", ["f"], ["l"]), N("Tanh", ["l"], ["v"]), *MASK],
    "sentinel": [  # -9 stands for a missing number, and no NaN is fed
        N("Flatten", ["x"], ["f"]), N("Less", ["f", "low"], ["less"]), N("Where", ["less", "nan", "f"], ["v"]), *MASK,
    ],
    "part": [
        N("Slice", ["x", "i0", "i1", "i1"], ["one"]), N("Flatten", ["one"], ["v"]), *MASK[:1],
        N("Where", ["mask", "zero", "v"], ["left"]), N("Slice", ["x", "i1", "i2", "i1"], ["two"]),
        N("Flatten", ["two"], ["right"]), N("Concat", ["left", "right"], ["a"], axis=1),
    ],
    "layer": [N("Flatten", ["x"], ["v"]), *MASK, N("Gemm", ["v", "w1", "b1"], ["beside"])],
}  # fmt: skip


def build(case: str, path: Path) -> Path:
    arrays = {
        "w1": RANDOM.standard_normal((8, 16)) / 3, "b1": RANDOM.standard_normal(16), "w2": RANDOM.standard_normal((16, 3)),
        "zero": 0.0, "half": 0.5, "nan": np.nan, "low": -8.0,
    }  # fmt: skip
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in arrays.items()]
    weights += [numpy_helper.from_array(np.array([i]), f"i{i}") for i in range(3)]
    weights.append(numpy_helper.from_array(np.array([-1, 8]), "rows"))
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 2, 4])
    outputs = [helper.make_tensor_value_info("y", FLOAT, ["n", 3])]
    if case == "layer":
        outputs.append(helper.make_tensor_value_info("beside", FLOAT, ["n", 16]))
    nodes = [*CASES[case], *FEEDS_LAYER]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "g", [x], outputs, [one for one in weights if one.name in read])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path


@pytest.mark.parametrize("case", [case for case in CASES if case != "layer"])
def test_nan_that_calibration_never_saw_is_filled_in_by_the_int8_model_too(case: str, tmp_path: Path) -> None:
    path, out = build(case, tmp_path / "model.onnx"), tmp_path / "int8.onnx"
    np.savez(tmp_path / "data.npz", x=RANDOM.standard_normal((96, 2, 4)).astype(np.float32))
    fcdeploy.quantize(path, output=out, data=tmp_path / "data.npz", costs="none", floor="none")

    x = RANDOM.standard_normal((48, 2, 4)).astype(np.float32)
    holes = RANDOM.random(x.shape) < 0.2
    holes[:, 1] &= case != "part"  # its second row is not filled in
    x[holes] = -9 if case == "sentinel" else np.nan
    f, q = (ort.InferenceSession(file).run(None, {"x": x})[0] for file in (path, out))
    assert 10 * np.log10((f**2).sum() / ((f - q) ** 2).sum()) > 25
    assert sum(node.op_type == "Gemm" for node in onnx.load(out).graph.node) == 2
    before, after = ([spec.missing for spec in input_specs(read_model(file))] for file in (path, out))
    assert before == after == [True]


def test_what_some_layer_reads_unfilled_takes_no_nan(tmp_path: Path) -> None:
    path = build("layer", tmp_path / "model.onnx")
    assert [spec.missing for spec in input_specs(read_model(path))] == [False]


def test_nan_where_nothing_fills_it_in_names_sample_and_element(tmp_path: Path) -> None:
    path, data = build("part", tmp_path / "model.onnx"), tmp_path / "data.npz"
    x = RANDOM.standard_normal((48, 2, 4)).astype(np.float32)
    x[2, 0, 3] = x[5, 0, 1] = x[5, 1, 2] = np.nan
    np.savez(data, x=x)
    with fails("input 'x': sample 5 has nan at (1, 2), which the model does not fill in: its output 'y'"):
        fcdeploy.quantize(path, output=tmp_path / "int8.onnx", data=data, costs="none")
    made = fcdeploy.calibrate(path, output=tmp_path / "c", data=data, skip_bad=True)
    assert made.values["samples"] == 47
    assert not any("became NaN" in warning for warning in made.warnings)
    fcdeploy.quantize(path, output=tmp_path / "int8.onnx", calibration=tmp_path / "c", costs="none", floor="none")
    x[:3], x[:, 0] = -x[:3], x[:, 0] + 1  # others than those calibrated on
    np.savez(data, x=x)
    with fails("sample 5 has nan at (1, 2), which the model does not fill in: its output 'y'"):
        fcdeploy.validate(tmp_path / "int8.onnx", against=path, data=data)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([np.nan, 1e300, 1], "sample 0 is float64 up to 1e+300, which float32 cannot hold"),
        ([np.nan, np.inf, 1], "sample 0 has inf at (1,), and 1 such values in all"),
    ],
)
def test_errors_name_the_number_that_is_wrong_not_the_one_that_is_missing(row: list[float], said: str) -> None:
    spec = TensorSpec("x", np.dtype(np.float32), (None, 3), missing=True)
    with fails(said):
        fit_sample({"x": np.array(row)}, [spec], "sample 0", "d.npz")


def test_a_plan_cannot_ask_for_bytes_of_missing_numbers(tmp_path: Path) -> None:
    path, data = build("flatten", tmp_path / "model.onnx"), tmp_path / "data.npz"
    np.savez(data, x=RANDOM.standard_normal((48, 2, 4)).astype(np.float32))
    plan = tmp_path / "plan.json"
    fcdeploy.quantize(path, output=tmp_path / "int8.onnx", data=data, costs="none", floor="none", save_plan=plan)
    rows = json.loads(plan.read_text())
    why = "NaN in 'x' may stand for a missing number, which no byte can say"
    assert rows["nodes"][0]["why"] == why
    rows["nodes"][0]["kind"] = "passthrough"
    plan.write_text(json.dumps(rows))
    with fails(f"node 'Flatten:v' cannot be 'passthrough': {why}", "make its kind"):
        fcdeploy.quantize(path, output=tmp_path / "again.onnx", data=data, plan=plan)


def test_a_whole_number_is_never_missing(tmp_path: Path) -> None:
    """Trees and casts in front of an imputer take integers, which have no NaN: an empty cell is an error, not a fault of ours."""
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["floats"], ["gaps"]),
        helper.make_node("Cast", ["gaps"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [
        helper.make_tensor_value_info(*end, ["n", 2]) for end in (("x", TensorProto.INT64), ("y", TensorProto.FLOAT))
    ]
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
        ),
        tmp_path / "m.onnx",
    )
    assert [spec.missing for spec in input_specs(read_model(tmp_path / "m.onnx"))] == [False]


def test_masks_of_masks_take_no_time(tmp_path: Path) -> None:
    """Each And reads the one before twice: 2^60 ways from the condition to what compares."""
    nodes = [N("Less", ["x", "x"], ["m0"]), *(N("And", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(60))]
    nodes.append(N("Where", ["m60", "x", "x"], ["y"]))
    ends = [helper.make_tensor_value_info(name, FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    assert [spec.missing for spec in input_specs(read_model(tmp_path / "m.onnx"))] == [False]
