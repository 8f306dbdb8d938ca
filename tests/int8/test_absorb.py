"""Biases that absorb what channels have in common: the same function, narrower ranges, less error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from networks import Array, Net, random_data
from prepare_graphs import run

from fcdeploy.arithmetic.weights.absorb import WORTH, choose_offsets
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.graph.model import name_everything
from fcdeploy.int8.refining.absorb import ABSORBED, absorb_shifts, find_absorption_sites, find_shifts
from fcdeploy.prepare.channels import UnfitChannelsError
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.data_format import KEY

numbers = arrays.arrays(np.float64, st.integers(1, 6), elements=st.floats(-100, 100))


def test_by_hand() -> None:
    low, high = np.array([9.0, 0.0]), np.array([12.0, 2.0])
    np.testing.assert_array_equal(choose_offsets(low, high, clipped=True), [9, 0])
    np.testing.assert_array_equal(choose_offsets(low, high, clipped=False), [10.5, 1])
    np.testing.assert_array_equal(choose_offsets(low, np.array([9.0, 200.0]), clipped=True), [0, 0])  # no narrower


@given(numbers, st.booleans(), st.data())
def test_no_narrower_range_leaves_all_as_it_was_and_nothing_seen_is_clipped(
    low: Array, clipped: bool, data: st.DataObject
) -> None:
    high = low + data.draw(arrays.arrays(np.float64, len(low), elements=st.floats(0, 100)))
    low, high = (np.maximum(ends, 0) for ends in (low, high)) if clipped else (low, high)
    c = choose_offsets(low, high, clipped=clipped)

    def width(bottom: Array, top: Array) -> float:
        return max(*top, 0.0) - min(*bottom, 0.0)

    if np.any(c):
        assert width(low - c, high - c) < WORTH * width(low, high)
    if clipped:
        assert (c >= 0).all()
        assert (low - c >= 0).all()


@given(st.integers(0, 2**32 - 1))
def test_two_layers_brute_force(seed: int) -> None:
    """W2 relu(W1 x + b1) + b2 in integers, where nothing rounds, with and without c."""
    draw = np.random.default_rng(seed)
    w1, w2, b1, b2 = (draw.integers(-9, 10, shape) for shape in ((4, 3), (2, 4), 4, 2))
    x = draw.integers(-9, 10, (50, 3))
    b1 = b1 + draw.integers(0, 900, 4)
    seen = np.maximum(x @ w1.T + b1, 0)
    c = choose_offsets(seen.min(axis=0).astype(float), seen.max(axis=0).astype(float), clipped=True).astype(int)
    shifted = np.maximum(x @ w1.T + (b1 - c), 0) @ w2.T + (b2 + w2 @ c)
    np.testing.assert_array_equal(shifted, seen @ w2.T + b2)


def network(seed: int = 0, *, high: float = 6.0) -> Net:
    """Layers of 1x1 and a dense one, channels of some of which never come near 0; one that reads padding."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, (1, 1), name="first"))
    x = net.conv(x, 8, 8, (1, 1), name="linear")
    x = net.op("Relu", net.conv(x, 8, 8, (1, 1), name="padded before"))
    x = net.op("Relu", net.conv(x, 8, 8, name="padded"))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.dense(net.op("MatMul", x, net.constant(net.normal(8, 8)), name="product"), 8, 4, name="last"))
    for weight in net.weights:  # biases of convolutions: half of the channels far from 0
        if list(weight.dims) == [8]:
            bias = np.frombuffer(weight.raw_data, np.float32).copy()
            bias[::2] += high * 3
            weight.raw_data = bias.tobytes()
    return net


def prepared(net: Net) -> ir.Model:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    prepare(model)
    return model


def test_a_model_computes_the_same_and_says_which_tensors_hold_something_else() -> None:
    model, data = prepared(network()), random_data(0, 32, x=(3, 6, 6))
    assert set(find_absorption_sites(model)) == {"first_out", "linear_out", "product_out"}, (
        "the others read padding, or are no layers"
    )
    before = run(model, data)[0]
    shifts = find_shifts(model, data)
    assert {"first_out", "linear_out"} <= set(shifts)
    assert min(shifts["first_out"]) >= 0
    absorb_shifts(model, shifts)
    np.testing.assert_allclose(run(model, data)[0], before, atol=2e-6 * np.abs(before).max())
    names = {value.name for node in model.graph for value in node.outputs if (value.name or "").endswith(ABSORBED)}
    assert {f"{name}{ABSORBED}" for name in shifts} <= names


def test_a_product_without_a_bias_gets_one() -> None:
    model, data = prepared(network()), random_data(0, 32, x=(3, 6, 6))
    before = run(model, data)[0]
    absorb_shifts(model, {"product_out": [1.0, -2.0, 0.5, 0, 0, 0, 0, 3.0]})
    np.testing.assert_allclose(run(model, data)[0], before, atol=2e-6 * np.abs(before).max())
    assert not any(node.op_type == "MatMul" for node in model.graph)


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        ({"padded_out": [1.0] * 8}, "tensor 'padded_out' is not between a layer and layers that may absorb a shift"),
        ({"first_out": [1.0] * 7}, "tensor 'first_out' has 8 channels, not 7"),
        ({"first_out": [-1.0] * 8}, "tensor 'first_out' is read through a Relu, which lets no negative shift pass"),
    ],
)
def test_shifts_that_do_not_fit(shifts: dict[str, list[float]], message: str) -> None:
    with pytest.raises(UnfitChannelsError, match=message):
        absorb_shifts(prepared(network()), shifts)


def test_effort_best_takes_it_where_it_is_better_and_its_plan_comes_back(tmp_path: Path) -> None:
    """And how data are read is recorded as if nothing were absorbed."""
    model = network(1, high=30.0).save(tmp_path / "m.onnx")
    for name, seed in (("c", 0), ("e", 1)):
        np.savez(tmp_path / f"{name}.npz", **random_data(seed, 48, x=(3, 6, 6)))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    found, formats = {}, {}
    for effort in ("balanced", "best"):
        out, plan = tmp_path / f"{effort}.onnx", tmp_path / f"{effort}.json"
        report = quantize(
            model,
            data=tmp_path / "c.npz",
            output=out,
            effort=effort,
            costs="none",
            classes=tmp_path / "names.txt",
            save_plan=plan,  # type: ignore[arg-type]
        )
        formats[effort] = ir.load(out).metadata_props[KEY]
        found[effort] = validate(out, against=model, data=tmp_path / "e.npz").values["sqnr_db"]
    assert "biases absorbed" in next(line for line in report.lines if line.startswith("tried")).split(";")[0]
    assert found["best"] > found["balanced"] + 4
    assert formats["best"] == formats["balanced"]
    saved = json.loads(plan.read_text())
    assert "first_out.smoothed" in saved["absorbed"]
    quantize(model, data=tmp_path / "c.npz", output=tmp_path / "again.onnx", plan=plan, classes=tmp_path / "names.txt")
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()
    saved["absorbed"] = {"first_out": [0.5]}
    plan.write_text(json.dumps(saved))
    with fails("does not fit: tensor 'first_out"):
        quantize(model, data=tmp_path / "c.npz", output=tmp_path / "wrong.onnx", plan=plan)
