"""Lengths of free axes are tried when a model is quantized: which run, which do not, and in which model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Net
from onnx import helper as h

from fcdeploy.commands.quantize import quantize
from fcdeploy.evaluate.free_axes import add_lengths, try_lengths
from fcdeploy.graph.model import read_model
from fcdeploy.records.report import Report


def save_free(path: Path, *, fixed: int | None = None, names: Sequence[str] = "hw") -> Path:
    """A convolution over (n, 3, h, w); a Reshape inside that knows a height makes it the only one."""
    net = Net(0)
    x = net.conv(net.input("x", 3, 12, 12), 3, 4)
    model = net.output(net.op("Relu", x)).model()
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in enumerate(names, 2):
            value.type.tensor_type.shape.dim[axis].ClearField("dim_value")
            value.type.tensor_type.shape.dim[axis].dim_param = name
    if fixed is not None:
        output = model.graph.output[0].name
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 4, fixed, fixed]), "shape"))
        model.graph.node.append(h.make_node("Reshape", [output, "shape"], ["y"]))
        del model.graph.output[:]
        model.graph.output.append(h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4, fixed, fixed]))
    onnx.save(model, path)
    return path


def test_lengths_that_run_are_said(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    data = save_npz(x=np.random.default_rng(0).normal(size=(12, 3, 12, 12)).astype(np.float32))
    made = quantize(
        save_free(tmp_path / "m.onnx"), output=tmp_path / "q.onnx", weights="int8", activations="int8", data=data, costs="none",
        effort="fast",
    )  # fmt: skip
    tried = made.values["free_lengths"]
    assert [each["lengths"] for each in tried] == [{"h": n + 1, "w": n + 3} for n in (12, 6, 16, 24)]
    assert all(each["float"] and each["int8"] and each["sqnr_db"] > 20 for each in tried)
    assert any(line.startswith("free lengths tried: h=13 w=15, h=7 w=9") for line in made.lines)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("unk__616", "s77"), {"x[2]", "x[3]"}),
        (("input_dynamic_axes_1", "DynamicDimension.0"), {"x[2]", "x[3]"}),
        (("s", "time_steps"), {"s", "time_steps"}),
        (("unk__616", "unk__616"), {"x[2]"}),
        (("size", "cols"), {"size", "cols"}),
    ],
)
def test_names_that_exporters_made_up_are_said_by_input_and_axis(
    tmp_path: Path, names: Sequence[str], said: set[str]
) -> None:
    """An axis of the same name keeps the same length."""
    path = save_free(tmp_path / "m.onnx", names=names)
    feeds = {"x": np.zeros((1, 3, 12, 12), np.float32)}
    assert all(set(each.lengths) == said for each in try_lengths(path, read_model(path), ir.load(path), feeds))


def test_whose_fault_it_is(tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)}
    free, bound = save_free(tmp_path / "free.onnx"), save_free(tmp_path / "bound.onnx", fixed=10)
    float_model = read_model(free)
    both = try_lengths(bound, read_model(bound), ir.load(bound), feeds)
    assert all(each.float_error for each in both)
    only = try_lengths(free, float_model, ir.load(bound), feeds)
    assert all(each.int8_error and not each.float_error for each in only)
    report = add_lengths(Report("quantize", {}, (), ("last",)), only)
    assert report.warnings[0].startswith("at h=13 w=15 the int8 model does not run, and the float one does: ")
    assert report.lines[0] == "free lengths tried: none run"


def test_shares_of_classes_count_where_the_largest_is_another(tmp_path: Path) -> None:
    """One sample in between two classes: its shares move by a third, and the class stays."""

    def save_classes(name: str, *logits: float) -> Path:
        nodes = [
            h.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
            h.make_node("Mul", ["m", "zero"], ["flat"]),
            h.make_node("Add", ["flat", "logits"], ["l"]),
            h.make_node("Softmax", ["l"], ["y"], axis=1),
        ]
        constants = {"zero": np.zeros((1, 3), np.float32), "logits": np.array([logits], np.float32)}
        value = h.make_tensor_value_info
        graph = h.make_graph(
            nodes, "g", [value("x", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [value("y", onnx.TensorProto.FLOAT, ["n", 3])],
            [onnx.numpy_helper.from_array(array, key) for key, array in constants.items()],
        )  # fmt: skip
        onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), tmp_path / name)
        return tmp_path / name

    exact = save_classes("float.onnx", 0.1, 0.0, -9.0)
    feeds = {"x": np.ones((1, 3, 12, 12), np.float32)}

    def decibels(*logits: float) -> list[float | None]:
        near = ir.load(save_classes("near.onnx", *logits))
        return [each.sqnr_db for each in try_lengths(exact, read_model(exact), near, feeds)]

    assert decibels(1.5, 0.0, -9.0) == [None] * 4
    assert all(each is not None and each < 20 for each in decibels(0.0, 1.5, -9.0))
