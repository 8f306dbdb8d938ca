"""States carried through samples: against a recurrence in NumPy, and through the whole line."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.split import split
from fcdeploy.commands.validate import validate
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.int8.calibrating import observe as observing
from fcdeploy.int8.calibrating.merge import merge
from fcdeploy.int8.calibrating.observe import CalibrationPart, assemble, observable_tensors, observe, observe_pass
from fcdeploy.int8.calibrating.schedule import plan_passes
from fcdeploy.int8.judging.judge import Judge
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.calibration import read, to_bytes
from fcdeploy.records.sample_layout import KEY, SampleLayout
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.kept_samples import SmallestSamples, keep_smallest
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.states import parse_states
from fcdeploy.samples.stretches import STRETCH, StretchCollector, split_stretches

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(6, 16)).astype(np.float32) * 0.6
U = RANDOM.normal(size=(16, 16)).astype(np.float32) * 0.2
V = RANDOM.normal(size=(16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h' = relu(x W + h U), y = h' V: states of shape (1, n, 16), samples along their axis 1."""
    path = tmp_path_factory.mktemp("stream") / "stream.onnx"
    node = h.make_node
    nodes = [
        node("MatMul", ["x", "W"], ["a"]), node("Squeeze", ["h", "zero"], ["s"]), node("MatMul", ["s", "U"], ["b"]),
        node("Add", ["a", "b"], ["c"]), node("Relu", ["c"], ["r"]), node("MatMul", ["r", "V"], ["y"]),
        node("Unsqueeze", ["r", "zero"], ["h_out"]),
    ]  # fmt: skip
    value = h.make_tensor_value_info
    graph = h.make_graph(
        nodes, "stream", [value("x", T.FLOAT, ["n", 6]), value("h", T.FLOAT, [1, "n", 16])],
        [value("y", T.FLOAT, ["n", 3]), value("h_out", T.FLOAT, [1, "n", 16])],
        [nh.from_array(W, "W"), nh.from_array(U, "U"), nh.from_array(V, "V"), nh.from_array(np.array([0]), "zero")],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), path)
    return path


def run(x: Array) -> tuple[Array, Array]:
    """The outputs of a sequence (steps, 6), and the state before each step."""
    state, outputs, states = np.zeros((1, 1, 16), np.float32), [], []
    for step in x:
        states.append(state)
        state = np.maximum(step @ W + state[0] @ U, 0)[None]
        outputs.append(state[0, 0] @ V)
    return np.array(outputs), np.array(states)


SPECS = [
    TensorSpec("x", np.dtype(np.float32), (None, 6), alone=True),
    TensorSpec("h", np.dtype(np.float32), (1, None, 16), sample_axis=None, alone=True, state="h_out"),
]


@pytest.mark.parametrize("shape", [(7, 6), (3, 5, 6)])
def test_steps_have_the_states_of_the_recurrence(
    stream: Path, save_npz: Callable[..., Path], shape: tuple[int, ...]
) -> None:
    """Rows are one stream; behind an axis of sequences, each begins with zeros."""
    x = RANDOM.normal(size=shape).astype(np.float32)
    steps = list(open_source(save_npz(x=x), SPECS, model=stream))
    wanted = np.concatenate([run(each)[1] for each in (x if x.ndim == 3 else x[None])])
    np.testing.assert_allclose(np.array([step.inputs["h"] for step in steps]), wanted, atol=1e-5)
    np.testing.assert_array_equal(np.array([step.inputs["x"] for step in steps]), x.reshape(-1, 6))
    assert [step.name.endswith("step 0") for step in steps].count(True) == (1 if x.ndim == 2 else len(x))


def test_a_stream_through_the_whole_line(stream: Path, save_npz: Callable[..., Path], tmp_path: Path) -> None:
    """Calibrated on states that occur, said once; each model carries its own when they are compared."""
    x = RANDOM.normal(size=(96, 6)).astype(np.float32)
    made = tmp_path / "stream.calib"
    report = calibrate(stream, data=save_npz(x=x[:48]), output=made, states=["h_out=h"])
    assert any("states are carried" in warning for warning in report.warnings)
    known = read(made)
    assert known.states == {"h": "h_out"}
    assert known.tensors["h"].histogram.high == pytest.approx(run(x[:48])[1].max(), rel=1e-5)
    assert known.groups[0]["x"].shape == (1, 48, 6) and known.sample_groups[0]["h"].shape == (48, 1, 1, 16)
    int8 = tmp_path / "int8.onnx"
    quantize(stream, output=int8, weights="int8", activations="int8", calibration=made, costs="none")
    held_out = save_npz(x=x[48:])
    found = validate(int8, against=stream, data=held_out).values
    model = onnx.load(int8)
    import onnxruntime as ort

    session, state, outputs = ort.InferenceSession(model.SerializeToString()), np.zeros((1, 1, 16), np.float32), []
    for step in x[48:]:
        y, state = session.run(["y", "h_out"], {"x": step[None], "h": state})
        outputs.append(y[0])
    f, q = run(x[48:])[0], np.array(outputs)
    decibels = 10 * np.log10((f.astype(np.float64) ** 2).sum() / ((f - q).astype(np.float64) ** 2).sum())
    assert {row["name"]: row["sqnr_db"] for row in found["outputs"]}["y"] == pytest.approx(decibels, abs=0.1)
    assert found["agreement"] == pytest.approx((f.argmax(1) == q.argmax(1)).mean())


def test_a_stream_that_stays_float_knows_its_states(
    stream: Path, save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    """The file as it was, and of its metadata what later commands would else have to be told again."""
    data = save_npz(x=RANDOM.normal(size=(40, 6)).astype(np.float32))
    out = tmp_path / "same.onnx"
    report = quantize(stream, output=out, data=data, states=["h_out=h"], keep_float=["*"], costs="none")
    assert "nothing was quantized: every node stays as it was in float" in report.warnings
    assert [node.op_type for node in onnx.load(out).graph.node] == [
        node.op_type for node in onnx.load(stream).graph.node
    ]
    assert validate(out, against=stream, data=data, same_data=True).values["samples"] == 40


def test_the_times_of_a_stream_are_measured_on_a_step_as_the_model_takes_it(
    stream: Path, save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    data, made = save_npz(x=RANDOM.normal(size=(96, 6)).astype(np.float32)), tmp_path / "int8.onnx"
    assert quantize(stream, output=made, data=data, states=["h_out=h"], costs="measure", floor="none").passed


def test_transform_and_inspect_take_streams(stream: Path, save_npz: Callable[..., Path], tmp_path: Path) -> None:
    """Of the float model as calibrate is told, of the int8 model by its record; a run takes one sample."""
    data, int8, state = save_npz(x=RANDOM.normal(size=(24, 6)).astype(np.float32)), tmp_path / "int8.onnx", ["h_out=h"]
    half = tmp_path / "half.onnx"
    halves = split(stream, output=half, at="Add:c", data=data, states=state, force=True)
    assert halves.values["samples"] == 24 and halves.values["max_rel"] == 0
    quantize(stream, output=int8, data=data, states=state, costs="none", floor="none")
    assert split(int8, output=half, at="Add:c", data=data, force=True).values["samples"] == 24
    assert split(int8, output=half, at="Add:c", force=True).passed  # numbers that are drawn
    with fails("input 'h' is missing"):
        split(stream, output=half, at="Add:c", data=data, force=True)
    for found in (inspect(int8), inspect(int8, exact=True, data=data)):
        assert found.values["macs"] == 6 * 16 + 16 * 16 + 16 * 3
        assert not any("unknown" in warning for warning in found.warnings)


def test_where_samples_lie_is_kept_in_the_calibration(save_npz: Callable[..., Path], tmp_path: Path) -> None:
    """A recurrent layer takes time first, and steps of two: nothing but --batch-axis tells time from samples."""
    path, made, int8 = tmp_path / "lstm.onnx", tmp_path / "c", tmp_path / "int8.onnx"
    value = h.make_tensor_value_info
    weights = {"W": (1, 32, 4), "R": (1, 32, 8), "V": (8, 3)}
    nodes = [
        h.make_node("LSTM", ["x", "W", "R", "", "", "s"], ["", "s_out"], hidden_size=8),
        h.make_node("MatMul", ["s_out", "V"], ["y"]),
    ]
    graph = h.make_graph(
        nodes, "lstm", [value("x", T.FLOAT, ["t", "n", 4]), value("s", T.FLOAT, [1, "n", 8])],
        [value("y", T.FLOAT, [1, "n", 3]), value("s_out", T.FLOAT, [1, "n", 8])],
        [nh.from_array(RANDOM.normal(size=shape).astype(np.float32) / 3, name) for name, shape in weights.items()],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8), path)
    x = RANDOM.normal(size=(40, 2, 4)).astype(np.float32)
    calibrate(path, data=save_npz(x=x), output=made, states=["s_out=s"], batch_axes=["x=1"])
    assert read(made).axes == {"x": 1}
    quantize(path, output=int8, calibration=made, costs="none", floor="none")
    assert [(spec.name, spec.sample_axis) for spec in input_specs(read_model(int8))] == [("x", 1), ("s", None)]
    assert validate(int8, against=path, data=save_npz(x=x + 1)).passed  # as the int8 model says


def test_stretches_of_a_stream_are_kept_whole_and_split_by_them(stream: Path, save_npz: Callable[..., Path]) -> None:
    """Each holds consecutive steps, the states between them; none of the judge's steps is among the tools'."""
    x = RANDOM.normal(size=(5 * STRETCH + 9, 6)).astype(np.float32)
    groups = keep_smallest(open_source(save_npz(x=x), SPECS, model=stream)).groups()
    assert sorted(group["x"].shape[:2] for group in groups) == [(1, 9), (5, STRETCH)]
    tools, judged = split_stretches(groups)
    for group in judged:
        for steps, states in zip(group["x"], group["h"], strict=True):
            begin = int(np.flatnonzero((x == steps[0]).all(axis=1))[0])
            assert begin % STRETCH == 0
            np.testing.assert_array_equal(steps, x[begin : begin + len(steps)])
            np.testing.assert_allclose(states, run(x)[1][begin : begin + len(steps)], atol=1e-5)
    apart = {row.tobytes() for group in judged for row in group["x"].reshape(-1, 6)}
    assert len(apart) == 2 * STRETCH + 9 and not apart & {row.tobytes() for row in tools["x"]}
    assert len(tools["x"]) == 3 * STRETCH == len(tools["h"])


@pytest.mark.parametrize("shape", [(200, 6), (4, 50, 6)], ids=["one stream", "sequences"])
def test_parts_of_a_stream_add_up_to_the_whole(
    shape: tuple[int, ...], stream: Path, save_npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run that was stopped and goes on from its last part keeps is what one run keeps."""
    source = open_source(save_npz(x=RANDOM.normal(size=shape).astype(np.float32)), SPECS, model=stream)
    model = read_model(stream)
    infer_shapes(model)
    whole = observe(model, source, model_hash="m")
    monkeypatch.setattr(observing, "PART_SECONDS", 0.0)
    monkeypatch.setattr(observing, "PART_SHARE", 1e9)
    passes = plan_passes(model, observable_tensors(model.graph), source, batch=None, max_memory=None)
    steps = observe_pass(model, source, passes, 0, model_hash="m")
    first, *_ = (step for step in steps if isinstance(step, CalibrationPart))
    assert 0 < first.taken < 200
    later = observe_pass(model, source.after(first.taken), passes, 0, model_hash="m")
    rest = [step for step in later if isinstance(step, CalibrationPart)]
    total = reduce(merge, [part.calibration for part in (first, *rest)])
    assert to_bytes(assemble(model, [total])) == to_bytes(whole)


def test_large_states_take_no_more_memory_than_samples() -> None:
    """Of 1 MB a step: as many stretches as samples would be kept at least, of the fewest steps."""
    smallest, collect = SmallestSamples(), StretchCollector()
    for at in range(100):
        smallest.offer_all(collect.add(f"row 0, step {at}", {"h": np.full(1 << 18, at, np.float32)}))
    assert smallest.size <= 2 * 16 << 20
    (group,) = smallest.groups()
    assert (group["h"][:, 1, 0] - group["h"][:, 0, 0] == 1).all()


def test_the_judge_carries_the_states_of_the_int8_model(stream: Path, save_npz: Callable[..., Path]) -> None:
    """Errors that add up from step to step are in its decibels: a state that is lost costs more than one step of it."""
    x = RANDOM.normal(size=(STRETCH, 6)).astype(np.float32)
    groups = keep_smallest(open_source(save_npz(x=x), SPECS, model=stream)).groups()
    model = read_model(stream)
    model.metadata_props[KEY] = SampleLayout({"h": None}, "carried", {"h": "h_out"}).to_text()
    drifting = onnx.load(stream)
    weight = next(tensor for tensor in drifting.graph.initializer if tensor.name == "U")
    weight.CopyFrom(nh.from_array(U * 1.01, "U"))
    judgement = Judge(stream, model, groups, {}).measure(ir.from_proto(drifting))
    state, wanted = np.zeros(16), []
    for step in x:
        state = np.maximum(step @ W + state @ (U * 1.01), 0)
        wanted.append(state @ V)
    f = run(x)[0].astype(np.float64)
    decibels = 10 * np.log10((f**2).sum() / ((f - np.array(wanted)) ** 2).sum())
    assert judgement.sqnr_db["y"] == pytest.approx(decibels, abs=0.1)


def test_states_that_the_model_has_not(stream: Path, save_npz: Callable[..., Path], tmp_path: Path) -> None:
    data = save_npz(x=np.zeros((4, 6), np.float32))
    for state, message in (
        ("h", "--state 'h' is not OUT=IN"),
        ("out=h", "--state out=h: 'out' is no output of the model, which has 'y', 'h_out'"),
        ("h_out=g", "--state h_out=g: 'g' is no input of the model"),
        ("y=h", "--state y=h: output y float32[?, 3] cannot be given to input h float32[1, ?, 16]"),
    ):
        with fails(message):
            calibrate(stream, data=data, output=tmp_path / "x.calib", states=[state])
    with fails("'g' is no input of the model", "--state h_out=h"):  # a pair that can be carried
        calibrate(stream, data=data, output=tmp_path / "x.calib", states=["h_out=g"])
    with fails("seed 1 draws single samples, and input 'h' is a state", "--samples 2 alone takes the first 2"):
        calibrate(stream, data=data, output=tmp_path / "x.calib", states=["h_out=h"], samples=2, seed=1)
    with fails("gives input 'h' both 'a' and 'b'"):
        parse_states(["a=h", "b=h"])
