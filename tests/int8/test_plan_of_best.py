"""A plan of effort best given back: the same bytes, and what is said of one that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, random_data

from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.edit import Edits
from fcdeploy.graph.model import name_everything
from fcdeploy.prepare.channels import find_free_channels
from fcdeploy.prepare.pipeline import prepare


def uneven(net: Net) -> Net:
    """Two branches that a sum joins, one of them through a depthwise layer; channels of unequal size."""
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, (1, 1), name="first"))
    deep = net.op("Relu", net.conv(x, 8, 8, group=8, name="deep"))
    y = net.op("Relu", net.op("Add", net.conv(deep, 8, 8, name="second"), x, name="sum"))
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 8, 4, name="last"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, its data and calibration, and what effort best made of it, with its plan."""
    folder = tmp_path_factory.mktemp("best")
    net = Net(5)
    uneven(net)
    weight = next(w for w in net.weights if w.dims[:2] == [8, 3])
    array = (
        np.frombuffer(weight.raw_data, np.float32).reshape(8, -1) * np.geomspace(0.2, 5, 8, dtype=np.float32)[:, None]
    )
    weight.raw_data = array.astype(np.float32).tobytes()
    net.save(folder / "m.onnx")
    np.savez(folder / "d.npz", **random_data(0, 72, x=(3, 8, 8)))
    calibrate(folder / "m.onnx", data=folder / "d.npz", output=folder / "c.calib")
    quantize(folder / "m.onnx", output=folder / "q.onnx", save_plan=folder / "p.json", **best_of(folder))
    return folder


def best_of(folder: Path) -> dict[str, Any]:
    return {"calibration": folder / "c.calib", "effort": "best", "costs": "none", "floor": "none"}


def again(made: Path, tmp_path: Path, plan: dict[str, Any] | None = None, **options: Any) -> Path:
    """The network quantized by a plan, the one that was saved unless given."""
    file = made / "p.json"
    if plan is not None:
        file = tmp_path / "p.json"
        file.write_text(json.dumps(plan))
    options = {"calibration": made / "c.calib"} | options
    quantize(made / "m.onnx", output=tmp_path / "q.onnx", plan=file, **options)
    return tmp_path / "q.onnx"


def saved(made: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((made / "p.json").read_text())
    return plan


def test_a_smoothed_network_comes_back_with_the_same_bytes(made: Path, tmp_path: Path) -> None:
    plan = saved(made)
    assert plan["effort"] == "best"
    assert set(plan["rescaled"]) == {"first_out", "deep_out", "second_out"}, "the network was to be smoothed"
    assert {row["node"] for row in plan["nodes"] if row.get("rounding") == "gptq"} == {
        "first",
        "deep",
        "second",
        "last",
    }
    assert again(made, tmp_path).read_bytes() == (made / "q.onnx").read_bytes()


def test_from_data_alone_and_from_a_dry_run_too(made: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": made / "d.npz", "effort": "best", "costs": "none", "floor": "none"}
    quantize(made / "m.onnx", output=tmp_path / "a.onnx", **options)
    plan = quantize(made / "m.onnx", dry_run=True, **options).values["plan"]
    found = again(made, tmp_path, plan, calibration=None, data=made / "d.npz")
    assert found.read_bytes() == (tmp_path / "a.onnx").read_bytes()


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_the_effort_is_that_of_the_plan(made: Path, tmp_path: Path, effort: str) -> None:
    options: dict[str, Any] = best_of(made) | {"effort": effort, "floor": "none"}
    quantize(made / "m.onnx", output=tmp_path / "a.onnx", save_plan=tmp_path / "a.json", **options)
    plan = json.loads((tmp_path / "a.json").read_text())
    assert plan["effort"] == effort
    assert "rescaled" not in plan
    assert again(made, tmp_path, plan).read_bytes() == (tmp_path / "a.onnx").read_bytes()
    with fails(f"is for effort '{effort}', not 'best'", "leave --effort out"):
        again(made, tmp_path, plan, effort="best", force=True)
    del plan["effort"]  # written before there was such a key
    found = again(made, tmp_path, plan, effort=effort, force=True).read_bytes()
    assert found == (tmp_path / "a.onnx").read_bytes()


def test_one_layer_may_be_rounded_otherwise(made: Path, tmp_path: Path) -> None:
    plan = saved(made)
    row = next(row for row in plan["nodes"] if row["node"] == "second")
    del row["rounding"]
    found, before = (ir.load(path).graph.initializers for path in (again(made, tmp_path, plan), made / "q.onnx"))
    arrays = [
        {n: v.const_value.numpy().tobytes() for n, v in m.items() if v.dtype == ir.DataType.INT8}
        for m in (found, before)
    ]
    differ = {name for name in arrays[0] if arrays[0][name] != arrays[1][name]}
    assert "k4.folded/q" in differ
    assert not differ & {"k0.folded/q", "k2.folded/q"}, "what comes before it stays"


def change(plan: dict[str, Any], what: str) -> dict[str, Any]:
    factors = plan["rescaled"]["first_out"]
    if what == "stranger":
        plan["rescaled"]["relu0_out"] = factors
    if what == "too few":
        factors.pop()
    if what == "alone":
        factors[3] *= 2.0
    if what == "missing":
        del plan["rescaled"]["second_out"]
    if what == "pinned":
        plan["rescaled"]["last_out"] = [2.0, 1.0, 1.0, 1.0]
    if what == "clip":
        next(row for row in plan["nodes"] if row["node"] == "sum")["rounding"] = "gptq"
    return plan


MESSAGES = {
    "stranger": "tensor 'relu0_out' is not one that starts with scales of its own",
    "too few": "tensor 'first_out' has 8 channels, not 7",
    "alone": "channel 3 of tensor 'first_out' shares its scale with another, of another factor",
    "missing": "channel 0 of tensor 'second_out' shares its scale with another, of another factor",
    "pinned": "channel 0 of tensor 'last_out' has to keep its scale",
    "clip": "node 'sum' has rounding 'gptq', and no int8 weights",
}


@pytest.mark.parametrize("what", list(MESSAGES))
def test_factors_that_do_not_fit(made: Path, tmp_path: Path, what: str) -> None:
    with fails(MESSAGES[what], "rounding" if what == "clip" else "--save-plan plan.json"):
        again(made, tmp_path, change(saved(made), what))
    assert not (tmp_path / "q.onnx").exists()


def test_a_network_is_not_rescaled_without_samples(made: Path, tmp_path: Path) -> None:
    calibrate(made / "m.onnx", data=made / "d.npz", output=tmp_path / "c.calib", keep_samples=False)
    with fails(
        "rescales or shifts channels, and there is nothing to calibrate them on again: the calibration carries no",
        "--data",
    ):
        again(made, tmp_path, calibration=tmp_path / "c.calib")


@given(st.data())
def test_factors_come_back_from_their_tensors(data: st.DataObject) -> None:
    net = Net(0)
    model = ir.from_proto(uneven(net).model())
    name_everything(model.graph)
    prepare(model)
    channels = find_free_channels(Edits(model, "test"))
    count = len(channels.meets)
    assert count == 16  # the stream of the sum, and what the depthwise layer writes
    s = np.array(data.draw(st.lists(st.sampled_from([0.25, 1.0, 1.0, 3.7]), min_size=count, max_size=count)))
    np.testing.assert_array_equal(channels.from_tensors(channels.factors_by_tensor(s)), s)
