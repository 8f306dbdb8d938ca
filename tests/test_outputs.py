"""What outputs mean: read from graphs of the usual ends, and from answers that stand out or do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net

from fcdeploy.evaluate.decision import Decision
from fcdeploy.evaluate.outputs import OutputEnd, decide_by, find_ends, read_outputs, stands_out
from fcdeploy.prepare.shape_inference import infer_shapes

RANDOM = np.random.default_rng(0)


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


def test_an_embedding_and_boxes_beside_scores_decide_nothing() -> None:
    net = Net(0)
    x = net.op("LpNormalization", net.dense(net.input("x", 8), 8, 64), axis=1, p=2)
    assert end_of(net, x).kind == "embedding"
    assert decide_by(RANDOM.normal(size=(9, 64)).astype(np.float32), OutputEnd("embedding")) is None

    net = Net(0)
    x = net.input("x", 3, 8, 8)
    boxes, scores = net.conv(x, 3, 4), net.op("Sigmoid", net.conv(x, 3, 5))
    assert end_of(net, net.op("Concat", boxes, scores, axis=1)).kind == "other"


def test_logits_stand_out_and_random_numbers_do_not() -> None:
    noise = RANDOM.normal(size=(200, 512))
    logits = noise.copy()
    logits[np.arange(200), RANDOM.integers(0, 512, 200)] += 8
    assert stands_out(logits, 1)
    assert not stands_out(noise, 1)
    logits = noise.copy()
    logits[:, 3] += 8  # a number that is always the largest is no decision
    assert not stands_out(logits, 1)


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 64])
def test_few_random_numbers_are_no_classes(classes: int) -> None:
    """Of a feature map of few channels one is far above the others, too, but near to another as often as not."""
    noise = RANDOM.normal(size=(4, classes, 32, 32))
    assert not stands_out(noise, 1)
    learnt = noise.copy()
    np.put_along_axis(learnt, RANDOM.integers(classes, size=(4, 1, 32, 32)), 5 + noise[:, :1], axis=1)
    assert stands_out(learnt, 1)


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


def test_scores_beside_boxes_are_those_of_anchors() -> None:
    """As a text they would be one decision for hundreds of anchors; F1 against its definition."""
    scores = RANDOM.random((3, 200, 3)).astype(np.float32) * [1, 0.4, 0.6]
    scores[..., 0] += 0.3  # background
    boxes = RANDOM.random((3, 200, 4)).astype(np.float32)
    ends = {"scores": OutputEnd("softmax", 2), "boxes": OutputEnd("other")}
    read = read_outputs({"scores": scores, "boxes": boxes}, ends)
    decision = read.decisions["scores"]
    assert (decision.blank, decision.background, decision.sparse) == (None, 0, True)
    assert read.kinds["scores"].startswith("scores of 3 classes, one of them background")
    assert decision.counted == "of anchors found by both"
    one = decision(scores)
    other = np.where(RANDOM.random(one.shape) < 0.1, 2, one)
    equal, count = decision.count_equal(one, other)
    for i in range(3):
        both = np.sum((one[i] == other[i]) & (one[i] != 0))
        precision, recall = both / np.sum(other[i] != 0), both / np.sum(one[i] != 0)
        assert equal[i] / count[i] == pytest.approx(2 * precision * recall / (precision + recall))
    alone = read_outputs({"scores": scores}, ends).decisions["scores"]
    assert alone.blank == 0
