"""Does a sample fit the model? Casts, shapes, batches and kinds of data; every way it can be wrong, by its sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from sample_files import RNG, X, npz, samples, spec

from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.checks import cast, check_shape
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import choose_batch_size, make_batches


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_batches_are_consecutive_samples(tmp_path_factory: Any, count: int, limit: int, size: int) -> None:
    x = RNG.normal(size=(count, 3, 4)).astype(np.float32)
    source = open_source(npz(tmp_path_factory.mktemp("b"), x=x, label=np.arange(count)), [X], limit=limit)
    taken = min(count, limit)
    assert source.count == taken
    grouped = list(make_batches(source, size))
    assert [len(batch) for batch in grouped] == [size] * (taken // size) + [taken % size] * (taken % size > 0)
    np.testing.assert_array_equal(np.concatenate([batch.inputs["x"] for batch in grouped]), x[:taken])
    np.testing.assert_array_equal(np.concatenate([batch.labels["label"] for batch in grouped]), np.arange(taken))
    assert all(batch.inputs["x"].flags.c_contiguous for batch in grouped)
    assert [name for batch in grouped for name in batch.names] == [f"data.npz, sample {i}" for i in range(taken)]


# --- does a sample fit the model


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((2, 3, 4))}, "data.npz: input 'x' is missing, it has 'y'"),
        ({"x": np.zeros((2, 3, 4)), "z": np.zeros(2)}, "array 'z' is no input of the model, the model wants 'x'"),
        ({"x": np.zeros((2, 3, 4)), "labels": np.zeros(2)}, "array 'labels' is no input of the model"),
        ({"x": np.zeros((2, 3, 5))}, "input 'x': sample 0 has shape (3, 5), the model wants (3, 4)"),
        ({"x": np.zeros((3, 4))}, "array 'x' has shape (3, 4), expected (samples, 3, 4): a sample axis first"),
        ({"x": np.zeros(())}, "array 'x' has shape (), expected (samples, 3, 4)"),
        (
            {"x": np.zeros((2, 3, 4)), "label": np.array(1)},
            "array 'label' has shape (), expected (samples, ...): a sample axis first",
        ),
        ({"x": np.full((2, 3, 4), 2**63 - 1)}, "up to 9223372036854775807, which float32 cannot hold"),
        ({"x": np.zeros((2, 3, 4, 1))}, "input 'x': sample 0 has shape (3, 4, 1), the model wants (3, 4)"),
        ({"x": np.zeros((0, 3, 4))}, "data.npz holds no samples, expected at least one"),
        ({"x": np.zeros((2, 3, 4)), "label": np.zeros(3)}, "'x' has 2 samples and 'label' has 3, expected the same"),
        ({"x": np.zeros((2, 3, 4)), "label": np.array([1j, 2])}, "'label' of sample 0 is complex128, expected numbers"),
        ({"x": np.zeros((2, 3, 4)), "label": np.array([0, np.nan])}, "'label': sample 1 has nan at ()"),
        ({"x": np.zeros((2, 3, 4), complex)}, "input 'x': sample 0 is complex128, the model wants float32"),
        ({"x": np.full((2, 3, 4), 1e300)}, "sample 0 is float64 up to 1e+300, which float32 cannot hold"),
        ({"x": np.full((2, 3, 4), 2**24 + 1)}, "sample 0 is int64 up to 16777217, which float32 cannot hold"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with fails(message):
        samples(npz(tmp_path, **arrays))


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_not_finite_is_named_with_its_sample(tmp_path: Path, bad: float, word: str) -> None:
    x = np.zeros((20, 3, 4), np.float32)
    x[17, 1, 2:] = bad
    with fails(f"input 'x': sample 17 has {word} at (1, 2), and 2 such values in all, expected finite numbers"):
        samples(npz(tmp_path, x=x))
    assert len(samples(npz(tmp_path, x=x), limit=17)) == 17  # what lies behind the limit is not read


@pytest.mark.parametrize(
    ("have", "want", "fits"),
    [
        ("float64", "float32", True),
        ("float16", "float32", True),
        ("float32", "float16", True),
        ("float32", "bfloat16", True),
        ("uint8", "float32", True),
        ("int64", "float32", True),
        ("bool", "float32", True),
        ("int64", "int32", True),
        ("uint8", "int64", True),
        ("int64", "uint8", True),
        ("float32", "int64", False),
        ("float32", "uint8", False),
        ("float32", "bool", False),
        ("uint8", "bool", False),
    ],
)
def test_casts(tmp_path: Path, have: str, want: str, fits: bool) -> None:
    dtype = np.dtype(getattr(ml_dtypes, want, want))
    path = npz(tmp_path, x=np.ones((1, 3, 4), have))
    if fits:
        assert samples(path, spec("x", None, 3, 4, dtype=dtype))[0].inputs["x"].dtype == dtype
    else:
        with fails(f"input 'x': sample 0 is {have}, the model wants {want}"):
            samples(path, spec("x", None, 3, 4, dtype=dtype))


@pytest.mark.parametrize(
    ("have", "numbers", "want", "odd"),
    [
        ("int64", [-1], "uint8", "-1"),
        ("int64", [300, -1], "uint8", "-1"),
        ("int8", [-1, -128], "uint8", "-128"),  # wraps there and back
        ("uint64", [0, 2**63 + 5], "int64", "9223372036854775813"),
        ("uint8", [128, 3], "int8", "128"),
        ("int64", [0, 2**53 + 1, 2**60], "float64", "9007199254740993"),
        ("int64", [2**63 - 1], "float64", "9223372036854775807"),
        ("uint32", [0, 65505], "float16", "65505"),
        ("float32", [1e5, -1e6], "float16", "-1000000.0"),
    ],
)
def test_numbers_that_do_not_fit(have: str, numbers: list[float], want: str, odd: str) -> None:
    value, wanted = np.array(numbers, have), spec("x", None, len(numbers), dtype=want)
    with fails(f"input 'x': sample 0 is {have} up to {odd}, which {want} cannot hold"):
        cast(value, wanted, "sample 0", "data.npz")


@pytest.mark.parametrize(("have", "want"), list(itertools.permutations(["int8", "uint8", "int64", "uint64"], 2)))
@given(data=st.data())
def test_integers_are_held_exactly_or_refused(have: str, want: str, data: Any) -> None:
    limits = np.iinfo(have)
    number = data.draw(st.integers(int(limits.min), int(limits.max)))
    wanted = spec("x", None, 1, dtype=want)
    if np.iinfo(want).min <= number <= np.iinfo(want).max:
        assert cast(np.array([number], have), wanted, "sample 0", "data.npz").tolist() == [number]
    else:
        with fails(f"up to {number}, which {want} cannot hold"):
            cast(np.array([number], have), wanted, "sample 0", "data.npz")


def test_free_axes_and_inputs_without_a_shape(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 9), np.float32))
    assert samples(path, spec("x", None, 3, None))[1].inputs["x"].shape == (3, 9)
    assert samples(path, spec("x"))[1].inputs["x"].shape == (3, 9)
    with fails("input 'x': sample 0 has shape (3, 9), the model wants (?, 8)"):
        samples(path, spec("x", None, None, 8))
    with fails("input 'x': sample 0 has shape (3, 0), expected at least one element"):
        samples(npz(tmp_path, x=np.zeros((2, 3, 0), np.float32)), spec("x", None, 3, None))


# --- batches


def test_batches_split_where_the_shape_changes(tmp_path: Path) -> None:
    path = tmp_path / "gen.py"
    path.write_text(
        "import numpy as np\ndef f():\n    for n in (2, 2, 5, 2):\n        yield {'x': np.zeros((n,), 'f')}\n"
    )
    grouped = list(make_batches(open_source(f"{path}:f", [spec("x", None, None)]), 8))
    assert [batch.inputs["x"].shape for batch in grouped] == [(2, 2), (1, 5), (1, 2)]


def test_a_fixed_batch_dictates(tmp_path: Path) -> None:
    fixed = [spec("x", 4, 3, 4), spec("y", None, 2)]
    assert choose_batch_size(fixed, 32) == 4
    assert choose_batch_size([X], 32) == 32
    with fails("batch size 0 is not positive"):
        choose_batch_size([X], 0)
    with fails("along the leading axis 'x' has 4 and 'y' has 2"):
        choose_batch_size([spec("x", 4, 3), spec("y", 2, 3)], 1)
    path = npz(tmp_path, x=np.zeros((10, 3, 4), np.float32))
    with fails(
        "the model runs batches of exactly 4; after 8 of 10 samples of data.npz, 2 are left over", "--samples 8"
    ):
        open_source(path, fixed[:1])
    source = open_source(path, fixed[:1], limit=8)
    assert [len(batch) for batch in make_batches(source, choose_batch_size(fixed, 32))] == [4, 4]
    assert [len(batch) for batch in make_batches(open_source(path, [spec("x", 1, 3, 4)]), 1)] == [1] * 10


def test_a_ragged_end_that_only_reading_shows(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "1,2\n" * 5)
    source = open_source(path, [spec("x", 2, 2)])
    with fails("the model runs batches of exactly 2; after 4 of 5 samples of data.csv, 1 are left over", "--samples 4"):
        list(make_batches(source, 2))
    assert [len(b) for b in make_batches(open_source(path, [spec("x", 2, 2)], limit=4), 2)] == [2, 2]


# --- generator


def script(folder: Path, body: str) -> str:
    path = folder / "gen.py"
    path.write_text("import numpy as np\n" + body)
    return f"{path}:f"


def test_generator_is_called_again(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 3")
    data = script(
        tmp_path,
        "from beside import VALUE\ndef f():\n"
        "    for i in range(VALUE):\n        yield {'x': np.full((3, 4), i), 'label': i}\n",
    )
    source = open_source(data, [X], limit=2)
    assert (source.name, source.count, source.labelled) == ("gen.py:f", None, True)
    for _ in range(2):
        assert [float(sample.inputs["x"][0, 0]) for sample in source] == [0, 1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def g(): pass", "gen.py' has no function 'f', it has g"),
        ("raise ImportError('no such thing')", "gen.py' fails on import: ImportError: no such thing"),
        ("def f():\n    yield np.zeros(3)", "gen.py:f: sample 0 is a ndarray, expected a dict"),
        ("def f():\n    return []", "gen.py:f holds no samples"),
        ("def f():\n    yield {}\n", "gen.py:f: input 'x' is missing, it has none"),
        (
            "def f():\n    yield {'x': np.zeros((3, 4))}\n    1 / 0",
            "gen.py:f fails: ZeroDivisionError: division by zero",
        ),
        ("def f():\n    yield {'x': [[1, 2], [3]]}", "gen.py:f: 'x' of sample 0 is no array"),
        (
            "def f():\n    yield {'x': np.zeros((3, 4)), 'label': 1}\n    yield {'x': np.zeros((3, 4))}",
            "gen.py:f: sample 1 has labels: none; the first sample has: 'label'",
        ),
    ],
)
def test_generator_mistakes(tmp_path: Path, body: str, message: str) -> None:
    with fails(message):
        samples(script(tmp_path, body))


# --- which kind


def test_data_of_no_kind(tmp_path: Path) -> None:
    with fails("data 'nowhere.npz' does not exist", "FILE.py:FUNCTION"):
        open_source("nowhere.npz", [X])
    with fails("Python file 'nowhere.py' does not exist"):
        open_source("nowhere.py:f", [X])
    (tmp_path / "data.bin").write_bytes(b"")
    with fails("data.bin' is no data of a kind that can be read", "a folder of images"):
        open_source(tmp_path / "data.bin", [X])
    path = npz(tmp_path, x=np.zeros((1, 3, 4)))
    with fails(
        "--preprocess 'p.toml' is for pictures (MNIST idx files, CIFAR-10 binary batches, a folder of images), and"
    ):
        open_source(path, [X], format=DataFormat("p.toml"))
    with fails("number of samples 0 is not positive"):
        open_source(path, [X], limit=0)


def test_the_hint_at_a_sample_that_is_not_finite_names_the_way_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([[1.0, np.nan]], np.float32))
    spec = TensorSpec("x", np.dtype(np.float32), (None, 2))
    with fails("expected finite numbers", "fcdeploy calibrate --skip-bad leaves such samples out"):
        list(open_source(tmp_path / "d.npz", [spec]))


def test_a_model_without_inputs_takes_no_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32))
    with fails("the model has no inputs: it gives the same answer every time"):
        open_source(tmp_path / "x.npz", [])


@pytest.mark.parametrize(
    ("wanted", "shape", "hint"),
    [
        ((1, 3, 8, 6), (8, 6, 3), "array.transpose(0, 3, 1, 2)"),
        ((1, 3, None, None), (8, 6, 3), "array.transpose(0, 3, 1, 2)"),
        ((1, 8, 6, 3), (3, 8, 6), "array.transpose(0, 2, 3, 1)"),
        ((1, 3, 8, 6), (3, 6, 8), "correct"),
        ((1, 3, 8, 6), (8, 6, 4), "correct"),
        ((1, 3, 8), (8, 3), "correct"),
    ],
)
def test_channels_in_the_wrong_place_are_told_how_to_move(
    wanted: tuple[int | None, ...], shape: tuple[int, ...], hint: str
) -> None:
    given = TensorSpec("x", np.dtype(np.float32), (None, *wanted[1:]))
    with fails("the model wants", hint):
        check_shape(given, shape, "sample 0", "x.npz")
    if hint.startswith("array"):
        order = [int(axis) for axis in hint.removeprefix("array.transpose(").rstrip(")").split(",")]
        check_shape(given, np.zeros((2, *shape)).transpose(order).shape[1:], "sample 0", "x.npz")
