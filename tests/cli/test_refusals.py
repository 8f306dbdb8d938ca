"""Mistakes that are told from defects: outputs that must not be written, graphs that cannot run, options without effect."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from networks import Net, random_data
from onnx import TensorProto, helper, numpy_helper

from fcdeploy import files
from fcdeploy.bundles.read import open_bundle
from fcdeploy.cli import main
from fcdeploy.commands.bench import bench
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.files import check_output, read_json
from fcdeploy.graph.model import is_quantized, read_model, refuse_unsupported
from fcdeploy.int8.plan_file import _read as _read_plan
from fcdeploy.int8.timing.costs import read_costs
from fcdeploy.proof.saturation import prove_no_saturation
from fcdeploy.records import costs as costing
from fcdeploy.records.data_format import read_classes
from fcdeploy.runtime import options


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A dense network of two layers, `fc[0]` and `fc0`, and samples."""
    net = Net(1)
    net.output(net.dense(net.op("Relu", net.dense(net.input("x", 6), 6, 8, name="fc[0]")), 8, 3, name="fc0"))
    np.savez(tmp_path / "data.npz", **random_data(1, 12, x=(6,)))
    return net.save(tmp_path / "m.onnx"), tmp_path / "data.npz"


def graph(path: Path, nodes: list[onnx.NodeProto], kind: int = TensorProto.FLOAT, **weights: Any) -> Path:
    """x [4] -> y [4] through these nodes, as they stand."""
    ends = [helper.make_tensor_value_info(name, kind, [4]) for name in "xy"]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


# outputs


def test_outputs_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name, message in (
        ("pipe.onnx", "is a device or a pipe, expected a file"),
        ("folder.onnx", "is a folder, expected a file name"),
        ("n" * 300 + ".onnx", "File name too long"),
        ("file/m.onnx", "of the output does not exist"),
    ):
        with fails(message):
            check_output(tmp_path / name, force=True)
    with fails("'/dev/null' is a device or a pipe"):
        check_output(Path("/dev/null"), force=True)


READERS: dict[str, Callable[[Path], object]] = {
    "bundle": open_bundle, "--classes": read_classes,
    "validation report": lambda path: read_json(path, "validation report", "-"),
    "costs": lambda path: read_costs(path, "", "onnxruntime"), "plan": lambda path: _read_plan(path, "plan"),
}  # fmt: skip


@pytest.mark.parametrize("what", READERS)
def test_inputs_that_never_end_or_answer(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to, and a file of any size."""
    os.mkfifo(tmp_path / "pipe")
    with fails("plan does not exist" if what == "plan" else f"{what} '{tmp_path / 'pipe'}' is a device or a pipe"):
        READERS[what](tmp_path / "pipe")
    if what != "bundle":  # whose sizes are looked at one by one
        monkeypatch.setattr(files, "MOST_BYTES", 10)
        (tmp_path / "large").write_bytes(bytes(11))
        with fails("large' has 11 bytes, expected 10 at most"):
            READERS[what](tmp_path / "large")


def test_outputs_that_are_inputs(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for file in ("data.py", "images/cat.png", "images/m.onnx"):
        (tmp_path / file).write_text("")
    given = (Path(f"{tmp_path / 'data.py'}:samples"), tmp_path / "images")
    with fails("is also an input"):
        check_output(tmp_path / "data.py", force=True, inputs=given)
    with fails("is one of the samples in"):
        check_output(tmp_path / "images" / "cat.png", force=True, inputs=given)
    check_output(tmp_path / "images" / "m.onnx", force=True, inputs=given)
    with fails("is also an input"):
        check_output(tmp_path / "new.json", inputs=(tmp_path / "x" / ".." / "new.json",))


def test_two_outputs_of_one_name(made: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = made
    with fails("is both the calibration and its table", "--csv"):
        calibrate(model, data=data, output=tmp_path / "a.calib", csv_file=tmp_path / "a.calib")
    with fails("is also an input", "-o"):
        quantize(model, data=data, output=tmp_path / "new.onnx", costs=tmp_path / "new.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.npz", "m.onnx"]


# graphs


def test_nodes_in_any_order_are_sorted_and_circles_are_refused(tmp_path: Path) -> None:
    late = [helper.make_node("Relu", ["a"], ["y"], "second"), helper.make_node("Neg", ["x"], ["a"], "first")]
    assert [node.name for node in read_model(graph(tmp_path / "late.onnx", late)).graph] == ["first", "second"]
    circle = [helper.make_node("Add", ["b", "x"], ["y"], "add"), helper.make_node("Relu", ["y"], ["b"], "relu")]
    with fails("is broken: node 'add' reads what is computed from its own output"):
        read_model(graph(tmp_path / "circle.onnx", circle))


def test_a_model_without_inputs_is_refused_where_samples_are_read_and_timed_where_not(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", [helper.make_node("Relu", ["w"], ["y"])], w=np.ones((2, 4), np.float32))
    model = onnx.load(path)
    del model.graph.input[:]
    onnx.save(model, path)
    for command in (calibrate, quantize):
        with fails("the model has no inputs: it gives the same answer every time", "fcdeploy inspect MODEL"):
            command(path, data=tmp_path / "none.npz", output=tmp_path / "out")
    assert bench(path, seconds=0.01).tables[0].title.startswith("no inputs; 1 thread")


def test_text_has_no_size(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"], "same")]
    report = inspect(graph(tmp_path / "text.onnx", nodes, TensorProto.STRING))
    assert report.values["layers"][0]["activation_bytes"] is None


@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "QGemm", "MatMulNBits", "QOrderedMatMul", "QLinearAdd"])
def test_operators_of_integers_are_no_float_model(op: str, tmp_path: Path) -> None:
    node = helper.make_node(op, ["x"], ["y"], "it", domain="com.microsoft")
    with fails(f"node 'it' is a {op}: the model is quantized already"):
        refuse_unsupported(read_model(graph(tmp_path / "q.onnx", [node])), "q.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bad: float, tmp_path: Path) -> None:
    net = Net(0)
    weight = net.normal(4, 3)
    weight[1, 2] = bad
    net.output(net.op("MatMul", net.input("x", 4), net.constant(weight), name="dense"))
    np.savez(tmp_path / "data.npz", **random_data(1, 4, x=(4,)))
    with fails("of node 'dense' holds NaN or infinity in 1 places"):
        quantize(net.save(tmp_path / "m.onnx"), data=tmp_path / "data.npz", output=tmp_path / "o.onnx")


# files


@pytest.mark.parametrize("text", ["[" * 100_000, '["1"]', '{"session.disable_prepacking": ["1"]}', "{"])
def test_metadata_that_are_no_options(text: str) -> None:
    with fails("metadata 'fcdeploy.session'"):
        options.parse_options(text)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "-1", '"a"', "[]"])
def test_costs_are_times(number: str) -> None:
    rates = '{"quantize": 1, "dequantize": 1, "transpose": 1, "node_us": 1}'
    text = f'{{"schema": "{costing.SCHEMA}", "model": "m", "source": "s", "rates": {rates}, "nodes": {{"n": [1, {number}]}}}}'
    with fails("costs 'c' is not a file of costs"):
        costing.from_text(text, "costs 'c'")
    with fails("costs 'c' is not a file of costs"):
        costing.from_text("[" * 100_000, "costs 'c'")


def test_plans_and_costs_that_cannot_be_read(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = made
    (tmp_path / "deep.json").write_text("[" * 100_000)
    line = ["quantize", str(model), "--int8", "--data", str(data), "-o", str(tmp_path / "o.onnx")]
    for option, value in (("--plan", tmp_path / "deep.json"), ("--costs", tmp_path)):
        assert main([*line, option, str(value)]) == 2
        shown = capsys.readouterr().err
        assert "internal" not in shown
        assert "error:" in shown
    assert main(["inspect", "n" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err


# options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"plan": "p.json", "ranges": "mse"}, "--ranges would be ignored: --plan decides already"),
        ({"plan": "p.json", "costs": "none"}, "--costs would be ignored: --plan decides already"),
        ({"calibration": "c.calib", "data": None, "samples": 3}, "--samples would be ignored: there is no --data"),
        ({"calibration": "c.calib", "data": None, "preprocess": "p.toml"}, "--preprocess would be ignored"),
        (
            {"max_drop": 1.0, "eval": "e.npz", "floor": "99"},
            "--floor would be ignored: --max-drop decides by the metric",
        ),
        ({"max_drop": 1.0, "eval": "e.npz", "accept": True}, "--accept would be ignored: --max-drop decides"),
    ],
)
def test_options_without_effect_are_refused(
    given: dict[str, Any], message: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = made
    with fails(message, "leave"):
        quantize(model, **{"data": data, "output": tmp_path / "o.onnx", **given})


def test_samples_of_inspect_belong_to_exact(made: tuple[Path, Path]) -> None:
    with fails("--samples is for --exact alone"):
        inspect(made[0], samples=3)


def test_a_name_with_brackets_is_a_name_first(made: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = made
    report = quantize(model, data=data, output=tmp_path / "o.onnx", costs="none", keep_float=["fc[0]"])
    assert [node["node"] for node in report.values["nodes_float"]] == ["fc[0]"]
    with fails("--keep-float 'fc[1]' fits no node"):
        quantize(model, data=data, dry_run=True, costs="none", keep_float=["fc[1]"])


# validate


def test_float_against_float_is_said(made: tuple[Path, Path]) -> None:
    model, data = made
    assert (
        "'m.onnx' is not quantized: float is compared with float" in validate(model, against=model, data=data).warnings
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_one_hot_labels_are_asked_about(dtype: Any, made: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = made
    label = np.eye(3, dtype=dtype)[np.arange(12) % 3]
    np.savez(tmp_path / "hot.npz", **random_data(2, 12, x=(6,)), label=label)
    with fails("'label' is one-hot, (n, 3)", "argmax"):
        validate(model, against=model, data=tmp_path / "hot.npz")
    found = validate(model, against=model, data=tmp_path / "hot.npz", metric="regression").values["metric"]
    assert found == "regression"
    assert json.dumps(found)


def test_what_came_out_of_quantize_in_float_is_no_float_model(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Quantized again it would come out the same, so no hint may ask for that."""
    net = Net(1)
    net.output(net.dense(net.op("Relu", net.dense(net.input("x", 6), 6, 200)), 200, 3))
    model, kept = net.save(tmp_path / "wide.onnx"), tmp_path / "kept.onnx"
    data = made[1]
    quantize(model, data=data, costs="table", target="x86-avx2", output=kept)
    assert not is_quantized(read_model(kept))
    for proof in ({"device": "stm32f4"}, {"saturation": True}, {"exact": True, "data": data}):
        with fails("kept.onnx' computes in float", "fcdeploy quantize FLOAT --int8 --costs none"):
            inspect(kept, **proof)
    with fails("came out of quantize, with its layers in float", "the float model it was made from"):
        quantize(kept, data=data, output=tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


@pytest.mark.parametrize("shape", [(), (4,), (1,)], ids=str)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv", "Add"])
def test_weights_of_few_axes_are_no_defect(
    op: str, shape: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A layer's weight may be one number or a row of them, where it is one at all."""
    dequantize = [
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], "dx"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "dw", axis=0),
    ]
    nodes = [helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], "q"), *dequantize]
    nodes += [helper.make_node(op, ["xd", "wd"], ["y"], "layer")]
    for scales in ((), (4,)):
        constants = {"xs": np.float32(0.1), "xz": np.uint8(3), "w": np.ones(shape, np.int8)}
        constants |= {"ws": np.full(scales, 0.1, np.float32), "wz": np.zeros(scales, np.int8)}
        path = graph(tmp_path / f"{len(scales)}.onnx", nodes, **constants)
        np.savez(tmp_path / "d.npz", x=np.ones((3, 4), np.float32))
        prove_no_saturation(read_model(path))
        for words in (
            ["inspect", "--saturation"],
            ["validate", "--against", str(path), "--data", str(tmp_path / "d.npz")],
        ):
            main([words[0], str(path), *words[1:]])
            assert "internal" not in capsys.readouterr().err


def test_an_empty_file_is_named_as_that(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with fails("m.onnx' is empty, expected an ONNX model"):
        read_model(tmp_path / "m.onnx")
