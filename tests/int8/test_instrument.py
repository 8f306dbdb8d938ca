"""Pooled or whole, a tensor's record is the same to the bit; and where pooling cannot tell, the whole is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Arrays, Net, in_memory, random_data
from recordings import model_of, record

from fcdeploy.int8.calibrating import observe as module
from fcdeploy.int8.calibrating.instrument import expose_tensors, lower_bound, outputs_of, pooled_step
from fcdeploy.int8.calibrating.observe import observable_tensors
from fcdeploy.int8.calibrating.schedule import Passes, plan_passes
from fcdeploy.records.calibration import Calibration, to_bytes
from fcdeploy.runtime.session import Session


def residual(net: Net) -> Net:
    """Clips of both kinds, channels that blocks of 8 and 16 do not divide, odd sides."""
    x = net.op("Relu", net.conv(net.input("x", 3, 23, 30), 3, 32), name="first")
    y = net.op("Clip", net.conv(x, 32, 32), net.constant(0.0), net.constant(0.5), name="clip")
    x = net.op("Relu", net.op("Add", net.conv(y, 32, 32), x), name="second")
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name="pool")
    x = net.op("Relu", net.conv(x, 32, 100), name="third")
    x = net.op("Clip", net.conv(x, 100, 64), net.constant(-0.25), net.constant(0.25), name="both")
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", x)), 64, 5))


DATA = random_data(0, 21, x=(3, 23, 30))
POOLED = {"first_out", "clip_out", "second_out", "third_out", "both_out"}


def whole(monkeypatch: pytest.MonkeyPatch, model: ir.Model, data: Arrays, **options: Any) -> Calibration:
    with monkeypatch.context() as patch:
        patch.setattr(module, "pooled_step", lambda *_: 1)
        return record(model, data, **options)


def steps(model: ir.Model) -> dict[str, int]:
    return {value.name or "": k for value in observable_tensors(model.graph) if (k := pooled_step(value, 0)) > 1}


@pytest.mark.parametrize("batch", [1, 8, None])
def test_pooled_and_whole_tensors_make_the_same_bytes(batch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(residual(Net(0)))
    assert set(steps(model)) == POOLED
    expected = whole(monkeypatch, model, DATA, batch=5)
    assert to_bytes(record(model, DATA, batch=batch)) == to_bytes(expected)


def test_the_ends_of_pooled_tensors_are_those_of_the_float_model() -> None:
    """Against onnxruntime without any optimization, so to rounding."""
    model = model_of(residual(Net(1)))
    found = record(model, DATA)
    values = {value.name: value for value in observable_tensors(model.graph)}
    plain = Session(expose_tensors(model, values, POOLED, {}), optimize=False)  # type: ignore[arg-type]
    results = dict(zip(plain.outputs, plain.run(DATA), strict=True))
    for name in POOLED:
        h = found.tensors[name].histogram
        assert (h.low, h.high) == pytest.approx((results[name].min(), results[name].max()), rel=1e-5)
        assert found.tensors[name].shape == (None, *results[name].shape[1:])
        few = results[name][:, :, :: steps(model)[name], :: steps(model)[name]]
        assert h.total == few.size
        moments = found.tensors[name].moments
        assert moments is None or moments.mean() == pytest.approx(few.mean((0, 2, 3)), abs=0.1)


def test_what_the_graph_gives_of_a_pooled_tensor() -> None:
    model = model_of(residual(Net(2)))
    values = {value.name or "": value for value in observable_tensors(model.graph)}
    both = Session(expose_tensors(model, values, set(values), {}), threads=1)
    names = [name for name in values if name != "x"]
    results = dict(zip(names, both.run(DATA, names), strict=True))
    pooled = Session(expose_tensors(model, values, set(values), steps(model)), threads=1)
    for name, k in steps(model).items():
        few, largest, means = pooled.run(DATA, outputs_of(name, steps(model)))
        np.testing.assert_array_equal(few, results[name][:, :, ::k, ::k])
        np.testing.assert_array_equal(largest, results[name].max((2, 3), keepdims=True))
        np.testing.assert_allclose(means, results[name].mean((2, 3), keepdims=True), rtol=1e-4, atol=1e-6)


def above(net: Net) -> Net:
    """Behind the first Relu nothing is 0, behind the second hardly anything."""
    x = net.op("Relu", net.op("Add", net.op("Abs", net.input("x", 16, 24, 24)), net.constant(0.5)), name="above")
    x = net.op("Relu", net.op("Add", x, net.constant(-0.501)), name="hardly")
    return net.output(net.op("GlobalAveragePool", x))


def test_a_clip_whose_bound_is_not_reached_is_looked_at_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(above(Net(0)))
    assert set(steps(model)) == {"above_out", "hardly_out"}
    data = random_data(0, 9, x=(16, 24, 24))
    found = record(model, data, batch=2)
    assert to_bytes(found) == to_bytes(whole(monkeypatch, model, data, batch=9))
    h = found.tensors["above_out"].histogram
    assert h.low == np.float32(np.abs(data["x"]).min() + np.float32(0.5))
    assert found.tensors["hardly_out"].histogram.low == 0


@pytest.mark.parametrize(("op", "value"), [("Exp", 100.0), ("Sqrt", -1.0)])
def test_what_is_not_finite_is_found_in_pooled_tensors(op: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of one sample becomes infinity, or NaN, where nothing is counted."""
    net = Net(0)
    x = net.op("Relu", net.op(op, net.input("x", 16, 24, 24)), name="odd")
    model = model_of(net.output(net.op("GlobalAveragePool", x)))
    assert set(steps(model)) == {"odd_out"}
    data = {"x": np.random.default_rng(0).uniform(0.5, 1, (6, 16, 24, 24)).astype(np.float32)}
    data["x"][:, 0, 0, 0] = 0.0 if op == "Sqrt" else -200.0  # so that the bound is reached
    data["x"][3, 5, 7, 9] = value
    expected = whole(monkeypatch, model, data, batch=4)
    assert expected.tensors["odd_out"].histogram.nonfinite == 1
    for batch in (1, 4):
        assert to_bytes(record(model, data, batch=batch)) == to_bytes(expected)


@pytest.mark.parametrize("most", [1, 2])
def test_pooled_tensors_in_several_passes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(residual(Net(0)))
    values = observable_tensors(model.graph)
    expected = to_bytes(record(model, DATA))
    names = [value.name or "" for value in values]
    groups = tuple(tuple(names[i : i + most]) for i in range(0, len(names), most))
    axes = plan_passes(model, values, in_memory(DATA, model)).axes
    monkeypatch.setattr(module, "plan_passes", lambda *_, **__: Passes(4, groups, axes))
    assert to_bytes(record(model, DATA)) == expected


def test_what_is_not_pooled() -> None:
    """Sides that are not known, small images, channels last, tensors that nothing bounds."""
    net = Net(0)
    free = net.op("Relu", net.input("x", 16, "h", 24), name="free")
    small = net.op("Relu", net.input("y", 16, 8, 8), name="small")
    last = net.op("Relu", net.input("z", 16, 24, 24), name="last")
    tanh = net.op("Tanh", net.input("w", 16, 24, 24), name="tanh")
    dense = net.op("MatMul", last, net.constant(net.normal(24, 3)))
    model = model_of(net.output(free, small, dense, tanh), prepared=False)
    assert steps(model) == {}
    assert {value.name: lower_bound(value) for value in observable_tensors(model.graph)}["tanh_out"] == -np.inf
