"""What outputs mean: read from graphs of the usual ends, and from answers that stand out or do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net
from onnx import TensorProto, helper

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.compare import add_batch, start_answers
from fcdeploy.evaluate.decision import READ_AT, AnchorScores, Decision
from fcdeploy.evaluate.output_ends import ALL_COUNT, OutputEnd, find_ends
from fcdeploy.evaluate.outputs import decide_by, read_outputs
from fcdeploy.evaluate.run_models import run_model
from fcdeploy.evaluate.standing_out import stands_out
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.session import Session
from fcdeploy.samples.layout import lead_with_samples, stack_samples
from fcdeploy.samples.source import Batch

RANDOM = np.random.default_rng(0)


def lead(outputs: Arrays, samples: int, *, alone: bool = False, first: Array | None = None) -> Array:
    """The one output with its samples in front; the model gives `first` for the first of them."""
    first = next(iter(outputs.values()))[:1] if first is None else first
    (output,) = lead_with_samples(
        outputs, samples, alone=alone, run_first=lambda: dict.fromkeys(outputs, first)
    ).values()
    return output


def end_of(net: Net, output: str) -> OutputEnd:
    model = ir.serde.deserialize_model(net.output(output).model())
    infer_shapes(model)
    return find_ends(model)[output]


@pytest.mark.parametrize("tail", [[], ["Softmax"], ["Sigmoid"], ["Tanh"]], ids=str)
def test_dense_ends(tail: list[str]) -> None:
    net = Net(0)
    x = net.dense(net.input("x", 8), 8, 5)
    for op in tail:
        x = net.op(op, x)
    kinds = {
        (): ("dense", 1),
        ("Softmax",): ("softmax", 1),
        ("Sigmoid",): ("sigmoid", None),
        ("Tanh",): ("other", None),
    }
    end = end_of(net, x)
    assert (end.kind, end.axis) == kinds[tuple(tail)]


def test_the_axis_of_classes_is_followed_behind_a_transpose() -> None:
    net = Net(0)
    x = net.conv(net.input("x", 3, 8, 8), 3, 7)
    assert end_of(net, x) == OutputEnd("convolution", 1)
    net = Net(0)
    x = net.op("Transpose", net.conv(net.input("x", 3, 8, 8), 3, 7), perm=[0, 2, 3, 1])
    assert end_of(net, x) == OutputEnd("convolution", 3)


def test_an_embedding_decides_nothing() -> None:
    net = Net(0)
    x = net.op("LpNormalization", net.dense(net.input("x", 8), 8, 64), axis=1, p=2)
    assert end_of(net, x).kind == "embedding"
    assert decide_by(RANDOM.normal(size=(9, 64)).astype(np.float32), OutputEnd("embedding")) is None
    net = Net(0)
    x = net.dense(net.input("x", 8), 8, 64)
    squares = net.op("ReduceSum", net.op("Mul", x, x), net.constant([1], np.int64))
    assert end_of(net, net.op("Div", x, net.op("Sqrt", squares))).kind == "embedding"


def test_shares_of_a_sum_are_no_embedding() -> None:
    """A Softmax in pieces."""
    net = Net(0)
    x = net.op("Exp", net.dense(net.input("x", 8), 8, 6))
    assert end_of(net, net.op("Div", x, net.op("ReduceSum", x, net.constant([1], np.int64)))).kind == "other"


def head(net: Net, *levels: str, objectness: bool, classes: int) -> str:
    """Boxes and scores of every place of each level (1, 3, side, side), put together: (1, channels, places)."""
    parts = []
    for x in levels:
        scores = [net.op("Sigmoid", net.conv(x, 3, n)) for n in ([1] * objectness + [classes])]
        shape = net.constant([0, 4 + objectness + classes, -1], np.int64)
        parts.append(net.op("Reshape", net.op("Concat", net.conv(x, 3, 4), *scores, axis=1), shape))
    return net.op("Concat", *parts, axis=2)


def test_scores_at_anchors_are_found_beside_boxes() -> None:
    """As YOLOX lays them out, levels behind one another and channels last; as YOLOv8 does, channels first; as YOLOv5 does."""
    net = Net(0)
    x, y = net.input("x", 3, 8, 8), net.input("y", 3, 4, 4)
    end = end_of(net, net.op("Transpose", head(net, x, y, objectness=True, classes=5), perm=[0, 2, 1]))
    assert (end.axis, [(part.start, part.stop, part.kind) for part in end.parts]) == (
        2, [(0, 4, "convolution"), (4, 5, "sigmoid"), (5, 10, "sigmoid")],
    )  # fmt: skip
    answers = RANDOM.random((6, 80, 10)).astype(np.float32)
    decision = decide_by(answers, end)
    assert decision is not None
    assert np.array_equal(decision(answers), count_above(answers[..., 4:5] * answers[..., 5:]))

    net = Net(0)
    end = end_of(net, head(net, net.input("x", 3, 8, 8), net.input("y", 3, 4, 4), objectness=False, classes=5))
    decision = decide_by(answers[..., :9].transpose(0, 2, 1), end)
    assert decision is not None
    assert np.array_equal(decision(answers[..., :9].transpose(0, 2, 1)), count_above(answers[..., 4:9]))

    net = Net(0)
    shares = net.op("Sigmoid", net.dense(net.input("x", 9), 9, 9))
    zero, four, nine, one = (net.constant([n], np.int64) for n in (0, 4, 9, 1))
    box = net.op("Mul", net.op("Slice", shares, zero, four, one), net.constant(8))
    scores = net.op("Slice", shares, four, nine, one)
    end = end_of(net, net.op("Concat", box, scores, axis=1))
    assert [part.kind for part in end.parts] == ["other", "sigmoid"]
    decision = decide_by(answers[..., :9], OutputEnd("parts", 2, parts=end.parts))
    assert decision is not None
    assert np.array_equal(decision(answers[..., :9]), count_above(answers[..., 4:5] * answers[..., 5:9]))


def count_above(scores: Array) -> Array:
    return np.asarray(sum((scores > least).astype(int) for least in READ_AT))


def test_anchors_count_at_each_threshold() -> None:
    """F1 of each threshold's anchors by its definition, summed up, from decisions that were kept."""
    decision = Decision(None, 2, 0.5, sparse=True, anchors=AnchorScores(2, 4, 7))
    random = np.random.default_rng(0)
    one = random.random((3, 50, 7))
    other = np.clip(one + random.normal(size=one.shape) / 9, 0, 1)
    equal, count = decision.count_equal(decision(one), decision(other))
    for i in range(3):
        above = [(one[i, :, 4:] > least, other[i, :, 4:] > least) for least in READ_AT]
        assert equal[i] == sum(2 * (a & b).sum() for a, b in above)
        assert count[i] == sum(a.sum() + b.sum() for a, b in above)


def test_shares_of_a_whole_are_scores_of_classes_however_they_were_made() -> None:
    shares = np.exp(RANDOM.normal(size=(40, 7)))
    shares /= shares.sum(axis=1, keepdims=True)
    decision = decide_by(shares.astype(np.float32), OutputEnd("other"))
    assert decision is not None
    assert (decision.axis, decision.classes) == (1, 7)
    assert decide_by((shares * 1.01).astype(np.float32), OutputEnd("other")) is None
    assert decide_by((shares * 2 - 1 / 7).astype(np.float32), OutputEnd("other")) is None


def test_logits_stand_out_and_random_numbers_do_not() -> None:
    noise = RANDOM.normal(size=(200, 512))
    logits = noise.copy()
    logits[np.arange(200), RANDOM.integers(0, 512, 200)] += 8
    assert stands_out(logits, 1)
    assert not stands_out(noise, 1)
    logits = noise.copy()
    logits[:, 3] += 8  # a number that is always the largest is no decision
    assert not stands_out(logits, 1)


def test_what_was_found_by_other_samples_counts_more_than_these() -> None:
    """Numbers among which none stands out, and scores among which one does."""
    random = np.random.default_rng(1)
    numbers = random.normal(size=(64, 96))
    scores = 8 * np.eye(96)[random.integers(0, 96, 64)] + random.normal(size=(64, 96))
    for output, here in ((numbers, None), (scores, Decision(1, 96))):
        single = output.astype(np.float32)
        found = [decide_by(single, OutputEnd("convolution", 1, decides=known)) for known in (None, True, False)]
        assert found == [here, Decision(1, 96), None]


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 64])
def test_few_random_numbers_are_no_classes(classes: int) -> None:
    """Of a feature map of few channels one is far above the others, too, but near to another as often as not."""
    noise = RANDOM.normal(size=(4, classes, 32, 32))
    assert not stands_out(noise, 1)
    learnt = noise.copy()
    np.put_along_axis(learnt, RANDOM.integers(classes, size=(4, 1, 32, 32)), 5 + noise[:, :1], axis=1)
    assert stands_out(learnt, 1)


@pytest.mark.parametrize("classes", [2, 5, 10, 24, 48])
def test_few_numbers_of_a_dense_layer_are_logits_unless_they_lie_far_above_zero(classes: int) -> None:
    """However weak the network, and however few rows are seen first."""
    end = OutputEnd("dense", 1)
    noise = RANDOM.normal(size=(1000, classes))
    for strength in (0, 1, 6):
        logits = noise + strength * np.eye(classes)[RANDOM.integers(classes, size=1000)]
        logits -= logits.mean()
        for rows in (1, 3, 16, 1000):
            assert decide_by(logits[:rows].astype(np.float32), end) == Decision(1, classes)
    assert decide_by(np.float32(noise - 20), end) == Decision(1, classes)  # each class against all others: mostly no
    points = 100 * RANDOM.random(classes) + noise
    assert decide_by(points.astype(np.float32), end) is None
    prices = np.exp(noise / 2)
    assert decide_by(prices.astype(np.float32), end) is None


def test_few_bare_numbers_beside_shares_are_a_box_or_points() -> None:
    """A face finder: shares of two classes beside four ends of a box, of every window and of every place."""
    logits = RANDOM.normal(size=(300, 2)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    box = RANDOM.normal(size=(300, 4)).astype(np.float32)
    features = 6 * np.eye(20, dtype=np.float32)[RANDOM.integers(20, size=300)] - 0.3
    dense, softmax = OutputEnd("dense", 1), OutputEnd("softmax", 1)
    read = read_outputs(
        {"box": box, "shares": shares, "kind": features}, {"box": dense, "shares": softmax, "kind": dense}
    )
    assert set(read.decisions) == {"shares", "kind"}
    assert set(read_outputs({"box": box}, {"box": dense}).decisions) == {"box"}

    places = {"box": np.moveaxis(box.reshape(3, 10, 10, 4), 3, 1), "shares": shares.reshape(3, 10, 10, 2)}
    read = read_outputs(places, {"box": OutputEnd("convolution", 1), "shares": OutputEnd("softmax", 3)})
    assert set(read.decisions) == {"shares"}


def test_integers_and_probabilities() -> None:
    assert decide_by(np.arange(4), OutputEnd("other")) == Decision(None, None)
    one = decide_by(np.float32([[0.2], [0.7]]), OutputEnd("sigmoid"))
    assert one == Decision(None, 2, 0.5)
    assert one is not None
    assert one(np.float32([[0.2], [0.7]])).reshape(-1).tolist() == [0, 1]


def test_maps_count_what_either_model_has() -> None:
    """F1, against its definition: precision and recall of one model's positions as the other's."""
    decision = decide_by(RANDOM.random((3, 1, 9, 9)), OutputEnd("sigmoid"))
    assert decision is not None
    assert decision.sparse
    one, other = (RANDOM.random((3, 1, 9, 9)) > 0.8 for _ in range(2))
    equal, count = decision.count_equal(one.astype(np.int64), other.astype(np.int64))
    for i in range(3):
        both = np.sum(one[i] & other[i])
        precision, recall = both / one[i].sum(), both / other[i].sum()
        assert equal[i] / count[i] == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(("share", "background"), [(0.97, None), (0.99, 2), (1.0, None)])
def test_all_answers_say_which_class_is_that_of_nothing(share: float, background: int | None) -> None:
    """The first ones may have more or less of it than all have, whatever their shapes; what was judged by stands."""
    random, answers = np.random.default_rng(0), []
    for size in (20, 50, 60):
        classes = np.full((1, size, size), 2)
        if size > 20 and share < 1:
            events = random.random(classes.shape) > share
            classes[events] = 0
        answers.append({"map": np.moveaxis(np.eye(3, dtype=np.float32)[classes] * 0.7 + 0.1, -1, 1)})
    ends = {"map": OutputEnd("softmax", 1)}
    read = read_outputs(answers[0], ends, every=answers)
    assert read.decisions["map"].background == background
    assert read_outputs(answers[0], ends).decisions["map"].background is None  # a map of one class decides nothing else
    for known, expected in ((ALL_COUNT, None), (1, 1)):
        end = replace(ends["map"], background=known)
        assert read_outputs(answers[0], {"map": end}, every=answers).decisions["map"].background == expected


@pytest.mark.parametrize(("share", "background"), [(0.97, None), (0.99, 2), (1.0, None)])
def test_a_class_that_is_nearly_everywhere_is_that_of_nothing(share: float, background: int | None) -> None:
    """Of maps (n, classes, h, w) of classes, and of sequences (n, steps, classes) for which each token has one."""
    random = np.random.default_rng(0)
    classes = np.full(4 * 2500, 2)
    events = random.choice(len(classes), round((1 - share) * len(classes)), replace=False)
    classes[events] = random.integers(0, 2, len(events))
    rows = np.eye(3, dtype=np.float32)[classes] * 0.7 + 0.1
    images, steps = np.moveaxis(rows.reshape(4, 50, 50, 3), -1, 1), rows.reshape(4, 2500, 3)
    ends = {"map": OutputEnd("softmax", 1), "steps": OutputEnd("softmax", 2, by_token=True)}
    read = read_outputs({"map": images, "steps": steps}, ends)
    assert {decision.background for decision in read.decisions.values()} == {background}
    if background is None:
        return
    other = images.copy()  # half of the events are missed: of all positions 99.5 % are equal
    missed = np.unravel_index(events[::2], (4, 50, 50))
    other[missed[0], :, missed[1], missed[2]] = rows[classes == 2][0]
    decision = read.decisions["map"]
    equal, count = decision.count_equal(decision(images), decision(other))
    assert equal.sum() / count.sum() == pytest.approx(2 * 50 / (100 + 50))


def test_a_text_is_one_decision() -> None:
    """Steps of mostly one class, the first or last: repeats and pauses count for nothing, a letter for the whole text."""
    steps = np.zeros((4, 20), np.int64)
    steps[:, 3:6], steps[:, 9] = 5, 7
    scores: Any = np.eye(10, dtype=np.float32)[steps]
    decision = decide_by(scores, OutputEnd("softmax", 2))
    assert decision is not None
    assert decision.blank == 0
    longer, other = steps.copy(), steps.copy()
    longer[0, 6], other[1, 15] = 5, 2
    assert decision.count_equal(steps, longer)[0].tolist() == [1, 1, 1, 1]
    assert decision.count_equal(steps, other)[0].tolist() == [1, 0, 1, 1]


def test_a_text_is_found_behind_a_reshape_and_with_its_steps_in_front() -> None:
    """As recurrent recognisers write it, (steps, 1, classes), where the graph does not say which axis is which."""
    net = Net(0)
    rows = net.dense(net.input("x", 8), 8, 10)
    whole = net.op("Concat", net.op("Shape", net.input("like", 4)), net.constant([1, 10], np.int64), axis=0)
    end = end_of(net, net.op("Reshape", rows, net.op("Slice", whole, *(net.constant([n], np.int64) for n in (0, 3)))))
    assert (end.kind, end.axis, end.classes) == ("dense", None, 10)
    steps = np.zeros((1, 20), np.int64)
    steps[:, 3:6], steps[:, 9] = 5, 7
    scores: Any = np.eye(10, dtype=np.float32)[steps]
    given = np.moveaxis(scores, 0, 1)
    assert given.shape == (20, 1, 10)
    for alone in (False, True):
        decision = decide_by(lead({"y": given}, 1, alone=alone), end)
        assert decision is not None
        assert (decision.axis, decision.blank) == (2, 0)
    assert decide_by(scores[..., :9], end) is None  # no axis is as long


def test_a_tagger_decides_token_by_token() -> None:
    """Most of its tokens may be of one class, which is no pause between letters."""
    steps = np.zeros((4, 20), np.int64)
    steps[:, 3:6], steps[:, 9] = 5, 7
    scores: Any = np.eye(10, dtype=np.float32)[steps]
    for kind, blank in ((TensorProto.INT64, None), (TensorProto.FLOAT, 0)):
        net = Net(0)
        tokens = net.input("x", "time", dtype=kind)
        rows = net.op("Unsqueeze", net.op("Cast", tokens, to=1), net.constant([2], np.int64))
        end = end_of(net, net.op("MatMul", rows, net.constant(net.normal(1, 10))))
        assert end.by_token == (kind == TensorProto.INT64)
        decision = decide_by(scores, end)
        assert decision is not None
        assert (decision.axis, decision.blank) == (2, blank)


@pytest.mark.parametrize(
    ("shape", "samples", "alone", "expected"),
    [
        ((20, 1, 10), 1, True, (1, 20, 10)),
        ((20, 4, 10), 4, False, (4, 20, 10)),
        ((4, 4, 10), 4, False, (4, 4, 10)),
        ((1, 20, 10), 1, True, (1, 20, 10)),
        ((20, 10), 1, True, (1, 20, 10)),
        ((7, 1), 1, False, (7, 1)),
        ((), 1, True, (1,)),
    ],
)
def test_outputs_begin_with_samples(
    shape: tuple[int, ...], samples: int, alone: bool, expected: tuple[int, ...]
) -> None:
    assert lead({"y": np.zeros(shape)}, samples, alone=alone, first=np.zeros((1, *shape[1:]))).shape == expected


def test_as_many_steps_as_samples_are_told_by_the_first_sample() -> None:
    """(steps, samples, units) and (samples, steps, units) of four and four are alike; of one sample they are not."""
    both = np.arange(4 * 4 * 10.0).reshape(4, 4, 10)
    assert np.array_equal(lead({"y": both}, 4, first=both[:1]), both)
    assert np.array_equal(lead({"y": both}, 4, first=both[:, :1]), np.moveaxis(both, 1, 0))


def test_a_model_of_a_fixed_batch_is_not_asked_for_one_sample(tmp_path: Path) -> None:
    """Of as many steps as samples its shape tells nothing, and it takes no fewer."""
    net = Net(0)
    net.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4, 3]))
    y = net.op("Tanh", "x")
    session = Session(net.output(y).save(tmp_path / "m.onnx"))
    x = RANDOM.normal(size=(4, 4, 3)).astype(np.float32)
    specs = (TensorSpec("x", np.dtype(np.float32), (4, 4, 3)),)
    answers = run_model(session, Batch(("0", "1", "2", "3"), {"x": x}, {}, specs), "float")
    np.testing.assert_allclose(answers[y], np.tanh(x), rtol=1e-5)


def test_a_sequence_first_network_answers_sample_by_sample(tmp_path: Path) -> None:
    """Each as in a run of its own, in batches of as many samples as steps and of more."""
    steps = 4
    net = Net(0, opset=17)
    net.input("x", "samples", 3)
    summed = net.op("CumSum", "x", net.constant(0, np.int64))
    y = net.op("MatMul", summed, net.constant(RANDOM.normal(size=(3, 5)).astype(np.float32)))
    session = Session(net.output(y).save(tmp_path / "m.onnx"))
    x = RANDOM.normal(size=(6, steps, 3)).astype(np.float32)
    expected = np.stack([session.run({"x": sample[:, None]})[0][:, 0] for sample in x])
    specs = (TensorSpec("x", np.dtype(np.float32), (None, None, 3), sample_axis=1),)
    for count in (steps, 6):
        feeds = stack_samples([{"x": sample} for sample in x[:count]], specs)
        answers = run_model(session, Batch(tuple(map(str, range(count))), feeds, {}, specs), "float")
        np.testing.assert_allclose(answers[y], expected[:count], rtol=1e-5, atol=1e-6)


def test_scores_beside_boxes_are_those_of_anchors() -> None:
    """As a text they would be one decision for hundreds of anchors; F1 against its definition."""
    scores = RANDOM.random((3, 200, 3)).astype(np.float32) * [1, 0.4, 0.6]
    scores[..., 0] += 0.3  # background
    boxes = RANDOM.random((3, 200, 4)).astype(np.float32)
    ends = {"scores": OutputEnd("softmax", 2), "boxes": OutputEnd("other")}
    read = read_outputs({"scores": scores, "boxes": boxes}, ends)
    decision = read.decisions["scores"]
    assert (decision.blank, decision.background, decision.sparse) == (None, 0, True)
    assert read.kinds["scores"] == "scores of 3 classes at every position, class 0 where nothing is"
    assert decision.counted == "of positions found by both"
    one = decision(scores)
    other = np.where(RANDOM.random(one.shape) < 0.1, 2, one)
    equal, count = decision.count_equal(one, other)
    for i in range(3):
        both = np.sum((one[i] == other[i]) & (one[i] != 0))
        precision, recall = both / np.sum(other[i] != 0), both / np.sum(one[i] != 0)
        assert equal[i] / count[i] == pytest.approx(2 * precision * recall / (precision + recall))
    alone = read_outputs({"scores": scores}, ends).decisions["scores"]
    assert alone.blank == 0


def test_steps_that_one_decoder_lacks_are_not_equal() -> None:
    """Two answers of one sample, of 7 and of 5 steps: by hand, through a comparison of batches, and with classes missing."""
    one = RANDOM.normal(size=(1, 7, 4)).astype(np.float32)
    other = one[:, :5].copy()
    other[0, 2] = -one[0, 2]
    decision = Decision(2, 4)
    assert decision.has_steps(one, other)
    assert not decision.has_steps(one, other[..., :3])
    equal = sum(one[0, i].argmax() == other[0, i].argmax() for i in range(5))
    assert [each.tolist() for each in decision.count_equal(decision(one), decision(other))] == [[equal], [7.0]]
    assert [each.tolist() for each in decision.count_equal(decision(other), decision(one))] == [[equal], [7.0]]

    batch = Batch(("a",), {}, {}, ())
    metric, read = choose_metric("agreement", {"y": one}, {}, {"y": OutputEnd("softmax", 2)})
    answers = start_answers(lambda *_: (metric, read), {"y": one}, {})
    add_batch(answers, {"y": one}, {"y": other}, batch)
    assert answers.outputs["y"].unequal == 1
    assert answers.int8_figures[0].tolist() == [[equal, 7.0]]
    with pytest.raises(FcdeployError, match="has shape"):
        add_batch(answers, {"y": one}, {"y": other[..., :3]}, batch)
