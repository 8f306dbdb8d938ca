"""npz and npy, against NumPy's own reader, and every way such a file can be damaged."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import fails
from PIL import Image
from sample_files import RNG, X, header, npz, samples, spec, zipped

from fcdeploy.errors import FcdeployError
from fcdeploy.samples.kinds import open_source

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


def test_npz_never_unpickles(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.array([[1], [2, 3]], dtype=object))
    with fails("array 'x' holds Python objects (dtype object), which are never unpickled, expected numbers"):
        samples(path)


def test_npz_of_texts_without_letters(tmp_path: Path) -> None:
    """As many as the header says, in no bytes."""
    text = header((1 << 40,)).replace(b"'<f4'", b"'<U0'")
    path = zipped(tmp_path / "data.npz", {"x.npy": text})
    with fails("array 'x' holds <U0, texts of no letters, expected numbers or text"):
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


# --- a folder of npz


def test_a_folder_of_npz_gives_samples_of_different_shapes(tmp_path: Path) -> None:
    inputs = [spec("text", None, None, dtype=np.int64), spec("length", None, dtype=np.int64)]
    texts = [RNG.integers(0, 9, (count, length)) for count, length in ((1, 4), (3, 7), (1, 2))]
    for index, text in enumerate(texts):
        label = RNG.integers(0, 2, len(text))
        np.savez(tmp_path / f"{index:03}.npz", text=text, length=np.full(len(text), text.shape[1]), label=label)
    source = open_source(tmp_path, inputs)
    assert (source.count, source.labelled) == (5, True)
    for _ in range(2):
        found = list(source)
        rows = [row for text in texts for row in text]
        for sample, row in zip(found, rows, strict=True):
            np.testing.assert_array_equal(sample.inputs["text"], row)
            assert sample.inputs["length"] == len(row)
    assert found[3].name == f"{tmp_path.name}, 001.npz, sample 2"


def test_a_folder_of_npz_says_which_file_is_wrong(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 4), np.float32))
    np.savez(tmp_path / "b.npz", y=np.zeros((2, 3, 4), np.float32))
    with fails("b.npz: input 'x' is missing, it has 'y'"):
        open_source(tmp_path, [X])
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 3, 4), np.float32), label=np.zeros(2, np.int64))
    with fails("some files have labels and some have none"):
        open_source(tmp_path, [X])


def test_an_npz_beside_pictures_is_not_the_data(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "statistics.npz", mean=np.zeros(3))
    (sample,) = samples(tmp_path, spec("x", None, 3, 4, 4))
    assert sample.inputs["x"].shape == (3, 4, 4)
