"""Every kind of data, against NumPy's and Pillow's own readers; every way it can be wrong, by its sentence."""

from __future__ import annotations

import gzip
import io
import itertools
import sys
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples import csv
from fcdeploy.samples.checks import cast
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import BadSample, Sample, choose_batch_size, make_batches

RNG = np.random.default_rng(0)


def spec(name: str, *shape: int | None, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


X = spec("x", None, 3, 4)


def samples(data: Any, *inputs: TensorSpec, **options: Any) -> list[Sample]:
    how = DataFormat(options.pop("preprocess", None))
    return list(open_source(data, inputs or (X,), format=how, **options))


def npz(folder: Path, compressed: bool = False, /, **arrays: Any) -> Path:
    path = folder / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def header(shape: tuple[int, ...], descr: str = "<f4", order: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": order, "shape": shape})
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# --- npz


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_gives_what_numpy_loads(tmp_path: Path, compressed: bool) -> None:
    arrays = {
        "x": RNG.normal(size=(5, 3, 4)).astype(np.float32),
        "mask": RNG.integers(0, 9, (5, 7)),
        "label": np.arange(5),
        "label.boxes": RNG.normal(size=(5, 2, 4)),
    }
    path = npz(tmp_path, compressed, **arrays)
    source = open_source(path, [X, spec("mask", None, None, dtype=np.int64)])
    assert (source.name, source.count, source.labelled) == ("data.npz", 5, True)
    for _ in range(2):  # a source can be read again
        for index, sample in enumerate(source):
            assert sample.name == f"data.npz, sample {index}"
            assert list(sample.inputs) == ["x", "mask"]
            for name, value in {**sample.inputs, **sample.labels}.items():
                np.testing.assert_array_equal(value, arrays[name][index])
    assert index == 4


def test_npz_column_major_and_big_endian(tmp_path: Path) -> None:
    x = RNG.normal(size=(6, 3, 4))
    path = npz(tmp_path, x=np.asfortranarray(x.astype(">f4")))
    got = np.stack([sample.inputs["x"] for sample in samples(path)])
    np.testing.assert_array_equal(got, x.astype(np.float32))
    assert got.dtype == np.float32


def test_npz_streams(tmp_path: Path) -> None:
    """16 MB of samples, unpacked, are read in far less memory than that."""
    path = npz(tmp_path, True, x=np.zeros((64, 256, 256), np.float32))
    source = open_source(path, [spec("x", None, 256, 256)])
    tracemalloc.start()
    assert sum(1 for _ in source) == 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6


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


def test_npz_never_unpickles(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.array([[1], [2, 3]], dtype=object))
    with fails("array 'x' holds Python objects (dtype object), which are never unpickled, expected numbers"):
        samples(path)


def test_npz_header_declares_more_than_the_member_holds(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.npz", {"x.npy": header((1 << 40, 3, 4)) + b"\0" * 48})
    with fails("declares (1099511627776, 3, 4) float32, which is 52776558133248 bytes, but holds 48"):
        samples(path)


def test_npz_directory_claims_more_than_deflate_can_make(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.npz", {"x.npy": header((2, 3, 4)) + b"\0" * 96})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")  # the uncompressed size in the directory
    path.write_bytes(data)
    with fails("claims 2147483648 bytes in"):
        samples(path)


@pytest.mark.parametrize("keep", [0, 10, 60, 200])
def test_npz_cut_short(tmp_path: Path, keep: int) -> None:
    path = npz(tmp_path, True, x=RNG.normal(size=(50, 3, 4)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    with fails("data.npz' is not an .npz, or is damaged"):
        samples(path)


def test_npz_damaged_in_the_middle(tmp_path: Path) -> None:
    """Bytes, so that garbage is no NaN: only zlib or the checksum can tell."""
    x = np.random.default_rng(1).integers(0, 100, (5000, 3, 4), dtype=np.uint8)
    path = npz(tmp_path, True, x=x)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\0" * 400
    path.write_bytes(data)
    with fails("data.npz is damaged at sample "):
        samples(path, spec("x", None, 3, 4, dtype=np.uint8))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "array 'x' is not a NumPy array, or is damaged"),
        (b"not an array at all", "array 'x' is not a NumPy array, or is damaged"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': 1 / 0}", "array 'x' is not a NumPy array, or is damaged"),
        (header((-1, 3, 4)), "declares the shape (-1, 3, 4), expected lengths of 0 or more"),
        (header((2, 3, 4), "|V8") + b"\0" * 192, "input 'x': sample 0 is |V8, the model wants float32"),
        (header((2, 3, 4), "<U1") + b"\0" * 96, "input 'x': sample 0 is <U1, the model wants float32"),
    ],
)
def test_npz_damaged_member(tmp_path: Path, member: bytes, message: str) -> None:
    with fails(message):
        samples(zipped(tmp_path / "data.npz", {"x.npy": member}))


@pytest.mark.parametrize("compressed", [False, True])
def test_no_damage_raises_anything_else(tmp_path: Path, compressed: bool) -> None:
    """Any byte may be wrong: either the samples still fit, or it is one error with one line."""
    whole = npz(tmp_path, compressed, x=np.ones((9, 3, 4), np.float32), label=np.arange(9)).read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        (tmp_path / "data.npz").write_bytes(data)
        try:
            samples(tmp_path / "data.npz")
        except FcdeployError as error:
            refused += error.message.count("\n") == 0
    assert refused > 300


def test_npz_of_another_compression(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.npz", {"x.npy": header((1, 3, 4)) + b"\0" * 48}, zipfile.ZIP_BZIP2)
    with fails("is compressed by method 12, expected deflate"):
        samples(path)


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
        ({"x": np.zeros((2, 3, 4)), "label": np.array(["a", "b"])}, "'label' of sample 0 is <U1, expected numbers"),
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


# --- npy


def test_npy_folder_with_a_file_per_input(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(4, 3, 4)), RNG.normal(size=(4, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    np.save(tmp_path / "in_y.npy", y)
    np.save(tmp_path / "label.npy", np.arange(4))
    source = open_source(tmp_path, [X, spec("in/y", None, 2)])
    assert (source.count, source.labelled) == (4, True)
    for index, sample in enumerate(source):
        np.testing.assert_array_equal(sample.inputs["x"], x[index].astype(np.float32))
        np.testing.assert_array_equal(sample.inputs["in/y"], y[index])
        assert sample.labels["label"] == index
    (tmp_path / "in_y.npy").unlink()
    with fails("input 'in/y' is missing, it has 'label', 'x'"):
        open_source(tmp_path, [X, spec("in/y", None, 2)])


@pytest.mark.parametrize("labelled", [False, True])
def test_npy_folder_with_a_file_per_sample(tmp_path: Path, labelled: bool) -> None:
    x = RNG.normal(size=(3, 3, 4)).astype(np.float32)
    for index in range(3):
        np.save(tmp_path / f"s{index}.npy", np.asfortranarray(x[index]) if index else x[index])
    if labelled:
        np.save(tmp_path / "label.npy", np.array([7, 8, 9]))
    source = open_source(tmp_path, [X])
    assert (source.count, source.labelled) == (3, labelled)
    got = list(source)
    np.testing.assert_array_equal(np.stack([sample.inputs["x"] for sample in got]), x)
    assert got[2].name == f"{tmp_path.name}, sample 2 (s2.npy)"
    assert [int(sample.labels["label"]) for sample in got if labelled] == [7, 8, 9] * labelled
    np.save(tmp_path / "s1.npy", np.zeros((3, 5)))
    with fails("input 'x': sample 1 (s1.npy) has shape (3, 5), the model wants (3, 4)"):
        list(source)


def test_npy_single_file_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "some.npy"
    np.save(path, np.ones((2, 3, 4)))
    assert len(samples(path)) == 2
    with fails("some.npy is one array, the model wants 2 inputs: 'x', 'y'"):
        open_source(path, [X, spec("y", None, 2)])
    path.write_bytes(path.read_bytes()[:-8])
    with fails("declares (2, 3, 4) float64, which is 192 bytes, but holds 184"):
        open_source(path, [X])
    folder = tmp_path / "only_labels"
    folder.mkdir()
    np.save(folder / "label.npy", np.zeros(3))
    with fails("only_labels holds no samples"):
        open_source(folder, [X])


# --- images


def picture(path: Path, height: int = 8, width: int = 8, mode: str = "RGB") -> np.ndarray[Any, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def toml(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_images_in_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    cat, dog, bee = (picture(root / name) for name in ("cat/a.png", "dog/b.png", "bee/c.png"))
    source = open_source(root, [spec("x", None, 3, 8, 8)])
    assert (source.count, source.labelled, source.name) == (3, True, "pictures")
    for sample, pixels, label, name in zip(source, (bee, cat, dog), range(3), ("bee/c", "cat/a", "dog/b"), strict=True):
        np.testing.assert_allclose(sample.inputs["x"], pixels.transpose(2, 0, 1) / 255, atol=1e-6)
        assert sample.labels["label"] == label
        assert sample.name == f"pictures, sample {label} ({name}.png)"


def test_images_preprocessed(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "i" / "a.png", 20, 30)
    how = toml(
        tmp_path,
        'size = [8, 6]\nresize = "crop"\nshorter_side = 10\nlayout = "NHWC"\ncolour = "BGR"\n'
        "scale = 0.5\nmean = [1.0, 2.0, 3.0]\nstd = [4.0, 5.0, 6.0]\n",
    )
    (sample,) = samples(tmp_path / "i", spec("x", None, None, None, 3), preprocess=how)
    scaled = np.asarray(Image.fromarray(pixels).resize((15, 10), Image.Resampling.BILINEAR))
    wanted = (scaled[1:9, 4:10, ::-1] * 0.5 - [1.0, 2.0, 3.0]) / [4.0, 5.0, 6.0]
    np.testing.assert_allclose(sample.inputs["x"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "text", "wanted"),
    [
        ((None, 1, 4, 4), np.float32, "", (1, 4, 4)),
        ((None, 4, 4), np.float32, "", (4, 4)),
        ((None, 4, 4, 3), np.uint8, "", (4, 4, 3)),
        ((None, 3, 4, 4), np.uint8, 'resize = "crop"', (3, 4, 4)),
        ((None, None, None, None), np.float32, 'size = 5\ncolour = "gray"\ninterpolation = "nearest"', (1, 5, 5)),
    ],
)
def test_images_follow_the_input(tmp_path: Path, shape: Any, dtype: Any, text: str, wanted: tuple[int, ...]) -> None:
    for mode in ("L", "RGB", "RGBA"):
        picture(tmp_path / "i" / f"{mode}.png", 6, 9, mode)
    got = samples(tmp_path / "i", spec("x", *shape, dtype=dtype), preprocess=toml(tmp_path, text))
    assert [sample.inputs["x"].shape for sample in got] == [wanted] * 3
    assert all(sample.inputs["x"].dtype == dtype and not sample.labels for sample in got)


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        ((None, 3, 8, 8), "sise = 8", "p.toml: unknown key 'sise', expected one of size, resize"),
        ((None, 3, 8, 8), "size = [8]", "'size' is [8], expected height and width in pixels"),
        ((None, 3, 8, 8), "size = 0", "'size' is 0, expected height and width in pixels"),
        ((None, 3, 8, 8), 'layout = "HWC"', "'layout' is 'HWC', expected one of NCHW, NHWC"),
        ((None, 3, 8, 8), "mean = [1, 2]", "'mean' is [1, 2], expected a number or 3 of them"),
        ((None, 1, 8, 8), 'preset = "timm"', "'mean' is [0.485, 0.456, 0.406], for 3 channels, and input 'x' takes 1"),
        ((None, 3, 8, 8), "std = 0", "'std' is 0, expected a positive number"),
        ((None, 3, 8, 8), "shorter_side = 9", "'shorter_side' is 9 with resize = 'stretch', expected pixels with"),
        ((None, 3, 8, 8), 'colour = "gray"', "'colour' is 'gray', 1 channels, and input 'x' wants 3"),
        ((None, 3, 8, 8), "size = 9", "input 'x': sample 0 (a.png) has shape (3, 9, 9), the model wants (3, 8, 8)"),
        ((None, 3, 8, 8), "size = [", "p.toml' cannot be read"),
        ((None, 3, 8, 8), 'resize = "crop"\nshorter_side = 4', "is 4 x 4 after scaling, too small to cut 8 x 8 out"),
        ((None, 3, None, None), "", "input 'x' takes images of any size ((?, 3, ?, ?)), and"),
        ((None, 784), "", "input 'x' has shape (?, 784), expected four axes to feed images"),
    ],
)
def test_images_preprocessing_mistakes(tmp_path: Path, shape: Any, text: str, message: str) -> None:
    picture(tmp_path / "i" / "a.png")
    with fails(message):
        samples(tmp_path / "i", spec("x", *shape), preprocess=toml(tmp_path, text))


def test_images_integer_inputs_take_no_fractions(tmp_path: Path) -> None:
    picture(tmp_path / "i" / "a.png")
    with fails("'mean' makes fractions, and input 'x' wants uint8"):
        samples(tmp_path / "i", spec("x", None, 3, 8, 8, dtype=np.uint8), preprocess=toml(tmp_path, "mean = 0.5"))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "i"
    picture(root / "a.png")
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:40])
    with fails(f"image '{root / 'b.png'}' cannot be read"):
        samples(root, spec("x", None, 3, 8, 8))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "b.png")
    with fails("b.png' cannot be read: has I;16 pixels, expected 8 bits a channel"):
        samples(root, spec("x", None, 3, 8, 8))


def test_images_of_no_clear_class(tmp_path: Path) -> None:
    with fails(
        f"folder '{tmp_path}' is no data of a kind that can be read", "MNIST idx files, CIFAR-10 binary batches"
    ):
        samples(tmp_path)
    picture(tmp_path / "a" / "a.png")
    (tmp_path / "b").mkdir()
    with fails("class folder 'b' in"):
        samples(tmp_path, spec("x", None, 3, 8, 8))
    picture(tmp_path / "a.png")
    with fails("holds images and also sub-folders of images: 'a'"):
        samples(tmp_path, spec("x", None, 3, 8, 8))


def test_images_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with fails("reading images needs Pillow, which is not installed", "pip install 'fcdeploy[images]'"):
        samples(tmp_path, spec("x", None, 3, 8, 8))


# --- CSV


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("﻿a,b,label,c,d\n1,2.5,0,-3e1,4\n\n5,6,1,7,8\n", encoding="utf-8")
    source = open_source(path, [spec("x", None, 1, 2, 2)])
    assert (source.count, source.labelled) == (None, True)
    for _ in range(2):
        first, second = source
        np.testing.assert_array_equal(first.inputs["x"], [[[1, 2.5], [-30, 4]]])
        np.testing.assert_array_equal(second.inputs["x"], [[[5, 6], [7, 8]]])
        assert (first.labels["label"], second.labels["label"]) == (0, 1)
        assert second.labels["label"].dtype == np.int64
    assert samples(path, spec("x", None, 2, None))[0].inputs["x"].shape == (2, 2)


def test_csv_of_integers(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,9007199254740993\n")
    (sample,) = samples(path, spec("tokens", None, 2, dtype=np.int64))
    assert sample.inputs["tokens"].tolist() == [1, 9007199254740993]
    for cell in ("2.5", "9" * 20):
        path.write_text(f"a,b\n1,{cell}\n")
        with fails(f"data.csv, sample 0, column 'b' is '{cell}', expected a whole number of 64 bits"):
            samples(path, spec("tokens", None, 2, dtype=np.int64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", "data.csv, sample 1, column 'b' is 'x', expected a number"),
        ("a,b\n1,2\n3\n", "data.csv, sample 1 has 1 cells, the header has 2"),
        ("a,b\n1,nan\n", "input 'x': sample 0 has nan at (1,)"),
        ("a,b\n", "data.csv holds no samples"),
        ("", "data.csv has 0 feature columns, input 'x' wants 2"),
        ("a:b\n1:2\n", "data.csv has 1 feature columns, input 'x' wants 2"),
        ("a,b,label\n1,2,3\n1,2,cat\n", "sample 1, column 'label' is 'cat', expected a number"),
        ("a,b,label\n1,2,3\n1,2,\n", "data.csv, sample 1, column 'label': label is empty"),
        ("a,a\n1,2\n", "column 'a' is there twice"),
        ("a,b\n\xff\n", "data.csv is not a readable CSV"),
    ],
)
def test_csv_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode("latin-1"))
    with fails(message):
        samples(path, spec("x", None, 2))


def test_csv_columns_are_matched_to_inputs_by_name(tmp_path: Path) -> None:
    """As scikit-learn's pipelines become: an input a column, in any order."""
    path = tmp_path / "data.csv"
    path.write_text("height,kind,age\n1.5,no,3\n1.25,yes,4\n")
    specs = [spec("age", None, 1, dtype=np.int64), spec("height", None, 1)]
    source = open_source(path, specs, format=DataFormat(label="kind"))
    first, second = source
    assert (first.inputs["age"].tolist(), first.inputs["height"].tolist()) == ([3], [1.5])
    assert [int(sample.labels["label"]) for sample in (first, second)] == [0, 1]
    assert source.format.classes == ("no", "yes")
    with fails("data.csv: column 'weight' is missing, it has 'height', 'age'", "did you mean 'height'?"):
        open_source(path, [spec("weight", None, 1), specs[1]], format=DataFormat(label="kind"))
    with fails("there is no column 'sort' of labels", "--label COLUMN"):
        open_source(path, specs, format=DataFormat(label="sort"))


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("first", [False, True])
def test_an_empty_label_is_no_class(tmp_path: Path, empty: str, first: bool) -> None:
    """It would shift the numbers of all others: its row is refused, or left out."""
    path = tmp_path / "data.csv"
    rows = [f"3,4,{empty}", "1,2,cat"] if first else ["1,2,cat", f"3,4,{empty}"]
    path.write_text("\n".join(["a,b,label", *rows, "5,6,dog"]))
    source = open_source(path, [spec("x", None, 2)])
    assert source.format.classes == ("cat", "dog")
    with fails(f"data.csv, sample {0 if first else 1}, column 'label': label is empty", "--skip-bad"):
        list(source)
    bad: list[BadSample] = []
    kept = list(replace(source, on_bad=bad.append))
    assert [int(sample.labels["label"]) for sample in kept] == [0, 1]
    assert [one.position for one in bad] == [0 if first else 1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_in_other_forms(tmp_path: Path, separator: str, packed: bool) -> None:
    """Recorded columns are found in any order, and labels that are words are the recorded classes."""
    text = "\n".join(separator.join(row) for row in (("b", "sort", "a"), ("1", "dog", "2"), ("3", "cat", "4")))
    path = tmp_path / ("data.csv.gz" if packed else "data.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    recorded = DataFormat(columns=("a", "b"), classes=("ape", "cat", "dog"), label="sort")
    found = list(open_source(path, [spec("x", None, 2)], format=recorded))
    assert [sample.inputs["x"].tolist() for sample in found] == [[2, 1], [4, 3]]
    assert [int(sample.labels["label"]) for sample in found] == [2, 1]
    path.write_bytes(path.read_bytes()[:-4])
    if packed:
        with fails("data.csv.gz is not a readable CSV"):
            list(open_source(path, [spec("x", None, 2)], format=recorded))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_stands_in_quotes_separates_nothing(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(separator.join(['"a;1;2;3"', '"b\t\t\t\t,,,,,"', "label"]) + "\n" + separator.join("123"))
    (sample,) = samples(path, spec("x", None, 2))
    assert sample.inputs["x"].tolist() == [1, 2]


@pytest.mark.parametrize("before", ["", "a,b\n1,2\n", 'a,b\n"1\n'])
def test_a_csv_of_an_endless_line(tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to a line of any length: no more of it is read than a row may have."""
    monkeypatch.setattr(csv, "MOST_LETTERS", 20_000)
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress((before + "1," * 5_000_000).encode()))
    tracemalloc.start()
    with fails("data.csv.gz has a row of more than 20,000 letters, expected a sample a line"):
        samples(path, spec("x", None, 2))
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


@pytest.mark.parametrize(("word", "hint"), [("dgo", "did you mean 'dog'?"), ("bird", "--classes FILE")])
def test_a_word_that_is_no_class(tmp_path: Path, word: str, hint: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"a,b,label\n1,2,1\n1,2,{word}\n")
    source = open_source(path, [spec("x", None, 2)], format=DataFormat(classes=("cat", "dog")))
    with fails(f"data.csv, sample 1, column 'label' is '{word}', expected one of the 2 classes: 'cat', 'dog'", hint):
        list(source)


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
