"""Every metric through validate: figures once more from plain onnxruntime and scikit-learn; labels that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from onnx import helper
from sklearn.metrics import jaccard_score, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity
from small_models import CLASSES, outputs, samples

from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.output_ends import OutputEnd, Part
from fcdeploy.records.report import Report
from fcdeploy.samples.source import Batch

Array = np.ndarray[Any, Any]


def test_regression(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(120, 5, seed=3)
    f, q = outputs(nets["dense"], x), outputs(nets["dense8"], x)
    label = f + 0.05 * np.random.default_rng(0).normal(size=f.shape)
    report = validate(nets["dense8"], against=nets["dense"], data=save_npz(x=x, label=label))
    found = report.values
    assert found["metric"] == "regression"
    for which, y in (("float", f), ("int8", q)):
        assert found["rmse"][which] == pytest.approx(root_mean_squared_error(label.ravel(), y.ravel()), rel=1e-5)
        assert found["mae"][which] == pytest.approx(mean_absolute_error(label, y), rel=1e-5)
        assert found["r2"][which] == pytest.approx(r2_score(label, y, multioutput="variance_weighted"), abs=1e-6)
        assert found[which] == found["rmse"][which]
    assert found["drop"] == pytest.approx(found["rmse"]["int8"] - found["rmse"]["float"])
    assert found["drop_low"] < found["drop"] < found["drop_high"]
    assert found["p_value"] < 0.05
    assert found["agreement"] is None
    assert found["drop_unit"] == "unit of the labels"


def test_boxes(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(60, 5, seed=4)
    f = outputs(nets["boxes"], x)
    label = np.concatenate([np.minimum(f[:, :2], f[:, 2:]), np.maximum(f[:, :2], f[:, 2:]) + 0.1], axis=1)
    report = validate(nets["boxes8"], against=nets["boxes"], data=save_npz(x=x, label=label), metric="iou")

    def iou(a: Array, b: Array) -> float:
        shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = [max(0, c[2] - c[0]) * max(0, c[3] - c[1]) for c in (a, b)]
        return shared / (sum(areas) - shared)

    found = report.values
    expected = [np.mean([iou(a, b) for a, b in zip(y, label, strict=True)]) for y in (f, outputs(nets["boxes8"], x))]
    assert (found["float"], found["int8"]) == pytest.approx(tuple(expected), abs=1e-6)
    assert found["drop"] == pytest.approx(100 * (expected[0] - expected[1]), abs=1e-4)
    data = save_npz(x=x, label=label[:, [2, 1, 0, 3]])
    with fails("eval.npz, sample 0: 'label' has a box that ends before it begins", "corners"):
        validate(nets["boxes8"], against=nets["boxes"], data=data, metric="iou")


def test_tokens_of_samples_of_any_length(nets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    random = np.random.default_rng(0)\n"
        "    for i in range(40):\n"
        "        t = 3 + i % 3\n"
        "        label = random.integers(0, 6, t)\n"
        "        label[0] = -100\n"
        "        yield {'x': random.normal(size=(4, t)).astype(np.float32), 'label': label}\n"
    )
    report = validate(nets["tagger8"], against=nets["tagger"], data=f"{tmp_path / 'data.py'}:samples")
    namespace: dict[str, Any] = {}
    exec((tmp_path / "data.py").read_text(), namespace)
    right, equal, count, positions = [0, 0], 0, 0, 0
    for sample in namespace["samples"]():
        one, other = (outputs(nets[name], sample["x"][None])[0].argmax(-1) for name in ("tagger", "tagger8"))
        counted = sample["label"] != -100
        right[0] += int(((one == sample["label"]) & counted).sum())
        right[1] += int(((other == sample["label"]) & counted).sum())
        equal, count, positions = equal + int((one == other).sum()), count + int(counted.sum()), positions + len(one)
    found = report.values
    assert found["metric"] == "tokens"
    assert (found["float"], found["int8"]) == pytest.approx((right[0] / count, right[1] / count))
    assert found["agreement"] == pytest.approx(equal / positions)
    assert 0 < found["p_value"] <= 1


def test_one_probability_decides_at_one_half(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(100, 5, seed=6)
    label = np.random.default_rng(0).integers(0, 2, (100, 1))
    report = validate(nets["binary8"], against=nets["binary"], data=save_npz(x=x, label=label))
    expected = ((outputs(nets["binary"], x) > 0.5) == label).mean()
    assert report.values["metric"] == "top1"
    assert report.values["float"] == pytest.approx(expected)
    assert "above 0.5" in report.values["why"]
    logits = validate(nets["one8"], against=nets["one"], data=save_npz(x=x, label=label))
    assert logits.values["float"] == pytest.approx(((outputs(nets["one"], x) > 0) == label).mean())
    assert "above 0" in logits.values["why"]


def test_one_number_without_labels_has_only_sqnr(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    data = save_npz(x=samples(20, 5))
    report = validate(nets["one8"], against=nets["one"], data=data)
    assert report.values["metric"] is None
    assert report.values["drop"] is None
    assert report.values["sqnr_db"] > 10
    assert report.lines[-1].startswith("SQNR")
    with fails("a largest drop needs a metric", "label"):
        validate(nets["one8"], against=nets["one"], data=data, max_drop=1)
    with fails("metric 'agreement' compares decisions", "regression"):
        validate(nets["one8"], against=nets["one"], data=data, metric="agreement")


def test_labels_are_of_the_scores_beside_classes_in_words() -> None:
    """As a scikit-learn classifier fitted on words has them: its texts, and a share for each class in their order."""
    outputs = {"label": np.array(["b", "a"], object), "probabilities": np.float32([[0.2, 0.8], [0.9, 0.1]])}
    chosen, _ = choose_metric(None, outputs, {"label": np.array([1, 1])}, {})
    assert chosen is not None and chosen.figures is not None
    assert (chosen.name, chosen.output) == ("top1", "probabilities")
    assert chosen.figures(outputs, {"label": np.array([1, 1])}, ("0", "1")).tolist() == [[1.0], [0.0]]
    with fails("metric 'top1': output 'label' has shape (n,), expected (n, classes)"):
        choose_metric(None, {"label": outputs["label"]}, {"label": np.array([1, 1])}, {})


def test_own_metric(nets: dict[str, Path], save_npz: Callable[..., Path], tmp_path: Path) -> None:
    x = samples(50, 5, seed=7)
    f, q = outputs(nets["dense"], x), outputs(nets["dense8"], x)
    data = save_npz(x=x, label=f)
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import numpy as np\n"
        "def closeness(outputs, labels):\n"
        "    print('talk')\n"
        "    return -abs(outputs['y'] - labels['label']).mean(axis=1)\n"
        "def sure(outputs, labels): return outputs['y'].max(axis=1) > 1\n"
        "def as_number(outputs, labels): return sure(outputs, labels).astype(float)\n"
        "def total(outputs, labels): return outputs['y'].sum()\n"
        "def nan(outputs, labels): return outputs['y'][:, 0] * np.nan\n"
        "def broken(outputs, labels): return outputs['z']\n"
    )
    found = validate(nets["dense8"], against=nets["dense"], data=data, metric=f"{mine}:closeness").values
    assert found["float"] == 0
    assert found["drop"] == pytest.approx(np.abs(f - q).mean(), rel=1e-5)
    assert found["drop_unit"] == "unit of the score"
    share = validate(nets["dense8"], against=nets["dense"], data=data, metric=f"{mine}:sure").values
    assert share["float"] == pytest.approx((f.max(1) > 1).mean())
    assert share["drop_unit"] == "points"
    assert share["drop"] == pytest.approx(100 * ((f.max(1) > 1).mean() - (q.max(1) > 1).mean()))
    number = validate(nets["dense8"], against=nets["dense"], data=data, metric=f"{mine}:as_number").values
    assert (number["drop"], number["drop_unit"]) == (pytest.approx(share["drop"] / 100), "unit of the score")
    for name, message in (
        ("total", "mine.py:total returned shape (), expected (32,): one score a sample"),
        ("nan", "mine.py:nan returned nan for eval.npz, sample 0"),
        ("broken", "mine.py:broken fails: KeyError: 'z'"),
    ):
        with fails(message):
            validate(nets["dense8"], against=nets["dense"], data=data, metric=f"{mine}:{name}")
    with fails("has no function 'other'"):
        validate(nets["dense8"], against=nets["dense"], data=data, metric=f"{mine}:other")


def test_labels_that_do_not_fit(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(4, 3, 8, 8)

    def check(label: Any, name: str = "label", **options: Any) -> Report:
        data = save_npz(x=x, **{name: np.asarray(label)})
        return validate(nets["residual8"], against=nets["residual"], data=data, **options)

    with fails("eval.npz, sample 2: 'label' is 6, expected 0 to 5 for output 'logits'"):
        check([0, 1, 6, 2])
    with fails("sample 1: 'label' is -1, expected 0 to 5"):
        check([0, -1, 0, 0])
    with fails("'x' has 4 samples and 'label' has 3"):
        check([0, 1, 2])
    with fails("'label' is float64, expected class indices", "astype"):
        check([0.0, 1, 2, 3], metric="top1")
    with fails("'label' is float64 of shape (n,), which does not fit output 'logits' of shape (n, 6)"):
        check([0.5, 1, 2, 3])
    with fails("'label' is int64 of shape (n, 3), which does not fit output 'logits' of shape (n, 6)"):
        check(np.zeros((4, 3), int))
    with fails("label 'label.scores' belongs to no output of the model, which has 'logits'", "label.logits"):
        check([0, 1, 2, 3], name="label.scores")
    assert check([0, 1, 2, 3], name="label.logits").values["metric"] == "top1"
    with fails("metric 'top1' needs labels", "agreement"):
        validate(nets["residual8"], against=nets["residual"], data=save_npz(x=x), metric="top1")
    with fails("metric 'accuracy' is unknown, expected one of top1, top5", "--metric"):
        check([0, 1, 2, 3], metric="accuracy")
    with fails("--max-drop -1 is no finite number of 0 or more"):
        check([0, 1, 2, 3], max_drop=-1)


def test_top5_needs_more_classes(nets: dict[str, Path], save_npz: Callable[..., Path]) -> None:
    x = samples(50, 3, 8, 8)
    label = np.arange(50) % CLASSES
    data = save_npz(x=x, label=label)
    found = validate(nets["residual8"], against=nets["residual"], data=data, metric="top5").values
    ranked = np.argsort(-outputs(nets["residual"], x), axis=1)[:, :5]
    assert found["float"] == pytest.approx((ranked == label[:, None]).any(axis=1).mean())
    data = save_npz(x=samples(6, 5), label=np.arange(6) % 3)
    with fails("metric 'top5': output 'y' has shape (n, 3), expected more than 5 classes"):
        validate(nets["dense8"], against=nets["dense"], data=data, metric="top5")


def test_integer_outputs_are_the_classes(nets: dict[str, Path], save_npz: Callable[..., Path], tmp_path: Path) -> None:
    both = {}
    for name in ("residual", "residual8"):
        model = onnx.load(nets[name])
        model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["class"], "argmax", axis=1, keepdims=0))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["n"]))
        onnx.save(model, tmp_path / f"{name}.onnx")
        both[name] = tmp_path / f"{name}.onnx"
    x = samples(100, 3, 8, 8, seed=9)
    label = outputs(both["residual"], x)
    report = validate(both["residual8"], against=both["residual"], data=save_npz(x=x, label=label))
    expected = (outputs(both["residual8"], x) == label).mean()
    assert (report.values["float"], report.values["int8"]) == pytest.approx((1, expected))
    assert report.values["sqnr_db"] is None
    assert report.values["kernel_sqnr_db"] is None


def test_what_decides_is_read_from_the_graph_and_the_answers() -> None:
    """A detection head (n, 4 + classes, anchors): no arg max over anchors is made up; scores of steps are decisions."""
    random = np.random.default_rng(0)
    head = np.concatenate([random.uniform(0, 64, (8, 4, 64)), random.uniform(0, 1, (8, 5, 64))], axis=1)
    assert choose_metric(None, {"head": head.astype(np.float32)}, {}, {})[0] is None
    parts = OutputEnd("parts", 1, parts=(Part(0, 4, "other"), Part(4, 9, "sigmoid")))
    for name in (None, "agreement"):
        chosen, _ = choose_metric(name, {"head": head.astype(np.float32)}, {}, {"head": parts})
        assert chosen is not None and chosen.decision is not None and chosen.decision.anchors is not None
    steps = random.normal(size=(8, 12, 20))
    steps += 9 * (steps == steps.max(axis=2, keepdims=True))
    outputs = {"head": head.astype(np.float32), "steps": steps.astype(np.float32)}
    chosen, read = choose_metric(None, outputs, {}, {"steps": OutputEnd("dense", 2)})
    assert chosen is not None
    assert (chosen.name, chosen.output) == ("agreement", "steps")  # the first output that decides, not the first
    assert dict(read.kinds) == {"head": "numbers that decide nothing", "steps": "sequence of 20 classes"}
    maps = {"map": np.moveaxis(steps[:, :, None], 1, 2).astype(np.float32)}  # (n, 1, 12, 20): classes last
    chosen, _ = choose_metric(None, maps, {}, {"map": OutputEnd("convolution", 3)})
    assert chosen is not None and chosen.decision is not None
    assert chosen.decision.axis == 3


def test_an_output_in_which_nothing_is_found_is_not_what_the_agreement_is_of() -> None:
    """A detector's maps of several strides: small things are rare, and all of no decisions would be equal."""
    random = np.random.default_rng(0)
    fine = np.full((3, 400, 5), 0.05, np.float32)
    coarse = np.where(random.random((3, 100, 5)) > 0.97, 0.9, 0.05).astype(np.float32)
    ends = dict.fromkeys(("fine", "coarse"), OutputEnd("sigmoid"))
    chosen, read = choose_metric(None, {"fine": fine, "coarse": coarse}, {}, ends)
    assert all(decision.sparse for decision in read.decisions.values())
    assert chosen is not None
    assert chosen.output == "coarse"
    chosen, _ = choose_metric(None, {"fine": fine, "coarse": 0 * coarse}, {}, ends)
    assert chosen is not None
    assert chosen.output == "fine"  # where nothing is found in any, the first as before


def test_maps_and_texts_against_labels_and_between_models() -> None:
    """Jaccard of all positions from scikit-learn; character error rate from a distance that recurses."""
    random = np.random.default_rng(0)
    one, other = (np.eye(5, dtype=np.float32)[random.integers(0, 4, (6, 7, 8))].transpose(0, 3, 1, 2) for _ in range(2))
    label = random.integers(0, 4, (6, 7, 8))
    label[:, 0, 0] = -100
    end = {"map": OutputEnd("convolution", 1)}
    metric, _ = choose_metric("miou", {"map": one}, {"label": label}, end)
    assert metric is not None and metric.figures is not None
    found = metric.summary(metric.figures({"map": one}, {"label": label}, tuple("abcdef")).mean(axis=0))
    counted = label >= 0
    assert found == pytest.approx(jaccard_score(label[counted], one.argmax(1)[counted], average="macro"))
    metric, _ = choose_metric("miou", {"map": one}, {}, end)
    assert metric is not None and metric.between is not None
    batch = Batch(tuple("abcdef"), {}, {})
    figures = metric.between.compare(*(metric.between.keep({"map": each}, batch) for each in (one, other)))
    assert metric.summary(figures.mean(axis=0)) == pytest.approx(
        jaccard_score(one.argmax(1).ravel(), other.argmax(1).ravel(), average="macro")
    )

    def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    steps = np.zeros((3, 9), np.int64)
    steps[0, [1, 2, 5]], steps[1, [0, 4, 8]], steps[2, 3] = (2, 2, 3), (1, 2, 3), 4
    said: list[tuple[int, ...]] = [(2, 3), (1, 2, 3), (4,)]
    wanted = np.array([[2, 4, 3], [3, 2, 1], [-100, -100, -100]])
    metric, _ = choose_metric("text", {"t": np.eye(5, dtype=np.float32)[steps]}, {"label": wanted}, {})
    assert metric is not None and metric.figures is not None
    rows = metric.figures({"t": np.eye(5, dtype=np.float32)[steps]}, {"label": wanted}, tuple("abc"))
    lengths = [3, 3, 0]
    errors = [distance(a, tuple(b[:n])) for a, b, n in zip(said, wanted.tolist(), lengths, strict=True)]
    assert rows.tolist() == [[n - e, n] for n, e in zip(lengths, errors, strict=True)]
    with fails("metric 'text': output 't' has shape (n, 5), expected scores of classes"):
        choose_metric("text", {"t": np.eye(5, dtype=np.float32)}, {}, {"t": OutputEnd("softmax", 1)})


def test_embeddings_are_compared_by_direction() -> None:
    random = np.random.default_rng(0)
    f, q = (random.normal(size=(9, 64)).astype(np.float32) for _ in range(2))
    end = {"logits": OutputEnd("dense", 1), "e": OutputEnd("embedding")}
    metric, read = choose_metric("cosine", {"logits": f[:, :10], "e": f}, {}, end)
    assert metric is not None and metric.between is not None
    assert (metric.output, read.kinds["e"]) == ("e", "embedding")
    found = metric.between.compare(f, q)[:, 0]
    assert found == pytest.approx(np.diag(cosine_similarity(f, q)), abs=1e-6)
    with fails("metric 'cosine' compares directions, and output 'i' holds integers"):
        choose_metric("cosine", {"i": np.arange(3)}, {}, {})
