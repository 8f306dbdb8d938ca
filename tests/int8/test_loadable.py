"""Where onnxruntime does not load what integers come to, the layer in its way stays float, with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import fails
from networks import Net, random_data

import fcdeploy
from fcdeploy.commands import quantize as quantizing
from fcdeploy.errors import LoadError


def test_a_cubic_resize_to_sizes_that_are_computed(tmp_path: Path) -> None:
    """It loads, and fails when it runs: that is found out, too."""
    net = Net(0, opset=18)
    x = net.op("Relu", net.conv(net.input("x", 3, 7, 4), 3, 8))
    head = net.op("Slice", net.op("Shape", x), net.constant([0], np.int64), net.constant([2], np.int64))
    sizes = net.op("Concat", head, net.constant([5, 6], np.int64), axis=0)
    path = net.output(net.conv(net.op("Resize", x, "", "", sizes, mode="cubic"), 8, 4)).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(1, 24, x=(3, 7, 4)))
    report = fcdeploy.quantize(
        path, output=tmp_path / "int8.onnx", data=tmp_path / "data.npz", costs="none", floor="none"
    )
    assert [node["op"] for node in report.values["nodes_float"]].count("Conv") == 1


def test_nothing_is_in_place_until_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails once the file is written, of a model that loads: no second try, and no file, nor a plan of one."""
    net = Net(0)
    path = net.output(net.dense(net.input("x", 8), 8, 4)).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(1, 24, x=(8,)))
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise LoadError("onnxruntime cannot run the model", "look at it")

    monkeypatch.setattr(quantizing, "add_advice", fail)
    with fails("onnxruntime cannot run the model", "look at it"):
        fcdeploy.quantize(
            path, output=tmp_path / "int8.onnx", save_plan=tmp_path / "plan.json", data=tmp_path / "data.npz",
            costs="none", floor="none",
        )  # fmt: skip
    assert (len(calls), sorted(file.name for file in tmp_path.iterdir())) == (1, ["data.npz", "model.onnx"])


@pytest.mark.parametrize("costs", ["none", None])
def test_a_cubic_resize_between_convolutions_keeps_one_of_them_float(costs: str | None, tmp_path: Path) -> None:
    """A transpose is moved through the Resize, whose scales then are on other axes."""
    net = Net(0, opset=13)
    x = net.op("Relu", net.conv(net.input("x", 3, 24, 20), 3, 16, kernel=(1, 1)))
    x = net.op("Resize", x, "", net.constant([1, 1, 0.5, 0.5]), mode="cubic")
    path = net.output(net.conv(x, 16, 8, kernel=(1, 1))).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **random_data(1, 40, x=(3, 24, 20)))
    report = fcdeploy.quantize(path, output=tmp_path / "int8.onnx", data=tmp_path / "data.npz", costs=costs)
    why = [node["why"] for node in report.values["nodes_float"] if node["op"] == "Conv"]
    if costs == "none":
        assert len(why) == 1
        assert "does not load or run the model with it as integers: " in why[0]
    assert (
        fcdeploy.validate(tmp_path / "int8.onnx", against=path, data=tmp_path / "data.npz", same_data=True).values[
            "sqnr_db"
        ]
        > 25
    )
