"""One scale for all channels of a dense weight: the scale, the layers it is for, and the kernel it becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from networks import Array, Net, in_memory, random_data

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.weights.rounding import round_rows, search_scale
from fcdeploy.graph.model import write_model
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.judging.fidelity import measure_sqnr
from fcdeploy.int8.planning.check_plan import check_plan
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing import choose_kernels
from fcdeploy.int8.timing.choose_kernels import _choose_one_scale, plan_choice
from fcdeploy.int8.timing.per_tensor_weights import find_one_scale_layers
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.costs import Choice
from fcdeploy.records.plan import from_json, to_json
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS

DATA = random_data(0, 16, x=(33,))

VNNI = pytest.param(
    "x86-vnni",
    marks=pytest.mark.skipif(
        not any("vnni" in flag for flag in read_cpu_flags()), reason="sums of pairs saturate here"
    ),
)


def given(net: Net, target: str = "portable") -> Problem:
    model = ir.from_proto(net.model())
    prepare(model)
    calibration = observe(model, in_memory(DATA, model), model_hash="m")
    return Problem(Path("none"), model, calibration, calibration.kept, TARGETS[target], "mse", ())


def dense(uneven: float = 1.0) -> Net:
    """Two dense layers and one without a bias; a channel of the first has weights `uneven` times as large."""
    net = Net(2)
    x = net.dense(net.input("x", 33), 33, 40, name="a")
    x = net.dense(net.op("Relu", x), 40, 24, name="b", transB=1)
    x = net.op("MatMul", net.op("Relu", x), net.constant(net.normal(24, 9, size=0.3)), name="c")
    from onnx import numpy_helper

    weight = numpy_helper.to_array(net.weights[0]).copy()
    weight[:, 0] *= uneven
    net.weights[0].CopyFrom(numpy_helper.from_array(weight, net.weights[0].name))
    return net.output(x)


@pytest.mark.parametrize("columns", [200, 201])
@pytest.mark.parametrize("limit", [None, 128])
def test_the_scale_is_about_the_best_of_all(columns: int, limit: int | None) -> None:
    """Against a fine grid."""
    random = np.random.default_rng(columns)
    weight, h = random.normal(size=(5, columns)), random.uniform(0.1, 2, columns)

    def error(scale: float) -> float:
        integers = round_rows(weight, np.full(5, scale), h, limit)
        return float((h * (weight - integers * scale) ** 2).sum())

    (found,) = search_scale(weight, h, limit)
    top = np.abs(weight).max() / 127
    best = min(error(scale) for scale in np.linspace(0.5 * top, 2.1 * top, 2000))
    assert error(found) <= 1.05 * best
    assert found == np.float32(found)


def test_a_bias_bounds_it_from_below() -> None:
    weight = np.full((2, 4), 1e-6)
    (found,) = search_scale(weight, np.ones(4), None, np.array([1e-3, 5e-3]))
    assert found >= 5e-3


def test_layers_of_even_channels_may_have_one_and_uneven_ones_may_not() -> None:
    even, uneven = given(dense()), given(dense(uneven=50.0))
    found = [find_one_scale_layers(g.model.graph, g.plan(), g.calibration, 128) for g in (even, uneven)]
    assert set(found[0]) == {"a", "b", "c"}
    assert set(found[1]) == {"b", "c"}
    assert found[0]["a"] > found[0]["b"] > found[0]["c"]  # by how many outputs they have


def test_the_table_decides_whether_they_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is measured; where all together cost too much accuracy, those that gain most have it, or none."""
    start = given(dense(), "x86-avx2")
    everything = start.plan()

    def build(choice: Choice) -> ir.Model:
        return start.build(plan_choice(start, everything, choice))

    monkeypatch.setattr(choose_kernels, "MOST_LOSS_DB", 6.0)
    ones, with_one, without = _choose_one_scale(start, everything, build)
    assert set(ones) == {"a", "b", "c"}
    assert without is not None and with_one is not None and without - 6 <= with_one < without
    monkeypatch.setattr(choose_kernels, "MOST_LOSS_DB", without - with_one - 0.01)
    assert set(_choose_one_scale(start, everything, build)[0]) < {"a", "b", "c"}
    monkeypatch.setattr(choose_kernels, "MOST_LOSS_DB", -40.0)
    assert _choose_one_scale(start, everything, build)[0] == {}
    monkeypatch.setattr(choose_kernels, "WORTH_ONE", 10.0)
    assert _choose_one_scale(start, everything, build) == ({}, None, None)


@pytest.mark.parametrize("target", ["portable", VNNI])
def test_it_is_one_kernel_with_one_scale_and_nearly_as_accurate(target: str, tmp_path: Path) -> None:
    start = given(dense(), target)
    plan = start.plan(Overrides(one_scale=("a", "b", "c")))
    weights = [plan.tensors[node.inputs[1].name] for node in start.model.graph if node.name in "abc"]  # type: ignore[union-attr,index]
    assert [(q.axis, len(q.scale)) for q in weights] == [(None, 1)] * 3
    check_plan(start.model.graph, plan, "the plan")
    assert from_json(to_json(plan), "the plan") == plan
    int8 = start.build(plan, correctable=True)
    file = tmp_path / "int8.onnx"
    write_model(int8, file)
    kernels = {kernel.node: kernel for kernel in find_kernels(file)}
    assert all(kernels[name].integer for name in "abc")
    every = start.build(start.plan())
    assert min(measure_sqnr(start.model, int8, DATA)) > min(measure_sqnr(start.model, every, DATA)) - 6
    fused, literal, precise = (
        outputs(int8, **how)
        for how in ({}, {"optimize": False}, {"precise": True})  # type: ignore[arg-type]
    )
    assert measure_fidelity(literal, fused).sqnr_db > 40
    assert target != "portable" or np.array_equal(fused, precise)


def outputs(model: ir.Model, **how: bool) -> Array:
    return np.asarray(Session(model, threads=1, **how).run(DATA)[0])
