"""The trained networks of every kind: data, weights, scores, and the way to int8 of the quick ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import fcdeploy  # noqa: E402
from fcdeploy.arithmetic.metrics import compute_box_iou  # noqa: E402
from fcdeploy.pytorch.module import load_state  # noqa: E402
from fcdeploy.user_code import load_file, load_function  # noqa: E402
from scripts.benchmarks import networks  # noqa: E402

ROOT = Path(__file__).parents[2]
FAMILIES = load_file(ROOT / "models" / "families.py").FAMILIES
SCORES = load_file(ROOT / "models" / "scores.py")
QUICK = ("even_odd", "tiny_dense", "arm", "graph_filter", "keywords", "lstm_tagger")


def readme(name: str) -> list[str]:
    """The network's row: name, definition, parameters, task, score."""
    (found,) = re.findall(rf"^\| {name} \| \[.*$", (ROOT / "models" / "README.md").read_text(), re.MULTILINE)
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_fit_the_definition_and_both_are_as_large_as_they_say(name: str) -> None:
    family = FAMILIES[name]
    build, namespace = load_function(str(ROOT / family.function))
    network = build()
    load_state(network, ROOT / family.weights)
    count = f"{sum(parameter.numel() for parameter in network.parameters()):,}"
    assert readme(name)[2] == count
    assert count in namespace.__doc__
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert (ROOT / family.weights).stat().st_size < 1_000_000
    assert set(namespace.example_inputs()) < set(family.draw(2, 0))
    assert not network.training


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_are_drawn_again_and_never_twice(name: str) -> None:
    draw = FAMILIES[name].draw
    first, again, other = draw(6, 1000), draw(6, 1000), draw(6, 2000)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    inputs = next(iter(first))
    seen = {sample.tobytes() for sample in first[inputs]}
    assert not any(sample.tobytes() in seen for sample in other[inputs])
    assert all(np.isfinite(array).all() for array in first.values())


def test_a_box_holds_its_mask_and_nothing_more() -> None:
    drawn = load_file(ROOT / "models" / "drawn.py").pictures(20, 3, size=48, kinds=range(6))
    assert drawn["image"].min() >= 0 and drawn["image"].max() <= 1
    for mask, box in zip(drawn["mask"], drawn["box"], strict=True):
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box * 48, expected, atol=1e-4)


def test_sentences_say_what_each_word_is_for() -> None:
    module = load_file(ROOT / "models" / "drawn.py")
    drawn = module.sentences(200, 0)
    tokens, label = drawn["tokens"], drawn["label"]
    cities = np.isin(tokens, module.CITIES)
    assert set(np.unique(label[cities])) == {1, 2}  # a city alone does not tell
    before = np.roll(tokens, 1, axis=1)
    assert (label[cities & (before == module.FROM)] == 1).all() and (label[cities & (before == module.TO)] == 2).all()
    assert ((label == -100) == (np.cumsum(tokens[:, ::-1], axis=1)[:, ::-1] == 0)).all()


def test_scores() -> None:
    numbers = np.random.default_rng(0)
    errors, unusual = numbers.integers(0, 6, 60).astype(float), numbers.random(60) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in errors[unusual] for n in errors[~unusual]]
    assert SCORES.auc(errors, unusual) == pytest.approx(np.mean(pairs))
    a, b = (np.sort(numbers.random((9, 2, 2)), axis=1).reshape(9, 4).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(SCORES.box_iou({"box": a}, {"label.box": b}), compute_box_iou(a, b), atol=1e-6)
    logits, mask = numbers.normal(size=(3, 1, 4, 4)), numbers.integers(0, 2, (3, 4, 4))
    found = [
        len(x & y) / len(x | y)
        for x, y in (
            ({*np.flatnonzero(logit > 0)}, {*np.flatnonzero(true)}) for logit, true in zip(logits, mask, strict=True)
        )
    ]
    np.testing.assert_allclose(SCORES.mask_iou({"output": logits}, {"label": mask}), found)


@pytest.mark.parametrize("name", QUICK)
def test_the_way_to_int8(name: str, tmp_path: Path) -> None:
    """Export, calibrate, quantize, validate: with every integer kernel there is, since timing takes longer."""
    family = FAMILIES[name]
    model, int8 = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    for kind, arrays in (("calib", family.calibration()), ("eval", family.evaluation())):
        np.savez(tmp_path / f"{kind}.npz", **networks.inputs_and_labels(arrays))
    inputs = [family.input] if family.input else []
    fcdeploy.export(str(ROOT / family.function), state=ROOT / family.weights, output=model, inputs=inputs)
    fcdeploy.quantize(model, data=tmp_path / "calib.npz", output=int8, costs="none")
    proof = fcdeploy.validate(int8, against=model, data=tmp_path / "eval.npz").values
    judged = networks.judge(proof)
    assert judged.lost < 1 or judged.p_value > 0.05 or judged.name == "RMSE"
    assert proof["sqnr_db"] > 25
    said = float(re.findall(r"[\d.]+", readme(name)[4])[0])
    assert judged.float_ * (1 if judged.name == "RMSE" else 100) == pytest.approx(said, abs=0.3)
    if int(readme(name)[2].replace(",", "")) > networks.LARGE:
        assert int8.stat().st_size < networks.SMALL_FILE * model.stat().st_size


def test_what_is_too_much_is_said() -> None:
    lost = networks.Judged("top-1", 0.99, 0.98, 1.0, 0.4, 1.6, 0.01, 2.0)
    kept = networks.Judged("AUC", 0.99, 0.98, 0.01, -0.01, 0.03, 0.4, 1.01)
    make = networks.Result
    good = make("net", 200_000, 40, (kept,), 1.0, 40.0, (1.01, 0.98, 1.04), 0.29, "2 of 2", 3.0)
    assert good.breaches() == []
    bad = make("net", 200_000, 60, (lost,), 1.0, 40.0, (1.03, 1.0, 1.06), 0.33, "2 of 2", 3.0)
    assert bad.breaches() == [
        "net loses 1 of top-1",
        "net takes 1.030 of the float time",
        "net takes 0.330 of the float file",
    ]
    assert "| net | 200,000 | AUC | 0.9900 | 0.9800 | 0.0100 (-0.0100 .. 0.0300) | 100.0 % |" in networks.listed([good])
