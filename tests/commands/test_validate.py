"""Validate, on models quantized by onnxruntime's own tool; every figure once more from plain onnxruntime and NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from conftest import fails
from networks import Net, quantize_net, random_data
from onnx import helper
from scipy import stats
from sklearn.metrics import confusion_matrix
from small_models import CLASSES, dense, outputs, residual, samples, save

from fcdeploy.arithmetic.metrics import Fidelity
from fcdeploy.cli.validate import command
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.graph.model import is_quantized
from fcdeploy.proof.exact import Exactness, LayerExactness
from fcdeploy.records.origin import read_backgrounds
from fcdeploy.runtime.probes.answers import find_answer
from fcdeploy.runtime.probes.ask import PROBES
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import TYPES

Array = np.ndarray[Any, Any]


def decibels(f: Array, q: Array) -> float:
    noise = ((f.astype(float) - q) ** 2).sum()
    return math.inf if noise == 0 else 10 * math.log10((f.astype(float) ** 2).sum() / noise)


@pytest.fixture(scope="module")
def labelled(nets: dict[str, Path]) -> tuple[Array, Array]:
    """300 pictures; the float model's own answers, a third of them replaced."""
    x = samples(300, 3, 8, 8, seed=1)
    random = np.random.default_rng(5)
    label = np.where(
        random.random(300) < 0.33, random.integers(0, CLASSES, 300), outputs(nets["residual"], x).argmax(1)
    )
    return x, label


def test_classification(nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path]) -> None:
    x, label = labelled
    report = validate(nets["residual8"], against=nets["residual"], data=save_npz(x=x, label=label))
    f, q = outputs(nets["residual"], x), outputs(nets["residual8"], x)
    one, other = f.argmax(1) == label, q.argmax(1) == label
    found = report.values
    assert found["metric"] == "top1"
    assert "labels are int64" in found["why"]
    assert found["samples"] == 300
    assert found["float"] == pytest.approx(one.mean())
    assert found["int8"] == pytest.approx(other.mean())
    assert found["drop"] == pytest.approx(100 * (one.mean() - other.mean()))
    b, c = int((one & ~other).sum()), int((~one & other).sum())
    assert b + c > 0
    assert found["p_value"] == pytest.approx(stats.binomtest(b, b + c).pvalue)
    assert found["drop_low"] < found["drop"] < found["drop_high"]
    assert found["agreement"] == pytest.approx((f.argmax(1) == q.argmax(1)).mean())
    assert found["agreement"] < 1
    assert found["sqnr_db"] == pytest.approx(decibels(f, q), abs=1e-3)
    assert found["outputs"][0]["name"] == "logits"
    cosine = (f.ravel() @ q.ravel()) / np.linalg.norm(f) / np.linalg.norm(q)
    assert found["outputs"][0]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert found["confusion"]["float"] == confusion_matrix(label, f.argmax(1), labels=range(CLASSES)).tolist()
    assert found["confusion"]["int8"] == confusion_matrix(label, q.argmax(1), labels=range(CLASSES)).tolist()
    few, usual = x[:192], q[:192]
    kernels = (decibels(outputs(nets["residual8"], few, **{how: True}), usual) for how in ("plain", "precise"))
    assert found["kernel_sqnr_db"] == pytest.approx(min(kernels), abs=1e-2)
    assert report.passed
    assert found["passed"]


def test_json_has_the_keys_that_others_rely_on(
    nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path]
) -> None:
    data = save_npz(x=labelled[0], label=labelled[1])
    report = validate(nets["residual8"], against=nets["residual"], data=data, max_drop=50)
    plain = json.loads(json.dumps(report.to_json()))
    assert next(iter(plain)) == "schema"
    assert plain["schema"] == "fcdeploy.validate/1"
    assert {
        "float", "int8", "drop", "p_value", "agreement", "sqnr_db", "outputs", "kernel_sqnr_db", "passed", "metric",
        "samples", "drop_low", "drop_high", "confusion",
    } <= set(plain)  # fmt: skip


def test_a_model_against_itself_loses_nothing(
    nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path]
) -> None:
    data = save_npz(x=labelled[0], label=labelled[1])
    report = validate(nets["residual"], against=nets["residual"], data=data, max_drop=0, layers=True)
    found = report.values
    assert (found["drop"], found["agreement"], found["p_value"]) == (0, 1, 1)
    assert found["sqnr_db"] == math.inf
    assert report.to_json()["sqnr_db"] is None
    assert found["outputs"][0]["cosine"] == 1
    assert found["layers"] == []
    assert found["culprit"] is None
    assert report.passed


def test_the_gate(nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path]) -> None:
    x, _ = labelled
    data = save_npz(x=x, label=outputs(nets["residual"], x).argmax(1))  # the float model is always right
    drop = validate(nets["residual8"], against=nets["residual"], data=data).values["drop"]
    assert drop > 0
    within = validate(nets["residual8"], against=nets["residual"], data=data, max_drop=drop)
    beyond = validate(nets["residual8"], against=nets["residual"], data=data, max_drop=drop - 0.1)
    assert within.passed
    assert not beyond.passed
    assert beyond.values["passed"] is False
    assert within.lines[-1].startswith("passed: drop")
    assert beyond.lines[-1].startswith("failed: drop")
    assert any("too few to be sure" in warning for warning in within.warnings)


def test_without_labels_it_is_agreement(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(200, 3, 8, 8, seed=2)
    report = validate(nets["residual8"], against=nets["residual"], data=save_npz(x=x), max_drop=0)
    same = (outputs(nets["residual"], x).argmax(1) == outputs(nets["residual8"], x).argmax(1)).mean()
    found = report.values
    assert found["metric"] == "agreement"
    assert (found["float"], found["int8"], found["agreement"]) == pytest.approx((1, same, same))
    assert found["drop"] == pytest.approx(100 * (1 - same))
    assert found["p_value"] is None
    assert found["confusion"] is None
    assert report.passed is bool(same == 1)
    assert 0 <= found["drop_low"] <= found["drop"] <= found["drop_high"]


def test_batches_do_not_matter(
    nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_npz(x=labelled[0], label=labelled[1])
    wide = validate(nets["residual8"], against=nets["residual"], data=data).values
    monkeypatch.setattr("fcdeploy.evaluate.data.BATCH_BYTES", 7 * 3 * 8 * 8 * 4)
    assert validate(nets["residual8"], against=nets["residual"], data=data).values == wide


def test_models_that_do_not_belong_together(
    nets: dict[str, Path], tmp_path: Path, save_npz: Callable[..., Path]
) -> None:
    data = save_npz(x=samples(4, 5))
    with fails(
        "the models differ in input 'x': 'residual8.onnx' has x float32[?, 3, 8, 8], 'dense.onnx' has x float32"
    ):
        validate(nets["residual8"], against=nets["dense"], data=data)
    other = dense(tmp_path / "other.onnx", 3, name="z")
    with fails("the models differ in their outputs: 'dense8.onnx' has 'y', 'other.onnx' has 'z'"):
        validate(nets["dense8"], against=other, data=data)
    with fails("the models differ in output 'y'"):
        validate(nets["dense8"], against=nets["boxes"], data=data)


def test_beside_a_float_model_that_it_was_not_made_from_no_gain_passes(
    tmp_path: Path, save_npz: Callable[..., Path]
) -> None:
    float_file, other, int8 = tmp_path / "float.onnx", tmp_path / "other.onnx", tmp_path / "int8.onnx"
    for seed, file in enumerate((float_file, other)):
        net = Net(seed)
        net.output(net.dense(net.op("Relu", net.dense(net.input("x", 12), 12, 16)), 16, 6)).save(file)
    x = random_data(0, 200, x=(12,))["x"]
    quantize(float_file, output=int8, data=save_npz(x=x[:100]), costs="none")
    data = save_npz(x=x[100:], label=outputs(float_file, x[100:]).argmax(1))
    same = validate(int8, against=float_file, data=data, max_drop=5)
    assert (same.passed, same.values["source"]) == (True, True)
    foreign = validate(int8, against=other, data=data, max_drop=5)
    assert (foreign.passed, foreign.values["source"]) == (False, False)
    assert foreign.values["drop"] < -5
    assert any(line.endswith("beside a float model that it was not made from") for line in foreign.lines)
    assert any("made from another float file than --against" in text for text in foreign.warnings)


def test_infinite_outputs_are_named(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    model = save(tmp_path / "log.onnx", [helper.make_node("Log", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}, {})
    data = save_npz(x=np.array([[1, 2, 3], [1, 0, 3]], np.float32))
    with fails("output 'y' of the float model holds NaN or infinity for eval.npz, sample 1"):
        validate(model, against=model, data=data)


def test_saturating_kernels_are_a_warning(save_npz: Callable[..., Path], tmp_path: Path) -> None:
    """Weights of the full range beside pixels of the full range: pairs of products leave 16 bits on x86 without VNNI.

    Where the machine computes exactly there is nothing to warn of; the warning follows the figure either way.
    """
    x = np.abs(samples(40, 32, seed=8))
    weight = np.full((8, 32), 1.0, np.float32) + np.arange(8, dtype=np.float32)[:, None] / 100
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "dense", transB=1)
    model = save(tmp_path / "m.onnx", [node], {"x": ["n", 32]}, {"y": ["n", 8]}, {"w": weight})
    int8 = tmp_path / "m8.onnx"
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rows = iter(x)

        def get_next(self) -> dict[str, Array] | None:
            row = next(self.rows, None)
            return None if row is None else {"x": row[None]}

    quantize_static(model, int8, Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    report = validate(int8, against=model, data=save_npz(x=x))
    usual = outputs(int8, x)
    expected = min(decibels(outputs(int8, x, plain=True), usual), decibels(outputs(int8, x, precise=True), usual))
    assert report.values["kernel_sqnr_db"] == pytest.approx(expected, abs=1e-3)
    assert any("byte products saturate" in text for text in report.warnings) is (expected < 38)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("ties", ""),
        (
            "wrong",
            "30.0 dB against exact arithmetic, sound is 38 or more: not exact: 1 of 1 layer differ from 32-bit sums",
        ),
        ("nothing", "30.0 dB against exact arithmetic, sound is 38 or more: {cause} fused wrongly"),
    ],
)
@pytest.mark.parametrize(
    ("target", "cause"),
    [("x86-avx2", "byte products saturate on this CPU, or operators were"), ("x86-vnni", "operators were")],
)
def test_kernels_that_change_the_outputs_are_a_warning_unless_each_is_exact_by_itself(
    nets: dict[str, Path], save_npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    target: str, cause: str, found: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("fcdeploy.reporting.validation.detect_target", lambda: TARGETS[target])

    def kernels(*_: Any) -> tuple[dict[str, Fidelity], str]:
        return {"logits": Fidelity(reference=1000.0, noise=1.0)}, ""

    data = save_npz(x=samples(20, 3, 8, 8))
    clean = validate(nets["residual"], against=nets["residual"], data=data)
    assert clean.values["kernels_exact"] is None
    monkeypatch.setattr("fcdeploy.commands.validate.compare_kernels", kernels)
    if found != "ties":  # which are what these kernels have
        row = LayerExactness("conv", "Conv", 100, 100, 50, 3.0, floats=False)
        exactness = Exactness((row,) if found == "wrong" else (), (), undisturbed=True)
        monkeypatch.setattr("fcdeploy.commands.validate.check_exactness", lambda *_, **__: exactness)
    report = validate(nets["residual8"], against=nets["residual"], data=data)
    assert report.values["kernel_sqnr_db"] == pytest.approx(30.0)
    assert report.values["kernels_exact"] is {"ties": True, "wrong": False, "nothing": None}[found]
    warned = [text for text in report.warnings if text.startswith("integer kernels change the outputs")]
    assert [said.format(cause=cause) in text for text in warned] == [True] * bool(said)


def test_a_file_that_does_not_run_with_32_bit_sums_is_compared_without_them(
    save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    """Two weights that share their zero points: onnxruntime does not load it so, but it does load it."""
    probe = PROBES["zero points shared by two weights, 32-bit sums"]()
    path = tmp_path / "shared.onnx"
    path.write_bytes(probe.model)
    report = validate(path, against=path, data=save_npz(x0=np.asarray(probe.feeds["x0"])))
    told = [
        text for text in report.warnings if text.startswith("kernel SQNR does not show overflow: with 32-bit sums, ")
    ]
    assert len(told) == (0 if find_answer("zero points shared by two weights, 32-bit sums") == "right" else 1)
    assert report.values["kernel_sqnr_db"] is not None


def test_models_the_wrong_way_round(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    data = save_npz(x=samples(4, 3, 8, 8))
    with fails("'residual8.onnx' is quantized and 'residual.onnx' is not", "--against"):
        validate(nets["residual"], against=nets["residual8"], data=data)
    assert validate(nets["residual8"], against=nets["residual8"], data=data).values["agreement"] == 1


def test_few_samples_and_hopeless_labels_are_warnings(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(30, 3, 8, 8)
    wrong = (outputs(nets["residual"], x).argmax(1) + 1) % CLASSES
    report = validate(nets["residual8"], against=nets["residual"], data=save_npz(x=x, label=wrong))
    assert any("30 samples tell the drop only to within" in warning for warning in report.warnings)
    assert any("little more than chance" in warning for warning in report.warnings)


def test_limit_and_progress(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    steps: list[tuple[str, int, int | None]] = []
    report = validate(
        nets["residual8"],
        against=nets["residual"],
        data=save_npz(x=samples(80, 3, 8, 8)),
        limit=40,
        layers=True,
        on_step=lambda *step: steps.append(step),
    )
    assert report.values["samples"] == 40
    for label in ("comparing", "kernels", "layers"):
        assert [step for step in steps if step[0] == label][-1] == (label, 40, 40)


def test_a_model_with_a_fixed_batch(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    model = residual(tmp_path / "fixed.onnx", batch=4)
    x = samples(12, 3, 8, 8)
    report = validate(model, against=model, data=save_npz(x=x), layers=True)
    assert report.values["samples"] == 12
    assert report.values["agreement"] == 1


def test_command(nets: dict[str, Path], labelled: tuple[Array, Array], save_npz: Callable[..., Path]) -> None:
    data = str(save_npz(x=labelled[0], label=labelled[1]))
    arguments = [str(nets["residual8"]), "--against", str(nets["residual"]), "--data", data]
    shown = CliRunner().invoke(command, [*arguments, "--layers", "--max-drop", "30"])
    assert shown.exit_code == 0, shown.output
    for text in ("top1", "agreement", "SQNR of logits", "kernel SQNR", "passed: drop", "error (95 %)", "top1 back"):
        assert text in shown.stdout
    assert shown.stdout.strip().splitlines()[-1].startswith("passed")
    first = shown.stdout.splitlines()[0]
    assert first.startswith("no change needed: ")
    assert "does not say which samples it was calibrated on" in shown.stdout  # another tool's model
    table = shown.stdout[shown.stdout.index("share of the error") : shown.stdout.index("metric: top1")]
    assert max(map(len, table.splitlines())) <= 80
    as_json = CliRunner().invoke(command, [*arguments, "--json", "--limit", "50"])
    assert json.loads(as_json.stdout)["samples"] == 50
    x = labelled[0]
    data = str(save_npz(x=x, label=outputs(nets["residual"], x).argmax(1)))
    assert CliRunner().invoke(command, [*arguments, "--max-drop", "0"]).exit_code == 1


def test_weights_that_are_stored_as_bytes_alone_are_rounded(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    """Nothing computes on integers there; still it is not float against float, and the layers are explained."""
    net = Net(1)
    y = net.op("MatMul", net.input("x", 7, 12), net.constant(net.normal(12, 64, size=0.3)), name="first")
    y = net.op("MatMul", net.op("Tanh", y), net.constant(net.normal(64, 32, size=0.2)), name="second")
    made = quantize_net(net.output(y), random_data(1, 48, x=(7, 12)), types=TYPES["int8", "none"])
    assert not is_quantized(made.int8)
    ir.save(made.int8, tmp_path / "int8.onnx")
    onnx.save(made.float_model, tmp_path / "float.onnx")
    report = validate(tmp_path / "int8.onnx", against=tmp_path / "float.onnx", data=save_npz(**made.data), layers=True)
    assert not any("is not quantized" in each for each in report.warnings)
    assert {(row["kind"], *row["nodes"]) for row in report.values["groups"]} == {
        ("weights", "first"),
        ("weights", "second"),
    }
    assert report.advice


@pytest.fixture(scope="module")
def heat_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of things, sigmoids that hardly reach a half, quantized; quiet samples have none, loud ones some."""
    folder = tmp_path_factory.mktemp("maps")
    net = Net(2)
    x = net.op("Relu", net.conv(net.input("x", 3, 16, 16), 3, 16))
    x = net.op("Add", net.conv(x, 16, 1, bias=False), net.constant(np.full((1, 1, 1, 1), -4.0)))
    net.output(net.op("Sigmoid", x, name="map")).save(folder / "m.onnx")
    for name, gain in (("quiet", 0.1), ("loud", 4.0), ("calib", 4.0)):
        x = np.random.default_rng(len(name)).normal(size=(24, 3, 16, 16)) * gain
        np.savez(folder / f"{name}.npz", x=x.astype(np.float32))
    options = {"costs": "none", "floor": "none", "effort": "fast"}
    quantize(folder / "m.onnx", data=folder / "calib.npz", output=folder / "q.onnx", **options)  # type: ignore[arg-type]
    return folder


def test_where_nothing_is_decided_nothing_agrees(heat_maps: Path) -> None:
    q, m = heat_maps / "q.onnx", heat_maps / "m.onnx"
    loud = np.load(heat_maps / "loud.npz")["x"]
    assert (outputs(m, loud) > 0.5).any()
    assert not (outputs(m, np.load(heat_maps / "quiet.npz")["x"]) > 0.5).any()
    found = validate(q, against=m, data=heat_maps / "quiet.npz")
    assert found.lines[1:] == (
        "nothing of output 'map_out' is decided: on all samples the metric 'agreement' has nothing to count",
        f"SQNR {found.values['sqnr_db']:.1f} dB on the worst output, cosine {found.values['outputs'][0]['cosine']:.6f} at least",
    )
    assert [found.values[key] for key in ("float", "int8", "drop", "agreement")] == [None] * 4
    assert not any("100" in cell for table in found.tables for row in table.rows for cell in row)
    assert validate(q, against=m, data=heat_maps / "loud.npz").values["agreement"] > 0.9
    with fails("a largest drop needs decisions, and nothing of output 'map_out' is decided", "finds something"):
        validate(q, against=m, data=heat_maps / "quiet.npz", max_drop=1.0)
    with fails("a largest drop needs decisions, and nothing of output 'map_out' is decided", "finds something"):
        goal = {"max_drop": 1.0, "eval": heat_maps / "quiet.npz"}
        quantize(m, data=heat_maps / "calib.npz", output=heat_maps / "n.onnx", costs="none", **goal)  # type: ignore[arg-type]
    assert not (heat_maps / "n.onnx").exists()


def test_a_floor_that_nothing_was_decided_on_is_said(heat_maps: Path) -> None:
    options = {"output": heat_maps / "f.onnx", "costs": "none", "effort": "fast", "force": True}
    report = quantize(heat_maps / "m.onnx", data=heat_maps / "quiet.npz", **options)  # type: ignore[arg-type]
    (judged,) = [line for line in report.lines if line.startswith("judged")]
    assert "nothing decided in output 'map_out'" in judged and "%" not in judged
    assert any(text.startswith("nothing is decided of output 'map_out' on these") for text in report.warnings)
    report = quantize(heat_maps / "m.onnx", data=heat_maps / "loud.npz", **options)  # type: ignore[arg-type]
    assert not any("nothing" in text for text in (*report.lines, *report.warnings))


@pytest.mark.parametrize("labelled", [False, True])
def test_an_int8_model_of_other_rows_is_refused_in_a_sentence(
    labelled: bool, save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    """A free length says of no output how many rows it will have."""
    files = []
    for name, rows in (("f.onnx", [-1, 6]), ("q.onnx", [-1, 2])):
        net = Net(4)
        y = net.dense(net.op("Relu", net.dense(net.input("x", 12), 12, 12)), 12, 6)
        net.output(net.op("Reshape", net.op("Identity", y), net.constant(rows, np.int64), name="rows"))
        model = net.model()
        model.graph.output[0].type.tensor_type.shape.ClearField("dim")
        for _ in range(2):
            model.graph.output[0].type.tensor_type.shape.dim.add()
        onnx.save(model, tmp_path / name)
        files.append(tmp_path / name)
    data = {"x": random_data(0, 8, x=(12,))["x"], **({"label": np.arange(8) % 6} if labelled else {})}
    metric = None if labelled else "agreement"
    with fails("output 'rows_out' has shape (8, 6) in the float model and (24, 2) in the int8 model"):
        validate(files[1], against=files[0], data=save_npz(**data), metric=metric)


@pytest.mark.parametrize(("rare", "held_out"), [(0.005, 0.1), (0.1, 0.005)])
def test_positions_count_as_when_the_model_was_judged(tmp_path: Path, rare: float, held_out: float) -> None:
    """Events in a map: whether all positions count, or those of events, is not up to the samples that are validated on."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(128, 1, 20, 20)).astype(np.float32)

    def build(nothing: float) -> Session:
        """A map of two classes; the larger `nothing`, the less often it is the second."""
        net = Net(0)
        x = net.conv(net.conv(net.input("x", 1, 20, 20), 1, 32, (3, 3)), 32, 32, (3, 3))
        x = net.op("Conv", x, net.constant(net.normal(2, 32, 1, 1)), net.constant([nothing, 0.0]))
        return Session(net.output(net.op("Softmax", x, axis=1)).save(tmp_path / "m.onnx"))

    scores = np.log(np.maximum(build(0.0).run({"x": noise})[0], 1e-30))
    exact = build(float(np.quantile(scores[:, 1] - scores[:, 0], 0.97)))

    def draw(share: float, maps: slice) -> np.ndarray:
        """Maps of noise, as loud as makes so many positions events."""
        loud = np.geomspace(0.3, 3, 60).astype(np.float32)
        shares = [(exact.run({"x": noise[maps] * each})[0].argmax(axis=1) == 1).mean() for each in loud]
        best = int(np.argmin(np.abs(np.subtract(shares, share))))
        assert 0.5 * share < shares[best] < 2 * share
        return noise[maps] * loud[best]

    np.savez(tmp_path / "calib.npz", x=draw(rare, slice(96)))
    np.savez(tmp_path / "eval.npz", x=draw(held_out, slice(96, None)))
    quantize(tmp_path / "m.onnx", data=tmp_path / "calib.npz", output=tmp_path / "q.onnx", accept=True, costs="none")
    report = validate(tmp_path / "q.onnx", against=tmp_path / "m.onnx", data=tmp_path / "eval.npz")
    assert any("where it is not class 0" in line for line in report.lines) == (rare < 0.02)


@pytest.mark.parametrize("text", ["[]", '{"y": "0"}', '{"y": -2}', '{"y": 1.5}', "{"])
def test_backgrounds_that_were_edited_to_something_else_are_refused(text: str) -> None:
    with fails("model 'q.onnx': its metadata 'fcdeploy' has backgrounds", "fcdeploy quantize MODEL"):
        read_backgrounds({"fcdeploy": json.dumps({"backgrounds": text})}, "q.onnx")


@pytest.mark.parametrize("decides", [True, False])
def test_outputs_are_read_as_when_the_model_was_judged(tmp_path: Path, decides: bool) -> None:
    """Samples of which one class stands out, and samples that all look alike, in either order."""
    random, net = np.random.default_rng(0), Net(0)
    there = random.normal(size=(256, 6)).astype(np.float32)
    x = net.input("x", 6, 1, 1)
    for weight in (there, np.linalg.pinv(there)):
        x = net.op("Conv", x, net.constant(weight[:, :, None, None]))
    net.output(x).save(tmp_path / "m.onnx")
    dim = random.normal(size=(64, 6, 1, 1)).astype(np.float32)
    clear = dim + 8 * np.eye(6, dtype=np.float32)[random.integers(0, 6, 64), :, None, None]
    first, then = tmp_path / "first.npz", tmp_path / "then.npz"
    np.savez(first, x=clear if decides else dim)
    np.savez(then, x=dim if decides else clear)
    quantize(tmp_path / "m.onnx", data=first, output=tmp_path / "q.onnx", accept=True)
    for name, expected in (
        ("q.onnx", "agreement" if decides else None),
        ("other.onnx", None if decides else "agreement"),
    ):
        if name == "other.onnx":  # as by another tool
            model = onnx.load(tmp_path / "q.onnx")
            del model.metadata_props[:]
            onnx.save(model, tmp_path / name)
        assert validate(tmp_path / name, against=tmp_path / "m.onnx", data=then).values["metric"] == expected
