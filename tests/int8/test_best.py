"""Effort best: weights rounded by what layers read, channels smoothed, and the choice between ways to do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from networks import Net, quantize_net, random_data
from prepare_graphs import run as run_float
from small_models import residual

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.weights.layout import to_rows
from fcdeploy.arithmetic.weights.pair_bound import compute_excess
from fcdeploy.arithmetic.weights.smooth import FURTHEST, choose_smoothing
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.model import name_everything
from fcdeploy.graph.nodes import output_axis
from fcdeploy.int8.planning.weights import find_int8_layers
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.activations import ActivationWalk
from fcdeploy.int8.refining.best import choose_best
from fcdeploy.int8.refining.correct_layers import correct_layers
from fcdeploy.int8.refining.recalibrate import recalibrate
from fcdeploy.int8.refining.smooth import SMOOTHED, compute_smoothing, rescale
from fcdeploy.prepare.channels import UnfitChannelsError
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS


def network(net: Net) -> Net:
    """Grouped and depthwise convolutions, a sum, a dense head."""
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 16, name="first"))
    y = net.op("Relu", net.conv(x, 16, 16, group=16, name="deep"))
    y = net.op("Add", net.conv(y, 16, 16, group=2, name="grouped"), x)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", y)))
    return net.output(net.dense(y, 16, 5, name="last"))


def compensated(plan: Plan) -> Plan:
    """The plan with every layer's weights rounded by what it reads."""
    nodes = [replace(d, rounding="gptq") if d.op in ("Conv", "Gemm") else d for d in plan.nodes]
    return replace(plan, nodes=tuple(nodes))


def correlated(n: int) -> dict[str, np.ndarray]:
    """Images whose channels follow each other: rounding errors can make up for one another."""
    random = np.random.default_rng(3)
    base = random.normal(size=(n, 2, 8, 8))
    mixed = np.einsum("oc,nchw->nohw", random.normal(size=(4, 2)), base)
    return {"x": (mixed + 0.1 * random.normal(size=mixed.shape)).astype(np.float32)}


@pytest.mark.parametrize("target", ["portable", "x86-vnni"])
def test_rounding_by_what_layers_read_is_nearer_to_float(target: str) -> None:
    """Each layer's own error, of what it reads less the mean, summed without the code under test."""
    data = correlated(64)
    net = Net(0)
    network(net)
    line = quantize_net(net, data, target=target)
    before = {name: layer.weight.numpy().copy() for name, layer in line.layers.items()}
    layers = find_int8_layers(line.prepared.graph, line.plan)
    plan = compensated(line.plan)
    assert correct_layers(line.prepared, line.int8, plan, data, target=TARGETS[target]) == len(layers) == 4
    by_name = {node.name: node for node in line.int8.graph}
    for node, weight in layers:
        if node.name == "deep":  # nine weights a channel leave little to make up for
            continue
        layer = by_name[node.name]
        x = np.concatenate(ActivationWalk(line.int8, data).read(layer.inputs[0]))
        x = x - x.mean(axis=tuple(i for i in range(x.ndim) if i != 1), keepdims=True)
        scale = np.asarray(line.plan.tensors[weight.name].scale)
        scale = scale.reshape([-1 if i == output_axis(node) else 1 for i in range(len(weight.shape))])
        after = layer.inputs[1].producer().inputs[0].const_value.numpy()
        exact = weight.const_value.numpy()
        errors = [
            applied(x, exact - integers[:, : exact.shape[1]] * scale, node) for integers in (before[node.name], after)
        ]
        assert errors[1] < 0.95 * errors[0], node.name


def applied(x: np.ndarray, weight: np.ndarray, node: ir.Node) -> float:
    """Mean square of a layer's output with this weight, by torch."""
    if node.op_type == "Gemm":
        return float(np.mean((x @ weight) ** 2))
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    pads = node.attributes["pads"].as_ints()[0] if "pads" in node.attributes else 0
    y = torch.nn.functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight), padding=pads, groups=group)
    return float((y**2).mean())


def test_pairs_keep_their_bound_and_scales_stay() -> None:
    data = correlated(32)
    net = Net(1)
    network(net)
    line = quantize_net(net, data, target="portable", correct=False)
    scales = {value.name: value.const_value.numpy().copy() for value in line.int8.graph.initializers.values()
              if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT}  # fmt: skip
    before = {
        name: w.const_value.numpy().copy()
        for name, w in line.int8.graph.initializers.items()
        if w.dtype == ir.DataType.INT8
    }
    correct_layers(line.prepared, line.int8, compensated(line.plan), data, target=TARGETS["portable"])
    changed = 0
    for name, value in line.int8.graph.initializers.items():
        array = value.const_value.numpy()  # type: ignore[union-attr]
        if name in scales:
            np.testing.assert_array_equal(array, scales[name])
        if name in before and array.ndim == 4 and array.shape[1] > 1:
            changed += int((array != before[name]).sum())
            limit = TARGETS["portable"].pair_limit
            assert limit is not None and compute_excess(to_rows(array, 0), limit).max() == 0
    assert changed > 0


def test_the_walk_reads_what_was_rounded_before() -> None:
    """The last layer's Gram matrix comes from the int8 model as it stands when its turn comes."""
    data = correlated(16)
    net = Net(2)
    network(net)
    line = quantize_net(net, data, target="portable", correct=True)
    last = next(node for node in line.int8.graph if node.op_type == "Gemm")
    walked = np.concatenate(ActivationWalk(line.int8, data).read(last.inputs[0]))
    copy = line.int8.clone()
    value = next(v for node in copy.graph for v in node.outputs if v.name == last.inputs[0].name)
    copy.graph.outputs.append(value)
    whole = Session(copy, threads=1, optimize=False).run(data)[-1]
    assert measure_fidelity(whole, walked).sqnr_db > 60


def test_smoothing_changes_no_output_and_brings_channels_closer() -> None:
    net = Net(3)
    network(net)
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    prepare(model)
    first = next(node for node in model.graph if node.op_type == "Conv")
    data = correlated(16)

    def spread(m: ir.Model) -> float:
        copy = m.clone()
        value = next(node for node in copy.graph if node.op_type == "Relu").outputs[0]
        copy.graph.outputs.append(value)
        largest = np.abs(run_float(copy, data)[-1]).max(axis=(0, 2, 3))
        return float(largest.max() / largest.min())

    array = first.inputs[1].const_value.numpy() * np.geomspace(0.2, 5, 16).reshape(-1, 1, 1, 1)  # type: ignore[union-attr]
    first.inputs[1].const_value = ir.tensor(array.astype(np.float32), name=first.inputs[1].name)  # type: ignore[union-attr]
    before, wide = run_float(model, data), spread(model)
    rescale(model, compute_smoothing(model, data))
    for expected, found in zip(before, run_float(model, data), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert spread(model) < 1.5 * np.sqrt(wide)
    assert any((value.name or "").endswith(SMOOTHED) for node in model.graph for value in node.outputs)


def test_smoothing_by_hand() -> None:
    np.testing.assert_allclose(choose_smoothing(np.array([4.0, 1.0])), [np.sqrt(2), np.sqrt(0.5)])
    np.testing.assert_allclose(choose_smoothing(np.array([0.0, 9.0, 9.0])), [1, 1, 1])
    assert choose_smoothing(np.array([1e30, 1.0])).max() == FURTHEST


def test_tails_that_few_samples_do_not_show_are_in_the_ranges_of_a_rescaled_network() -> None:
    """One sample of 600 is three times as large as others: the calibration saw it, and the tools' samples are without."""
    net, random = Net(0), np.random.default_rng(0)
    first, last = (random.normal(size=shape).astype(np.float32) for shape in ((12, 24), (24, 6)))
    sizes = np.geomspace(1 / 4, 4, 24, dtype=np.float32)
    hidden = net.op("Relu", net.op("MatMul", net.input("x", 12), net.constant(first * sizes)))
    net.output(net.op("MatMul", hidden, net.constant(last / sizes[:, None])))
    data = random.normal(size=(600, 12)).astype(np.float32)
    data[-1] *= 3
    line = quantize_net(net, {"x": data}, ranges="minmax")
    few = {"x": data[:128]}
    problem = Problem(Path("none"), line.prepared, line.calibration, few, TARGETS["portable"], "minmax", ())
    factors = compute_smoothing(line.prepared, few)
    errors = []
    for tails in (True, False):
        other = recalibrate(problem, factors, {}, tails=tails)
        int8 = other.build(other.plan())
        answers = [Session(model).run({"x": data[-1:]})[0] for model in (line.prepared, int8)]
        errors.append(measure_fidelity(*answers).sqnr_db)
    assert errors[0] > 30 > 20 > errors[1]


@pytest.mark.parametrize(("raised", "surfaces"), [(UnfitChannelsError, False), (ValueError, True)])
def test_a_start_that_cannot_be_is_left_out_and_a_defect_is_not(
    raised: type[Exception], surfaces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's own ValueError on the way is no sentence about weights."""

    def fail(*_: object, **__: object) -> None:
        raise raised("weights of float32 end there")

    monkeypatch.setattr("fcdeploy.int8.refining.best.recalibrate", fail)
    net, random = Net(0), np.random.default_rng(0)
    sizes = np.geomspace(1 / 4, 4, 24, dtype=np.float32)
    first, last = (random.normal(size=shape).astype(np.float32) for shape in ((12, 24), (24, 6)))
    hidden = net.op("Relu", net.op("MatMul", net.input("x", 12), net.constant(first * sizes)))
    net.output(net.op("MatMul", hidden, net.constant(last / sizes[:, None])))
    data = {"x": random.normal(size=(64, 12)).astype(np.float32)}
    line = quantize_net(net, data)
    problem = Problem(Path("none"), line.prepared, line.calibration, data, TARGETS["portable"], "minmax", ())
    if surfaces:
        with pytest.raises(ValueError, match="weights of float32"):
            choose_best(problem, choose_ranges=False)
    else:
        assert "smoothed" not in choose_best(problem, choose_ranges=False)[1]


def test_the_command_chooses_by_measured_sqnr(tmp_path: Path) -> None:
    model = residual(tmp_path / "m.onnx")
    data = random_data(0, 48, x=(3, 8, 8))
    np.savez(tmp_path / "d.npz", **data)
    made = {}
    for effort in ("balanced", "best"):
        out = tmp_path / f"{effort}.onnx"
        report = quantize(model, output=out, data=tmp_path / "d.npz", effort=effort, costs="none", floor="none")
        made[effort] = measure_fidelity(Session(model).run(data)[0], Session(out).run(data)[0]).sqnr_db
        lines = [line for line in report.lines if line.startswith("tried on 16 samples")]
        assert len(lines) == (effort == "best")
    names = [part.rsplit(" ", 1)[0] for part in lines[0].split(": ", 1)[1].split("; ")]
    starts = ("as trained", "rounded to nearest", "smoothed")
    assert sorted(names) == [f"{start}, {method}" for start in starts for method in ("minmax", "mse")]
    figures = [float(part.rsplit(" ", 1)[1]) for part in lines[0].split(": ", 1)[1].split("; ")]
    assert figures == sorted(figures, reverse=True)
    assert made["best"] > made["balanced"] - 0.3  # chosen on the 16 kept apart, measured on 48
    first = (tmp_path / "best.onnx").read_bytes()
    quantize(model, output=tmp_path / "again.onnx", data=tmp_path / "d.npz", effort="best", costs="none", floor="none")
    assert (tmp_path / "again.onnx").read_bytes() == first
    onnx.checker.check_model(str(tmp_path / "best.onnx"))


def test_a_method_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    model = residual(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **random_data(0, 24, x=(3, 8, 8)))
    report = quantize(
        model, output=tmp_path / "q.onnx", data=tmp_path / "d.npz", effort="best", costs="none", ranges="entropy"
    )
    tried = next(line for line in report.lines if line.startswith("tried on"))
    assert "as trained, entropy" in tried
    assert "mse" not in tried
