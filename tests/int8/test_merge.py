"""Merging calibrations: any cut, any order, any grouping gives the file of one run; what does not go together is said."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails, run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Arrays, Net, random_data
from recordings import any_shapes, free_size, images, model_of, record

from fcdeploy.int8.calibrating.merge import merge
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.calibration import Calibration, Histogram, read, to_bytes
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples import kept_samples
from fcdeploy.samples.kept_samples import SmallestSamples, hash_sample, merge_kept

COUNT = 24
DATA = random_data(0, COUNT, a=(4, 8, 8), b=(4, 8, 8))


@functools.cache
def parts() -> tuple[Calibration, ...]:
    """One calibration of each sample alone; a few of the samples are there twice."""
    model = model_of(images(Net(0)))
    twice = {name: np.concatenate([array, array[:3]]) for name, array in DATA.items()}
    return tuple(record(model, cut(twice, [i])) for i in range(COUNT + 3))


def cut(data: Arrays, chosen: list[int]) -> Arrays:
    return {name: array[chosen] for name, array in data.items()}


@functools.cache
def whole() -> bytes:
    return to_bytes(functools.reduce(merge, parts()))


def test_the_sum_of_single_samples_is_one_run() -> None:
    model = model_of(images(Net(0)))
    twice = {name: np.concatenate([array, array[:3]]) for name, array in DATA.items()}
    assert to_bytes(record(model, twice)) == whole()


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(COUNT + 3)), st.data())
def test_any_order_and_any_grouping_give_the_same_file(order: list[int], data: st.DataObject) -> None:
    """Two neighbours at a time, drawn: every tree of merges over every order can come out."""
    row = [parts()[i] for i in order]
    while len(row) > 1:
        at = data.draw(st.integers(0, len(row) - 2))
        row[at : at + 2] = [merge(row[at], row[at + 1])]
    assert to_bytes(row[0]) == whole()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([(6, 6), (9, 5), (4, 12), (20, 3)]), min_size=2, max_size=9), st.randoms())
def test_samples_of_any_shapes_merge_too(sizes: list[tuple[int, int]], random: object) -> None:
    model = shapeless()
    numbers = np.random.default_rng(len(sizes))
    samples = [{"x": numbers.normal(size=(3, h, w)).astype(np.float32)} for h, w in sizes]
    single = [observe(model, any_shapes(model, [sample]), model_hash="hash") for sample in samples]
    random.shuffle(single)  # type: ignore[attr-defined]
    one = observe(model, any_shapes(model, samples), model_hash="hash", batch=2)
    assert to_bytes(functools.reduce(merge, single)) == to_bytes(one)
    assert sum(len(group["x"]) for group in one.groups) == len(samples)


@functools.cache
def shapeless() -> ir.Model:
    return model_of(free_size(Net(0)))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.data())
def test_kept_samples_follow_from_the_parts_alone(sizes: list[int], data: st.DataObject) -> None:
    """With limits so small that nearly every draw exceeds them, and samples of every size."""
    limits = {"KEPT_BYTES": 1600, "KEPT_LEAST": 2, "KEPT_MOST": 9}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(kept_samples, name, value)
        samples = [{"x": np.full(size, i % 30, np.float32)} for i, size in enumerate(sizes)]
        owner = data.draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
        shards = [[s for s, o in zip(samples, owner, strict=True) if o == k] for k in range(3)]
        parts = [(rows(shard), np.array([hash_sample(s) for s in shard], np.uint64)) for shard in shards]
        for order in itertools.permutations(parts):
            assert same_groups(merge_kept(*order), rows(samples))


def rows(samples: object) -> tuple[Arrays, ...]:
    smallest = SmallestSamples()
    for sample in samples:  # type: ignore[attr-defined]
        smallest.offer(hash_sample(sample), sample)
    return smallest.groups()


def same_groups(a: tuple[Arrays, ...], b: tuple[Arrays, ...]) -> bool:
    return [g["x"].tolist() for g in a] == [g["x"].tolist() for g in b]


def test_a_calibration_of_no_samples_adds_nothing() -> None:
    one = parts()[0]
    none = replace(one, seen=one.seen[:0], kept={}, tensors={})
    assert merge(one, none) is one
    assert merge(none, one) is one


def test_where_one_keeps_no_samples_the_sum_keeps_none() -> None:
    a, b = parts()[:2]
    bare = replace(b, kept={})
    assert merge(a, bare).kept == {}
    assert to_bytes(merge(a, bare)) == to_bytes(merge(bare, a))


def test_different_makers_are_both_named_in_any_order() -> None:
    a, b, c = (replace(p, made_by={"cpu": cpu, "onnxruntime": "1"}) for p, cpu in zip(parts(), "zxy", strict=False))
    found = merge(merge(a, b), c)
    assert found.made_by == {"cpu": "x + y + z", "onnxruntime": "1"}
    assert to_bytes(found) == to_bytes(merge(a, merge(c, b)))


def test_other_states_and_axes_are_refused() -> None:
    a, b = parts()[:2]
    for other in (replace(b, states={"in": "out"}), replace(b, axes={"in": None})):
        for pair in ((a, other), (other, a)):
            with fails("the calibrations have different states and batch axes"):
                merge(*pair)


def test_ranges_measured_elsewhere_cannot_be_added() -> None:
    a, b = parts()[:2]
    with fails("holds ranges that were measured elsewhere (TensorRT), which have no histograms", "fcdeploy calibrate"):
        merge(a, replace(b, made_by={"imported": "TensorRT"}))


def test_other_models_and_other_tensors_are_refused() -> None:
    a, b = parts()[:2]
    with fails("one calibration is of model hash, the other of other, expected one model", "show"):
        merge(a, replace(b, model="other"))
    fewer = replace(b, tensors={name: record for name, record in b.tensors.items() if name != "a"})
    with fails("only one of the calibrations has tensor 'a'", "--all-tensors"):
        merge(a, fewer)


def test_samples_that_were_read_otherwise_are_refused_with_what_differs() -> None:
    a, b = parts()[:2]
    spec = TensorSpec("a", np.dtype(np.float32), (None, 3, 8, 8))
    plain, scaled, timm = (read_preprocessing(name, spec) for name in (None, "scale-0-1", "timm"))
    cases = (
        (
            DataFormat(timm),
            DataFormat(scaled),
            f"preprocessing is {timm.describe()!r} in one and {scaled.describe()!r}",
        ),
        (DataFormat(timm), DataFormat(), f"preprocessing is {timm.describe()!r} in one and 'none' in the other"),
        (
            DataFormat(replace(plain, name="scale-0-1")),
            DataFormat(scaled),
            f"preprocessing is '{scaled.describe()} (resize and numbers assumed)' in one and {scaled.describe()!r}",
        ),
        (DataFormat(classes=("cat",)), DataFormat(classes=("cat", "dog")), "one has 1 classes and the other 2"),
        (
            DataFormat(classes=("ant", "cat")),
            DataFormat(classes=("ant", "dog")),
            "of the classes number 1 is 'cat' in one and 'dog' in the other",
        ),
        (
            DataFormat(columns=("a", "b")),
            DataFormat(columns=("b", "a")),
            "of the columns number 0 is 'a' in one and 'b' in the other",
        ),
        (
            DataFormat(label="kind", columns=("a",)),
            DataFormat(columns=("a",)),
            "the column of labels is 'kind' in one and 'label' in the other",
        ),
    )
    for one, other, text in cases:
        with fails(f"the calibrations read their samples otherwise: {text}", "--preprocess and --classes"):
            merge(replace(a, format=one), replace(b, format=other))
        assert merge(replace(a, format=one), replace(b, format=one)).format == one


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, part in zip(("a.calib", "b.calib", "c.calib"), parts(), strict=False):
        Path(name).write_bytes(to_bytes(part))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_the_command_writes_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_command(capsys, "calibration", "merge", "a.calib", "b.calib", "c.calib", "-o", "abc.calib")
    assert (code, err) == (0, "")
    assert out == f"3 files, 3 samples, {len(parts()[0].tensors)} tensors -> abc.calib\n"
    assert Path("abc.calib").read_bytes() == to_bytes(functools.reduce(merge, parts()[:3]))
    code, out, _ = run_command(capsys, "calibration", "merge", "c.calib", "a.calib", "-o", "ac.calib", "--json")
    assert next(iter(json.loads(out).items())) == ("schema", "fcdeploy.calibration-merge/1")
    assert json.loads(out)["samples"] == 2


@pytest.mark.usefixtures("here")
def test_doubts_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(read(Path("b.calib")), made_by={"cpu": "toaster", "onnxruntime": "0.1"}, kept={})
    Path("other.calib").write_bytes(to_bytes(other))
    code, _, err = run_command(capsys, "calibration", "merge", "a.calib", "other.calib", "a.calib", "-o", "sum.calib")
    assert code == 0
    assert "warning: 'other.calib' was made by cpu toaster, not " in err
    assert "warning: 'other.calib' was made by onnxruntime 0.1, not " in err
    assert "'other.calib' and the files before it: only one of them keeps samples, so the result keeps none" in err
    assert "1 sample of 'a.calib' is in the files before it too, and counts twice" in err


MISTAKES = {
    "one": (["merge", "a.calib", "-o", "x.calib"], "only one calibration to merge", "merge A.calib B.calib"),
    "exists": (["merge", "a.calib", "b.calib", "-o", "c.calib"], "output 'c.calib' exists", "--force"),
    "input": (["merge", "a.calib", "b.calib", "-o", "a.calib", "--force"], "output 'a.calib' is also an input", "-o"),
    "gone": (["merge", "a.calib", "z.calib", "-o", "x.calib"], "calibration 'z.calib' does not exist", "calibrate"),
    "damaged": (["merge", "a.calib", "bad.calib", "-o", "x.calib"], "'bad.calib' is not a calibration file", "calib"),
    "model": (
        ["merge", "a.calib", "model.calib", "-o", "x.calib"],
        "'model.calib' does not go with 'a.calib': one calibration is of model hash, the other of other",
        "show",
    ),
    "tensor": (["show", "a.calib", "--tensor", "nope"], "'a.calib' has no tensor 'nope', it has", "calibration show"),
    "show": (["show", "z.calib"], "calibration 'z.calib' does not exist", "calibrate"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message, hint = MISTAKES[name]
    Path("bad.calib").write_bytes(Path("a.calib").read_bytes()[:-9])
    Path("model.calib").write_bytes(to_bytes(replace(parts()[1], model="other")))
    before = {file.name: file.read_bytes() for file in here.iterdir()}
    code, out, err = run_command(capsys, "calibration", *arguments)
    assert (code, out) == (2, "")
    first, second = err.strip().splitlines()
    assert first.startswith(f"error: {message}")
    assert hint in second.removeprefix("hint: ")
    assert {file.name: file.read_bytes() for file in here.iterdir()} == before


@pytest.mark.usefixtures("here")
def test_show_draws_every_tensor_and_one_alone_large(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_command(capsys, "calibration", "show", "a.calib")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["tensor", "kind", "min"]
    row = next(line for line in lines if line.startswith("sum_relu_out"))
    strip = row.split("|")[1]
    assert len(strip) == 24
    assert strip[0] == "█"  # most of a Relu's results are 0
    assert lines[-1].startswith("1 sample, 1 of them kept; model hash, data ")
    code, out, _ = run_command(capsys, "calibration", "show", "a.calib", "--tensor", "sum_relu_out")
    bars = [line.split() for line in out.splitlines() if "%" in line]
    assert len(bars) == 20
    assert bars[0][-1] == "█" * 50
    assert len(bars[0][-1]) >= max(len(bar[-1]) for bar in bars)


@pytest.mark.usefixtures("here")
def test_a_range_that_was_measured_elsewhere_has_no_percentiles(capsys: pytest.CaptureFixture[str]) -> None:
    one = parts()[0]
    bare = replace(one.tensors["a"], histogram=Histogram(np.zeros(0, np.uint16), np.zeros(0, np.int64), -1.0, 2.0))
    Path("bare.calib").write_bytes(to_bytes(replace(one, tensors={"a": bare})))
    code, out, _ = run_command(capsys, "calibration", "show", "bare.calib", "--tensor", "a")
    assert code == 0
    assert out.splitlines()[2].split() == ["a", "input", "-1", "-", "-", "-", "-", "-", "2", "measured", "elsewhere"]
    (row,) = json.loads(run_command(capsys, "calibration", "show", "bare.calib", "--json")[1])["tensors"]
    assert (row["percentiles"], row["histogram"]) == (None, None)


@pytest.mark.usefixtures("here")
def test_show_as_json_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run_command(capsys, "calibration", "show", "a.calib", "--json", "--tensor", "?")[1])
    assert [row["tensor"] for row in found["tensors"]] == ["a", "b"]
    a = DATA["a"][0]
    row = found["tensors"][0]
    assert (row["min"], row["max"], row["elements"]) == (a.min(), a.max(), a.size)
    assert row["percentiles"]["50 %"] == pytest.approx(np.median(a), abs=0.03)
    expected, _ = np.histogram(a, 24)
    assert np.abs(np.array(row["histogram"]) - expected).max() <= 3  # bins that span two cells are spread over both
    assert sum(row["histogram"]) == pytest.approx(a.size)
