"""The floor: samples apart, judgements against their definitions, and quantize on networks with a cliff."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, in_memory, random_data

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.set_metrics import collapse_steps
from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.cli import main
from fcdeploy.commands.quantize import quantize
from fcdeploy.evaluate.decision import Decision
from fcdeploy.evaluate.output_ends import OutputEnd, find_ends
from fcdeploy.evaluate.outputs import decide_by
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.calibrating.statistics import load_or_observe
from fcdeploy.int8.judging.fidelity import EXACT_DB, format_noise
from fcdeploy.int8.judging.floor import Floor, parse_floor
from fcdeploy.int8.judging.judge import Judge, _compare
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.int8.judging.margins import (
    TextAnswer,
    estimate_error,
    expect_equal,
    list_text_margins,
    measure_class_margins,
    measure_class_moves,
)
from fcdeploy.int8.judging.samples_apart import APART, MOST_APART, USED, _leave_out_judged, set_apart, split_samples
from fcdeploy.int8.problem import Problem
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import to_bytes
from fcdeploy.runtime.cpu import find_target
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import KEPT_LEAST, count_samples
from fcdeploy.samples.kinds import open_source
from fcdeploy.search.builder import Builder, begin_building
from fcdeploy.search.candidates import Candidate, is_of_weights, round_by_inputs
from fcdeploy.search.hold_floor import _carry_out, _find_cheapest
from fcdeploy.search.judged import make_judge
from fcdeploy.search.ladder import PathStep, Score

DATA = random_data(0, 96, x=(12,))


def cliff(folder: Path, size: float) -> Path:
    """A dense network with one hidden channel that is `size` times the others, and two weights that take it off again."""
    net = Net(0)
    hidden = net.op("Relu", net.dense(net.input("x", 12), 12, 16))
    scale = np.ones(16, np.float32)
    scale[3] = size
    large = net.op("Mul", hidden, net.constant(scale))
    off = np.zeros((16, 16), np.float32)
    off[3, 3] = 1 - size
    rest = net.op("Add", large, net.op("MatMul", hidden, net.constant(off)))
    path = folder / "net.onnx"
    net.output(net.dense(rest, 16, 6)).save(path)
    np.savez(folder / "data.npz", **DATA)
    return path


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_samples_apart_are_no_tool_s(sizes: list[int]) -> None:
    starts = np.cumsum([0, *sizes])
    groups = [{"x": np.arange(a, b)} for a, b in pairwise(starts)]
    tools, judged, unseen = split_samples(groups, streams=False)
    apart = np.concatenate([group["x"] for group in judged])
    assert len(tools["x"]) == max(sizes) - (unseen and min(max(max(sizes) // APART, max(sizes) - USED), MOST_APART))
    assert not unseen or not set(tools["x"]) & set(apart)
    if unseen:
        assert sorted([*tools["x"], *apart]) == list(range(sum(sizes)))
    else:
        assert len(apart) == sum(sizes)


def test_tail_of_binomial_against_counting() -> None:
    draws = np.random.default_rng(0).random((200_000, 12)) < 0.1
    for k in range(4):
        assert tail_of_binomial(k, 12, 0.1) == pytest.approx((draws.sum(axis=1) >= k).mean(), abs=0.005)


def test_a_judgement_against_the_definition(tmp_path: Path) -> None:
    path = cliff(tmp_path, 1.0)
    quantize(path, output=tmp_path / "int8.onnx", data=tmp_path / "data.npz", costs="none", floor="none")
    model, int8 = ir.load(path), ir.load(tmp_path / "int8.onnx")
    judgement = Judge(path, model, [DATA], find_ends(model)).measure(int8)
    f, q = (Session(file).run(DATA)[0].astype(np.float64) for file in (path, tmp_path / "int8.onnx"))
    assert judgement.samples == 96
    assert judgement.worst_db == pytest.approx(10 * np.log10((f**2).sum() / ((f - q) ** 2).sum()))
    (name,) = judgement.equal
    assert judgement.share(name) == np.mean(f.argmax(axis=1) == q.argmax(axis=1))


def test_what_does_not_differ_is_identical() -> None:
    assert [format_noise(decibels) for decibels in (EXACT_DB, 41.23, -EXACT_DB)] == [
        "identical",
        "41.2 dB",
        "-200.0 dB",
    ]


def test_a_class_of_nan_is_no_class() -> None:
    """arg max gives the index of a NaN: where that is the right class, it is still no answer."""
    scores = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    lost = np.where(scores == scores.max(axis=1, keepdims=True), np.float32(np.nan), scores)
    for other, share in ((scores, 1.0), (lost, 0.0)):
        ((_, rows),) = _compare("y", Decision(1, None), scores, other)
        assert rows[:, 0].sum() / rows[:, 1].sum() == share


@pytest.mark.parametrize("floats", [True, False])
def test_other_numbers_of_rows_are_below_the_floor(floats: bool) -> None:
    """Where x exceeds a threshold, a row each: integers are compared row by row, of floats how many there are."""

    def find(threshold: float) -> ir.Model:
        net = Net()
        rows = net.op("NonZero", net.op("Greater", net.input("x", 4), net.constant(threshold)))
        rows = net.op("Transpose", rows, perm=[1, 0])
        return ir.from_proto(net.output(net.op("Cast", rows, to=1) if floats else rows).model())

    x = np.random.default_rng(0).random((64, 4), np.float32)
    model, other = find(0.9), find(0.0)
    judge = Judge(model, model, [{"x": x}], find_ends(model))
    assert judge.measure(model).misses(Floor()) == []
    judgement = judge.measure(other)
    assert judgement.shortfall(Floor()) > 50
    found = (x > 0.9).sum()
    assert judgement.share(next(iter(judgement.equal))) == pytest.approx(2 * found / (found + x.size))


def test_classes_to_be_expected_are_those_of_many_samples() -> None:
    """Moves of 128 answers and margins of 256 tell what changed of 100,000: within three standard errors, 19 of 20 times."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(100_000, 8)) * random.uniform(0.5, 3, (100_000, 1))
    for size in (0.01, 0.03, 0.1):
        others = scores + size * random.normal(size=scores.shape)
        changed = np.mean(scores.argmax(axis=1) != others.argmax(axis=1))
        hits, error = 0, estimate_error(1 - changed, 256)
        for at in range(0, 20 * 256, 256):
            moves = measure_class_moves(scores[at : at + 128], others[at : at + 128], 1)
            expected = 1 - expect_equal(moves, measure_class_margins(scores[at : at + 256], 1)).mean()
            hits += abs(expected - changed) < 3 * error
        assert hits >= 19


@given(st.integers(0, 2**32), st.sampled_from([0, 4]))
def test_steps_that_decide_a_text_are_those_whose_second_class_makes_another(seed: int, blank: int) -> None:
    """Against texts with one step changed, each collapsed anew."""
    scores = np.random.default_rng(seed).normal(size=(3, 9, 5))
    scores[..., blank] += 0.7
    first, second = np.argsort(-scores, axis=-1)[..., :2].transpose(2, 0, 1)
    expected = []
    for line, path in enumerate(first):
        for step in range(len(path)):
            other = np.where(np.arange(len(path)) == step, second[line], path)
            if collapse_steps(path, blank) != collapse_steps(other, blank):
                gap = scores[line, step, first[line, step]] - scores[line, step, second[line, step]]
                expected.append((gap, line))
    margins = list_text_margins(scores, blank)
    np.testing.assert_allclose(np.stack([margins.values, margins.sample], axis=1), np.reshape(expected, (-1, 2)))
    assert TextAnswer.of(scores, blank).measure_moves(scores)[:, 0].tolist() == margins.values.tolist()
    shares = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    assert list_text_margins(shares, blank).sample.tolist() == margins.sample.tolist()
    # adding to all scores of a step moves no share, and taking half of their differences half of each margin
    np.testing.assert_allclose(TextAnswer.of(shares, blank).measure_noise(shares), 0.0)
    halves = np.exp(scores / 2) / np.exp(scores / 2).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(TextAnswer.of(shares, blank).measure_noise(halves), 0.25)


def test_errors_alone_are_those_of_a_whole_judgement_of_texts() -> None:
    """And of each step that decides its text, by collapsing it anew with the second letter: how far the margin moved."""
    net = Net()
    x = net.input("x", 12, 6)
    logits = net.op("Add", net.op("MatMul", x, net.constant(2 * net.normal(6, 6))), net.constant(np.eye(6)[0] * 6))
    model = ir.from_proto(net.output(net.op("Softmax", logits, axis=-1)).model())
    other = model.clone()
    weight = next(v for v in other.graph.initializers.values() if v.shape == (6, 6))
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(0.9), name=weight.name)
    x = np.random.default_rng(0).normal(size=(20, 12, 6)).astype(np.float32)
    judge = Judge(model, model, [{"x": x}], find_ends(model))
    assert [decision.blank for decision in judge.decisions.values()] == [0]
    whole, errors = judge.measure(other), judge.measure_errors(other, 20)
    assert (errors.noise, errors.decisive_db) == (whole.noise, whole.decisive_db)
    assert judge.measure_errors(model, 20).noise == 0.0
    f, q = (np.log(np.maximum(Session(each).run({"x": x})[0].astype(np.float64), 1e-12)) for each in (model, other))
    first, second = np.argsort(-f, axis=-1)[..., :2].transpose(2, 0, 1)
    moved = []
    for line, path in enumerate(first):
        for step, letters in enumerate(zip(path, second[line], strict=True)):
            changed = np.where(np.arange(len(path)) == step, letters[1], path)
            if collapse_steps(path, 0) != collapse_steps(changed, 0):
                margin, now = (rows[line, step, letters[0]] - rows[line, step, letters[1]] for rows in (f, q))
                moved.append(min(abs(now - margin) / margin, 1.0) ** 2)
    assert whole.noise == pytest.approx(np.mean(moved))


def test_texts_to_be_expected_are_those_of_many_lines() -> None:
    """Twenty-four lines tell what changed of 20,000, which counting does not: one line is four in a hundred."""
    random = np.random.default_rng(0)
    lines, steps = 20_000, 24
    scores = random.normal(size=(lines, steps, 6))
    scores[..., 0] += 1.0
    said = np.repeat(random.integers(0, 6, (lines, steps // 3)) * (random.random((lines, steps // 3)) < 0.5), 3, axis=1)
    scores += random.uniform(4, 9, (lines, steps, 1)) * np.eye(6)[said]
    for size in (0.02, 0.06, 0.2):
        others = scores + size * random.normal(size=scores.shape)
        decision = Decision(2, 6, blank=0)
        equal, _ = decision.count_equal(decision(scores), decision(others))
        estimates = []
        for at in range(0, 20 * 72, 72):
            moves = TextAnswer.of(scores[at : at + 24], 0).measure_moves(others[at : at + 24])
            estimates.append(1 - list_text_margins(scores[at : at + 72], 0).expect_equal(moves).mean())
        assert np.mean(estimates) == pytest.approx(1 - equal.mean(), rel=0.25)


@pytest.mark.parametrize("shape", ["even", "constant", "rare", "by sample"])
def test_moves_of_any_distribution_are_expected_to_change_as_many_classes(shape: str) -> None:
    """Two classes and margins that lie evenly around zero: what changes is counted."""
    random = np.random.default_rng(0)
    scores = np.zeros((200_000, 2))
    scores[:, 0] = random.uniform(-1, 1, len(scores))
    size = {
        "even": random.uniform(0, 0.06, len(scores)),
        "constant": np.full(len(scores), 0.03),
        "rare": np.where(random.random(len(scores)) < 0.1, 0.3, 0.0),
        "by sample": 0.03 * np.exp(random.normal(size=len(scores)) - 0.5),
    }[shape]
    others = scores.copy()
    others[:, 0] += size * random.choice([-1, 1], len(scores))
    changed = np.mean(scores.argmax(axis=1) != others.argmax(axis=1))
    expected = 1 - expect_equal(
        measure_class_moves(scores[:20_000], others[:20_000], 1), measure_class_margins(scores[:20_000], 1)
    )
    assert expected.mean() == pytest.approx(changed, rel=0.1)


def test_masked_classes_have_no_margins() -> None:
    """Scores of minus infinity, as masks write them: what is left decides."""
    scores = np.random.default_rng(0).normal(size=(20, 6))
    others = scores + 0.01
    others[:, 0] += 0.3
    masked, moved = (np.concatenate([each, np.full((20, 3), -np.inf)], axis=1) for each in (scores, others))
    found = measure_class_moves(masked, moved, 1)
    np.testing.assert_allclose(found, measure_class_moves(scores, others, 1))
    alone = np.where(np.arange(6) == 2, scores, -np.inf)
    assert (measure_class_moves(alone, alone, 1) == [np.inf, 0]).all()


def test_of_a_map_of_things_the_things_count() -> None:
    """Two words that a thin bridge joins overlap nearly whole, and are one thing instead of two; to some who read the map."""
    one = np.zeros((6, 1, 40, 60), np.float32)
    one[:, 0, 10:20, 5:25] = one[:, 0, 10:20, 30:50] = 0.9
    other = one.copy()
    other[0, 0, 15, 25:30] = 0.9
    decision = decide_by(one, OutputEnd("sigmoid"))
    assert decision is not None
    rows = dict(_compare("y", decision, one, other))
    judgement = Judgement(6, {"y": 30.0}, rows, {"y": decision})
    assert judgement.share("y") > 0.99
    assert judgement.share("y: regions") == pytest.approx(5 * 20 / (5 * 20 + 5 * 3))
    (miss,) = judgement.misses(Floor())
    assert miss.text.endswith("of regions found by both of output 'y', the floor is 99 %")
    other[0, 0, 15, 25:30] = 0.45  # from 0.5 on they are two
    rows = dict(_compare("y", decision, one, other))
    assert Judgement(6, {"y": 30.0}, rows, {"y": decision}).share("y: regions") == pytest.approx(112 / 118)
    same = Judgement(6, {"y": 30.0}, dict(_compare("y", decision, one, one)), {"y": decision})
    assert not same.misses(Floor()) and not same.misses(Floor(), searched=True) and not same.doubts(Floor())


def test_where_all_have_to_be_equal_no_change_is_chance() -> None:
    rows = np.ones((10_000, 2))
    rows[17, 0] = 0
    judged = Judgement(10_000, {}, {"y": rows}, {"y": Decision(1, 10)})
    assert judged.misses(Floor()) == []
    (miss,) = judged.misses(Floor(1.0))
    assert "99.99 % equal decisions of output 'y', the floor is 100 %" in miss.text


def test_of_a_map_what_was_searched_for_is_held_to_the_floor_itself() -> None:
    """Two anchors of 164 that differ may be chance, unless the model is the one of many that these samples like best."""
    rows = np.array([[80.0, 82.0], [82.0, 82.0]])
    judged = Judgement(2, {}, {"y": rows}, {"y": Decision(2, 10)})
    assert judged.misses(Floor()) == []
    assert judged.shortfall_by_chance(Floor()) == pytest.approx(100 * 2 / 164 - 1)
    (miss,) = judged.misses(Floor(), searched=True)
    assert "98.8 % equal decisions of output 'y', the floor is 99 %" in miss.text


def test_of_few_boxes_one_that_moved_is_no_chance() -> None:
    """The probability that a model at the floor changes as many of the boxes in both lists, by the binomial distribution."""
    decision = Decision(None, None, sparse=True, rows=True)
    for boxes, differ, chance in (
        (13, 2, False),
        (37, 2, True),
        (13, 1, True),
        (2, 1, False),
        (2, 0.4, True),
        (100, 3, False),
    ):
        rows = np.array([[2.0 * boxes - differ, 2.0 * boxes]])
        tail = sum(
            math.comb(2 * boxes, k) * 0.01**k * 0.99 ** (2 * boxes - k) for k in range(round(differ), 2 * boxes + 1)
        )
        assert chance == (tail > 0.05 and differ <= 2)
        assert (Judgement(8, {}, {"y": rows}, {"y": decision}).misses(Floor()) == []) == chance


def test_regions_of_what_was_searched_for_promise_more() -> None:
    """Seven of a thousand that differ hold the floor, unless the model is one of many that so few maps were asked of."""
    decision = decide_by(np.tile(np.float32([0.0, 0.9]), (6, 1, 20, 20)), OutputEnd("sigmoid"))
    rows = {"y": np.full((6, 2), 800.0), "y: regions": np.array([[993.0, 1000.0]])}
    judged = Judgement(6, {"y": 30.0}, rows, {"y": decision} if decision else {})
    assert judged.misses(Floor()) == []
    (miss,) = judged.misses(Floor(), searched=True)
    assert miss.text.endswith("the floor is 99 %, of what was searched for by so few 99.38 %")
    many = Judgement(6, {"y": 30.0}, {**rows, "y: regions": 1e6 * rows["y: regions"]}, judged.decisions)
    assert many.misses(Floor(), searched=True) == []


def test_what_is_far_below_the_floor_is_not_run_to_its_end(tmp_path: Path) -> None:
    """One sample a run: four tell of a model that is hopeless, and what they say of a good one is not all."""
    net = Net(0)
    net.output(net.op("Softmax", net.dense(net.input("x", 12), 12, 6))).save(tmp_path / "net.onnx")
    model = read_model(tmp_path / "net.onnx")
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([1, *value.shape[1:]])
    ir.save(model, tmp_path / "one.onnx")
    judge = Judge(tmp_path / "one.onnx", model, ({"x": DATA["x"][:40]},), find_ends(model))
    worse = model.clone()
    weight = next(v for v in worse.graph.initializers.values() if v.shape == (12, 6) or v.shape == (6, 12))
    weight.const_value = ir.tensor(-weight.const_value.numpy(), name=weight.name)
    assert judge.measure(worse).samples == judge.measure(model, least=Floor()).samples == 40
    assert judge.measure(worse, least=Floor()).samples == 4
    assert judge.measure(worse, least=Floor()).shortfall(Floor()) > 0


def test_far_below_is_three_times_the_changes_beyond_chance() -> None:
    decision = Decision(1, 10)
    for changed, far in ((0, False), (2, False), (8, True)):
        rows = np.ones((40, 2))
        rows[:changed, 0] = 0
        assert Judgement(40, {"y": 5.0}, {"y": rows}, {"y": decision}).is_far_below(Floor()) is far
    for db, far in ((18.0, False), (16.0, True)):
        assert Judgement(40, {"y": db}, {}, {}).is_far_below(Floor()) is far


def test_a_model_searched_for_by_margins_is_not_excused_by_chance() -> None:
    """Of many models tried on the same samples one comes out a standard error better than it is."""
    expected = np.where(np.arange(100) < 96, 1.0, 0.7)
    decision = decide_by(np.eye(100, 6, dtype=np.float32), OutputEnd("softmax", 1))
    assert decision is not None
    judgement = Judgement(100, {"y": 30.0}, {"y": np.ones((100, 2))}, {"y": decision}, {"y": expected})
    error = estimate_error(0.99, 100)
    assert expected.mean() < 0.99 < expected.mean() + error
    assert not judgement.misses(Floor())
    assert judgement.doubts(Floor())[0].startswith("98.8 % expected equal decisions of output 'y'")
    assert judgement.misses(Floor(), searched=True)[0].by == pytest.approx(
        0.2 + 0.5
    )  # half a point, less than the error
    assert error > 0.005
    many = Judgement(256, {"y": 30.0}, {"y": np.ones((256, 2))}, {"y": decision}, {"y": np.full(256, 0.9895)})
    assert many.misses(Floor())[0].by == pytest.approx(0.05)  # of as many as a calibration keeps nothing is chance
    assert judgement.summary() == "100 % equal decisions (98.8 % expected of others), 30.0 dB on 100 samples"
    few = Judgement(6, {"y": 90.0}, {"y": np.ones((6, 2))}, {"y": decision}, {"y": np.full(6, 1 - 1e-5)})
    assert not few.misses(Floor(), searched=True)  # nearly float: no six samples could hide one change in a hundred


def test_so_few_samples_are_said_though_all_of_them_are_equal() -> None:
    decision = decide_by(np.eye(24, 6, dtype=np.float32), OutputEnd("softmax", 1))
    assert decision is not None
    for count, low in ((7, 65), (15, 80), (16, None)):
        (said,) = Judgement(count, {"y": 40.0}, {"y": np.ones((count, 2))}, {"y": decision}).doubts(Floor()) or [""]
        assert said.startswith(f"judged on {count} samples alone, which leave {low} % equal decisions possible") is (
            low is not None
        )
        z = 1.959964  # Wilson's bound of n out of n is n / (n + z^2)
        assert low is None or round(100 * count / (count + z * z)) == low
    assert not Judgement(7, {"y": 40.0}, {}, {}).doubts(Floor())  # numbers alone: of few samples there are many


def test_on_few_samples_half_of_the_changes_that_the_floor_allows_are_proof_enough() -> None:
    decision = decide_by(np.eye(24, 6, dtype=np.float32), OutputEnd("softmax", 1))
    assert decision is not None
    for promised, held in ((0.9955, True), (0.9945, False)):
        expected = np.full(24, promised)
        judgement = Judgement(6, {"y": 30.0}, {"y": np.ones((6, 2))}, {"y": decision}, {"y": expected})
        assert (not judgement.misses(Floor(), searched=True)) is held


def test_a_short_stream_is_too_short_to_tell(tmp_path: Path) -> None:
    """Margins of thirteen steps that promise 97 % are a doubt, and of a hundred a finding."""
    decision = Decision(None, 2, 0.5)

    def judge(steps: int) -> Judgement:
        expected = np.full(steps, 0.97)
        return Judgement(
            steps, {"y": 30.0, "h": 40.0}, {"y": np.ones((steps, 2))}, {"y": decision}, {"y": expected}, {"h"}
        )

    assert not judge(13).misses(Floor())
    assert judge(13).doubts(Floor()) == [
        "97.0 % expected equal decisions of output 'y', where the floor is 99 %: 13 samples are too few to tell whether that is "
        "chance; give more with --data"
    ]
    assert judge(40).misses(Floor())  # more than one of them
    assert judge(13).misses(Floor(), searched=True)  # what was searched for is not excused
    assert [miss.output for miss in judge(100).misses(Floor())] == ["y"]

    net = Net(1)
    x, h = net.input("x", 8), net.input("h", 16)
    fed = net.dense(x, 8, 16)
    state = net.op("Tanh", net.op("Add", fed, net.op("MatMul", h, net.constant(net.normal(16, 16, size=0.25)))))
    y = net.op("Sigmoid", net.dense(net.op("Relu", net.dense(state, 16, 32)), 32, 1))
    net.output(y, state).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32))
    options = {"data": tmp_path / "d.npz", "states": [f"{state}=h"], "costs": "none", "output": tmp_path / "q.onnx"}
    report = quantize(tmp_path / "m.onnx", **options)  # type: ignore[arg-type]
    assert {node["op"] for node in report.values["nodes_float"]} <= {"Tanh", "Sigmoid"}
    assert any("samples are too few to tell" in text for text in report.warnings)


def test_what_holds_the_floor_is_as_it_was(tmp_path: Path) -> None:
    """On the same samples for its corrections a good model is the same with and without a judge, and the report says so."""
    path = cliff(tmp_path, 1.0)
    report = quantize(path, output=tmp_path / "a.onnx", data=tmp_path / "data.npz", costs="none")
    assert report.passed
    assert report.values["floor"]["held"]
    assert report.values["floor"]["samples"] == 32
    assert report.values["floor"]["unseen"]
    assert not report.values["floor"]["left_out"]
    assert any(line.startswith("judged: ") and line.endswith(" samples kept apart") for line in report.lines)


@pytest.mark.parametrize(("all_kept", "batch"), [(True, None), (False, None), (True, 5)])
def test_of_few_samples_those_that_are_judged_are_in_no_range(
    all_kept: bool, batch: int | None, tmp_path: Path
) -> None:
    """As if the data had never held them, whether they come from the calibration or are read again; in whole batches, too."""
    model = ir.load(cliff(tmp_path, 1.0))
    for value in model.graph.inputs if batch else ():
        value.shape = ir.Shape([batch, 12])
    ir.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "few.npz", x=DATA["x"][:30])
    source = open_source(tmp_path / "few.npz", input_specs(model))
    whole = observe(model, source, model_hash="net")
    tools, judged, unseen = split_samples(whole.groups, streams=False)
    assert unseen
    apart = _leave_out_judged(model, whole, whole.groups if all_kept else judged, judged, None if all_kept else source)
    np.savez(tmp_path / "tools.npz", **tools)
    alone = observe(model, open_source(tmp_path / "tools.npz", input_specs(model)), model_hash="net")
    assert apart is not None
    assert apart.seen.tolist() == whole.seen.tolist()
    assert to_bytes(replace(apart, seen=alone.seen, kept=alone.kept)) == to_bytes(alone)
    assert _leave_out_judged(model, whole, judged, judged, None) is None  # the others are not at hand


@pytest.mark.parametrize("count", [3, 30])
def test_of_few_samples_the_model_is_observed_on_those_that_are_in_ranges_alone(count: int, tmp_path: Path) -> None:
    """What is judged, and observed, is what it would be of a record of all; of three samples none is set aside."""
    model = ir.load(cliff(tmp_path, 1.0))
    np.savez(tmp_path / "few.npz", x=DATA["x"][:count])
    source = open_source(tmp_path / "few.npz", input_specs(model))
    whole = observe(model, source, model_hash="net")
    listed, groups = load_or_observe(model, (tmp_path / "net.onnx",), source, None, None)
    assert not listed.tensors
    apart = set_apart(model, listed, groups, source)
    expected = set_apart(model, whole, whole.groups, source)
    assert apart.unseen is expected.unseen is (count > 3)
    assert [group["x"].tolist() for group in apart.judged] == [group["x"].tolist() for group in expected.judged]
    assert to_bytes(replace(apart.calibration, model="net")) == to_bytes(
        replace(expected.calibration, format=listed.format)
    )


def test_of_large_samples_more_are_judged_than_a_calibration_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of all, whatever fits into a calibration; the tools' are the same as without."""
    monkeypatch.setattr("fcdeploy.samples.kept_samples.KEPT_BYTES", 1)
    model = ir.load(cliff(tmp_path, 1.0))
    np.savez(tmp_path / "few.npz", x=DATA["x"][:90])
    source = open_source(tmp_path / "few.npz", input_specs(model))
    whole, groups = load_or_observe(model, (tmp_path / "net.onnx",), source, None, None)
    kept, more = (set_apart(model, whole, groups, one) for one in (None, source))
    assert [sum(map(count_samples, apart.judged)) for apart in (kept, more)] == [KEPT_LEAST // 3, 30]
    assert np.array_equal(kept.tools["x"], more.tools["x"])
    rows = np.concatenate([more.tools["x"], *(group["x"] for group in more.judged)])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_weights_are_rounded_by_what_they_read_before_anything_leaves_int8(tmp_path: Path) -> None:
    """Inputs of plus and minus one lose nothing: all the error is that of weights, which read few directions."""
    net, random = Net(0), np.random.default_rng(0)
    net.output(net.op("Tanh", net.dense(net.input("x", 48), 48, 6))).save(tmp_path / "net.onnx")
    mix = random.normal(size=(6, 48))
    np.savez(tmp_path / "data.npz", x=np.sign(random.normal(size=(192, 6)) @ mix).astype(np.float32))
    reports, floor = [], 20.0
    for out in (tmp_path / "usual.onnx", tmp_path / "better.onnx"):
        asked = {"data": tmp_path / "data.npz", "costs": "none", "floor": f"99,{floor}"}
        reports.append(quantize(tmp_path / "net.onnx", output=out, **asked))
        floor = reports[0].values["sqnr_db"] + 0.5
    usual, better = reports
    assert better.passed
    assert better.values["sqnr_db"] > usual.values["sqnr_db"] + 2
    assert better.values["floor"]["left_out"] == []
    assert any(line.startswith("taken: weights rounded by what their layers read; ") for line in better.lines)


def test_rounding_that_misses_the_floor_in_the_end_is_left_out(tmp_path: Path) -> None:
    """Weights rounded for inputs of three directions are worse than the nearest ones for inputs of all."""
    net, random = Net(0), np.random.default_rng(0)
    file = net.output(net.op("Tanh", net.dense(net.input("x", 48), 48, 6))).save(tmp_path / "net.onnx")
    some = np.sign(random.normal(size=(32, 3)) @ random.normal(size=(3, 48))).astype(np.float32)
    others = np.sign(random.normal(size=(64, 48))).astype(np.float32)
    model = read_model(file)
    prepare(model)
    seen = observe(model, in_memory({"x": np.concatenate([some, others])}, model), model_hash="")
    of = {"samples": {"x": some}, "judged": ({"x": others},), "unseen": True}
    problem = Problem(file, model, seen, target=find_target("host"), ranges="mse", keep_float=(), **of)
    judge, plan = make_judge(problem), problem.plan()
    assert judge is not None
    usual = Candidate("", problem, plan, (int8 := problem.build(plan)), judge.measure(int8))
    (rounded,) = round_by_inputs(problem, usual, judge, None)
    builder = begin_building(problem, None)
    worse, better = rounded.judgement.worst_db, judge.measure(builder.model({})).worst_db
    assert worse < better - 1
    for least, taken, rounding in (((worse + better) / 2, better, False), (worse - 1, worse, True)):
        made, left = _carry_out(rounded, builder, PathStep((), {}, Score(0.0, 0.0, 0.0)), judge, Floor(0.99, least))
        assert (made.judgement.worst_db, left) == (taken, ())
        assert bool(made.plan.gptq_nodes) is rounding
        assert judge.measure(made.int8).worst_db == taken


def test_what_is_tried_by_price_and_by_place_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No split of this network holds the floor but everything in float, so that all ways are tried."""
    net = Net(0)
    x = net.op("Relu", net.dense(net.input("x", 12), 12, 16, name="a"))
    model = ir.from_proto(
        net.output(net.dense(net.op("Relu", net.dense(x, 16, 16, name="b")), 16, 6, name="c")).model()
    )
    prepare(model)
    seen = observe(model, in_memory(DATA, model), model_hash="")
    of = {"samples": DATA, "judged": (DATA,), "unseen": True, "effort": "fast"}
    problem = Problem(Path("net.onnx"), model, seen, target=find_target("host"), ranges="mse", keep_float=(), **of)
    judge = Judge(model, model, [DATA], {})
    built = list[frozenset[tuple[str, str]]]()
    build = Builder.model
    builder = begin_building(problem, None)
    monkeypatch.setattr(
        Builder, "model", lambda self, forms: built.append(frozenset(forms.items())) or build(self, forms)
    )
    step = _find_cheapest(builder, judge, Floor(0.99, 60.0), None)
    assert step.score.drop == 0
    built = [forms for forms in built if forms]
    assert len(built) == len(set(built)) > 3


def test_ranges_that_fit_are_taken(tmp_path: Path) -> None:
    """Rare large values that no weight reads: least squared error keeps them all the same, and loses what is read."""
    net, random = Net(0), np.random.default_rng(0)
    weight = random.normal(size=(12, 6)).astype(np.float32)
    weight[0] = 0
    net.output(net.op("MatMul", net.input("x", 12), net.constant(weight))).save(tmp_path / "net.onnx")
    data = random.normal(size=(960, 12)).astype(np.float32)
    data[::320, 0] = 60
    np.savez(tmp_path / "data.npz", x=data)
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none"}
    chosen = quantize(tmp_path / "net.onnx", output=tmp_path / "chosen.onnx", **options)
    quantize(tmp_path / "net.onnx", output=tmp_path / "usual.onnx", ranges="mse", floor="none", **options)
    f, *others = (Session(tmp_path / f"{name}.onnx").run({"x": data})[0] for name in ("net", "chosen", "usual"))
    better, usual = (measure_fidelity(f, q).sqnr_db for q in others)
    assert better > usual + 1, "clipping must help this network"
    assert any(line.startswith("taken: ") and " ranges" in line for line in chosen.lines)
    assert not chosen.values["floor"]["left_out"]


def test_channels_that_share_a_scale_are_rescaled_where_that_helps(tmp_path: Path) -> None:
    """Channels up to 16 times larger than others, all of the same weight in the result; the plan gives the same bytes again."""
    net, sizes = Net(0), np.geomspace(1 / 4, 4, 24, dtype=np.float32)
    first, last = (net.random.normal(size=shape).astype(np.float32) for shape in ((12, 24), (24, 6)))
    hidden = net.op("Relu", net.op("MatMul", net.input("x", 12), net.constant(first * sizes)))
    net.output(net.op("MatMul", hidden, net.constant(last / sizes[:, None]))).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 192, x=(12,)))
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none"}
    chosen = quantize(
        tmp_path / "net.onnx", output=tmp_path / "chosen.onnx", save_plan=tmp_path / "plan.json", **options
    )
    quantize(tmp_path / "net.onnx", output=tmp_path / "usual.onnx", floor="none", **options)
    data = random_data(1, 400, x=(12,))
    f, *others = (Session(tmp_path / f"{name}.onnx").run(data)[0] for name in ("net", "chosen", "usual"))
    better, usual = (measure_fidelity(f, q).sqnr_db for q in others)
    assert better > usual + 3
    assert any(line.startswith("taken: ") and "channels rescaled" in line for line in chosen.lines)
    quantize(
        tmp_path / "net.onnx", output=tmp_path / "again.onnx", plan=tmp_path / "plan.json", data=tmp_path / "data.npz"
    )
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "chosen.onnx").read_bytes()


def test_a_cliff_is_left_in_float_or_refused(tmp_path: Path) -> None:
    path = cliff(tmp_path, 3000.0)
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none", "force": True}
    bare = quantize(path, output=tmp_path / "bare.onnx", floor="none", **options)
    f, q = (Session(file).run(DATA)[0] for file in (path, tmp_path / "bare.onnx"))
    assert np.mean(f.argmax(axis=1) == q.argmax(axis=1)) < 0.9, "the network was to have a cliff"
    assert "floor" not in bare.values

    held = quantize(path, output=tmp_path / "held.onnx", **options)
    assert held.passed
    assert held.values["floor"]["left_out"]
    q = Session(tmp_path / "held.onnx").run(DATA)[0]
    assert np.mean(f.argmax(axis=1) == q.argmax(axis=1)) > 0.98
    again = quantize(path, output=tmp_path / "again.onnx", **options)
    assert again.values["floor"] == held.values["floor"]
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "held.onnx").read_bytes()

    refused = quantize(path, output=tmp_path / "no.onnx", effort="fast", **options)  # which repairs nothing
    assert not refused.passed
    assert refused.advice.startswith("not written: ")
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.parametrize("normalised", [True, False])
def test_columns_of_a_table_that_are_thousands_of_times_apart_hold_the_floor(normalised: bool, tmp_path: Path) -> None:
    """Normalised inside the network they stay apart from the layer that reads them; taken up by its weights, these stay float."""
    net, sizes = Net(0), np.logspace(-4.5, 4.5, 12).astype(np.float32)
    first = net.normal(12, 16, size=0.4)
    x = net.input("x", 12)
    if normalised:
        x = net.op("Div", x, net.constant(sizes))
    else:
        first /= sizes[:, None]
    hidden = net.op("Relu", net.op("MatMul", x, net.constant(first)))
    net.output(net.dense(hidden, 16, 6)).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=DATA["x"] * sizes)
    held = quantize(tmp_path / "net.onnx", output=tmp_path / "q.onnx", data=tmp_path / "data.npz", costs="none")
    assert held.passed
    assert len(held.values["floor"].get("left_out", ())) == (0 if normalised else 2)
    f, q = (Session(tmp_path / file).run({"x": DATA["x"] * sizes})[0] for file in ("net.onnx", "q.onnx"))
    assert np.mean(f.argmax(axis=1) == q.argmax(axis=1)) > 0.98
    rounded = [
        value for value in read_model(tmp_path / "q.onnx").graph.initializers.values() if value.shape == (12, 16)
    ]
    assert [value.dtype for value in rounded] == [ir.DataType.INT8 if normalised else ir.DataType.FLOAT]


def test_a_mixture_that_is_slower_than_float_gives_way_to_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a measurement that this test makes up: of two files that hold the floor, the slower one is no choice."""
    path = cliff(tmp_path, 3000.0)
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none", "force": True}
    mixed = quantize(path, output=tmp_path / "mixed.onnx", **options)
    monkeypatch.setattr("fcdeploy.search.hold_floor.is_slower", lambda *_: True)
    floats = quantize(path, output=tmp_path / "floats.onnx", **options)
    assert 0 < len(mixed.values["floor"]["left_out"]) < len(floats.values["floor"]["left_out"])
    assert (floats.values["nodes_int8"], floats.passed) == ([], True)


@pytest.mark.parametrize("of_weights", [False, True])
def test_what_rounded_weights_do_alone_tells_whether_they_are_the_cause(of_weights: bool, tmp_path: Path) -> None:
    """A convolution of three channels, which the kernel pads to four: weights of one size lose nothing, sizes of inputs do."""
    net, random = Net(0), np.random.default_rng(0)
    drawn = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    weight = net.constant(drawn if of_weights else np.sign(drawn))
    hidden = net.op("Relu", net.op("Conv", net.input("x", 3, 8, 8), weight, pads=[1, 1, 1, 1]))
    net.output(net.op("Tanh", net.conv(hidden, 8, 4))).save(tmp_path / "net.onnx")
    file = tmp_path / "net.onnx"
    model = read_model(file)
    prepare(model)
    x = np.sign(random.normal(size=(48, 3, 8, 8))).astype(np.float32)
    x *= 1.0 if of_weights else random.choice([1.0, 300.0], size=(48, 1, 1, 1), p=[0.9, 0.1]).astype(np.float32)
    seen = observe(model, in_memory({"x": x}, model), model_hash="")
    of = {"samples": {"x": x[:32]}, "judged": ({"x": x[32:]},), "unseen": True}
    problem = Problem(file, model, seen, target=find_target("host"), ranges="minmax", keep_float=(), **of)
    judge, plan = make_judge(problem), problem.plan()
    assert judge is not None
    int8 = problem.build(plan)
    assert is_of_weights(Candidate("", problem, plan, int8, judge.measure(int8)), judge) is of_weights


def test_weights_are_not_rounded_again_for_an_error_of_activations(tmp_path: Path) -> None:
    """Weights of plus and minus one lose nothing; one channel that nothing reads takes the scale of the others."""
    net, random = Net(0), np.random.default_rng(0)
    weight = np.sign(random.normal(size=(12, 6))).astype(np.float32)
    weight[0] = 0.0
    net.output(net.op("Tanh", net.op("MatMul", net.input("x", 12), net.constant(weight)))).save(tmp_path / "net.onnx")
    wide = np.where(np.arange(12) == 0, 3000.0, 1.0).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=DATA["x"] * wide)
    held = quantize(tmp_path / "net.onnx", output=tmp_path / "a.onnx", data=tmp_path / "data.npz", costs="none")
    assert held.passed
    assert held.values["floor"]["left_out"]
    assert held.values["floor"]["tried"][0]["sqnr_db"] < 20
    assert not any("weights rounded" in each["what"] for each in held.values["floor"]["tried"])


def test_the_command_line_says_no_and_takes_it_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cliff(tmp_path, 3000.0)
    command = [
        "quantize",
        "net.onnx",
        "--int8",
        "--data",
        "data.npz",
        "--costs",
        "none",
        "--effort",
        "fast",
        "-o",
        "q.onnx",
    ]
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("not written: ")
    assert not Path("q.onnx").exists()
    assert main([*command, "--accept", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["floor"]["held"]
    assert any(warning.startswith("below the floor, and accepted: ") for warning in said["warnings"])
    assert Path("q.onnx").exists()


@pytest.mark.parametrize("text", ["101", "-1", "x", "99,", "99,x", "99,20,3", "nan", ""])
def test_a_floor_that_is_none(text: str) -> None:
    if text == "99,":
        assert parse_floor(text) == Floor(0.99)
        return
    with fails(f"--floor {text!r} is not PERCENT, PERCENT,DECIBELS or none", "--floor 99,20"):
        parse_floor(text)


def test_floors() -> None:
    assert parse_floor(None) == Floor(0.99, 20.0)
    assert parse_floor("98,25") == Floor(0.98, 25.0)
    assert parse_floor(99) == Floor(0.99, 20.0)
    assert parse_floor("none") is None
