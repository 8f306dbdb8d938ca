"""What is said of a loss: the advice on top, the few worst rows, what comes back and for how much time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from error_sources import batch, spoil, top1
from networks import Net, quantize_net, random_data
from small_models import outputs, quantized, residual, samples

from fcdeploy.arithmetic.metrics import Fidelity
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.loss import Loss
from fcdeploy.evaluate.metric import SHARE, Metric, take_mean
from fcdeploy.evaluate.rounding_error import RoundingError
from fcdeploy.graph.model import read_model
from fcdeploy.records.report import Report
from fcdeploy.reporting.sensitivity import make_sensitivity_tables, shorten
from fcdeploy.runtime.paired_timing import Ratio
from fcdeploy.sensitivity.ablation import leave_unrounded
from fcdeploy.sensitivity.advice import advise, describe_source
from fcdeploy.sensitivity.analysis import add_advice, analyze_sensitivity, read_effort
from fcdeploy.sensitivity.error_sources import ErrorSource, find_sources
from fcdeploy.sensitivity.groups import FloatGroup, Remedy, choose_groups
from fcdeploy.sensitivity.rank import Ranking, SourceCost

TOP1 = Metric("top1", "y", "", SHARE, None, take_mean)
LOST = Loss(0.9, 0.88, 2.0, 1.0, 3.0, 0.01)
NOISE = Loss(0.9, 0.89, 1.0, -1.0, 3.0, 0.4)


def source(name: str, *nodes: str, kind: Any = "tensor") -> ErrorSource:
    return ErrorSource(name, kind, nodes[0], "Conv", nodes, 0.1, (f"{name}/q",))


def cost(name: str, share: float, *nodes: str, kind: Any = "tensor") -> SourceCost:
    return SourceCost(source(name, *(nodes or (name,)), kind=kind), share, share - 0.05, share + 0.05, None)


def ranking(*costs: SourceCost, left: int = 0) -> Ranking:
    return Ranking(costs, (), tuple(source(f"l{i}", "l") for i in range(left)), {}, 64)


def remedy(of: SourceCost, share: float, back: float | None = None) -> Remedy:
    loss = None if back is None else Loss(0.9, 0.9 - back / 100, back, back - 0.5, back + 0.5, 0.01)
    group = FloatGroup(of.source.group, 0.1, of, (of.source,))
    return Remedy(group, share, share - 0.05, share + 0.05, loss, Ratio(1.04, 1.0, 1.1))


def read_advice(**given: Any) -> str:
    """The sentence; the rounding that it names is the culprit, and there is none where it names none."""
    advice = advise(**given)
    names = {cost.source: describe_source(cost.source) for cost in given["ranking"].costs}
    named = [source for source, name in names.items() if f" {name} " in advice.text]
    assert named == ([] if advice.culprit is None else [advice.culprit.source])
    return advice.text


def said(*rows: Remedy, loss: Loss | None = LOST, metric: Metric | None = TOP1, **options: Any) -> str:
    given: dict[str, Any] = {"sqnr_db": 20.0, "ranges": {}, "effort": "balanced"}
    answers = Answers(metric, None, samples=500)
    return read_advice(
        answers=answers,
        loss=loss,
        ranking=ranking(*(row.group.cost for row in rows)),
        rows=rows,
        **{**given, **options},
    )


STEM = cost("relu", 0.6, "stem", "a b")
SPREAD = cost("relu", 0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said(remedy(STEM, 0.6, 1.5)),
         "float around the output of stem brings back 1.50 points for 1.04 of the time here: "
         "fcdeploy quantize ... --keep-float stem --keep-float 'a b'"),
        (said(remedy(STEM, 0.6, 0.2)),
         "float around the output of stem takes away 60 % of the error for 1.04 of the time here: "
         "fcdeploy quantize ... --keep-float stem --keep-float 'a b'"),
        (said(remedy(STEM, 0.6), metric=None, loss=None),
         "float around the output of stem takes away 60 % of the error for 1.04 of the time here: "
         "fcdeploy quantize ... --keep-float stem --keep-float 'a b'"),
        (said(remedy(STEM, 0.6, 1.5), loss=NOISE),
         "no change needed: the drop of 1.00 points is no more than chance on 500 samples, 95 % interval -1.00 to 3.00"),
        (said(remedy(STEM, 0.6, 1.5), loss=Loss(0.9, 0.9, 0.0, -1.0, 1.0, 1.0)),
         "no change needed: int8 is no worse than float on 500 samples"),
        (said(remedy(STEM, 0.6, 1.5), loss=Loss(0.9, 0.8, 10.0, None, None, 1.0)),
         "no change needed: one sample cannot tell the drop of 10.00 points from chance"),
        (said(remedy(STEM, 0.6), metric=Metric("agreement", "y", "", SHARE, None, take_mean),
              loss=Loss(1, 1, 0.0, 0.0, 0.7, None)),
         "no change needed: all decisions on 500 samples are float's"),
        (said(remedy(SPREAD, 0.1)),
         "no single rounding makes more than 10 % of the error, so it takes better rounding everywhere: "
         "fcdeploy quantize ... --effort best"),
        (said(remedy(SPREAD, 0.1), effort="best"),
         "leaving nodes in float gains nothing: no single rounding makes more than 10 % of the error; "
         "--activations int16 rounds finer, without the speed"),
        (said(remedy(SPREAD, 0.1), metric=None, loss=None, sqnr_db=41.2),
         "no change needed: the outputs match float's to 41.2 dB, and no single rounding makes more than 10 % of the error"),
        (said(remedy(STEM, 0.6, 1.5), saturates=True),
         "byte products saturate on this CPU, which costs more than rounding: fcdeploy quantize ... --target x86-avx2"),
        (said(), "no change needed: nothing in this model is rounded to few bits"),
        (said(remedy(STEM, 0.6, 1.5),
              ranges={STEM.source: RoundingError(Fidelity(noise=10.0, count=1000), 8.0, 30, 0, 255, 255)}),
         "3.00 % of the output of stem lies outside its range, and rounding it makes 60 % of the error: "
         "fcdeploy quantize ... --ranges minmax, or more data to calibrate on"),
        (said(remedy(STEM, 0.6, 1.5), ranges={STEM.source: RoundingError(Fidelity(noise=10.0, count=1000), 1.0, 1, 0, 255, 255)}),
         "float around the output of stem brings back 1.50 points for 1.04 of the time here: "
         "fcdeploy quantize ... --keep-float stem --keep-float 'a b'"),
    ],
)  # fmt: skip
def test_advice(text: str, expected: str) -> None:
    assert text == expected


def test_advice_says_how_far_the_ranking_went() -> None:
    """A rounding that stands out by chance alone is named with its interval; what was not tried is not spoken of."""
    given: dict[str, Any] = {"answers": Answers(TOP1, None, samples=500), "loss": LOST, "sqnr_db": 20.0, "ranges": {}}
    unsure = Remedy(FloatGroup(("stem",), 0.1, STEM, (STEM.source,)), 0.6, -0.1, 1.3, None, None)
    named = "rounding the output of stem makes 60 % of the error (95 % interval 55 to 65 %, 64 samples), "
    text = read_advice(ranking=ranking(STEM), rows=[unsure], effort="fast", **given)
    assert text == (
        f"{named}and float around it is no sure gain; to round better everywhere: fcdeploy quantize ... --effort best"
    )
    text = read_advice(ranking=ranking(STEM), rows=[unsure], effort="best", **given)
    assert text == f"{named}and float around it is no sure gain; --activations int16 rounds finer, without the speed"
    sure = remedy(SPREAD, 0.3)
    text = read_advice(ranking=ranking(STEM, SPREAD), rows=[unsure, sure], effort="best", **given)
    assert text.endswith(
        "takes away 30 % of the error for 1.04 of the time here: fcdeploy quantize ... --keep-float relu"
    )
    text = read_advice(ranking=ranking(SPREAD, left=3), rows=[], effort="fast", **given)
    assert text.startswith("no single rounding of the 1 tried makes more than 10 % of the error, so it takes")
    unknown = Ranking((), (STEM.source,), (), {}, 64)
    assert read_advice(ranking=unknown, rows=[], **given) == (
        "what rounding costs is not known: give --against the float model that this one was made from"
    )


def test_with_labels_the_metric_ranks(spoilt: tuple[Path, Path, Path]) -> None:
    float_model, int8 = read_model(spoilt[1]), read_model(spoilt[0])
    with np.load(spoilt[2] / "labelled.npz") as data:
        batches = [batch(data["x"], label=data["label"])]
    found = analyze_sensitivity(int8, [float_model], lambda _: batches, top1, timed=False).ranking
    assert found.costs[0].source.name == "r2"
    assert found.costs[0].takes > 0
    order = [(-each.takes, -each.share) for each in found.costs]
    assert order == sorted(order)
    assert all(each.loss is not None for each in found.costs)
    alone = analyze_sensitivity(int8, [float_model], lambda _: batches, None, timed=False).ranking
    assert {each.loss for each in alone.costs} == {None}


def test_a_group_undoes_what_lies_inside_it() -> None:
    """Each set of nodes once; a source that costs nothing asks for no group."""
    inside = [
        cost("w1", 0.2, "a", kind="weights"),
        cost("w2", 0.1, "b", kind="weights"),
        cost("w3", -0.1, "c", kind="weights"),
    ]
    outer, same = cost("t", 0.5, "a", "b"), cost("other", 0.3, "b", "a")
    found = [each.source for each in (*inside, outer, same)]
    made = choose_groups(ranking(outer, same, *inside), found, 9)
    assert [group.nodes for group in made] == [("a", "b"), ("a",), ("b",)]
    assert {s.name for s in made[0].undone} == {"w1", "w2", "t", "other"}
    assert made[1].undone == (found[0],)
    assert [group.nodes for group in choose_groups(ranking(outer, same, *inside), found, 1)] == [("a", "b")]


def test_rows_fit_in_80_columns_and_are_few() -> None:
    long = [cost("t", 0.9, f"backbone.stage{i}.very.long.block.name.conv2", "next") for i in range(12)]
    few, back = make_sensitivity_tables(ranking(*long), [remedy(each, 0.5, 1.5) for each in long[:4]], TOP1, {}, {})
    assert len(few.rows) == 6
    for table in (few, back):
        widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
        assert sum(widths) + 3 * (len(widths) - 1) <= 80
    assert shorten("abcdefgh", 5) == "…efgh"
    assert shorten("abcde", 5) == "abcde"


@pytest.mark.parametrize(
    ("text", "effort"),
    [
        ('{"effort": "best"}', "best"),
        ("{}", None),
        ("[1]", None),
        ("{", None),
        ("[" * 100_000, None),
        ('{"effort": 3}', None),
    ],
)
def test_effort_is_read_from_metadata_of_any_kind(text: str, effort: str | None) -> None:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=8)
    model.metadata_props["fcdeploy"] = text
    assert read_effort(model) == effort


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An int8 model one tensor of which is far too coarse, its float model, and labels by the latter."""
    folder = tmp_path_factory.mktemp("spoilt")
    path = residual(folder / "float.onnx")
    model = read_model(quantized(path, samples(64, 3, 8, 8), folder / "int8.onnx"))
    (coarse,) = (each for each in find_sources(model) if each.name == "r2")
    spoil(model, coarse, 500)
    ir.save(model, folder / "spoilt.onnx")
    x = samples(96, 3, 8, 8, seed=1)
    np.savez(folder / "labelled.npz", x=x, label=outputs(path, x).argmax(1))
    np.savez(folder / "plain.npz", x=x)
    return folder / "spoilt.onnx", path, folder


def test_validate_names_the_group_and_the_command(spoilt: tuple[Path, Path, Path]) -> None:
    """Three nodes around the tensor; what comes back is what is lost, and the time is a measured ratio."""
    int8, float_model, folder = spoilt
    report = validate(int8, against=float_model, data=folder / "labelled.npz", layers=True)
    assert report.values["drop_low"] > 0
    first = report.values["groups"][0]
    assert (first["source"], first["kind"], first["nodes"]) == ("r2", "tensor", ["add", "conv3"])
    assert first["drop"] == pytest.approx(report.values["drop"], abs=2)
    assert first["drop_low"] <= first["drop"] <= first["drop_high"]
    assert 0 < first["time_low"] <= first["time"] <= first["time_high"]
    assert first["error"] > 0.9
    assert 0 < first["range_used"] < 0.1
    assert first["clipped"] == 0
    assert first["sqnr_db"] < 10
    assert first["pair_margin"] > 0
    back, command = report.advice.split(": ")
    assert command == "fcdeploy quantize ... --keep-float add --keep-float conv3"
    assert re.fullmatch(
        r"float around the output of add brings back \d+\.\d\d points for \d\.\d\d of the time here", back
    )
    assert report.values["advice"] == report.advice
    assert list(report.values["groups"][-1]) == list(first)
    assert {row["source"] for row in report.values["groups"]} == {each.name for each in find_sources(read_model(int8))}


def test_without_labels_the_error_of_the_outputs_ranks(spoilt: tuple[Path, Path, Path]) -> None:
    int8, float_model, folder = spoilt
    report = validate(int8, against=float_model, data=folder / "plain.npz", layers=True)
    assert report.values["groups"][0]["source"] == "r2"
    assert report.values["groups"][0]["drop"] is None
    assert report.values["groups"][0]["back"] > 0.9
    assert report.advice.startswith("float around the output of add takes away ")
    assert report.advice.endswith("of the time here: fcdeploy quantize ... --keep-float add --keep-float conv3")
    assert report.tables[-1].columns == ("nodes in float", "error gone", "int8 time")


def test_clipping_is_answered_with_ranges(tmp_path: Path) -> None:
    """Data five times larger than what was calibrated on: wider ranges, not float."""
    path = residual(tmp_path / "float.onnx")
    int8 = quantized(path, samples(64, 3, 8, 8), tmp_path / "int8.onnx")
    np.savez(tmp_path / "large.npz", x=5 * samples(64, 3, 8, 8, seed=1))
    report = validate(int8, against=path, data=tmp_path / "large.npz", layers=True)
    assert report.advice.endswith("of the error: fcdeploy quantize ... --ranges minmax, or more data to calibrate on")
    assert report.values["groups"][0]["clipped"] > 0.1


def test_quantizing_begins_with_advice(tmp_path: Path) -> None:
    """Outputs that are near enough need none, and effort fast does not look."""
    np.savez(tmp_path / "data.npz", x=samples(64, 3, 8, 8))
    path = residual(tmp_path / "float.onnx")
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "costs": "none", "floor": "none", "force": True}
    report = quantize(path, output=tmp_path / "out.onnx", **options)
    assert report.values["advice"] == report.advice
    db = report.values["sqnr_db"]
    x = np.load(tmp_path / "data.npz")["x"]
    exact, rounded = (outputs(each, x).astype(float) for each in (path, tmp_path / "out.onnx"))
    assert db == pytest.approx(
        10 * np.log10((exact**2).sum() / ((exact - rounded) ** 2).sum()), abs=0.5
    )  # those kept apart
    assert report.advice == f"no change needed: the outputs match float's to {db:.1f} dB"
    judged = quantize(path, output=tmp_path / "out.onnx", **{**options, "floor": "99,20"})
    (line,) = [line for line in judged.lines if line.startswith("judged: ")]
    said = float(re.search(r"to (\S+) dB", judged.advice)[1])  # type: ignore[index]
    assert said <= float(re.search(r"(\S+) dB", line)[1])  # type: ignore[index]
    fast = quantize(path, output=tmp_path / "out.onnx", effort="fast", **options)
    assert fast.advice == ""
    assert "advice" not in fast.values


def test_a_model_just_quantized_badly_is_explained(
    spoilt: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coarse tensor is named; where time is up before anything stands out, no more is said than was tried."""
    float_model, int8 = read_model(spoilt[1]), read_model(spoilt[0])
    data = {"x": samples(48, 3, 8, 8, seed=4)}
    begun = Report("quantize", {"output": "out.onnx"})
    report = add_advice(begun, int8, float_model, data, "balanced")
    assert report.advice.startswith("float around the output of add takes away ")
    assert report.advice.endswith("% of the error: fcdeploy quantize ... --keep-float add --keep-float conv3")
    assert report.values["sqnr_db"] < 20
    assert add_advice(begun, int8, float_model, data, "balanced", 60.0).values["sqnr_db"] == report.values["sqnr_db"]
    assert add_advice(begun, int8, float_model, data, "balanced", -3.0).values["sqnr_db"] == -3.0
    assert list(report.values) == ["output", "advice", "sqnr_db"]
    (coarse,) = (each for each in find_sources(int8) if each.name == "r2")
    even = leave_unrounded(int8, [float_model], coarse)
    spoil(even, next(each for each in find_sources(even) if each.name == "c2"), 4)
    monkeypatch.setattr("fcdeploy.sensitivity.analysis.EXACT_ENOUGH_DB", 400.0)
    monkeypatch.setattr("fcdeploy.sensitivity.analysis.STANDS_OUT", 2.0)
    monkeypatch.setattr("fcdeploy.sensitivity.analysis.BRIEF_SECONDS", 0.0)
    text = add_advice(begun, even, float_model, data, "balanced").advice
    assert re.fullmatch(r"the outputs match float's to 3\d\.\d dB; fcdeploy validate --layers tells .*", text)
    text = add_advice(begun, even, float_model, data, "best").advice
    assert re.fullmatch(
        r"the outputs match float's to \d+\.\d dB: 1 of \d+ roundings were left out one at a time, and none stands out; "
        r"fcdeploy validate --layers looks at all", text,
    )  # fmt: skip
    assert add_advice(begun, int8, float_model, {}, "balanced") is begun
    assert add_advice(begun, float_model, float_model, data, "balanced") is begun


def test_nodes_of_a_group_are_nodes_of_the_float_model() -> None:
    """Not the border that gives a kernel more channels, nor what holds a float layer in float: --keep-float knows neither."""
    net = Net(1)
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="stem"))
    y = net.op("Relu", net.conv(x, 8, 8, name="middle"))
    y = net.op("MaxPool", net.conv(y, 8, 8, name="after"), kernel_shape=[2, 2], strides=[2, 2])
    net.output(net.dense(net.op("Flatten", y), 128, 4, name="last"))
    line = quantize_net(net, random_data(0, 16, x=(3, 8, 8)), keep_float=["middle"])
    names = {node.name for node in line.prepared.graph}
    found = find_sources(line.int8)
    assert any("held" in (node.name or "") for node in line.int8.graph)
    assert any(node.op_type == "Pad" for node in line.int8.graph)
    assert {name for each in found for name in each.group} <= names
    assert {each.node for each in found} <= names | {""}
    assert ("after", "last") in {each.group for each in found}
