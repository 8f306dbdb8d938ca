"""Evaluating on calibration samples is refused: the sketch in the metadata, and the command that reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, random_data
from scipy import stats

from fcdeploy.cli import main
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.leakage import LeakageCheck
from fcdeploy.records.fingerprints import KEY, from_text, to_text
from fcdeploy.samples.kept_samples import hash_sample

hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(hashes, st.integers(1, 12))
def test_sketch_knows_its_samples_whatever_the_order(numbers: list[int], times: int) -> None:
    array = np.array(numbers * times, np.uint64)
    text = to_text(array, 0)
    assert text == to_text(np.random.default_rng(0).permutation(array), 0)
    found = from_text(text, "m")
    assert found.complete
    assert found.samples == len({number >> 24 for number in numbers})
    assert all(found.contains(number) for number in numbers)
    assert not found.contains((min(numbers) - (1 << 24)) % 2**64) or found.samples > 1


@pytest.mark.parametrize(("model_bytes", "kept"), [(0, 64), (70_000, 100), (10**9, 4096)])
def test_sketch_of_many_samples_is_a_hundredth_of_the_model(model_bytes: int, kept: int) -> None:
    many = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    text = to_text(many, model_bytes)
    found = from_text(text, "m")
    assert (found.samples, found.complete, len(found.smallest)) == (10_000, False, kept)
    assert len(text) <= max(0.0105 * model_bytes, 470)
    smallest = sorted(many.tolist())
    assert all(found.contains(number) for number in smallest[:kept])
    assert not any(found.contains(number) for number in smallest[kept:])


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "[]", "{}", "1", '{"samples": 1}', '{"samples": 1, "smallest": 5}', "[" * 100_000,
        '{"samples": 1, "smallest": "AAAA"}', '{"samples": 0, "smallest": "AAAAAAE="}',
        '{"samples": 9, "smallest": ""}', '{"samples": true, "smallest": "AAAAAAE="}',
        '{"samples": 2, "smallest": "AAAAAAEAAAAAAA=="}',
    ],
)  # fmt: skip
def test_damaged_metadata_is_named(text: str) -> None:
    with fails("model 'm': metadata 'fcdeploy.samples' is damaged", "--same-data"):
        from_text(text, "model 'm'")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("same")
    net = Net(3)
    net.output(net.dense(net.input("x", 8), 8, 4))
    data = random_data(3, 30, x=(8,))
    np.savez(folder / "calib.npz", **data)
    model, int8 = net.save(folder / "m.onnx"), folder / "m8.onnx"
    quantize(model, data=folder / "calib.npz", output=int8, costs="none", effort="fast")
    return folder, model, int8, data


def test_one_calibration_sample_among_others_is_left_out(
    made: tuple[Path, Path, Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    _, model, int8, data = made
    mixed = random_data(4, 40, x=(8,))
    mixed["x"][37] = data["x"][11]
    np.savez(tmp_path / "mixed.npz", **mixed)
    left = validate(int8, against=model, data=tmp_path / "mixed.npz")
    assert "1 of 40 samples were calibrated on: 1 are left out" in left.warnings[0]
    np.savez(tmp_path / "others.npz", x=np.delete(mixed["x"], 37, axis=0))
    others = validate(int8, against=model, data=tmp_path / "others.npz")
    assert [left.values[key] for key in ("samples", "sqnr_db", "agreement")] == [
        others.values[key] for key in ("samples", "sqnr_db", "agreement")
    ]
    np.savez(tmp_path / "same.npz", x=data["x"][:20])
    with fails("sample 0 is one of the samples that 'm8.onnx' was calibrated on, and so are all others", "--same-data"):
        validate(int8, against=model, data=tmp_path / "same.npz")
    report = validate(int8, against=model, data=tmp_path / "mixed.npz", same_data=True)
    assert report.values["calibration_samples"] == 1
    assert "1 of 40 samples were calibrated on" in report.warnings[0]
    assert validate(int8, against=model, data=tmp_path / "mixed.npz", limit=37).values["calibration_samples"] == 0


def test_what_a_short_record_leaves_open_counts_as_what_it_knows(tmp_path: Path) -> None:
    """A model so small that it records 64 of its 100 calibration samples."""
    net = Net(3)
    net.output(net.dense(net.input("x", 8), 8, 4))
    model, int8 = net.save(tmp_path / "m.onnx"), tmp_path / "m8.onnx"
    calibrated, fresh = random_data(3, 100, x=(8,))["x"], random_data(4, 400, x=(8,))["x"]
    save_data = lambda name, x: (np.savez(tmp_path / name, x=x), tmp_path / name)[1]  # noqa: E731
    quantize(model, data=save_data("calib.npz", calibrated), output=int8, costs="none", effort="fast")
    text = next(prop.value for prop in onnx.load(int8).metadata_props if prop.key == KEY)
    hashes = {at: hash_sample({"x": x}) for at, x in enumerate([*calibrated, *fresh])}
    last = sorted(hashes[at] for at in range(100))[63]
    assert json.loads(text)["samples"] == 100
    with fails("and so are all others, as far as it records them", "--same-data"):
        validate(int8, against=model, data=tmp_path / "calib.npz")

    half = validate(int8, against=model, data=save_data("half.npz", np.concatenate([calibrated[:50], fresh[:50]])))
    sure = [at for at in range(50) if hashes[100 + at] <= last]
    expected = validate(int8, against=model, data=save_data("sure.npz", fresh[sure]), same_data=True)
    assert half.values["samples"] == len(sure)
    assert half.values["sqnr_db"] == expected.values["sqnr_db"]
    assert "and as many, in proportion, of those" in half.warnings[0]

    known = min(range(100), key=hashes.__getitem__)
    few = validate(int8, against=model, data=save_data("few.npz", np.concatenate([calibrated[[known]], fresh])))
    assert few.values["samples"] == 400
    assert few.warnings[0].endswith("% of the others may have been too")
    assert "at least 1 of 401 samples were calibrated on: 1 are left out" in few.warnings[0]


def test_command_exits_2_and_takes_the_way_out(
    made: tuple[Path, Path, Path, dict[str, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model, int8, _ = made
    line = ["validate", str(int8), "--against", str(model), "--data", str(folder / "calib.npz"), "--json"]
    assert main(line) == 2
    assert "sample 0 is one of the samples" in capsys.readouterr().err
    assert main([*line, "--same-data"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration_samples"] == 30


def test_metadata_that_is_damaged_or_missing(
    made: tuple[Path, Path, Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, model, int8, _ = made
    broken, data = onnx.load(int8), folder / "calib.npz"
    entry = next(prop for prop in broken.metadata_props if prop.key == KEY)
    entry.value = "?"
    onnx.save(broken, tmp_path / "broken.onnx")
    with fails("metadata 'fcdeploy.samples' is damaged: '?'", "--same-data"):
        validate(tmp_path / "broken.onnx", against=model, data=data)
    validate(tmp_path / "broken.onnx", against=model, data=data, same_data=True)
    broken.metadata_props.remove(entry)
    onnx.save(broken, tmp_path / "silent.onnx")
    assert validate(tmp_path / "silent.onnx", against=model, data=data).values["calibration_samples"] is None


@pytest.mark.parametrize(
    ("decided", "found", "strict"),
    [
        (42, 0, False),
        (42, 2, False),
        (42, 10, True),
        (1, 1, True),
        (4, 1, False),
        (4, 2, True),
        (1000, 105, False),
        (1000, 130, True),
    ],
)
def test_a_few_rows_that_are_there_twice_leave_the_others_in(decided: int, found: int, strict: bool) -> None:
    """All that a short record leaves open is left out only where more than a tenth was calibrated on beyond chance."""
    chance = stats.binom.sf(found - 1, decided, 0.1)
    assert strict is bool(found and chance <= 0.1 + 1e-9)
    assert LeakageCheck(None, "m", allowed=False).settle(decided, found).strict is strict
