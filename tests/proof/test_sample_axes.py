"""Where samples lie in a model's inputs: every shape of input that is not (samples, ...), through the whole line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import fails
from networks import Net
from onnx import TensorProto, helper, numpy_helper

import fcdeploy
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.proof import sample_axes
from fcdeploy.proof.sample_axes import check_batch, declare_samples, parse_axes, share_layout
from fcdeploy.records.sample_layout import SampleLayout
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.layout import arrange_samples, stack_samples, take_first, unstack_sample

Array = np.ndarray[Any, Any]
N = 24
RANDOM = np.random.default_rng(0)


def normal(*shape: int, size: float = 1.0) -> Array:
    return (RANDOM.standard_normal(shape) * size).astype(np.float32)


def save(
    nodes: list[Any], inputs: dict[str, list[Any]], weights: dict[str, Array], dtypes: dict[str, int] | None = None
) -> None:
    """`model.onnx`, whose output is y, in the current folder."""
    ends = [
        helper.make_tensor_value_info(name, (dtypes or {}).get(name, TensorProto.FLOAT), shape)
        for name, shape in inputs.items()
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", ends, [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), "model.onnx")


def op(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], output, **attributes)


def states() -> dict[str, Array]:
    """A state (layers, samples, units) beside a signal (samples, units): y = relu(x w + state[1] v)."""
    save(
        [op("Gather", "state one", "s", axis=0), op("MatMul", "x w", "a"), op("MatMul", "s v", "b"),
         op("Add", "a b", "c"), op("Relu", "c", "r"), op("MatMul", "r u", "y")],
        {"x": ["n", 8], "state": [2, "n", 16]},
        {"w": normal(8, 16), "v": normal(16, 16), "u": normal(16, 4), "one": np.array(1)},
    )  # fmt: skip
    return {"x": normal(N, 8), "state": normal(N, 2, 16)}


def baked() -> dict[str, Array]:
    """A batch declared free, and a Reshape to one row inside."""
    save(
        [op("Conv", "x w", "c", kernel_shape=[3, 3]), op("Relu", "c", "r"), op("Reshape", "r flat", "f"),
         op("MatMul", "f u", "y")],
        {"x": ["n", 3, 6, 6]}, {"w": normal(8, 3, 3, 3, size=0.3), "u": normal(128, 4, size=0.2), "flat": np.array([1, 128])},
    )  # fmt: skip
    return {"x": normal(N, 3, 6, 6)}


def scalar() -> dict[str, Array]:
    """A setting of rank 0 beside a signal."""
    save(
        [op("MatMul", "x w", "a"), op("Relu", "a", "r"), op("MatMul", "r u", "b"), op("Cast", "rate", "f", to=1),
         op("Div", "f k", "g"), op("Mul", "b g", "y")],
        {"x": ["n", 8], "rate": []}, {"w": normal(8, 16), "u": normal(16, 4), "k": np.float32(16000)},
        {"rate": TensorProto.INT64},
    )  # fmt: skip
    return {"x": normal(N, 8), "rate": np.where(np.arange(N) % 2, 16000, 8000)}


def frame() -> dict[str, Array]:
    """A picture (height, width, 3) without an axis of samples; the batch is made inside."""
    save(
        [op("Transpose", "frame", "t", perm=[2, 0, 1]), op("Unsqueeze", "t zero", "x"),
         op("Conv", "x w", "c", kernel_shape=[3, 3]),
         op("Relu", "c", "r"), op("Conv", "r v", "m", kernel_shape=[1, 1]), op("Squeeze", "m zero", "y")],
        {"frame": ["h", "w", 3]},
        {"w": normal(8, 3, 3, 3, size=0.3), "v": normal(2, 8, 1, 1, size=0.5), "zero": np.array([0])},
    )  # fmt: skip
    return {"frame": normal(N, 10, 12, 3)}


def mixing() -> dict[str, Array]:
    """Rows that are divided by the sum over the batch: samples are not independent, though the batch is free."""
    save(
        [op("MatMul", "x w", "a"), op("Relu", "a", "r"), op("Softmax", "r", "s", axis=0), op("MatMul", "s u", "y")],
        {"x": ["n", 8]}, {"w": normal(8, 16), "u": normal(16, 4)},
    )  # fmt: skip
    return {"x": normal(N, 8)}


def steps_first() -> dict[str, Array]:
    """An LSTM that reads (steps, samples, units), and writes so: either axis fits a sample (steps, units)."""
    save(
        [helper.make_node("LSTM", ["x", "w", "r"], ["h"], "lstm", hidden_size=6), op("Squeeze", "h one", "s"),
         op("MatMul", "s u", "y")],
        {"x": ["t", "n", 8]},
        {"w": normal(1, 24, 8), "r": normal(1, 24, 6), "u": normal(6, 4), "one": np.array([1])},
    )  # fmt: skip
    return {"x": normal(N, 5, 8)}


CASES = {
    "states": (states, {"x": 0, "state": 1}), "baked": (baked, {"x": 0}), "scalar": (scalar, {"x": 0, "rate": None}),
    "frame": (frame, {"frame": None}), "mixing": (mixing, {"x": 0}), "steps_first": (steps_first, {"x": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_whole_line_runs_samples_as_the_model_takes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQNR by `validate` is that of the two files, run sample by sample as their inputs are declared."""
    monkeypatch.chdir(tmp_path)
    make, axes = CASES[name]
    data = make()
    np.savez("data.npz", **{key: value[: N // 2] for key, value in data.items()})
    np.savez("eval.npz", **{key: value[N // 2 :] for key, value in data.items()})
    for batch in (1, 4):
        fcdeploy.calibrate("model.onnx", data="data.npz", output=f"{batch}.calib", batch=batch)
    assert Path("1.calib").read_bytes() == Path("4.calib").read_bytes()
    fcdeploy.quantize("model.onnx", calibration="1.calib", output="int8.onnx", costs="none", floor="none")
    report = fcdeploy.validate("int8.onnx", against="model.onnx", data="eval.npz")

    one, other = (ort.InferenceSession(file) for file in ("model.onnx", "int8.onnx"))
    signal = noise = 0.0
    for i in range(N // 2, N):
        feeds = {
            key: value[i] if axes[key] is None else np.expand_dims(value[i], axes[key]) for key, value in data.items()
        }
        f, q = (session.run(None, {k: np.asarray(v) for k, v in feeds.items()})[0] for session in (one, other))
        signal, noise = (
            signal + float((f.astype(np.float64) ** 2).sum()),
            noise + float(((f - q).astype(float) ** 2).sum()),
        )
    assert report.values["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert report.values["sqnr_db"] > 20
    check_other_commands(name)


def check_other_commands(name: str) -> None:
    """Bundling, exactness and comparing halves on the same samples: as the model takes them."""
    assert fcdeploy.bundle("int8.onnx", output="b.fcd", data="eval.npz", samples=2).values["golden"] == 2
    assert fcdeploy.verify("b.fcd").passed
    report = fcdeploy.inspect("int8.onnx", exact=True, data="eval.npz")
    assert report.passed
    models = [read_model("int8.onnx"), read_model("model.onnx")]
    share_layout(models)
    assert input_specs(models[0]) == input_specs(models[1])
    if any(spec.alone for spec in input_specs(models[1])):
        with fails("--batch 4: samples of 'model.onnx' run one at a time", "--batch 1"):
            check_batch(models[1], 4, "model.onnx")
    else:
        check_batch(models[1], 4, "model.onnx")
    if name == "baked":
        report = fcdeploy.split("model.onnx", data="eval.npz", at="f", output="half.onnx")
        assert report.values["max_rel"] < 1e-5


def test_independent_samples_share_runs_and_nothing_is_said_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States along axis 1 that do not meet: two run together answer as each does alone."""
    monkeypatch.chdir(tmp_path)
    model, data = Path("model.onnx"), states()
    graph = read_model(model)
    assert declare_samples(model, graph, data) == []
    assert [(spec.sample_axis, spec.alone) for spec in input_specs(graph)] == [(0, False), (1, False)]

    data = mixing()
    graph = read_model(model)
    assert declare_samples(model, graph, data) == ["samples run one at a time: Softmax 's' works along the batch axis"]


def test_answers_as_long_as_their_samples_say_are_not_compared_side_by_side(tmp_path: Path) -> None:
    """As of a decoder that stops at another step for each of them: two have lengths that no one array holds."""
    net = Net(0)
    x = net.input("x", 4)
    zero, one, ends, last = (net.constant(each, np.int64) for each in ([0], [1], [1], [1]))
    count = net.op("Slice", net.op("Shape", net.op("NonZero", x)), one, net.constant([2], np.int64))
    rows = net.op("Slice", net.op("Shape", x), zero, ends)
    first = net.op("Slice", x, zero, last, one)
    net.output(net.op("Expand", first, net.op("Concat", rows, count, axis=0)))
    path = net.save(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.float32([[1, 2, 3, 4], [1, 0, 0, 0], [1, 2, 0, 0]]))
    model = read_model(path)
    notes = declare_samples(path, model, Samples(tmp_path / "x.npz"))
    assert [note.split(":")[0] for note in notes] == ["samples run one at a time"]


def test_what_the_user_says_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, _ = Path("model.onnx"), states()
    graph = read_model(model)
    declare_samples(model, graph, None, parse_axes(["state=none"]))
    assert [spec.sample_axis for spec in input_specs(graph)] == [0, None]
    with fails("--batch-axis names 'cache', which is no input of the model; it has 'x', 'state'", "--batch-axis"):
        declare_samples(model, graph, None, parse_axes(["cache=1"]))
    with fails("input 'state' has shape (2, ?, 16), expected an axis from 0 to 2"):
        declare_samples(model, graph, None, parse_axes(["state=3"]))
    with fails("--batch-axis 'state' is not NAME=AXIS"):
        parse_axes(["state"])


def test_stacking_and_taking_apart_are_inverse() -> None:
    specs = [SampleLayout({"b": 2, "c": None}).apply(spec) for spec in _specs()]
    samples = [{"a": normal(3), "b": normal(4, 5)} for _ in range(3)]
    feeds = stack_samples(samples, specs)
    assert feeds["b"].shape == (4, 5, 3)
    for i, sample in enumerate(samples):
        for name, array in unstack_sample(feeds, specs, i).items():
            np.testing.assert_array_equal(array, sample[name])
    assert take_first(feeds, specs, 2)["b"].shape == (4, 5, 2)
    rows = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    for name, array in arrange_samples(rows, specs).items():
        np.testing.assert_array_equal(array, feeds[name])


def _specs() -> list[Any]:
    return [TensorSpec(name, np.dtype(np.float32), ()) for name in "abc"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nonsense", '{"axes": {"x": -1}}', '{"axes": 3}', '{"axes": {"x": true}}']
)
def test_metadata_of_others_says_nothing(text: str) -> None:
    assert not SampleLayout.from_text(text)


@pytest.mark.parametrize(
    ("shape", "sample", "axis"),
    [
        ((None, 3, 16, 16), (2, 16, 16), 0),  # two channels where three are wanted: another shape, no batch of three
        ((None, 3, 16, 16), (3, 16, 16), 0),
        ((40, None, 8), (40, 8), 1),
        ((None, 1, 8), (5, 8), 1),
        ((2, 1, 8), (2, 8), 1),
    ],
)
def test_samples_lie_along_no_fixed_length_where_the_first_axis_is_free(
    shape: tuple[int | None, ...], sample: tuple[int, ...], axis: int
) -> None:
    spec = TensorSpec("x", np.dtype(np.float32), shape)
    assert sample_axes._choose_axis(spec, ["n" if n is None else "" for n in shape], set(), sample) == axis


def test_two_inputs_with_steps_first_are_moved_together(tmp_path: Path) -> None:
    """Neither alone is proven: what is summed over the steps of one would meet the samples of the other."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["s", "t", 8]) for name in ("a", "b")]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    nodes = [
        *(helper.make_node("ReduceSum", [name, "axes"], [f"sum_{name}"], keepdims=0) for name in ("a", "b")),
        helper.make_node("Add", ["sum_a", "sum_b"], ["y"]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", 8])
    graph = helper.make_graph(nodes, "g", ends, [out], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    data = {name: normal(4, 5, 8) for name in ("a", "b")}
    layout = sample_axes.find_layout(tmp_path / "m.onnx", read_model(tmp_path / "m.onnx"), data, {})
    assert (layout.axes, layout.alone) == ({"a": 1, "b": 1}, "")
