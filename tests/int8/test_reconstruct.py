"""Effort best learns weights together where judged samples say that it helps, and its plan repeats that."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Array, Net
from onnx import helper, numpy_helper
from typed_networks import dense_net

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.weights.pair_bound import compute_excess
from fcdeploy.commands.quantize import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.int8.refining import reconstruct
from fcdeploy.runtime.session import Session

INT4 = {"weights": "int4", "activations": "none", "floor": "50,0"}


def draw(count: int, seed: int, width: int) -> Array:
    """Inputs along few directions, as those of trained networks are."""
    directions = np.random.default_rng(7).normal(size=(12, width))
    return np.maximum(np.random.default_rng(seed).normal(size=(count, 12)) @ directions, 0).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dense network, samples of it, and what effort best made of it in 4 bits, with its plan."""
    folder = tmp_path_factory.mktemp("learnt")
    dense_net(64, 128, 64, 8, seed=3).save(folder / "m.onnx")
    np.savez(folder / "d.npz", x=draw(200, 0, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "STEPS", 400)
        quantize(
            folder / "m.onnx", data=folder / "d.npz", output=folder / "q.onnx", save_plan=folder / "p.json",
            effort="best", **INT4,
        )  # fmt: skip
        yield folder


def sqnr(folder: Path, file: str, x: Array) -> float:
    (truth,), (answer,) = (Session(folder / name).run({"x": x}) for name in ("m.onnx", file))
    return measure_fidelity(truth, answer).sqnr_db


def test_four_bits_come_nearer_to_float_on_samples_that_nobody_saw(made: Path) -> None:
    others = draw(400, 1, 64)
    quantize(made / "m.onnx", data=made / "d.npz", output=made / "usual.onnx", **INT4)
    assert sqnr(made, "q.onnx", others) > sqnr(made, "usual.onnx", others) + 1.0
    sizes = [(made / name).stat().st_size for name in ("q.onnx", "usual.onnx")]
    assert abs(sizes[0] - sizes[1]) < 200  # its metadata alone


def test_the_plan_repeats_it(made: Path) -> None:
    assert json.loads((made / "p.json").read_text())["reconstructed"] is True
    quantize(made / "m.onnx", data=made / "d.npz", output=made / "again.onnx", plan=made / "p.json", **INT4)
    assert (made / "again.onnx").read_bytes() == (made / "q.onnx").read_bytes()


def test_the_report_says_what_was_taken(made: Path) -> None:
    report = quantize(made / "m.onnx", data=made / "d.npz", output=made / "r.onnx", effort="best", **INT4)
    assert any("taken: weights and biases of all layers learnt together" in line for line in report.lines)


def test_a_plan_says_true_or_false(made: Path, tmp_path: Path) -> None:
    plan = json.loads((made / "p.json").read_text()) | {"reconstructed": "yes"}
    (tmp_path / "p.json").write_text(json.dumps(plan))
    with fails("has reconstructed 'yes', expected true or false"):
        quantize(made / "m.onnx", data=made / "d.npz", output=tmp_path / "q.onnx", plan=tmp_path / "p.json", **INT4)


def test_without_torch_it_is_left_out_and_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    report = quantize(made / "m.onnx", data=made / "d.npz", output=made / "no.onnx", effort="best", **INT4)
    said = "weights were not learnt together: torch is not installed: pip install 'fcdeploy[export]'"
    assert said in report.warnings
    plain = quantize(made / "m.onnx", data=made / "d.npz", output=made / "usual.onnx", force=True, **INT4)
    assert not any("torch" in text for text in plain.warnings)


def convolutions() -> Net:
    net = Net(4)
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 16, name="first"))
    deep = net.op("Relu", net.conv(x, 16, 16, group=16, name="deep"))
    y = net.op("Add", net.conv(deep, 16, 16, (1, 1), name="second"), x, name="sum")
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 16, 6, name="last"))


def test_integer_layers_keep_the_pair_bound_and_their_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inverted residual learnt on a target whose pairs saturate."""
    monkeypatch.setattr(reconstruct, "STEPS", 60)
    monkeypatch.setattr("fcdeploy.search.candidates.WORTH_LEARNING", -99.0)  # whatever comes of it
    convolutions().save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=draw(100, 0, 256).reshape(100, 4, 8, 8))
    options: dict[str, Any] = {"target": "x86-avx2", "costs": "none", "floor": "90,0", "force": True}
    files = {}
    for effort in ("best", "balanced"):
        quantize(tmp_path / "m.onnx", data=tmp_path / "d.npz", output=tmp_path / f"{effort}.onnx",
                 save_plan=tmp_path / f"{effort}.json", effort=effort, **options)  # fmt: skip
        files[effort] = onnx.load(tmp_path / f"{effort}.onnx")
    assert json.loads((tmp_path / "best.json").read_text())["reconstructed"] is True
    weights = [
        numpy_helper.to_array(w) for w in files["best"].graph.initializer if w.data_type == onnx.TensorProto.INT8
    ]
    layers = [w for w in weights if w.ndim == 4 and w.shape[1] > 1] + [w.T for w in weights if w.ndim == 2]
    assert len(layers) == 3
    for w in layers:
        rows = np.moveaxis(w, 1, -1).reshape(len(w), -1) if w.ndim == 4 else w
        assert not compute_excess(rows, 128).any()
    x = draw(200, 1, 256).reshape(200, 4, 8, 8)
    assert sqnr(tmp_path, "best.onnx", x) > 25


@pytest.mark.parametrize(("count", "why"), [(10, "tools may run 10 samples"), (40, "")])
def test_few_samples_are_not_learnt_from(count: int, why: str) -> None:
    model = ir.from_proto(dense_net(64, 128, 8).model())
    schedule, said = reconstruct.find_schedule(model, {"x": draw(count, 0, 64)})
    assert said.startswith(why) and bool(said) == bool(why) == (schedule is None)


def test_what_takes_too_long_or_too_much_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = ir.from_proto(dense_net(64, 128, 8).model()), {"x": draw(40, 0, 64)}
    macs = 64 * 128 + 128 * 8
    size = 4 * (64 + 128 + 128 + 8)  # of all tensors
    monkeypatch.setattr(reconstruct, "STEPS", 2000)

    def schedule() -> tuple[int, int, int] | str:
        found, why = reconstruct.find_schedule(model, samples)
        return why if found is None else (found.steps, found.batch, found.pool)

    assert schedule() == (2000, 32, 2048)
    monkeypatch.setattr(reconstruct, "MOST_WORK", 3 * 8 * macs * 500)
    assert schedule() == (500, 8, 2048)
    monkeypatch.setattr(reconstruct, "MOST_BYTES", 100 * size)
    assert schedule() == (500, 8, 100)
    monkeypatch.setattr(reconstruct, "MOST_BYTES", 5 * size)
    assert schedule() == "what lies between its layers takes too much memory"
    monkeypatch.setattr(reconstruct, "MOST_WORK", 3 * 8 * macs * 200)
    assert schedule() == "a network of so many multiplications takes too long"


def of_one(shape: list[int]) -> ir.Model:
    """A network exported for one sample: its Reshape says so."""
    net = Net(2)
    net.inputs.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    y = net.op("Reshape", net.conv("x", 3, 8), net.constant(shape, np.int64))
    return ir.from_proto(net.output(net.dense(y, 512, 4)).model())


def test_a_network_of_one_sample_at_a_time_is_told_apart() -> None:
    samples = {"x": draw(40, 0, 192).reshape(40, 3, 8, 8)}
    assert "torch does not run 3 samples at once" in reconstruct.find_schedule(of_one([1, 512]), samples)[1]
    assert reconstruct.find_schedule(of_one([0, 512]), samples)[0] is not None


def test_samples_that_would_be_mixed_are_told_apart() -> None:
    net = Net(2)
    net.inputs.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8]))
    rows = net.op("Reshape", "x", net.constant([1, -1, 8], np.int64))
    y = net.op("MatMul", net.op("ReduceMean", rows, axes=[1], keepdims=0), net.constant(net.normal(8, 4)))
    model = ir.from_proto(net.output(y).model())
    said = reconstruct.find_schedule(model, {"x": draw(40, 0, 32).reshape(40, 4, 8)})[1]
    assert said == "torch computes other numbers than onnxruntime, or samples are not independent"


@pytest.mark.parametrize("missing", ["torch", "samples"])
def test_a_plan_that_cannot_be_repeated_is_refused(missing: str, made: Path, tmp_path: Path, request: Any) -> None:
    data = made / "d.npz"
    if missing == "torch":
        patch = request.getfixturevalue("monkeypatch")
        patch.setattr(reconstruct, "is_installed", lambda: False)
    else:
        data = tmp_path / "few.npz"
        np.savez(data, x=draw(20, 0, 64))
    why = "torch is not installed" if missing == "torch" else "fewer than 32"
    with pytest.raises(FcdeployError, match=f"learnt together, which cannot be done again: .*{why}"):
        quantize(made / "m.onnx", data=data, output=tmp_path / "q.onnx", plan=made / "p.json", **INT4)
    assert not (tmp_path / "q.onnx").exists()


def test_weights_that_two_layers_share_are_left_as_they_are() -> None:
    net = Net(1)
    x = net.input("x", 64)
    weight = net.constant(net.normal(64, 64, size=0.2))
    y = net.op("Relu", net.op("MatMul", x, weight, name="a"))
    model = ir.from_proto(net.output(net.dense(net.op("MatMul", y, weight, name="b"), 64, 8)).model())
    shared = next(node for node in model.graph if node.name == "a").inputs[1]
    assert shared is not None and reconstruct._is_shared(shared, None)
